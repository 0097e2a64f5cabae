package diagnose_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

const target = "tcp://198.51.100.20:8080"

// relisten closes what listens and opens other addresses.
func relisten(addrs ...string) func(t *testing.T, f *field) {
	return func(t *testing.T, f *field) {
		f.stop()
		f.listen(t, f.server, addrs...)
	}
}

// TestNotListening: the service ended, the port is led to a dead one, and what
// unit, pid file and log say about it.
func TestNotListening(t *testing.T) {
	t.Parallel()
	lab.Need(t, "iptables-legacy")
	for _, c := range []case_{
		{name: "service ended", target: target, make: relisten()},
		{name: "service ended, IPv6", target: "tcp://[2001:db8:2::20]:8080", make: relisten()},
		{name: "redirect to a dead port", target: target, make: loads(lab.IPTablesLegacy, "*nat\n-A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 8081\nCOMMIT\n")},
		{name: "translation to a dead port of this host", target: target, make: loads(lab.NFT, "table ip n { chain p { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 198.51.100.20:8081; }; }")},
	} {
		c.want = everywhere(diagnose.NotListening, diagnose.Refused)
		c.prove(t)
	}
	t.Run("what the service's files say", func(t *testing.T) {
		f := newField(t)
		const unit = "[Service]\nExecStart=/srv/chat\nPIDFile=/run/chat.pid\n"
		write(t, f.serverRoot, "etc/systemd/system/chat.service", unit)
		write(t, f.serverRoot, "run/chat.pid", "4194300\n") // above pid_max of most hosts
		log := f.serverRoot + "/workerman.log"
		for _, x := range []struct{ log, want string }{
			{"", "/run/chat.pid names process 4194300, which does not exist"},
			{"2026-11-20 pid:1 stream_socket_server(): Unable to connect to tcp://0.0.0.0:8080 (Address already in use)\n", "ip_local_reserved_ports"},
			{"2026-11-20 pid:1 stream_socket_server(): Unable to connect to tcp://0.0.0.0:80 (Permission denied)\n", "CAP_NET_BIND_SERVICE"},
			{"2026-11-20 pid:1 worker[chat:55] exit with status 64000\n", "status 64000"},
			{"kernel: Out of memory: Killed process 4711 (php)\n", "Out of memory"},
			{"PHP Warning: stream_socket_server() has been disabled for security reasons\n", "has been disabled"},
		} {
			write(t, f.serverRoot, "workerman.log", x.log)
			o := diagnose.Options{Files: diagnose.HostOptions{Unit: "chat", Log: log}}
			r := f.ask(t, onServer, target, o)
			blames(t, r, onServer, diagnose.NotListening, diagnose.Confirmed)
			if s := flat(t, r); !strings.Contains(s, x.want) {
				t.Errorf("no %q in\n%s", x.want, text(t, r))
			}
		}
		// The unit runs and listens elsewhere; then it listens: what the log tells of is over.
		o := diagnose.Options{Files: diagnose.HostOptions{Unit: "chat", Log: log}}
		write(t, f.serverRoot, "run/chat.pid", fmt.Sprintln(os.Getpid()))
		write(t, f.serverRoot, "sys/fs/cgroup/system.slice/chat.service/cgroup.events", "populated 1\nfrozen 0\n")
		r := f.ask(t, onServer, target, o)
		blames(t, r, onServer, diagnose.NotListening, diagnose.Confirmed)
		if s := flat(t, r); !strings.Contains(s, "runs, and does not listen on port 8080") || strings.Contains(s, "which does not exist") {
			t.Errorf("a unit that runs:\n%s", text(t, r))
		}
		serves(t, f)
		clear_(t, f.ask(t, onServer, target, o), onServer)
	})
	t.Run("an outgoing connection sits on the port", func(t *testing.T) {
		f := newField(t)
		f.listen(t, f.client, "0.0.0.0:9999")
		var out net.Conn
		var err error
		f.server.Do(func() {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(port(serverIP + ":8080"))}
			if out, err = d.Dial("tcp", clientIP+":9999"); err == nil {
				_, err = net.Listen("tcp4", "0.0.0.0:8080")
			}
		})
		if out == nil || !errors.Is(err, unix.EADDRINUSE) {
			t.Fatalf("the outgoing connection does not hold the port: %v", err)
		}
		message := err.Error()
		r := f.ask(t, onServer, target, diagnose.Options{Message: message})
		blames(t, r, onServer, diagnose.NotListening, diagnose.Confirmed)
		_ = out.(*net.TCPConn).SetLinger(0)
		out.Close()
		f.listen(t, f.server, "0.0.0.0:8080")
		r = f.ask(t, onServer, target, diagnose.Options{Message: message})
		open(t, r, onServer, r.ClientSees)
	})
}

