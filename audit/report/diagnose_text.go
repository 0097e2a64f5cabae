package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/hostaudit/hostaudit/audit/diagnose"
)

// DiagnoseText writes a diagnosis for people: the answer first, then what is
// blamed with evidence and remedy, what cannot be told, and what is ruled out.
func DiagnoseText(w io.Writer, r *diagnose.Report, o Options) error {
	p := newPrinter(o)
	s := red
	switch {
	case !r.Causes[0].Accused() && r.ClientSees == diagnose.Connected:
		s = green
	case !r.Causes[0].Accused():
		s = yellow
	}
	p.text(bold, "", "  ", fmt.Sprintf("%s, %s", r.Target, sideWord(r)))
	p.text(s, "", "  ", r.Summary)
	for _, a := range r.Tried {
		line := fmt.Sprintf("%s: %s after %.1f ms", a.To, a.Sees, a.Took*1000)
		if a.Errno != "" {
			line = fmt.Sprintf("%s: %s (%s) after %.1f ms", a.To, a.Sees, a.Errno, a.Took*1000)
		}
		p.text(dim, "  tried ", "        ", line)
	}
	causeGroup(p, r, "Causes", diagnose.Confirmed, diagnose.Likely)
	causeList(p, r, "Cannot be told from here", diagnose.CannotTell)
	causeList(p, r, "Ruled out", diagnose.RuledOut)
	if len(r.Incomplete) > 0 {
		p.heading("Could not be read")
		for _, g := range r.Incomplete {
			p.text(normal, "  ", "    ", g.What+": "+g.Why)
		}
	}
	return p.flush(w)
}

func sideWord(r *diagnose.Report) string {
	from := ""
	if r.From != "" {
		from = " for the client " + r.From
	}
	switch r.Side {
	case diagnose.SideServer:
		return "seen from the server" + from
	case diagnose.SideBoth:
		return "seen from the host that is client and server" + from
	}
	if r.WithServer {
		return "seen from the client, with the server's snapshot" + from
	}
	return "seen from the client"
}

// causeGroup writes the causes of some verdicts, each with its evidence and
// remedy.
func causeGroup(p *printer, r *diagnose.Report, title string, verdicts ...diagnose.Verdict) {
	first := true
	for _, v := range verdicts {
		for _, c := range r.Causes {
			if c.Verdict != v {
				continue
			}
			if first {
				p.heading(title)
				first = false
			}
			p.text(bold, "  ", "    ", fmt.Sprintf("%s, %s: %s", c.ID, c.Verdict, c.Title()))
			for _, e := range c.Evidence {
				p.text(normal, "      ", "        ", e.Source+": "+e.Value)
			}
			if c.Remedy != "" {
				p.text(green, "    "+p.sign("→ ", "-> "), "      ", c.Remedy)
			}
		}
	}
}

// causeList writes the causes of a verdict, those for the same reason together.
func causeList(p *printer, r *diagnose.Report, title string, v diagnose.Verdict) {
	var reasons []string
	names := map[string][]string{}
	for _, c := range r.Causes {
		if c.Verdict != v {
			continue
		}
		why := ""
		if len(c.Evidence) > 0 {
			why = c.Evidence[len(c.Evidence)-1].Value
		}
		if names[why] == nil {
			reasons = append(reasons, why)
		}
		names[why] = append(names[why], string(c.ID))
	}
	if len(reasons) == 0 {
		return
	}
	p.heading(title)
	for _, why := range reasons {
		line := strings.Join(names[why], ", ")
		if why != "" {
			line += ": " + why
		}
		p.text(normal, "  ", "      ", line)
	}
}
