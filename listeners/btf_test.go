package listeners

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// The places that a library with a whole index finds, and the number that it gives
// the iterator's function.
func TestKernelTypesAsTheLibraryReadsIt(t *testing.T) {
	got, err := readKernelTypes()
	if errors.Is(err, os.ErrNotExist) {
		missing(t, "no BTF of the kernel: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	at := func(in, member string) int16 {
		var s *btf.Struct
		if err := spec.TypeByName(in, &s); err != nil {
			t.Fatal(err)
		}
		return libraryOffset(t, s.Members, member)
	}
	function := func(name string) uint32 {
		var f *btf.Func
		if err := spec.TypeByName(name, &f); err != nil {
			t.Fatal(err)
		}
		id, err := spec.TypeID(f)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(id)
	}
	want := kernelTypes{files: function("bpf_iter_task_file"), tasks: function("bpf_iter_task"), fileInode: at("file", "f_inode"), inodeNumber: at("inode", "i_ino"),
		taskTGID: at("task_struct", "tgid"), taskPID: at("task_struct", "pid"), taskNSProxy: at("task_struct", "nsproxy"), proxyNet: at("nsproxy", "net_ns"),
		netInode: at("net", "ns") + at("ns_common", "inum")}
	if *got != want {
		t.Errorf("%+v, want %+v", *got, want)
	}
}

func libraryOffset(t *testing.T, members []btf.Member, name string) int16 {
	for _, m := range members {
		if m.Name == name {
			return int16(m.Offset.Bytes())
		}
	}
	t.Fatalf("no member %s", name)
	return 0
}

// madeBTF is a small kernel: its file has f_inode in an anonymous union within an
// anonymous struct, as kernels with a randomised layout have it.
func madeBTF() []byte {
	ne := binary.NativeEndian
	strings := []byte{0}
	name := func(s string) uint32 {
		at := len(strings)
		strings = append(append(strings, s...), 0)
		return uint32(at)
	}
	u := func(words ...uint32) (b []byte) {
		for _, w := range words {
			b = ne.AppendUint32(b, w)
		}
		return b
	}
	head := func(name, kind, vlen, size uint32) []byte { return u(name, kind<<24|vlen, size) }
	var types []byte
	add := func(parts ...[]byte) {
		for _, p := range parts {
			types = append(types, p...)
		}
	}
	add(head(name("int"), btfInt, 0, 4), u(32))                               // 1
	add(head(0, btfUnion, 2, 8), u(name("f_u"), 1, 0, name("f_inode"), 1, 0)) // 2
	add(head(0, btfStruct, 2, 24), u(name("f_x"), 1, 0, 0, 2, 64))            // 3
	file := name("file")
	add(head(file, btfFwd, 0, 0))                                        // 4, the same name and another kind
	add(head(name("inode"), btfStruct, 1, 8), u(name("i_ino"), 1, 40*8)) // 5
	add(head(0, btfArray, 0, 0), u(1, 1, 4))                             // 6
	add(head(0, btfFuncProto, 1, 1), u(0, 1))                            // 7
	add(head(name("bpf_iter_task_file"), btfFunc, 0, 7))                 // 8
	pid, inum := name("pid"), name("inum")
	proxy := name("nsproxy")
	add(u(name("task_struct"), 1<<31|btfStruct<<24|4, 16), u(name("flag"), 1, 3<<24|5, pid, 1, 64, name("tgid"), 1, 96, proxy, 1, 128)) // 9
	add(head(name("net"), btfStruct, 1, 8), u(name("ns"), 1, 16*8))                                                                     // 10
	add(head(ne.Uint32(types[len(types)-12:]), btfTypedef, 0, 1))                                                                       // 11, called ns
	add(head(name("ns_common"), btfStruct, 1, 8), u(inum, 1, 4*8))                                                                      // 12
	add(head(proxy, btfStruct, 1, 8), u(name("net_ns"), 1, 24*8))                                                                       // 13
	add(head(name("bpf_iter_task"), btfFunc, 0, 7))                                                                                     // 14
	add(head(file, btfStruct, 2, 64), u(name("f_mode"), 1, 0, 0, 3, 32*8))                                                              // 15
	header := append(ne.AppendUint16(nil, 0xEB9F), 1, 0)
	header = append(header, u(24, 0, uint32(len(types)), uint32(len(types)), uint32(len(strings)))...)
	header = append(header, types...)
	return append(header, strings...)
}

func TestTargetOfMadeBTF(t *testing.T) {
	got, err := kernelTypesOf(madeBTF())
	want := kernelTypes{files: 8, tasks: 14, fileInode: 32 + 8, inodeNumber: 40, taskPID: 8, taskTGID: 12, taskNSProxy: 16, proxyNet: 24, netInode: 16 + 4}
	if err != nil {
		t.Fatal(err)
	}
	if *got != want {
		t.Errorf("%+v; want %+v", *got, want)
	}
}

func FuzzTargetOf(f *testing.F) {
	whole := madeBTF()
	f.Add(whole)
	for i := 0; i < len(whole); i += 7 {
		f.Add(whole[:i])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := kernelTypesOf(data)
		if err == nil && (o.files == 0 || o.tasks == 0 || o.fileInode < 0 || o.netInode < 0) {
			t.Errorf("%+v", *o)
		}
	})
}

func BenchmarkKernelTypes(b *testing.B) {
	for b.Loop() {
		if _, err := readKernelTypes(); err != nil {
			b.Fatal(err)
		}
	}
}
