package sysctl

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// outboundEntries decide how many connections a host can have to others.
func outboundEntries() []*Entry {
	return []*Entry{
		{
			Key: keyPortRange, Title: "ports for outgoing connections",
			Meaning: "First and last port that the kernel picks from when a program connects without binding, for IPv4 and IPv6 alike (there is " +
				"no net.ipv6 twin). Connections to different destinations share ports, connections to one address and port cannot: so this " +
				"many at once to each. The ends should have different parity, because connect() prefers one half and bind(0) the other.",
			Unit: UnitPorts, Shape: ShapeInts, Fields: 2, Min: number(1), Max: number(65535), Atomic: true,
			Default: "32768 60999", DefaultNote: "32768 61000 before Linux 4.2", Scope: ScopeNamespace, Class: ClassEvidence,
			Advice:  "when one destination uses half of the range (profile proxy: four tenths): 16384 65535, never narrower than the range in force, ends of different parity, not below ip_unprivileged_port_start; with the ports of listeners inside reserved",
			Decides: []string{"ports in use per destination", "net.ipv4.ip_local_reserved_ports", "parity of the ends"},
			Rule:    judgePortRange,
			Refs:    []string{refIPSysctl, "https://github.com/aws/aws-graviton-getting-started/issues/488"},
		},
		{
			Key: keyReservedPorts, Title: "ports that are never picked automatically",
			Meaning: "Ports that the kernel leaves out when it picks one; a program can still bind them by number. A write replaces the whole " +
				"list. A service whose port lies inside the ephemeral range and is not listed here will one day fail to start with " +
				"\"Address already in use\", because a client got its port.",
			Unit: UnitPorts, Shape: ShapePorts, Atomic: true, Default: "", Scope: ScopeNamespace, Class: ClassWrong, LargerIsFine: true,
			Advice:  "the list in force and the ports of all listeners inside the range",
			Decides: []string{"ports of listeners", "net.ipv4.ip_local_port_range"},
			Rule:    judgeReservedPorts,
			Refs:    []string{refIPSysctl, "https://github.com/twitter/twemproxy/issues/561", "https://github.com/stellar/stellar-core/issues/676"},
		},
		{
			Key: "net.ipv4.ip_local_port_step_width", Title: "random step of the search for a port",
			Meaning: "Makes the search for a free port jump by random steps, so that a nearly full range does not cost more and more time.",
			Unit:    UnitPorts, Shape: ShapeInt, Since: Version{7, 1}, Default: "0", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: keyTWReuse, Title: "outgoing connections may take a port from TIME_WAIT",
			Meaning: "1 lets connect() take over a port whose last connection to the same destination is in TIME_WAIT, if both sides use " +
				"timestamps; 2 only on loopback. It concerns outgoing connections: it does nothing for the TIME_WAIT of a server that closed " +
				"first. The kernel's own text: \"should not be changed without advice or request of technical experts\".",
			Unit: UnitNone, Shape: ShapeInt, Max: number(2), Default: "2", DefaultNote: "0 before Linux 4.19", Scope: ScopeNamespace, Class: ClassEvidence,
			Advice:  "1 only when connections in TIME_WAIT to one destination fill half of the range and its ports run out, with timestamps on; else the default",
			Decides: []string{"outgoing TIME_WAIT per destination", "ports in use per destination", "net.ipv4.tcp_timestamps"},
			Rule:    judgeTWReuse, Refs: []string{refIPSysctl, refWorkerman},
		},
		{
			Key: keyTWReuseDelay, Title: "age from which a TIME_WAIT port is taken over",
			Meaning: "How long a connection must have been in TIME_WAIT before tcp_tw_reuse takes its port. Below the tick of the peer's " +
				"timestamp clock the protection against old segments fails.",
			Unit: UnitMillis, Shape: ShapeInt, Min: number(1), Max: number(60000), Since: Version{6, 14}, Default: "1000", Scope: ScopeNamespace, Class: ClassInfo,
			Advice:  "the default; never below 100",
			Decides: []string{"the value"}, Refs: []string{refIPSysctl},
		},
		{
			Key: keyTWBuckets, Title: "most sockets in TIME_WAIT",
			Meaning: "When more sockets would be in TIME_WAIT, the further ones are destroyed at once, with a line in the kernel log. It is a " +
				"guard against memory exhaustion (about 256 bytes each) and must not be lowered: a destroyed TIME_WAIT lets old segments into " +
				"new connections.",
			Unit: UnitCount, Shape: ShapeInt, DefaultNote: "half the entries of the connection hash, which grows with memory: 131072 of 262144, for example", Scope: ScopeNamespace,
			Advice: "when TCPTimeWaitOverflow grows: the kernel's default for this machine (half of net.ipv4.tcp_ehash_entries) or twice the value in force, whichever is more",
			Class:  ClassEvidence, LargerIsFine: true, Decides: []string{"TcpExt.TCPTimeWaitOverflow", "the kernel's default"},
			Rule: func(k Key, f *Facts) []Judgement {
				return f.seen("TcpExt.TCPTimeWaitOverflow").judge(Judgement{
					Verdict: Advice, Finding: "sysctl.time-wait-overflow", Severity: Warning,
					Why:       "sockets in TIME_WAIT are destroyed because there are too many",
					Recommend: twRecommendation(f, k),
					Remedy:    "raise net.ipv4.tcp_max_tw_buckets to at least the kernel's default; about 256 bytes each",
				})
			},
			Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_fin_timeout", Title: "how long an orphaned FIN_WAIT_2 lives",
			Meaning: "Seconds that a socket which its program has closed waits for the peer's FIN. It is not the length of TIME_WAIT, which is " +
				"60 seconds compiled in: set to 5, TIME_WAIT still lasts 61 (measured).",
			Unit: UnitSeconds, Shape: ShapeInt, Min: number(0), Max: number(2000000), Default: "60", Scope: ScopeNamespace, Class: ClassNever,
			Advice:  "none: the default",
			Decides: []string{"the value", "number of orphaned sockets in FIN_WAIT_2"},
			Rule:    judgeFinWait, Refs: []string{refIPSysctl, "https://github.com/fastos/fastsocket/issues/51"},
		},
		{
			Key: "limit.time-wait-length", Title: "length of TIME_WAIT",
			Meaning: "60 seconds, compiled into the kernel (TCP_TIMEWAIT_LEN). No key changes it.",
			Unit:    UnitSeconds, Shape: ShapeInt, Default: "60", Scope: ScopeHost, Class: ClassInfo, ReadOnly: true, Refs: []string{refIPSysctl},
		},
		{
			Key: keyTimestamps, Title: "TCP timestamps",
			Meaning: "Protection against wrapped sequence numbers, exact round-trip times, and the condition for tcp_tw_reuse. Old hardening " +
				"guides turn it off to hide the uptime; kernels since 4.10 send a random offset per connection.",
			Unit: UnitNone, Shape: ShapeInt, Max: number(2), Default: "1", Scope: ScopeNamespace, Class: ClassWrong,
			Advice:  "1 on every host",
			Decides: []string{"the value"}, Refs: []string{refIPSysctl, "https://github.com/Kicksecure/security-misc/issues/335"},
		},
		{
			Key: "net.ipv4.tcp_sack", Title: "selective acknowledgements",
			Meaning: "Lets the receiver say which segments arrived, so that a loss costs one retransmission and not a window.",
			Advice:  "1 on every host",
			Unit:    UnitBool, Shape: ShapeInt, Default: "1", Scope: ScopeNamespace, Class: ClassWrong, Decides: []string{"the value"}, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_window_scaling", Title: "windows above 64 KiB",
			Meaning: "Without it no connection has more than 64 KiB on the way.",
			Advice:  "1 on every host",
			Unit:    UnitBool, Shape: ShapeInt, Default: "1", Scope: ScopeNamespace, Class: ClassWrong, Decides: []string{"the value"}, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_rfc1337", Title: "resets in TIME_WAIT",
			Meaning: "The kernel's documentation: 1 conforms to RFC 1337, 0 does not and prevents TIME_WAIT assassination less strictly. Many " +
				"guides say the reverse. Neither value decides whether clients connect.",
			Unit: UnitBool, Shape: ShapeInt, Default: "0", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.ip_autobind_reuse", Title: "bind(0) may share ports",
			Meaning: "Lets bind(0) hand out a port that is in use already, if both sockets have SO_REUSEADDR. For experts only; programs that " +
				"bind before they connect should use IP_BIND_ADDRESS_NO_PORT (Linux 4.2) or IP_LOCAL_PORT_RANGE (6.3).",
			Unit: UnitBool, Shape: ShapeInt, Since: Version{5, 7}, Default: "0", Scope: ScopeNamespace, Class: ClassNever,
			Advice:  "0 on every host",
			Decides: []string{"the value"}, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.ip_nonlocal_bind", Title: "programs may bind addresses the host does not have",
			Meaning: "For addresses that move between hosts (VRRP). Otherwise it hides a wrong bind address: the program starts and nobody can reach it.",
			Unit:    UnitBool, Shape: ShapeInt, Default: "0", Scope: ScopeNamespace, Class: ClassWrong,
			Advice:  "0, except where VRRP or the like moves addresses",
			Decides: []string{"the value", "VRRP or the like on this host"}, Rule: judgeNonlocalBind, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_max_orphans", Title: "most sockets without a program",
			Meaning: "Sockets that their programs have closed and that still have data to deliver; each may hold 64 KiB. Beyond the bound " +
				"connections are reset. Not to be lowered.",
			Unit: UnitCount, Shape: ShapeInt, DefaultNote: "grows with memory", Scope: ScopeInitial, Class: ClassEvidence, LargerIsFine: true,
			Advice:  "when a quarter of it is in use: twice the value in force",
			Decides: []string{"TcpExt.TCPAbortOnMemory", "orphaned sockets"}, Rule: judgeOrphans, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_orphan_retries", Title: "how often an orphaned socket repeats its data",
			Meaning: "How often a socket without a program repeats unacknowledged data; 0 stands for 8.",
			Unit:    UnitCount, Shape: ShapeInt, Min: number(0), Max: number(255), Default: "0", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_challenge_ack_limit", Title: "challenge ACKs per second",
			Meaning: "Bound of the answers to suspicious segments (RFC 5961).",
			Unit:    UnitCount, Shape: ShapeInt, Min: number(1), DefaultNote: "1000 before Linux 5.19, then unlimited", Scope: ScopeNamespace, Class: ClassInfo, ReadOnly: true, Refs: []string{refIPSysctl},
		},
	}
}

