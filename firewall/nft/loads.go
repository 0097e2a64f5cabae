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
		op := field(fw.FieldSocket, key, 8)
		op.Why = "the control group of the socket"
		r.load(t, 2, op, 8, true)
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
	op := fw.Plain(fw.FieldRandom, 4)
	op.Field.B, op.Field.C = bounded(t.num(6), t.num(4))
	op.Why = "a hash of the connection's addresses and ports"
	if t.num(7) == 0 {
		op.Why = "a hash of parts of the packet"
	}
	r.load(t, 2, op, 4, true)
}

// numgen is nft_ng_inc_eval and nft_ng_random_eval.
func (r *run) numgen(t *table) {
	op := fw.Plain(fw.FieldRandom, 4)
	op.Field.B, op.Field.C = bounded(t.num(4), t.num(2))
	op.Why = fmt.Sprintf("chance (one of %d)", t.num(2))
	if t.num(3) == 0 {
		op.Why = fmt.Sprintf("a counter of packets (modulo %d)", t.num(2))
	}
	r.load(t, 1, op, 4, true)
}

// bounded are the least value and the number of values of an expression with an
// offset and a modulus; the kernel refuses those that do not fit.
func bounded(offset, modulus uint32) (least, values uint32) {
	if modulus == 0 || offset+modulus-1 < offset {
		return 0, 0
	}
	return offset, modulus
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
	// nft_xfrm_get_eval: without a state there is nothing to load, and the rule breaks.
	kind := fw.FieldSecPath
	if u8(t.val(3)) == 1 { // XFRM_POLICY_OUT
		kind = fw.FieldIPSec
	}
	r.match(&fw.Match{Operand: fw.Plain(kind, 1), In: fw.Single(fw.Num(1))})
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
