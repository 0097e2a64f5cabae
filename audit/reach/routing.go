package reach

import (
	"net/netip"

	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/firewall"
)

// routeVerdict is what the routing decision does with a class.
type routeVerdict uint8

const (
	routeDrop routeVerdict = iota
	routeLocal
	routeForward // or, for packets made here: sent by out
	routeICMP    // dropped, and the sender is told
	routeFail    // cannot be sent
	routeUnknown
)

// routed is a part of a class after a routing decision.
type routed struct {
	class              firewall.Class
	verdict            routeVerdict
	out                *firewall.Link
	gateway            netip.Addr
	by                 witness
	icmpType, icmpCode uint8
	why                string
}

// key describes the packet to the routing rules. The ports are those of the
// packet as it is now.
func key(c *firewall.Class) route.Key {
	st := &c.State
	k := route.Key{Family: st.Family, Mark: st.Mark, Proto: st.Proto}
	remote := c.Ports
	switch st.RemotePortKind {
	case firewall.RemoteConst:
		remote = firewall.Single(firewall.Num(uint64(st.RemotePort)))
	case firewall.RemoteUnknown:
		remote = nil
	}
	local := firewall.Single(firewall.Num(uint64(st.LocalPort)))
	if st.LocalPortUnknown {
		local = nil
	}
	if !st.Proto.HasPorts() {
		remote, local = nil, nil
	}
	k.Sport, k.Dport = remote, local
	if st.Reply {
		k.Sport, k.Dport = local, remote
	}
	return k
}

// remoteNow returns the peer's addresses as routing sees them, and how to go
// back to the original ones.
func remoteNow(c *firewall.Class) (now firewall.Ranges, back func(firewall.Ranges) firewall.Ranges, ok bool) {
	st := &c.State
	switch st.RemoteAddrKind {
	case firewall.RemoteConst:
		return firewall.Single(st.RemoteAddr), func(firewall.Ranges) firewall.Ranges { return c.Remote }, true
	case firewall.RemoteUnknown:
		return nil, nil, false
	default:
		by := st.RemoteAddr
		return c.Remote.Shift(by), func(r firewall.Ranges) firewall.Ranges {
			return r.Shift(firewall.Value{}.Sub(by)).Intersect(c.Remote)
		}, true
	}
}

const dscpSet = "the DSCP field, which a rule sets and the routing asks for"

// overRemote asks the routing about the peer's addresses and splits the class
// by the answer.
func (w *walk) overRemote(ns *Namespace, c firewall.Class, ask func(firewall.Ranges) []route.Part) []routed {
	now, back, ok := remoteNow(&c)
	if !ok {
		return []routed{{class: c, verdict: routeUnknown, why: "the address that source NAT chose"}}
	}
	if c.State.DSCPSet && w.e.dscp[ns] {
		return []routed{{class: c, verdict: routeUnknown, why: dscpSet}}
	}
	parts := ask(now)
	out := make([]routed, 0, len(parts))
	for _, p := range parts {
		d := c
		if d.Remote = back(p.Addrs); d.Remote.Empty() {
			continue
		}
		out = w.decide(out, ns, d, p.Verdict)
	}
	return out
}

// decide appends to out what a verdict of the routing makes of a class; several
// next hops are the branches of a hash that no reading tells.
func (w *walk) decide(out []routed, ns *Namespace, c firewall.Class, v route.Verdict) []routed {
	r := routed{class: c, by: routeWitness(ns, v)}
	switch v.Kind {
	case route.Local:
		r.verdict = routeLocal
		r.out = linkNamed(ns, "lo")
		if v.Broadcast && c.State.Proto == firewall.TCP {
			r.verdict = routeDrop
			r.by.text = "TCP to a broadcast address"
		}
		return append(out, r)
	case route.Forward, route.Send:
		if len(v.Hops) > 1 {
			r.class.Doubt(firewall.Condition{Object: v.Witness.Text, Why: "which of several next hops a hash of the flow chooses"})
		}
		for _, h := range v.Hops {
			n := r
			n.verdict, n.out, n.gateway = routeForward, h.Link, h.Gateway
			out = append(out, n)
		}
		return out
	case route.Drop:
		if v.ICMP != nil {
			r.verdict, r.icmpType, r.icmpCode = routeICMP, v.ICMP.Type, v.ICMP.Code
		}
		return append(out, r)
	case route.Fail:
		r.verdict = routeFail
		return append(out, r)
	default:
		r.verdict, r.why = routeUnknown, v.Unknown
		return append(out, r)
	}
}

