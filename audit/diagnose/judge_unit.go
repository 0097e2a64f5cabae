package diagnose

import (
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
)

// units says how the services that should hold the port ended, and what to do.
// remedy is "" where nothing is known of any.
func (j *judge) units() (ev []audit.Evidence, remedy string) {
	facts := j.e.serverFacts()
	if e := facts.Earlier; e != nil {
		who := fmt.Sprintf("%s (pid %d)", e.Name, e.PID)
		if e.Unit != "" {
			who += " of " + e.Unit
		}
		ev = append(ev, evidence("report of "+e.At.Format("2006-01-02 15:04 UTC"), "%s listened on %s", who, e.Listener))
	}
	all := facts.Units
	if len(all) == 0 && facts.Unit != nil {
		all = []*Unit{facts.Unit}
	}
	if len(all) == 0 {
		killed, todo := j.killedHere()
		return append(ev, killed...), todo
	}
	for i, u := range all {
		w := unitWords{u: u, port: j.e.Target.Port, now: j.e.Now}
		said, todo := w.words()
		if u.Found != "" {
			said += "; looked at because " + u.Found
			if !u.Sure {
				said += " (whether it is the service meant is not known)"
			}
		}
		ev = append(ev, evidence("unit "+u.Name, "%s", said))
		if u.StalePID > 0 && !u.Active {
			ev = append(ev, evidence("unit "+u.Name, "%s names process %d, which does not exist", u.PIDFile, u.StalePID))
		}
		killed, why := j.ofUnit(u)
		ev = append(ev, killed...)
		if why != "" {
			todo = why + w.after()
		}
		if i == 0 || remedy == "" {
			remedy = todo
		}
	}
	return ev, remedy
}

// unitWords puts the state of a unit into words.
type unitWords struct {
	u    *Unit
	port uint16
	now  time.Time
}

