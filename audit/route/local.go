package route

import (
	"net/netip"

	"github.com/hostaudit/hostaudit/firewall"
)

// LocalAddrs is a set of addresses the local table makes this host's own on an
// interface. It is not always a set of configured addresses: `ip route add local
// 10.0.0.0/8 dev lo` makes a whole network local (AnyIP).
type LocalAddrs struct {
	Link  *Link
	Addrs firewall.Ranges
}

// LocalAddrs lists the addresses of family f that the local table makes local,
// by interface in the order of the links. Local routes in other tables, which
// count for some packets only (TPROXY), are found by [Table.Input] alone.
func (t *Table) LocalAddrs(f firewall.Family) []LocalAddrs {
	d := t.domain(f)
	fb := d.fibs[tableLocal]
	if f == firewall.IPv4 && d.customRules == no {
		fb = d.merged
	}
	if fb == nil {
		return nil
	}
	byLink := map[*Link]firewall.Ranges{}
	add := func(set firewall.Ranges, k resolveKey) {
		for _, p := range fb.lookup(t, set, k) {
			if p.unknown == "" && p.err == 0 && p.route.Type == typeLocal {
				l := t.resultLink(p.result)
				byLink[l] = byLink[l].Union(p.addrs)
			}
		}
	}
	whole := firewall.All(f.AddrLen())
	if f == firewall.IPv6 {
		add(whole.Minus(linklocal6), resolveKey{})
		for _, l := range t.Links {
			add(linklocal6, resolveKey{oif: l.Index, iface: true})
		}
	} else {
		add(whole, resolveKey{})
	}
	var out []LocalAddrs
	for _, l := range t.Links {
		if a := byLink[l]; !a.Empty() {
			out = append(out, LocalAddrs{l, a})
		}
	}
	return out
}

// SendsFrom6 reports whether an IPv6 socket that is bound to no address may send
// datagrams from the given one (IPV6_PKTINFO), which the local table makes local:
// one that an interface has, any with net.ipv6.ip_nonlocal_bind or, which is for the
// caller to know, with IP_FREEBIND or IP_TRANSPARENT (ip6_datagram_send_ctl). IPv4
// asks the local table alone (ip_route_output_key_hash_rcu).
func (t *Table) SendsFrom6(addr firewall.Value) bool {
	if t.Settings.NonlocalBind6 {
		return true
	}
	for _, a := range t.Addrs {
		if a.Family == firewall.IPv6 && a.value() == addr && !a.Tentative() {
			return true
		}
	}
	return false
}

// IifFor is the interface that packets from an address are expected by: the one
// the route back to it names. It is lo for addresses of this host, and nil where
// there is no route, or several ways, or it cannot be told. Link-local
// addresses have none; zone names it (an interface's name or number).
func (t *Table) IifFor(a netip.Addr) *firewall.Link {
	f := firewall.FamilyOf(a)
	var oif *firewall.Link
	if z := a.Zone(); z != "" {
		l := t.LinkByName(z)
		if l == nil {
			return nil
		}
		oif = l.Link
	}
	p := t.Output(Key{Family: f}, firewall.Single(firewall.AddrValue(a.Unmap().WithZone(""))), firewall.Value{}, oif)
	if p[0].Kind == Local {
		return p[0].Link
	}
	return p[0].Out()
}
