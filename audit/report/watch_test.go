package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// hostileWatch is a report of a host whose processes, rules and links have names
// that attack a terminal.
func hostileWatch() *diagnose.WatchReport {
	evil := "\x1b[2J\x1b]0;owned\a\nroot# \u202e" + strings.Repeat("a", 300)
	by := &reach.DecidedBy{Kind: reach.ByRule, Backend: "nftables", Family: "inet", Table: "t\x1b[1m", Chain: evil, Number: 1, Text: "drop comment \"" + evil + "\""}
	g := &diagnose.Sighting{At: time.Unix(1000, 0), Proto: "tcp", From: "[fd00::1]:4000", To: "[fd00::2]:80", Interface: audit.Text(evil), SYN: 3, Ended: diagnose.EndDropped,
		Verdict: diagnose.Confirmed, DecidedBy: by, Sentence: audit.Text("dropped by " + evil), Disagreement: evil, Evidence: []audit.Evidence{{Source: evil, Value: evil}},
		Conditions: []reach.Condition{{Object: evil, TurnsOn: evil}}, Process: &diagnose.WatchProcess{PID: 1, Name: audit.Text(evil)}}
	return &diagnose.WatchReport{Schema: diagnose.WatchSchema, Target: "80", Proto: "tcp", Interfaces: []audit.Text{audit.Text(evil), "lo"}, Attempts: 1, Sightings: []*diagnose.Sighting{g},
		Groups: []diagnose.WatchGroup{{Ended: diagnose.EndDropped, DecidedBy: by, Attempts: 1, Clients: 1, Example: evil, What: evil, Remedy: evil}},
		Notes:  []string{evil}, Incomplete: []audit.Gap{{What: evil, Why: evil}}, Summary: audit.Text("1 attempt: " + evil), Remedy: evil}
}

// TestWatchHostile: no text of the host reaches a terminal as it is, in any form;
// lines keep to the width, and ASCII is ASCII.
func TestWatchHostile(t *testing.T) {
	r := hostileWatch()
	for _, o := range []Options{{Width: 80, Exit: -1}, {Width: 40, ASCII: true, Exit: -1}} {
		var b bytes.Buffer
		for _, err := range []error{WatchHead(&b, r, time.Minute, o), WatchLine(&b, r.Sightings[0], o), WatchEnd(&b, r, o)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if strings.ContainsAny(line, "\x1b\a\n\r") || strings.ContainsRune(line, '\u202e') {
				t.Errorf("raw: %q", line)
			}
			if n := cells.StringWidth(line); n > o.Width {
				t.Errorf("%d columns of %d: %s", n, o.Width, line)
			}
			for _, c := range line {
				if o.ASCII && c > '~' {
					t.Errorf("%q in ASCII: %s", c, line)
				}
			}
		}
	}
	var b bytes.Buffer
	for _, err := range []error{JSON(&b, r), WatchNDJSON(&b, "attempt", nil, r.Sightings[0]), WatchNDJSON(&b, "summary", r, nil)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if s := b.String(); strings.ContainsAny(s, "\x1b\a") || strings.ContainsRune(s, '\u202e') {
		t.Error("raw characters in JSON")
	}
	if n := strings.Count(b.String(), "\n{\"type\""); n != 2 {
		t.Errorf("%d lines of NDJSON, want 2", n)
	}
}
