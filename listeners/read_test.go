package listeners

import (
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Every kind of listener is made for real and must be told apart.
func TestReadTellsListenersApart(t *testing.T) {
	const protoMPTCP, protoUDPLite = 262, 136
	v6only := func(s *sock, on int) *sock { return s.opt(t, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, on) }
	stream := func(family int) *sock { return newSock(t, family, unix.SOCK_STREAM, 0) }
	locals := []Local{{Prefix: netip.MustParsePrefix("127.0.0.1/32")}, {Prefix: netip.MustParsePrefix("::1/128")}}

	onDevice := stream(unix.AF_INET)
	if err := unix.BindToDevice(onDevice.fd, "lo"); err != nil {
		t.Fatal(err)
	}
	marked := stream(unix.AF_INET).opt(t, unix.SOL_SOCKET, unix.SO_MARK, 77)

	cases := []struct {
		name string
		sock *sock
		want func(*Listener) bool
		kind ScopeKind
	}{
		{"0.0.0.0", stream(unix.AF_INET).bind(t, "0.0.0.0", 0).listen(t, 5),
			func(l *Listener) bool {
				return l.Proto == TCP && l.Local.Addr() == netip.IPv4Unspecified() && l.Accept.Limit == 5
			}, ScopeAnyV4},
		{"dual", v6only(stream(unix.AF_INET6), 0).bind(t, "::", 0).listen(t, 1),
			func(l *Listener) bool { return l.Proto == TCP && !l.V6Only }, ScopeAnyDual},
		{"v6only", v6only(stream(unix.AF_INET6), 1).bind(t, "::", 0).listen(t, 1),
			func(l *Listener) bool { return l.Proto == TCP && l.V6Only }, ScopeAnyV6Only},
		{"loopback", stream(unix.AF_INET).bind(t, "127.0.0.1", 0).listen(t, 1),
			func(l *Listener) bool { return l.Local.Addr() == netip.MustParseAddr("127.0.0.1") }, ScopeLoopback},
		{"loopback v6", stream(unix.AF_INET6).bind(t, "::1", 0).listen(t, 1),
			func(l *Listener) bool { return l.Local.Addr() == netip.IPv6Loopback() }, ScopeLoopback},
		{"mapped", v6only(stream(unix.AF_INET6), 0).bind(t, "::ffff:127.0.0.1", 0).listen(t, 1),
			func(l *Listener) bool { return l.Local.Addr().Is4In6() }, ScopeLoopback},
		{"absent", stream(unix.AF_INET).opt(t, unix.IPPROTO_IP, unix.IP_FREEBIND, 1).bind(t, "192.0.2.7", 0).listen(t, 1),
			func(l *Listener) bool { return l.Freebind }, ScopeAbsent},
		{"device", onDevice.bind(t, "0.0.0.0", 0).listen(t, 1),
			func(l *Listener) bool { return l.Device.Name == "lo" && l.Device.Index == 1 }, ScopeAnyV4},
		{"mark", marked.bind(t, "0.0.0.0", 0).listen(t, 1),
			func(l *Listener) bool { return l.Mark == 77 && l.Tells(FactMark) }, ScopeAnyV4},
		{"mptcp", newSock(t, unix.AF_INET, unix.SOCK_STREAM, protoMPTCP).bind(t, "0.0.0.0", 0).listen(t, 9),
			func(l *Listener) bool { return l.Proto == MPTCP && l.Accept.Limit == 9 }, ScopeAnyV4},
		{"udp", newSock(t, unix.AF_INET, unix.SOCK_DGRAM, 0).bind(t, "0.0.0.0", 0),
			func(l *Listener) bool { return l.Proto == UDP && l.Accept.Drops != nil && l.Accept.Limit > 4096 }, ScopeAnyV4},
		{"udp6", newSock(t, unix.AF_INET6, unix.SOCK_DGRAM, 0).bind(t, "::", 0),
			func(l *Listener) bool { return l.Proto == UDP && !l.V6Only }, ScopeAnyDual},
		{"multicast", newSock(t, unix.AF_INET, unix.SOCK_DGRAM, 0).bind(t, "224.0.0.251", 0),
			func(l *Listener) bool { return l.Proto == UDP }, ScopeGroup},
		{"udplite", newSock(t, unix.AF_INET, unix.SOCK_DGRAM, protoUDPLite).bind(t, "0.0.0.0", 0),
			func(l *Listener) bool { return l.Proto == UDPLite }, ScopeAnyV4},
		{"raw", newSock(t, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
			func(l *Listener) bool { return l.Proto == Raw && l.Local.Port() == unix.IPPROTO_ICMP }, ScopeAnyV4},
	}
	table := readTable(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := byInode(t, table, c.sock.inode)
			if c.sock.port != 0 && l.Proto != Raw && l.Port() != uint16(c.sock.port) {
				t.Errorf("port %d, want %d", l.Port(), c.sock.port)
			}
			if !c.want(l) {
				t.Errorf("unexpected: %+v", *l)
			}
			if got := l.Scope(locals).Kind; got != c.kind {
				t.Errorf("scope %q, want %q", got, c.kind)
			}
			if l.UID != 0 || l.Unowned != NotLookedUp || l.Sharing != 1 {
				t.Errorf("uid %d, unowned %q, sharing %d", l.UID, l.Unowned, l.Sharing)
			}
		})
	}
}

