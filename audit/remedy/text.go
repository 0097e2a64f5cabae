package remedy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/firewall"
)

// textWidth is how wide lines are made; commands and diffs are never broken, to be
// copied as they are.
const textWidth = 80

// Text is the plan for people. apply says that it is carried out next. Lines may
// hold host text: whoever prints them makes it harmless.
func (p *Plan) Text(ids []string, apply bool) string {
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(wrap(fmt.Sprintf(format, args...), 0)) }
	part := func(name, text string) {
		if text != "" {
			b.WriteString(wrap(fmt.Sprintf("    %-8s %s", name, text), 13))
		}
	}
	things := fmt.Sprintf("%d things", len(p.Changes))
	if len(p.Changes) == 1 {
		things = "1 thing"
	}
	switch {
	case len(p.Changes) == 0:
		line("Nothing to change.")
	case apply:
		line("To be changed: %s.", things)
	default:
		line("Would change %s (nothing has been changed):", things)
	}
	for i, c := range p.Changes {
		line("")
		line("%2d  %s  (%s)", i+1, c.Subject, c.Finding)
		part("owner", c.Owner)
		part("now", c.Before)
		part("then", c.After)
		fmt.Fprintf(&b, "    %-8s %s\n", "by", c.Command)
		if c.Persistent {
			part("lasts", c.Boot)
		} else {
			part("lasts", "NOT: "+c.Boot)
		}
		if c.Restart != "" {
			fmt.Fprintf(&b, "    %-8s %s\n", "restart", c.Restart)
		}
		for _, l := range lines(c.Diff) {
			b.WriteString("    | " + l + "\n")
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
		b.WriteString(wrap("Note: "+n, 6))
	}
	if len(p.Manual) > 0 {
		line("")
		line("Left to you:")
		for _, m := range p.Manual {
			b.WriteString(wrap(fmt.Sprintf("  %s  %s: %s", m.Finding, m.Subject, m.Why), 4))
			b.WriteString(wrap("    "+m.Words, 4))
			for _, l := range lines(m.Diff) {
				b.WriteString("    | " + l + "\n")
			}
		}
	}
	if len(p.Changes) > 0 {
		line("")
		line("Undo:      hostaudit rollback %s", p.ID)
		if !apply {
			line("Apply it:  hostaudit fix %s--apply", strings.Join(append(slices.Clone(ids), ""), " "))
		}
	}
	// Tabs would be escaped as control characters.
	return strings.ReplaceAll(b.String(), "\t", "    ")
}

// wrap breaks a line at blanks; what follows the first part is indented.
func wrap(text string, indent int) string {
	var b strings.Builder
	width := 0
	for i, word := range strings.Split(text, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case width+1+n > textWidth && width > indent && word != "":
			b.WriteString("\n" + strings.Repeat(" ", indent))
			width = indent
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	return b.String() + "\n"
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
			once := ""
			if r.Once != "" {
				once = " after " + r.Once
			}
			line("  %s %s %s by %s (%s)%s", r.Listener, part.verb, sources(r.From, r.Family, p.own), r.Iif, map[string]string{"ip": "IPv4", "ip6": "IPv6"}[r.Family], once)
		}
	}
	line("  Nothing else opens or closes.")
}

// sources names who it is in the shorter of two ways: those in it, or everyone but
// those outside it. Addresses that no client has do not count, this host's own
// among them.
func sources(from []netip.Prefix, family string, own []netip.Prefix) string {
	f := firewall.IPv4
	if family == firewall.IPv6.String() {
		f = firewall.IPv6
	}
	outside := audit.Clients(firewall.All(f.AddrLen()).Minus(ranges(from)).Minus(ranges(own)).AddrPrefixes(f))
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
