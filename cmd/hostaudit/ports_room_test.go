package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

func portsOf(t *testing.T, n *lab.Namespace) audit.PortUse {
	t.Helper()
	var p audit.PortUse
	if err := json.Unmarshal([]byte(inHost(t, n, "ports", "--format", "json")), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// bindNumber connects from a port that bind(2) was given by number.
func bindNumber(t *testing.T, last byte, from, port int) {
	t.Helper()
	fd := streamSocket(t, unix.SOCK_STREAM)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, last}, Port: from}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		t.Fatal(err)
	}
}

// room connects from an address until the kernel has no port left for it.
func room(t *testing.T, last byte, port int) int {
	t.Helper()
	for n := 0; ; n++ {
		fd := streamSocket(t, unix.SOCK_STREAM)
		const ipBindAddressNoPort = 24
		err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, ipBindAddressNoPort, 1), unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, last}}))
		if err != nil {
			t.Fatal(err)
		}
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A port that is in use towards a destination and was bound by number or reserved
// since counts once: what the share leaves is what connect(2) still gets, and
// nothing uses more than all ports.
func TestPortsShareIsWhatConnectHas(t *testing.T) {
	n := portsHost(t)
	n.Do(func() {
		serverOn(t, 3306)
		serverOn(t, 6379)
		for range 49 {
			connectFrom(t, 5, 3306, false)
		}
		for range 70 {
			connectFrom(t, 6, 3306, false)
		}
		for i := range 30 { // from the even ports that .5 and .6 use, too
			bindNumber(t, 9, 20000+i, []int{3306, 6379}[i%2])
		}
	})
	n.Sysctl(t, "net.ipv4.ip_local_reserved_ports", "20040-20049")
	p := portsOf(t, n)
	if e := p.Ephemeral; e.Usable != 90 || e.Reserved != 10 || e.Taken != 0 || e.Bound != 30 {
		t.Errorf("usable %d, reserved %d, taken %d, bound %d", e.Usable, e.Reserved, e.Taken, e.Bound)
	}
	left := map[string]int{}
	for _, d := range p.Ephemeral.Destinations {
		left[fmt.Sprintf("%s %d", d.From, d.Port)] = p.Ephemeral.Usable - int(math.Round(d.Share*float64(p.Ephemeral.Usable)))
		if d.Share > 1 || d.Held > d.InUse {
			t.Errorf("%+v", d)
		}
	}
	for _, s := range p.Sources {
		if s.Share > 1 {
			t.Errorf("%+v", s)
		}
	}
	for _, a := range p.Advice {
		if strings.Contains(a.Subject, "127.0.0.9 →") {
			t.Errorf("connect() has room from there: %+v", a)
		}
	}
	n.Do(func() {
		for _, c := range []struct {
			from byte
			port int
		}{{5, 3306}, {6, 3306}, {9, 3306}} {
			if got, said := room(t, c.from, c.port), left[fmt.Sprintf("127.0.0.%d %d", c.from, c.port)]; got != said {
				t.Errorf("from .%d to %d: %d ports left, said to be %d", c.from, c.port, got, said)
			}
		}
	})
}

// Ports bound by number count once, towards their own destination as towards
// others, and their source is told what to do, not everybody.
func TestPortsBoundByNumber(t *testing.T) {
	n := portsHost(t)
	n.Do(func() {
		serverOn(t, 3306)
		serverOn(t, 6379)
		for i := range 60 {
			bindNumber(t, 9, 20000+i, 3306)
		}
		connectFrom(t, 5, 6379, false)
	})
	p := portsOf(t, n)
	want := map[string]float64{"127.0.0.9 3306": 0.60, "127.0.0.5 6379": 0.61}
	for _, d := range p.Ephemeral.Destinations {
		if s := want[fmt.Sprintf("%s %d", d.From, d.Port)]; math.Abs(d.Share-s) > 1e-9 || d.Level != audit.PortsHalf {
			t.Errorf("%+v, want %g", d, s)
		}
	}
	if p.Ephemeral.Usable != 100 || p.Ephemeral.Bound != 60 || len(p.Advice) != 1 || p.Advice[0].Subject != "tcp from 127.0.0.9" {
		t.Errorf("%+v %+v", p.Ephemeral, p.Advice)
	}
}

// Ports that were bound before they connect are missing for whoever lets
// connect(2) choose, from other addresses as well: that is said.
func TestPortsBoundAreGoneForOthers(t *testing.T) {
	n := portsHost(t)
	n.Do(func() {
		serverOn(t, 3306)
		for range 60 {
			connectFrom(t, 7, 3306, true)
		}
		if got := room(t, 8, 3306); got != 40 {
			t.Errorf("%d ports left for another address", got)
		}
	})
	advice := portsOf(t, n).Advice
	i := slices.IndexFunc(advice, func(a audit.PortAdvice) bool { return a.Subject == "tcp from 127.0.0.7" })
	if i < 0 || !strings.Contains(advice[i].Why, "for connect() from other addresses, too") {
		t.Errorf("%+v", advice)
	}
}

// Whoever may not see the owners is told so, and what to do about it: it is no
// answer that is whole.
func TestPortsWithoutPrivilege(t *testing.T) {
	lab.Need(t, "setpriv")
	n := portsHost(t)
	ask := func() (audit.PortUse, int) {
		t.Helper()
		path, err := exec.LookPath("hostaudit")
		if err != nil {
			t.Fatal(err)
		}
		out, err := n.Exec(t.Context(), "", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", path, "ports", "--format", "json")
		var p audit.PortUse
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatalf("%v: %q", err, out)
		}
		if exit == nil {
			return p, 0
		}
		return p, exit.ExitCode()
	}
	if p, code := ask(); code != 0 { // nothing is used, so nobody is missing
		t.Errorf("no sockets: exit %d, %+v", code, p.Incomplete)
	}
	n.Do(func() {
		serverOn(t, 3306)
		for range 60 {
			connectFrom(t, 5, 3306, false)
		}
	})
	p, code := ask()
	if code != 3 || len(p.Ephemeral.Destinations) != 1 || p.Ephemeral.Destinations[0].InUse != 60 || p.Ephemeral.Destinations[0].Process != nil ||
		p.Ephemeral.Destinations[0].Unowned != "no-privilege" {
		t.Errorf("exit %d, %+v", code, p.Ephemeral.Destinations)
	}
	if !slices.ContainsFunc(p.Incomplete, func(g audit.Gap) bool {
		return strings.HasPrefix(g.What, "owners") && strings.Contains(g.Why, "run hostaudit as root")
	}) {
		t.Errorf("%+v", p.Incomplete)
	}
}

// Shortages with the same remedies are told together, and fit the screen.
func TestPortsAdviceIsSaidOnce(t *testing.T) {
	n := portsHost(t)
	n.Do(func() {
		serverOn(t, 3306)
		for from := range byte(8) {
			for range 60 {
				connectFrom(t, 10+from, 3306, false)
			}
		}
	})
	text := inHost(t, n, "ports")
	if strings.Count(text, "unix socket") != 1 || !strings.Contains(text, "What to do about these 8, in this order") || !strings.Contains(text, "and 3 more") {
		t.Errorf("%s", text)
	}
	for l := range strings.SplitSeq(text, "\n") {
		if len([]rune(l)) > 80 {
			t.Errorf("wider than 80: %s", l)
		}
	}
	if n := len(portsOf(t, n).Advice); n != 8 {
		t.Errorf("%d of 8 in JSON", n)
	}
}
