package diagnose

import (
	"fmt"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// claim is what the counters say about a question without an answer.
type claim struct {
	end Ending
	id  ID
	ev  audit.Evidence
}

// claims reads the fingerprint of an attempt with n questions: which counters
// rose by as much, and do not rise without them. The first is the most special.
func (s *seen) claims(n int) []claim {
	if !s.counted || n == 0 {
		return nil
	}
	w := &s.w
	six := s.f.from.Addr().Is6()
	var out []claim
	add := func(end Ending, id ID, format string, args ...any) {
		out = append(out, claim{end, id, evidence("counters", format, args...)})
	}
	if s.f.proto == ipTCP {
		if w.rose(listeners.ListenOverflows, n) {
			add(EndQueueFull, QueueFull, "TcpExt.ListenOverflows +%d for %s: dropped at a full accept queue", w.delta[listeners.ListenOverflows], times(n, "SYN"))
		}
		if w.rose(ipCounter(six, "OutNoRoutes"), n) && w.rose(listeners.ListenDrops, n) && w.delta[listeners.ListenOverflows] == 0 {
			add(EndNoWayBack, ReplyPath, "%s +%d and TcpExt.ListenDrops +%d without overflows: no route for the SYN-ACK", ipCounter(six, "OutNoRoutes"), w.delta[ipCounter(six, "OutNoRoutes")], w.delta[listeners.ListenDrops])
		}
		if w.rose(listeners.ReqQFullDrop, n) {
			add(EndQueueFull, QueueFull, "TcpExt.TCPReqQFullDrop +%d: the SYN queue is full and SYN cookies are off", w.delta[listeners.ReqQFullDrop])
		}
	} else if w.rose(udpCounter(six, "RcvbufErrors"), n) {
		add(EndQueueFull, QueueFull, "%s +%d for %s: the socket's buffer is full, the process does not read", udpCounter(six, "RcvbufErrors"), w.delta[udpCounter(six, "RcvbufErrors")], times(n, "datagram"))
	}
	if !six && w.rose(listeners.ReversePathFiltered, n) {
		add(EndRPFilter, ReplyPath, "TcpExt.IPReversePathFilter +%d for %s", w.delta[listeners.ReversePathFiltered], s.unit(n))
	}
	if w.dropped >= uint64(n) && w.dropped > 0 {
		add(EndConntrack, ConntrackFull, "connection tracking dropped %d packets", w.dropped)
	}
	if out4, tx := ipCounter(six, "OutRequests"), ipCounter(six, "OutTransmits"); w.known(out4) && w.known(tx) && s.delivered(n) {
		if lost := int64(w.delta[out4]) - int64(w.delta[tx]); lost >= int64(n) && w.noise(out4)-w.noise(tx) < float64(n)/2 {
			add(EndAnswerDrop, ReplyPath, "%s +%d, %s +%d: %d answers were made and did not leave", out4, w.delta[out4], tx, w.delta[tx], lost)
		}
	}
	return out
}

// delivered tells that the counters fit packets that passed the input rules.
func (s *seen) delivered(n int) bool {
	six := s.f.from.Addr().Is6()
	return s.w.delta[ipCounter(six, "InDelivers")] >= uint64(n)
}

// depth says how far packets got by the IP counters, for evidence; "" where other
// traffic hides it.
func (s *seen) depth(n int) (e audit.Evidence, kept, early bool) {
	six := s.f.from.Addr().Is6()
	in, del := ipCounter(six, "InReceives"), ipCounter(six, "InDelivers")
	if !s.counted || !s.w.known(in) || !s.w.known(del) || s.w.noise(in) >= float64(n)/2 {
		return e, false, false
	}
	i, d := s.w.delta[in], s.w.delta[del]
	switch {
	case i < uint64(n):
		return evidence("counters", "%s +%d for %s: dropped before the IP layer", in, i, s.unit(n)), false, true
	case d == 0 || i-min(d, i) >= uint64(n):
		return evidence("counters", "%s +%d, %s +%d for %s: dropped before the socket", in, i, del, d, s.unit(n)), true, false
	}
	return evidence("counters", "%s +%d, %s +%d for %s", in, i, del, d, s.unit(n)), false, false
}

func (s *seen) unit(n int) string {
	if s.f.proto == ipTCP {
		return times(n, "SYN")
	}
	return times(n, "datagram")
}

// otherVLAN judges a question that no interface took the tag off: to the kernel
// such a frame is another host's (__netif_receive_skb_core).
func (s *seen) otherVLAN() verdict {
	v := verdict{end: EndOtherVLAN, sure: Confirmed}
	v.add("packets", "%s in, tagged for VLAN %d, and on no interface without that tag; no answer out", s.unit(s.f.asked.count), s.f.vlan)
	return v
}

// silent judges an attempt without any answer on the wire.
func (s *seen) silent() verdict {
	n := s.f.asked.count
	v := verdict{sure: Confirmed}
	v.add("packets", "%s in, no answer out", s.unit(n))
	counted := min(n, maxTimes)
	claims := s.claims(counted)
	e, kept, early := s.depth(counted)
	if e.Value != "" && len(claims) == 0 {
		v.ev = append(v.ev, e)
	}
	by := s.y.f.by
	end, id := s.silentEnding()
	rule := by.Kind == reach.ByRule || by.Kind == reach.ByPolicy
	switch {
	case end != "" && s.y.f.sees == Timeout:
		moved, known := int64(0), false
		if s.before != s.after {
			moved, known = movedOf(&s.x, &s.y)
		}
		other := len(claims) > 0 && claims[0].end != end && (rule || by.Kind == reach.ByRoute)
		switch {
		case known && moved < int64(counted) && len(claims) > 0 && claims[0].end != end, other && !known && end == EndDropped && s.delivered(counted) && !kept:
			// The packets say otherwise.
			v.odd = fmt.Sprintf("by the model %s stops it, and what moved says otherwise", witnessName(&by))
			s.claimed(&v, claims[0])
			v.sure = Likely
			return v
		}
		v.end, v.id = end, id
		s.blame(&v)
		for _, c := range claims {
			if c.end == end {
				v.ev = append(v.ev, c.ev)
			}
		}
		switch {
		case known && moved >= int64(counted):
			v.add("counter of the rule", "+%d for %s", moved, s.unit(counted))
		case known:
			v.add("counter of the rule", "+%d for %s", moved, s.unit(counted))
			v.sure = Likely
			if moved == 0 {
				v.odd = fmt.Sprintf("by the model %s stops it, and that rule's counter did not move", witnessName(&by))
			}
		}
		if by.Kind == reach.ByBacklog {
			s.queue(&v)
		}
	case len(claims) > 0:
		s.claimed(&v, claims[0])
		if s.y.known && s.y.f.sees != NotKnown && v.end != EndQueueFull && v.end != EndConntrack {
			// A full queue comes and goes: no reading of the host can foresee it.
			v.odd = fmt.Sprintf("by the model the client sees %s", s.y.words())
		}
	case s.expects(NotKnown):
		s.condition(&v, counted, early)
	case early:
		v.end, v.id, v.sure = EndDropped, HostFirewall, Likely
		v.odd = fmt.Sprintf("by the model the client sees %s; something before the IP layer dropped it (a program, tc, an ingress chain)", s.y.words())
	default:
		v.end, v.sure = EndUnexplained, CannotTell
		v.odd = fmt.Sprintf("by the model the client sees %s, and no answer left", s.y.words())
	}
	return v
}

// claimed takes over what the counters say.
func (s *seen) claimed(v *verdict, c claim) {
	v.end, v.id = c.end, c.id
	v.ev = append(v.ev, c.ev)
	if c.end == EndQueueFull {
		s.queue(v)
	}
}

// silentEnding is the ending that the model expects of an attempt that gets no
// answer; "" where it expects one.
func (s *seen) silentEnding() (Ending, ID) {
	if !s.y.known || s.y.f.sees != Timeout {
		return "", ""
	}
	f := &s.y.f
	switch f.by.Kind {
	case reach.ByRule, reach.ByPolicy:
		id := new(judge).firewallID(f)
		if id == ReplyPath || s.y.answered {
			return EndAnswerDrop, ReplyPath
		}
		return EndDropped, id
	case reach.ByProgram:
		return EndDropped, HostFirewall
	case reach.ByRPFilter:
		return EndRPFilter, ReplyPath
	case reach.ByRoute, reach.BySysctl:
		return EndNoWayBack, ReplyPath
	case reach.ByBacklog:
		return EndQueueFull, QueueFull
	case reach.ByNoListener, reach.ByBindAddress, reach.ByOpen:
		return EndAnswerDrop, ReplyPath // the RST was stopped
	}
	return "", ""
}

// condition judges an attempt whose end the model lets depend on something.
func (s *seen) condition(v *verdict, n int, early bool) {
	v.end, v.id, v.sure = EndUnexplained, "", CannotTell
	s.blame(v)
	for _, c := range v.conds {
		moved, known := int64(0), false
		if s.before != s.after {
			moved, known = conditionMoved(s.before, s.after, c)
		}
		if known && moved >= int64(n) {
			v.add("counter of the rule", "%s #%d: +%d", c.Chain, c.Number, moved)
			v.end, v.id, v.sure = EndDropped, HostFirewall, Likely
			by := reach.DecidedBy{Kind: reach.ByRule, Backend: c.Backend, Family: c.Family, Table: c.Table, Chain: c.Chain, Number: c.Number, Handle: c.Handle, Text: c.Text, Namespace: c.Namespace}
			face := s.y.f
			face.by = by
			v.by, v.face = &by, &face
		}
	}
	if v.end == EndUnexplained && early {
		v.end, v.id, v.sure = EndDropped, HostFirewall, Likely
	}
}