// judgePortRange measures the head-room per destination. Ports in TIME_WAIT count
// as used where nothing takes them over.
func judgePortRange(_ Key, f *Facts) []Judgement {
	r, ofRange, ok := f.ephemeral()
	if !ok {
		return []Judgement{{Verdict: Unknown, Why: "the range could not be understood", Missing: []string{string(keyPortRange)}}}
	}
	if !f.CensusRead {
		return []Judgement{{Verdict: Unknown, Why: "how many ports each destination uses was not counted", Missing: []string{"census of outgoing connections"}}}
	}
	var out []Judgement
	for _, d := range f.Destinations {
		usable := d.usable(ofRange)
		share := ratio(int64(d.InUse), int64(usable))
		if share < f.Profile.rangeWarn() {
			continue
		}
		j := Judgement{
			Verdict: Advice, Finding: "sysctl.ephemeral-range-small", Severity: Warning, Subject: d.Name(),
			Why: fmt.Sprintf("%d of %d ports for connections to this destination are in use; from half on the search for a free one takes longer and longer, "+
				"and when none is left connect() fails with \"Cannot assign requested address\"", d.InUse, usable),
			Evidence: append([]Evidence{
				{"ports in use", fmt.Sprintf("%d of %d (%s), %d of them in TIME_WAIT", d.InUse, usable, percent(share), d.TimeWait)},
				{string(keyPortRange), r.spaced()},
			}, f.timeWaitEvidence(d, usable)...),
			Recommend: widerRange(f, r),
			Remedy:    "keep connections open and reuse them (a pool, HTTP keep-alive); then more destination or source addresses, each of which has all ports again (on this host: a unix socket); then a wider range, with the ports of services inside it reserved; `hostaudit ports` shows what fits",
		}
		held := ratio(int64(d.InUse-d.TimeWait), int64(usable))
		switch {
		case f.timeWaitFills(d, usable): // judgeTWReuse speaks, once for the one cause
			j.Finding, j.Severity, j.Part = findingTimeWait, Critical, true
		case f.takesOver(d) && held < f.Profile.rangeWarn():
			j.Severity, j.Recommend = Info, ""
			j.Why = fmt.Sprintf("%d of %d ports for connections to this destination are in use, all but %d of them in TIME_WAIT, where new connections take them over: "+
				"connect() searches longer and does not fail, as long as the other side uses timestamps", d.InUse, usable, d.InUse-d.TimeWait)
			j.Remedy = "keep connections open and reuse them (a pool, HTTP keep-alive), which saves the search as well"
		case share >= f.Profile.rangeCritical():
			j.Severity = Critical
		}
		out = append(out, j)
	}
	return out
}

