package audit

import (
	"time"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// Snapshot is everything the audit knows about a host, read once by
// audit/collect and never changed afterwards. Checks and reports are pure
// functions of it.
type Snapshot struct {
	Meta  Meta
	World reach.World
	// Sysctls are the live values, Files what the loaders read at boot, nil
	// where they could not be read (see Gaps).
	Sysctls sysctl.Values
	Files   *sysctl.Tree
	// Processes of the listeners stand in World.Namespaces[i].Listeners.
	//
	// Samples are readings of the kernel's counters, oldest first: none with
	// --quick, otherwise two.
	Samples []Sample
	// Census is how the local ports are used, nil when it was not read.
	Census *listeners.Census
	// Keys are the settings that exist, as far as the catalogue and the files name
	// them, by patterns too; nil counts the keys of Sysctls only.
	Keys *sysctl.KeySet
	// SockStat, Conntrack and Memory (MemTotal, bytes) are nil or 0 where they
	// were not read.
	SockStat  *listeners.SockStat
	Conntrack *listeners.Conntrack
	Memory    uint64
	Gaps      []Gap
	// Timings says how long each part of the reading took.
	Timings []Timing
}

// Meta says what was read, where, when and by whom.
type Meta struct {
	Host      string // the host's name; host text
	OS        string // PRETTY_NAME of /etc/os-release; host text
	Kernel    string // release, as uname -r
	Machine   string // architecture, as uname -m
	BootID    string
	Uptime    time.Duration
	TakenAt   time.Time // UTC
	Tool      string    // version of hostaudit
	UID       int       // effective user id of the reader
	FirstNS   bool      // the audited network namespace is that of process 1
	NSUnknown bool      // process 1's namespace could not be read
	Root      string    // of configuration files, "/" unless --root
}

// Gap is something that could not be read, and why: `incomplete` of the report.
type Gap struct {
	What string `json:"what"`
	Why  string `json:"why"`
	// Minor gaps concern nothing that an answer was built on; they do not make
	// the exit code 3.
	Minor bool `json:"minor,omitempty"`
}

// Sample is one reading of the kernel's counters.
type Sample struct {
	At       time.Time
	Counters listeners.Counters
	// Drops is what each listening socket of the audited namespace had thrown away
	// by then, by the socket's cookie: connection attempts, or datagrams. Only
	// sockets of which the kernel tells (Linux 4.7); nil where they were not read.
	Drops map[uint64]uint32 `json:",omitempty"`
}

// Timing is how long one part of the reading took.
type Timing struct {
	What string
	Took time.Duration
}
