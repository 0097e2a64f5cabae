package route

import (
	"github.com/hostaudit/hostaudit/firewall"
)

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
