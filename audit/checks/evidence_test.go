package checks_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// The rules that need evidence are held to conditions that are produced: real
// queues overflow, real ports run out, in namespaces of the laboratory, and the
// whole way from the kernel's counters to the finding is gone. Each has a twin in
// which the same traffic meets a healthy host, and nothing is said.
//
// proofs_test.go has the table: which test produces which finding, and why some
// are not produced.

// host is the server of a scenario, and what happens to it.
type host struct {
	*lab.Lab
	t *testing.T
	// root holds the configuration files.
	root string
}

func newHost(t *testing.T, topology lab.Topology) *host {
	t.Helper()
	h := &host{Lab: lab.New(t, topology), t: t, root: t.TempDir()}
	// The laboratory raises these; a host has them as the kernel does.
	h.Server.Sysctl(t, "net.ipv4.tcp_max_syn_backlog", "1024", "net.core.somaxconn", "4096")
	return h
}

// file writes one of the host's files.
func (h *host) file(name, text string) {
	h.t.Helper()
	name = filepath.Join(h.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// scan reads the server. during happens between the two readings of the
// counters, whole.
func (h *host) scan(during func()) *audit.Report {
	h.t.Helper()
	var once sync.Once
	o := collect.Options{Sample: 300 * time.Millisecond, Root: h.root, Progress: func(part string) {
		if part != "host" && part != "counters" { // the first reading is over
			once.Do(func() {
				if during != nil {
					during()
				}
			})
		}
	}}
	var snap *audit.Snapshot
	h.Server.Do(func() {
		var err error
		if snap, err = collect.Host(h.t.Context(), o); err != nil {
			h.t.Error(err)
		}
	})
	if snap == nil {
		h.t.FailNow()
	}
	if len(snap.Samples) != 2 {
		h.t.Fatalf("%d samples, gaps %v", len(snap.Samples), snap.Gaps)
	}
	return audit.Run(snap, &audit.Config{}, checks.All())
}

// ours are the findings that the sysctl catalogue makes. Control groups are the
// machine's: those of TestTasksExhausted and TestKilledForMemory are seen by the
// tests beside them.
func ours(t *testing.T, r *audit.Report) []audit.Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f audit.Finding) bool {
		if f.ID == "limits.tasks-exhausted" && t.Name() != "TestTasksExhausted" || f.ID == "limits.killed-for-memory" && t.Name() != "TestKilledForMemory" {
			return true
		}
		return !strings.HasPrefix(f.ID, "sysctl.") && !strings.HasPrefix(f.ID, "limits.") && !strings.HasPrefix(f.ID, "device.")
	})
}

// want finds the one finding that a scenario is about, and lets besides be said.
func want(t *testing.T, r *audit.Report, severity audit.Severity, id, subject string, besides ...string) audit.Finding {
	t.Helper()
	var got audit.Finding
	for _, f := range ours(t, r) {
		switch {
		case f.ID == id && f.Subject == subject:
			got = f
			if f.Severity != severity {
				t.Errorf("%s %s is %s, want %s: %v", id, subject, f.Severity, severity, f.Evidence)
			}
		case f.ID != id && !slices.Contains(besides, f.ID):
			t.Errorf("said besides: %s %s: %s %v", f.ID, f.Subject, f.Title, f.Evidence)
		}
	}
	if got.ID == "" {
		t.Fatalf("%s %s is missing among %v; checks that could not tell: %v", id, subject, ids(r), unsure(r))
	}
	if c := audit.Find(checks.All(), id); c == nil || got.Severity == audit.Critical && c.Severity != audit.Critical {
		t.Errorf("%s is %s, and `hostaudit checks` says otherwise", id, got.Severity)
	}
	if len(got.Evidence) == 0 || got.Why == "" || got.Remedy == "" {
		t.Errorf("incomplete: %+v", got)
	}
	return got
}

// silent is the healthy twin: nothing is said, and the rule was not silent for
// want of facts.
func silent(t *testing.T, r *audit.Report, check string) {
	t.Helper()
	for _, f := range ours(t, r) {
		t.Errorf("said of a healthy host: %s %s: %s %v", f.ID, f.Subject, f.Title, f.Evidence)
	}
	for _, c := range r.Checks {
		if c.ID == check && c.Status != audit.Passed {
			t.Errorf("%s: %s %v", check, c.Status, c.Unsure)
		}
	}
}

