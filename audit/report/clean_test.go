package report

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want, ascii string }{
		{"nginx: worker", "nginx: worker", "nginx: worker"},
		{"größe", "größe", `gr\u{00f6}\u{00df}e`},
		{"a\nb\tc\r", `a\x0ab\x09c\x0d`, `a\x0ab\x09c\x0d`},
		{"\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`, `\x1b[31mred\x1b[0m`},
		{"\u009b31m", `\u{009b}31m`, `\u{009b}31m`},
		{"\u202egnp.exe", `\u{202e}gnp.exe`, `\u{202e}gnp.exe`},
		{"a\u200bb\ufeff\u00ad", `a\u{200b}b\u{feff}\u{00ad}`, `a\u{200b}b\u{feff}\u{00ad}`},
		{"\u3164\u115f\ufe0f", `\u{3164}\u{115f}\u{fe0f}`, `\u{3164}\u{115f}\u{fe0f}`},
		{"\u2028\u2029\u00a0", `\u{2028}\u{2029}\u{00a0}`, `\u{2028}\u{2029}\u{00a0}`},
		{"\xff\xc3", `\xff\xc3`, `\xff\xc3`},
		{"e\u0301", "e\u0301", `e\u{0301}`},
		{"e\u0301\u0301\u0301\u0301", "e\u0301\u0301" + `\u{0301}\u{0301}`, `e\u{0301}\u{0301}\u{0301}\u{0301}`},
		{"\u0301e", `\u{0301}e`, `\u{0301}e`},
		{`DOMAIN\user`, `DOMAIN\user`, `DOMAIN\user`},
		{`\x1b`, `\\x1b`, `\\x1b`},
		{"\\\x1b", `\\\x1b`, `\\\x1b`},
		{`\`, `\`, `\`},
	} {
		if got := clean(c.in, false); got != c.want {
			t.Errorf("clean(%q) = %q, want %q", c.in, got, c.want)
		}
		if got := clean(c.in, true); got != c.ascii {
			t.Errorf("clean(%q, ascii) = %q, want %q", c.in, got, c.ascii)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  []string
	}{
		{"tcp dport 8080 drop", 80, []string{"tcp dport 8080 drop"}},
		{"tcp dport 8080 drop", 10, []string{"tcp dport", "8080 drop"}},
		{"abcdefghij", 4, []string{"abcd", "efgh", "ij"}},
		{"世界世界", 5, []string{"世界", "世界"}},
		{"", 5, []string{""}},
		{"uses 4 (0 %) of", 11, []string{"uses 4", "(0 %) of"}},
		{"100 %", 3, []string{"100", "%"}},
		{"世", 1, []string{"世"}},
	} {
		got := wrap(c.in, c.width)
		if strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("wrap(%q, %d) = %q, want %q", c.in, c.width, got, c.want)
		}
	}
}

// FuzzClean: whatever the host says, what is printed is one line of printable
// characters, in ASCII mode of ASCII, and no two texts look the same.
func FuzzClean(f *testing.F) {
	f.Add("\x1b]0;title\x07", `\x1b`)
	f.Add("a\u202eb", "a\u200bb")
	f.Add("\\\x1b", "\\\\x1b")
	f.Add("\xf0\x9f\x98", "\\\\\\u{1}")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, ascii := range []bool{false, true} {
			x, y := clean(a, ascii), clean(b, ascii)
			for _, r := range x {
				if r == utf8.RuneError && !strings.ContainsRune(a, utf8.RuneError) || !unicode.IsPrint(r) || ascii && r > '~' {
					t.Fatalf("clean(%q, %v) = %q holds %U", a, ascii, x, r)
				}
			}
			if !utf8.ValidString(x) {
				t.Fatalf("clean(%q) = %q is no UTF-8", a, x)
			}
			if a != b && x == y {
				t.Fatalf("clean makes %q and %q both %q", a, b, x)
			}
		}
		for _, line := range wrap(clean(a, true), 7) {
			if cells.StringWidth(line) > 7 {
				t.Fatalf("wrap(%q): line %q is wider than 7", a, line)
			}
		}
		if s := cut(clean(a, false), 9, false); cells.StringWidth(s) > 9 {
			t.Fatalf("cut(%q) = %q is wider than 9", a, s)
		}
	})
}
