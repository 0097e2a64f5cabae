package reach_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// hostWorld reads a namespace of the laboratory with everything that lies behind
// its links, as the program itself would.
func hostWorld(t testing.TB, n *lab.Namespace) *reach.World {
	t.Helper()
	var s *audit.Snapshot
	var err error
	n.Do(func() { s, err = collect.Host(t.Context(), collect.Options{Quick: true, NoCensus: true}) })
	if err != nil {
		t.Fatalf("read %s: %v", n.Name, err)
	}
	for _, part := range []string{"firewall", "routes", "listeners"} {
		if why := s.World.Namespaces[0].Unread[part]; why != "" {
			t.Fatalf("read %s: %s: %s", n.Name, part, why)
		}
	}
	return &s.World
}

// question asks what a probe asks. Iif is where a packet of a namespace behind
// the server comes in.
func question(l *lab.Lab, p lab.Probe, iif string, fromPort uint16) reach.Query {
	q := reach.Query{Proto: firewall.Proto(p.Proto), From: p.From, To: p.To.Addr(), Port: p.To.Port(), Iif: iif, FromPort: fromPort}
	switch p.In {
	case nil:
		q.Iif = p.Via
		if q.Iif == "" {
			q.Iif = "eth0"
		}
	case l.Server:
		q.Iif = ""
	}
	return q
}

// hold holds a world against probes. iif names the interface of the server for
// probes that start in a container. What disagrees is asked once more, after
// the world was read again, before it is believed.
func hold(t testing.TB, l *lab.Lab, read func() *reach.World, iif string, probes []lab.Probe) (r tally) {
	t.Helper()
	compare := func(probes []lab.Probe) (r tally) {
		e := reach.New(read())
		for i, o := range l.Probe(t, probes...) {
			a, err := e.Ask(question(l, probes[i], iif, o.FromPort), reach.AnswerOnly)
			if err != nil {
				t.Fatalf("%v: %v", probes[i], err)
			}
			r.asked++
			switch {
			case a.ClientSees == reach.Depends:
				r.depends++
				if *verboseFlag {
					t.Logf("depends: %v: %+v", probes[i], a.Conditions)
				}
			case len(l.Containers) > 0 && differs(a, o), string(a.ClientSees) != o.ClientSees.String():
				r.wrong = append(r.wrong, disagreement{probes[i], o.String(), a})
			}
		}
		return r
	}
	r = compare(probes)
	if len(r.wrong) > 0 {
		var again []lab.Probe
		for _, d := range r.wrong {
			again = append(again, d.probe)
		}
		r.wrong = compare(again).wrong
	}
	return r
}

// report says what hold found; every wrong answer is an error.
func (r tally) report(t testing.TB, name string) {
	t.Helper()
	for _, d := range r.wrong {
		t.Errorf("%s: %v", name, d)
	}
	t.Logf("%s: %d probes, %d depends, %d wrong", name, r.asked, r.depends, len(r.wrong))
}

// waitFor asks until a thing is ready.
func waitFor(t testing.TB, what string, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s never came up: %v", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func dial(proto lab.Proto, from netip.Addr, to netip.Addr, port uint16) lab.Probe {
	return lab.Probe{Proto: proto, From: from, To: netip.AddrPortFrom(to, port)}
}

// everywhere are TCP and UDP listeners of both families.
func everywhere(ports ...uint16) (out []lab.Listen) {
	for _, p := range ports {
		a := netip.AddrPortFrom(netip.IPv6Unspecified(), p)
		out = append(out, lab.Listen{Proto: lab.TCP, Addr: a}, lab.Listen{Proto: lab.UDP, Addr: a})
	}
	return out
}

// hostAddrs are the server's addresses on a link.
func hostAddrs(l *lab.Lab, link int) []netip.Addr {
	return []netip.Addr{l.ServerAddr(link), l.ServerAddr6(link)}
}

// boxAddrs are the containers' own addresses.
func boxAddrs(l *lab.Lab) (out []netip.Addr) {
	for k := range l.Containers {
		out = append(out, l.ContainerAddr(k), l.ContainerAddr6(k))
	}
	return out
}

// inside are probes of the host itself, to itself and to a container, and of the
// containers, to the host and to each other.
func inside(l *lab.Lab, ports ...uint16) (out []lab.Probe) {
	host := hostAddrs(l, 0)
	out = from(l.Server, across(lab.TCP, "", append(host, addrs("127.0.0.1", "::1")...), append(host, addrs("127.0.0.1", "::1")...), ports...))
	out = append(out, from(l.Server, across(lab.TCP, "", gateway(), boxAddrs(l)[:2], 80, 443))...)
	for k, c := range l.Containers {
		own := []netip.Addr{l.ContainerAddr(k), l.ContainerAddr6(k)}
		for _, to := range append(hostAddrs(l, 1), boxAddrs(l)...) {
			if !slices.Contains(own, to) { // that never leaves the container
				out = append(out, from(c, across(lab.TCP, "", own, []netip.Addr{to}, ports[0], 80))...)
			}
		}
	}
	return out
}

// gateway are the server's addresses that container 0 knows.
func gateway() []netip.Addr { return addrs("10.88.0.1", "fd00:88::1") }
