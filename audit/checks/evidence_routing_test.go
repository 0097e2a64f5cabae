package checks_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// sees is what a client of the server sees.
func (h *host) sees(want lab.Sight, p lab.Probe) {
	h.t.Helper()
	p.Proto = lab.TCP
	if got := h.Probe(h.t, p)[0]; got.ClientSees != want {
		h.t.Fatalf("%v, want %v", got, want)
	}
}

// TestReversePathFilter: a client's packets come in by one link and the way back
// to it leaves by another, as on hosts with two cards.
func TestReversePathFilter(t *testing.T) {
	crooked := func(h *host) lab.Probe {
		return lab.Probe{From: h.ClientAddr(0), To: netip.AddrPortFrom(h.ServerAddr(0), 80), Via: "eth1"}
	}
	serve := func(t *testing.T, filter string) *host {
		h := newHost(t, lab.Topology{Links: 2})
		h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:80")})
		h.Server.Sysctl(t, "net.ipv4.conf.eth1.rp_filter", filter)
		return h
	}
	h := serve(t, "1")
	f := want(t, h.scan(func() { h.sees(lab.Timeout, crooked(h)) }), audit.Warning, "sysctl.rp-filter-drops", "eth1")
	evidence(t, f, "TcpExt IPReversePathFilter", "+")

	// The same where a rule routes by mark.
	h.Server.Run(t, "ip", "rule", "add", "fwmark", "7", "lookup", "100", "pref", "1000")
	f = want(t, h.scan(func() { h.sees(lab.Timeout, crooked(h)) }), audit.Warning, "sysctl.rp-filter-strict", "eth1")
	h.Server.Sysctl(t, "net.ipv4.conf.eth1.rp_filter", recommended(t, f, "net.ipv4.conf.eth1.rp_filter"))
	h.sees(lab.Connected, crooked(h))
	silent(t, h.scan(nil), "sysctl.net.ipv4.conf.*.rp_filter")

	// Healthy: strict, and every packet comes by the link of its way back; also
	// where a rule routes by source address, which the filter asks.
	h = serve(t, "1")
	straight := lab.Probe{From: h.ClientAddr(1), To: netip.AddrPortFrom(h.ServerAddr(1), 80), Via: "eth1"}
	silent(t, h.scan(func() { h.sees(lab.Connected, straight) }), "sysctl.net.ipv4.conf.*.rp_filter")
	h.Server.Run(t, "ip", "route", "add", "default", "via", h.ClientAddr(1).String(), "dev", "eth1", "table", "100")
	h.Server.Run(t, "ip", "rule", "add", "from", h.ServerAddr(1).String(), "lookup", "100", "pref", "1000")
	far := lab.Probe{From: netip.MustParseAddr("198.51.100.7"), To: netip.AddrPortFrom(h.ServerAddr(1), 80), Via: "eth1"}
	silent(t, h.scan(func() { h.sees(lab.Connected, far) }), "sysctl.net.ipv4.conf.*.rp_filter")
}

// TestRouteLocalnet: a rule redirects to 127.0.0.1, which nobody outside reaches;
// and route_localnet without a rule lets the neighbours reach loopback.
func TestRouteLocalnet(t *testing.T) {
	lab.Need(t, "nft")
	h := newHost(t, lab.Topology{})
	h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("127.0.0.1:8080")})
	direct := lab.Probe{From: h.ClientAddr(0), To: addrPort("127.0.0.1:8080")}
	silent(t, h.scan(func() { h.sees(lab.Timeout, direct) }), "sysctl.net.ipv4.conf.*.route_localnet")

	h.Server.Sysctl(t, "net.ipv4.conf.eth0.route_localnet", "1")
	want(t, h.scan(func() { h.sees(lab.Connected, direct) }), audit.Warning, "sysctl.route-localnet-exposes", "eth0")

	h.Server.Sysctl(t, "net.ipv4.conf.eth0.route_localnet", "0")
	h.Server.Load(t, lab.NFT, "table ip n { chain p { type nat hook prerouting priority -100; iifname eth0 tcp dport 80 dnat to 127.0.0.1:8080; }; }")
	redirected := lab.Probe{From: h.ClientAddr(0), To: netip.AddrPortFrom(h.ServerAddr(0), 80)}
	want(t, h.scan(func() { h.sees(lab.Timeout, redirected) }), audit.Warning, "sysctl.route-localnet-needed", "eth0")
	h.Server.Sysctl(t, "net.ipv4.conf.eth0.route_localnet", "1")
	silent(t, h.scan(func() { h.sees(lab.Connected, redirected) }), "sysctl.net.ipv4.conf.*.route_localnet")
}

