package reach

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/firewall"
)

// Detail tells how much of the walk an answer keeps.
type Detail uint8

// The details: the answer alone, with the base chains on the path, or with
// every rule (for --explain).
const (
	AnswerOnly Detail = iota
	WithPath
	WithRules
)

// unprivileged are the ports a client without privileges comes from.
func unprivileged() firewall.Ranges {
	return firewall.Span(firewall.Num(1024), firewall.Num(65535))
}

// Ask answers a question about one client (q.From is valid), in the audited
// namespace.
func (e *Evaluator) Ask(q Query, d Detail) (Answer, error) {
	a := Answer{Query: q.json(), Conditions: []Condition{}}
	if !q.From.IsValid() {
		return a, fmt.Errorf("ask about a client: no address given")
	}
	ns := e.home()
	if ns.Route == nil {
		a.ClientSees = Depends
		a.Conditions = []Condition{{Object: "the routes and addresses of the host", TurnsOn: "they could not be read: " + ns.Unread["routes"]}}
		a.DecidedBy = &DecidedBy{Kind: ByRoute, Text: "routes not read"}
		return a, nil
	}
	// An IPv4-mapped address means IPv4, unless an IPv6 address is dialled: such
	// packets exist, and the kernel throws them away.
	f := firewall.FamilyOf(q.From)
	if q.To.IsValid() && firewall.FamilyOf(q.To) == firewall.IPv6 && q.From.Is4In6() {
		f = firewall.IPv6
	} else {
		q.From = q.From.Unmap()
	}
	from := firewall.Single(firewall.AddrValue(q.From.WithZone("")))
	in, local, err := e.entry(ns, q, f)
	if err != nil {
		return a, err
	}
	if a.Query.Iif == "" && in != nil {
		a.Query.Iif = in.Name
	}
	dests := e.destinations(ns, q, f, in)
	if len(dests) == 0 {
		a.ClientSees = Timeout
		a.DecidedBy = &DecidedBy{Kind: ByRoute, Text: fmt.Sprintf("the host has no %s address on %s", f, a.Query.Iif)}
		return a, nil
	}
	if a.Query.To == "" && len(dests) == 1 {
		a.Query.To = dests[0].String()
	}
	var vs []destined
	for _, to := range dests {
		w := e.newWalk(d)
		w.run(ns, q, f, to, in, local, from)
		for _, p := range w.overlay(from, false) {
			vs = append(vs, destined{to, p.verdict, w})
		}
	}
	v := joinDestinations(vs)
	a.ClientSees, a.AfterConnect, a.DeliveredTo, a.OneOf = v.sees, v.after, v.deliver, v.oneOf
	by, all := e.decidedBy(&v)
	a.DecidedBy, a.Deciders = &by, all
	if v.sees == Depends || v.after == Depends {
		a.Conditions = v.conditions
	}
	if d != AnswerOnly {
		a.Path = v.trace.hops(e)
	}
	if d == WithRules {
		a.Lines = v.trace.lines(e, v.by)
	}
	return a, nil
}

func (q Query) json() QueryJSON {
	j := QueryJSON{Proto: q.Proto.String(), FromPort: q.FromPort, Port: q.Port, Iif: q.Iif}
	if q.From.IsValid() {
		j.From = q.From.String()
	}
	if q.To.IsValid() {
		j.To = q.To.String()
	}
	return j
}

func (e *Evaluator) newWalk(d Detail) *walk {
	w := &walk{e: e, envs: map[*Namespace]*firewall.Env{}, logAccepts: true}
	switch d {
	case WithPath:
		w.record = firewall.RecordVerdicts
	case WithRules:
		w.record = firewall.RecordRules
	}
	return w
}

// entry tells by which link the client's packets come in, and whether it is the
// host itself.
func (e *Evaluator) entry(ns *Namespace, q Query, f firewall.Family) (in *firewall.Link, local bool, err error) {
	if q.Iif != "" {
		in = linkNamed(ns, q.Iif)
		if in == nil {
			return nil, false, fmt.Errorf("interface %q does not exist", q.Iif)
		}
		return in, in.Name == "lo", nil
	}
	if e.isLocal(ns, f, q.From.WithZone("")) {
		return linkNamed(ns, "lo"), true, nil
	}
	in = routeTo(ns, q.From)
	if in == nil {
		return nil, false, fmt.Errorf("no route back to %s: name the interface its packets come in by", q.From)
	}
	return in, false, nil
}

