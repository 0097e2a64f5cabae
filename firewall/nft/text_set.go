package nft

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// lookup writes a look-up in a set, a map or a verdict map.
func (w *writer) lookup(t *table, reg func(int) int) {
	s := w.t.set(cstring(t.val(1)))
	at := reg(2)
	if s == nil || at < 0 {
		w.say("lookup ?")
		return
	}
	text, kinds := w.keyText(at, s)
	if t.has(3) {
		if t.num(3) == 0 {
			w.items = append(w.items, item{text: text + " vmap " + w.setText(s, kinds, false)})
			return
		}
		m := &left{isMap: true, m: s, name: text, keys: kinds, n: int(s.dataLen)}
		dst := reg(3)
		for i := 0; dst >= 0 && i < int(s.dataLen) && dst+i < registerBytes; i += 4 {
			c := *m
			c.part = i
			w.regs[(dst+i)/4] = &c
		}
		return
	}
	op := ""
	switch {
	case t.num(5)&1 != 0:
		op = "!="
	case len(kinds) == 1 && kinds[0].masked:
		op = "=="
	}
	w.compare(text, op, w.setText(s, kinds, false))
}

// keyKind is how one part of a key is written.
type keyKind struct {
	valueKind
	host   bool
	masked bool // the text says which bits count
	shift  int  // of a field that does not end with its last byte
}

// keyText writes what is looked up, and tells the kinds of the key's parts.
func (w *writer) keyText(at int, s *setInfo) (string, []keyKind) {
	var texts []string
	var kinds []keyKind
	fields := s.set.Fields
	if len(fields) == 0 {
		fields = []int{s.set.KeyLen}
	}
	off := 0
	for _, n := range fields {
		l := w.at(at + off)
		var text string
		var key keyKind
		kind, host := valHex, false
		switch {
		case l == nil:
			text = "?"
		case l.payload && l.ext == nil:
			c := *l
			c.bits = 8 * min(n, max(l.n, 1))
			if first, run := w.fieldUnder(l); run > 0 {
				key.shift = 8*len(l.mask) - first - run
				c.bit, c.bits = l.bit+first, run
				text, kind = w.header(&c, false)
			} else {
				text, kind = w.header(&c, false)
				text += l.binop(kind, w)
				key.masked = l.mask != nil || l.shift != ""
			}
		case l.ext != nil && l.mask != nil && allZero(l.xor):
			text, kind, host = w.left(l, n)
			key.masked = true
			if first, run := maskRun(l.mask); run > 0 {
				if f, ok := l.ext.fieldOf(l.bit+first, run); ok {
					text, kind, key.masked, key.shift = l.name+" "+f.name, f.kind, false, 8*len(l.mask)-first-run
				}
			}
		default:
			text, kind, host = w.left(l, n)
			key.masked = l.mask != nil || l.shift != ""
		}
		key.valueKind, key.host = kind, host
		texts, kinds = append(texts, text), append(kinds, key)
		off += (n + 3) &^ 3
	}
	return strings.Join(texts, " . "), kinds
}

// fieldUnder finds the field that a mask cuts out of header bytes.
func (w *writer) fieldUnder(l *left) (first, n int) {
	if l.mask == nil || l.shift != "" || !allZero(l.xor) {
		return 0, 0
	}
	first, n = maskRun(l.mask)
	if n == 0 || n == 8*len(l.mask) {
		return first, n
	}
	p, bit := w.protocol(l.base), l.bit+first
	if l.base == baseLink && bit >= 112 && w.etherType == 0x8100 {
		p, bit = vlanText, bit-112
	}
	if _, ok := p.fieldOf(bit, n); !ok {
		return 0, 0
	}
	return first, n
}

// mapText is the text of a map whose data a statement takes; host says that the
// statement takes them in host byte order.
func (w *writer) mapText(l *left, host bool) string {
	return l.name + " map " + w.setText(l.m, l.keys, host)
}

// dataKind is how the data of a map are written.
func (l *left) dataKind() valueKind {
	parts := typeParts(l.m.dataType)
	off := 0
	for _, k := range parts {
		if off == l.part {
			return k
		}
		off += (typeSize(uint32(k)) + 3) &^ 3
	}
	return valHex
}

// typeParts splits nft's number of a type into the kinds of its parts.
func typeParts(t uint32) []valueKind {
	var out []valueKind
	for ; t != 0; t >>= typeBits {
		out = append(out, valueKind(t&(1<<typeBits-1)))
	}
	slices.Reverse(out)
	return out
}