// flat is an answer as one line, to look for words that the text may break.
func flat(t *testing.T, r *diagnose.Report) string {
	return strings.Join(strings.Fields(text(t, r)), " ")
}

// TestWrongPort: something listens, on another port than the one dialled.
func TestWrongPort(t *testing.T) {
	t.Parallel()
	chat := &audit.Config{Services: []audit.Service{{Name: "chat", Port: 7272, Proto: "tcp", Protocol: "websocket", Source: "hostaudit.yaml:2"}}}
	for _, c := range []case_{
		{
			name: "digits in another order", target: "tcp://198.51.100.20:2727", healthy: relisten("0.0.0.0:2727"), make: relisten("0.0.0.0:7272"),
			want: map[place]want{onServer: perhaps(diagnose.WrongPort, diagnose.Refused), onClient: untold(diagnose.Refused, diagnose.WrongPort), withBoth: perhaps(diagnose.WrongPort, diagnose.Refused)},
		},
		{
			name: "the configuration names the port", target: "ws://198.51.100.20:7273", healthy: relisten("0.0.0.0:7273"), make: relisten("0.0.0.0:7272"),
			o:    diagnose.Options{Config: chat},
			want: map[place]want{onServer: surely(diagnose.WrongPort, diagnose.Refused), onClient: perhaps(diagnose.WrongPort, diagnose.Refused), withBoth: surely(diagnose.WrongPort, diagnose.Refused)},
		},
		{ // the configuration of the client speaks of a service that is not there: the server's has ended
			name: "the configuration names a port that is dead as well", target: "ws://198.51.100.20:7273", healthy: relisten("0.0.0.0:7273"), make: relisten(),
			o:    diagnose.Options{Config: chat},
			want: map[place]want{onServer: surely(diagnose.NotListening, diagnose.Refused), onClient: untold(diagnose.Refused, diagnose.WrongPort, diagnose.NotListening), withBoth: surely(diagnose.NotListening, diagnose.Refused)},
		},
		{
			name: "the configuration names the very port", target: "ws://198.51.100.20:7272", healthy: relisten("0.0.0.0:7272", "0.0.0.0:2727"), make: relisten("0.0.0.0:2727"),
			o:    diagnose.Options{Config: chat},
			want: map[place]want{onServer: surely(diagnose.NotListening, diagnose.Refused), onClient: untold(diagnose.Refused, diagnose.WrongPort, diagnose.NotListening), withBoth: surely(diagnose.NotListening, diagnose.Refused)},
		},
	} {
		c.prove(t)
	}
	t.Run("a client's message, and its configuration", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		r := f.ask(t, onClient, "ws://198.51.100.20:7273", diagnose.Options{Config: chat, Message: "connect ECONNREFUSED 198.51.100.20:7273"})
		open(t, r, onClient, diagnose.Refused, diagnose.WrongPort)
		if s := flat(t, r); !strings.Contains(s, "whether port 7272, which the configuration names, answers") {
			t.Errorf("the configured port is not named:\n%s", text(t, r))
		}
	})
}

