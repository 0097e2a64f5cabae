package audit

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// ScopeRow says where a listener takes packets, before routes and rules have a
// say.
type ScopeRow struct {
	Kind listeners.ScopeKind `json:"kind"`
	IPv4 bool                `json:"ipv4"`
	IPv6 bool                `json:"ipv6"`
	// Note says in words what clients that are not served there meet; empty where
	// there is nothing to say.
	Note string `json:"note,omitempty"`
}

// Locals are a namespace's addresses as the listeners package wants them. A
// route of type local makes a whole prefix the host's own. Nil: not known.
func Locals(ns *reach.Namespace) []listeners.Local {
	if ns.Route == nil {
		return nil
	}
	const rtnLocal, rtnBroadcast = 2, 3 // RTN_LOCAL, RTN_BROADCAST
	out := []listeners.Local{}
	for _, a := range ns.Route.Addrs {
		l := listeners.Local{Prefix: netip.PrefixFrom(a.Local, a.Local.BitLen()), Broadcast: a.Broadcast}
		if a.Link != nil {
			l.Device = a.Link.Index
		}
		out = append(out, l)
	}
	for _, r := range ns.Route.Routes {
		switch r.Type {
		case rtnLocal:
			out = append(out, listeners.Local{Prefix: r.Dst})
		case rtnBroadcast:
			// The kernel makes one for every subnet, whether its address names it or not
			// (fib_add_ifaddr).
			out = append(out, listeners.Local{Broadcast: r.Dst.Addr()})
		}
	}
	return out
}

// scopes gives the scope of every listener.
func scopes(ports []*Port) map[*Port]ScopeRow {
	type place struct {
		locals []listeners.Local
		addrs  []netip.Addr // that clients elsewhere can dial
	}
	type service struct {
		ns    *reach.Namespace
		proto listeners.Proto
		port  uint16
	}
	places := map[*reach.Namespace]*place{}
	takes4, takes6 := map[service]int{}, map[service]int{}
	out := make(map[*Port]ScopeRow, len(ports))
	found := make(map[*Port]listeners.Scope, len(ports))
	for _, p := range ports {
		if p.Listener == nil {
			continue
		}
		at := places[p.Namespace]
		if at == nil {
			at = &place{locals: Locals(p.Namespace)}
			for _, a := range hostAddrs(p.Namespace) {
				if a = a.Unmap(); !a.IsLoopback() && !a.IsLinkLocalUnicast() && !slices.Contains(at.addrs, a) {
					at.addrs = append(at.addrs, a)
				}
			}
			places[p.Namespace] = at
		}
		s := p.Listener.Scope(at.locals)
		found[p] = s
		if s.Kind == listeners.ScopeLoopback || s.Kind == listeners.ScopeAbsent {
			continue
		}
		key := service{p.Namespace, p.Proto(), p.Number()}
		if s.IPv4 {
			takes4[key]++
		}
		if s.IPv6 {
			takes6[key]++
		}
	}
	for p, s := range found {
		at := places[p.Namespace]
		key := service{p.Namespace, p.Proto(), p.Number()}
		row := ScopeRow{Kind: s.Kind, IPv4: s.IPv4, IPv6: s.IPv6}
		if p.Home() { // who dials a container's own address is another question
			row.Note = scopeNote(p, s, at.addrs, takes4[key] > 0, takes6[key] > 0)
		}
		if p.Apart {
			row.Note = "no link leads from here into its network namespace, whose addresses and rules were not read"
		}
		out[p] = row
	}
	return out
}

// scopeNote tells the listeners apart that a list of sockets shows alike. v4 and
// v6 say whether the port is served in that family at all.
func scopeNote(p *Port, s listeners.Scope, addrs []netip.Addr, v4, v6 bool) string {
	l := p.Listener
	if l.Proto == listeners.Raw {
		return fmt.Sprintf("gets a copy of all packets of IP protocol %d; nothing to connect to", l.Port())
	}
	has := func(is4 bool) bool {
		return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is4() == is4 })
	}
	refused := "refused"
	if p.Proto().Datagram() {
		refused = "not served"
	}
	switch {
	case l.Device.Name != "":
		return "what arrives on " + string(l.Device.Name) + " alone"
	case l.Device.Index != 0:
		return fmt.Sprintf("bound to interface %d, which is gone: nothing arrives", l.Device.Index)
	}
	switch s.Kind {
	case listeners.ScopeAnyV4:
		if !v6 && has(false) {
			return "IPv4 alone; by an AAAA record " + refused
		}
	case listeners.ScopeAnyV6Only:
		if !v4 && has(true) {
			return "IPv6 alone; over IPv4 " + refused
		}
	case listeners.ScopeAnyV6Unclear:
		return "IPv6; whether IPv4 as well the kernel did not tell"
	case listeners.ScopeAnyDual:
		return "IPv4 and IPv6"
	case listeners.ScopeAbsent:
		return fmt.Sprintf("the host does not have %s (any more)", l.Local.Addr().Unmap().WithZone(""))
	case listeners.ScopeGroup:
		if l.Local.Addr().IsMulticast() {
			return "a multicast address: what is sent to the group, where the host has joined it"
		}
		return "a broadcast address: what is sent to all of its network"
	case listeners.ScopeAddress:
		own := l.Local.Addr().Unmap().WithZone("")
		var others []netip.Addr
		for _, a := range addrs {
			if a != own && a.Is4() == own.Is4() {
				others = append(others, a)
			}
		}
		if len(others) > 0 && len(l.Locals) == 0 {
			note := fmt.Sprintf("%s alone, not %s", own, others[0])
			if n := len(others) - 1; n > 0 {
				note += fmt.Sprintf(" and %d more", n)
			}
			return note
		}
	}
	return ""
}
