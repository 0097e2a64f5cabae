package manual

import (
	"bytes"
	"fmt"
	"strings"
)

// roff writes one page in the man macros (man 7 groff_man).
type roff struct{ bytes.Buffer }

var escapes = strings.NewReplacer(
	`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`,
	"…", "...", "“", `\(lq`, "”", `\(rq`, "–", `\(en`, "→", `\(->`, "·", `\(bu`, "≥", `\(>=`, "≤", `\(<=`, "×", `\(mu`,
)

// escape makes text harmless for roff: nothing in it is a request or an escape.
func escape(s string) string { return escapes.Replace(s) }

// line writes text that begins at the start of a line.
func (r *roff) line(s string) {
	s = escape(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, `\(aq`) {
		s = `\&` + s
	}
	r.WriteString(s + "\n")
}

func (r *roff) title(name string, section int, date, version, manual string) {
	fmt.Fprintf(r, ".TH %q %d %q %q %q\n", escape(strings.ToUpper(name)), section, date, escape("hostaudit "+version), manual)
}

func (r *roff) section(name string) { r.WriteString(".SH " + strings.ToUpper(escape(name)) + "\n") }

// text writes paragraphs; lines that are indented stay as they are.
func (r *roff) text(s string) {
	fill, paragraph := true, false
	for l := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		indented := strings.HasPrefix(l, "  ") || strings.HasPrefix(l, "\t")
		switch {
		case strings.TrimSpace(l) == "":
			paragraph = true
			continue
		case indented && fill:
			r.WriteString(".PP\n.nf\n.RS 4\n")
		case !indented && !fill:
			r.WriteString(".RE\n.fi\n.PP\n")
		case paragraph && fill:
			r.WriteString(".PP\n")
		case paragraph:
			r.WriteString("\n")
		}
		fill, paragraph = !indented, false
		r.line(strings.TrimSpace(l))
	}
	if !fill {
		r.WriteString(".RE\n.fi\n")
	}
}

// verbatim writes an example.
func (r *roff) verbatim(s string) {
	r.WriteString(".nf\n.RS 4\n")
	for l := range strings.SplitSeq(strings.Trim(s, "\n"), "\n") {
		if l = strings.TrimPrefix(l, "  "); l == "" {
			r.WriteString("\n")
			continue
		}
		r.line(l)
	}
	r.WriteString(".RE\n.fi\n")
}

// item writes a tagged paragraph; tag is roff already.
func (r *roff) item(tag, text string) {
	r.WriteString(".TP\n" + tag + "\n")
	r.line(strings.Join(strings.Fields(text), " "))
}

func bold(s string) string { return `\fB` + escape(s) + `\fR` }

func italic(s string) string { return `\fI` + escape(s) + `\fR` }
