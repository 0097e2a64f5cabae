package xtables

import "github.com/hostaudit/hostaudit/firewall"

// matchTTL is ttl_mt.
func matchTTL(_ *Context, b []byte) []firewall.Stmt { return hopLimit(b) }

// matchHL is hl_mt6.
func matchHL(_ *Context, b []byte) []firewall.Stmt { return hopLimit(b) }

func hopLimit(b []byte) []firewall.Stmt {
	v := uint64(b[1])
	switch b[0] {
	case 0:
		return one(is(firewall.FieldTTL, 1, span(v, v), false))
	case 1:
		return one(is(firewall.FieldTTL, 1, span(v, v), true))
	case 2:
		if v == 0 {
			return neverStmts()
		}
		return one(is(firewall.FieldTTL, 1, span(0, v-1), false))
	case 3:
		return one(is(firewall.FieldTTL, 1, span(v+1, 255), false))
	default:
		return neverStmts() // the kernel warns and does not match
	}
}

// matchLength is length_mt and length_mt6.
func matchLength(_ *Context, b []byte) []firewall.Stmt {
	return one(is(firewall.FieldLength, 2, span(uint64(u16(b, 0)), uint64(u16(b, 2))), b[4] != 0))
}

// matchDSCP is dscp_mt.
func matchDSCP(_ *Context, b []byte) []firewall.Stmt {
	v := uint64(b[0])
	return one(is(firewall.FieldDSCP, 1, span(v, v), b[1] != 0))
}

func matchTOS(_ *Context, b []byte) []firewall.Stmt {
	return one(cannotTell("tos", "the type-of-service field of the packet (0x%02x/0x%02x)", b[1], b[0]))
}

func matchECN(_ *Context, _ []byte) []firewall.Stmt {
	return one(cannotTell("ecn", "the congestion notification (ECN) bits of the packet"))
}

func matchTCPMSS(_ *Context, b []byte) []firewall.Stmt {
	return one(cannotTell("tcpmss", "the maximum segment size that the client offers (%d to %d)", u16(b, 0), u16(b, 2)))
}

// extHdr matches the presence of an IPv6 extension header.
func extHdr(nr uint32) *firewall.Match {
	m := is(firewall.FieldExtHdr, 1, span(1, 1), false)
	m.Operand.Field.A = nr
	return m
}

// matchFrag is frag_mt6: no fragment header, no match.
func matchFrag(_ *Context, _ []byte) []firewall.Stmt {
	return []firewall.Stmt{extHdr(44), cannotTell("frag", "the fragment header of the packet")}
}

// matchRT is rt_mt6: no routing header, no match.
func matchRT(_ *Context, _ []byte) []firewall.Stmt {
	return []firewall.Stmt{extHdr(43), cannotTell("rt", "the routing header of the packet")}
}

// matchSRH is srh_mt6: no segment routing header, no match.
func matchSRH(_ *Context, _ []byte) []firewall.Stmt {
	return []firewall.Stmt{extHdr(43), cannotTell("srh", "the segment routing header of the packet")}
}

// matchHopByHop and matchDstOpts are hbh_mt6: no such header, no match.
func matchHopByHop(_ *Context, _ []byte) []firewall.Stmt {
	return []firewall.Stmt{extHdr(0), cannotTell("hbh", "the hop-by-hop options of the packet")}
}

func matchDstOpts(_ *Context, _ []byte) []firewall.Stmt {
	return []firewall.Stmt{extHdr(60), cannotTell("dst", "the destination options of the packet")}
}

func matchMH(_ *Context, _ []byte) []firewall.Stmt {
	return one(cannotTell("mh", "the mobility header of the packet"))
}

// matchIPv6Header is ipv6header_mt6 for a packet without extension headers:
// there is only its transport header. AH, ESP and "no next header" count as
// headers of their own.
func matchIPv6Header(_ *Context, b []byte) []firewall.Stmt {
	const proto = 1 // MASK_PROTO
	match, inv, soft := b[0], b[1], b[2] != 0
	var yes bool
	switch {
	case soft:
		yes = (proto^match^inv)&match == 0
	case inv != 0:
		yes = match != proto
	default:
		yes = match == proto
	}
	special := firewall.NewRanges([]firewall.Range{
		{Lo: firewall.Num(uint64(firewall.ESP)), Hi: firewall.Num(uint64(firewall.AH))},
		{Lo: firewall.Num(59), Hi: firewall.Num(59)},
	})
	of := []firewall.Matcher{is(firewall.FieldL4Proto, 1, special, yes), unknown("the extension headers of the packet")}
	if yes {
		return one(&firewall.AnyOf{Of: of})
	}
	return one(&firewall.AllOf{Of: of})
}

func matchEUI64(_ *Context, _ []byte) []firewall.Stmt {
	return one(cannotTell("eui64", "whether the source address was made of the sender's MAC address"))
}
