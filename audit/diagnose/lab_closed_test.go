package diagnose_test

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

func verdictOf(r *diagnose.Report, id diagnose.ID) diagnose.Verdict {
	i := slices.IndexFunc(r.Causes, func(c diagnose.Cause) bool { return c.ID == id })
	return r.Causes[i].Verdict
}

// TestClosedAtHello: a listener that closes at a ClientHello and at a request has
// not shown that it speaks TLS.
func TestClosedAtHello(t *testing.T) {
	t.Parallel()
	f := newField(t)
	f.server.Serve(t, "tcp", "0.0.0.0:8080", func(c net.Conn) { _, _ = c.Read(make([]byte, 64)) })
	for _, target := range []string{"wss://198.51.100.20:8080/", "https://198.51.100.20:8080/", "ssl://198.51.100.20:8080"} {
		for _, at := range []place{onClient, onServer} {
			r := f.ask(t, at, target, diagnose.Options{Probe: true})
			if v := verdictOf(r, diagnose.TLSMismatch); v == diagnose.RuledOut {
				t.Errorf("%s %s: TLS is ruled out\n%s", at, target, text(t, r))
			}
			if s := flat(t, r); strings.Contains(s, "stays silent") || !strings.Contains(s, "fails") {
				t.Errorf("%s %s: it closes\n%s", at, target, s)
			}
		}
	}
	// The control: an URL without TLS is asked in plain text first.
	if r := f.ask(t, onClient, "ws://198.51.100.20:8080/", diagnose.Options{Probe: true}); verdictOf(r, diagnose.TLSMismatch) != diagnose.RuledOut {
		t.Errorf("ws: TLS is not ruled out\n%s", text(t, r))
	}
}

// TestProbeOfNothing: who gave --probe is not told to give it, where there was
// nothing to ask.
func TestProbeOfNothing(t *testing.T) {
	t.Parallel()
	f := newField(t)
	loads(lab.NFT, "table inet f { chain i { type filter hook input priority 0; policy drop; tcp dport 8080 limit rate 5/second accept; }; }")(t, f)
	for _, at := range []place{onClient, onServer} {
		r := f.ask(t, at, "ws://198.51.100.20:8080/", diagnose.Options{Probe: true})
		if s := flat(t, r); strings.Contains(s, "--probe") {
			t.Errorf("%s: %s", at, s)
		}
	}
}
