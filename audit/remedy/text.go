package remedy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/firewall"
)

// Text is the plan for people. Lines may hold host text: whoever prints them makes
// it harmless.
func (p *Plan) Text(ids []string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	switch n := len(p.Changes); n {
	case 0:
		line("Nothing to change.")
	case 1:
		line("Would change 1 thing (nothing has been changed):")
	default:
		line("Would change %d things (nothing has been changed):", n)
	}
	for _, c := range p.Changes {
		line("")
		line(" %s, managed by %s  (%s)", c.Subject, c.Owner, c.Finding)
		line("   before   %s", c.Before)
		line("   after    %s", c.After)
		line("   by       %s", c.Command)
		lasts := "lasts"
		if !c.Persistent {
			lasts = "NOT for good"
		}
		line("   %-8s %s", lasts, c.Boot)
		if c.Restart != "" {
			line("   restart  %s", c.Restart)
		}
		for _, l := range lines(c.Diff) {
			line("   | %s", l)
		}
	}
	if len(p.Changes) > 0 {
		line("")
		p.effectText(line)
		for _, path := range p.Protected {
			line("An operator's session (%s → :%d) stays reachable, new and established.", path.From, path.Port)
		}
		if p.Risky {
			line("It is kept only when it is confirmed: hostaudit confirm, from a new login.")
		}
	}
	for _, n := range p.Notes {
		line("Note: %s", n)
	}
	if len(p.Manual) > 0 {
		line("")
		line("Left to you:")
		for _, m := range p.Manual {
			line("  %s  %s: %s", m.Finding, m.Subject, m.Why)
			line("    %s", m.Words)
			for _, l := range lines(m.Diff) {
				line("    | %s", l)
			}
		}
	}
	if len(p.Changes) > 0 {
		line("")
		line("Undo: hostaudit rollback %s", p.ID)
		line("Apply it:  hostaudit fix %s--apply", strings.Join(append(slices.Clone(ids), ""), " "))
	}
	return b.String()
}

func (p *Plan) effectText(line func(string, ...any)) {
	if len(p.Effect.Opens) == 0 && len(p.Effect.Closes) == 0 {
		line("Effect on every listener: none opens, none closes.")
		return
	}
	line("Effect on every listener:")
	for _, part := range []struct {
		verb string
		rows []EffectRow
	}{{"opens to", p.Effect.Opens}, {"closes to", p.Effect.Closes}} {
		for _, r := range part.rows {
			line("  %s %s %s by %s (%s)", r.Listener, part.verb, sources(r.From, r.Family), r.Iif, r.Family)
		}
	}
	line("  Nothing else opens or closes.")
}

// sources names who it is in the shorter of two ways: those in it, or everyone but
// those outside it. Addresses that no client has do not count.
func sources(from []netip.Prefix, family string) string {
	f := firewall.IPv4
	if family == firewall.IPv6.String() {
		f = firewall.IPv6
	}
	outside := audit.Clients(firewall.All(f.AddrLen()).Minus(ranges(from)).AddrPrefixes(f))
	switch {
	case len(outside) == 0:
		return "everyone"
	case len(outside) < len(from):
		return "everyone but " + some(outside)
	}
	return some(from)
}

// some names a few of many sources.
func some(from []netip.Prefix) string {
	const few = 4
	out := make([]string, 0, few)
	for _, p := range from[:min(len(from), few)] {
		out = append(out, p.String())
	}
	if n := len(from) - few; n > 0 {
		out = append(out, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(out, ", ")
}
