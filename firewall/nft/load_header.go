package nft

import (
	fw "github.com/hostaudit/hostaudit/firewall"
)

// payload is nft_payload_eval, and nft_payload_set_eval.
func (r *run) payload(t *table) {
	n := int(t.num(4))
	if !t.has(2) || !t.has(3) || n < 1 || n > registerBytes || t.num(2) > 4 || t.num(3) > 0xfff {
		r.incomplete("payload")
		return
	}
	base, offset := uint8(t.num(2)), int(t.num(3))
	if t.has(5) {
		r.payloadSet(t, base, offset, n)
		return
	}
	at, ok := t.reg(1, n)
	if !ok {
		r.incomplete("payload")
		return
	}
	if base > baseInner {
		// The header of a tunnel's payload (NFT_PAYLOAD_TUN_HEADER).
		r.loadUnknown(t, 1, min(n, 16), "a header inside a tunnel")
		return
	}
	o := r.m.add(origin{kind: originPayload, base: base, offset: offset, length: n, pending: true})
	r.m.store(at, n, o, offset)
}

// Operations of exthdr (enum nft_exthdr_op).
const (
	exthdrIPv6 = iota
	exthdrTCPOption
	exthdrIPv4Option
	exthdrSCTP
	exthdrDCCP
)

var exthdrNames = [...]string{"an IPv6 extension header", "a TCP option", "an IPv4 option", "an SCTP chunk", "a DCCP option"}

// exthdr is nft_exthdr_*_eval.
func (r *run) exthdr(t *table) {
	if !t.has(2) {
		r.incomplete("exthdr")
		return
	}
	op, typ := t.num(6), uint32(u8(t.val(2)))
	if int(op) >= len(exthdrNames) {
		r.opaque("exthdr", "an extension header that the model does not know")
		return
	}
	if !t.has(1) {
		// A TCP option is written (nft_exthdr_tcp_set_eval) or made void
		// (nft_exthdr_tcp_strip_eval); both break for other packets.
		r.requireProto(fw.TCP)
		if at, ok := t.reg(7, max(int(t.num(4)), 1)); ok {
			r.parts(at, max(int(t.num(4)), 1)) // what is written is of no matter
		}
		r.emit(&fw.Inert{Name: "tcp option", Detail: "changes a TCP option"})
		return
	}
	n := int(t.num(4))
	if t.num(5)&1 != 0 { // NFT_EXTHDR_F_PRESENT
		switch op {
		case exthdrIPv6:
			r.load(t, 1, field(fw.FieldExtHdr, typ, 1), 1, false)
		case exthdrTCPOption:
			r.requireProto(fw.TCP)
			r.load(t, 1, field(fw.FieldTCPOption, typ, 1), 1, false)
		case exthdrIPv4Option:
			r.requireFamily(fw.IPv4)
			r.load(t, 1, field(fw.FieldExtHdr, fw.IPOption|typ, 1), 1, false)
		default:
			r.loadUnknown(t, 1, 1, "whether the packet has "+exthdrNames[op])
		}
		return
	}
	switch op { // Without the header the load fails.
	case exthdrIPv6:
		r.match(&fw.Match{Operand: field(fw.FieldExtHdr, typ, 1), In: fw.Single(fw.Num(1))})
	case exthdrIPv4Option:
		r.match(&fw.Match{Operand: field(fw.FieldExtHdr, fw.IPOption|typ, 1), In: fw.Single(fw.Num(1))})
	}
	if n < 1 || n > 16 {
		n = min(max(n, 1), registerBytes)
		at, ok := t.reg(1, n)
		if !ok {
			r.incomplete("exthdr")
			return
		}
		r.unsure("exthdr", exthdrNames[op]+" of the packet")
		r.m.forget(at, n, exthdrNames[op]+" of the packet")
		return
	}
	r.loadUnknown(t, 1, n, exthdrNames[op]+" of the packet")
}

// inner is nft_inner_eval: an expression about a header inside a tunnel.
func (r *run) inner(t *table) {
	r.unsure("inner", "a header inside a tunnel")
	r.m.forget(0, registerBytes, "a header inside a tunnel")
}
