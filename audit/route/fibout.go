package route

import (
	"github.com/hostaudit/hostaudit/firewall"
)

// FIBQuery is what a `fib … oif` expression of nft (nft_fib4_eval,
// nft_fib6_eval) looks at besides the address
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
