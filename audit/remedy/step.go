package remedy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/firewall/owner"
	"github.com/hostaudit/hostaudit/sysctl"
)

// Phase says when a step is carried out.
type Phase string

// Live steps change the kernel, and are verified; Persist steps write files once
// that is confirmed.
const (
	Live    Phase = "live"
	Persist Phase = "persist"
)

// Step is one thing to set: exactly one of its last four fields is there. Each
// holds the state before and after; the inverse is the swap.
type Step struct {
	Phase  Phase              `json:"phase"`
	Sysctl *sysctl.Change     `json:"sysctl,omitempty"`
	File   *FileChange        `json:"file,omitempty"`
	Rule   *owner.Insertion   `json:"rule,omitempty"`
	Tool   *owner.Instruction `json:"tool,omitempty"`
}

// FileChange is one file beneath the root before and after. A nil content is no
// file.
type FileChange struct {
	Path   string `json:"path"`
	Before []byte `json:"before"`
	After  []byte `json:"after"`
	// HasBefore and HasAfter tell an empty file from none.
	HasBefore bool `json:"has_before"`
	HasAfter  bool `json:"has_after"`
	// Check is what tells before the file is put in place that its reader takes
	// it: a program that gets the new content on its standard input.
	Check []string `json:"check,omitempty"`
	// CheckWith is what it gets instead, where the file is a part of something.
	CheckWith []byte `json:"check_with,omitempty"`
	// Reload is what makes the reader take it afterwards, nil for nothing.
	Reload []string `json:"reload,omitempty"`
}

// String names a step for people.
func (s *Step) String() string {
	switch {
	case s.Sysctl != nil:
		return fmt.Sprintf("%s = %s", s.Sysctl.Key, s.Sysctl.After)
	case s.File != nil:
		return s.File.Path
	case s.Rule != nil:
		return s.Rule.String()
	case s.Tool != nil:
		return s.Tool.String()
	}
	return "nothing"
}

// check refuses what no plan of this program holds: a journal is read from disk.
func (s *Step) check() error {
	n := 0
	if s.Sysctl != nil {
		n++
		if err := s.Sysctl.Key.CheckWritable(); err != nil {
			return err
		}
	}
	if s.File != nil {
		n++
		if !writableFile(s.File.Path) {
			return fmt.Errorf("%q is no file that this program writes", s.File.Path)
		}
	}
	if s.Rule != nil {
		n++
		if err := s.Rule.Check(); err != nil {
			return err
		}
	}
	if s.Tool != nil {
		n++
		if err := s.Tool.Check(); err != nil {
			return err
		}
	}
	if n != 1 {
		return fmt.Errorf("a step with %d parts", n)
	}
	if s.Phase != Live && s.Phase != Persist {
		return fmt.Errorf("bad phase %q", s.Phase)
	}
	return nil
}

// writableFile says whether this program ever writes a file of that name. A
// journal on disk must not steer it elsewhere.
func writableFile(p string) bool {
	if p != path.Clean(p) || !strings.HasPrefix(p, "/etc/") || strings.ContainsFunc(p, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return false
	}
	never := []string{"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/sudoers", "/etc/ld.so.preload", "/etc/crontab", "/etc/fstab"}
	dirs := []string{"/etc/sudoers.d/", "/etc/cron.d/", "/etc/pam.d/", "/etc/ssh/", "/etc/security/"}
	return !slices.Contains(never, p) && !slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(p, d) })
}

// position is where the subject of a step stands.
type position int

const (
	elsewhere position = iota // neither: somebody else changed it
	isBefore
	isAfter
)

// observe reads the host anew. what is the state in words, for elsewhere.
func (s *System) observe(ctx context.Context, st *Step) (p position, what string, err error) {
	switch {
	case st.Sysctl != nil:
		return s.observeSysctl(ctx, st.Sysctl)
	case st.File != nil:
		return s.observeFile(st.File)
	case st.Rule != nil:
		return s.observeRule(ctx, st.Rule)
	default:
		return s.observeTool(ctx, st.Tool)
	}
}

