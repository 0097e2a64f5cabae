package report

import (
	"bytes"
	"strings"
	"testing"
)

// TestParts: parts are broken between, and inside only where one is too long.
func TestParts(t *testing.T) {
	for _, c := range []struct {
		width int
		parts []string
		want  string
	}{
		{80, []string{"a b", "c d"}, "a b · c d\n"},
		{11, []string{"a b", "c d"}, "a b · c d\n"},
		{10, []string{"a b", "c d"}, "a b ·\n  c d\n"},
		{8, []string{"a b", "8 rules", "x"}, "a b ·\n  8\n  rules\n  x\n"},
		{9, []string{"a b", "8 rules", "x"}, "a b ·\n  8 rules\n  x\n"},
		{11, []string{"a b", "8 rules", "x"}, "a b ·\n  8 rules ·\n  x\n"},
	} {
		p := newPrinter(Options{Width: c.width})
		p.parts(normal, "  ", " · ", c.parts)
		var b bytes.Buffer
		if err := p.flush(&b); err != nil || b.String() != c.want {
			t.Errorf("%q in %d: %q %v, want %q", strings.Join(c.parts, "|"), c.width, b.String(), err, c.want)
		}
	}
}
