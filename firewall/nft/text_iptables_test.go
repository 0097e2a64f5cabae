package nft

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// iptablesLists returns `iptables -S` of every table that there is, the rules
// by table and chain in order.
func iptablesLists(t testing.TB, rs *fw.Ruleset) map[string][]string {
	t.Helper()
	lists := map[string][]string{}
	for _, tab := range rs.Tables {
		if tab.Backend != fw.IPTablesNFT {
			continue
		}
		cmd := "iptables-nft"
		if tab.Family == fw.TableIP6 {
			cmd = "ip6tables-nft"
		}
		for _, line := range strings.Split(tool(t, "", cmd, "-t", tab.Name, "-S"), "\n") {
			if strings.HasPrefix(line, "-A ") {
				chain, _, _ := strings.Cut(line[3:], " ")
				key := string(tab.Family) + " " + tab.Name + " " + chain
				lists[key] = append(lists[key], line)
			}
		}
	}
	return lists
}

// compareIPTables counts the rules that are printed as iptables prints them.
func compareIPTables(t *testing.T, rs *fw.Ruleset) (same, all int) {
	t.Helper()
	lists := iptablesLists(t, rs)
	for _, tab := range rs.Tables {
		if tab.Backend != fw.IPTablesNFT {
			t.Errorf("table %s %s is taken for %s", tab.Family, tab.Name, tab.Backend)
		}
		for _, c := range tab.Chains {
			want := lists[string(tab.Family)+" "+tab.Name+" "+c.Name]
			if len(want) != len(c.Rules) {
				t.Errorf("chain %s %s has %d rules, iptables prints %d", tab.Name, c.Name, len(c.Rules), len(want))
				continue
			}
			for i, r := range c.Rules {
				all++
				if got := r.Text(); got == want[i] {
					same++
				} else {
					t.Logf("\n got %s\nwant %s\n has %s", got, want[i], showRule(r))
				}
			}
		}
	}
	return same, all
}

// TestTextAsIPTables: a rule that iptables-nft wrote is printed as it prints it.
func TestTextAsIPTables(t *testing.T) {
	needTools(t, "iptables-nft", "ip6tables-nft")
	inNetns(t)
	b, err := os.ReadFile("testdata/iptables.rules")
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for _, cmd := range []string{"iptables-nft", "ip6tables-nft"} {
		tool(t, "", cmd, "-N", "sub")
		for _, line := range strings.Split(string(b), "\n") {
			if line == "" || line[0] == '#' {
				continue
			}
			if _, err := tryTool("", cmd, splitWords(line)...); err == nil {
				taken++
			}
		}
	}
	if taken < 50 {
		t.Fatalf("only %d rules could be loaded", taken)
	}
	same, all := compareIPTables(t, read(t, Options{}))
	t.Logf("%d of %d rules are printed as iptables does", same, all)
	if same*100 < all*97 {
		t.Errorf("only %d of %d rules are printed as iptables does", same, all)
	}
}

// splitWords splits a line at spaces, but not inside double quotes.
func splitWords(line string) []string {
	var out []string
	quoted := false
	for _, f := range strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	}) {
		out = append(out, strings.ReplaceAll(f, `"`, ""))
	}
	return out
}

// TestPublishedIPTables is TestTextAsIPTables with published rulesets.
func TestPublishedIPTables(t *testing.T) {
	needTools(t, "iptables-nft-restore", "ip6tables-nft-restore")
	same, all, loaded := 0, 0, 0
	for _, pattern := range []string{"*.v4.rules", "*.v6.rules"} {
		for _, file := range publishedRulesets(t, pattern) {
			t.Run(filepath.Base(file), func(t *testing.T) {
				inNetns(t)
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				cmd := "iptables-nft-restore"
				if strings.HasSuffix(file, ".v6.rules") {
					cmd = "ip6tables-nft-restore"
				}
				if out, err := tryTool(string(b), cmd); err != nil {
					t.Skipf("not loadable here: %.200s", out)
				}
				loaded++
				s, a := compareIPTables(t, read(t, Options{}))
				same, all = same+s, all+a
			})
		}
	}
	t.Logf("%d rulesets loaded, %d of %d rules are printed as iptables does", loaded, same, all)
	if same*100 < all*97 {
		t.Errorf("only %d of %d rules are printed as iptables does", same, all)
	}
}
