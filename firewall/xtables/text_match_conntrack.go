package xtables

import "strings"

// ctStateNames are printed in this order.
var ctStateNames = []struct {
	bit  uint16
	name string
}{{1, "INVALID"}, {8, "NEW"}, {4, "RELATED"}, {2, "ESTABLISHED"}, {xtCTUntracked, "UNTRACKED"}, {xtCTSNAT, "SNAT"}, {xtCTDNAT, "DNAT"}}

func ctStates(bits uint16) string {
	var out []string
	for _, s := range ctStateNames {
		if bits&s.bit != 0 {
			out = append(out, s.name)
		}
	}
	return strings.Join(out, ",")
}

func saveState(p *printer, b []byte) {
	bits := uint16(u32(b, 0))
	if bits&xtStateUntracked != 0 {
		bits = bits&^xtStateUntracked | xtCTUntracked
	}
	p.word("--state", ctStates(bits))
}

// ctOptStateAlias is set for rules made with `-m state`.
const ctOptStateAlias = 1 << 13

func conntrackAlias(e Ext) string {
	if len(e.Info) >= 150 && u16(e.Info, 146)&ctOptStateAlias != 0 {
		return "state"
	}
	return e.Name
}

func saveConntrack1(p *printer, b []byte) {
	c := newCTInfo(b)
	c.single(b)
	c.states, c.statusBits = uint16(b[150]), uint16(b[151])
	p.conntrack(&c)
}

func saveConntrack2(p *printer, b []byte) {
	c := newCTInfo(b)
	c.single(b)
	c.states, c.statusBits = u16(b, 150), u16(b, 152)
	p.conntrack(&c)
}

func saveConntrack3(p *printer, b []byte) {
	c := newCTInfo(b)
	for i := range c.ports {
		c.ports[i] = [2]uint16{u16(b, 138+2*i), u16(b, 154+2*i)}
	}
	c.states, c.statusBits = u16(b, 150), u16(b, 152)
	p.conntrack(&c)
}

func (p *printer) conntrack(c *ctInfo) {
	if c.match&ctOptState != 0 {
		p.not(c.inverted(ctOptState))
		opt := "--ctstate"
		if c.match&ctOptStateAlias != 0 {
			opt = "--state"
		}
		p.word(opt, ctStates(c.states))
	}
	if c.match&ctOptProto != 0 {
		p.number(c.inverted(ctOptProto), "--ctproto", uint64(c.l4proto))
	}
	for i, o := range []string{"--ctorigsrc", "--ctorigdst", "--ctreplsrc", "--ctrepldst"} {
		if bit := uint16(ctOptOrigSrc << i); c.match&bit != 0 {
			p.not(c.inverted(bit))
			p.word(o, p.addrMaskAt(c.addrs, 32*i, 32*i+16))
		}
	}
	for i, o := range []string{"--ctorigsrcport", "--ctorigdstport", "--ctreplsrcport", "--ctrepldstport"} {
		if bit := uint16(ctOptOrigSrcPort << i); c.match&bit != 0 {
			lo, hi := c.ports[i][0], c.ports[i][1]
			if hi == 0 {
				hi = lo
			}
			p.span(c.inverted(bit), o, uint64(lo), uint64(hi))
		}
	}
	if c.match&ctOptStatus != 0 {
		p.not(c.inverted(ctOptStatus))
		s := names(uint64(c.statusBits), []string{"EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"})
		if c.statusBits == 0 {
			s = "NONE"
		}
		p.word("--ctstatus", s)
	}
	if c.match&ctOptExpires != 0 {
		p.span(c.inverted(ctOptExpires), "--ctexpire", uint64(c.expMin), uint64(c.expMax))
	}
	if c.match&ctOptDirection != 0 {
		dir := "ORIGINAL"
		if c.inverted(ctOptDirection) {
			dir = "REPLY"
		}
		p.word("--ctdir", dir)
	}
}

func saveMark(p *printer, b []byte) {
	p.not(b[8] != 0)
	p.word("--mark")
	p.markMask(u32(b, 0), u32(b, 4))
}

func saveConnlabel(p *printer, b []byte) {
	// The names of labels stand in a file that a rule does not know.
	p.not(u16(b, 2)&1 != 0)
	p.f(" --label \"%d\"", u16(b, 0))
	if u16(b, 2)&2 != 0 {
		p.word("--set")
	}
}

func saveConnbytes(p *printer, b []byte) {
	from, to := u64(b, 0), u64(b, 8)
	if from > to {
		p.not(true)
		from, to = to, from
	}
	p.f(" --connbytes %d", from)
	if to != 0 && to != ^uint64(0) {
		p.f(":%d", to)
	}
	p.word("--connbytes-mode", word(b[16], "packets", "bytes", "avgpkt"), "--connbytes-dir", word(b[17], "original", "reply", "both"))
}

// word is the i-th of some words.
func word(i uint8, words ...string) string {
	if int(i) < len(words) {
		return words[i]
	}
	return "unknown"
}

func saveConnlimit0(p *printer, b []byte) { p.connlimit(b, 0, false) }

func saveConnlimit1(p *printer, b []byte) { p.connlimit(b, u32(b, 20), true) }

func (p *printer) connlimit(b []byte, flags uint32, side bool) {
	opt := "--connlimit-above"
	if flags&1 != 0 {
		opt = "--connlimit-upto"
	}
	p.number(false, opt, uint64(u32(b, 16)))
	ones := 0
	for _, c := range b[:p.addrLen()] {
		for ; c != 0; c &= c - 1 {
			ones++
		}
	}
	p.number(false, "--connlimit-mask", uint64(ones))
	if side {
		p.word(map[bool]string{true: "--connlimit-daddr", false: "--connlimit-saddr"}[flags&2 != 0])
	}
}

func saveHelper(p *printer, b []byte) {
	p.not(u32(b, 0) != 0)
	p.word("--helper")
	p.text(cstring(b[4:34]))
}
