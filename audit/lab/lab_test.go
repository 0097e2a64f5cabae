package lab

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

// TestInside proves that the tests run elsewhere than on the machine: other
// namespaces, nothing but lo, and no way to the machine's files and settings.
func TestInside(t *testing.T) {
	Need(t)
	outer := os.Getenv(Marker)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if own == outer || !strings.HasPrefix(outer, "net:[") {
		t.Fatalf("network namespace %q, of the machine %q", own, outer)
	}
	for _, path := range []string{"/etc/lab-must-not-write", "/proc/sys/kernel/sysrq", "/proc/sys/vm/swappiness", "/proc/sys/fs/file-max"} {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err == nil {
			f.Close()
			t.Errorf("%s can be written", path)
		}
	}
	entries, err := os.ReadDir("/run")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "lock", "netns", "xtables.lock":
		default:
			t.Errorf("/run has %s of the machine", e.Name())
		}
	}
	if why := Outside(); why != "" {
		t.Errorf("Outside() = %q", why)
	}
	if os.Getenv("LAB_AS_NOBODY") != "" {
		uids, err := os.ReadFile("/proc/self/uid_map")
		if got := strings.Fields(string(uids)); err != nil || len(got) != 3 || got[0] != "0" || got[1] != fmt.Sprint(nobody) || got[2] != "1" {
			t.Errorf("uid_map %q (%v), want uid 0 for %d alone", uids, err, nobody)
		}
	}
}

// TestMarkerIsVerified is the negative control of the entrance: a process that
// claims to be inside is refused where its namespace is the outer one.
func TestMarkerIsVerified(t *testing.T) {
	Need(t)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, outer := range []string{own, "", "x"} {
		if err := elsewhere(outer); err == nil {
			t.Errorf("elsewhere(%q) was believed", outer)
		}
	}
}

func TestSysctlRefusesWhatIsGlobal(t *testing.T) {
	l := New(t, Topology{})
	for _, key := range []string{"kernel.sysrq", "vm.swappiness", "fs.file-max", "net/../kernel/sysrq"} {
		if err := l.Server.setSysctl(key, "0"); err == nil {
			t.Errorf("%s was written", key)
		}
	}
	l.Server.Sysctl(t, "net.ipv4.ip_forward", "1", "net/ipv4/conf/eth0/forwarding", "0")
	got, err := l.Server.ReadFile("/proc/sys/net/ipv4/conf/eth0/forwarding")
	if err != nil || strings.TrimSpace(string(got)) != "0" {
		t.Errorf("forwarding of eth0 = %q, %v", got, err)
	}
}

