package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// keys lists the keys of a JSON object.
func keys(m map[string]json.RawMessage) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// holds demands the keys that others rely on.
func holds(t *testing.T, what string, raw json.RawMessage, want ...string) map[string]json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatalf("%s: %v in %.200s", what, err, raw)
	}
	for _, k := range want {
		if _, ok := m[k]; !ok {
			t.Errorf("%s lacks %q, has %q", what, k, keys(m))
		}
	}
	return m
}

func elements(t *testing.T, what string, raw json.RawMessage) []json.RawMessage {
	t.Helper()
	var out []json.RawMessage
	if err := json.Unmarshal(raw, &out); err != nil || out == nil {
		t.Fatalf("%s is no list: %v in %.200s", what, err, raw)
	}
	return out
}

// TestScanKeys holds the JSON of scan to what is promised.
func TestScanKeys(t *testing.T) {
	snapshot, err := filepath.Abs("testdata/snapshot/scenario.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	run([]string{"scan", "--format", "json", "--snapshot", snapshot}, nil, &out, &errs, []string{
		"HOSTAUDIT_SERVICES=[{name: api, port: 8080, audience: everyone}]", "HOSTAUDIT_ACCEPT=[{id: firewall.port-blocked, subject: 'tcp 0.0.0.0:8080', reason: r}]"})
	r := holds(t, "report", json.RawMessage(out.String()), "schema", "host", "listeners", "sysctls", "ephemeral", "findings", "incomplete", "timings")
	if string(r["schema"]) != `"hostaudit/scan/v1"` {
		t.Errorf("schema %s", r["schema"])
	}
	var timings map[string]float64
	if err := json.Unmarshal(r["timings"], &timings); err != nil || len(timings) == 0 {
		t.Errorf("timings: %v %v", timings, err)
	}
	ls := elements(t, "listeners", r["listeners"])
	if len(ls) == 0 {
		t.Fatal("no listeners")
	}
	for _, raw := range ls {
		l := holds(t, "listener", raw, "proto", "address", "port", "device", "v6only", "netns", "process", "backlog", "exposure", "partition")
		holds(t, "process", l["process"], "pid", "name", "command", "unit", "user")
		holds(t, "backlog", l["backlog"], "queued", "limit")
		for _, row := range elements(t, "partition", l["partition"]) {
			p := holds(t, "row", row, "from", "iif", "client_sees", "decided_by", "conditions")
			holds(t, "decided_by", p["decided_by"], "kind", "text")
			elements(t, "conditions", p["conditions"])
		}
	}
	accepted := false
	for _, raw := range elements(t, "findings", r["findings"]) {
		f := holds(t, "finding", raw, "id", "severity", "subject", "title", "why", "evidence", "remedy", "fix", "causes", "refs")
		for _, e := range elements(t, "evidence", f["evidence"]) {
			holds(t, "evidence", e, "source", "value")
		}
		elements(t, "causes", f["causes"])
		elements(t, "refs", f["refs"])
		_, ok := f["accepted"]
		accepted = accepted || ok
	}
	if !accepted {
		t.Error("the accepted finding is absent, not accepted")
	}
	ss := elements(t, "sysctls", r["sysctls"])
	persisted := 0
	for _, raw := range ss {
		s := holds(t, "sysctl", raw, "key", "live", "persisted", "after_reboot", "class", "verdict", "why")
		for _, p := range elements(t, "persisted", s["persisted"]) {
			holds(t, "persisted", p, "loader", "value", "file", "line")
			persisted++
		}
	}
	if len(ss) < 20 || persisted == 0 {
		t.Errorf("%d sysctls, %d persisted", len(ss), persisted)
	}
	e := holds(t, "ephemeral", r["ephemeral"], "range", "usable", "destinations", "total")
	elements(t, "destinations", e["destinations"])
	for _, g := range elements(t, "incomplete", r["incomplete"]) {
		holds(t, "gap", g, "what", "why")
	}
}
