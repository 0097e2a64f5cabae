package xtables_test

import (
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// TestReadingMakesNoTable: asking the kernel for a table that does not exist
// would make it, and every packet would pass it from then on.
func TestReadingMakesNoTable(t *testing.T) {
	lab.Need(t, "iptables-legacy")
	n := lab.New(t, lab.Topology{}).Server
	names := func() string {
		s := ""
		for _, path := range []string{"ip_tables_names", "ip6_tables_names"} {
			b, err := n.ReadFile("/proc/thread-self/net/" + path)
			if err != nil {
				t.Fatal(err)
			}
			s += string(b)
		}
		return s
	}
	if got := names(); got != "" {
		t.Skipf("SKIPPED: this kernel makes tables by itself: %q", got)
	}
	if tables := readLegacy(t, n); len(tables) != 0 || names() != "" {
		t.Errorf("%d tables were read, now there are %q", len(tables), names())
	}
	n.Load(t, lab.IPTablesLegacy, "*filter\n:INPUT DROP [0:0]\nCOMMIT\n")
	tables := readLegacy(t, n)
	if len(tables) != 1 || names() != "filter\n" {
		t.Fatalf("%d tables were read, now there are %q", len(tables), names())
	}
	for _, c := range tables[0].Chains {
		want := firewall.Accept
		if c.Name == "INPUT" {
			want = firewall.Drop
		}
		if c.Base == nil || c.Base.Policy != want || c.Base.Priority != firewall.PriorityFilter || len(c.Rules) != 0 {
			t.Errorf("chain %s: %+v, %d rules", c.Name, c.Base, len(c.Rules))
		}
	}
}

// TestBaseChains holds the hooks, priorities and types of all tables.
func TestBaseChains(t *testing.T) {
	lab.Need(t, "iptables-legacy")
	n := lab.New(t, lab.Topology{}).Server
	n.Load(t, lab.IPTablesLegacy, "*raw\nCOMMIT\n*mangle\n:POSTROUTING DROP [0:0]\nCOMMIT\n*nat\nCOMMIT\n*filter\n:empty - [0:0]\n:loop - [0:0]\n-A INPUT -j loop\n-A loop -g empty\nCOMMIT\n*security\nCOMMIT\n")
	type base struct {
		priority int
		typ      firewall.ChainType
		policy   firewall.VerdictKind
	}
	want := map[string]base{
		"raw PREROUTING": {-300, firewall.ChainFilter, firewall.Accept}, "raw OUTPUT": {-300, firewall.ChainFilter, firewall.Accept},
		"mangle PREROUTING": {-150, firewall.ChainFilter, firewall.Accept}, "mangle INPUT": {-150, firewall.ChainFilter, firewall.Accept},
		"mangle FORWARD": {-150, firewall.ChainFilter, firewall.Accept}, "mangle OUTPUT": {-150, firewall.ChainRoute, firewall.Accept},
		"mangle POSTROUTING": {-150, firewall.ChainFilter, firewall.Drop},
		"nat PREROUTING":     {-100, firewall.ChainNAT, firewall.Accept}, "nat INPUT": {100, firewall.ChainNAT, firewall.Accept},
		"nat OUTPUT": {-100, firewall.ChainNAT, firewall.Accept}, "nat POSTROUTING": {100, firewall.ChainNAT, firewall.Accept},
		"filter INPUT": {0, firewall.ChainFilter, firewall.Accept}, "filter FORWARD": {0, firewall.ChainFilter, firewall.Accept},
		"filter OUTPUT": {0, firewall.ChainFilter, firewall.Accept}, "security INPUT": {50, firewall.ChainFilter, firewall.Accept},
		"security FORWARD": {50, firewall.ChainFilter, firewall.Accept}, "security OUTPUT": {50, firewall.ChainFilter, firewall.Accept},
	}
	byName := map[string]*firewall.Chain{}
	for _, tb := range readLegacy(t, n) {
		if tb.Backend != firewall.IPTablesLegacy || tb.Family != firewall.TableIP {
			t.Errorf("table %s: %s %s", tb.Name, tb.Backend, tb.Family)
		}
		for _, c := range tb.Chains {
			byName[tb.Name+" "+c.Name] = c
			if c.Base == nil {
				continue
			}
			if got := (base{c.Base.Priority, c.Base.Type, c.Base.Policy}); got != want[tb.Name+" "+c.Name] {
				t.Errorf("%s %s: %+v, want %+v", tb.Name, c.Name, got, want[tb.Name+" "+c.Name])
			}
			delete(want, tb.Name+" "+c.Name)
		}
	}
	if len(want) > 0 {
		t.Errorf("not read: %v", want)
	}
	jump := byName["filter INPUT"].Rules[0].Stmts[0].(*firewall.Verdict)
	if jump.Kind != firewall.Jump || jump.Chain != byName["filter loop"] {
		t.Errorf("the jump: %+v", jump)
	}
	target := byName["filter loop"].Rules[0].Stmts[0].(*firewall.Verdict)
	if target.Kind != firewall.Goto || target.Chain != byName["filter empty"] || len(byName["filter empty"].Rules) != 0 {
		t.Errorf("the goto: %+v", target)
	}
}