// TestSights holds every loader against every thing that a client can see, in
// both families and both protocols, with the empty ruleset as control.
func TestSights(t *testing.T) {
	t.Parallel()
	const (
		open = 1000 + iota
		dropped
		rejected
		reset
		prohibited
		hostGone
		netGone
		closed
	)
	legacy := func(loader Loader, v6 bool) func(*testing.T, *Lab) {
		kinds := map[int]string{rejected: "icmp-port-unreachable", prohibited: "icmp-admin-prohibited", hostGone: "icmp-host-unreachable", netGone: "icmp-net-unreachable"}
		if v6 {
			kinds = map[int]string{rejected: "icmp6-port-unreachable", prohibited: "icmp6-adm-prohibited", hostGone: "icmp6-addr-unreachable", netGone: "icmp6-no-route"}
		}
		return func(t *testing.T, l *Lab) {
			t.Helper()
			var b strings.Builder
			b.WriteString("*filter\n")
			for _, proto := range []Proto{TCP, UDP} {
				rule := func(port int, target string) {
					fmt.Fprintf(&b, "-A INPUT -p %v --dport %d -j %s\n", proto, port, target)
				}
				rule(dropped, "DROP")
				for port, kind := range kinds {
					rule(port, "REJECT --reject-with "+kind)
				}
			}
			fmt.Fprintf(&b, "-A INPUT -p tcp --dport %d -j REJECT --reject-with tcp-reset\nCOMMIT\n", reset)
			l.Server.Load(t, loader, b.String())
		}
	}
	nft := func(v6 bool) func(*testing.T, *Lab) {
		family, icmp := "ip", "icmp"
		kinds := map[int]string{rejected: "port-unreachable", prohibited: "admin-prohibited", hostGone: "host-unreachable", netGone: "net-unreachable"}
		if v6 {
			family, icmp = "ip6", "icmpv6"
			kinds = map[int]string{rejected: "port-unreachable", prohibited: "admin-prohibited", hostGone: "addr-unreachable", netGone: "no-route"}
		}
		return func(t *testing.T, l *Lab) {
			t.Helper()
			var b strings.Builder
			fmt.Fprintf(&b, "table %s f {\n chain i {\n  type filter hook input priority 0\n", family)
			for _, proto := range []Proto{TCP, UDP} {
				fmt.Fprintf(&b, "  %v dport %d drop\n", proto, dropped)
				for port, kind := range kinds {
					fmt.Fprintf(&b, "  %v dport %d reject with %s type %s\n", proto, port, icmp, kind)
				}
			}
			fmt.Fprintf(&b, "  tcp dport %d reject with tcp reset\n }\n}\n", reset)
			l.Server.Load(t, NFT, b.String())
		}
	}
	for _, loader := range []struct {
		need string
		v4   func(*testing.T, *Lab)
		v6   func(*testing.T, *Lab)
	}{
		{"nft", nft(false), nft(true)},
		{"iptables-nft", legacy(IPTablesNFT, false), legacy(IP6TablesNFT, true)},
		{"iptables-legacy", legacy(IPTablesLegacy, false), legacy(IP6TablesLegacy, true)},
	} {
		for _, name := range []string{"ip", "ip6"} {
			t.Run(loader.need+"/"+name, func(t *testing.T) {
				t.Parallel()
				Need(t, loader.need)
				l := New(t, Topology{})
				var listens []Listen
				for port := uint16(open); port < closed; port++ {
					for _, proto := range []Proto{TCP, UDP} {
						for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
							listens = append(listens, Listen{Proto: proto, Addr: netip.AddrPortFrom(any, port), V6Only: any.Is6()})
						}
					}
				}
				l.Server.Listen(t, listens...)
				client, server, load := l.ClientAddr(0), l.ServerAddr(0), loader.v4
				if name == "ip6" {
					client, server, load = l.ClientAddr6(0), l.ServerAddr6(0), loader.v6
				}
				probe := func(proto Proto, port uint16) Probe {
					return Probe{Proto: proto, From: client, To: netip.AddrPortFrom(server, port)}
				}
				var control []Probe
				for port := uint16(open); port < closed; port++ {
					control = append(control, probe(TCP, port), probe(UDP, port))
				}
				l.Control(t, control...)
				load(t, l)
				prohibitedErrno := unix.EHOSTUNREACH
				if name == "ip6" {
					prohibitedErrno = unix.EACCES
				}
				want := []struct {
					probe     Probe
					sees      Sight
					errno     unix.Errno
					delivered bool
				}{
					{probe(TCP, open), Connected, 0, true},
					{probe(UDP, open), Connected, 0, true},
					{probe(TCP, closed), Refused, unix.ECONNREFUSED, false},
					{probe(UDP, closed), Refused, unix.ECONNREFUSED, false},
					{probe(TCP, dropped), Timeout, 0, false},
					{probe(UDP, dropped), Timeout, 0, false},
					{probe(TCP, rejected), Refused, unix.ECONNREFUSED, false},
					{probe(UDP, rejected), Refused, unix.ECONNREFUSED, false},
					{probe(TCP, reset), Refused, unix.ECONNREFUSED, false},
					{probe(TCP, prohibited), Unreachable, prohibitedErrno, false},
					{probe(UDP, prohibited), Unreachable, prohibitedErrno, false},
					{probe(TCP, hostGone), Unreachable, unix.EHOSTUNREACH, false},
					{probe(UDP, hostGone), Unreachable, unix.EHOSTUNREACH, false},
					{probe(TCP, netGone), Unreachable, unix.ENETUNREACH, false},
					{probe(UDP, netGone), Unreachable, unix.ENETUNREACH, false},
				}
				var probes []Probe
				for _, w := range want {
					probes = append(probes, w.probe)
				}
				for i, o := range l.Probe(t, probes...) {
					w := want[i]
					if o.ClientSees != w.sees || o.Errno != w.errno || o.Delivered() != w.delivered {
						t.Errorf("%v; want %v, %v, delivered %v", o, w.sees, unix.ErrnoName(w.errno), w.delivered)
					}
				}
				l.Control(t, control...) // Control flushes: nothing may be left
			})
		}
	}
}