// timeWaitLength is TCP_TIMEWAIT_LEN in seconds (include/net/tcp.h).
const timeWaitLength = 60

// timeWaitEvidence tells what TIME_WAIT means for one destination: the rate of
// connections that it shows, what the range carries, and the settings that
// decide about taking ports over.
func (f *Facts) timeWaitEvidence(d Destination, usable int) []Evidence {
	var out []Evidence
	if d.Program != "" {
		out = append(out, Evidence{"opened by", d.Program})
	}
	if d.Proto != "tcp" || d.TimeWait == 0 {
		return out
	}
	out = append(out, Evidence{"connections a second", fmt.Sprintf("about %d in the last minute (TIME_WAIT lasts %d s); without taking ports over the range carries %d",
		(d.TimeWait+timeWaitLength/2)/timeWaitLength, timeWaitLength, max(usable/timeWaitLength, 1))})
	for _, k := range []Key{keyTWReuse, keyTimestamps, keyTWReuseDelay, keyTWBuckets} {
		if v, ok := f.Live.Get(k); ok {
			out = append(out, Evidence{string(k), v})
		}
	}
	return out
}

// takesOver says whether connect() takes over the ports that this destination
// has in TIME_WAIT (tcp_twsk_unique): tcp_tw_reuse 1, or 2 over loopback, and
// timestamps on this side. The other side must use them as well, which over
// loopback is the same setting.
func (f *Facts) takesOver(d Destination) bool {
	ts, ok := f.Live.Int(keyTimestamps)
	if !ok || ts == 0 || d.Proto != "tcp" {
		return false
	}
	switch v, _ := f.Live.Int(keyTWReuse); v {
	case 1:
		return true
	case 2:
		to, err1 := netip.ParseAddr(d.To)
		from, err2 := netip.ParseAddr(d.From)
		return err1 == nil && to.Unmap().IsLoopback() || err2 == nil && from.Unmap().IsLoopback()
	}
	return false
}