// setText writes a set in a rule: its name, or for an anonymous one its
// elements. kinds are those of the key's parts; host is the byte order of the
// data's numbers.
func (w *writer) setText(i *setInfo, kinds []keyKind, host bool) string {
	s := i.set
	if !s.Anonymous {
		return "@" + s.Name
	}
	if s.Unread != "" {
		return "{ ? }"
	}
	if types := typeParts(i.keyType); len(types) == len(kinds) {
		for j, k := range types {
			if kinds[j].valueKind == valHex && k != valInteger && k < 47 {
				kinds[j].valueKind, kinds[j].host = k, k.hostOrder()
			}
		}
	}
	order := make([]int, s.N)
	for j := range order {
		order[j] = j
	}
	sortKey := func(j int) []byte {
		k, _ := s.Key(j)
		if len(kinds) > 1 && s.Interval {
			return nil // the order of the kernel's dump
		}
		if len(kinds) > 1 {
			return concatKey(s, k)
		}
		if len(kinds) != 1 || s.Interval {
			return k
		}
		k = bigEndian(k, kinds[0].host || kinds[0].valueKind == valIfName || kinds[0].valueKind == valString)
		if kinds[0].bitmask() {
			// nft sorts `fin | syn` by its first flag.
			v := number(k)
			return binary.BigEndian.AppendUint64(nil, v&-v)
		}
		return k
	}
	if len(kinds) == 1 && kinds[0].bitmask() {
		slices.Reverse(order)
	}
	slices.SortStableFunc(order, func(a, b int) int { return bytes.Compare(sortKey(a), sortKey(b)) })
	var out []string
	for _, j := range order {
		text := w.elementText(i, j, kinds)
		if c := i.comments[j]; c != "" {
			text += ` comment "` + c + `"`
		}
		if s.Data != nil {
			text += " : " + w.datumText(i, &s.Data[j], host)
		}
		out = append(out, text)
	}
	if s.HasCatchAll {
		text := "*"
		if s.IsMap || s.IsObjectMap {
			text += " : " + w.datumText(i, s.CatchAll, host)
		}
		out = append(out, text)
	}
	return "{ " + strings.Join(out, ", ") + " }"
}

// concatKey is what nft sorts concatenations by (concat_expr_msort_value): the
// bytes of all parts as one number of the host's byte order, so that on hosts of
// little endian the last byte counts most.
func concatKey(s *fw.Set, key []byte) []byte {
	var b []byte
	off := 0
	for _, n := range s.Fields {
		if off+n > len(key) {
			break
		}
		b = append(b, key[off:off+n]...)
		off += (n + 3) &^ 3
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		slices.Reverse(b)
	}
	return b
}

func (w *writer) elementText(i *setInfo, j int, kinds []keyKind) string {
	s := i.set
	key, end := s.Key(j)
	fields := s.Fields
	if len(fields) == 0 {
		fields = []int{s.KeyLen}
	}
	var parts []string
	off := 0
	for f, n := range fields {
		if off+n > len(key) || f >= len(kinds) {
			return "?"
		}
		lo, hi := shiftRight(key[off:off+n], kinds[f].shift), shiftRight(end[off:off+n], kinds[f].shift)
		parts = append(parts, w.rangeText(kinds[f].valueKind, lo, hi, kinds[f].host && !(s.Interval && len(fields) == 1)))
		off += (n + 3) &^ 3
	}
	return strings.Join(parts, " . ")
}

// rangeText writes a value, a prefix or a range.
func (w *writer) rangeText(k valueKind, lo, hi []byte, host bool) string {
	lo, hi = bigEndian(lo, host), bigEndian(hi, host)
	if bytes.Equal(lo, hi) {
		return w.value(k, lo)
	}
	if len(lo) != len(hi) {
		return w.value(k, lo) + "-" + w.value(k, hi)
	}
	switch k {
	case valIPv4, valIPv6:
		diff := make([]byte, len(lo))
		aligned := true
		for i := range lo {
			diff[i] = ^(lo[i] ^ hi[i])
			aligned = aligned && lo[i]&hi[i] == lo[i]
		}
		if bits, ok := prefixBits(diff); ok && aligned {
			return prefixText(lo, bits, len(lo))
		}
	case valIfName:
		// A prefix of a name: what follows it is anything.
		n := len(lo)
		for n > 0 && lo[n-1] == 0 && hi[n-1] == 0xff {
			n--
		}
		if n < len(lo) && bytes.Equal(lo[:n], hi[:n]) && bytes.IndexByte(lo[:n], 0) < 0 {
			return `"` + string(lo[:n]) + `*"`
		}
	}
	return w.number(k, lo) + "-" + w.number(k, hi)
}

// shiftRight turns header bytes that hold a field into the field's value.
func shiftRight(b []byte, bits int) []byte {
	if bits == 0 {
		return b
	}
	return bitsOf(b, 0, 8*len(b)-bits)
}

func (w *writer) datumText(i *setInfo, d *fw.Datum, host bool) string {
	switch {
	case d.Verdict != nil:
		switch d.Verdict.Kind {
		case fw.Jump, fw.Goto:
			return d.Verdict.Kind.String() + " " + d.Verdict.Chain.Name
		}
		return d.Verdict.Kind.String()
	case d.Object != "":
		return `"` + d.Object + `"`
	}
	kinds := typeParts(i.dataType)
	var parts []string
	b := d.Bytes
	for _, k := range kinds {
		n := typeSize(uint32(k))
		if len(kinds) == 1 {
			n = len(b)
			if size := typeSize(uint32(k)); size > 0 && n == 2*((size+3)&^3) {
				// A range of data: for translation.
				return w.rangeText(k, b[:size], b[n/2:n/2+size], k.hostOrder())
			}
		}
		if n < 1 || n > len(b) {
			return "?"
		}
		parts = append(parts, w.value(k, bigEndian(b[:n], k.hostOrder() || host)))
		b = b[min((n+3)&^3, len(b)):]
	}
	if len(b) > 0 && len(kinds) > 1 {
		return "?"
	}
	return strings.Join(parts, " . ")
}
