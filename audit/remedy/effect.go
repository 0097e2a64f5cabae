package remedy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// exposed is who can reach a port.
type exposed struct {
	proto string
	port  uint16
	rows  []reach.Row
}

// exposures works out who can reach every listener of the audited namespace and
// every published port, by subject.
func exposures(w *reach.World) map[string]exposed {
	ev := reach.New(w).NeighboursKnown()
	home := w.Namespaces[0]
	out := map[string]exposed{}
	if home.Listeners != nil {
		for i := range home.Listeners.Listeners {
			l := &home.Listeners.Listeners[i]
			out[l.Subject()] = exposed{protoName(l.Proto), l.Port(), ev.Listener(l).Rows}
		}
	}
	for _, p := range ev.Published() {
		out[fmt.Sprintf("%s *:%d (published)", p.Proto, p.Port)] = exposed{p.Proto.String(), p.Port, p.Rows}
	}
	return out
}

func protoName(p listeners.Proto) string {
	if p == listeners.MPTCP {
		return string(listeners.TCP)
	}
	return string(p)
}

// way is what sets of sources are told apart by: the interface and the family.
type way struct{ iif, family string }

// connected are the sources that surely get through, by way.
func connected(rows []reach.Row) map[way]firewall.Ranges {
	out := map[way]firewall.Ranges{}
	for _, r := range rows {
		w := way{r.Iif, r.Family}
		if _, ok := out[w]; !ok {
			out[w] = nil
		}
		// What a client on the host itself meets may turn on its own port alone: a
		// rule about that port also sees the answers to it.
		if r.Through() || r.Iif == "lo" && r.Unsure() {
			out[w] = out[w].Union(ranges(r.From))
		}
	}
	return out
}

func ranges(ps []netip.Prefix) firewall.Ranges {
	var out []firewall.Range
	for _, p := range ps {
		out = append(out, firewall.Prefix(p)...)
	}
	return firewall.NewRanges(out)
}

// moved are the addresses that the audited namespace has in one state only. What
// becomes of them as sources is no matter of rules: an address that comes or goes
// (IPv6 autoconfiguration) changes nothing for anybody else.
func moved(before, after *reach.World) firewall.Ranges {
	return own(before, false).Minus(own(after, false)).Union(own(after, false).Minus(own(before, false)))
}

// own are the addresses of the audited namespace; those that are tentative are not
// the host's yet.
func own(w *reach.World, tentative bool) firewall.Ranges {
	var all []netip.Prefix
	if t := w.Namespaces[0].Route; t != nil {
		for _, a := range t.Addrs {
			if tentative || !a.Tentative() {
				all = append(all, netip.PrefixFrom(a.Local, a.Local.BitLen()))
			}
		}
	}
	return ranges(all)
}

// compare says what opens and what closes from one state to the other, for the
// listeners that both have, without the sources that moved. The rows are those of the
// later state.
func compare(before, after map[string]exposed, moved firewall.Ranges) Effect {
	e := Effect{Opens: []EffectRow{}, Closes: []EffectRow{}}
	for _, subject := range slices.Sorted(maps.Keys(after)) {
		a := after[subject]
		b, both := before[subject]
		if !both {
			continue
		}
		was, is := connected(b.rows), connected(a.rows)
		for _, r := range a.rows {
			w := way{r.Iif, r.Family}
			mine := ranges(r.From).Minus(moved)
			switch {
			case r.Through():
				add(&e.Opens, subject, a, r, mine.Minus(was[w]))
			case r.Iif == "lo" && r.Unsure():
				// See connected: an own port at which the answers get in now is no opening, and
				// nothing closes.
			default:
				add(&e.Closes, subject, a, r, mine.Intersect(was[w]))
			}
		}
		// A way that is gone altogether (an interface) has closed, too.
		for w, from := range was {
			if _, there := is[w]; !there && !from.Empty() {
				add(&e.Closes, subject, a, reach.Row{Iif: w.iif, Family: w.family, ClientSees: reach.Timeout, Conditions: []reach.Condition{}}, from)
			}
		}
	}
	for _, rows := range [][]EffectRow{e.Opens, e.Closes} {
		slices.SortStableFunc(rows, func(a, b EffectRow) int {
			return cmp.Or(strings.Compare(a.Listener, b.Listener), strings.Compare(a.Iif, b.Iif), strings.Compare(a.Family, b.Family))
		})
	}
	return e
}

func add(to *[]EffectRow, subject string, x exposed, r reach.Row, from firewall.Ranges) {
	if from.Empty() {
		return
	}
	f := firewall.IPv4
	if r.Family == firewall.IPv6.String() {
		f = firewall.IPv6
	}
	r.From = from.AddrPrefixes(f)
	*to = append(*to, EffectRow{Listener: subject, Proto: x.proto, Port: x.port, Row: r})
}

