package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal of so many columns (man 4 pts): the program's end
// and the other one.
func terminal(t *testing.T, columns uint16) (program, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: columns}); err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return program, screen
}

// TestTerminal: colours and the width of the screen on a terminal, neither of them
// elsewhere.
func TestTerminal(t *testing.T) {
	snapshot, err := filepath.Abs("testdata/snapshot/scenario.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	args := func(more ...string) []string { return append([]string{"scan", "--snapshot", snapshot}, more...) }
	onTerminal := func(environ []string, more ...string) string {
		t.Helper()
		program, screen := terminal(t, 120)
		var out bytes.Buffer
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(&out, screen) // ends with EIO once nobody has the other end
		}()
		var errs strings.Builder
		if code := run(args(more...), nil, program, &errs, environ); code > 1 && code != 3 {
			t.Fatalf("exit code %d: %s", code, errs.String())
		}
		program.Close()
		<-read
		return out.String()
	}
	inPipe := func(more ...string) string {
		t.Helper()
		var out, errs strings.Builder
		if code := run(args(more...), nil, &out, &errs, nil); code > 1 && code != 3 {
			t.Fatalf("exit code %d: %s", code, errs.String())
		}
		return out.String()
	}
	widest := func(s string) (n int) {
		for l := range strings.Lines(s) {
			n = max(n, utf8.RuneCountInString(strings.TrimRight(l, "\r\n")))
		}
		return n
	}
	file := filepath.Join(t.TempDir(), "report")
	for _, c := range []struct {
		what    string
		out     string
		colours bool
		widest  int
	}{
		{"a terminal", onTerminal([]string{"TERM=xterm"}), true, 0},
		{"a terminal, NO_COLOR", onTerminal([]string{"TERM=xterm", "NO_COLOR=1"}), false, 120},
		{"a dumb terminal", onTerminal([]string{"TERM=dumb"}), false, 120},
		{"a terminal, --color never", onTerminal([]string{"TERM=xterm"}, "--color", "never"), false, 120},
		{"a terminal, --width 90", onTerminal([]string{"TERM=dumb"}, "--width", "90"), false, 90},
		{"a pipe", inPipe(), false, 80},
		{"a pipe, --color always", inPipe("--color", "always"), true, 0},
		{"a terminal, --output FILE", onTerminal([]string{"TERM=xterm"}, "--output", file), false, 80},
	} {
		if c.what == "a terminal, --output FILE" {
			if c.out != "" {
				t.Errorf("%s: the terminal shows %q", c.what, c.out)
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c.out = string(b)
		}
		if len(c.out) < 500 {
			t.Errorf("%s: only %q", c.what, c.out)
		}
		if got := strings.Contains(c.out, "\x1b["); got != c.colours {
			t.Errorf("%s: colours %v, want %v", c.what, got, c.colours)
		}
		if w := widest(c.out); c.widest > 0 && (w > c.widest || w < c.widest-25) {
			t.Errorf("%s: %d columns wide, want up to %d", c.what, w, c.widest)
		}
	}
	ascii := inPipe("--ascii", "--width", "200")
	for i, r := range ascii {
		if r > 0x7e || r < ' ' && r != '\n' {
			t.Errorf("--ascii: %U at %d", r, i)
			break
		}
	}
}
