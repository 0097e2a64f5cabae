package reach_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// TestSeveralDeciders: a row whose sources different things decide about names them
// all and none alone; the row of one rule, beside it, names that.
func TestSeveralDeciders(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Server.Flush(t)
	b.load(t, &ruleset{tables: []*table{{loader: "nft", verbatim: `table ip t {
	chain in {
		type filter hook input priority 0; policy drop;
		ip saddr 172.16.5.0/24 drop
		ip saddr & 0.0.0.3 == 0.0.0.1 drop
		ip saddr & 0.0.0.3 == 0.0.0.2 drop
	}
}
table inet p {
	chain pre {
		type filter hook prerouting priority 0; policy accept;
		ip saddr 198.0.0.0/8 ip saddr & 0.0.0.3 == 0.0.0.1 drop
	}
}
`}}})
	const first = "one of: inet p pre #1 ip saddr 198.0.0.0/8 ip saddr & 0.0.0.3 == 0.0.0.1 drop; ip t in #2 ip saddr & 0.0.0.3 == 0.0.0.1 drop; ip t in #3 ip saddr & 0.0.0.3 == 0.0.0.2 drop; ip t in policy drop"
	const several = "one of: #2 ip saddr & 0.0.0.3 == 0.0.0.1 drop; #3 ip saddr & 0.0.0.3 == 0.0.0.2 drop; policy drop"
	rows := reach.New(readWorld(t, b.Server)).Partition(reach.Query{Proto: firewall.TCP, To: b.server4[0], Port: uint16(b.ports[0]), Iif: "eth0"})
	for from, want := range map[string]struct {
		text, chain string
		number      int
		several     int
	}{
		"8.8.4.4":      {several, "in", 0, 3},
		"172.16.5.1":   {"ip saddr 172.16.5.0/24 drop", "in", 1, 0},
		"198.51.100.7": {first, "", 0, 4},
	} {
		i := slices.IndexFunc(rows, func(r reach.Row) bool {
			return slices.ContainsFunc(r.From, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr(from)) })
		})
		if i < 0 {
			t.Fatalf("%s stands in no row", from)
		}
		d := rows[i].DecidedBy
		if rows[i].ClientSees != reach.Timeout || d.Kind != reach.ByRule || d.Text != want.text || d.Chain != want.chain || d.Number != want.number || len(rows[i].Deciders) != want.several {
			t.Errorf("%s: %s by %+v of %d, want %+v", from, rows[i].ClientSees, d, len(rows[i].Deciders), want)
		}
		if want.several > 0 && (d.Rule != nil || d.Handle != 0) {
			t.Errorf("%s: one rule is pointed at: %+v", from, d)
		}
	}
}
