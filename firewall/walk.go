package firewall

// FateKind is how the way of a packet through a hook ends.
type FateKind uint8

// The fates. FateUnknown: something ended the way in a manner that a reading of
// the host cannot tell.
const (
	FateDrop FateKind = iota
	FateReject
	FateSynProxy
	FateUnknown
)

// End is a part of a class whose way ends inside a hook.
type End struct {
	Class  Class
	Fate   FateKind
	Reject *Reject // of FateReject
	// The witness: Rule; or the rules of Painting, each for its sources; or the
	// policy of Chain.
	Rule     *Rule
	Chain    *Chain
	Painting *Painting
	// Why says what FateUnknown turns on.
	Why  string
	Hook Hook
}

// maxDepth bounds nested jumps; the kernel refuses deeper rulesets
// (NFT_JUMP_STACK_SIZE 16; x_tables walks its own stack), a snapshot may hold
// anything.
const maxDepth = 512

// walker walks classes through the chains of one hook.
type walker struct {
	env  *Env
	hook Hook
	ends []End
	// nat is set while the chains of type nat are walked: a translation ends
	// the walk, and what it translated is collected in mapped.
	nat    bool
	mapped []Class
	// at is the base chain being walked.
	at *Chain
}

func (w *walker) note(c *Class, ch *Chain, r *Rule, o Outcome, v VerdictKind, why string) {
	if w.env.Record == RecordRules || w.env.Record == RecordVerdicts && (v == Accept || v == Drop || v == Stolen || o == CannotTell) {
		c.Trace = &Step{Hook: w.hook, Chain: ch, Rule: r, Outcome: o, Verdict: v, Why: why, Prev: c.Trace}
	}
}

func (w *walker) end(c Class, f FateKind, ch *Chain, r *Rule, rej *Reject, why string) {
	v := Drop
	if f == FateUnknown {
		v = Stolen
	}
	w.note(&c, ch, r, Yes, v, why)
	w.ends = append(w.ends, End{Class: c, Fate: f, Reject: rej, Rule: r, Chain: ch, Why: why, Hook: w.hook})
}

// base walks classes through a base chain and returns those that its rules or
// its policy accept.
func (w *walker) base(ch *Chain, in []Class) []Class {
	w.at = ch
	if ch.Base.Type == ChainRoute && len(in) > 1 {
		// What comes out is held against what went in, so each goes alone.
		var pass []Class
		for _, c := range in {
			pass = append(pass, w.base(ch, []Class{c})...)
		}
		return merge(pass)
	}
	accepted, rest := w.chain(ch, in, 0)
	if ch.Base.Type == ChainRoute {
		w.reroute(accepted, &in[0].State)
		w.reroute(rest, &in[0].State)
	}
	for _, c := range rest {
		if ch.Base.Policy == Drop {
			w.end(c, FateDrop, ch, nil, nil, "")
			continue
		}
		w.note(&c, ch, nil, Yes, Accept, "policy")
		if w.env.Accepted != nil && c.Forks != nil {
			w.env.Accepted(w.hook, ch, nil, nil, Piece{c.Remote, c.Ports}, false)
		}
		accepted = append(accepted, c)
	}
	return merge(accepted)
}

