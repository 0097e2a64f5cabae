package listeners

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Iterators walk the kernel's processes and their open files (BPF iterators "task"
// and "task_file", kernel/bpf/task_iter.c). They need Linux 5.11
// (bpf_sock_from_file) with BTF of the kernel, CAP_BPF and CAP_PERFMON, and are
// used from the machine's first pid namespace only, whose numbers they give. They
// are made ready in the background; whoever asks for one that is not to be had
// gets the error and reads procfs.
type Iterators struct {
	tasks, files iterator
}

// iterator is a loaded program, attached: a descriptor of its link.
type iterator struct {
	ready chan struct{} // closed when link and err are there
	mu    sync.Mutex
	link  int
	err   error
}

// iteratorsFrom is the number of tasks above which the iterators win over reading
// links of procfs. Measured with 13 descriptors a process, made ready each time: 50
// processes 2.8 ms by procfs and 3.4 ms by the iterators, 100 processes 4.6 and
// 3.9, 500 processes 17 and 6.9. A small host is left in peace by those who watch
// for BPF programs.
const iteratorsFrom = 100

var errSmallHost = errors.New("not worth it for so few processes")

// PrepareIterators begins to make the iterators ready; Close must be called.
func PrepareIterators() *Iterators {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil && info.Procs < iteratorsFrom {
		return noIterators(errSmallHost)
	}
	return prepareIterators()
}

func noIterators(why error) *Iterators {
	it := newIterators()
	for _, i := range []*iterator{&it.tasks, &it.files} {
		i.err = why
		close(i.ready)
	}
	return it
}

// prepareIterators makes them ready however few processes there are.
func prepareIterators() *Iterators {
	if !ownPIDNamespaceIsFirst() {
		return noIterators(errors.New("only from the first pid namespace"))
	}
	it := newIterators()
	go func() {
		types, err := readKernelTypes()
		load := func(i *iterator, name string, program func(*kernelTypes) asm.Instructions, function func() uint32) {
			defer close(i.ready)
			if i.err = err; err == nil {
				i.link, i.err = attachIterator(name, program(types), function())
			}
		}
		load(&it.tasks, "tasks", taskProgram, func() uint32 { return types.tasks })
		load(&it.files, "socket_owners", taskFileProgram, func() uint32 { return types.files })
	}()
	return it
}

func newIterators() *Iterators {
	return &Iterators{tasks: iterator{ready: make(chan struct{}), link: -1}, files: iterator{ready: make(chan struct{}), link: -1}}
}

func ownPIDNamespaceIsFirst() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/pid", &st) == nil && st.Ino == initialPIDNS
}

// Close gives the programs back.
func (it *Iterators) Close() error {
	return errors.Join(it.tasks.close(), it.files.close())
}

func (i *iterator) close() error {
	<-i.ready
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.link < 0 {
		return nil
	}
	err := unix.Close(i.link)
	i.link, i.err = -1, os.ErrClosed
	return err
}

// walk begins a walk; it sees what is there while it is read.
func (i *iterator) walk() (io.ReadCloser, error) {
	<-i.ready
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return nil, i.err
	}
	fd, err := bpf(unix.BPF_ITER_CREATE, unsafe.Pointer(&iterCreate{link: uint32(i.link)}), unsafe.Sizeof(iterCreate{}))
	if err != nil {
		return nil, fmt.Errorf("open iterator: %w", err)
	}
	return patient{os.NewFile(uintptr(fd), "bpf iterator")}, nil
}

// patient goes on reading where the kernel interrupts a walk: after a million
// objects of which the program told nothing (MAX_ITER_OBJECTS, kernel/bpf/bpf_iter.c),
// such as the files of a large database.
type patient struct{ io.ReadCloser }

func (p patient) Read(b []byte) (int, error) {
	const most = 1000
	for try := 0; ; try++ {
		n, err := p.ReadCloser.Read(b)
		if n > 0 || try >= most || !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
	}
}

// seenTask is a process as the iterator over tasks shows it.
type seenTask struct {
	pid   int
	netNS uint32 // inode, 0 for a process that has ended
}

const seenTaskLen = 8

