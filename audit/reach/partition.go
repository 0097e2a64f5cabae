package reach

import (
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/firewall"
)

// Partition answers a question about all clients: for each interface and address
// family, rows in which every source address stands exactly once.
func (e *Evaluator) Partition(q Query) []Row {
	var rows []Row
	ns := e.home()
	if ns.Route == nil {
		return []Row{{From: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, ClientSees: Depends,
			DecidedBy:  DecidedBy{Kind: ByRoute, Text: "routes not read"},
			Conditions: []Condition{{Object: "the routes and addresses of the host", TurnsOn: "they could not be read: " + ns.Unread["routes"]}}}}
	}
	for _, in := range entries(ns, q.Iif) {
		for _, f := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
			if q.To.IsValid() && firewall.FamilyOf(q.To) != f {
				continue
			}
			rows = append(rows, e.rowsOf(f, in, e.partitionOn(ns, q, f, in, 0))...)
		}
	}
	return rows
}

// partitionOn is the partition for packets of one family that come in by one
// link. With a limit, parts are kept coarse (see overlay) where they would have
// more ranges of addresses than that.
func (e *Evaluator) partitionOn(ns *Namespace, q Query, f firewall.Family, in *firewall.Link, limit int) []part {
	universe := firewall.All(f.AddrLen())
	var parts []part
	for i, to := range e.destinations(ns, q, f, in) {
		w := e.newWalk(AnswerOnly)
		w.run(ns, q, f, to, in, in.Name == "lo", universe)
		var ps []part
		switch {
		case limit == 0:
			ps = w.overlay(universe, false)
		case w.size() > limit && w.disjoint():
			ps = w.parts()
		case w.cuts() < limit:
			ps = w.overlay(universe, false) // not more ranges than places where they may begin
		default:
			if ps = w.overlay(universe, true); size(ps) <= limit {
				ps = w.overlay(universe, false)
			}
		}
		if i == 0 {
			parts = ps
			for j := range parts {
				parts[j].to = []dialled{{to, words(parts[j].sees, parts[j].after)}}
			}
			continue
		}
		parts = crossDestinations(parts, ps, to)
	}
	return parts
}

// size is the number of ranges of addresses in the finals.
func (w *walk) size() (n int) {
	for i := range w.finals {
		n += len(w.finals[i].Remote)
	}
	return n
}

// cuts bounds the ranges that a fine overlay can have: one begins at the start
// of a range, behind its end, or where the rule of a painting changes.
func (w *walk) cuts() int {
	n := 2
	add := func(rs firewall.Ranges, p *firewall.Painting) {
		n += 2 * len(rs)
		if p != nil {
			n += 2 * (len(rs) + p.Len())
		}
	}
	for i := range w.finals {
		add(w.finals[i].Remote, w.finals[i].by.painting)
	}
	for i := range w.accepts {
		add(w.accepts[i].Remote, w.accepts[i].painting)
	}
	return n
}

// disjoint reports whether no source is in two finals: nothing forked, and the
// client's port told nothing apart.
func (w *walk) disjoint() bool {
	for i := range w.finals {
		if w.finals[i].forks != nil || !w.finals[i].Ports.Equal(w.finals[0].Ports) {
			return false
		}
	}
	return true
}

// parts are the finals as they are, coarse; they must be disjoint.
func (w *walk) parts() []part {
	out := make([]part, len(w.finals))
	for i := range w.finals {
		f := &w.finals[i]
		out[i] = part{remote: f.Remote, verdict: verdict{sees: f.sees, after: f.after, by: f.by, deliver: f.deliver, aim: f.aim}}
		if f.sees == Depends {
			out[i].conditions = []Condition{f.condition()}
		}
	}
	return out
}

// size is the number of ranges of addresses in parts.
func size(parts []part) (n int) {
	for _, p := range parts {
		n += len(p.remote)
	}
	return n
}

// dialled is what a source sees that dials one of the host's addresses.
type dialled struct {
	to   netip.Addr
	sees string
}

// crossDestinations refines a partition by the answers for one more destination
// address.
func crossDestinations(have, more []part, to netip.Addr) []part {
	var out []part
	for _, h := range have {
		for _, m := range more {
			both := h.remote.Intersect(m.remote)
			if both.Empty() {
				continue
			}
			n := h
			n.remote = both
			if !n.aim.IsValid() {
				n.aim = m.aim
			}
			n.to = append(append([]dialled(nil), h.to...), dialled{to, words(m.sees, m.after)})
			n.orBy(&m.verdict)
			if h.sees != m.sees || h.after != m.after {
				n.sees, n.after, n.conditions = together(h.sees == m.sees && h.sees == Connected)
				for _, d := range n.to {
					n.conditions = append(n.conditions, Condition{Object: "the address dialled", TurnsOn: d.to.String() + ": " + d.sees})
				}
			}
			out = append(out, n)
		}
	}
	return out
}

// together is what a client sees where answers differ: it depends, or where all
// connect what comes then does.
func together(connect bool) (sees, after Sees, none []Condition) {
	if connect {
		return Connected, Depends, nil
	}
	return Depends, "", nil
}

// rowsOf joins parts that show the same.
func (e *Evaluator) rowsOf(f firewall.Family, in *firewall.Link, parts []part) []Row {
	rows := make([]Row, 0, len(parts))
	sets := make([]firewall.Ranges, 0, len(parts))
next:
	for _, p := range parts {
		by, all := e.decidedBy(&p.verdict)
		for i := range rows {
			if rows[i].ClientSees == p.sees && rows[i].AfterConnect == p.after && rows[i].DecidedBy == by && slices.Equal(rows[i].Deciders, all) && slices.Equal(rows[i].Conditions, p.conditions) &&
				slices.Equal(rows[i].Deliveries(), deliveries(p.deliver, p.oneOf)) {
				sets[i] = sets[i].Union(p.remote)
				if !rows[i].aim.IsValid() {
					rows[i].aim = p.aim
				}
				continue next
			}
		}
		conditions := p.conditions
		if p.sees != Depends && p.after != Depends || conditions == nil {
			conditions = []Condition{}
		}
		rows = append(rows, Row{Iif: in.Name, Family: f.String(), ClientSees: p.sees, AfterConnect: p.after, DecidedBy: by, Deciders: all, Conditions: conditions, Delivered: p.deliver, OneOf: p.oneOf, aim: p.aim})
		sets = append(sets, p.remote)
	}
	for i := range rows {
		rows[i].From = sets[i].AddrPrefixes(f)
	}
	return rows
}
