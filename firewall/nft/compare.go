package nft

import (
	fw "github.com/hostaudit/hostaudit/firewall"
)

// Operators of cmp (enum nft_cmp_ops).
const (
	cmpEQ = iota
	cmpNEQ
	cmpLT
	cmpLTE
	cmpGT
	cmpGTE
)

// compare lowers cmp: nft_cmp_eval compares the register bytes with data by
// memcmp.
func (r *run) compare(at int, op uint32, data []byte) {
	switch op {
	case cmpEQ, cmpNEQ:
		r.equal(at, data, op == cmpNEQ)
	case cmpLT, cmpLTE, cmpGT, cmpGTE:
		n := len(data)
		lo, hi := fw.Value{}, fw.MaxValue(n)
		v := fw.Bytes(data)
		none := false
		switch op {
		case cmpLT:
			none, hi = v == lo, v.Prev()
		case cmpLTE:
			hi = v
		case cmpGT:
			none, lo = v == hi, v.Next()
		case cmpGTE:
			lo = v
		}
		if n > 16 {
			r.unsure("cmp", "a comparison of a long value")
			return
		}
		if none {
			lo, hi = fw.Num(1), fw.Value{} // no value at all
		}
		r.between(at, n, lo, hi, false)
	default:
		r.opaque("cmp", "a comparison that the model does not know")
	}
}

// equal lowers cmp eq and neq, over as many fields as the bytes hold.
func (r *run) equal(at int, data []byte, invert bool) {
	ps := r.parts(at, len(data))
	matches := r.matchBuf[:0]
	never := false
	var unsure string
	for i := range ps {
		p := &ps[i]
		switch p.kind {
		case originConst:
			for j := range p.n {
				if r.m.regs[at+p.from+j].xor != data[p.from+j] {
					never = true
				}
			}
		case originPayload, originField:
			m, ok := r.equalPart(p, p.value(r, at, data))
			if !ok {
				unsure = "a comparison of a shifted value"
				continue
			}
			matches = append(matches, m)
		default:
			unsure = r.whyOf(p)
		}
	}
	r.matchBuf = matches
	if unsure != "" {
		r.unsure("cmp", unsure)
		return
	}
	for i := range matches {
		never = never || matches[i].In.Empty()
	}
	switch {
	case never:
		// The loads can still fail.
		for i := range matches {
			r.present(matches[i].Operand)
		}
		if !invert {
			r.emitNever()
		}
	case !invert:
		for i := range matches {
			r.match(&matches[i])
		}
	case len(matches) == 1:
		matches[0].Invert = true
		r.match(&matches[0])
	case len(matches) == 0:
		r.emitNever()
	default:
		all := &fw.AllOf{Invert: true}
		for i := range matches {
			r.present(matches[i].Operand)
			all.Of = append(all.Of, r.intern(&matches[i]))
		}
		r.emit(all)
	}
}

// equalPart asks the bits of one field to be want.
func (r *run) equalPart(p *part, want fw.Value) (fw.Match, bool) {
	want = want.Xor(p.xor)
	if !want.And(p.mask).Xor(want).IsZero() {
		return fw.Match{Operand: p.op}, true // bits that the mask has cleared
	}
	n := p.op.Len
	if p.op.Shift != 0 || p.op.Mask != fw.MaxValue(n) || !p.op.Xor.IsZero() {
		if !p.exact() && p.op.Shift < 0 {
			return fw.Match{}, false
		}
		op := p.op
		op.HostOrder = false
		shl := fw.Value.Shl
		s := uint(op.Shift)
		if op.Shift < 0 {
			shl, s = fw.Value.Shr, uint(-op.Shift)
		}
		op.Mask, op.Xor = op.Mask.And(shl(p.mask, s)), op.Xor.And(shl(p.mask, s))
		return fw.Match{Operand: op, In: r.single(want)}, true
	}
	op := trafficClass(fw.Operand{Field: p.op.Field, Len: n, Mask: p.mask, Why: p.op.Why}, &r.g)
	if op.Field.Kind != p.op.Field.Kind {
		if op.Shift < 0 {
			want, op.Shift = want.Shr(uint(-op.Shift)), 0
		}
		op.Len, op.Mask = 1, fw.MaxValue(1)
		return fw.Match{Operand: op, In: r.single(want)}, true
	}
	full := fw.MaxValue(n)
	host := p.mask.Not(n) // the bits that may be anything
	switch {
	case p.mask == full:
		return fw.Match{Operand: p.op, In: r.single(want)}, true
	case host.And(host.Next()).IsZero():
		// A prefix. A name that ends within it is that name alone, because the
		// kernel fills names up with zeros.
		hi := want.Or(host)
		if isName(p.op.Field.Kind) && endsWithin(want, p.mask) {
			hi = want
		}
		return fw.Match{Operand: p.op, In: r.span(want, hi)}, true
	default:
		return fw.Match{Operand: op, In: r.single(want)}, true
	}
}

