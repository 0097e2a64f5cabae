package checks

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// PortBlocked finds ports whose clients a firewall keeps out.
var PortBlocked = &audit.Check{
	ID:       "firewall.port-blocked",
	Title:    "a firewall rule or policy keeps clients from a port",
	Severity: audit.Critical,
	Doc: `Something listens for others, and a rule or policy of a firewall on this host keeps
them out: in nftables, iptables-nft or iptables-legacy, for IPv4 or IPv6, before
or behind address translation, or on the answer's way back. The finding names the
one rule or policy that decides. Other tools may show "open" all the while: an
accept in one table or back end does not undo a drop in another.

It is critical where services: names the port and part of its audience is kept
out. Otherwise it is a warning where one rule opens the port and another closes
it, and where a listener on every address is reached by nobody at all; databases
and the like, which a firewall is meant to shield, are left out. So it is where a
port is published to a container and every packet is dropped on its way there.

The remedy is the smallest accept, in the language of whatever manages the
ruleset, before what decides. Switching the firewall off proves nothing that the
model has not already shown.`,
	Refs:   []string{refWorkers, refHooks},
	Causes: []audit.Cause{audit.ConnectionTimeout, audit.ConnectionRefused},
	Needs:  []audit.Need{audit.NeedListeners, audit.NeedFirewall, audit.NeedRoutes},
	Fix:    audit.FixAutomatic,
	Run: func(p *audit.Pass) error {
		for _, port := range p.Ports {
			if !port.Home() || local(port) {
				continue
			}
			in, known := intentOf(p, port)
			if !known {
				unmeant(p, port)
				continue
			}
			if in.audience.Kind == audit.ForHost {
				continue
			}
			c, ok := blocked(p, port, in.audience)
			if !ok {
				if _, conditions, unsure := uncertain(p, port, in.audience); unsure {
					p.Unsure(port.Subject(), why(conditions))
				}
				continue
			}
			if !byFirewall(c.by) {
				continue // other checks speak
			}
			report(p, port, in.severity(), c, in.words, in.evidence)
		}
		return nil
	},
}

// unmeant judges a port that nothing says anything about: a TCP listener on every
// address that the firewall keeps from everybody. An unconnected UDP socket is
// usually a client of something.
func unmeant(p *audit.Pass, port *audit.Port) {
	if port.Published != nil {
		unmeantPublished(p, port)
		return
	}
	if port.Listener == nil || !wildcard(port) || port.Exposure.Who != reach.Nobody && port.Exposure.Who != reach.HostOnly {
		return
	}
	if port.Proto() != listeners.TCP && !isWellKnown(port) || shielded(port) {
		return
	}
	c, ok := blocked(p, port, everyone)
	if !ok || !byFirewall(c.by) {
		return
	}
	report(p, port, audit.Warning, c, "it listens on every address of the host", audit.Evidence{})
}

// unmeantPublished judges a port that is translated to a container, which all
// clients from outside are kept from.
func unmeantPublished(p *audit.Pass, port *audit.Port) {
	if port.Exposure.Who != reach.Nobody && port.Exposure.Who != reach.HostOnly {
		return
	}
	aimed := slices.ContainsFunc(port.Exposure.Rows, func(r reach.Row) bool { return r.Iif != "lo" && r.Translated() })
	c, ok := blocked(p, port, everyone)
	if !ok || !aimed || !byFirewall(c.by) {
		return
	}
	// A proxy of the container engine that listens on the same port has its own finding.
	if slices.ContainsFunc(p.Ports, func(other *audit.Port) bool {
		return other.Home() && other.Listener != nil && wildcard(other) && other.Proto() == port.Proto() && other.Number() == port.Number()
	}) {
		return
	}
	report(p, port, audit.Warning, c, "it is published to "+port.Published.To.NetNS, audit.Evidence{})
}

func report(p *audit.Pass, port *audit.Port, severity audit.Severity, c client, meant string, evidence audit.Evidence) {
	f := audit.Finding{
		ID:       "firewall.port-blocked",
		Severity: severity,
		Subject:  port.Subject(),
		Title:    fmt.Sprintf("%s is blocked by the firewall; %s", name(port), seenAs(c.sees)),
		Why:      fmt.Sprintf("%s decides; %s", deciderName(c.by), meant),
		Evidence: []audit.Evidence{
			{Source: "decided by", Value: decider(c.by)},
			audit.Evidencef("a client", "%s by %s: %s", c.from, c.iif, c.sees),
			listening(port),
		},
		Remedy: fmt.Sprintf("let %s in before %s, through whatever manages that ruleset, and no more than that", portWords(port.Proto(), port.Number()), short(c.by)),
		Causes: causesOf(c.sees),
	}
	if port.Listener == nil {
		f.Fix = audit.FixManual // published by a container engine, whose rules are its own
		to := port.Published.To
		if addr, err := netip.ParseAddr(to.Address); err == nil {
			f.Remedy = fmt.Sprintf("let %s, which rules behind the translation see as %s, in before %s, through whatever manages that ruleset, and no more than that",
				portWords(port.Proto(), port.Number()), netip.AddrPortFrom(addr, to.Port), short(c.by))
		}
	} else {
		f.Remedy += "; hostaudit fix " + f.ID + " shows the change and its effect"
	}
	if evidence.Source != "" {
		f.Evidence = append(f.Evidence, evidence)
	}
	if r := c.by.Rule; r != nil && r.Packets >= 0 {
		f.Evidence = append(f.Evidence, audit.Evidencef("counter of the rule", "%d packets so far", r.Packets))
	}
	p.Report(f)
}

// short names what decided without its text.
func short(d reach.DecidedBy) string {
	d.Text = ""
	switch d.Kind {
	case reach.ByRule:
		if d.Number == 0 {
			return "the rules that decide"
		}
		return "#" + fmt.Sprint(d.Number) + " of " + d.Chain
	case reach.ByPolicy:
		return "the policy of " + d.Chain + " applies"
	default:
		return "it"
	}
}

// why joins the conditions of an uncertain answer.
func why(cs []reach.Condition) string {
	if len(cs) == 0 {
		return "it cannot be told"
	}
	c := cs[0]
	what := c.Object
	if what == "" {
		family := ""
		if c.Backend == "nftables" { // elsewhere the names of tables are those of a family
			family = c.Family + " "
		}
		what = fmt.Sprintf("%s %s%s %s #%d (%s)", c.Backend, family, c.Table, c.Chain, c.Number, c.Text)
	}
	s := fmt.Sprintf("it depends on %s: %s", what, c.TurnsOn)
	if n := len(cs) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}
