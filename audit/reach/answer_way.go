package reach

import (
	"github.com/hostaudit/hostaudit/firewall"
)

// reply is an answer on its way back: what the client sees when it gets there.
type reply struct {
	sees    Sees
	by      witness
	deliver *Delivered
	// path and first are the way of the packet that is answered, and its state.
	path  *path
	first firewall.State
	// oif is the interface that the answering socket is bound to, nil for none.
	oif *firewall.Link
}

// rejected sends the answer of a reject rule on its way.
func (w *walk) rejected(p *path, h firewall.Hook, e firewall.End, by witness) {
	if w.answering {
		// An answer that a rule rejects is lost; the error goes to this host.
		w.lost(p, e.Class, by)
		return
	}
	st := &e.Class.State
	typ, code := e.Reject.V4Type, e.Reject.V4Code
	portUnreachable := typ == 3 && code == 3
	if st.Family == firewall.IPv6 {
		typ, code = e.Reject.V6Type, e.Reject.V6Code
		portUnreachable = typ == 1 && code == 4
	}
	sees := Unreachable
	kind := firewall.AnswerICMP
	switch {
	case e.Reject.TCPReset && st.Proto == firewall.TCP:
		kind, sees = firewall.AnswerRejectReset, Refused
	case e.Reject.TCPReset:
		// A reset for what is not TCP: nothing is sent (nf_send_reset), and the packet is dropped.
		w.finish(e.Class, p, Timeout, by, nil, "")
		return
	case portUnreachable:
		sees = Refused
	}
	if st.PktType != packetHost && kind == firewall.AnswerICMP { // __icmp_send, icmp6_send
		w.finish(e.Class, p, Timeout, by, nil, "")
		return
	}
	if w.toMany(p.ns, &e.Class.State) {
		if h == firewall.Prerouting {
			w.unknown(e.Class, p, "whether the packet came as a broadcast frame, which no error answers")
			return
		}
		w.finish(e.Class, p, Timeout, by, nil, "")
		return
	}
	if h == firewall.Prerouting && kind == firewall.AnswerICMP && st.Family == firewall.IPv4 && st.In != nil && st.In.Name != "lo" {
		// nf_reject_fill_skb_dst: the packet has the route of the answer, so that
		// __icmp_send does not take it for one to this host, and the routing chooses
		// the source of the error.
		e.Class.State.LocalUnknown = true
	}
	if h == firewall.Ingress {
		// nft_reject_netdev sends the answer straight out of the device.
		w.finish(e.Class, p, sees, by, nil, "")
		return
	}
	if kind == firewall.AnswerRejectReset && st.In != nil && st.In.Kind == "bridge" {
		w.bridgedReset(p, &e.Class, by)
	}
	w.answer(p, e.Class, kind, typ, code, sees, by, nil)
}

// toMany reports whether a packet is for a broadcast or multicast address, which
// neither an ICMP error nor a RST answers (__icmp_send, nf_send_reset, icmp6_send).
func (w *walk) toMany(ns *Namespace, st *firewall.State) bool {
	a := st.Local.Addr(st.Family)
	if a.IsMulticast() || ns.Route == nil || st.Family != firewall.IPv4 {
		return a.IsMulticast()
	}
	const broadcast = 3 // RTN_BROADCAST
	for _, p := range ns.Route.AddrType(st.Family, firewall.Single(st.Local), nil) {
		if p.Unknown == "" && p.Value == broadcast {
			return true
		}
	}
	return false
}

// bridgedReset follows the other way a RST about a packet from a bridge can go:
// where br_netfilter has seen the packet, the RST is put straight onto the
// port it came from (nf_send_reset, nf_bridge_info_exists), past output and
// postrouting, so that no translation is undone.
func (w *walk) bridgedReset(p *path, c *firewall.Class, by witness) {
	st := &c.State
	c.Doubt(firewall.Condition{Object: "bridge " + st.In.Name, Why: "whether br_netfilter sees its packets: then the RST passes no further rule and keeps translated addresses"})
	sees := Refused
	if st.Local != st.OrigLocal || st.LocalPort != st.OrigLocalPort || st.RemoteAddrKind != st.BaseAddrKind || st.RemoteAddr != st.BaseAddr {
		sees = Timeout
	}
	w.finish(*c, p, sees, by, nil, "")
}

// answer walks what the namespace answers back to the client.
func (w *walk) answer(p *path, c firewall.Class, kind firewall.AnswerKind, typ, code uint8, sees Sees, by witness, d *Delivered) {
	w.answerFrom(p, c, kind, typ, code, sees, by, d, firewall.Known{}, nil)
}

