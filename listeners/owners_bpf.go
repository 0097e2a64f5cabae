package listeners

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// heldSocket is what the iterator writes for each descriptor that is a socket.
type heldSocket struct {
	tgid, tid, fd uint32
	inode         uint32
}

const heldSocketLen = 16

func parseHeldSocket(b []byte) heldSocket {
	ne := binary.NativeEndian
	return heldSocket{ne.Uint32(b[0:]), ne.Uint32(b[4:]), ne.Uint32(b[8:]), ne.Uint32(b[12:])}
}

// sighting is what the iterator saw of all processes, before it was known which
// sockets are wanted.
type sighting struct{ sockets []heldSocket }

// maxSighting bounds a sighting: 2 MB.
const maxSighting = 1 << 17

// lookAhead makes a sighting, if it can.
func (s *OwnerSearch) lookAhead() {
	it, _, err := s.walkFiles()
	if err != nil {
		return // Find tries again, and says why
	}
	defer it.Close()
	var seen []heldSocket
	err = records(it, heldSocketLen, func(b []byte) error {
		if len(seen) == maxSighting {
			return errTooLong
		}
		seen = append(seen, parseHeldSocket(b))
		return nil
	})
	if err == nil {
		s.ahead = sighting{seen}
	}
}

// walkFiles begins a walk through the open files of all processes.
func (s *OwnerSearch) walkFiles() (it io.ReadCloser, begun uint64, err error) {
	if it, err = s.opt.Iterators.files.walk(); err != nil {
		return nil, 0, err
	}
	var begin unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &begin); err != nil {
		it.Close()
		return nil, 0, fmt.Errorf("read the clock: %w", err)
	}
	return it, uint64(begin.Nano()), nil
}

// runBPF finds the holders with the kernel's iterator over all open files (BPF
// iterator "task_file", kernel/bpf/task_iter.c) and then looks at those
// processes only. It sees the pid numbers of the first pid namespace, so it is
// used there alone.
func (s *search) runBPF(ctx context.Context) error {
	if found, err := s.asSighted(ctx); found || err != nil {
		return err
	}
	it, begun, err := s.walkFiles()
	if err != nil {
		return err
	}
	defer it.Close()
	held, err := s.iterate(ctx, it)
	if err != nil {
		return err
	}
	if err := s.confirmAll(ctx, held, begun); err != nil {
		return err
	}
	s.looked += len(s.pids) - s.denied

	// Those that started behind the iterator's back, or since the search was
	// prepared.
	after, err := s.opt.Iterators.pids(s.proc)
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	if fresh := without(after, s.pids); len(fresh) > 0 {
		return s.runProc(ctx, fresh, s.pids)
	}
	return nil
}

// asSighted looks at the processes that were sighted with the wanted sockets. found
// tells that each has an owner; otherwise nothing of it is kept.
func (s *search) asSighted(ctx context.Context) (found bool, err error) {
	if len(s.ahead.sockets) == 0 {
		return false, nil
	}
	held := map[int][]heldSocket{}
	for _, h := range s.ahead.sockets {
		if _, wanted := s.want[h.inode]; wanted {
			held[int(h.tgid)] = append(held[int(h.tgid)], h)
		}
	}
	// 0: whose descriptors may not be listed may have passed the socket on since.
	if err := s.confirmAll(ctx, held, 0); err != nil {
		return false, err
	}
	if len(s.found) == len(s.want) {
		s.looked, s.sighted = len(held), true
		return true, nil
	}
	s.found, s.procs, s.keyOf, s.denied = map[uint32][]int{}, map[processKey]Process{}, map[int]processKey{}, 0
	return false, nil
}

// iterate gives the wanted sockets by process, as the iterator saw them.
func (s *search) iterate(ctx context.Context, it io.Reader) (map[int][]heldSocket, error) {
	held := map[int][]heldSocket{}
	n := 0
	err := records(it, heldSocketLen, func(b []byte) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		h := parseHeldSocket(b)
		if _, wanted := s.want[h.inode]; wanted {
			held[int(h.tgid)] = append(held[int(h.tgid)], h)
		}
		return nil
	})
	return held, err
}

// confirmAll looks at the processes that the iterator named, with a few workers.
func (s *search) confirmAll(ctx context.Context, held map[int][]heldSocket, begun uint64) error {
	pids := slices.Collect(maps.Keys(held))
	var (
		next atomic.Int64
		mu   sync.Mutex
		wg   sync.WaitGroup
	)
	for range min(s.opt.Workers, len(pids)) {
		wg.Go(func() {
			w := scanner{want: s.want, proc: s.proc, dents: make([]byte, 32<<10)}
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(pids) {
					return
				}
				h, err := w.confirm(pids[i], held[pids[i]], begun)
				mu.Lock()
				switch {
				case err == nil && len(h.inodes) == 0: // closed since
				case err == nil:
					s.keep(h)
				case gone(err):
				default:
					s.denied++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// confirm opens the process that the iterator named and checks that it, and not
// one that took its pid since, holds the sockets. Where a descriptor has moved,
// all of its descriptors are looked through; where they may not be listed, the
// process must be older than the walk, begun so many nanoseconds after boot.
func (w *scanner) confirm(pid int, sockets []heldSocket, begun uint64) (holding, error) {
	dir, err := openAt(w.proc, strconv.Itoa(pid), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return holding{}, err
	}
	defer unix.Close(dir)
	var inodes []uint32
	secret := false
	for _, h := range sockets {
		path := "fd/"
		if h.tid != h.tgid {
			path = "task/" + strconv.FormatUint(uint64(h.tid), 10) + "/fd/"
		}
		link, err := w.reader.link(dir, path+strconv.FormatUint(uint64(h.fd), 10))
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			secret = true
		} else if ino, ok := socketInode(link); err != nil || !ok || ino != h.inode {
			return w.process(pid, 0)
		}
		inodes = append(inodes, h.inode)
	}
	p, err := w.reader.describe(dir, pid)
	if err == nil && secret && (p.Start+1)*uint64(clockTick) > begun {
		return holding{}, unix.EACCES
	}
	return holding{p, inodes}, err
}

// clockTick is the unit of Process.Start (USER_HZ is 100 on every architecture
// Go runs Linux on).
const clockTick = 10 * time.Millisecond
