package diagnose_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// runs are commands of ip(8) in one of the hosts.
func runs(who func(*field) *lab.Namespace, commands ...string) func(t *testing.T, f *field) {
	return func(t *testing.T, f *field) {
		for _, c := range commands {
			ip(t, who(f), c)
		}
	}
}

func theServer(f *field) *lab.Namespace { return f.server }
func theClient(f *field) *lab.Namespace { return f.client }
func theRouter(f *field) *lab.Namespace { return f.router }

// TestReplyPath: the request arrives, and the answer does not get back.
func TestReplyPath(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-legacy")
	for _, c := range []case_{
		{name: "no route back", target: target, make: runs(theServer, "route del default")},
		{name: "no route back, IPv6", target: "tcp://[2001:db8:2::20]:8080", make: runs(theServer, "-6 route del default")},
		{name: "OUTPUT drops the answer", target: target, make: loads(lab.IPTablesLegacy, "*filter\n-A OUTPUT -p tcp --sport 8080 -j DROP\nCOMMIT\n")},
		{name: "postrouting drops the answer", target: target, make: loads(lab.NFT, "table inet f { chain p { type filter hook postrouting priority 0; tcp sport 8080 drop; }; }")},
		{name: "output policy", target: target, make: loads(lab.NFT, "table inet f { chain o { type filter hook output priority 0; policy drop; tcp sport 22 accept; }; }")},
		{name: "a blackhole route to the client", target: target, make: runs(theServer, "route add blackhole 203.0.113.0/24")},
	} {
		c.want = everywhere(diagnose.ReplyPath, diagnose.Timeout)
		c.prove(t)
	}
	for kind, sees := range map[string]diagnose.Sees{"blackhole": diagnose.Unreachable, "unreachable": diagnose.Unreachable, "prohibit": diagnose.Unreachable} {
		case_{
			name: "the client's own route of type " + kind, target: target, make: runs(theClient, "route add "+kind+" 198.51.100.0/24"),
			want: map[place]want{onClient: surely(diagnose.ReplyPath, sees), withBoth: surely(diagnose.ReplyPath, sees)},
		}.prove(t)
	}
	for _, kind := range []string{"blackhole", "unreachable", "prohibit"} {
		w := surely(diagnose.ReplyPath, diagnose.Unreachable)
		case_{
			name: "the client's own route of type " + kind + ", IPv6", target: "tcp://[2001:db8:2::20]:8080", make: runs(theClient, "-6 route add "+kind+" 2001:db8:2::/64"),
			want: map[place]want{onClient: w, withBoth: w},
		}.prove(t)
	}
	// Packets come in by eth0 and the answer's route is by eth1: strict
	// reverse-path filtering drops them. The twin has the same routes without it.
	asymmetric := func(t *testing.T, f *field) {
		p := netip.MustParsePrefix
		f.lab.Join(t, lab.End{In: f.server, Interface: "eth1", Addrs: []netip.Prefix{p("192.0.2.20/24")}}, lab.End{In: f.router, Interface: "out1", Addrs: []netip.Prefix{p("192.0.2.1/24")}})
		ip(t, f.server, "route add 203.0.113.0/24 via 192.0.2.1")
		serves(t, f)
	}
	strict := func(t *testing.T, f *field) {
		f.server.Sysctl(t, "net.ipv4.conf.all.rp_filter", "1", "net.ipv4.conf.eth0.rp_filter", "1", "net.ipv4.conf.eth1.rp_filter", "1")
	}
	case_{
		name: "strict reverse-path filter", target: target, healthy: asymmetric, make: strict, o: diagnose.Options{Iif: "eth0"},
		want: everywhere(diagnose.ReplyPath, diagnose.Timeout),
	}.prove(t)
	case_{ // the interface is not known: with what the client sees it is likely
		name: "strict reverse-path filter, interface not given", target: target, healthy: asymmetric, make: strict,
		want: map[place]want{onServer: untold(diagnose.Connected, diagnose.ReplyPath), onClient: untold(diagnose.Timeout, diagnose.ReplyPath), withBoth: perhaps(diagnose.ReplyPath, diagnose.Timeout)},
	}.prove(t)
	case_{
		name: "DNAT to loopback without route_localnet", target: target,
		healthy: func(t *testing.T, f *field) {
			f.listen(t, f.server, "127.0.0.1:8081")
			f.server.Sysctl(t, "net.ipv4.conf.all.route_localnet", "1")
			f.server.Load(t, lab.NFT, "table ip n { chain p { type nat hook prerouting priority -100; tcp dport 8080 dnat to 127.0.0.1:8081; }; }")
		},
		make: func(t *testing.T, f *field) { f.server.Sysctl(t, "net.ipv4.conf.all.route_localnet", "0") },
		want: everywhere(diagnose.ReplyPath, diagnose.Timeout),
	}.prove(t)
}

