package xtables

import "strings"

func (p *printer) ports(opt string, lo, hi uint16, invert bool) {
	if lo == 0 && hi == 0xffff {
		return
	}
	p.span(invert, opt, uint64(lo), uint64(hi))
}

func saveTCP(p *printer, b []byte) {
	inv := b[11]
	p.ports("--sport", u16(b, 0), u16(b, 2), inv&1 != 0)
	p.ports("--dport", u16(b, 4), u16(b, 6), inv&2 != 0)
	if b[8] != 0 || inv&8 != 0 {
		p.number(inv&8 != 0, "--tcp-option", uint64(b[8]))
	}
	if b[9] != 0 || inv&4 != 0 {
		p.not(inv&4 != 0)
		p.word("--tcp-flags", tcpFlags(b[9]), tcpFlags(b[10]))
	}
}

func tcpFlags(bits uint8) string {
	s := names(uint64(bits), []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"})
	if rest := bits &^ 0x3f; rest != 0 {
		// iptables has no names for these and cannot print them.
		s = strings.Trim(s+","+names(uint64(rest), []string{6: "ECE", 7: "CWR"}), ",")
	}
	if s == "" {
		return "NONE"
	}
	return s
}

func saveUDP(p *printer, b []byte) {
	p.ports("--sport", u16(b, 0), u16(b, 2), b[8]&1 != 0)
	p.ports("--dport", u16(b, 4), u16(b, 6), b[8]&2 != 0)
}

// sctpChunks are the chunk types by number and the names of their flags, the
// highest bit first.
var sctpChunks = map[int][2]string{
	0: {"DATA", "----IUBE"}, 1: {"INIT", ""}, 2: {"INIT_ACK", ""}, 3: {"SACK", ""}, 4: {"HEARTBEAT", ""},
	5: {"HEARTBEAT_ACK", ""}, 6: {"ABORT", "-------T"}, 7: {"SHUTDOWN", ""}, 8: {"SHUTDOWN_ACK", ""}, 9: {"ERROR", ""},
	10: {"COOKIE_ECHO", ""}, 11: {"COOKIE_ACK", ""}, 12: {"ECN_ECNE", ""}, 13: {"ECN_CWR", ""},
	14: {"SHUTDOWN_COMPLETE", "-------T"}, 64: {"I_DATA", "----IUBE"}, 128: {"ASCONF_ACK", ""}, 130: {"RE_CONFIG", ""},
	132: {"PAD", ""}, 192: {"FORWARD_TSN", ""}, 193: {"ASCONF", ""}, 194: {"I_FORWARD_TSN", ""},
}

func saveSCTP(p *printer, b []byte) {
	flags, inv := u32(b, 284), u32(b, 288)
	if flags&1 != 0 {
		p.span(inv&1 != 0, "--sport", uint64(u16(b, 4)), uint64(u16(b, 6)))
	}
	if flags&2 != 0 {
		p.span(inv&2 != 0, "--dport", uint64(u16(b, 0)), uint64(u16(b, 2)))
	}
	if flags&4 == 0 {
		return
	}
	p.not(inv&4 != 0)
	p.word("--chunk-types", map[uint32]string{1: "any", 2: "all", 4: "only"}[u32(b, 264)])
	var types []string
	set, all := false, true
	for i := range 256 {
		// The map is an array of 64 words, of which the first eight count.
		on := u32(b, 8+4*(i/32))&(1<<(i%32)) != 0
		set, all = set || on, all && on
		if on {
			types = append(types, sctpChunkText(b, i))
		}
	}
	for i := 8; i < 64; i++ {
		set, all = set || u32(b, 8+4*i) != 0, all && u32(b, 8+4*i) == 0xffffffff
	}
	switch {
	case !set:
		p.word("NONE")
	case all:
		p.word("ALL")
	default:
		p.word(strings.Join(types, ","))
	}
}

func sctpChunkText(b []byte, typ int) string {
	s := sctpChunks[typ][0]
	letters := sctpChunks[typ][1]
	for j := range min(int(u32(b, 280)), 4) {
		f := b[268+3*j:]
		if int(f[0]) != typ || f[2] == 0 {
			continue
		}
		s += ":"
		for i := 7; i >= 0; i-- {
			if f[2]&(1<<i) == 0 {
				continue
			}
			c := "-"
			if len(letters) == 8 {
				c = letters[7-i : 8-i]
			}
			if f[1]&(1<<i) == 0 {
				c = strings.ToLower(c)
			}
			s += c
		}
	}
	return s
}

var dccpTypes = []string{"REQUEST", "RESPONSE", "DATA", "ACK", "DATAACK", "CLOSEREQ", "CLOSE", "RESET", "SYNC", "SYNCACK", "INVALID"}

func saveDCCP(p *printer, b []byte) {
	flags, inv := u16(b, 8), u16(b, 10)
	if flags&1 != 0 {
		p.span(inv&1 != 0, "--sport", uint64(u16(b, 4)), uint64(u16(b, 6)))
	}
	if flags&2 != 0 {
		p.span(inv&2 != 0, "--dport", uint64(u16(b, 0)), uint64(u16(b, 2)))
	}
	if flags&4 != 0 {
		p.not(inv&4 != 0)
		p.word("--dccp-types", names(uint64(u16(b, 12)), dccpTypes))
	}
	if flags&8 != 0 {
		p.number(inv&8 != 0, "--dccp-option", uint64(b[14]))
	}
}

func saveICMP(p *printer, b []byte) {
	if b[0] == 0xff {
		p.not(b[3]&1 != 0)
		p.word("--icmp-type", "any")
		return
	}
	p.icmpType("--icmp-type", b)
}

func saveICMPv6(p *printer, b []byte) { p.icmpType("--icmpv6-type", b) }

func (p *printer) icmpType(opt string, b []byte) {
	p.number(b[3]&1 != 0, opt, uint64(b[0]))
	if b[1] != 0 || b[2] != 0xff {
		p.f("/%d", b[1])
		if b[1] != b[2] {
			p.f("-%d", b[2]) // no front end makes such a range, nor prints it
		}
	}
}

var multiportOpts = [...]string{"--sports", "--dports", "--ports"}

func saveMultiport0(p *printer, b []byte) {
	list := make([]string, min(int(b[1]), 15))
	for i := range list {
		list[i] = dec(u16(b, 2+2*i))
	}
	p.multiport(b[0], list)
}

func saveMultiport1(p *printer, b []byte) {
	var list []string
	for i := 0; i < min(int(b[1]), 15); i++ {
		s := dec(u16(b, 2+2*i))
		if b[32+i] != 0 && i+1 < 15 {
			i++
			s += ":" + dec(u16(b, 2+2*i))
		}
		list = append(list, s)
	}
	p.not(b[47] != 0)
	p.multiport(b[0], list)
}

func (p *printer) multiport(which uint8, list []string) {
	if int(which) < len(multiportOpts) {
		p.word(multiportOpts[which])
	}
	p.word(strings.Join(list, ","))
}

func (p *printer) spi(opt string, b []byte, invert bool) {
	if lo, hi := u32(b, 0), u32(b, 4); lo != 0 || hi != 0xffffffff {
		p.span(invert, opt, uint64(lo), uint64(hi))
	}
}

func saveESP(p *printer, b []byte) { p.spi("--espspi", b, b[8]&1 != 0) }

func saveAH(p *printer, b []byte) {
	if !p.v6 || len(b) < 14 {
		p.spi("--ahspi", b, b[8]&1 != 0)
		return
	}
	p.spi("--ahspi", b, b[13]&1 != 0)
	if u32(b, 8) != 0 || b[13]&2 != 0 {
		p.number(b[13]&2 != 0, "--ahlen", uint64(u32(b, 8)))
	}
	if b[12] != 0 {
		p.word("--ahres")
	}
}

func saveIPComp(p *printer, b []byte) {
	p.spi("--ipcompspi", b, b[8]&1 != 0)
	if b[9] != 0 {
		p.word("--compres")
	}
}

func saveL2TP(p *printer, b []byte) {
	flags := b[10]
	if flags&1 != 0 {
		p.f(" --tid %d", u32(b, 0))
	}
	if flags&2 != 0 {
		p.f(" --sid %d", u32(b, 4))
	}
	if flags&4 != 0 {
		p.f(" --pversion %d", b[8])
	}
	if flags&8 != 0 {
		p.word("--type", map[bool]string{true: "data", false: "control"}[b[9] == 1])
	}
}