func routeWitness(ns *Namespace, v route.Verdict) witness {
	w := witness{kind: ByRoute, ns: ns, text: v.Witness.Text}
	switch {
	case v.Why == route.RPFilter:
		w.kind = ByRPFilter
	case v.Witness.Kind == route.SysctlWitness:
		w.kind = BySysctl
	}
	if v.Why != route.NoReason {
		if w.text != "" {
			w.text += " "
		}
		w.text += "(" + v.Why.String() + ")"
	}
	if v.Detail != "" {
		w.text += ": " + v.Detail
	}
	return w
}

// routeIn is the routing decision for a first packet that came in by a link.
func (w *walk) routeIn(ns *Namespace, c firewall.Class) []routed {
	if ns.Route == nil {
		return []routed{{class: c, verdict: routeUnknown, why: "the routes, which could not be read: " + ns.Unread["routes"]}}
	}
	return w.overRemote(ns, c, func(srcs firewall.Ranges) []route.Part {
		return ns.Route.Input(key(&c), srcs, c.State.Local, c.State.In)
	})
}

// receive drops what the IP layer refuses before any chain of prerouting.
func (w *walk) receive(p *path, cs []firewall.Class, in *firewall.Link) []firewall.Class {
	if p.ns.Route == nil {
		return cs
	}
	var out []firewall.Class
	for _, c := range cs {
		if c.State.LocalUnknown {
			out = append(out, c)
			continue
		}
		for _, r := range w.overRemote(p.ns, c, func(srcs firewall.Ranges) []route.Part {
			return p.ns.Route.Receive(c.State.Family, srcs, c.State.Local, in)
		}) {
			switch r.verdict {
			case routeLocal:
				out = append(out, r.class)
			case routeUnknown:
				w.unknown(r.class, p, r.why)
			default:
				w.finish(r.class, p, Timeout, r.by, nil, "")
			}
		}
	}
	return out
}

// routeBack is the routing decision for an answer that came in by a link: its
// source is known and its destinations vary.
func (w *walk) routeBack(ns *Namespace, c firewall.Class) []routed {
	if ns.Route == nil {
		return []routed{{class: c, verdict: routeUnknown, why: "the routes, which could not be read: " + ns.Unread["routes"]}}
	}
	if c.State.LocalUnknown {
		return []routed{{class: c, verdict: routeUnknown, why: "the address that destination NAT chose"}}
	}
	return w.overRemote(ns, c, func(dsts firewall.Ranges) []route.Part {
		return ns.Route.InputTo(key(&c), c.State.Local, dsts, c.State.In)
	})
}

// Destinations that IPv6 looks up with a given interface only (rt6_need_strict).
var (
	linkLocal6 = firewall.Prefix(netip.MustParsePrefix("fe80::/10"))
	loopback6  = firewall.Prefix(netip.MustParsePrefix("::1/128"))
)

