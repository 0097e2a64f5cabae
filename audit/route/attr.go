package route

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// DecodeError is an answer of the kernel that does not have the form of its ABI.
type DecodeError struct {
	Source string // "route/ip6"
	Why    string
}

func (e *DecodeError) Error() string { return "decode " + e.Source + ": " + e.Why }

// message is one netlink message: the fixed part and the attributes after it.
type message struct {
	order binary.ByteOrder
	typ   uint16
	fixed []byte
	attrs []attr
}

type attr struct {
	typ   uint16
	value []byte
}

// messages splits a recorded dump into messages of type want whose fixed part is
// size bytes long; others are left out.
func messages(source string, order binary.ByteOrder, b []byte, want uint16, size int, each func(message) error) error {
	for len(b) > 0 {
		if len(b) < headerLen {
			return &DecodeError{source, "message cut short"}
		}
		n := order.Uint32(b)
		if n < headerLen || int64(n) > int64(len(b)) {
			return &DecodeError{source, fmt.Sprintf("message of %d bytes in %d", n, len(b))}
		}
		m := message{order: order, typ: order.Uint16(b[4:])}
		body := b[headerLen:n]
		b = b[min((int64(n)+3)&^3, int64(len(b))):]
		if m.typ != want {
			continue
		}
		if len(body) < size {
			return &DecodeError{source, "message shorter than its header"}
		}
		var err error
		m.fixed = body[:size]
		if m.attrs, err = attributes(order, body[size:]); err != nil {
			return &DecodeError{source, err.Error()}
		}
		if err := each(m); err != nil {
			return &DecodeError{source, err.Error()}
		}
	}
	return nil
}

// attributes splits a list of netlink attributes. NLA_F_NESTED and
// NLA_F_NET_BYTEORDER are taken off the types.
func attributes(order binary.ByteOrder, b []byte) ([]attr, error) {
	var out []attr
	for len(b) >= 4 {
		n := int(order.Uint16(b))
		if n < 4 || n > len(b) {
			return nil, fmt.Errorf("attribute of %d bytes in %d", n, len(b))
		}
		out = append(out, attr{order.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER), b[4:n]})
		b = b[min((n+3)&^3, len(b)):]
	}
	return out, nil
}

func (a attr) u32(order binary.ByteOrder) (uint32, error) {
	if len(a.value) < 4 {
		return 0, fmt.Errorf("attribute %d of %d bytes, not 4", a.typ, len(a.value))
	}
	return order.Uint32(a.value), nil
}

func (a attr) u16(order binary.ByteOrder) (uint16, error) {
	if len(a.value) < 2 {
		return 0, fmt.Errorf("attribute %d of %d bytes, not 2", a.typ, len(a.value))
	}
	return order.Uint16(a.value), nil
}

func (a attr) u8() (uint8, error) {
	if len(a.value) < 1 {
		return 0, fmt.Errorf("attribute %d is empty", a.typ)
	}
	return a.value[0], nil
}

// text is a string attribute up to its terminating zero.
func (a attr) text() string {
	for i, c := range a.value {
		if c == 0 {
			return string(a.value[:i])
		}
	}
	return string(a.value)
}

// addr is an address attribute of family f.
func (a attr) addr(f firewall.Family) (firewall.Value, error) {
	if len(a.value) != f.AddrLen() {
		return firewall.Value{}, fmt.Errorf("attribute %d: address of %d bytes", a.typ, len(a.value))
	}
	return firewall.Bytes(a.value), nil
}

// familyOf maps AF_* to a family.
func familyOf(af uint8) (firewall.Family, bool) {
	switch af {
	case unix.AF_INET:
		return firewall.IPv4, true
	case unix.AF_INET6:
		return firewall.IPv6, true
	default:
		return 0, false
	}
}
