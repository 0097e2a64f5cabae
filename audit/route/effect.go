package route

import (
	"net/netip"
	"strconv"
)

// effect is all that tells a unicast route from another once a packet takes it:
// routes of the same effect share a part of an answer, so that a full Internet
// table gives as many parts as it has ways out.
type effect struct {
	table, nexthop uint32
	bits           int
	prefsrc        netip.Addr
	scope          uint8
	hops           string
	hop            int
}

// shared puts one route of each effect in the place of all. Routes that can be a
// witness, and default routes, stay themselves; so does an IPv6 route whose first
// address can be an anycast address.
//
// The length of the prefix matters to rules that suppress by it, and to
// multicast (__mkroute_output looks whether it is shorter than 4).
func (t *Table) shared(r result, same map[effect]*Route) result {
	rt := r.route
	if r.err != 0 || r.unknown != "" || rt.Type != typeUnicast || rt.Dst.Bits() == 0 || rt.rejects() || rt.hasRouterAddress() {
		return r
	}
	e := effect{rt.Table, rt.NexthopID, rt.Dst.Bits(), rt.PrefSrc, rt.Scope, "", r.hop}
	if !t.suppresses {
		e.bits = min(e.bits, 4)
	}
	for _, h := range rt.Hops {
		e.hops += strconv.Itoa(h.Link.Index) + " " + h.Gateway.String() + " " + strconv.Itoa(int(h.Flags)) + ";"
	}
	if first, ok := same[e]; ok {
		r.route = first
	} else {
		same[e] = rt
	}
	return r
}

// hasRouterAddress: the first address of the network is its subnet-router
// anycast address (ipv6_anycast_destination): an IPv6 route without a gateway,
// shorter than 127 bits.
func (r *Route) hasRouterAddress() bool {
	if !r.Dst.Addr().Is6() || r.Dst.Bits() >= 127 || r.rejects() {
		return false
	}
	for _, h := range r.Hops {
		if !h.Gateway.IsValid() {
			return true
		}
	}
	return false
}