// chain walks classes through the rules of a chain. accepted are those with the
// verdict accept, which ends the base chain; returned those that come back to
// the caller.
func (w *walker) chain(ch *Chain, in []Class, depth int) (accepted, returned []Class) {
	if ch.Unread != "" || depth > maxDepth {
		why := ch.Unread
		if why == "" {
			why = "chains that jump deeper than any kernel allows"
		}
		for _, c := range in {
			w.fork(&c, Condition{Object: chainName(ch), Why: why})
			w.end(c, FateUnknown, ch, nil, nil, why)
		}
		return nil, nil
	}
	cur := in
	if len(cur) == 0 {
		return nil, nil
	}
	order := ch.relevant(cur, w.env)
	for len(cur) > 0 {
		if len(cur) == 1 && len(order.a) >= paintFrom && cur[0].State.touched == nil {
			rest, acc, ret, ok := w.byPainting(ch, cur[0], &order, depth)
			if ok {
				accepted, returned, cur = append(accepted, acc...), append(returned, ret...), rest
				continue
			}
		}
		i := order.step()
		if i < 0 {
			break
		}
		r := ch.Rules[i]
		if len(cur) == 1 && w.env.Record != RecordRules && r.surelyNot(&cur[0], w.env) {
			continue
		}
		x := ruleWalk{walker: w, rule: r, depth: depth}
		for i := range cur {
			x.class(cur[i])
		}
		accepted = append(accepted, x.accepted...)
		returned = append(returned, x.returned...)
		cur = merge(x.next)
		for j := range cur {
			if order.all == 0 && cur[j].State.RewroteHeader != "" {
				// The index holds for the port that the packet came with.
				order = ruleOrder{all: len(ch.Rules), next: i + 1}
			}
		}
	}
	return accepted, merge(append(returned, cur...))
}

// reroute marks the classes whose packet mark is not the one they went in with, or
// whose DSCP field was set.
func (w *walker) reroute(out []Class, in *State) {
	for i := range out {
		st := &out[i].State
		st.Reroute = st.Reroute || st.Mark != in.Mark || st.DSCPSet != in.DSCPSet
		st.DSCPSet = st.DSCPSet && w.env.DSCP
	}
}

func chainName(ch *Chain) string {
	return string(ch.Table.Family) + " " + ch.Table.Name + " " + ch.Name
}

// surelyNot reports, cheaply, that no packet of the class can match the rule.
func (r *Rule) surelyNot(c *Class, env *Env) bool {
	for _, s := range r.Stmts {
		m, ok := s.(*Match)
		if !ok {
			return false
		}
		switch m.Operand.Field.Kind {
		case FieldDstPort, FieldSrcPort, FieldL4Proto, FieldInName, FieldOutName, FieldInIndex, FieldOutIndex, FieldNFProto, FieldCTState,
			FieldDstAddr, FieldSrcAddr:
		default:
			return false
		}
		switch rd := c.read(m.Operand.Field, env); rd.kind {
		case readConst:
			if m.In.Contains(m.Operand.apply(rd.value)) == m.Invert {
				return true
			}
		case readRemote:
			if rd.value.IsZero() && m.Operand.isPlain() && !m.Invert && c.Remote.Intersect(m.In).Empty() {
				return true
			}
		case readPort:
			if m.Operand.isPlain() && !m.Invert && c.Ports.Intersect(m.In).Empty() {
				return true
			}
		case readAbsent:
			return !m.WantAbsent
		default:
			return false
		}
	}
	return false
}

// ruleWalk is the way of classes through one rule.
type ruleWalk struct {
	*walker
	rule  *Rule
	depth int

	next, accepted, returned []Class
}

// alive is a class on its way through a rule; with maybe set, a match that
// cannot be told lies behind it and the fork is still to be made.
type alive struct {
	Class
	maybe bool
	why   string
}

func (x *ruleWalk) class(c Class) {
	stmts := x.rule.Stmts
	cur := []alive{{Class: c}}
	for i := 0; i < len(stmts) && len(cur) > 0; {
		// Consecutive matches are asked together: one sure no is a no, whatever
		// cannot be told about the others.
		if _, ok := stmts[i].(Matcher); ok || isOpaqueMatch(stmts[i]) {
			var next []alive
			for _, a := range cur {
				next = x.match(a, stmts[i], next)
			}
			cur = next
			i++
			continue
		}
		if _, ok := stmts[i].(*Inert); ok {
			i++
			continue
		}
		if !hasEffect(stmts[i:]) {
			break
		}
		cur = x.decide(cur)
		cur = x.effect(cur, stmts[i])
		i++
	}
	for _, a := range cur {
		// Nothing more happens in this rule, so what could not be told about it
		// does not matter.
		x.skip(a.Class, Yes, "")
	}
}

