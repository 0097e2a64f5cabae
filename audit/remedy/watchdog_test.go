package remedy

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// waiting starts an apply that waits to be confirmed, and returns when it does.
func (b *bench) waiting(deadline string) (*exec.Cmd, *strings.Builder) {
	b.t.Helper()
	cmd := exec.Command(b.exe)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), lab.Marker + "=" + os.Getenv(lab.Marker), "REMEDY_CHILD=apply", "REMEDY_ROOT=" + b.root, "REMEDY_PLAN=" + b.plan,
		"REMEDY_WAIT=1", "REMEDY_DEADLINE=" + deadline, "REMEDY_LOGIN=192.0.2.1 40000 192.0.2.2 22"}
	out := &strings.Builder{}
	cmd.Stderr = out
	if err := b.ns.Start(cmd); err != nil {
		b.t.Fatal(err)
	}
	b.until(func() bool { return b.state() == Applied })
	return cmd, out
}

// state is that of the journal, "" where there is none.
func (b *bench) state() State {
	d, err := openDir(b.root, "/var/lib/hostaudit", false, 0, false)
	if err != nil {
		return ""
	}
	defer d.close()
	j, err := readJournal(d, journalName)
	if err != nil || j == nil {
		return ""
	}
	return j.State
}

// journal is that of the change at work.
func (b *bench) journal() *Journal {
	b.t.Helper()
	d, err := openDir(b.root, "/var/lib/hostaudit", false, 0, false)
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.close()
	j, err := readJournal(d, journalName)
	if err != nil || j == nil {
		b.t.Fatal(j, err)
	}
	return j
}

// until waits for something that takes as long as it takes.
func (b *bench) until(f func() bool) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("it did not come to that; the journal says %q, the host is %s", b.state(), b.now())
		}
	}
}

// half is live, and not on disk: what a change looks like that waits.
func (b *bench) half() bool {
	return strings.Contains(b.now(), `["`+newA+`" "`+newB+`" "(none)" "# old`)
}

