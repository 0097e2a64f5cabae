package listeners

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// openTaskFileIterator loads the program and begins a walk through all open files.
// It needs Linux 5.11 (bpf_sock_from_file) with BTF of the kernel, CAP_BPF and
// CAP_PERFMON. A library would take 50 ms for it, most of them for an index of
// the kernel's types; this takes two.
func openTaskFileIterator() (*os.File, error) {
	target, err := readKernelTarget()
	if err != nil {
		return nil, err
	}
	var code bytes.Buffer
	if err := taskFileProgram(target).Marshal(&code, nativeOrder()); err != nil {
		return nil, fmt.Errorf("assemble iterator program: %w", err)
	}
	program, err := loadIterator("socket_owners", code.Bytes(), target.iterator)
	if err != nil {
		return nil, fmt.Errorf("load iterator program: %w", err)
	}
	defer unix.Close(program) // the link keeps it
	link, err := bpf(unix.BPF_LINK_CREATE, unsafe.Pointer(&linkCreate{program: uint32(program), attach: unix.BPF_TRACE_ITER}), unsafe.Sizeof(linkCreate{}))
	if err != nil {
		return nil, fmt.Errorf("attach iterator: %w", err)
	}
	defer unix.Close(link) // the walk keeps it
	walk, err := bpf(unix.BPF_ITER_CREATE, unsafe.Pointer(&iterCreate{link: uint32(link)}), unsafe.Sizeof(iterCreate{}))
	if err != nil {
		return nil, fmt.Errorf("open iterator: %w", err)
	}
	return os.NewFile(uintptr(walk), "task_file iterator"), nil
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

// loadIterator gives the descriptor of a program loaded for an iterator, named by
// the number of its function in the kernel's BTF.
func loadIterator(name string, code []byte, iterator uint32) (int, error) {
	// The kernel shows its structures to GPL-compatible programs only; these two
	// dozen instructions are offered under either licence, besides this project's.
	license := []byte("Dual MIT/GPL\x00")
	a := &programLoad{kind: unix.BPF_PROG_TYPE_TRACING, attach: unix.BPF_TRACE_ITER, attachTo: iterator, count: uint32(len(code) / asm.InstructionSize)}
	copy(a.name[:len(a.name)-1], name)
	var pin runtime.Pinner // addresses as numbers keep nothing in its place
	defer pin.Unpin()
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	a.code, a.license = uint64(uintptr(unsafe.Pointer(&code[0]))), uint64(uintptr(unsafe.Pointer(&license[0])))
	return bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(a), unsafe.Sizeof(*a))
}

// bpf is bpf(2). The verifier gives up with EAGAIN where a signal is pending, and
// the scheduler of Go sends signals.
func bpf(command uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	const patience = 20
	for try := 0; ; try++ {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
		switch {
		case errno == 0:
			unix.CloseOnExec(int(fd)) // is so already (bpf_prog_new_fd, bpf_link_prime)
			return int(fd), nil
		case errno == unix.EAGAIN && try < patience || errno == unix.EINTR:
		default:
			return -1, errno
		}
	}
}

// kernelTarget is what the program is made for: the number of the iterator's
// function, and places of members in this kernel's structures, in bytes.
type kernelTarget struct {
	iterator                                  uint32
	fileInode, inodeNumber, taskTGID, taskPID int16
}

func readKernelTarget() (kernelTarget, error) {
	data, unmap, err := mapBTF(vmlinuxBTF)
	if err != nil {
		return kernelTarget{}, fmt.Errorf("read kernel BTF: %w", err)
	}
	defer unmap()
	return targetOf(data)
}

func targetOf(data []byte) (kernelTarget, error) {
	var o kernelTarget
	s, err := parseBTF(data)
	if err != nil {
		return o, err
	}
	types, err := s.find(btfName{btfStruct, "file"}, btfName{btfStruct, "inode"}, btfName{btfStruct, "task_struct"}, btfName{btfFunc, "bpf_iter_task_file"})
	if err != nil {
		return o, err
	}
	file, inode, task := types[0], types[1], types[2]
	for _, m := range []struct {
		in     btfType
		member string
		to     *int16
	}{
		{file, "f_inode", &o.fileInode}, {inode, "i_ino", &o.inodeNumber}, {task, "tgid", &o.taskTGID}, {task, "pid", &o.taskPID},
	} {
		at, ok := s.offset(m.in, m.member)
		if !ok || at > 1<<15-1 {
			return o, fmt.Errorf("kernel BTF: struct %s has no usable member %s", s.text(m.in.name), m.member)
		}
		*m.to = int16(at)
	}
	o.iterator = types[3].id
	return o, nil
}

// taskFileProgram writes {tgid, tid, fd, inode} for every descriptor that is a
// socket. Its context is struct bpf_iter__task_file: meta, task, fd, file, each
// in eight bytes; task and file are null on the last call.
func taskFileProgram(o kernelTarget) asm.Instructions {
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
