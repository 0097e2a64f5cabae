package diagnose

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

const ipTCP = unix.IPPROTO_TCP

// seen is everything that is known of one attempt when it is judged: plain
// values, from which judgeFlow makes the sighting.
type seen struct {
	f             *flow
	before, after *worldView // the readings around it; after may be the same one
	x, y          expectation
	// w is the window of the question's packets, r that of the RSTs.
	w, r           window
	counted, reset bool // they could be read
	now            time.Time
}

// verdict is what a way of reasoning comes to.
type verdict struct {
	end   Ending
	id    ID
	sure  Verdict
	by    *reach.DecidedBy
	face  *face
	conds []reach.Condition
	ev    []audit.Evidence
	// odd is where packets and model disagree.
	odd string
}

func (v *verdict) add(source, format string, args ...any) {
	v.ev = append(v.ev, evidence(source, format, args...))
}

// judgeFlow says where an attempt ended.
func judgeFlow(s *seen) verdict {
	f := s.f
	var v verdict
	switch {
	case f.vlan != 0 && f.answered.count+f.reset.count+f.refused.count == 0:
		return s.otherVLAN()
	case f.proto != ipTCP:
		v = s.datagrams()
	case f.answered.count > 0:
		v = s.handshake()
	case f.reset.count > 0:
		v = s.refusedByReset()
	case f.refused.count > 0:
		v = s.refusedByICMP()
	default:
		v = s.silent()
	}
	if !s.x.same(&s.y) && s.x.f.by.Kind != reach.ByBacklog && s.y.f.by.Kind != reach.ByBacklog { // a queue fills and empties all the time
		v.add("model", "the host changed meanwhile: before, it said %s; after, %s", s.x.words(), s.y.words())
		switch v.end {
		case EndDropped, EndRejected, EndClosed, EndAnswerDrop, EndNoWayBack, EndRPFilter:
			if v.sure == Confirmed && v.by != nil {
				v.sure = Likely
			}
		}
	}
	return v
}

// words is what the model expects, for sentences.
func (x *expectation) words() string {
	if !x.known {
		return "nothing (" + x.why + ")"
	}
	by := x.f.by
	s := x.a.Words()
	if by.Kind != reach.ByOpen && by.Kind != "" {
		s += " (" + witnessName(&by) + ")"
	}
	return s
}

// expects tells that the model says this, before and after.
func (s *seen) expects(sees ...Sees) bool {
	for _, want := range sees {
		if s.y.known && s.y.f.sees == want {
			return true
		}
	}
	return false
}

// blame takes over the model's witness.
func (s *seen) blame(v *verdict) {
	by := s.y.f.by
	v.by, v.face, v.conds = &by, &s.y.f, s.y.a.Conditions
}

