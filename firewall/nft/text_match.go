package nft

import (
	"bytes"
	"net/netip"
	"strconv"

	fw "github.com/hostaudit/hostaudit/firewall"
)

var cmpText = [...]string{cmpEQ: "", cmpNEQ: "!=", cmpLT: "<", cmpLTE: "<=", cmpGT: ">", cmpGTE: ">="}

func (w *writer) cmp(l *left, op uint32, data []byte) {
	if l == nil || int(op) >= len(cmpText) {
		w.say("cmp ?")
		return
	}
	if l.payload && l.shift == "" {
		w.cmpHeader(l, op, data)
		return
	}
	text, kind, host := l.name, l.kind, l.host
	if l.ext != nil {
		if !l.option {
			w.implied(needNetwork)
		}
		if l.bits > 0 && l.mask != nil && allZero(l.xor) {
			if first, n := maskRun(l.mask); n > 0 {
				if f, ok := l.ext.fieldOf(l.bit+first, n); ok {
					w.cmpPlain(l.name+" "+f.name, f.kind, op, bitsOf(data, first, n), false, (n+7)/8)
					return
				}
			}
		}
	}
	switch {
	case l.isMap || l.konst != nil || l.shift != "":
		text, kind, host = w.left(l, len(data))
		w.compare(text, cmpText[op], w.value(kind, bigEndian(data, host)))
	case l.mask != nil:
		w.cmpMasked(text, kind, bigEndian(l.mask, host), bigEndian(l.xor, host), op, bigEndian(data, host), l)
	default:
		w.cmpPlain(text, kind, op, data, host, l.n)
		w.learn(l, op, data)
	}
}

// cmpPlain writes a comparison with a whole value, or with the beginning of a
// name or an address.
func (w *writer) cmpPlain(text string, kind valueKind, op uint32, data []byte, host bool, n int) {
	var right string
	switch {
	case kind == valIfName && len(data) < n && bytes.IndexByte(data, 0) < 0:
		right = `"` + string(data) + `*"`
	case (kind == valIPv4 || kind == valIPv6) && len(data) < n:
		right = prefixText(data, 8*len(data), n)
	default:
		right = w.value(kind, bigEndian(data, host))
	}
	o := cmpText[op]
	if op == cmpEQ && kind.bitmask() {
		o = "=="
	}
	if op == cmpGTE || op == cmpLTE {
		w.bound(text, o, kind, bigEndian(data, host))
		return
	}
	w.compare(text, o, right)
}

// prefixText writes the address that begins with data and the length of the
// prefix.
func prefixText(data []byte, bits, n int) string {
	b := make([]byte, n)
	copy(b, data)
	a, _ := netip.AddrFromSlice(b)
	if n == 16 {
		return ipv6String(b) + "/" + strconv.Itoa(bits)
	}
	return a.String() + "/" + strconv.Itoa(bits)
}

