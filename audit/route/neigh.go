package route

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// neighKey is a neighbour: an address on a link.
type neighKey struct {
	link int
	addr netip.Addr
}

// failedNeigh reports a neighbour that the kernel holds for unreachable.
// rt6_check_neigh asks nothing else of them.
func failedNeigh(state uint16) bool {
	const valid = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY
	return state&valid == 0 && state&unix.NUD_FAILED != 0
}

// knownNeigh reports a neighbour that needs no discovery: its hardware address was
// set by hand, or both sides answered each other within the last half minute or so
// (neigh_rand_reach_time), so that it has this host's, too. One in NUD_STALE may have
// lost that.
func knownNeigh(state uint16) bool { return state&(unix.NUD_PERMANENT|unix.NUD_REACHABLE) != 0 }

// decodeNeighs returns the neighbours whose state is as asked.
func decodeNeighs(c *Capture, blob string, is func(state uint16) bool) (map[neighKey]bool, error) {
	order := c.order()
	f := firewall.IPv6
	if blob == blobNeighs4 {
		f = firewall.IPv4
	}
	out := map[neighKey]bool{}
	err := messages(blob, order, c.Blobs[blob].Data, unix.RTM_NEWNEIGH, unix.SizeofNdMsg, func(m message) error {
		if got, ok := familyOf(m.fixed[0]); !ok || got != f || !is(order.Uint16(m.fixed[8:])) {
			return nil
		}
		for _, a := range m.attrs {
			if a.typ == unix.NDA_DST {
				v, err := a.addr(f)
				if err != nil {
					return err
				}
				out[neighKey{int(int32(order.Uint32(m.fixed[4:]))), v.Addr(f)}] = true
			}
		}
		return nil
	})
	return out, err
}

// KnownNeighbours are the neighbours of family f on a link about whom nothing need
// be discovered (NUD_PERMANENT, NUD_REACHABLE).
func (t *Table) KnownNeighbours(f firewall.Family, link int) firewall.Ranges {
	var out []firewall.Range
	for k := range t.known {
		if v := firewall.AddrValue(k.addr); k.link == link && firewall.FamilyOf(k.addr) == f {
			out = append(out, firewall.Range{Lo: v, Hi: v})
		}
	}
	return firewall.NewRanges(out)
}

// Discovers reports whether neighbours on the link have to find each other's
// hardware addresses.
func (l *Link) Discovers() bool {
	return l.Type == unix.ARPHRD_ETHER && l.Flags&unix.IFF_NOARP == 0
}

// OnLink are the addresses of family f that are neighbours on a link: the
// networks of its addresses and, in IPv6, the link-local ones.
func (t *Table) OnLink(f firewall.Family, link int) firewall.Ranges {
	var out firewall.Ranges
	if f == firewall.IPv6 {
		out = linklocal6
	}
	for _, a := range t.Addrs {
		if a.Family == f && a.Link != nil && a.Link.Index == link && a.Prefix.IsValid() {
			out = out.Union(firewall.Prefix(a.Prefix.Masked()))
		}
	}
	return out
}
