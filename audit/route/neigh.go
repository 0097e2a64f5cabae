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

// decodeNeighs returns the IPv6 neighbours the kernel holds for unreachable
// (NUD_FAILED). rt6_check_neigh asks nothing else of them.
func decodeNeighs(c *Capture) (map[neighKey]bool, error) {
	const (
		valid  = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY
		failed = unix.NUD_FAILED
	)
	order := c.order()
	out := map[neighKey]bool{}
	err := messages(blobNeighs6, order, c.Blobs[blobNeighs6].Data, unix.RTM_NEWNEIGH, unix.SizeofNdMsg, func(m message) error {
		state := order.Uint16(m.fixed[8:])
		if m.fixed[0] != unix.AF_INET6 || state&valid != 0 || state&failed == 0 {
			return nil
		}
		for _, a := range m.attrs {
			if a.typ == unix.NDA_DST {
				v, err := a.addr(firewall.IPv6)
				if err != nil {
					return err
				}
				out[neighKey{int(int32(order.Uint32(m.fixed[4:]))), v.Addr(firewall.IPv6)}] = true
			}
		}
		return nil
	})
	return out, err
}