// effect works out what the plan changes, holds it to what was asked for, and
// keeps the operators' connections.
func (p *planner) effect() error {
	home := p.Snapshot.World.Namespaces[0]
	if len(p.plan.openings) > 0 {
		before := exposures(&p.Snapshot.World)
		p.plan.Effect = compare(before, exposures(&p.world), moved(&p.Snapshot.World, &p.world))
		if err := p.plan.holds(p.plan.Effect); err != nil {
			return refused(err)
		}
	}
	p.plan.Effect.Opens = append(p.plan.Effect.Opens, p.later...)
	if home.Route == nil || home.Ruleset == nil {
		return nil
	}
	for _, a := range home.Route.Addrs {
		p.plan.own = append(p.plan.own, netip.PrefixFrom(a.Local, a.Local.BitLen()))
	}
	for _, path := range p.Paths {
		was := reaches(&p.Snapshot.World, path)
		is := reaches(&p.world, path)
		switch {
		case is.worse(was):
			return refused(fmt.Errorf("an operator's connection (%s) would be cut off: %s", path, is))
		case is.new == reach.Connected && is.established:
			p.plan.Protected = append(p.plan.Protected, path)
		default:
			// What the model is not sure of, a person is asked.
			p.plan.Risky = p.plan.Risky || len(p.plan.openings) > 0
			p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("an operator's connection (%s) is, before and after: %s", path, is))
		}
	}
	return nil
}

// holds says whether an effect is no more than what was asked for.
func (p *Plan) holds(e Effect) error {
	if len(e.Closes) > 0 {
		r := e.Closes[0]
		return fmt.Errorf("it would close %s to %s by %s, which nobody asked for", r.Listener, r.From[0], r.Iif)
	}
	for _, r := range e.Opens {
		if !slices.ContainsFunc(p.openings, func(o opening) bool { return o.covers(r) }) {
			return fmt.Errorf("it would open %s to %s by %s, which nobody asked for", r.Listener, r.From[0], r.Iif)
		}
	}
	return nil
}

// opening is what was asked for: a port for an audience.
type opening struct {
	proto    string
	port     uint16
	audience audit.Audience
	finding  audit.Finding
	target   *audit.Port
	// left are the sources that stay out because a rule names them.
	left []netip.Prefix
}

func (o opening) covers(r EffectRow) bool {
	if r.Proto != o.proto || r.Port != o.port {
		return false
	}
	if o.audience.Kind == audit.ForEveryone {
		return true
	}
	return ranges(r.From).Minus(ranges(o.audience.Networks)).Empty()
}

// standing is how a connection stands with a ruleset.
type standing struct {
	new         reach.Sees
	why         string
	established bool
}

func (s standing) String() string {
	words := "a new one: " + string(s.new)
	if s.why != "" {
		words += " (" + s.why + ")"
	}
	if s.established {
		return words + "; the one that is open: passes"
	}
	return words + "; the one that is open: does not surely pass"
}

// worse: what surely passed does not surely pass any more.
func (s standing) worse(was standing) bool {
	return was.new == reach.Connected && s.new != reach.Connected || was.established && !s.established
}

// reaches asks the model about a connection, as a new one and as the open one.
func reaches(w *reach.World, p Path) standing {
	out := standing{new: reach.Depends}
	q := reach.Query{Proto: firewall.TCP, From: p.From, To: p.To, Port: p.Port}
	a, err := reach.New(w).NeighboursKnown().Ask(q, reach.AnswerOnly)
	if err != nil {
		out.why = err.Error()
		return out
	}
	if out.new = a.ClientSees; a.AfterConnect != "" {
		out.new = a.AfterConnect
	}
	if a.DecidedBy != nil && out.new != reach.Connected {
		out.why = strings.TrimSpace(a.DecidedBy.Chain + " " + a.DecidedBy.Text)
	}
	ns := w.Namespaces[0]
	link := ns.Route.LinkByName(a.Query.Iif)
	if link == nil {
		return out
	}
	f := firewall.FamilyOf(p.From)
	state := firewall.First(f, firewall.TCP, firewall.AddrValue(p.To), p.Port)
	state.In, state.Expect = link.Link, firewall.CTEstablished
	state.TCPFlags = 0x10 // ACK
	classes := []firewall.Class{{Remote: firewall.Single(firewall.AddrValue(p.From)), Ports: firewall.Single(firewall.Num(uint64(p.FromPort))), State: state}}
	env := &firewall.Env{FIB: reach.FIB(ns.Route), NoIPSec: ns.NoIPSec, Queues: ns.Queues}
	for _, h := range []firewall.Hook{firewall.Prerouting, firewall.Input} {
		pass, ends := ns.Ruleset.Walk(h, classes, env)
		if len(ends) > 0 || len(pass) == 0 {
			return out
		}
		classes = pass
	}
	out.established = true
	return out
}
