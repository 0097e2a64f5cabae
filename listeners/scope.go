package listeners

import "net/netip"

// ScopeKind tells apart where a socket listens.
type ScopeKind string

// The kinds of scope.
const (
	ScopeAnyV4        ScopeKind = "any-ipv4"       // 0.0.0.0
	ScopeAnyDual      ScopeKind = "any-dual"       // [::] that takes IPv4 as well
	ScopeAnyV6Only    ScopeKind = "any-ipv6-only"  // [::] with IPV6_V6ONLY
	ScopeAnyV6Unclear ScopeKind = "any-ipv6"       // [::], and the source does not tell whether IPv4 as well
	ScopeLoopback     ScopeKind = "loopback"       // 127.0.0.0/8 or ::1
	ScopeAddress      ScopeKind = "address"        // one address of the host
	ScopeAbsent       ScopeKind = "absent-address" // an address the host does not have (any more)
	ScopeGroup        ScopeKind = "group"          // a multicast or broadcast address
)

// Local is an address of the host, or a prefix routed to it as local (`ip route
// add local 192.0.2.0/24 dev lo`). Full-length prefixes are plain addresses; one
// that has Broadcast alone is a route to it.
type Local struct {
	Prefix    netip.Prefix
	Device    int
	Broadcast netip.Addr // of the address's subnet, zero where there is none
}

// Scope is where a socket can be reached, before routes and rules have a say.
type Scope struct {
	Kind ScopeKind `json:"kind"`
	IPv4 bool      `json:"ipv4"`
	IPv6 bool      `json:"ipv6"`
	// Unsure is set where the source did not tell IPV6_V6ONLY: IPv4 then means "perhaps".
	Unsure bool `json:"unsure,omitempty"`
	// Addrs are the addresses the socket answers on, IPv4-mapped ones as IPv4;
	// of a local prefix only its first address. For a bound device they are not
	// narrowed: a packet for any local address may arrive on it.
	Addrs []netip.Addr `json:"addrs,omitempty"`
}

// Scope places the socket among the addresses of its host. locals is nil where
// they are not known: then a specific address counts as present and wildcards
// are not spelled out.
func (s *Socket) Scope(locals []Local) Scope {
	addr := s.Local.Addr()
	if addr.Unmap().IsUnspecified() && len(s.Locals) == 0 {
		return s.wildcard(addr, locals)
	}
	bound := s.Locals
	if len(bound) == 0 {
		bound = []netip.Addr{addr}
	}
	sc := Scope{Kind: ScopeAbsent}
	for _, a := range bound {
		a = a.WithZone("").Unmap()
		sc.IPv4 = sc.IPv4 || a.Is4()
		sc.IPv6 = sc.IPv6 || a.Is6()
		kind := addressKind(a, locals)
		if kind != ScopeAbsent {
			sc.Addrs = append(sc.Addrs, a)
		}
		// The widest of several addresses names the scope.
		if rank(kind) > rank(sc.Kind) {
			sc.Kind = kind
		}
	}
	return sc
}

func rank(k ScopeKind) int {
	switch k {
	case ScopeAddress:
		return 3
	case ScopeGroup:
		return 2
	case ScopeLoopback:
		return 1
	}
	return 0
}

func (s *Socket) wildcard(addr netip.Addr, locals []Local) Scope {
	var sc Scope
	switch {
	case addr.Is4():
		sc = Scope{Kind: ScopeAnyV4, IPv4: true}
	case addr.Is4In6(): // ::ffff:0.0.0.0, an IPv6 socket for IPv4 only
		sc = Scope{Kind: ScopeAnyV4, IPv4: true}
	case !s.Tells(FactV6Only):
		sc = Scope{Kind: ScopeAnyV6Unclear, IPv4: true, IPv6: true, Unsure: true}
	case s.V6Only:
		sc = Scope{Kind: ScopeAnyV6Only, IPv6: true}
	default:
		sc = Scope{Kind: ScopeAnyDual, IPv4: true, IPv6: true}
	}
	for _, l := range locals {
		a := l.Prefix.Addr().Unmap()
		if a.Is4() && sc.IPv4 || a.Is6() && sc.IPv6 {
			sc.Addrs = append(sc.Addrs, a)
		}
	}
	return sc
}

func addressKind(a netip.Addr, locals []Local) ScopeKind {
	switch {
	case a.IsLoopback():
		return ScopeLoopback
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return ScopeGroup
	case locals == nil:
		return ScopeAddress
	}
	for _, l := range locals {
		switch {
		case l.Prefix.Contains(a):
			return ScopeAddress
		case l.Broadcast.IsValid() && l.Broadcast == a:
			return ScopeGroup
		}
	}
	return ScopeAbsent
}
