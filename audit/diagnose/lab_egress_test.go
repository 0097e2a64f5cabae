package diagnose_test

import (
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestLocalProxy: the client's own rules lead its connections to a proxy that
// takes them. That it takes them says nothing about the server.
func TestLocalProxy(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft")
	const site = "http://198.51.100.20:8080/"
	f := newField(t)
	f.server.Serve(t, "tcp", "0.0.0.0:8080", answers(200))
	f.server.Serve(t, "tcp", "0.0.0.0:8081", answers(200))
	var dead atomic.Bool
	f.client.Serve(t, "tcp", "127.0.0.1:12345", func(c net.Conn) { // its way to the server is a port of its own
		if dead.Load() {
			return
		}
		var out net.Conn
		var err error
		f.client.Do(func() { out, err = net.Dial("tcp", serverIP+":8081") })
		if err != nil {
			return
		}
		defer out.Close()
		go func() { _, _ = io.Copy(out, c) }()
		_, _ = io.Copy(c, out)
	})
	f.client.Load(t, lab.NFT, "table ip n { chain o { type nat hook output priority -100; tcp dport 8080 redirect to :12345; }; }")
	probing := diagnose.Options{Probe: true}
	for _, at := range []place{onClient, withBoth} {
		clear_(t, f.ask(t, at, site, diagnose.Options{}), at)
		clear_(t, f.ask(t, at, site, probing), at)
	}
	if t.Failed() {
		t.Fatal("the healthy twin is accused")
	}
	dead.Store(true)
	for _, at := range []place{onClient, withBoth} {
		r := f.ask(t, at, site, diagnose.Options{})
		open(t, r, at, diagnose.Connected, diagnose.ClientProxy)
		r = f.ask(t, at, site, probing)
		blames(t, r, at, diagnose.ClientProxy, diagnose.Likely)
		if s := flat(t, r); !strings.Contains(s, "no SYN to it left this host") || !strings.Contains(s, "12345") {
			t.Errorf("%s: neither packets nor rule are named:\n%s", at, text(t, r))
		}
		keep(t, string(at), r)
	}
	// What the proxy takes does not hide the server's own firewall.
	f.server.Load(t, lab.NFT, "table inet f { chain i { type filter hook input priority 0; tcp dport 8080 drop; }; }")
	r := f.ask(t, withBoth, site, diagnose.Options{})
	blames(t, r, withBoth, diagnose.HostFirewall, diagnose.Confirmed)
	r = f.ask(t, onClient, site, diagnose.Options{})
	open(t, r, onClient, diagnose.Connected, diagnose.HostFirewall, diagnose.ClientProxy)
}

// TestOwnTranslation: the client translates its own source address. Its packets
// leave all the same.
func TestOwnTranslation(t *testing.T) {
	t.Parallel()
	case_{
		name: "and something before the server drops", target: target, make: routerDrops,
		healthy: func(t *testing.T, f *field) {
			serves(t, f)
			ip(t, f.client, "address add 203.0.113.11/24 dev eth0")
			f.client.Load(t, lab.NFT, "table ip n { chain p { type nat hook postrouting priority 100; tcp dport 8080 snat to 203.0.113.11; }; }")
		},
		want: map[place]want{onClient: untold(diagnose.Timeout, diagnose.CloudGroup), withBoth: perhaps(diagnose.CloudGroup, diagnose.Timeout)},
	}.prove(t)
}

// openTun makes a tunnel device of a namespace, which stays when its program ends.
func openTun(t *testing.T, n *lab.Namespace, addr string) *os.File {
	t.Helper()
	var f *os.File
	n.Do(func() {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Error(err)
			return
		}
		q, err := unix.NewIfreq("tun0")
		if err == nil {
			q.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, q)
		}
		if err == nil {
			err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
		}
		if err != nil {
			t.Error(err)
		}
		f = os.NewFile(uintptr(fd), "tun0")
	})
	if f == nil || t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() { f.Close() })
	ip(t, n, "address add "+addr+" dev tun0")
	ip(t, n, "link set tun0 up")
	return f
}

