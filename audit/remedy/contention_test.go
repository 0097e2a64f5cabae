package remedy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/sysctl"
)

// TestManyAtOnce starts twenty applies with different values: each either refuses,
// naming the lock or the changed host, or completes; what is live, what is on
// disk and the last committed entry of the history agree.
func TestManyAtOnce(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for i := range 20 {
		plan, err := json.Marshal(testSteps(t, fmt.Sprint(5000+i)))
		if err != nil {
			t.Fatal(err)
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			code, _, output := b.run("apply", nil, "REMEDY_PLAN="+string(plan))
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
			if code == 6 && !strings.Contains(output, "another run") && !strings.Contains(output, "not as it was") {
				t.Errorf("refused without saying why: %s", output)
			}
			if code != 0 && code != 6 {
				t.Errorf("exit code %d: %s", code, output)
			}
		}()
	}
	wg.Wait()
	t.Logf("exit codes: %v", codes)
	if codes[0] != 1 {
		t.Errorf("%d completed, want 1: the others' plans are for a state that is gone", codes[0])
	}
	live, err := b.ns.ReadFile("/proc/sys/" + keyA.Path())
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(b.root, sysctl.DropInPath))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s = %s\n", keyA, strings.TrimSpace(string(live))); !strings.Contains(string(file), want) {
		t.Errorf("live is %s, the file says\n%s", live, file)
	}
	if l := b.leftovers(); l != "" {
		t.Errorf("left behind: %s", l)
	}
}

// TestSecondApplyRefused, first applied, then rolled back: all as it was.
func TestApplyAndRollback(t *testing.T) {
	b := newBench(t)
	if code, _, out := b.run("apply", nil); code != 0 || b.now() != "new" {
		t.Fatalf("apply: %d, %s\n%s", code, b.now(), out)
	}
	if code, _, out := b.run("apply", nil); code != 6 || b.now() != "new" {
		t.Fatalf("a plan for a state that is gone: %d, %s\n%s", code, b.now(), out)
	}
	if code, _, out := b.run("rollback", nil); code != 0 || b.now() != "old" {
		t.Fatalf("rollback: %d, %s\n%s", code, b.now(), out)
	}
	if code, _, out := b.run("rollback", nil); code != 6 || b.now() != "old" {
		t.Fatalf("nothing left to roll back: %d, %s\n%s", code, b.now(), out)
	}
	if l := b.leftovers(); l != "" {
		t.Errorf("left behind: %s", l)
	}
}

