package route

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// nexthop is a nexthop object (`ip nexthop`): one hop, a group, or a blackhole.
type nexthop struct {
	id        uint32
	hop       Hop
	members   []uint32
	blackhole bool
}

// expand returns the hops of the object; why is not "" where one is missing.
func (n *nexthop) expand(all map[uint32]*nexthop) (hops []Hop, why string) {
	if len(n.members) == 0 {
		return []Hop{n.hop}, ""
	}
	for _, id := range n.members {
		m, ok := all[id]
		if !ok || len(m.members) > 0 || m.blackhole {
			return nil, fmt.Sprintf("member %d of nexthop group %d could not be read", id, n.id)
		}
		hops = append(hops, m.hop)
	}
	return hops, ""
}

// mixed lists the other routes that an IPv6 route can be taken for. The kernel
// keeps its copy of a route (rt6_get_pcpu_route) in the nexthop, and a nexthop
// object is shared: what is later asked of the copy (its prefix, its source) is
// that of whichever route used the object first on that processor.
func (t *Table) mixed(r *Route) []*Route {
	if r.Family != firewall.IPv6 || r.NexthopID == 0 {
		return nil
	}
	if all := t.users6[r.NexthopID]; len(all) > 1 {
		return all
	}
	return nil
}

func decodeNexthops(c *Capture, byIndex map[int]*Link) (map[uint32]*nexthop, error) {
	order := c.order()
	out := map[uint32]*nexthop{}
	err := messages(blobNexthops, order, c.Blobs[blobNexthops].Data, unix.RTM_NEWNEXTHOP, sizeofNexthopMsg, func(m message) error {
		f, ok := familyOf(m.fixed[0])
		if !ok {
			f = firewall.IPv4 // a group has no family and no gateway
		}
		n := &nexthop{hop: Hop{Weight: 1, Flags: order.Uint32(m.fixed[4:])}}
		for _, a := range m.attrs {
			var err error
			var v uint32
			switch a.typ {
			case unix.NHA_ID:
				n.id, err = a.u32(order)
			case unix.NHA_GROUP:
				// struct nexthop_grp: id, weight, reserved: 8 bytes.
				for b := a.value; len(b) >= 8; b = b[8:] {
					n.members = append(n.members, order.Uint32(b))
				}
			case unix.NHA_BLACKHOLE:
				n.blackhole = true
			case unix.NHA_OIF:
				v, err = a.u32(order)
				n.hop.Link = byIndex[int(v)]
			case unix.NHA_GATEWAY:
				n.hop.Gateway, err = gateway(a, f)
			}
			if err != nil {
				return err
			}
		}
		if n.id == 0 {
			return fmt.Errorf("nexthop object without a number")
		}
		out[n.id] = n
		return nil
	})
	return out, err
}
