package listeners

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const childMark = "LISTENERS_TEST_CHILD"

// TestMain runs the whole binary again in network and mount namespaces of its
// own (and a user namespace when not root), so that no test sees or touches the
// machine's sockets.
func TestMain(m *testing.M) {
	flag.Parse()
	fuzzing := flag.Lookup("test.fuzz").Value.String() != "" || flag.Lookup("test.fuzzworker").Value.String() == "true"
	if role := os.Getenv("LISTENERS_TEST_ROLE"); role != "" {
		playRole(role)
	}
	if fuzzing || os.Getenv(childMark) != "" {
		if !fuzzing {
			if err := linkUp("lo"); err != nil {
				fmt.Fprintln(os.Stderr, "set lo up:", err)
				os.Exit(1)
			}
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), childMark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "namespaces for the tests:", err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// linkUp sets an interface up in the calling thread's network namespace.
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// missing skips a test for want of something, or fails it in CI, where nothing
// may be missing.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing in CI: "+format, args...)
	}
	t.Skipf(format, args...)
}

// sock is a socket of a test, made by hand to control every option.
type sock struct {
	fd    int
	inode uint32
	addr  net.IP
	port  int
}

func newSock(t testing.TB, family, typ, proto int) *sock {
	t.Helper()
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		t.Fatalf("socket(%d, %d, %d): %v", family, typ, proto, err)
	}
	s := &sock{fd: fd}
	t.Cleanup(s.close)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	s.inode = uint32(st.Ino)
	return s
}

func (s *sock) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

func (s *sock) opt(t testing.TB, level, name, value int) *sock {
	t.Helper()
	if err := unix.SetsockoptInt(s.fd, level, name, value); err != nil {
		t.Fatalf("setsockopt(%d, %d, %d): %v", level, name, value, err)
	}
	return s
}

func (s *sock) bind(t testing.TB, addr string, port int) *sock {
	t.Helper()
	ip := net.ParseIP(addr)
	var sa unix.Sockaddr
	domain, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		t.Fatal(err)
	}
	if domain == unix.AF_INET {
		sa = &unix.SockaddrInet4{Port: port, Addr: [4]byte(ip.To4())}
	} else {
		sa = &unix.SockaddrInet6{Port: port, Addr: [16]byte(ip.To16())}
	}
	if err := unix.Bind(s.fd, sa); err != nil {
		t.Fatalf("bind %s:%d: %v", addr, port, err)
	}
	got, err := unix.Getsockname(s.fd)
	if err != nil {
		t.Fatal(err)
	}
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		s.port = got.Port
	case *unix.SockaddrInet6:
		s.port = got.Port
	}
	s.addr = ip
	return s
}

func (s *sock) listen(t testing.TB, backlog int) *sock {
	t.Helper()
	if err := unix.Listen(s.fd, backlog); err != nil {
		t.Fatalf("listen: %v", err)
	}
	return s
}

func tcpListener(t testing.TB, addr string, port int) *sock {
	t.Helper()
	family := unix.AF_INET
	if net.ParseIP(addr).To4() == nil {
		family = unix.AF_INET6
	}
	return newSock(t, family, unix.SOCK_STREAM, 0).opt(t, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1).bind(t, addr, port).listen(t, 16)
}

func openLive(t testing.TB) *Live {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	live, err := OpenLive("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { live.Close() })
	return live
}

// readTable reads the listeners of the test's namespace; any gap is a failure.
func readTable(t testing.TB) *Table {
	t.Helper()
	table, err := Read(t.Context(), openLive(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Gaps) > 0 {
		t.Fatalf("gaps: %v", table.Gaps)
	}
	return table
}

func byInode(t testing.TB, table *Table, inode uint32) *Listener {
	t.Helper()
	var found *Listener
	for i := range table.Listeners {
		if table.Listeners[i].Inode == inode {
			if found != nil {
				t.Fatalf("inode %d listed twice: %+v and %+v", inode, *found, table.Listeners[i])
			}
			found = &table.Listeners[i]
		}
	}
	if found == nil {
		t.Fatalf("inode %d is not in the list of %d", inode, len(table.Listeners))
	}
	return found
}

// playRole makes the test binary something else: a child process of a test.
func playRole(role string) {
	var err error
	switch role {
	case "nothing":
	case "sleep": // until the parent closes our standard input
		err = untilClosed(os.Stdin)
	case "setuid": // another effective user than the real one, and not dumpable
		err = errors.Join(syscall.Setresuid(65531, 65532, 65533), unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
		fmt.Println("ready")
		err = errors.Join(err, untilClosed(os.Stdin))
	case "unprivileged":
		err = readUnprivileged()
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func untilClosed(r io.Reader) error {
	_, err := r.Read(make([]byte, 1))
	if err == io.EOF {
		return nil
	}
	return err
}

func dup(t testing.TB, fd int) uintptr {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return uintptr(n)
}
