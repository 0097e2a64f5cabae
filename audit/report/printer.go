package report

import (
	"io"
	"strings"

	"github.com/hostaudit/hostaudit/audit/reach"
)

// Options say how text is laid out.
type Options struct {
	Width int  // columns, 0 means 80
	Color bool // escape sequences for colours
	ASCII bool // nothing beyond ASCII
	// Exit is the exit code to name in the last line, below 0 for none.
	Exit int
	// Ask answers about one client from what the report was made of; pictures are
	// drawn with it. nil: they show only what decides.
	Ask func(reach.Query) (reach.Answer, error)
}

// style is a look of text on a terminal.
type style string

const (
	normal style = ""
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
)

// printer lays text out. Every piece of text that it is given passes through
// clean here and nowhere else; what it is given holds no line ends of its own.
type printer struct {
	b strings.Builder
	Options
}

func newPrinter(o Options) *printer {
	if o.Width <= 0 {
		o.Width = 80
	}
	return &printer{Options: o}
}

func (p *printer) flush(w io.Writer) error {
	_, err := io.WriteString(w, p.b.String())
	return err
}

// sign gives the sign for people or its plain form.
func (p *printer) sign(unicode, plain string) string {
	if p.ASCII {
		return plain
	}
	return unicode
}

// paint wraps laid-out text in a colour.
func (p *printer) paint(s style, text string) string {
	if !p.Color || s == normal || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// raw writes a finished line.
func (p *printer) raw(line string) {
	p.b.WriteString(strings.TrimRight(line, " "))
	p.b.WriteByte('\n')
}

func (p *printer) blank() { p.b.WriteByte('\n') }

// text writes a paragraph, further lines indented by hang.
func (p *printer) text(s style, first, hang, text string) {
	lines := wrap(p.clean(text), p.Width-cells.StringWidth(hang))
	for i, l := range lines {
		lead := hang
		if i == 0 {
			lead = first
		}
		p.raw(lead + p.paint(s, l))
	}
}

// parts writes parts apart by a separator, broken between them where that will do.
func (p *printer) parts(s style, hang, separator string, parts []string) {
	line, lead := "", ""
	for i, part := range parts {
		if i == 0 {
			line = part
			continue
		}
		fits := func(more string) bool { return cells.StringWidth(p.clean(hang+line+more)) <= p.Width }
		if fits(separator + part) {
			line += separator + part
			continue
		}
		if end := strings.TrimRight(separator, " "); fits(end) {
			line += end
		}
		p.text(s, lead, hang, line)
		line, lead = part, hang
	}
	p.text(s, lead, hang, line)
}

// clean makes text harmless, and plain in ASCII mode: the signs of our own texts
// have plain forms, everything else is escaped.
func (p *printer) clean(s string) string {
	if p.ASCII {
		s = plainSigns.Replace(s)
	}
	return clean(s, p.ASCII)
}

var plainSigns = strings.NewReplacer("→", "->", "·", "-", "…", "...", "–", "-", "×", "x", "✓", "+", "✗", "x", "◀", "<-", "“", `"`, "”", `"`, "’", "'")

// heading begins a part of the report.
func (p *printer) heading(s string) {
	p.blank()
	p.raw(p.paint(bold, s))
}

// cell is one cell of a table: lines, each wrapped on its own; further lines of
// an entry that begins with a blank keep its indent.
type cell struct {
	style style
	lines []string
}

func plainCell(s string) cell { return cell{lines: []string{s}} }

// table lays rows of cells out in columns. limits are the widths that columns may
// take at most; the last takes what is left, and where that is too little its
// text goes below the row.
func (p *printer) table(indent string, limits []int, rows [][]cell) {
	if len(rows) == 0 {
		return
	}
	n := len(limits)
	widths := make([]int, n)
	for _, row := range rows {
		for i, c := range row {
			for _, l := range c.lines {
				widths[i] = max(widths[i], cells.StringWidth(p.clean(l)))
			}
		}
	}
	used := len(indent)
	for i := range n - 1 {
		widths[i] = min(widths[i], limits[i])
		if widths[i] > 0 {
			used += widths[i] + 2
		}
	}
	for used > p.Width { // a narrow terminal: the widest columns give way
		widest := 0
		for i := range n - 1 {
			if widths[i] > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= 4 {
			break
		}
		widths[widest]--
		used--
	}
	const least = 16
	last := p.Width - used
	below := last < least
	for _, row := range rows {
		laid := make([][]string, n)
		height := 0
		for i, c := range row {
			w := widths[i]
			if i == n-1 {
				if w = last; below {
					continue
				}
			}
			laid[i] = p.fold(c.lines, w)
			height = max(height, len(laid[i]))
		}
		for y := range height {
			line := indent
			for i := range row {
				text := ""
				if y < len(laid[i]) {
					text = laid[i][y]
				}
				if i == n-1 {
					line += p.paint(row[i].style, text)
					continue
				}
				if widths[i] > 0 {
					line += p.paint(row[i].style, text) + strings.Repeat(" ", widths[i]-cells.StringWidth(text)+2)
				}
			}
			p.raw(line)
		}
		if below {
			hang := indent + "    "
			for _, l := range p.fold(row[n-1].lines, p.Width-len(hang)) {
				p.raw(hang + p.paint(row[n-1].style, l))
			}
		}
	}
}

// fold wraps the lines of a cell.
func (p *printer) fold(lines []string, width int) []string {
	var out []string
	for _, l := range lines {
		l = p.clean(l)
		indent := l[:len(l)-len(strings.TrimLeft(l, " "))]
		if len(indent) >= width {
			indent = ""
		}
		for _, x := range wrap(strings.TrimLeft(l, " "), width-len(indent)) {
			out = append(out, indent+x)
		}
	}
	return out
}
