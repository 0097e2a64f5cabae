package remedy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/metrics"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall/owner"
)

// An errand is one run of another program for a change. It is carried out by this
// very program in a process and process group of its own (RunErrand), for three
// reasons. Its time is bounded even when the run that wants it is killed; that
// process keeps the lock of the change as long as the other program works, so that
// nobody recovers a change which is still being made; and go-iptables, which knows
// neither a deadline nor a bound of output nor process groups, gets all three.
type errand struct {
	// Argv is a program to run, by its absolute path beneath Root, and what it reads.
	Argv  []string `json:"argv,omitempty"`
	Root  string   `json:"root,omitempty"`
	Stdin string   `json:"stdin,omitempty"`
	// Rule is put in (In), or taken out, with the iptables binary at Path instead.
	Rule *owner.Insertion `json:"rule,omitempty"`
	In   bool             `json:"in,omitempty"`
	Path string           `json:"path,omitempty"`
	// Time is what it may take.
	Time time.Duration `json:"time"`
}

// ErrandCommand is the argument by which this program is started for an errand.
const ErrandCommand = "errand"

// lockFD is the descriptor on which an errand gets the lock of the change.
const lockFD = 3

// errandFailed is the exit status of an errand whose program did not end by itself
// or could not be started; any other is the program's own. timeout(1) has the same.
const errandFailed = 125

// maxErrand bounds what an errand is told, and what go-iptables keeps.
const (
	maxErrand       = 8 << 20
	maxErrandMemory = 64 << 20
)

// toolEnv is the environment of every program that is run.
func toolEnv() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root", "TERM=dumb"}
}

// RunErrand does the errand that stands on in, and returns the exit status. What the
// program writes goes to out when it has ended. It must lead its process group,
// which it kills when its time is up, itself included.
func RunErrand(in io.Reader, out io.Writer) int {
	// The lock stays with this process: a program that leaves a child behind must
	// not keep it.
	unix.CloseOnExec(lockFD)
	// The run that wants it may be dead: writing to it must not end this one. Caught
	// and not ignored, for programs inherit what is ignored.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	fail := func(err error) int {
		_, _ = fmt.Fprintln(out, err)
		return errandFailed
	}
	var e errand
	d := json.NewDecoder(io.LimitReader(in, maxErrand))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return fail(fmt.Errorf("read the errand: %w", err))
	}
	// Whoever may run this program with other rights than his own must not get further
	// by this way.
	if !childOfOurs() {
		return fail(errors.New("an errand is done for a run of this program, and for nobody else"))
	}
	if unix.Getpgrp() != os.Getpid() {
		return fail(errors.New("an errand needs a process group of its own"))
	}
	end := func(why string) {
		_, _ = fmt.Fprintln(out, why)
		_ = unix.Kill(0, unix.SIGKILL)
	}
	time.AfterFunc(e.Time, func() { end(fmt.Sprintf("not done within %s", e.Time)) })
	if e.Rule != nil {
		go boundMemory(func() { end(flooded) })
		return e.rule(out)
	}
	if len(e.Argv) == 0 {
		return fail(errors.New("an errand without a program"))
	}
	return e.program(out, end)
}

// childOfOurs says whether this process was started by this very program, which still
// lives.
func childOfOurs() bool {
	var own, parent unix.Stat_t
	return unix.Stat("/proc/self/exe", &own) == nil && unix.Stat(fmt.Sprintf("/proc/%d/exe", os.Getppid()), &parent) == nil &&
		own.Dev == parent.Dev && own.Ino == parent.Ino
}

const flooded = "more output than it should have"

// program runs a program without a shell, in a clean environment.
func (e *errand) program(out io.Writer, end func(string)) int {
	cmd := exec.Command(e.Argv[0], e.Argv[1:]...)
	cmd.Env, cmd.Dir = toolEnv(), "/"
	if e.Root != "/" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: e.Root}
	}
	cmd.WaitDelay = 2 * time.Second
	cmd.Stdin = strings.NewReader(e.Stdin)
	kept := &capped{over: func() { end(flooded) }}
	cmd.Stdout, cmd.Stderr = kept, kept
	err := cmd.Run()
	_, _ = out.Write(kept.b.Bytes())
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	}
	_, _ = fmt.Fprintln(out, err)
	return errandFailed
}

// rule goes through go-iptables.
func (e *errand) rule(out io.Writer) int {
	err := changeTables(e.Rule, e.Path, e.In)
	if err == nil {
		return 0
	}
	text := err.Error()
	_, _ = fmt.Fprintln(out, text[:min(len(text), maxToolOutput)])
	var refused *iptables.Error
	if errors.As(err, &refused) && refused.Exited() && refused.ExitStatus() > 0 {
		return refused.ExitStatus()
	}
	return errandFailed
}

// boundMemory calls over when this process keeps more than it ever should: what a
// program writes is kept whole by go-iptables.
func boundMemory(over func()) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	for {
		if metrics.Read(sample); sample[0].Value.Uint64() > maxErrandMemory {
			over()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