// widerRange is the present range widened to 16384–65535: above the ports where
// services usually listen, and of different parity. Empty when nothing is gained.
func widerRange(f *Facts, r PortRange) string {
	low, high := uint16(16384), uint16(65535)
	if start, ok := f.Live.Int("net.ipv4.ip_unprivileged_port_start"); ok && int64(low) < start && start < 65535 {
		low = uint16(start) + uint16(start)%2 // even, the other end is odd
	}
	low = min(low, r.Low)
	if low%2 == high%2 && low < 65535 {
		low++
	}
	if r.Low <= low && r.High >= high {
		return ""
	}
	return PortRange{low, high}.spaced()
}

func (r PortRange) spaced() string { return fmt.Sprintf("%d %d", r.Low, r.High) }

// judgeReservedPorts finds listeners whose port a client may get.
func judgeReservedPorts(k Key, f *Facts) []Judgement {
	r, _, ok := f.ephemeral()
	if !ok {
		return []Judgement{{Verdict: Unknown, Why: "the ephemeral range is not known", Missing: []string{string(keyPortRange)}}}
	}
	if !f.ListenersRead {
		return []Judgement{{Verdict: Unknown, Why: "the listeners were not read", Missing: []string{"listeners"}}}
	}
	reserved := f.reserved()
	var loose []PortRange
	type named struct{ port, text string }
	var names []named
	for _, l := range f.Listeners {
		if l.Proto != "tcp" && !l.Configured || !r.Contains(l.Port) {
			continue
		}
		if slices.ContainsFunc(reserved, func(x PortRange) bool { return x.Contains(l.Port) }) {
			continue
		}
		loose = append(loose, PortRange{l.Port, l.Port})
		n := named{l.Proto + " " + strconv.Itoa(int(l.Port)), nameOr(l.Program)}
		if !slices.ContainsFunc(names, func(x named) bool { return x.port == n.port }) {
			names = append(names, n)
		}
	}
	merged := FormatPorts(MergePorts(append(slices.Clone(reserved), loose...)))
	var out []Judgement
	for _, n := range names {
		out = append(out, Judgement{
			Verdict: Wrong, Finding: "sysctl.ephemeral-range-overlaps", Severity: Warning, Subject: n.port,
			Why: fmt.Sprintf("port %s of %s lies inside the ephemeral range %s and is not reserved: while %s is down a client can be given the port, and the start fails with \"Address already in use\"",
				n.port, n.text, r.spaced(), n.text),
			Evidence:  []Evidence{{string(keyPortRange), r.spaced()}, {string(k), orNone(FormatPorts(reserved))}},
			Recommend: merged,
			Remedy:    "add the port to " + string(k) + " (a write replaces the list: this value keeps what is there)",
		})
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "(empty)"
	}
	return s
}

