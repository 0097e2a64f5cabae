package xtables

import "github.com/hostaudit/hostaudit/firewall"

// Header is the part of a rule before its matches: struct ipt_ip or struct
// ip6t_ip6.
type Header struct {
	Src, Dst         []byte // 4 or 16 bytes
	SrcMask, DstMask []byte
	In, Out          []byte // 16 bytes
	InMask, OutMask  []byte
	Proto            uint16
	// HasProto: the protocol counts. In IPv4 it does when it is not 0, in IPv6
	// the front end sets a flag, and 0 with the flag is any.
	HasProto bool
	Fragment bool // -f: second and further fragments (IPv4 only)
	Goto     bool // the verdict of the target is a goto, not a jump
	Invert   uint8
}

// Bits of Header.Invert (IPT_INV_*, the same in IPv6).
const (
	InvertIn       = 0x01
	InvertOut      = 0x02
	InvertSrc      = 0x08
	InvertDst      = 0x10
	InvertFragment = 0x20
	InvertProto    = 0x40
)

// Sizes of struct ipt_ip and struct ip6t_ip6, and of the entries that begin
// with them.
const (
	ipSize, ip6Size       = 84, 136
	entrySize, entry6Size = 112, 168
)

// newHeader reads a header; b is long enough.
func newHeader(f firewall.Family, b []byte) Header {
	n := f.AddrLen()
	h := Header{Src: b[:n], Dst: b[n : 2*n], SrcMask: b[2*n : 3*n], DstMask: b[3*n : 4*n]}
	b = b[4*n:]
	h.In, h.Out, h.InMask, h.OutMask = b[:16], b[16:32], b[32:48], b[48:64]
	h.Proto = u16(b, 64)
	if f == firewall.IPv4 {
		flags := b[66]
		h.HasProto, h.Fragment, h.Goto, h.Invert = h.Proto != 0, flags&1 != 0, flags&2 != 0, b[67]
		return h
	}
	flags := b[67]
	h.HasProto, h.Goto, h.Invert = flags&1 != 0, flags&4 != 0, b[68]
	return h
}

// DecodeHeader lowers a header to the matches it stands for, in the order of
// the kernel (ip_packet_match, ip6_packet_match).
func DecodeHeader(cx *Context, h *Header) []firewall.Stmt {
	var to []firewall.Stmt
	to = h.addr(to, cx, firewall.FieldSrcAddr, h.Src, h.SrcMask, InvertSrc)
	to = h.addr(to, cx, firewall.FieldDstAddr, h.Dst, h.DstMask, InvertDst)
	to = h.iface(to, firewall.FieldInName, h.In, h.InMask, InvertIn)
	to = h.iface(to, firewall.FieldOutName, h.Out, h.OutMask, InvertOut)
	return h.protocol(to, cx)
}

func (h *Header) addr(to []firewall.Stmt, cx *Context, k firewall.FieldKind, addr, mask []byte, bit uint8) []firewall.Stmt {
	m := firewall.Bytes(mask)
	want := firewall.Bytes(addr)
	invert := h.Invert&bit != 0
	if m.IsZero() && want.IsZero() {
		if invert {
			return append(to, never())
		}
		return to
	}
	return append(to, addrMask(k, cx.addrLen(), want, m, invert))
}

func (h *Header) iface(to []firewall.Stmt, k firewall.FieldKind, name, mask []byte, bit uint8) []firewall.Stmt {
	invert := h.Invert&bit != 0
	if firewall.Bytes(mask).IsZero() {
		if invert {
			return append(to, never())
		}
		return to
	}
	return append(to, ifName(k, name, mask, invert))
}

func (h *Header) protocol(to []firewall.Stmt, cx *Context) []firewall.Stmt {
	invert := h.Invert&InvertProto != 0
	if h.HasProto {
		switch {
		case h.Proto != 0:
			to = append(to, is(firewall.FieldL4Proto, 1, span(uint64(h.Proto), uint64(h.Proto)), invert))
		case invert:
			// ip6_packet_match: not protocol 0, which no packet is found to have.
		}
	}
	if cx.family() == firewall.IPv4 && (h.Fragment || h.Invert&InvertFragment != 0) {
		switch {
		case !h.Fragment:
			to = append(to, never()) // IPT_INV_FRAG alone
		default:
			const offset = 0x1fff
			to = append(to, masked(firewall.FieldFragment, 2, offset, 0, h.Invert&InvertFragment == 0))
		}
	}
	return to
}
