package checks

import (
	"fmt"

	"github.com/hostaudit/hostaudit/audit"
)

// AudienceExceeded finds configured services that others than their audience
// can reach.
var AudienceExceeded = &audit.Check{
	ID:       "service.audience-exceeded",
	Title:    "a configured service that others than its audience can reach",
	Severity: audit.Critical,
	Doc: `The configuration says for whom a service is meant (services:), and a client outside
that audience gets through to it. The evidence names one such client.

The remedy is to bind the service to the address its audience uses (127.0.0.1 for
'audience: host'), and to accept its port from its networks only. Filters before
this host (a cloud's security group, a router) cannot be seen from here and may
keep that client out all the same.`,
	Refs:  []string{refSocket, refHooks},
	Needs: []audit.Need{audit.NeedListeners, audit.NeedFirewall, audit.NeedRoutes},
	Fix:   audit.FixManual,
	Run: func(p *audit.Pass) error {
		if len(p.Config.Services) == 0 {
			p.NotApplicable()
			return nil
		}
		for _, port := range p.Ports {
			s := port.Service
			if s == nil || s.Audience.Kind == audit.ForEveryone {
				continue
			}
			c, ok := stranger(p, port, s.Audience)
			if !ok {
				continue
			}
			meant, bind := "this host only", "127.0.0.1"
			if s.Audience.Kind == audit.ForNetworks {
				meant, bind = s.Audience.String(), "the address its clients use"
			}
			p.Report(audit.Finding{
				Subject: port.Subject(),
				Title:   fmt.Sprintf("%s is meant for %s, and %s can connect", name(port), meant, c.from),
				Why:     fmt.Sprintf("the service is meant for %s (%s); %s gets through by %s", meant, s.Source, c.from, c.iif),
				Evidence: []audit.Evidence{
					audit.Evidencef("a client", "%s by %s: %s", c.from, c.iif, c.sees),
					{Source: "let in by", Value: decider(c.by)},
					listening(port),
				},
				Remedy: fmt.Sprintf("bind %s to %s, or accept %s from %s only", plainName(port), bind, portWords(port.Proto(), port.Number()), meant),
				Causes: []audit.Cause{},
			})
		}
		return nil
	},
}
