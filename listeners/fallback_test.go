package listeners

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Without sock_diag the same listeners come from /proc, and each says what that
// source cannot tell.
func TestReadFallsBackToProc(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "0.0.0.0", "::", "::1"} {
		tcpListener(t, addr, 0)
	}
	c := tcpListener(t, "127.0.0.1", 0)
	dial(t, c, nil) // a connection behind the listeners must not confuse
	newSock(t, unix.AF_INET, unix.SOCK_DGRAM, 0).bind(t, "127.0.0.1", 0)
	newSock(t, unix.AF_INET6, unix.SOCK_DGRAM, 0).bind(t, "::", 0)
	newSock(t, unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
	live := openLive(t)
	read := func(src Source) *Table {
		table, err := Read(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	// Sockets of an earlier test may still be on their way out: compare with a
	// reading that is the same before and after.
	want := read(live)
	got := read(procOnly{live})
	for range 100 {
		after := read(live)
		if slices.Equal(after.Inodes(), want.Inodes()) {
			break
		}
		want, got = after, read(procOnly{live})
	}
	if len(got.Gaps) > 0 || len(got.Fallbacks) < 2 {
		t.Errorf("gaps %v, fallbacks %v", got.Gaps, got.Fallbacks)
	}
	if len(want.Listeners) != len(got.Listeners) || len(want.Listeners) < 8 {
		t.Fatalf("%d listeners by sock_diag, %d from /proc", len(want.Listeners), len(got.Listeners))
	}
	for i := range want.Listeners {
		w, g := want.Listeners[i], got.Listeners[i]
		if w.Proto != g.Proto || w.Local != g.Local || w.UID != g.UID || w.Inode != g.Inode || w.Accept.Len != g.Accept.Len {
			t.Errorf("%+v from /proc, want %+v", g, w)
		}
		if g.Tells(FactLimit) || g.Tells(FactDevice) || g.Local.Addr().Is6() && g.Tells(FactV6Only) {
			t.Errorf("claims to know: %+v", g)
		}
		if g.Local.Addr().Is6() && g.Local.Addr().IsUnspecified() && g.Scope(nil).Kind != ScopeAnyV6Unclear {
			t.Errorf("scope %+v", g.Scope(nil))
		}
	}
}

// A source without anything is all gaps, not an empty host.
type nothing struct{ procOnly }

func (nothing) NetFile(_ context.Context, name string) ([]byte, error) {
	return nil, fmt.Errorf("open %s: %w", name, unix.EACCES)
}

func TestReadNothingIsGaps(t *testing.T) {
	table, err := Read(t.Context(), nothing{procOnly{openLive(t)}})
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Listeners) != 0 || len(table.Gaps) < 4 {
		t.Errorf("%d listeners, gaps %v", len(table.Listeners), table.Gaps)
	}
}

// The answer of a user without privilege.
type unprivileged struct {
	Listeners []Listener
	Owners    *Owners
	Gaps      []Gap
	// Namespaces are the gaps in the list of network namespaces.
	Namespaces []Gap
}

func readUnprivileged() error {
	live, err := OpenLive("")
	if err != nil {
		return err
	}
	table, err := Read(context.Background(), live)
	if err != nil {
		return err
	}
	proc := os.Getenv("LISTENERS_TEST_PROC")
	o, err := ReadOwners(context.Background(), table.Inodes(), OwnerOptions{Proc: proc})
	if err != nil {
		return err
	}
	o.Assign(table.Listeners)
	n, err := ReadNamespaces(context.Background(), proc, nil)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(unprivileged{table.Listeners, o, append(table.Gaps, o.Gaps...), n.Gaps})
}

// Run by nobody, every listener is still shown, its own with its owner, the
// others with the reason why there is none.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "needs root to become another user")
	}
	ours := tcpListener(t, "127.0.0.1", 0)
	theirs := tcpListener(t, "127.0.0.1", 0)
	bin := reachable(t, t.TempDir()) + "/test"
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	// procfs shows processes of others by default, shows them and gives nothing of
	// them, or hides them.
	for _, hidepid := range []string{"", "noaccess", "invisible", "ptraceable"} {
		t.Run("hidepid="+hidepid, func(t *testing.T) {
			proc := ""
			if hidepid != "" {
				proc = reachable(t, t.TempDir())
				if err := unix.Mount("proc", proc, "proc", 0, "hidepid="+hidepid); err != nil {
					missing(t, "procfs with hidepid=%s: %v", hidepid, err)
				}
				t.Cleanup(func() { unix.Unmount(proc, unix.MNT_DETACH) })
			}
			asNobody(t, bin, proc, ours, theirs)
		})
	}
}

// reachable lets everybody come to a temporary directory.
func reachable(t *testing.T, dir string) string {
	t.Helper()
	for at := dir; at != "/tmp" && at != "/"; at = at[:max(1, strings.LastIndexByte(at, '/'))] {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func asNobody(t *testing.T, bin, proc string, ours, theirs *sock) {
	cmd := exec.Command(bin)
	cmd.Env = []string{"LISTENERS_TEST_ROLE=unprivileged", "LISTENERS_TEST_PROC=" + proc}
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(dup(t, theirs.fd), "listener")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.Output()
	if err != nil {
		missing(t, "run as nobody: %v", err)
	}
	var got unprivileged
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	table := &Table{Listeners: got.Listeners}
	o, h := byInode(t, table, ours.inode), byInode(t, table, theirs.inode)
	if len(o.Owners) != 0 || o.Unowned != NoPrivilege || o.Tells(FactMark) {
		t.Errorf("a listener of root's: %+v", *o)
	}
	if len(h.Owners) != 1 || h.Owners[0].PID != cmd.Process.Pid || h.Owners[0].UID != 65534 || h.Owners[0].User != "nobody" {
		t.Errorf("its own listener: %+v", *h)
	}
	if len(got.Owners.Gaps) == 0 || len(got.Namespaces) == 0 {
		t.Errorf("denied %d, gaps %v, of the namespaces %v", got.Owners.Denied, got.Gaps, got.Namespaces)
	}
}
