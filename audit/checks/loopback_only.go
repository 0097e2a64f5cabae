package checks

import (
	"fmt"

	"github.com/hostaudit/hostaudit/audit"
)

// LoopbackOnly finds listeners on 127.0.0.1 or ::1 that are meant for others.
var LoopbackOnly = &audit.Check{
	ID:       "listener.loopback-only",
	Title:    "a service for others listens on loopback only",
	Severity: audit.Critical,
	Doc: `A listener bound to 127.0.0.1 or ::1 takes connections from its own host and from
nobody else: every other client sees "connection refused", however open the
firewall is.

That is right for caches, databases and everything behind a local proxy, so it is
reported only where something says that others are meant: services: in the
configuration (then critical), or a firewall rule that opens the port (then a
warning).

The remedy is to bind the service to 0.0.0.0 (or [::] for IPv6 as well), or to
the one address its clients use, and to restart it. Never do that for a service
that is not meant for others; a firewall rule does not replace the loopback
address of a database.`,
	Refs:   []string{refWorkers, refSocket},
	Causes: []audit.Cause{audit.ConnectionRefused},
	Needs:  []audit.Need{audit.NeedListeners},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		for _, port := range p.Ports {
			if !port.Home() || !local(port) || served(p, port) {
				continue
			}
			in, ok := intentOf(p, port)
			if !ok || in.audience.Kind == audit.ForHost {
				continue
			}
			addr := port.Listener.Local.Addr()
			wide := "0.0.0.0"
			if addr.Is6() && !addr.Is4In6() {
				wide = "[::]"
			}
			p.Report(audit.Finding{
				Severity: in.severity(),
				Subject:  port.Subject(),
				Title:    fmt.Sprintf(`%s listens on %s; clients see "connection refused"`, name(port), addr),
				Why:      fmt.Sprintf("only this host itself can connect to %s, and the port is %s", addr, in.words),
				Evidence: []audit.Evidence{listening(port), in.evidence},
				Remedy: fmt.Sprintf("where %s is told to listen, change %s to %s:%d (or to the one address its clients use), then %s",
					plainName(port), port.Listener.Local, wide, port.Number(), restart(port)),
			})
		}
		return nil
	},
}
