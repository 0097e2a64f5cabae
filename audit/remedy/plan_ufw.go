package remedy

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

// ufw lets the audience in through ufw, where ufw's own order allows it: its user
// rules come before what it drops by default.
func (t *trial) ufw(ch *firewall.Chain, rule *firewall.Rule) error {
	if rule != nil && (strings.Contains(ch.Name, "-user-") || strings.Contains(ch.Name, "-before-")) {
		return &errManual{why: fmt.Sprintf("a rule that ufw was given decides (%s #%d)", ch.Name, rule.Number),
			words: "look at it with ufw status numbered; ufw delete NUMBER takes it away, ufw insert 1 allow … puts an accept before it"}
	}
	if ch.Table.Family == firewall.TableIP6 && t.host.UFWWithoutIPv6() {
		t.noIPv6 = true
		return nil
	}
	if slices.Contains(t.done, "ufw") {
		return &errManual{why: fmt.Sprintf("what ufw allows does not come before %s #%d", ch.Name, ruleNumber(rule))}
	}
	t.done = append(t.done, "ufw")
	mark := t.mark()
	for _, from := range audienceArgs(t.opening.audience) {
		if t.host.UFWWithoutIPv6() && strings.Contains(from, ":") {
			continue // ufw refuses it
		}
		rest := []string{"allow", "proto", t.opening.proto, "from", from, "to", "any", "port", fmt.Sprint(t.opening.port)}
		inst := &owner.Instruction{Owner: owner.UFW, Do: append(append([]string{"ufw"}, rest...), "comment", mark), Undo: append([]string{"ufw", "--force", "delete"}, rest...),
			Files: []string{"/etc/ufw/user.rules", "/etc/ufw/user6.rules"}, Mark: "comment=" + hex.EncodeToString([]byte(mark)), Lasts: true}
		t.steps = append(t.steps, Step{Phase: Live, Tool: inst})
		t.changes = append(t.changes, Change{Finding: t.opening.finding.ID, Kind: "firewall", Subject: t.opening.finding.Subject, Before: "ufw drops it by default",
			After: strings.Join(inst.Do, " "), Persistent: true, Boot: "ufw keeps it in /etc/ufw/user.rules", Command: strings.Join(inst.Do, " "), Owner: string(owner.UFW)})
		mark = t.mark()
	}
	t.marks--
	return t.userRules(owner.UFWChains(t.host.Rules))
}

// userRules puts the accept at the end of the chains where the owner will.
func (t *trial) userRules(chains []owner.Insertion) error {
	if len(chains) == 0 {
		return &errManual{why: "the owner's chains were not found"}
	}
	for _, base := range chains {
		var sources [][]netip.Prefix
		if t.opening.audience.Kind == audit.ForEveryone {
			sources = [][]netip.Prefix{nil}
		} else {
			for _, p := range t.opening.audience.Networks {
				if base.Family.Sees(firewall.FamilyOf(p.Addr())) {
					sources = append(sources, []netip.Prefix{p})
				}
			}
		}
		for _, from := range sources {
			i := base
			i.Proto, i.Port, i.From, i.Comment = t.opening.proto, t.opening.port, from, owner.CommentPrefix+placeholder
			ch := i.InChain(t.world.Namespaces[0].Ruleset)
			i.Number = len(ch.Rules) + 1
			t.apply(&i, ch, nil)
		}
	}
	return nil
}

// audienceArgs are the sources one by one, "any" for everybody.
func audienceArgs(a audit.Audience) []string {
	if a.Kind == audit.ForEveryone {
		return []string{"any"}
	}
	var out []string
	for _, p := range a.Networks {
		out = append(out, p.String())
	}
	return out
}
