package nft

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// corpora are rules, one a line, for chains of several kinds.
var corpora = []struct{ file, family, chain string }{
	{"filter.rules", "inet", ""},
	{"filter.rules", "ip", ""},
	{"filter.rules", "ip6", ""},
	{"dstnat.rules", "inet", "type nat hook prerouting priority -100;"},
	{"srcnat.rules", "inet", "type nat hook postrouting priority 100;"},
	{"ip-dstnat.rules", "ip", "type nat hook prerouting priority -100;"},
	{"ip-srcnat.rules", "ip", "type nat hook postrouting priority 100;"},
	{"ip6-nat.rules", "ip6", "type nat hook prerouting priority -100;"},
	{"mangle.rules", "inet", "type filter hook prerouting priority -150;"},
	{"mangle.rules", "ip", "type filter hook prerouting priority -150;"},
	{"forward.rules", "inet", "type filter hook forward priority 0;"},
	{"netdev.rules", "netdev", "type filter hook ingress device lo priority 0;"},
}

// prelude is the table that the rules of a corpus can name things of.
func prelude(family, chain string) string {
	addr := "ipv4_addr"
	a1, a2 := "10.0.0.1", "10.0.0.0/8"
	if family == "ip6" {
		addr, a1, a2 = "ipv6_addr", "fe80::1", "fe80::/10"
	}
	out := "table " + family + " t {\n"
	out += ` counter cnt { }
 quota qt { over 10 mbytes }
 limit lim { rate 5/second }
`
	if family != "netdev" {
		out += ` ct helper ftph { type "ftp" protocol tcp; }
 ct timeout tmo { protocol tcp; policy = { established : 10 }; }
 ct expectation exp { protocol tcp; dport 5; timeout 1m; size 5; l3proto ip; }
 synproxy sp { mss 1460; wscale 7; }
`
		out = strings.Replace(out, "l3proto ip;", "l3proto "+map[string]string{"inet": "ip", "ip": "ip", "ip6": "ip6"}[family]+";", 1)
	}
	out += fmt.Sprintf(` set dyn { type %[1]s; flags dynamic,timeout; size 1000; }
 map dynmap { type %[1]s : mark; flags dynamic; size 1000; }
 set plain { type %[1]s; elements = { %[2]s } }
 set ints { type %[1]s; flags interval; elements = { %[3]s } }
 set conc { type %[1]s . inet_service; elements = { %[2]s . 80 } }
 map vm { type %[1]s : verdict; elements = { %[2]s : accept } }
 map mm { type %[1]s : mark; elements = { %[2]s : 5 } }
 set ports { type inet_service; elements = { 22, 80 } }
 chain sub { }
 chain c { %[4]s }
}
`, addr, a1, a2, chain)
	return out
}

var handleRE = regexp.MustCompile(`^(.*) # handle (\d+)$`)

// ruleKey names a rule: handles are numbers within their table.
type ruleKey struct {
	table  string // "inet filter"
	handle uint64
}

func keyOf(r *fw.Rule) ruleKey {
	return ruleKey{string(r.Chain.Table.Family) + " " + r.Chain.Table.Name, r.Handle}
}

// listedTexts returns the rules of nft's listing.
func listedTexts(t testing.TB, out string) map[ruleKey]string {
	t.Helper()
	texts := map[ruleKey]string{}
	table := ""
	for _, line := range joinLines(out) {
		if rest, ok := strings.CutPrefix(line, "table "); ok {
			table, _, _ = strings.Cut(rest, " {")
			continue
		}
		m := handleRE.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || strings.HasSuffix(m[1], "{") {
			continue
		}
		n, _ := strconv.ParseUint(m[2], 10, 64)
		texts[ruleKey{table, n}] = m[1]
	}
	return texts
}

// lo is the only interface of a new namespace.
var loName = map[int]string{1: "lo"}

// TestTextAsNft: a rule is printed as nft lists it. Where it differs, the line
// is logged; at least 99 of 100 have to be the same.
func TestTextAsNft(t *testing.T) {
	needTools(t, "nft")
	same, all := 0, 0
	for _, c := range corpora {
		t.Run(c.family+" "+c.file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", c.file))
			if err != nil {
				t.Fatal(err)
			}
			inNetns(t)
			load(t, prelude(c.family, c.chain))
			taken := 0
			for _, line := range strings.Split(string(b), "\n") {
				if line == "" || line[0] == '#' {
					continue
				}
				if _, err := tryTool("add rule "+c.family+" t c "+line+"\n", "nft", "-f", "-"); err == nil {
					taken++
				}
			}
			if taken < 5 {
				t.Fatalf("only %d rules of the corpus could be loaded", taken)
			}
			want := listedTexts(t, tool(t, "", "nft", "-a", "list", "ruleset"))
			for _, tab := range read(t, Options{LinkNames: loName}).Tables {
				for _, ch := range tab.Chains {
					for _, r := range ch.Rules {
						all++
						if got := r.Text(); got == want[keyOf(r)] {
							same++
						} else {
							t.Logf("\n got %s\nwant %s\n has %s", got, want[keyOf(r)], showRule(r))
						}
					}
				}
			}
		})
	}
	t.Logf("%d of %d rules are printed as nft does", same, all)
	if all == 0 || same*100 < all*99 {
		t.Errorf("only %d of %d rules are printed as nft does", same, all)
	}
}

// TestPublishedText is TestTextAsNft with published rulesets.
func TestPublishedText(t *testing.T) {
	needTools(t, "nft")
	same, all := 0, 0
	for _, file := range publishedRulesets(t, "*.nft") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			inNetns(t)
			if !loadFile(t, file) {
				t.Skip("not loadable here")
			}
			want := listedTexts(t, tool(t, "", "nft", "-a", "list", "ruleset"))
			for _, tab := range read(t, Options{LinkNames: loName}).Tables {
				if tab.Backend != fw.NFTables {
					continue
				}
				for _, ch := range tab.Chains {
					for _, r := range ch.Rules {
						w, ok := want[keyOf(r)]
						if !ok || w == "}" {
							continue // inside a chain without a name, or the jump to it
						}
						all++
						if got := r.Text(); got == w {
							same++
						} else {
							t.Logf("\n got %s\nwant %s", got, w)
						}
					}
				}
			}
		})
	}
	t.Logf("%d of %d rules are printed as nft does", same, all)
	if all < 500 || same*100 < all*99 {
		t.Errorf("only %d of %d rules are printed as nft does", same, all)
	}
}
