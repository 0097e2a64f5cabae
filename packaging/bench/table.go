package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// printTable writes the results as a Markdown table that reads well as it is.
func printTable(w io.Writer, s settings, results []result) {
	rows := [][]string{{"gate", "hostaudit", "against", "wall", "CPU", "peak", ""}}
	var missed, unmeasured []string
	passed := 0
	for _, r := range results {
		g, err := gateOf(r.Gate)
		if err != nil {
			continue
		}
		status := g.status(s, r)
		switch status {
		case "pass":
			passed++
		case "MISSED":
			missed = append(missed, g.title)
		case "NOT MEASURED":
			unmeasured = append(unmeasured, g.title+": "+r.Failed)
		}
		if r.Failed != "" {
			rows = append(rows, []string{g.title, "", g.against, "", "", "", status})
			continue
		}
		against := g.against
		if r.Theirs.Wall > 0 {
			against += " " + both(r.Theirs)
		}
		m := g.marks(r)
		wall := figure(m[0], "%.3g")
		if m[2] != nil {
			wall = strings.TrimSpace(wall + " " + figure(m[2], "%.2f s"))
		}
		rows = append(rows, []string{g.title, both(r.Ours), against, wall, figure(m[1], "%.3g"), figure(m[3], "%.0f MB"), status})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for n, row := range rows {
		line := "|"
		for i, c := range row {
			line += " " + c + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)) + " |"
		}
		fmt.Fprintf(w, "%s\n", line)
		if n == 0 {
			line = "|"
			for _, width := range widths {
				line += " " + strings.Repeat("-", max(width, 3)) + " |"
			}
			fmt.Fprintf(w, "%s\n", line)
		}
	}
	size := "at full size"
	if s.Scale > 1 {
		size = fmt.Sprintf("at 1/%d of the size", s.Scale)
	}
	fmt.Fprintf(w, "\n%s, medians of %d; time is wall and CPU; a ceiling stands after each figure\n", size, s.Repeat)
	fmt.Fprintf(w, "%d gates, %d passed\n", len(results), passed)
	for _, m := range missed {
		fmt.Fprintf(w, "MISSED: %s\n", m)
	}
	for _, m := range unmeasured {
		fmt.Fprintf(w, "NOT MEASURED: %s\n", m)
	}
}

func figure(m *mark, format string) string {
	if m == nil {
		return ""
	}
	value := fmt.Sprintf(format, m.Value)
	unit := ""
	if _, u, ok := strings.Cut(format, " "); ok {
		unit = " " + u
	}
	text := fmt.Sprintf("%s (%g%s)", value, m.Ceiling, unit)
	if m.missed() {
		return "**" + text + "**"
	}
	return text
}

func both(c cost) string { return duration(c.Wall) + " / " + duration(c.CPU) }

func duration(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 10:
		return fmt.Sprintf("%.2g ms", ms)
	case ms < 10000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
