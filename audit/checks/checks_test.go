package checks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/sysctl"
)

func TestCatalogue(t *testing.T) {
	all := All()
	if err := audit.Validate(all); err != nil {
		t.Error(err)
	}
	if len(all) < 30 {
		t.Errorf("only %d checks", len(all))
	}
	seen := map[string]string{}
	for _, c := range all {
		for _, id := range c.FindingIDs() {
			if audit.Find(all, id) == nil {
				t.Errorf("nothing explains finding %s", id)
			}
			seen[id] = c.ID
		}
	}
}

// TestFixtures: every check has an archive with hosts that it passes, finds
// something on, and cannot judge. The findings of the whole catalogue that bear
// the check's ids are compared, so that a check cannot hide behind another.
func TestFixtures(t *testing.T) {
	covered := map[string]bool{}
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, name := range archives {
		id := strings.TrimSuffix(filepath.Base(name), ".txtar")
		a, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c := audit.Find(All(), id)
		if c == nil || c.ID != id {
			t.Errorf("%s: no such check", name)
			continue
		}
		covered[id] = true
		kinds := map[string]bool{}
		for _, f := range a.Files {
			kind, _, _ := strings.Cut(f.Name, "/")
			kinds[kind] = true
			t.Run(id+"/"+f.Name, func(t *testing.T) { runFixture(t, c, kind, string(f.Data)) })
		}
		for _, kind := range []string{"pass", "fail", "unknown"} {
			if !kinds[kind] {
				t.Errorf("%s: no host of kind %s", name, kind)
			}
		}
	}
	for _, c := range All() {
		if !covered[c.ID] && !strings.HasPrefix(c.ID, "sysctl.net.") && !bridged(c.ID) {
			t.Errorf("check %s has no fixture", c.ID)
		}
	}
}

// bridged tells checks that the sysctl catalogue makes: its own tests hold their
// rules, and testdata/sysctl.net.ipv4.ip_local_port_range.txtar the bridge.
func bridged(id string) bool {
	_, ok := sysctl.FindID(id)
	return ok
}

func runFixture(t *testing.T, c *audit.Check, kind, text string) {
	x := parseFixture(t, text)
	before := digest(t, x.snap)
	r := audit.Run(x.snap, &x.cfg, All())
	cfg := x.cfg
	cfg.NoLocalRows = true
	if d := cmp.Diff(withoutLocal(r), withoutLocal(audit.Run(x.snap, &cfg, All()))); d != "" {
		t.Errorf("without the rows of local clients the report is another (-whole +without):\n%s", d)
	}
	if after := digest(t, x.snap); !bytes.Equal(before, after) {
		t.Error("the checks changed the snapshot")
	}
	var got []string
	for _, f := range r.Findings {
		if slices.Contains(c.FindingIDs(), f.ID) {
			got = append(got, fmt.Sprintf("%s %s %s", f.Severity, f.ID, f.Subject))
			if f.Title == "" || f.Why == "" || len(f.Evidence) == 0 || f.Remedy == "" || f.Fix == "" {
				t.Errorf("finding lacks something: %+v", f)
			}
		}
	}
	if d := cmp.Diff(x.want, got); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
	i := slices.IndexFunc(r.Checks, func(r audit.Result) bool { return r.ID == c.ID })
	if got := string(r.Checks[i].Status); got != kind {
		t.Errorf("status %s, want %s (%+v)", got, kind, r.Checks[i].Unsure)
	}
	for _, res := range r.Checks {
		if res.Status == audit.Errored {
			t.Errorf("check %s failed: %+v", res.ID, res.Unsure)
		}
	}
}

// withoutLocal is what a report says beside the rows of local clients, as JSON
// without the times.
func withoutLocal(r *audit.Report) []any {
	out := []any{r.Verdict, r.Findings, r.Checks, r.Incomplete, r.Sysctls}
	for i := range r.Listeners {
		l := &r.Listeners[i]
		var rows []reach.Row
		for _, row := range l.Partition {
			if row.Iif != "lo" {
				rows = append(rows, row)
			}
		}
		out = append(out, l.Address, l.Port, l.Exposure, l.Scope, rows)
	}
	text, err := json.Marshal(out)
	if err != nil {
		return []any{err.Error()}
	}
	return []any{string(text)}
}

// digest is what a snapshot holds, as far as JSON shows it.
func digest(t *testing.T, s *audit.Snapshot) []byte {
	t.Helper()
	b, err := json.Marshal([]any{s.Meta, s.Sysctls, s.Census, s.Samples, s.World.Namespaces[0].Listeners})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFindingIDs holds the table of finding ids to the sysctl catalogue's source:
// every id that a rule can report is explained by a check.
func TestFindingIDs(t *testing.T) {
	files, err := filepath.Glob("../../sysctl/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sources of the catalogue: %v", err)
	}
	n := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(node ast.Node) bool {
			kv, ok := node.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			key, ok := kv.Key.(*ast.Ident)
			if !ok || key.Name != "Finding" {
				return true
			}
			lit, ok := kv.Value.(*ast.BasicLit)
			if !ok {
				return true
			}
			id, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			n++
			if audit.Find(All(), id) == nil {
				t.Errorf("%s: nothing explains finding %s", name, id)
			}
			return true
		})
	}
	if n < 20 {
		t.Errorf("only %d finding ids seen: the test looks at nothing", n)
	}
	for k := range found {
		if _, ok := sysctl.Find(k); !ok {
			t.Errorf("%s is not in the catalogue", k)
		}
	}
}
