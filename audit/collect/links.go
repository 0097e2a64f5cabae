package collect

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// linkFact is what the programs and peers of a link are told by.
type linkFact struct {
	Index  int
	Name   string
	Kind   string // "veth", "vrf", "" for a plain device
	Master int
	// Peer is IFLA_LINK: the other end of a veth, the lower device of a vlan.
	Peer int
	// NSID names the peer's namespace, -1 for the same one.
	NSID int32
	// XDP are the programs on the device, by the way they are attached.
	XDP []xdpFact
}

type xdpFact struct {
	Mode string // "driver", "generic", "hardware"
	ID   uint32
}

// readLinks dumps the links of the calling thread's namespace (RTM_GETLINK).
func readLinks(a *answers) ([]linkFact, error) {
	const skipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	parts, err := a.get("links", func() ([][]byte, error) {
		return netlinkAsk(unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.NLM_F_DUMP,
			attr(make([]byte, ifinfomsgLen), unix.IFLA_EXT_MASK, native32(skipStats)))
	})
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	out := make([]linkFact, 0, len(parts))
	for _, b := range parts {
		l, err := decodeLink(b, a.order)
		if err != nil {
			return nil, fmt.Errorf("read links: %w", err)
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b linkFact) int { return a.Index - b.Index })
	return out, nil
}

// decodeLink reads a message of rtnl_fill_ifinfo (net/core/rtnetlink.c).
func decodeLink(b []byte, order binary.ByteOrder) (linkFact, error) {
	l := linkFact{NSID: -1}
	if len(b) < ifinfomsgLen {
		return l, errShortMessage
	}
	l.Index = int(int32(order.Uint32(b[4:])))
	whole := true
	for typ, v := range attrs(b[ifinfomsgLen:], order, &whole) {
		switch {
		case typ == unix.IFLA_IFNAME:
			l.Name = text(v)
		case typ == unix.IFLA_LINK && len(v) >= 4:
			l.Peer = int(int32(order.Uint32(v)))
		case typ == unix.IFLA_MASTER && len(v) >= 4:
			l.Master = int(int32(order.Uint32(v)))
		case typ == unix.IFLA_LINK_NETNSID && len(v) >= 4:
			l.NSID = int32(order.Uint32(v))
		case typ == unix.IFLA_LINKINFO:
			for typ, v := range attrs(v, order, &whole) {
				if typ == unix.IFLA_INFO_KIND {
					l.Kind = text(v)
				}
			}
		case typ == unix.IFLA_XDP:
			l.XDP = decodeXDP(v, order, &whole)
		}
	}
	if !whole {
		return l, errShortMessage
	}
	return l, nil
}

// decodeXDP reads IFLA_XDP (rtnl_xdp_fill).
func decodeXDP(b []byte, order binary.ByteOrder, whole *bool) []xdpFact {
	var attached byte
	ids := map[uint16]uint32{}
	for typ, v := range attrs(b, order, whole) {
		switch {
		case typ == unix.IFLA_XDP_ATTACHED && len(v) >= 1:
			attached = v[0]
		case len(v) >= 4:
			ids[typ] = order.Uint32(v)
		}
	}
	modes := []struct {
		attr uint16
		name string
	}{{unix.IFLA_XDP_DRV_PROG_ID, "driver"}, {unix.IFLA_XDP_SKB_PROG_ID, "generic"}, {unix.IFLA_XDP_HW_PROG_ID, "hardware"}}
	var out []xdpFact
	for _, m := range modes {
		if id := ids[m.attr]; id != 0 {
			out = append(out, xdpFact{m.name, id})
		}
	}
	if out == nil && attached != 0 { // kernels before 5.0 tell one program and its mode
		mode := ""
		if int(attached) <= len(modes) {
			mode = modes[attached-1].name
		}
		out = append(out, xdpFact{mode, ids[unix.IFLA_XDP_PROG_ID]})
	}
	return out
}