// routerDrops is everything before the host that drops in silence.
func routerDrops(t *testing.T, f *field) {
	f.router.Load(t, lab.NFT, "table inet g { chain f { type filter hook forward priority 0; tcp dport 8080 drop; }; }")
}

// TestBeforeTheHost: something before the server drops, which no side can see
// into. It is likely at most, and on the server alone not even that.
func TestBeforeTheHost(t *testing.T) {
	t.Parallel()
	case_{
		name: "security group", target: target, make: routerDrops,
		want: map[place]want{
			onServer: untold(diagnose.Connected, diagnose.CloudGroup), onClient: untold(diagnose.Timeout, diagnose.CloudGroup),
			withBoth: perhaps(diagnose.CloudGroup, diagnose.Timeout),
		},
	}.prove(t)
	for dmi, name := range map[string]string{
		"sys_vendor=Amazon EC2": "AWS", "sys_vendor=Alibaba Cloud": "Alibaba Cloud", "product_name=Google Compute Engine": "Google Cloud",
		"chassis_asset_tag=7783-7084-3265-9085-8269-3286-77": "Azure", "sys_vendor=Tencent Cloud": "Tencent Cloud", "sys_vendor=Huawei Cloud": "Huawei Cloud",
		"sys_vendor=DigitalOcean": "DigitalOcean", "sys_vendor=Hetzner": "Hetzner", "chassis_asset_tag=OracleCloud.com": "Oracle Cloud", "sys_vendor=QEMU": "",
	} {
		t.Run("told by the firmware "+dmi, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			serves(t, f)
			key, value, _ := strings.Cut(dmi, "=")
			write(t, f.serverRoot, "sys/class/dmi/id/"+key, value+"\n")
			// The client's message is all that the server knows of the client.
			r := f.ask(t, onServer, target, diagnose.Options{Message: "Connection timed out", From: netip.MustParseAddr(clientIP)})
			blames(t, r, onServer, diagnose.CloudGroup, diagnose.Likely)
			if s := flat(t, r); name != "" && !strings.Contains(s, "a machine of "+name) || name == "" && strings.Contains(s, "a machine of") {
				t.Errorf("the provider %q is not named as it should:\n%s", name, text(t, r))
			}
			clear_(t, f.ask(t, onServer, target, diagnose.Options{}), onServer)
		})
	}
}

