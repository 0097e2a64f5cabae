package remedy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

// portBlocked is the finding that openings mend.
const portBlocked = "firewall.port-blocked"

// firewall plans an opening for every port that a firewall keeps its audience
// from.
func (p *planner) firewall() error {
	fs := p.findings(portBlocked)
	if len(fs) == 0 {
		return nil
	}
	home := p.Snapshot.World.Namespaces[0]
	switch {
	case home.Ruleset == nil:
		return fmt.Errorf("%w: the rules: %s", ErrUnread, home.Unread["firewall"])
	case home.Route == nil:
		return fmt.Errorf("%w: routes and addresses: %s", ErrUnread, home.Unread["routes"])
	}
	host := &owner.Host{Rules: home.Ruleset, Files: p.Files, Present: p.Present}
	all := owner.Detect(host)
	managers := owner.Managers(all)
	if p.Owner != "" {
		if !slices.ContainsFunc(managers, func(o owner.Owner) bool { return o.Kind == p.Owner }) && p.Owner != owner.Nobody {
			return refused(fmt.Errorf("--owner %s: it does not manage this host's ruleset; found: %s", p.Owner, kinds(managers)))
		}
		managers = slices.DeleteFunc(managers, func(o owner.Owner) bool { return o.Kind != p.Owner })
	}
	if len(managers) > 1 {
		return refused(fmt.Errorf("several owners of the ruleset, each of which undoes what the others do: %s; decide for one, or name it with --owner", kinds(managers)))
	}
	for _, o := range all {
		if o.Kind == owner.Panel {
			p.plan.Notes = append(p.plan.Notes, o.Kind.Words())
		}
	}
	for _, f := range fs {
		port := p.portOf(f)
		if port == nil {
			p.published(managers, f)
			continue
		}
		audience, known := audienceOf(port)
		if !known {
			p.manual(f, "nothing says for whom it is meant", fmt.Sprintf("say so in the configuration: services: [{name: NAME, port: %d, proto: %s, audience: everyone}], then run fix again", port.Number(), port.Proto()))
			continue
		}
		if err := p.open(host, managers, port, audience, f); err != nil {
			return err
		}
	}
	return nil
}

// published leaves a port that is translated to elsewhere to whom the rule belongs
// that keeps its clients out.
func (p *planner) published(managers []owner.Owner, f audit.Finding) {
	for _, port := range p.pass.Ports {
		if port.Listener != nil || port.Subject() != f.Subject {
			continue
		}
		for _, r := range port.Exposure.Rows {
			if !keptOut(r) {
				continue
			}
			t := &trial{world: p.world}
			ch, _ := t.decider(firstRefusal(r))
			if ch == nil {
				continue
			}
			who := owner.Of(ch, managers)
			words := who.Words()
			if words == "" {
				words = f.Remedy
			}
			p.manual(f, fmt.Sprintf("the port is translated (DNAT), and %s %s %s of %s decides; rules on that way are never touched", ch.Table.Family, ch.Table.Name, ch.Name, who), words)
			return
		}
	}
	p.manual(f, "the port is not one of this host's own", "")
}

func kinds(os []owner.Owner) string {
	var out []string
	for _, o := range os {
		out = append(out, fmt.Sprintf("%s (%s)", o.Kind, strings.Join(o.Evidence, ", ")))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, "; ")
}

func (p *planner) portOf(f audit.Finding) *audit.Port {
	for _, port := range p.pass.Ports {
		if port.Home() && port.Listener != nil && port.Subject() == f.Subject {
			return port
		}
	}
	return nil
}

// audienceOf is for whom a port is meant: as configured, else as a rule that names
// the port says.
func audienceOf(port *audit.Port) (audit.Audience, bool) {
	if port.Service != nil {
		return port.Service.Audience, port.Service.Audience.Kind != audit.ForHost
	}
	for _, o := range audit.Openings(port.Namespace.Ruleset) {
		if o.Opens(port.Proto(), port.Number()) {
			if len(o.From) > 0 {
				return audit.Audience{Kind: audit.ForNetworks, Networks: o.From}, true
			}
			return audit.Audience{Kind: audit.ForEveryone}, true
		}
	}
	return audit.Audience{}, false
}