// handshake judges an attempt that was answered with a SYN-ACK.
func (s *seen) handshake() verdict {
	f := s.f
	v := verdict{sure: Confirmed}
	v.add("packets", "%s in, %s out after %s", times(f.asked.count, "SYN"), times(f.answered.count, "SYN-ACK"), ms(f.answered.first().Sub(f.asked.first())))
	if s.expects(Timeout, Refused, Unreachable) && s.x.same(&s.y) && !s.y.f.after {
		v.odd = fmt.Sprintf("by the model the client sees %s, and it was answered", s.y.words())
	}
	// Where packets are forwarded (address translation) the socket is not here.
	away := s.y.known && s.y.forwarded()
	over := f.closedHere || f.closedThere || f.cut
	done := f.acked || over || f.sock.established
	switch {
	case f.gaveUp && !f.sock.established:
		v.end, v.sure = EndGaveUp, Confirmed
		v.add("packets", "the client answered the SYN-ACK with a reset: it no longer waits, or it only looked whether the port is open")
	case f.sock.inode != 0:
		v.end = EndServed
		v.add("socket", "accepted, seen %s after the SYN", ms(f.sock.acceptedAt.Sub(f.asked.first())))
	case s.overflowed() && (f.reset.count > 0 || !done || f.sock.state == tcpNewSynRecv || f.sock.state == tcpSynRecv):
		v.end, v.id = EndQueueFull, QueueFull
		v.add("counters", "%s rose by %d: the handshake could not be completed at a full accept queue", listeners.ListenOverflows, s.w.delta[listeners.ListenOverflows])
		s.queue(&v)
	case f.sock.established && !f.sock.gone && f.sock.state != tcpTimeWait && !f.closedHere && !f.cut:
		v.end, v.id, v.sure = EndNotAccepted, QueueFull, Confirmed
		v.add("socket", "established, and held by no process %s after the SYN: it waits in the accept queue", ms(f.sock.at.Sub(f.asked.first())))
		s.queue(&v)
	case f.sock.state == tcpNewSynRecv || f.sock.state == tcpSynRecv || f.answered.count > 1 && !done:
		s.notAcknowledged(&v)
	case f.closedHere:
		v.end = EndServed
		v.add("packets", "this host closed the connection in good order: a process had it")
	case f.sock.established || over:
		v.end = EndServed
		v.add("socket", "the handshake was completed, and the connection was over before a process could be seen to hold it")
		if f.reset.count > 0 {
			v.add("packets", "this host reset the connection afterwards")
		}
	case f.acked:
		v.end = EndServed
		v.add("packets", "the client acknowledged")
	case away:
		v.end = EndServed
		if f.answered.count == 1 && s.now.Sub(f.answered.last) < 1200*time.Millisecond {
			v.sure = Likely
		}
		v.add("packets", "the answer came from where the rules lead the connection; it was not sent again")
	case f.reset.count > 0:
		v.end = EndServed
		v.add("packets", "this host reset the connection afterwards")
	case f.sock.gone && s.w.rose(listeners.PassiveOpens, 1):
		v.end, v.sure = EndServed, Likely
		v.add("counters", "%s rose: a handshake was completed; the connection is over already", listeners.PassiveOpens)
	default:
		v.end, v.sure = EndUnderWay, CannotTell
		if s.counted && s.w.delta[listeners.SyncookiesSent] > 0 {
			v.add("counters", "SYN cookies were sent (%d): whether the client acknowledged cannot be seen", s.w.delta[listeners.SyncookiesSent])
		}
	}
	if v.end == EndServed && s.expects(Connected) {
		s.blame(&v)
		v.conds = nil
	}
	return v
}

// notAcknowledged judges a SYN-ACK that was sent again.
func (s *seen) notAcknowledged(v *verdict) {
	f := s.f
	age := s.now.Sub(f.answered.first())
	switch {
	case f.acked && age > time.Second:
		v.end, v.id, v.sure = EndAckIgnored, ReplyPath, Likely
		if s.y.known && s.y.f.after && s.x.same(&s.y) {
			s.blame(v)
			v.id, v.sure = HostFirewall, Confirmed
			v.add("packets", "the client's acknowledgement arrived here, and the handshake is not complete")
			v.add("model", "%s drops what follows the SYN", witnessName(v.by))
			return
		}
		v.add("packets", "the client's acknowledgement arrived here, and the handshake is not complete: a rule drops what follows a SYN, or the accept queue was full")
	case f.answered.count > 1:
		v.end, v.id = EndAnswerLost, ReplyPath
		v.sure = Likely
		if f.followed {
			v.sure = Confirmed
			v.add("packets", "no segment of the client came after it, retransmissions included")
		}
	case age > 900*time.Millisecond:
		v.end, v.id, v.sure = EndAnswerLost, ReplyPath, Likely
		v.add("socket", "%s after the SYN-ACK the client has not acknowledged it", ms(age))
	default:
		v.end, v.sure = EndUnderWay, CannotTell
	}
}

// overflowed tells that connections were dropped at a full accept queue in the
// window of the attempt.
func (s *seen) overflowed() bool {
	return s.counted && s.w.rose(listeners.ListenOverflows, 1)
}

// queue adds the accept queue as it was last read.
func (s *seen) queue(v *verdict) {
	for _, l := range s.after.onPort(s.f.proto, s.f.to.Port()) {
		if l.Proto.Datagram() {
			continue
		}
		who := processName(l)
		v.add("accept queue", "%s%s: %d of %d", l.Subject(), who, l.Accept.Len, l.Accept.Limit)
		for _, p := range l.Owners {
			if share, known := p.Files.Fill(); known && share >= 0.95 {
				v.add("descriptors", "%s, pid %d: %d of %d open", p.Comm, p.PID, p.Files.Open, p.Files.Soft)
			}
		}
	}
}