func isName(k fw.FieldKind) bool {
	switch k {
	case fw.FieldInName, fw.FieldOutName, fw.FieldPhysIn, fw.FieldPhysOut, fw.FieldInKind, fw.FieldOutKind, fw.FieldFIBOutName, fw.FieldCTHelper:
		return true
	}
	return false
}

// endsWithin reports whether one of the bytes that mask covers is zero.
func endsWithin(v, mask fw.Value) bool {
	for s := uint(0); s < 128; s += 8 {
		b := fw.Num(0xff).Shl(s)
		if mask.And(b) == b && v.And(b).IsZero() {
			return true
		}
	}
	return false
}

// between lowers the comparisons of order, and range.
func (r *run) between(at, n int, lo, hi fw.Value, invert bool) {
	ps := r.parts(at, n)
	if len(ps) != 1 {
		r.unsure("cmp", "a comparison of several fields at once")
		return
	}
	p := &ps[0]
	switch p.kind {
	case originPayload, originField:
	case originConst:
		b := make([]byte, n)
		for i := range b {
			b[i] = r.m.regs[at+i].xor
		}
		if fw.Span(lo, hi).Contains(fw.Bytes(b)) == invert {
			r.emitNever()
		}
		return
	default:
		r.unsure("cmp", r.whyOf(p))
		return
	}
	if p.op.Field.Kind != fw.FieldUnknown && !p.ordered || !p.exact() {
		r.unsure("cmp", "a comparison of bytes that are not in network order")
		return
	}
	m := fw.Match{Operand: p.operand(&r.g), In: r.span(lo, hi), Invert: invert}
	if m.Operand.Field.Kind == fw.FieldDSCP && m.Operand.Shift < 0 && !hi.Less(lo) {
		// The kernel compares the byte; say it of the six bits.
		s := uint(-m.Operand.Shift)
		m.Operand.Shift, m.Operand.Len = 0, 1
		m.Operand.Mask = fw.MaxValue(1)
		up := lo.Add(fw.Num(1<<s - 1)).Shr(s)
		m.In = fw.Span(up, hi.Shr(s)).Intersect(fw.Span(fw.Value{}, fw.Num(63)))
	}
	r.match(&m)
}

// whyOf says why a part is not known.
func (r *run) whyOf(p *part) string {
	o := &r.m.origins[p.origin]
	if o.kind == originMap {
		return "a comparison with what map " + o.set.Name + " holds"
	}
	return o.why
}

// keys returns the operands that a look-up of the set with the key at register
// byte at uses; ok is false when they cannot be named, then why says it.
func (r *run) keys(at int, set *setInfo) (ops []fw.Operand, why string, ok bool) {
	s := set.set
	if !fits(at, s.KeyLen) {
		return nil, "a key that does not fit the registers", false
	}
	if len(s.Fields) == 0 {
		r.splitKey(at, set)
	}
	off := 0
	for i, n := range s.Fields {
		op, why, ok := r.key(at+off, n)
		if !ok {
			return nil, why, false
		}
		if op.HostOrder && s.Interval && n > 1 {
			return nil, "an interval of numbers that are not in network order", false
		}
		ops = append(ops, op)
		if len(s.Fields) == 1 {
			break
		}
		off += (n + 3) &^ 3
		for j := n; j%4 != 0; j++ {
			b := r.m.regs[at+off-(n+3)&^3+j]
			if r.m.origins[b.origin].kind != originConst || b.xor != 0 {
				return nil, "a key with stray bytes", false
			}
		}
		_ = i
	}
	return ops, "", true
}

