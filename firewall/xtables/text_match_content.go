package xtables

import (
	"fmt"
	"strings"
)

func saveTTL(p *printer, b []byte) { p.hopLimit("--ttl", b) }

func saveHL(p *printer, b []byte) { p.hopLimit("--hl", b) }

func (p *printer) hopLimit(opt string, b []byte) {
	p.number(b[0] == 1, opt+word(b[0], "-eq", "-eq", "-lt", "-gt"), uint64(b[1]))
}

func saveLength(p *printer, b []byte) {
	p.span(b[4] != 0, "--length", uint64(u16(b, 0)), uint64(u16(b, 2)))
}

func saveDSCP(p *printer, b []byte) {
	p.not(b[1] != 0)
	p.f(" --dscp 0x%02x", b[0])
}

func saveTOS(p *printer, b []byte) {
	p.not(b[2] != 0)
	p.f(" --tos 0x%02x/0x%02x", b[1], b[0])
}

func saveECN(p *printer, b []byte) {
	op, inv := b[0], b[1]
	item := func(bit uint8, words ...string) {
		if op&bit != 0 {
			p.not(inv&bit != 0)
			p.word(words...)
		}
	}
	item(0x10, "--ecn-tcp-ece")
	item(0x20, "--ecn-tcp-cwr")
	item(0x01, "--ecn-ip-ect", dec(b[2]))
}

func saveTCPMSS(p *printer, b []byte) {
	p.span(b[4] != 0, "--mss", uint64(u16(b, 0)), uint64(u16(b, 2)))
}

func saveFrag(p *printer, b []byte) {
	flags, inv := b[12], b[13]
	if lo, hi := u32(b, 0), u32(b, 4); lo != 0 || hi != 0xffffffff {
		p.span(inv&1 != 0, "--fragid", uint64(lo), uint64(hi))
	}
	if flags&2 != 0 {
		p.number(inv&2 != 0, "--fraglen", uint64(u32(b, 8)))
	}
	p.flagWords(uint32(flags), "", "", "--fragres", "--fragfirst", "--fragmore", "--fraglast")
}

func saveRT(p *printer, b []byte) {
	flags, inv := b[16], b[17]
	if flags&1 != 0 {
		p.number(inv&1 != 0, "--rt-type", uint64(u32(b, 0)))
	}
	if lo, hi := u32(b, 4), u32(b, 8); lo != 0 || hi != 0xffffffff {
		p.span(inv&2 != 0, "--rt-segsleft", uint64(lo), uint64(hi))
	}
	if flags&4 != 0 {
		p.number(inv&4 != 0, "--rt-len", uint64(u32(b, 12)))
	}
	p.flagWords(uint32(flags), "", "", "", "--rt-0-res", "--rt-0-addrs")
	var hops []string
	for i := range min(int(b[276]), 16) {
		hops = append(hops, ip6Text([16]byte(b[20+16*i:])))
	}
	if hops != nil {
		p.word(strings.Join(hops, ","))
	}
	if flags&0x20 != 0 {
		p.word("--rt-0-not-strict")
	}
}

func saveHopByHop(p *printer, b []byte) { p.options("--hbh", b) }

func saveDstOpts(p *printer, b []byte) { p.options("--dst", b) }

func (p *printer) options(opt string, b []byte) {
	flags, inv := b[4], b[5]
	if flags&1 != 0 {
		p.number(inv&1 != 0, opt+"-len", uint64(u32(b, 0)))
	}
	if flags&2 != 0 {
		p.word(opt + "-opts")
	}
	var list []string
	for i := range min(int(b[38]), 16) {
		v := u16(b, 6+2*i)
		s := dec(v >> 8)
		if v&0xff != 0xff {
			s += ":" + dec(v&0xff)
		}
		list = append(list, s)
	}
	if list != nil {
		p.word(strings.Join(list, ","))
	}
}

func saveMH(p *printer, b []byte) {
	if b[0] != 0 || b[1] != 0xff {
		p.span(b[2]&1 != 0, "--mh-type", uint64(b[0]), uint64(b[1]))
	}
}

// ipv6Headers are the names by bit, the lowest first; printed highest first.
var ipv6Headers = []string{"protocol", "ipv6-nonxt", "esp", "ah", "ipv6-frag", "ipv6-route", "ipv6-opts", "hop-by-hop"}

func saveIPv6Header(p *printer, b []byte) {
	var list []string
	for i := 7; i >= 0; i-- {
		if b[0]&(1<<i) != 0 {
			list = append(list, ipv6Headers[i])
		}
	}
	if list == nil {
		list = []string{"NONE"}
	}
	p.not(b[1] != 0)
	p.word("--header", strings.Join(list, ","))
	if b[2] != 0 {
		p.word("--soft")
	}
}

func saveSRH0(p *printer, b []byte) { p.srh(b, u16(b, 6), u16(b, 8)) }

