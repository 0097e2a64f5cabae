package remedy

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

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
	for _, name := range append([]string{sysctl.DropInPath, sysctl.ModulesDropInPath}, owner.Paths()...) {
		f, err := s.readFile(name)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnread, err)
		}
		if f != nil {
			in.Files[name] = f.data
		}
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
			if l.Proto == listeners.TCP && isSSH(l) {
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
