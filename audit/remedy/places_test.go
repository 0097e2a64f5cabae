package remedy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/sysctl"
)

// TestMissingPlaces: directories that are not there are made, those that belong to
// somebody else or cannot be written are refused before anything is changed, and what
// stands in the history does not matter to a new change.
func TestMissingPlaces(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	at := func(name string) string { return filepath.Join(b.root, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state := func(mode os.FileMode) {
		must(os.MkdirAll(at("var/lib/hostaudit/history"), 0o700))
		must(os.Chmod(at("var/lib/hostaudit"), mode))
	}
	mounted := ""
	readOnly := func(name string) {
		must(unix.Mount("tmpfs", at(name), "tmpfs", 0, "size=64k,mode=0755"))
		must(unix.Mount("", at(name), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		mounted = at(name)
	}
	for _, c := range []struct {
		name string
		set  func()
		code int
		says string
	}{
		{"no /etc/sysctl.d", func() { must(os.Remove(at("etc/sysctl.d"))) }, 0, ""},
		{"no /var/lib and no /run", func() { must(os.RemoveAll(at("var"))); must(os.RemoveAll(at("run"))) }, 0, ""},
		{"the state directory is somebody else's", func() { state(0o700); must(os.Chown(at("var/lib/hostaudit"), 65534, 65534)) }, 6, "belongs to uid 65534"},
		{"the history can be written by others", func() { state(0o700); must(os.Chmod(at("var/lib/hostaudit/history"), 0o770)) }, 6, "writable for nobody else"},
		{"the history is a file", func() { must(os.Mkdir(at("var/lib/hostaudit"), 0o700)); b.write("/var/lib/hostaudit/history", "") }, 6, "not a directory"},
		{"/run is read-only", func() { readOnly("run") }, 6, "read-only"},
		{"/var/lib is read-only", func() { readOnly("var/lib") }, 6, "read-only"},
		{"/var/lib is full", func() {
			must(unix.Mount("tmpfs", at("var/lib"), "tmpfs", 0, "size=64k,mode=0755"))
			mounted = at("var/lib")
		}, 6, "1 mib is needed"},
		{"the lock is held by somebody else's open file", func() {
			must(os.MkdirAll(at("run/hostaudit"), 0o700))
			f, err := os.OpenFile(at("run/hostaudit/lock"), os.O_CREATE|os.O_RDWR, 0o600)
			must(err)
			t.Cleanup(func() { f.Close() })
			must(unix.Flock(int(f.Fd()), unix.LOCK_EX))
			time.AfterFunc(4*time.Second, func() { f.Close() })
		}, 6, "another run"},
		{"an entry of the history is garbage", func() { state(0o700); b.write("/var/lib/hostaudit/history/0123456789ab.json", "{") }, 0, ""},
		{"an entry of the history is not finished", func() {
			state(0o700)
			j := &Journal{Schema: JournalSchema, ID: "0123456789ab", State: Intent, Step: 3, Steps: testSteps(t, newA)}
			data, err := j.encode()
			must(err)
			b.write("/var/lib/hostaudit/history/0123456789ab.json", string(data))
		}, 0, ""},
		{"a journal and its next one, cut off", func() {
			state(0o700)
			j := &Journal{Schema: JournalSchema, ID: "0123456789ab", State: Intent, Step: -1, Steps: testSteps(t, newA)}
			data, err := j.encode()
			must(err)
			must(os.WriteFile(at("var/lib/hostaudit/journal"), data, 0o600))
			must(os.WriteFile(at("var/lib/hostaudit/.journal"+tempSuffix), data[:50], 0o600))
		}, 0, "is undone first"},
	} {
		b.reset()
		c.set()
		code, _, out := b.run("apply", nil)
		now := b.now()
		if mounted != "" {
			must(unix.Unmount(mounted, 0))
			mounted = ""
		}
		if want := map[bool]string{true: "new", false: "old"}[c.code == 0]; code != c.code || now != want || !strings.Contains(strings.ToLower(out), c.says) {
			t.Errorf("%s: exit code %d, want %d, %s\n%s", c.name, code, c.code, now, out)
		}
		if strings.Contains(c.name, "lock") {
			// Whoever recovers waits for it.
			if code, _, out := b.run("recover", nil); code != 0 || !strings.Contains(out, "waiting for it") {
				t.Errorf("%s: the recovery ended with %d\n%s", c.name, code, out)
			}
		}
		if c.code != 0 {
			continue
		}
		if code, _, out := b.run("rollback", nil); code != 0 || b.now() != "old" {
			t.Errorf("%s: rollback: exit code %d, %s\n%s", c.name, code, b.now(), out)
		}
		if l := b.leftovers(); l != "" {
			t.Errorf("%s: left behind: %s", c.name, l)
		}
	}
}

// TestProgramMissing: without the program that it needs nothing is begun.
func TestProgramMissing(t *testing.T) {
	if !apart(t) {
		return
	}
	lab.Need(t, "nft", "iptables-legacy")
	for _, c := range []struct {
		program string
		loader  lab.Loader
		rules   string
	}{{"nft", lab.NFT, nftDrop}, {"iptables-legacy", lab.IPTablesLegacy, xtPolicy("icmp")}} {
		d := newDrill(t, false, everybody)
		d.lab.Server.Load(t, c.loader, c.rules)
		p, in, err := d.plan("")
		if err != nil || len(p.Steps) == 0 {
			t.Fatalf("%v %v", p, err)
		}
		restore := hideTool(t, c.program)
		err = d.apply(p, in, nil)
		restore()
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "no such program") || d.connects(webPort) {
			t.Errorf("%s: it ended with %v", c.program, err)
		}
		if _, err := os.Stat(filepath.Join(d.sys.Root, d.sys.State, historyName)); err == nil {
			if all, err := d.sys.History(); err != nil || len(all) != 0 {
				t.Errorf("%s: something was begun: %v %v", c.program, all, err)
			}
		}
	}
}

// hideTool makes a program one that cannot be run.
func hideTool(t *testing.T, name string) func() {
	t.Helper()
	p, err := findTool("/", name)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = filepath.EvalSymlinks(p); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(empty, p, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
}

// TestFileCheckLies: the program that says whether a file would be taken refuses,
// hangs, floods, dies or takes everything; the file is as planned, or all is old.
func TestFileCheckLies(t *testing.T) {
	if !apart(t) {
		return
	}
	lab.Need(t, "nft", "iptables-legacy")
	for _, owner := range []struct {
		program, unit, file, text string
		loader                    lab.Loader
		check                     string // in a script: it is the call that only checks
	}{
		{"nft", "nftables.service", "/etc/nftables.conf", "flush ruleset\n" + nftDrop + "\n", lab.NFT, `[ "$1" = -c ]`},
		{"iptables-legacy-restore", "netfilter-persistent.service", "/etc/iptables/rules.v4", xtPolicy("icmp"), lab.IPTablesLegacy, `:`},
	} {
		for _, fake := range []struct {
			name, script string
			done         bool
		}{
			{"refuses", "exit 1", false},
			{"hangs", "sleep 60", false},
			{"floods", "cat /dev/zero", false},
			{"dies", "kill -9 $$", false},
			{"takes everything", "exit 0", true},
			{"takes everything and reads nothing of it", "exec <&-; exit 0", true},
		} {
			t.Run(owner.program+" "+fake.name, func(t *testing.T) {
				d := newDrill(t, false, everybody)
				d.sys.ToolTime = 3 * time.Second
				d.put("/etc/systemd/system/multi-user.target.wants/"+owner.unit, "")
				d.put(owner.file, owner.text)
				d.lab.Server.Load(t, owner.loader, owner.text)
				p, in, err := d.plan("")
				if err != nil || len(p.Steps) != 2 || len(p.Steps[1].File.Check) == 0 {
					t.Fatalf("%v\n%s", err, p.Text(nil, false))
				}
				restore := replaceTool(t, owner.program, "if "+owner.check+"; then "+fake.script+`; fi; exec "$REAL" "$@"`)
				err = d.apply(p, in, nil)
				restore()
				open, text := d.connects(webPort), d.get(owner.file)
				want := string(p.Steps[1].File.After)
				if !fake.done {
					want = owner.text
				}
				if (err == nil) != fake.done || err != nil && !errors.Is(err, ErrRolledBack) || open != fake.done || text != want {
					t.Errorf("it ended with %v, the port is open: %v, the file is\n%s", err, open, text)
				}
			})
		}
	}
}

// TestTwoChangesOfOneHost: the second change stands on the first; each can be rolled
// back by its id, in any order, and takes only what is its own.
func TestTwoChangesOfOneHost(t *testing.T) {
	b := newBench(t)
	plan := func(steps ...Step) (*Plan, *System) {
		p := &Plan{Steps: steps}
		p.number()
		s := &System{Root: b.root, Watch: noWatchdog{}, Say: t.Logf}
		s.Defaults()
		return p, s
	}
	one, s := plan(Step{Phase: Live, Sysctl: &sysctl.Change{Key: keyA, Before: oldA, After: newA, Reason: "a test"}})
	two, _ := plan(Step{Phase: Live, Sysctl: &sysctl.Change{Key: keyB, Before: oldB, After: newB, Reason: "a test"}})
	for _, first := range []*Plan{one, two} {
		b.reset()
		second := one
		if first == one {
			second = two
		}
		b.ns.Do(func() {
			for _, p := range []*Plan{one, two} {
				if err := s.Apply(t.Context(), p, ApplyOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Rollback(t.Context(), first.ID, false); err != nil {
				t.Error(err)
			}
			if b.now() == "old" {
				t.Error("both are gone")
			}
			if err := s.Rollback(t.Context(), second.ID, false); err != nil {
				t.Error(err)
			}
		})
		if b.now() != "old" {
			t.Errorf("%s", b.now())
		}
	}
}
