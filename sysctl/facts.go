package sysctl

import (
	"fmt"
	"math"
	"strings"
)

// Fact is a yes-or-no question about the host that may be unanswered. The zero
// value is "not known".
type Fact int

// The answers.
const (
	Unsure Fact = iota
	Yes
	No
)

// Known turns a Go bool into a Fact.
func Known(b bool) Fact {
	if b {
		return Yes
	}
	return No
}

// String is "yes", "no" or "not known".
func (f Fact) String() string { return [...]string{"not known", "yes", "no"}[f] }

// Facts is what the rules of the catalogue look at. The caller fills what it
// has read and leaves the rest: a rule that needs a fact it does not have says
// Unknown and names it, and never guesses. A pointer that is nil and a slice
// whose …Read switch is off mean "not read".
type Facts struct {
	Kernel Version
	// InitialNamespace: the reading was made in the machine's first network namespace.
	InitialNamespace Fact
	// MemoryBytes is MemTotal; 0 when not read.
	MemoryBytes uint64
	// Live are the live values.
	Live Values
	// Counters by name as listed at Counters; a missing one was not read.
	Counters Counters

	Listeners     []Listener
	ListenersRead bool

	// Destinations is the census of ephemeral ports of *outgoing* connections,
	// grouped by what must differ for a port to be used twice.
	Destinations []Destination
	CensusRead   bool

	Sockets   *SocketTotals
	Conntrack *ConntrackState
	Files     *FileTable

	Processes     []Process
	ProcessesRead bool

	Roles Roles
	// ToLoopback and ToElsewhere name the rules behind Roles.DNATToLoopback and
	// Roles.DNATElsewhere.
	ToLoopback, ToElsewhere []Evidence
	// LargeLost names the connections behind Roles.PathMTULost.
	LargeLost []Evidence
	// Boot says how settings come back after a reboot; nil when not read.
	Boot *Boot
	// Profile shifts thresholds and expectations; the zero value is no profile.
	Profile Profile
}

// Counter is one kernel counter, read once or twice.
type Counter struct {
	Total uint64 `json:"total"` // since the namespace exists (boot, for the first)
	// Delta is the growth over Window seconds; Sampled says that there were two readings.
	Delta   uint64  `json:"delta"`
	Window  float64 `json:"window"`
	Sampled bool    `json:"sampled"`
}

// Moving says that the counter grew while we watched.
func (c Counter) Moving() bool { return c.Sampled && c.Delta > 0 }

// String is "+12 in 1s, 3044 since boot".
func (c Counter) String() string {
	if !c.Sampled {
		return fmt.Sprintf("%d since boot (no second reading)", c.Total)
	}
	return fmt.Sprintf("+%d in %gs, %d since boot", c.Delta, c.Window, c.Total)
}

// Counters holds counters by name:
//
//	"TcpExt.ListenOverflows", "Tcp.AttemptFails", "Udp.RcvbufErrors",
//	"Udp6.RcvbufErrors"            /proc/net/netstat, snmp, snmp6 as there named
//	"softnet.dropped", "softnet.time_squeeze"   sums over CPUs of /proc/net/softnet_stat columns 2 and 3
//	"conntrack.drop", "conntrack.early_drop", "conntrack.insert_failed",
//	"conntrack.invalid"            sums over CPUs of the conntrack statistics
//	"arp_cache.table_fulls", "ndisc_cache.table_fulls"   /proc/net/stat/…
//	"device.rx_missed_errors"      sum over physical devices
//	"pids.max", "memory.oom_kill"  sums over control groups of "max" in pids.events and "oom_kill"
//	                               in memory.events; "pids.max:/system.slice/chat.service" of each
type Counters map[string]Counter

