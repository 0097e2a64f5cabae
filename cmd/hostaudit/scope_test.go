package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/listeners"
)

// scopeSocket is a listener of the calling thread's namespace.
type scopeSocket struct {
	addr     string // "" is 0.0.0.0
	port     int
	v6       bool
	v6only   int
	device   string
	freebind bool
	udp      bool
}

func (s scopeSocket) open(t *testing.T) {
	t.Helper()
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if s.v6 {
		family = unix.AF_INET6
	}
	if s.udp {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if s.v6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, s.v6only)
	}
	if s.device != "" {
		err = errors.Join(err, unix.BindToDevice(fd, s.device))
	}
	if s.freebind {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
	}
	var to unix.Sockaddr = &unix.SockaddrInet6{Port: s.port}
	if !s.v6 {
		a := &unix.SockaddrInet4{Port: s.port}
		for i, part := range strings.Split(s.addr, ".") {
			if part != "" {
				for _, c := range part {
					a.Addr[i] = a.Addr[i]*10 + byte(c-'0')
				}
			}
		}
		to = a
	}
	err = errors.Join(err, unix.Bind(fd, to))
	if !s.udp {
		err = errors.Join(err, unix.Listen(fd, 5))
	}
	if err != nil {
		t.Fatalf("%+v: %v", s, err)
	}
}

// scopesOf is what the program says of the namespace, and its screen.
func scopesOf(t *testing.T, n *lab.Namespace) (map[uint16]audit.ListenerRow, string) {
	t.Helper()
	read := func(args ...string) string {
		out, err := n.Exec(t.Context(), "", append([]string{"hostaudit", "scan", "--quick", "--fail-on", "never"}, args...)...)
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
			t.Fatal(err)
		}
		return out
	}
	var r audit.Report
	if err := json.Unmarshal([]byte(read("--format", "json")), &r); err != nil {
		t.Fatal(err)
	}
	rows := map[uint16]audit.ListenerRow{}
	for _, l := range r.Listeners {
		if l.NetNS == "" {
			rows[l.Port] = l
		}
	}
	return rows, read("--width", "200")
}

// Listeners that a list of sockets shows alike are told apart, in words, on the
// screen; their twins that serve everybody say nothing.
func TestScopesAreShown(t *testing.T) {
	n := lab.New(t, lab.Topology{}).Server
	for _, a := range []string{"192.0.2.10/32", "203.0.113.7/32", "2001:db8:77::10/128"} {
		n.Run(t, "ip", "address", "add", a, "dev", "lo")
	}
	sockets := []scopeSocket{
		{port: 8001}, {port: 8002, v6: true}, {port: 8003, v6: true, v6only: 1}, {addr: "192.0.2.10", port: 8004},
		{port: 8005, device: "lo"}, {addr: "198.51.100.99", port: 8006, freebind: true}, {addr: "127.0.0.1", port: 8007},
		{port: 8008}, {port: 8008, v6: true, v6only: 1}, {port: 8009, udp: true},
	}
	n.Do(func() {
		for _, s := range sockets {
			s.open(t)
		}
	})
	rows, screen := scopesOf(t, n)
	for port, want := range map[uint16]struct {
		kind listeners.ScopeKind
		note string
	}{
		8001: {listeners.ScopeAnyV4, "IPv4 alone; by an AAAA record refused"},
		8002: {listeners.ScopeAnyDual, "IPv4 and IPv6"},
		8003: {listeners.ScopeAnyV6Only, "IPv6 alone; over IPv4 refused"},
		8004: {listeners.ScopeAddress, "192.0.2.10 alone, not "},
		8005: {listeners.ScopeAnyV4, "what arrives on lo alone"},
		8006: {listeners.ScopeAbsent, "the host does not have 198.51.100.99 (any more)"},
		8007: {listeners.ScopeLoopback, ""},
		8009: {listeners.ScopeAnyV4, "IPv4 alone; by an AAAA record not served"},
	} {
		l, ok := rows[port]
		if !ok || l.Scope.Kind != want.kind || !strings.HasPrefix(l.Scope.Note, want.note) || want.note == "" && l.Scope.Note != "" {
			t.Errorf("port %d: %+v, want %+v", port, l.Scope, want)
		}
		if !strings.Contains(screen, want.note) {
			t.Errorf("the screen lacks %q", want.note)
		}
	}
	// Two sockets serve what one dual socket does: nobody is refused.
	if l := rows[8008]; l.Scope.Note != "" {
		t.Errorf("a port served in both families: %+v", l.Scope)
	}
	if !strings.Contains(screen, "tcp 8008 ") {
		t.Errorf("0.0.0.0 and [::] of one port are not one line:\n%s", screen)
	}
	if t.Failed() {
		t.Log(screen)
	}

	// The address goes away under its listener.
	n.Run(t, "ip", "address", "del", "192.0.2.10/32", "dev", "lo")
	if rows, _ := scopesOf(t, n); rows[8004].Scope.Kind != listeners.ScopeAbsent {
		t.Errorf("after its address is gone: %+v", rows[8004].Scope)
	}
}

