package diagnose_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// dialFrom opens connections one after another on a thread of the namespace, as a
// program does: with a bind to an address (and the kernel's choice of the port)
// or without. It returns the open sockets and the first error.
func dialFrom(t *testing.T, n *lab.Namespace, from netip.Addr, late bool, to ...netip.AddrPort) (fds []int, err error) {
	t.Helper()
	n.Do(func() {
		for _, ap := range to {
			fd, e := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if e != nil {
				t.Error(e)
				return
			}
			if late {
				_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			}
			if from.IsValid() {
				e = unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()})
			}
			if e == nil {
				e = unix.Connect(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()})
			}
			if e != nil {
				unix.Close(fd)
				err = e
				return
			}
			fds = append(fds, fd)
		}
	})
	return fds, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func times(n int, s string) []netip.AddrPort {
	out := make([]netip.AddrPort, n)
	for i := range out {
		out[i] = port(s)
	}
	return out
}

// ends serves connections that end at "bye", or when the client ends them, as
// orderly as programs do.
func ends(t *testing.T, n *lab.Namespace, addr string) {
	t.Helper()
	n.Serve(t, "tcp", addr, func(c net.Conn) {
		b := make([]byte, 8)
		for {
			if n, err := c.Read(b); err != nil || string(b[:n]) == "bye" {
				return
			}
		}
	})
}

// narrow leaves the client ten local ports.
func narrow(t *testing.T, f *field) {
	serves(t, f)
	f.client.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40009", "net.ipv4.tcp_tw_reuse", "0")
}

// TestEphemeralExhausted: all local ports towards the service are in use.
func TestEphemeralExhausted(t *testing.T) {
	t.Parallel()
	w := surely(diagnose.EphemeralExhausted, diagnose.CannotAssign)
	clients := map[place]want{onClient: w, withBoth: w}
	use := func(from netip.Addr, late bool, errno unix.Errno, to ...netip.AddrPort) func(t *testing.T, f *field) {
		return func(t *testing.T, f *field) {
			fds, err := dialFrom(t, f.client, from, late, to...)
			t.Cleanup(func() { closeAll(fds) })
			if !errors.Is(err, errno) {
				t.Fatalf("after %d connections: %v, want %v", len(fds), err, errno)
			}
		}
	}
	case_{name: "plain connections", target: target, healthy: narrow, make: use(netip.Addr{}, false, unix.EADDRNOTAVAIL, times(11, serverIP+":8080")...), want: clients}.prove(t)
	me := netip.MustParseAddr(clientIP)
	bound := diagnose.Options{Source: me}
	case_{
		name: "bound before connecting, to other destinations", target: target, o: bound, want: clients,
		healthy: func(t *testing.T, f *field) {
			narrow(t, f)
			f.listen(t, f.server, "0.0.0.0:8081", "0.0.0.0:8082")
		},
		make: use(me, false, unix.EADDRINUSE, append(times(5, serverIP+":8081"), times(6, serverIP+":8082")...)...),
	}.prove(t)
	case_{name: "bound late, without a port", target: target, o: diagnose.Options{}, healthy: narrow, make: use(me, true, unix.EADDRNOTAVAIL, times(11, serverIP+":8080")...), want: clients}.prove(t)
	t.Run("another destination is still fine", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		narrow(t, f)
		f.listen(t, f.server, "0.0.0.0:8081")
		use(netip.Addr{}, false, unix.EADDRNOTAVAIL, times(11, serverIP+":8080")...)(t, f)
		clear_(t, f.ask(t, onClient, "tcp://198.51.100.20:8081", diagnose.Options{}), onClient)
		// The message of a program, read while the ports are still in use.
		r := f.ask(t, onClient, target, diagnose.Options{Message: "dial tcp 198.51.100.20:8080: connect: cannot assign requested address"})
		blames(t, r, onClient, diagnose.EphemeralExhausted, diagnose.Confirmed)
		keep(t, "message", r)
	})
	t.Run("a message and no census that shows it", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		serves(t, f)
		r := f.ask(t, onClient, target, diagnose.Options{Message: "dial tcp 198.51.100.20:8080: connect: cannot assign requested address"})
		open(t, r, onClient, diagnose.CannotAssign, diagnose.EphemeralExhausted, diagnose.TimeWaitExhaustion, diagnose.SourceMissing)
		keep(t, "message", r)
	})
}

// TestTimeWait: connections that this side closed first hold the ports; on the
// side that accepts they harm nobody.
func TestTimeWait(t *testing.T) {
	t.Parallel()
	w := surely(diagnose.TimeWaitExhaustion, diagnose.CannotAssign)
	case_{
		name: "closed first", target: target, want: map[place]want{onClient: w, withBoth: w},
		healthy: func(t *testing.T, f *field) {
			ends(t, f.server, "0.0.0.0:8080")
			f.client.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40009", "net.ipv4.tcp_tw_reuse", "0")
		},
		make: func(t *testing.T, f *field) {
			fds, err := dialFrom(t, f.client, netip.Addr{}, false, times(10, serverIP+":8080")...)
			if err != nil {
				t.Fatal(err)
			}
			closeAll(fds)
			time.Sleep(200 * time.Millisecond) // the server's end follows
		},
	}.prove(t)
	t.Run("on the side that accepts", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		ends(t, f.server, "0.0.0.0:8080")
		for range 40 { // the server closes first
			n := 0
			f.client.Do(func() {
				c, err := net.Dial("tcp", serverIP+":8080")
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = c.Write([]byte("bye"))
				n, _ = c.Read(make([]byte, 1))
				c.Close()
			})
			if n != 0 {
				t.Fatal("the server did not close first")
			}
		}
		r := f.ask(t, onServer, target, diagnose.Options{})
		clear_(t, r, onServer)
		for _, id := range []diagnose.ID{diagnose.TimeWaitExhaustion, diagnose.EphemeralExhausted} {
			if r.Cause(id).Verdict != diagnose.RuledOut {
				t.Errorf("%s is %s", id, r.Cause(id).Verdict)
			}
		}
	})
}

