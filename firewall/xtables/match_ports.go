package xtables

import "github.com/hostaudit/hostaudit/firewall"

// ports matches a range of ports (port_match); nil where every port matches.
func ports(to []firewall.Stmt, k firewall.FieldKind, lo, hi uint16, invert bool) []firewall.Stmt {
	if lo == 0 && hi == 0xffff {
		if invert {
			return append(to, never())
		}
		return to
	}
	return append(to, is(k, 2, span(uint64(lo), uint64(hi)), invert))
}

// matchTCP is tcp_mt. Fragments behind the first never match; the modelled
// client sends none.
func matchTCP(_ *Context, b []byte) []firewall.Stmt {
	option, mask, cmp, inv := b[8], b[9], b[10], b[11]
	to := ports(nil, firewall.FieldSrcPort, u16(b, 0), u16(b, 2), inv&1 != 0)
	to = ports(to, firewall.FieldDstPort, u16(b, 4), u16(b, 6), inv&2 != 0)
	if mask != 0 || cmp != 0 || inv&4 != 0 {
		to = append(to, masked(firewall.FieldTCPFlags, 1, uint64(mask), uint64(cmp), inv&4 != 0))
	}
	if option != 0 {
		op := firewall.Plain(firewall.FieldTCPOption, 1)
		op.Field.A = uint32(option)
		to = append(to, &firewall.Match{Operand: op, In: firewall.Single(firewall.Num(1)), Invert: inv&8 != 0})
	}
	return to
}

// matchUDP is udp_mt, of UDP and UDP-Lite.
func matchUDP(_ *Context, b []byte) []firewall.Stmt {
	to := ports(nil, firewall.FieldSrcPort, u16(b, 0), u16(b, 2), b[8]&1 != 0)
	return ports(to, firewall.FieldDstPort, u16(b, 4), u16(b, 6), b[8]&2 != 0)
}

// matchSCTP is sctp_mt.
func matchSCTP(_ *Context, b []byte) []firewall.Stmt {
	flags, inv := u32(b, 284), u32(b, 288)
	var to []firewall.Stmt
	if flags&1 != 0 {
		to = ports(to, firewall.FieldSrcPort, u16(b, 4), u16(b, 6), inv&1 != 0)
	}
	if flags&2 != 0 {
		to = ports(to, firewall.FieldDstPort, u16(b, 0), u16(b, 2), inv&2 != 0)
	}
	if flags&4 != 0 {
		to = append(to, cannotTell("sctp", "the SCTP chunks of the packet"))
	}
	return to
}

// matchDCCP is dccp_mt.
func matchDCCP(_ *Context, b []byte) []firewall.Stmt {
	flags, inv := u16(b, 8), u16(b, 10)
	var to []firewall.Stmt
	if flags&1 != 0 {
		to = ports(to, firewall.FieldSrcPort, u16(b, 4), u16(b, 6), inv&1 != 0)
	}
	if flags&2 != 0 {
		to = ports(to, firewall.FieldDstPort, u16(b, 0), u16(b, 2), inv&2 != 0)
	}
	if flags&4 != 0 {
		to = append(to, cannotTell("dccp", "the DCCP type of the packet"))
	}
	if flags&8 != 0 {
		to = append(to, cannotTell("dccp", "the DCCP options of the packet"))
	}
	return to
}

// matchICMP is icmp_match; type 255 is any.
func matchICMP(_ *Context, b []byte) []firewall.Stmt {
	if b[0] == 0xff {
		if b[3]&1 != 0 {
			return neverStmts()
		}
		return always
	}
	return icmpType(b)
}

// matchICMPv6 is icmp6_match.
func matchICMPv6(_ *Context, b []byte) []firewall.Stmt { return icmpType(b) }

