package firewall

import "slices"

// maxWays bounds the ways that one rule may fork into by an element that cannot
// be told; beyond it the rule's outcome is open altogether.
const maxWays = 256

// maxSearched bounds the elements of a map that are looked through for what a key
// that cannot be told may find.
const maxSearched = 1 << 14

// domain is what an operand that cannot be told may be, nil where nothing bounds
// it. The value of numgen and of a hash lies in [B, B+C) (nft_ng_random_eval,
// nft_jhash_eval: reciprocal_scale, plus the offset).
func (o *Operand) domain() Ranges {
	f := o.Field
	switch {
	case f.Kind != FieldRandom || f.C == 0:
		return nil
	case o.isPlain():
		return Span(Num(uint64(f.B)), Num(uint64(f.B)+uint64(f.C)-1))
	case f.C > maxWays:
		return nil
	}
	var all []Range
	for i := range uint64(f.C) {
		v := o.apply(Num(uint64(f.B) + i))
		all = append(all, Range{v, v})
	}
	return NewRanges(all)
}

// might is what a look-up that cannot be told may find: the data of the
// elements, or with miss nothing. A nil might is not known.
type might struct {
	data []*Datum
	miss bool
}

// mightFind is what a key of one part that cannot be told may find; of a set,
// and of a map that is too large, the elements stand for a single nil.
func (ix *setIndex) mightFind(op *Operand, s *Set) *might {
	values := op.domain()
	m := &might{miss: values == nil || !values.Minus(ix.values).Empty()}
	switch {
	case s.Data == nil:
		if !ix.values.Empty() && (values == nil || !values.Intersect(ix.values).Empty()) {
			m.data = []*Datum{nil}
		}
		return m
	case s.N > maxSearched:
		m.data = []*Datum{nil}
		return m
	}
	for _, e := range ix.sorted {
		if values == nil || !values.Intersect(Ranges{e.Range}).Empty() {
			m.add(s.datum(e.element))
		}
	}
	return m
}

// add keeps each datum once, and not many more than are used.
func (m *might) add(d *Datum) {
	if len(m.data) <= maxWays && !slices.ContainsFunc(m.data, d.same) {
		m.data = append(m.data, d)
	}
}

func (d *Datum) same(e *Datum) bool {
	if d == nil || e == nil {
		return d == e
	}
	if d.Verdict != nil && e.Verdict != nil {
		return *d.Verdict == *e.Verdict
	}
	return d.Verdict == nil && e.Verdict == nil && string(d.Bytes) == string(e.Bytes) && d.Object == e.Object
}

// ways is the number of ways that it may go on; 0: not known, or too many.
func (m *might) ways() int {
	if m == nil || len(m.data) > maxWays || slices.Contains(m.data, nil) {
		return 0
	}
	n := len(m.data)
	if m.miss {
		n++
	}
	return n
}

// eachWay forks a class into the ways of a look-up that cannot be told, two by
// two, so that ways that meet again are one. found gets those that find a datum.
func (x *ruleWalk) eachWay(c Class, m *might, why string, found func(Class, *Datum)) {
	left := m.ways()
	next := func() Class {
		if left--; left > 0 {
			x.fork(&c, Condition{Rule: x.rule, Why: why})
		}
		return c
	}
	if m.miss {
		x.skip(next(), CannotTell, why)
	}
	for _, d := range m.data {
		found(next(), d)
	}
}
