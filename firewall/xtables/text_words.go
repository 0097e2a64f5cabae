package xtables

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hostaudit/hostaudit/firewall"
)

// f appends a formatted piece; the format brings its own leading space.
func (p *printer) f(format string, args ...any) { p.b = fmt.Appendf(p.b, format, args...) }

func dec[T ~uint8 | ~uint16 | ~uint32 | ~uint64](v T) string {
	return strconv.FormatUint(uint64(v), 10)
}

// number appends an option with a number, inverted or not.
func (p *printer) number(invert bool, opt string, v uint64) {
	p.not(invert)
	p.word(opt, dec(v))
}

// span appends an option with lo:hi, or one number where both are equal.
func (p *printer) span(invert bool, opt string, lo, hi uint64) {
	p.not(invert)
	if lo == hi {
		p.word(opt, dec(lo))
		return
	}
	p.word(opt, dec(lo)+":"+dec(hi))
}

// flagWords appends the options whose bits are set.
func (p *printer) flagWords(bits uint32, opts ...string) {
	for i, o := range opts {
		if bits&(1<<i) != 0 && o != "" {
			p.word(o)
		}
	}
}

// names joins the names of the bits that are set with commas.
func names(bits uint64, of []string) string {
	var out []string
	for i, n := range of {
		if bits&(1<<i) != 0 && n != "" {
			out = append(out, n)
		}
	}
	return strings.Join(out, ",")
}

// markMask appends " 0x1" or " 0x1/0xff" (xtables_print_val_mask).
func (p *printer) markMask(v, mask uint32) {
	p.f(" 0x%x", v)
	if mask != 0xffffffff {
		p.f("/0x%x", mask)
	}
}

// unquoted are the bytes that a string may have to be printed without quotes
// (xtables_save_string).
func unquoted(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '-':
		default:
			return false
		}
	}
	return s != ""
}

// text appends a string, quoted where that is needed.
func (p *printer) text(s string) {
	if unquoted(s) {
		p.word(s)
		return
	}
	p.b = append(p.b, ` "`...)
	for _, c := range []byte(s) {
		if c == '"' || c == '\\' || c == '\'' {
			p.b = append(p.b, '\\')
		}
		p.b = append(p.b, c)
	}
	p.b = append(p.b, '"')
}

// addrLen is the length of an address of the rule's family.
func (p *printer) addrLen() int {
	if p.v6 {
		return 16
	}
	return 4
}

// addrAt prints the address of a union nf_inet_addr.
func (p *printer) addrAt(b []byte, off int) string { return p.ip(b[off : off+p.addrLen()]) }

// addrMaskAt prints an address and its mask, without a mask of full length.
func (p *printer) addrMaskAt(b []byte, addr, mask int) string {
	m := b[mask : mask+p.addrLen()]
	if n, ok := prefixLen(firewall.Bytes(m), len(m)); ok && n == 8*len(m) {
		return p.addrAt(b, addr)
	}
	return p.addrAt(b, addr) + "/" + p.maskText(m)
}

// setName names an ipset.
func (p *printer) setName(index uint16) string {
	if p.sets != nil {
		if s, err := p.sets.IPSet(index); err == nil {
			return s.Name
		}
	}
	return "[index " + dec(index) + "]"
}

func macText(b []byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}