// routeAnswer is the route of an answer to a packet that came in by a link.
// IPv6 answers a link-local peer by the interface it came in by; and a RST to
// ::1 is looked up by the interface whose route made the destination local
// (tcp_v6_send_response: rt6_need_strict, tcp_v6_iif), so that one for another
// address than ::1 finds no route.
func (w *walk) routeAnswer(ns *Namespace, c firewall.Class, kind firewall.AnswerKind, in, oif *firewall.Link) []routed {
	if c.State.Family == firewall.IPv4 && kind == firewall.AnswerRejectReset {
		return w.routeHarder(ns, c, nil)
	}
	if oif != nil {
		return w.routeOut(ns, c, oif) // inet_csk_route_req, udp_sendmsg
	}
	if c.State.Family == firewall.IPv4 || c.State.RemoteAddrKind != firewall.RemoteSame {
		return w.routeOut(ns, c, nil)
	}
	var out []routed
	rest := c
	if d := c; !c.Remote.Intersect(linkLocal6).Empty() {
		d.Remote = c.Remote.Intersect(linkLocal6)
		rest.Remote = rest.Remote.Minus(linkLocal6)
		out = append(out, w.routeOut(ns, d, in)...)
	}
	if d := c; kind == firewall.AnswerReset && !c.Remote.Intersect(loopback6).Empty() {
		d.Remote = loopback6
		rest.Remote = rest.Remote.Minus(loopback6)
		for _, a := range ns.Route.Addrs {
			if a.Family == firewall.IPv6 && firewall.AddrValue(a.Local) == c.State.Local {
				in = a.Link.Link
			}
		}
		out = append(out, w.routeOut(ns, d, in)...)
	}
	if !rest.Remote.Empty() {
		out = append(out, w.routeOut(ns, rest, nil)...)
	}
	return out
}

// routeOut is the route of an answer made here; oif restricts it to a link.
func (w *walk) routeOut(ns *Namespace, c firewall.Class, oif *firewall.Link) []routed {
	src := c.State.Local
	switch {
	case c.State.LocalUnknown && (c.State.Proto == firewall.ICMP || c.State.Proto == firewall.ICMPv6):
		src = firewall.Value{} // chosen by the route
	case c.State.LocalUnknown:
		return []routed{{class: c, verdict: routeUnknown, why: "the address the answer comes from"}}
	}
	rs := w.overRemote(ns, c, func(dsts firewall.Ranges) []route.Part {
		return ns.Route.Output(key(&c), dsts, src, oif)
	})
	return overLo(rs)
}

// routeHarder is ip_route_me_harder and ip6_route_me_harder: the RST of an IPv4
// reject rule (nf_send_reset), whose source may be a host that it was forwarded
// to, and what output hooks route again.
func (w *walk) routeHarder(ns *Namespace, c firewall.Class, oif *firewall.Link) []routed {
	if c.State.LocalUnknown {
		return w.routeOut(ns, c, oif)
	}
	k := key(&c)
	k.AnySource = true
	if !ns.Route.RoutesAgainInFull() {
		k.Proto, k.Sport, k.Dport = 0, nil, nil // cannot be told
	}
	return overLo(w.overRemote(ns, c, func(dsts firewall.Ranges) []route.Part {
		return ns.Route.Output(k, dsts, c.State.Local, oif)
	}))
}

// overLo: what is local for a packet made here leaves by lo. Its route stays with it.
func overLo(rs []routed) []routed {
	for i := range rs {
		if rs[i].verdict == routeLocal {
			rs[i].verdict = routeForward
		}
		rs[i].class.State.Routed = true
	}
	return rs
}

// routeStart is the route of a first packet made here: one destination, and
// sources that are addresses of this host.
func (w *walk) routeStart(ns *Namespace, c firewall.Class) []routed {
	src, back, ok := remoteNow(&c)
	if !ok || src.Empty() {
		return []routed{{class: c, verdict: routeUnknown, why: "the address that source NAT chose"}}
	}
	_ = back
	if c.State.DSCPSet && w.e.dscp[ns] {
		return []routed{{class: c, verdict: routeUnknown, why: dscpSet}}
	}
	var out []routed
	for _, p := range ns.Route.Output(key(&c), firewall.Single(c.State.Local), src[0].Lo, nil) {
		out = w.decide(out, ns, c, p.Verdict)
	}
	return overLo(out)
}

func linkNamed(ns *Namespace, name string) *firewall.Link {
	if l := ns.Route.LinkByName(name); l != nil {
		return l.Link
	}
	return nil
}

// localAddrs are the addresses of a family that are the namespace's own.
func (e *Evaluator) localAddrs(ns *Namespace, f firewall.Family) firewall.Ranges {
	k := ownKey{ns, f}
	e.mu.Lock()
	defer e.mu.Unlock()
	own, ok := e.own[k]
	if !ok {
		for _, l := range ns.Route.LocalAddrs(f) {
			own = own.Union(l.Addrs)
		}
		e.own[k] = own
	}
	return own
}

