package route

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// addrLabel is an entry of the RFC 6724 policy table (`ip addrlabel`).
type addrLabel struct {
	prefix netip.Prefix
	link   int
	label  uint32
}

func decodeLabels(c *Capture) ([]addrLabel, error) {
	const ifalAddress, ifalLabel = 1, 2
	order := c.order()
	var out []addrLabel
	err := messages(blobLabels, order, c.Blobs[blobLabels].Data, unix.RTM_NEWADDRLABEL, sizeofAddrLabelMsg, func(m message) error {
		l := addrLabel{link: int(int32(order.Uint32(m.fixed[4:])))}
		var v firewall.Value
		for _, a := range m.attrs {
			var err error
			switch a.typ {
			case ifalAddress:
				v, err = a.addr(firewall.IPv6)
			case ifalLabel:
				l.label, err = a.u32(order)
			}
			if err != nil {
				return err
			}
		}
		l.prefix = netip.PrefixFrom(v.Addr(firewall.IPv6), min(int(m.fixed[2]), 128)).Masked()
		out = append(out, l)
		return nil
	})
	return out, err
}

// label is ipv6_addr_label: the entry of the longest prefix, in the kernel's
// order of the table.
func (t *Table) label(a netip.Addr, link int) uint32 {
	best, label := -1, uint32(0xffffffff)
	for _, l := range t.labels {
		if l.prefix.Contains(a) && (l.link == 0 || l.link == link) && l.prefix.Bits() > best {
			best, label = l.prefix.Bits(), l.label
		}
	}
	return label
}
