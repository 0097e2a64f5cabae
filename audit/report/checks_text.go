package report

import (
	"io"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

// CheckRow is a check in JSON.
type CheckRow struct {
	ID       string         `json:"id"`
	Title    string         `json:"title"`
	Doc      string         `json:"doc"`
	Severity audit.Severity `json:"severity"`
	Findings []string       `json:"findings"`
	Needs    []audit.Need   `json:"needs"`
	Fix      audit.Fix      `json:"fix"`
	Causes   []audit.Cause  `json:"causes"`
	Refs     []string       `json:"refs"`
}

// Catalogue lists checks for JSON.
func Catalogue(checks []*audit.Check) []CheckRow {
	out := []CheckRow{}
	for _, c := range checks {
		row := CheckRow{c.ID, c.Title, c.Explanation(), c.Severity, c.FindingIDs(), c.Needs, c.Fix, c.Causes, c.Refs}
		if row.Causes == nil {
			row.Causes = []audit.Cause{}
		}
		out = append(out, row)
	}
	return out
}

// wideList is the width from which the list of checks is a table.
const wideList = 120

// ChecksText lists the catalogue for people. more names what has no check and
// can be explained all the same.
func ChecksText(w io.Writer, checks []*audit.Check, more []string, o Options) error {
	p := newPrinter(o)
	var rows [][]cell
	for _, c := range checks {
		if p.Width < wideList {
			p.raw(p.clean(c.ID) + p.paint(dim, "  "+string(c.Severity)))
			p.text(dim, "    ", "    ", c.Title)
			continue
		}
		rows = append(rows, []cell{plainCell(c.ID), plainCell(string(c.Severity)), plainCell(c.Title)})
	}
	if len(rows) > 0 {
		p.table("", []int{56, 8, 0}, rows)
	}
	if len(more) > 0 {
		p.blank()
		p.text(normal, "", "  ", "Settings without a check of their own, explained in the same way: "+strings.Join(more, ", "))
	}
	p.blank()
	p.text(dim, "", "", "hostaudit checks ID explains one, one of its findings, or a kernel setting.")
	return p.flush(w)
}

// CheckText explains one check for people.
func CheckText(w io.Writer, c *audit.Check, o Options) error {
	p := newPrinter(o)
	p.text(bold, "", "  ", c.ID+": "+c.Title)
	p.blank()
	for i, paragraph := range strings.Split(strings.TrimSpace(c.Explanation()), "\n\n") {
		if i > 0 {
			p.blank()
		}
		p.paragraph(paragraph)
	}
	p.blank()
	field := func(name, text string) {
		if text != "" {
			p.text(normal, p.paint(dim, pad(name, 10)), "          ", text)
		}
	}
	field("severity", "up to "+string(c.Severity))
	if ids := c.FindingIDs(); len(ids) > 1 || len(ids) == 1 && ids[0] != c.ID {
		field("findings", strings.Join(ids, ", "))
	}
	causes := make([]string, len(c.Causes))
	for i, x := range c.Causes {
		causes[i] = string(x)
	}
	field("clients", strings.Join(causes, ", "))
	needs := make([]string, len(c.Needs))
	for i, n := range c.Needs {
		needs[i] = string(n)
	}
	if !strings.Contains(c.Explanation(), "\nlooks at:") { // a sysctl's own explanation says it nearer
		field("looks at", strings.Join(needs, ", "))
	}
	for i, r := range c.Refs {
		name := "more"
		if i > 0 {
			name = ""
		}
		field(name, r)
	}
	return p.flush(w)
}

// paragraph lays one out anew, unless its lines are set in columns.
func (p *printer) paragraph(s string) {
	lines := strings.Split(s, "\n")
	for _, l := range lines {
		if strings.HasPrefix(l, " ") || strings.Contains(l, "  ") || strings.HasPrefix(l, "https://") {
			for _, l := range lines {
				hang := l[:len(l)-len(strings.TrimLeft(l, " "))]
				p.text(normal, hang, hang, strings.TrimLeft(l, " "))
			}
			return
		}
	}
	p.text(normal, "", "", strings.Join(lines, " "))
}
