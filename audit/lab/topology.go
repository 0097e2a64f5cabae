package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Topology says what New builds. The zero value is one client, one server and
// one link between them.
type Topology struct {
	// Links is the number of links between client and server: c0–eth0,
	// c1–eth1, …; 0 means 1.
	Links int
	// Containers is the number of namespaces behind the server, each with the
	// server as its default route. IP forwarding is the test's to switch on.
	Containers int
	// Bridge joins the containers by a bridge br0 of the server (10.88.0.1/24,
	// containers 10.88.0.2 …; ports ctr0 …) in place of a link and a network
	// for each.
	Bridge bool
	// Sources are addresses given to the client's c0 beside 10.9.0.1 and
	// fd00:9:0::1, as /32 and /128. A probe needs no such address to come from
	// it; this is for programs that list or choose addresses themselves.
	Sources []netip.Addr
}

// Lab is a network of namespaces. It ends with the test that made it.
type Lab struct {
	Client     *Namespace
	Server     *Namespace
	Containers []*Namespace

	id         string
	topology   Topology
	namespaces []*Namespace
	recorder   *recorder

	probing   sync.Mutex
	neighbors map[netip.Addr]bool // IPv6 sources that a neighbour entry was made for
}

// labCount numbers the labs of this process, for unique /run/netns names.
var labCount atomic.Int64

// New builds the network, or skips as Need does where that is impossible.
func New(t testing.TB, topology Topology) *Lab {
	t.Helper()
	Need(t, "ipv6")
	if topology.Links == 0 {
		topology.Links = 1
	}
	l := &Lab{
		id:        fmt.Sprintf("lab%d-%d", os.Getpid(), labCount.Add(1)),
		topology:  topology,
		recorder:  newRecorder(),
		neighbors: make(map[netip.Addr]bool),
	}
	t.Cleanup(func() {
		for _, n := range l.namespaces {
			n.close()
		}
	})
	if err := l.build(); err != nil {
		t.Fatalf("build the laboratory: %v", err)
	}
	for _, n := range l.namespaces {
		if err := n.settle(); err != nil {
			t.Fatalf("build the laboratory: %v", err)
		}
	}
	return l
}

// settle waits until the IPv6 addresses have their local routes: a work queue
// makes those, also without duplicate address detection (addrconf_dad_work).
func (n *Namespace) settle() error {
	const patience = 10 * time.Second
	for waited := time.Duration(0); ; waited += 2 * time.Millisecond {
		left, err := n.unsettled()
		if err != nil {
			return err
		}
		if left == "" {
			return nil
		}
		if waited >= patience {
			return fmt.Errorf("%s has no local route in %s after %s", left, n.Name, patience)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// unsettled is an IPv6 address of a link that is up without a local route.
func (n *Namespace) unsettled() (string, error) {
	links, err := n.links.LinkList()
	if err != nil {
		return "", fmt.Errorf("list the links of %s: %w", n.Name, err)
	}
	routes, err := n.links.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return "", fmt.Errorf("list the local routes of %s: %w", n.Name, err)
	}
	local := map[string]bool{}
	for _, r := range routes {
		if r.Dst != nil {
			local[r.Dst.IP.String()] = true
		}
	}
	for _, link := range links {
		if link.Attrs().Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := n.links.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return "", fmt.Errorf("list the addresses of %s in %s: %w", link.Attrs().Name, n.Name, err)
		}
		for _, a := range addrs {
			if !a.IP.IsLinkLocalUnicast() && !local[a.IP.String()] {
				return a.IP.String(), nil
			}
		}
	}
	return "", nil
}

// Namespaces returns every namespace of the lab.
func (l *Lab) Namespaces() []*Namespace { return l.namespaces }

// ClientAddr returns the client's IPv4 address on link i.
func (l *Lab) ClientAddr(i int) netip.Addr { return linkAddr(i, 1) }

// ClientAddr6 returns the client's IPv6 address on link i.
func (l *Lab) ClientAddr6(i int) netip.Addr { return linkAddr6(i, 1) }

// ServerAddr returns the server's IPv4 address on link i.
func (l *Lab) ServerAddr(i int) netip.Addr { return linkAddr(i, 2) }

// ServerAddr6 returns the server's IPv6 address on link i.
func (l *Lab) ServerAddr6(i int) netip.Addr { return linkAddr6(i, 2) }

// ContainerAddr returns the IPv4 address of container k.
func (l *Lab) ContainerAddr(k int) netip.Addr {
	if l.topology.Bridge {
		return netip.AddrFrom4([4]byte{10, 88, 0, byte(2 + k)})
	}
	return netip.AddrFrom4([4]byte{10, 88, byte(k), 2})
}

// ContainerAddr6 returns the IPv6 address of container k.
func (l *Lab) ContainerAddr6(k int) netip.Addr {
	if l.topology.Bridge {
		return netip.MustParseAddr("fd00:88:0::" + strconv.FormatInt(int64(2+k), 16))
	}
	return netip.MustParseAddr("fd00:88:" + strconv.FormatInt(int64(k), 16) + "::2")
}

func linkAddr(i, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 9, byte(i), byte(host)})
}

func linkAddr6(i, host int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("fd00:9:%x::%x", i, host))
}