func TestConfirmed(t *testing.T) {
	b := newBench(t)
	cmd, out := b.waiting("60s")
	if !b.half() {
		t.Errorf("while it waits the host is %s", b.now())
	}
	if code, _, text := b.run("apply", nil); code != 6 || !strings.Contains(text, "waits to be confirmed") {
		t.Errorf("another apply meanwhile: %d\n%s", code, text)
	}
	if code, _, text := b.run("apply", nil, "REMEDY_PLAN=[]"); code != 6 || !strings.Contains(text, "hostaudit confirm keeps it") {
		t.Errorf("a plan without steps meanwhile: %d\n%s", code, text)
	}
	if code, _, text := b.run("recover", nil); code != 0 || !b.half() {
		t.Errorf("recovery meanwhile: %d, %s\n%s", code, b.now(), text)
	}
	if code, _, text := b.run("confirm", nil, "REMEDY_LOGIN=192.0.2.1 40000 192.0.2.2 22"); code != 6 || !strings.Contains(text, "proves nothing") {
		t.Errorf("confirmed over the same connection: %d\n%s", code, text)
	}
	if code, _, text := b.run("confirm", nil, "REMEDY_LOGIN=192.0.2.1 40001 192.0.2.2 22"); code != 0 {
		t.Errorf("confirm: %d\n%s", code, text)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 0 || b.now() != "new" || b.leftovers() != "" {
		t.Errorf("exit code %d, %s, left %s\n%s", code, b.now(), b.leftovers(), out)
	}
}

func TestNotConfirmed(t *testing.T) {
	b := newBench(t)
	cmd, out := b.waiting("1s")
	_ = cmd.Wait()
	// Either of the two was first; both must say so.
	if code := cmd.ProcessState.ExitCode(); code != 4 || b.now() != "old" || b.leftovers() != "" {
		t.Errorf("exit code %d, %s, left %s\n%s", code, b.now(), b.leftovers(), out)
	}
	if code, _, text := b.run("confirm", nil); code != 6 || b.now() != "old" {
		t.Errorf("a late confirmation: %d, %s\n%s", code, b.now(), text)
	}
}

// TestHungUp: the login is gone, the change is undone at once.
func TestHungUp(t *testing.T) {
	b := newBench(t)
	cmd, out := b.waiting("60s")
	if err := cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 4 || b.now() != "old" || b.leftovers() != "" {
		t.Errorf("exit code %d, %s, left %s\n%s", code, b.now(), b.leftovers(), out)
	}
}

// TestApplyKilledWhileWaiting: the watchdog in another session brings it back.
func TestApplyKilledWhileWaiting(t *testing.T) {
	b := newBench(t)
	cmd, _ := b.waiting("2s")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	b.until(func() bool { return b.now() == "old" && b.leftovers() == "" })
}

// TestWatchdogKilledToo: then the next run, or the next boot, does it.
func TestWatchdogKilledToo(t *testing.T) {
	b := newBench(t)
	cmd, _ := b.waiting("2s")
	j := b.journal()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	// The watchdog's pid is not in the journal of that moment: it is the process
	// whose command line names the change.
	killed := 0
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		line, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil || !strings.Contains(string(line), j.ID) || !strings.Contains(string(line), b.root) {
			continue
		}
		pid := 0
		for _, c := range e.Name() {
			pid = pid*10 + int(c-'0')
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed++
	}
	if killed != 1 {
		t.Fatalf("%d watchdogs", killed)
	}
	b.until(func() bool {
		code, _, _ := b.run("recover", nil)
		return code == 0 && b.now() == "old" && b.leftovers() == ""
	})
}

// TestConfirmedAtTheDeadline: run, watchdog and confirmation come to it in the same
// moment, in any order; all three tell the same.
func TestConfirmedAtTheDeadline(t *testing.T) {
	b := newBench(t)
	kept := 0
	const rounds = 6
	for i := range rounds {
		b.reset()
		const deadline = 2 * time.Second
		cmd, out := b.waiting(deadline.String())
		d, err := openDir(b.root, "/var/lib/hostaudit", false, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		j, err := readJournal(d, journalName)
		d.close()
		if err != nil || j == nil {
			t.Fatal(j, err)
		}
		// From 60 ms before the deadline to 40 ms after it; starting takes a few.
		time.Sleep(j.boottimeLeft() + time.Duration(i*20-60)*time.Millisecond)
		code, _, text := b.run("confirm", nil, "REMEDY_LOGIN=192.0.2.1 40001 192.0.2.2 22")
		_ = cmd.Wait()
		applied := cmd.ProcessState.ExitCode()
		now := b.now()
		switch {
		case code == 0 && applied == 0 && now == "new":
			kept++
		case (code == 4 || code == 6) && applied == 4 && now == "old":
		default:
			t.Errorf("round %d: confirm ended with %d, apply with %d, %s\n%s\n%s", i, code, applied, now, text, out)
		}
		if l := b.leftovers(); l != "" {
			t.Errorf("left behind: %s", l)
		}
	}
	t.Logf("%d of %d were kept", kept, rounds)
}

// TestTimerRefused: where systemd does not take the timer, or says that it did and
// did not, nothing is changed.
func TestTimerRefused(t *testing.T) {
	if !apart(t) {
		return
	}
	lab.Need(t, "systemd-run", "systemctl", "nft")
	for name, fakes := range map[string][2]string{ // systemd-run, systemctl
		"fails":              {"exit 1", "echo ActiveState=active"},
		"name is taken":      {"echo 'Unit hostaudit-rollback.timer already exists' >&2; exit 1", "echo ActiveState=active"},
		"hangs":              {"sleep 1000", "echo ActiveState=active"},
		"floods":             {"head -c 100000000 /dev/zero", "echo ActiveState=active"},
		"lies":               {"exit 0", "echo ActiveState=inactive"},
		"cannot be asked":    {"exit 0", "exit 1"},
		"answers is garbage": {"exit 0", `printf '\377\376\033[2J'`},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDrill(t, false, everybody)
			d.sys.ToolTime = time.Second
			d.lab.Server.Load(t, lab.NFT, nftDrop)
			p, in, err := d.plan("")
			if err != nil || len(p.Steps) == 0 {
				t.Fatalf("%v %v", p, err)
			}
			d.sys.Watch = &timer{d.sys, "/usr/sbin/hostaudit", nil}
			defer replaceTool(t, "systemd-run", fakes[0])()
			defer replaceTool(t, "systemctl", fakes[1])()
			if err := d.apply(p, in, nil); !errors.Is(err, ErrRolledBack) {
				t.Errorf("it ended with %v", err)
			}
			if rules := d.lab.Server.Run(t, "nft", "list", "ruleset"); strings.Contains(rules, "hostaudit") || d.connects(webPort) {
				t.Errorf("something was changed:\n%s", rules)
			}
		})
	}
}

