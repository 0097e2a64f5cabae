package route

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// TestText holds the text of rules and routes against what `ip` prints, so that
// an operator who searches its output for a witness finds it.
func TestText(t *testing.T) {
	base := uint64(time.Now().UnixNano() % 1e9)
	if *seedFlag != 0 {
		base = *seedFlag
	}
	l := lab.New(t, lab.Topology{})
	lines := 0
	for seed := base; seed < base+6; seed++ {
		w := build(t, l, seed, true)
		table := w.read(t)
		for _, d := range []*domain{table.v4, table.v6} {
			flag := map[firewall.Family]string{firewall.IPv4: "-4", firewall.IPv6: "-6"}[d.family]
			printed := strings.Split(strings.TrimSpace(w.ns.Run(t, "ip", flag, "rule")), "\n")
			if len(printed) != len(d.rules) {
				t.Fatalf("seed %d: %d rules, ip prints %d", seed, len(d.rules), len(printed))
			}
			for i, r := range d.rules {
				want := strings.TrimSpace(strings.ReplaceAll(printed[i], "\t", " "))
				if got := r.String(); got != want {
					t.Errorf("seed %d: rule\n%q, ip prints\n%q", seed, got, want)
				}
				lines++
			}
			have := map[string]bool{}
			for _, r := range table.Routes {
				if r.Family == d.family {
					have[r.String()] = true
				}
			}
			for _, line := range oneLiners(w.ns.Run(t, "ip", flag, "route", "show", "table", "all")) {
				lines++
				if !have[line] {
					t.Errorf("seed %d: ip prints %q, which no route does", seed, line)
				}
			}
		}
	}
	if lines < 200 {
		t.Errorf("only %d lines compared", lines)
	}
}

// oneLiners joins the hops of multipath routes to their first line and leaves
// out what a witness does not say.
func oneLiners(text string) []string {
	var out []string
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		fields := strings.Fields(line)
		var keep []string
		for i := 0; i < len(fields); i++ {
			switch fields[i] {
			case "linkdown", "dead", "onlink":
			case "pref", "error":
				i++
			default:
				keep = append(keep, fields[i])
			}
		}
		one := strings.Join(keep, " ")
		if strings.HasPrefix(line, "\t") {
			out[len(out)-1] += " " + one
			continue
		}
		out = append(out, one)
	}
	return out
}

func TestAddrText(t *testing.T) {
	l := &Link{Link: &firewall.Link{Name: "eth0"}}
	for _, c := range []struct {
		a    Addr
		want string
	}{
		{Addr{Link: l, Family: firewall.IPv4, Local: netip.MustParseAddr("10.0.0.1"), Prefix: netip.MustParsePrefix("10.0.0.0/24")}, "inet 10.0.0.1/24 scope global dev eth0"},
		{Addr{Link: l, Family: firewall.IPv4, Local: netip.MustParseAddr("10.0.0.1"), Prefix: netip.MustParsePrefix("10.9.0.2/32")}, "inet 10.0.0.1 peer 10.9.0.2/32 scope global dev eth0"},
		{Addr{Link: l, Family: firewall.IPv6, Local: netip.MustParseAddr("fe80::1"), Prefix: netip.MustParsePrefix("fe80::/64"), Scope: 253}, "inet6 fe80::1/64 scope link dev eth0"},
	} {
		if got := c.a.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got, want := confName("ipv4", "eth0.100", "rp_filter"), "net.ipv4.conf.eth0/100.rp_filter"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
