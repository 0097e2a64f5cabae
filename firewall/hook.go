package firewall

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// slotKind is what stands at a place of a hook.
type slotKind uint8

const (
	slotChain slotKind = iota
	slotConntrack
	slotDstNAT
	slotSrcNAT
	slotConfirm
)

// slot is one function that a hook calls.
type slot struct {
	kind     slotKind
	priority int
	chain    *Chain
	maybe    bool // whether it is called cannot be told
}

func (s slot) String() string {
	switch s.kind {
	case slotConntrack:
		return "connection tracking"
	case slotDstNAT, slotSrcNAT:
		return "address translation"
	case slotConfirm:
		return "the confirmation of connections"
	default:
		return string(s.chain.Table.Backend) + " " + chainName(s.chain)
	}
}

// Walk passes classes through all that a hook calls, in the order of the
// kernel (nf_hook_slow): ascending priority; drop is final, accept ends only
// its own chain. pass are the classes that come out at the end.
//
// Functions of equal priority run in the order of their registration, the later
// first, which no dump shows. Where it is not known from [Ruleset.Order], the
// orders are tried, and where they differ the answer depends on it.
func (rs *Ruleset) Walk(h Hook, in []Class, env *Env) (pass []Class, ends []End) {
	var w *walker
	for _, c := range in {
		slots, nat := rs.slots(h, &c)
		if len(slots) == 0 && len(in) == 1 {
			return in, nil // nothing is called here
		}
		if w == nil {
			w = &walker{env: env, hook: h}
		}
		cur := []Class{c}
		for len(slots) > 0 && len(cur) > 0 {
			n := 1
			for n < len(slots) && slots[n].priority == slots[0].priority {
				n++
			}
			if rs.Order[h] != nil && c.State.ARP == 0 && !slices.ContainsFunc(slots[:n], func(s slot) bool { return s.kind != slotChain }) {
				cur = w.inOrder(slots[:n], nat, cur)
			} else {
				cur = w.group(slots[:n], nat, cur)
			}
			slots = slots[n:]
		}
		if pass == nil {
			pass = cur
		} else {
			pass = append(pass, cur...)
		}
	}
	if w == nil {
		return nil, nil
	}
	return merge(pass), w.ends
}

// slots lists what the hook calls for packets of the class, and its nat chains.
func (rs *Ruleset) slots(h Hook, c *Class) (slots []slot, nat []*Chain) {
	var dev *Link
	switch h {
	case Ingress:
		dev = c.State.In
	case Egress:
		dev = c.State.Out
	}
	slots = make([]slot, 0, 4)
	translates := false // the first nat chain of a family brings the NAT core to all its hooks (nf_nat_register_fn)
	for _, t := range rs.Tables {
		if t.Dormant || !t.sees(&c.State, h) {
			continue
		}
		for _, ch := range t.Chains {
			b := ch.Base
			translates = translates || b != nil && b.Type == ChainNAT
			if b == nil || b.Hook != h {
				continue
			}
			if (h == Ingress || h == Egress) && !b.On(dev) {
				continue
			}
			if b.Type == ChainNAT {
				nat = append(nat, ch)
				continue
			}
			slots = append(slots, slot{kind: slotChain, priority: b.Priority, chain: ch})
		}
	}
	tracked := Yes
	if translates {
		tracked = rs.tracks(c.State.Family)
		translates = tracked != No
	}
	switch {
	case c.State.ARP != 0:
	case h == Prerouting || h == Output:
		slots = append(slots, slot{kind: slotConntrack, priority: PriorityConntrack})
		if translates {
			slots = append(slots, slot{kind: slotDstNAT, priority: PriorityDstNAT, maybe: tracked == CannotTell})
		}
	case h == Input || h == Postrouting:
		if translates {
			slots = append(slots, slot{kind: slotSrcNAT, priority: PrioritySrcNAT, maybe: tracked == CannotTell})
		}
		slots = append(slots, confirming(slots, h, c.State.Family)...)
	}
	slices.SortStableFunc(slots, func(a, b slot) int { return cmp.Compare(a.priority, b.priority) })
	settle(slots, func(s slot) *Chain { return s.chain })
	slices.SortStableFunc(nat, func(a, b *Chain) int { return cmp.Compare(a.Base.Priority, b.Base.Priority) })
	settle(nat, func(ch *Chain) *Chain { return ch })
	if order := rs.Order[h]; order != nil && c.State.ARP == 0 {
		byOrder := func(a, b *Chain) int { return cmp.Compare(slices.Index(order, a), slices.Index(order, b)) }
		slices.SortStableFunc(slots, func(a, b slot) int {
			if a.priority != b.priority || a.chain == nil || b.chain == nil {
				return 0
			}
			return byOrder(a.chain, b.chain)
		})
		slices.SortStableFunc(nat, func(a, b *Chain) int {
			if a.Base.Priority != b.Base.Priority {
				return 0
			}
			return byOrder(a, b)
		})
	}
	return slots, nat
}

