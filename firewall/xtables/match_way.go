package xtables

import "github.com/hostaudit/hostaudit/firewall"

// Flags of xt_addrtype (XT_ADDRTYPE_*).
const (
	addrtypeInvertSource = 1 << iota
	addrtypeInvertDest
	addrtypeLimitIn
	addrtypeLimitOut
)

// matchAddrtype0 is addrtype_mt_v0, IPv4 only.
func matchAddrtype0(_ *Context, b []byte) []firewall.Stmt {
	var to []firewall.Stmt
	if m := u16(b, 0); m != 0 {
		to = append(to, addrType4(m, firewall.FIBSrc, u32(b, 4) != 0))
	}
	if m := u16(b, 2); m != 0 {
		to = append(to, addrType4(m, firewall.FIBDst, u32(b, 8) != 0))
	}
	return to
}

// matchAddrtype1 is addrtype_mt_v1.
func matchAddrtype1(cx *Context, b []byte) []firewall.Stmt {
	flags := u32(b, 4)
	var dev uint32
	switch {
	case flags&addrtypeLimitIn != 0:
		dev = firewall.FIBIn
	case flags&addrtypeLimitOut != 0:
		dev = firewall.FIBOut
	}
	typ := addrType4
	if cx.family() == firewall.IPv6 {
		typ = addrType6
	}
	var to []firewall.Stmt
	if m := u16(b, 0); m != 0 {
		to = append(to, typ(m, firewall.FIBSrc|dev, flags&addrtypeInvertSource != 0))
	}
	if m := u16(b, 2); m != 0 {
		to = append(to, typ(m, firewall.FIBDst|dev, flags&addrtypeInvertDest != 0))
	}
	return to
}

// fibType matches the type of an address in the routing.
func fibType(types firewall.Ranges, which uint32, invert bool) *firewall.Match {
	m := isHost(firewall.FieldFIBType, 4, types, invert)
	m.Operand.Field.A = which
	return m
}

// typeSet is the set of the route types (RTN_*) of a mask of 1<<type.
func typeSet(mask uint16) firewall.Ranges {
	var rs []firewall.Range
	for t := range 16 {
		if mask&(1<<t) != 0 {
			v := firewall.Num(uint64(t))
			rs = append(rs, firewall.Range{Lo: v, Hi: v})
		}
	}
	return firewall.NewRanges(rs)
}

// addrType4 is match_type: inet_dev_addr_type among the types of the mask.
func addrType4(mask uint16, which uint32, invert bool) firewall.Stmt {
	return fibType(typeSet(mask), which, invert)
}

// addrType6 is match_type6, which asks the routing in its own way.
func addrType6(mask uint16, which uint32, invert bool) firewall.Stmt {
	m := is(firewall.FieldAddrType6, 1, span(1, 1), invert)
	m.Operand.Field.A, m.Operand.Field.B = which, uint32(mask)
	return m
}

// Flags of xt_iprange (IPRANGE_*).
const (
	iprangeSrc    = 1 << 0
	iprangeDst    = 1 << 1
	iprangeSrcInv = 1 << 4
	iprangeDstInv = 1 << 5
)

// matchIPRange is iprange_mt4 and iprange_mt6.
func matchIPRange(cx *Context, b []byte) []firewall.Stmt {
	flags := b[64]
	var to []firewall.Stmt
	if flags&iprangeSrc != 0 {
		to = append(to, is(firewall.FieldSrcAddr, cx.addrLen(), firewall.Span(cx.addr(b, 0), cx.addr(b, 16)), flags&iprangeSrcInv != 0))
	}
	if flags&iprangeDst != 0 {
		to = append(to, is(firewall.FieldDstAddr, cx.addrLen(), firewall.Span(cx.addr(b, 32), cx.addr(b, 48)), flags&iprangeDstInv != 0))
	}
	return to
}

// matchMAC is mac_mt: only Ethernet devices have an address to compare (not lo).
func matchMAC(_ *Context, b []byte) []firewall.Stmt {
	const arphrdEther = 1
	return []firewall.Stmt{
		isHost(firewall.FieldInType, 2, span(arphrdEther, arphrdEther), false),
		is(firewall.FieldSrcMAC, 6, firewall.Single(firewall.Bytes(b[:6])), u32(b, 8) != 0),
	}
}

