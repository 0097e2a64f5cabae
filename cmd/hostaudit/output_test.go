package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWriteWhole: a report replaces a plain file in one step, keeps its mode, and
// leaves nothing behind when it cannot.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "report")
	names := func() []string {
		es, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range es {
			out = append(out, e.Name())
		}
		return out
	}
	if err := writeWhole(name, 0o644, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeWhole(name, 0o644, []byte("two")); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(name); string(got) != "two" || after.Mode().Perm() != 0o600 || os.SameFile(before, after) {
		t.Errorf("content %q, mode %v, same file %v", got, after.Mode(), os.SameFile(before, after))
	}
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []func(string) error{
		func(n string) error { return os.Symlink(victim, n) },
		func(n string) error { return os.Symlink("/nowhere", n) },
		func(n string) error { return os.Mkdir(n, 0o755) },
	} {
		target := filepath.Join(dir, "bad")
		if err := bad(target); err != nil {
			t.Fatal(err)
		}
		if err := writeWhole(target, 0o644, []byte("x")); err == nil {
			t.Error("written through something that is no plain file")
		}
		if err := os.Remove(target); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := os.ReadFile(victim); string(got) != "mine" {
		t.Errorf("the file behind the link now holds %q", got)
	}
	if got := names(); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

// TestReaderGone: a reader that goes away (| head) is no error, and the exit code
// stays that of the answer.
func TestReaderGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var errs strings.Builder
	snapshot, err := filepath.Abs("testdata/snapshot/scenario.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	if code := run([]string{"reach", "8080", "--from", "203.0.113.5", "--snapshot", snapshot}, nil, w, &errs, nil); code != 1 || errs.Len() != 0 {
		t.Errorf("exit code %d, stderr %q", code, errs.String())
	}
}
