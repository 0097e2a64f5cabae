package remedy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// System is a host that plans are carried out on. Read and Watch must be set;
// Defaults fills in the rest.
type System struct {
	// Root is where the host's files lie, "/" for the running host. The owner's
	// own programs (ufw, firewall-cmd) run with it as their root directory.
	Root string
	// State and Run are the directories beneath Root of journal and lock.
	State, Run string
	// Proc is where the kernel shows its settings.
	Proc string
	// Read takes a fresh reading of the host, in the network namespace of the
	// calling thread.
	Read func(context.Context) (*audit.Snapshot, error)
	// Watch undoes a change that was not confirmed when this process is gone.
	Watch Watchdog
	// Tool is the version of this program.
	Tool string
	// Login is the connection that this run came in over.
	Login Login
	// Say tells the operator something, one line. May be nil.
	Say func(format string, args ...any)
	// ToolTime bounds one run of another program, 0 means 30 s.
	ToolTime time.Duration
	// Poll is how often a waiting run looks at the journal, 0 means half a second.
	Poll time.Duration
	// Now is the wall clock, nil for time.Now.
	Now func() time.Time

	// at is the open journal, nil for none: programs that work for a change keep its
	// lock, too.
	at *store
}

// Defaults fills in what was left out.
func (s *System) Defaults() {
	if s.Root == "" {
		s.Root = "/"
	}
	if s.State == "" {
		s.State = "/var/lib/hostaudit"
	}
	if s.Run == "" {
		s.Run = "/run/hostaudit"
	}
	if s.Proc == "" {
		s.Proc = sysctl.ProcSys
	}
	if s.ToolTime == 0 {
		s.ToolTime = 30 * time.Second
	}
	if s.Poll == 0 {
		s.Poll = 500 * time.Millisecond
	}
	if s.Now == nil {
		s.Now = time.Now
	}
}

func (s *System) root() string { return s.Root }

func (s *System) say(format string, args ...any) {
	if s.Say != nil {
		s.Say(format, args...)
	}
}

// FirstNamespace says whether the calling thread is in the network namespace of
// process 1.
func FirstNamespace() (bool, error) {
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return false, fmt.Errorf("read own network namespace: %w", err)
	}
	first, err := os.Readlink("/proc/1/ns/net")
	if err != nil {
		return false, fmt.Errorf("read the network namespace of process 1: %w", err)
	}
	return own == first, nil
}

// bootID names the running kernel's start.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// netNS is the inode of the thread's network namespace.
func netNS() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("read own network namespace: %w", err)
	}
	return st.Ino, nil
}

// hostID is the id of the host, "" where it has none.
func (s *System) hostID() string {
	f, err := s.readFile("/etc/machine-id")
	if err != nil || f == nil {
		return ""
	}
	return strings.TrimSpace(string(f.data))
}

// sinceBoot is CLOCK_BOOTTIME: no one can set it, and it runs while the host
// sleeps.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// room refuses to begin where the journal could not be written.
func (st *store) room() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(st.state.fd, &fs); err != nil {
		return fmt.Errorf("look at the space of %s: %w", st.state.name, err)
	}
	if free := uint64(fs.Bavail) * uint64(fs.Bsize); free < 1<<20 {
		return fmt.Errorf("%s: only %d bytes are free, 1 MiB is needed", st.state.name, free)
	}
	return nil
}

// refused wraps an error of a time at which nothing had been changed.
func refused(err error) error {
	if errors.Is(err, ErrRefused) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}
