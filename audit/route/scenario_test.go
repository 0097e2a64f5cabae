package route

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// scenario is one cause of a packet not arriving, or arriving where nobody
// would expect it.
type scenario struct {
	name   string
	ip     []string // lines for ip on the server
	sysctl []string
	from   string
	to     string
	via    string // the server's interface, eth0 when empty
	never  bool   // the probe could not connect before either
	after  lab.Sight
	// What the model says of the packet coming in and of its answer.
	in, out VerdictKind
	why     Why
	witness string
}

var scenarios = []scenario{
	{name: "strict reverse path", sysctl: []string{"net.ipv4.conf.eth0.rp_filter", "1"}, from: "10.9.1.77", to: "10.9.0.2",
		after: lab.Timeout, in: Drop, why: RPFilter, witness: "net.ipv4.conf.eth0.rp_filter = 1"},
	{name: "strict by all", sysctl: []string{"net.ipv4.conf.all.rp_filter", "1"}, from: "10.9.1.77", to: "10.9.0.2",
		after: lab.Timeout, in: Drop, why: RPFilter, witness: "net.ipv4.conf.all.rp_filter = 1"},
	{name: "loose reverse path", sysctl: []string{"net.ipv4.conf.eth0.rp_filter", "2"}, from: "10.9.1.77", to: "10.9.0.2",
		after: lab.Connected, in: Local, out: Send},
	{name: "loose wins over strict", sysctl: []string{"net.ipv4.conf.all.rp_filter", "2", "net.ipv4.conf.eth0.rp_filter", "1"}, from: "10.9.1.77", to: "10.9.0.2",
		after: lab.Connected, in: Local, out: Send},
	{name: "loose without any route", ip: []string{"route del default"}, sysctl: []string{"net.ipv4.conf.eth0.rp_filter", "2"}, from: "203.0.113.9", to: "10.9.0.2",
		after: lab.Timeout, in: Drop, why: RPFilter, witness: "net.ipv4.conf.eth0.rp_filter = 2"},
	{name: "no route back", ip: []string{"route del default"}, from: "203.0.113.9", to: "10.9.0.2",
		after: lab.Timeout, in: Local, out: Fail, why: NoRoute, witness: "no route"},
	{name: "blackhole back", ip: []string{"route add blackhole 203.0.113.0/24"}, from: "203.0.113.9", to: "10.9.0.2",
		after: lab.Timeout, in: Local, out: Fail, why: Blackhole, witness: "blackhole 203.0.113.0/24"},
	{name: "prohibit rule before main", ip: []string{"rule add pref 100 from 10.9.0.2 to 203.0.113.0/24 prohibit"}, from: "203.0.113.9", to: "10.9.0.2",
		after: lab.Timeout, in: Local, out: Fail, why: Prohibit, witness: "100: from 10.9.0.2 to 203.0.113.0/24 prohibit"},
	{name: "prohibit rule after local", ip: []string{"rule add pref 100 from 203.0.113.0/24 prohibit"}, from: "203.0.113.9", to: "10.9.0.2",
		after: lab.Connected, in: Local, out: Send},
	{name: "prohibit rule before local", ip: []string{"rule add pref 100 lookup local", "rule del pref 0", "rule add pref 50 from 203.0.113.0/24 prohibit"},
		sysctl: []string{"net.ipv4.conf.eth0.forwarding", "1"}, from: "203.0.113.9", to: "10.9.0.2",
		after: lab.Unreachable, in: Drop, why: Prohibit, witness: "50: from 203.0.113.0/24 prohibit"},
	{name: "the same without forwarding", ip: []string{"rule add pref 100 lookup local", "rule del pref 0", "rule add pref 50 from 203.0.113.0/24 prohibit"},
		sysctl: []string{"net.ipv4.conf.eth0.forwarding", "0"}, from: "203.0.113.9", to: "10.9.0.2",
		after: lab.Timeout, in: Drop, why: Prohibit, witness: "50: from 203.0.113.0/24 prohibit"},
	{name: "AnyIP", ip: []string{"route add local 198.51.100.0/24 dev lo"}, from: "10.9.0.1", to: "198.51.100.7", never: true,
		after: lab.Connected, in: Local, out: Send},
	{name: "loopback from outside", from: "10.9.0.1", to: "127.0.0.1", never: true,
		after: lab.Timeout, in: Drop, why: RouteLocalnet, witness: "net.ipv4.conf.eth0.route_localnet = 0"},
	{name: "loopback opened", sysctl: []string{"net.ipv4.conf.eth0.route_localnet", "1"}, from: "10.9.0.1", to: "127.0.0.1", never: true,
		after: lab.Connected, in: Local, out: Send},
	{name: "own address as source", from: "10.9.1.2", to: "10.9.0.2", never: true,
		after: lab.Timeout, in: Drop, why: MartianSource, witness: "inet 10.9.1.2/24 scope global dev eth1"},
	{name: "forwarding off", from: "10.9.0.1", to: "198.51.100.7", never: true, sysctl: []string{"net.ipv4.conf.eth0.forwarding", "0"},
		after: lab.Timeout, in: Drop, why: ForwardingOff, witness: "net.ipv4.conf.eth0.forwarding = 0"},
	{name: "unreachable route", ip: []string{"route add unreachable 198.51.100.0/24"}, sysctl: []string{"net.ipv4.conf.eth0.forwarding", "1"}, from: "10.9.0.1", to: "198.51.100.7", never: true,
		after: lab.Unreachable, in: Drop, why: Unreachable, witness: "unreachable 198.51.100.0/24"},
	{name: "blackhole route", ip: []string{"route add blackhole 198.51.100.0/24"}, sysctl: []string{"net.ipv4.conf.eth0.forwarding", "1"}, from: "10.9.0.1", to: "198.51.100.7", never: true,
		after: lab.Timeout, in: Drop, why: Blackhole, witness: "blackhole 198.51.100.0/24"},
	{name: "weak host", from: "10.9.0.1", to: "10.9.1.2", after: lab.Connected, in: Local, out: Send},

	{name: "IPv6 blackhole back", ip: []string{"-6 route add blackhole 2001:db8:5::/48"}, from: "2001:db8:5::9", to: "fd00:9:0::2",
		after: lab.Timeout, in: Local, out: Fail, why: Blackhole, witness: "blackhole 2001:db8:5::/48 dev lo metric 1024"},
	{name: "IPv6 AnyIP", ip: []string{"-6 route add local 2001:db8:7::/48 dev lo"}, from: "fd00:9:0::1", to: "2001:db8:7::7", never: true,
		after: lab.Connected, in: Local, out: Send},
	{name: "IPv6 prohibit rule", ip: []string{"-6 rule add pref 100 lookup local", "-6 rule del pref 0", "-6 rule add pref 50 from 2001:db8:5::/48 prohibit"}, from: "2001:db8:5::9", to: "fd00:9:0::2",
		after: lab.Unreachable, in: Drop, why: Prohibit, witness: "50: from 2001:db8:5::/48 prohibit"},
	{name: "IPv6 unreachable without forwarding", ip: []string{"-6 route add unreachable 2001:db8:7::/48"}, from: "fd00:9:0::1", to: "2001:db8:7::7", never: true,
		after: lab.Unreachable, in: Drop, why: Unreachable, witness: "unreachable 2001:db8:7::/48 dev lo metric 1024"},
}