// A datagram for the broadcast address of a subnet is delivered, whether the
// interface's address names it or not, and answered from an address of the host.
func TestScopeOfBroadcast(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	l.Server.Run(t, "ip", "address", "add", "10.44.0.2/24", "dev", "eth0")                   // names none
	l.Server.Run(t, "ip", "address", "add", "10.45.0.2/24", "broadcast", "+", "dev", "eth0") // names it
	l.Client.Run(t, "ip", "address", "add", "10.44.0.1/24", "dev", "c0")
	l.Client.Run(t, "ip", "address", "add", "10.45.0.1/24", "broadcast", "+", "dev", "c0")
	datagram := func(n *lab.Namespace, from *unix.SockaddrInet4) (fd int) {
		n.Do(func() {
			fd = streamSocket(t, unix.SOCK_DGRAM)
			if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.Bind(fd, from),
				unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})); err != nil {
				t.Error(err)
			}
		})
		return fd
	}
	for _, c := range []struct {
		bound [4]byte
		net   byte
		port  int
	}{{[4]byte{10, 44, 0, 255}, 44, 8137}, {[4]byte{10, 45, 0, 255}, 45, 8138}, {[4]byte{}, 44, 8139}} {
		server := datagram(l.Server, &unix.SockaddrInet4{Addr: c.bound, Port: c.port})
		client := datagram(l.Client, &unix.SockaddrInet4{Addr: [4]byte{10, c.net, 0, 1}})
		b := make([]byte, 16)
		if err := unix.Sendto(client, []byte("who?"), 0, &unix.SockaddrInet4{Addr: [4]byte{10, c.net, 0, 255}, Port: c.port}); err != nil {
			t.Fatal(err)
		}
		_, from, err := unix.Recvfrom(server, b, 0)
		if err != nil {
			t.Fatalf("port %d: the broadcast does not arrive: %v", c.port, err)
		}
		if err := unix.Sendto(server, []byte("me"), 0, from); err != nil {
			t.Fatal(err)
		}
		if _, from, err = unix.Recvfrom(client, b, 0); err != nil || from.(*unix.SockaddrInet4).Addr[3] != 2 {
			t.Fatalf("port %d: answered by %v: %v", c.port, from, err)
		}
	}
	rows, screen := scopesOf(t, l.Server)
	for _, port := range []uint16{8137, 8138} {
		if l := rows[port]; l.Scope.Kind != listeners.ScopeGroup || l.Exposure != "everyone" {
			t.Errorf("port %d: %+v, %s", port, l.Scope, l.Exposure)
		}
	}
	if strings.Contains(screen, "which this host does not have") {
		t.Errorf("%s", screen)
	}
	// An address of the subnet that nobody has is as absent as ever.
	l.Server.Do(func() { scopeSocket{addr: "10.44.0.254", port: 8140, freebind: true, udp: true}.open(t) })
	if rows, _ := scopesOf(t, l.Server); rows[8140].Scope.Kind != listeners.ScopeAbsent {
		t.Errorf("%+v", rows[8140].Scope)
	}
}