// TestSourceMissing: a program binds an address that the host does not have.
func TestSourceMissing(t *testing.T) {
	t.Parallel()
	foreign := netip.MustParseAddr("203.0.113.99")
	w := surely(diagnose.SourceMissing, diagnose.CannotAssign)
	case_{
		name: "a client's source address", target: target, o: diagnose.Options{Source: foreign}, want: map[place]want{onClient: w, withBoth: w},
		healthy: func(t *testing.T, f *field) {
			serves(t, f)
			ip(t, f.client, "address add 203.0.113.99/24 dev eth0")
		},
		make: runs(theClient, "address del 203.0.113.99/24 dev eth0"),
	}.prove(t)
	for _, message := range []string{
		"listen tcp 198.51.100.99:8080: bind: cannot assign requested address",
		"stream_socket_server(): Unable to connect to tcp://198.51.100.99:8080 (Cannot assign requested address)",
		"bind() to 198.51.100.99:8080 failed (99: Cannot assign requested address)",
		"java.net.BindException: Cannot assign requested address (Bind failed) 198.51.100.99:8080",
		"Error: listen EADDRNOTAVAIL: address not available 198.51.100.99:8080",
	} {
		t.Run("a server's message: "+message[:12], func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			r := f.ask(t, onServer, "8080", diagnose.Options{Message: message})
			blames(t, r, onServer, diagnose.SourceMissing, diagnose.Confirmed)
			keep(t, "server", r)
			ip(t, f.server, "address add 198.51.100.99/24 dev eth0")
			f.listen(t, f.server, "198.51.100.99:8080")
			r = f.ask(t, onServer, "8080", diagnose.Options{Message: message})
			open(t, r, onServer, diagnose.CannotAssign, diagnose.SourceMissing)
		})
	}
	for name, argv := range map[string][]string{
		"python3": {"python3", "-c", `import socket; socket.create_server(("198.51.100.99", 8080))`},
		"php":     {"php", "-r", `stream_socket_server("tcp://198.51.100.99:8080");`},
		"node":    {"node", "-e", `require("net").createServer().listen(8080, "198.51.100.99")`},
		"perl":    {"perl", "-MIO::Socket::INET", "-e", `IO::Socket::INET->new(Listen => 1, LocalAddr => "198.51.100.99:8080") or die "bind: $!: 198.51.100.99:8080\n"`},
	} {
		t.Run("what "+name+" says that cannot bind", func(t *testing.T) {
			t.Parallel()
			lab.Need(t, name)
			f := newField(t)
			message := saysIn(t, f.server, argv...)
			r := f.ask(t, onServer, "198.51.100.99:8080", diagnose.Options{Message: message, Side: diagnose.SideServer})
			blames(t, r, onServer, diagnose.SourceMissing, diagnose.Confirmed)
			keep(t, name, r)
			ip(t, f.server, "address add 198.51.100.99/24 dev eth0")
			f.listen(t, f.server, "198.51.100.99:8080")
			r = f.ask(t, onServer, "198.51.100.99:8080", diagnose.Options{Message: message})
			open(t, r, onServer, diagnose.CannotAssign, diagnose.SourceMissing)
		})
	}
	t.Run("a tentative address", func(t *testing.T) {
		f := newField(t)
		const message = "listen tcp [2001:db8:2::99]:8080: bind: cannot assign requested address"
		// Twenty probes of duplicate address detection take a second each.
		f.server.Sysctl(t, "net.ipv6.conf.all.accept_dad", "1", "net.ipv6.conf.eth0.accept_dad", "1", "net.ipv6.conf.eth0.dad_transmits", "20")
		ip(t, f.server, "address add 2001:db8:2::99/64 dev eth0")
		r := f.ask(t, onServer, "8080", diagnose.Options{Message: message})
		blames(t, r, onServer, diagnose.SourceMissing, diagnose.Confirmed)
		// Once it is sure of the address, nothing is wrong any more.
		ip(t, f.server, "address del 2001:db8:2::99/64 dev eth0")
		ip(t, f.server, "address add 2001:db8:2::99/64 dev eth0 nodad")
		f.listen(t, f.server, "[2001:db8:2::99]:8080")
		r = f.ask(t, onServer, "8080", diagnose.Options{Message: message})
		open(t, r, onServer, diagnose.CannotAssign, diagnose.SourceMissing)
	})
}

// TestConntrackFull: the table of the server's namespace is filled to its limit,
// which is the kernel's own and not to be set in here.
func TestConntrackFull(t *testing.T) {
	t.Parallel()
	f := newField(t)
	serves(t, f)
	f.sample = 1500 * time.Millisecond
	f.server.Load(t, lab.NFT, "table inet f { chain i { type filter hook input priority 0; ct state established accept; }; }")
	for _, at := range []place{onServer, onClient, withBoth} {
		clear_(t, f.ask(t, at, target, diagnose.Options{}), at)
	}
	// Their entries would end in some seconds and leave room.
	if err := f.server.FlushConntrack(); err != nil {
		t.Fatal(err)
	}
	f.server.FillConntrack(t, netip.MustParseAddr(serverIP))
	for at, w := range everywhere(diagnose.ConntrackFull, diagnose.Timeout) {
		r := f.ask(t, at, target, diagnose.Options{})
		switch {
		case w.id != "":
			blames(t, r, at, w.id, w.verdicts...)
		default:
			open(t, r, at, w.sees, w.open...)
		}
		keep(t, string(at), r)
	}
}
