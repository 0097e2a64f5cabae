package listeners

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever stops the world, as the collector of garbage does, sends signals to those
// who do not stop, and the verifier gives up at each.
func TestIteratorsWhileTheWorldIsStopped(t *testing.T) {
	wantIterators(t)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			runtime.GC()
		}
	})
	defer func() { stop.Store(true); wg.Wait() }()
	for range 200 {
		it := prepareIterators()
		for _, i := range []*iterator{&it.tasks, &it.files} {
			walk, err := i.walk()
			if err != nil {
				t.Fatal(err)
			}
			walk.Close()
		}
		it.Close()
	}
}

// A process that has closed what the iterator saw in it is no owner, and no other
// process is made up in its place.
func TestClosedBehindTheIterator(t *testing.T) {
	l, other := tcpListener(t, "127.0.0.1", 0), tcpListener(t, "127.0.0.1", 0)
	pid := child(t, 0).Process.Pid
	prepared, err := PrepareOwners(OwnerOptions{Method: "proc"})
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close()
	s := &search{OwnerSearch: prepared, want: map[uint32]struct{}{l.inode: {}}, found: map[uint32][]int{}, procs: map[processKey]Process{}, keyOf: map[int]processKey{}}
	held := map[int][]heldSocket{
		pid:         {{uint32(pid), uint32(pid), uint32(l.fd), l.inode}},
		os.Getpid(): {{uint32(os.Getpid()), uint32(os.Getpid()), uint32(other.fd), l.inode}}, // it has moved
	}
	if err := s.confirmAll(t.Context(), held, 1<<62); err != nil {
		t.Fatal(err)
	}
	var o Owners
	o.Holders = map[uint32][]int{}
	s.result(&o)
	if len(o.Processes) != 1 || o.Processes[0].PID != os.Getpid() || len(o.Holders[l.inode]) != 1 {
		t.Errorf("holders %v of processes %+v", o.Holders, o.Processes)
	}
}

// A walk goes on where the kernel interrupts it.
func TestInterruptedWalk(t *testing.T) {
	file := interrupted{bytes.NewReader(make([]byte, 5*heldSocketLen)), 3}
	n := 0
	if err := records(patient{&file}, heldSocketLen, func([]byte) error { n++; return nil }); err != nil || n != 5 {
		t.Errorf("%d records, %v", n, err)
	}
	file.times = 1 << 40
	if err := records(patient{&file}, heldSocketLen, func([]byte) error { return nil }); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%v", err)
	}
}

// interrupted is so a number of times before it gives anything.
type interrupted struct {
	*bytes.Reader
	times int
}

func (f *interrupted) Close() error { return nil }

func (f *interrupted) Read(b []byte) (int, error) {
	if f.times--; f.times >= 0 {
		return 0, &os.PathError{Op: "read", Path: "bpf iterator", Err: unix.EAGAIN}
	}
	return f.Reader.Read(b)
}