func saveSRH1(p *printer, b []byte) {
	flags, inv := u16(b, 104), u16(b, 106)
	p.srh(b, flags, inv)
	for i, opt := range []string{"--srh-psid", "--srh-nsid", "--srh-lsid"} {
		if bit := uint16(0x800 << i); flags&bit != 0 {
			p.not(inv&bit != 0)
			p.word(opt, p.addrAt(b, 8+16*i)+"/"+p.maskText(b[56+16*i:72+16*i]))
		}
	}
}

// srh prints what both revisions of struct ip6t_srh have.
func (p *printer) srh(b []byte, flags, inv uint16) {
	for i, o := range []struct {
		opt   string
		value uint16
	}{
		{"--srh-next-hdr", uint16(b[0])}, {"--srh-hdr-len-eq", uint16(b[1])}, {"--srh-hdr-len-gt", uint16(b[1])},
		{"--srh-hdr-len-lt", uint16(b[1])}, {"--srh-segs-left-eq", uint16(b[2])}, {"--srh-segs-left-gt", uint16(b[2])},
		{"--srh-segs-left-lt", uint16(b[2])}, {"--srh-last-entry-eq", uint16(b[3])}, {"--srh-last-entry-gt", uint16(b[3])},
		{"--srh-last-entry-lt", uint16(b[3])}, {"--srh-tag", u16(b, 4)},
	} {
		if flags&(1<<i) != 0 {
			p.number(inv&(1<<i) != 0, o.opt, uint64(o.value))
		}
	}
}

func saveString0(p *printer, b []byte) { p.stringMatch(b, b[149] != 0, false) }

func saveString1(p *printer, b []byte) { p.stringMatch(b, b[149]&1 != 0, b[149]&2 != 0) }

func (p *printer) stringMatch(b []byte, invert, icase bool) {
	pattern := b[20 : 20+min(int(b[148]), 128)]
	p.not(invert)
	if hexString(pattern) {
		p.f(` --hex-string "|%x|"`, pattern)
	} else {
		p.b = append(p.b, ` --string "`...)
		for _, c := range pattern {
			if c == '"' || c == '\\' {
				p.b = append(p.b, '\\')
			}
			p.b = append(p.b, c)
		}
		p.b = append(p.b, '"')
	}
	p.word("--algo", cstring(b[4:20]))
	if from := u16(b, 0); from != 0 {
		p.f(" --from %d", from)
	}
	if to := u16(b, 2); to != 0xffff {
		p.f(" --to %d", to)
	}
	if icase {
		p.word("--icase")
	}
}

// hexString reports whether a pattern has to be printed as bytes.
func hexString(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return true
		}
	}
	return len(b) > 0 && b[len(b)-1] == '\\'
}

func saveU32(p *printer, b []byte) {
	if len(b) < 1982 {
		p.word("[" + hexBytes(b) + "]")
		return
	}
	p.not(b[1981] != 0)
	p.b = append(p.b, ` --u32 "`...)
	for i := range min(int(b[1980]), 11) {
		if i > 0 {
			p.b = append(p.b, "&&"...)
		}
		p.u32Test(b[180*i : 180*i+180])
	}
	p.b = append(p.b, '"')
}

// u32Test prints struct xt_u32_test.
func (p *printer) u32Test(b []byte) {
	p.f("0x%x", u32(b, 0))
	for i := 1; i < min(int(b[176]), 11); i++ {
		p.f("%s0x%x", word(b[8*i+4], "&", "<<", ">>", "@"), u32(b, 8*i))
	}
	p.b = append(p.b, '=')
	for i := range min(int(b[177]), 11) {
		if i > 0 {
			p.b = append(p.b, ',')
		}
		lo, hi := u32(b, 88+8*i), u32(b, 92+8*i)
		p.f("0x%x", lo)
		if hi != lo {
			p.f(":0x%x", hi)
		}
	}
}

func saveBPF0(p *printer, b []byte) { p.bytecode(b[4:], u16(b, 0)) }

func saveBPF1(p *printer, b []byte) {
	switch u16(b, 0) {
	case 0:
		p.bytecode(b[8:], u16(b, 2))
	case 1:
		p.word("--object-pinned", cstring(b[8:min(520, len(b))]))
	default:
		p.f(" [mode %d, descriptor %d]", u16(b, 0), int32(u32(b, 4)))
	}
}

// bytecode prints struct sock_filter instructions.
func (p *printer) bytecode(b []byte, n uint16) {
	var list []string
	for i := range min(int(n), 64, len(b)/8) {
		in := b[8*i:]
		list = append(list, fmt.Sprintf("%d %d %d %d", u16(in, 0), in[2], in[3], u32(in, 4)))
	}
	p.f(` --bytecode "%d,%s"`, n, strings.Join(list, ","))
}

func saveOSF(p *printer, b []byte) {
	flags := u32(b, 36)
	p.not(flags&8 != 0)
	p.word("--genre", cstring(b[:32]))
	if flags&2 != 0 {
		p.f(" --ttl %d", u32(b, 44))
	}
	if flags&4 != 0 {
		p.f(" --log %d", u32(b, 40))
	}
}

func saveComment(p *printer, b []byte) {
	p.word("--comment")
	p.text(cstring(b))
}
