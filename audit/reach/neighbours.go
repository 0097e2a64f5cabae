package reach

import (
	"net/netip"

	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/firewall"
)

// neighbourKey is a link and an address that its neighbours look for.
type neighbourKey struct {
	ns   *Namespace
	link int
	to   firewall.Value
	f    firewall.Family
}

// discovery is what the rules make of the packets by which neighbours on a link
// find each other's hardware address: lost are the neighbours for whom they do
// not surely pass.
type discovery struct {
	lost firewall.Ranges
	cond firewall.Condition
	by   witness
}

// discoveryWhy is what an answer turns on where discovery does not surely pass.
const discoveryWhy = "whether the neighbour knows this host's hardware address from before: what finds it need not pass here"

// discovered follows, for sources whose neighbour on the link cannot find this
// host's hardware address, both ways: nothing arrives, or the address is still
// known.
func (w *walk) discovered(p *path, c firewall.Class) firewall.Class {
	ns, in := w.origin.ns, w.origin.in
	if ns.Route == nil || ns.Ruleset == nil || w.e.neighboursKnown {
		return c
	}
	if l := ns.Route.Link(in.Index); l == nil || !l.Discovers() {
		return c
	}
	a, c, d := w.unfound(ns, in, c)
	if !a.Remote.Empty() {
		a.Doubt(d.cond)
		w.finish(a, p, Timeout, d.by, nil, "")
		w.arrive(p, in, []firewall.Class{a})
	}
	return c
}

// unfound parts the sources whose neighbour on a link discovery does not surely
// find from the others.
func (w *walk) unfound(ns *Namespace, link *firewall.Link, c firewall.Class) (unfound, rest firewall.Class, d discovery) {
	d = w.discovery(ns, link, c.State.Family, c.State.Local)
	unfound, rest = c, c
	unfound.Remote = firewall.Ranges{}
	if !d.lost.Empty() {
		unfound.Remote = w.behind(ns, link, c.State.Family, c.Remote, d.lost)
	}
	if !unfound.Remote.Empty() {
		rest.Remote = c.Remote.Minus(unfound.Remote)
	}
	return unfound, rest, d
}

// findable follows, for an answer that leaves by another link than the question
// came in by, both ways where the rules keep this host from finding the neighbour
// there: the answer is never sent, or the neighbour is still known.
func (w *walk) findable(p *path, c firewall.Class, out *firewall.Link) firewall.Class {
	ns := p.ns
	if ns != w.origin.ns || out.Index == w.origin.in.Index || ns.Ruleset == nil || w.e.neighboursKnown || c.State.RemoteAddrKind != firewall.RemoteSame {
		return c
	}
	if l := ns.Route.Link(out.Index); l == nil || !l.Discovers() {
		return c
	}
	a, c, d := w.unfound(ns, out, c)
	if !a.Remote.Empty() {
		cond := d.cond
		cond.Why = answerDiscoveryWhy
		a.Doubt(cond)
		w.lost(p, a, d.by)
		w.seen(p, a)
	}
	return c
}

// answerDiscoveryWhy is discoveryWhy of a neighbour that this host looks for.
const answerDiscoveryWhy = "whether this host knows the hardware address of the neighbour that the answer goes to from before: what finds it need not pass here"

// behind are those of the sources whose packets a lost neighbour sends: they are
// on the link themselves, or routed. Neighbours that are known are not lost.
func (w *walk) behind(ns *Namespace, in *firewall.Link, f firewall.Family, srcs, lost firewall.Ranges) firewall.Ranges {
	known, near := ns.Route.KnownNeighbours(f, in.Index), ns.Route.OnLink(f, in.Index)
	// Those who can be neighbours: not this host itself, and of link-local addresses
	// those that hosts give themselves (RFC 4291, 2.5.6).
	lost = lost.Intersect(near).Minus(w.e.localAddrs(ns, f)).Minus(known)
	if f == firewall.IPv6 {
		lost = lost.Minus(linkLocal6.Minus(firewall.Prefix(netip.MustParsePrefix("fe80::/64"))))
	}
	out := srcs.Intersect(near).Intersect(lost)
	far := srcs.Minus(near)
	if far.Empty() || lost.Empty() {
		return out
	}
	for _, r := range ns.Route.Output(route.Key{Family: f}, far, firewall.Value{}, in) {
		gateway := netip.Addr{}
		for _, h := range r.Hops {
			if h.Link != nil && h.Link.Index == in.Index {
				gateway = h.Gateway
			}
		}
		if named := gateway.IsValid(); named && known.Contains(firewall.AddrValue(gateway)) || !named && !known.Empty() {
			continue
		} else if !named || lost.Contains(firewall.AddrValue(gateway)) || f == firewall.IPv6 && !lost.Intersect(linkLocal6).Empty() {
			out = out.Union(r.Addrs)
		}
	}
	return out
}

