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
		l := holds(t, "listener", raw, "proto", "address", "port", "device", "v6only", "netns", "process", "backlog", "exposure", "partition", "uid", "inode")
		holds(t, "process", l["process"], "pid", "name", "command", "unit", "user", "uid", "started")
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

// contractCauses are the causes that every diagnosis names.
const contractCauses = "wrong-port wrong-address dns-points-elsewhere cdn-in-between not-listening client-proxy bind-address rejected-by-firewall " +
	"host-firewall cloud-security-group panel-firewall host-down private-address listen-queue-full conntrack-full reply-path " +
	"ephemeral-range-exhausted time-wait-exhaustion source-address-missing protocol-mismatch tls-mismatch handshake-rejected name-unknown"

// TestDiagnoseKeys holds the JSON of diagnose to what is promised: every cause in
// every answer, the surest first.
func TestDiagnoseKeys(t *testing.T) {
	snapshot, err := filepath.Abs("testdata/snapshot/scenario.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"10.9.0.2:8080"}, {"8080"}, {"ws://10.9.0.2:9100"}, {"wss://chat.example.com", "--from", "203.0.113.5"}, {"10.9.0.2:2346", "--from", "10.9.0.1"},
		{"10.9.0.2:9999"}, {"http://192.0.2.1/"}, {"10.9.0.2:9100", "--error", "Connection timed out"}, {"10.9.0.2:9100", "--error", "gibberish"},
		{"10.9.0.2:9100", "--side", "client"}, {"nowhere.example:80", "--error", "Name or service not known", "--side", "client"}, {"127.0.0.1:2346"},
	} {
		var out, errs strings.Builder
		args = append([]string{"diagnose", "--format", "json", "--snapshot", snapshot}, args...)
		if code := run(args, nil, &out, &errs, nil); code != 0 {
			t.Fatalf("%q: exit code %d: %s", args, code, errs.String())
		}
		if err := holdToSchema(args, out.String()); err != nil {
			t.Error(err)
		}
		r := holds(t, "answer", json.RawMessage(out.String()), "schema", "target", "client_sees", "causes")
		if string(r["schema"]) != `"hostaudit/diagnose/v1"` {
			t.Errorf("schema %s", r["schema"])
		}
		if sees := strings.Trim(string(r["client_sees"]), `"`); !slices.Contains(strings.Fields("connected refused timeout unreachable cannot-assign-address name-unknown protocol-error cannot-tell"), sees) {
			t.Errorf("%q: client_sees %s", args, sees)
		}
		want := strings.Fields(contractCauses)
		var got []string
		rank := 0
		verdicts := []string{"confirmed", "likely", "cannot-tell", "ruled-out"}
		for _, raw := range elements(t, "causes", r["causes"]) {
			c := holds(t, "cause", raw, "id", "verdict", "evidence", "remedy")
			got = append(got, strings.Trim(string(c["id"]), `"`))
			n := slices.Index(verdicts, strings.Trim(string(c["verdict"]), `"`))
			if n < rank {
				t.Errorf("%q: %s of %s after a weaker one", args, c["verdict"], c["id"])
			}
			rank = n
			es := elements(t, "evidence", c["evidence"])
			if len(es) == 0 {
				t.Errorf("%q: %s %s without evidence", args, c["id"], c["verdict"])
			}
			for _, e := range es {
				holds(t, "evidence", e, "source", "value")
			}
			if n < 2 && string(c["remedy"]) == `""` {
				t.Errorf("%q: %s %s without a remedy", args, c["id"], c["verdict"])
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%q: causes %q, want %q", args, got, want)
		}
	}
}
