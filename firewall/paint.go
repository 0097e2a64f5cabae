package firewall

import (
	"cmp"
	"math"
	"slices"
	"sync"
)

// A painting is the answer of a run of rules for every source address at once:
// which rule is the first that matches. Rules for any port are painted once and
// shared by all ports; a port's own rules are only its difference
// (facts: 50,000 rules × 1,000 listeners).

// paintFrom is the number of simple rules in a row from which painting pays.
const paintFrom = 4

// paintings bounds the paintings that a chain keeps.
const paintings = 128

// Painting holds, for every source address, the first of a run of rules that
// matches it.
type Painting struct {
	chain  *Chain
	ranges []painted // sorted by address; gaps: no rule matches
	// end is the index behind the last rule that was painted.
	end int
	// last is the index of the last rule that any source comes to.
	last int32
	// accept, drop and back are the sources whose rule has that verdict; none
	// those that no rule matches.
	accept, drop, back, none Ranges
}

type painted struct {
	Range
	rule int32 // index in the chain
}

// Rule returns the first rule of the run that matches a source, nil for none.
func (p *Painting) Rule(v Value) *Rule {
	if i := p.at(v); i >= 0 {
		return p.chain.Rules[p.ranges[i].rule]
	}
	return nil
}

// Len is the number of ranges that one rule each decides about.
func (p *Painting) Len() int { return len(p.ranges) }

// First returns the first rule of the run that decides about anything.
func (p *Painting) First() *Rule {
	first := int32(-1)
	for _, r := range p.ranges {
		if first < 0 || r.rule < first {
			first = r.rule
		}
	}
	if first < 0 {
		return nil
	}
	return p.chain.Rules[first]
}

func (p *Painting) at(v Value) int {
	i, ok := slices.BinarySearchFunc(p.ranges, v, func(r painted, v Value) int {
		switch {
		case r.Hi.Less(v):
			return -1
		case v.Less(r.Lo):
			return 1
		}
		return 0
	})
	if !ok {
		return -1
	}
	return i
}

// Cuts calls f with the ranges of one rule each that overlap the set.
func (p *Painting) Cuts(set Ranges, f func(r Range)) {
	for _, s := range set {
		i, _ := slices.BinarySearchFunc(p.ranges, s.Lo, func(r painted, v Value) int {
			if r.Hi.Less(v) {
				return -1
			}
			return 1
		})
		for ; i < len(p.ranges) && !s.Hi.Less(p.ranges[i].Lo); i++ {
			r := p.ranges[i].Range
			if r.Lo.Less(s.Lo) {
				r.Lo = s.Lo
			}
			if s.Hi.Less(r.Hi) {
				r.Hi = s.Hi
			}
			f(r)
		}
	}
}

// survivors returns the sources of set that no rule before index g matches.
func (p *Painting) survivors(set Ranges, g int) Ranges {
	var gone []Range
	for _, s := range set {
		i, _ := slices.BinarySearchFunc(p.ranges, s.Lo, func(r painted, v Value) int {
			if r.Hi.Less(v) {
				return -1
			}
			return 1
		})
		for ; i < len(p.ranges) && !s.Hi.Less(p.ranges[i].Lo); i++ {
			if int(p.ranges[i].rule) < g {
				gone = append(gone, p.ranges[i].Range)
			}
		}
	}
	return set.Minus(NewRanges(gone))
}

func (r *Rule) verdictKind() VerdictKind {
	return r.Stmts[len(r.Stmts)-1].(*Verdict).Kind
}

// sources tells which sources of a class match a simple rule; ok is false when
// a match cannot tell, or tells by something else than the source.
func (r *Rule) sources(c *Class, env *Env) (set Ranges, ok bool) {
	set = c.Remote
	for _, s := range r.Stmts {
		m, is := s.(Matcher)
		if !is {
			continue
		}
		if m, is := s.(*Match); is {
			// As Split has it; those that do not match are not asked for.
			switch rd := c.read(m.Operand.Field, env); {
			case rd.kind == readConst && rd.unsure.IsZero():
				if m.In.Contains(m.Operand.apply(rd.value)) == m.Invert {
					return nil, true
				}
				continue
			case rd.kind == readRemote && rd.value.IsZero() && m.Operand.isPlain() && !m.Invert:
				if set = set.Intersect(m.In); set.Empty() {
					return nil, true
				}
				continue
			}
		}
		p := split(m, c, set, env)
		if len(p.Maybe) > 0 || len(p.Yes) > 1 {
			return nil, false
		}
		if len(p.Yes) == 0 {
			return nil, true
		}
		if !p.Yes[0].Ports.Equal(c.Ports) {
			return nil, false
		}
		set = p.Yes[0].Remote
	}
	return set, true
}

