package nft

import (
	"math/bits"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// registerBytes is the size of the register file: sixteen registers of four
// bytes, of which every four make one of the old sixteen-byte registers.
const registerBytes = 64

// register returns where a register begins in the file (nft_parse_register).
// Register 0 holds the verdict and has no place.
func register(n uint32) (int, bool) {
	switch {
	case n >= 1 && n <= 4:
		return int(n-1) * 16, true
	case n >= 8 && n <= 23:
		return int(n-8) * 4, true
	default:
		return 0, false
	}
}

// originKind tells where the content of registers came from.
type originKind uint8

const (
	originUnknown originKind = iota // nobody can tell; why says why
	originConst                     // the byte is its xor
	originPayload                   // header bytes; index is the offset
	originField                     // a field or a shifted one
	originMap                       // data of the element that a look-up found
)

// origin is one load of a rule: what the bytes of registers point to.
type origin struct {
	kind originKind
	// pending: no statement has made the rule depend on this load yet. A load
	// that fails ends the rule, compared or not.
	pending bool

	base   uint8 // of originPayload
	offset int   // of originPayload, for pending ones
	length int   // bytes in the registers

	// op is the operand of an originField; its bytes lie in the registers
	// least significant first when little is set.
	op     fw.Operand
	little bool

	keys []fw.Operand // of originMap
	set  *fw.Set

	why string
}

// regByte is one byte of the register file: (byte index of the origin & mask) ^ xor.
type regByte struct {
	origin    uint16
	index     uint16
	mask, xor byte
}

// Indexes of the origins that every rule has.
const (
	constOrigin   = 0
	unknownOrigin = 1
)

// machine is the register file while a rule is run.
type machine struct {
	regs    [registerBytes]regByte
	origins []origin
}

func (m *machine) reset() {
	m.origins = append(m.origins[:0],
		origin{kind: originConst},
		origin{kind: originUnknown, why: "a register that no expression of the rule has written"})
	for i := range m.regs {
		m.regs[i] = regByte{origin: unknownOrigin}
	}
}

func (m *machine) add(o origin) uint16 {
	if len(m.origins) >= 1<<15 {
		return unknownOrigin
	}
	m.origins = append(m.origins, o)
	return uint16(len(m.origins) - 1)
}

// fits reports whether n bytes from at are inside the file.
func fits(at, n int) bool { return at >= 0 && n > 0 && at+n <= registerBytes }

// store makes n bytes from at point to origin o, whose first byte there is
// index, and clears the rest of the last register (nft_reg_store8 and 16,
// nft_payload_eval).
func (m *machine) store(at, n int, o uint16, index int) {
	for i := range n {
		m.regs[at+i] = regByte{origin: o, index: uint16(index + i), mask: 0xff}
	}
	for i := at + n; i%4 != 0; i++ {
		m.regs[i] = regByte{origin: constOrigin}
	}
}

// storeConst writes constant bytes.
func (m *machine) storeConst(at int, b []byte) {
	for i, c := range b {
		m.regs[at+i] = regByte{origin: constOrigin, xor: c}
	}
	for i := at + len(b); i%4 != 0; i++ {
		m.regs[i] = regByte{origin: constOrigin}
	}
}

// forget makes n bytes from at unknown, for the reason why.
func (m *machine) forget(at, n int, why string) {
	o := m.add(origin{kind: originUnknown, why: why})
	for i := at; i < min(at+(n+3)&^3, registerBytes); i++ {
		m.regs[i] = regByte{origin: o}
	}
}

// stale makes every byte unknown whose origin stale says has changed since it
// was read.
func (m *machine) stale(changed func(*origin) bool) {
	var o uint16
	for i := range m.regs {
		b := &m.regs[i]
		if b.origin <= unknownOrigin || !changed(&m.origins[b.origin]) {
			continue
		}
		if o == 0 {
			o = m.add(origin{kind: originUnknown, why: "a value that was read before the rule changed it"})
		}
		*b = regByte{origin: o}
	}
}

// significance is how many bits a byte of a field is above its lowest one.
func (o *origin) significance(index uint16) uint {
	if o.little {
		return 8 * uint(index)
	}
	return 8 * uint(o.length-1-int(index))
}

// maskXor is bitwise with a mask and an xor (nft_bitwise_eval_bool).
func (m *machine) maskXor(dst, src int, mask, xor []byte) {
	// The kernel works on whole words and clears what the operands lack.
	words := (len(mask) + 3) &^ 3
	var out [registerBytes]regByte
	for i := range words {
		b := m.regs[src+i]
		var k, x byte
		if i < len(mask) {
			k = mask[i]
		}
		if i < len(xor) {
			x = xor[i]
		}
		b.mask &= k
		b.xor = b.xor&k ^ x
		if m.origins[b.origin].kind == originConst {
			b.mask = 0
		}
		out[i] = b
	}
	copy(m.regs[dst:dst+words], out[:words])
}

// combine is bitwise with two registers (NFT_BITWISE_AND, OR and XOR, since
// 6.13): exact where a byte of the second is constant.
func (m *machine) combine(dst, src, src2, n int, op byte) {
	words := (n + 3) &^ 3
	var out [registerBytes]regByte
	both := uint16(0)
	for i := range words {
		b, c := m.regs[src+i], m.regs[src2+i]
		if m.origins[b.origin].kind == originConst {
			b, c = c, b
		}
		if m.origins[c.origin].kind != originConst {
			if both == 0 {
				both = m.add(origin{kind: originUnknown, why: "two fields combined bit by bit"})
			}
			out[i] = regByte{origin: both}
			continue
		}
		switch op {
		case '&':
			b.mask, b.xor = b.mask&c.xor, b.xor&c.xor
		case '|':
			b.mask, b.xor = b.mask&^c.xor, b.xor|c.xor
		default:
			b.xor ^= c.xor
		}
		if m.origins[b.origin].kind == originConst {
			b.mask = 0
		}
		out[i] = b
	}
	copy(m.regs[dst:dst+words], out[:words])
}

// shift is bitwise with a shift (nft_bitwise_eval_lshift and rshift). The
// kernel shifts words of four bytes in host byte order; only a single word
// that holds a number in that order, or a constant, can be followed.
func (m *machine) shift(dst, src, n int, by uint32, left bool) {
	if n > 4 || by > 31 {
		m.forget(dst, n, "a shift of a long value")
		return
	}
	word := m.regs[src : src+4]
	if allConst(m, word) {
		v := wordValue(word)
		if left {
			v <<= by
		} else {
			v >>= by
		}
		m.storeWord(dst, v)
		return
	}
	var o *origin
	var mask, xor fw.Value
	for i, b := range word {
		bo := &m.origins[b.origin]
		at := uint(8 * i)
		if !hostLittle {
			at = uint(24 - 8*i)
		}
		if bo.kind == originConst {
			xor = xor.Or(fw.Num(uint64(b.xor)).Shl(at))
			continue
		}
		if bo.kind == originPayload && bo.length == 1 && at == 0 {
			// A single header byte is a number in either order.
		} else if bo.kind != originField || bo.significance(b.index) != at {
			m.forget(dst, n, "a shift of a value that is not in host byte order")
			return
		}
		if o != nil && o != bo {
			m.forget(dst, n, "a shift of two values at once")
			return
		}
		o = bo
		mask = mask.Or(fw.Num(uint64(b.mask)).Shl(at))
		xor = xor.Or(fw.Num(uint64(b.xor)).Shl(at))
	}
	var op fw.Operand
	if o.kind == originPayload {
		op = fw.Operand{Field: fw.Field{Kind: fw.FieldPayload, A: uint32(o.base), B: uint32(o.offset), C: 1}, Len: 1, Mask: fw.MaxValue(1)}
	} else {
		op = o.op
	}
	if op.Shift != 0 {
		m.forget(dst, n, "a value shifted twice")
		return
	}
	op.Mask, op.Xor = op.Mask.And(mask), op.Xor.And(mask).Xor(xor)
	op.Len = 4
	op.Shift = int(by)
	if left {
		op.Shift = -int(by)
	}
	op.HostOrder = true
	pending := o.pending
	o.pending = false
	m.store(dst, 4, m.add(origin{kind: originField, op: op, little: hostLittle, length: 4, pending: pending}), 0)
}

func allConst(m *machine, bs []regByte) bool {
	for _, b := range bs {
		if m.origins[b.origin].kind != originConst {
			return false
		}
	}
	return true
}

func wordValue(word []regByte) uint32 {
	var v uint32
	for i, b := range word {
		v |= uint32(b.xor) << (8 * i)
	}
	if !hostLittle {
		v = bits.ReverseBytes32(v)
	}
	return v
}

func (m *machine) storeWord(dst int, v uint32) {
	if !hostLittle {
		v = bits.ReverseBytes32(v)
	}
	m.storeConst(dst, []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
}

// swap is byteorder: it turns every size bytes of n round on a machine whose
// order is not that of the network (nft_byteorder_eval).
func (m *machine) swap(dst, src, n, size int) {
	var out [registerBytes]regByte
	copy(out[:n], m.regs[src:src+n])
	for i := 0; hostLittle && i+size <= n; i += size {
		for a, b := i, i+size-1; a < b; a, b = a+1, b-1 {
			out[a], out[b] = out[b], out[a]
		}
	}
	copy(m.regs[dst:dst+n], out[:n])
}
