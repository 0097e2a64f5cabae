package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/report"
)

// TestDiff compares a report with itself and with ones that were changed in a
// known way.
func TestDiff(t *testing.T) {
	dir := t.TempDir()
	start := func(code int, args ...string) string {
		t.Helper()
		var out, errs strings.Builder
		if got := run(args, nil, &out, &errs, nil); got != code {
			t.Errorf("%v: exit %d, want %d: %s", args, got, code, errs.String())
		}
		return out.String()
	}
	snapshot := "testdata/snapshot/scenario.snapshot"
	var first strings.Builder
	if got := run([]string{"scan", "--snapshot", snapshot, "--format", "json", "--keep", "1", "--reports", dir}, nil, &first, &first, nil); got > 1 && got != 3 {
		t.Fatal(first.String())
	}
	kept, err := filepath.Glob(dir + "/*.json")
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	if out := start(0, "diff", kept[0], kept[0]); !strings.Contains(out, "Nothing changed.") {
		t.Error(out)
	}
	var r map[string]any
	b, err := os.ReadFile(kept[0])
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	ls := r["listeners"].([]any)
	gone := ls[0].(map[string]any)
	r["listeners"] = ls[1:]
	r["findings"] = append(r["findings"].([]any), map[string]any{"id": "a.b", "subject": "s", "severity": "critical", "title": "x"})
	b, err = json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	changed := dir + "/changed"
	if err := os.WriteFile(changed, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var d report.Diff
	if err := json.Unmarshal([]byte(start(1, "diff", "--format", "json", kept[0], changed)), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Listeners) != 1 || d.Listeners[0].Change != "gone" || !strings.HasPrefix(d.Listeners[0].Subject, gone["proto"].(string)) || len(d.Findings) != 1 || d.Findings[0].Change != "new" {
		t.Errorf("%+v", d)
	}
	start(0, "diff", changed, kept[0]) // the other way round a finding is gone
	start(2, "diff", kept[0], dir+"/missing")
	start(2, "diff", kept[0])
	start(2, "diff", "--reports", dir) // only one is kept
	later := dir + "/29990101T000000.000000000Z.json"
	if err := os.WriteFile(later, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := start(1, "diff", "--reports", dir); !strings.Contains(out, "1 listener gone") {
		t.Error(out)
	}
	if err := os.Remove(later); err != nil {
		t.Fatal(err)
	}
	start(2, "diff", kept[0], snapshot)
	start(2, "scan", "--snapshot", snapshot, "--since", "last", "--reports", dir+"/none")
}