// processes lists the processes of the machine.
func (it *Iterators) processes() ([]seenTask, error) {
	walk, err := it.tasks.walk()
	if err != nil {
		return nil, err
	}
	defer walk.Close()
	var out []seenTask
	err = records(walk, seenTaskLen, func(b []byte) error {
		out = append(out, seenTask{int(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])})
		return nil
	})
	return out, err
}

// pids lists the processes of the machine by the iterator, or else in procfs,
// which is open at proc.
func (it *Iterators) pids(proc int) ([]int, error) {
	seen, err := it.processes()
	if err != nil {
		return listPIDs(proc)
	}
	out := make([]int, len(seen))
	for i, t := range seen {
		out[i] = t.pid
	}
	return out, nil
}

// records reads records of a fixed size to the end.
func records(from io.Reader, size int, f func([]byte) error) error {
	r := bufio.NewReaderSize(from, 32<<10)
	buf := make([]byte, size)
	for {
		if _, err := io.ReadFull(r, buf); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read iterator: %w", err)
		}
		if err := f(buf); err != nil {
			return err
		}
	}
}

// programLoad, linkCreate and iterCreate are the beginnings of union bpf_attr that
// the three commands read (include/uapi/linux/bpf.h); what lies behind is zero.
type programLoad struct {
	kind, count       uint32
	code, license     uint64
	logLevel, logSize uint32
	log               uint64
	kernel, flags     uint32
	name              [unix.BPF_OBJ_NAME_LEN]byte
	ifindex, attach   uint32
	_                 [9]uint32 // BTF of the program, its functions and lines
	attachTo          uint32    // number of a type of the kernel
}

type linkCreate struct {
	program, target, attach, flags uint32
}

type iterCreate struct {
	link, flags uint32
}

// attachIterator loads a program for the iterator that has its function under this
// number in the kernel's BTF, and gives a descriptor of the link. A library takes
// 50 ms for it, most of them for an index of all the kernel's types.
func attachIterator(name string, program asm.Instructions, function uint32) (int, error) {
	var code bytes.Buffer
	if err := program.Marshal(&code, nativeOrder()); err != nil {
		return -1, fmt.Errorf("assemble iterator program %s: %w", name, err)
	}
	loaded, err := loadProgram(name, code.Bytes(), function)
	if err != nil {
		return -1, fmt.Errorf("load iterator program %s: %w", name, err)
	}
	defer unix.Close(loaded) // the link keeps it
	link, err := bpf(unix.BPF_LINK_CREATE, unsafe.Pointer(&linkCreate{program: uint32(loaded), attach: unix.BPF_TRACE_ITER}), unsafe.Sizeof(linkCreate{}))
	if err != nil {
		return -1, fmt.Errorf("attach iterator %s: %w", name, err)
	}
	return link, nil
}

func loadProgram(name string, code []byte, function uint32) (int, error) {
	// The kernel shows its structures to GPL-compatible programs only; these few
	// dozen instructions are offered under either licence, besides this project's.
	license := []byte("Dual MIT/GPL\x00")
	a := &programLoad{kind: unix.BPF_PROG_TYPE_TRACING, attach: unix.BPF_TRACE_ITER, attachTo: function, count: uint32(len(code) / asm.InstructionSize)}
	copy(a.name[:len(a.name)-1], name)
	var pin runtime.Pinner // addresses as numbers keep nothing in its place
	defer pin.Unpin()
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	a.code, a.license = uint64(uintptr(unsafe.Pointer(&code[0]))), uint64(uintptr(unsafe.Pointer(&license[0])))
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(a), unsafe.Sizeof(*a))
}

// bpf is bpf(2); the descriptors that it gives are close-on-exec. The verifier
// gives up with EAGAIN where a signal is pending, and the scheduler of Go sends
// signals. It is not told of the first call, which takes a quarter of a millisecond:
// it would give the processor away, and everybody waits for what comes out here. Of
// later ones it is: to stop the world it would send signals for as long as it takes.
func bpf(command uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	const patience = 20
	fd, _, errno := unix.RawSyscall(unix.SYS_BPF, command, uintptr(attr), size)
	for try := 0; ; try++ {
		switch {
		case errno == 0:
			return int(fd), nil
		case errno == unix.EAGAIN && try < patience || errno == unix.EINTR:
		default:
			return -1, errno
		}
		fd, _, errno = unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
	}
}
