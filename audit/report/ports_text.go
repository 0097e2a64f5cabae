package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

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
	p.text(bold, "", "  ", fmt.Sprintf("%s local ports (%d-%d) for connections to each destination; %s in use towards all", number(e.Usable), e.Range[0], e.Range[1], number(e.Total)))
	p.blank()
	if len(e.Destinations) == 0 {
		p.text(normal, "", "", "No outgoing connection uses one.")
	} else {
		rows := [][]cell{{{dim, []string{"share"}}, {dim, []string{"in use"}}, {dim, []string{"TIME_WAIT"}}, {dim, []string{"from → to"}}, {dim, []string{"process"}}}}
		for _, d := range e.Destinations {
			s := normal
			switch {
			case d.Share >= 0.85:
				s = red
			case d.Share >= 0.5:
				s = yellow
			}
			process := "not known (TIME_WAIT has no owner)"
			if d.Process != nil {
				process = strings.TrimSpace(string(d.Process.Name) + " " + string(d.Process.Unit))
			} else if d.TimeWait < d.InUse {
				process = "not known"
			}
			rows = append(rows, []cell{{s, []string{percent(d.Share)}}, plainCell(number(int(d.InUse))), plainCell(number(int(d.TimeWait))),
				plainCell(fmt.Sprintf("%s %s → %s", d.Proto, d.From, hostPort(d.To.String(), d.Port))), plainCell(process)})
		}
		p.table("  ", []int{6, 8, 9, 36 + max(0, p.Width-80)/2, 0}, rows)
	}
	for i, s := range u.Sources {
		if i == 0 {
			p.blank()
			p.text(dim, "", "", "By source address, over all destinations (sockets bound before they connect, and UDP):")
		}
		p.raw("  " + p.clean(fmt.Sprintf("%-6s %s %s: %s ports", percent(s.Share), s.Proto, s.From, number(s.Ports))))
	}
	return p.flush(w)
}