// TestTunnel: a route of the client leads into a tunnel.
func TestTunnel(t *testing.T) {
	t.Parallel()
	var tun, tun2 atomic.Pointer[os.File]
	var dead atomic.Bool
	tunnel := func(tun *atomic.Pointer[os.File], dead *atomic.Bool) func(t *testing.T, f *field) {
		return func(t *testing.T, f *field) {
			serves(t, f)
			near, far := openTun(t, f.client, "10.99.0.1/24"), openTun(t, f.router, "10.99.0.2/24")
			tun.Store(near)
			ip(t, f.client, "route add 198.51.100.0/24 dev tun0")
			pump := func(from, to *os.File) {
				b := make([]byte, 65536)
				for {
					n, err := from.Read(b)
					if err != nil {
						return
					}
					if !dead.Load() {
						_, _ = to.Write(b[:n])
					}
				}
			}
			go pump(near, far)
			go pump(far, near)
		}
	}
	ended := surely(diagnose.ClientProxy, diagnose.Timeout)
	case_{
		name: "whose program has ended", target: target, healthy: tunnel(&tun, new(atomic.Bool)),
		make: func(t *testing.T, f *field) {
			tun.Load().Close()
			for range 100 { // until the kernel has taken note
				if strings.Contains(f.client.Run(t, "ip", "link", "show", "tun0"), "state DOWN") {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			t.Fatal("the tunnel stays up")
		},
		want: map[place]want{onClient: ended, withBoth: ended},
	}.prove(t)
	case_{
		name: "before which the client's own rules drop", target: target, healthy: tunnel(&tun2, new(atomic.Bool)),
		make: func(t *testing.T, f *field) {
			f.client.Load(t, lab.NFT, "table inet f { chain o { type filter hook output priority 0; tcp dport 8080 drop; }; }")
		},
		want: map[place]want{onClient: ended, withBoth: ended},
		not:  "the program behind it",
	}.prove(t)
	t.Run("whose other end is dead", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		var near atomic.Pointer[os.File]
		tunnel(&near, &dead)(t, f)
		for _, at := range []place{onClient, withBoth} {
			clear_(t, f.ask(t, at, target, diagnose.Options{}), at)
		}
		dead.Store(true)
		r := f.ask(t, onClient, target, diagnose.Options{})
		open(t, r, onClient, diagnose.Timeout, diagnose.ClientProxy)
		if s := flat(t, r); !strings.Contains(s, "the tunnel tun0 (tun)") {
			t.Errorf("the tunnel is not named:\n%s", text(t, r))
		}
		keep(t, "client", r)
		// The tunnel, or what lies between its end and the server.
		r = f.ask(t, withBoth, target, diagnose.Options{})
		blames(t, r, withBoth, diagnose.CloudGroup, diagnose.Likely)
		if c := r.Cause(diagnose.ClientProxy); c.Verdict != diagnose.Likely {
			t.Errorf("%s is %s\n%s", c.ID, c.Verdict, text(t, r))
		}
		keep(t, "both", r)
	})
}

// deadTPROXY leads the client's connections into a transparent proxy that does
// not run.
func deadTPROXY(t *testing.T, f *field) {
	ip(t, f.client, "rule add fwmark 1 lookup 100")
	ip(t, f.client, "route add local default dev lo table 100")
	f.client.Load(t, lab.IPTablesLegacy, "*mangle\n-A OUTPUT -p tcp --dport 8080 -j MARK --set-mark 1\n-A PREROUTING -i lo -p tcp --dport 8080 -j TPROXY --on-port 12345 --tproxy-mark 1\nCOMMIT\n")
}

// TestSplitView: the server's own resolver and the client's say otherwise, and
// both may be right.
func TestSplitView(t *testing.T) {
	t.Parallel()
	f := newField(t)
	serves(t, f)
	ip(t, f.server, "address add 10.20.0.5/24 dev eth0")
	outside := resolver(t, f.router, "203.0.113.1:53", map[string]string{"chat.example.com": serverIP})
	resolver(t, f.router, "198.51.100.1:53", map[string]string{"chat.example.com": "10.20.0.5"})
	write(t, f.serverRoot, "etc/resolv.conf", "nameserver 198.51.100.1\n")
	for _, at := range []place{onServer, onClient, withBoth} {
		clear_(t, f.ask(t, at, named, diagnose.Options{}), at)
	}
	// A client that gets the inner view cannot use it.
	ip(t, f.router, "route add blackhole 10.0.0.0/8")
	outside.set("chat.example.com", "10.20.0.5")
	for _, at := range []place{onClient, withBoth} {
		r := f.ask(t, at, named, diagnose.Options{})
		blames(t, r, at, diagnose.PrivateAddress, diagnose.Likely)
		keep(t, string(at), r)
	}
	r := f.ask(t, onServer, named, diagnose.Options{})
	open(t, r, onServer, diagnose.Connected, diagnose.PrivateAddress)
	// One that gets another host's.
	outside.set("chat.example.com", routerIP)
	r = f.ask(t, withBoth, named, diagnose.Options{})
	blames(t, r, withBoth, diagnose.DNSElsewhere, diagnose.Confirmed)
	clear_(t, f.ask(t, onServer, named, diagnose.Options{From: netip.MustParseAddr(clientIP)}), onServer)
}
