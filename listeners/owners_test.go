package listeners

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// holders gives the pids by inode, the comparable part of two searches.
func holders(o *Owners) map[uint32][]int {
	out := map[uint32][]int{}
	for ino, at := range o.Holders {
		for _, i := range at {
			out[ino] = append(out[ino], o.Processes[i].PID)
		}
		slices.Sort(out[ino])
	}
	return out
}

// Several processes hold one socket; both methods must name them all.
func TestOwnersSeveralAndByBothMethods(t *testing.T) {
	shared, own := tcpListener(t, "127.0.0.1", 0), tcpListener(t, "127.0.0.1", 0)
	want := map[uint32][]int{shared.inode: {os.Getpid()}, own.inode: {os.Getpid()}}
	for range 3 {
		cmd := child(t, 0, os.NewFile(dup(t, shared.fd), "listener"))
		want[shared.inode] = append(want[shared.inode], cmd.Process.Pid)
	}
	slices.Sort(want[shared.inode])
	inodes := []uint32{shared.inode, own.inode, 4000000000}
	for _, method := range []string{"proc", "bpf"} {
		t.Run(method, func(t *testing.T) {
			o, err := ReadOwners(t.Context(), inodes, OwnerOptions{Method: method})
			if err != nil {
				if method == "bpf" {
					missing(t, "no bpf iterator: %v", err)
				}
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, holders(o)); diff != "" {
				t.Error(diff)
			}
			wantDenied := 0
			if method == "proc" {
				wantDenied = unreadable(t)
			}
			if o.Method != method || o.Denied != wantDenied || o.Looked == 0 {
				t.Errorf("method %s, denied %d (want %d), looked %d", o.Method, o.Denied, wantDenied, o.Looked)
			}
			ls := []Listener{{Socket: Socket{Inode: shared.inode}}, {Socket: Socket{Inode: 4000000000}}}
			o.Assign(ls)
			if len(ls[0].Owners) != 4 || ls[0].Unowned != "" {
				t.Errorf("%+v", ls[0])
			}
			wantWhy := KernelSocket
			switch {
			case o.Denied > 0:
				wantWhy = NoPrivilege
			case !o.Whole:
				wantWhy = OtherPIDNamespace
			}
			if len(ls[1].Owners) != 0 || ls[1].Unowned != wantWhy {
				t.Errorf("%+v", ls[1])
			}
		})
	}
	o, err := ReadOwners(t.Context(), []uint32{shared.inode}, OwnerOptions{Method: "proc", FirstOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(holders(o)[shared.inode]) == 0 || !o.Partial {
		t.Errorf("%+v", o)
	}
}

// unreadable counts the processes whose descriptors we may not read; a sandbox
// may keep one even from root.
func unreadable(t *testing.T) int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	n := 0
	for _, dir := range dirs {
		fds, err := os.ReadDir(dir + "/fd")
		if err == nil && len(fds) > 0 {
			_, err = os.Readlink(dir + "/fd/" + fds[0].Name())
		}
		if errors.Is(err, fs.ErrPermission) {
			n++
		}
	}
	return n
}

// TestOwnersSightedAhead: what was sighted before it was asked for is confirmed, and
// what came after, or moved to another descriptor, is found all the same.
func TestOwnersSightedAhead(t *testing.T) {
	stays, shared := tcpListener(t, "127.0.0.1", 0), tcpListener(t, "127.0.0.1", 0)
	sharer := child(t, 0, os.NewFile(dup(t, shared.fd), "listener")).Process.Pid
	both := []int{os.Getpid(), sharer}
	slices.Sort(both)
	find := func(want map[uint32][]int, meanwhile func()) *OwnerSearch {
		t.Helper()
		s, err := PrepareOwners(OwnerOptions{Method: "bpf", FirstOnly: true, Ahead: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if meanwhile != nil {
			meanwhile()
		}
		o, err := s.Find(t.Context(), slices.Collect(maps.Keys(want)))
		if err != nil {
			missing(t, "no bpf iterator: %v", err)
		}
		if diff := cmp.Diff(want, holders(o)); diff != "" || o.Method != "bpf" || o.Looked == 0 {
			t.Errorf("by %s, looked into %d: %s", o.Method, o.Looked, diff)
		}
		return s
	}
	me := []int{os.Getpid()}
	s := find(map[uint32][]int{stays.inode: me, shared.inode: both}, nil)
	if !slices.ContainsFunc(s.ahead.sockets, func(h heldSocket) bool { return h.inode == stays.inode }) {
		t.Error("control: nothing was sighted ahead")
	}
	moves, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(moves, &st); err != nil {
		t.Fatal(err)
	}
	find(map[uint32][]int{uint32(st.Ino): me, shared.inode: both}, func() {
		to := dup(t, moves)
		unix.Close(moves)
		t.Cleanup(func() { unix.Close(int(to)) })
	})
	late := map[uint32][]int{stays.inode: me}
	find(late, func() { late[tcpListener(t, "127.0.0.1", 0).inode] = me })
}

// A thread may have descriptors of its own (unshare(CLONE_FILES)); what it holds
// is its process's.
func TestOwnersThreadWithOwnDescriptors(t *testing.T) {
	type made struct {
		inode uint32
		err   error
	}
	ready, finish, ended := make(chan made), make(chan struct{}), make(chan struct{})
	go onSpareThread(func() {
		defer close(ended)
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			ready <- made{err: err}
			return
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		var st unix.Stat_t
		if err == nil {
			err = errors.Join(unix.Listen(fd, 1), unix.Fstat(fd, &st))
		}
		ready <- made{uint32(st.Ino), err}
		<-finish
		unix.Close(fd)
	})
	defer func() { close(finish); <-ended }()
	m := <-ready
	if m.err != nil {
		t.Fatal(m.err)
	}
	for _, method := range []string{"proc", "bpf"} {
		o, err := ReadOwners(t.Context(), []uint32{m.inode}, OwnerOptions{Method: method})
		if err != nil && method == "bpf" {
			missing(t, "no bpf iterator: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := holders(o)[m.inode]; !slices.Equal(got, []int{os.Getpid()}) {
			t.Errorf("by %s: held by %v", method, got)
		}
	}
}
