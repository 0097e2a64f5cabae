package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
)

var errMalformed = errors.New("malformed netlink attribute")

// attrs walks a sequence of netlink attributes (struct nlattr: length and
// type in host byte order, padded to four bytes).
//
//	for a := walk(b); a.next(); { switch a.typ { … a.val … } }
//
// bad tells afterwards whether the sequence ended early.
type attrs struct {
	rest []byte
	typ  uint16
	val  []byte
	bad  bool
}

func walk(b []byte) attrs { return attrs{rest: b} }

func (a *attrs) next() bool {
	b := a.rest
	if len(b) < 4 {
		a.bad = a.bad || len(b) != 0
		return false
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < 4 || n > len(b) {
		a.bad = true
		return false
	}
	a.typ = binary.NativeEndian.Uint16(b[2:]) & 0x3fff // NLA_TYPE_MASK
	a.val = b[4:n:n]
	a.rest = b[min((n+3)&^3, len(b)):]
	return true
}

func be16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func be64(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func u8(b []byte) uint8 {
	if len(b) < 1 {
		return 0
	}
	return b[0]
}

// cstring cuts a string attribute at its first zero byte.
func cstring(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// dataOf returns the bytes of a nested nft_data with a value, nil for others.
func dataOf(b []byte) []byte {
	for a := walk(b); a.next(); {
		if a.typ == dataValue {
			return a.val
		}
	}
	return nil
}

// appendAttr appends one attribute.
func appendAttr(b []byte, typ uint16, val []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(val)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, val...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// appendString appends a string attribute with its terminating zero.
func appendString(b []byte, typ uint16, s string) []byte {
	return appendAttr(b, typ, append([]byte(s), 0))
}

const nested = 0x8000 // NLA_F_NESTED
