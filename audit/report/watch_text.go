package report

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// WatchHead writes the line that a watch begins with.
func WatchHead(w io.Writer, r *diagnose.WatchReport, span time.Duration, o Options) error {
	p := newPrinter(o)
	var links []string
	for _, l := range r.Interfaces {
		links = append(links, string(l))
	}
	from := ""
	if r.From != "" {
		from = " from " + r.From
	}
	p.text(dim, "", "  ", fmt.Sprintf("Watching %s for connections%s to %s %s (%s, Ctrl-C ends) …", listOf(links, 6), from, r.Proto, r.Target, span))
	return p.flush(w)
}

// listOf joins names: "eth0, eth1 and lo".
func listOf(names []string, most int) string {
	switch n := len(names); {
	case n == 0:
		return "all interfaces"
	case n == 1:
		return names[0]
	case n > most:
		return fmt.Sprintf("%s and %d more interfaces", strings.Join(names[:most-1], ", "), n-most+1)
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
}

// WatchLine writes one attempt.
func WatchLine(w io.Writer, g *diagnose.Sighting, o Options) error {
	p := newPrinter(o)
	s := red
	switch g.Ended {
	case diagnose.EndServed:
		s = green
	case diagnose.EndUnderWay, diagnose.EndGaveUp:
		s = yellow
	}
	room := 21
	if a, err := netip.ParseAddrPort(g.From); err == nil && a.Addr().Is6() {
		room = 34
	}
	from, wire := g.From, packets(g)
	if p.Width >= 72 { // the lines of a stream stand in columns all the same
		from, wire = pad(from, room), pad(wire, 18)
	}
	p.table(" ", []int{8, 47, 22, 0}, [][]cell{{
		{dim, []string{g.At.Local().Format(time.TimeOnly)}}, {normal, []string{from}}, {normal, []string{wire}}, {s, []string{string(g.Sentence)}},
	}})
	if g.Disagreement != "" {
		p.text(yellow, "           ", "             ", "but "+g.Disagreement)
	}
	return p.flush(w)
}

// packets is "SYN ×3, no answer".
func packets(g *diagnose.Sighting) string {
	times := func(name string, n int) string {
		if n < 2 {
			return name
		}
		return name + " ×" + number(n)
	}
	question, answer := "SYN", "SYN-ACK"
	if g.Proto != "tcp" {
		question, answer = "datagram", "answer"
	}
	parts := []string{times(question, g.SYN)}
	if g.SYNACK > 0 {
		parts = append(parts, times(answer, g.SYNACK))
	}
	if g.RST > 0 {
		parts = append(parts, "RST")
	}
	if g.ICMP > 0 {
		parts = append(parts, "ICMP")
	}
	if len(parts) == 1 && g.Ended != diagnose.EndUnderWay {
		parts = append(parts, "no answer")
	}
	return strings.Join(parts, ", ")
}

// WatchEnd writes what a watch comes to: what decided, with one example each, what
// could not be seen, what to do, and last the answer in one sentence.
func WatchEnd(w io.Writer, r *diagnose.WatchReport, o Options) error {
	p := newPrinter(o)
	said, last := 0, ""
	for i := range r.Groups {
		g := &r.Groups[i]
		if g.Ended == diagnose.EndServed || g.Ended == diagnose.EndUnderWay || said == 8 {
			continue
		}
		ex := example(r, g)
		if ex == nil {
			continue
		}
		said++
		p.blank()
		p.text(bold, "", "  ", number(g.Attempts)+" "+g.What)
		const hang = "        "
		if d := g.DecidedBy; d != nil && d.Kind == reach.ByRule {
			p.text(normal, "  rule  ", hang, d.Text)
		}
		p.text(normal, "  from  ", hang, clients(g))
		for n, e := range ex.Evidence {
			lead := hang
			if n == 0 {
				lead = "  seen  "
			}
			p.text(normal, lead, hang+"  ", e.Source+": "+e.Value)
		}
		for _, c := range ex.Conditions {
			p.text(normal, "  on    ", hang, condition(c))
		}
		if ex.Disagreement != "" {
			p.text(yellow, "  but   ", hang, ex.Disagreement)
		}
		if g.Remedy != "" && g.Remedy != last {
			p.text(green, "  do    ", hang, g.Remedy)
			last = g.Remedy
		}
	}
	if r.Attempts == 0 && r.Remedy != "" {
		p.blank()
		p.text(green, "  do    ", "        ", r.Remedy)
	}
	if len(r.Notes)+len(r.Incomplete) > 0 {
		p.blank()
	}
	for _, n := range r.Notes {
		p.text(normal, "  note  ", "        ", n)
	}
	for _, g := range r.Incomplete {
		p.text(yellow, "  not read  ", "            ", g.What+": "+g.Why)
	}
	s := green
	switch {
	case r.Attempts == 0:
		s = yellow
	case r.Failed() > 0:
		s = red
	}
	p.blank()
	p.text(s, "", "", string(r.Summary))
	return p.flush(w)
}

func clients(g *diagnose.WatchGroup) string {
	switch {
	case g.Clients <= 1:
		return g.Example
	case g.Clients >= 1000:
		return fmt.Sprintf("%s and 1000 or more other addresses", g.Example)
	}
	return fmt.Sprintf("%s and %s other address%s", g.Example, number(g.Clients-1), map[bool]string{true: "", false: "es"}[g.Clients == 2])
}

// example is the first attempt of a group.
func example(r *diagnose.WatchReport, g *diagnose.WatchGroup) *diagnose.Sighting {
	for _, s := range r.Sightings {
		if s.Ended == g.Ended && s.Cause == g.Cause && (s.DecidedBy == g.DecidedBy || s.DecidedBy != nil && g.DecidedBy != nil && s.DecidedBy.Text == g.DecidedBy.Text) {
			return s
		}
	}
	return nil
}

// WatchNDJSON gives the lines of a watch for log shippers: the beginning, each
// attempt as it is told, the sum.
func WatchNDJSON(w io.Writer, what string, r *diagnose.WatchReport, g *diagnose.Sighting) error {
	if g != nil {
		return Line(w, typed{what, "", g})
	}
	short := *r
	short.Sightings = nil
	return Line(w, typed{what, r.Schema, &short})
}
