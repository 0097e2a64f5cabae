package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The client's routing rules, before and after its local table (which is moved
// from 0 to preference 10):
//
//	5   packets of a probe, which carry the mark i+1: leave by link i, whatever
//	    the destination is, 127.0.0.1 included
//	10  the local table
//	20  packets that arrive by a link: deliver here, whatever the destination
//	    is; so every address is a source that answers come back to
const (
	prefProbe  = 5
	prefLocal  = 10
	prefAnswer = 20

	tableLink   = 100 // + i
	tableAnswer = 99
)

// build makes the namespaces, links, addresses and routes.
func (l *Lab) build() error {
	var err error
	if l.Client, err = l.add("client"); err != nil {
		return err
	}
	if l.Server, err = l.add("server"); err != nil {
		return err
	}
	for i := range l.topology.Links {
		if err := l.link(i); err != nil {
			return err
		}
	}
	if err := l.clientRules(); err != nil {
		return err
	}
	if err := l.sources(); err != nil {
		return err
	}
	if l.topology.Bridge {
		bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
		bridge.Name = "br0"
		if err := l.Server.links.LinkAdd(bridge); err != nil {
			return fmt.Errorf("add br0: %w", err)
		}
		for _, addr := range []string{"10.88.0.1/24", "fd00:88:0::1/64"} {
			if err := l.Server.addAddr(bridge, netip.MustParsePrefix(addr)); err != nil {
				return err
			}
		}
		if err := l.Server.links.LinkSetUp(bridge); err != nil {
			return fmt.Errorf("set br0 up: %w", err)
		}
	}
	for k := range l.topology.Containers {
		if err := l.container(k); err != nil {
			return err
		}
	}
	return nil
}

// link joins client and server by link i and adds the routes over it.
func (l *Lab) link(i int) error {
	client, server := l.Client, l.Server
	clientEnd, serverEnd := fmt.Sprintf("c%d", i), fmt.Sprintf("eth%d", i)
	err := join(
		End{server, serverEnd, []netip.Prefix{netip.PrefixFrom(linkAddr(i, 2), 24), netip.PrefixFrom(linkAddr6(i, 2), 64)}},
		End{client, clientEnd, []netip.Prefix{netip.PrefixFrom(linkAddr(i, 1), 24), netip.PrefixFrom(linkAddr6(i, 1), 64)}},
	)
	if err != nil {
		return err
	}
	out, err := client.links.LinkByName(clientEnd)
	if err != nil {
		return fmt.Errorf("find %s: %w", clientEnd, err)
	}
	in, err := server.links.LinkByName(serverEnd)
	if err != nil {
		return fmt.Errorf("find %s: %w", serverEnd, err)
	}
	for _, r := range []struct {
		from     *Namespace
		to       netip.Prefix
		via      netip.Addr
		index    int
		table    int
		metric   int
		onlyMain bool // one default route is enough: the server's first link
	}{
		{from: client, to: default4, via: linkAddr(i, 2), index: out.Attrs().Index, metric: 100 + i},
		{from: client, to: default6, via: linkAddr6(i, 2), index: out.Attrs().Index, metric: 100 + i},
		{from: client, to: default4, via: linkAddr(i, 2), index: out.Attrs().Index, table: tableLink + i},
		{from: client, to: default6, via: linkAddr6(i, 2), index: out.Attrs().Index, table: tableLink + i},
		{from: server, to: default4, via: linkAddr(i, 1), index: in.Attrs().Index, onlyMain: true},
		{from: server, to: default6, via: linkAddr6(i, 1), index: in.Attrs().Index, onlyMain: true},
	} {
		if r.onlyMain && i > 0 {
			continue
		}
		if err := r.from.route(r.to, r.via, r.index, r.table, r.metric); err != nil {
			return err
		}
	}
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		mark := netlink.NewRule()
		mark.Family, mark.Priority, mark.Table, mark.Mark = fam, prefProbe, tableLink+i, markOf(i)
		if err := client.links.RuleAdd(mark); err != nil {
			return fmt.Errorf("add rule for link %d: %w", i, err)
		}
		answer := netlink.NewRule()
		answer.Family, answer.Priority, answer.Table, answer.IifName = fam, prefAnswer, tableAnswer, clientEnd
		if err := client.links.RuleAdd(answer); err != nil {
			return fmt.Errorf("add rule for answers on link %d: %w", i, err)
		}
	}
	return nil
}

// markOf is the mark that sends a packet of the client out by link i.
func markOf(i int) uint32 { return uint32(i + 1) }