func ids(r *audit.Report) (out []string) {
	for _, f := range r.Findings {
		out = append(out, f.ID+" "+f.Subject)
	}
	return out
}

func unsure(r *audit.Report) (out []string) {
	for _, c := range r.Checks {
		for _, u := range c.Unsure {
			out = append(out, u.Subject+": "+u.Why)
		}
	}
	return out
}

func evidence(t *testing.T, f audit.Finding, source, part string) {
	t.Helper()
	if !slices.ContainsFunc(f.Evidence, func(e audit.Evidence) bool { return e.Source == source && strings.Contains(e.Value, part) }) {
		t.Errorf("%s: no evidence %q with %q in %v", f.ID, source, part, f.Evidence)
	}
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// dial connects from the namespace and leaves the socket open; the error is the
// socket's, EINPROGRESS counts as none where patience is 0.
func dial(n *lab.Namespace, from netip.AddrPort, to netip.AddrPort, patience time.Duration) (fd int, err error) {
	n.Do(func() {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return
		}
		if from.IsValid() {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: from.Addr().As4(), Port: int(from.Port())}); err != nil {
				return
			}
		}
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		if !errors.Is(err, unix.EINPROGRESS) {
			return
		}
		if err = nil; patience == 0 {
			return
		}
		if err = await(fd, unix.POLLOUT, patience); err != nil {
			return
		}
		if code, e := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); e != nil || code != 0 {
			err = unix.Errno(code)
		}
	})
	if err != nil && fd > 0 {
		unix.Close(fd)
	}
	return fd, err
}

const patience = time.Minute

// await waits until a descriptor is ready.
func await(fd int, events int16, patience time.Duration) error {
	for end := time.Now().Add(patience); ; {
		left := time.Until(end)
		if left <= 0 {
			return unix.ETIMEDOUT
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 && err == nil {
			return nil
		}
	}
}

// hold opens n connections and keeps them until the test ends.
func (h *host) hold(from *lab.Namespace, to netip.AddrPort, n int) {
	h.t.Helper()
	for i := range n {
		fd, err := dial(from, netip.AddrPort{}, to, patience)
		if err != nil {
			h.t.Fatalf("connection %d of %d to %v: %v", i+1, n, to, err)
		}
		h.t.Cleanup(func() { unix.Close(fd) })
	}
}

// visit opens n connections one after the other and closes each first, so that
// its port is in TIME_WAIT on this side.
func (h *host) visit(from *lab.Namespace, to netip.AddrPort, n int) error {
	h.t.Helper()
	for i := range n {
		fd, err := dial(from, netip.AddrPort{}, to, patience)
		if err != nil {
			return fmt.Errorf("connection %d of %d to %v: %w", i+1, n, to, err)
		}
		// Once the other side has followed, the port is in TIME_WAIT.
		if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
			return err
		}
		if err := await(fd, unix.POLLIN, patience); err != nil {
			return fmt.Errorf("connection %d of %d to %v does not end: %w", i+1, n, to, err)
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

// echo listens in a namespace and closes, without haste, what its clients have
// closed: the laboratory's own listeners reset, which leaves no TIME_WAIT.
func echo(t *testing.T, n *lab.Namespace, addr string) {
	t.Helper()
	n.Serve(t, "tcp4", addr, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
}

// none lets the kernel choose.
var none netip.AddrPort

// fill opens connections until the server has no port left for one more.
func (h *host) fill(to netip.AddrPort) (fds []int) {
	h.t.Helper()
	for range 1000 {
		fd, err := dial(h.Server, none, to, patience)
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return fds
		}
		if err != nil {
			h.t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	h.t.Fatal("the range has no end")
	return nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(fd)
	}
}

// recommended is the value that a finding's remedy names for a key.
func recommended(t *testing.T, f audit.Finding, key string) string {
	t.Helper()
	_, value, ok := strings.Cut(f.Remedy, key+" = ")
	if !ok {
		t.Fatalf("%s recommends no %s: %q", f.ID, key, f.Remedy)
	}
	value, _, _ = strings.Cut(value, ";")
	return value
}

func recommends(f audit.Finding, key string) bool { return strings.Contains(f.Remedy, key+" = ") }

// missing skips a test for want of something, or fails it in CI.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("MISSING (CI=true): %s", why)
	}
	t.Skipf("SKIPPED, missing here: %s", why)
}

// command runs a program without the environment of the laboratory.
func command(argv ...string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }

func itoa(n int) string { return strconv.Itoa(n) }
