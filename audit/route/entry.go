package route

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// Hop is one next hop of a route.
type Hop struct {
	Link *Link
	// Gateway is the zero Addr where the destination itself is the neighbour. An
	// IPv4 route can have an IPv6 gateway (`via inet6`).
	Gateway netip.Addr
	// Flags are RTNH_F_*: dead, linkdown, onlink.
	Flags  uint32
	Weight int // 1 and up, as `ip route` prints it
	Realm  uint32
}

// Route is one entry of a routing table.
type Route struct {
	Family   firewall.Family
	Table    uint32
	Type     uint8 // RTN_*: 1 unicast, 2 local, 3 broadcast, 6 blackhole, …
	Dst      netip.Prefix
	Src      netip.Prefix // IPv6 `from`; Bits 0 for none
	TOS      uint8
	Scope    uint8
	Protocol uint8
	Metric   uint32 // priority; smaller is taken first
	PrefSrc  netip.Addr
	Flags    uint32 // RTNH_F_* of the route as a whole
	Hops     []Hop
	// NexthopID is the nexthop object the route uses, 0 for none.
	NexthopID uint32
	MTU       uint32
	Realm     uint32
	Pref      uint8 // ICMPV6_ROUTER_PREF_*: 0 medium, 1 high, 3 low
	// Expired: an IPv6 route whose lifetime was over when it was read.
	Expired bool
	// hidden says why the next hops are not known; "" when they are.
	hidden string
	// expanded: the hops are those of the nexthop object; the route itself does
	// not name them.
	expanded bool
}

// The route types that are used (RTN_*).
const (
	typeUnicast     = unix.RTN_UNICAST
	typeLocal       = unix.RTN_LOCAL
	typeBroadcast   = unix.RTN_BROADCAST
	typeAnycast     = unix.RTN_ANYCAST
	typeMulticast   = unix.RTN_MULTICAST
	typeBlackhole   = unix.RTN_BLACKHOLE
	typeUnreachable = unix.RTN_UNREACHABLE
	typeProhibit    = unix.RTN_PROHIBIT
	typeThrow       = unix.RTN_THROW
)

// rtaNHID is RTA_NH_ID, which x/sys/unix does not have.
const rtaNHID = 30

const (
	rtnhDead     = unix.RTNH_F_DEAD
	rtnhLinkdown = unix.RTNH_F_LINKDOWN
)

func decodeRoutes(c *Capture, source string, byIndex map[int]*Link, hops map[uint32]*nexthop) ([]*Route, error) {
	order := c.order()
	var out []*Route
	err := messages(source, order, c.Blobs[source].Data, unix.RTM_NEWROUTE, unix.SizeofRtMsg, func(m message) error {
		f, ok := familyOf(m.fixed[0])
		if !ok {
			return nil // multicast routing (RTNL_FAMILY_IPMR)
		}
		flags := order.Uint32(m.fixed[8:])
		if flags&unix.RTM_F_CLONED != 0 {
			return nil
		}
		r := &Route{
			Family: f, TOS: m.fixed[3], Table: uint32(m.fixed[4]), Protocol: m.fixed[5],
			Scope: m.fixed[6], Type: m.fixed[7],
		}
		if err := r.decode(m, byIndex, hops); err != nil {
			return fmt.Errorf("route %s: %w", r.Dst, err)
		}
		out = append(out, r)
		return nil
	})
	return out, err
}

