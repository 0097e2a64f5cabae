package route

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// Link is a network interface with everything routing asks of it.
type Link struct {
	*firewall.Link
	// Flags are IFF_* (unix.IFF_UP, IFF_RUNNING, IFF_LOOPBACK, …).
	Flags uint32
	MTU   uint32
	// PeerIndex is the index of the link at the other end (IFLA_LINK: a
	// veth's peer, a VLAN's lower link), 0 for none.
	PeerIndex int
	// PeerNetNSID is the kernel's number, in this namespace, of the namespace
	// the peer is in (IFLA_LINK_NETNSID); PeerElsewhere tells whether there is one.
	PeerNetNSID   int32
	PeerElsewhere bool
	// XDP is not 0 when a program is attached (XDP_ATTACHED_*), XDPProgram its
	// id where there is one.
	XDP        uint8
	XDPProgram uint32
	AltNames   []string
	// PortKind is what the link is a port of: "vrf", "bridge", "bond", "".
	PortKind string

	// conf4 and conf6 are the link's own devconf values by number; nil when
	// the family is switched off on the link (no in_device).
	conf4, conf6 []int32
}

// Up reports whether the link is administratively up.
func (l *Link) Up() bool { return l.Flags&unix.IFF_UP != 0 }

// Running reports whether the link has a carrier.
func (l *Link) Running() bool { return l.Flags&unix.IFF_RUNNING != 0 }

// Loopback reports whether the link is the loopback.
func (l *Link) Loopback() bool { return l.Flags&unix.IFF_LOOPBACK != 0 }

// The devconf numbers that are used (uapi/linux/ip.h IPV4_DEVCONF_*, less one;
// uapi/linux/ipv6.h DEVCONF_*).
const (
	conf4Forwarding    = 0
	conf4SendRedirects = 5
	conf4RPFilter      = 7
	conf4AcceptLocal   = 22
	conf4SrcValidMark  = 23
	conf4RouteLocalnet = 25
	conf4BCForwarding  = 31

	conf6UseTempAddr     = 10
	conf6DisableIPv6     = 26
	conf6UseOIFAddrsOnly = 37
	conf6ForceForwarding = 59
)

// confKeys names the keys that Conf gives.
var confKeys = map[firewall.Family]map[string]int{
	firewall.IPv4: {
		"forwarding": conf4Forwarding, "accept_redirects": 3, "secure_redirects": 4, "send_redirects": conf4SendRedirects,
		"rp_filter": conf4RPFilter, "accept_source_route": 8, "log_martians": 10, "arp_filter": 12, "arp_announce": 17,
		"arp_ignore": 18, "arp_accept": 20, "accept_local": conf4AcceptLocal, "src_valid_mark": conf4SrcValidMark,
		"route_localnet": conf4RouteLocalnet, "ignore_routes_with_linkdown": 28, "drop_unicast_in_l2_multicast": 29,
		"bc_forwarding": conf4BCForwarding,
	},
	firewall.IPv6: {
		"forwarding": 0, "accept_ra": 3, "accept_redirects": 4, "autoconf": 5, "use_tempaddr": conf6UseTempAddr, "proxy_ndp": 22,
		"accept_source_route": 24, "disable_ipv6": conf6DisableIPv6, "accept_dad": 27, "use_oif_addrs_only": conf6UseOIFAddrsOnly,
		"ignore_routes_with_linkdown": 39, "drop_unicast_in_l2_multicast": 40, "force_forwarding": conf6ForceForwarding,
	},
}

// Conf is the link's own value of net.ipv4.conf.LINK.key or net.ipv6.conf.LINK.key
// (not combined with that of "all"), and the whole key as sysctl prints it.
// false: the link does not have the family, or key is none of those kept.
func (l *Link) Conf(f firewall.Family, key string) (value int, name string, ok bool) {
	values, family := l.conf4, "ipv4"
	if f == firewall.IPv6 {
		values, family = l.conf6, "ipv6"
	}
	i, known := confKeys[f][key]
	if !known || i >= len(values) {
		return 0, "", false
	}
	return int(values[i]), confName(family, l.Name, key), true
}

// conf is a value of a devconf array; one the kernel does not have is 0.
func conf(values []int32, i int) int32 {
	if i < len(values) {
		return values[i]
	}
	return 0
}

// vrf returns the VRF the link is or belongs to, nil for none.
func (l *Link) vrf() *firewall.Link {
	for m := l.Link; m != nil; m = m.Master {
		if m.Kind == "vrf" {
			return m
		}
		if m.Master == m {
			break
		}
	}
	return nil
}

