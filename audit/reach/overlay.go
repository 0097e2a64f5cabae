package reach

import (
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/firewall"
)

// verdict is what the finals that cover a source add up to.
type verdict struct {
	sees       Sees
	after      Sees // see Answer.AfterConnect
	by         witness
	deciders   []witness // all that may decide, by among them; nil where by surely does
	conditions []Condition
	deliver    *Delivered
	oneOf      []Delivered // in place of deliver
	aim        netip.AddrPort
	trace      *trail
}

// part is a set of sources with one verdict.
type part struct {
	remote firewall.Ranges
	verdict
	// to are the answers for each destination, where there are several.
	to []dialled
}

// overlay adds up the finals: for every source address all finals that cover
// it. Where they end the same, that is the answer; otherwise it depends. The
// parts are disjoint and together cover universe; sources that no final covers
// (a defect) come out as "depends" rather than missing.
//
// With coarse set, what the rules of one painting decided stays together: one
// part for all of them, whose witness is the painting.
func (w *walk) overlay(universe firewall.Ranges, coarse bool) []part {
	s := w.e.takeScratch()
	defer w.e.scratch.Put(s)
	events := slices.Grow(s.events[:0], w.events(coarse)+2*len(universe))
	add := func(rs firewall.Ranges, index int) {
		for _, r := range rs {
			events = append(events, event{r.Lo, index, true})
			if r.Hi != firewall.MaxValue(16) {
				events = append(events, event{r.Hi.Next(), index, false})
			}
		}
	}
	for i := range w.finals {
		add(w.finals[i].Remote.Intersect(universe), i)
	}
	nf := len(w.finals)
	for i := range w.accepts {
		add(w.accepts[i].Remote.Intersect(universe), nf+i)
	}
	// What a painting decided is cut where its rules change.
	painted := map[int]*firewall.Painting{}
	cut := func(rs firewall.Ranges, p *firewall.Painting, index int) {
		if p == nil || coarse {
			return
		}
		painted[index] = p
		p.Cuts(rs.Intersect(universe), func(r firewall.Range) {
			events = append(events, event{r.Lo, cutHere, true})
			if r.Hi != firewall.MaxValue(16) {
				events = append(events, event{r.Hi.Next(), cutHere, true})
			}
		})
	}
	for i := range w.finals {
		cut(w.finals[i].Remote, w.finals[i].by.painting, i)
	}
	for i := range w.accepts {
		cut(w.accepts[i].Remote, w.accepts[i].painting, nf+i)
	}
	for _, r := range universe {
		events = append(events, event{r.Lo, -1, true})
		if r.Hi != firewall.MaxValue(16) {
			events = append(events, event{r.Hi.Next(), -1, false})
		}
	}
	slices.SortFunc(events, func(a, b event) int { return a.at.Cmp(b.at) })

	// How often each final or accept covers the point where we are, and which do.
	covers := slices.Grow(s.covers[:0], nf+len(w.accepts))[:nf+len(w.accepts)]
	clear(covers)
	inside := 0
	parts, cells, ids, key := s.parts[:0], s.cells[:0], s.ids[:0], s.key[:0]
	for i := 0; i < len(events); {
		at := events[i].at
		for ; i < len(events) && events[i].at == at; i++ {
			id, by := events[i].index, int32(-1)
			if events[i].start {
				by = 1
			}
			switch id {
			case cutHere:
				continue
			case -1:
				inside += int(by)
				continue
			}
			covers[id] += by
			switch at, found := slices.BinarySearch(ids, id); {
			case covers[id] > 0 && !found:
				ids = slices.Insert(ids, at, id)
			case covers[id] <= 0 && found:
				ids = slices.Delete(ids, at, at+1)
			}
		}
		if inside == 0 {
			continue
		}
		hi := universe[len(universe)-1].Hi
		if i < len(events) {
			hi = events[i].at.Prev()
		}
		key = key[:0]
		for _, id := range ids {
			key = append(key, byte(id), byte(id>>8), byte(id>>16), byte(id>>24))
			if p := painted[id]; p != nil {
				n := 0
				if r := p.Rule(at); r != nil {
					n = r.Number
				}
				key = append(key, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
			}
		}
		n, ok := s.bySignature[string(key)]
		if !ok {
			n = len(parts)
			s.bySignature[string(key)] = n
			parts = append(parts, part{verdict: w.sum(ids, nf, at, coarse)})
		}
		cells = append(cells, cell{n, firewall.Range{Lo: at, Hi: hi}})
	}
	out := slices.Clone(parts)
	for i, ranges := range byPart(cells, len(parts)) {
		out[i].remote = firewall.NewRanges(ranges)
	}
	s.events, s.covers, s.parts, s.cells, s.ids, s.key = events, covers, parts, cells, ids, key
	return out
}

// event is where a final, an accept or the universe begins or ends.
type event struct {
	at    firewall.Value
	index int
	start bool
}

// cell is a range between two events, and the part that it belongs to.
type cell struct {
	part int
	firewall.Range
}

// byPart sorts cells into lists of their own, in order.
func byPart(cells []cell, parts int) [][]firewall.Range {
	ends := make([]int, parts)
	for _, c := range cells {
		ends[c.part]++
	}
	all := make([]firewall.Range, len(cells))
	out := make([][]firewall.Range, parts)
	at := 0
	for i, n := range ends {
		out[i] = all[at : at : at+n]
		at += n
	}
	for _, c := range cells {
		out[c.part] = append(out[c.part], c.Range)
	}
	return out
}

// overlayScratch is what an overlay needs while it is made, kept for the next one:
// a host has hundreds of them.
type overlayScratch struct {
	events      []event
	covers      []int32
	parts       []part
	cells       []cell
	ids         []int
	key         []byte
	bySignature map[string]int
}

func (e *Evaluator) takeScratch() *overlayScratch {
	s, _ := e.scratch.Get().(*overlayScratch)
	if s == nil {
		s = &overlayScratch{bySignature: map[string]int{}}
	}
	clear(s.bySignature)
	clear(s.parts) // nothing of the last one is kept alive
	return s
}

// events bounds the events of an overlay without those of the universe. A
// painting's cuts are known only when they are made.
func (w *walk) events(coarse bool) int {
	n := 0
	for i := range w.finals {
		n += 2 * len(w.finals[i].Remote)
	}
	for i := range w.accepts {
		n += 2 * len(w.accepts[i].Remote)
	}
	if !coarse {
		n += n / 2
	}
	return n
}

// cutHere is the index of an event at which only the rule of a painting
// changes.
const cutHere = -2

// sum adds up the finals with the given indexes (and, from nf on, the rules
// that accepted) for a source.
func (w *walk) sum(ids []int, nf int, source firewall.Value, coarse bool) verdict {
	var fs []*final
	var as []*accept
	for _, id := range ids {
		if id < nf {
			f := &w.finals[id]
			if f.by.painting != nil && !coarse {
				one := *f
				one.by = f.by.of(source)
				f = &one
			}
			fs = append(fs, f)
		} else {
			a := &w.accepts[id-nf]
			if a.painting != nil && !coarse {
				one := *a
				one.rule = a.painting.Rule(source)
				a = &one
			}
			as = append(as, a)
		}
	}
	if len(fs) == 0 {
		return verdict{sees: Depends, by: witness{kind: ByOpen, ns: w.e.home(), text: "no answer was found"},
			conditions: []Condition{{Object: "hostaudit", TurnsOn: "a defect in the evaluation: no branch covers this source"}}}
	}
	first := fs[0]
	aim := first.aim
	same := first.sees != Depends
	for _, f := range fs[1:] {
		if f.sees != first.sees || f.after != first.after {
			same = false
		}
		if !aim.IsValid() {
			aim = f.aim
		}
	}
	if same {
		v := verdict{sees: first.sees, after: first.after, by: first.by, aim: aim, trace: first.trace}
		v.deliver, v.oneOf = delivery(fs)
		d := decidersOf(fs, as)
		v.by, v.deciders = d.by, d.all
		return v
	}
	v := verdict{sees: Depends, by: first.by, aim: aim, trace: first.trace}
	v.deliver, v.oneOf = delivery(fs)
	if !slices.ContainsFunc(fs, func(f *final) bool { return f.sees != Connected }) {
		v.sees, v.after = Connected, Depends
		for _, f := range fs {
			if f.after != "" {
				v.by, v.deliver, v.oneOf, v.trace = f.by, nil, nil, f.trace
			}
		}
	}
	seen := map[Condition]bool{}
	put := func(c Condition) {
		if !seen[c] {
			seen[c] = true
			v.conditions = append(v.conditions, c)
		}
	}
	for _, f := range fs {
		for _, c := range f.forks.Conditions() {
			put(w.condition(c))
		}
		if f.after != "" {
			late := *f
			late.why = afterWhy
			put(late.condition())
		}
		if f.sees == Depends {
			v.by = f.by
			if f.late || !f.forks.Asks(f.why) {
				put(f.condition())
			}
		}
	}
	// The client's port may tell the finals apart, with a fork or without.
	for _, f := range fs {
		if f.otherPortsFare(fs) {
			c := Condition{Object: "the client's source port", TurnsOn: string(f.sees) + " from port " + portsText(f.Ports), Namespace: f.by.ns.Name}
			if f.by.rule != nil {
				c = conditionOf(f.by.ns.Name, firewall.Condition{Rule: f.by.rule, Why: "the client's source port: " + portsText(f.Ports)})
			}
			put(c)
		}
	}
	v.deciders = decidersOf(fs, as).all
	return v
}

// delivery is the socket that the finals which reach one share, or else all of
// them.
func delivery(fs []*final) (*Delivered, []Delivered) {
	var all []Delivered
	for _, f := range fs {
		if f.deliver != nil && !slices.Contains(all, *f.deliver) {
			all = append(all, *f.deliver)
		}
	}
	switch len(all) {
	case 0:
		return nil, nil
	case 1:
		return &all[0], nil
	}
	return nil, all
}

func (w *walk) condition(c firewall.Condition) Condition {
	name := ""
	if c.Rule != nil {
		if ns := w.e.owner[c.Rule.Chain.Table]; ns != nil {
			name = ns.Name
		}
	}
	return conditionOf(name, c)
}

func portsText(ps firewall.Ranges) string {
	s := ""
	for i, p := range ps {
		if i > 0 {
			s += ", "
		}
		s += itoa(int(p.Lo.Lo))
		if p.Hi != p.Lo {
			s += "-" + itoa(int(p.Hi.Lo))
		}
	}
	return s
}
