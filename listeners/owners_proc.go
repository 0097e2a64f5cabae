package listeners

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scan looks through the descriptors of the processes given, with a few workers
// (reading links is the kernel's work, and it does not contend).
func (s *search) scan(ctx context.Context, pids []int) error {
	var (
		next    atomic.Int64
		stop    atomic.Bool
		mu      sync.Mutex
		wg      sync.WaitGroup
		firstOf error
	)
	for range min(s.opt.Workers, len(pids)) {
		wg.Go(func() {
			w := scanner{want: s.want, proc: s.proc, dents: make([]byte, 32<<10), enough: s.opt.FirstOnly}
			for !stop.Load() {
				i := int(next.Add(1)) - 1
				if i >= len(pids) {
					return
				}
				if i%64 == 0 && ctx.Err() != nil {
					mu.Lock()
					firstOf = fmt.Errorf("look for socket owners: %w", ctx.Err())
					mu.Unlock()
					stop.Store(true)
					return
				}
				h, err := w.process(pids[i], 0)
				if err == nil && len(h.inodes) == 0 {
					mu.Lock()
					s.looked++
					mu.Unlock()
					continue
				}
				mu.Lock()
				switch {
				case err == nil:
					s.looked++
					s.keep(h)
					if s.opt.FirstOnly && len(s.found) == len(s.want) {
						stop.Store(true)
					}
				case gone(err):
				default:
					s.denied++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if firstOf != nil {
		return firstOf
	}
	if !s.opt.FirstOnly && len(s.found) < len(s.want) {
		return s.scanThreads(ctx, pids)
	}
	return nil
}

// scanner is one worker.
type scanner struct {
	want   map[uint32]struct{}
	proc   int
	dents  []byte
	link   [64]byte
	hits   []uint32
	enough bool // stop where all wanted sockets were hit
	path   []byte
	reader procReader
}

// process looks for wanted sockets among the descriptors of a process, or of one
// of its threads unless tid is 0.
func (w *scanner) process(pid, tid int) (holding, error) {
	w.path = strconv.AppendInt(w.path[:0], int64(pid), 10)
	up := ".."
	if tid != 0 {
		w.path = append(w.path, "/task/"...)
		w.path = strconv.AppendInt(w.path, int64(tid), 10)
		up = "../../.."
	}
	w.path = append(w.path, "/fd\x00"...)
	fd, err := w.open()
	if err != nil {
		return holding{}, err
	}
	defer unix.Close(fd)
	if err := w.descriptors(fd); err != nil {
		return holding{}, err
	}
	if len(w.hits) == 0 {
		return holding{}, nil
	}
	slices.Sort(w.hits)
	inodes := slices.Clone(slices.Compact(w.hits))
	// fd/.. is the directory of the same process, whatever became of its pid.
	dir, err := openAt(fd, up, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return holding{}, err
	}
	defer unix.Close(dir)
	p, err := w.reader.describe(dir, pid)
	return holding{p, inodes}, err
}

// open opens the directory at path.
func (w *scanner) open() (int, error) {
	for {
		fd, _, errno := syscall.Syscall6(unix.SYS_OPENAT, uintptr(w.proc), uintptr(unsafe.Pointer(&w.path[0])),
			unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_LARGEFILE, 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case syscall.EINTR:
		default:
			return -1, errno
		}
	}
}

// descriptors fills hits with the inodes of wanted sockets.
func (w *scanner) descriptors(fd int) error {
	w.hits = w.hits[:0]
	for {
		n, err := unix.Getdents(fd, w.dents)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		for _, name := range numericEntries(w.dents[:n]) {
			size, errno := readlinkat(fd, &w.dents[name], w.link[:])
			switch errno {
			case 0:
			case syscall.ENOENT: // closed since
				continue
			default:
				return errno
			}
			ino, ok := socketInode(w.link[:size])
			if !ok {
				continue
			}
			if _, wanted := w.want[ino]; wanted {
				w.hits = append(w.hits, ino)
				if w.enough && len(w.hits) >= len(w.want) && w.all() {
					return nil
				}
			}
		}
	}
}

// all tells that every wanted socket was hit; some are hit by several
// descriptors.
func (w *scanner) all() bool {
	slices.Sort(w.hits)
	w.hits = slices.Compact(w.hits)
	return len(w.hits) == len(w.want)
}

// readlinkat is readlinkat(2) on a NUL-terminated name, without allocating and
// without telling the scheduler: it never sleeps in procfs.
func readlinkat(dir int, name *byte, buf []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(name)),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	return int(n), errno
}

// socketInode reads "socket:[12345]" (sockfs_dname).
func socketInode(link []byte) (uint32, bool) {
	const prefix = "socket:["
	if len(link) <= len(prefix)+1 || string(link[:len(prefix)]) != prefix || link[len(link)-1] != ']' {
		return 0, false
	}
	var n uint64
	for _, c := range link[len(prefix) : len(link)-1] {
		if c < '0' || c > '9' || n > 1<<32 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(n), n <= 1<<32-1
}

// scanThreads looks into threads that have a descriptor table of their own
// (clone without CLONE_FILES, unshare(CLONE_FILES)): rare, and only when a
// wanted socket has no owner yet.
func (s *search) scanThreads(ctx context.Context, pids []int) error {
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
				w.threads(pids[i], func(h holding) {
					mu.Lock()
					defer mu.Unlock()
					s.keep(h)
				})
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("look for socket owners: %w", err)
	}
	return nil
}

// threads looks into those threads of a process that do not share its descriptor
// table.
func (w *scanner) threads(pid int, found func(holding)) {
	task := strconv.Itoa(pid) + "/task"
	var st unix.Stat_t
	if err := unix.Fstatat(w.proc, task, &st, 0); err != nil || st.Nlink <= 3 {
		return // gone, or a single thread
	}
	tids, err := listNumbers(w.proc, task)
	if err != nil {
		return
	}
	for _, tid := range tids {
		if tid == pid || sameFiles(pid, tid) {
			continue
		}
		if h, err := w.process(pid, tid); err == nil && len(h.inodes) > 0 {
			found(h)
		}
	}
}

// sameFiles asks kcmp(2) whether two tasks share their descriptor table. Where
// it cannot tell they are taken to differ.
func sameFiles(a, b int) bool {
	const kcmpFiles = 2 // enum kcmp_type, KCMP_FILES
	r, _, errno := syscall.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpFiles, 0, 0, 0)
	return errno == 0 && r == 0
}
