package reach

import (
	"net/netip"

	"github.com/hostaudit/hostaudit/firewall"
)

// TooBig is how a router's message fares that a packet of an established
// connection does not fit into the next link: ICMP "fragmentation needed" (type
// 3, code 4), ICMPv6 "packet too big" (type 2). Where it is dropped, the sender
// never learns the path's MTU (RFC 2923, 2.1).
type TooBig struct {
	// Sees is Connected where the message gets to the socket, Timeout where it is
	// thrown away, Depends where that cannot be told or turns on the router.
	Sees Sees
	// By is what decides, nil where nothing stands in the way.
	By *DecidedBy
}

// TooBig asks for messages from any router about a connection that clients have
// to an address and port of the audited namespace, coming in by a link.
func (e *Evaluator) TooBig(to netip.Addr, port uint16, iif string) TooBig {
	ns := e.home()
	to = to.Unmap()
	in := linkNamed(ns, iif)
	if ns.Route == nil || ns.Ruleset == nil || in == nil {
		return TooBig{Sees: Depends}
	}
	f := firewall.FamilyOf(to)
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	st := firewall.First(f, firewall.TCP, firewall.AddrValue(to.WithZone("")), port)
	st.Proto, st.TCPFlags, st.ICMPType, st.ICMPCode = firewall.ICMP, 0, 3, 4
	if f == firewall.IPv6 {
		st.Proto, st.ICMPType, st.ICMPCode = firewall.ICMPv6, 2, 0
		all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	// nf_conntrack_inet_error: conntrack knows it by the packet that it quotes.
	st.Expect, st.DstNATInit, st.SrcNATInit = firewall.CTRelated, true, true
	st.FlowZoneDir = firewall.ZoneSame
	w := e.newWalk(AnswerOnly)
	w.logAccepts, w.notice = false, true
	w.origin = origin{ns, in, false, st}
	w.proto = st.Proto
	w.arrive(&path{ns: ns}, in, []firewall.Class{{Remote: firewall.Prefix(all), Ports: unprivileged(), State: st}})
	out := TooBig{Sees: Connected}
	passes := false
	for _, l := range w.finals {
		switch {
		case l.sees == Connected:
			passes = true
			continue
		case l.by.kind != ByRule && l.by.kind != ByPolicy && l.sees != Depends:
			continue // sources that no router has
		}
		if out.By == nil || l.sees == Depends {
			by := l.by.show()
			out.By = &by
		}
		if out.Sees != Depends {
			out.Sees = l.sees
		}
	}
	if passes && out.Sees == Timeout { // some routers' messages get in
		out.Sees = Depends
	}
	return out
}
