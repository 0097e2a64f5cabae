package route

import (
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

var _ firewall.FIB = (*Table)(nil)

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

// The bits of the mask of xt_addrtype (XT_ADDRTYPE_*).
const (
	addrtypeUnspec      = 1 << 0
	addrtypeUnicast     = 1 << 1
	addrtypeLocal       = 1 << 2
	addrtypeAnycast     = 1 << 4
	addrtypeMulticast   = 1 << 5
	addrtypeUnreachable = 1 << 7
)

// AddrType6 is xt_addrtype in IPv6 (match_type6), which is not the same as fib
// type: it partitions addresses into those the mask of XT_ADDRTYPE_* matches
// (Value 1) and those it does not (Value 0).
func (t *Table) AddrType6(addrs firewall.Ranges, dev *firewall.Link, mask uint16) []firewall.FIBPart {
	c := cut{left: addrs}
	l := t.link(dev)
	if dev != nil && l == nil {
		c.take(addrs, 0, notRead)
		return c.out
	}
	anyAddr := firewall.Single(firewall.Value{})
	everything := firewall.All(16)
	if mask&addrtypeMulticast != 0 {
		c.take(everything.Minus(multicast6), 0, "")
	}
	if mask&addrtypeUnicast != 0 {
		c.take(everything.Minus(unicast6), 0, "")
	}
	if mask&addrtypeUnspec != 0 {
		c.take(everything.Minus(anyAddr), 0, "")
	}
	if mask&(addrtypeLocal|addrtypeAnycast|addrtypeUnreachable) == 0 {
		c.take(everything, 1, "")
		return c.out
	}
	none := firewall.Single(firewall.Value{})
	o := &sending{Key: Key{Family: firewall.IPv6, Proto: NoProto, Sport: none, Dport: none}, oif: l}
	var own firewall.Ranges
	if l != nil && mask&addrtypeLocal != 0 {
		own = t.ownOn6(l)
	}
	for _, r := range t.lookup6(o, c.left) {
		if r.unknown != "" {
			c.add(r.addrs, 0, r.unknown)
			continue
		}
		bit := func(set firewall.Ranges, typ uint16) {
			v := uint32(0)
			if typ&mask != 0 {
				v = 1
			}
			if !set.Empty() {
				c.add(set, v, "")
			}
		}
		if r.err != 0 && !(r.route != nil && r.route.rejects()) {
			bit(r.addrs, addrtypeUnreachable)
			continue
		}
		// The bits are or-ed together.
		base := uint16(0)
		if r.route.rejects() {
			base |= addrtypeUnreachable
		}
		if l == nil && r.route.Type == typeLocal {
			base |= addrtypeLocal
		}
		if r.route.Type == typeAnycast {
			base |= addrtypeAnycast
		}
		router, maybe := t.subnetRouter(r)
		if in := r.addrs.Intersect(maybe); !in.Empty() && mask&addrtypeAnycast != 0 {
			c.add(in, 0, mixedNexthop)
			r.addrs = r.addrs.Minus(in)
		}
		router = router.Intersect(r.addrs)
		mine := own.Intersect(r.addrs)
		bit(router.Intersect(mine), base|addrtypeAnycast|addrtypeLocal)
		bit(router.Minus(mine), base|addrtypeAnycast)
		bit(mine.Minus(router), base|addrtypeLocal)
		bit(r.addrs.Minus(router).Minus(mine), base)
	}
	return c.out
}

// OutIndex is the `fib … oif` expression (nft_fib4_eval, nft_fib6_eval).
// [Table.FIBOut] takes the rest of what the kernel looks at.
func (t *Table) OutIndex(f firewall.Family, addrs firewall.Ranges, key firewall.FIBKey) []firewall.FIBPart {
	return t.FIBOut(addrs, FIBQuery{
		Key: Key{Family: f, Mark: firewall.Known{Value: key.Mark}}, Other: key.Saddr, In: key.In, Out: key.Out,
		PacketIn: key.In, PacketOut: key.Out,
	})
}

// FIBQuery is what a `fib … oif` expression of nft looks at besides the address
// it asks about.
type FIBQuery struct {
	Key // Family, Mark (0 without `. mark`), TOS and Proto of the packet
	// Other is the packet's other address: the destination where the source
	// is asked about, and the other way round.
	Other firewall.Value
	// In and Out are set where the expression says `. iif` or `. oif`.
	In, Out *firewall.Link
	// PacketIn and PacketOut are the interfaces of the packet itself.
	PacketIn, PacketOut *firewall.Link
	// Inbound: the expression stands in ingress, prerouting or input. There a
	// packet that came over lo is answered with lo.
	Inbound bool
	// ForwardSource: it stands in forward, asks about the source and says `. iif`.
	ForwardSource bool
}

// FIBOut partitions addresses by the interface index `fib … oif` gives, 0 for none.
func (t *Table) FIBOut(addrs firewall.Ranges, q FIBQuery) []firewall.FIBPart {
	c := cut{left: addrs}
	want, restricted := t.link(q.Out), q.Out != nil
	if !restricted {
		want, restricted = t.link(q.In), q.In != nil
	}
	if restricted && want == nil {
		c.take(addrs, 0, notRead)
		return c.out
	}
	if in := t.link(q.PacketIn); in != nil && in.Loopback() && (q.Inbound || q.PacketOut == nil) {
		c.take(addrs, uint32(in.Index), "")
		return c.out
	}
	if t.hasVRF {
		c.take(addrs, 0, "the namespace has a VRF")
		return c.out
	}
	fl := flow{Key: q.Key, iif: loopbackIndex, src: q.Other, varies: varyDst}
	fl.UID = firewall.Known{}
	fl.Sport, fl.Dport = firewall.Single(firewall.Value{}), firewall.Single(firewall.Value{})
	if q.ForwardSource {
		out := t.link(q.PacketOut)
		if out == nil {
			c.take(addrs, 0, notRead)
			return c.out
		}
		fl.iif = out.Index
	}
	if q.Family == firewall.IPv4 {
		t.fibOut4(&c, &fl, want)
	} else {
		t.fibOut6(&c, &fl, want, q)
	}
	return c.out
}

func (t *Table) fibOut4(c *cut, fl *flow, want *Link) {
	if zeronet4.Contains(fl.src) || multicast4.Contains(fl.src) || lbcast4.Contains(fl.src) {
		fl.src = firewall.Value{} // get_saddr
	}
	fl.resolve = resolveKey{tos: fl.TOS & legacyTOS, ignoreLinkstate: true}
	for _, r := range t.fibLookup(fl, c.left) {
		switch {
		case r.unknown != "":
			c.add(r.addrs, 0, r.unknown)
		case r.err != 0 || r.route.Type == typeLocal:
			c.add(r.addrs, 0, "")
		case want == nil:
			c.add(r.addrs, uint32(t.resultLink(r.result).Index), "")
		case r.route.uses(want):
			c.add(r.addrs, uint32(want.Index), "")
		default:
			c.add(r.addrs, 0, "")
		}
	}
}

func (t *Table) fibOut6(c *cut, fl *flow, want *Link, q FIBQuery) {
	fl.hasSaddr = unicast6.Contains(fl.src)
	base, why := t.deviceKey(fl.src)
	if why != "" {
		c.take(c.left, 0, why)
		return
	}
	for _, strict := range []bool{true, false} {
		f, sub := *fl, c.left.Minus(linklocal6)
		f.resolve = base
		if strict {
			sub = c.left.Intersect(linklocal6)
			dev := want
			if dev == nil {
				if dev = t.link(q.PacketIn); dev == nil {
					dev = t.link(q.PacketOut)
				}
			}
			if dev == nil {
				if !sub.Empty() {
					c.add(sub, 0, "the route to a link-local address hangs on the interface")
				}
				continue
			}
			f.oif, f.resolve.oif, f.resolve.iface = dev.Index, dev.Index, true
		}
		for _, r := range t.fibLookup(&f, sub) {
			if r.unknown != "" {
				c.add(r.addrs, 0, r.unknown)
				continue
			}
			if r.err != 0 || r.route.rejects() || r.route.Type == typeAnycast || r.route.Type == typeLocal {
				c.add(r.addrs, 0, "")
				continue
			}
			hops := t.hops(r.result, resolveKey{})
			index := hops[0].Link.Index
			for _, h := range hops[1:] {
				if h.Link.Index != index {
					index = -1
				}
			}
			switch {
			case index < 0:
				c.add(r.addrs, 0, "a multipath route: a hash of the flow chooses")
			case want != nil && want.Index != index:
				c.add(r.addrs, 0, "")
			default:
				c.add(r.addrs, uint32(index), "")
			}
		}
	}
}

// deviceKey is what rt6_device_match looks at besides the interface: whose
// address the source is (ipv6_chk_addr). An address of link or host scope counts
// on its own interface only.
func (t *Table) deviceKey(src firewall.Value) (resolveKey, string) {
	k := resolveKey{device: true, saddrAny: src.IsZero()}
	for _, a := range t.Addrs {
		if a.Family != firewall.IPv6 || a.value() != src || a.Tentative() {
			continue
		}
		if scopeBits6(src)&(0x10|0x20) == 0 {
			k.saddrHere = true
			continue
		}
		if k.saddrLink != 0 {
			return k, "several interfaces have the address " + a.Local.String()
		}
		k.saddrLink = a.Link.Index
	}
	return k, ""
}

// Flags of xt_rpfilter (XT_RPFILTER_*). The inversion is the caller's.
const (
	rpLoose       = 1
	rpValidMark   = 2
	rpAcceptLocal = 4
)

// RPFilter is xt_rpfilter in IPv4 and IPv6, without XT_RPFILTER_INVERT.
func (t *Table) RPFilter(f firewall.Family, srcs firewall.Ranges, in *firewall.Link, mark, flags uint32, dst firewall.Value) []firewall.FIBPart {
	c := cut{left: srcs}
	l := t.link(in)
	switch {
	case l == nil:
		c.take(srcs, 0, notRead)
		return c.out
	case l.Loopback():
		c.take(srcs, 1, "")
		return c.out
	case t.hasVRF:
		c.take(srcs, 0, "the namespace has a VRF")
		return c.out
	}
	fl := flow{Key: Key{Family: f, Mark: firewall.Known{Value: mark}}, iif: loopbackIndex, src: dst, varies: varyDst}
	if flags&rpValidMark == 0 {
		fl.Mark = firewall.Known{}
	}
	fl.Sport, fl.Dport = firewall.Single(firewall.Value{}), firewall.Single(firewall.Value{})
	if f == firewall.IPv4 {
		fl.Proto = NoProto
		t.rpFilter4(&c, &fl, l, flags, dst)
	} else {
		t.rpFilter6(&c, &fl, l, flags, dst)
	}
	return c.out
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func (t *Table) rpFilter4(c *cut, fl *flow, in *Link, flags uint32, dst firewall.Value) {
	if lbcast4.Contains(dst) || localMulticast.Contains(dst) {
		c.take(zeronet4, 1, "")
	}
	if zeronet4.Contains(dst) || multicast4.Contains(dst) || lbcast4.Contains(dst) {
		fl.src = firewall.Value{} // rpfilter_get_saddr
	}
	fl.resolve = resolveKey{ignoreLinkstate: true}
	for _, r := range t.fibLookup(fl, c.left) {
		switch {
		case r.unknown != "":
			c.add(r.addrs, 0, r.unknown)
		case r.err != 0,
			r.route.Type != typeUnicast && (r.route.Type != typeLocal || flags&rpAcceptLocal == 0):
			c.add(r.addrs, 0, "")
		default:
			c.add(r.addrs, bit(flags&rpLoose != 0 || r.route.uses(in)), "")
		}
	}
}

func (t *Table) rpFilter6(c *cut, fl *flow, in *Link, flags uint32, dst firewall.Value) {
	c.take(firewall.Single(firewall.Value{}), 1, "")
	fl.hasSaddr = unicast6.Contains(dst)
	if !fl.hasSaddr {
		fl.src = firewall.Value{}
	}
	base, why := t.deviceKey(fl.src)
	if why != "" {
		c.take(c.left, 0, why)
		return
	}
	for _, strict := range []bool{true, false} {
		f, sub := *fl, c.left.Minus(linklocal6)
		f.resolve = base
		if strict {
			sub = c.left.Intersect(linklocal6)
			f.resolve.iface = true
		}
		if strict || flags&rpLoose == 0 {
			f.oif, f.resolve.oif = in.Index, in.Index
		}
		for _, r := range t.fibLookup(&f, sub) {
			switch {
			case r.unknown != "":
				c.add(r.addrs, 0, r.unknown)
			case r.err != 0, r.route.Type == typeAnycast, r.route.rejects():
				c.add(r.addrs, 0, "")
			case r.route.Type == typeLocal:
				c.add(r.addrs, bit(flags&rpAcceptLocal != 0), "")
			case flags&rpLoose != 0:
				c.add(r.addrs, 1, "")
			default:
				// With an interface given, fib6_select_path leaves the
				// matching hop as it is.
				l := t.resultLink(r.result)
				if len(r.route.Hops) > 1 && r.route.NexthopID != 0 {
					c.add(r.addrs, 0, "a nexthop group: a hash of the flow chooses")
					continue
				}
				c.add(r.addrs, bit(l == in), "")
			}
		}
	}
}
