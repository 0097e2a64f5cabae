package checks_test

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

const rangeCheck = "sysctl.net.ipv4.ip_local_port_range"

// TestPortsExhausted: all ports of a narrowed range are held by connections to
// one destination, and the next connect fails with the error that this program
// began with.
func TestPortsExhausted(t *testing.T) {
	h := newHost(t, lab.Topology{})
	h.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40019")
	for _, a := range []string{"10.9.0.1:80", "10.9.0.1:81", "10.9.0.1:82"} {
		echo(t, h.Client, a)
	}
	h.hold(h.Server, addrPort("10.9.0.1:80"), 20)
	if _, err := dial(h.Server, none, addrPort("10.9.0.1:80"), patience); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Fatalf("one connection more: %v, want EADDRNOTAVAIL", err)
	}
	if _, err := dial(h.Server, none, addrPort("10.9.0.1:81"), patience); err != nil {
		t.Fatalf("control: another destination has ports of its own: %v", err)
	}
	f := want(t, h.scan(nil), audit.Critical, "sysctl.ephemeral-range-small", "tcp 10.9.0.2 → 10.9.0.1:80")
	evidence(t, f, "ports in use", "20 of 20 (100 %), 0 of them in TIME_WAIT")

	// What it recommends is what helps.
	h.Server.Sysctl(t, "net.ipv4.ip_local_port_range", recommended(t, f, "net.ipv4.ip_local_port_range"))
	if _, err := dial(h.Server, none, addrPort("10.9.0.1:80"), patience); err != nil {
		t.Errorf("with the range as recommended: %v", err)
	}
	silent(t, h.scan(nil), rangeCheck)
}

// TestPortsSpread is the twin: as many connections, to several destinations.
func TestPortsSpread(t *testing.T) {
	h := newHost(t, lab.Topology{})
	h.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40019")
	for _, a := range []string{"10.9.0.1:80", "10.9.0.1:81", "10.9.0.1:82"} {
		echo(t, h.Client, a)
		h.hold(h.Server, addrPort(a), 8)
	}
	silent(t, h.scan(nil), rangeCheck)
}

// TestReservedPortsNarrow: reserved ports count against the range.
func TestReservedPortsNarrow(t *testing.T) {
	h := newHost(t, lab.Topology{})
	h.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40099", "net.ipv4.ip_local_reserved_ports", "40010-40099")
	echo(t, h.Client, "10.9.0.1:80")
	h.hold(h.Server, addrPort("10.9.0.1:80"), 10)
	if _, err := dial(h.Server, none, addrPort("10.9.0.1:80"), patience); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Fatalf("one connection more: %v, want EADDRNOTAVAIL", err)
	}
	f := want(t, h.scan(nil), audit.Critical, "sysctl.ephemeral-range-small", "tcp 10.9.0.2 → 10.9.0.1:80")
	evidence(t, f, "ports in use", "10 of 10")
}

// TestTimeWaitExhaustion: short connections leave every port of the range in
// TIME_WAIT. tcp_tw_reuse = 1 is recommended, helps after tcp_tw_reuse_delay,
// and does not without timestamps, in which case it is not recommended.
func TestTimeWaitExhaustion(t *testing.T) {
	h := newHost(t, lab.Topology{})
	h.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40019")
	echo(t, h.Client, "10.9.0.1:80")
	to := addrPort("10.9.0.1:80")
	if err := h.visit(h.Server, to, 20); err != nil {
		t.Fatal(err)
	}
	if err := h.visit(h.Server, to, 1); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Fatalf("one connection more: %v, want EADDRNOTAVAIL", err)
	}
	subject := "tcp 10.9.0.2 → 10.9.0.1:80"
	f := want(t, h.scan(nil), audit.Critical, "sysctl.time-wait-exhaustion", subject)
	evidence(t, f, "ports in use", "20, 0 left")
	evidence(t, f, "net.ipv4.ip_local_port_range", "40000 40019")
	evidence(t, f, "TIME_WAIT to "+subject, "20 of 20 ports")
	evidence(t, f, "net.ipv4.tcp_timestamps", "1")
	if got := recommended(t, f, "net.ipv4.tcp_tw_reuse"); got != "1" {
		t.Fatalf("recommends tcp_tw_reuse = %s", got)
	}
	h.Server.Sysctl(t, "net.ipv4.tcp_tw_reuse", "1")
	time.Sleep(1300 * time.Millisecond) // tcp_tw_reuse_delay
	if err := h.visit(h.Server, to, 5); err != nil {
		t.Errorf("with tcp_tw_reuse as recommended: %v", err)
	}

	if f := want(t, h.scan(nil), audit.Info, "sysctl.ephemeral-range-small", subject); recommends(f, "net.ipv4.ip_local_port_range") {
		t.Errorf("the ports are taken over, and still: %s", f.Remedy)
	}

	// The same without timestamps.
	h = newHost(t, lab.Topology{})
	h.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40019", "net.ipv4.tcp_timestamps", "0")
	echo(t, h.Client, "10.9.0.1:80")
	if err := h.visit(h.Server, to, 20); err != nil {
		t.Fatal(err)
	}
	f = want(t, h.scan(nil), audit.Critical, "sysctl.time-wait-exhaustion", subject, "sysctl.tcp-feature-disabled",
		"sysctl.tw-reuse-without-timestamps")
	if f.Remedy == "" || recommends(f, "net.ipv4.tcp_tw_reuse") {
		t.Errorf("tcp_tw_reuse without timestamps: %q", f.Remedy)
	}
	h.Server.Sysctl(t, "net.ipv4.tcp_tw_reuse", "1")
	time.Sleep(1300 * time.Millisecond)
	if err := h.visit(h.Server, to, 1); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("control: tcp_tw_reuse without timestamps: %v, want EADDRNOTAVAIL", err)
	}
}

