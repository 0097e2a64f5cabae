package diagnose_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestTwoCauses: where two things are wrong both are named, the one that decides
// first.
func TestTwoCauses(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft")
	const drops = "table inet f { chain i { type filter hook input priority 0; tcp dport 8080 drop; }; }"
	for name, second := range map[string]struct {
		listen []string
		id     diagnose.ID
	}{
		"a drop, and a listener on loopback": {[]string{"127.0.0.1:8080"}, diagnose.BindAddress},
		"a drop, and no listener":            {nil, diagnose.NotListening},
		"a drop alone":                       {[]string{"0.0.0.0:8080"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			f.listen(t, f.server, second.listen...)
			f.server.Load(t, lab.NFT, drops)
			for _, at := range []place{onServer, withBoth} {
				r := f.ask(t, at, target, diagnose.Options{})
				blames(t, r, at, diagnose.HostFirewall, diagnose.Confirmed)
				for _, id := range []diagnose.ID{diagnose.BindAddress, diagnose.NotListening} {
					if c := r.Cause(id); c.Accused() != (id == second.id) {
						t.Errorf("%s: %s is %s\n%s", at, id, c.Verdict, text(t, r))
					}
				}
				keep(t, string(at), r)
			}
			f.server.Load(t, lab.NFT, "flush ruleset")
			r := f.ask(t, onServer, target, diagnose.Options{})
			if second.id == "" {
				clear_(t, r, onServer)
			} else { // what was second is first now
				blames(t, r, onServer, second.id, diagnose.Confirmed)
			}
		})
	}
	t.Run("a wrong AAAA record, and a drop", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		z, healthy := servesNamed(serverIP + " " + serverIP6)
		healthy(t, f)
		clear_(t, f.ask(t, withBoth, named, diagnose.Options{}), withBoth)
		z.set("chat.example.com", serverIP+" 2001:db8:1::1")
		f.server.Load(t, lab.NFT, drops)
		r := f.ask(t, withBoth, named, diagnose.Options{})
		blames(t, r, withBoth, diagnose.HostFirewall, diagnose.Confirmed)
		if c := r.Cause(diagnose.DNSElsewhere); !c.Accused() {
			t.Errorf("%s is %s\n%s", c.ID, c.Verdict, text(t, r))
		}
		// The reset of another host says nothing about what is before this one.
		if c := r.Cause(diagnose.CloudGroup); c.Verdict == diagnose.RuledOut {
			t.Errorf("%s is %s\n%s", c.ID, c.Verdict, text(t, r))
		}
	})
}

// TestSomeAddresses: a name of which one address works and another does not.
func TestSomeAddresses(t *testing.T) {
	t.Parallel()
	f := newField(t)
	_, healthy := servesNamed(serverIP + " " + serverIP6)
	healthy(t, f)
	clear_(t, f.ask(t, onClient, named, diagnose.Options{}), onClient)
	f.stop()
	f.listen(t, f.server, "0.0.0.0:8080")
	r := f.ask(t, onClient, named, diagnose.Options{})
	open(t, r, onClient, diagnose.Connected, diagnose.BindAddress, diagnose.NotListening)
	if !strings.Contains(flat(t, r), "by some addresses of the name and not by others (2001:db8:2::20: refused)") {
		t.Errorf("it is not said which:\n%s", text(t, r))
	}
	r = f.ask(t, withBoth, named, diagnose.Options{})
	blames(t, r, withBoth, diagnose.BindAddress, diagnose.Confirmed, diagnose.Likely)
}

