package reach

import (
	"maps"
	"slices"

	"github.com/hostaudit/hostaudit/firewall"
)

// later is the way of the packets that a TCP client sends once the SYN-ACK has
// reached it. connect(2) has succeeded by then, and the listener knows nothing of
// it before the ACK arrives: a rule that lets new connections in and keeps the
// ACK out (`ct state new accept` before a drop, `ct state != established,related`
// that compares instead of testing bits) leaves a client that is connected to
// nothing.
type later struct {
	reply reply
	// first holds the SYN as it left each namespace on its way, or met its socket.
	first map[*Namespace]firewall.State
	// home and answerTracked are the namespace that the client talks to, and
	// whether the SYN-ACK found the connection there.
	home          *Namespace
	answerTracked bool
	trace         *trail // of the SYN and its answer
	again         int    // how often it was walked again
}

// state is that of the later packet as it comes into a namespace; ok is false
// where the SYN was not.
func (l *later) state(ns *Namespace, in *firewall.Link) (firewall.State, bool) {
	s, ok := l.first[ns]
	st := s.Later(in, ns != l.home || l.answerTracked)
	if st.TCPStrict = ns.Route != nil && ns.Route.Settings.TCPStrict; st.TCPStrict && st.Expect == firewall.CTNew {
		st.Expect = firewall.CTInvalid // tcp_new
	}
	return st, ok
}

// lateWhy is what an answer turns on whose ACK is kept out.
const lateWhy = "the SYN is answered and the client's next packet rejected: connect(2) succeeds or fails, whichever comes first, and nothing gets through"

// afterWhy is what an answer turns on whose ACK is dropped for some.
const afterWhy = "it drops what follows the handshake: the client's connect succeeds, and nothing gets through"

// follow walks the ACK of the clients whose SYN-ACK, class c, arrived on path p.
func (w *walk) follow(p *path, c firewall.Class) {
	l := &later{reply: w.reply, first: map[*Namespace]firewall.State{w.reply.path.ns: w.reply.first}, home: w.origin.ns, answerTracked: c.State.Tracked()}
	twice := false
	for f := w.reply.path.from; f != nil; f = f.from {
		_, seen := l.first[f.ns]
		twice = twice || seen
		l.first[f.ns] = f.state
	}
	// A TPROXY rule need not see the ACK: the connection is found by `socket`.
	if _, ok := l.first[l.home]; twice || !ok || w.reply.first.TProxied {
		w.finish(c, p, w.reply.sees, w.reply.by, w.reply.deliver, "")
		return
	}
	if c.State.CTState == firewall.CTInvalid && l.reply.path.ns.translatesOwn(c.State.Family) {
		// tcp_new: with nf_conntrack_tcp_loose the server's own ACKs start a flow.
		w.unknown(c, p, "address translation of what the server sends after the handshake: conntrack takes that for new connections")
		return
	}
	if ns := l.reply.path.ns; c.State.NextClash && ns.hasNATChain(c.State.Family) && !(ns.Route != nil && ns.Route.Settings.TCPStrict) {
		// nf_nat_alloc_null_binding finds another source port for it; what the client
		// resets then is translated back.
		w.unknown(c, p, "what the server sends after the handshake: conntrack takes it for a new connection and gives it another port, and whether the client's reset comes before its data are read")
		return
	}
	if w.leavesStrange(c) {
		w.unknown(c, p, "what the server sends after the handshake: it leaves with translated addresses that the client does not know")
		return
	}
	if c.State.Tracked() { // the answer may have changed it
		l.mark(l.home, c.State.CTMark)
	}
	l.first[l.home] = l.first[l.home].WithSetsOf(c.State)
	l.trace = w.trail(p, c)
	if w.unhindered(l, c) {
		w.finish(c, p, w.reply.sees, w.reply.by, w.reply.deliver, "")
		return
	}
	w.note(&c, "the ACK follows")
	c.State, _ = l.state(l.home, w.origin.in)
	q := &path{ns: l.home, trail: p.trail}
	answering, hops := w.answering, w.hops
	w.later, w.answering, w.hops = l, false, 0
	if w.origin.local {
		c.State.In = nil
		w.start(q, c)
	} else {
		w.arrive(q, w.origin.in, []firewall.Class{c})
	}
	w.later, w.answering, w.hops = nil, answering, hops
}

// leavesStrange reports whether the translation of a flow is undone for the SYN-ACK,
// class c, and surely or perhaps not for what the server sends then: rules that exempt
// packets by their flags.
func (w *walk) leavesStrange(c firewall.Class) bool {
	ns, first := w.reply.path.ns, w.reply.first
	if ns != w.origin.ns || w.origin.local || first.CTStatus&(firewall.CTStatusDstNAT|firewall.CTStatusSrcNAT) == 0 || !c.State.Tracked() {
		return false
	}
	d := c
	d.State = first.Answer(firewall.AnswerData, 0, 0).Acknowledging(c.State.Out)
	cs := []firewall.Class{d}
	for _, h := range []firewall.Hook{firewall.Output, firewall.Postrouting} {
		cs, _ = ns.Ruleset.Walk(h, cs, w.env(ns))
	}
	return slices.ContainsFunc(cs, func(d firewall.Class) bool {
		a, b := d.State, c.State
		return a.Local != b.Local || a.LocalPort != b.LocalPort || a.RemoteAddrKind != b.RemoteAddrKind || a.RemoteAddr != b.RemoteAddr
	})
}

