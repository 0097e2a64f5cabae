package reach_test

import (
	"net/netip"
	"testing"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/firewall"
)

// Whether a kernel before 5.13 tells routing rules the protocol of what it routes
// again cannot be told, and matters only to rules that ask.
func TestRoutedAgainByAnOldKernel(t *testing.T) {
	b := newBench(t)
	b.load(t, &ruleset{tables: []*table{{loader: "nft", verbatim: `table ip t {
	chain in {
		type filter hook input priority 0; policy accept;
		tcp dport 81 reject with tcp reset
	}
}`}}})
	q := reach.Query{Proto: firewall.TCP, From: netip.MustParseAddr("10.9.0.1"), To: netip.MustParseAddr("10.9.0.2"), Port: 81, Iif: "eth0"}
	ask := func(release string) reach.Sees {
		t.Helper()
		w := readWorld(t, b.Server)
		b.Server.Do(func() {
			c, err := route.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			kernel := c.Blobs["sys/kernel/osrelease"]
			kernel.Data = []byte(release)
			c.Blobs["sys/kernel/osrelease"] = kernel
			if w.Namespaces[0].Route, err = route.Decode(c); err != nil {
				t.Fatal(err)
			}
		})
		a, err := reach.New(w).Ask(q, reach.AnswerOnly)
		if err != nil {
			t.Fatal(err)
		}
		return a.ClientSees
	}
	for _, c := range []struct {
		rule            []string
		before513, from reach.Sees
	}{
		{[]string{"ip", "rule", "add", "pref", "50", "to", "10.9.0.0/24", "lookup", "main"}, reach.Refused, reach.Refused},
		{[]string{"ip", "rule", "add", "pref", "40", "ipproto", "tcp", "sport", "81", "prohibit"}, reach.Depends, reach.Timeout},
	} {
		if out, err := b.Server.Exec(t.Context(), "", c.rule...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := ask("5.10.0-30-amd64\n"); got != c.before513 {
			t.Errorf("%v: Linux 5.10 says %s, want %s", c.rule, got, c.before513)
		}
		if got := ask("5.13.0\n"); got != c.from {
			t.Errorf("%v: Linux 5.13 says %s, want %s", c.rule, got, c.from)
		}
	}
}