// Options of xt_physdev (XT_PHYSDEV_OP_*).
const (
	physdevIn = 1 << iota
	physdevOut
	physdevBridged
	physdevIsIn
	physdevIsOut
)

// matchPhysdev is physdev_mt: a packet that is not bridged matches when every
// option used is inverted.
func matchPhysdev(_ *Context, b []byte) []firewall.Stmt {
	inv, opts := b[64], b[65]
	var to []firewall.Stmt
	add := func(bit uint8, m *firewall.Match) {
		if opts&bit == 0 {
			return
		}
		m.Invert = inv&bit != 0
		m.WantAbsent = m.Invert
		to = append(to, m)
	}
	anyName := firewall.Span(firewall.Num(1), firewall.MaxValue(16))
	add(physdevBridged, is(firewall.FieldPhysOut, 16, anyName, false))
	add(physdevIsIn, is(firewall.FieldPhysIn, 16, anyName, false))
	add(physdevIsOut, is(firewall.FieldPhysOut, 16, anyName, false))
	add(physdevIn, ifName(firewall.FieldPhysIn, b[0:16], b[16:32], false))
	add(physdevOut, ifName(firewall.FieldPhysOut, b[32:48], b[48:64], false))
	return to
}

// matchPktType is pkttype_mt.
func matchPktType(_ *Context, b []byte) []firewall.Stmt {
	t := uint64(u32(b, 0))
	return one(is(firewall.FieldPktType, 1, span(t, t), u32(b, 4) != 0))
}

// matchDevgroup is devgroup_mt.
func matchDevgroup(_ *Context, b []byte) []firewall.Stmt {
	flags := u32(b, 0)
	var to []firewall.Stmt
	add := func(bit uint32, k firewall.FieldKind, off int) {
		if flags&bit != 0 {
			group, mask := uint64(u32(b, off)), uint64(u32(b, off+4))
			to = append(to, maskedHost(k, 4, mask, group&mask, flags&(bit<<1) != 0))
		}
	}
	add(1, firewall.FieldInGroup, 4)
	add(4, firewall.FieldOutGroup, 12)
	return to
}

// matchRPFilter is rpfilter_mt.
func matchRPFilter(_ *Context, b []byte) []firewall.Stmt {
	const invert = 8
	m := is(firewall.FieldRPFilter, 1, span(1, 1), b[0]&invert != 0)
	m.Operand.Field.A = uint32(b[0] &^ invert)
	return one(m)
}

// Flags of xt_policy (XT_POLICY_MATCH_*).
const (
	policyIn = 1 << iota
	policyOut
	policyNone
	policyStrict
)

// matchPolicy is policy_mt.
func matchPolicy(_ *Context, b []byte) []firewall.Stmt {
	flags, n := u16(b, 304), int(u16(b, 306))
	k := firewall.FieldIPSec
	if flags&policyIn != 0 {
		k = firewall.FieldSecPath
	}
	if flags&policyNone != 0 {
		return one(is(k, 1, span(0, 0), false))
	}
	to := one(is(k, 1, span(1, 1), false))
	details := flags&policyStrict != 0 || n == 0
	for i := range min(n, 4) {
		details = details || b[i*76+74] != 0
	}
	if details {
		to = append(to, cannotTell("policy", "the IPsec state that carried the packet"))
	}
	return to
}

// matchRealm is realm_mt.
func matchRealm(_ *Context, b []byte) []firewall.Stmt {
	return one(maskedHost(firewall.FieldRealm, 4, uint64(u32(b, 4)), uint64(u32(b, 0)), b[8] != 0))
}

// matchMark is mark_mt.
func matchMark(_ *Context, b []byte) []firewall.Stmt {
	return one(maskedHost(firewall.FieldMark, 4, uint64(u32(b, 4)), uint64(u32(b, 0)), b[8] != 0))
}

// matchCPU is cpu_mt.
func matchCPU(_ *Context, b []byte) []firewall.Stmt {
	n := uint64(u32(b, 0))
	return one(isHost(firewall.FieldCPU, 4, span(n, n), u32(b, 4) != 0))
}

func matchCluster(_ *Context, b []byte) []firewall.Stmt {
	return one(cannotTell("cluster", "which of %d cluster nodes a hash of the source gives the connection to", u32(b, 0)))
}

func matchIPVS(_ *Context, _ []byte) []firewall.Stmt {
	return one(cannotTell("ipvs", "whether the packet belongs to an IPVS connection"))
}
