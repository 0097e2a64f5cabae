package remedy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// mutants are defects that the crash tests must find: each replaces a piece of the
// protocol's own source.
var mutants = []struct {
	name, file, old, new string
}{
	{"no journal between the steps", "apply.go", "\t\tif err := st.save(j); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := s.set", "\t\tif err := s.set"},
	{"the step is not named before it begins", "apply.go", "\t\tj.Step = i\n", "\t\t_ = i\n"},
	{"recovery ignores an intent", "rollback.go", "\tif j.State.Final() {\n\t\tif err := s.sweep", "\tif j.State.Final() || j.State == Intent {\n\t\tif err := s.sweep"},
	{"committed too early", "apply.go", "\tj.State = Confirmed\n", "\tj.State = Committed\n"},
	{"an unfinished file is left", "rollback.go", "if err := again(func() error { return s.sweep(j.Steps) }); err != nil {", "if err := error(nil); err != nil {"},
	{"a failed step is taken for done", "apply.go", "if err := s.set(ctx, step, true); err != nil {\n\t\t\treturn err\n\t\t}", "_ = s.set(ctx, step, true)\n\t\tif true { continue }"},
	{"a failure is not rolled back", "rollback.go", "\tj.Left = s.restore(ctx, j)\n", "\tj.Left = nil\n"},
	{"written in two steps", "dir.go", "temp := \".\" + name + tempSuffix\n\tif err := d.unlink(temp)", "temp := name\n\tif err := d.unlink(temp)"},
}

// TestMutants breaks the protocol on purpose and expects the crash tests to see
// it: a harness that misses these is none.
func TestMutants(t *testing.T) {
	t.Parallel()
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			exe := mutant(t, m.file, m.old, m.new)
			b := newBench(t)
			b.exe = exe
			for _, errno := range []string{"", "EIO"} {
				for _, call := range []string{"renameat", "write", "fsync", "openat", "unlinkat"} {
					for k := 1; ; k++ {
						p := point{call: call, k: k, errno: errno}
						b.reset()
						code, hit, output := b.run("apply", &p)
						if !hit {
							break
						}
						now := b.now()
						if code == 0 && now != "new" || code == 4 && now != "old" {
							t.Logf("caught by %v: exit code %d and %s", p, code, now)
							return
						}
						if err := afterKill(b, p, code, output); err != nil {
							t.Logf("caught by %v: %v", p, err)
							return
						}
					}
				}
			}
			t.Error("nothing caught it")
		})
	}
}

// protocolMutants are defects that no crash shows: each has a test that must see it.
var protocolMutants = []struct{ name, file, old, new, judge string }{
	{"rollback without compare-and-swap", "rollback.go", "\tcase elsewhere:\n\t\treturn fmt.Errorf(\"%w%s\", errConflict, prefixed(\": \", what))\n", "\tcase elsewhere:\n", "TestOtherWriter$"},
	{"confirmed from a connection that was open before", "rollback.go", "case s.Login.Older(j.AppliedBoot):", "case s.Login.Older(0):", "TestOldConnection$"},
	{"no watchdog", "apply.go", "if j.Watchdog, err = s.Watch.Arm(ctx, j.ID, o.Deadline); err != nil {", "if j.Watchdog, err = \"\", nil; err != nil {", "TestTimerRefused$/^fails$"},
	{"only the own environment is asked for the login", "login.go", "if l.Connection == \"\" {\n\t\t\tif env", "if l.Connection == \"\" && pid == os.Getpid() {\n\t\t\tif env", "TestFindLogin$"},
	{"the watchdog is armed after the first change", "apply.go",
		"\tif j.Watchdog, err = s.Watch.Arm(ctx, j.ID, o.Deadline); err != nil {\n\t\treturn fail(fmt.Errorf(\"arm the watchdog: %w\", err))\n\t}\n\tif err := s.carryOut(ctx, st, j, Live); err != nil {\n\t\treturn fail(err)\n\t}\n",
		"\tif err := s.carryOut(ctx, st, j, Live); err != nil {\n\t\treturn fail(err)\n\t}\n\tif j.Watchdog, err = s.Watch.Arm(ctx, j.ID, o.Deadline); err != nil {\n\t\treturn fail(err)\n\t}\n",
		"TestOrderOfTheWatchdog$"},
	{"the watchdog is disarmed before the end", "apply.go", "\tj.State, j.Ended = Committed, s.Now().UTC()\n", "\ts.Watch.Disarm(ctx, j.ID)\n\tj.State, j.Ended = Committed, s.Now().UTC()\n", "TestOrderOfTheWatchdog$"},
	{"a missing program is found out in the middle", "apply.go", "if err := s.programs(p.Steps); err != nil {", "if err := error(nil); err != nil {", "TestProgramMissing$"},
	{"a clock that can be set decides", "apply.go", "case sinceBoot() >= time.Duration(now.DeadlineBoot):", "case !s.Now().Before(now.Deadline):", "TestClockIsSet$"},
	{"kept without a look at what is in place", "apply.go", "\tif j.Wait {\n", "\tif false {\n", "TestWriterWhileItWaits$/^nft,_its_file"},
	{"a program at work does not keep the lock", "tool.go", "cmd.ExtraFiles = []*os.File{lock} // lockFD", "_ = lock", "TestRunKilledWhileAToolWorks$/^iptables-legacy_works$"},
	{"a program is not bounded in time", "errand.go", "time.AfterFunc(e.Time, ", "time.AfterFunc(time.Hour, ", "TestRunKilledWhileAToolWorks$/^nft_works_and_hangs$"},
	{"nothing is verified", "verify.go", "\t\treturn p.verify(&before.World, &now.World, paths)\n", "\t\t_ = p.verify(&before.World, &now.World, paths)\n\t\treturn nil\n", "TestOperatorCutOff$"},
}

// TestProtocolMutants breaks the protocol where no crash shows it, and expects the
// test of that part to fail.
func TestProtocolMutants(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "strace", "systemd-run", "systemctl")
	for _, m := range protocolMutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			cmd := ownMounts(mutant(t, m.file, m.old, m.new), "-test.run", m.judge)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL") {
				t.Errorf("%s did not catch it: %v\n%s", m.judge, err, out)
			}
		})
	}
}

// mutant builds this package with a piece of its source replaced.
func mutant(t *testing.T, file, old, replacement string) string {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("MUTANTS NOT RUN: %v", err)
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(source), old) != 1 {
		t.Fatalf("%s no longer holds %q once: the mutant has to be written anew", file, old)
	}
	dir := t.TempDir()
	mutated := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(mutated, []byte(strings.Replace(string(source), old, replacement, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(wd, file): mutated}})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "mutant.test")
	if out, err := exec.Command(goTool, "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlayFile, "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the mutant: %v\n%s", err, out)
	}
	return exe
}