// split asks a match about some sources of a class.
func split(m Matcher, c *Class, of Ranges, env *Env) Parts {
	d := *c
	d.Remote = of
	return m.Split(&d, env)
}

// painting returns the painting of a run for packets in the class's state,
// whatever their port.
func (ch *Chain) painting(at int, c *Class, env *Env) *Painting {
	cc := &ch.compiled
	k := paintKey{at, cc.runs[at].asked.of(&c.State)}
	cc.mu.Lock()
	p := cc.painted[k]
	if p == nil {
		if cc.painted == nil || len(cc.painted) >= paintings {
			cc.painted = map[paintKey]*paintedOnce{}
		}
		p = &paintedOnce{}
		cc.painted[k] = p
	}
	cc.mu.Unlock()
	// Who asks at the same time waits for the one who paints.
	p.once.Do(func() { p.painting = ch.paint(cc.any[cc.runs[at].from:cc.runs[at].to], c, env) })
	return p.painting
}

type paintedOnce struct {
	once     sync.Once
	painting *Painting
}

type paintKey struct {
	run   int
	state State
}

func (ch *Chain) paint(rules []int32, c *Class, env *Env) *Painting {
	p := &Painting{chain: ch}
	whole := *c
	whole.Remote, whole.Ports = All(c.State.Family.AddrLen()), All(2)
	starts := make([]painted, 0, len(rules))
	for _, i := range rules {
		set, ok := ch.Rules[i].sources(&whole, env)
		if !ok {
			break
		}
		p.end = int(i) + 1
		for _, r := range set {
			starts = append(starts, painted{r, i})
		}
	}
	p.ranges = firstOf(starts)
	var sets [3][]Range
	var n [3]int
	verdicts := make([]uint8, len(p.ranges))
	for i, r := range p.ranges {
		switch ch.Rules[r.rule].verdictKind() {
		case Accept:
		case Drop:
			verdicts[i] = 1
		default:
			verdicts[i] = 2
		}
		n[verdicts[i]]++
	}
	for v := range sets {
		sets[v] = make([]Range, 0, n[v])
	}
	var none []Range
	next, end := Value{}, MaxValue(c.State.Family.AddrLen())
	rest := true // from next on nothing is painted yet
	for i, r := range p.ranges {
		sets[verdicts[i]] = append(sets[verdicts[i]], r.Range)
		if next.Less(r.Lo) {
			none = append(none, Range{next, r.Lo.Prev()})
		}
		if rest = r.Hi.Less(end); rest {
			next = r.Hi.Next()
		}
	}
	if rest {
		none = append(none, Range{next, end})
	}
	p.accept, p.drop, p.back, p.none = NewRanges(sets[0]), NewRanges(sets[1]), NewRanges(sets[2]), none
	if p.last = math.MaxInt32; p.none.Empty() {
		p.last = slices.MaxFunc(p.ranges, func(a, b painted) int { return cmp.Compare(a.rule, b.rule) }).rule
	}
	return p
}

// firstOf paints the line with the lowest rule that covers each point.
func firstOf(in []painted) []painted {
	slices.SortFunc(in, func(a, b painted) int { return cmp.Or(a.Lo.Cmp(b.Lo), cmp.Compare(a.rule, b.rule)) })
	out := make([]painted, 0, len(in))
	var open lowest // those that began at or before at, and perhaps ended
	var at Value
	for next := 0; ; {
		for len(open) > 0 && open[0].Hi.Less(at) {
			open.pop()
		}
		if len(open) == 0 {
			if next == len(in) {
				return out
			}
			at = in[next].Lo
		}
		for next < len(in) && !at.Less(in[next].Lo) {
			open.push(in[next])
			next++
		}
		hi := open[0].Hi
		if next < len(in) && !hi.Less(in[next].Lo) {
			hi = in[next].Lo.Prev()
		}
		if n := len(out); n > 0 && out[n-1].rule == open[0].rule && out[n-1].Hi.Next() == at {
			out[n-1].Hi = hi
		} else {
			out = append(out, painted{Range{at, hi}, open[0].rule})
		}
		if hi == MaxValue(16) {
			return out
		}
		at = hi.Next()
	}
}

