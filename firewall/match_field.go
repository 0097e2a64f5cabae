package firewall

// Split compares the operand with the set of values: nft_cmp_eval,
// nft_range_eval, and the comparisons of the xt matches.
func (m *Match) Split(c *Class, env *Env) Parts {
	if c.State.ARP != 0 {
		if op := m.Operand.asARP(); op.Field != m.Operand.Field {
			n := *m
			n.Operand = op
			m = &n
		}
	}
	r := c.read(m.Operand.Field, env)
	switch r.kind {
	case readAbsent:
		return all(c, m.WantAbsent)
	case readConst:
		in := m.In.Contains(m.Operand.apply(r.value))
		if !r.unsure.IsZero() {
			if in, settled := m.settled(r.value, r.unsure); settled {
				return all(c, in != m.Invert)
			}
		}
		if r.anyDiffers(m.Operand.Mask, func(v Value) bool { return m.In.Contains(m.Operand.apply(v)) != in }) {
			return allMaybe(c, r.why)
		}
		return all(c, in != m.Invert)
	case readRemote:
		yes, ok := preimage(&m.Operand, m.In, c.Remote.Shift(r.value))
		if !ok {
			return allMaybe(c, "an address mask that makes too many ranges")
		}
		return byRemote(c, yes.Shift(Value{}.Sub(r.value))).inverted(m.Invert)
	case readPort:
		yes, ok := preimage(&m.Operand, m.In, c.Ports)
		if !ok {
			return allMaybe(c, "the client's source port")
		}
		return byPort(c, yes).inverted(m.Invert)
	case readFIB:
		var p Parts
		for _, part := range r.parts {
			piece := Piece{part.addrs.Intersect(c.Remote), c.Ports}
			switch {
			case piece.Remote.Empty():
			case part.unknown != "":
				p.Maybe = append(p.Maybe, piece)
				p.Why = part.unknown
			case m.In.Contains(m.Operand.apply(part.value)):
				p.Yes = append(p.Yes, piece)
			default:
				p.No = append(p.No, piece)
			}
		}
		return p.inverted(m.Invert)
	default:
		if d := m.Operand.domain(); d != nil {
			switch in := d.Intersect(m.In); {
			case in.Empty():
				return all(c, m.Invert)
			case in.Equal(d):
				return all(c, !m.Invert)
			}
		}
		if bits, ok := c.openBits(m.Operand.Field.Kind); ok {
			if in, settled := m.settled(Value{}, bits); settled {
				return all(c, in != m.Invert)
			}
		}
		why := r.why
		if m.Operand.Why != "" {
			why = m.Operand.Why
		}
		return allMaybe(c, why)
	}
}

// settled reports whether the operand is surely in the set, or surely not, whatever
// the unsure bits of the field are: a mask of zero, a range that holds every value.
func (m *Match) settled(value, unsure Value) (in, ok bool) {
	op := Operand{Len: m.Operand.Len, Mask: m.Operand.Mask, Shift: m.Operand.Shift}
	free := op.apply(unsure)
	least := m.Operand.apply(value)
	least = least.Xor(least.And(free))
	may := Span(least, least.Or(free)) // these, and perhaps some between them
	switch {
	case m.In.Covers(may[0]):
		return true, true
	case m.In.Intersect(may).Empty():
		return false, true
	}
	return false, false
}

// openBits are the bits of a field that every packet of the class has, though they
// cannot be told; ok is false where it may be missing.
func (c *Class) openBits(k FieldKind) (bits Value, ok bool) {
	switch k {
	case FieldTTL:
		return MaxValue(1), true
	case FieldDSCP:
		return Num(0x3f), true
	case FieldECN:
		return Num(0x3), true
	case FieldLength, FieldMark, FieldPriority, FieldCPU:
		return MaxValue(4), true
	case FieldSrcMAC, FieldDstMAC:
		return MaxValue(6), c.hasLinkHeader()
	}
	return Value{}, false
}

// unsureBits bounds the unknown bits of a value whose combinations are tried.
const unsureBits = 6

// anyDiffers reports whether differs holds for any value that the known bits
// leave open under the mask; many unknown bits are taken as if.
func (r *reading) anyDiffers(mask Value, differs func(Value) bool) bool {
	open := r.unsure.And(mask)
	var bits []Value
	for b := Num(1); !open.IsZero(); b = b.Shl(1) {
		if open.And(b).IsZero() {
			continue
		}
		if open = open.Xor(b); len(bits) == unsureBits {
			return true
		}
		bits = append(bits, b)
	}
	for n := 1; n < 1<<len(bits); n++ {
		v := r.value
		for i, b := range bits {
			if n>>i&1 == 1 {
				v = v.Or(b)
			}
		}
		if differs(v) {
			return true
		}
	}
	return false
}

// preimageBudget bounds the pieces that a mask may cut the addresses into.
const preimageBudget = 1 << 13

// preimage returns the values v of domain for which op(v) is in the set. Plain
// operands and prefix masks cost nothing; other masks (`ip saddr & 0.0.0.1 ==
// 1`) are followed bit by bit, and when they make too many pieces ok is false.
func preimage(op *Operand, in, domain Ranges) (vals Ranges, ok bool) {
	if op.isPlain() {
		return in, true
	}
	if len(domain) == 0 {
		return nil, true
	}
	bits := op.Len * 8
	p := preimager{op: op, in: in, domain: domain, budget: preimageBudget}
	// A field can be wider than the operand it is cut to (a shift); follow the
	// bits of the domain.
	top := domain[len(domain)-1].Hi
	for bits < 128 && !top.Shr(uint(bits)).IsZero() {
		bits += 8
	}
	if !p.walk(Value{}, bits) {
		return nil, false
	}
	return NewRanges(p.out), true
}

type preimager struct {
	op         *Operand
	in, domain Ranges
	out        []Range
	budget     int
}

// walk adds the matching values among those that share prefix above the low
// free bits.
func (p *preimager) walk(prefix Value, free int) bool {
	low := MaxValue(16).Shr(uint(128 - free))
	if free == 0 {
		low = Value{}
	}
	if Span(prefix, prefix.Or(low)).Intersect(p.domain).Empty() {
		return true
	}
	if p.budget--; p.budget < 0 {
		return false
	}
	// The operand over this block lies between these two; with no masked bit
	// among the free ones it is constant.
	vary := p.op.Mask.And(low)
	base := prefix.And(p.op.Mask).Xor(p.op.Xor)
	lo := Operand{Len: p.op.Len, Mask: MaxValue(16), Shift: p.op.Shift}
	least := lo.apply(base.And(vary.Xor(MaxValue(16))))
	most := lo.apply(base.Or(vary))
	if p.op.Shift < 0 && !vary.IsZero() {
		free--
		return p.walk(prefix, free) && p.walk(prefix.Or(Num(1).Shl(uint(free))), free)
	}
	i := p.in.find(least)
	if i == len(p.in) || most.Less(p.in[i].Lo) {
		return true
	}
	if !least.Less(p.in[i].Lo) && !p.in[i].Hi.Less(most) || vary.IsZero() {
		if vary.IsZero() && !p.in.Contains(least) {
			return true
		}
		p.out = append(p.out, Range{prefix, prefix.Or(low)})
		return true
	}
	free--
	return p.walk(prefix, free) && p.walk(prefix.Or(Num(1).Shl(uint(free))), free)
}