// A namespace with a name that no link leads to: its listeners are listed under it,
// are not counted as this host's, and accuse nobody.
func TestScopeApart(t *testing.T) {
	n, other := lab.New(t, lab.Topology{}).Server, lab.New(t, lab.Topology{}).Server
	name := filepath.Base(other.Path)
	n.Do(func() { scopeSocket{port: 8001}.open(t) })
	other.Do(func() {
		listenOn(t, 8002, 0) // with a full queue
		knock(t, 8002, 2)
		scopeSocket{addr: "127.0.0.1", port: 8003}.open(t)
	})
	out, err := n.Exec(t.Context(), "", "hostaudit", "scan", "--quick", "--format", "json")
	if err != nil {
		t.Fatal(err)
	}
	var r audit.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	seen := map[uint16]audit.ListenerRow{}
	for _, l := range r.Listeners {
		if string(l.NetNS) == name {
			seen[l.Port] = l
		}
	}
	if l := seen[8002]; l.Exposure != "depends" || l.Process == nil || l.Process.PID != os.Getpid() || !strings.Contains(l.Scope.Note, "no link leads") {
		t.Errorf("%+v", l)
	}
	if l := seen[8003]; l.Exposure != "host-only" {
		t.Errorf("%+v", l)
	}
	for _, f := range r.Findings {
		if strings.Contains(f.Subject, ":8002") {
			t.Errorf("%+v", f)
		}
	}
	if !strings.Contains(r.Verdict, "1 listener: 1 open to everyone") {
		t.Errorf("%s", r.Verdict)
	}
	screen := n.Run(t, "hostaudit", "scan", "--quick", "--width", "120")
	for _, want := range []string{"· 1 listener ·", "IN OTHER NETWORK NAMESPACES", "tcp 0.0.0.0:8002 in " + name} {
		if !strings.Contains(screen, want) {
			t.Errorf("the screen lacks %q:\n%s", want, screen)
		}
	}
}

// A listener bound to a tunnel that was made anew under the same name hears
// nothing; the one that was bound after that does.
func TestScopeOfInterfaceMadeAnew(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	connects := func() bool {
		l.Client.Sysctl(t, "net.ipv4.conf.all.rp_filter", "0")
		ok := false
		l.Client.Do(func() {
			fd := streamSocket(t, unix.SOCK_STREAM)
			_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 3})
			ok = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{10, 66, 0, 2}, Port: 8001}) == nil
		})
		return ok
	}
	tunnel := func() {
		l.Server.Run(t, "ip", "link", "add", "tun7", "type", "veth", "peer", "name", "c7")
		l.Server.Run(t, "ip", "link", "set", "c7", "netns", filepath.Base(l.Client.Path))
		l.Server.Run(t, "ip", "address", "add", "10.66.0.2/24", "dev", "tun7")
		l.Server.Run(t, "ip", "link", "set", "tun7", "up")
		l.Client.Run(t, "ip", "address", "add", "10.66.0.1/24", "dev", "c7")
		l.Client.Run(t, "ip", "link", "set", "c7", "up")
	}
	said := func() (found bool, screen string) {
		rows, screen := scopesOf(t, l.Server)
		return strings.Contains(screen, "listener.interface-missing"), fmt.Sprintf("%+v\n%s", rows[8001].Scope, screen)
	}
	tunnel()
	l.Server.Do(func() { scopeSocket{port: 8001, device: "tun7"}.open(t) })
	if !connects() {
		t.Fatal("control: no connection by the tunnel")
	}
	if found, screen := said(); found {
		t.Errorf("the tunnel is there:\n%s", screen)
	}
	l.Server.Run(t, "ip", "link", "delete", "tun7")
	tunnel()
	if connects() {
		t.Fatal("control: the old socket is reached by the new tunnel")
	}
	if found, screen := said(); !found || !strings.Contains(screen, "which is gone: nothing arrives") || strings.Contains(screen, "is bound to interface\n") {
		t.Errorf("the tunnel was made anew:\n%s", screen)
	}
}

// Where nobody could come by IPv6, nothing is said of it.
func TestScopeWithoutIPv6(t *testing.T) {
	n := lab.New(t, lab.Topology{}).Server
	n.Sysctl(t, "net.ipv6.conf.all.disable_ipv6", "1")
	n.Do(func() { scopeSocket{port: 8001}.open(t) })
	rows, _ := scopesOf(t, n)
	if l, ok := rows[8001]; !ok || l.Scope.Kind != listeners.ScopeAnyV4 || l.Scope.Note != "" {
		t.Errorf("%+v", l.Scope)
	}
}