// lowest is a heap of ranges by rule.
type lowest []painted

func (h *lowest) push(p painted) {
	*h = append(*h, p)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if s[up].rule <= s[i].rule {
			break
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
}

func (h *lowest) pop() {
	s := *h
	n := len(s) - 1
	s[0] = s[n]
	s = s[:n]
	*h = s
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			return
		}
		if down+1 < n && s[down+1].rule < s[down].rule {
			down++
		}
		if s[i].rule <= s[down].rule {
			return
		}
		s[i], s[down] = s[down], s[i]
		i = down
	}
}

// byPainting passes a class through the run that order stands at. ok is false
// where that cannot be done and the rules have to be walked one by one.
func (w *walker) byPainting(ch *Chain, c Class, order *ruleOrder, depth int) (rest []Class, accepted, returned []Class, ok bool) {
	cc := &ch.compiled
	at := cc.runAt(len(cc.any) - len(order.a))
	if at < 0 || len(order.b) > 0 && order.b[0] < order.a[0] || w.nat {
		return nil, nil, nil, false
	}
	p := ch.painting(at, &c, w.env)
	if p.end == 0 {
		return nil, nil, nil, false
	}
	// The port's own rules among them.
	n := 0
	for n < len(order.b) && int(order.b[n]) < p.end {
		n++
	}
	own := order.b[:n]
	for len(own) > 0 && own[len(own)-1] > p.last {
		own = own[:len(own)-1] // nothing comes so far
	}
	sets := make([]Ranges, len(own))
	for i, g := range own {
		r := ch.Rules[g]
		if !r.simple(true) {
			return nil, nil, nil, false
		}
		if sets[i], ok = r.sources(&c, w.env); !ok {
			return nil, nil, nil, false
		}
	}
	x := ruleWalk{walker: w, depth: depth}
	var taken Ranges
	for i, g := range own {
		live := p.survivors(sets[i], int(g)).Minus(taken)
		if live.Empty() {
			continue
		}
		taken = taken.Union(live)
		x.rule = ch.Rules[g]
		x.verdict(c.with(Piece{live, c.Ports}), x.rule.Stmts[len(x.rule.Stmts)-1].(*Verdict))
	}
	left := c
	left.Remote = c.Remote.Minus(taken)
	accepted, returned = x.accepted, x.returned
	part := func(of Ranges) (Class, bool) {
		d := left
		d.Remote = left.Remote.Intersect(of)
		return d, !d.Remote.Empty()
	}
	if d, any := part(p.accept); any {
		if w.env.Accepted != nil {
			w.env.Accepted(w.hook, w.at, nil, p, Piece{d.Remote, d.Ports}, d.Forks == nil)
		}
		w.notePainted(&d, p, Accept)
		accepted = append(accepted, d)
	}
	if d, any := part(p.drop); any {
		w.notePainted(&d, p, Drop)
		w.ends = append(w.ends, End{Class: d, Fate: FateDrop, Chain: ch, Painting: p, Hook: w.hook})
	}
	if d, any := part(p.back); any {
		returned = append(returned, d)
	}
	if left.Remote = left.Remote.Intersect(p.none); !left.Remote.Empty() {
		rest = []Class{left}
	}
	order.b = order.b[n:]
	for len(order.a) > 0 && int(order.a[0]) < p.end {
		order.a = order.a[1:]
	}
	return rest, accepted, returned, true
}

// notePainted records the verdict of the rule that matches a single source.
func (w *walker) notePainted(c *Class, p *Painting, v VerdictKind) {
	if w.env.Record == RecordNothing {
		return
	}
	if s, ok := c.Remote.Only(); ok {
		w.note(c, p.chain, p.Rule(s), Yes, v, "")
	}
}
