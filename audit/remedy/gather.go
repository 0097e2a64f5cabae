package remedy

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/firewall/owner"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// Gather reads what a plan is made of besides the snapshot: the files of the
// rulesets' owners, this program's own, and the operators' connections.
func (s *System) Gather(in *Input) error {
	in.Files, in.Present = map[string][]byte{}, map[string]bool{}
	names := append([]string{sysctl.DropInPath, sysctl.ModulesDropInPath}, owner.Paths()...)
	configurations, err := s.configurations(in.Snapshot)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnread, err)
	}
	for _, name := range append(names, configurations...) {
		f, err := s.readFile(name)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnread, err)
		}
		if f != nil {
			in.Files[name] = f.data
		}
	}
	if err := s.includes(in.Files); err != nil {
		return fmt.Errorf("%w: %w", ErrUnread, err)
	}
	for _, name := range owner.Links() {
		there, err := s.exists(name)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnread, err)
		}
		if there {
			in.Present[name] = true
		}
	}
	paths, err := s.operators(in.Snapshot)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnread, err)
	}
	in.Paths = paths
	return nil
}

// includes reads what the files of nft commands include, and what that includes.
func (s *System) includes(files map[string][]byte) error {
	const rounds = 3
	for range rounds {
		for _, name := range sorted(files) {
			if !strings.Contains(name, "nft") {
				continue
			}
			for _, pattern := range owner.Includes(files[name]) {
				names, err := s.match("/", strings.Split(strings.TrimPrefix(pattern, "/"), "/"))
				if err != nil {
					return err
				}
				for _, n := range names {
					f, err := s.readFile(n)
					if err != nil {
						return err
					}
					if f != nil {
						files[n] = f.data
					}
				}
			}
		}
	}
	return nil
}

// configurations are the files of the servers that listen, and the drop-ins of their
// units.
func (s *System) configurations(snap *audit.Snapshot) ([]string, error) {
	t := snap.World.Namespaces[0].Listeners
	if t == nil {
		return nil, nil
	}
	seen := map[string]bool{}
	var out []string
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	for i := range t.Listeners {
		for n := range t.Listeners[i].Owners {
			p := &t.Listeners[i].Owners[n]
			if u := string(p.Unit); unitForm().MatchString(u) {
				add(limitPath(u))
			}
			if srv := serverOf(p); srv != nil {
				for _, pattern := range srv.files {
					names, err := s.match("/", strings.Split(strings.TrimPrefix(pattern, "/"), "/"))
					if err != nil {
						return nil, err
					}
					for _, n := range names {
						add(n)
					}
				}
			}
		}
	}
	return out, nil
}

// match lists the plain files that a pattern names, component by component; links
// are not followed.
func (s *System) match(at string, parts []string) ([]string, error) {
	d, err := openDir(s.root(), at, false, 0, false)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := d.list()
	d.close()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range all {
		if ok, err := path.Match(parts[0], n); err != nil || !ok {
			continue
		}
		full := path.Join(at, n)
		if len(parts) > 1 {
			below, err := s.match(full, parts[1:])
			if err != nil {
				return nil, err
			}
			out = append(out, below...)
			continue
		}
		if plain, err := s.plain(full); err != nil {
			return nil, err
		} else if plain {
			out = append(out, full)
		}
	}
	return out, nil
}

// plain tells a plain file of a size that is read.
func (s *System) plain(name string) (bool, error) {
	d, err := openDir(s.root(), path.Dir(name), false, 0, false)
	if err != nil {
		return false, err
	}
	defer d.close()
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, nil // gone meanwhile
	}
	return st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size <= maxFile, nil
}

// exists looks for a name without following a link of that name.
func (s *System) exists(name string) (bool, error) {
	d, err := openDir(s.root(), path.Dir(name), false, 0, false)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer d.close()
	var st unix.Stat_t
	err = unix.Fstatat(d.fd, path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// operators are the connections of people at work: this run's own, and every
// established one to a port on which sshd listens (under tmux and screen the
// ancestors of this process are not the sshd it came by).
func (s *System) operators(snap *audit.Snapshot) ([]Path, error) {
	var out []Path
	ports := map[uint16]bool{}
	if p, ok := s.Login.path(); ok {
		ports[p.Port] = true
		out = append(out, p)
	}
	if t := snap.World.Namespaces[0].Listeners; t != nil {
		for i := range t.Listeners {
			l := &t.Listeners[i]
			if (l.Proto == listeners.TCP || l.Proto == listeners.MPTCP) && isSSH(l) {
				ports[l.Port()] = true
			}
		}
	}
	if len(ports) == 0 {
		return out, nil
	}
	all, err := established("/proc", ports)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.From.IsLoopback() {
			continue
		}
		known := false
		for _, o := range out {
			known = known || o == p
		}
		if !known {
			out = append(out, p)
		}
	}
	return out, nil
}

// isSSH tells an sshd, and the socket unit that starts one.
func isSSH(l *listeners.Listener) bool {
	for i := range l.Owners {
		switch p := &l.Owners[i]; {
		case p.Comm == "sshd", p.Comm == "dropbear", p.Unit == "ssh.service", p.Unit == "sshd.service", p.Unit == "ssh.socket", p.Unit == "sshd.socket":
			return true
		}
	}
	return false
}
