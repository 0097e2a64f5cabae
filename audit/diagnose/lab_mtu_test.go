package diagnose_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// narrowPath is a field in which a link between two routers takes packets of
// 1300 bytes: router is at the client's end of it, far at the server's.
func narrowPath(t *testing.T) (f *field, far *lab.Namespace) {
	t.Helper()
	f = newField(t)
	far = f.lab.Add(t, "far")
	p := netip.MustParsePrefix
	// The server's network moves behind the second router.
	ip(t, f.router, "link del out")
	f.lab.Join(t, lab.End{In: f.server, Interface: "eth0", Addrs: []netip.Prefix{p(serverIP + "/24"), p(serverIP6 + "/64")}},
		lab.End{In: far, Interface: "out", Addrs: []netip.Prefix{p("198.51.100.1/24"), p("2001:db8:2::1/64")}})
	f.lab.Join(t, lab.End{In: f.router, Interface: "narrow", Addrs: []netip.Prefix{p("192.0.2.1/30"), p("2001:db8:9::1/64")}},
		lab.End{In: far, Interface: "narrow", Addrs: []netip.Prefix{p("192.0.2.2/30"), p("2001:db8:9::2/64")}})
	ip(t, f.server, "route add default via 198.51.100.1")
	ip(t, f.server, "-6 route add default via 2001:db8:2::1")
	far.Sysctl(t, "net.ipv4.ip_forward", "1", "net.ipv6.conf.all.forwarding", "1")
	for _, n := range []*lab.Namespace{f.router, far} {
		ip(t, n, "link set narrow mtu 1300")
		n.Sysctl(t, "net.ipv4.icmp_ratelimit", "0", "net.ipv4.icmp_ratemask", "0", "net.ipv6.icmp.ratelimit", "0")
	}
	ip(t, f.router, "route add 198.51.100.0/24 via 192.0.2.2")
	ip(t, f.router, "-6 route add 2001:db8:2::/64 via 2001:db8:9::2")
	ip(t, far, "route add 203.0.113.0/24 via 192.0.2.1")
	ip(t, far, "-6 route add 2001:db8:1::/64 via 2001:db8:9::1")
	return f, far
}

// noTooBig drops what a router says about sizes, where it leaves the router.
const noTooBig = "table inet g { chain o { type filter hook output priority 0; icmp type destination-unreachable icmp code frag-needed drop; icmpv6 type packet-too-big drop; }; }"

// page serves a page of n bytes and takes uploads.
func page(t *testing.T, n *lab.Namespace, size int) {
	t.Helper()
	var l net.Listener
	var err error
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // the kernel looks for a smaller size in plain TCP alone
	n.Do(func() { l, err = plain.Listen(t.Context(), "tcp", ":8080") })
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("x"), size)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
}