func icmpType(b []byte) []firewall.Stmt {
	typ, lo, hi, invert := b[0], b[1], b[2], b[3]&1 != 0
	t := is(firewall.FieldICMPType, 1, span(uint64(typ), uint64(typ)), false)
	if lo == 0 && hi == 0xff {
		t.Invert = invert
		return one(t)
	}
	c := is(firewall.FieldICMPCode, 1, span(uint64(lo), uint64(hi)), false)
	if invert {
		return one(&firewall.AllOf{Of: []firewall.Matcher{t, c}, Invert: true})
	}
	return []firewall.Stmt{t, c}
}

// matchMultiport0 is the old multiport without ranges and inversion.
func matchMultiport0(_ *Context, b []byte) []firewall.Stmt {
	n := min(int(b[1]), 15)
	rs := make([]firewall.Range, n)
	for i := range rs {
		v := firewall.Num(uint64(u16(b, 2+2*i)))
		rs[i] = firewall.Range{Lo: v, Hi: v}
	}
	return multiport(b[0], rs, false)
}

// matchMultiport1 is ports_match_v1.
func matchMultiport1(_ *Context, b []byte) []firewall.Stmt {
	n := min(int(b[1]), 15)
	rs := make([]firewall.Range, 0, n)
	for i := 0; i < n; i++ {
		r := firewall.Range{Lo: firewall.Num(uint64(u16(b, 2+2*i)))}
		r.Hi = r.Lo
		if b[32+i] != 0 && i+1 < 15 {
			i++
			r.Hi = firewall.Num(uint64(u16(b, 2+2*i)))
		}
		rs = append(rs, r)
	}
	return multiport(b[0], rs, b[47] != 0)
}

func multiport(which uint8, rs []firewall.Range, invert bool) []firewall.Stmt {
	in := firewall.NewRanges(rs)
	switch which {
	case 0:
		return one(is(firewall.FieldSrcPort, 2, in, invert))
	case 1:
		return one(is(firewall.FieldDstPort, 2, in, invert))
	case 2:
		return one(&firewall.AnyOf{Of: []firewall.Matcher{
			is(firewall.FieldSrcPort, 2, in, false),
			is(firewall.FieldDstPort, 2, in, false),
		}, Invert: invert})
	default:
		return one(cannotTell("multiport", "ports of kind %d, which no kernel has", which))
	}
}

// spiRange matches the index of an IPsec header, which the modelled client does
// not have (spi_match).
func spiRange(to []firewall.Stmt, name string, lo, hi uint32, invert bool) []firewall.Stmt {
	if lo == 0 && hi == 0xffffffff {
		if invert {
			return append(to, never())
		}
		return to
	}
	return append(to, cannotTell(name, "the security parameter index of the packet"))
}

func matchESP(_ *Context, b []byte) []firewall.Stmt {
	return spiRange(nil, "esp", u32(b, 0), u32(b, 4), b[8]&1 != 0)
}

// matchAH is ah_mt of IPv4 and ah_mt6: an extension header in IPv6, without
// which the packet does not match.
func matchAH(cx *Context, b []byte) []firewall.Stmt {
	if cx.family() == firewall.IPv4 {
		return spiRange(nil, "ah", u32(b, 0), u32(b, 4), b[8]&1 != 0)
	}
	to := one(extHdr(51))
	if len(b) < 14 {
		return append(to, cannotTell("ah", "the authentication header of the packet"))
	}
	to = spiRange(to, "ah", u32(b, 0), u32(b, 4), b[13]&1 != 0)
	if u32(b, 8) != 0 || b[13]&2 != 0 || b[12] != 0 {
		to = append(to, cannotTell("ah", "the length of the packet's authentication header"))
	}
	return to
}

func matchIPComp(_ *Context, b []byte) []firewall.Stmt {
	to := spiRange(nil, "ipcomp", u32(b, 0), u32(b, 4), b[8]&1 != 0)
	if b[9] != 0 {
		to = append(to, cannotTell("ipcomp", "the reserved field of the packet's IPComp header"))
	}
	return to
}

func matchL2TP(_ *Context, _ []byte) []firewall.Stmt {
	return one(cannotTell("l2tp", "the L2TP header of the packet"))
}
