package collect

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

const roleVar = "COLLECT_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		play(role)
	}
	lab.Main(m)
}

// play makes the test binary something else: a child process of a test.
func play(role string) {
	switch role {
	case "sleep": // until the parent closes our stdin
		var b [1]byte
		_, _ = os.Stdin.Read(b[:])
	case "read": // reads the host of BenchmarkSmallHost and fails where it was not all read
		s, err := Host(context.Background(), Options{Quick: true})
		if err != nil || home(s).Ruleset == nil || len(home(s).Listeners.Listeners) < 50 {
			fmt.Fprintln(os.Stderr, "not a whole reading:", err)
			os.Exit(1)
		}
	case "host": // reads the host and tells what it got
		s, err := Host(context.Background(), Options{Quick: true})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		err = json.NewEncoder(os.Stdout).Encode(told{Meta: s.Meta, Gaps: gapsToJSON(s.Gaps), Unread: s.World.Namespaces[0].Unread,
			Listeners: s.World.Namespaces[0].Listeners, Routes: s.World.Namespaces[0].Route != nil, Rules: s.World.Namespaces[0].Ruleset != nil, Sysctls: len(s.Sysctls)})
		if err != nil {
			os.Exit(1)
		}
	}
	os.Exit(0)
}

type told struct {
	Meta      audit.Meta
	Gaps      []gapJSON
	Unread    map[string]string
	Listeners *listeners.Table
	Routes    bool
	Rules     bool
	Sysctls   int
}

func ask(t *testing.T, cmd *exec.Cmd) told {
	t.Helper()
	cmd.Env = append(os.Environ(), roleVar+"=host")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got told
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// missing skips a test for want of something, or fails it in CI.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("MISSING (CI=true): "+format, args...)
	}
	t.Skipf("SKIPPED, missing here: "+format, args...)
}

// realRoot tells root of the machine from root of a user namespace.
func realRoot() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(b))
	return err == nil && os.Geteuid() == 0 && len(f) >= 3 && f[0] == "0" && f[1] == "0" && len(f[2]) > 5
}

// needRoot is for what no user namespace has: BPF and other namespaces' owners.
func needRoot(t testing.TB) {
	t.Helper()
	if !realRoot() {
		missing(t, "real root")
	}
}

// hostIn reads the host in a namespace of the laboratory.
func hostIn(t testing.TB, n *lab.Namespace, o Options) (s *audit.Snapshot) {
	t.Helper()
	o.Quick = true
	n.Do(func() {
		var err error
		if s, err = Host(t.Context(), o); err != nil {
			t.Error(err)
		}
	})
	if s == nil {
		t.FailNow()
	}
	return s
}

func home(s *audit.Snapshot) *reach.Namespace { return s.World.Namespaces[0] }

func namespaceOf(s *audit.Snapshot, inode uint64) *reach.Namespace {
	for _, ns := range s.World.Namespaces {
		if ns.ID == inode {
			return ns
		}
	}
	return nil
}

func listener(ns *reach.Namespace, port uint16) *listeners.Listener {
	if ns == nil || ns.Listeners == nil {
		return nil
	}
	for i := range ns.Listeners.Listeners {
		if l := &ns.Listeners.Listeners[i]; l.Port() == port {
			return l
		}
	}
	return nil
}

func anyAddr(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), port) }

// sleeper is another process, in the network namespace of the calling thread or
// one of its own.
func sleeper(t testing.TB, flags uintptr) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"=sleep")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	return cmd
}
