package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit"
)

// A drawing over the last one: it begins at the top, clears behind every line and
// below, fits the screen and says what it left out. To anything but a terminal
// goes the plain report.
func TestPortsFrame(t *testing.T) {
	const evil = "a\x1b[2Jb"
	u := &audit.PortUse{
		Ephemeral: &audit.Ephemeral{Range: []int{1, 100}, Usable: 100, FirstHalf: 50, Destinations: []audit.Destination{}},
		Advice:    []audit.PortAdvice{{Subject: evil, Level: audit.PortsScarce, Why: evil, Steps: []string{evil, evil, evil, evil, evil, evil}}},
	}
	draw := func(f Frame) string {
		t.Helper()
		var b bytes.Buffer
		if err := PortsFrame(&b, u, f, Options{Width: 80}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	plain := draw(Frame{Every: time.Second})
	if strings.Contains(plain, "\x1b") || !strings.Contains(plain, "every 1s") || !strings.HasSuffix(plain, "\n\n") {
		t.Errorf("%q", plain)
	}
	whole := strings.Count(plain, "\n")
	for _, rows := range []int{0, 5, 12, whole + 10} {
		got := draw(Frame{Every: time.Second, Rows: rows, Redraw: true})
		if !strings.HasPrefix(got, cursorHome) || !strings.HasSuffix(got, clearRest) || strings.Contains(got, "\x1b[2J") {
			t.Errorf("%d rows: %q", rows, got)
		}
		lines := strings.Count(got, "\n")
		if rows > 0 && lines >= rows && rows < whole {
			t.Errorf("%d lines on a screen of %d", lines, rows)
		}
		if strings.Count(got, clearLine) != lines {
			t.Errorf("%d lines, %d of them cleared", lines, strings.Count(got, clearLine))
		}
		if cut := rows > 0 && rows < whole; cut != strings.Contains(got, "a larger window shows them") {
			t.Errorf("%d rows of %d: %q", rows, whole, got)
		}
	}
}