// judgeTWReuse recommends 1 only when outgoing TIME_WAIT really fills the range.
func judgeTWReuse(k Key, f *Facts) []Judgement {
	v, ok := f.Live.Int(k)
	if !ok {
		return nil
	}
	ts, ok := f.Live.Int(keyTimestamps)
	off := ok && ts == 0
	if v == 1 && !off {
		return nil
	}
	r, ofRange, ok := f.ephemeral()
	if !ok || !f.CensusRead {
		return []Judgement{{Verdict: Unknown, Why: "how many outgoing connections are in TIME_WAIT was not counted", Missing: []string{"census of outgoing connections"}}}
	}
	var out []Judgement
	for _, d := range f.Destinations {
		usable := d.usable(ofRange)
		if !f.timeWaitFills(d, usable) {
			continue
		}
		waiting := ratio(int64(d.TimeWait), int64(usable))
		j := Judgement{
			Verdict: Advice, Finding: findingTimeWait, Severity: Critical, Subject: d.Name(), Recommend: "1",
			Evidence: append([]Evidence{
				{"TIME_WAIT to " + d.Name(), fmt.Sprintf("%d of %d ports (%s)", d.TimeWait, usable, percent(waiting))},
				{"ports in use", fmt.Sprintf("%d, %d left", d.InUse, max(usable-d.InUse, 0))},
				{string(keyPortRange), r.spaced()},
			}, f.timeWaitEvidence(d, usable)...),
			Why: "outgoing connections in TIME_WAIT fill the ephemeral range to this destination; when no port is left connect() fails with \"Cannot assign requested address\"",
			Remedy: "keep connections open and reuse them (a pool, HTTP keep-alive); then more destination or source addresses, each of which has all ports again" +
				widerWords(f, r) + "; tcp_tw_reuse = 1 comes last and works for outgoing connections only, " + f.delayWords(),
		}
		if off {
			j.Recommend = ""
			j.Why = "outgoing connections in TIME_WAIT fill the ephemeral range; tcp_tw_reuse does not help, because timestamps are off"
			j.Remedy = "keep connections open and reuse them (a pool, HTTP keep-alive); then more destination or source addresses" + widerWords(f, r) + "; turn net.ipv4.tcp_timestamps on"
		}
		out = append(out, j)
	}
	return out
}

// findingTimeWait is one cause in two settings: what the range lacks, taking ports
// over from TIME_WAIT may give.
const findingTimeWait = "sysctl.time-wait-exhaustion"

// timeWaitFills says whether ports in TIME_WAIT, which nothing takes over, are what
// uses up the range to a destination.
func (f *Facts) timeWaitFills(d Destination, usable int) bool {
	_, ok := f.Live.Int(keyTWReuse)
	return ok && d.Proto == "tcp" && ratio(int64(d.TimeWait), int64(usable)) >= 0.50 && ratio(int64(d.InUse), int64(usable)) >= f.Profile.rangeCritical() &&
		!f.takesOver(d)
}

// widerWords is the wider range as a step of a remedy, where there is one.
func widerWords(f *Facts, r PortRange) string {
	if wide := widerRange(f, r); wide != "" {
		return fmt.Sprintf("; then a wider range (%s = %s) with the ports of services inside it reserved", keyPortRange, wide)
	}
	return ""
}