func isOpaqueMatch(s Stmt) bool {
	o, ok := s.(*Opaque)
	return ok && !o.MayEnd
}

// hasEffect reports whether any of the statements could change the packet or
// end its way.
func hasEffect(stmts []Stmt) bool {
	for _, s := range stmts {
		switch s := s.(type) {
		case Matcher, *Inert:
		case *Opaque:
			if s.MayEnd {
				return true
			}
		case *Verdict:
			if s.Kind != Continue {
				return true
			}
		default:
			return true
		}
	}
	return false
}

// match passes a class through one match.
func (x *ruleWalk) match(a alive, s Stmt, next []alive) []alive {
	var p Parts
	if m, ok := s.(Matcher); ok {
		p = m.Split(&a.Class, x.env)
	} else {
		p = allMaybe(&a.Class, s.(*Opaque).Reason)
	}
	for _, piece := range p.Yes {
		next = append(next, alive{a.with(piece), a.maybe, a.why})
	}
	for _, piece := range p.Maybe {
		next = append(next, alive{a.with(piece), true, p.Why})
	}
	for _, piece := range p.No {
		x.skip(a.with(piece), No, x.explain(s))
	}
	return next
}

func (x *ruleWalk) explain(s Stmt) string {
	if x.env.Record != RecordRules {
		return ""
	}
	return describe(s)
}

func (x *ruleWalk) skip(c Class, o Outcome, why string) {
	x.note(&c, x.rule.Chain, x.rule, o, Continue, why)
	x.next = append(x.next, c)
}

// fork puts a condition on a class and returns the node, so that the other
// branch can share it.
func (*walker) fork(c *Class, cond Condition) *Fork {
	depth := 1
	if c.Forks != nil {
		depth = c.Forks.depth + 1
	}
	f := &Fork{Condition: cond, next: c.Forks, depth: depth}
	c.Forks = f
	return f
}

// decide forks the classes for which it cannot be told whether they got here.
func (x *ruleWalk) decide(cur []alive) []alive {
	for i := range cur {
		a := &cur[i]
		if !a.maybe {
			continue
		}
		x.fork(&a.Class, Condition{Rule: x.rule, Why: a.why})
		x.skip(a.Class, CannotTell, a.why)
		x.note(&a.Class, x.rule.Chain, x.rule, CannotTell, Continue, a.why)
		a.maybe = false
	}
	return cur
}

// effect carries out one statement that is no match.
func (x *ruleWalk) effect(cur []alive, s Stmt) []alive {
	switch s := s.(type) {
	case *Inert:
		return cur
	case *Verdict:
		if s.Kind == Continue {
			return cur
		}
		for _, a := range cur {
			x.verdict(a.Class, s)
		}
		return nil
	case *VerdictMap:
		var next []alive
		for _, a := range cur {
			next = append(next, x.verdictMap(a.Class, s)...)
		}
		return next
	case *Reject:
		for _, a := range cur {
			x.end(a.Class, FateReject, x.rule.Chain, x.rule, s, "")
		}
		return nil
	case *Opaque:
		for _, a := range cur {
			x.opaqueEnd(a.Class, s.Reason)
		}
		return nil
	case *SynProxy:
		for _, a := range cur {
			// nft_synproxy and xt_SYNPROXY: TCP only; other packets go on.
			if a.State.Proto != TCP {
				x.skip(a.Class, Yes, "")
				continue
			}
			x.end(a.Class, FateSynProxy, x.rule.Chain, x.rule, nil, "the SYN is answered by a SYNPROXY before the server")
		}
		return nil
	case *QueueTo:
		for _, a := range cur {
			x.queue(a.Class, s)
		}
		return nil
	case *NAT:
		for _, a := range cur {
			x.translate(a.Class, s)
		}
		return nil
	case *TProxy:
		var next []alive
		for _, a := range cur {
			next = append(next, x.tproxy(a.Class, s)...)
		}
		return next
	default:
		var next []alive
		for _, a := range cur {
			next = append(next, x.rewrite(a.Class, s)...)
		}
		return next
	}
}