func (r *Route) decode(m message, byIndex map[int]*Link, nexthops map[uint32]*nexthop) (err error) {
	w := 8 * r.Family.AddrLen()
	dstLen, srcLen := int(m.fixed[1]), int(m.fixed[2])
	if dstLen > w || srcLen > w {
		return fmt.Errorf("prefix lengths %d and %d", dstLen, srcLen)
	}
	r.Flags = m.order.Uint32(m.fixed[8:]) & 0xff
	var dst, src, pref firewall.Value
	one := Hop{Flags: r.Flags, Weight: 1}
	found, oif := false, uint32(0)
	for _, a := range m.attrs {
		switch a.typ {
		case unix.RTA_TABLE:
			r.Table, err = a.u32(m.order)
		case unix.RTA_DST:
			dst, err = a.addr(r.Family)
		case unix.RTA_SRC:
			src, err = a.addr(r.Family)
		case unix.RTA_PREFSRC:
			pref, err = a.addr(r.Family)
			r.PrefSrc = pref.Addr(r.Family)
		case unix.RTA_PRIORITY:
			r.Metric, err = a.u32(m.order)
		case rtaNHID:
			r.NexthopID, err = a.u32(m.order)
		case unix.RTA_FLOW:
			r.Realm, err = a.u32(m.order)
			one.Realm = r.Realm
		case unix.RTA_PREF:
			r.Pref, err = a.u8()
		case unix.RTA_OIF:
			oif, err = a.u32(m.order)
			found = true
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			one.Gateway, err = gateway(a, r.Family)
			found = true
		case unix.RTA_METRICS:
			r.MTU, err = mtuOf(m, a)
		case unix.RTA_CACHEINFO:
			// struct rta_cacheinfo: rta_expires is the third word, in ticks,
			// negative when over; 0 where the route has no lifetime.
			if len(a.value) >= 12 {
				r.Expired = int32(m.order.Uint32(a.value[8:])) < 0
			}
		case unix.RTA_MULTIPATH:
			r.Hops, err = r.multipath(m, a.value, byIndex)
		}
		if err != nil {
			return err
		}
	}
	r.Dst = netip.PrefixFrom(dst.Addr(r.Family), dstLen)
	r.Src = netip.PrefixFrom(src.Addr(r.Family), srcLen)
	if r.Dst != r.Dst.Masked() {
		return fmt.Errorf("host bits in the prefix")
	}
	if found {
		if oif != 0 {
			if one.Link = byIndex[int(oif)]; one.Link == nil {
				return fmt.Errorf("link %d, which is not among the links", oif)
			}
		}
		r.Hops = append(r.Hops, one)
	}
	if r.NexthopID != 0 {
		r.expand(nexthops)
	}
	if !r.usesHops() {
		r.Hops = slices.DeleteFunc(r.Hops, func(h Hop) bool { return h.Link == nil })
	}
	for _, h := range r.Hops {
		if h.Link == nil {
			r.hidden = "the route names no interface"
		}
	}
	if len(r.Hops) == 0 && r.usesHops() && r.hidden == "" {
		r.hidden = "the route names no next hop"
	}
	return nil
}

// usesHops reports whether a route of this type sends packets anywhere.
func (r *Route) usesHops() bool {
	switch r.Type {
	case typeUnicast, typeLocal, typeBroadcast, typeAnycast, typeMulticast:
		return true
	default:
		return false
	}
}

// expand fills in a nexthop object. The kernel names it in the route; with
// net.ipv4.nexthop_compat_mode (the default) the route also spells it out.
func (r *Route) expand(nexthops map[uint32]*nexthop) {
	n, ok := nexthops[r.NexthopID]
	if !ok {
		if len(r.Hops) == 0 && r.usesHops() {
			r.hidden = fmt.Sprintf("nexthop object %d could not be read", r.NexthopID)
		}
		return
	}
	if n.blackhole {
		r.Type = typeBlackhole
		return
	}
	if len(r.Hops) == 0 {
		r.Hops, r.hidden = n.expand(nexthops)
		r.expanded = true
	}
}

func gateway(a attr, f firewall.Family) (netip.Addr, error) {
	if a.typ == unix.RTA_VIA {
		// struct rtvia: a family of two bytes in host order, then the address.
		switch len(a.value) {
		case 2 + 4:
			f = firewall.IPv4
		case 2 + 16:
			f = firewall.IPv6
		default:
			return netip.Addr{}, fmt.Errorf("gateway of %d bytes", len(a.value))
		}
		return firewall.Bytes(a.value[2:]).Addr(f), nil
	}
	v, err := a.addr(f)
	if err != nil {
		return netip.Addr{}, err
	}
	if v.IsZero() {
		return netip.Addr{}, nil
	}
	return v.Addr(f), nil
}

func mtuOf(m message, a attr) (uint32, error) {
	subs, err := attributes(m.order, a.value)
	if err != nil {
		return 0, err
	}
	for _, s := range subs {
		if s.typ == unix.RTAX_MTU {
			return s.u32(m.order)
		}
	}
	return 0, nil
}

// multipath reads struct rtnexthop records.
func (r *Route) multipath(m message, b []byte, byIndex map[int]*Link) ([]Hop, error) {
	var out []Hop
	for len(b) >= unix.SizeofRtNexthop {
		n := int(m.order.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return nil, fmt.Errorf("next hop of %d bytes in %d", n, len(b))
		}
		h := Hop{Flags: uint32(b[2]), Weight: int(b[3]) + 1}
		index := int(int32(m.order.Uint32(b[4:])))
		if h.Link = byIndex[index]; h.Link == nil {
			return nil, fmt.Errorf("link %d, which is not among the links", index)
		}
		subs, err := attributes(m.order, b[unix.SizeofRtNexthop:n])
		if err != nil {
			return nil, err
		}
		for _, s := range subs {
			switch s.typ {
			case unix.RTA_GATEWAY, unix.RTA_VIA:
				h.Gateway, err = gateway(s, r.Family)
			case unix.RTA_FLOW:
				h.Realm, err = s.u32(m.order)
			}
			if err != nil {
				return nil, err
			}
		}
		out = append(out, h)
		b = b[min((n+3)&^3, len(b)):]
	}
	return out, nil
}
