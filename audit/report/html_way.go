package report

import (
	"github.com/mattn/go-runewidth"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// Sizes of the picture, in its own units.
const (
	laneHeight = 46
	maxLanes   = 12
	maxLabel   = 26 // characters that fit into a box
)

// lane is one line of the picture of a port: from a part of the sources by an
// interface through programs, rules and routes to the socket, as far as it goes.
type lane struct {
	Y                       int
	From, Iif, By, End      string // By stands in the middle box, End in the last one
	Tone                    string // ok, bad, unsure
	Full                    string // everything, for those who hold the mouse over it
	StopsBefore, StopsAtEnd bool   // ends at the middle box; ends at the last box
}

// lanes draws the rows of a partition. Parts that the kernel refuses on that
// interface by itself are nobody's clients and are not drawn; more says how many
// others did not fit.
func lanes(rows []reach.Row) (all []lane, more int) {
	for _, r := range rows {
		from := audit.Clients(r.From)
		if r.DecidedBy.Kind == reach.ByRoute || r.DecidedBy.Kind == reach.ByRPFilter || len(from) == 0 {
			continue
		}
		if len(all) == maxLanes {
			more++
			continue
		}
		head, text := deciding(r.DecidedBy)
		l := lane{Y: len(all)*laneHeight + 30, From: label(networks(from)), Iif: label(r.Iif), By: "nothing in the way", End: r.Words()}
		l.Full = networks(from) + " by " + r.Iif + ": " + r.Words() + "; " + head + " " + text
		switch r.DecidedBy.Kind {
		case reach.ByNoListener, reach.ByBindAddress, reach.ByBacklog:
			l.StopsAtEnd = true
			l.End = r.Words() + ": " + head
		default:
			if head != "" {
				l.By = head
			}
		}
		switch {
		case r.Through():
			l.Tone = "ok"
		case r.Unsure():
			l.Tone = "unsure"
		default:
			l.Tone = "bad"
			l.StopsBefore = !l.StopsAtEnd
		}
		l.By, l.End = label(l.By), label(l.End)
		all = append(all, l)
	}
	return all, more
}

// label cuts a text to what fits into a box of the picture.
func label(s string) string { return runewidth.Truncate(clean(s, false), maxLabel, "…") }