type ownKey struct {
	ns     *Namespace
	family firewall.Family
}

func (e *Evaluator) isLocal(ns *Namespace, f firewall.Family, a netip.Addr) bool {
	return e.localAddrs(ns, f).Contains(firewall.AddrValue(a.WithZone("")))
}

// routeTo is the link that the route back to an address names.
func routeTo(ns *Namespace, a netip.Addr) *firewall.Link {
	return ns.Route.IifFor(a)
}

// linkAddrs are the addresses of a family that clients dial who come in by a
// link; for lo the loopback address first, then all others of the host.
func linkAddrs(ns *Namespace, f firewall.Family, in *firewall.Link) []netip.Addr {
	var own, others, linkLocal []netip.Addr
	for _, a := range ns.Route.Addrs {
		if a.Family != f || a.Tentative() {
			continue
		}
		switch {
		case a.Link.Index == in.Index && a.Local.IsLinkLocalUnicast() && f == firewall.IPv6:
			linkLocal = append(linkLocal, a.Local)
		case a.Link.Index == in.Index:
			own = append(own, a.Local)
		case !a.Local.IsLinkLocalUnicast():
			others = append(others, a.Local)
		}
	}
	if in.Name == "lo" {
		return append(own, others...)
	}
	if len(own) > 0 {
		return own
	}
	return linkLocal
}

// entryLinks are the links clients can come in by: up, and with an address of
// their own that is not link-local; lo last.
func entryLinks(ns *Namespace) []*firewall.Link {
	var out []*firewall.Link
	var lo *firewall.Link
	for _, l := range ns.Route.Links {
		if !l.Up() {
			continue
		}
		if l.Loopback() {
			lo = l.Link
			continue
		}
		for _, a := range ns.Route.Addrs {
			if a.Link.Index == l.Index && !(a.Family == firewall.IPv6 && a.Local.IsLinkLocalUnicast()) {
				out = append(out, l.Link)
				break
			}
		}
	}
	if lo != nil {
		out = append(out, lo)
	}
	return out
}

// neighbour finds the namespace at the other end of a link that has the address
// next. why says why it cannot be found.
func (e *Evaluator) neighbour(ns *Namespace, out *firewall.Link, next netip.Addr) (*Namespace, *firewall.Link, string) {
	known, hidden := e.ends(ns, out)
	for _, k := range known {
		if k.ns.Route != nil && e.isLocal(k.ns, firewall.FamilyOf(next), next) {
			return k.ns, k.link, ""
		}
	}
	if hidden || len(known) == 0 {
		return nil, nil, "what " + next.String() + " answers, which lies behind " + out.Name + " and beyond this host"
	}
	return nil, nil, "who has the address " + next.String() + " behind " + out.Name
}

// end is the other end of a virtual link.
type end struct {
	ns   *Namespace
	link *firewall.Link
}

// ends lists what is at the other end of a link, through a bridge if it is one.
// hidden: something there was not read.
func (e *Evaluator) ends(ns *Namespace, out *firewall.Link) (known []end, hidden bool) {
	look := func(index int) {
		p, ok := ns.Peers[index]
		if !ok {
			hidden = true
			return
		}
		other := e.byID[p.Namespace]
		if other == nil || other.Route == nil {
			hidden = true
			return
		}
		if l := other.Route.Link(p.Link); l != nil {
			known = append(known, end{other, l.Link})
		}
	}
	if _, ok := ns.Peers[out.Index]; ok || out.Kind != "bridge" {
		look(out.Index)
		return known, hidden
	}
	for _, l := range ns.Route.Links {
		if l.Master != nil && l.Master.Index == out.Index {
			look(l.Index)
		}
	}
	return known, hidden
}

// leadsTo reports whether a link of ns leads back to where a first packet came
// from.
func (e *Evaluator) leadsTo(ns *Namespace, out *firewall.Link, f *frame) bool {
	p, ok := ns.Peers[out.Index]
	if !ok || p.Namespace != f.ns.ID {
		return false
	}
	if p.Link == f.out.Index {
		return true
	}
	l := f.ns.Route.Link(p.Link)
	return l != nil && l.Master != nil && l.Master.Index == f.out.Index
}