// set carries a step out (forward), or undoes it.
func (s *System) set(ctx context.Context, st *Step, forward bool) error {
	switch {
	case st.Sysctl != nil:
		c := *st.Sysctl
		if !forward {
			c = c.Inverse()
		}
		_, err := sysctl.Set(ctx, s.Proc, c.Key, valueToWrite(c))
		return err
	case st.File != nil:
		return s.setFile(ctx, st.File, forward)
	case st.Rule != nil:
		return s.setRule(ctx, st.Rule, forward)
	default:
		return s.setTool(ctx, st.Tool, forward)
	}
}

// valueToWrite is the form of a value that the kernel takes and CheckValue allows:
// live values are tab-separated.
func valueToWrite(c sysctl.Change) string {
	if e, ok := sysctl.Find(c.Key); ok {
		return e.Shape.Canonical(c.After)
	}
	return c.After
}

func (s *System) observeSysctl(ctx context.Context, c *sysctl.Change) (position, string, error) {
	values, err := sysctl.ReadValues(ctx, s.Proc, []sysctl.Key{c.Key})
	if err != nil {
		return elsewhere, "", err
	}
	v := values[c.Key]
	if v.State != sysctl.Present {
		return elsewhere, "", fmt.Errorf("read %s: %s", c.Key, v.Err)
	}
	equal := func(a, b string) bool { return a == b }
	if e, ok := sysctl.Find(c.Key); ok {
		equal = e.Shape.Equal
	}
	switch {
	case equal(v.Text, c.After):
		return isAfter, v.Text, nil
	case equal(v.Text, c.Before):
		return isBefore, v.Text, nil
	}
	return elsewhere, v.Text, nil
}

func (s *System) observeFile(c *FileChange) (position, string, error) {
	f, err := s.readFile(c.Path)
	if err != nil {
		return elsewhere, "", err
	}
	same := func(has bool, data []byte) bool {
		return has == (f != nil) && (f == nil || string(f.data) == string(data))
	}
	switch {
	case same(c.HasAfter, c.After):
		return isAfter, "", nil
	case same(c.HasBefore, c.Before):
		return isBefore, "", nil
	case f == nil:
		return elsewhere, "it is gone", nil
	}
	sum := sha256.Sum256(f.data)
	return elsewhere, "other content, SHA-256 " + hex.EncodeToString(sum[:8]) + "…", nil
}

// readFile reads a file beneath the root, nil where there is none.
func (s *System) readFile(name string) (*file, error) {
	d, err := openDir(s.root(), path.Dir(name), false, 0, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.close()
	f, err := d.read(path.Base(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

func (s *System) setFile(ctx context.Context, c *FileChange, forward bool) error {
	has, data := c.HasAfter, c.After
	if !forward {
		has, data = c.HasBefore, c.Before
	}
	if has && len(c.Check) > 0 && forward {
		text := data
		if c.CheckWith != nil {
			text = c.CheckWith
		}
		if _, err := s.run(ctx, c.Check, string(text)); err != nil {
			return fmt.Errorf("%s would not be taken: %w", c.Path, err)
		}
	}
	d, err := openDir(s.root(), path.Dir(c.Path), has, 0o755, false)
	if errors.Is(err, fs.ErrNotExist) && !has {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.close()
	name := path.Base(c.Path)
	if !has {
		err = d.remove(name)
	} else {
		var old *file
		if old, err = d.read(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if old != nil {
			err = d.write(name, data, 0, &old.stat)
		} else {
			err = d.write(name, data, 0o644, nil)
		}
	}
	if err != nil {
		return err
	}
	if len(c.Reload) > 0 {
		if _, err := s.run(ctx, c.Reload, ""); err != nil {
			return fmt.Errorf("reload after writing %s: %w", c.Path, err)
		}
	}
	return nil
}

// sweep takes away unfinished files that an interrupted run left.
func (s *System) sweep(steps []Step) error {
	var errs []error
	for i := range steps {
		f := steps[i].File
		if f == nil {
			continue
		}
		d, err := openDir(s.root(), path.Dir(f.Path), false, 0, false)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, d.unlink("."+path.Base(f.Path)+tempSuffix))
		d.close()
	}
	return errors.Join(errs...)
}
