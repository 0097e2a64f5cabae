package remedy

import (
	"fmt"
	"strings"
)

// context lines around a change.
const diffContext = 2

// diff shows how a text changes, as diff -u does, with one hunk: what both texts
// have in common at the beginning and at the end is left out but for two lines.
// "" where nothing changes.
func diff(name, before, after string) string {
	if before == after {
		return ""
	}
	a, b := lines(before), lines(after)
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	from, to := max(head-diffContext, 0), min(tail, diffContext)
	span := func(end int) string {
		start := from + 1
		if end == from {
			start = from
		}
		return fmt.Sprintf("%d,%d", start, end-from)
	}
	enda, endb := len(a)-tail+to, len(b)-tail+to
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n@@ -%s +%s @@\n", name, name, span(enda), span(endb))
	put := func(sign string, ls []string) {
		for _, l := range ls {
			out.WriteString(sign + l + "\n")
		}
	}
	put(" ", a[from:head])
	put("-", a[head:len(a)-tail])
	put("+", b[head:len(b)-tail])
	put(" ", a[len(a)-tail:enda])
	return out.String()
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}