// Add makes one more namespace, joined to nothing, with the sysctls of the
// laboratory. Join gives it links.
func (l *Lab) Add(t testing.TB, name string) *Namespace {
	t.Helper()
	n, err := l.add(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (l *Lab) add(name string) (*Namespace, error) {
	n, err := newNamespace(name)
	if err != nil {
		return nil, err
	}
	n.recorder = l.recorder
	l.namespaces = append(l.namespaces, n)
	if err := n.bind(l.id + "-" + name); err != nil {
		return nil, err
	}
	return n, n.quieten()
}

// quieten sets what would otherwise make a test wait or lose answers.
func (n *Namespace) quieten() error {
	for _, s := range []struct {
		key, value string
		optional   bool // not in every kernel, or not per namespace in older ones
	}{
		{key: "net.ipv4.icmp_ratelimit", value: "0"},
		{key: "net.ipv4.icmp_ratemask", value: "0"},
		{key: "net.ipv4.icmp_msgs_per_sec", value: "1000000", optional: true},
		{key: "net.ipv4.icmp_msgs_burst", value: "1000000", optional: true},
		{key: "net.ipv6.icmp.ratelimit", value: "0"},
		{key: "net.ipv6.icmp.ratemask", value: "0", optional: true},
		{key: "net.ipv4.conf.all.rp_filter", value: "0"},
		{key: "net.ipv4.conf.default.rp_filter", value: "0"},
		{key: "net.ipv6.conf.all.accept_dad", value: "0"},
		{key: "net.ipv6.conf.default.accept_dad", value: "0"},
		{key: "net.ipv6.conf.default.dad_transmits", value: "0"},
		{key: "net.ipv6.conf.default.accept_ra", value: "0"},
		{key: "net.ipv6.conf.default.router_solicitations", value: "0"},
		{key: "net.core.somaxconn", value: "65535", optional: true},
		{key: "net.ipv4.tcp_max_syn_backlog", value: "65535"},
	} {
		if err := n.setSysctl(s.key, s.value); err != nil && !(s.optional && unavailable(err)) {
			return err
		}
	}
	return nil
}

// unavailable tells an absent or read-only key from a wrong value.
func unavailable(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EINVAL)
}

// End is one end of a link.
type End struct {
	In        *Namespace
	Interface string
	Addrs     []netip.Prefix // with the host part
}

// Join links two namespaces by a veth pair that is up at both ends. Neighbour
// entries for the first IPv4 and IPv6 address of each end are permanent, so
// that a ruleset that drops neighbour discovery is judged by what it says about
// the packets under test alone.
func (l *Lab) Join(t testing.TB, a, b End) {
	t.Helper()
	if err := join(a, b); err != nil {
		t.Fatal(err)
	}
}

func join(a, b End) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.Interface
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: b.Interface, PeerNamespace: netlink.NsFd(b.In.fd)}
	if err := a.In.links.LinkAdd(pair); err != nil {
		return fmt.Errorf("add link %s %s – %s %s: %w", a.In.Name, a.Interface, b.In.Name, b.Interface, err)
	}
	var macs [2]net.HardwareAddr
	var indexes [2]int
	for i, end := range []End{a, b} {
		link, err := end.In.links.LinkByName(end.Interface)
		if err != nil {
			return fmt.Errorf("find %s in %s: %w", end.Interface, end.In.Name, err)
		}
		macs[i], indexes[i] = link.Attrs().HardwareAddr, link.Attrs().Index
		for _, addr := range end.Addrs {
			if err := end.In.addAddr(link, addr); err != nil {
				return err
			}
		}
		if err := end.In.links.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up in %s: %w", end.Interface, end.In.Name, err)
		}
	}
	for i, end := range []End{a, b} {
		seen := map[bool]bool{}
		for _, addr := range []End{b, a}[i].Addrs {
			if seen[addr.Addr().Is4()] {
				continue
			}
			seen[addr.Addr().Is4()] = true
			if err := end.In.neighbor(indexes[i], addr.Addr(), macs[1-i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// addAddr gives an interface an address that is usable at once.
func (n *Namespace) addAddr(link netlink.Link, addr netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(addr)}
	if addr.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := n.links.AddrAdd(link, a); err != nil {
		return fmt.Errorf("add address %s to %s in %s: %w", addr, link.Attrs().Name, n.Name, err)
	}
	return nil
}

// neighbor makes a permanent neighbour entry.
func (n *Namespace) neighbor(index int, addr netip.Addr, mac net.HardwareAddr) error {
	err := n.links.NeighSet(&netlink.Neigh{
		LinkIndex: index, IP: addr.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT, Family: family(addr),
	})
	if err != nil {
		return fmt.Errorf("add neighbour %s in %s: %w", addr, n.Name, err)
	}
	return nil
}

// route adds a route to a prefix by way of a gateway, or, without a gateway, of
// the link alone. Table 0 is main.
func (n *Namespace) route(to netip.Prefix, via netip.Addr, index, table, metric int) error {
	r := &netlink.Route{Dst: ipNet(to), LinkIndex: index, Table: table, Priority: metric, Family: family(to.Addr())}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	}
	if err := n.links.RouteAdd(r); err != nil {
		return fmt.Errorf("add route to %s in %s: %w", to, n.Name, err)
	}
	return nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

var (
	default4 = netip.MustParsePrefix("0.0.0.0/0")
	default6 = netip.MustParsePrefix("::/0")
)