// destinations are the addresses that a question without one is about: those of
// the interface, for local clients all of the host's.
func (e *Evaluator) destinations(ns *Namespace, q Query, f firewall.Family, in *firewall.Link) []netip.Addr {
	if q.To.IsValid() && !q.To.IsUnspecified() {
		return []netip.Addr{q.To.Unmap()}
	}
	if q.To.IsValid() && q.To.Is4() != (f == firewall.IPv4) {
		return nil
	}
	return linkAddrs(ns, f, in)
}

// run walks the class of all given sources to one destination.
func (w *walk) run(ns *Namespace, q Query, f firewall.Family, to netip.Addr, in *firewall.Link, local bool, from firewall.Ranges) {
	w.proto = q.Proto
	ports := unprivileged()
	if q.FromPort != 0 {
		ports = firewall.Single(firewall.Num(uint64(q.FromPort)))
	}
	c := firewall.Class{Remote: from, Ports: ports, State: firewall.First(f, q.Proto, firewall.AddrValue(to.WithZone("")), q.Port)}
	p := &path{ns: ns}
	w.origin = origin{ns, in, local, c.State}
	w.send(p, c)
}

// send starts the way of what the client sends.
func (w *walk) send(p *path, c firewall.Class) {
	if w.origin.local {
		w.start(p, c)
		return
	}
	if c = w.discovered(p, c); !c.Remote.Empty() {
		w.arrive(p, w.origin.in, []firewall.Class{c})
	}
}

// start walks what a client on the namespace itself sends.
func (w *walk) start(p *path, c firewall.Class) {
	ns := p.ns
	own := w.e.localAddrs(ns, c.State.Family)
	if away := c.Remote.Minus(own); !away.Empty() {
		d := c
		d.Remote = away
		w.finish(d, p, Timeout, witness{kind: ByRoute, ns: ns, text: "only this host's own addresses come in by lo"}, nil, "")
	}
	if c.Remote = c.Remote.Intersect(own); c.Remote.Empty() {
		return
	}
	p.local = true
	c.State.OwnerUnknown = true
	for _, r := range w.routeStart(ns, c) {
		if r.verdict != routeForward {
			w.notSent(p, r)
			continue
		}
		r.class.State.Out = r.out
		before := r.class.State
		for _, c := range w.hook(p, firewall.Output, []firewall.Class{r.class}) {
			if c.State.LocalUnknown {
				w.unknown(c, p, "the address that destination NAT chose")
				continue
			}
			if c.State.Reroute || c.State.Local != before.Local {
				c.State.Reroute = false
				for _, again := range w.routeStart(ns, c) {
					if again.verdict != routeForward {
						w.notSent(p, again)
						continue
					}
					again.class.State.Out = again.out
					w.sent(p, again.class, again.gateway)
				}
				continue
			}
			w.sent(p, c, r.gateway)
		}
	}
}

// notSent: there is no way from here.
func (w *walk) notSent(p *path, r routed) {
	switch r.verdict {
	case routeUnknown:
		w.unknown(r.class, p, r.why)
	case routeDrop:
		w.finish(r.class, p, Timeout, r.by, nil, "")
	default:
		w.finish(r.class, p, Unreachable, r.by, nil, "")
	}
}

// sent passes a local client's packet through postrouting and on.
func (w *walk) sent(p *path, c firewall.Class, gateway netip.Addr) {
	out := c.State.Out
	for _, c := range w.hook(p, firewall.Postrouting, []firewall.Class{c}) {
		if out.Name != "lo" {
			w.leave(p, c, out, gateway, true)
			continue
		}
		cs := w.hook(p, firewall.Egress, []firewall.Class{c})
		for i := range cs {
			cs[i].State.OwnerUnknown = false
			cs[i].State.Confirm()
		}
		w.arrive(p, out, cs)
	}
}

// destined is a verdict for one destination address.
type destined struct {
	to netip.Addr
	verdict
	w *walk
}

// joinDestinations is the answer of a question without a destination: where
// the host's addresses answer differently it depends on which one is dialled.
func joinDestinations(vs []destined) verdict {
	v := vs[0].verdict
	differ, connect := false, v.sees == Connected
	for _, d := range vs[1:] {
		v.orBy(&d.verdict)
		if d.sees != v.sees || d.after != v.after {
			differ = true
		}
		connect = connect && d.sees == Connected
	}
	if !differ {
		return v
	}
	out := v
	out.sees, out.after, out.conditions = together(connect)
	for _, d := range vs {
		c := Condition{Object: "the address dialled", TurnsOn: d.to.String() + ": " + words(d.sees, d.after)}
		if !slices.Contains(out.conditions, c) {
			out.conditions = append(out.conditions, c)
		}
	}
	return out
}
