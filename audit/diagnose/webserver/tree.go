package webserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What is read of one configuration at most.
const (
	maxFileBytes = 4 << 20
	maxBytes     = 16 << 20
	maxFiles     = 1000
	maxEntries   = 10_000 // of a directory
	maxDepth     = 32     // of includes and of blocks
	maxItems     = 200_000
)

var errTooMuch = errors.New("more than is read of a configuration")

// tree reads files below one root and keeps account of what it read. Links are
// resolved inside the root (openat2(2), RESOLVE_IN_ROOT) and never leave it.
type tree struct {
	ctx   context.Context
	root  int // O_PATH
	dir   string
	bytes int64
	files map[string]bool
	in    []string // those that are being read, each included by the one before
	items int
	// changed is when the newest of the files and directories read was changed,
	// and newest its name.
	changed time.Time
	newest  string
}

func openTree(ctx context.Context, dir string) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return &tree{ctx: ctx, root: fd, dir: dir, files: map[string]bool{}}, nil
}

func (t *tree) close() { unix.Close(t.root) }

func (t *tree) open(name string, flags int) (*os.File, error) {
	if err := t.ctx.Err(); err != nil {
		return nil, err
	}
	how := uint64(flags) | unix.O_CLOEXEC
	if flags&unix.O_PATH == 0 {
		how |= unix.O_NONBLOCK | unix.O_NOCTTY
	}
	name = cmpOr(strings.TrimLeft(path.Clean("/"+name), "/"), ".")
	fd, err := unix.Openat2(t.root, name, &unix.OpenHow{
		Flags:   how,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOSYS) { // before Linux 5.6: links that leave the root are refused
		r, err := os.OpenRoot(t.dir)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return r.OpenFile(name, int(how), 0) //nolint:gosec // flags
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// note keeps the time of the last change: the inode's, which no tool sets back.
func (t *tree) note(name string, f *os.File, contents bool) {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return
	}
	at := time.Unix(st.Ctim.Unix())
	if !contents { // of a directory: an entry came or went
		at = time.Unix(st.Mtim.Unix())
	}
	if at.After(t.changed) {
		t.changed, t.newest = at, name
	}
}

// read gives a whole regular file.
func (t *tree) read(name string) ([]byte, error) {
	if t.files[name] = true; len(t.files) > maxFiles {
		return nil, fmt.Errorf("%s: %w: %d files", name, errTooMuch, maxFiles)
	}
	f, err := t.plain(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if err := t.took(len(b)); err != nil || len(b) > maxFileBytes {
		return nil, fmt.Errorf("%s: %w", name, cmpErr(err, errTooMuch))
	}
	t.note(name, f, true)
	return b, nil
}

// begin reads a file that another one may include; end is called once what it
// includes was read as well.
func (t *tree) begin(name string) ([]byte, error) {
	if slices.Contains(t.in, name) {
		return nil, fmt.Errorf("%s: includes itself", name)
	}
	if len(t.in) >= maxDepth {
		return nil, fmt.Errorf("%s: %w: includes %d deep", name, errTooMuch, maxDepth)
	}
	b, err := t.read(name)
	if err == nil {
		t.in = append(t.in, name)
	}
	return b, err
}

func (t *tree) end() { t.in = t.in[:len(t.in)-1] }

// plain opens a regular file of a disk, and nothing else: to open a device or a
// pipe, or to read a file that a driver makes up (/proc/kmsg), can do something.
func (t *tree) plain(name string) (*os.File, error) {
	f, err := t.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	var on unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &on); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || slices.Contains(madeUp, int64(on.Type)) { //nolint:unconvert // 32 bits wide on some machines
		return nil, fmt.Errorf("%s: is no plain file", name)
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// madeUp are file systems whose files are the kernel's answers.
var madeUp = []int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC}

// took counts text that was read, or that grew by filling in what variables hold,
// and says when it is too much.
func (t *tree) took(n int) error {
	if t.bytes += int64(max(n, 0)); t.bytes > maxBytes {
		return fmt.Errorf("%w: %d MiB", errTooMuch, maxBytes>>20)
	}
	return nil
}

func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// list gives the names in a directory, sorted.
func (t *tree) list(dir string) ([]string, error) {
	f, err := t.open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) > maxEntries {
		return nil, fmt.Errorf("%s: %w: %d entries of a directory", dir, errTooMuch, maxEntries)
	}
	t.note(dir, f, false)
	slices.Sort(names)
	return names, nil
}

// is tells what a name leads to: a directory, something else, or nothing.
func (t *tree) is(name string) (dir, there bool) {
	f, err := t.open(name, unix.O_PATH)
	if err != nil {
		return false, false
	}
	defer f.Close()
	st, err := f.Stat()
	return err == nil && st.IsDir(), true
}

// absent tells that a name leads nowhere; false where that cannot be looked at, and
// for a name that begins where the process stands.
func (t *tree) absent(name string) bool {
	if !path.IsAbs(name) {
		return false
	}
	f, err := t.open(name, unix.O_PATH)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	f.Close()
	return false
}

func magic(s string) bool { return strings.ContainsAny(s, `*?[`) }

// named are the files that an include names: one, or those of a pattern.
func (t *tree) named(pattern string) ([]string, error) {
	if !magic(pattern) {
		return []string{pattern}, nil
	}
	return t.glob(pattern)
}

// glob expands a pattern of absolute path as glob(3) does, sorted: * and ? match
// no dot at the beginning of a name.
func (t *tree) glob(pattern string) ([]string, error) {
	found := []string{""}
	parts := strings.Split(strings.Trim(path.Clean(pattern), "/"), "/")
	for i, part := range parts {
		var next []string
		for _, base := range found {
			if !magic(part) {
				if _, there := t.is(base + "/" + part); there || !magic(pattern) {
					next = append(next, base+"/"+part)
				}
				continue
			}
			names, err := t.list(base)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
				continue
			}
			if err != nil {
				return nil, err
			}
			for _, n := range names {
				ok, err := path.Match(part, n)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", pattern, err)
				}
				if !ok || strings.HasPrefix(n, ".") && !strings.HasPrefix(part, ".") {
					continue
				}
				if i < len(parts)-1 {
					if dir, _ := t.is(base + "/" + n); !dir {
						continue
					}
				}
				if next = append(next, base+"/"+n); len(next) > maxEntries {
					return nil, fmt.Errorf("%s: %w: %d names", pattern, errTooMuch, maxEntries)
				}
			}
		}
		found = next
	}
	return found, nil
}

// item counts what was understood, and says when it is too much.
func (t *tree) item() error {
	if t.items++; t.items > maxItems {
		return fmt.Errorf("%w: %d directives", errTooMuch, maxItems)
	}
	if t.items%1024 == 0 {
		return t.ctx.Err()
	}
	return nil
}

func cmpOr(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
