package firewall

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
)

// Value is an unsigned 128-bit number: every header field, address, port, mark
// and (as sixteen bytes, most significant first) interface name is compared as
// one. A field that is n bytes wide uses the low n*8 bits.
type Value struct{ Hi, Lo uint64 }

// Num returns v as a Value.
func Num(v uint64) Value { return Value{Lo: v} }

// MaxValue returns the largest value of a field that is n bytes wide (1–16).
func MaxValue(n int) Value {
	switch {
	case n >= 16:
		return Value{^uint64(0), ^uint64(0)}
	case n > 8:
		return Value{uint64(1)<<(8*(n-8)) - 1, ^uint64(0)}
	case n == 8:
		return Value{0, ^uint64(0)}
	default:
		return Value{0, uint64(1)<<(8*n) - 1}
	}
}

// Bytes returns the value of up to 16 big-endian bytes. Longer input is cut to
// its last 16 bytes.
func Bytes(b []byte) Value {
	if len(b) > 16 {
		b = b[len(b)-16:]
	}
	switch len(b) { // addresses, of which a large ruleset has a hundred thousand
	case 4:
		return Value{Lo: uint64(binary.BigEndian.Uint32(b))}
	case 16:
		return Value{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
	}
	var v Value
	for _, c := range b {
		v.Hi = v.Hi<<8 | v.Lo>>56
		v.Lo = v.Lo<<8 | uint64(c)
	}
	return v
}

// AppendBytes appends the low n bytes of v, most significant first.
func (v Value) AppendBytes(b []byte, n int) []byte {
	for i := n - 1; i >= 0; i-- {
		var c byte
		if i >= 8 {
			c = byte(v.Hi >> (8 * (i - 8)))
		} else {
			c = byte(v.Lo >> (8 * i))
		}
		b = append(b, c)
	}
	return b
}

// AddrValue returns the number of an address: 32 bits for IPv4, 128 for IPv6.
// An IPv4-mapped IPv6 address keeps its 128 bits.
func AddrValue(a netip.Addr) Value {
	if a.Is4() {
		b := a.As4()
		return Bytes(b[:])
	}
	b := a.As16()
	return Bytes(b[:])
}

// Addr returns the address of family f whose number is v.
func (v Value) Addr(f Family) netip.Addr {
	if f == IPv4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(v.Lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], v.Hi)
	binary.BigEndian.PutUint64(b[8:], v.Lo)
	return netip.AddrFrom16(b)
}

// NameValue returns the value of an interface name: sixteen bytes (IFNAMSIZ),
// padded with zeros, so that a prefix is a range.
func NameValue(name string) Value {
	var b [16]byte
	copy(b[:], name)
	return Bytes(b[:])
}

// Name is the inverse of NameValue: the bytes up to the first zero.
func (v Value) Name() string {
	b := v.AppendBytes(nil, 16)
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// Cmp returns -1, 0 or 1 as v is less than, equal to or greater than w.
func (v Value) Cmp(w Value) int {
	switch {
	case v == w:
		return 0
	case v.Hi < w.Hi || v.Hi == w.Hi && v.Lo < w.Lo:
		return -1
	default:
		return 1
	}
}

// Less reports whether v < w.
func (v Value) Less(w Value) bool { return v.Hi < w.Hi || v.Hi == w.Hi && v.Lo < w.Lo }

// And returns the bitwise and.
func (v Value) And(w Value) Value { return Value{v.Hi & w.Hi, v.Lo & w.Lo} }

// Or returns the bitwise or.
func (v Value) Or(w Value) Value { return Value{v.Hi | w.Hi, v.Lo | w.Lo} }

// Xor returns the bitwise exclusive or.
func (v Value) Xor(w Value) Value { return Value{v.Hi ^ w.Hi, v.Lo ^ w.Lo} }

// Not returns the complement of the low n bytes.
func (v Value) Not(n int) Value { return v.Xor(MaxValue(n)).And(MaxValue(n)) }

// Add returns v+w modulo 2^128.
func (v Value) Add(w Value) Value {
	lo, c := bits.Add64(v.Lo, w.Lo, 0)
	hi, _ := bits.Add64(v.Hi, w.Hi, c)
	return Value{hi, lo}
}

// Sub returns v-w modulo 2^128.
func (v Value) Sub(w Value) Value {
	lo, c := bits.Sub64(v.Lo, w.Lo, 0)
	hi, _ := bits.Sub64(v.Hi, w.Hi, c)
	return Value{hi, lo}
}

// Next returns v+1; Prev returns v-1 (both modulo 2^128).
func (v Value) Next() Value { return v.Add(Value{0, 1}) }

// Prev returns v-1 modulo 2^128.
func (v Value) Prev() Value { return v.Sub(Value{0, 1}) }

// Shl shifts left by n bits.
func (v Value) Shl(n uint) Value {
	switch {
	case n >= 128:
		return Value{}
	case n >= 64:
		return Value{v.Lo << (n - 64), 0}
	case n == 0:
		return v
	default:
		return Value{v.Hi<<n | v.Lo>>(64-n), v.Lo << n}
	}
}

// Shr shifts right by n bits.
func (v Value) Shr(n uint) Value {
	switch {
	case n >= 128:
		return Value{}
	case n >= 64:
		return Value{0, v.Hi >> (n - 64)}
	case n == 0:
		return v
	default:
		return Value{v.Hi >> n, v.Lo>>n | v.Hi<<(64-n)}
	}
}

// IsZero reports whether v is 0.
func (v Value) IsZero() bool { return v == Value{} }

// TrailingZeros returns the number of trailing zero bits, 128 for zero.
func (v Value) TrailingZeros() int {
	if v.Lo != 0 {
		return bits.TrailingZeros64(v.Lo)
	}
	return 64 + bits.TrailingZeros64(v.Hi)
}

// OnesCount returns the number of one bits.
func (v Value) OnesCount() int { return bits.OnesCount64(v.Hi) + bits.OnesCount64(v.Lo) }

// String prints the value in hexadecimal.
func (v Value) String() string {
	if v.Hi == 0 {
		return fmt.Sprintf("0x%x", v.Lo)
	}
	return fmt.Sprintf("0x%x%016x", v.Hi, v.Lo)
}

// PrefixMask returns the mask of the first plen bits of a field that is n bytes wide.
func PrefixMask(plen, n int) Value {
	return MaxValue(n).Shl(uint(8*n - plen)).And(MaxValue(n))
}