// refusedByReset judges an attempt that was answered with a RST.
func (s *seen) refusedByReset() verdict {
	f := s.f
	v := verdict{sure: Confirmed}
	v.add("packets", "%s in, RST out after %s", times(f.asked.count, "SYN"), ms(f.reset.first().Sub(f.asked.first())))
	// The kernel counts the RSTs that it sends for want of a socket; those of
	// netfilter it does not (nf_send_reset), nor those it only forwards.
	counted := s.reset && s.r.known(listeners.OutResets)
	kernel := counted && s.r.delta[listeners.OutResets] >= uint64(max(f.reset.count, 1))
	other := counted && s.r.delta[listeners.OutResets] == 0
	if counted {
		v.add("counters", "Tcp.OutRsts +%d while %s left for this port", s.r.delta[listeners.OutResets], times(s.r.reset, "RST"))
	}
	rule := s.expects(Refused) && (s.y.f.by.Kind == reach.ByRule || s.y.f.by.Kind == reach.ByPolicy)
	closed := s.expects(Refused) && (s.y.f.by.Kind == reach.ByNoListener || s.y.f.by.Kind == reach.ByBindAddress)
	away := s.y.known && s.y.forwarded()
	switch {
	case rule && !kernel, rule && s.ruleMoved(&v):
		v.end, v.id = EndRejected, new(judge).firewallID(&s.y.f)
		s.blame(&v)
		if !counted {
			v.sure = Likely
		}
	case rule && counted && s.r.noise(listeners.OutResets) > 0.5:
		// Other ports' resets move the counter as well.
		v.end, v.id, v.sure = EndRejected, new(judge).firewallID(&s.y.f), Likely
		s.blame(&v)
	case rule:
		v.end, v.id, v.sure = EndClosed, NotListening, Likely
		v.odd = fmt.Sprintf("by the model %s rejects it, and the kernel counted the RST as its own: nothing listened", witnessName(&s.y.f.by))
	case closed && (kernel || away || !counted):
		v.end, v.id = EndClosed, NotListening
		if s.y.f.by.Kind == reach.ByBindAddress {
			v.id = BindAddress
		}
		s.blame(&v)
		if !counted && !away {
			v.sure = Likely
		}
	case other && !away:
		v.end, v.id, v.sure = EndRejected, RejectedByFirewall, Likely
		v.odd = fmt.Sprintf("by the model the client sees %s; the RST is not the kernel's own, so a rule or program made it", s.y.words())
	case kernel:
		v.end, v.id, v.sure = EndClosed, NotListening, Likely
		v.odd = fmt.Sprintf("by the model the client sees %s; the kernel counted the RST as its own: nothing listened at that moment", s.y.words())
	case away:
		v.end, v.id, v.sure = EndClosed, NotListening, Likely
		v.add("packets", "the RST came from where the connection is forwarded to")
		s.blame(&v)
	default:
		v.end, v.id, v.sure = EndClosed, "", CannotTell
		v.odd = fmt.Sprintf("by the model the client sees %s; it got a RST", s.y.words())
	}
	return v
}

// ruleMoved adds what the rule's own counter did; true where it rose.
func (s *seen) ruleMoved(v *verdict) bool {
	n, known := movedOf(&s.x, &s.y)
	if !known || s.before == s.after {
		return false
	}
	v.add("counter of the rule", "+%d", n)
	return n > 0
}

// refusedByICMP judges an attempt that was answered with an ICMP error.
func (s *seen) refusedByICMP() verdict {
	f := s.f
	v := verdict{sure: Confirmed}
	v.add("packets", "%s in, %s out after %s", times(f.asked.count, "SYN"), f.icmp.String(), ms(f.refused.first().Sub(f.asked.first())))
	own := s.after.local(f.icmp.From)
	switch {
	case s.expects(Refused, Unreachable) && (s.y.f.by.Kind == reach.ByRule || s.y.f.by.Kind == reach.ByPolicy):
		v.end, v.id = EndRejected, new(judge).firewallID(&s.y.f)
		s.blame(&v)
		s.ruleMoved(&v)
	case s.expects(Unreachable):
		v.end, v.id = EndNoWayBack, ReplyPath
		if s.y.f.by.Kind != reach.ByRoute {
			v.end, v.id = EndRejected, RejectedByFirewall
		}
		s.blame(&v)
	case s.expects(NotKnown):
		v.end, v.id, v.sure = EndRejected, RejectedByFirewall, Likely
		s.blame(&v)
	case own:
		v.end, v.id, v.sure = EndRejected, RejectedByFirewall, Likely
		v.odd = fmt.Sprintf("by the model the client sees %s; this host answered with an ICMP error", s.y.words())
	default:
		v.end, v.id, v.sure = EndRejected, RejectedByFirewall, Likely
		v.add("packets", "the error comes from %s, where the connection is forwarded to", f.icmp.From)
	}
	return v
}
