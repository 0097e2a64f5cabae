package listeners

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// heldSocket is what the iterator writes for each descriptor that is a socket.
type heldSocket struct {
	tgid, tid, fd uint32
	inode         uint32
}

const heldSocketLen = 16

// runBPF finds the holders with the kernel's iterator over all open files (BPF
// iterator "task_file", kernel/bpf/task_iter.c) and then looks at those
// processes only. It sees the pid numbers of the first pid namespace, so it is
// used there alone.
func (s *search) runBPF(ctx context.Context, o *Owners) error {
	if !o.Whole {
		return errors.New("only from the first pid namespace")
	}
	before, err := listPIDs(s.proc)
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	it, err := openTaskFileIterator()
	if err != nil {
		return err
	}
	defer it.Close()
	var begin unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &begin); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}

	held := map[int][]heldSocket{}
	var buf [heldSocketLen]byte
	r := bufio.NewReaderSize(it, 64<<10)
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := io.ReadFull(r, buf[:]); err != nil {
			if err == io.EOF {
				break
			}
			return fmt.Errorf("read iterator: %w", err)
		}
		ne := binary.NativeEndian
		h := heldSocket{ne.Uint32(buf[0:]), ne.Uint32(buf[4:]), ne.Uint32(buf[8:]), ne.Uint32(buf[12:])}
		if _, wanted := s.want[h.inode]; wanted {
			held[int(h.tgid)] = append(held[int(h.tgid)], h)
		}
	}
	w := scanner{want: s.want, proc: s.proc, dents: make([]byte, 32<<10)}
	for pid, sockets := range held {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := w.confirm(pid, sockets, uint64(begin.Nano()))
		switch {
		case err == nil:
			s.keep(h)
		case gone(err):
		default:
			s.denied++
		}
	}
	s.looked += len(before) - s.denied

	// Those that started behind the iterator's back.
	after, err := listPIDs(s.proc)
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	if fresh := without(after, before); len(fresh) > 0 {
		return s.runProc(ctx, fresh, before)
	}
	return nil
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

// taskFileIterator is the loaded program and one walk of it.
type taskFileIterator struct {
	io.ReadCloser
	link    *link.Iter
	program *ebpf.Program
}

func (it *taskFileIterator) Close() error {
	return errors.Join(it.ReadCloser.Close(), it.link.Close(), it.program.Close())
}

// openTaskFileIterator needs Linux 5.11 (bpf_sock_from_file) with BTF of the
// kernel, CAP_BPF and CAP_PERFMON.
func openTaskFileIterator() (*taskFileIterator, error) {
	offsets, err := readKernelOffsets()
	if err != nil {
		return nil, err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "socket_owners", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task_file",
		// The kernel shows its structures to GPL-compatible programs only; these two
		// dozen instructions are offered under either licence, besides this project's.
		License: "Dual MIT/GPL", Instructions: taskFileProgram(offsets),
	})
	if err != nil {
		return nil, fmt.Errorf("load iterator program: %w", err)
	}
	l, err := link.AttachIter(link.IterOptions{Program: program})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach iterator: %w", err), program.Close())
	}
	r, err := l.Open()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open iterator: %w", err), l.Close(), program.Close())
	}
	return &taskFileIterator{r, l, program}, nil
}

// kernelOffsets are places of members in this kernel's structures.
type kernelOffsets struct {
	fileInode, inodeNumber, taskTGID, taskPID int16
}

func readKernelOffsets() (kernelOffsets, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return kernelOffsets{}, fmt.Errorf("read kernel BTF: %w", err)
	}
	var o kernelOffsets
	for _, m := range []struct {
		in, member string
		to         *int16
	}{
		{"file", "f_inode", &o.fileInode}, {"inode", "i_ino", &o.inodeNumber},
		{"task_struct", "tgid", &o.taskTGID}, {"task_struct", "pid", &o.taskPID},
	} {
		var s *btf.Struct
		if err := spec.TypeByName(m.in, &s); err != nil {
			return o, fmt.Errorf("kernel BTF: struct %s: %w", m.in, err)
		}
		at, ok := memberOffset(s.Members, m.member)
		if !ok || at > 1<<15-1 {
			return o, fmt.Errorf("kernel BTF: struct %s has no usable member %s", m.in, m.member)
		}
		*m.to = int16(at)
	}
	return o, nil
}

// memberOffset finds a member by name, inside anonymous structs and unions as well.
func memberOffset(members []btf.Member, name string) (uint32, bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if at, ok := memberOffset(inner, name); ok {
			return m.Offset.Bytes() + at, true
		}
	}
	return 0, false
}

// taskFileProgram writes {tgid, tid, fd, inode} for every descriptor that is a
// socket. Its context is struct bpf_iter__task_file: meta, task, fd, file, each
// in eight bytes; task and file are null on the last call.
func taskFileProgram(o kernelOffsets) asm.Instructions {
	const ctxMeta, ctxTask, ctxFD, ctxFile = 0, 8, 16, 24
	const metaSeq = 0 // struct bpf_iter_meta
	// Little-endian machines find the low half of i_ino at its start; sockfs
	// numbers its inodes with 32 bits.
	inode := o.inodeNumber
	if nativeIsBig() {
		inode += 4
	}
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, ctxTask, asm.DWord),
		asm.JEq.Imm(asm.R7, 0, "out"),
		asm.LoadMem(asm.R8, asm.R6, ctxFile, asm.DWord),
		asm.JEq.Imm(asm.R8, 0, "out"),
		asm.Mov.Reg(asm.R1, asm.R8),
		asm.FnSockFromFile.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R2, asm.R8, o.fileInode, asm.DWord),
		asm.LoadMem(asm.R2, asm.R2, inode, asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R2, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, ctxFD, asm.Word),
		asm.StoreMem(asm.RFP, -8, asm.R2, asm.Word),
		asm.LoadMem(asm.R2, asm.R7, o.taskPID, asm.Word),
		asm.StoreMem(asm.RFP, -12, asm.R2, asm.Word),
		asm.LoadMem(asm.R2, asm.R7, o.taskTGID, asm.Word),
		asm.StoreMem(asm.RFP, -16, asm.R2, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, ctxMeta, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, metaSeq, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -heldSocketLen),
		asm.Mov.Imm(asm.R3, heldSocketLen),
		asm.FnSeqWrite.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
}