func TestReadAcceptQueueAndGroup(t *testing.T) {
	a := newSock(t, unix.AF_INET, unix.SOCK_STREAM, 0).opt(t, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1).bind(t, "127.0.0.1", 0).listen(t, 3)
	b := newSock(t, unix.AF_INET, unix.SOCK_STREAM, 0).opt(t, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1).bind(t, "127.0.0.1", a.port).listen(t, 3)
	alone := tcpListener(t, "127.0.0.1", 0)
	for range 2 {
		c := newSock(t, unix.AF_INET, unix.SOCK_STREAM, 0)
		if err := unix.Connect(c.fd, &unix.SockaddrInet4{Port: alone.port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
	}
	table := readTable(t)
	for _, s := range []*sock{a, b} {
		if l := byInode(t, table, s.inode); l.Sharing != 2 {
			t.Errorf("sharing %d, want 2", l.Sharing)
		}
	}
	l := byInode(t, table, alone.inode)
	if l.Accept.Len != 2 || l.Accept.Limit != 16 || l.Accept.Full() || l.Sharing != 1 {
		t.Errorf("queue %+v, sharing %d", l.Accept, l.Sharing)
	}
}

// A recording, stored and read again, gives the same table.
func TestTapeReplays(t *testing.T) {
	tcpListener(t, "127.0.0.1", 0)
	tcpListener(t, "::", 0)
	newSock(t, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	for range 400 { // several datagrams
		tcpListener(t, "127.0.0.1", 0)
	}
	rec := NewRecorder(openLive(t))
	want, err := Read(t.Context(), rec)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := json.Marshal(rec.Tape())
	if err != nil {
		t.Fatal(err)
	}
	var tape Tape
	if err := json.Unmarshal(stored, &tape); err != nil {
		t.Fatal(err)
	}
	got, err := Read(t.Context(), tape.Play())
	if err != nil {
		t.Fatal(err)
	}
	if len(want.Listeners) < 403 {
		t.Fatalf("%d listeners", len(want.Listeners))
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	t.Logf("tape of %d listeners: %d bytes of JSON", len(want.Listeners), len(stored))
}

func TestOwnersOfThisProcess(t *testing.T) {
	s := tcpListener(t, "127.0.0.1", 0)
	table := readTable(t)
	owners, err := ReadOwners(t.Context(), table.Inodes(), OwnerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	owners.Assign(table.Listeners)
	l := byInode(t, table, s.inode)
	if len(l.Owners) != 1 {
		t.Fatalf("owners %+v, unowned %q", l.Owners, l.Unowned)
	}
	p := l.Owners[0]
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if p.PID != os.Getpid() || string(p.Exe) != exe || p.Files.Open <= 0 || p.Files.Soft <= 0 || p.User == "" || len(p.Untold) > 0 {
		t.Errorf("%+v", p)
	}
}
