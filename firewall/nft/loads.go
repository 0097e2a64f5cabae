package nft

import (
	"fmt"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// load makes the registers at attribute i point to op, n bytes of it. host says
// that the kernel stores a number in host byte order.
func (r *run) load(t *table, i int, op fw.Operand, n int, host bool) {
	at, ok := t.reg(i, n)
	if !ok {
		r.opaque("load", "a load to a register that does not exist")
		return
	}
	if !host || !hostLittle {
		host = false
	}
	o := r.m.add(origin{kind: originField, op: op, little: host, length: n, pending: true})
	r.m.store(at, n, o, 0)
}

// loadUnknown loads a value that a reading of the host cannot tell.
func (r *run) loadUnknown(t *table, i, n int, why string) {
	op := fw.Plain(fw.FieldUnknown, n)
	op.Why = why
	r.load(t, i, op, n, n <= 8)
}

func field(k fw.FieldKind, a uint32, n int) fw.Operand {
	op := fw.Plain(k, n)
	op.Field.A = a
	return op
}

// immediate is nft_immediate_eval: constant data, or a verdict.
func (r *run) immediate(t *table) {
	if !t.has(1) || !t.has(2) {
		r.incomplete("immediate")
		return
	}
	if t.num(1) == 0 {
		r.verdict(t.val(2))
		return
	}
	data := dataOf(t.val(2))
	at, ok := t.reg(1, len(data))
	if !ok {
		r.incomplete("immediate")
		return
	}
	r.m.storeConst(at, data)
}

func (r *run) cmp(t *table) {
	data := dataOf(t.val(3))
	at, ok := t.reg(1, len(data))
	if !ok || !t.has(2) {
		r.incomplete("cmp")
		return
	}
	r.compare(at, t.num(2), data)
}

// rangeCmp is nft_range_eval.
func (r *run) rangeCmp(t *table) {
	from, to := dataOf(t.val(3)), dataOf(t.val(4))
	at, ok := t.reg(1, len(from))
	if !ok || !t.has(2) || len(from) != len(to) || t.num(2) > 1 {
		r.incomplete("range")
		return
	}
	if len(from) > 16 {
		r.unsure("range", "a comparison of a long value")
		return
	}
	r.between(at, len(from), fw.Bytes(from), fw.Bytes(to), t.num(2) == 1)
}

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

// bitwise is nft_bitwise_eval.
func (r *run) bitwise(t *table) {
	n := int(t.num(3))
	src, ok1 := t.reg(1, n)
	dst, ok2 := t.reg(2, n)
	if !ok1 || !ok2 {
		r.incomplete("bitwise")
		return
	}
	switch op := t.num(6); op {
	case 0:
		mask, xor := dataOf(t.val(4)), dataOf(t.val(5))
		if len(mask) != n || len(xor) != n {
			r.incomplete("bitwise")
			return
		}
		r.m.maskXor(dst, src, mask, xor)
	case 1, 2:
		by := dataOf(t.val(7))
		if len(by) != 4 {
			r.incomplete("bitwise")
			return
		}
		r.m.shift(dst, src, n, uint32(hostValue(by).Lo), op == 1)
	case 3, 4, 5:
		src2, ok := t.reg(8, n)
		if !ok {
			// The second operand can be a constant as well.
			data := dataOf(t.val(7))
			if len(data) != n {
				r.incomplete("bitwise")
				return
			}
			mask, xor := make([]byte, n), make([]byte, n)
			for i, c := range data {
				switch op {
				case 3:
					mask[i] = c
				case 4:
					mask[i], xor[i] = ^c, c
				default:
					mask[i], xor[i] = 0xff, c
				}
			}
			r.m.maskXor(dst, src, mask, xor)
			return
		}
		r.m.combine(dst, src, src2, n, "&|^"[op-3])
	default:
		r.opaque("bitwise", "a bitwise operation that the model does not know")
	}
}

// byteorder is nft_byteorder_eval.
func (r *run) byteorder(t *table) {
	n, size := int(t.num(4)), int(t.num(5))
	src, ok1 := t.reg(1, n)
	dst, ok2 := t.reg(2, n)
	if !ok1 || !ok2 || t.num(3) > 1 || size != 2 && size != 4 && size != 8 {
		r.incomplete("byteorder")
		return
	}
	r.m.swap(dst, src, n, size)
}

// meta is nft_meta_get_eval, and nft_meta_set_eval.
func (r *run) meta(t *table) {
	if !t.has(2) {
		r.incomplete("meta")
		return
	}
	key := t.num(2)
	if t.has(3) {
		r.metaSet(t, key)
		return
	}
	num := func(k fw.FieldKind, n int) { r.load(t, 1, fw.Plain(k, n), n, true) }
	net := func(k fw.FieldKind, n int) { r.load(t, 1, fw.Plain(k, n), n, false) }
	switch key {
	case metaLen:
		num(fw.FieldLength, 4)
	case metaProtocol:
		net(fw.FieldEtherType, 2)
	case metaPriority:
		num(fw.FieldPriority, 4)
	case metaMark:
		num(fw.FieldMark, 4)
	case metaIIF:
		num(fw.FieldInIndex, 4)
	case metaOIF:
		num(fw.FieldOutIndex, 4)
	case metaIIFName:
		net(fw.FieldInName, 16)
	case metaOIFName:
		net(fw.FieldOutName, 16)
	case metaIIFType:
		num(fw.FieldInType, 2)
	case metaOIFType:
		num(fw.FieldOutType, 2)
	case metaSKUID:
		num(fw.FieldSKUID, 4)
	case metaSKGID:
		num(fw.FieldSKGID, 4)
	case metaNFTrace:
		r.loadUnknown(t, 1, 1, "whether the packet is traced")
	case metaRTClassID:
		num(fw.FieldRealm, 4)
	case metaSecmark:
		num(fw.FieldSecMark, 4)
	case metaNFProto:
		net(fw.FieldNFProto, 1)
	case metaL4Proto:
		net(fw.FieldL4Proto, 1)
	case metaBriIIFName:
		net(fw.FieldPhysIn, 16)
	case metaBriOIFName:
		net(fw.FieldPhysOut, 16)
	case metaPktType:
		net(fw.FieldPktType, 1)
	case metaCPU:
		num(fw.FieldCPU, 4)
	case metaIIFGroup:
		num(fw.FieldInGroup, 4)
	case metaOIFGroup:
		num(fw.FieldOutGroup, 4)
	case metaCgroup:
		num(fw.FieldCgroup, 4)
	case metaPRandom:
		num(fw.FieldRandom, 4)
	case metaSecPath:
		net(fw.FieldSecPath, 1)
	case metaIIFKind:
		net(fw.FieldInKind, 16)
	case metaOIFKind:
		net(fw.FieldOutKind, 16)
	case metaBriIIFPVID:
		r.loadUnknown(t, 1, 2, "the VLAN of the bridge port")
	case metaBriIIFVProto:
		r.loadUnknown(t, 1, 2, "the VLAN protocol of the bridge")
	case metaTimeNS:
		num(fw.FieldTime, 8)
	case metaTimeDay:
		r.load(t, 1, field(fw.FieldTime, 1, 1), 1, false)
	case metaTimeHour:
		r.load(t, 1, field(fw.FieldTime, 2, 4), 4, true)
	case metaSDIF:
		r.loadUnknown(t, 1, 4, "the VRF that the packet came through")
	case metaSDIFName:
		r.loadUnknown(t, 1, 16, "the VRF that the packet came through")
	default:
		r.loadUnknown(t, 1, 16, fmt.Sprintf("meta key %d, which the model does not know", key))
	}
}

// ct is nft_ct_get_eval, and nft_ct_set_eval.
func (r *run) ct(t *table) {
	if !t.has(2) {
		r.incomplete("ct")
		return
	}
	key := t.num(2)
	if t.has(4) {
		r.ctSet(t, key)
		return
	}
	var dir uint32
	if t.has(3) {
		dir = uint32(u8(t.val(3)))
	}
	num := func(k fw.FieldKind, n int) { r.load(t, 1, fw.Plain(k, n), n, true) }
	net := func(k fw.FieldKind, n int) { r.load(t, 1, field(k, dir, n), n, false) }
	// addr loads an address of the connection; other families break.
	addr := func(k fw.FieldKind, f fw.Family) {
		proto := uint64(nfprotoIPv4)
		if f == fw.IPv6 {
			proto = nfprotoIPv6
		}
		if r.g.family != f {
			r.match(&fw.Match{Operand: fw.Plain(fw.FieldNFProto, 1), In: fw.Single(fw.Num(proto))})
		}
		net(k, f.AddrLen())
	}
	// either loads an address of the packet's family.
	either := func(k fw.FieldKind) {
		if r.g.family == 0 {
			r.loadUnknown(t, 1, 16, "an address of the connection, of either family")
			return
		}
		net(k, r.g.family.AddrLen())
	}
	switch key {
	case ctState:
		num(fw.FieldCTState, 4)
	case ctDirection:
		r.load(t, 1, fw.Plain(fw.FieldCTDirection, 1), 1, false)
	case ctStatus:
		num(fw.FieldCTStatus, 4)
	case ctMark:
		num(fw.FieldCTMark, 4)
	case ctSecmark:
		num(fw.FieldCTSecMark, 4)
	case ctExpiration:
		num(fw.FieldCTExpiration, 4)
	case ctHelper:
		r.load(t, 1, fw.Plain(fw.FieldCTHelper, 16), 16, false)
	case ctL3Protocol:
		r.load(t, 1, fw.Plain(fw.FieldCTL3Proto, 1), 1, false)
	case ctProtocol:
		r.load(t, 1, fw.Plain(fw.FieldCTL4Proto, 1), 1, false)
	case ctSrc:
		either(fw.FieldCTSrcAddr)
	case ctDst:
		either(fw.FieldCTDstAddr)
	case ctSrcIP:
		addr(fw.FieldCTSrcAddr, fw.IPv4)
	case ctDstIP:
		addr(fw.FieldCTDstAddr, fw.IPv4)
	case ctSrcIP6:
		addr(fw.FieldCTSrcAddr, fw.IPv6)
	case ctDstIP6:
		addr(fw.FieldCTDstAddr, fw.IPv6)
	case ctProtoSrc:
		net(fw.FieldCTSrcPort, 2)
	case ctProtoDst:
		net(fw.FieldCTDstPort, 2)
	case ctLabels:
		num(fw.FieldCTLabel, 16)
	case ctPkts:
		num(fw.FieldCTPackets, 8)
	case ctBytes:
		num(fw.FieldCTBytes, 8)
	case ctAvgPkt:
		r.loadUnknown(t, 1, 8, "the traffic of the connection")
	case ctZone:
		num(fw.FieldCTZone, 2)
	case ctEventMask:
		num(fw.FieldCTEventMask, 4)
	case ctID:
		r.loadUnknown(t, 1, 4, "the kernel's number of the connection")
	default:
		r.loadUnknown(t, 1, 16, fmt.Sprintf("ct key %d, which the model does not know", key))
	}
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
		default:
			r.loadUnknown(t, 1, 1, "whether the packet has "+exthdrNames[op])
		}
		return
	}
	if op == exthdrIPv6 {
		// Without the header the load fails.
		r.match(&fw.Match{Operand: field(fw.FieldExtHdr, typ, 1), In: fw.Single(fw.Num(1))})
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

// requireProto asks for a transport protocol where the rule has not done so.
func (r *run) requireProto(p fw.Proto) {
	if !r.g.protos.all(func(q fw.Proto) bool { return q == p }) {
		r.match(&fw.Match{Operand: fw.Plain(fw.FieldL4Proto, 1), In: fw.Single(fw.Num(uint64(p)))})
	}
}

// requireFamily asks for a family where the rule has not done so.
func (r *run) requireFamily(f fw.Family) {
	if r.g.family == f {
		return
	}
	v := uint64(nfprotoIPv4)
	if f == fw.IPv6 {
		v = nfprotoIPv6
	}
	r.match(&fw.Match{Operand: fw.Plain(fw.FieldNFProto, 1), In: fw.Single(fw.Num(v))})
}

// rt is nft_rt_get_eval.
func (r *run) rt(t *table) {
	switch key := t.num(2); key {
	case 0:
		r.load(t, 1, fw.Plain(fw.FieldRealm, 4), 4, true)
	case 1:
		r.requireFamily(fw.IPv4)
		r.load(t, 1, fw.Plain(fw.FieldRTNextHop, 4), 4, false)
	case 2:
		r.requireFamily(fw.IPv6)
		r.load(t, 1, fw.Plain(fw.FieldRTNextHop, 16), 16, false)
	case 3:
		r.loadUnknown(t, 1, 2, "the largest TCP segment of the route")
	case 4:
		r.load(t, 1, fw.Plain(fw.FieldIPSec, 1), 1, false)
	default:
		r.loadUnknown(t, 1, 16, fmt.Sprintf("rt key %d, which the model does not know", key))
	}
}

// socket is nft_socket_eval.
func (r *run) socket(t *table) {
	switch key := t.num(1); key {
	case 0, 2: // NFT_SOCKET_TRANSPARENT, NFT_SOCKET_WILDCARD
		r.load(t, 2, field(fw.FieldSocket, key, 1), 1, false)
	case 1: // NFT_SOCKET_MARK
		r.load(t, 2, field(fw.FieldSocket, key, 4), 4, true)
	case 3: // NFT_SOCKET_CGROUPV2
		r.loadUnknown(t, 2, 8, "the control group of the socket")
	default:
		r.loadUnknown(t, 2, 16, fmt.Sprintf("socket key %d, which the model does not know", key))
	}
}

// fib is nft_fib4_eval, nft_fib6_eval and nft_fib*_eval_type.
func (r *run) fib(t *table) {
	const present = 0x20
	result, flags := t.num(2), t.num(3)
	if flags&^0x3f != 0 {
		r.opaque("fib", "a route look-up of a form that the model does not know")
		return
	}
	a := flags &^ present
	switch {
	case result == 1 && flags&present != 0:
		r.load(t, 1, field(fw.FieldFIBPresent, a, 1), 1, false)
	case result == 1:
		r.load(t, 1, field(fw.FieldFIBOutIndex, a, 4), 4, true)
	case result == 2 && flags&present != 0:
		r.load(t, 1, field(fw.FieldFIBPresent, a, 1), 1, false)
	case result == 2:
		r.load(t, 1, field(fw.FieldFIBOutName, a, 16), 16, false)
	case result == 3:
		r.load(t, 1, field(fw.FieldFIBType, a, 4), 4, true)
	default:
		r.loadUnknown(t, 1, 16, fmt.Sprintf("fib result %d, which the model does not know", result))
	}
}

// hash is nft_jhash_eval and nft_symhash_eval.
func (r *run) hash(t *table) {
	why := "a hash of the connection's addresses and ports"
	if t.num(7) == 0 {
		why = "a hash of parts of the packet"
	}
	r.loadUnknown(t, 2, 4, why)
}

// numgen is nft_ng_inc_eval and nft_ng_random_eval.
func (r *run) numgen(t *table) {
	op := fw.Plain(fw.FieldRandom, 4)
	op.Why = fmt.Sprintf("chance (one of %d)", t.num(2))
	if t.num(3) == 0 {
		op.Why = fmt.Sprintf("a counter of packets (modulo %d)", t.num(2))
	}
	r.load(t, 1, op, 4, true)
}

// osf is nft_osf_eval: the operating system that the SYN looks like.
func (r *run) osf(t *table) {
	r.requireProto(fw.TCP)
	r.loadUnknown(t, 1, 16, "the operating system of the client, as its SYN shows it")
}

// xfrm is nft_xfrm_get_eval.
func (r *run) xfrm(t *table) {
	n := 4
	switch t.num(2) {
	case 2, 4:
		n = 16
	}
	r.loadUnknown(t, 1, n, "the IPsec tunnel of the packet")
}

// tunnel is nft_tunnel_get_eval.
func (r *run) tunnel(t *table) {
	n := 4
	if t.num(1) == 0 {
		n = 1
	}
	r.loadUnknown(t, 2, n, "the tunnel that the packet came through")
}

// inner is nft_inner_eval: an expression about a header inside a tunnel.
func (r *run) inner(t *table) {
	r.unsure("inner", "a header inside a tunnel")
	r.m.forget(0, registerBytes, "a header inside a tunnel")
}