// On reports whether a chain of a device hook is bound to the link.
func (b *Base) On(l *Link) bool {
	if l == nil {
		return false
	}
	for _, d := range b.Devices {
		if d == l.Name || strings.HasSuffix(d, "*") && strings.HasPrefix(l.Name, d[:len(d)-1]) {
			return true
		}
	}
	return false
}

// group passes classes through functions of equal priority.
func (w *walker) group(slots []slot, nat []*Chain, in []Class) []Class {
	if len(slots) == 1 || w.commute(slots) {
		return w.inOrder(slots, nat, in)
	}
	if i := slices.IndexFunc(slots, slot.idle); i >= 0 { // its place does not matter
		others := slices.Delete(slices.Clone(slots), i, i+1)
		return w.group(others, nat, w.inOrder(slots[i:i+1], nat, in))
	}
	orders := orders(slots)
	var results []*walker
	var passes [][]Class
	for _, order := range orders {
		sub := &walker{env: w.env, hook: w.hook}
		arranged := make([]slot, len(slots))
		for i, j := range order {
			arranged[i] = slots[j]
		}
		pass := sub.inOrder(arranged, nat, slices.Clone(in))
		same := false
		for i, r := range results {
			if sameOutcome(pass, passes[i]) && sameEnds(sub.ends, r.ends) {
				same = true
				break
			}
		}
		if !same {
			results = append(results, sub)
			passes = append(passes, pass)
		}
	}
	if len(results) == 1 {
		w.ends = append(w.ends, results[0].ends...)
		return passes[0]
	}
	names := make([]string, len(slots))
	for i, s := range slots {
		names[i] = s.String()
	}
	cond := Condition{
		Object: strings.Join(names, ", "),
		Why: fmt.Sprintf("the order in which the kernel calls these at %s, all of priority %d (the one registered last comes first)",
			w.hook, slots[0].priority),
	}
	var pass []Class
	for i, r := range results {
		for j := range r.ends {
			w.fork(&r.ends[j].Class, cond)
		}
		w.ends = append(w.ends, r.ends...)
		for _, c := range passes[i] {
			w.fork(&c, cond)
			pass = append(pass, c)
		}
	}
	return merge(pass)
}

func (w *walker) inOrder(slots []slot, nat []*Chain, cur []Class) []Class {
	for _, s := range slots {
		if len(cur) == 0 {
			return nil
		}
		if w.env.Record == RecordNothing && s.idle() {
			continue
		}
		switch s.kind {
		case slotConntrack:
			for i := range cur {
				cur[i].State.track()
			}
		case slotDstNAT, slotSrcNAT:
			var next []Class
			for _, c := range cur {
				if s.maybe {
					next = append(next, w.natPerhaps(nat, c, s.kind == slotSrcNAT)...)
				} else {
					next = append(next, w.natOrders(nat, c, s.kind == slotSrcNAT)...)
				}
			}
			cur = next
		case slotConfirm:
			for i := range cur {
				cur[i].State.Confirm()
			}
		default:
			cur = w.base(s.chain, cur)
		}
	}
	return cur
}

// natOrders runs the NAT core, trying the orders of nat chains of equal
// priority where there are several.
func (w *walker) natOrders(nat []*Chain, c Class, src bool) []Class {
	for i := 1; i < len(nat); i++ {
		if nat[i].Base.Priority == nat[i-1].Base.Priority && registered(nat[i-1], nat[i]) == 0 {
			reversed := slices.Clone(nat)
			slices.Reverse(reversed)
			slices.SortStableFunc(reversed, func(a, b *Chain) int { return cmp.Compare(a.Base.Priority, b.Base.Priority) })
			settle(reversed, func(ch *Chain) *Chain { return ch })
			one, two := &walker{env: w.env, hook: w.hook}, &walker{env: w.env, hook: w.hook}
			p, q := one.translateAt(nat, c, src), two.translateAt(reversed, c, src)
			w.ends = append(w.ends, one.ends...)
			if sameOutcome(p, q) && sameEnds(one.ends, two.ends) {
				return p
			}
			cond := Condition{Object: chainName(nat[i-1]) + ", " + chainName(nat[i]),
				Why: fmt.Sprintf("the order of two nat chains of priority %d (the one registered last comes first)", nat[i].Base.Priority)}
			w.ends = append(w.ends, two.ends...)
			for j := range w.ends[len(w.ends)-len(one.ends)-len(two.ends):] {
				w.fork(&w.ends[len(w.ends)-len(one.ends)-len(two.ends)+j].Class, cond)
			}
			out := append(p, q...)
			for j := range out {
				w.fork(&out[j], cond)
			}
			return merge(out)
		}
	}
	return w.translateAt(nat, c, src)
}

