package report

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// hostileHTML is a report whose host texts try to be markup.
func hostileHTML() *audit.Report {
	const evil = `</svg><script>alert(1)</script>"'&<img src=x onerror=alert(1)>` + "\x1b[2J\u202e"
	from := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	return &audit.Report{Verdict: "one port is blocked", Host: audit.Host{Name: evil, OS: evil, Tool: evil},
		Listeners: []audit.ListenerRow{{Proto: "tcp", Address: "0.0.0.0", Port: 8080, NetNS: evil, Process: &audit.ProcessRow{Name: evil, PID: 7}, Exposure: reach.Nobody,
			Partition: []reach.Row{
				{From: from, Iif: "eth0" + evil, Family: "ip", ClientSees: reach.Timeout, DecidedBy: reach.DecidedBy{Kind: reach.ByRule, Backend: "nftables", Family: "inet", Table: "filter", Chain: evil, Number: 4, Text: evil}},
				{From: from, Iif: "eth1", Family: "ip", ClientSees: reach.Refused, DecidedBy: reach.DecidedBy{Kind: reach.ByNoListener, Text: "nothing listens"}},
				{From: from, Iif: "eth2", Family: "ip", ClientSees: reach.Connected, DecidedBy: reach.DecidedBy{Kind: reach.ByOpen}},
			}}},
		Findings: []audit.Finding{{ID: "firewall.port-blocked", Severity: audit.Critical, Title: evil, Subject: evil, Why: evil, Remedy: evil, Evidence: []audit.Evidence{{Source: evil, Value: evil}}}},
	}
}

// TestHTML: nothing of the host becomes markup, and what decides stands there.
func TestHTML(t *testing.T) {
	var b bytes.Buffer
	if err := HTML(&b, hostileHTML(), Options{}); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, bad := range []string{"<script", "<img", "<svg", "</svg>", "\x1b", "\u202e", "http://", "https://", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	for _, want := range []string{"&lt;script&gt;", "nftables inet filter", "#4", "eth1", "nothing listens", "one port is blocked", `width=device-width`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// Two ways end in a cross and one in a tick.
	for mark, n := range map[string]int{"&#10007;": 2, "&#10003;": 1, "decides here:": 2} {
		if got := strings.Count(page, mark); got != n {
			t.Errorf("%s stands %d times, want %d", mark, got, n)
		}
	}
	var again bytes.Buffer
	if err := HTML(&again, hostileHTML(), Options{}); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("two renderings differ: %v", err)
	}
}
