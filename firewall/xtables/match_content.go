package xtables

import (
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

func matchString(_ *Context, b []byte) []firewall.Stmt {
	n := min(int(b[148]), 128)
	return one(cannotTell("string", "whether the packet contains %q", b[20:20+n]))
}

func matchU32(_ *Context, _ []byte) []firewall.Stmt {
	return one(cannotTell("u32", "single bytes of the packet"))
}

func matchBPF(_ *Context, _ []byte) []firewall.Stmt {
	return one(cannotTell("bpf", "a BPF program that looks at the packet"))
}

func matchOSF(_ *Context, b []byte) []firewall.Stmt {
	return one(cannotTell("osf", "whether the client's system looks like %s", cstring(b[:32])))
}

// matchComment always matches; its text is Comment.
func matchComment(*Context, []byte) []firewall.Stmt { return always }

// Counter comparisons of xt_set (IPSET_COUNTER_*).
const (
	counterNone = iota
	counterEQ
	counterNE
	counterLT
	counterGT
)

// Flags of xt_set's info (enum ip_set_kopt, upper case of enum ipset_cmd_flags).
const (
	setInvert        = 1 << 0
	setReturnNomatch = 1 << 7 // of revisions 1 and 2
	cmdReturnNomatch = 1 << 7 // of revision 3 and later, in its own flags
	invalidSet       = 65535  // IPSET_INVALID_ID
)

// setInfo is struct xt_set_info: which set, and from which side of the packet
// each dimension is taken.
type setInfo struct {
	index uint16
	dim   uint8
	flags uint8
}

func newSetInfo(b []byte) setInfo { return setInfo{u16(b, 0), b[2], b[3]} }

// newSetInfo0 reads struct xt_set_info_v0, whose flags the kernel rewrites to
// the later form when the rule is made (compat_flags).
func newSetInfo0(b []byte) setInfo { return setInfo{u16(b, 0), b[28], b[29]} }

// sides tells for every dimension whether it is the source.
func (s setInfo) sides() []bool {
	out := make([]bool, min(int(s.dim), 6))
	for i := range out {
		out[i] = s.flags&(2<<i) != 0
	}
	return out
}

// find resolves the set of the index.
func (s setInfo) find(cx *Context) (*firewall.IPSet, error) {
	if cx.Sets == nil {
		return nil, fmt.Errorf("no set was read")
	}
	return cx.Sets.IPSet(s.index)
}

func (s setInfo) match(cx *Context, returnNomatch bool, counters string) []firewall.Stmt {
	set, err := s.find(cx)
	if err != nil {
		return one(cannotTell("set", "the ipset with index %d, which was not read: %v", s.index, err))
	}
	return one(&firewall.IPSetMatch{
		Set: set, Src: s.sides(), Invert: s.flags&setInvert != 0, ReturnNomatch: returnNomatch, Counters: counters,
	})
}

func matchSet0(cx *Context, b []byte) []firewall.Stmt {
	return newSetInfo0(b).match(cx, false, "")
}

func matchSet1(cx *Context, b []byte) []firewall.Stmt {
	s := newSetInfo(b)
	return s.match(cx, s.flags&setReturnNomatch != 0, "")
}

func matchSet3(cx *Context, b []byte) []firewall.Stmt {
	return newSetInfo(b).match(cx, u32(b, 40)&cmdReturnNomatch != 0,
		joinWords(counterText("packets", b[8], u64(b, 16)), counterText("bytes", b[24], u64(b, 32))))
}

func matchSet4(cx *Context, b []byte) []firewall.Stmt {
	return newSetInfo(b).match(cx, u32(b, 40)&cmdReturnNomatch != 0,
		joinWords(counterText("packets", b[16], u64(b, 8)), counterText("bytes", b[32], u64(b, 24))))
}

func joinWords(a, b string) string {
	if a != "" && b != "" {
		return a + " and " + b
	}
	return a + b
}

func counterText(what string, op uint8, v uint64) string {
	switch op {
	case counterNone:
		return ""
	case counterEQ:
		return fmt.Sprintf("%d %s", v, what)
	case counterNE:
		return fmt.Sprintf("not %d %s", v, what)
	case counterLT:
		return fmt.Sprintf("less than %d %s", v, what)
	case counterGT:
		return fmt.Sprintf("more than %d %s", v, what)
	default:
		return fmt.Sprintf("%s compared by operator %d", what, op)
	}
}
