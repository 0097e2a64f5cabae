package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/audit"
)

// DiffText writes a Diff for people: what it comes to, then findings, listeners and
// settings, then what could not be compared.
func DiffText(w io.Writer, d *Diff, o Options) error {
	p := newPrinter(o)
	p.text(dim, "", "  ", fmt.Sprintf("%s · from %s to %s", d.After.Host, d.Before.TakenAt.UTC().Format(time.RFC3339), d.After.TakenAt.UTC().Format(time.RFC3339)))
	p.blank()
	if d.Before.Host != d.After.Host {
		p.text(yellow, "", "  ", fmt.Sprintf("The earlier report is of another host: %s", d.Before.Host))
	}
	p.text(bold, "", "  ", d.sum())
	for _, f := range d.Findings {
		s := red
		if f.Change == "gone" {
			s = green
		}
		p.text(s, fmt.Sprintf("  %-8s  ", f.Change), "            ", fmt.Sprintf("%s: %s", f.Severity, f.Title))
		p.text(dim, "            ", "            ", f.ID+" · "+f.Subject)
	}
	for _, l := range d.Listeners {
		p.delta(l)
	}
	for _, s := range d.Sysctls {
		text := fmt.Sprintf("%s = %s, was %s", s.Key, valueWord(s.After), valueWord(s.Before))
		if same(s.Before, s.After) {
			text = fmt.Sprintf("%s = %s as before", s.Key, valueWord(s.After))
		}
		if s.RebootBefore != nil && s.RebootAfter != nil && !same(s.RebootBefore, s.RebootAfter) {
			text += fmt.Sprintf("; after a reboot %s, was %s", *s.RebootAfter, *s.RebootBefore)
		}
		p.text(normal, "  setting   ", "            ", text)
	}
	gaps := func(which, consequence string, of, other []audit.Gap) {
		for _, g := range of {
			if !g.Minor && !slices.ContainsFunc(other, func(x audit.Gap) bool { return x.What == g.What }) {
				p.text(yellow, "  unread    ", "            ", fmt.Sprintf("%s in the %s report, so that things may look %s: %s", g.What, which, consequence, g.Why))
			}
		}
	}
	gaps("later", "gone", d.After.Incomplete, d.Before.Incomplete)
	gaps("earlier", "new", d.Before.Incomplete, d.After.Incomplete)
	for _, g := range d.After.Incomplete {
		if !g.Minor && slices.ContainsFunc(d.Before.Incomplete, func(x audit.Gap) bool { return x.What == g.What }) {
			p.text(yellow, "  unread    ", "            ", fmt.Sprintf("%s in both reports: %s", g.What, g.Why))
		}
	}
	return p.flush(w)
}

// sum is what changed, in one line.
func (d *Diff) sum() string {
	if d.Empty() {
		return "Nothing changed."
	}
	n := map[string]int{}
	for _, f := range d.Findings {
		n["finding "+f.Change]++
	}
	for _, l := range d.Listeners {
		n["listener "+l.Change]++
	}
	n["sysctl"] = len(d.Sysctls)
	var parts []string
	for _, x := range [][3]string{
		{"finding new", "new finding", "new findings"}, {"finding severity", "finding of another severity", "findings of another severity"},
		{"finding gone", "finding gone", "findings gone"}, {"listener new", "new listener", "new listeners"}, {"listener gone", "listener gone", "listeners gone"},
		{"listener audience", "other audience", "other audiences"}, {"listener program", "other program", "other programs"}, {"sysctl", "setting changed", "settings changed"},
	} {
		switch c := n[x[0]]; c {
		case 0:
		case 1:
			parts = append(parts, "1 "+x[1])
		default:
			parts = append(parts, fmt.Sprintf("%d %s", c, x[2]))
		}
	}
	return strings.Join(parts, ", ") + "."
}

// delta writes what changed about a listener.
func (p *printer) delta(l ListenerDelta) {
	text := l.Subject
	switch {
	case l.ProgramBefore != "" && l.ProgramAfter != "" && l.ProgramBefore != l.ProgramAfter:
		text += fmt.Sprintf(" (%s, was %s)", l.ProgramAfter, l.ProgramBefore)
	case l.ProgramAfter+l.ProgramBefore != "":
		text += fmt.Sprintf(" (%s)", max(l.ProgramAfter, l.ProgramBefore))
	}
	switch {
	case l.Change == "new":
		text += ": who can connect: " + string(l.ExposureAfter)
	case l.Change == "gone":
		text += ": it could be reached by: " + string(l.ExposureBefore)
	case l.ExposureBefore != l.ExposureAfter:
		text += fmt.Sprintf(": who can connect: %s, was %s", l.ExposureAfter, l.ExposureBefore)
	}
	word := map[string]string{"audience": "reach"}[l.Change]
	if word == "" {
		word = l.Change
	}
	p.text(normal, fmt.Sprintf("  %-8s  ", word), "            ", text)
	if l.Change == "gone" {
		return
	}
	for _, part := range []struct {
		style style
		word  string
		of    []Sources
	}{{red, "gets in now", l.Opened}, {green, "no longer gets in", l.Closed}, {yellow, "cannot be told in one of the reports", l.Unsure}} {
		for _, s := range part.of {
			if s.Iif != "lo" { // the host itself is nobody's audience
				p.text(part.style, "            ", "              ", part.word+": "+s.words())
			}
		}
	}
	if l.NotCompared != "" {
		p.text(yellow, "            ", "              ", "the sources were not compared, "+l.NotCompared)
	}
}

func (s Sources) words() string {
	family := map[string]string{"ip": "IPv4", "ip6": "IPv6"}[s.Family]
	from := networks(s.From)
	if s.Everyone {
		from = "everyone"
	}
	return fmt.Sprintf("%s by %s (%s)", from, s.Iif, family)
}

func same(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

func valueWord(s *string) string {
	if s == nil {
		return "absent or not read"
	}
	return *s
}