// answerFrom is answer for a socket with a mark (SO_MARK), bound to interface oif
// (SO_BINDTODEVICE), which its routes have to leave by.
func (w *walk) answerFrom(p *path, c firewall.Class, kind firewall.AnswerKind, typ, code uint8, sees Sees, by witness, d *Delivered, socketMark firewall.Known, oif *firewall.Link) {
	if w.later != nil {
		// A reset or an ICMP error about an established connection.
		w.finish(c, p, sees, by, nil, "")
		return
	}
	ns := p.ns
	owner := c.State.Owner
	first := c.State
	wasAnswering, cur := w.answering, w.reply
	w.answering, w.reply = true, reply{sees, by, d, p, first, oif}
	defer func() { w.answering, w.reply = wasAnswering, cur }()
	c.State = first.Answer(kind, typ, code)
	if ns.Route == nil {
		w.unknown(c, p, "the routes of the host, which could not be read: "+ns.Unread["routes"])
		return
	}
	if kind == firewall.AnswerICMP && !w.e.isLocal(ns, first.Family, first.Local.Addr(first.Family)) {
		// __icmp_send: the routing chooses the source of an error about a packet
		// that is not for this host.
		c.State.LocalUnknown = true
	}
	if (kind == firewall.AnswerICMP || kind == firewall.AnswerNoSocket) && first.Family == firewall.IPv6 && !carries(ns, first.Local) {
		// icmp6_send: nor is it the address of a local route that no interface
		// carries; the source is one of the interface the packet came in by.
		c.State.LocalUnknown = true
		if len(ns.Route.Rules6) > 2 { // beside those for the local and the main table
			w.unknown(c, p, "the source of the ICMP error, which routing rules may ask about: "+first.Local.Addr(first.Family).String()+" is on no interface")
			return
		}
	}
	if kind == firewall.AnswerData {
		c.State.Owner = owner
	}
	c.State.Mark = answerMark(ns, kind, first, socketMark)
	w.note(&c, answerText(kind, first.Proto)+" leaves")
	for _, r := range w.routeAnswer(ns, c, kind, first.In, oif) {
		if r.verdict == routeUnknown {
			w.unknown(r.class, p, r.why)
			continue
		}
		if r.verdict != routeForward {
			w.lost(p, r.class, r.by)
			continue
		}
		r.class.State.Out = r.out
		for _, o := range w.hook(p, firewall.Output, []firewall.Class{r.class}) {
			w.afterOutput(p, o, r.class.State)
		}
	}
}

// carries reports whether an interface of the namespace has the IPv6 address (ipv6_chk_addr).
func carries(ns *Namespace, v firewall.Value) bool {
	for _, a := range ns.Route.Addrs {
		if a.Family == firewall.IPv6 && firewall.AddrValue(a.Local) == v {
			return true
		}
	}
	return false
}

func answerText(k firewall.AnswerKind, p firewall.Proto) string {
	switch k {
	case firewall.AnswerData:
		if p == firewall.TCP {
			return "the SYN-ACK"
		}
		return "the answer"
	case firewall.AnswerICMP, firewall.AnswerNoSocket:
		return "the ICMP error"
	default:
		return "the RST"
	}
}

// afterOutput routes an answer again where output changed its mark or
// destination, and sends it out.
func (w *walk) afterOutput(p *path, c firewall.Class, before firewall.State) {
	st := &c.State
	if st.Reroute || st.RemoteAddrKind != before.RemoteAddrKind || st.RemoteAddr != before.RemoteAddr {
		st.Reroute = false
		for _, r := range w.routeHarder(p.ns, c, w.reply.oif) {
			switch {
			case r.verdict == routeUnknown:
				w.unknown(r.class, p, r.why)
			case r.verdict != routeForward:
				w.lost(p, r.class, r.by)
			default:
				r.class.State.Out = r.out
				w.out(p, r.class)
			}
		}
		return
	}
	w.out(p, c)
}

// out passes an answer through postrouting and off the namespace.
func (w *walk) out(p *path, c firewall.Class) {
	out := c.State.Out
	cs := w.hook(p, firewall.Postrouting, []firewall.Class{c})
	cs = w.hook(p, firewall.Egress, cs)
	cs = w.programs(p, cs, out, false)
	for _, c := range cs {
		w.depart(p, c, out)
	}
}

