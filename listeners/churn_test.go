package listeners

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sockets and processes come and go by the thousand each second. Listeners that
// stay are in every reading, and every owner named is a process that held the
// socket.
func TestChurn(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	type steady struct {
		sock *sock
		pids []int // must be named
	}
	var stays []steady
	for range 40 {
		stays = append(stays, steady{newSock(t, unix.AF_INET, unix.SOCK_STREAM, 0).opt(t, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1).bind(t, "127.0.0.1", 0).listen(t, 1), []int{os.Getpid()}})
	}
	for i := range 5 {
		cmd := child(t, 0, os.NewFile(dup(t, stays[i].sock.fd), "listener"))
		stays[i].pids = append(stays[i].pids, cmd.Process.Pid)
		slices.Sort(stays[i].pids)
	}

	var (
		stop          atomic.Bool
		wg            sync.WaitGroup
		opened, forks atomic.Int64
		mu            sync.Mutex
		children      = map[int]bool{}
	)
	defer func() { stop.Store(true); wg.Wait() }()
	for w := range 1 { // one opener is enough to make thousands a second
		r := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			var open []int // a few hundred at a time, so that a dump comes in several pieces
			defer func() {
				for _, fd := range open {
					unix.Close(fd)
				}
			}()
			for !stop.Load() {
				if len(open) > 400 {
					i := r.IntN(len(open))
					unix.Close(open[i])
					open[i] = open[len(open)-1]
					open = open[:len(open)-1]
					continue
				}
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					continue
				}
				// Half of them in the buckets of those that stay.
				port := 0
				if r.IntN(2) == 0 {
					port = stays[r.IntN(len(stays))].sock.port
				}
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
				if unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}) != nil || unix.Listen(fd, 1) != nil {
					unix.Close(fd)
					continue
				}
				opened.Add(1)
				open = append(open, fd)
			}
		})
	}
	for range 3 {
		wg.Go(func() {
			// Each child really holds every listener for the moment it lives.
			for !stop.Load() {
				args := cloneArgs{exitSignal: uint64(unix.SIGCHLD)}
				pid, errno := clone3(unsafe.Pointer(&args), unsafe.Sizeof(args))
				if errno != 0 {
					continue
				}
				mu.Lock()
				children[int(pid)] = true
				mu.Unlock()
				forks.Add(1)
				unix.Kill(int(pid), unix.SIGKILL)
				unix.Wait4(int(pid), nil, 0, nil)
			}
		})
	}

	extra := map[int]bool{} // owners beyond those that must be there
	rounds := 0
	// As long as it takes to be a test, on a slow machine longer.
	enough := func() bool { return rounds >= 9 && opened.Load() >= 3000 && forks.Load() >= 300 }
	for begin := time.Now(); !enough() && time.Since(begin) < time.Minute; rounds++ {
		opt := []OwnerOptions{{Method: "proc"}, {Method: "bpf"}, {Method: "bpf", FirstOnly: true, Ahead: true}}[rounds%3]
		o, table, err := prepareReadFind(t, opt)
		if err != nil && opt.Method == "bpf" {
			o, table, err = prepareReadFind(t, OwnerOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
		o.Assign(table.Listeners)
		for _, s := range stays {
			l := byInode(t, table, s.sock.inode)
			var pids []int
			for _, p := range l.Owners {
				pids = append(pids, p.PID)
				if !slices.Contains(s.pids, p.PID) {
					extra[p.PID] = true
				}
			}
			for _, pid := range s.pids {
				if !slices.Contains(pids, pid) {
					t.Fatalf("round %d by %s: %s is held by %v, found %v", rounds, o.Method, l.Subject(), s.pids, pids)
				}
			}
		}
		for _, l := range table.Listeners {
			for _, p := range l.Owners {
				if p.PID != os.Getpid() && !slices.ContainsFunc(stays, func(s steady) bool { return s.sock.inode == l.Inode }) {
					extra[p.PID] = true
				}
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	for pid := range extra {
		if !children[pid] {
			t.Errorf("pid %d was named an owner and never held a listener", pid)
		}
	}
	if !enough() {
		t.Errorf("only %d listeners opened and %d processes started: no churn", opened.Load(), forks.Load())
	}
	t.Logf("%d readings, %d listeners opened, %d processes started, %d of those caught with a listener", rounds, opened.Load(), forks.Load(), len(extra))
}

// A pid is given to another process between seeing a socket and looking at its
// holder: the other process is never named.
func TestPIDReuse(t *testing.T) {
	l := tcpListener(t, "127.0.0.1", 0)
	pid := spawn(t, 0)
	proc, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(proc)
	w := scanner{proc: proc, want: map[uint32]struct{}{l.inode: {}}, dents: make([]byte, 32<<10)}

	// The control: while it lives, it is named.
	h, err := w.process(pid, 0)
	if err != nil || h.process.PID != pid || len(h.inodes) != 1 {
		t.Fatalf("%+v, %v", h, err)
	}
	held := []heldSocket{{uint32(pid), uint32(pid), uint32(l.fd), l.inode}}
	if h, err := w.confirm(pid, held, 1<<62); err != nil || len(h.inodes) != 1 {
		t.Fatalf("%+v, %v", h, err)
	}

	dir, err := openAt(proc, fmt.Sprint(pid), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	end(t, pid)
	l.close()
	if again := spawn(t, pid); again != pid {
		t.Fatalf("pid %d instead of %d", again, pid)
	}
	defer end(t, pid)
	var r procReader
	if p, err := r.describe(dir, pid); !gone(err) {
		t.Errorf("the directory of a dead process described %+v, %v", p, err)
	}
	// The new process does not hold the socket: by the iterator's old word it must
	// not be named.
	if h, err := w.confirm(pid, held, 1<<62); err == nil && len(h.inodes) > 0 {
		t.Errorf("a process that took the pid was named: %+v", h)
	}
}

// spawn makes a process with our descriptors that sleeps, with a pid of our
// choice unless 0 (clone3(2), set_tid: CAP_CHECKPOINT_RESTORE).
func spawn(t *testing.T, pid int) int {
	t.Helper()
	args := cloneArgs{exitSignal: uint64(unix.SIGCHLD)}
	tid := int32(pid)
	if pid != 0 {
		args.setTID, args.setTIDSize = uint64(uintptr(unsafe.Pointer(&tid))), 1
	}
	got, errno := clone3(unsafe.Pointer(&args), unsafe.Sizeof(args))
	if errno == unix.EPERM || errno == unix.ENOSYS {
		missing(t, "clone3 with a chosen pid: %v", errno)
	}
	if errno != 0 {
		t.Fatalf("clone3: %v", errno)
	}
	return int(got)
}

// cloneArgs is struct clone_args.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize uint64
}

// clone3 forks; the child sleeps in raw system calls until it is killed.
//
//go:nosplit
//go:norace
func clone3(args unsafe.Pointer, size uintptr) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(args), size, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	for {
		syscall.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

func end(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// prepareReadFind prepares a search, then reads the listeners, then looks for their
// owners.
func prepareReadFind(t *testing.T, opt OwnerOptions) (*Owners, *Table, error) {
	t.Helper()
	s, err := PrepareOwners(opt)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	table := readTable(t)
	o, err := s.Find(t.Context(), table.Inodes())
	return o, table, err
}
