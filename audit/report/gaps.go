package report

import (
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

// gaps says what could not be read, each reason once.
func (p *printer) gaps(gaps []audit.Gap) {
	if len(gaps) == 0 {
		return
	}
	p.heading("COULD NOT READ")
	whats := map[string][]string{}
	var whys []string
	for _, g := range gaps {
		why := g.Why
		if g.Minor {
			why += " (no answer turns on it)"
		}
		if whats[why] == nil {
			whys = append(whys, why)
		}
		whats[why] = append(whats[why], g.What)
	}
	for _, why := range whys {
		p.text(normal, "    ", "      ", strings.Join(whats[why], "; ")+": "+why)
	}
}
