package diagnose

import (
	"fmt"

	"github.com/hostaudit/hostaudit/audit/reach"
)

// datagrams judges what came of UDP datagrams.
func (s *seen) datagrams() verdict {
	f := s.f
	v := verdict{sure: Confirmed}
	six := f.from.Addr().Is6()
	n := min(f.asked.count, maxTimes)
	noPorts := udpCounter(six, "NoPorts")
	switch {
	case f.answered.count > 0:
		v.end = EndServed
		v.add("packets", "%s in, %s out, the first after %s", times(f.asked.count, "datagram"), times(f.answered.count, "datagram"), ms(f.answered.first().Sub(f.asked.first())))
		if s.expects(Timeout, Refused, Unreachable) && s.x.same(&s.y) {
			v.odd = fmt.Sprintf("by the model the client sees %s, and it was answered", s.y.words())
		}
		if s.expects(Connected) {
			s.blame(&v)
			v.conds = nil
		}
		return v
	case f.refused.count > 0:
		// A closed port counts as Udp.NoPorts; a rule's REJECT does not.
		v = s.refusedByICMP()
		v.ev[0] = evidence("packets", "%s in, %s out", times(f.asked.count, "datagram"), f.icmp.String())
		closed := s.expects(Refused) && (s.y.f.by.Kind == reach.ByNoListener || s.y.f.by.Kind == reach.ByBindAddress)
		moved := s.counted && s.w.delta[noPorts] >= uint64(min(n, f.refused.count))
		if s.counted {
			v.add("counters", "%s +%d", noPorts, s.w.delta[noPorts])
		}
		away := s.y.known && s.y.forwarded()
		switch {
		case closed && (moved || away || !s.counted):
			v.end, v.id, v.sure, v.odd = EndClosed, NotListening, Confirmed, ""
			if !s.counted && !away { // a rule's error looks the same
				v.sure = Likely
			}
			if s.y.f.by.Kind == reach.ByBindAddress {
				v.id = BindAddress
			}
			s.blame(&v)
		case closed:
			v.end, v.id, v.sure = EndRejected, RejectedByFirewall, Likely
			v.odd = fmt.Sprintf("by the model %s, and %s did not move: a rule made the error", witnessName(&s.y.f.by), noPorts)
		}
		return v
	case s.expects(Connected), s.expects(Timeout) && len(s.y.a.Deliveries()) > 0:
		in := udpCounter(six, "InDatagrams")
		if cs := s.claims(n); len(cs) > 0 {
			v.add("packets", "%s in, no answer out", times(f.asked.count, "datagram"))
			s.claimed(&v, cs[0])
			return v
		}
		if s.counted && s.w.delta[in] >= uint64(n) {
			v.end, v.sure = EndNoAnswer, Confirmed
			v.add("packets", "%s in, no answer out", times(f.asked.count, "datagram"))
			v.add("counters", "%s +%d: read by the process", in, s.w.delta[in])
			if s.w.noise(in) >= float64(n)/2 {
				v.sure = Likely
			}
			s.blame(&v)
			v.by = nil
			return v
		}
		if !s.y.forwarded() && s.counted && s.delivered(n) && s.w.delta[noPorts] == 0 {
			v.end, v.sure = EndNoAnswer, Likely
			v.add("packets", "%s in, no answer out", times(f.asked.count, "datagram"))
			v.add("counters", "%s +%d, %s +0: in the socket's buffer, not read by the process", ipCounter(six, "InDelivers"), s.w.delta[ipCounter(six, "InDelivers")], noPorts)
			return v
		}
		if s.y.forwarded() {
			v.end, v.sure = EndNoAnswer, Likely
			v.add("packets", "%s in, forwarded by the rules; no answer came back", times(f.asked.count, "datagram"))
			return v
		}
	}
	return s.silent()
}
