package listeners

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Counters are SNMP-style counters of a network namespace by "Group.Name", as
// /proc/net/netstat, snmp and snmp6 spell them. They count since the namespace
// was made; only the difference of two readings is evidence.
type Counters map[string]uint64

// The counters that decide about queues, and what moves them.
const (
	ListenOverflows     = "TcpExt.ListenOverflows"      // a connection dropped at a full accept queue
	ListenDrops         = "TcpExt.ListenDrops"          // those, and attempts dropped for other reasons
	SyncookiesSent      = "TcpExt.SyncookiesSent"       // SYN queue full, answered with a cookie
	SyncookiesReceived  = "TcpExt.SyncookiesRecv"       // … and the cookie came back
	ReqQFullDoCookies   = "TcpExt.TCPReqQFullDoCookies" // SYN queue full, cookies on
	ReqQFullDrop        = "TcpExt.TCPReqQFullDrop"      // SYN queue full, cookies off
	TimeWaitOverflow    = "TcpExt.TCPTimeWaitOverflow"  // TIME_WAIT given up early (tcp_max_tw_buckets)
	TimeWaitReused      = "TcpExt.TWRecycled"           // an outgoing connection took over a TIME_WAIT
	ReversePathFiltered = "TcpExt.IPReversePathFilter"
	AbortOnMemory       = "TcpExt.TCPAbortOnMemory"
	BacklogDrop         = "TcpExt.TCPBacklogDrop"
	InReceives          = "Ip.InReceives"
	InDelivers          = "Ip.InDelivers"
	OutRequests         = "Ip.OutRequests"
	OutTransmits        = "Ip.OutTransmits" // Linux 6.3
	OutNoRoutes         = "Ip.OutNoRoutes"
	PassiveOpens        = "Tcp.PassiveOpens"
	ActiveOpens         = "Tcp.ActiveOpens"
	AttemptFails        = "Tcp.AttemptFails"
	OutResets           = "Tcp.OutRsts"
	UDPRcvbufErrors     = "Udp.RcvbufErrors"
	UDPNoPorts          = "Udp.NoPorts"
)

// gauges stand among the counters and are none.
var gauges = []string{"Ip.Forwarding", "Ip.DefaultTTL", "Tcp.RtoAlgorithm", "Tcp.RtoMin", "Tcp.RtoMax", "Tcp.MaxConn", "Tcp.CurrEstab"}

// Sub gives the increase since an earlier reading of the same namespace. A
// counter that went backwards (another namespace, a 32-bit kernel's wrap) or
// exists in one reading only is left out: absent means not known.
func (c Counters) Sub(earlier Counters) Counters {
	out := make(Counters, len(c))
	for name, now := range c {
		if before, ok := earlier[name]; ok && now >= before {
			out[name] = now - before
		}
	}
	return out
}

// ParseCounters reads the two-line groups of /proc/net/netstat and
// /proc/net/snmp (net/ipv4/proc.c): a line of names, a line of numbers.
func ParseCounters(b []byte, into Counters) error {
	var heading []string
	lineNo := 0
	for line := range bytes.Lines(b) {
		lineNo++
		f := strings.Fields(string(line))
		if len(f) == 0 {
			continue
		}
		if heading == nil {
			heading = f
			continue
		}
		if f[0] != heading[0] || len(f) != len(heading) || !strings.HasSuffix(f[0], ":") {
			return fmt.Errorf("parse counters: line %d does not fit the names before it", lineNo)
		}
		group := strings.TrimSuffix(f[0], ":")
		for i := 1; i < len(f); i++ {
			name := group + "." + heading[i]
			if slices.Contains(gauges, name) {
				continue
			}
			n, err := strconv.ParseUint(f[i], 10, 64)
			if err != nil {
				return fmt.Errorf("parse counters: %s: %w", name, err)
			}
			into[name] = n
		}
		heading = nil
	}
	if heading != nil {
		return errors.New("parse counters: names without numbers")
	}
	if lineNo == 0 {
		return errors.New("parse counters: empty")
	}
	return nil
}

// ParseCounters6 reads /proc/net/snmp6: "Ip6InReceives 1". The groups are part
// of the names there, so "Ip6InReceives" stays one word.
func ParseCounters6(b []byte, into Counters) error {
	lines := 0
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 2 {
			return fmt.Errorf("parse snmp6: line with %d fields", len(f))
		}
		n, err := strconv.ParseUint(string(f[1]), 10, 64)
		if err != nil {
			return fmt.Errorf("parse snmp6: %s: %w", f[0], err)
		}
		into[string(f[0])] = n
		lines++
	}
	if lines == 0 {
		return errors.New("parse snmp6: empty")
	}
	return nil
}

// SockStat is /proc/net/sockstat and sockstat6. TCP.Orphan, TCP.Alloc and the
// memory (in pages) count the whole machine, the rest the namespace.
type SockStat struct {
	Used         uint64 `json:"used"`
	TCPInUse     uint64 `json:"tcp_in_use"`
	TCPOrphan    uint64 `json:"tcp_orphan"`
	TCPTimeWait  uint64 `json:"tcp_time_wait"`
	TCPAlloc     uint64 `json:"tcp_alloc"`
	TCPMemory    uint64 `json:"tcp_memory"`
	UDPInUse     uint64 `json:"udp_in_use"`
	UDPMemory    uint64 `json:"udp_memory"`
	UDPLiteInUse uint64 `json:"udplite_in_use"`
	RawInUse     uint64 `json:"raw_in_use"`
	TCP6InUse    uint64 `json:"tcp6_in_use"`
	UDP6InUse    uint64 `json:"udp6_in_use"`
}

