package listeners

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf/asm"
)

// kernelTypes is what the programs are made for: the numbers of the iterators'
// functions, and places of members in this kernel's structures, in bytes.
type kernelTypes struct {
	files, tasks                              uint32 // bpf_iter_task_file, bpf_iter_task
	fileInode, inodeNumber, taskTGID, taskPID int16
	taskNSProxy, proxyNet, netInode           int16
}

func readKernelTypes() (*kernelTypes, error) {
	data, unmap, err := mapBTF(vmlinuxBTF)
	if err != nil {
		return nil, fmt.Errorf("read kernel BTF: %w", err)
	}
	defer unmap()
	return kernelTypesOf(data)
}

func kernelTypesOf(data []byte) (*kernelTypes, error) {
	s, err := parseBTF(data)
	if err != nil {
		return nil, err
	}
	names := []btfName{{btfStruct, "file"}, {btfStruct, "inode"}, {btfStruct, "task_struct"}, {btfStruct, "nsproxy"}, {btfStruct, "net"}, {btfStruct, "ns_common"},
		{btfFunc, "bpf_iter_task_file"}, {btfFunc, "bpf_iter_task"}}
	types, err := s.find(names...)
	if err != nil {
		return nil, err
	}
	file, inode, task, proxy, net, common := types[0], types[1], types[2], types[3], types[4], types[5]
	o := &kernelTypes{files: types[6].id, tasks: types[7].id}
	var netNS, number int16
	for _, m := range []struct {
		in     btfType
		member string
		to     *int16
	}{
		{file, "f_inode", &o.fileInode}, {inode, "i_ino", &o.inodeNumber}, {task, "tgid", &o.taskTGID}, {task, "pid", &o.taskPID},
		{task, "nsproxy", &o.taskNSProxy}, {proxy, "net_ns", &o.proxyNet}, {net, "ns", &netNS}, {common, "inum", &number},
	} {
		at, ok := s.offset(m.in, m.member)
		if !ok || at > 1<<14-1 {
			return nil, fmt.Errorf("kernel BTF: struct %s has no usable member %s", s.text(m.in.name), m.member)
		}
		*m.to = int16(at)
	}
	o.netInode = netNS + number
	return o, nil
}

// taskFileProgram writes {tgid, tid, fd, inode} for every descriptor that is a
// socket. Its context is struct bpf_iter__task_file: meta, task, fd, file, each
// in eight bytes; task and file are null on the last call.
func taskFileProgram(o *kernelTypes) asm.Instructions {
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

// taskProgram writes {tgid, inode of the network namespace} for every process: the
// inode is 0 for one that has ended and waits to be collected. Its context is
// struct bpf_iter__task: meta and task, null on the last call.
//
// The way from the task to the namespace goes by bpf_probe_read_kernel, which puts
// zero where it cannot read, as behind a null pointer. For each plain load of a
// pointer the verifier searches the names of all the kernel's types, several times
// where they are not marked (btf_nested_type_is_trusted, kernel/bpf/verifier.c): a
// millisecond in all.
func taskProgram(o *kernelTypes) asm.Instructions {
	const ctxMeta, ctxTask = 0, 8
	const metaSeq = 0 // struct bpf_iter_meta
	const number, pointer = -4, -16
	// follow reads, from so far behind the address in R3, to a place on the stack.
	follow := func(behind int16, to, size int32) asm.Instructions {
		return asm.Instructions{
			asm.Add.Imm(asm.R3, int32(behind)),
			asm.Mov.Reg(asm.R1, asm.RFP),
			asm.Add.Imm(asm.R1, to),
			asm.Mov.Imm(asm.R2, size),
			asm.FnProbeReadKernel.Call(),
		}
	}
	return slices.Concat(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, ctxTask, asm.DWord),
		asm.JEq.Imm(asm.R7, 0, "out"),
		asm.LoadMem(asm.R2, asm.R7, o.taskPID, asm.Word),
		asm.LoadMem(asm.R3, asm.R7, o.taskTGID, asm.Word),
		asm.JNE.Reg(asm.R2, asm.R3, "out"), // a thread
		asm.StoreMem(asm.RFP, -seenTaskLen, asm.R3, asm.Word),
		asm.Mov.Reg(asm.R3, asm.R7),
	}, follow(o.taskNSProxy, pointer, 8), asm.Instructions{
		asm.LoadMem(asm.R3, asm.RFP, pointer, asm.DWord),
	}, follow(o.proxyNet, pointer, 8), asm.Instructions{
		asm.LoadMem(asm.R3, asm.RFP, pointer, asm.DWord),
	}, follow(o.netInode, number, 4), asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, ctxMeta, asm.DWord),
		asm.LoadMem(asm.R1, asm.R1, metaSeq, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -seenTaskLen),
		asm.Mov.Imm(asm.R3, seenTaskLen),
		asm.FnSeqWrite.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	})
}