// natPerhaps runs the NAT core where it cannot be told whether conntrack sees the
// packet, without which nat chains are not asked.
func (w *walker) natPerhaps(nat []*Chain, c Class, src bool) []Class {
	n := len(w.ends)
	out := w.natOrders(nat, c, src)
	if len(w.ends) == n {
		return out // no chain drops anything
	}
	cond := Condition{Object: "connection tracking", Why: "whether any rule makes the kernel track connections: nat chains drop nothing that it does not track"}
	for i := range w.ends[n:] {
		w.fork(&w.ends[n+i].Class, cond)
	}
	w.fork(&c, cond)
	return merge(append(out, c))
}

// confirming is nf_confirm, which stands at the very end of its hooks
// (ipv4_conntrack_ops, ipv6_conntrack_ops), where chains have such a priority that
// it need not be the last; otherwise nothing.
func confirming(slots []slot, h Hook, f Family) []slot {
	at := math.MaxInt32 // NF_IP_PRI_CONNTRACK_CONFIRM, NF_IP6_PRI_LAST
	if f == IPv6 && h == Input {
		at--
	}
	for _, s := range slots {
		if s.priority >= at {
			return []slot{{kind: slotConfirm, priority: at}}
		}
	}
	return nil
}

// track is nf_conntrack_in: what conntrack makes of the packet.
func (s *State) track() {
	if s.CTState != 0 {
		return // untracked, attached by REJECT, or seen before (over lo)
	}
	s.Template = false
	if s.FlowZoneDir == ZoneSame {
		s.FlowZone, s.FlowZoneDir = s.CTZone, s.ZoneDir
	}
	if (s.Expect&(CTEstablished|CTRelated) != 0 || s.Expect == CTInvalid && s.Following) && zoneFor(s.CTZone, s.ZoneDir, s.Reply) != zoneFor(s.FlowZone, s.FlowZoneDir, s.Reply) {
		taken := s.otherWayTaken()
		s.stranger()
		s.Clash, s.NextClash = taken && s.Expect == CTNew, taken && s.Expect == CTInvalid
	}
	s.CTState = s.Expect
	if s.CTState == 0 {
		s.CTState = CTNew
	}
	if s.CTState != CTNew {
		s.CTZone, s.ZoneDir = s.FlowZone, s.FlowZoneDir
	} else {
		s.FlowZone, s.FlowZoneDir = s.CTZone, s.ZoneDir
		s.CTStatus = 0
		s.CTMark = Known{}
		if !s.Reply {
			s.OrigLocal, s.OrigLocalPort = s.Local, s.LocalPort
		}
	}
}

// commute reports whether the order of the functions cannot matter for what
// becomes of a packet: chains that only accept or drop.
func (w *walker) commute(slots []slot) bool {
	for _, s := range slots {
		if s.kind != slotChain || !s.chain.commutes() {
			return false
		}
	}
	return true
}

func (ch *Chain) commutes() bool {
	cc := &ch.compiled
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.commutes == 0 {
		cc.commutes = 2
		if ch.filtersOnly(map[*Chain]bool{}) {
			cc.commutes = 1
		}
	}
	return cc.commutes == 1
}

// filtersOnly reports whether the chain, and all it calls, holds nothing but
// matches, accept, drop, jumps and returns.
func (ch *Chain) filtersOnly(seen map[*Chain]bool) bool {
	if seen[ch] {
		return true
	}
	seen[ch] = true
	if ch.Unread != "" {
		return false
	}
	for _, r := range ch.Rules {
		for _, s := range r.Stmts {
			switch s := s.(type) {
			case Matcher, *Inert:
			case *Opaque:
				if s.MayEnd {
					return false
				}
			case *Verdict:
				if s.Kind == Queue || s.Chain != nil && !s.Chain.filtersOnly(seen) {
					return false
				}
			case *VerdictMap:
				for _, d := range s.Map.Data {
					if d.Verdict != nil && (d.Verdict.Kind == Queue || d.Verdict.Chain != nil && !d.Verdict.Chain.filtersOnly(seen)) {
						return false
					}
				}
			default:
				return false
			}
		}
	}
	return true
}

// sameOutcome reports whether two lists hold the same packets in the same states.
func sameOutcome(a, b []Class) bool {
	if len(a) != len(b) {
		return false
	}
	for _, c := range a {
		if !slices.ContainsFunc(b, func(d Class) bool {
			return c.State == d.State && c.Remote.Equal(d.Remote) && c.Ports.Equal(d.Ports)
		}) {
			return false
		}
	}
	return true
}

// sameEnds reports whether two lists end the same packets the same way.
func sameEnds(a, b []End) bool {
	if len(a) != len(b) {
		return false
	}
	for _, e := range a {
		if !slices.ContainsFunc(b, func(f End) bool {
			return e.Fate == f.Fate && e.Reject == f.Reject && e.Rule == f.Rule && e.Painting == f.Painting && e.Class.Remote.Equal(f.Class.Remote) && e.Class.Ports.Equal(f.Class.Ports)
		}) {
			return false
		}
	}
	return true
}
