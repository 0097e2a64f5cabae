package collect

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// bpfInventory is every BPF program of the machine that could decide about
// packets, and the links that put programs into netfilter hooks. Whose
// namespace or control group they sit on is asked there; a machine without a
// program of a type needs not be asked for it anywhere.
type bpfInventory struct {
	Programs []bpfProgram `json:"programs"`
	Links    []bpfLink    `json:"links"` // netfilter links
}

type bpfProgram struct {
	ID   uint32 `json:"id"`
	Type uint32 `json:"type"` // BPF_PROG_TYPE_*
	Name string `json:"name"`
}

type bpfLink struct {
	Program  uint32 `json:"program"`
	Family   uint32 `json:"family"` // NFPROTO_*
	Hook     uint32 `json:"hook"`   // NF_INET_*
	Priority int32  `json:"priority"`
}

// maxPrograms bounds the inventory.
const maxPrograms = 20_000

func (inv *bpfInventory) has(types ...ebpf.ProgramType) bool {
	for _, p := range inv.Programs {
		for _, t := range types {
			if p.Type == uint32(t) {
				return true
			}
		}
	}
	return false
}

func (inv *bpfInventory) name(id uint32) string {
	if inv == nil {
		return ""
	}
	for _, p := range inv.Programs {
		if p.ID == id {
			return p.Name
		}
	}
	return ""
}

// readInventory lists the programs of the machine (CAP_SYS_ADMIN).
func readInventory(a *answers) (*bpfInventory, error) {
	b, err := a.one("bpf inventory", func() ([]byte, error) {
		inv, err := liveInventory()
		if noBPF(err) { // a kernel without bpf(2) has no programs
			inv, err = &bpfInventory{}, nil
		}
		if err != nil {
			return nil, err
		}
		return json.Marshal(inv)
	})
	if err != nil {
		return nil, fmt.Errorf("list bpf programs: %w", err)
	}
	inv := new(bpfInventory)
	if err := json.Unmarshal(b, inv); err != nil {
		return nil, fmt.Errorf("list bpf programs: %w", err)
	}
	return inv, nil
}

// noBPF tells a kernel without bpf(2) from one that refuses.
func noBPF(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, ebpf.ErrNotSupported)
}

func liveInventory() (*bpfInventory, error) {
	inv := &bpfInventory{}
	netfilter := false
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, err
		}
		if id = next; len(inv.Programs) >= maxPrograms {
			return nil, fmt.Errorf("more than %d programs", maxPrograms)
		}
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // it went away meanwhile
		}
		if err != nil {
			return nil, err
		}
		switch p.Type() {
		case ebpf.SchedCLS, ebpf.SchedACT, ebpf.XDP, ebpf.CGroupSKB, ebpf.CGroupSockAddr, ebpf.SkLookup, ebpf.Netfilter:
			name := ""
			if info, err := p.Info(); err == nil {
				name = info.Name
			}
			inv.Programs = append(inv.Programs, bpfProgram{uint32(id), uint32(p.Type()), name})
			netfilter = netfilter || p.Type() == ebpf.Netfilter
		}
		p.Close()
	}
	if !netfilter {
		return inv, nil
	}
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			return nil, fmt.Errorf("read bpf link %d: %w", it.ID, err)
		}
		if nf := info.Netfilter(); nf != nil && info.Type == link.NetfilterType {
			inv.Links = append(inv.Links, bpfLink{uint32(info.Program), uint32(nf.ProtocolFamily), uint32(nf.Hook), nf.Priority})
		}
	}
	return inv, it.Err()
}

// queryAttr is the part of union bpf_attr that BPF_PROG_QUERY uses
// (include/uapi/linux/bpf.h), as far as every kernel knows it.
type queryAttr struct {
	target, attach, flags, attachFlags uint32
	programs                           uint64 // address of the ids
	count, _                           uint32
	_                                  [4]uint64
}

// queryPrograms asks what is attached to a target. An attach type that the
// kernel does not know has nothing attached. (cilium/ebpf takes a refusal for a
// kernel without the call; here the difference is all that matters.)
func queryPrograms(target int, attach ebpf.AttachType, flags uint32) ([]uint32, error) {
	ids := make([]uint32, 16)
	for range dumpTries {
		attr := queryAttr{target: uint32(target), attach: uint32(attach), flags: flags, count: uint32(len(ids))}
		var pinned runtime.Pinner
		pinned.Pin(&ids[0])
		attr.programs = uint64(uintptr(unsafe.Pointer(&ids[0])))
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		pinned.Unpin()
		switch errno {
		case 0:
			if int(attr.count) > len(ids) {
				return nil, fmt.Errorf("query programs: %d in %d places", attr.count, len(ids))
			}
			return ids[:attr.count], nil
		case unix.ENOSPC: // count says how many there are
			ids = make([]uint32, min(max(int(attr.count), 2*len(ids)), maxPrograms))
		case unix.EINVAL, unix.ENOSYS:
			return nil, nil
		default:
			return nil, fmt.Errorf("query programs: %w", errno)
		}
	}
	return nil, errors.New("query programs: their number kept changing")
}

// queried asks one queryPrograms of the answers; open gives the target.
func queried(a *answers, key string, attach ebpf.AttachType, open func() (target int, done func(), err error)) ([]uint32, error) {
	b, err := a.one(key, func() ([]byte, error) {
		target, done, err := open()
		if err != nil {
			return nil, err
		}
		if done != nil {
			defer done()
		}
		ids, err := queryPrograms(target, attach, 0)
		if err != nil {
			return nil, err
		}
		return json.Marshal(ids)
	})
	if err != nil || b == nil {
		return nil, err
	}
	var ids []uint32
	if err := json.Unmarshal(b, &ids); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return ids, nil
}
