package nft

import fw "github.com/hostaudit/hostaudit/firewall"

// part is a run of register bytes that belong to one field.
type part struct {
	from, n int // which bytes of the comparison
	kind    originKind
	origin  uint16
	op      fw.Operand // the field before mask and xor
	end     int        // of a header field: the offset behind it
	mask    fw.Value   // the bits of op that the bytes hold
	xor     fw.Value
	low     uint // bits that the lowest byte held is above op's lowest bit
	// ordered: the bytes lie most significant first and without holes, so that
	// comparing them as the kernel does (memcmp) compares numbers. reversed:
	// the other way round, as numbers in host byte order lie.
	ordered, reversed bool
}

// significance is how many bits a register byte of the part is above the
// lowest bit of op.
func (p *part) significance(o *origin, index uint16) uint {
	if p.kind == originPayload {
		return 8 * uint(p.end-1-int(index))
	}
	return o.significance(index)
}

// parts cuts n register bytes from at into fields, in order, and notes that
// the rule depends on them now. The result is valid until the next call.
func (r *run) parts(at, n int) []part {
	out := r.partBuf[:0]
	for i := 0; i < n; {
		p := r.part(at, i, n)
		out = append(out, p)
		i += p.n
	}
	r.partBuf = out
	return out
}

func (r *run) part(at, from, n int) part {
	b := r.m.regs[at+from]
	o := &r.m.origins[b.origin]
	p := part{from: from, n: 1, kind: o.kind, origin: b.origin}
	same := func(c regByte) bool { return c.origin == b.origin }
	switch o.kind {
	case originPayload:
		f, known := r.g.wholeField(o.base, int(b.index))
		if !known {
			f = headerField{int(b.index), r.rawLength(at+from, n-from, o), fw.FieldPayload}
		}
		p.end = f.offset + f.length
		p.op = fw.Plain(f.kind, f.length)
		if f.kind == fw.FieldPayload {
			p.op.Field = fw.Field{Kind: f.kind, A: uint32(o.base), B: uint32(f.offset), C: uint32(f.length)}
		}
		base := o.base
		same = func(c regByte) bool {
			co := &r.m.origins[c.origin]
			return co.kind == originPayload && co.base == base && int(c.index) >= f.offset && int(c.index) < p.end
		}
	case originField:
		p.op = o.op
	default:
		o.pending = false
		for from+p.n < n && same(r.m.regs[at+from+p.n]) {
			p.n++
		}
		return p
	}
	p.gather(r, at, n, same)
	return p
}

// gather takes the bytes of one field into the part.
func (p *part) gather(r *run, at, n int, same func(regByte) bool) {
	var seen fw.Value
	var last uint
	p.ordered, p.reversed = true, true
	for p.n = 0; p.from+p.n < n; p.n++ {
		b := r.m.regs[at+p.from+p.n]
		if !same(b) {
			break
		}
		o := &r.m.origins[b.origin]
		s := p.significance(o, b.index)
		if !seen.And(fw.Num(0xff).Shl(s)).IsZero() {
			break // the same byte once more
		}
		if p.n > 0 {
			p.ordered = p.ordered && s+8 == last
			p.reversed = p.reversed && s == last+8
		}
		if p.n == 0 || s < p.low {
			p.low = s
		}
		last = s
		seen = seen.Or(fw.Num(0xff).Shl(s))
		p.mask = p.mask.Or(fw.Num(uint64(b.mask)).Shl(s))
		p.xor = p.xor.Or(fw.Num(uint64(b.xor)).Shl(s))
		o.pending = false
	}
}

// value returns, as a number of op, what data asks the bytes of the part to be.
func (p *part) value(r *run, at int, data []byte) fw.Value {
	var v fw.Value
	for i := range p.n {
		b := r.m.regs[at+p.from+i]
		v = v.Or(fw.Num(uint64(data[p.from+i])).Shl(p.significance(&r.m.origins[b.origin], b.index)))
	}
	return v
}

// rawLength counts the bytes, at most sixteen, from register byte at that are
// header bytes in a row without a field of their own.
func (r *run) rawLength(at, n int, o *origin) int {
	first := r.m.regs[at].index
	k := 1
	for ; k < min(n, 16); k++ {
		b := r.m.regs[at+k]
		bo := &r.m.origins[b.origin]
		if bo.kind != originPayload || bo.base != o.base || b.index != first+uint16(k) {
			break
		}
		if _, known := r.g.wholeField(o.base, int(b.index)); known {
			break
		}
	}
	return k
}

// wholeField is fieldAt, and knows the bytes of DSCP and ECN, which become
// fields of their own only under a mask (see trafficClass).
func (g *guards) wholeField(base uint8, offset int) (headerField, bool) {
	if f, ok := g.fieldAt(base, offset); ok {
		return f, true
	}
	if base == baseNetwork {
		switch {
		case g.family == fw.IPv4 && offset == 1:
			return headerField{1, 1, fw.FieldPayload}, true
		case g.family == fw.IPv6 && offset < 2:
			return headerField{0, 2, fw.FieldPayload}, true
		}
	}
	return headerField{}, false
}

// operand returns what the kernel compares the bytes of the part as: the field
// masked, xored and cut to them.
func (p *part) operand(g *guards) fw.Operand {
	op := p.op
	s := op.Shift
	shl := func(v fw.Value) fw.Value {
		if s >= 0 {
			return v.Shl(uint(s))
		}
		return v.Shr(uint(-s))
	}
	op.Mask = op.Mask.And(shl(p.mask))
	op.Xor = op.Xor.And(shl(p.mask)).Xor(shl(p.xor))
	op.Shift += int(p.low)
	op.Len = p.n
	return trafficClass(op, g)
}

// exact reports whether operand loses nothing: an xor of bits that a left
// shift made cannot be said of the field.
func (p *part) exact() bool {
	if p.op.Shift >= 0 {
		return p.op.Shift == 0 || p.low == 0
	}
	return p.low == 0 && p.xor.Shr(uint(-p.op.Shift)).Shl(uint(-p.op.Shift)) == p.xor
}

// trafficClass names DSCP and ECN where they are all that is left of their
// bytes.
func trafficClass(op fw.Operand, g *guards) fw.Operand {
	f := op.Field
	if f.Kind != fw.FieldPayload || f.A != baseNetwork || !op.Xor.IsZero() {
		return op
	}
	var kind fw.FieldKind
	var width int
	switch {
	case g.family == fw.IPv4 && f.B == 1 && f.C == 1 && op.Mask == fw.Num(0xfc):
		kind, width = fw.FieldDSCP, 2
	case g.family == fw.IPv4 && f.B == 1 && f.C == 1 && op.Mask == fw.Num(0x03):
		kind, width = fw.FieldECN, 0
	case g.family == fw.IPv6 && f.B == 0 && f.C == 2 && op.Mask == fw.Num(0x0fc0):
		kind, width = fw.FieldDSCP, 6
	case g.family == fw.IPv6 && f.B == 0 && f.C == 2 && op.Mask == fw.Num(0x0030):
		kind, width = fw.FieldECN, 4
	default:
		return op
	}
	op.Field = fw.Field{Kind: kind}
	op.Mask = fw.MaxValue(op.Len)
	op.Shift -= width
	return op
}
