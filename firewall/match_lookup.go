package firewall

import (
	"fmt"
	"slices"
)

// found is a part of a class together with the element of a set that it finds.
type found struct {
	Piece
	element int // index in the set; catchAll
	datum   *Datum
}

const catchAll = -1

// lookup is the answer of a set to the operands over a class: what finds which
// element, what finds none, and what cannot be told. breaks are the packets
// that lack one of the operands: the rule ends for them, inverted or not.
type lookup struct {
	found        []found
	none, breaks []Piece
	maybe        []Piece
	why          string
	// might is what maybe may find, nil where that is not known.
	might *might
}

// Split of Lookup is nft_lookup_eval.
func (m *Lookup) Split(c *Class, env *Env) Parts {
	if r, ok := m.plain(c, env); ok {
		return r
	}
	l := lookUp(c, env, m.Keys, m.Set, false)
	var p Parts
	for _, f := range l.found {
		p.Yes = append(p.Yes, f.Piece)
	}
	p.No = l.none
	p.Maybe, p.Why = l.maybe, l.why
	p = p.inverted(m.Invert)
	p.No = append(p.No, l.breaks...)
	return p
}

// plain answers the common case of one operand and a set that was read.
func (m *Lookup) plain(c *Class, env *Env) (Parts, bool) {
	if len(m.Keys) != 1 || m.Set.Unread != "" || m.Set.Stateful != nil || m.Set.HasCatchAll || c.State.touches(m.Set) {
		return Parts{}, false
	}
	ix := m.Set.index(m.Keys)
	if ix == nil {
		return Parts{}, false
	}
	f := Match{Operand: m.Keys[0], In: ix.values, Invert: m.Invert}
	return f.Split(c, env), true
}

// setIndex is the keys of a set as numbers, part by part.
type setIndex struct {
	// values are all keys of a set with one part.
	values Ranges
	// sorted are the elements of a set with one part, by key.
	sorted []indexed
	// parts holds, for concatenations, the intervals of every element.
	parts [][]Range
}

type indexed struct {
	Range
	element int
}

// index returns the numbers of the set's keys as the operands see them; nil
// when the operands do not fit the set's key.
func (s *Set) index(keys []Operand) *setIndex {
	sig := make([]byte, 0, 16)
	for i := range keys {
		b := byte(keys[i].Len) << 1
		if keys[i].HostOrder {
			b |= 1
		}
		sig = append(sig, b)
	}
	if ix, ok := s.indexes.Load(string(sig)); ok {
		return ix.(*setIndex)
	}
	ix := s.buildIndex(keys)
	got, _ := s.indexes.LoadOrStore(string(sig), ix)
	return got.(*setIndex)
}

func (s *Set) buildIndex(keys []Operand) *setIndex {
	if len(keys) != max(1, len(s.Fields)) {
		return nil
	}
	ix := &setIndex{}
	if len(keys) == 1 {
		ix.sorted = make([]indexed, s.N)
		vals := make([]Range, s.N)
		width := min(keys[0].Len, s.KeyLen)
		for i := range ix.sorted {
			k, e := s.Key(i)
			r := Range{keyValue(k[:width], keys[0].HostOrder), keyValue(e[:width], keys[0].HostOrder)}
			ix.sorted[i] = indexed{r, i}
			vals[i] = r
		}
		slices.SortFunc(ix.sorted, func(a, b indexed) int { return a.Lo.Cmp(b.Lo) })
		ix.values = NewRanges(vals)
		return ix
	}
	ix.parts = make([][]Range, s.N)
	flat := make([]Range, s.N*len(keys))
	for i := range ix.parts {
		row := flat[i*len(keys) : (i+1)*len(keys)]
		k, e := s.Key(i)
		for j := range keys {
			off, n := s.part(j)
			row[j] = Range{keyValue(k[off:off+n], keys[j].HostOrder), keyValue(e[off:off+n], keys[j].HostOrder)}
		}
		ix.parts[i] = row
	}
	return ix
}

