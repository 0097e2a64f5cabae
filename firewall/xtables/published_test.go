package xtables_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// TestPublishedRulesets loads the rulesets that people publish (beside the
// project), as far as this machine takes them, and holds number, text and
// model of every rule.
func TestPublishedRulesets(t *testing.T) {
	lab.Need(t, "iptables-legacy", "ipset")
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "shared", "rulesets", "*.rules"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("SKIPPED: the published rulesets (../shared/rulesets) are not here")
	}
	loaded, cut, rules, same, other := 0, 0, 0, 0, 0
	opaque := map[string]int{}
	n := lab.New(t, lab.Topology{}).Server
	for _, file := range files {
		n.Flush(t)
		fam := firewall.TableIP
		if strings.HasSuffix(file, ".v6.rules") {
			fam = firewall.TableIP6
		}
		left, ok := loadPublished(t, n, fam, file)
		if !ok {
			continue
		}
		loaded++
		cut += left
		tables := readLegacy(t, n)
		s, o := compareText(t, n, tables)
		same, other = same+s, other+o
		for _, tb := range tables {
			for _, c := range tb.Chains {
				for i, r := range c.Rules {
					rules++
					if r.Number != i+1 || r.Chain != c {
						t.Errorf("%s: rule %d of %s has number %d", file, i+1, c.Name, r.Number)
					}
					for _, st := range r.Stmts {
						if q, ok := st.(*firewall.Opaque); ok {
							opaque[q.Name]++
							if strings.Contains(q.Reason, "not known here") {
								t.Errorf("%s: %s: %s", file, r.Text(), q.Reason)
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d of %d rulesets loaded (%d lines left out); %d rules: text the same for %d, another for %d; opaque: %v", loaded, len(files), cut, rules, same, other, opaque)
	if loaded*2 < len(files) || other > 0 {
		t.Errorf("%d of %d loaded, %d texts differ", loaded, len(files), other)
	}
}

var failedLine = regexp.MustCompile(`(?:line:? |line )(\d+)`)

// loadPublished loads a file, without the lines that the tool refuses. ok is
// false where the kernel refuses the whole of it.
func loadPublished(t *testing.T, n *lab.Namespace, fam firewall.TableFamily, file string) (left int, ok bool) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	for range 60 {
		err := n.TryLoad(t.Context(), loader(fam, false), strings.Join(lines, "\n"))
		if err == nil {
			return left, true
		}
		m := failedLine.FindStringSubmatch(err.Error())
		if m == nil {
			return left, false
		}
		i, _ := strconv.Atoi(m[1])
		if i < 1 || i > len(lines) || strings.HasPrefix(lines[i-1], "COMMIT") {
			return left, false
		}
		lines = slices.Delete(lines, i-1, i)
		lines = slices.Insert(lines, i-1, "# left out")
		left++
	}
	return left, false
}
