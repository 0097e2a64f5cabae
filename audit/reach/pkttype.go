package reach

import "github.com/hostaudit/hostaudit/firewall"

// The values of skb->pkt_type that matter.
const (
	packetHost      = 0
	packetOtherHost = 3
)

// A rule can make of a packet for this host one that was sent to all or to another
// one (`meta pkttype set`). pktTypeDrop tells who drops such a packet.
type pktTypeDrop func(*firewall.State) bool

// nobodys are dropped by ip_rcv_core and ip6_rcv_core.
func nobodys(s *firewall.State) bool { return s.PktType == packetOtherHost }

// broadcasts are not forwarded (ip_forward, ip6_forward).
func broadcasts(s *firewall.State) bool { return s.PktType != packetHost }

// tcpOnly: TCP discards what was not sent to this host alone (tcp_v4_rcv,
// tcp_v6_rcv), without an answer.
func tcpOnly(s *firewall.State) bool { return s.PktType != packetHost && s.Proto == firewall.TCP }

// forOthers drops the packets that rules made packets for others, and returns the
// rest.
func (w *walk) forOthers(p *path, cs []firewall.Class, drops ...pktTypeDrop) []firewall.Class {
	var out []firewall.Class
	for i := range cs {
		c := &cs[i] // not a copy, which would be made on the heap
		gone := false
		for _, d := range drops {
			gone = gone || d(&c.State)
		}
		switch {
		case gone:
			if out == nil {
				out = append([]firewall.Class{}, cs[:i]...)
			}
			by := witness{kind: ByRoute, ns: p.ns, text: "a rule changed the type of the packet (meta pkttype set): it is no longer taken for one to this host"}
			if w.answering {
				w.lost(p, *c, by)
			} else {
				w.finish(*c, p, Timeout, by, nil, "")
			}
		case out != nil:
			out = append(out, *c)
		}
	}
	if out == nil {
		return cs
	}
	return out
}