// lookUp finds the elements of the set. With wantData each found part belongs
// to exactly one element; without, parts may be joined.
func lookUp(c *Class, env *Env, keys []Operand, s *Set, wantData bool) lookup {
	if c.State.ARP != 0 {
		keys = slices.Clone(keys)
		for i := range keys {
			keys[i] = keys[i].asARP()
		}
	}
	readings := make([]reading, len(keys))
	for i := range keys {
		r := c.read(keys[i].Field, env)
		switch {
		case r.kind == readAbsent:
			return lookup{breaks: []Piece{{c.Remote, c.Ports}}}
		case r.kind == readConst && !r.unsure.And(keys[i].Mask).IsZero():
			r = isUnknown(r.why)
		case r.kind == readConst:
			r.value = keys[i].apply(r.value)
		case r.kind == readUnknown && keys[i].Why != "":
			r.why = keys[i].Why
		}
		if only, ok := keys[i].domain().Only(); ok && r.kind == readUnknown {
			r = isValue(only)
		}
		readings[i] = r
	}
	whole := []Piece{{c.Remote, c.Ports}}
	if c.State.touches(s) {
		return lookup{maybe: whole, why: "set " + s.Name + ", which the packet itself changes"}
	}
	if s.Unread != "" {
		return unread(c, keys, readings, s)
	}
	ix := s.index(keys)
	if ix == nil {
		return lookup{maybe: whole, why: "set " + s.Name + ", whose keys do not fit the rule"}
	}
	var l lookup
	if len(keys) == 1 {
		l = ix.lookUpOne(c, &keys[0], readings[0], s)
	} else {
		l = ix.lookUpConcat(c, keys, readings, s, wantData || s.Stateful != nil)
	}
	// An element with a limit, quota or count may refuse.
	if s.Stateful != nil {
		l.found = slices.DeleteFunc(l.found, func(f found) bool {
			if s.Stateful[f.element] == "" {
				return false
			}
			l.maybe = append(l.maybe, f.Piece)
			l.why = s.Stateful[f.element]
			return true
		})
		l.might = nil
	}
	if s.HasCatchAll {
		if l.might != nil && l.might.miss {
			l.might.miss = false
			l.might.add(s.CatchAll)
		}
		for _, p := range l.none {
			l.found = append(l.found, found{p, catchAll, s.CatchAll})
		}
		l.none = nil
	}
	return l
}

func (s *Set) datum(i int) *Datum {
	if s.Data == nil {
		return nil
	}
	return &s.Data[i]
}

// unread asks the answers that the kernel gave for single keys.
func unread(c *Class, keys []Operand, rs []reading, s *Set) lookup {
	whole := []Piece{{c.Remote, c.Ports}}
	if len(rs) == 1 && rs[0].kind == readConst && s.Asked != nil {
		if a, ok := s.Asked[string(rs[0].value.AppendBytes(nil, keys[0].Len))]; ok {
			if a.Found {
				return lookup{found: []found{{whole[0], catchAll, &a.Data}}}
			}
			return lookup{none: whole}
		}
	}
	why := fmt.Sprintf("set %s (%d elements), which was not read: %s", s.Name, s.Count, s.Unread)
	return lookup{maybe: whole, why: why}
}

// lookUpOne finds in a set whose key has one part.
func (ix *setIndex) lookUpOne(c *Class, op *Operand, r reading, s *Set) lookup {
	whole := Piece{c.Remote, c.Ports}
	switch r.kind {
	case readConst:
		i, ok := slices.BinarySearchFunc(ix.sorted, r.value, func(e indexed, v Value) int {
			switch {
			case e.Hi.Less(v):
				return -1
			case v.Less(e.Lo):
				return 1
			default:
				return 0
			}
		})
		if !ok {
			return lookup{none: []Piece{whole}}
		}
		e := ix.sorted[i].element
		return lookup{found: []found{{whole, e, s.datum(e)}}}
	case readUnknown:
		m := ix.mightFind(op, s)
		switch {
		case len(m.data) == 0:
			return lookup{none: []Piece{whole}}
		case !m.miss && len(m.data) == 1 && s.Stateful == nil:
			return lookup{found: []found{{whole, 0, m.data[0]}}}
		}
		return lookup{maybe: []Piece{whole}, why: r.why, might: m}
	case readFIB:
		return ix.lookUpFIB(c, op, r, s)
	}
	var l lookup
	rest := whole
	for _, e := range ix.sorted {
		var yes Ranges
		var ok bool
		if r.kind == readRemote {
			yes, ok = preimage(op, Ranges{e.Range}, rest.Remote.Shift(r.value))
			yes = yes.Shift(Value{}.Sub(r.value))
		} else {
			yes, ok = preimage(op, Ranges{e.Range}, rest.Ports)
		}
		if !ok {
			return lookup{maybe: []Piece{whole}, why: "an address mask that makes too many ranges"}
		}
		p := rest
		if r.kind == readRemote {
			p.Remote = c.Remote.Intersect(yes)
		} else {
			p.Ports = c.Ports.Intersect(yes)
		}
		if !p.Remote.Empty() && !p.Ports.Empty() {
			l.found = append(l.found, found{p, e.element, s.datum(e.element)})
		}
	}
	if r.kind == readRemote {
		var all []Range
		for _, f := range l.found {
			all = append(all, f.Remote...)
		}
		rest.Remote = rest.Remote.Minus(NewRanges(all))
	} else {
		var all []Range
		for _, f := range l.found {
			all = append(all, f.Ports...)
		}
		rest.Ports = rest.Ports.Minus(NewRanges(all))
	}
	if !rest.Remote.Empty() && !rest.Ports.Empty() {
		l.none = []Piece{rest}
	}
	return l
}