// Listener is a listening socket as far as sysctls matter.
type Listener struct {
	Proto   string // "tcp", "udp"
	Address string // as shown to people
	Port    uint16
	Subject string // names it in findings: "tcp [::]:80 on eth1"
	// Queued is the accept queue now (Recv-Q) and Limit its bound (Send-Q), both 0
	// when not known; of a datagram socket bytes in its receive buffer, and its size.
	Queued, Limit int
	// HalfOpen is the length of the SYN queue of a TCP listener, 0 when not known:
	// from Limit on it is full (inet_csk_reqsk_queue_is_full).
	HalfOpen int
	// Drops is what the socket threw away while counters were watched (connection
	// attempts, datagrams); nil when that was not measured.
	Drops   *Counter
	V6      bool
	Program string
	// Configured: the port is chosen by configuration, not by bind(0). For TCP
	// a listener counts as configured anyway; unconnected UDP sockets are mostly
	// clients, so they count only with it.
	Configured bool
}

// name is what findings about the listener are about.
func (l Listener) name() string {
	if l.Subject != "" {
		return l.Subject
	}
	return fmt.Sprintf("%s %s:%d", l.Proto, l.Address, l.Port)
}

// dropping says that the socket threw something away while it was watched.
func (l Listener) dropping() bool { return l.Drops != nil && l.Drops.Moving() }

// Destination is one group of outgoing connections that share the ephemeral
// range: same protocol, source address, destination address and port.
type Destination struct {
	Proto    string
	From, To string
	Port     uint16
	InUse    int // ports in use, TIME_WAIT included
	TimeWait int
	// Usable is how many ports connections to it can have: the range less what is
	// reserved, listened on or bound by number; 0 where that was not counted.
	Usable  int
	Program string
}

// usable is what the census counted, else what the range has.
func (d Destination) usable(ofRange int) int {
	if d.Usable > 0 {
		return d.Usable
	}
	return ofRange
}

// Name is "tcp 10.0.0.1 → 10.0.0.2:3306".
func (d Destination) Name() string {
	to := fmt.Sprintf("%s:%d", d.To, d.Port)
	if strings.Contains(d.To, ":") {
		to = fmt.Sprintf("[%s]:%d", d.To, d.Port)
	}
	return d.Proto + " " + d.From + " → " + to
}

// SocketTotals is /proc/net/sockstat.
type SocketTotals struct {
	TCPMemPages, UDPMemPages int64
	Orphans, TimeWait        int64
	FinWait2                 int64 // -1 when not counted
}

// ConntrackState says how full the connection table is.
type ConntrackState struct {
	Hooked Fact  // a hook of this namespace uses it
	Count  int64 // of the namespace
}

// FileTable is fs.file-nr.
type FileTable struct {
	Open, Max uint64
}

// Process is a listening process, or a sibling of one.
type Process struct {
	PID       int
	Name      string
	Unit      string // of systemd; empty without one
	OpenFiles int    // -1 when not counted
	SoftLimit uint64 // RLIMIT_NOFILE, soft; math.MaxUint64 for unlimited
	HardLimit uint64
	// SelectLoop: the process waits with select(2) (Workerman without event.so or
	// ev.so), for SelectOn descriptors.
	SelectLoop Fact
	SelectOn   int
	// UnitLimit is LimitNOFILE= of its unit, 0 when there is none or it is not known,
	// math.MaxUint64 for infinity; UnitLimitAt is the file and line.
	UnitLimit   uint64
	UnitLimitAt string
}

// Roles are facts about what the host is for. They keep security baselines and
// this program from crying wolf over forwarding and rp_filter.
type Roles struct {
	Router          Fact // forwards for others by intent (forward rules, VPN, several networks)
	ContainerHost   Fact
	PolicyRouting   Fact // ip rules beyond the three standard ones, or several default routes
	VRRP            Fact // keepalived or the like moves addresses
	DNATToLoopback  Fact // a rule rewrites a destination to 127.0.0.0/8
	DNATElsewhere   Fact // a rule rewrites a destination to another host or namespace
	RARoute         Fact // the IPv6 default route came from a router advertisement
	IPv6Wanted      Fact // an AAAA record points here, or a listener is bound to an IPv6 address
	PathMTULost     Fact // connections were seen on which short packets arrive and long ones do not
	SystemdRaisesFD Fact // systemd 240 or newer manages fs.file-max
}

