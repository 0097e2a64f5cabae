package collect

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

const nftRules = `table inet own {
	chain in {
		type filter hook input priority 0; policy accept;
		tcp dport 8081 drop
		tcp dport 8082 accept
	}
}`

const legacyRules = `*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
-A INPUT -p tcp --dport 8083 -j DROP
COMMIT
`

const compatRules = `*mangle
:PREROUTING ACCEPT
-A PREROUTING -p tcp --dport 8084 -j DROP
COMMIT
`

// TestHost reads a host with listeners and rules of every back end, and a
// container behind a veth.
func TestHost(t *testing.T) {
	lab.Need(t, "nft", "iptables-legacy", "iptables-nft")
	l := lab.New(t, lab.Topology{Containers: 2})
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: anyAddr(8081)}, lab.Listen{Proto: lab.UDP, Addr: anyAddr(8082)},
		lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("[::1]:8083")})
	l.Containers[0].Listen(t, lab.Listen{Proto: lab.TCP, Addr: anyAddr(80)})
	l.Containers[0].Load(t, lab.NFT, nftRules)
	l.Server.Load(t, lab.NFT, nftRules)
	l.Server.Load(t, lab.IPTablesLegacy, legacyRules)
	l.Server.Load(t, lab.IP6TablesLegacy, legacyRules)
	l.Server.Load(t, lab.IPTablesNFT, compatRules)

	s := hostIn(t, l.Server, Options{Tool: "test"})
	ns := home(s)
	if ns.ID != l.Server.Inode() || ns.Name != "" {
		t.Errorf("read namespace %d %q, want %d", ns.ID, ns.Name, l.Server.Inode())
	}
	for _, port := range []uint16{8081, 8082, 8083} {
		got := listener(ns, port)
		if got == nil {
			t.Errorf("listener %d not found", port)
			continue
		}
		if !slices.ContainsFunc(got.Owners, func(p listeners.Process) bool { return p.PID == os.Getpid() }) {
			t.Errorf("owners of %d: %+v (%s)", port, got.Owners, got.Unowned)
		}
	}
	if ns.Ruleset == nil {
		t.Fatalf("no ruleset: %v", ns.Unread)
	}
	want := map[string]int{"nftables inet own": 2, "iptables-legacy ip filter": 1, "iptables-legacy ip6 filter": 1, "iptables-nft ip mangle": 1}
	got := map[string]int{}
	for _, table := range ns.Ruleset.Tables {
		got[string(table.Backend)+" "+string(table.Family)+" "+table.Name] = rulesOf(table)
	}
	for name, n := range want {
		if got[name] < n {
			t.Errorf("table %s has %d rules, want %d: %v", name, got[name], n, got)
		}
	}
	if ns.Route == nil {
		t.Errorf("no routes: %v", ns.Unread)
	}
	if v, ok := s.Sysctls.Get("net.ipv4.ip_local_port_range"); !ok || !strings.Contains(v, "\t") {
		t.Errorf("ip_local_port_range %q", v)
	}
	if s.Meta.Host == "" || s.Meta.Kernel == "" || s.Meta.BootID == "" || s.Meta.OS == "" || s.Meta.Uptime <= 0 || s.Meta.Tool != "test" || s.Meta.FirstNS {
		t.Errorf("meta %+v", s.Meta)
	}
	if len(s.Samples) != 0 {
		t.Error("a quick reading took samples")
	}
	if s.Census == nil {
		t.Error("no census")
	}
	if len(s.Timings) < 5 {
		t.Errorf("timings %v", s.Timings)
	}

	box := namespaceOf(s, l.Containers[0].Inode())
	if box == nil {
		t.Fatal("the container is not part of the world")
	}
	if l := listener(box, 80); l == nil || len(l.Owners) == 0 {
		t.Errorf("listener of the container: %+v", l)
	}
	if box.Ruleset == nil || len(box.Ruleset.Tables) != 1 || box.Route == nil || box.Name == "" {
		t.Errorf("container %q: %v, %v, %v", box.Name, box.Ruleset, box.Route, box.Unread)
	}
	for _, g := range s.Gaps {
		if !g.Minor {
			t.Logf("gap: %s: %s", g.What, g.Why)
		}
	}
}

func rulesOf(t *firewall.Table) (n int) {
	for _, c := range t.Chains {
		n += len(c.Rules)
	}
	return n
}