// TestForwardingNeeded: a port is handed to a container and nothing forwards.
func TestForwardingNeeded(t *testing.T) {
	lab.Need(t, "nft")
	h := newHost(t, lab.Topology{Containers: 1})
	h.Containers[0].Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:80")})
	h.Server.Load(t, lab.NFT, "table ip n { chain p { type nat hook prerouting priority -100; iifname eth0 tcp dport 80 dnat to "+h.ContainerAddr(0).String()+"; }; }")
	published := lab.Probe{From: h.ClientAddr(0), To: netip.AddrPortFrom(h.ServerAddr(0), 80)}
	h.Server.Sysctl(t, "net.ipv4.ip_forward", "0")
	f := want(t, h.scan(func() { h.sees(lab.Timeout, published) }), audit.Warning, "sysctl.forwarding-needed", "net.ipv4.ip_forward")
	evidence(t, f, "nftables ip n p #1", "dnat to 10.88.0.2")
	// A rule to another address of the host's own needs no forwarding.
	twin := newHost(t, lab.Topology{Links: 2})
	twin.Server.Sysctl(t, "net.ipv4.ip_forward", "0")
	twin.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.AddrPortFrom(twin.ServerAddr(1), 80)})
	twin.Server.Load(t, lab.NFT, "table ip n { chain p { type nat hook prerouting priority -100; iifname eth0 tcp dport 80 dnat to "+twin.ServerAddr(1).String()+"; }; }")
	silent(t, twin.scan(func() {
		twin.sees(lab.Connected, lab.Probe{From: twin.ClientAddr(0), To: netip.AddrPortFrom(twin.ServerAddr(0), 80)})
	}), "sysctl.net.ipv4.ip_forward")

	h.Server.Sysctl(t, "net.ipv4.ip_forward", "1")
	silent(t, h.scan(func() { h.sees(lab.Connected, published) }), "sysctl.net.ipv4.ip_forward")
}

// TestIPv6Disabled: a listener on an IPv6 address of an interface that has lost
// IPv6.
func TestIPv6Disabled(t *testing.T) {
	h := newHost(t, lab.Topology{})
	to := netip.AddrPortFrom(h.ServerAddr6(0), 80)
	h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: to})
	probe := lab.Probe{From: h.ClientAddr6(0), To: to}
	silent(t, h.scan(func() { h.sees(lab.Connected, probe) }), "sysctl.net.ipv6.conf.*.disable_ipv6")
	h.Server.Sysctl(t, "net.ipv6.conf.eth0.disable_ipv6", "1")
	h.sees(lab.Timeout, probe)
	want(t, h.scan(nil), audit.Warning, "sysctl.ipv6-disabled", "eth0")
}

// TestRouterIgnoresAdvertisements: a default route from an advertisement on an
// interface that forwards.
func TestRouterIgnoresAdvertisements(t *testing.T) {
	h := newHost(t, lab.Topology{})
	h.Server.Run(t, "ip", "-6", "route", "del", "default")
	h.Server.Sysctl(t, "net.ipv6.conf.eth0.accept_ra", "1")
	advertised := func() {
		h.Server.Run(t, "ip", "-6", "route", "replace", "default", "via", h.ClientAddr6(0).String(), "dev", "eth0", "proto", "ra", "expires", "1800")
	}
	advertised()
	silent(t, h.scan(nil), "sysctl.net.ipv6.conf.*.accept_ra")
	h.Server.Sysctl(t, "net.ipv6.conf.eth0.forwarding", "1")
	advertised()
	f := want(t, h.scan(nil), audit.Warning, "sysctl.router-ignores-ra", "eth0")
	h.Server.Sysctl(t, "net.ipv6.conf.eth0.accept_ra", recommended(t, f, "net.ipv6.conf.eth0.accept_ra"))
	silent(t, h.scan(nil), "sysctl.net.ipv6.conf.*.accept_ra")
}

