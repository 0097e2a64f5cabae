package main

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/cmd/hostaudit/config"
	"github.com/hostaudit/hostaudit/packaging/manual"
)

// TestPages: every command, flag, exit code, setting and check stands in a page.
func TestPages(t *testing.T) {
	a := &app{ctx: t.Context(), environ: []string{"SOURCE_DATE_EPOCH=86400"}}
	root := a.command(nil)
	book := a.book(root)
	pages := book.Pages()
	has := func(page, word string) {
		t.Helper()
		if !bytes.Contains(pages[page], []byte(strings.ReplaceAll(word, "-", `\-`))) {
			t.Errorf("%s does not name %s", page, word)
		}
	}
	commands := manual.Commands(root)
	if len(commands) < 10 || len(book.Settings) < 5 {
		t.Fatalf("found %d commands and %d settings: this test looks in the wrong place", len(commands), len(book.Settings))
	}
	for _, c := range commands {
		page := manual.PageName(c) + ".8"
		has(page, c.CommandPath())
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				has(page, "--"+f.Name)
			}
		})
		if c != root && c.Parent() == root {
			has("hostaudit.8", manual.PageName(c))
		}
	}
	for code := range 7 {
		has("hostaudit.8", `\fB`+strconv.Itoa(code)+`\fR`)
	}
	for _, c := range checks.All() {
		has("hostaudit-checks.5", strings.ToUpper(c.ID))
	}
	file, err := os.ReadFile("../../packaging/hostaudit.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range book.Settings {
		has("hostaudit.yaml.5", s.Name)
		has("hostaudit.8", manual.Variable(s.Name))
		if !bytes.Contains(file, []byte("\n#"+s.Name+": ")) {
			t.Errorf("packaging/hostaudit.yaml does not name %s", s.Name)
		}
	}
	if !bytes.Contains(pages["hostaudit.8"], []byte("1970-01-02")) {
		t.Error("hostaudit.8 is not dated by SOURCE_DATE_EPOCH")
	}
	again := a.book(a.command(nil)).Pages()
	for name, page := range pages {
		if !bytes.Equal(page, again[name]) {
			t.Errorf("%s: two runs differ", name)
		}
	}
}

// TestDefaultConfiguration: the shipped file is comments alone, and what it shows
// is configuration.
func TestDefaultConfiguration(t *testing.T) {
	b, err := os.ReadFile("../../packaging/hostaudit.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var live []string
	for l := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n") {
		switch {
		case l == "", strings.HasPrefix(l, "# ") && !strings.HasPrefix(l, "#  "):
		case strings.HasPrefix(l, "#"):
			live = append(live, l[1:])
		default:
			t.Errorf("not a comment: %s", l)
		}
	}
	name := t.TempDir() + "/hostaudit.yaml"
	if err := os.WriteFile(name, []byte(strings.Join(live, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := config.Load(config.Options{Skip: true, Explicit: name, EUID: os.Geteuid()})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Audit.Services) != 3 || len(s.Audit.Accept) != 1 || !slices.Contains(live, "fail-on: critical") {
		t.Errorf("read %+v", s)
	}
}