// TestPeers: which namespace lies behind each end, by the kernel's own ids.
func TestPeers(t *testing.T) {
	l := lab.New(t, lab.Topology{Containers: 2})
	s := hostIn(t, l.Server, Options{})
	index := func(n *lab.Namespace, name string) int {
		link, err := n.Netlink().LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return link.Attrs().Index
	}
	for _, c := range []struct {
		from *lab.Namespace
		link string
		to   *lab.Namespace
		peer string
	}{
		{l.Server, "eth0", l.Client, "c0"}, {l.Client, "c0", l.Server, "eth0"},
		{l.Server, "ctr0", l.Containers[0], "eth0"}, {l.Server, "ctr1", l.Containers[1], "eth0"},
		{l.Containers[1], "eth0", l.Server, "ctr1"},
	} {
		ns := namespaceOf(s, c.from.Inode())
		if ns == nil {
			t.Errorf("%s was not read", c.from.Name)
			continue
		}
		got, ok := ns.Peers[index(c.from, c.link)]
		if !ok || got.Namespace != c.to.Inode() || got.Link != index(c.to, c.peer) {
			t.Errorf("peer of %s in %s is %+v, want %s in %d", c.link, c.from.Name, got, c.peer, c.to.Inode())
		}
	}
	// Both ends in one namespace.
	l.Server.Run(t, "ip", "link", "add", "a0", "type", "veth", "peer", "name", "a1")
	s = hostIn(t, l.Server, Options{})
	if got := home(s).Peers[index(l.Server, "a0")]; got.Namespace != l.Server.Inode() || got.Link != index(l.Server, "a1") {
		t.Errorf("peer of a0: %+v", got)
	}
}

// TestIPSecAndQueues: NFQUEUE listeners and IPsec, absent and present.
func TestIPSecAndQueues(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	ns := home(hostIn(t, l.Server, Options{}))
	if !ns.NoIPSec {
		t.Error("NoIPSec is false on a host without IPsec")
	}
	if ns.Queues == nil || len(ns.Queues) != 0 {
		t.Errorf("queues %v", ns.Queues)
	}
	l.Server.Run(t, "ip", "xfrm", "policy", "add", "src", "10.77.0.0/24", "dst", "10.78.0.0/24", "dir", "in", "action", "block")
	if home(hostIn(t, l.Server, Options{})).NoIPSec {
		t.Error("NoIPSec is true with an IPsec policy")
	}
	l.Server.Run(t, "ip", "xfrm", "policy", "flush")
	l.Server.Run(t, "ip", "xfrm", "state", "allocspi", "src", "10.77.0.1", "dst", "10.78.0.1", "proto", "esp", "min", "256", "max", "300")
	if home(hostIn(t, l.Server, Options{})).NoIPSec {
		t.Error("NoIPSec is true with an IPsec state")
	}
	l.Server.Run(t, "ip", "xfrm", "state", "flush")
	if !home(hostIn(t, l.Server, Options{})).NoIPSec {
		t.Error("NoIPSec is false after the flush")
	}

	var close func()
	l.Server.Do(func() { close = bindQueue(t, 42) })
	defer close()
	if got := home(hostIn(t, l.Server, Options{})).Queues; len(got) != 1 || !got[42] {
		t.Errorf("queues %v, want 42", got)
	}
}

// bindQueue makes this process the listener of an NFQUEUE
// (include/uapi/linux/netfilter/nfnetlink_queue.h).
func bindQueue(t *testing.T, number uint16) (stop func()) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	const queueConfig, configCommand, bind = 3<<8 | 2, 1, 1 // NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG; NFQA_CFG_CMD; NFQNL_CFG_CMD_BIND
	req := nl.NewNetlinkRequest(queueConfig, unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: s}}
	body := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(number >> 8), byte(number)}
	req.AddRawData(attr(body, configCommand, []byte{bind, 0, 0, unix.AF_INET}))
	if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil {
		t.Fatalf("bind to queue %d: %v", number, err)
	}
	return s.Close
}

// TestOrder: an order that one back end tells is not one among all.
func TestOrder(t *testing.T) {
	chain := func(h firewall.Hook) *firewall.Chain { return &firewall.Chain{Base: &firewall.Base{Hook: h}} }
	a, b, c := chain(firewall.Input), chain(firewall.Input), chain(firewall.Output)
	rs := &firewall.Ruleset{Tables: []*firewall.Table{{Chains: []*firewall.Chain{a, c}}, {Chains: []*firewall.Chain{b, {}}}},
		Order: map[firewall.Hook][]*firewall.Chain{firewall.Input: {a}, firewall.Output: {c}}}
	keepOrder(rs)
	if rs.Order[firewall.Input] != nil || len(rs.Order[firewall.Output]) != 1 {
		t.Errorf("%v", rs.Order)
	}
}