// delayWords says from when a port is taken over.
func (f *Facts) delayWords() string {
	if ms, ok := f.Live.Int(keyTWReuseDelay); ok {
		return fmt.Sprintf("for ports that have been in TIME_WAIT for %d ms (tcp_tw_reuse_delay), with servers that use timestamps", ms)
	}
	return "for ports that have been in TIME_WAIT for a second, with servers that use timestamps"
}

// TWBucketsFloor is a number that the kernel's default for tcp_max_tw_buckets
// cannot be below: half the connection hash (tcp_sk_init). The hash's size is
// net.ipv4.tcp_ehash_entries where the kernel shows it (6.1); otherwise the
// kernel takes at least one entry per 128 KiB of memory and at most 524288
// (tcp_init, alloc_large_system_hash). ok is false when neither is known.
func TWBucketsFloor(f *Facts) (floor int64, ok bool) {
	if v, has := f.Live.Int("net.ipv4.tcp_ehash_entries"); has && v != 0 {
		return max(v, -v) / 2, true // negative: shared with the first namespace
	}
	if f.MemoryBytes == 0 {
		return 0, false
	}
	return min(int64(f.MemoryBytes>>17), 512<<10) / 2, true
}
func twRecommendation(f *Facts, k Key) string {
	v, ok := f.Live.Int(k)
	if !ok {
		return ""
	}
	floor, _ := TWBucketsFloor(f)
	return strconv.FormatInt(max(2*v, floor), 10)
}

func judgeFinWait(_ Key, f *Facts) []Judgement {
	if f.Sockets == nil || f.Sockets.FinWait2 < 0 {
		return nil // the value alone is judged already
	}
	maximum, ok := f.Live.Int("net.ipv4.tcp_max_orphans")
	if !ok && f.Sockets.FinWait2 >= 4096 {
		return []Judgement{{Verdict: Unknown, Why: "many sockets are in FIN_WAIT_2, and the bound to hold them against does not exist in this network namespace", Missing: []string{"net.ipv4.tcp_max_orphans"}}}
	}
	if !ok || ratio(f.Sockets.FinWait2, maximum) < 0.25 {
		return nil
	}
	return []Judgement{{
		Verdict: Advice, Finding: "sysctl.fin-wait-pile-up", Severity: Warning,
		Why:      "orphaned sockets pile up in FIN_WAIT_2: peers do not close their side",
		Evidence: []Evidence{{"FIN_WAIT_2", fmt.Sprint(f.Sockets.FinWait2)}, {"net.ipv4.tcp_max_orphans", fmt.Sprint(maximum)}},
		Remedy:   "find the peers that do not close; this is the one case in which a lower tcp_fin_timeout has an effect, and it is for you to weigh",
	}}
}

func judgeNonlocalBind(k Key, f *Facts) []Judgement {
	if v, _ := f.Live.Int(k); v == 0 {
		return nil
	}
	switch f.roles().VRRP {
	case Yes:
		return nil
	case Unsure:
		return []Judgement{{Verdict: Unknown, Why: "right with VRRP or another program that moves addresses, wrong without", Missing: []string{"VRRP"}}}
	}
	return []Judgement{{
		Verdict: Wrong, Finding: "sysctl.nonlocal-bind", Severity: Info,
		Why:    "programs can bind addresses that this host does not have, and nothing here moves addresses: a mistyped bind address goes unnoticed",
		Remedy: "turn it off unless addresses move between hosts",
	}}
}

func judgeOrphans(k Key, f *Facts) []Judgement {
	s := f.seen("TcpExt.TCPAbortOnMemory")
	maximum, ok := f.Live.Int(k)
	if f.Sockets == nil || !ok {
		s.missing = append(s.missing, "orphaned sockets")
	} else if share := ratio(f.Sockets.Orphans, maximum); share >= 0.25 {
		s.ever, s.moving = true, true
		s.evidence = append(s.evidence, Evidence{"orphaned sockets", fmt.Sprintf("%d of %d (%s)", f.Sockets.Orphans, maximum, percent(share))})
	}
	return s.judge(Judgement{
		Verdict: Advice, Finding: "sysctl.orphans-near-limit", Severity: Warning,
		Why:       "sockets that programs have closed fill their bound; beyond it connections are reset",
		Recommend: double(f, k, 0, 1<<20),
		Remedy:    "find out which peers do not take their data; raising the bound costs up to 64 KiB a socket",
	})
}