// TestHostileJournals: nothing is done on the word of a journal that is not sound.
func TestHostileJournals(t *testing.T) {
	b := newBench(t)
	sound := func(change func(*Journal)) string {
		j := &Journal{Schema: JournalSchema, ID: "0123456789ab", State: Intent, Step: 3, Steps: testSteps(t, newA)}
		change(j)
		data, err := j.encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	whole := sound(func(*Journal) {})
	cases := map[string]string{
		"empty":              "",
		"garbage":            "\x00\xff garbage \n\n{}",
		"wrong checksum":     strings.Replace(whole, "somaxconn", "somaxcomm", 1),
		"truncated":          whole[:len(whole)-7],
		"deep":               journalMagic + " 100000 00\n" + strings.Repeat("[", 100000),
		"later version":      sound(func(j *Journal) { j.Schema = "hostaudit/journal/v2" }),
		"a file elsewhere":   sound(func(j *Journal) { j.Steps[3].File.Path = "/etc/passwd" }),
		"a file up the tree": sound(func(j *Journal) { j.Steps[3].File.Path = "/etc/../root/x" }),
		"a key not ours":     sound(func(j *Journal) { j.Steps[0].Sysctl.Key = "kernel.core_pattern" }),
		"a step too many":    sound(func(j *Journal) { j.Step = 4 }),
		"an id with a path":  sound(func(j *Journal) { j.ID = "../../../../x" }),
		"another host":       sound(func(j *Journal) { j.Host = "someone else" }),
	}
	place := filepath.Join(b.root, "var/lib/hostaudit")
	put := func(text string) {
		b.reset()
		b.write("/etc/machine-id", "this host\n")
		if err := os.MkdirAll(place, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(place, journalName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range cases {
		for _, what := range []string{"recover", "apply", "rollback", "confirm"} {
			put(text)
			code, _, out := b.run(what, nil)
			if code != 6 || b.now() != "old" {
				t.Errorf("%s of %s: exit code %d, %s\n%s", what, name, code, b.now(), out)
			}
			if kept, err := os.ReadFile(filepath.Join(place, journalName)); err != nil || string(kept) != text {
				t.Errorf("%s of %s: the journal was not kept", what, name)
			}
		}
	}
	// Positive control: a sound one is worked on.
	put(whole)
	if code, _, out := b.run("recover", nil); code != 0 || b.leftovers() != "" {
		t.Errorf("a sound journal: exit code %d, left %s\n%s", code, b.leftovers(), out)
	}
}

// TestHostilePlaces: links, fifos, directories of others and read-only places.
func TestHostilePlaces(t *testing.T) {
	b := newBench(t)
	at := func(name string) string { return filepath.Join(b.root, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "outside")
	cases := []struct {
		name string
		set  func()
		code int
	}{
		{"state directory is a link", func() { must(os.Mkdir(outside, 0o700)); must(os.Symlink(outside, at("var/lib/hostaudit"))) }, 6},
		{"state directory is writable for others", func() { must(os.Mkdir(at("var/lib/hostaudit"), 0o777)); must(os.Chmod(at("var/lib/hostaudit"), 0o777)) }, 6},
		{"journal is a fifo", func() {
			must(os.Mkdir(at("var/lib/hostaudit"), 0o700))
			must(unix.Mkfifo(at("var/lib/hostaudit/journal"), 0o600))
		}, 6},
		{"journal is a link", func() {
			must(os.Mkdir(at("var/lib/hostaudit"), 0o700))
			must(os.Symlink("/dev/zero", at("var/lib/hostaudit/journal")))
		}, 6},
		{"lock is a fifo", func() { must(os.Mkdir(at("run/hostaudit"), 0o700)); must(unix.Mkfifo(at("run/hostaudit/lock"), 0o600)) }, 0},
		{"drop-in is a link", func() { must(os.Symlink(outside, at(sysctl.DropInPath))) }, 6},
		{"drop-in's directory is a link", func() { must(os.RemoveAll(at("etc/sysctl.d"))); must(os.Symlink("/tmp", at("etc/sysctl.d"))) }, 6},
		{"temporary name is taken by a link", func() { must(os.Symlink(outside, at("etc/sysctl.d/.99-zz-hostaudit.conf"+tempSuffix))) }, 0},
		{"drop-in is there already", func() { b.write(sysctl.DropInPath, "net.core.somaxconn = 5\n") }, 6},
	}
	for _, c := range cases {
		b.reset()
		_ = os.RemoveAll(outside)
		c.set()
		code, _, out := b.run("apply", nil)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d\n%s", c.name, code, c.code, out)
		}
		live, err := b.ns.ReadFile("/proc/sys/" + keyA.Path())
		must(err)
		if got := strings.TrimSpace(string(live)); (got == newA) != (c.code == 0) {
			t.Errorf("%s: live value %s with exit code %d", c.name, got, code)
		}
		if found, err := filepath.Glob(outside + "/*"); err == nil && len(found) > 0 {
			t.Errorf("%s: something was written outside: %v", c.name, found)
		}
	}
	// A full and a read-only file system: mounted where only the drop-in goes.
	for _, m := range []struct{ name, options string }{{"read-only", "ro,size=64k"}, {"full", "size=4k,nr_inodes=2"}} {
		b.reset()
		must(unix.Mount("tmpfs", at("etc/sysctl.d"), "tmpfs", 0, strings.TrimPrefix(m.options, "ro,")))
		if strings.HasPrefix(m.options, "ro") {
			must(unix.Mount("", at("etc/sysctl.d"), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		} else {
			must(os.WriteFile(at("etc/sysctl.d/filler"), make([]byte, 4096), 0o600))
		}
		code, _, out := b.run("apply", nil)
		must(unix.Unmount(at("etc/sysctl.d"), 0))
		if now := b.now(); code != 4 || now != "old" {
			t.Errorf("%s: exit code %d, %s\n%s", m.name, code, now, out)
		}
	}
}

// TestImmutable: a file that not even root can replace; what is live goes back.
func TestImmutable(t *testing.T) {
	lab.Need(t, "chattr")
	b := newBench(t)
	name := filepath.Join(b.root, sysctl.ModulesDropInPath)
	if out, err := exec.Command("chattr", "+i", name).CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("chattr +i: %v: %s", err, out))
	}
	code, _, out := b.run("apply", nil)
	if err := exec.Command("chattr", "-i", name).Run(); err != nil {
		t.Fatal(err)
	}
	if now := b.now(); code != 4 || now != "old" || b.leftovers() != "" {
		t.Errorf("exit code %d, %s, left %s\n%s", code, now, b.leftovers(), out)
	}
}

// TestOtherWriter: what somebody else changed after us stays, and is named.
func TestOtherWriter(t *testing.T) {
	b := newBench(t)
	if code, _, out := b.run("apply", nil); code != 0 {
		t.Fatalf("apply: %d\n%s", code, out)
	}
	b.ns.Sysctl(t, string(keyA), "777")
	b.write(sysctl.ModulesDropInPath, "# edited by hand\n")
	code, _, out := b.run("rollback", nil)
	if code != 5 || !strings.Contains(out, string(keyA)) || !strings.Contains(out, "777") || !strings.Contains(out, sysctl.ModulesDropInPath) {
		t.Errorf("exit code %d\n%s", code, out)
	}
	live, err := b.ns.ReadFile("/proc/sys/" + keyA.Path())
	if err != nil || strings.TrimSpace(string(live)) != "777" {
		t.Errorf("the value of somebody else is gone: %s %v", live, err)
	}
	if data, err := os.ReadFile(filepath.Join(b.root, sysctl.ModulesDropInPath)); err != nil || string(data) != "# edited by hand\n" {
		t.Errorf("the file of somebody else is gone: %s %v", data, err)
	}
	// The rest is as it was.
	if live, err := b.ns.ReadFile("/proc/sys/" + keyB.Path()); err != nil || strings.Join(strings.Fields(string(live)), "\t") != oldB {
		t.Errorf("%s: %s %v", keyB, live, err)
	}
	if _, err := os.Stat(filepath.Join(b.root, sysctl.DropInPath)); err == nil {
		t.Error("the drop-in is still there")
	}
}

// TestRollbackAfterReboot: a kept change is live again after a reboot, from its
// files; a rollback takes back both. What a reboot took away by itself is no
// conflict.
func TestRollbackAfterReboot(t *testing.T) {
	for _, back := range []bool{true, false} {
		b := newBench(t)
		if code, _, out := b.run("apply", nil); code != 0 {
			t.Fatalf("apply: %d\n%s", code, out)
		}
		entries, err := filepath.Glob(filepath.Join(b.root, "var/lib/hostaudit/history/*.json"))
		if err != nil || len(entries) != 1 {
			t.Fatal(entries, err)
		}
		data, err := os.ReadFile(entries[0])
		if err != nil {
			t.Fatal(err)
		}
		j, err := decodeJournal(data)
		if err != nil {
			t.Fatal(err)
		}
		j.BootID = "another boot"
		if data, err = j.encode(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(entries[0], data, 0o600); err != nil {
			t.Fatal(err)
		}
		if !back { // the files were not loaded: the kernel's defaults, not what was there before
			b.ns.Sysctl(t, string(keyA), "128")
		}
		code, _, out := b.run("rollback", nil)
		if now := b.now(); code != 0 || back && now != "old" || !back && !strings.Contains(now, `"128"`) {
			t.Errorf("loaded %v: exit code %d, %s\n%s", back, code, now, out)
		}
	}
}
