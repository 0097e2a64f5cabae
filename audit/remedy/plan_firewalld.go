package remedy

import (
	"fmt"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

// firewalld lets the audience in through the zone of the interface that its
// clients come in by: at run time first, for good when that is verified.
func (t *trial) firewalld(row reach.Row) error {
	zone, chains := owner.FirewalldZone(t.world.Namespaces[0].Ruleset, row.Iif)
	if zone == "" {
		return &errManual{why: "the zone of " + row.Iif + " was not found", words: fmt.Sprintf("firewall-cmd --get-zone-of-interface=%s; firewall-cmd --zone=ZONE --add-port=%d/%s, and again with --permanent", row.Iif, t.opening.port, t.opening.proto)}
	}
	if slices.Contains(t.done, "zone "+zone) {
		return &errManual{why: fmt.Sprintf("what the zone %s allows does not come before %s", zone, firstRefusal(row).Chain)}
	}
	t.done = append(t.done, "zone "+zone)
	var what []string
	if t.opening.audience.Kind == audit.ForEveryone {
		what = []string{fmt.Sprintf("port=%d/%s", t.opening.port, t.opening.proto)}
	}
	for _, p := range t.opening.audience.Networks {
		family := "ipv4"
		if !p.Addr().Is4() {
			family = "ipv6"
		}
		what = append(what, fmt.Sprintf(`rich-rule=rule family="%s" source address="%s" port port="%d" protocol="%s" accept`, family, p, t.opening.port, t.opening.proto))
	}
	for _, w := range what {
		for _, phase := range []Phase{Live, Persist} {
			argv := func(verb string) []string {
				out := []string{"firewall-cmd"}
				if phase == Persist {
					out = append(out, "--permanent")
				}
				return append(out, "--zone="+zone, "--"+verb+"-"+w)
			}
			t.steps = append(t.steps, Step{Phase: phase, Tool: &owner.Instruction{Owner: owner.Firewalld, Do: argv("add"), Undo: argv("remove"), Query: argv("query"), Lasts: phase == Persist}})
		}
		t.changes = append(t.changes, Change{Finding: t.opening.finding.ID, Kind: "firewall", Subject: t.opening.finding.Subject, Before: "zone " + zone + " rejects it",
			After: w, Persistent: true, Boot: "firewalld keeps it in its zone " + zone, Owner: string(owner.Firewalld),
			Command: fmt.Sprintf("firewall-cmd --zone=%s --add-%s; and the same with --permanent", zone, w)})
	}
	return t.userRules(chains)
}