// observer is a watchdog that looks at the host when it is armed and disarmed.
type observer struct{ armed, disarmed func() }

func (o observer) Arm(context.Context, string, time.Duration) (string, error) {
	o.armed()
	return "observer", nil
}
func (o observer) Disarm(context.Context, string) { o.disarmed() }

// TestOrderOfTheWatchdog: it is armed when the intent is on disk and nothing has been
// changed, and disarmed when the change is committed, or undone, on disk.
func TestOrderOfTheWatchdog(t *testing.T) {
	for _, broken := range []bool{false, true} {
		b := newBench(t)
		seen := 0
		s := &System{Root: b.root}
		s.Defaults()
		s.Watch = observer{func() {
			seen++
			if b.now() != "old" || b.state() != Intent {
				t.Errorf("armed when the host is %s and the journal says %q", b.now(), b.state())
			}
		}, func() {
			seen++
			all, err := s.History()
			want, state := "new", Committed
			if broken {
				want, state = "old", RolledBack
			}
			if err != nil || len(all) != 1 || all[0].State != state || b.now() != want || b.state() != "" {
				t.Errorf("disarmed when the host is %s and the history %v %v", b.now(), all, err)
			}
		}}
		p := &Plan{Steps: b.steps}
		p.number()
		var err error
		b.ns.Do(func() {
			err = s.Apply(t.Context(), p, ApplyOptions{Verify: func(context.Context) error {
				if broken {
					return errors.New("a test")
				}
				return nil
			}})
		})
		if (err == nil) == broken || seen != 2 {
			t.Errorf("it ended with %v, the watchdog was called %d times", err, seen)
		}
	}
}

// TestWatchdogOfTheSamePlanBefore: a plan that is carried out again right after it was
// rolled back is not undone at the deadline of the first time.
func TestWatchdogOfTheSamePlanBefore(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first, _ := b.waiting("60s")
	j := b.journal()
	guard := func(after time.Duration) error {
		s := &System{Root: b.root, Watch: noWatchdog{}}
		s.Defaults()
		s.Poll = after // it looks once, at the end
		var err error
		b.ns.Do(func() { err = s.Guard(context.Background(), j.ID, after, nil) })
		return err
	}
	done := make(chan error, 1)
	go func() { done <- guard(4 * time.Second) }()
	time.Sleep(300 * time.Millisecond) // until it has looked for whom it watches
	if code, _, text := b.run("rollback", nil); code != 0 {
		t.Fatalf("rollback: %d\n%s", code, text)
	}
	_ = first.Wait()
	again, out := b.waiting("60s")
	if err := <-done; err != nil || b.state() != Applied || !b.half() {
		t.Errorf("the watchdog of the first time: %v; the journal says %q, the host is %s\n%s", err, b.state(), b.now(), out)
	}
	// Control: its own watchdog undoes it.
	if err := guard(time.Second); err != nil {
		t.Error(err)
	}
	_ = again.Wait()
	if code := again.ProcessState.ExitCode(); code != 4 || b.now() != "old" {
		t.Errorf("its own watchdog: exit code %d, %s\n%s", code, b.now(), out)
	}
}
