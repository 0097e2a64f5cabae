package remedy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// unread ends a plan with ErrUnread where what it would be made from was not read: that
// nothing is found then does not mean that there is nothing to mend. What a check could
// not tell for another reason is a note.
func (p *planner) unread() error {
	var missing []string
	lacks := func(what, part string) {
		if why := p.Snapshot.World.Namespaces[0].Unread[part]; why != "" {
			what += ": " + why
		}
		missing = append(missing, what)
	}
	home := p.Snapshot.World.Namespaces[0]
	if p.wanted(portBlocked) {
		if home.Listeners == nil {
			lacks("the listeners", "listeners")
		}
		if home.Ruleset == nil {
			lacks("the rules", "firewall")
		}
		if home.Route == nil {
			lacks("routes and addresses", "routes")
		}
	}
	if p.Snapshot.Sysctls == nil && p.wantsSettings() {
		lacks("the kernel's settings", "sysctls")
	}
	if len(missing) == 0 {
		p.untold(&missing)
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s", ErrUnread, strings.Join(missing, "; "))
	}
	return nil
}

// wantsSettings: a finding that a value of the catalogue mends is asked for.
func (p *planner) wantsSettings() bool {
	if len(p.Findings) == 0 {
		return true
	}
	for _, e := range sysctl.Catalogue() {
		if e.Rule == nil || !e.Setting() {
			continue
		}
		if c := audit.Find(p.Checks, e.ID()); c != nil && slices.ContainsFunc(append(c.FindingIDs(), c.ID), func(id string) bool { return slices.Contains(p.Findings, id) }) {
			return true
		}
	}
	return false
}

// untold are ports of which it could not be told whether they are blocked. Where a part
// of the host was not read and nothing was found, that is no plan.
func (p *planner) untold(missing *[]string) {
	if !p.wanted(portBlocked) {
		return
	}
	var unsure []audit.Unsure
	for _, r := range p.report.Checks {
		if r.ID == portBlocked {
			unsure = r.Unsure
		}
	}
	if len(unsure) == 0 {
		return
	}
	if len(p.findings(portBlocked)) == 0 {
		for _, g := range p.report.Incomplete {
			if !g.Minor && !strings.Contains(g.What, "of network namespace") && (strings.Contains(g.What, "firewall") || strings.Contains(g.What, "rout")) {
				*missing = append(*missing, g.What+": "+g.Why)
			}
		}
		if len(*missing) > 0 {
			return
		}
	}
	const few = 3
	for _, u := range unsure[:min(few, len(unsure))] {
		p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("whether %s is blocked cannot be told: %s", u.Subject, u.Why))
	}
	if n := len(unsure) - few; n > 0 {
		p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("nor of %d more ports, see hostaudit scan", n))
	}
}
