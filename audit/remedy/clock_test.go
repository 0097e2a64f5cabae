package remedy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/sysctl"
)

// TestClockIsSet: somebody sets the clock while a change waits, years back and years
// ahead; its deadline comes when it was to come.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"years ahead": 100_000 * time.Hour, "years back": -100_000 * time.Hour} {
		b := newBench(t)
		s := &System{Root: b.root, Watch: noWatchdog{}}
		s.Defaults()
		s.Poll = 20 * time.Millisecond
		start := time.Now()
		s.Now = func() time.Time {
			if time.Since(start) > 200*time.Millisecond {
				return time.Now().Add(jump)
			}
			return time.Now()
		}
		p := &Plan{Steps: b.steps}
		p.number()
		const deadline, late = 3 * time.Second, 20 * time.Second
		ctx, cancel := context.WithTimeout(context.Background(), deadline+late)
		defer cancel()
		var err error
		b.ns.Do(func() { err = s.Apply(ctx, p, ApplyOptions{Wait: true, Deadline: deadline}) })
		took := time.Since(start)
		if !errors.Is(err, ErrRolledBack) || !strings.Contains(fmt.Sprint(err), "not confirmed in time") || took < deadline || took > deadline+late || b.now() != "old" {
			t.Errorf("%s: after %s %v, %s", name, took, err, b.now())
		}
	}
}

// TestOtherClocks applies with the clocks since boot a day ahead and as early as can
// be: the change waits, is confirmed there, and is undone at its deadline.
func TestOtherClocks(t *testing.T) {
	lab.Need(t, "unshare")
	b := newBench(t)
	exe := b.exe
	for _, offset := range []string{"100000", "86400", "-100"} {
		script := exe + ".clock"
		text := fmt.Sprintf("#!/bin/sh\nexec unshare -T --monotonic %s --boottime %s %s \"$@\"\n", offset, offset, exe)
		if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		b.exe = script
		if out, err := exec.Command("unshare", "-T", "--boottime", offset, "true").CombinedOutput(); err != nil {
			missing(t, fmt.Sprintf("a time namespace: %v: %s", err, out))
		}
		for _, confirm := range []bool{true, false} {
			b.reset()
			start := time.Now()
			cmd, out := b.waiting(map[bool]string{true: "60s", false: "2s"}[confirm])
			if confirm {
				// From the same clocks; with others it would be refused or too late.
				if code, _, text := b.run("confirm", nil, "REMEDY_LOGIN=192.0.2.1 40001 192.0.2.2 22"); code != 0 {
					t.Errorf("%s: confirm ended with %d\n%s", offset, code, text)
				}
			}
			_ = cmd.Wait()
			code, want := cmd.ProcessState.ExitCode(), map[bool]string{true: "new", false: "old"}[confirm]
			if (code == 0) != confirm || b.now() != want || time.Since(start) > 40*time.Second {
				t.Errorf("%s, confirmed %v: exit code %d, %s, after %s\n%s", offset, confirm, code, b.now(), time.Since(start), out)
			}
		}
	}
	_ = os.Remove(exe + ".clock")
}

// TestClockSetBack: a change made after the clock was set back is the last one all the
// same, for a rollback and for what the history keeps.
func TestClockSetBack(t *testing.T) {
	b := newBench(t)
	s := &System{Root: b.root, Watch: noWatchdog{}}
	s.Defaults()
	at := time.Now()
	s.Now = func() time.Time { return at }
	from := oldA
	change := func(to string) string {
		p := &Plan{Steps: []Step{{Phase: Live, Sysctl: &sysctl.Change{Key: keyA, Before: from, After: to, Reason: "a test"}}}}
		p.number()
		from = to
		var err error
		b.ns.Do(func() { err = s.Apply(context.Background(), p, ApplyOptions{}) })
		if err != nil {
			t.Fatal(err)
		}
		return p.ID
	}
	change("5001")
	at = time.Unix(100, 0)
	last := change("5002")
	all, err := s.History()
	if err != nil || len(all) != 2 || all[0].ID != last {
		t.Fatalf("%v %v", all, err)
	}
	b.ns.Do(func() { err = s.Rollback(context.Background(), "", false) })
	live, _ := b.ns.ReadFile("/proc/sys/" + keyA.Path())
	if err != nil || strings.TrimSpace(string(live)) != "5001" {
		t.Errorf("a rollback: %v, it is %s", err, live)
	}
	from = "5001"
	for i := range keepHistory + 5 {
		last = change(fmt.Sprint(6000 + i))
	}
	if all, err = s.History(); err != nil || len(all) != keepHistory || all[0].ID != last {
		t.Errorf("the history keeps %d, %v", len(all), err)
	}
}