// ParseSockStat reads one of the two files into s.
func ParseSockStat(b []byte, s *SockStat) error {
	fields := map[string]*uint64{
		"sockets used": &s.Used, "TCP inuse": &s.TCPInUse, "TCP orphan": &s.TCPOrphan, "TCP tw": &s.TCPTimeWait, "TCP alloc": &s.TCPAlloc,
		"TCP mem": &s.TCPMemory, "UDP inuse": &s.UDPInUse, "UDP mem": &s.UDPMemory, "UDPLITE inuse": &s.UDPLiteInUse,
		"RAW inuse": &s.RawInUse, "TCP6 inuse": &s.TCP6InUse, "UDP6 inuse": &s.UDP6InUse,
	}
	found := 0
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) == 0 {
			continue
		}
		group, ok := strings.CutSuffix(f[0], ":")
		if !ok || len(f)%2 != 1 {
			return fmt.Errorf("parse sockstat: line %q", strings.TrimSpace(string(line)))
		}
		for i := 1; i < len(f); i += 2 {
			to := fields[group+" "+f[i]]
			if to == nil {
				continue
			}
			// Sums over processors may be read a little below zero.
			n, err := strconv.ParseInt(f[i+1], 10, 64)
			if err != nil {
				return fmt.Errorf("parse sockstat: %s %s: %w", group, f[i], err)
			}
			*to = uint64(max(n, 0))
			found++
		}
	}
	if found == 0 {
		return errors.New("parse sockstat: nothing known in it")
	}
	return nil
}

// SoftNet is one processor's line of /proc/net/softnet_stat; it counts the whole
// machine. Dropped: the input queue was full (netdev_max_backlog).
// TimeSqueeze: the budget ended before the work.
type SoftNet struct {
	CPU         int    `json:"cpu"`
	Processed   uint64 `json:"processed"`
	Dropped     uint64 `json:"dropped"`
	TimeSqueeze uint64 `json:"time_squeeze"`
	FlowLimit   uint64 `json:"flow_limit"`
}

// ParseSoftNet reads the hexadecimal columns (softnet_seq_show). The processor's
// number stands in the 13th since Linux 5.10; before it is the line's.
func ParseSoftNet(b []byte) ([]SoftNet, error) {
	var out []SoftNet
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 9 {
			return nil, fmt.Errorf("parse softnet_stat: line with %d columns", len(f))
		}
		s := SoftNet{CPU: len(out)}
		for i, to := range map[int]*uint64{0: &s.Processed, 1: &s.Dropped, 2: &s.TimeSqueeze, 10: &s.FlowLimit} {
			if i >= len(f) {
				continue
			}
			n, err := strconv.ParseUint(string(f[i]), 16, 32)
			if err != nil {
				return nil, fmt.Errorf("parse softnet_stat: column %d: %w", i, err)
			}
			*to = n
		}
		if len(f) >= 13 {
			n, err := strconv.ParseUint(string(f[12]), 16, 31)
			if err != nil {
				return nil, fmt.Errorf("parse softnet_stat: cpu: %w", err)
			}
			s.CPU = int(n)
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, errors.New("parse softnet_stat: empty")
	}
	return out, nil
}

// Sub gives the increase of each processor; the columns have 32 bits and wrap.
func subSoftNet(now, earlier []SoftNet) []SoftNet {
	var out []SoftNet
	for _, n := range now {
		for _, e := range earlier {
			if n.CPU == e.CPU {
				d := func(a, b uint64) uint64 { return uint64(uint32(a) - uint32(b)) }
				out = append(out, SoftNet{n.CPU, d(n.Processed, e.Processed), d(n.Dropped, e.Dropped), d(n.TimeSqueeze, e.TimeSqueeze), d(n.FlowLimit, e.FlowLimit)})
			}
		}
	}
	return out
}

// Conntrack is the connection tracking table as the namespace sees it: Count of
// Max entries, and the counters of /proc/net/stat/nf_conntrack summed over
// processors.
type Conntrack struct {
	Count    uint64   `json:"count"`
	Max      uint64   `json:"max"`
	Buckets  uint64   `json:"buckets"`
	Counters Counters `json:"counters"` // drop, early_drop, insert_failed, …
}

// Fill is the share of the table in use.
func (c *Conntrack) Fill() float64 {
	if c.Max == 0 {
		return 0 // nf_conntrack_max 0 means no limit
	}
	return float64(c.Count) / float64(c.Max)
}

// ParseConntrackStat reads a line of names and one of hexadecimal numbers a
// processor (ct_cpu_seq_show), and sums them. "entries" is no counter.
func ParseConntrackStat(b []byte) (Counters, error) {
	var names []string
	out := Counters{}
	rows := 0
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) == 0 {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		if len(f) != len(names) {
			return nil, fmt.Errorf("parse nf_conntrack statistics: %d columns under %d names", len(f), len(names))
		}
		for i, name := range names {
			n, err := strconv.ParseUint(f[i], 16, 64)
			if err != nil {
				return nil, fmt.Errorf("parse nf_conntrack statistics: %s: %w", name, err)
			}
			if name != "entries" {
				out[name] += n
			}
		}
		rows++
	}
	if rows == 0 {
		return nil, errors.New("parse nf_conntrack statistics: empty")
	}
	return out, nil
}