// depart hands an answer to what is at the other end of the link.
func (w *walk) depart(p *path, c firewall.Class, out *firewall.Link) {
	if out.Name == "lo" {
		if !p.local {
			// No client out there has such an address (in IPv4 it is a martian).
			w.unanswered(p, c, witness{kind: ByRoute, ns: p.ns, text: "the answer goes to this host itself, whose address the client uses"})
			return
		}
		w.backHome(p, c, out)
		return
	}
	if p.local {
		w.lost(p, c, witness{kind: ByRoute, ns: p.ns, text: "the answer to a client on this host leaves by " + out.Name})
		return
	}
	w.mayDie(p, &c)
	if p.from == nil {
		if c = w.findable(p, c, out); !c.Remote.Empty() {
			w.seen(p, c)
		}
		return
	}
	f := p.from
	if st := &c.State; st.Local != f.state.Local || st.LocalPort != f.state.LocalPort || st.RemoteAddrKind != f.state.RemoteAddrKind || st.RemoteAddr != f.state.RemoteAddr {
		w.unknown(c, p, "an answer whose translation "+nsLabel(p.ns)+" does not undo")
		return
	}
	if !w.e.leadsTo(p.ns, out, f) {
		w.unknown(c, p, "where the answer goes: it leaves "+nsLabel(p.ns)+" by "+out.Name+", not the way the question came")
		return
	}
	back := &path{ns: f.ns, from: f.from, local: f.local, trail: w.trail(p, c)}
	c.State = f.state.Returned(c.State, f.out)
	c.Trace = nil
	cs := []firewall.Class{c}
	cs = w.programs(back, cs, f.out, true)
	cs = w.forOthers(back, w.hook(back, firewall.Ingress, cs), nobodys)
	cs = w.hook(back, firewall.Prerouting, cs)
	for _, c := range cs {
		for _, r := range w.routeBack(f.ns, c) {
			switch r.verdict {
			case routeLocal:
				r.class.State.Routed = true
				for _, c := range w.forOthers(back, w.hook(back, firewall.Input, []firewall.Class{r.class}), tcpOnly) {
					w.seen(back, c)
				}
			case routeForward:
				r.class.State.Out, r.class.State.Routed = r.out, true
				cs := w.hook(back, firewall.Forward, w.forOthers(back, []firewall.Class{r.class}, nobodys, broadcasts))
				for _, c := range cs {
					c.State.Out = r.out
					w.out(back, c)
				}
			case routeUnknown:
				w.unknown(r.class, back, r.why)
			default:
				w.lost(back, r.class, r.by)
			}
		}
	}
}

// backHome is the second pass of an answer over lo to a client of the same
// namespace.
func (w *walk) backHome(p *path, c firewall.Class, lo *firewall.Link) {
	c.State.In, c.State.Out = lo, nil
	c.State.Again()
	cs := w.programs(p, []firewall.Class{c}, lo, true)
	cs = w.forOthers(p, w.hook(p, firewall.Ingress, cs), nobodys)
	cs = w.hook(p, firewall.Prerouting, cs)
	cs = w.hook(p, firewall.Input, cs)
	for _, c := range w.forOthers(p, cs, tcpOnly) {
		w.seen(p, c)
	}
}

// seen: the answer reached the client, who knows it only by the addresses and
// ports it dialled. Where the translation was not undone (the answer was exempt
// from tracking, say) it is a stranger's packet.
func (w *walk) seen(p *path, c firewall.Class) {
	st := &c.State
	ours := st.Local == st.OrigLocal && st.LocalPort == st.OrigLocalPort && !st.LocalPortUnknown || st.LocalUnknown && st.Proto != w.proto
	if !ours || st.RemoteAddrKind != st.BaseAddrKind || st.RemoteAddr != st.BaseAddr || st.RemotePortKind != st.BasePortKind || st.RemotePort != st.BasePort {
		if same := c.Remote.Intersect(firewall.Single(st.RemoteAddr)); ours && st.RemoteAddrKind == firewall.RemoteConst && !same.Empty() {
			d := c
			d.Remote = same
			w.unknown(d, p, "whether the translation of the client to its own address keeps its port")
			if c.Remote = c.Remote.Minus(same); c.Remote.Empty() {
				return
			}
		}
		w.lost(p, c, witness{kind: ByRoute, ns: p.ns, text: "the answer leaves with translated addresses that the client does not know"})
		return
	}
	if w.reply.sees == Connected && w.proto == firewall.TCP {
		w.follow(p, c)
		return
	}
	w.finish(c, p, w.reply.sees, w.reply.by, w.reply.deliver, "")
}

// lost: the answer does not reach the client, who waits in vain. What kept the
// client out stays the witness; for a packet that was delivered it is what
// stopped the answer.
func (w *walk) lost(p *path, c firewall.Class, by witness) {
	if w.reply.sees != Connected {
		by = w.reply.by
	}
	w.unanswered(p, c, by)
}

// unanswered ends the way of an answer that the client does not get.
func (w *walk) unanswered(p *path, c firewall.Class, by witness) {
	d := w.reply.deliver
	if c.State.Proto == firewall.TCP {
		d = nil
	}
	w.finish(c, p, Timeout, by, d, "")
}

func nsLabel(ns *Namespace) string {
	if ns.Name == "" {
		return "this host"
	}
	return ns.Name
}

// answerMark is the packet mark an answer starts with: that of the question
// with net.ipv4.tcp_fwmark_accept (a SYN-ACK, inet_request_mark) or
// fwmark_reflect (what no socket sends, IP4_REPLY_MARK), else the socket's.
func answerMark(ns *Namespace, kind firewall.AnswerKind, first firewall.State, socket firewall.Known) firewall.Known {
	set := ns.Route.Settings
	switch kind {
	case firewall.AnswerData:
		if first.Proto == firewall.TCP && set.TCPFwmarkAccept && first.Mark != (firewall.Known{}) {
			return first.Mark
		}
		return socket
	default:
		if first.Family == firewall.IPv4 && set.FwmarkReflect || first.Family == firewall.IPv6 && set.FwmarkReflect6 {
			return first.Mark
		}
		return firewall.Known{}
	}
}
