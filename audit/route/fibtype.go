package route

import (
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// AddrType is the `fib … type` expression (nft_fib4_eval_type,
// nft_fib6_eval_type) and, for IPv4, xt_addrtype. In IPv6 the kernel looks at
// more of the packet: see [Table.FIBType], and [Table.AddrType6] for
// xt_addrtype. What that could change is unknown here.
func (t *Table) AddrType(f firewall.Family, addrs firewall.Ranges, dev *firewall.Link) []firewall.FIBPart {
	if f == firewall.IPv4 {
		return t.addrType4(addrs, t.link(dev), dev != nil)
	}
	o := &sending{Key: Key{Family: f, Mark: firewall.Known{Unknown: true}}, srcUnknown: true}
	return t.addrType6(o, addrs, t.link(dev), dev != nil, nil)
}

// FIBType is [Table.AddrType] with all that the kernel looks at: In or Out
// restrict the type to an interface.
func (t *Table) FIBType(addrs firewall.Ranges, q FIBQuery) []firewall.FIBPart {
	dev := q.In
	if dev == nil {
		dev = q.Out
	}
	if q.Family == firewall.IPv4 {
		return t.addrType4(addrs, t.link(dev), dev != nil)
	}
	on := t.link(q.PacketIn)
	if on == nil {
		on = t.link(q.PacketOut)
	}
	o := &sending{Key: q.Key, src: q.Other}
	return t.addrType6(o, addrs, t.link(dev), dev != nil, on)
}

// cut collects a partition for rules.
type cut struct {
	left firewall.Ranges
	out  []firewall.FIBPart
}

func (c *cut) take(set firewall.Ranges, value uint32, why string) {
	in := c.left.Intersect(set)
	if in.Empty() {
		return
	}
	c.left = c.left.Minus(in)
	c.add(in, value, why)
}

func (c *cut) add(set firewall.Ranges, value uint32, why string) {
	for i := range c.out {
		if c.out[i].Value == value && c.out[i].Unknown == why {
			c.out[i].Addrs = c.out[i].Addrs.Union(set)
			return
		}
	}
	c.out = append(c.out, firewall.FIBPart{Addrs: set, Value: value, Unknown: why})
}

const mixedNexthop = "the kernel may take the route for another one with the same nexthop object"

const notRead = "the interface is not among the links that were read"

// addrType4 is __inet_dev_addr_type.
func (t *Table) addrType4(addrs firewall.Ranges, dev *Link, restricted bool) []firewall.FIBPart {
	c := cut{left: addrs}
	switch {
	case restricted && dev == nil:
		c.take(addrs, 0, notRead)
	case dev != nil && dev.vrf() != nil:
		c.take(addrs, 0, "the interface belongs to the VRF "+dev.vrf().Name)
	}
	c.take(zeronet4.Union(lbcast4), typeBroadcast, "")
	c.take(multicast4, typeMulticast, "")
	d := t.v4
	if d.unread != "" {
		c.take(c.left, 0, d.unread)
	}
	if c.left.Empty() {
		return c.out
	}
	classify := func(fb *fib) []firewall.FIBPart {
		k := cut{}
		if fb == nil {
			// No local table at all.
			k.add(c.left, typeBroadcast, "")
			return k.out
		}
		for _, p := range fb.lookup(t, c.left, resolveKey{}) {
			switch {
			case p.unknown != "":
				k.add(p.addrs, 0, p.unknown)
			case p.err == 0 && (dev == nil || len(p.route.Hops) > 0 && p.route.Hops[0].Link == dev):
				k.add(p.addrs, uint32(p.route.Type), "")
			default:
				k.add(p.addrs, typeUnicast, "")
			}
		}
		return k.out
	}
	switch d.customRules {
	case yes:
		return append(c.out, classify(d.fibs[tableLocal])...)
	case no:
		return append(c.out, classify(d.merged)...)
	}
	return append(c.out, agreeFIB(classify(d.merged), classify(d.fibs[tableLocal]), d.mergedWhy)...)
}

func agreeFIB(a, b []firewall.FIBPart, why string) []firewall.FIBPart {
	var c cut
	for _, p := range a {
		for _, q := range b {
			in := p.Addrs.Intersect(q.Addrs)
			switch {
			case in.Empty():
			case p.Value == q.Value && p.Unknown == q.Unknown:
				c.add(in, p.Value, p.Unknown)
			default:
				c.add(in, 0, "the kernel may look in the local and main table together or one after the other: "+why)
			}
		}
	}
	return c.out
}

// addrType6 is __nft_fib6_eval_type.
//
// dev is the interface the expression names, on the one the packet is on.
func (t *Table) addrType6(from *sending, addrs firewall.Ranges, dev *Link, restricted bool, on *Link) []firewall.FIBPart {
	c := cut{left: addrs}
	if restricted && dev == nil {
		c.take(addrs, 0, notRead)
	}
	if dev != nil {
		on = dev
	}
	if on == nil {
		c.take(linklocal6, 0, "the type of a link-local address hangs on the interface")
	}
	// Without ports, `sport` and `dport` are compared with 0.
	from.Sport, from.Dport = firewall.Single(firewall.Value{}), firewall.Single(firewall.Value{})
	var own firewall.Ranges
	if dev != nil {
		own = t.ownOn6(dev)
	}
	for _, strict := range []bool{true, false} {
		sub := c.left.Minus(linklocal6)
		o := *from
		if strict {
			sub = c.left.Intersect(linklocal6)
			o.oif = on
		}
		for _, r := range t.lookup6(&o, sub) {
			if r.unknown != "" {
				c.add(r.addrs, 0, r.unknown)
				continue
			}
			if r.err != 0 || r.route.rejects() {
				c.add(r.addrs, typeOfError(r), "")
				continue
			}
			left := r.addrs
			take := func(set firewall.Ranges, typ uint32) {
				if in := left.Intersect(set); !in.Empty() {
					c.add(in, typ, "")
					left = left.Minus(in)
				}
			}
			if r.route.Type == typeAnycast {
				take(left, typeAnycast)
			}
			router, maybe := t.subnetRouter(r)
			if in := left.Intersect(maybe); !in.Empty() {
				c.add(in, 0, mixedNexthop)
				left = left.Minus(in)
			}
			take(router, typeAnycast)
			if dev == nil && r.route.Type == typeLocal {
				take(left, typeLocal)
			}
			take(own, typeLocal)
			take(multicast6, typeMulticast)
			take(unicast6, typeUnicast)
			take(left, unix.RTN_UNSPEC)
		}
	}
	return c.out
}

// subnetRouter is the second half of ipv6_anycast_destination: the first
// address of the route's network, on a route without a gateway and shorter than
// 127 bits. maybe is what that cannot be told of (see mixed).
func (t *Table) subnetRouter(r routed) (sure, maybe firewall.Ranges) {
	first := func(rt *Route) firewall.Ranges {
		if rt.Dst.Bits() >= 127 || rt.rejects() || len(rt.Hops) == 0 || rt.Hops[0].Gateway.IsValid() && rt.NexthopID != 0 {
			return nil
		}
		return firewall.Single(firewall.AddrValue(rt.Dst.Addr()))
	}
	if all := t.mixed(r.route); all != nil {
		for _, o := range all {
			maybe = maybe.Union(first(o))
		}
		return nil, maybe
	}
	if r.hop < len(r.route.Hops) && r.route.Hops[r.hop].Gateway.IsValid() {
		return nil, nil
	}
	return first(r.route), nil
}

func typeOfError(r routed) uint32 {
	switch r.err {
	case unix.EINVAL:
		return typeBlackhole
	case unix.EACCES:
		return typeProhibit
	default:
		return typeUnreachable
	}
}

// ownOn6 is the set of addresses nf_ipv6_chk_addr finds on an interface.
func (t *Table) ownOn6(l *Link) firewall.Ranges {
	var out []firewall.Range
	for _, a := range t.Addrs {
		if a.Family == firewall.IPv6 && a.Link == l && !a.Tentative() {
			out = append(out, firewall.Range{Lo: a.value(), Hi: a.value()})
		}
	}
	return firewall.NewRanges(out)
}

// lookup6 is ip6_route_output for rules: destinations that need it are asked
// for strictly.
func (t *Table) lookup6(o *sending, set firewall.Ranges) []routed {
	if t.fwd6 == unknown && !set.Empty() {
		return []routed{{addrs: set, result: result{unknown: "net.ipv6.conf.all.forwarding could not be read"}}}
	}
	base := flow{Key: o.Key, iif: loopbackIndex, src: o.src, varies: varyDst, hasSaddr: !o.src.IsZero(), srcUnknown: o.srcUnknown}
	base.resolve = resolveKey{reachable: t.fwd6 == no}
	if o.oif != nil {
		base.oif, base.resolve.oif = o.oif.Index, o.oif.Index
	}
	var out []routed
	for _, strict := range []bool{true, false} {
		fl, sub := base, set.Minus(strict6)
		if strict {
			sub = set.Intersect(strict6)
		}
		fl.resolve.iface = strict || o.oif != nil && o.src.IsZero()
		out = append(out, t.fibLookup(&fl, sub)...)
	}
	return out
}