func (ix *setIndex) lookUpFIB(c *Class, op *Operand, r reading, s *Set) lookup {
	var l lookup
	for _, part := range r.parts {
		sub := c.with(Piece{part.addrs.Intersect(c.Remote), c.Ports})
		if sub.Remote.Empty() {
			continue
		}
		pr := isValue(part.value)
		if part.unknown != "" {
			pr = isUnknown(part.unknown)
		} else {
			pr.value = op.apply(pr.value)
		}
		one := ix.lookUpOne(&sub, op, pr, s)
		l.found = append(l.found, one.found...)
		l.none = append(l.none, one.none...)
		l.maybe = append(l.maybe, one.maybe...)
		if one.why != "" {
			l.why = one.why
		}
	}
	return l
}

// lookUpConcat finds in a set of concatenations: an element is found where
// every part of the key lies in its interval.
func (ix *setIndex) lookUpConcat(c *Class, keys []Operand, rs []reading, s *Set, wantData bool) lookup {
	var l lookup
	var yes []Piece
	var perhaps []Piece
	maybe := &might{miss: true}
	why := ""
	for e, parts := range ix.parts {
		p := Piece{c.Remote, c.Ports}
		sure := true
		for j, in := range parts {
			switch r := rs[j]; r.kind {
			case readConst:
				if r.value.Less(in.Lo) || in.Hi.Less(r.value) {
					p.Remote = nil
				}
			case readRemote:
				v, ok := preimage(&keys[j], Ranges{in}, p.Remote.Shift(r.value))
				if !ok {
					sure, why = false, "an address mask that makes too many ranges"
					break
				}
				p.Remote = p.Remote.Intersect(v.Shift(Value{}.Sub(r.value)))
			case readPort:
				v, ok := preimage(&keys[j], Ranges{in}, p.Ports)
				if !ok {
					sure, why = false, "the client's source port"
					break
				}
				p.Ports = p.Ports.Intersect(v)
			case readFIB:
				var in2 Ranges
				for _, part := range r.parts {
					switch v := keys[j].apply(part.value); {
					case part.unknown != "":
						if !part.addrs.Intersect(p.Remote).Empty() {
							sure, why = false, part.unknown
							in2 = in2.Union(part.addrs)
						}
					case !v.Less(in.Lo) && !in.Hi.Less(v):
						in2 = in2.Union(part.addrs)
					}
				}
				p.Remote = p.Remote.Intersect(in2)
			default:
				if in.Lo.IsZero() && !in.Hi.Less(MaxValue(keys[j].Len)) {
					continue // any value matches
				}
				if d := keys[j].domain(); d != nil && d.Intersect(Ranges{in}).Empty() {
					p.Remote = nil
				}
				sure, why = false, r.why
			}
			if p.Remote.Empty() || p.Ports.Empty() {
				break
			}
		}
		if p.Remote.Empty() || p.Ports.Empty() {
			continue
		}
		if !sure {
			perhaps = append(perhaps, p)
			maybe.add(s.datum(e))
			continue
		}
		yes = append(yes, p)
		l.found = append(l.found, found{p, e, s.datum(e)})
	}
	yes = joinPieces(yes)
	rest := minusPieces(c, yes)
	if !wantData {
		if len(yes) > 1 {
			// Made disjoint: what is left of the class after what is left of it.
			yes = minusPieces(c, rest)
		}
		l.found = nil
		for _, p := range yes {
			l.found = append(l.found, found{p, 0, s.datum(0)})
		}
	}
	if len(perhaps) == 0 {
		l.none = rest
		return l
	}
	for _, r := range rest {
		sub := c.with(r)
		none := minusPieces(&sub, perhaps)
		l.none = append(l.none, none...)
		l.maybe = append(l.maybe, minusPieces(&sub, none)...)
	}
	l.why, l.might = why, maybe
	return l
}

// touches reports whether the packet itself has changed the set on its way.
func (s *State) touches(set *Set) bool {
	for t := s.touched; t != nil; t = t.next {
		if t.set == set || set != nil && t.set == nil && t.name == set.Name {
			return true
		}
	}
	return false
}