// TestLostAnswer: the datagram arrives, its answer does not.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	Need(t, "nft")
	l := New(t, Topology{})
	l.Server.Listen(t,
		Listen{Proto: UDP, Addr: netip.MustParseAddrPort("0.0.0.0:53")},
		Listen{Proto: TCP, Addr: netip.MustParseAddrPort("0.0.0.0:53")})
	udp := Probe{Proto: UDP, From: l.ClientAddr(0), To: netip.AddrPortFrom(l.ServerAddr(0), 53)}
	tcp := udp
	tcp.Proto = TCP
	l.Control(t, udp, tcp)
	l.Server.Load(t, NFT, "table ip f { chain o { type filter hook output priority 0; policy drop; }; }")
	for _, o := range l.Probe(t, udp, tcp) {
		if o.ClientSees != Timeout || o.Tries != 2 || o.Delivered() != (o.Probe.Proto == UDP) {
			t.Errorf("%v after %d tries", o, o.Tries)
		}
	}
}

// TestSources sends from addresses that no interface carries, over both links,
// and to destinations that are not the server's first address.
func TestSources(t *testing.T) {
	t.Parallel()
	Need(t, "nft")
	l := New(t, Topology{Links: 2, Sources: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8:7::7")}})
	l.Server.Listen(t,
		Listen{Proto: TCP, Addr: netip.MustParseAddrPort("[::]:80")},
		Listen{Proto: UDP, Addr: netip.MustParseAddrPort("[::]:80")})
	var probes []Probe
	for _, from := range []string{
		"10.9.0.1", "10.9.0.77", "10.9.1.1", "203.0.113.9", "8.8.8.8", "172.17.3.4", "192.0.2.7", "100.64.0.1", "1.0.0.0",
		"fd00:9:0::1", "fd00:9:0::77", "2001:db8::1", "2a00:1450::8", "2001:db8:7::7", "fd00:9:1::5",
	} {
		for i, via := range []string{"", "eth1"} {
			for _, proto := range []Proto{TCP, UDP} {
				addr := netip.MustParseAddr(from)
				to := l.ServerAddr(i)
				if addr.Is6() {
					to = l.ServerAddr6(i)
				}
				probes = append(probes, Probe{Proto: proto, From: addr, To: netip.AddrPortFrom(to, 80), Via: via})
				// Weak host model: the other link's address by this link.
				probes = append(probes, Probe{Proto: proto, From: addr, FromPort: 4000, To: netip.AddrPortFrom(to, 80)})
			}
		}
	}
	l.Control(t, probes...)
	for _, o := range l.Probe(t, probes...) {
		if o.Delivery == nil {
			t.Errorf("%v", o)
			continue
		}
		if o.Delivery.Peer.Addr() != o.Probe.From || o.Probe.FromPort != 0 && o.Delivery.Peer.Port() != 4000 {
			t.Errorf("%v: came from %v", o, o.Delivery.Peer)
		}
	}
	// The interface is the one that Via names.
	l.Server.Load(t, NFT, `table inet f { chain i { type filter hook input priority 0; iifname "eth1" drop; }; }`)
	for _, o := range l.Probe(t, probes...) {
		want := Connected
		if o.Probe.Via == "eth1" {
			want = Timeout
		}
		if o.ClientSees != want {
			t.Errorf("%v; want %v", o, want)
		}
	}
}

// TestLoopbackDestination: 127.0.0.1 from the wire arrives where the server's
// route_localnet allows it, and nowhere else.
func TestLoopbackDestination(t *testing.T) {
	t.Parallel()
	l := New(t, Topology{})
	l.Server.Listen(t, Listen{Proto: TCP, Addr: netip.MustParseAddrPort("127.0.0.1:80")})
	p := Probe{Proto: TCP, From: l.ClientAddr(0), To: netip.MustParseAddrPort("127.0.0.1:80")}
	if o := l.Probe(t, p)[0]; o.ClientSees != Timeout {
		t.Errorf("without route_localnet: %v", o)
	}
	l.Server.Sysctl(t, "net.ipv4.conf.eth0.route_localnet", "1")
	if o := l.Probe(t, p)[0]; o.ClientSees != Connected || !o.Delivered() {
		t.Errorf("with route_localnet: %v", o)
	}
}

// TestLocal: connections of the host to itself.
func TestLocal(t *testing.T) {
	t.Parallel()
	Need(t, "nft")
	l := New(t, Topology{})
	l.Server.Listen(t,
		Listen{Proto: TCP, Addr: netip.MustParseAddrPort("0.0.0.0:80")}, Listen{Proto: UDP, Addr: netip.MustParseAddrPort("0.0.0.0:80")},
		Listen{Proto: TCP, Addr: netip.MustParseAddrPort("[::1]:80")}, Listen{Proto: UDP, Addr: netip.MustParseAddrPort("[::1]:80")})
	var probes []Probe
	for _, proto := range []Proto{TCP, UDP} {
		probes = append(probes,
			Probe{Proto: proto, In: l.Server, From: l.ServerAddr(0), To: netip.AddrPortFrom(l.ServerAddr(0), 80)},
			Probe{Proto: proto, In: l.Server, To: netip.MustParseAddrPort("127.0.0.1:80")},
			Probe{Proto: proto, In: l.Server, To: netip.MustParseAddrPort("[::1]:80")})
	}
	l.Control(t, probes...)
	l.Server.Load(t, NFT, `table inet f { chain i { type filter hook input priority 0; iif lo drop; }; }`)
	for _, o := range l.Probe(t, probes...) {
		if o.ClientSees != Timeout || o.Delivered() {
			t.Errorf("iif lo drop: %v", o)
		}
	}
	l.Server.Flush(t)
	l.Server.Load(t, NFT, `table inet f { chain o { type filter hook output priority 0; policy drop; }; }`)
	for _, o := range l.Probe(t, probes...) {
		if o.ClientSees != Timeout || o.Delivered() {
			t.Errorf("output drop: %v", o)
		}
	}
}

// TestContainers: DNAT to a namespace behind the server, by link and by bridge.
func TestContainers(t *testing.T) {
	t.Parallel()
	Need(t, "nft")
	for _, bridge := range []bool{false, true} {
		t.Run(fmt.Sprintf("bridge=%v", bridge), func(t *testing.T) {
			t.Parallel()
			l := New(t, Topology{Containers: 2, Bridge: bridge})
			l.Containers[1].Listen(t,
				Listen{Proto: TCP, Addr: netip.MustParseAddrPort("0.0.0.0:80")},
				Listen{Proto: TCP, Addr: netip.MustParseAddrPort("[::]:80"), V6Only: true})
			direct := []Probe{
				{Proto: TCP, From: netip.MustParseAddr("203.0.113.5"), To: netip.AddrPortFrom(l.ContainerAddr(1), 80)},
				{Proto: TCP, From: netip.MustParseAddr("2001:db8::5"), To: netip.AddrPortFrom(l.ContainerAddr6(1), 80)},
				{Proto: TCP, In: l.Server, To: netip.AddrPortFrom(l.ContainerAddr(1), 80)},
				{Proto: TCP, In: l.Containers[0], To: netip.AddrPortFrom(l.ContainerAddr(1), 80)},
			}
			published := Probe{Proto: TCP, From: netip.MustParseAddr("203.0.113.5"), To: netip.AddrPortFrom(l.ServerAddr(0), 8080)}
			if o := l.Probe(t, direct[0])[0]; o.ClientSees == Connected {
				t.Errorf("without forwarding: %v", o)
			}
			l.Server.Sysctl(t, "net.ipv4.ip_forward", "1", "net.ipv6.conf.all.forwarding", "1")
			l.Control(t, direct...)
			if o := l.Probe(t, published)[0]; o.ClientSees != Refused {
				t.Errorf("before DNAT: %v", o)
			}
			l.Server.Load(t, NFT, fmt.Sprintf(`table ip n { chain p { type nat hook prerouting priority -100; tcp dport 8080 dnat to %s:80; }; }`, l.ContainerAddr(1)))
			o := l.Probe(t, published)[0]
			if o.ClientSees != Connected || o.Delivery == nil || o.Delivery.Namespace != "container1" || o.Delivery.Local != netip.AddrPortFrom(l.ContainerAddr(1), 80) {
				t.Errorf("published: %v", o)
			}
		})
	}
}

// TestListeners: the ways in which a bind narrows who can connect.
func TestListeners(t *testing.T) {
	t.Parallel()
	l := New(t, Topology{Links: 2})
	l.Server.Listen(t,
		Listen{Proto: TCP, Addr: netip.MustParseAddrPort("[::]:1"), V6Only: true},
		Listen{Proto: TCP, Addr: netip.MustParseAddrPort("[::]:2")},
		Listen{Proto: TCP, Addr: netip.MustParseAddrPort("0.0.0.0:3"), Device: "eth1"},
		Listen{Proto: TCP, Addr: netip.MustParseAddrPort("203.0.113.1:4"), FreeBind: true},
		Listen{Proto: UDP, Addr: netip.MustParseAddrPort("0.0.0.0:5"), ReusePort: true},
		Listen{Proto: UDP, Addr: netip.MustParseAddrPort("0.0.0.0:5"), ReusePort: true},
		Listen{Proto: UDP, Addr: netip.MustParseAddrPort("[::]:2")})
	to := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(l.ServerAddr(0), port) }
	for _, c := range []struct {
		probe Probe
		want  Sight
	}{
		{Probe{Proto: TCP, To: to(1)}, Refused},
		{Probe{Proto: TCP, To: netip.AddrPortFrom(l.ServerAddr6(0), 1)}, Connected},
		{Probe{Proto: TCP, To: to(2)}, Connected},
		{Probe{Proto: UDP, To: to(2)}, Connected},
		{Probe{Proto: UDP, To: netip.AddrPortFrom(l.ServerAddr6(1), 2)}, Connected},
		{Probe{Proto: TCP, To: to(3)}, Refused},
		{Probe{Proto: TCP, To: to(3), Via: "eth1"}, Connected},
		{Probe{Proto: UDP, To: to(5)}, Connected},
	} {
		if o := l.Probe(t, c.probe)[0]; o.ClientSees != c.want || o.Delivered() != (c.want == Connected) {
			t.Errorf("%v; want %v", o, c.want)
		}
	}
	ls := l.Server.Listen(t, Listen{Proto: TCP, Addr: netip.MustParseAddrPort("0.0.0.0:0"), Backlog: 1, Deaf: true})
	full := Probe{Proto: TCP, To: to(ls.Addrs()[0].Port())}
	sights := map[Sight]int{}
	var flood []Probe
	for range 6 {
		flood = append(flood, full)
	}
	for _, o := range l.ProbeOnce(t, firstWait, flood...) {
		sights[o.ClientSees]++
	}
	if sights[Connected] != 2 || sights[Timeout] != 4 { // the queue holds backlog+1
		t.Errorf("a backlog of 1: %v", sights)
	}
	ls.Close()
	if o := l.Probe(t, full)[0]; o.ClientSees != Refused {
		t.Errorf("after Close: %v", o)
	}
}

// TestManyProbes: hundreds at once, none lost.
func TestManyProbes(t *testing.T) {
	t.Parallel()
	l := New(t, Topology{})
	var listens []Listen
	var probes []Probe
	for port := uint16(2000); port < 2400; port++ {
		for _, proto := range []Proto{TCP, UDP} {
			listens = append(listens, Listen{Proto: proto, Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), port)})
			probes = append(probes,
				Probe{Proto: proto, From: netip.AddrFrom4([4]byte{198, 51, byte(port >> 8), byte(port)}), To: netip.AddrPortFrom(l.ServerAddr(0), port)},
				Probe{Proto: proto, To: netip.AddrPortFrom(l.ServerAddr6(0), port)})
		}
	}
	l.Server.Listen(t, listens...)
	retried := 0
	for _, o := range l.Probe(t, probes...) {
		if o.ClientSees != Connected || !o.Delivered() || o.Delivery.Local.Port() != o.Probe.To.Port() {
			t.Errorf("%v", o)
		}
		retried += o.Tries - 1
	}
	t.Logf("%d probes, %d retried", len(probes), retried)
}

