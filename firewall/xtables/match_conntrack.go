package xtables

import "github.com/hostaudit/hostaudit/firewall"

// Bits of xt_state and xt_conntrack beside those that nft has at the same
// place (invalid 1, established 2, related 4, new 8): XT_CONNTRACK_STATE_*.
// xt_state's untracked is the SNAT bit of xt_conntrack.
const (
	xtStateUntracked = 1 << 6
	xtCTSNAT         = 1 << 6
	xtCTDNAT         = 1 << 7
	xtCTUntracked    = 1 << 8
)

const ctStateBits = firewall.CTInvalid | firewall.CTEstablished | firewall.CTRelated | firewall.CTNew

// stateIs matches a connection state among bits of firewall.FieldCTState.
func stateIs(bits uint64, invert bool) *firewall.Match {
	k := firewall.FieldCTState
	if bits&(firewall.CTSNAT|firewall.CTDNAT) != 0 {
		k = firewall.FieldCTStateNAT
	}
	return maskedHost(k, 4, bits, 0, !invert)
}

// matchState is state_mt.
func matchState(_ *Context, b []byte) []firewall.Stmt {
	m := uint64(u32(b, 0))
	bits := m & ctStateBits
	if m&xtStateUntracked != 0 {
		bits |= firewall.CTUntracked
	}
	return one(stateIs(bits, false))
}

// Options of xt_conntrack (XT_CONNTRACK_*).
const (
	ctOptState = 1 << iota
	ctOptProto
	ctOptOrigSrc
	ctOptOrigDst
	ctOptReplSrc
	ctOptReplDst
	ctOptStatus
	ctOptExpires
	ctOptOrigSrcPort
	ctOptOrigDstPort
	ctOptReplSrcPort
	ctOptReplDstPort
	ctOptDirection
)

// ctInfo is struct xt_conntrack_mtinfo of any revision.
type ctInfo struct {
	addrs              []byte // four pairs of address and mask, 16 bytes each
	expMin, expMax     uint32
	l4proto            uint16
	ports              [4][2]uint16 // original source, destination, reply source, destination
	match, invert      uint16
	states, statusBits uint16
}

func newCTInfo(b []byte) ctInfo {
	return ctInfo{
		addrs: b[:128], expMin: u32(b, 128), expMax: u32(b, 132), l4proto: u16(b, 136),
		match: u16(b, 146), invert: u16(b, 148),
	}
}

// single reads the four ports of revisions 1 and 2, in network order.
func (c *ctInfo) single(b []byte) {
	for i := range c.ports {
		p := be16(b, 138+2*i)
		c.ports[i] = [2]uint16{p, p}
	}
}

func matchConntrack1(cx *Context, b []byte) []firewall.Stmt {
	c := newCTInfo(b)
	c.single(b)
	c.states, c.statusBits = uint16(b[150]), uint16(b[151])
	return c.stmts(cx)
}

func matchConntrack2(cx *Context, b []byte) []firewall.Stmt {
	c := newCTInfo(b)
	c.single(b)
	c.states, c.statusBits = u16(b, 150), u16(b, 152)
	return c.stmts(cx)
}

func matchConntrack3(cx *Context, b []byte) []firewall.Stmt {
	c := newCTInfo(b)
	for i := range c.ports {
		c.ports[i] = [2]uint16{u16(b, 138+2*i), u16(b, 154+2*i)}
	}
	c.states, c.statusBits = u16(b, 150), u16(b, 152)
	return c.stmts(cx)
}