// cmpMasked writes a comparison under a mask.
func (w *writer) cmpMasked(text string, kind valueKind, mask, xor []byte, op uint32, data []byte, l *left) {
	zeroXor, zeroData := allZero(xor), allZero(data)
	if zeroXor && (kind == valIPv4 || kind == valIPv6) && op <= cmpNEQ {
		if bits, ok := prefixBits(mask); ok {
			w.compare(text, cmpText[op], prefixText(data, bits, len(mask)))
			return
		}
	}
	if zeroXor && (kind == valRealm || kind == valMark || kind == valDevGroup) && op <= cmpNEQ { // types with DTYPE_F_PREFIX
		if bits, ok := prefixBits(mask); ok {
			w.compare(text, cmpText[op], w.value(kind, data)+"/"+strconv.Itoa(bits))
			return
		}
	}
	if zeroXor && kind.bitmask() {
		flags := func(b []byte, sep string) string {
			if kind == valCTLabel {
				return labels(b)
			}
			return kind.flags(number(b), sep)
		}
		single := oneBit(mask)
		switch {
		case op == cmpNEQ && zeroData:
			w.compare(text, "", flags(mask, ","))
			return
		case op == cmpEQ && zeroData:
			w.compare(text, "!", flags(mask, ","))
			return
		case op <= cmpNEQ && !single && kind != valCTLabel:
			w.compare(text, cmpText[op], flags(data, ",")+" / "+flags(mask, ","))
			return
		}
	}
	o := cmpText[op]
	if op == cmpEQ {
		o = "=="
	}
	w.compare(text+l.binop(kind, w), o, w.value(kind, data))
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func oneBit(b []byte) bool {
	n := 0
	for _, c := range b {
		for ; c != 0; c &= c - 1 {
			n++
		}
	}
	return n == 1
}

// prefixBits counts the bits of a mask that is a prefix.
func prefixBits(mask []byte) (int, bool) {
	n, ended := 0, false
	for _, c := range mask {
		for bit := byte(0x80); bit != 0; bit >>= 1 {
			if c&bit == 0 {
				ended = true
			} else if ended {
				return 0, false
			} else {
				n++
			}
		}
	}
	return n, true
}

// cmpHeader writes a comparison with header bytes, which can hold several
// fields at once: nft joins matches on fields that lie side by side.
func (w *writer) cmpHeader(l *left, op uint32, data []byte) {
	bits := 8 * len(data)
	mask, xor := l.mask, l.xor
	if mask == nil {
		mask = bytes.Repeat([]byte{0xff}, len(data))
		xor = make([]byte, len(data))
	}
	if len(mask) != len(data) || len(xor) != len(data) {
		w.say("cmp ?")
		return
	}
	p := w.protocol(l.base)
	base := 0
	if l.base == baseLink && l.bit >= 112 && w.etherType == 0x8100 {
		p, base = vlanText, 112
	}
	// A run of bits that is a field of its own.
	first, n := maskRun(mask)
	if l.mask != nil && allZero(xor) && n > 0 && n < bits {
		if f, ok := p.fieldOf(l.bit+first-base, n); ok {
			text, kind := w.header(&left{payload: true, base: l.base, bit: l.bit + first, bits: n}, false)
			w.cmpPlain(text, kind, op, bitsOf(data, first, n), false, (n+7)/8)
			_ = f
			return
		}
	}
	if l.mask != nil {
		text, kind := w.header(&left{payload: true, base: l.base, bit: l.bit, bits: bits}, false)
		w.cmpMasked(text, kind, mask, xor, op, data, l)
		return
	}
	// Whole fields, one after the other.
	for at := 0; at < bits; {
		f, ok := p.startingAt(l.bit + at - base)
		rest := bits - at
		switch {
		case ok && f.len <= rest && (at == 0 && f.len == rest || op == cmpEQ):
			part := bitsOf(data, at, f.len)
			c := &left{payload: true, base: l.base, bit: l.bit + at, bits: f.len}
			text, kind := w.header(c, false)
			w.cmpPlain(text, kind, op, part, false, f.len/8)
			w.learn(c, op, part)
			at += f.len
		case ok && f.len > rest && (f.kind == valIPv4 || f.kind == valIPv6):
			text, kind := w.header(&left{payload: true, base: l.base, bit: l.bit + at, bits: rest}, true)
			w.cmpPlain(text, kind, op, data[at/8:], false, f.len/8)
			at = bits
		default:
			text, kind := w.header(&left{payload: true, base: l.base, bit: l.bit + at, bits: rest}, false)
			w.cmpPlain(text, kind, op, bitsOf(data, at, rest), false, (rest+7)/8)
			at = bits
		}
	}
}

// maskRun finds the only run of ones in a mask.
func maskRun(mask []byte) (first, n int) {
	first = -1
	for i := range 8 * len(mask) {
		on := mask[i/8]&(0x80>>(i%8)) != 0
		switch {
		case on && first < 0:
			first, n = i, 1
		case on && i == first+n:
			n++
		case on:
			return 0, 0
		}
	}
	return max(first, 0), n
}

// learn notes what a comparison says of the headers that follow.
func (w *writer) learn(l *left, op uint32, data []byte) {
	if op != cmpEQ {
		return
	}
	at := len(w.items) - 1
	v := number(data)
	fam := w.t.table.Family
	switch {
	case l.name == "meta nfproto", l.name == "ct l3proto":
		switch v {
		case nfprotoIPv4:
			w.family = fw.IPv4
		case nfprotoIPv6:
			w.family = fw.IPv6
		default:
			return
		}
		w.needs[needNetwork] = need{item: at}
	case l.name == "meta protocol", l.payload && l.base == baseLink && (l.bit == 96 || l.bit == 128) && l.bits == 16:
		v := number(data)
		if l.bit != 128 {
			w.etherType = uint16(v)
		}
		switch v {
		case 0x0800:
			w.family = fw.IPv4
		case 0x86dd:
			w.family = fw.IPv6
		case 0x0806, 0x8100:
		default:
			return
		}
		w.needs[needNetwork] = need{item: at, firm: l.name != "" && fam == fw.TableInet}
	case l.name == "meta iiftype" && hostValue(data).Lo == 1:
		w.link = true
		w.needs[needLink] = need{item: at}
	case l.name == "meta l4proto":
		if w.family == fw.IPv4 && v == uint64(fw.ICMP) || w.family == fw.IPv6 && v == uint64(fw.ICMPv6) {
			w.needs[needNetwork].firm = false
			w.implied(needNetwork) // meta_may_dependency_kill
		}
		w.transport = int(v)
		w.needs[needTransport] = need{item: at}
	case l.payload && l.base == baseTransport && l.bit == 0 && l.bits == 8 && (w.transport == int(fw.ICMP) || w.transport == int(fw.ICMPv6)):
		w.icmpType = int(v)
		w.needs[needICMPType] = need{item: at}
	case l.payload && l.base == baseNetwork && (w.family == fw.IPv4 && l.bit == 72 || w.family == fw.IPv6 && l.bit == 48) && l.bits == 8:
		w.transport = int(v)
		w.needs[needTransport] = need{item: at, firm: fam != fw.TableIP && fam != fw.TableIP6}
	}
}
