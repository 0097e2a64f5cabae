package xtables_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/ipset"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// labSets are the ipsets that rules.txt names.
const labSets = `create nets hash:net family inet
add nets 10.0.0.0/8
add nets 10.9.0.0/16 nomatch
create pairs hash:ip,port family inet
create triples hash:ip,port,ip family inet
create counted hash:ip family inet counters
create timed hash:ip family inet timeout 100
create marked hash:ip family inet skbinfo
create nets6 hash:net family inet6
`

// corpusRule is one line of rules.txt.
type corpusRule struct {
	line  int
	fam   firewall.TableFamily
	table string
	rule  string
}

func corpus(t testing.TB) []corpusRule {
	t.Helper()
	f, err := os.Open("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []corpusRule
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		fams, rest, _ := strings.Cut(s.Text(), " ")
		if fams == "" || fams == "#" {
			continue
		}
		table, rule, ok := strings.Cut(rest, " ")
		if !ok || strings.Trim(fams, "46") != "" {
			t.Fatalf("rules.txt:%d: %s", n, s.Text())
		}
		for _, fam := range fams {
			r := corpusRule{line: n, fam: firewall.TableIP, table: table, rule: rule}
			if fam == '6' {
				r.fam = firewall.TableIP6
			}
			out = append(out, r)
		}
	}
	if s.Err() != nil || len(out) == 0 {
		t.Fatalf("rules.txt: %d rules, %v", len(out), s.Err())
	}
	return out
}

// loader is iptables-legacy-restore or iptables-nft-restore of a family.
func loader(fam firewall.TableFamily, nft bool) lab.Loader {
	switch {
	case fam == firewall.TableIP && !nft:
		return lab.IPTablesLegacy
	case fam == firewall.TableIP6 && !nft:
		return lab.IP6TablesLegacy
	case fam == firewall.TableIP:
		return lab.IPTablesNFT
	default:
		return lab.IP6TablesNFT
	}
}

// tool is iptables-legacy and so on.
func tool(fam firewall.TableFamily, nft bool) string {
	s := "iptables"
	if fam == firewall.TableIP6 {
		s = "ip6tables"
	}
	if nft {
		return s + "-nft"
	}
	return s + "-legacy"
}

// chainsOf are the user-defined chains that rules.txt uses.
var chainsOf = map[string]string{"filter": ":user - [0:0]\n:other-chain - [0:0]\n", "nat": ":onlydst - [0:0]\n-A PREROUTING -j onlydst\n"}

// loadCorpus loads every rule that this machine takes, one by one, and returns
// them by family and table, and how many were refused.
func loadCorpus(t *testing.T, n *lab.Namespace, nft bool) (loaded []corpusRule, refused int) {
	t.Helper()
	n.Load(t, lab.IPSet, labSets)
	for _, fam := range []firewall.TableFamily{firewall.TableIP, firewall.TableIP6} {
		for table, chains := range chainsOf {
			n.Load(t, loader(fam, nft), "*"+table+"\n"+chains+"COMMIT\n")
		}
	}
	for _, r := range corpus(t) {
		argv := []string{tool(r.fam, nft) + "-restore", "--noflush"}
		if !nft {
			argv = append(argv, "-w", "30")
		}
		if _, err := n.Exec(t.Context(), "*"+r.table+"\n"+r.rule+"\nCOMMIT\n", argv...); err != nil {
			refused++
			t.Logf("rules.txt:%d: %s refuses %s: %s", r.line, tool(r.fam, nft), r.rule, lastLine(err.Error()))
			continue
		}
		loaded = append(loaded, r)
	}
	return loaded, refused
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// readLegacy reads the legacy tables and the sets of a namespace.
func readLegacy(t testing.TB, n *lab.Namespace) []*firewall.Table {
	t.Helper()
	var tables []*firewall.Table
	var err error
	n.Do(func() {
		var sets *ipset.Sets
		if sets, err = readSets(t.Context()); err != nil {
			return
		}
		var k *xtables.Kernel
		if k, err = xtables.Open(); err != nil {
			return
		}
		defer k.Close()
		tables, err = xtables.Read(t.Context(), k, sets)
	})
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

func readSets(ctx context.Context) (*ipset.Sets, error) {
	k, err := ipset.Open()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	return ipset.Read(ctx, k)
}

// TestTextIsThatOfIptables holds the text of every rule against what
// iptables-legacy -S prints.
func TestTextIsThatOfIptables(t *testing.T) {
	lab.Need(t, "iptables-legacy", "ipset")
	n := lab.New(t, lab.Topology{}).Server
	loaded, refused := loadCorpus(t, n, false)
	if len(loaded) < 350 {
		t.Errorf("only %d rules were taken", len(loaded))
	}
	same, other := compareText(t, n, readLegacy(t, n))
	t.Logf("%d rules print the same, %d differ; %d of the corpus were refused here", same, other, refused)
	if other > 0 {
		t.Fail()
	}
}

// compareText holds the text of every rule against -S, table by table.
func compareText(t *testing.T, n *lab.Namespace, tables []*firewall.Table) (same, other int) {
	t.Helper()
	for _, table := range tables {
		want := map[string][]string{}
		chain := ""
		for line := range strings.Lines(n.Run(t, tool(table.Family, false), "-t", table.Name, "-S")) {
			line = strings.TrimSuffix(line, "\n")
			switch f := strings.Fields(line); {
			case len(f) > 1 && f[0] == "-A":
				chain = f[1]
				want[chain] = append(want[chain], line)
			case !strings.HasPrefix(line, "-"): // a comment of several lines
				want[chain][len(want[chain])-1] += "\n" + line
			}
		}
		for _, c := range table.Chains {
			if len(c.Rules) != len(want[c.Name]) {
				t.Errorf("%s %s %s: %d rules, -S prints %d", table.Family, table.Name, c.Name, len(c.Rules), len(want[c.Name]))
				continue
			}
			for i, r := range c.Rules {
				if got := r.Text(); got != want[c.Name][i] {
					other++
					t.Logf("got  %s\nwant %s", fmt.Sprintf("%q", got), fmt.Sprintf("%q", want[c.Name][i]))
				} else {
					same++
				}
			}
		}
	}
	return same, other
}