// TestFlush: rules of every back end, sets that hold each other, connections.
func TestFlush(t *testing.T) {
	t.Parallel()
	Need(t, "nft", "iptables-nft", "iptables-legacy", "ipset")
	l := New(t, Topology{})
	l.Server.Listen(t, Listen{Proto: TCP, Addr: netip.MustParseAddrPort("[::]:80")})
	probes := []Probe{
		{Proto: TCP, To: netip.AddrPortFrom(l.ServerAddr(0), 80)},
		{Proto: TCP, To: netip.AddrPortFrom(l.ServerAddr6(0), 80)},
	}
	l.Control(t, probes...)
	sets := "create s hash:net\ncreate l list:set\nadd s 10.9.0.0/24\nadd l s\n"
	set := "*filter\n:INPUT DROP\n:mine -\n-A INPUT -m set --match-set l src -j mine\nCOMMIT\n"
	six := "*filter\n:INPUT DROP\nCOMMIT\n*mangle\n:INPUT DROP\nCOMMIT\n"
	for range 2 {
		l.Server.Load(t, IPSet, sets)
		l.Server.Load(t, IPTablesLegacy, set)
		l.Server.Load(t, IPTablesNFT, set)
		l.Server.Load(t, IP6TablesLegacy, six)
		l.Server.Load(t, NFT, "table inet x { chain i { type filter hook input priority 0; ct state new drop; }; }")
		for _, o := range l.ProbeOnce(t, firstWait, probes...) {
			if o.ClientSees != Timeout {
				t.Errorf("%v", o)
			}
		}
		l.Control(t, probes...) // flushes
		if left := l.Server.Run(t, "ipset", "list", "-n"); left != "" {
			t.Errorf("sets left: %q", left)
		}
		if left := l.Server.Run(t, "nft", "list", "ruleset"); left != "" {
			t.Errorf("ruleset left: %q", left)
		}
	}
}

