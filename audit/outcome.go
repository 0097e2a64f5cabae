package audit

import (
	"encoding/json"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// ScanSchema names the form of a Report in JSON.
const ScanSchema = "hostaudit/scan/v1"

// Report is everything that a scan says, ready to be rendered. Its JSON is what
// others rely on.
type Report struct {
	Schema string `json:"schema"`
	// Verdict is the answer in one line.
	Verdict    string             `json:"verdict"`
	Host       Host               `json:"host"`
	Listeners  []ListenerRow      `json:"listeners"`
	Published  []PublishedRow     `json:"published"`
	Sysctls    []SysctlRow        `json:"sysctls"`
	Ephemeral  *Ephemeral         `json:"ephemeral"`
	Profile    *ProfileRow        `json:"profile,omitempty"` // with --profile only
	Findings   []Finding          `json:"findings"`
	Checks     []Result           `json:"checks"`
	Incomplete []Gap              `json:"incomplete"`
	Timings    map[string]float64 `json:"timings"`
	// IdleAccepts are accepted findings that do not occur.
	IdleAccepts []IdleAccept `json:"accepts_without_finding"`
}

// Host says what was read, and when.
type Host struct {
	Name      Text      `json:"name"`
	OS        Text      `json:"os"`
	Kernel    string    `json:"kernel"`
	Machine   string    `json:"machine"`
	BootID    string    `json:"boot_id"`
	Uptime    float64   `json:"uptime"`
	TakenAt   time.Time `json:"taken_at"`
	Tool      string    `json:"tool"`
	UID       int       `json:"uid"`
	Root      string    `json:"root"`
	FirstNS   *bool     `json:"first_netns"` // null: not known
	Rules     int       `json:"rules"`
	RulesRead bool      `json:"rules_read"`
	Backends  []string  `json:"backends"`
	// Took is how long the reading took, seconds.
	Took float64 `json:"took"`
}

// Text is host text. JSON keeps valid text as it is; bytes that are no UTF-8 are
// written as \xNN, since a JSON string cannot hold them.
type Text string

// MarshalJSON implements [json.Marshaler].
func (t Text) MarshalJSON() ([]byte, error) { return json.Marshal(utf8Text(string(t))) }

func utf8Text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	const digits = "0123456789abcdef"
	var b []byte
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			b = append(b, '\\', 'x', digits[s[i]>>4], digits[s[i]&15])
		} else {
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return string(b)
}

// ListenerRow is one listening socket and who can reach it.
type ListenerRow struct {
	Proto   string      `json:"proto"`
	Address string      `json:"address"`
	Port    uint16      `json:"port"`
	Device  Text        `json:"device"`
	V6Only  *bool       `json:"v6only"` // null: the kernel did not tell
	Scope   ScopeRow    `json:"scope"`
	NetNS   Text        `json:"netns"`
	Process *ProcessRow `json:"process"` // null: not known, Unowned says why
	Unowned string      `json:"unowned,omitempty"`
	Backlog *Backlog    `json:"backlog"`
	Sharing int         `json:"sharing"`
	// UID is the user who made the socket, Inode what /proc/PID/fd names it by. Cgroup
	// is the id of the control group (version 2) that it was made in, Mark its SO_MARK;
	// left out where the kernel did not tell.
	UID       uint32      `json:"uid"`
	Inode     uint32      `json:"inode"`
	Cgroup    *uint64     `json:"cgroup,omitempty"`
	Mark      *uint32     `json:"mark,omitempty"`
	Exposure  reach.Who   `json:"exposure"`
	Partition []reach.Row `json:"partition"`
	// PartitionLeftOut says, where Partition is empty because it is too large
	// for a report, how large; `reach` answers in full.
	PartitionLeftOut string       `json:"partition_left_out,omitempty"`
	Service          *ServiceRow  `json:"service,omitempty"`
	Processes        []ProcessRow `json:"processes,omitempty"` // all owners, where there are several

	Of *Port `json:"-"`
}

// ProcessRow is a process as the report names it.
type ProcessRow struct {
	PID       int    `json:"pid"`
	Name      Text   `json:"name"`
	Command   Text   `json:"command"`
	Unit      Text   `json:"unit"`
	User      Text   `json:"user"`
	UID       uint32 `json:"uid"`
	Container Text   `json:"container,omitempty"`
	// Executable is the file in the process's own mounts, "" where it may not be read.
	Executable Text `json:"executable,omitempty"`
	// Started is when, in seconds after boot: with the pid it names the process for
	// good.
	Started float64 `json:"started"`
}

// Backlog is an accept queue; for datagrams both are bytes.
type Backlog struct {
	Queued uint32 `json:"queued"`
	Limit  uint32 `json:"limit"`
}

// ServiceRow is what was configured for a port.
type ServiceRow struct {
	Name     string `json:"name"`
	Audience string `json:"audience"`
	Source   string `json:"source"`
}

// PublishedRow is a port that a rule translates to another one.
type PublishedRow struct {
	Proto     string          `json:"proto"`
	Port      uint16          `json:"port"`
	To        reach.Delivered `json:"to"`
	By        reach.DecidedBy `json:"translated_by"`
	Exposure  reach.Who       `json:"exposure"`
	Partition []reach.Row     `json:"partition"`
	Service   *ServiceRow     `json:"service,omitempty"`

	Of *Port `json:"-"`
}

// SysctlRow is one key of the catalogue.
type SysctlRow struct {
	Key  sysctl.Key `json:"key"`
	Live *string    `json:"live"` // null: absent or unreadable, Why says which
	// Persisted is the line that wins under each loader.
	Persisted   []Persisted    `json:"persisted"`
	AfterReboot *string        `json:"after_reboot"` // null: cannot be told
	Class       sysctl.Class   `json:"class"`
	Verdict     sysctl.Verdict `json:"verdict"`
	Why         string         `json:"why"`
}

// Persisted is the line that decides a key under one loader.
type Persisted struct {
	Loader sysctl.Loader `json:"loader"`
	Value  string        `json:"value"`
	File   string        `json:"file"`
	Line   int           `json:"line"`
}

// IdleAccept is an `accept:` entry that no finding answers to.
type IdleAccept struct {
	ID      string `json:"id"`
	Subject string `json:"subject"`
	Source  string `json:"source"`
}

// Counting are the findings that were not accepted.
func (r *Report) Counting() []Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.Accepted != nil })
}

// Reaches says whether a finding that counts is as loud as s; s "" is never.
func (r *Report) Reaches(s Severity) bool {
	return s != "" && slices.ContainsFunc(r.Counting(), func(f Finding) bool { return f.Severity.AtLeast(s) })
}

// Complete says whether everything that answers are built on could be read.
func (r *Report) Complete() bool {
	return !slices.ContainsFunc(r.Incomplete, func(g Gap) bool { return !g.Minor })
}

func processRow(p *listeners.Process) *ProcessRow {
	if p == nil {
		return nil
	}
	row := &ProcessRow{PID: p.PID, Name: Text(p.Comm), Command: commandLine(p.Command), Unit: Text(p.Unit), User: Text(p.User), UID: p.UID,
		Executable: Text(p.Exe), Started: float64(p.Start) / 100}
	if p.Container != nil {
		row.Container = Text(p.Container.Name)
		if row.Container == "" {
			row.Container = Text(p.Container.ID)
		}
	}
	return row
}

// commandLine puts blanks where the kernel has NULs.
func commandLine(c listeners.HostText) Text {
	b := []byte(c)
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	for i := range b {
		if b[i] == 0 {
			b[i] = ' '
		}
	}
	return Text(b)
}
