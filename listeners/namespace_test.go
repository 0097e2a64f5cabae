package listeners

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// child is another process of the test, in namespaces of its own if asked.
func child(t testing.TB, flags uintptr, files ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LISTENERS_TEST_ROLE=sleep")
	// No Pdeathsig: it goes by the thread, and these tests use threads up. The
	// child ends when its standard input does.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endChild(in, cmd) })
	return cmd
}

func endChild(in io.Closer, cmd *exec.Cmd) {
	in.Close()
	cmd.Wait()
}

func TestOtherNamespaces(t *testing.T) {
	cmd := child(t, unix.CLONE_NEWNET)
	// A second namespace that only a mount keeps, as `ip netns add` leaves it.
	mount := filepath.Join(t.TempDir(), "a name")
	if err := os.WriteFile(mount, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	go onSpareThread(func() {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- err
			return
		}
		made <- unix.Mount("/proc/thread-self/ns/net", mount, "", unix.MS_BIND, "")
	})
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(mount, unix.MNT_DETACH) })

	it := wantIterators(t)
	for way, it := range map[string]*Iterators{"procfs": nil, "iterator": it} {
		t.Run(way, func(t *testing.T) { findBoth(t, it, cmd.Process.Pid, mount) })
	}
}

// wantIterators are iterators that are to be had.
func wantIterators(t testing.TB) *Iterators {
	t.Helper()
	it := prepareIterators()
	t.Cleanup(func() { it.Close() })
	for _, i := range []*iterator{&it.tasks, &it.files} {
		walk, err := i.walk()
		if err != nil {
			missing(t, "no bpf iterator: %v", err)
		}
		walk.Close()
	}
	return it
}

// The iterator shows processes, not their threads, and no namespace of those that
// have ended.
func TestProcessesByIterator(t *testing.T) {
	it := wantIterators(t)
	ended := exec.Command("/proc/self/exe")
	ended.Env = append(os.Environ(), "LISTENERS_TEST_ROLE=nothing")
	if err := ended.Start(); err != nil {
		t.Fatal(err)
	}
	defer ended.Wait()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, ended.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	other := child(t, unix.CLONE_NEWNET)
	seen, err := it.processes()
	if err != nil {
		t.Fatal(err)
	}
	by := map[int][]uint32{}
	for _, s := range seen {
		by[s.pid] = append(by[s.pid], s.netNS)
	}
	inode := func(pid int) uint32 {
		var st unix.Stat_t
		if err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/net", &st); err != nil {
			t.Fatal(err)
		}
		return uint32(st.Ino)
	}
	for pid, want := range map[int]uint32{os.Getpid(): inode(os.Getpid()), other.Process.Pid: inode(other.Process.Pid), ended.Process.Pid: 0} {
		if got := by[pid]; !slices.Equal(got, []uint32{want}) {
			t.Errorf("process %d: in %v, want %d", pid, got, want)
		}
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) < 2 {
		t.Fatalf("no threads to tell apart: %d, %v", len(threads), err)
	}
}

func findBoth(t *testing.T, it *Iterators, pid int, mount string) {
	list, err := ReadNamespaces(t.Context(), "", it)
	if err != nil {
		t.Fatal(err)
	}
	var byPID, byMount *Namespace
	for i := range list.List {
		n := &list.List[i]
		if n.PID == pid {
			byPID = n
		}
		if string(n.Path) == mount {
			byMount = n
		}
	}
	if byPID == nil || byMount == nil || !list.List[0].Own {
		t.Fatalf("%+v", list.List)
	}
	if byMount.Name != "a name" || byMount.Processes != 0 || byPID.Processes != 1 {
		t.Errorf("%+v, %+v", *byMount, *byPID)
	}

	here := tcpListener(t, "127.0.0.1", 0)
	for _, n := range []*Namespace{byPID, byMount} {
		h, err := n.Open("")
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		var wg sync.WaitGroup
		for range 4 { // several at once must not mix
			wg.Go(func() {
				err := WithNamespace(h, func() error {
					fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
					if err != nil {
						return err
					}
					defer unix.Close(fd)
					if err := unix.Listen(fd, 1); err != nil { // binds a free port
						return err
					}
					live, err := OpenLive("")
					if err != nil {
						return err
					}
					defer live.Close()
					table, err := Read(t.Context(), live)
					if err != nil {
						return err
					}
					if table.NetNS != n.Inode {
						t.Errorf("read namespace %d, want %d", table.NetNS, n.Inode)
					}
					if len(table.Listeners) == 0 {
						t.Error("own listener not found")
					}
					for _, l := range table.Listeners {
						if l.Inode == here.inode {
							t.Error("a listener of the namespace outside")
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	byInode(t, readTable(t), here.inode) // and we are still where we were
	other := errors.New("other")
	h, err := byPID.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := WithNamespace(h, func() error { return other }); err != other {
		t.Errorf("error %v", err)
	}

	gone := *byPID
	gone.Inode++ // the pid is alive but in another namespace
	if _, err := gone.Open(""); !errors.Is(err, ErrNamespaceGone) {
		t.Errorf("open of a namespace that is not there: %v", err)
	}
}