// TestHostDown: nobody has the address, on the client's own link and behind a
// router.
func TestHostDown(t *testing.T) {
	t.Parallel()
	slow := diagnose.Options{Limit: 5 * time.Second}
	move := func(t *testing.T, f *field) { // a service on the client's own link
		ip(t, f.router, "address add 203.0.113.77/24 dev in")
		f.listen(t, f.router, "203.0.113.77:8080")
	}
	case_{
		name: "nobody on the link answers", target: "tcp://203.0.113.77:8080", healthy: move, o: slow,
		make: func(t *testing.T, f *field) {
			f.stop()
			ip(t, f.router, "address del 203.0.113.77/24 dev in")
			ip(t, f.client, "neigh flush dev eth0")
		},
		want: map[place]want{onClient: perhaps(diagnose.HostDown, diagnose.Unreachable)},
	}.prove(t)
	case_{
		name: "nobody on the link answers, IPv6", target: "tcp://[2001:db8:1::77]:8080", o: slow,
		healthy: func(t *testing.T, f *field) {
			ip(t, f.router, "address add 2001:db8:1::77/64 dev in nodad")
			f.listen(t, f.router, "[2001:db8:1::77]:8080")
		},
		make: func(t *testing.T, f *field) {
			f.stop()
			ip(t, f.router, "address del 2001:db8:1::77/64 dev in")
			ip(t, f.client, "neigh flush dev eth0")
		},
		want: map[place]want{onClient: perhaps(diagnose.HostDown, diagnose.Unreachable)},
	}.prove(t)
	case_{
		name: "the last router finds nobody", target: target, o: slow, earlier: true,
		make: func(t *testing.T, f *field) {
			ip(t, f.server, "address flush dev eth0")
			ip(t, f.router, "neigh flush all")
			ip(t, f.router, "neigh del 198.51.100.20 dev out")
		},
		want: map[place]want{onClient: perhaps(diagnose.HostDown, diagnose.Unreachable), withBoth: perhaps(diagnose.HostDown, diagnose.Unreachable)},
	}.prove(t)
	// The server's own snapshot, taken while it was there, on the client's own link.
	for _, six := range []bool{false, true} {
		name, target, address := "an earlier snapshot, and nobody on the link answers", "tcp://203.0.113.77:8080", "203.0.113.77/24"
		if six {
			name, target, address = name+", IPv6", "tcp://[2001:db8:1::77]:8080", "2001:db8:1::77/64"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			nodad := ""
			if six {
				nodad = " nodad"
			}
			ip(t, f.router, "address add "+address+" dev in"+nodad)
			f.listen(t, f.router, "0.0.0.0:8080")
			f.router.Listen(t, lab.Listen{Proto: lab.TCP, Addr: port("[::]:8080"), V6Only: true})
			o := slow
			o.Server = f.snapshot(t, f.router)
			clear_(t, f.ask(t, withBoth, target, o), withBoth)
			ip(t, f.router, "address del "+address+" dev in")
			ip(t, f.client, "neigh flush dev eth0")
			r := f.ask(t, withBoth, target, o)
			blames(t, r, withBoth, diagnose.HostDown, diagnose.Likely)
			if c := r.Cause(diagnose.WrongAddress); c.Accused() {
				t.Errorf("%s is %s, of an address that the server had\n%s", c.ID, c.Verdict, text(t, r))
			}
			if r.ClientSees != diagnose.Unreachable {
				t.Errorf("the client sees %s", r.ClientSees)
			}
			keep(t, "both", r)
		})
	}
	case_{
		// A host that is down and a security group in front of it are silent alike.
		name: "silence", target: target, make: runs(theServer, "link set eth0 down"), earlier: true,
		want: map[place]want{onClient: untold(diagnose.Timeout, diagnose.HostDown), withBoth: perhaps(diagnose.CloudGroup, diagnose.Timeout)},
	}.prove(t)
}

