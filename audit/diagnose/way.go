package diagnose

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Way is the kernel's own lookup of the way to an address (`ip route get`).
type Way struct {
	// Prefix is the route taken; a default route has length 0. Invalid where the
	// kernel does not tell.
	Prefix    netip.Prefix `json:"prefix,omitzero"`
	Interface string       `json:"interface,omitempty"`
	Gateway   netip.Addr   `json:"gateway,omitzero"`
	Source    netip.Addr   `json:"source,omitzero"`
	Local     bool         `json:"local,omitempty"`
	// Unanswered: the next hop (the address itself, on its own link) does not
	// answer ARP or neighbour discovery, as the kernel's table has it.
	Unanswered bool `json:"unanswered,omitempty"`
	// LinkMTU is the interface's, LinkKind what it is where it is no plain card
	// ("wireguard", "tun", "vxlan"; as ip -d link spells it).
	LinkMTU  int    `json:"link_mtu,omitempty"`
	LinkKind string `json:"link_kind,omitempty"`
	// PathMTU is smaller than LinkMTU where a route says so, or a router has told
	// that larger packets do not fit; 0 for not known.
	PathMTU int `json:"path_mtu,omitempty"`
	// Errno is the answer of a lookup that fails: ENETUNREACH for no route, EINVAL
	// EHOSTUNREACH or EACCES for a route of type blackhole, unreachable, prohibit.
	Errno string `json:"errno,omitempty"`

	down bool // the interface has no carrier: of a tunnel, no program holds it
}

// FindWay asks the kernel for the way to an address, in the calling thread's
// network namespace. The error is for a question that could not be asked.
func FindWay(to netip.Addr) (*Way, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	w := &Way{}
	rs, err := h.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{})
	if err != nil {
		var e unix.Errno
		if !errors.As(err, &e) {
			return nil, err
		}
		w.Errno = unix.ErrnoName(e)
		return w, nil
	}
	if len(rs) == 0 {
		return nil, errors.New("the kernel gave no route")
	}
	r := rs[0]
	w.Local, w.PathMTU = r.Type == unix.RTN_LOCAL, r.MTU
	if a, ok := netip.AddrFromSlice(r.Gw); ok {
		w.Gateway = a.Unmap()
	}
	if a, ok := netip.AddrFromSlice(r.Src); ok {
		w.Source = a.Unmap()
	}
	if l, err := h.LinkByIndex(r.LinkIndex); err == nil {
		w.Interface, w.LinkMTU = l.Attrs().Name, l.Attrs().MTU
		w.down = l.Attrs().OperState == netlink.OperDown
		if k := l.Type(); k != "device" && k != "veth" {
			if w.LinkKind = k; k == "tuntap" { // netlink's own name for it
				w.LinkKind = "tun"
			}
		}
	}
	next := to
	if w.Gateway.IsValid() {
		next = w.Gateway
	}
	if ns, err := h.NeighList(r.LinkIndex, unix.AF_UNSPEC); err == nil {
		for _, n := range ns {
			if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == next {
				w.Unanswered = n.State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED) != 0
			}
		}
	}
	if rs, err := h.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true}); err == nil && len(rs) > 0 {
		if rs[0].Dst == nil {
			w.Prefix = netip.PrefixFrom(zero(to), 0)
		} else if a, ok := netip.AddrFromSlice(rs[0].Dst.IP); ok {
			n, _ := rs[0].Dst.Mask.Size()
			w.Prefix = netip.PrefixFrom(a.Unmap(), n)
		}
	}
	return w, nil
}

func zero(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
