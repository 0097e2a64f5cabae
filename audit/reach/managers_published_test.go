package reach_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// TestPublishedBlocked: a port that is translated to a container is listed also
// where every packet is dropped on its way there, with the rule that decides;
// one that leads nowhere is not.
func TestPublishedBlocked(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "conntrack")
	l := lab.New(t, lab.Topology{Containers: 2})
	l.Server.Sysctl(t, "net.ipv4.ip_forward", "1")
	l.Containers[0].Listen(t, everywhere(80)...)
	control := dial(lab.TCP, l.ClientAddr(0), l.ContainerAddr(0), 80)
	l.Control(t, control)
	const rules = `table ip n {
		chain pre { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 10.88.0.2:80; tcp dport 8081 dnat to 10.88.0.2:81; tcp dport 8082 ip saddr 192.0.2.1 dnat to 10.88.0.2:80; }
		chain way { type filter hook forward priority 0; }
		chain in { type filter hook input priority 0; tcp dport 8082 drop; }
	}`
	l.Server.Load(t, lab.NFT, rules)
	probe := dial(lab.TCP, l.ClientAddr(0), l.ServerAddr(0), 8080)
	for _, c := range []struct {
		name, rule string
		sees       lab.Sight
		by         string
	}{
		{"open", "", lab.Connected, ""},
		{"dropped for all", "add rule ip n way ct status dnat drop", lab.Timeout, "ct status dnat drop"},
		{"refused to all", "flush chain ip n way; add rule ip n way ip daddr 10.88.0.2 reject with icmp admin-prohibited", lab.Unreachable, "reject"},
	} {
		if c.rule != "" {
			l.Server.Load(t, lab.NFT, c.rule)
		}
		if err := l.Server.FlushConntrack(); err != nil {
			t.Fatal(err)
		}
		if got := l.Probe(t, probe)[0]; got.ClientSees != c.sees {
			t.Fatalf("%s: the kernel says %v", c.name, got)
		}
		var found []uint16
		for _, p := range reach.New(hostWorld(t, l.Server)).Published() {
			found = append(found, p.Port)
			if p.Port == 8082 { // translated for one client
				continue
			}
			if to := netip.MustParseAddr(p.To.Address); p.To.NetNS == "" || to != l.ContainerAddr(0) || p.To.Port != 80 || !strings.Contains(p.To.Listener, ":80") {
				t.Errorf("%s: it leads to %+v", c.name, p.To)
			}
			if open := p.Who == reach.Some; open != (c.by == "") || strings.Join(p.Families, " ") != "ip" || !strings.Contains(p.By.Text, "dnat") {
				t.Errorf("%s: %s, %v, by %+v", c.name, p.Who, p.Families, p.By)
			}
			for _, r := range p.Rows {
				if c.by != "" && r.Iif == "eth0" && (r.Through() || r.Unsure()) {
					t.Errorf("%s: %v get through", c.name, r.From)
				}
				if r.Iif == "eth0" && r.Translated() && r.DecidedBy.Kind == reach.ByRule && !strings.Contains(r.DecidedBy.Text, c.by) {
					t.Errorf("%s: decided by %+v", c.name, r.DecidedBy)
				}
			}
		}
		if len(found) != 2 || found[0] != 8080 || found[1] != 8082 {
			t.Errorf("%s: published are %v, want 8080 and 8082", c.name, found)
		}
	}
}
