package report

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// ReachText writes an answer of reach for people. Explained answers show the
// packet's whole way.
func ReachText(w io.Writer, a reach.Answer, o Options) error {
	p := newPrinter(o)
	if a.Partition != nil {
		p.partition(a)
		return p.flush(w)
	}
	p.text(bold, "", "  ", question(a.Query)+": "+a.Words())
	if len(a.Lines) > 0 {
		p.blank()
		p.walk(a)
	}
	if d := a.DecidedBy; d != nil {
		head, text := deciding(*d)
		if head == "" {
			head = "nothing stands in the way"
		}
		p.text(normal, "  decided by ", "             ", head)
		if text != "" {
			p.text(normal, "             ", "             ", text)
		}
	}
	for i, d := range a.Deliveries() {
		first := "  reaches    "
		switch {
		case i > 0:
			first = "          or "
		case len(a.OneOf) > 0:
			first = "  one of     "
		}
		to := d.Listener
		if to == "" {
			to = hostPort(d.Address, d.Port)
		}
		if d.NetNS != "" {
			to += " in " + d.NetNS
		}
		p.text(normal, first, "             ", to)
	}
	for i, c := range a.Conditions {
		first := "  turns on   "
		if i > 0 {
			first = "             "
		}
		p.text(normal, first, "             ", condition(c))
	}
	return p.flush(w)
}

// question is "203.0.113.5 → 192.0.2.10:8080 (tcp, in by eth0)".
func question(q reach.QueryJSON) string {
	from := q.From
	if q.FromPort != 0 {
		from = hostPort(q.From, q.FromPort)
	}
	to := fmt.Sprintf(":%d", q.Port)
	if q.To != "" {
		to = hostPort(q.To, q.Port)
	}
	in := q.Proto
	if q.Iif != "" {
		in += ", in by " + q.Iif
	}
	return fmt.Sprintf("%s → %s (%s)", from, to, in)
}

// walk prints the way of the packet: stages, the rules that were asked in each,
// and the one that decides.
func (p *printer) walk(a reach.Answer) {
	number, last := 0, ""
	const indent = "      "
	for i, l := range a.Lines {
		if l.Stage == "" { // a note
			number++
			last = ""
			p.text(normal, fmt.Sprintf("%2d  ", number), "    ", l.Text)
			continue
		}
		head := l.Stage + "  " + l.Chain
		if l.Namespace != "" {
			head += " in " + l.Namespace
		}
		if head != last {
			number++
			last = head
			p.text(normal, fmt.Sprintf("%2d  %s", number, pad(l.Stage, 12)), strings.Repeat(" ", 16), strings.TrimPrefix(head, l.Stage+"  "))
		}
		text := l.Text
		if l.Rule != nil {
			text = fmt.Sprintf("#%d %s", l.Rule.Number, l.Text)
		}
		why := ""
		switch {
		case l.Decides:
			why = "YES ◀ decides"
		case l.Rule == nil:
		case l.Outcome == firewall.Yes:
			why = "yes"
			if l.Why != "" {
				why += ": " + l.Why
			}
		case l.Outcome == firewall.No:
			why = "no"
			if l.Why != "" {
				why += ": " + l.Why
			}
		default:
			why = "cannot be told"
			if l.Why != "" {
				why += ": " + l.Why
			}
		}
		s := dim
		if l.Decides {
			s = bold
		}
		if i == len(a.Lines)-1 && l.Rule == nil && l.Decides {
			s = bold
		}
		p.pair(indent, text, why, s)
	}
	p.blank()
}

// pair writes a text and a remark in two columns, the remark below where there is
// no room beside.
func (p *printer) pair(indent, text, remark string, s style) {
	room := p.Width - len(indent)
	left := min(42, room*5/9)
	t := p.clean(text)
	if remark == "" {
		p.text(s, indent, indent+"  ", text)
		return
	}
	if cells.StringWidth(t) <= left {
		hang := indent + strings.Repeat(" ", left+2)
		p.text(s, indent+p.paint(s, pad(t, left))+"  ", hang, remark)
		return
	}
	p.text(s, indent, indent+"  ", text)
	hang := indent + strings.Repeat(" ", left+2)
	p.text(s, hang, hang, remark)
}

// partition prints who gets through, a row a set of sources.
func (p *printer) partition(a reach.Answer) {
	q := a.Query
	to := fmt.Sprintf("port %d", q.Port)
	if q.To != "" {
		to = hostPort(q.To, q.Port)
	}
	p.text(bold, "", "  ", fmt.Sprintf("Who can reach %s (%s)", to, q.Proto))
	if len(a.Partition) == 0 {
		p.text(normal, "  ", "  ", "nobody: the host has no address for it")
		return
	}
	last := ""
	var rows [][]cell
	flush := func() {
		first := 24 + max(p.Width-80, 0)/4
		for _, r := range rows { // no address is broken in two
			for a := range strings.FieldsSeq(r[0].lines[0]) {
				first = max(first, cells.StringWidth(p.clean(a)))
			}
		}
		p.table("    ", []int{first, 11, 0}, rows)
		rows = nil
	}
	hidden := false
	for _, r := range a.Partition {
		if nobodys(r) {
			hidden = true
			continue
		}
		family := "IPv4"
		if r.Family == "ip6" {
			family = "IPv6"
		}
		head := fmt.Sprintf("in by %s, %s", r.Iif, family)
		if r.Iif == "lo" {
			head = "from this host, " + family
		}
		if head != last {
			flush()
			p.raw("  " + p.paint(dim, p.clean(head)))
			last = head
		}
		decides, text := deciding(r.DecidedBy)
		lines := []string{}
		if decides != "" {
			lines = append(lines, decides)
		}
		if text != "" {
			lines = append(lines, "  "+text)
		}
		for _, c := range r.Conditions {
			lines = append(lines, "turns on "+condition(c))
		}
		s := red
		switch {
		case r.Through():
			s = green
		case r.Unsure():
			s = yellow
		}
		rows = append(rows, []cell{plainCell(sources(a.Partition, r)), {s, []string{r.Words()}}, {normal, lines}})
	}
	flush()
	if hidden {
		p.text(dim, "  ", "  ", "Left out: sources that no client has (martians, this host's own addresses). They stand in --format json.")
	}
}

// sources names the sources of a row: all of its side, the rest, or the widest
// networks.
func sources(rows []reach.Row, r reach.Row) string {
	if r.Iif == "lo" {
		return networks(r.From)
	}
	alone := true
	var holes []netip.Prefix
	for _, o := range rows {
		same := o.Iif == r.Iif && o.Family == r.Family
		if same && nobodys(o) {
			holes = append(holes, o.From...)
		}
		if same && !slices.Equal(o.From, r.From) && !nobodys(o) {
			alone = false
		}
	}
	switch {
	case alone:
		return "everyone"
	case share(r.From) > 0.5:
		return "everyone else"
	}
	return networks(fill(r.From, holes))
}

// nobodys tells rows whose sources are no clients: addresses that nobody has, and
// single ones that the kernel itself refuses on the interface, mostly its own.
func nobodys(r reach.Row) bool {
	if r.DecidedBy.Kind != reach.ByRoute {
		return r.Iif != "lo" && !audit.HasClients(r.From)
	}
	if r.Iif == "lo" || !audit.HasClients(r.From) {
		return true
	}
	return !slices.ContainsFunc(r.From, func(p netip.Prefix) bool { return p.Bits() < p.Addr().BitLen() })
}
