package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// maxDestinations is how many destinations a screen shows; JSON has them all.
const maxDestinations = 20

// PortsText writes how the local ports are used, for people.
func PortsText(w io.Writer, u *audit.PortUse, o Options) error {
	p := newPrinter(o)
	e := u.Ephemeral
	if e == nil {
		p.text(yellow, "", "  ", "The local ports in use could not be counted.")
		for _, g := range u.Incomplete {
			p.text(normal, "    ", "      ", g.What+": "+g.Why)
		}
		return p.flush(w)
	}
	p.portsVerdict(u)
	room := fmt.Sprintf("%d-%d", e.Range[0], e.Range[1])
	if e.Reserved > 0 {
		room += fmt.Sprintf(" less %s reserved", number(e.Reserved))
	}
	if e.Taken > 0 {
		room += fmt.Sprintf(" less %s that something listens on", number(e.Taken))
	}
	p.text(normal, "", "  ", fmt.Sprintf("%s for connections to each destination (%s); connect() tries one half of them first, %s. In use towards all: %s",
		count(e.Usable, "local port", "local ports"), room, number(e.FirstHalf), number(e.Total)))
	if e.Bound > 0 {
		p.text(normal, "", "  ", fmt.Sprintf("%s of them are bound by number, which no connect() is given: every share counts them.", number(e.Bound)))
	}
	p.blank()
	if len(e.Destinations) == 0 {
		p.text(normal, "", "", "No outgoing connection uses one.")
	} else {
		p.destinations(e)
	}
	p.sources(u)
	p.advice(u.Advice)
	p.gaps(u.Incomplete)
	return p.flush(w)
}

// alike is how many shortages with the same remedies are told one by one.
const alike = 5

// advice says once what fits several shortages in the same way.
func (p *printer) advice(all []audit.PortAdvice) {
	for len(all) > 0 {
		var same, rest []audit.PortAdvice
		for _, a := range all {
			if a.Level == all[0].Level && slices.Equal(a.Steps, all[0].Steps) {
				same = append(same, a)
			} else {
				rest = append(rest, a)
			}
		}
		all = rest
		p.blank()
		s := levelStyle(same[0].Level)
		if len(same) == 1 {
			p.text(s, "", "  ", "What to do about "+same[0].Subject+", in this order")
			p.text(normal, "  ", "  ", same[0].Why)
		} else {
			p.text(s, "", "  ", fmt.Sprintf("What to do about these %s, in this order", number(len(same))))
			for _, a := range same[:min(len(same), alike)] {
				p.text(normal, "  ", "    ", a.Subject+": "+a.Why)
			}
			if n := len(same) - alike; n > 0 {
				p.text(dim, "  ", "    ", fmt.Sprintf("and %s more", number(n)))
			}
		}
		for i, step := range same[0].Steps {
			p.text(normal, fmt.Sprintf("  %d ", i+1), "    ", step)
		}
	}
}

// portsVerdict is the answer in one line.
func (p *printer) portsVerdict(u *audit.PortUse) {
	worst := audit.PortLevel("")
	var about []string
	for _, a := range u.Advice {
		if a.Level == audit.PortsScarce && worst != audit.PortsScarce {
			worst, about = a.Level, nil
		} else if worst == "" {
			worst = a.Level
		}
		if a.Level == worst {
			about = append(about, a.Subject)
		}
	}
	text := "Local ports are not short."
	switch worst {
	case audit.PortsScarce:
		text = `Local ports are nearly used up; connect() is about to fail with "Cannot assign requested address": `
	case audit.PortsHalf:
		text = "Half of the local ports are used up; every connect() takes longer: "
	}
	if n := len(about); n > 0 {
		text += about[0]
		if n > 1 {
			text += " and " + number(n-1) + " more"
		}
	}
	s := levelStyle(worst)
	if worst == "" {
		s = green
	}
	p.text(s, "", "  ", text)
}

func levelStyle(l audit.PortLevel) style {
	switch l {
	case audit.PortsScarce:
		return red
	case audit.PortsHalf:
		return yellow
	}
	return normal
}

func (p *printer) destinations(e *audit.Ephemeral) {
	rows := [][]cell{{{dim, []string{"share"}}, {dim, []string{"in use"}}, {dim, []string{"TIME_WAIT"}}, {dim, []string{"from → to"}}, {dim, []string{"process"}}}}
	for i := range e.Destinations[:min(len(e.Destinations), maxDestinations)] {
		d := &e.Destinations[i]
		rows = append(rows, []cell{{levelStyle(d.Level), []string{percent(d.Share)}}, plainCell(number(int(d.InUse))), plainCell(number(int(d.TimeWait))),
			plainCell(fmt.Sprintf("%s %s → %s", d.Proto, d.From, hostPort(d.To.String(), d.Port))), plainCell(holder(d))})
	}
	p.table("  ", []int{6, 8, 9, 34 + max(0, p.Width-80)/2, 0}, rows)
	if n := len(e.Destinations) - maxDestinations + e.More; n > 0 && len(e.Destinations) >= maxDestinations {
		p.text(dim, "  ", "  ", fmt.Sprintf("and %s quieter destinations (--format json lists %s)", number(n), number(len(e.Destinations))))
	}
}

// holder names who has the sockets, or why nobody can be named.
func holder(d *audit.Destination) string {
	name := ""
	switch {
	case d.Process != nil:
		name = strings.TrimSpace(string(d.Process.Name) + " " + string(d.Process.Unit))
		if d.Process.Container != "" {
			name = string(d.Process.Name) + " in container " + shortID(string(d.Process.Container))
		}
	case d.Unowned == string(listeners.NoPrivilege):
		name = "not visible without more privilege"
	case d.Unowned == string(listeners.OtherPIDNamespace):
		name = "in another pid namespace"
	case d.TimeWait == d.InUse:
		name = "closed: no owner"
	default:
		name = "not known"
	}
	if d.Bound != nil && *d.Bound > 0 {
		name += fmt.Sprintf(" (%s bound by number)", number(int(*d.Bound)))
	}
	return name
}

// sources shows the use that counts for sockets bound before they connect.
func (p *printer) sources(u *audit.PortUse) {
	for i, s := range u.Sources[:min(len(u.Sources), 10)] {
		if i == 0 {
			p.blank()
			p.text(dim, "", "", "By source address, over all destinations (what counts for sockets bound before they connect, and for UDP):")
		}
		line := fmt.Sprintf("%-6s %s %s: %s", percent(s.Share), s.Proto, s.From, count(s.Ports, "port", "ports"))
		if s.Bound {
			line += ", many of them bound before they connect"
		}
		style := normal
		if s.Bound || s.Proto == string(listeners.UDP) {
			style = levelStyle(audit.LevelOf(s.Share))
		}
		p.text(style, "  ", "    ", line)
	}
}