// key returns the operand that n register bytes hold.
func (r *run) key(at, n int) (fw.Operand, string, bool) {
	ps := r.parts(at, n)
	if len(ps) > 1 {
		if op, ok := r.rawKey(at, n); ok {
			return op, "", true
		}
		return fw.Operand{}, "a key made of several fields", false
	}
	p := &ps[0]
	switch p.kind {
	case originPayload, originField:
	case originConst:
		return fw.Operand{}, "a constant key", false
	default:
		return fw.Operand{}, r.whyOf(p), false
	}
	if !p.exact() || !p.ordered && !p.reversed {
		return fw.Operand{}, "a key of bytes in another order", false
	}
	op := p.operand(&r.g)
	if !p.ordered {
		op.HostOrder = true
	} else {
		op.HostOrder = false
	}
	return op, "", true
}

// rawKey takes n untouched header bytes in a row as they are.
func (r *run) rawKey(at, n int) (fw.Operand, bool) {
	b := r.m.regs[at]
	o := &r.m.origins[b.origin]
	if n > 16 || o.kind != originPayload {
		return fw.Operand{}, false
	}
	for i := range n {
		c := r.m.regs[at+i]
		co := &r.m.origins[c.origin]
		if co.kind != originPayload || co.base != o.base || c.index != b.index+uint16(i) || c.mask != 0xff || c.xor != 0 {
			return fw.Operand{}, false
		}
	}
	op := fw.Plain(fw.FieldPayload, n)
	op.Field = fw.Field{Kind: fw.FieldPayload, A: uint32(o.base), B: uint32(b.index), C: uint32(n)}
	return op, true
}

// splitKey finds the lengths of the parts of a concatenated key from what the
// registers hold, for sets that do not describe them.
func (r *run) splitKey(at int, set *setInfo) {
	s := set.set
	var fields []int
	for off := 0; off < s.KeyLen; {
		p := r.part(at, off, s.KeyLen)
		n := p.n
		if p.kind == originConst || (n+3)&^3+off > s.KeyLen {
			fields = nil
			break
		}
		fields = append(fields, n)
		off += (n + 3) &^ 3
	}
	if len(fields) == 0 {
		fields = []int{s.KeyLen}
	}
	s.Fields = fields
}

// source returns where the n register bytes from at come from, as a rewrite or
// a translation takes them. host says that the kernel reads them as a number
// in host byte order.
func (r *run) source(at, n int, host bool) fw.Source {
	if !fits(at, n) {
		return fw.FromNowhere{Why: "a register that does not exist"}
	}
	ps := r.parts(at, n)
	if len(ps) != 1 {
		return fw.FromNowhere{Why: "a value put together from several fields"}
	}
	p := &ps[0]
	o := &r.m.origins[p.origin]
	switch p.kind {
	case originConst:
		b := make([]byte, n)
		for i := range b {
			b[i] = r.m.regs[at+i].xor
		}
		if host {
			return fw.Const{Value: hostValue(b)}
		}
		return fw.Const{Value: fw.Bytes(b)}
	case originPayload, originField:
		if !p.exact() {
			break
		}
		// A number in host order is read with its lowest byte first, a string of
		// bytes with its highest.
		if host && hostLittle && !p.reversed || (!host || !hostLittle) && !p.ordered {
			break
		}
		op := p.operand(&r.g)
		op.HostOrder = false
		return &fw.FromField{Operand: op}
	case originMap:
		first := r.m.regs[at].index
		for i := range n {
			b := r.m.regs[at+i]
			if b.index != first+uint16(i) || b.mask != 0xff || b.xor != 0 {
				return fw.FromNowhere{Why: "a changed value of map " + o.set.Name}
			}
		}
		return &fw.FromMap{Keys: o.keys, Map: o.set, Offset: int(first), Len: n, HostOrder: host}
	default:
		return fw.FromNowhere{Why: o.why}
	}
	return fw.FromNowhere{Why: "a value in another byte order"}
}

// hostValue reads a number in host byte order.
func hostValue(b []byte) fw.Value {
	if !hostLittle {
		return fw.Bytes(b)
	}
	var v fw.Value
	for i := len(b) - 1; i >= 0; i-- {
		v = v.Shl(8).Or(fw.Num(uint64(b[i])))
	}
	return v
}