// seen collects what a list of counters says. missing names the ones not read.
func (f *Facts) seen(names ...string) (s sighting) {
	for _, n := range names {
		c, ok := f.Counters[n]
		if !ok {
			s.missing = append(s.missing, n)
			continue
		}
		if c.Total == 0 && c.Delta == 0 {
			continue
		}
		s.add(strings.Replace(n, ".", " ", 1), c)
	}
	return s
}

// add takes one counter that is not 0 into the sighting.
func (s *sighting) add(name string, c Counter) {
	s.ever = true
	s.moving = s.moving || c.Moving()
	s.sampled = s.sampled || c.Sampled
	s.evidence = append(s.evidence, Evidence{name, c.String()})
}

// sighting is what counters say together.
type sighting struct {
	moving, ever bool
	sampled      bool // at least one of those that ever moved was read twice
	evidence     []Evidence
	missing      []string
}

// judge turns a sighting into judgements: a counter that grows now speaks with
// the severity given; one that only holds an old number speaks as information;
// none says nothing. A counter that was not read, with no other speaking, is
// Unknown.
func (s sighting) judge(j Judgement) []Judgement {
	switch {
	case s.moving:
	case s.ever && !s.sampled:
		j.Severity = Info
		j.Why += " (counted since boot, read once: whether it happens now was not measured)"
	case s.ever:
		j.Severity = Info
		j.Why += " (counted since boot; it did not happen while this was measured)"
	case len(s.missing) > 0:
		return []Judgement{{Verdict: Unknown, Why: "the counters that decide were not read", Missing: s.missing}}
	default:
		return nil
	}
	j.Evidence = append(s.evidence, j.Evidence...)
	return []Judgement{j}
}

// ephemeral is the range with the number of ports that automatic choice can
// take from it.
func (f *Facts) ephemeral() (r PortRange, usable int, ok bool) {
	text, present := f.Live.Get(keyPortRange)
	if !present {
		return r, 0, false
	}
	r, err := ParseRange(text)
	if err != nil {
		return r, 0, false
	}
	usable = int(r.High) - int(r.Low) + 1
	for _, x := range f.reserved() {
		lo, hi := max(x.Low, r.Low), min(x.High, r.High)
		if lo <= hi {
			usable -= int(hi) - int(lo) + 1
		}
	}
	return r, usable, true
}

func (f *Facts) reserved() []PortRange {
	text, _ := f.Live.Get(keyReservedPorts)
	v, _ := ParsePorts(text)
	return v
}

// ratio is a/b, 0 when b is not positive.
func ratio(a, b int64) float64 {
	if b <= 0 {
		return 0
	}
	return float64(a) / float64(b)
}

func percent(r float64) string { return fmt.Sprintf("%.0f %%", math.Floor(r*100+1e-9)) }

// Keys that several rules name.
const (
	keyPortRange     Key = "net.ipv4.ip_local_port_range"
	keyReservedPorts Key = "net.ipv4.ip_local_reserved_ports"
	keyTimestamps    Key = "net.ipv4.tcp_timestamps"
	keyTWReuse       Key = "net.ipv4.tcp_tw_reuse"
	keyTWReuseDelay  Key = "net.ipv4.tcp_tw_reuse_delay"
	keyTWBuckets     Key = "net.ipv4.tcp_max_tw_buckets"
	keySyncookies    Key = "net.ipv4.tcp_syncookies"
	keySomaxconn     Key = "net.core.somaxconn"
	keyConntrackMax  Key = "net.netfilter.nf_conntrack_max"
	keyConntrackHash Key = "net.netfilter.nf_conntrack_buckets"
	keyFileMax       Key = "fs.file-max"
	keyNrOpen        Key = "fs.nr_open"
)