// translatesOwn reports whether rules translate packets of a family that the namespace sends.
func (ns *Namespace) translatesOwn(f firewall.Family) bool {
	if ns.Ruleset == nil {
		return false
	}
	for _, t := range ns.Ruleset.Tables {
		for _, ch := range t.Chains {
			if b := ch.Base; !t.Dormant && t.Family.Sees(f) && b != nil && b.Type == firewall.ChainNAT && len(ch.Rules) > 0 && (b.Hook == firewall.Output || b.Hook == firewall.Postrouting) {
				return true
			}
		}
	}
	return false
}

// hasNATChain reports whether the NAT core sees the packets of a family.
func (ns *Namespace) hasNATChain(f firewall.Family) bool {
	return ns.Ruleset != nil && slices.ContainsFunc(ns.Ruleset.Tables, func(t *firewall.Table) bool {
		return !t.Dormant && t.Family.Sees(f) && slices.ContainsFunc(t.Chains, func(ch *firewall.Chain) bool { return ch.Base != nil && ch.Base.Type == firewall.ChainNAT })
	})
}

// unhindered reports that the ACK surely takes the way of the SYN to a socket of
// the namespace that the client talks to: no rule ends it, and nothing that the
// routing looks at is another. It spares the routing of many sources; false
// means only that the way has to be walked.
func (w *walk) unhindered(l *later, c firewall.Class) bool {
	first := &l.reply.first
	if w.origin.local || w.reply.path.from != nil || w.record != firewall.RecordNothing || l.home.Ruleset == nil {
		return false
	}
	d := c
	d.State, _ = l.state(l.home, w.origin.in)
	w.later = l
	defer func() { w.later = nil }()
	for _, h := range []firewall.Hook{firewall.Ingress, firewall.Prerouting, firewall.Input} {
		d.State.Routed = h == firewall.Input
		pass, ends := l.home.Ruleset.Walk(h, []firewall.Class{d}, w.env(l.home))
		if len(ends) > 0 || len(pass) != 1 || pass[0].Forks != c.Forks {
			return false
		}
		d = pass[0]
		st := &d.State
		if st.PktType != packetHost || st.Clash || st.CTMark != l.first[l.home].CTMark || !st.SameSets(l.first[l.home]) {
			return false
		}
		if h == firewall.Prerouting && (st.Mark != (firewall.Known{}) || w.reply.path.marked || st.Local != first.Local || st.LocalPort != first.LocalPort || st.TProxied) {
			return false
		}
	}
	return true
}

// mark sets the connection mark that later packets find in a namespace.
func (l *later) mark(ns *Namespace, to firewall.Known) {
	s := l.first[ns]
	s.CTMark = to
	l.first[ns] = s
}

// maxAgain bounds how often later packets are walked again because the one before
// changed the mark of the connection, or a set.
const maxAgain = 3

// met: the ACK came to a socket.
func (w *walk) met(p *path, c firewall.Class) {
	l, first := w.later, w.later.reply.first
	was := l.first[p.ns]
	marked := c.State.CTMark != was.CTMark && c.State.Tracked()
	if marked || !c.State.SameSets(was) {
		switch {
		case p.ns == l.home && !w.origin.local && l.again < maxAgain:
		case marked:
			w.unknown(c, p, "the connection mark, which the client's own packets change")
			return
		default:
			w.unknown(c, p, "a set, which the client's own packets change")
			return
		}
		again := *l
		again.first = maps.Clone(l.first)
		again.again++
		if marked {
			again.mark(l.home, c.State.CTMark)
		}
		again.first[l.home] = again.first[l.home].WithSetsOf(c.State)
		w.later = &again
		c.State, _ = again.state(l.home, w.origin.in)
		w.arrive(&path{ns: l.home, trail: w.trail(p, c)}, w.origin.in, []firewall.Class{c})
		w.later = l
		return
	}
	if p.ns != l.reply.path.ns || c.State.Local != first.Local || c.State.LocalPort != first.LocalPort {
		w.finish(c, p, Timeout, witness{kind: ByRoute, ns: p.ns, text: "the packets after the SYN go to another socket"}, nil, "")
		return
	}
	w.finish(c, p, l.reply.sees, l.reply.by, l.reply.deliver, "")
}

// ending turns the end of an ACK into what becomes of the connection.
func (l *later) ending(f *final) {
	if f.sees == Connected {
		f.trace = l.trace
		return
	}
	switch f.late = true; f.sees {
	case Timeout:
		f.sees, f.after = Connected, Timeout
	case Refused, Unreachable:
		// The error meets a socket whose connect has succeeded, or not yet: which
		// of the two comes first is a race in the client's kernel.
		f.sees, f.why = Depends, lateWhy
	}
}
