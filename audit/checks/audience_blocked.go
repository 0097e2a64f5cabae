package checks

import (
	"fmt"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
)

// AudienceBlocked finds configured services that part of their audience cannot
// reach, for reasons that no closer check names.
var AudienceBlocked = &audit.Check{
	ID:       "service.audience-blocked",
	Title:    "a configured service that its audience cannot reach",
	Severity: audit.Critical,
	Doc: `The configuration says for whom a service is meant (services:), and a client of that
audience does not get through. Where the listener's address or a firewall rule is
the reason, the finding bears their name (listener.loopback-only,
firewall.port-blocked and so on) and this one stays silent; what is left are
routes, the reverse-path filter, other settings of the kernel, full queues and
listeners that are gone.

The evidence names one client address, the interface it comes in by and what
decides; 'hostaudit reach PORT --from ADDRESS --explain' shows its whole way.`,
	Refs:   []string{refWorkers, refHooks},
	Causes: []audit.Cause{audit.ConnectionTimeout, audit.ConnectionRefused},
	Needs:  []audit.Need{audit.NeedListeners, audit.NeedFirewall, audit.NeedRoutes},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		if len(p.Config.Services) == 0 {
			p.NotApplicable()
			return nil
		}
		for _, port := range p.Ports {
			if port.Service == nil || local(port) || port.Service.Audience.Kind == audit.ForHost {
				continue
			}
			c, ok := blocked(p, port, port.Service.Audience)
			if !ok {
				c, ok = otherFamily(p, port)
			}
			if !ok {
				if _, conditions, unsure := uncertain(p, port, port.Service.Audience); unsure {
					p.Unsure(port.Subject(), why(conditions))
				}
				continue
			}
			if byFirewall(c.by) || full(port) || absent(port) {
				continue // firewall.port-blocked, listener.queue-full, listener.address-missing, listener.interface-missing
			}
			if reached(p, port, c) {
				continue // another socket of the same port takes this client
			}
			p.Report(audit.Finding{
				Subject: port.Subject(),
				Title:   fmt.Sprintf("%s cannot be reached by %s; %s", name(port), c.from, seenAs(c.sees)),
				Why:     fmt.Sprintf("%s decides; %s", decider(c.by), "meant for "+port.Service.Audience.String()+" ("+port.Service.Source+")"),
				Evidence: []audit.Evidence{
					{Source: "decided by", Value: string(c.by.Kind) + ": " + decider(c.by)},
					audit.Evidencef("a client", "%s by %s: %s", c.from, c.iif, c.sees),
					listening(port),
				},
				Remedy: fmt.Sprintf("hostaudit reach %d --proto %s --from %s --explain shows where its packets end", port.Number(), port.Proto(), c.from),
				Causes: causesOf(c.sees),
			})
		}
		return nil
	},
}

func absent(port *audit.Port) bool {
	return deaf(port) || port.Listener != nil && port.Namespace.Route != nil && port.Listener.Scope(audit.Locals(port.Namespace)).Kind == "absent-address"
}

// reached says whether another listener of the same port answers the client.
func reached(p *audit.Pass, port *audit.Port, c client) bool {
	return slices.ContainsFunc(p.Ports, func(o *audit.Port) bool {
		if o == port || !o.Home() || o.Proto() != port.Proto() || o.Number() != port.Number() {
			return false
		}
		ans, err := p.Clear(o, c.from)
		return err == nil && ans.Through()
	})
}

// otherFamily finds a client of a network in the audience whose address family the
// listener does not take at all. (Everyone is served by one family.)
func otherFamily(p *audit.Pass, port *audit.Port) (client, bool) {
	if port.Listener == nil || port.Service.Audience.Kind != audit.ForNetworks {
		return client{}, false
	}
	taken := map[string]bool{}
	for _, r := range port.Exposure.Rows {
		taken[r.Family] = true
	}
	for _, n := range port.Service.Audience.Networks {
		family := "ip"
		if n.Addr().Is6() {
			family = "ip6"
		}
		if taken[family] {
			continue
		}
		for a := range candidates(n) {
			ans, err := p.Clear(port, a)
			if err != nil || ans.DecidedBy == nil || ans.Through() || ans.Unsure() {
				continue
			}
			return client{a, ans.Query.Iif, ans.Words(), *ans.DecidedBy}, true
		}
	}
	return client{}, false
}