// TestTimeWaitLoopback: over loopback the default, 2, takes ports over already.
// Recommending 1 would be advice that changes nothing.
func TestTimeWaitLoopback(t *testing.T) {
	h := newHost(t, lab.Topology{})
	h.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40019", "net.ipv4.tcp_tw_reuse", "2")
	echo(t, h.Server, "127.0.0.1:80")
	to := addrPort("127.0.0.1:80")
	if err := h.visit(h.Server, to, 20); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1300 * time.Millisecond)
	if err := h.visit(h.Server, to, 5); err != nil {
		t.Fatalf("control: ports in TIME_WAIT are taken over: %v", err)
	}
	f := want(t, h.scan(nil), audit.Info, "sysctl.ephemeral-range-small", "tcp 127.0.0.1 → 127.0.0.1:80")
	evidence(t, f, "net.ipv4.tcp_tw_reuse", "2")
	evidence(t, f, "connections a second", "about 0 in the last minute")
}

// TestTimeWaitOfClients is the twin: the server has as many sockets in TIME_WAIT,
// from clients that it served, which take no ports.
func TestTimeWaitOfClients(t *testing.T) {
	h := newHost(t, lab.Topology{})
	h.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40019")
	var fd int
	h.Server.Do(func() {
		fd, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		_ = unix.Bind(fd, &unix.SockaddrInet4{Port: 80})
		_ = unix.Listen(fd, 64)
	})
	t.Cleanup(func() { unix.Close(fd) })
	for range 40 {
		c, err := dial(h.Client, none, addrPort("10.9.0.2:80"), patience)
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := unix.Accept(fd)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(s) // first: TIME_WAIT is the server's
		unix.Close(c)
	}
	r := h.scan(nil)
	silent(t, r, rangeCheck)
	silent(t, r, "sysctl.net.ipv4.tcp_tw_reuse")
}

// TestTimeWaitOverflow: more sockets in TIME_WAIT than tcp_max_tw_buckets.
func TestTimeWaitOverflow(t *testing.T) {
	visits := func(h *host) func() {
		return func() {
			if err := h.visit(h.Server, addrPort("10.9.0.1:80"), 200); err != nil {
				t.Error(err)
			}
		}
	}
	h := newHost(t, lab.Topology{})
	h.Server.Sysctl(t, "net.ipv4.tcp_max_tw_buckets", "50")
	echo(t, h.Client, "10.9.0.1:80")
	r := h.scan(visits(h))
	f := want(t, r, audit.Warning, "sysctl.time-wait-overflow", "net.ipv4.tcp_max_tw_buckets", "sysctl.tw-buckets-lowered")
	evidence(t, f, "TcpExt TCPTimeWaitOverflow", "+")
	want(t, r, audit.Warning, "sysctl.tw-buckets-lowered", "net.ipv4.tcp_max_tw_buckets", "sysctl.time-wait-overflow")

	twin := newHost(t, lab.Topology{})
	echo(t, twin.Client, "10.9.0.1:80")
	silent(t, twin.scan(visits(twin)), "sysctl.net.ipv4.tcp_max_tw_buckets")

	// What it recommends ends it, and lowers nothing.
	h.Server.Sysctl(t, "net.ipv4.tcp_max_tw_buckets", recommended(t, f, "net.ipv4.tcp_max_tw_buckets"))
	for _, f := range ours(t, h.scan(visits(h))) {
		if f.ID != "sysctl.time-wait-overflow" || f.Severity != audit.Info {
			t.Errorf("with the bound as recommended: %s %s %v", f.Severity, f.ID, f.Evidence)
		}
	}
}

// TestListenerInRange: the port of a listener lies in the range and is not
// reserved. While the listener is down a client is given its port, and it cannot
// start again; once reserved, it can.
func TestListenerInRange(t *testing.T) {
	h := newHost(t, lab.Topology{})
	h.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40019")
	echo(t, h.Client, "10.9.0.1:80")
	service := h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:40006")})
	f := want(t, h.scan(nil), audit.Warning, "sysctl.ephemeral-range-overlaps", "tcp 40006")
	value := recommended(t, f, "net.ipv4.ip_local_reserved_ports")

	restart := func() error {
		service.Close()
		clients := h.fill(addrPort("10.9.0.1:80"))
		defer closeAll(clients)
		if len(clients) < 19 {
			t.Fatalf("control: only %d clients", len(clients))
		}
		var err error
		h.Server.Do(func() {
			var fd int
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return
			}
			defer unix.Close(fd)
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			err = unix.Bind(fd, &unix.SockaddrInet4{Port: 40006})
		})
		return err
	}
	if err := restart(); !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("restart while clients hold the range: %v, want EADDRINUSE", err)
	}

	twin := newHost(t, lab.Topology{})
	twin.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 40019", "net.ipv4.ip_local_reserved_ports", value)
	echo(t, twin.Client, "10.9.0.1:80")
	h, service = twin, twin.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:40006")})
	silent(t, twin.scan(nil), "sysctl.net.ipv4.ip_local_reserved_ports")
	if err := restart(); err != nil {
		t.Errorf("restart with the port reserved as recommended: %v", err)
	}
}