// discovery walks the messages of neighbour discovery about an address of this
// host through the rules.
func (w *walk) discovery(ns *Namespace, in *firewall.Link, f firewall.Family, to firewall.Value) discovery {
	e := w.e
	k := neighbourKey{ns, in.Index, to, f}
	e.mu.Lock()
	d, ok := e.found[k]
	e.mu.Unlock()
	if ok {
		return d
	}
	if f == firewall.IPv6 {
		d = w.solicitations(ns, in, to)
	} else {
		d = w.arp(ns, in, to)
	}
	e.mu.Lock()
	e.found[k] = d
	e.mu.Unlock()
	return d
}

// The messages of neighbour discovery (RFC 4861, 4.3 and 4.4).
const (
	neighbourSolicitation  = 135
	neighbourAdvertisement = 136
)

// solicitations: a neighbour's solicitation of this host's address comes in by
// multicast and the advertisement goes out; this host's own goes out, and the
// advertisement comes in. Conntrack leaves them untracked (nf_conntrack_icmpv6_error),
// and their hop limit is 255.
func (w *walk) solicitations(ns *Namespace, in *firewall.Link, to firewall.Value) (d discovery) {
	message := func(typ uint8, group, reply bool) firewall.State {
		st := firewall.First(firewall.IPv6, firewall.ICMPv6, to, 0)
		st.ICMPType, st.HopLimit, st.Expect, st.Reply = typ, 255, firewall.CTUntracked, reply
		// ff02::1:ffXX:XXXX, the solicited-node address (RFC 4291, 2.7.1).
		a := netip.MustParseAddr("ff02::1:ff00:0").As16()
		last := to.Addr(firewall.IPv6).As16()
		copy(a[13:], last[13:])
		node := firewall.AddrValue(netip.AddrFrom16(a))
		switch {
		case group && reply:
			st.RemoteAddrKind, st.RemoteAddr = firewall.RemoteConst, node
		case group:
			st.Local, st.PktType = node, 2 // PACKET_MULTICAST
		}
		return st
	}
	arrives := []firewall.Hook{firewall.Ingress, firewall.Prerouting, firewall.Input}
	leaves := []firewall.Hook{firewall.Output, firewall.Postrouting, firewall.Egress}
	pass := func(st firewall.State, hooks []firewall.Hook) {
		w.message(ns, &d, firewall.Class{Remote: firewall.All(16), Ports: unprivileged(), State: st}, hooks...)
	}
	for _, typ := range []uint8{neighbourSolicitation, neighbourAdvertisement} {
		st := message(typ, typ == neighbourSolicitation, false)
		st.In = in
		pass(st, arrives)
		st = message(typ, typ == neighbourSolicitation, true)
		st.Out = in
		pass(st, leaves)
	}
	return d
}

// message walks a message of discovery through hooks and notes the neighbours for
// whom it does not surely pass as it is.
func (w *walk) message(ns *Namespace, d *discovery, c firewall.Class, hooks ...firewall.Hook) {
	env := *w.env(ns)
	env.Accepted, env.Record = nil, firewall.RecordNothing
	cs := []firewall.Class{c}
	for _, h := range hooks {
		for i := range cs {
			cs[i].State.Routed = cs[i].State.Routed || h == firewall.Input || h == firewall.Output
		}
		var ends []firewall.End
		cs, ends = ns.Ruleset.Walk(h, cs, &env)
		for _, e := range ends {
			d.blocks(ns, e.Class, e.Rule, e.Chain)
		}
	}
	for _, p := range cs {
		switch {
		case p.Forks != nil:
			d.blocks(ns, p, p.Forks.Condition.Rule, nil)
		case p.State.RewroteHeader != "" || p.State.PktType != c.State.PktType:
			d.blocks(ns, p, nil, nil)
		}
	}
}

// blocks notes neighbours whose messages do not surely pass.
func (d *discovery) blocks(ns *Namespace, c firewall.Class, r *firewall.Rule, ch *firewall.Chain) {
	if d.lost.Empty() {
		d.cond = firewall.Condition{Rule: r, Why: discoveryWhy}
		d.by = witness{kind: ByRule, ns: ns, rule: r, chain: ch}
		switch {
		case r == nil && ch != nil:
			d.by.kind = ByPolicy
			d.cond.Object = "policy of " + chainLabel(ch)
		case r == nil:
			d.by = witness{kind: ByRoute, ns: ns, text: "the rules that neighbour discovery passes"}
			d.cond.Object = d.by.text
		}
	}
	d.lost = d.lost.Union(c.Remote)
}

// arp is the same for IPv4: a neighbour's request of this host's address comes in
// and the reply goes out, and the other way round. ARP messages pass no chains but
// those of family arp and of the device (arp_rcv, arp_xmit).
func (w *walk) arp(ns *Namespace, in *firewall.Link, to firewall.Value) (d discovery) {
	for _, out := range []bool{false, true} {
		hooks := []firewall.Hook{firewall.Ingress, firewall.Input}
		if out {
			hooks = []firewall.Hook{firewall.Output, firewall.Egress}
		}
		for _, op := range []uint8{firewall.ARPRequest, firewall.ARPReply} {
			st := firewall.ARPMessage(op, to, out)
			if st.In = in; out {
				st.In, st.Out = nil, in
			}
			w.message(ns, &d, firewall.Class{Remote: firewall.All(4), Ports: unprivileged(), State: st}, hooks...)
		}
	}
	return d
}