// decodeLinks reads the answer to RTM_GETLINK.
func decodeLinks(c *Capture) ([]*Link, error) {
	order := c.order()
	var links []*Link
	masters := map[*Link]int{}
	err := messages(blobLinks, order, c.Blobs[blobLinks].Data, unix.RTM_NEWLINK, unix.SizeofIfInfomsg, func(m message) error {
		if m.fixed[0] != unix.AF_UNSPEC {
			return nil // a bridge port seen by the bridge
		}
		l := &Link{Link: &firewall.Link{
			Type:  order.Uint16(m.fixed[2:]),
			Index: int(int32(order.Uint32(m.fixed[4:]))),
		}, Flags: order.Uint32(m.fixed[8:])}
		for _, a := range m.attrs {
			if err := l.attribute(m, a, masters); err != nil {
				return fmt.Errorf("link %d: %w", l.Index, err)
			}
		}
		links = append(links, l)
		return nil
	})
	if err != nil {
		return nil, err
	}
	byIndex := map[int]*Link{}
	for _, l := range links {
		byIndex[l.Index] = l
	}
	for l, master := range masters {
		if m := byIndex[master]; m != nil && m != l {
			l.Master = m.Link
		}
	}
	return links, nil
}

func (l *Link) attribute(m message, a attr, masters map[*Link]int) (err error) {
	var n uint32
	switch a.typ {
	case unix.IFLA_IFNAME:
		l.Name = a.text()
	case unix.IFLA_MTU:
		l.MTU, err = a.u32(m.order)
	case unix.IFLA_ADDRESS:
		l.MAC = append([]byte(nil), a.value...)
	case unix.IFLA_LINK:
		n, err = a.u32(m.order)
		l.PeerIndex = int(n)
	case unix.IFLA_LINK_NETNSID:
		n, err = a.u32(m.order)
		l.PeerNetNSID, l.PeerElsewhere = int32(n), true
	case unix.IFLA_MASTER:
		n, err = a.u32(m.order)
		masters[l] = int(n)
	case unix.IFLA_GROUP:
		l.Group, err = a.u32(m.order)
	case unix.IFLA_LINKINFO:
		err = l.linkInfo(m, a.value)
	case unix.IFLA_XDP:
		err = l.xdp(m, a.value)
	case unix.IFLA_PROP_LIST:
		subs, e := attributes(m.order, a.value)
		for _, s := range subs {
			if s.typ == unix.IFLA_ALT_IFNAME {
				l.AltNames = append(l.AltNames, s.text())
			}
		}
		err = e
	case unix.IFLA_AF_SPEC:
		err = l.afSpec(m, a.value)
	}
	return err
}

func (l *Link) linkInfo(m message, b []byte) error {
	subs, err := attributes(m.order, b)
	for _, s := range subs {
		switch s.typ {
		case unix.IFLA_INFO_KIND:
			l.Kind = s.text()
		case unix.IFLA_INFO_SLAVE_KIND:
			l.PortKind = s.text()
		}
	}
	return err
}

func (l *Link) xdp(m message, b []byte) error {
	subs, err := attributes(m.order, b)
	if err != nil {
		return err
	}
	for _, s := range subs {
		switch s.typ {
		case unix.IFLA_XDP_ATTACHED:
			l.XDP, err = s.u8()
		case unix.IFLA_XDP_PROG_ID:
			l.XDPProgram, err = s.u32(m.order)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// afSpec reads the devconf arrays (inet_fill_link_af, inet6_fill_link_af).
func (l *Link) afSpec(m message, b []byte) error {
	const inetConf, inet6Conf = 1, 2 // IFLA_INET_CONF, IFLA_INET6_CONF
	fams, err := attributes(m.order, b)
	if err != nil {
		return err
	}
	for _, f := range fams {
		subs, err := attributes(m.order, f.value)
		if err != nil {
			return err
		}
		for _, s := range subs {
			switch {
			case f.typ == unix.AF_INET && s.typ == inetConf:
				l.conf4 = numbers(m, s.value)
			case f.typ == unix.AF_INET6 && s.typ == inet6Conf:
				l.conf6 = numbers(m, s.value)
			}
		}
	}
	return nil
}

func numbers(m message, b []byte) []int32 {
	out := make([]int32, len(b)/4)
	for i := range out {
		out[i] = int32(m.order.Uint32(b[4*i:]))
	}
	return out
}
