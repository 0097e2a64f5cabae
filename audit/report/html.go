package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
)

//go:embed html.tmpl
var htmlPage string

// HTML writes the report of a scan as one file: no script, nothing loaded from
// anywhere (the page's own policy forbids it), readable on a phone. Host text is
// cleaned as everywhere and then escaped by html/template for its place.
func HTML(w io.Writer, r *audit.Report, o Options) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"clean": func(v any) string { return clean(fmt.Sprint(v), false) },
	}).Parse(htmlPage)
	if err != nil {
		return fmt.Errorf("parse the page: %w", err)
	}
	if err := t.Execute(w, htmlOf(r, &artist{ask: o.Ask})); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// htmlView is what the page shows.
type htmlView struct {
	*audit.Report
	Headline, Tone, Taken string
	Ports                 []htmlPort
	Findings              []audit.Finding
	Accepted              []audit.Finding
}

// htmlPort is one port and the ways to it.
type htmlPort struct {
	Name, Process, Who, Tone string
	Service                  string
	Ways                     []way
	More                     int    // ways that are not drawn
	LeftOut                  string // why there are none
	Rows                     []htmlRow
}

// htmlRow is a row of the partition in words, in full.
type htmlRow struct{ From, Iif, Sees, Decides, Text string }

func htmlOf(r *audit.Report, a *artist) htmlView {
	v := htmlView{Report: r, Headline: strings.Join(headline(r), " · "), Tone: "ok", Taken: r.Host.TakenAt.UTC().Format("2006-01-02 15:04:05 UTC")}
	switch {
	case r.Reaches(audit.Critical):
		v.Tone = "bad"
	case r.Reaches(audit.Warning) || !r.Complete():
		v.Tone = "unsure"
	}
	for _, f := range r.Findings {
		if f.Accepted != nil {
			v.Accepted = append(v.Accepted, f)
		} else {
			v.Findings = append(v.Findings, f)
		}
	}
	for i := range r.Listeners {
		l := &r.Listeners[i]
		p := htmlPort{Name: l.Proto + " " + hostPort(l.Address, l.Port)}
		if l.NetNS != "" {
			p.Name += " in " + string(l.NetNS)
		}
		if l.Process != nil {
			p.Process = string(l.Process.Name) + " (" + strconv.Itoa(l.Process.PID) + ")"
		} else {
			p.Process = l.Unowned
		}
		p.LeftOut = l.PartitionLeftOut
		p.say(l.Exposure, l.Partition, l.Service)
		draw := a
		if l.NetNS != "" {
			draw = &artist{} // questions are about the audited namespace
		}
		q := query(l.Proto, l.Port)
		if to, err := netip.ParseAddr(l.Address); err == nil && !to.IsUnspecified() {
			q.To = to
		}
		p.Ways, p.More = draw.ways(l.Partition, q, string(p.Process))
		v.Ports = append(v.Ports, p)
	}
	for i := range r.Published {
		l := &r.Published[i]
		p := htmlPort{Name: l.Proto + " " + strconv.Itoa(int(l.Port)), Process: "published, to " + hostPort(l.To.Address, l.To.Port)}
		if l.To.NetNS != "" {
			p.Process += " in " + l.To.NetNS
		}
		p.say(l.Exposure, l.Partition, l.Service)
		p.Ways, p.More = a.ways(l.Partition, query(l.Proto, l.Port), p.Process)
		v.Ports = append(v.Ports, p)
	}
	return v
}

// query asks about a port as clients dial it.
func query(proto string, port uint16) reach.Query {
	q := reach.Query{Port: port}
	if p, err := reach.ParseProto(proto); err == nil {
		q.Proto = p
	}
	return q
}

func (p *htmlPort) say(who reach.Who, rows []reach.Row, s *audit.ServiceRow) {
	p.Who = whoCan(reach.Exposure{Who: who, Rows: rows})
	switch who {
	case reach.Everyone:
		p.Tone = "ok"
	case reach.Nobody:
		p.Tone = "bad"
	case reach.Some, reach.Uncertain:
		p.Tone = "unsure"
	}
	if s != nil {
		p.Service = s.Name + ", meant for " + s.Audience
	}
	for _, r := range rows {
		head, text := deciding(r.DecidedBy)
		row := htmlRow{From: prefixes(r), Iif: r.Iif, Sees: r.Words(), Decides: head, Text: text}
		for _, c := range r.Conditions {
			row.Text = strings.TrimSpace(row.Text + "\n" + condition(c))
		}
		p.Rows = append(p.Rows, row)
	}
}

func prefixes(r reach.Row) string {
	parts := make([]string, len(r.From))
	for i, f := range r.From {
		parts[i] = f.String()
	}
	return strings.Join(parts, ", ")
}
