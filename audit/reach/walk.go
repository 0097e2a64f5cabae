package reach

import (
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// walk is one question on its way.
type walk struct {
	e          *Evaluator
	proto      firewall.Proto // of the question
	envs       map[*Namespace]*firewall.Env
	record     firewall.RecordLevel
	logAccepts bool
	answering  bool // the answer is on its way, not the question
	reply      reply
	later      *later // the ACK is on its way
	notice     bool   // an ICMP error about a connection is on its way
	origin     origin
	finals     []final
	accepts    []accept
	hops       int
	resent     bool // what met no answer is sent again
}

// origin is where the packets of the question come in.
type origin struct {
	ns    *Namespace
	in    *firewall.Link
	local bool
	first firewall.State // of the first packet
}

// maxHops bounds how often packets of one question may change from one
// namespace to another: routing loops between namespaces exist.
const maxHops = 32

// path is where a class is: in which namespace, and how it got there.
type path struct {
	ns *Namespace
	// from is the namespace the packet passed before, with its state when it
	// left; nil when it came in over the wire or was made here.
	from *frame
	// local: the client is on this very namespace.
	local bool
	// marked: a packet had a mark when it was routed.
	marked bool
	// trail is the trace of the hooks behind.
	trail *trail
}

// frame is a namespace that a first packet was forwarded by.
type frame struct {
	ns    *Namespace
	state firewall.State // when it left
	out   *firewall.Link // by which it left
	local bool           // it was made there
	from  *frame
}

// arrive walks classes that come into a namespace by a link.
func (w *walk) arrive(p *path, in *firewall.Link, cs []firewall.Class) {
	ns := p.ns
	for i := range cs {
		cs[i].State.In, cs[i].State.Out = in, nil
		cs[i].State.Again()
	}
	cs = w.programs(p, cs, in, true)
	cs = w.ingress(p, in, cs)
	if cs = w.forOthers(p, cs, nobodys); len(cs) == 0 {
		return
	}
	if in.Name != "lo" {
		cs = w.receive(p, cs, in)
	}
	cs = w.hook(p, firewall.Prerouting, cs)
	for i := range cs {
		p.marked = p.marked || cs[i].State.Mark != firewall.Known{}
	}
	if in.Name == "lo" || p.local {
		// The route of a packet that this host made is kept over lo
		// (skb_valid_dst), so that there is no reverse-path filter.
		w.input(p, cs)
		return
	}
	for _, c := range cs {
		if c.State.LocalUnknown {
			w.unknown(c, p, "the address that destination NAT chose")
			continue
		}
		for _, r := range w.routeIn(ns, c) {
			w.routed(p, r)
		}
	}
}

// ingress calls the netdev chains of a link, and those of the bridge it is a
// port of.
func (w *walk) ingress(p *path, in *firewall.Link, cs []firewall.Class) []firewall.Class {
	return w.hook(p, firewall.Ingress, cs)
}

// routed goes on after the routing decision.
func (w *walk) routed(p *path, r routed) {
	switch r.verdict {
	case routeLocal:
		w.input(p, []firewall.Class{r.class})
	case routeForward:
		w.forward(p, r.class, r.out, r.gateway)
	case routeUnknown:
		w.unknown(r.class, p, r.why)
	case routeICMP:
		if r.class.State.PktType != packetHost { // __icmp_send, icmp6_send
			w.finish(r.class, p, Timeout, r.by, nil, "")
			return
		}
		w.answer(p, r.class, firewall.AnswerICMP, r.icmpType, r.icmpCode, Unreachable, r.by, nil)
	default:
		w.finish(r.class, p, Timeout, r.by, nil, "")
	}
}

// hook passes classes through a hook, records those that end there, and returns
// the others.
func (w *walk) hook(p *path, h firewall.Hook, cs []firewall.Class) []firewall.Class {
	if len(cs) == 0 {
		return nil
	}
	ns := p.ns
	if ns.Ruleset == nil {
		for i := range cs {
			cs[i].Doubt(firewall.Condition{Object: "the firewall of this host", Why: "it could not be read: " + ns.Unread["firewall"]})
			w.finish(cs[i], p, Depends, witness{kind: ByRoute, ns: p.ns, text: "the firewall could not be read"}, nil, "")
		}
		return cs
	}
	w.hookPrograms(p, cs, h)
	pass, ends := ns.Ruleset.Walk(h, cs, w.env(ns))
	for _, e := range ends {
		w.ended(p, h, e)
	}
	if h == firewall.Input || h == firewall.Postrouting {
		return w.confirmed(p, pass)
	}
	return pass
}

// confirmed lets those classes go on whose flow conntrack can enter in its table.
// With another source port in place of being dropped (nf_nat_alloc_null_binding) a
// packet does not find its peer either.
func (w *walk) confirmed(p *path, cs []firewall.Class) (pass []firewall.Class) {
	clashes := func(c firewall.Class) bool { return c.State.Clash && c.State.CTState == firewall.CTNew }
	if !slices.ContainsFunc(cs, clashes) {
		return cs
	}
	for _, c := range cs {
		by := witness{kind: ByRoute, ns: p.ns, text: "conntrack does not take the packet: it begins a flow in a zone of its own, whose answers are those of another"}
		switch {
		case !clashes(c):
			pass = append(pass, c)
		case w.answering:
			w.lost(p, c, by)
		default:
			w.finish(c, p, Timeout, by, nil, "")
		}
	}
	return pass
}

// ended records the classes that a hook did not let through.
func (w *walk) ended(p *path, h firewall.Hook, e firewall.End) {
	by := witness{kind: ByRule, ns: p.ns, rule: e.Rule, chain: e.Chain}
	switch {
	case e.Painting != nil:
		by.painting = e.Painting
	case e.Rule == nil:
		by.kind = ByPolicy
	}
	switch e.Fate {
	case firewall.FateDrop:
		if w.answering {
			w.lost(p, e.Class, by)
			return
		}
		w.finish(e.Class, p, Timeout, by, nil, "")
	case firewall.FateReject:
		if w.notice { // no error is sent about an error (icmp_send)
			w.finish(e.Class, p, Timeout, by, nil, "")
			return
		}
		w.rejected(p, h, e, by)
	case firewall.FateSynProxy:
		w.finish(e.Class, p, Depends, by, nil, e.Why)
	default:
		w.finish(e.Class, p, Depends, by, nil, e.Why)
	}
}

// unknown ends a class at something that cannot be told.
func (w *walk) unknown(c firewall.Class, p *path, why string) {
	w.finish(c, p, Depends, witness{kind: ByRoute, ns: p.ns, text: why}, nil, why)
}

// input delivers classes to a socket of the namespace.
func (w *walk) input(p *path, cs []firewall.Class) {
	for i := range cs {
		cs[i].State.Routed = true
	}
	if cs = w.hook(p, firewall.Input, cs); len(cs) == 0 {
		return
	}
	for _, c := range w.forOthers(p, cs, tcpOnly) {
		w.deliver(p, c)
	}
}

func (w *walk) deliver(p *path, c firewall.Class) {
	ns, st := p.ns, &c.State
	if w.notice {
		w.finish(c, p, Connected, witness{kind: ByOpen, ns: ns}, nil, "")
		return
	}
	if ns.Listeners == nil {
		w.finish(c, p, Depends, witness{kind: ByNoListener, ns: ns, text: "the sockets could not be read"}, nil,
			"the sockets of the host, which could not be read: "+ns.Unread["listeners"])
		return
	}
	if st.LocalUnknown || st.LocalPortUnknown {
		w.unknown(c, p, "the address or port that destination NAT chose")
		return
	}
	if w.later != nil {
		w.met(p, c)
		return
	}
	addr, port := st.Local.Addr(st.Family), st.LocalPort
	if st.TProxied {
		addr, port = st.TProxyAddr.Addr(st.Family), st.TProxyPort
	}
	socks := w.e.sockets(ns)
	for _, pr := range ns.Programs {
		if pr.Kind == "sk_lookup" {
			w.doubtProgram(p, &c, pr)
		}
	}
	in := st.In
	if in != nil && in.Name == "lo" && socks.bound(st.Proto, port) {
		in = ownerOf(ns, st.Family, st.Local)
	}
	l := socks.find(st.Family, st.Proto, addr, port, in)
	if l == nil {
		by := socks.missing(ns, st.Family, st.Proto, addr, port, in)
		if st.Proto == firewall.TCP {
			w.answer(p, c, firewall.AnswerReset, 0, 0, Refused, by, nil)
			return
		}
		if w.toMany(ns, st) || st.PktType != packetHost { // __icmp_send, icmp6_send
			w.finish(c, p, Timeout, by, nil, "") // __udp4_lib_mcast_deliver
			return
		}
		typ, code := uint8(3), uint8(3) // port unreachable
		if st.Family == firewall.IPv6 {
			typ, code = 1, 4
		}
		w.answer(p, c, firewall.AnswerNoSocket, typ, code, Refused, by, nil)
		return
	}
	if st.Family == firewall.IPv6 && st.RemoteAddrKind == firewall.RemoteSame {
		if c = w.mapped(p, c); c.Remote.Empty() {
			return
		}
		st = &c.State
	}
	d := delivered(ns, l, addr, port)
	for _, pr := range ns.Programs {
		if pr.Kind == "cgroup" && pr.sees(l) {
			w.doubtProgram(p, &c, pr)
		}
	}
	if st.Proto == firewall.TCP && l.Sharing <= 1 && l.Tells(listeners.FactLimit) && l.Accept.Full() {
		w.finish(c, p, Timeout, witness{kind: ByBacklog, ns: ns,
			text: "the accept queue of " + l.Subject() + " is full: " + itoa(int(l.Accept.Len)) + " of " + itoa(int(l.Accept.Limit))}, nil, "")
		return
	}
	if st.Proto == firewall.UDP && st.TProxied && (port != st.LocalPort || !l.Local.Addr().IsUnspecified() && st.TProxyAddr != st.Local) {
		// What the socket itself sends comes from where it is bound.
		why := "whether the program behind " + l.Subject() + ", to which TPROXY hands the datagram, answers from the address and port that the client asked"
		c.Doubt(firewall.Condition{Object: l.Subject(), Why: why})
		w.finish(c, p, Depends, witness{kind: ByOpen, ns: ns, text: "nothing stands in the way"}, d, why)
		return
	}
	if !w.sendsFrom(p, c, l, d) {
		return
	}
	c.State.Owner = &firewall.Owner{UID: l.UID, GIDUnknown: true}
	mark := firewall.Known{Value: l.Mark, Unknown: !l.Tells(listeners.FactMark)}
	var oif *firewall.Link
	if l.Device.Index != 0 && ns.Route != nil {
		if on := ns.Route.Link(l.Device.Index); on != nil {
			oif = on.Link
		}
	}
	w.answerFrom(p, c, firewall.AnswerData, 0, 0, Connected, witness{kind: ByOpen, ns: ns, text: "nothing stands in the way"}, d, mark, oif)
}

var mapped6 = firewall.Prefix(netip.MustParsePrefix("::ffff:0:0/96"))

// mapped takes IPv4-mapped sources out of an IPv6 class that has found its
// socket: a listener ignores their SYN (tcp_v6_conn_request), and the answer to
// a datagram leaves as an IPv4 packet, if at all.
func (w *walk) mapped(p *path, c firewall.Class) firewall.Class {
	d := c
	if d.Remote = c.Remote.Intersect(mapped6); d.Remote.Empty() {
		return c
	}
	c.Remote = c.Remote.Minus(mapped6)
	by := witness{kind: ByRoute, ns: p.ns, text: "IPv6 packets with an IPv4-mapped source are not answered"}
	if c.State.Proto == firewall.TCP {
		w.finish(d, p, Timeout, by, nil, "")
	} else {
		w.finish(d, p, Depends, by, nil, "how the program answers an IPv4-mapped source")
	}
	return c
}

// forward passes a class on to another link.
func (w *walk) forward(p *path, c firewall.Class, out *firewall.Link, gateway netip.Addr) {
	if in := c.State.In; in != nil && in.Kind == "bridge" && in.Index == out.Index && c.State.CTStatus&firewall.CTStatusDstNAT != 0 {
		// br_nf_pre_routing_finish: where br_netfilter is on, a packet that is
		// translated to an address on its own bridge is bridged, not routed, and
		// never back to the port it came from unless that is in hairpin mode.
		w.unknown(c, p, "whether bridge "+in.Name+" hands its packets to the IP hooks (br_netfilter) and lets them turn back (hairpin)")
		return
	}
	if len(w.forOthers(p, []firewall.Class{c}, nobodys, broadcasts)) == 0 {
		return // ip_forward, ip6_forward
	}
	w.mayDie(p, &c)
	c.State.HopLimit = 0 // ip_forward takes one off
	c.State.Out, c.State.Routed = out, true
	cs := w.hook(p, firewall.Forward, []firewall.Class{c})
	cs = w.hook(p, firewall.Postrouting, cs)
	for _, c := range cs {
		w.leave(p, c, out, gateway, false)
	}
}

// mayDie follows both ways of a packet whose TTL a rule made small: it reaches
// what it is sent to, or not.
func (w *walk) mayDie(p *path, c *firewall.Class) {
	if !c.State.ShortWay {
		return
	}
	why := "whether the TTL that a rule set is enough for the packet's way"
	c.Doubt(firewall.Condition{Object: "the TTL of the packet", Why: why})
	w.finish(*c, p, Depends, witness{kind: ByRoute, ns: p.ns, text: "the TTL of the packet"}, nil, why)
}

// leave passes a first packet on to whatever is at the other end of a link.
func (w *walk) leave(p *path, c firewall.Class, out *firewall.Link, gateway netip.Addr, local bool) {
	cs := w.hook(p, firewall.Egress, []firewall.Class{c})
	cs = w.programs(p, cs, out, false)
	for _, c := range cs {
		w.mayDie(p, &c)
		next := gateway
		if !next.IsValid() {
			next = c.State.Local.Addr(c.State.Family)
		}
		target, in, why := w.e.neighbour(p.ns, out, next)
		w.hops++
		if target == nil || w.hops > maxHops {
			if target != nil {
				why = "a routing loop between network namespaces"
			}
			dest := c.State.Local.Addr(c.State.Family)
			w.finish(c, p, Depends, witness{kind: ByRoute, ns: p.ns, text: "forwarded to " + hostPort(dest, c.State.LocalPort) + " by " + out.Name},
				nil, why)
			continue
		}
		f := &frame{ns: p.ns, state: c.State, out: out, local: local, from: p.from}
		next2 := &path{ns: target, from: f, trail: w.trail(p, c)}
		if w.later != nil {
			if c.State.Tracked() && c.State.CTMark != w.later.first[p.ns].CTMark {
				w.unknown(c, p, "the connection mark, which the client's own packets change")
				continue
			}
			known := false
			if c.State, known = w.later.state(target, in); !known {
				w.unknown(c, p, "the packets after the SYN go another way")
				continue
			}
		} else {
			c.State = c.State.Enter(in)
		}
		c.Trace = nil
		w.arrive(next2, in, []firewall.Class{c})
	}
}
