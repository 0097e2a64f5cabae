package reach_test

import (
	"os"
	"strings"
	"testing"
)

// Tables of nft that rules of testdata/texts are loaded into.
const textsTable = `
	set s4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
	set ports { type inet_service; elements = { 22, 80 } }
	set conc { type ipv4_addr . inet_service; elements = { 10.0.0.1 . 22 } }
	set dyn { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
	set dync { type ipv4_addr . inet_service; flags dynamic; }
	map vm { type ipv4_addr : verdict; elements = { 10.0.0.1 : accept } }
	map mm { type ipv4_addr : mark; elements = { 10.0.0.1 : 0x5 } }
	map am { type ipv4_addr : ipv4_addr; elements = { 10.0.0.1 : 10.0.0.2 } }
	limit lim { rate 5/second }
	quota quo { 5 mbytes }
	counter cnt { }
	counter cnt2 { }
	chain c1 { }
	chain c2 { }
`

var textsChains = map[string]string{
	"filter": "type filter hook input priority 0;", "natpre": "type nat hook prerouting priority dstnat;", "natpost": "type nat hook postrouting priority srcnat;",
	"pre": "type filter hook prerouting priority -310;",
}

// odd reads the rules of a file of testdata/texts: what stands before the bar, and
// the rule.
func odd(t *testing.T, file string) (rules [][2]string) {
	t.Helper()
	b, err := os.ReadFile("testdata/texts/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		where, rule, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "|")
		if ok && !strings.HasPrefix(line, "#") {
			rules = append(rules, [2]string{where, rule})
		}
	}
	return rules
}

// leastTexts is how many texts of each file have to be compared at least: some
// rules are for modules that a kernel lacks, or for another release of the tool.
const leastTexts = 560

// TestTexts holds the texts of odd rules against those of their own tools.
func TestTexts(t *testing.T) {
	t.Run("nft", func(t *testing.T) {
		t.Parallel()
		b := newCaseBench(t)
		const together = 16
		rules := odd(t, "nft.txt")
		alike := 0
		// load compares the texts of some rules of one sort of chain; false where nft
		// refuses one of them.
		load := func(rules [][2]string) bool {
			var s strings.Builder
			s.WriteString("flush ruleset\ntable inet t {" + textsTable + "chain in { " + textsChains[rules[0][0]] + "\n")
			for _, r := range rules {
				s.WriteString(r[1] + "\n")
			}
			s.WriteString("}\n}\n")
			if _, err := b.Server.Exec(t.Context(), s.String(), "nft", "-f", "-"); err != nil {
				return false
			}
			unlike := b.compareTexts(t, readWorld(t, b.Server).Namespaces[0].Ruleset)
			for _, u := range unlike {
				t.Error(u)
			}
			alike += len(rules) - len(unlike)
			return true
		}
		for len(rules) > 0 {
			n := 1
			for n < len(rules) && n < together && rules[n][0] == rules[0][0] {
				n++
			}
			if !load(rules[:n]) {
				for i := range n {
					if !load(rules[i : i+1]) {
						t.Logf("refused: %s", rules[i][1])
					}
				}
			}
			rules = rules[n:]
		}
		if alike < leastTexts {
			t.Errorf("only %d texts were compared", alike)
		}
	})
	t.Run("iptables", func(t *testing.T) {
		t.Parallel()
		b := newCaseBench(t)
		if _, err := b.Server.Exec(t.Context(), "create x hash:ip\n", "ipset", "restore"); err != nil {
			t.Fatal(err)
		}
		alike := 0
		for _, r := range odd(t, "iptables.txt") {
			options := strings.TrimPrefix(r[1], "-t ")
			table, rule, _ := strings.Cut(options, " ")
			for _, backend := range []string{"legacy", "nft"} {
				tool := map[string]string{"4": "iptables-", "6": "ip6tables-"}[r[0]] + backend + "-restore"
				if _, err := b.Server.Exec(t.Context(), "*"+table+"\n"+rule+"\nCOMMIT\n", tool); err != nil {
					t.Logf("refused by %s: %s", tool, r[1])
					continue
				}
				unlike := b.compareTexts(t, readWorld(t, b.Server).Namespaces[0].Ruleset)
				for _, u := range unlike {
					t.Error(u)
				}
				if len(unlike) == 0 {
					alike++
				}
				if _, err := b.Server.Exec(t.Context(), "*"+table+"\nCOMMIT\n", tool); err != nil {
					t.Fatal(err)
				}
			}
		}
		if alike < leastTexts {
			t.Errorf("only %d texts were compared", alike)
		}
	})
}