// TestGone: what the message tells of is over.
func TestGone(t *testing.T) {
	t.Parallel()
	f := newField(t)
	serves(t, f)
	for _, message := range []string{"Connection refused", "Connection timed out"} {
		o := diagnose.Options{Message: "connect: " + message}
		r := f.ask(t, onServer, target, o)
		if o.From = netip.MustParseAddr(clientIP); r.ClientSees == diagnose.Refused {
			open(t, r, onServer, diagnose.Refused)
			if !strings.Contains(flat(t, r), "the cause is gone meanwhile") {
				t.Errorf("%q:\n%s", message, text(t, r))
			}
		} else {
			blames(t, r, onServer, diagnose.CloudGroup, diagnose.Likely)
		}
	}
	// One that may mean the service's silence accuses nobody before it.
	r := f.ask(t, onServer, target, diagnose.Options{Message: "context deadline exceeded", From: netip.MustParseAddr(clientIP)})
	open(t, r, onServer, diagnose.Timeout, diagnose.CloudGroup)
}

// TestBehindNAT: the server has the address that clients dial only by a
// translation in front of it; its rules decide all the same.
func TestBehindNAT(t *testing.T) {
	t.Parallel()
	f := newField(t)
	behindNAT(t, f)
	public := diagnose.Options{Public: []netip.Addr{netip.MustParseAddr(serverIP)}}
	for _, at := range []place{onServer, onClient, withBoth} {
		clear_(t, f.ask(t, at, target, diagnose.Options{}), at)
		clear_(t, f.ask(t, at, target, public), at)
	}
	f.server.Load(t, lab.NFT, "table inet f { chain i { type filter hook input priority 0; tcp dport 8080 drop; }; }")
	for _, at := range []place{onServer, withBoth} {
		r := f.ask(t, at, target, diagnose.Options{})
		blames(t, r, at, diagnose.HostFirewall, diagnose.Likely)
		keep(t, string(at), r)
		blames(t, f.ask(t, at, target, public), at, diagnose.HostFirewall, diagnose.Confirmed)
	}
}

// TestBackendWaits: connections come about and wait for a service that does not
// accept them.
func TestBackendWaits(t *testing.T) {
	t.Parallel()
	f := newField(t)
	f.server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: port("0.0.0.0:8080"), Deaf: true})
	const waits = "Operation timed out after 5001 milliseconds with 0 bytes received"
	o := diagnose.Options{Message: waits, From: netip.MustParseAddr(clientIP)}
	r := f.ask(t, onServer, target, o)
	open(t, r, onServer, diagnose.ProtocolError)
	if n := hold(t, f.client, serverIP+":8080", 2, time.Second); n != 2 {
		t.Fatalf("%d connections came about", n)
	}
	for _, at := range []place{onServer, withBoth} {
		blames(t, f.ask(t, at, target, o), at, diagnose.QueueFull, diagnose.Likely)
	}
}

// TestHostileAnswers: what a service answers to a probe neither hangs it, nor
// gets onto the screen as it is, nor is taken for what it is not.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(net.Conn){
		"escapes": banner(strings.Repeat("\x1b[31mHELLO\x07\x1b]0;title\x07\r\n", 50)),
		"endless": func(c net.Conn) {
			b := make([]byte, 64<<10)
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		},
		"a header without end": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\n"))
			line := []byte("X-A: " + strings.Repeat("\x1b[2J", 8000) + "\r\n")
			for {
				if _, err := c.Write(line); err != nil {
					return
				}
			}
		},
		"byte by byte": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			for _, b := range []byte("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 1000)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(300 * time.Millisecond)
			}
		},
		"an absurd length": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\nContent-Length: -5\r\n\r\nx"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			f.server.Serve(t, "tcp", "0.0.0.0:8080", handle)
			began := time.Now()
			r := f.ask(t, onClient, "http://198.51.100.20:8080/", diagnose.Options{Probe: true})
			if d := time.Since(began); d > 30*time.Second {
				t.Errorf("it took %s", d)
			}
			s := text(t, r)
			if strings.ContainsRune(s, '\x1b') || strings.ContainsRune(s, '\a') || len(s) > 10000 {
				t.Errorf("%d bytes: %q", len(s), s[:min(len(s), 3000)])
			}
			if c := r.Cause(diagnose.ProtocolMismatch); c.Accused() != (name == "escapes" || name == "endless") {
				t.Errorf("%s is %s\n%s", c.ID, c.Verdict, s)
			}
			keep(t, name, r)
		})
	}
}