// fetches is a client's program: it asks, and reads until the test ends. What it
// got is told by the channel when it has the whole answer.
func fetches(t *testing.T, n *lab.Namespace, to string, upload int) <-chan int {
	t.Helper()
	var c net.Conn
	var err error
	n.Do(func() { c, err = net.Dial("tcp", to) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	done := make(chan int, 1)
	go func() {
		_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", upload)
		_, _ = c.Write(bytes.Repeat([]byte("u"), upload))
		b, _ := io.ReadAll(c)
		done <- len(b)
	}()
	return done
}

// hangs demands that a program does not get its answer within a time, passes that
// it does.
func hangs(t *testing.T, done <-chan int, within time.Duration) {
	t.Helper()
	select {
	case n := <-done:
		t.Fatalf("the answer of %d bytes came: large packets pass", n)
	case <-time.After(within):
	}
}

func passes(t *testing.T, done <-chan int) {
	t.Helper()
	select {
	case n := <-done:
		if n < 1000 {
			t.Fatalf("%d bytes came", n)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no answer: large packets do not pass")
	}
}

// TestPathMTU: a link in the middle takes smaller packets only, and nobody hears
// of it: connections come about and then stop. The healthy twin has the same link
// and routers that say so, or servers that find out by themselves.
func TestPathMTU(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft")
	const v4, v6 = "http://198.51.100.20:8080/", "http://[2001:db8:2::20]:8080/"
	const dropsICMP = "table inet f { chain i { type filter hook input priority 0; ip protocol icmp icmp type != echo-request drop; }; }"
	const waits = "curl: (28) Operation timed out after 5001 milliseconds with 0 bytes received"
	for _, c := range []struct {
		name, target string
		make         func(t *testing.T, f *field, far *lab.Namespace)
		size, upload int
		// tail: the last segment is short and gets through.
		tail bool
		says map[place]string
	}{
		{
			name: "the router's word is lost on the way to the server", target: v4, size: 7000, tail: true,
			make: func(t *testing.T, _ *field, far *lab.Namespace) { far.Load(t, lab.NFT, noTooBig) },
		},
		{
			name: "likewise, IPv6", target: v6, size: 7000, tail: true,
			make: func(t *testing.T, _ *field, far *lab.Namespace) { far.Load(t, lab.NFT, noTooBig) },
		},
		{
			name: "likewise, a long answer", target: v4, size: 200000,
			make: func(t *testing.T, _ *field, far *lab.Namespace) { far.Load(t, lab.NFT, noTooBig) },
		},
		{
			name: "the server's own rules drop it", target: v4, size: 7000, tail: true,
			make: func(t *testing.T, f *field, _ *lab.Namespace) { f.server.Load(t, lab.NFT, dropsICMP) },
			says: map[place]string{onServer: "it throws away what routers say about the size of packets: nftables inet f i #1", withBoth: "nftables inet f i #1"},
		},
		{
			name: "an upload, and the router's word to the client is lost", target: v4, size: 1200, upload: 7000, tail: true,
			make: func(t *testing.T, f *field, _ *lab.Namespace) { f.router.Load(t, lab.NFT, noTooBig) },
			says: map[place]string{onServer: "the end of the request has come", onClient: "running connection"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, far := narrowPath(t)
			page(t, f.server, c.size)
			dial := strings.Trim(strings.TrimPrefix(c.target, "http://"), "/")
			probing := diagnose.Options{Probe: true, Limit: 3 * time.Second}
			passes(t, fetches(t, f.client, dial, c.upload))
			for _, at := range []place{onServer, onClient, withBoth} {
				clear_(t, f.ask(t, at, c.target, probing), at)
			}
			if t.Failed() {
				t.Fatal("the healthy twin is accused")
			}
			// What was learnt is forgotten.
			c.make(t, f, far)
			for _, n := range []*lab.Namespace{f.server, f.client} {
				ip(t, n, "route flush cache")
				ip(t, n, "-6 route flush cache")
			}
			f.server.Sysctl(t, "net.ipv4.tcp_no_metrics_save", "1")
			done := fetches(t, f.client, dial, c.upload)
			hangs(t, done, 2500*time.Millisecond)
			hold := func(r *diagnose.Report, at place, kind string, verdicts ...diagnose.Verdict) {
				t.Helper()
				blames(t, r, at, diagnose.ReplyPath, verdicts...)
				s := flat(t, r)
				if !strings.Contains(s, "path MTU") || !strings.Contains(s, c.says[at]) || r.ClientSees != diagnose.ProtocolError {
					t.Errorf("%s, %s: the client sees %s; want %q in\n%s", at, kind, r.ClientSees, c.says[at], text(t, r))
				}
				keep(t, c.name+" "+string(at)+" "+kind, r)
			}
			if c.tail { // what is there to be seen without sending anything
				sender, receiver := onServer, onClient
				if c.upload > 0 {
					sender, receiver = onClient, onServer
				}
				hold(f.ask(t, sender, c.target, diagnose.Options{}), sender, "passive", diagnose.Confirmed)
				hold(f.ask(t, receiver, c.target, diagnose.Options{}), receiver, "passive", diagnose.Likely)
				hold(f.ask(t, withBoth, c.target, diagnose.Options{}), withBoth, "passive", diagnose.Confirmed)
			} else {
				r := f.ask(t, onServer, c.target, diagnose.Options{})
				open(t, r, onServer, diagnose.Connected, diagnose.ReplyPath) // the client may be gone
				keep(t, c.name+" on the server, passive", r)
				hold(f.ask(t, onServer, c.target, diagnose.Options{Message: waits, From: netip.MustParseAddr(clientIP)}), onServer, "message", diagnose.Likely)
				hold(f.ask(t, withBoth, c.target, diagnose.Options{}), withBoth, "passive", diagnose.Likely)
				hold(f.ask(t, onServer, c.target, probing), onServer, "probed", diagnose.Confirmed)
			}
			hold(f.ask(t, onClient, c.target, probing), onClient, "probed", diagnose.Confirmed)
			hold(f.ask(t, withBoth, c.target, probing), withBoth, "probed", diagnose.Confirmed)
			hangs(t, done, time.Millisecond)
		})
	}
	t.Run("the server finds a size by itself", func(t *testing.T) {
		t.Parallel()
		f, far := narrowPath(t)
		page(t, f.server, 200000)
		far.Load(t, lab.NFT, noTooBig)
		f.server.Sysctl(t, "net.ipv4.tcp_mtu_probing", "1")
		passes(t, fetches(t, f.client, serverIP+":8080", 0)) // after some seconds
		for _, at := range []place{onServer, onClient, withBoth} {
			clear_(t, f.ask(t, at, v4, diagnose.Options{}), at)
		}
	})
	t.Run("a router clamps the segments", func(t *testing.T) {
		t.Parallel()
		f, far := narrowPath(t)
		page(t, f.server, 200000)
		far.Load(t, lab.NFT, noTooBig+"\ntable inet m { chain f { type filter hook forward priority mangle; tcp flags syn tcp option maxseg size set rt mtu; }; }")
		passes(t, fetches(t, f.client, serverIP+":8080", 0))
		for _, at := range []place{onServer, onClient, withBoth} {
			clear_(t, f.ask(t, at, v4, diagnose.Options{Probe: true}), at)
		}
	})
	t.Run("the client is gone", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		page(t, f.server, 1<<20)
		f.server.Load(t, lab.NFT, dropsICMP) // which has nothing to do with it
		var c net.Conn
		var err error
		f.client.Do(func() {
			d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { // a window that its own answers do not fill
				return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10) })
			}}
			c, err = d.Dial("tcp", serverIP+":8080")
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f.router.Load(t, lab.NFT, "table inet g { chain f { type filter hook forward priority 0; ip saddr 198.51.100.20 tcp flags & syn == 0 drop; }; }")
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
		r := f.ask(t, onServer, v4, diagnose.Options{})
		open(t, r, onServer, diagnose.Connected, diagnose.ReplyPath)
		if s := flat(t, r); !strings.Contains(s, "without an acknowledgement: the client is gone") {
			t.Errorf("it is not said that the client may be gone:\n%s", text(t, r))
		}
		keep(t, "gone", r)
	})
	t.Run("a message that says so much", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		serves(t, f)
		r := f.ask(t, onClient, "http://198.51.100.20:8081/", diagnose.Options{Message: waits})
		open(t, r, onClient, diagnose.ProtocolError, diagnose.ReplyPath)
	})
}