// TestWrongAddress: the address is another host's, or nobody's, or the client has
// no way to it.
func TestWrongAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, target string
		sees         diagnose.Sees // of a client
	}{
		{"another host refuses", "tcp://203.0.113.1:8080", diagnose.Refused},
		{"nobody's on the link", "tcp://203.0.113.77:8080", diagnose.Unreachable},
		{"somebody else serves there", "tcp://203.0.113.1:9090", diagnose.Connected},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			serves(t, f)
			f.listen(t, f.router, "0.0.0.0:9090")
			o := diagnose.Options{Limit: 5 * time.Second}
			r := f.ask(t, withBoth, c.target, o)
			if c.sees == diagnose.Connected {
				open(t, r, withBoth, c.sees, diagnose.WrongAddress) // perhaps an address of a proxy in front
			} else {
				blames(t, r, withBoth, diagnose.WrongAddress, diagnose.Confirmed)
			}
			if r.ClientSees != c.sees {
				t.Errorf("the client sees %s, want %s", r.ClientSees, c.sees)
			}
			keep(t, "both", r)
			r = f.ask(t, onServer, c.target, o)
			if c.sees == diagnose.Connected { // from here a balancer in front looks the same
				open(t, r, onServer, r.ClientSees, diagnose.WrongAddress)
			} else {
				blames(t, r, onServer, diagnose.WrongAddress, diagnose.Confirmed)
				if !strings.Contains(r.Summary, "The address is not this service's host (wrong-address, confirmed)") || !strings.Contains(flat(t, r), "nobody serves at") {
					t.Errorf("it is not said first, or not why:\n%s", text(t, r))
				}
			}
			keep(t, "server", r)
			r = f.ask(t, onClient, c.target, o)
			switch c.sees {
			case diagnose.Refused:
				open(t, r, onClient, c.sees, diagnose.WrongAddress)
			case diagnose.Unreachable:
				blames(t, r, onClient, diagnose.HostDown, diagnose.Likely)
			default:
				clear_(t, r, onClient)
			}
			keep(t, "client", r)
		})
	}
	case_{
		name: "the client has no route", target: target, make: runs(theClient, "route del default"),
		want: map[place]want{onClient: perhaps(diagnose.WrongAddress, diagnose.Unreachable), withBoth: perhaps(diagnose.WrongAddress, diagnose.Unreachable)},
	}.prove(t)
	case_{
		name: "the client has no route, IPv6", target: "tcp://[2001:db8:2::20]:8080", make: runs(theClient, "-6 route del default"),
		want: map[place]want{onClient: perhaps(diagnose.WrongAddress, diagnose.Unreachable), withBoth: perhaps(diagnose.WrongAddress, diagnose.Unreachable)},
	}.prove(t)
	t.Run("a public address that the host does not know", func(t *testing.T) {
		// Behind 1:1 NAT the host has a private address alone.
		f := newField(t)
		ip(t, f.server, "address add 10.20.0.5/24 dev eth0")
		ip(t, f.server, "address del "+serverIP+"/24 dev eth0")
		ip(t, f.server, "route replace default via 10.20.0.1")
		serves(t, f)
		r := f.ask(t, onServer, target, diagnose.Options{})
		open(t, r, onServer, r.ClientSees, diagnose.WrongAddress)
		r = f.ask(t, onServer, target, diagnose.Options{Public: []netip.Addr{netip.MustParseAddr("192.0.2.99")}})
		blames(t, r, onServer, diagnose.WrongAddress, diagnose.Confirmed)
		r = f.ask(t, onServer, target, diagnose.Options{Public: []netip.Addr{netip.MustParseAddr(serverIP)}})
		if c := r.Cause(diagnose.WrongAddress); c.Accused() {
			t.Errorf("its own public address is accused:\n%s", text(t, r))
		}
	})
}

// TestPrivateAddress: the client dials an address of a network that it is not in.
func TestPrivateAddress(t *testing.T) {
	t.Parallel()
	const private = "tcp://10.20.0.5:8080"
	has := func(t *testing.T, f *field) { // peering: the router knows the way
		ip(t, f.server, "address add 10.20.0.5/24 dev eth0")
		ip(t, f.router, "route add 10.20.0.0/24 via 198.51.100.20")
		serves(t, f)
	}
	case_{
		name: "nobody knows the way", target: private, healthy: has, make: runs(theRouter, "route del 10.20.0.0/24", "route add blackhole 10.0.0.0/8"),
		want: map[place]want{
			onServer: untold(diagnose.Connected, diagnose.PrivateAddress), onClient: perhaps(diagnose.PrivateAddress, diagnose.Timeout),
			withBoth: perhaps(diagnose.PrivateAddress, diagnose.Timeout),
		},
	}.prove(t)
	case_{
		name: "the client has no route", target: private, healthy: has, make: runs(theClient, "route del default"),
		want: map[place]want{onServer: untold(diagnose.Connected, diagnose.PrivateAddress), onClient: surely(diagnose.PrivateAddress, diagnose.Unreachable), withBoth: surely(diagnose.PrivateAddress, diagnose.Unreachable)},
	}.prove(t)
	case_{
		name: "a router on the way says so", target: private, healthy: has, make: runs(theRouter, "route del 10.20.0.0/24", "route add unreachable 10.0.0.0/8"),
		want: map[place]want{onServer: untold(diagnose.Connected, diagnose.PrivateAddress), onClient: perhaps(diagnose.PrivateAddress, diagnose.Unreachable), withBoth: perhaps(diagnose.PrivateAddress, diagnose.Unreachable)},
	}.prove(t)
}
