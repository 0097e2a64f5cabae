package diagnose

import "time"

// UnitState is what systemd says of a unit (org.freedesktop.systemd1(5)). All
// texts are host text.
type UnitState struct {
	ID       string
	Load     string // LoadState: loaded, not-found, bad-setting, error, masked
	Active   string // ActiveState: active, reloading, inactive, failed, activating, deactivating
	Sub      string // SubState: running, dead, failed, auto-restart, listening, …
	Result   string // of services and sockets: success, exit-code, signal, core-dump, oom-kill, timeout, …
	File     string // UnitFileState: enabled, disabled, masked, static, …
	Fragment string // the unit file, "" for none
	// LoadError is why the unit file is not used.
	LoadError string
	// Code and Status are how the main process ended last: si_code of SIGCHLD
	// (1 exited, 2 killed, 3 killed with a core dump, 0 for not ended), and its exit
	// status or signal. PID is its number in systemd's pid namespace.
	Code, Status int32
	PID          int
	// Started and Ended are of the main process, zero for never; StartedAt and
	// EndedAt the same on the clock that began with the boot.
	Started, Ended     time.Time
	StartedAt, EndedAt time.Duration
	// Changed is the last change of Sub, Inactive the last time the unit ended.
	Changed, Inactive time.Time
	Restarts          uint32 // by Restart=, since it was started by hand or at the boot
	Restart, Type     string
	Burst             uint32
	BurstOver         time.Duration
	StartTimeout      time.Duration
	MemoryMax         uint64 // bytes, all ones for no limit
	Requires          []string
	// Missing are units that it requires and that failed.
	Missing               []string
	TriggeredBy, Triggers []string
	PIDFile               string
	Environment           []string
	// Queued: a job of it waits for others.
	Queued bool
	// Unmet is the condition that did not hold when the unit was to be started, at
	// UnmetAt; "" where all held or nobody tried.
	Unmet   string
	UnmetAt time.Time
	Listen  []string // of a socket unit: "Stream 0.0.0.0:8080"
	Ran     []Ran
}

// Ran is a command of the unit as it ended last.
type Ran struct {
	As           string // ExecStartPre, ExecStart, …
	Path         string
	Argv         []string
	Code, Status int32 // as of UnitState
	Ended        time.Time
}

// Runs tells a unit that is at work, or about to be.
func (u *UnitState) Runs() bool {
	return u.Active == "active" || u.Active == "reloading" || u.Active == "activating" && u.Sub != "auto-restart" && u.Sub != "auto-restart-queued"
}

// program is the file that the unit runs, "" for not told.
func (u *UnitState) program() string {
	for i := range u.Ran {
		if u.Ran[i].As == "ExecStart" {
			return u.Ran[i].Path
		}
	}
	return ""
}
