package xtables

import "github.com/hostaudit/hostaudit/firewall"

// Flags of a range (NF_NAT_RANGE_*) beside those of firewall.NAT.
const (
	natMapIPs         = 1 << 0
	natProtoSpecified = 1 << 1

	natFlags = firewall.NATRandom | firewall.NATPersistent | firewall.NATFullyRandom | firewall.NATPortOffset | firewall.NATNetmap
)

// natRange is struct nf_nat_range2, or one of its forerunners.
type natRange struct {
	flags            uint32
	addrMin, addrMax firewall.Value
	portMin, portMax uint16
	portBase         uint16
}

// natRange4 reads struct nf_nat_ipv4_multi_range_compat: always one range.
func natRange4(b []byte) natRange {
	return natRange{
		flags: u32(b, 4), addrMin: firewall.Bytes(b[8:12]), addrMax: firewall.Bytes(b[12:16]),
		portMin: be16(b, 16), portMax: be16(b, 18),
	}
}

// natRange1 reads struct nf_nat_range.
func natRange1(cx *Context, b []byte) natRange {
	return natRange{
		flags: u32(b, 0), addrMin: cx.addr(b, 4), addrMax: cx.addr(b, 20),
		portMin: be16(b, 36), portMax: be16(b, 38),
	}
}

// stmts lowers the range: nf_nat_setup_info.
func (r natRange) stmts(kind firewall.NATKind) []firewall.Stmt {
	n := &firewall.NAT{Kind: kind, Flags: r.flags & natFlags}
	if r.flags&natMapIPs != 0 {
		n.AddrMin = firewall.Const{Value: r.addrMin}
		if r.addrMax != r.addrMin || r.flags&firewall.NATNetmap != 0 {
			n.AddrMax = firewall.Const{Value: r.addrMax}
		}
	}
	if r.flags&natProtoSpecified != 0 {
		n.PortMin = number(uint64(r.portMin))
		if r.portMax != r.portMin {
			n.PortMax = number(uint64(r.portMax))
		}
	}
	if r.flags&firewall.NATPortOffset != 0 {
		n.PortBase = r.portBase
	}
	return one(n)
}

func targetDNAT0(_ *Context, b []byte) []firewall.Stmt {
	return natRange4(b).stmts(firewall.DNAT)
}

func targetDNAT1(cx *Context, b []byte) []firewall.Stmt {
	return natRange1(cx, b).stmts(firewall.DNAT)
}

func targetDNAT2(cx *Context, b []byte) []firewall.Stmt {
	r := natRange1(cx, b)
	r.portBase = be16(b, 40)
	return r.stmts(firewall.DNAT)
}

func targetSNAT0(_ *Context, b []byte) []firewall.Stmt {
	return natRange4(b).stmts(firewall.SNAT)
}

func targetSNAT1(cx *Context, b []byte) []firewall.Stmt {
	return natRange1(cx, b).stmts(firewall.SNAT)
}

func targetSNAT2(cx *Context, b []byte) []firewall.Stmt {
	r := natRange1(cx, b)
	r.portBase = be16(b, 40)
	return r.stmts(firewall.SNAT)
}

// familyRange reads the range of MASQUERADE, REDIRECT and NETMAP, whose struct
// depends on the family.
func familyRange(cx *Context, b []byte) (natRange, bool) {
	if cx.family() == firewall.IPv4 {
		return natRange4(b), true
	}
	if len(b) < 40 {
		return natRange{}, false
	}
	return natRange1(cx, b), true
}

func cutShort(name string, b []byte) []firewall.Stmt {
	return one(tooShort(Ext{Name: name, Info: b}, 40, true))
}

// targetMasquerade is masquerade_tg: the address is that of the interface, only
// ports can be given.
func targetMasquerade(cx *Context, b []byte) []firewall.Stmt {
	r, ok := familyRange(cx, b)
	if !ok {
		return cutShort("MASQUERADE", b)
	}
	r.flags &^= natMapIPs
	return r.stmts(firewall.Masquerade)
}

// targetRedirect is redirect_tg.
func targetRedirect(cx *Context, b []byte) []firewall.Stmt {
	r, ok := familyRange(cx, b)
	if !ok {
		return cutShort("REDIRECT", b)
	}
	r.flags &^= natMapIPs
	return r.stmts(firewall.Redirect)
}

// targetNetmap is netmap_tg4 and netmap_tg6: the destination in PREROUTING and
// OUTPUT, the source in INPUT and POSTROUTING.
func targetNetmap(cx *Context, b []byte) []firewall.Stmt {
	r, ok := familyRange(cx, b)
	if !ok {
		return cutShort("NETMAP", b)
	}
	// The network is kept as its first and last address; its mask is where
	// those agree.
	r.flags = natMapIPs | firewall.NATNetmap
	switch {
	case cx.Hooks&^dstHooks == 0 && cx.Hooks != 0:
		return r.stmts(firewall.DNAT)
	case cx.Hooks&^srcHooks == 0 && cx.Hooks != 0:
		return r.stmts(firewall.SNAT)
	default:
		return one(&firewall.Opaque{Name: "NETMAP", Raw: b, MayEnd: true, Reason: "a NETMAP in a chain that is called from several hooks"})
	}
}

// targetNPT is the stateless prefix translation of SNPT and DNPT: later rules
// see other addresses.
func targetNPT(_ *Context, b []byte) []firewall.Stmt {
	return one(&firewall.Opaque{Name: "NPT", Raw: b, MayEnd: true, Reason: "a stateless translation of IPv6 prefixes (NPT)"})
}