// TestRefusedRuleset: a ruleset that does not load is an error that says why.
func TestRefusedRuleset(t *testing.T) {
	t.Parallel()
	Need(t, "nft", "iptables-nft", "iptables-legacy", "ipset")
	l := New(t, Topology{})
	for loader, text := range map[Loader]string{
		NFT: "table inet f { chain i { typo } }", IPTablesNFT: "*filter\n-A NONE -j DROP\nCOMMIT\n",
		IPTablesLegacy: "*filter\n-A INPUT -j NONE\nCOMMIT\n", IPSet: "add none 1.2.3.4\n",
	} {
		if err := l.Server.TryLoad(t.Context(), loader, text); err == nil || !strings.Contains(err.Error(), loader.String()) {
			t.Errorf("%v: %v", loader, err)
		}
	}
}

// TestDo: Do enters and leaves, also when its function ends the goroutine.
func TestDo(t *testing.T) {
	t.Parallel()
	l := New(t, Topology{})
	own := func() string {
		s, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	home := own()
	var inside string
	l.Server.Do(func() { inside = own() })
	if want := fmt.Sprintf("net:[%d]", l.Server.Inode()); inside != want {
		t.Errorf("inside %s, want %s", inside, want)
	}
	if got := own(); got != home {
		t.Errorf("after Do in %s, want %s", got, home)
	}
	if out := l.Server.Run(t, "ip", "-o", "link", "show", "eth0"); !strings.Contains(out, "eth0") {
		t.Errorf("ip link in the server: %q", out)
	}
	if _, err := l.Server.Exec(t.Context(), "", "ip", "link", "show", "c0"); err == nil {
		t.Error("the server shows the client's link")
	}
}