// opaqueEnd: the statement may end the packet's way in any manner, or let it go on.
func (x *ruleWalk) opaqueEnd(c Class, why string) {
	x.fork(&c, Condition{Rule: x.rule, Why: why})
	x.skip(c, CannotTell, why)
	x.end(c, FateUnknown, x.rule.Chain, x.rule, nil, why)
}

func (x *ruleWalk) verdict(c Class, v *Verdict) {
	ch := x.rule.Chain
	switch v.Kind {
	case Accept:
		x.note(&c, ch, x.rule, Yes, Accept, "")
		if x.env.Accepted != nil {
			x.env.Accepted(x.hook, x.at, x.rule, nil, Piece{c.Remote, c.Ports}, c.Forks == nil)
		}
		x.accepted = append(x.accepted, c)
	case Drop:
		x.end(c, FateDrop, ch, x.rule, nil, "")
	case Return:
		x.note(&c, ch, x.rule, Yes, Return, "")
		x.returned = append(x.returned, c)
	case Jump, Goto:
		x.note(&c, ch, x.rule, Yes, v.Kind, "")
		if v.Chain == nil {
			x.opaqueEnd(c, "a jump to a chain that was not read")
			return
		}
		acc, ret := x.chain(v.Chain, []Class{c}, x.depth+1)
		x.accepted = append(x.accepted, acc...)
		if v.Kind == Jump {
			x.next = append(x.next, ret...)
		} else {
			// nft_do_chain: goto does not remember the way back, so the end of
			// the target is the end of this chain too.
			x.returned = append(x.returned, ret...)
		}
	case Queue:
		x.queue(c, &QueueTo{})
	default:
		x.opaqueEnd(c, "the verdict "+v.Kind.String())
	}
}

func (x *ruleWalk) verdictMap(c Class, m *VerdictMap) []alive {
	l := lookUp(&c, x.env, m.Keys, m.Map, true)
	for _, p := range append(l.none, l.breaks...) {
		x.skip(c.with(p), No, x.explain(m))
	}
	var on []alive
	take := func(c Class, d *Datum) {
		switch {
		case d == nil || d.Verdict == nil:
			x.opaqueEnd(c, "an element of map "+m.Map.Name+" without a verdict")
		case d.Verdict.Kind == Continue:
			on = append(on, alive{Class: c})
		default:
			x.verdict(c, d.Verdict)
		}
	}
	for _, p := range l.maybe {
		if l.might.ways() == 0 {
			x.opaqueEnd(c.with(p), l.why)
			continue
		}
		x.eachWay(c.with(p), l.might, l.why, take)
	}
	for _, f := range l.found {
		take(c.with(f.Piece), f.datum)
	}
	return on
}

// queue: nf_queue. Without a program on the queue the packet is dropped, or
// goes on as accepted with bypass; with one the program decides.
func (x *ruleWalk) queue(c Class, q *QueueTo) {
	listening := CannotTell
	if x.env.Queues != nil {
		listening = No
		for n := int(q.From); n <= int(max(q.From, q.To)); n++ {
			if x.env.Queues[uint16(n)] {
				listening = CannotTell
			}
		}
	}
	switch {
	case listening == CannotTell:
		x.fork(&c, Condition{Rule: x.rule, Why: "a program that decides in user space (NFQUEUE)"})
		x.end(c, FateUnknown, x.rule.Chain, x.rule, nil, "a program that decides in user space (NFQUEUE)")
	case q.Bypass:
		x.note(&c, x.rule.Chain, x.rule, Yes, Accept, "no program listens on the queue")
		x.accepted = append(x.accepted, c)
	default:
		x.end(c, FateDrop, x.rule.Chain, x.rule, nil, "no program listens on the queue")
	}
}
