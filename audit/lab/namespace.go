package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is one host of the laboratory: a network namespace of its own.
type Namespace struct {
	// Name is how the topology calls it: client, server, container0 ….
	Name string
	// Path is the file that names the namespace (/run/netns/NAME, so that
	// `ip netns` finds it), or "" for one that has none.
	Path string

	fd       int
	links    *netlink.Handle
	recorder *recorder
}

// newNamespace makes an empty network namespace with lo up.
func newNamespace(name string) (*Namespace, error) {
	n := &Namespace{Name: name, fd: -1}
	made := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, so that no other
		// goroutine runs in the new namespace by accident.
		runtime.LockOSThread()
		made <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("make network namespace %s: %w", name, err)
			}
			fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open network namespace %s: %w", name, err)
			}
			n.fd = fd
			return nil
		}()
	}()
	if err := <-made; err != nil {
		return nil, err
	}
	handle, err := netlink.NewHandleAt(netns.NsHandle(n.fd))
	if err != nil {
		n.close()
		return nil, fmt.Errorf("open netlink in %s: %w", name, err)
	}
	n.links = handle
	lo, err := handle.LinkByName("lo")
	if err == nil {
		err = handle.LinkSetUp(lo)
	}
	if err != nil {
		n.close()
		return nil, fmt.Errorf("set lo up in %s: %w", name, err)
	}
	return n, nil
}

// bind gives the namespace the name that `ip netns` knows it by.
func (n *Namespace) bind(name string) error {
	path := filepath.Join("/run/netns", name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", n.fd), path, "", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return fmt.Errorf("bind %s: %w", path, err)
	}
	n.Path = path
	return nil
}

// close releases the namespace; the kernel takes it down when the last socket
// and process in it are gone.
func (n *Namespace) close() {
	if n.links != nil {
		n.links.Close()
	}
	if n.Path != "" {
		_ = unix.Unmount(n.Path, unix.MNT_DETACH)
		_ = os.Remove(n.Path)
	}
	if n.fd >= 0 {
		_ = unix.Close(n.fd)
	}
	n.fd = -1
}

// Do runs f on this goroutine with its thread inside the namespace. Sockets
// opened by f, and processes started by it, stay in the namespace; new
// goroutines that f starts do not. Inside, read /proc/thread-self/net, not
// /proc/net. It panics when the namespace cannot be entered.
func (n *Namespace) Do(f func()) {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		panic(fmt.Sprintf("lab: open own network namespace: %v", err))
	}
	defer unix.Close(home)
	if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
		panic(fmt.Sprintf("lab: enter network namespace %s: %v", n.Name, err))
	}
	defer func() {
		if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
			// The thread stays locked and ends with this goroutine.
			panic(fmt.Sprintf("lab: leave network namespace %s: %v", n.Name, err))
		}
		runtime.UnlockOSThread()
	}()
	f()
}

// FD returns the open file of the namespace, for setns(2) and for netlink
// requests that name a namespace. It stays the namespace's own.
func (n *Namespace) FD() int { return n.fd }

// Inode returns the number of the namespace as /proc/PID/ns/net shows it.
func (n *Namespace) Inode() uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		panic(fmt.Sprintf("lab: fstat network namespace %s: %v", n.Name, err))
	}
	return st.Ino
}

// Netlink returns a handle whose requests are answered by the namespace, for
// links, addresses, routes and rules beyond those of the topology.
func (n *Namespace) Netlink() *netlink.Handle { return n.links }

// Start starts cmd inside the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	var err error
	n.Do(func() { err = cmd.Start() })
	return err
}

// execTimeout ends a program that does not come back.
const execTimeout = 60 * time.Second

// Exec runs a program inside the namespace, without a shell, and returns its
// stdout. An exit status other than 0 is an error that ends in its stderr.
func (n *Namespace) Exec(ctx context.Context, stdin string, argv ...string) (stdout string, err error) {
	if len(argv) == 0 {
		return "", errors.New("nothing to execute")
	}
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := n.Start(cmd); err != nil {
		return "", fmt.Errorf("%s in %s: %w", strings.Join(argv, " "), n.Name, err)
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s in %s: %w: %s", strings.Join(argv, " "), n.Name, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Run is Exec for a test that cannot go on without the program's success.
func (n *Namespace) Run(t testing.TB, argv ...string) (stdout string) {
	t.Helper()
	out, err := n.Exec(t.Context(), "", argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Sysctl sets net.* keys of the namespace, given as key, value, key, value. Any
// other key is refused, since it would be the machine's. Interface names with
// dots need the form with slashes: net/ipv4/conf/eth0.100/rp_filter.
func (n *Namespace) Sysctl(t testing.TB, keyValues ...string) {
	t.Helper()
	if len(keyValues)%2 != 0 {
		t.Fatalf("sysctl: %d strings are no pairs", len(keyValues))
	}
	for i := 0; i < len(keyValues); i += 2 {
		if err := n.setSysctl(keyValues[i], keyValues[i+1]); err != nil {
			t.Fatal(err)
		}
	}
}

// setSysctl writes one net.* key.
func (n *Namespace) setSysctl(key, value string) error {
	path := key
	if !strings.Contains(key, "/") {
		path = strings.ReplaceAll(key, ".", "/")
	}
	if path = filepath.Clean(path); !strings.HasPrefix(path, "net/") {
		return fmt.Errorf("sysctl %s is not of this namespace", key)
	}
	var err error
	n.Do(func() { err = os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0) })
	return err
}

// ReadFile reads a file with the thread inside the namespace, for paths such as
// /proc/thread-self/net/tcp and /proc/sys/net/….
func (n *Namespace) ReadFile(path string) (data []byte, err error) {
	n.Do(func() { data, err = os.ReadFile(path) })
	return data, err
}
