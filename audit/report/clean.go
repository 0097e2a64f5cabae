package report

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

// maxMarks is how many combining marks may sit on one character; more of them
// paint over neighbouring lines.
const maxMarks = 2

// clean makes text from the host harmless for a terminal, a log or a mail. It is
// the only place where that happens: every line of every text report passes
// through it, so that no caller can forget.
//
// Bytes that are no UTF-8 become \xNN. So do the control characters of ASCII
// (line ends, escape sequences); those beyond it, bidirectional and zero-width
// characters, private and unassigned ones become \u{NNNN}. With ascii so does
// everything beyond ASCII. A backslash is doubled where the text would otherwise
// read like one of these escapes, so that two different texts never look the same.
func clean(s string, ascii bool) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	marks := maxMarks // a mark at the start has nothing to sit on
	slashes := 0      // in a row, just written
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\\':
			slashes++
			b.WriteByte('\\')
			marks = 0
			i += n
			continue
		case r == utf8.RuneError && n == 1:
			b.WriteString(strings.Repeat(`\`, slashes))
			fmt.Fprintf(&b, `\x%02x`, s[i])
			marks = maxMarks
		case unicode.Is(unicode.M, r) && marks < maxMarks && !ascii && !invisible(r):
			b.WriteRune(r)
			marks++
		case r < 0x80 && !unicode.IsPrint(r):
			b.WriteString(strings.Repeat(`\`, slashes))
			fmt.Fprintf(&b, `\x%02x`, r)
			marks = maxMarks
		case invisible(r) || unicode.Is(unicode.M, r) || ascii && r >= 0x80:
			b.WriteString(strings.Repeat(`\`, slashes))
			fmt.Fprintf(&b, `\u{%04x}`, r)
			marks = maxMarks
		default:
			if slashes > 0 && escapeLike(s[i:]) {
				b.WriteString(strings.Repeat(`\`, slashes))
			}
			b.WriteRune(r)
			marks = 0
		}
		slashes = 0
		i += n
	}
	return b.String()
}

func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' || s[i] == '\\' {
			return false
		}
	}
	return true
}

// escapeLike tells whether text behind a backslash reads like an escape of clean.
func escapeLike(s string) bool {
	switch s[0] {
	case 'x':
		return len(s) > 2 && hex(s[1]) && hex(s[2])
	case 'u':
		return len(s) > 1 && s[1] == '{'
	}
	return false
}

func hex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

// invisible tells characters that take no room or change the order of others.
// unicode.IsPrint already leaves out controls, formats (bidirectional marks, zero
// width joiners), separators, surrogates, private and unassigned ones.
func invisible(r rune) bool {
	switch {
	case !unicode.IsPrint(r):
		return true
	case unicode.Is(unicode.Variation_Selector, r), unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r):
		return true
	case r == 0x2800: // braille blank
		return true
	}
	return false
}

// cells measures text in terminal cells, the same on every machine: go-runewidth's
// default condition looks at the locale.
var cells = &runewidth.Condition{}

// cut shortens cleaned text to a width, ending it in … (or ~).
func cut(s string, width int, ascii bool) string {
	tail := "…"
	if ascii {
		tail = "~"
	}
	if cells.StringWidth(s) <= width {
		return s
	}
	return cells.Truncate(s, width, tail)
}

// wrap breaks cleaned text into lines no wider than width, at blanks where there
// are any, inside a word where one is too long.
func wrap(s string, width int) []string {
	width = max(width, 1)
	var lines []string
	line, w := "", 0
	flush := func() {
		lines = append(lines, strings.TrimRight(line, " "))
		line, w = "", 0
	}
	words := strings.SplitAfter(s, " ")
	for i, word := range words {
		if i+1 < len(words) && strings.HasPrefix(words[i+1], "%") && cells.StringWidth(word+strings.TrimRight(words[i+1], " ")) <= width {
			words[i+1] = word + words[i+1] // a number keeps its sign
			continue
		}
		ww := cells.StringWidth(strings.TrimRight(word, " "))
		if w > 0 && w+ww > width {
			flush()
		}
		for ww > width {
			head := hardCut(word, width-w)
			line += head
			word = word[len(head):]
			flush()
			ww = cells.StringWidth(strings.TrimRight(word, " "))
		}
		line += word
		w += cells.StringWidth(word)
	}
	if line != "" || len(lines) == 0 {
		flush()
	}
	return lines
}

// hardCut takes the longest beginning of a word that fits, at least one character.
func hardCut(word string, width int) string {
	w := 0
	for i, r := range word {
		rw := cells.RuneWidth(r)
		if i > 0 && w+rw > width {
			return word[:i]
		}
		w += rw
	}
	return word
}

// pad fills text with blanks up to a width.
func pad(s string, width int) string {
	if n := width - cells.StringWidth(s); n > 0 {
		return s + strings.Repeat(" ", n)
	}
	return s
}

// Clean makes text harmless for a terminal, for the one-line messages of the
// program beside its reports.
func Clean(s string) string { return clean(s, false) }
