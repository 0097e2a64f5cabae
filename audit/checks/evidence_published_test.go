package checks_test

import (
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// TestPublishedPortBlocked: a port that is published to a container and dropped on
// its way there stands in the report, with the rule; as long as one client gets
// through there is nothing to find.
func TestPublishedPortBlocked(t *testing.T) {
	lab.Need(t, "nft", "conntrack")
	h := newHost(t, lab.Topology{Containers: 1})
	h.Server.Sysctl(t, "net.ipv4.ip_forward", "1")
	h.Containers[0].Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:80")})
	probe := lab.Probe{Proto: lab.TCP, From: h.ClientAddr(0), To: addrPort("10.9.0.2:8080")}
	h.Server.Load(t, lab.NFT, `table ip engine {
		chain pre { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 10.88.0.2:80; }
		chain user { type filter hook forward priority 0; }
	}`)
	for _, c := range []struct {
		rule string
		sees lab.Sight
		who  reach.Who
		says bool
	}{
		{"add rule ip engine user ip saddr 203.0.113.9 drop", lab.Connected, reach.Some, false},
		{"add rule ip engine user ct status dnat drop", lab.Timeout, reach.Nobody, true},
	} {
		h.Server.Load(t, lab.NFT, c.rule)
		if err := h.Server.FlushConntrack(); err != nil {
			t.Fatal(err)
		}
		if got := h.Probe(t, probe)[0]; got.ClientSees != c.sees {
			t.Fatalf("%s: %v", c.rule, got)
		}
		r := h.scan(nil)
		if len(r.Published) != 1 || r.Published[0].Port != 8080 || r.Published[0].Exposure != c.who {
			t.Errorf("%s: published are %+v, want port 8080, %s", c.rule, r.Published, c.who)
		}
		found := false
		for _, f := range r.Findings {
			if f.ID != "firewall.port-blocked" {
				continue
			}
			found = true
			if f.Subject != "tcp *:8080 (published)" || f.Severity != audit.Warning || !strings.Contains(f.Why, "user #2") || !strings.Contains(f.Remedy, "10.88.0.2:80") {
				t.Errorf("%+v", f)
			}
			evidence(t, f, "decided by", "ct status dnat drop")
		}
		if found != c.says {
			t.Errorf("%s: found: %v, findings %v", c.rule, found, ids(r))
		}
	}
}
