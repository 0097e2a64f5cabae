package nft

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// publishedRulesets returns the rulesets that were collected from public
// places, which lie beside the project.
func publishedRulesets(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "shared", "rulesets", pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		unable(t, "the published rulesets (../shared/rulesets) are not here")
	}
	return files
}

// loadFile gives a published ruleset to nft in a new namespace. ok is false
// where nft or the kernel does not take it (an include or a device that is not
// here, a syntax of another version).
func loadFile(t testing.TB, file string) bool {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tryTool(string(b), "nft", "-f", "-")
	return err == nil
}

// TestPublishedRulesets: every rule of the rulesets that people publish is
// decoded, in the kernel's order and number, and what does not lift to the
// model is known by name.
func TestPublishedRulesets(t *testing.T) {
	needTools(t, "nft")
	loaded, rules, opaque := 0, 0, map[string]int{}
	for _, file := range publishedRulesets(t, "*.nft") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			inNetns(t)
			if !loadFile(t, file) {
				t.Skip("not loadable here")
			}
			loaded++
			rs := read(t, Options{})
			want := countRules(tool(t, "", "nft", "-a", "list", "ruleset"))
			n := 0
			for _, tab := range rs.Tables {
				for _, c := range tab.Chains {
					for i, r := range c.Rules {
						n++
						if r.Number != i+1 {
							t.Errorf("rule %d has number %d", i+1, r.Number)
						}
						for _, s := range r.Stmts {
							if o, ok := s.(*fw.Opaque); ok {
								opaque[o.Name+": "+o.Reason]++
							}
						}
					}
				}
			}
			if n != want {
				t.Errorf("%d rules, nft lists %d", n, want)
			}
			rules += n
		})
	}
	t.Logf("%d rulesets loaded, %d rules", loaded, rules)
	for why, n := range opaque {
		t.Logf("opaque %4d × %s", n, why)
	}
	if loaded < 20 && rules < 500 {
		t.Errorf("only %d rulesets with %d rules could be loaded", loaded, rules)
	}
}

// countRules counts the rules of `nft -a list ruleset`: lines with a handle
// that do not open a block, and lines inside a chain that has no name of its
// own, which have no handle.
func countRules(out string) int {
	n, inside := 0, false
	for _, line := range joinLines(out) {
		s := strings.TrimSpace(line)
		switch {
		case strings.HasSuffix(s, "jump {") || strings.HasSuffix(s, "goto {"):
			inside = true
		case inside && strings.HasPrefix(s, "}"):
			inside = false
			n++
		case inside && s != "":
			n++
		case strings.Contains(s, " # handle ") && !strings.Contains(s, "{ # handle "):
			n++
		}
	}
	return n
}

// joinLines puts the lines that nft breaks inside braces together again.
func joinLines(out string) []string {
	var lines []string
	open := false
	for _, line := range strings.Split(out, "\n") {
		if open {
			lines[len(lines)-1] += " " + strings.TrimSpace(line)
		} else {
			lines = append(lines, line)
		}
		if len(lines) > 0 {
			l := lines[len(lines)-1]
			open = strings.HasSuffix(l, ",")
		}
	}
	return lines
}
