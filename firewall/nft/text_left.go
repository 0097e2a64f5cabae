package nft

import (
	"fmt"
	"strconv"
	"strings"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// left is what a register holds: the left side of a comparison.
type left struct {
	// A header: base, first bit and bits.
	payload   bool
	base      uint8
	bit, bits int
	ext       *protocolText // an extension header or option instead
	option    bool          // of TCP, which says nothing of the network header

	name string // of other loads: "ct state"
	kind valueKind
	n    int  // bytes
	host bool // still in host byte order

	mask, xor []byte // of bitwise, as the register has them
	shift     string

	konst []byte // an immediate

	// Of a map's data.
	isMap bool
	m     *setInfo
	keys  []keyKind
	part  int // which four bytes of the data
}

func (w *writer) payload(t *table, reg func(int) int) {
	base, offset, n := uint8(t.num(2)), int(t.num(3)), int(t.num(4))
	if offset > 0xffff || n > registerBytes {
		return
	}
	if !t.has(5) {
		w.set(reg(1), n, &left{payload: true, base: base, bit: 8 * offset, bits: 8 * n, n: n})
		return
	}
	w.payloadSet(w.at(reg(5)), base, offset, n)
}

// payloadSet writes `ip dscp set cs1`. nft reads, masks and writes two bytes
// for the sake of the checksum, and means the bits that the mask clears.
func (w *writer) payloadSet(l *left, base uint8, offset, n int) {
	bit, bits := 8*offset, 8*n
	if l == nil {
		return
	}
	if l.payload && l.mask != nil && len(l.mask) == n {
		first, last := -1, -1
		for i := range bits {
			if l.mask[i/8]&(0x80>>(i%8)) == 0 {
				if first < 0 {
					first = i
				}
				last = i
			}
		}
		if first >= 0 {
			v := bitsOf(l.xor, first, last+1-first)
			target := &left{payload: true, base: base, bit: bit + first, bits: last + 1 - first}
			name, kind := w.header(target, false)
			w.say("%s set %s", name, w.value(kind, v))
			return
		}
	}
	target := &left{payload: true, base: base, bit: bit, bits: bits, n: n}
	name, kind := w.header(target, false)
	w.say("%s set %s", name, w.right(l, kind, n, false))
}

// bitsOf cuts bits out of bytes, as a number in as few bytes as it needs.
func bitsOf(b []byte, first, n int) []byte {
	out := make([]byte, (n+7)/8)
	for i := range n {
		src := first + n - 1 - i
		if src/8 < len(b) && b[src/8]&(0x80>>(src%8)) != 0 {
			out[len(out)-1-i/8] |= 1 << (i % 8)
		}
	}
	return out
}

// protocol returns the header that lies at base as far as the rule has said.
func (w *writer) protocol(base uint8) *protocolText {
	switch base {
	case baseLink:
		if w.link {
			return etherText
		}
	case baseNetwork:
		switch w.family {
		case fw.IPv4:
			return ipv4Text
		case fw.IPv6:
			return ipv6Text
		}
		if w.t.table.Family == fw.TableARP || w.etherType == 0x0806 {
			return arpText
		}
	case baseTransport:
		if p := transportTexts[uint8(max(w.transport, 0))]; p != nil && w.transport >= 0 {
			if p.name == "icmp" || p.name == "icmpv6" {
				return p.ofType(w.icmpType)
			}
			return p
		}
		return thText
	}
	return nil
}

// header names a piece of a header, and leaves out the matches that the name
// implies. part says that the piece can be the beginning of a field.
func (w *writer) header(l *left, part bool) (string, valueKind) {
	p := w.protocol(l.base)
	bit := l.bit
	if l.base == baseLink && bit >= 112 && w.etherType == 0x8100 {
		p, bit = vlanText, bit-112
	}
	f, ok := p.fieldOf(bit, l.bits)
	if !ok && part {
		if f, ok = p.startingAt(bit); ok && f.len < l.bits {
			ok = false
		}
	}
	if !ok {
		return fmt.Sprintf("@%s,%d,%d", [...]string{"ll", "nh", "th", "ih", "tun"}[min(l.base, 4)], l.bit, l.bits), valHex
	}
	switch l.base {
	case baseLink:
		w.implied(needLink)
		if p == vlanText {
			w.implied(needNetwork)
		}
	case baseNetwork:
		w.implied(needNetwork)
	case baseTransport:
		if p != thText {
			w.implied(needTransport)
		}
		if p.name == "icmp" || p.name == "icmpv6" {
			w.implied(needNetwork)
			if f.saysType() {
				w.implied(needICMPType)
			}
		}
	}
	return p.name + " " + f.name, f.kind
}

// left writes the left side of a comparison over n bytes, and tells how values
// beside it are written and whether they are in host byte order.
func (w *writer) left(l *left, n int) (string, valueKind, bool) {
	switch {
	case l == nil:
		return "?", valHex, false
	case l.payload && l.ext == nil:
		c := *l
		c.bits = 8 * n
		text, kind := w.header(&c, false)
		return text + l.binop(kind, w), kind, false
	case l.konst != nil:
		return w.value(valHex, l.konst), valHex, false
	case l.isMap:
		return w.mapText(l, false), l.dataKind(), l.dataKind().hostOrder()
	default:
		if l.ext != nil && !l.option {
			w.implied(needNetwork)
		}
		return l.name + l.binop(l.kind, w), l.kind, l.host
	}
}

// masked puts what has been masked into brackets, before it is shifted.
func (l *left) masked(w *writer) {
	if l.mask != nil {
		l.name = "(" + l.name + l.binop(l.kind, w) + ")"
		l.mask, l.xor, l.shift = nil, nil, ""
	}
}

// binop writes what bitwise did to a value.
func (l *left) binop(kind valueKind, w *writer) string {
	out := l.shift
	if l.mask == nil {
		return out
	}
	host := l.host
	mask, xor := bigEndian(l.mask, host), bigEndian(l.xor, host)
	ones, clear, overlap := true, true, false
	for i := range mask {
		ones = ones && mask[i] == 0xff
		clear = clear && xor[i] == 0
		overlap = overlap || mask[i]&xor[i] != 0
	}
	exactOr := true // the mask clears just the bits that xor sets
	for i := range mask {
		exactOr = exactOr && mask[i] == ^xor[i]
	}
	either := make([]byte, len(mask))
	for i := range mask {
		either[i] = mask[i] | xor[i]
	}
	format := func(b []byte) string {
		if kind.bitmask() {
			s := kind.flags(number(b), " | ")
			if strings.Contains(s, " | ") {
				s = "(" + s + ")"
			}
			return s
		}
		return w.value(kind, b)
	}
	switch {
	case clear:
		return out + " & " + format(mask)
	case ones:
		return out + " ^ " + format(xor)
	case exactOr:
		return out + " | " + format(xor)
	case overlap:
		return out + " & " + format(mask) + " ^ " + format(xor)
	default:
		return out + " & " + format(either) + " | " + format(xor)
	}
}

// right writes a value that a statement takes from a register.
func (w *writer) right(l *left, kind valueKind, n int, host bool) string {
	switch {
	case l == nil:
		return "?"
	case l.konst != nil:
		b := l.konst
		if len(b) > n {
			b = b[:n]
		}
		b = bigEndian(b, host)
		if kind.bitmask() && kind != valCTLabel {
			return kind.flags(number(b), ",")
		}
		return w.value(kind, b)
	case l.isMap:
		return w.mapText(l, host)
	default:
		text, _, _ := w.left(l, n)
		return text
	}
}

func (w *writer) bitwise(t *table, reg func(int) int) {
	l := w.at(reg(1))
	n := int(t.num(3))
	if l == nil || n > registerBytes {
		return
	}
	c := *l
	switch t.num(6) {
	case 0:
		c.mask, c.xor = dataOf(t.val(4)), dataOf(t.val(5))
		if len(c.mask) != n || len(c.xor) != n {
			c.mask, c.xor = nil, nil
		}
	case 1:
		c.masked(w)
		c.shift += " << " + strconv.FormatUint(hostValue(dataOf(t.val(7))).Lo, 10)
	case 2:
		c.masked(w)
		c.shift += " >> " + strconv.FormatUint(hostValue(dataOf(t.val(7))).Lo, 10)
	case 3, 4, 5:
		op := [...]string{"&", "|", "^"}[t.num(6)-3]
		if other := w.at(reg(8)); other != nil {
			text, _, _ := w.left(other, other.n)
			c.shift += " " + op + " " + text
		} else {
			c.shift += " " + op + " " + w.value(c.kind, bigEndian(dataOf(t.val(7)), c.host))
		}
	}
	w.set(reg(2), n, &c)
}
