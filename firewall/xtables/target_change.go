package xtables

import (
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

func setMark(v, keep uint32) []firewall.Stmt {
	return one(&firewall.SetField{Kind: firewall.FieldMark, From: number(uint64(v)), Keep: keepBut(^keep)})
}

// targetMark0 and targetMark1 are MARK of kernels before 2.6.35, with a mark
// of the width of a long.
func targetMark0(_ *Context, b []byte) []firewall.Stmt { return setMark(u32(b, 0), 0) }

func targetMark1(_ *Context, b []byte) []firewall.Stmt {
	v := uint32(u64(b, 0))
	switch b[8] {
	case 0:
		return setMark(v, 0)
	case 1: // and
		return setMark(0, v)
	case 2: // or
		return setMark(v, ^v)
	default:
		return inert("MARK", "mode %d, which does nothing", b[8])
	}
}

// targetMark2 is mark_tg: (mark & ^mask) ^ value.
func targetMark2(_ *Context, b []byte) []firewall.Stmt { return setMark(u32(b, 0), ^u32(b, 4)) }

func targetHMark(*Context, []byte) []firewall.Stmt {
	return one(&firewall.SetField{Kind: firewall.FieldMark, From: firewall.FromNowhere{Why: "a mark that is a hash of the packet (HMARK)"}})
}

func targetSecmark(*Context, []byte) []firewall.Stmt { return inert("SECMARK", "") }

func targetClassify(_ *Context, b []byte) []firewall.Stmt {
	return one(&firewall.SetField{Kind: firewall.FieldPriority, From: number(uint64(u32(b, 0)))})
}

// targetTTL is ttl_tg and hl_tg6.
func targetTTL(_ *Context, b []byte) []firewall.Stmt {
	mode, v := b[0], b[1]
	to := &firewall.SetPayload{Base: 1, Offset: 8, Len: 1, Field: firewall.FieldTTL, From: firewall.Const{Value: firewall.Num(uint64(v))}}
	switch mode {
	case 0:
	case 1:
		return inert("TTL", "increased by %d", v)
	default:
		to.From = firewall.FromNowhere{Why: fmt.Sprintf("a TTL decreased by %d", v)}
	}
	return one(to)
}

func targetTCPMSS(_ *Context, b []byte) []firewall.Stmt {
	if v := u16(b, 0); v != 0xffff {
		return inert("TCPMSS", "set to %d", v)
	}
	return inert("TCPMSS", "clamped to the path MTU")
}

func targetTCPOptStrip(*Context, []byte) []firewall.Stmt { return inert("TCPOPTSTRIP", "") }

func targetDSCP(_ *Context, b []byte) []firewall.Stmt {
	return one(&firewall.SetPayload{Base: 1, Len: 2, Field: firewall.FieldDSCP, From: firewall.FromNowhere{Why: fmt.Sprintf("DSCP set to 0x%02x", b[0])}})
}

func targetTOS(_ *Context, b []byte) []firewall.Stmt {
	return one(&firewall.SetPayload{Base: 1, Len: 2, Field: firewall.FieldDSCP, From: firewall.FromNowhere{Why: fmt.Sprintf("TOS set to 0x%02x/0x%02x", b[0], b[1])}})
}

func targetECN(*Context, []byte) []firewall.Stmt { return inert("ECN", "") }

func targetChecksum(*Context, []byte) []firewall.Stmt { return inert("CHECKSUM", "") }

// targetInert lowers a target that only notes or copies the packet.
func targetInert(name string) func(*Context, []byte) []firewall.Stmt {
	return func(*Context, []byte) []firewall.Stmt { return inert(name, "") }
}

func targetLog(_ *Context, b []byte) []firewall.Stmt { return inert("LOG", "%s", cstring(b[2:32])) }

func targetNFLog(_ *Context, b []byte) []firewall.Stmt {
	return inert("NFLOG", "%s", cstring(b[12:76]))
}

// Flags of SET --map-set (IPSET_FLAG_MAP_*).
const (
	setMapMark     = 1 << 8
	setMapPriority = 1 << 9
)

// update is one of the sets of the SET target; nothing for none.
func (s setInfo) update(cx *Context, op string) []firewall.Stmt {
	if s.index == invalidSet {
		return nil
	}
	u := &firewall.SetUpdate{Op: op}
	if set, err := s.find(cx); err == nil {
		u.Name = set.Name
	} else {
		u.Name = fmt.Sprintf("with index %d", s.index)
	}
	return one(u)
}

func targetSet0(cx *Context, b []byte) []firewall.Stmt {
	return append(newSetInfo0(b).update(cx, "add"), newSetInfo0(b[32:]).update(cx, "delete")...)
}

func targetSet1(cx *Context, b []byte) []firewall.Stmt {
	return append(newSetInfo(b).update(cx, "add"), newSetInfo(b[4:]).update(cx, "delete")...)
}

func targetSet2(cx *Context, b []byte) []firewall.Stmt { return targetSet1(cx, b) }

// targetSet3 can also take mark and priority from the set's element
// (--map-set).
func targetSet3(cx *Context, b []byte) []firewall.Stmt {
	to := targetSet1(cx, b)
	if u16(b, 8) == invalidSet {
		return to
	}
	flags := u32(b, 12)
	if flags&setMapMark != 0 {
		to = append(to, &firewall.SetField{Kind: firewall.FieldMark, From: firewall.FromNowhere{Why: "a mark that SET takes from an ipset"}})
	}
	if flags&setMapPriority != 0 {
		to = append(to, &firewall.SetField{Kind: firewall.FieldPriority, From: firewall.FromNowhere{Why: "a priority that SET takes from an ipset"}})
	}
	return to
}