// clientRules lets the client send from, and receive for, any address.
func (l *Lab) clientRules() error {
	client := l.Client
	lo, err := client.links.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	for _, to := range []netip.Prefix{default4, default6} {
		local := &netlink.Route{
			Dst: ipNet(to), LinkIndex: lo.Attrs().Index, Table: tableAnswer, Type: unix.RTN_LOCAL,
			Scope: netlink.SCOPE_HOST, Family: family(to.Addr()),
		}
		if err := client.links.RouteAdd(local); err != nil {
			return fmt.Errorf("add local route to %s: %w", to, err)
		}
		moved := netlink.NewRule()
		moved.Family, moved.Priority, moved.Table = family(to.Addr()), prefLocal, unix.RT_TABLE_LOCAL
		if err := client.links.RuleAdd(moved); err != nil {
			return fmt.Errorf("move the local table: %w", err)
		}
		first := netlink.NewRule()
		first.Family, first.Priority, first.Table = family(to.Addr()), 0, unix.RT_TABLE_LOCAL
		if err := client.links.RuleDel(first); err != nil {
			return fmt.Errorf("move the local table: %w", err)
		}
	}
	// Sources and destinations in 127/8 may leave and arrive by a wire, and an
	// answer may come from an address that the client has as well.
	for _, key := range []string{"net.ipv4.conf.all.route_localnet", "net.ipv4.conf.all.accept_local"} {
		if err := client.setSysctl(key, "1"); err != nil {
			return err
		}
	}
	return nil
}

// sources adds the addresses that the topology asks for.
func (l *Lab) sources() error {
	if len(l.topology.Sources) == 0 {
		return nil
	}
	link, err := l.Client.links.LinkByName("c0")
	if err != nil {
		return fmt.Errorf("find c0: %w", err)
	}
	for _, addr := range l.topology.Sources {
		if err := l.Client.addAddr(link, netip.PrefixFrom(addr, addr.BitLen())); err != nil {
			return err
		}
	}
	return nil
}

// container makes container k and its link.
func (l *Lab) container(k int) error {
	n, err := l.add(fmt.Sprintf("container%d", k))
	if err != nil {
		return err
	}
	l.Containers = append(l.Containers, n)
	inside := End{n, "eth0", []netip.Prefix{netip.PrefixFrom(l.ContainerAddr(k), 24), netip.PrefixFrom(l.ContainerAddr6(k), 64)}}
	outside := End{In: l.Server, Interface: fmt.Sprintf("ctr%d", k)}
	gateway, gateway6 := netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("fd00:88:0::1")
	if !l.topology.Bridge {
		gateway = netip.AddrFrom4([4]byte{10, 88, byte(k), 1})
		gateway6 = netip.MustParseAddr(fmt.Sprintf("fd00:88:%x::1", k))
		outside.Addrs = []netip.Prefix{netip.PrefixFrom(gateway, 24), netip.PrefixFrom(gateway6, 64)}
	}
	if err := join(outside, inside); err != nil {
		return err
	}
	link, err := n.links.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find eth0 in %s: %w", n.Name, err)
	}
	if l.topology.Bridge {
		if err := l.attach(k, n, link, gateway, gateway6); err != nil {
			return err
		}
	}
	if err := n.route(default4, gateway, link.Attrs().Index, 0, 0); err != nil {
		return err
	}
	return n.route(default6, gateway6, link.Attrs().Index, 0, 0)
}

// attach makes the server's end of a container's link a port of br0, with the
// permanent neighbours that join makes for a link without bridge.
func (l *Lab) attach(k int, n *Namespace, inside netlink.Link, gateways ...netip.Addr) error {
	bridge, err := l.Server.links.LinkByName("br0")
	if err != nil {
		return fmt.Errorf("find br0: %w", err)
	}
	port, err := l.Server.links.LinkByName(fmt.Sprintf("ctr%d", k))
	if err != nil {
		return fmt.Errorf("find ctr%d: %w", k, err)
	}
	if err := l.Server.links.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("make ctr%d a port of br0: %w", k, err)
	}
	// A bridge takes the lowest address of its ports unless one is set.
	if err := l.Server.links.LinkSetHardwareAddr(bridge, bridge.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("fix the hardware address of br0: %w", err)
	}
	for _, gateway := range gateways {
		if err := n.neighbor(inside.Attrs().Index, gateway, bridge.Attrs().HardwareAddr); err != nil {
			return err
		}
	}
	for _, addr := range []netip.Addr{l.ContainerAddr(k), l.ContainerAddr6(k)} {
		if err := l.Server.neighbor(bridge.Attrs().Index, addr, inside.Attrs().HardwareAddr); err != nil {
			return err
		}
	}
	return nil
}
