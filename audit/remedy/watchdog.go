package remedy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Watchdog lives in a process of its own and runs `hostaudit rollback ID
// --if-unconfirmed` when the time is up.
type Watchdog interface {
	// Arm starts it and returns only when it is seen to be at work; the text names
	// it for the journal.
	Arm(ctx context.Context, id string, after time.Duration) (string, error)
	// Disarm ends it, as far as that is possible: a late one finds the journal
	// closed and does nothing.
	Disarm(ctx context.Context, id string)
}

// NewWatchdog chooses: a transient timer where systemd runs, otherwise a detached
// child; also a child in another network namespace than the machine's first, where a
// timer's program would not be. exe is this program, args what goes before "rollback ID
// --if-unconfirmed" (--root DIR).
func NewWatchdog(s *System, exe string, args []string) Watchdog {
	first, err := FirstNamespace()
	if _, statErr := os.Stat("/run/systemd/system"); err == nil && first && statErr == nil && s.Root == "/" {
		return &timer{s, exe, args}
	}
	return &child{exe, args}
}

// timer is a systemd transient timer: it outlives the login and its scope.
type timer struct {
	s    *System
	exe  string
	args []string
}

// unitUnknown is how systemctl ends where there is no such unit (systemctl(1), exit
// status 5): the timer has run, or there never was one.
const unitUnknown = 5

// armTries is how often the timer is asked for, a second apart.
const armTries = 4

func unitName(id string) string { return "hostaudit-rollback-" + id }

func (t *timer) Arm(ctx context.Context, id string, after time.Duration) (string, error) {
	unit := unitName(id)
	argv := []string{"systemd-run", "--unit=" + unit, "--on-active=" + strconv.Itoa(int(after.Seconds())) + "s",
		// The default accuracy is a minute.
		"--timer-property=AccuracySec=1s", "--property=Restart=on-failure", "--property=RestartSec=2", "--property=StartLimitIntervalSec=0",
		"--collect", t.exe, "rollback"}
	argv = append(append(argv, t.args...), id, "--if-unconfirmed")
	// The same change may have been undone a moment ago by its timer, whose service has
	// not quite ended: its name is taken until then.
	for try := 1; ; try++ {
		_, err := t.s.run(ctx, argv, "")
		if err == nil {
			break
		}
		var e *toolError
		if try == armTries || !errors.As(err, &e) || e.status < 0 {
			return "", err
		}
		time.Sleep(time.Second)
	}
	out, err := t.s.run(ctx, []string{"systemctl", "show", "--property=ActiveState", unit + ".timer"}, "")
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(out) != "ActiveState=active" {
		return "", fmt.Errorf("the timer %s.timer is not active: %s", unit, strings.TrimSpace(out))
	}
	return unit + ".timer", nil
}

func (t *timer) Disarm(ctx context.Context, id string) {
	_, err := t.s.run(ctx, []string{"systemctl", "stop", unitName(id) + ".timer"}, "")
	var e *toolError
	if err != nil && !(errors.As(err, &e) && e.status == unitUnknown) {
		t.s.say("the timer could not be stopped (it will find nothing to do): %v", err)
	}
}

// child is a process in a session of its own. It dies with the login's scope
// where a session manager kills that; there is none without systemd.
type child struct {
	exe  string
	args []string
}

// ReadyFD is the descriptor on which the child says that it is at work.
const ReadyFD = 3

func (c *child) Arm(_ context.Context, id string, after time.Duration) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("make a pipe: %w", err)
	}
	defer func() { _ = r.Close() }()
	args := append([]string{"rollback"}, c.args...)
	args = append(args, id, "--if-unconfirmed", "--after", after.String())
	cmd := exec.Command(c.exe, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = w.Close()
		return "", err
	}
	_ = w.Close()
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if n, err := r.Read(make([]byte, 1)); n != 1 {
		return "", errors.Join(errors.New("the child did not report that it is at work"), err)
	}
	pid := cmd.Process.Pid
	_ = cmd.Process.Release()
	return fmt.Sprintf("process %d", pid), nil
}

// Disarm has nothing to do: the child looks at the journal and goes.
func (c *child) Disarm(context.Context, string) {}

// Guard is the child's side: it says that it is at work, waits until the time is
// up or the change is finished, and rolls back what was not confirmed. A hang-up
// or a termination does not end it.
func (s *System) Guard(ctx context.Context, id string, after time.Duration, ready *os.File) error {
	until := sinceBoot() + after
	// Best effort: the last to be killed when memory is short.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0)
	if ready != nil {
		if _, err := ready.Write([]byte("+")); err != nil {
			return fmt.Errorf("report that the watchdog is at work: %w", err)
		}
		_ = ready.Close()
	}
	mine := s.waitingUntil(id)
	for sinceBoot() < until {
		time.Sleep(min(until-sinceBoot(), 2*s.Poll))
		if at := s.waitingUntil(id); at == 0 || mine > 0 && at > 0 && at != mine {
			return nil
		}
	}
	for {
		err := s.Rollback(ctx, id, true)
		if errors.Is(err, errLocked) {
			time.Sleep(s.Poll)
			continue
		}
		return err
	}
}

// waitingUntil is the deadline of a transaction in nanoseconds since boot: 0 where it
// has left the journal, -1 where that cannot be read. The same plan may have been
// carried out anew meanwhile, with a deadline and a watchdog of its own.
func (s *System) waitingUntil(id string) int64 {
	d, err := openDir(s.root(), s.State, false, 0, false)
	if errors.Is(err, unix.ENOENT) {
		return 0
	}
	if err != nil {
		return -1
	}
	defer d.close()
	switch j, err := readJournal(d, journalName); {
	case err != nil:
		return -1
	case j == nil || j.ID != id:
		return 0
	default:
		return j.DeadlineBoot
	}
}