// stmts is conntrack_mt. Every option has its own inversion. A packet without a
// connection matches when the state was asked for and fits, whatever else the
// rule asks; without that question it never matches.
func (c *ctInfo) stmts(cx *Context) []firewall.Stmt {
	var to []firewall.Stmt
	withoutConnection := c.match&ctOptState != 0
	if withoutConnection {
		bits := uint64(c.states) & ctStateBits
		if c.states&xtCTSNAT != 0 {
			bits |= firewall.CTSNAT
		}
		if c.states&xtCTDNAT != 0 {
			bits |= firewall.CTDNAT
		}
		if c.states&xtCTUntracked != 0 {
			bits |= firewall.CTUntracked
		}
		to = append(to, stateIs(bits, c.inverted(ctOptState)))
	}
	add := func(m *firewall.Match) {
		m.WantAbsent = withoutConnection
		to = append(to, m)
	}
	if c.match&ctOptDirection != 0 {
		add(is(firewall.FieldCTDirection, 1, span(0, 0), c.inverted(ctOptDirection)))
	}
	for i, o := range []uint16{ctOptOrigSrc, ctOptOrigDst, ctOptReplSrc, ctOptReplDst} {
		if c.match&o == 0 {
			continue
		}
		k := firewall.FieldCTSrcAddr
		if i%2 == 1 {
			k = firewall.FieldCTDstAddr
		}
		mask := cx.addr(c.addrs, 32*i+16)
		m := addrMask(k, cx.addrLen(), cx.addr(c.addrs, 32*i).And(mask), mask, c.inverted(o))
		m.Operand.Field.A = uint32(i / 2)
		add(m)
	}
	if c.match&ctOptProto != 0 {
		add(is(firewall.FieldCTL4Proto, 1, span(uint64(c.l4proto), uint64(c.l4proto)), c.inverted(ctOptProto)))
	}
	for i, o := range []uint16{ctOptOrigSrcPort, ctOptOrigDstPort, ctOptReplSrcPort, ctOptReplDstPort} {
		if c.match&o == 0 {
			continue
		}
		k := firewall.FieldCTSrcPort
		if i%2 == 1 {
			k = firewall.FieldCTDstPort
		}
		m := is(k, 2, span(uint64(c.ports[i][0]), uint64(c.ports[i][1])), c.inverted(o))
		m.Operand.Field.A = uint32(i / 2)
		add(m)
	}
	if c.match&ctOptStatus != 0 {
		add(maskedHost(firewall.FieldCTStatus, 4, uint64(c.statusBits), 0, !c.inverted(ctOptStatus)))
	}
	if c.match&ctOptExpires != 0 {
		add(isHost(firewall.FieldCTExpiration, 4, span(uint64(c.expMin), uint64(c.expMax)), c.inverted(ctOptExpires)))
	}
	if len(to) == 0 {
		// Nothing asked: every packet with a connection.
		to = append(to, is(firewall.FieldCTDirection, 1, span(0, 1), false))
	}
	return to
}

func (c *ctInfo) inverted(o uint16) bool { return c.invert&o != 0 }

// matchConnmark is connmark_mt: no connection, no match.
func matchConnmark(_ *Context, b []byte) []firewall.Stmt {
	return one(maskedHost(firewall.FieldCTMark, 4, uint64(u32(b, 4)), uint64(u32(b, 0)), b[8] != 0))
}

// matchConnlabel is connlabel_mt: without a connection or labels the answer is
// the inversion.
func matchConnlabel(_ *Context, b []byte) []firewall.Stmt {
	bit, opts := u16(b, 0), u16(b, 2)
	if opts&2 != 0 {
		return one(cannotTell("connlabel", "whether label %d can be set on the connection", bit))
	}
	invert := opts&1 != 0
	if bit > 127 {
		return one(cannotTell("connlabel", "label %d of the connection, which no kernel has", bit))
	}
	m := &firewall.Match{
		Operand: firewall.Masked(firewall.FieldCTLabel, 16, firewall.Num(1).Shl(uint(bit))),
		In:      firewall.Single(firewall.Value{}),
		Invert:  !invert, WantAbsent: invert,
	}
	m.Operand.HostOrder = true
	return one(m)
}

func matchConnbytes(_ *Context, b []byte) []firewall.Stmt {
	what := "traffic"
	switch b[16] {
	case 0:
		what = "packets"
	case 1:
		what = "bytes"
	case 2:
		what = "average packet size"
	}
	return one(cannotTell("connbytes", "the connection's %s so far (%d to %d)", what, u64(b, 0), u64(b, 8)))
}

func matchConnlimit0(cx *Context, b []byte) []firewall.Stmt {
	return connlimit(cx, b, 0)
}

func matchConnlimit1(cx *Context, b []byte) []firewall.Stmt {
	return connlimit(cx, b, u32(b, 20))
}

func connlimit(cx *Context, b []byte, flags uint32) []firewall.Stmt {
	side, more := "source", "more than"
	if flags&2 != 0 {
		side = "destination"
	}
	if flags&1 != 0 {
		more = "at most"
	}
	n, _ := prefixLen(cx.addr(b, 0), cx.addrLen())
	return one(cannotTell("connlimit", "whether the %s /%d has %s %d connections now", side, n, more, u32(b, 16)))
}

// matchHelper is helper_mt: only a connection that another one led to can have
// the helper.
func matchHelper(_ *Context, b []byte) []firewall.Stmt {
	return one(&firewall.AllOf{Invert: u32(b, 0) != 0, Of: []firewall.Matcher{
		maskedHost(firewall.FieldCTStatus, 4, firewall.CTStatusExpected, 0, true),
		unknown("the conntrack helper that expected the connection"),
	}})
}
