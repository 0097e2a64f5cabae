package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/audit"
)

// Frame says how one drawing of a report that is drawn again and again goes out.
type Frame struct {
	Every time.Duration
	// Rows is how many lines the screen has, 0 for no bound; what does not fit is
	// left out at the end, and said.
	Rows int
	// Redraw begins at the top of a terminal, over the last drawing.
	Redraw bool
}

const (
	cursorHome = "\x1b[H"
	clearLine  = "\x1b[K"
	clearRest  = "\x1b[J"
)

// PortsFrame writes one drawing of `ports --watch`. A terminal is not cleared
// before it is drawn over, which would flicker; every line and the rest are
// cleared behind what is drawn.
func PortsFrame(w io.Writer, u *audit.PortUse, f Frame, o Options) error {
	var b bytes.Buffer
	p := newPrinter(o)
	p.text(dim, "", "  ", fmt.Sprintf("%s · every %s · Ctrl-C ends", u.Host.TakenAt.Format("15:04:05 UTC"), f.Every))
	if err := p.flush(&b); err != nil {
		return err
	}
	if err := PortsText(&b, u, o); err != nil {
		return err
	}
	if !f.Redraw {
		b.WriteByte('\n')
		_, err := w.Write(b.Bytes())
		return err
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if f.Rows > 1 && len(lines) >= f.Rows {
		left := len(lines) - f.Rows + 2
		lines = append(lines[:f.Rows-2], fmt.Sprintf("(%s more; a larger window shows them)", count(left, "line", "lines")))
	}
	_, err := io.WriteString(w, cursorHome+strings.Join(lines, clearLine+"\n")+clearLine+"\n"+clearRest)
	return err
}
