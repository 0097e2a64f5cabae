package route

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// Addr is an address of a link, in the kernel's order of the link's addresses.
type Addr struct {
	Link   *Link
	Family firewall.Family
	// Local is the address itself, Prefix its network (on a point-to-point
	// link that of the peer, IFA_ADDRESS).
	Local  netip.Addr
	Prefix netip.Prefix
	// Broadcast is the zero Addr for none.
	Broadcast netip.Addr
	Scope     uint8  // RT_SCOPE_*: 0 universe, 253 link, 254 host
	Flags     uint32 // IFA_F_*: secondary (temporary in IPv6), deprecated, tentative, …
	Label     string // IPv4: the name given by `label`, e.g. "eth0:1"
}

// Secondary reports the flag, as Tentative and Deprecated do theirs. An
// optimistic address is not tentative.
func (a *Addr) Secondary() bool { return a.Flags&unix.IFA_F_SECONDARY != 0 }

// Tentative reports whether duplicate address detection still keeps the address
// out of use.
func (a *Addr) Tentative() bool {
	return a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0
}

// Deprecated reports whether the address is no longer to be used as a source.
func (a *Addr) Deprecated() bool { return a.Flags&unix.IFA_F_DEPRECATED != 0 }

// value is the address as a number.
func (a *Addr) value() firewall.Value { return firewall.AddrValue(a.Local) }

func decodeAddrs(c *Capture, byIndex map[int]*Link) ([]*Addr, error) {
	order := c.order()
	var out []*Addr
	err := messages(blobAddrs, order, c.Blobs[blobAddrs].Data, unix.RTM_NEWADDR, unix.SizeofIfAddrmsg, func(m message) error {
		f, ok := familyOf(m.fixed[0])
		if !ok {
			return nil
		}
		index := int(int32(order.Uint32(m.fixed[4:])))
		a := &Addr{Family: f, Link: byIndex[index], Scope: m.fixed[3], Flags: uint32(m.fixed[2])}
		if a.Link == nil {
			return fmt.Errorf("address of link %d, which is not among the links", index)
		}
		var local, address *firewall.Value
		for _, at := range m.attrs {
			switch at.typ {
			case unix.IFA_LOCAL, unix.IFA_ADDRESS, unix.IFA_BROADCAST:
				v, err := at.addr(f)
				if err != nil {
					return err
				}
				switch at.typ {
				case unix.IFA_LOCAL:
					local = &v
				case unix.IFA_ADDRESS:
					address = &v
				default:
					a.Broadcast = v.Addr(f)
				}
			case unix.IFA_LABEL:
				a.Label = at.text()
			case unix.IFA_FLAGS:
				v, err := at.u32(order)
				if err != nil {
					return err
				}
				a.Flags = v
			}
		}
		// IPv4 always has IFA_LOCAL; IPv6 only on point-to-point links.
		if local == nil {
			local = address
		}
		if address == nil {
			address = local
		}
		if local == nil {
			return fmt.Errorf("address of link %d without an address", index)
		}
		a.Local = local.Addr(f)
		if int(m.fixed[1]) > 8*f.AddrLen() {
			return fmt.Errorf("prefix length %d", m.fixed[1])
		}
		a.Prefix = netip.PrefixFrom(address.Addr(f), int(m.fixed[1])).Masked()
		out = append(out, a)
		return nil
	})
	return out, err
}
