package route

import (
	"github.com/hostaudit/hostaudit/firewall"
)

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