// TestScenarios makes each cause in a laboratory and holds model and client
// against each other. A probe that ends up blocked has connected before, or the
// scenario says why it could not.
func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) { s.run(t) })
	}
}

func (s *scenario) run(t *testing.T) {
	l := lab.New(t, lab.Topology{Links: 2})
	t.Parallel()
	from, to := netip.MustParseAddr(s.from), netip.MustParseAddr(s.to)
	any4, any6 := netip.MustParseAddr("0.0.0.0"), netip.IPv6Unspecified()
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.AddrPortFrom(any4, 8080)}, lab.Listen{Proto: lab.TCP, V6Only: true, Addr: netip.AddrPortFrom(any6, 8080)})
	if len(s.ip) > 0 || from.Is4() {
		// The server answers everywhere by default.
		l.Server.Run(t, "ip", "route", "replace", "default", "via", "10.9.0.1")
		l.Server.Run(t, "ip", "-6", "route", "replace", "default", "via", "fd00:9:0::1")
	}
	probe := lab.Probe{Proto: lab.TCP, From: from, To: netip.AddrPortFrom(to, 8080), Via: s.via}
	if s.never {
		// Whatever else is broken: an ordinary probe arrives.
		own := l.ServerAddr(0)
		src := l.ClientAddr(0)
		if to.Is6() {
			own, src = l.ServerAddr6(0), l.ClientAddr6(0)
		}
		l.Control(t, lab.Probe{Proto: lab.TCP, From: src, To: netip.AddrPortFrom(own, 8080)})
	} else {
		l.Control(t, probe)
	}
	for _, line := range s.ip {
		l.Server.Run(t, append([]string{"ip"}, strings.Fields(line)...)...)
	}
	l.Server.Sysctl(t, s.sysctl...)
	got := l.Probe(t, probe)[0]
	if got.ClientSees != s.after {
		t.Errorf("the kernel: %s, the scenario expects %s", got, s.after)
	}
	table := readTable(t, l.Server)
	f := firewall.FamilyOf(from)
	k := Key{Family: f, Proto: firewall.TCP}
	in := table.LinkByName("eth0").Link
	src, dst := firewall.AddrValue(from), firewall.AddrValue(to)
	v := table.Input(k, firewall.Single(src), dst, in)[0].Verdict
	if v.Kind != s.in {
		t.Fatalf("in: %s, want %s", brief(&v), s.in)
	}
	if v.Kind == Local {
		v = table.Output(k, firewall.Single(src), dst, nil)[0].Verdict
		if v.Kind != s.out {
			t.Fatalf("out: %s, want %s", brief(&v), s.out)
		}
	}
	if v.Why != s.why || s.witness != "" && v.Witness.Text != s.witness {
		t.Errorf("%s, want %s by %q", brief(&v), s.why, s.witness)
	}
	// A connected client needs both ways, an ICMP error makes it unreachable.
	sees := lab.Timeout
	switch {
	case v.Kind == Send || v.Kind == Local:
		sees = lab.Connected
	case v.Kind == Drop && v.ICMP != nil:
		sees = lab.Unreachable
	}
	if sees != got.ClientSees {
		t.Errorf("the model says %s, the client sees %s", sees, got)
	}
}