// TestNonlocalBind: a program binds an address that the host does not have.
func TestNonlocalBind(t *testing.T) {
	h := newHost(t, lab.Topology{})
	bind := func() (err error) {
		h.Server.Do(func() {
			var fd int
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return
			}
			defer unix.Close(fd)
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 80})
		})
		return err
	}
	if err := bind(); err != unix.EADDRNOTAVAIL {
		t.Fatalf("bind to a foreign address: %v", err)
	}
	silent(t, h.scan(nil), "sysctl.net.ipv4.ip_nonlocal_bind")
	h.Server.Sysctl(t, "net.ipv4.ip_nonlocal_bind", "1")
	if err := bind(); err != nil {
		t.Fatalf("bind to a foreign address with the setting: %v", err)
	}
	want(t, h.scan(nil), audit.Info, "sysctl.nonlocal-bind", "net.ipv4.ip_nonlocal_bind")

	var vrrp int
	h.Server.Do(func() {
		var err error
		if vrrp, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 112); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { unix.Close(vrrp) })
	silent(t, h.scan(nil), "sysctl.net.ipv4.ip_nonlocal_bind")
}

// TestLargePacketsVanish: before the client something swallows packets of more than
// 1,000 bytes and says nothing about it. Answers of a few bytes arrive, long ones
// hang. A client that is gone hangs as well, and is no sign of it.
func TestLargePacketsVanish(t *testing.T) {
	lab.Need(t, "nft")
	const check = "sysctl.net.ipv4.tcp_mtu_probing"
	type service struct {
		*host
		fd int
	}
	serve := func() service {
		h := newHost(t, lab.Topology{})
		h.Server.Run(t, "ip", "link", "set", "eth0", "gso_max_segs", "1") // each segment a packet
		s := service{h, 0}
		h.Server.Do(func() {
			s.fd, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			_ = unix.Bind(s.fd, &unix.SockaddrInet4{Port: 80})
			_ = unix.Listen(s.fd, 64)
		})
		t.Cleanup(func() { unix.Close(s.fd) })
		return s
	}
	// answer has the service send n bytes to a client, and says how many arrive.
	answer := func(s service, n int, between func()) int {
		c, err := dial(s.Client, none, addrPort("10.9.0.2:80"), patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		a, _, err := unix.Accept4(s.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(a) })
		between()
		if _, err := unix.Write(a, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3500 * time.Millisecond) // repeated after 0.2, 0.6, 1.4 and 3 seconds
		got, b := 0, make([]byte, 65536)
		for {
			k, err := unix.Read(c, b)
			if k <= 0 || err != nil {
				return got
			}
			got += k
		}
	}
	const long = 2*1448 + 300
	small := func(s service) {
		s.Client.Load(t, lab.NFT, "table ip path { chain in { type filter hook prerouting priority -300; ip length > 1000 drop; }; }")
	}
	s := serve()
	if got := answer(s, long, func() {}); got != long {
		t.Fatalf("control: %d of %d bytes arrive on a healthy path", got, long)
	}
	silent(t, s.scan(nil), check)

	s = serve()
	small(s)
	if got := answer(s, 500, func() {}); got != 500 {
		t.Fatalf("control: %d of 500 bytes arrive", got)
	}
	silent(t, s.scan(nil), check)
	if got := answer(s, long, func() {}); got != 0 {
		t.Fatalf("control: %d bytes of a long answer arrive", got)
	}
	f := want(t, s.scan(nil), audit.Warning, "sysctl.mtu-probing-off", "net.ipv4.tcp_mtu_probing")
	if recommended(t, f, "net.ipv4.tcp_mtu_probing") != "1" || !strings.Contains(f.Evidence[0].Value, "1448 bytes") {
		t.Errorf("%+v", f)
	}

	gone := serve()
	if got := answer(gone, long, func() { gone.Client.Run(t, "ip", "link", "set", "c0", "down") }); got != 0 {
		t.Fatalf("control: %d bytes reach a client that is gone", got)
	}
	silent(t, gone.scan(nil), check)
}
