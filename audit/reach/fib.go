package reach

import (
	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/firewall"
)

// fib answers the routing questions of rules.
type fib struct{ *route.Table }

// FIB answers the routing questions of rules from a routing table.
func FIB(t *route.Table) firewall.FIB { return fib{t} }

const loopback = 772 // ARPHRD_LOOPBACK

// AddrType is `fib … type` and, for IPv4, xt_addrtype.
func (t fib) AddrType(addrs firewall.Ranges, q firewall.FIBQuery) []firewall.FIBPart {
	if q.Family == firewall.IPv6 && q.OtherUnknown {
		dev := q.In
		if dev == nil {
			dev = q.Out
		}
		return t.Table.AddrType(q.Family, addrs, dev)
	}
	return t.FIBType(addrs, query(q))
}

// OutIndex is `fib … oif`.
func (t fib) OutIndex(addrs firewall.Ranges, q firewall.FIBQuery) []firewall.FIBPart {
	rules := t.Rules4
	if q.Family == firewall.IPv6 {
		rules = t.Rules6
	}
	if q.OtherUnknown && len(rules) > 3 {
		return []firewall.FIBPart{{Addrs: addrs, Unknown: "the routing rules, for many other addresses at once"}}
	}
	return t.FIBOut(addrs, query(q))
}

// Realms is the realm of the route to a socket of this host.
func (t fib) Realms(srcs firewall.Ranges, in *firewall.Link, dst firewall.Value) []firewall.FIBPart {
	if in.Type != loopback {
		return t.InputRealm(srcs, dst, in)
	}
	realm, ok := t.OwnRealm(dst)
	p := firewall.FIBPart{Addrs: srcs, Value: realm}
	if !ok {
		p.Unknown = "the realm of the route"
	}
	return []firewall.FIBPart{p}
}

// LinkName is the name of the interface with an index.
func (t fib) LinkName(index int) string {
	if l := t.Link(index); l != nil {
		return l.Name
	}
	return ""
}

func query(q firewall.FIBQuery) route.FIBQuery {
	none := firewall.Single(firewall.Value{})
	return route.FIBQuery{
		Key:   route.Key{Family: q.Family, Mark: firewall.Known{Value: q.Mark}, Proto: q.Proto, Sport: none, Dport: none},
		Other: q.Other, In: q.In, Out: q.Out, PacketIn: q.PacketIn, PacketOut: q.PacketOut,
		Inbound:       q.PacketIn != nil && q.PacketOut == nil,
		ForwardSource: q.PacketIn != nil && q.PacketOut != nil && q.Source && q.In != nil,
	}
}