// TestBindAddress: a listener that another address would reach.
func TestBindAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []case_{
		{name: "loopback", target: target, make: relisten("127.0.0.1:8080")},
		{name: "IPv4 alone, client dials IPv6", target: "tcp://[2001:db8:2::20]:8080", make: relisten("0.0.0.0:8080")},
		{name: "IPv6 loopback", target: "tcp://[2001:db8:2::20]:8080", make: relisten("[::1]:8080")},
		{name: "IPv6 alone, client dials IPv4", target: target, make: func(t *testing.T, f *field) {
			f.stop()
			f.server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: port("[::]:8080"), V6Only: true})
		}},
		{name: "another address of the host", target: target, make: func(t *testing.T, f *field) {
			f.stop()
			ip(t, f.server, "address add 10.20.0.5/24 dev eth0")
			f.listen(t, f.server, "10.20.0.5:8080")
		}},
		{name: "a device", target: target, make: func(t *testing.T, f *field) {
			f.stop()
			f.server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: port("0.0.0.0:8080"), Device: "lo"})
		}},
	} {
		c.want = everywhere(diagnose.BindAddress, diagnose.Refused)
		c.prove(t)
	}
	// In a container that nothing is published of, the other namespace's socket is
	// the best guess, and no more: the service of this host may have ended.
	case_{
		name: "a container's own namespace", target: target,
		want: map[place]want{onServer: perhapsBefore(diagnose.BindAddress, diagnose.Refused), onClient: untold(diagnose.Refused, diagnose.BindAddress), withBoth: perhapsBefore(diagnose.BindAddress, diagnose.Refused)},
		make: func(t *testing.T, f *field) {
			f.stop()
			f.whole = true
			n := f.lab.Add(t, "container")
			p := netip.MustParsePrefix
			f.lab.Join(t, lab.End{In: f.server, Interface: "ctr0", Addrs: []netip.Prefix{p("172.17.0.1/16")}}, lab.End{In: n, Interface: "eth0", Addrs: []netip.Prefix{p("172.17.0.2/16")}})
			f.listen(t, n, "0.0.0.0:8080")
		},
	}.prove(t)
}

func perhapsBefore(id diagnose.ID, sees diagnose.Sees) want {
	return want{id: id, verdicts: []diagnose.Verdict{diagnose.Likely, diagnose.Confirmed}, sees: sees}
}

// TestQueueFull: a service that does not accept, and one that has no descriptors
// left.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	fill := func(t *testing.T, f *field) {
		f.stop()
		f.server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: port("0.0.0.0:8080"), Backlog: 2, Deaf: true})
		if n := hold(t, f.client, serverIP+":8080", 4, 200*time.Millisecond); n != 3 {
			t.Fatalf("%d connections came about, want 3 at a backlog of 2", n)
		}
	}
	c := case_{name: "backlog of 2", target: target, make: fill, want: everywhere(diagnose.QueueFull, diagnose.Timeout)}
	c.prove(t)
	c.name, c.sample = "backlog of 2, counters watched", 1500*time.Millisecond
	c.prove(t)
	c = case_{name: "tcp_abort_on_overflow", target: target, want: everywhere(diagnose.QueueFull, diagnose.Timeout), make: func(t *testing.T, f *field) {
		f.server.Sysctl(t, "net.ipv4.tcp_abort_on_overflow", "1")
		fill(t, f)
	}}
	c.prove(t)
	t.Run("no descriptors left", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		const limit, filesBacklog = 32, 50
		f.server.Sysctl(t, "net.core.somaxconn", fmt.Sprint(filesBacklog))
		child(t, f.server, nil, "files", "0.0.0.0:8080", fmt.Sprint(limit))
		const silent = "curl: (28) Operation timed out after 5001 milliseconds with 0 bytes received"
		for _, at := range []place{onServer, onClient, withBoth} {
			clear_(t, f.ask(t, at, target, diagnose.Options{}), at)
		}
		if n := hold(t, f.client, serverIP+":8080", limit, 200*time.Millisecond); n != limit {
			t.Fatalf("%d of %d connections came about: they should, and hang", n, limit)
		}
		r := f.ask(t, onServer, target, diagnose.Options{})
		blames(t, r, onServer, diagnose.QueueFull, diagnose.Confirmed)
		keep(t, "server", r)
		r = f.ask(t, withBoth, target, diagnose.Options{Message: silent})
		blames(t, r, withBoth, diagnose.QueueFull, diagnose.Confirmed)
		keep(t, "both", r)
		r = f.ask(t, onClient, target, diagnose.Options{Message: silent})
		open(t, r, onClient, diagnose.ProtocolError, diagnose.QueueFull)
		keep(t, "client", r)
		// Once its queue is full as well, connections no longer come about.
		if n := hold(t, f.client, serverIP+":8080", filesBacklog+4, 100*time.Millisecond); n >= filesBacklog+4 {
			t.Fatalf("%d more connections came about: the queue takes them all", n)
		}
		for at, w := range everywhere(diagnose.QueueFull, diagnose.Timeout) {
			r := f.ask(t, at, target, diagnose.Options{})
			if w.id != "" {
				blames(t, r, at, w.id, w.verdicts...)
			} else {
				open(t, r, at, w.sees, w.open...)
			}
			if r.ClientSees != w.sees {
				t.Errorf("%s: the client sees %s, want %s", at, r.ClientSees, w.sees)
			}
			keep(t, "queue full, "+string(at), r)
		}
	})
}
