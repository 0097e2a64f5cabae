package checks

import (
	"fmt"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// OpensUnusedPort finds rules that open ports which nothing listens on.
var OpensUnusedPort = &audit.Check{
	ID:       "firewall.opens-unused-port",
	Title:    "a firewall rule opens a port that nothing listens on",
	Severity: audit.Info,
	Doc: `A rule accepts new connections to a port by its number, and no socket of this host is
bound to it. Clients see "connection refused". Either a service is not running or
listens elsewhere, or the rule is left over and can go.

Rules for a range of ports are left out where anything in the range listens.`,
	Refs:   []string{refHooks},
	Causes: []audit.Cause{audit.ConnectionRefused},
	Needs:  []audit.Need{audit.NeedListeners, audit.NeedFirewall},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		for _, o := range p.Openings {
			protos := o.Protos
			if len(protos) == 0 {
				protos = []listeners.Proto{listeners.TCP, listeners.UDP}
			}
			for _, span := range o.Ports {
				used := slices.ContainsFunc(p.Ports, func(port *audit.Port) bool {
					return port.Home() && span.Contains(port.Number()) && slices.Contains(protos, port.Proto())
				})
				if used || len(o.Protos) != 1 {
					continue
				}
				ports := fmt.Sprint(span.Low)
				if span.High != span.Low {
					ports += fmt.Sprintf("-%d", span.High)
				}
				subject := fmt.Sprintf("%s %s", protos[0], ports)
				if slices.ContainsFunc(p.Config.Services, func(s audit.Service) bool { return s.Proto == string(protos[0]) && span.Contains(s.Port) }) {
					continue // service.not-listening says it louder
				}
				p.Report(audit.Finding{
					Subject:  subject,
					Title:    fmt.Sprintf("%s is opened by the firewall, and nothing listens there", subject),
					Why:      ruleName(o.Rule) + " accepts it, and no socket is bound to it",
					Evidence: []audit.Evidence{{Source: "rule", Value: ruleName(o.Rule) + ": " + o.Rule.Text()}},
					Remedy:   "start the service that belongs there, or take the rule away",
				})
			}
		}
		return nil
	},
}
