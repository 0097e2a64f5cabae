package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// sockets finds the socket a packet is delivered to.
type sockets struct {
	byPort map[portKey][]*listeners.Listener
}

type portKey struct {
	proto firewall.Proto
	port  uint16
}

func newSockets(ns *Namespace) *sockets {
	s := &sockets{byPort: map[portKey][]*listeners.Listener{}}
	if ns.Listeners == nil {
		return s
	}
	for i := range ns.Listeners.Listeners {
		l := &ns.Listeners.Listeners[i]
		k := portKey{protoOf(l.Proto), l.Port()}
		s.byPort[k] = append(s.byPort[k], l)
	}
	return s
}

// find is __inet_lookup_listener and udp_lib_lookup: sockets bound to the very
// address come before the wildcard ones; among those a socket bound to the
// interface scores higher, and for IPv4 packets an IPv4 socket higher than a
// dual-stack one. in is the interface the packet came in by; nil ignores
// SO_BINDTODEVICE.
func (s *sockets) find(f firewall.Family, p firewall.Proto, addr netip.Addr, port uint16, in *firewall.Link) *listeners.Listener {
	var best *listeners.Listener
	bestScore := 0
	for _, l := range s.byPort[portKey{p, port}] {
		score := score(l, f, addr, in)
		if score > bestScore {
			best, bestScore = l, score
		}
	}
	return best
}

// bound reports whether a socket of the port is bound to an interface.
func (s *sockets) bound(p firewall.Proto, port uint16) bool {
	return slices.ContainsFunc(s.byPort[portKey{p, port}], func(l *listeners.Listener) bool { return l.Device.Index != 0 })
}

// ownerOf is the interface that the local route of an address names. To a socket
// that is bound to an interface, packets between the host's own addresses come in
// by it and not by lo (inet_iif: rt_iif of ip_route_output_key_hash_rcu; IP6CB iif
// of ip6_rcv_core).
func ownerOf(ns *Namespace, f firewall.Family, addr firewall.Value) *firewall.Link {
	for _, own := range ns.Route.LocalAddrs(f) {
		if own.Addrs.Contains(addr) {
			return own.Link.Link
		}
	}
	return nil
}

// sendsFrom lets a datagram pass whose socket can answer from the address that the
// client asked.
func (w *walk) sendsFrom(p *path, c firewall.Class, l *listeners.Listener, d *Delivered) bool {
	st, ns := &c.State, p.ns
	if !l.Proto.Datagram() || st.Family != firewall.IPv6 || st.TProxied || !l.Local.Addr().IsUnspecified() || l.Freebind || l.Transparent ||
		ns.Route == nil || ns.Route.SendsFrom6(st.Local) || ownerOf(ns, st.Family, st.Local) == nil {
		return true
	}
	by := witness{kind: ByRoute, ns: ns, text: "no interface has the address " + st.Local.Addr(st.Family).String() +
		", which is local by a route: " + l.Subject() + " takes the datagram and cannot answer from there (IP_FREEBIND, net.ipv6.ip_nonlocal_bind)"}
	if l.Tells(listeners.FactOpts) {
		w.finish(c, p, Timeout, by, d, "")
	} else {
		w.finish(c, p, Depends, by, d, "whether "+l.Subject()+" may send from an address that no interface has (IP_FREEBIND)")
	}
	return false
}

// score is compute_score; 0 when the socket does not take the packet.
func score(l *listeners.Listener, f firewall.Family, addr netip.Addr, in *firewall.Link) int {
	local := l.Local.Addr()
	four := local.Is4() || local.Is4In6()
	if f == firewall.IPv4 {
		if !four && (l.V6Only || !local.IsUnspecified()) {
			return 0
		}
	} else if four {
		return 0
	}
	n := 1
	switch {
	case local.Is4In6() && local.Unmap().IsUnspecified(), local.IsUnspecified():
	case local.Unmap().WithZone("") == addr.Unmap().WithZone(""):
		n += 8
	default:
		for _, a := range l.Locals {
			if a.Unmap() == addr.Unmap() {
				n += 8
			}
		}
		if n == 1 {
			return 0
		}
	}
	if l.Device.Index != 0 {
		if in != nil && in.Index != l.Device.Index {
			return 0
		}
		n += 2
	}
	if f == firewall.IPv4 && local.Is4() {
		n++
	}
	return n
}

// missing says why nothing takes packets to addr:port: a listener that is bound
// elsewhere, or none.
func (s *sockets) missing(ns *Namespace, f firewall.Family, p firewall.Proto, addr netip.Addr, port uint16, in *firewall.Link) witness {
	var near *listeners.Listener
	why := ""
	for _, l := range s.byPort[portKey{p, port}] {
		w := whyNot(l, f, addr, in)
		if near == nil || len(w) > 0 && l.Device.Index != 0 {
			near, why = l, w
		}
	}
	if near == nil {
		return witness{kind: ByNoListener, ns: ns, text: fmt.Sprintf("nothing listens on %s port %d", p, port)}
	}
	return witness{kind: ByBindAddress, ns: ns, text: near.Subject() + " " + why}
}

func whyNot(l *listeners.Listener, f firewall.Family, addr netip.Addr, in *firewall.Link) string {
	local := l.Local.Addr()
	switch {
	case f == firewall.IPv4 && local.Is6() && !local.Is4In6() && local.IsUnspecified() && l.V6Only:
		return "takes IPv6 only"
	case f == firewall.IPv4 && local.Is6() && !local.Is4In6() && !local.IsUnspecified():
		return "listens on an IPv6 address only"
	case f == firewall.IPv6 && (local.Is4() || local.Is4In6()):
		return "takes IPv4 only"
	case local.Unmap().IsLoopback():
		return "listens on the loopback address only"
	case !local.Unmap().IsUnspecified() && local.Unmap().WithZone("") != addr.Unmap():
		return "listens on that address only"
	case l.Device.Index != 0 && in != nil && in.Index != l.Device.Index:
		if l.Device.Name == "" {
			return fmt.Sprintf("is bound to interface %d, which is gone", l.Device.Index)
		}
		return "is bound to interface " + string(l.Device.Name)
	default:
		return "does not take packets to " + addr.String()
	}
}

func delivered(ns *Namespace, l *listeners.Listener, addr netip.Addr, port uint16) *Delivered {
	return &Delivered{NetNS: ns.Name, Address: addr.String(), Port: port, Listener: l.Subject()}
}

func hostPort(a netip.Addr, port uint16) string {
	return netip.AddrPortFrom(a, port).String()
}

func itoa(n int) string { return strconv.Itoa(n) }
