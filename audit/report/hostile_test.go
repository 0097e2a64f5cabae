package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// evil is what a process, a rule or a file may say of itself.
const evil = "x\x1b]0;owned\x07\n\r\x00\u202e\u200b\u009b31m\xff\xfe|\"'<>&{}%s\\"

// hostile is a report in which every text of the host is evil.
func hostile() *audit.Report {
	rule := reach.DecidedBy{Kind: reach.ByRule, Backend: "nftables", Family: "inet", Table: evil, Chain: evil, Number: 3, Text: evil, Namespace: evil}
	rows := []reach.Row{
		{From: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/1")}, Iif: evil, Family: "ip", ClientSees: reach.Timeout, DecidedBy: rule, Conditions: []reach.Condition{}},
		{From: []netip.Prefix{netip.MustParsePrefix("128.0.0.0/1")}, Iif: evil, Family: "ip", ClientSees: reach.Connected, DecidedBy: rule, Conditions: []reach.Condition{}},
		{From: []netip.Prefix{netip.MustParsePrefix("::/0")}, Iif: evil, Family: "ip6", ClientSees: reach.Depends, DecidedBy: rule,
			Conditions: []reach.Condition{{Object: evil, TurnsOn: evil, Namespace: evil}}},
	}
	l := listeners.Listener{Socket: listeners.Socket{Proto: listeners.TCP, Local: netip.MustParseAddrPort("0.0.0.0:80"), Device: listeners.Device{Index: 3, Name: evil}, Accept: listeners.Queue{Limit: 5}},
		Owners: []listeners.Process{{PID: 1, Comm: evil, Unit: evil, User: evil, Command: evil}}}
	port := &audit.Port{Listener: &l, Namespace: &reach.Namespace{Name: evil}, Exposure: reach.Exposure{Who: reach.Some, Rows: rows}}
	process := &audit.ProcessRow{PID: 1, Name: evil, Unit: evil, User: evil, Command: evil, Container: evil}
	live := evil
	finding := func(s audit.Severity) audit.Finding {
		return audit.Finding{ID: "listener.loopback-only", Severity: s, Subject: evil + string(s), Title: evil, Why: evil, Remedy: evil, Fix: audit.FixManual,
			Evidence: []audit.Evidence{{Source: "/etc/" + evil + ":3", Value: evil}}, Causes: []audit.Cause{}, Refs: []string{}}
	}
	accepted := finding(audit.Warning)
	accepted.Subject, accepted.Accepted = "s", &audit.Accepted{Reason: evil, Source: evil}
	expired := finding(audit.Critical)
	expired.Subject, expired.Expired = "e", &audit.Accepted{Reason: evil, Source: evil, Until: "2020-01-01"}
	return &audit.Report{
		Schema: audit.ScanSchema, Verdict: evil, Host: audit.Host{Name: evil, OS: evil, Kernel: evil, Tool: evil, TakenAt: time.Unix(0, 0).UTC(), Backends: []string{}},
		Listeners: []audit.ListenerRow{{Proto: "tcp", Address: "0.0.0.0", Port: 80, Device: evil, NetNS: evil, Process: process, Exposure: reach.Some, Partition: rows, Of: port,
			Backlog: &audit.Backlog{Limit: 5}}},
		Published: []audit.PublishedRow{{Proto: "tcp", Port: 80, To: reach.Delivered{NetNS: evil, Address: "10.0.0.1", Port: 1, Listener: evil}, Of: &audit.Port{
			Namespace: &reach.Namespace{}, Published: &reach.Published{Port: 80, Proto: 6}, Exposure: reach.Exposure{Who: reach.Nobody, Rows: rows[:1]}}}},
		Sysctls: []audit.SysctlRow{{Key: "net.ipv4.tcp_tw_reuse", Live: &live, Verdict: "wrong", Why: evil, Persisted: []audit.Persisted{{Value: evil, File: evil}}}},
		Ephemeral: &audit.Ephemeral{Range: []int{1, 2}, Usable: 2, Destinations: []audit.Destination{{Proto: "tcp", From: netip.MustParseAddr("10.0.0.1"),
			To: netip.MustParseAddr("10.0.0.2"), Port: 1, Process: process}}},
		Findings:    []audit.Finding{expired, finding(audit.Critical), finding(audit.Warning), finding(audit.Info), accepted},
		Checks:      []audit.Result{{ID: "a.b", Status: audit.Unknown, Unsure: []audit.Unsure{{Subject: evil, Why: evil}}}},
		Incomplete:  []audit.Gap{{What: evil, Why: evil}},
		Timings:     map[string]float64{},
		IdleAccepts: []audit.IdleAccept{{ID: evil, Subject: evil, Source: evil}},
	}
}

// harmlessText: lines of printable characters and nothing else.
func harmlessText(t *testing.T, what, text string, ascii bool) {
	t.Helper()
	for _, r := range strings.ReplaceAll(text, "\n", "") {
		if !unicode.IsPrint(r) || r == '\ufffd' || ascii && r > '~' {
			t.Errorf("%s holds %U:\n%s", what, r, text)
			return
		}
	}
	if strings.Contains(text, "owned\x07") || !strings.Contains(text, "owned") {
		t.Errorf("%s does not show what the host said", what)
	}
}

func TestHostileText(t *testing.T) {
	r := hostile()
	for _, ascii := range []bool{false, true} {
		for _, width := range []int{40, 80, 200} {
			var b bytes.Buffer
			if err := Text(&b, r, Options{Width: width, ASCII: ascii, Exit: 1}); err != nil {
				t.Fatal(err)
			}
			harmlessText(t, "text", b.String(), ascii)
			for line := range strings.Lines(b.String()) {
				if w := cells.StringWidth(strings.TrimRight(line, "\n")); w > width {
					t.Errorf("width %d: line of %d columns: %q", width, w, line)
				}
			}
			b.Reset()
			a := reach.Answer{Query: reach.QueryJSON{Proto: "tcp", From: "10.0.0.1", Port: 80, Iif: evil}, ClientSees: reach.Timeout, DecidedBy: &r.Listeners[0].Partition[0].DecidedBy,
				DeliveredTo: &r.Published[0].To, Conditions: r.Listeners[0].Partition[2].Conditions,
				Lines: []reach.Line{{Stage: "input", Chain: evil, Text: evil, Why: evil, Namespace: evil}, {Text: evil}}}
			if err := ReachText(&b, a, Options{Width: width, ASCII: ascii}); err != nil {
				t.Fatal(err)
			}
			a.Partition, a.Query.Iif = r.Listeners[0].Partition, ""
			if err := ReachText(&b, a, Options{Width: width, ASCII: ascii}); err != nil {
				t.Fatal(err)
			}
			harmlessText(t, "reach", b.String(), ascii)
			b.Reset()
			if err := PortsText(&b, &audit.PortUse{Ephemeral: r.Ephemeral}, Options{Width: width, ASCII: ascii}); err != nil {
				t.Fatal(err)
			}
			harmlessText(t, "ports", b.String(), ascii)
		}
	}
	var b bytes.Buffer
	if err := Nagios(&b, r, Options{}); err != nil {
		t.Fatal(err)
	}
	harmlessText(t, "nagios", b.String(), false)
	if strings.Count(b.String(), "|") != 1 || strings.Count(b.String(), "\n") != 1 {
		t.Errorf("nagios is not one line with one bar: %q", b.String())
	}
}

// TestHostileData: every form stays well formed, and JSON keeps the bytes that
// it can hold.
func TestHostileData(t *testing.T) {
	r := hostile()
	render := func(format string) string {
		var b bytes.Buffer
		if err := Scan(&b, format, r, nil, Options{}); err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		for _, c := range strings.ReplaceAll(b.String(), "\n", "") {
			if c != '\ufffd' && !unicode.IsPrint(c) && format != "junit" {
				t.Errorf("%s holds a raw %U", format, c)
				break
			}
		}
		return b.String()
	}
	var back struct {
		Schema    string
		Listeners []struct{ Process struct{ Name string } }
		Findings  []struct{ Title string }
	}
	if err := json.Unmarshal([]byte(render("json")), &back); err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(strings.ReplaceAll(evil, "\xff", `\xff`), "\xfe", `\xfe`)
	if back.Schema != audit.ScanSchema || back.Listeners[0].Process.Name != want {
		t.Errorf("json: name %q, want %q", back.Listeners[0].Process.Name, want)
	}
	for line := range strings.Lines(render("ndjson")) {
		if !json.Valid([]byte(line)) {
			t.Errorf("ndjson: not an object: %s", line)
		}
	}
	x := xml.NewDecoder(strings.NewReader(render("junit")))
	for {
		if _, err := x.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("junit: %v", err)
		}
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(strings.NewReader(render("prometheus")))
	if err != nil || families["hostaudit_finding"] == nil {
		t.Errorf("prometheus: %v", err)
	}
	rep, err := sarif.FromString(render("sarif"))
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Runs[0].Results) != len(r.Findings) {
		t.Errorf("sarif: %d results, want %d", len(rep.Runs[0].Results), len(r.Findings))
	}
}