// name is the unit's, fit for a shell.
func (w *unitWords) name() string {
	if strings.Contains(w.u.Name, `\`) {
		return "'" + w.u.Name + "'"
	}
	return w.u.Name
}

func (w *unitWords) start() string { return "start it: systemctl start " + w.name() }

// after is what remains to do when the reason is gone.
func (w *unitWords) after() string {
	if s := w.u.State; s != nil && s.Active == "failed" && w.gaveUp() {
		return fmt.Sprintf("; then systemctl reset-failed %s, for systemd refuses to start what it has given up, and systemctl start %s", w.name(), w.name())
	}
	return "; then " + w.start()
}

func (w *unitWords) journal() string {
	return fmt.Sprintf("find out why (journalctl -b -u %s has what it said)", w.name())
}

// gaveUp tells that systemd started it so often that it will not any more.
func (w *unitWords) gaveUp() bool {
	s := w.u.State
	return s.Result == "start-limit-hit" || s.Result == "service-start-limit-hit" || s.Restarts > 0 && s.Active == "failed" && (s.Restart == "always" || s.Restart == "on-failure")
}

func (w *unitWords) words() (said, remedy string) {
	u, s := w.u, w.u.State
	if s == nil {
		switch {
		case u.Active:
			return fmt.Sprintf("runs, and does not listen on port %d", w.port), "the unit runs: look at the port in its configuration and at its log"
		case u.File == "":
			return "no unit file", ""
		}
		return "does not run (" + u.File + ")", w.start() + "; systemctl status says how it ended"
	}
	switch s.Load {
	case "masked":
		return "is masked: nothing can start it", fmt.Sprintf("systemctl unmask %s, if it is meant to run; then %s", w.name(), w.start())
	case "not-found":
		return "systemd knows no such unit", ""
	case "error", "bad-setting":
		said = "systemd does not use its file " + s.Fragment
		if s.LoadError != "" {
			said += ": " + s.LoadError
		}
		return said, "mend the file (systemd-analyze verify names the line), systemctl daemon-reload; then " + w.start()
	}
	switch {
	case s.Active == "active" && s.Sub == "exited":
		return "counts as active, and has no process any more" + w.ago(s.Ended), "systemctl restart " + w.name()
	case s.Active == "activating" && strings.HasPrefix(s.Sub, "auto-restart"):
		how, todo := w.ended()
		return fmt.Sprintf("%s, and is started again and again: %s so far", how, times(int(s.Restarts), "time")), todo
	case s.Active == "activating":
		return fmt.Sprintf("is being started%s, and has not said that it is ready (Type=%s)", w.ago(s.Started), s.Type), "wait, or find out what it waits for: journalctl -b -u " + w.name()
	case s.Active == "deactivating":
		return "is being stopped" + w.ago(s.Changed), w.start()
	case s.Active == "active" && strings.HasSuffix(u.Name, ".socket"):
		return "listens on " + strings.Join(s.Listen, ", ") + " alone", "mend ListenStream= of the unit"
	case s.Active == "active", s.Active == "reloading":
		again := ""
		if s.Restarts > 0 {
			again = fmt.Sprintf("; it ended and was started again %s before", times(int(s.Restarts), "time"))
		}
		return fmt.Sprintf("runs%s, and does not listen on port %d%s", w.ago(s.Started), w.port, again), "the unit runs: look at the port in its configuration and at its log"
	case s.Active == "failed":
		said, remedy = w.ended()
		if w.gaveUp() {
			if s.Burst > 0 && s.BurstOver > 0 {
				said += fmt.Sprintf("; systemd gave up: more than %s in %s", times(int(s.Burst), "start"), s.BurstOver)
			} else {
				said += fmt.Sprintf("; systemd gave up after %s", times(int(s.Restarts)+1, "start"))
			}
		}
		return said, remedy
	}
	return w.inactive()
}

// inactive is about a unit that did not fail and does not run.
func (w *unitWords) inactive() (said, remedy string) {
	u, s := w.u, w.u.State
	switch {
	case s.Queued:
		return "waits to be started: something before it is not done", "systemctl list-jobs says what it waits for"
	case len(s.Missing) > 0:
		said, remedy = fmt.Sprintf("does not run: it requires %s, which failed or does not exist", strings.Join(s.Missing, " and ")), "start what it requires; then "+w.start()
	case s.Unmet != "" && s.UnmetAt.After(s.Ended):
		return fmt.Sprintf("was not started: %s does not hold (looked at%s)", s.Unmet, w.ago(s.UnmetAt)), "make " + s.Unmet + " hold, or take it out of the unit; then " + w.start()
	case strings.HasSuffix(u.Name, ".socket"):
		said, remedy = "is not started, and would listen on "+strings.Join(s.Listen, ", "), w.start()
	case !s.Ended.IsZero():
		said, remedy = w.ended()
	case !s.Changed.IsZero() || !s.Inactive.IsZero():
		said, remedy = "was stopped"+w.ago(s.Inactive), w.start()
	default: // systemd forgets units that did not fail and that no other one wants
		said, remedy = "does not run, and systemd remembers no start of it", w.start()
	}
	switch s.File {
	case "disabled":
		said += "; it is disabled: the boot does not start it"
		remedy = strings.Replace(remedy, "systemctl start ", "systemctl enable --now ", 1)
	case "enabled", "enabled-runtime":
		said += "; it is enabled: the boot starts it"
	}
	return said, remedy
}

// ended says how the unit ended, and what to do about that.
func (w *unitWords) ended() (said, remedy string) {
	s := w.u.State
	ago := w.ago(s.Ended)
	if s.Ended.IsZero() {
		ago = w.ago(s.Changed)
	}
	switch s.Result {
	case "exit-code":
		ran := w.failed()
		switch {
		case ran != nil && ran.As != "ExecStart":
			return fmt.Sprintf("its %s= (%s) %s%s", ran.As, ran.Path, exitWords(ran.Code, ran.Status), w.ago(ran.Ended)), w.journal() + w.after()
		case s.Code == 0 && ran != nil:
			return fmt.Sprintf("%s %s%s", ran.Path, exitWords(ran.Code, ran.Status), w.ago(ran.Ended)), w.journal() + w.after()
		}
		return "ended with " + strings.TrimPrefix(exitWords(s.Code, s.Status), "ended with ") + ago, w.journal() + w.after()
	case "signal":
		return "was killed by " + signalName(s.Status) + ago, "find out who sent it (journalctl -b; SIGKILL comes from the kernel for memory, or by hand)" + w.after()
	case "core-dump":
		return "crashed with " + signalName(s.Status) + ago, fmt.Sprintf("mend the program (coredumpctl info %s, where systemd keeps core dumps)%s", w.name(), w.after())
	case "oom-kill":
		limit := ""
		remedy = "it, or the host, needs more memory"
		if s.MemoryMax != 0 && s.MemoryMax != 1<<64-1 {
			limit = fmt.Sprintf("; its MemoryMax= is %s", memoryWords(s.MemoryMax))
			remedy = "raise MemoryMax= of the unit, or let it need less"
		}
		return "a process of it was killed for memory" + ago + limit, remedy + w.after()
	case "timeout":
		return fmt.Sprintf("took longer to start or stop than systemd waits (TimeoutStartSec= is %s)%s", s.StartTimeout, ago), w.journal() + w.after()
	case "watchdog":
		return "gave no sign of life in time (WatchdogSec=) and was killed" + ago, w.journal() + w.after()
	case "start-limit-hit":
		how := "was started too often"
		if s.Code != 0 && !s.Ended.IsZero() {
			how = exitWords(s.Code, s.Status) + ago
		}
		return how, w.journal() + w.after()
	case "service-start-limit-hit", "trigger-limit-hit":
		return "its service ended too often, so systemd closed the socket" + ago, w.journal() + w.after()
	case "resources":
		if strings.HasSuffix(w.u.Name, ".socket") {
			return fmt.Sprintf("could not listen on %s%s: something held the address, or the host did not have it", strings.Join(s.Listen, ", "), ago), w.journal() + w.after()
		}
		return "systemd could not make what it needs (a directory, a control group, a pid file)" + ago, w.journal() + w.after()
	case "protocol":
		return fmt.Sprintf("ended before it said that it is ready (Type=%s)%s", s.Type, ago), w.journal() + w.after()
	case "exec-condition":
		return "its ExecCondition= said no" + ago, w.journal() + w.after()
	case "success", "":
		if s.Code == 2 || s.Code == 3 {
			return "was stopped by " + signalName(s.Status) + ago, w.start()
		}
		if s.Code == 1 && s.Status == 0 {
			return "ended by itself without an error" + ago, "find out why a service ends (a program that goes to the background needs Type=forking)" + w.after()
		}
		if s.Code == 1 {
			return exitWords(s.Code, s.Status) + ago, w.journal() + w.after()
		}
		return "was stopped" + ago, w.start()
	}
	return fmt.Sprintf("failed (%s)%s", s.Result, ago), w.journal() + w.after()
}

// failed is the command that ended badly last.
func (w *unitWords) failed() *Ran {
	var last *Ran
	for i := range w.u.State.Ran {
		if r := &w.u.State.Ran[i]; r.Code != 0 && (r.Code != 1 || r.Status != 0) && (last == nil || !r.Ended.Before(last.Ended)) {
			last = r
		}
	}
	return last
}

// ago is " 3 min ago (2026-11-27 01:10:03 UTC)", "" for no time.
func (w *unitWords) ago(t time.Time) string { return agoWords(t, w.now) }

func agoWords(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d, clock := now.Sub(t), t.UTC().Format("2006-01-02 15:04:05 UTC")
	switch {
	case d < -time.Minute:
		return " at " + clock
	case d < 2*time.Minute:
		return fmt.Sprintf(" %.0f s ago (%s)", max(0, d.Seconds()), clock)
	case d < 2*time.Hour:
		return fmt.Sprintf(" %.0f min ago (%s)", d.Minutes(), clock)
	case d < 48*time.Hour:
		return fmt.Sprintf(" %.0f h ago (%s)", d.Hours(), clock)
	}
	return fmt.Sprintf(" %.0f days ago (%s)", d.Hours()/24, clock)
}

// exitWords says how a process ended: the codes are those of waitid(2).
func exitWords(code, status int32) string {
	switch code {
	case 2:
		return "was killed by " + signalName(status)
	case 3:
		return "crashed with " + signalName(status)
	}
	if why := exitMeaning(status); why != "" {
		return fmt.Sprintf("ended with exit status %d: %s", status, why)
	}
	return fmt.Sprintf("ended with exit status %d", status)
}

// exitMeaning is what systemd ends a process with before the program runs
// (systemd.exec(5), "Process Exit Codes"), and shells where there is none.
func exitMeaning(status int32) string {
	switch status {
	case 126:
		return "a shell could not run the program"
	case 127:
		return "a shell did not find the program"
	case 200:
		return "its WorkingDirectory= cannot be entered"
	case 203:
		return "the program cannot be run (path, permission, or the interpreter of a script)"
	case 209:
		return "its StandardOutput= cannot be opened"
	case 216:
		return "its Group= does not exist"
	case 217:
		return "its User= does not exist"
	case 218:
		return "its capabilities cannot be set"
	case 219:
		return "its control group cannot be made"
	case 226:
		return "its view of the files (ProtectSystem=, ReadWritePaths=, …) cannot be made"
	case 228:
		return "its filter of system calls cannot be set"
	case 233:
		return "its RuntimeDirectory= cannot be made"
	case 238:
		return "its StateDirectory= cannot be made"
	case 239:
		return "its CacheDirectory= cannot be made"
	case 240:
		return "its LogsDirectory= cannot be made"
	case 241:
		return "its ConfigurationDirectory= cannot be made"
	case 243:
		return "its credentials cannot be read"
	}
	return ""
}

func signalName(n int32) string {
	if s := unix.SignalName(unix.Signal(n)); s != "" {
		return s
	}
	return fmt.Sprintf("signal %d", n)
}

func memoryWords(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
}

// ofUnit says what the kernel's log has about processes of a unit since its last
// start; why is the remedy where that decides.
func (j *judge) ofUnit(u *Unit) (ev []audit.Evidence, why string) {
	log := j.e.serverFacts().Kernel
	if log == nil || u.State != nil && u.State.Runs() {
		return nil, ""
	}
	var kill, fault *KernelEvent
	for i := range log.Events {
		e := &log.Events[i]
		switch {
		case e.Kind == KernelOOM && u.killed(e, j.e.Now):
			kill = e
		case e.Kind == KernelFault && u.faulted(e):
			fault = e
		}
	}
	if fault != nil {
		ev = append(ev, evidence("kernel's log", "%s (pid %d) crashed%s: %s", fault.Comm, fault.PID, agoWords(fault.Time, j.e.Now), fault.Text))
		why = "mend the program that crashes"
	}
	if kill != nil {
		said, todo := killWords(kill, j.e.Now)
		ev, why = append(ev, evidence("kernel's log", "%s", said)), todo
		if s := u.State; s != nil && s.MemoryMax != 0 && s.MemoryMax != 1<<64-1 && inGroup(kill.Limited, u.Name) {
			why = fmt.Sprintf("raise MemoryMax= of the unit (%s), or let it need less", memoryWords(s.MemoryMax))
		}
	}
	return ev, why
}

func killWords(e *KernelEvent, now time.Time) (said, remedy string) {
	said = fmt.Sprintf("killed %s (pid %d) for memory%s", e.Comm, e.PID, agoWords(e.Time, now))
	switch {
	case e.Limited != "":
		return said + ": the limit of the control group " + e.Limited + " was met", "raise the memory limit of " + e.Limited + ", or let it need less"
	case e.Group != "":
		return said + ": the host had no memory left", "give the host more memory, or let its services need less"
	}
	return said, "it, or the host, needs more memory"
}

// killed tells that a process killed for memory was of the unit, since its last
// start; where systemd was not asked, within the last hour.
func (u *Unit) killed(e *KernelEvent, now time.Time) bool {
	s := u.State
	switch {
	case s == nil:
		return inGroup(e.Group, u.Name) && now.Sub(e.Time) < time.Hour
	case s.StartedAt == 0 || e.At < s.StartedAt-time.Second:
		return false
	case e.At < s.StartedAt && e.PID != s.PID && !(s.Code == 2 && s.Status == int32(unix.SIGKILL)):
		// The two clocks may differ a little; but a service that systemd starts again
		// at once was killed a moment before, and then ended of something else.
		return false
	case s.EndedAt != 0 && e.PID == s.PID && (e.At-s.EndedAt).Abs() < 5*time.Second:
		return true
	}
	return inGroup(e.Group, u.Name)
}

// faulted tells that a process that crashed was of the unit, between its last
// start and end.
func (u *Unit) faulted(e *KernelEvent) bool {
	s := u.State
	if s == nil || s.StartedAt == 0 || s.EndedAt == 0 || e.At < s.StartedAt-time.Second || e.At > s.EndedAt+5*time.Second {
		return false
	}
	name := path.Base(s.program())
	return e.PID == s.PID || len(name) > 1 && e.Comm == name[:min(len(name), 15)]
}

// inGroup tells that a control group is a unit's, or lies in it. A unit of the
// same name inside of a container stands below another unit, and is none.
func inGroup(group, unit string) bool {
	for part := range strings.SplitSeq(strings.TrimPrefix(group, "/"), "/") {
		if part == unit {
			return true
		}
		if !strings.HasSuffix(part, ".slice") {
			return false
		}
	}
	return false
}
