package sysctl

import (
	"fmt"
	"slices"
	"strconv"
)

// References that many entries share.
const (
	refIPSysctl  = "https://docs.kernel.org/networking/ip-sysctl.html"
	refNetSysctl = "https://docs.kernel.org/admin-guide/sysctl/net.html"
	refFsSysctl  = "https://docs.kernel.org/admin-guide/sysctl/fs.html"
	refConntrack = "https://docs.kernel.org/networking/nf_conntrack-sysctl.html"
	refWorkerman = "https://github.com/walkor/workerman/issues/122"
)

// number is a bound of an entry's fields.
func number(v int64) *int64 { return &v }

// inboundEntries are the queues that a connection passes on its way in.
func inboundEntries() []*Entry {
	return []*Entry{
		{
			Key: keySomaxconn, Title: "longest accept queue a listener can have",
			Meaning: "Caps the backlog that a program passes to listen(), for TCP and for unix stream sockets such as php-fpm's. The cap is " +
				"taken when listen() is called: a listener keeps its old bound until it is opened again. A connection whose handshake is " +
				"complete waits in this queue until the program accepts it; when the queue is full the kernel drops the last packet of " +
				"further handshakes and the client waits.",
			Unit: UnitEntries, Shape: ShapeInt, Max: number(65535), Default: "4096", DefaultNote: "128 before Linux 5.4",
			Scope: ScopeNamespace, Class: ClassEvidence, LargerIsFine: true,
			Advice:  "when an accept queue is full and its bound is this setting: twice the value in force, from 4096 to 65535; where the program asked for less, its own backlog and no value here",
			Decides: []string{"TcpExt.ListenOverflows", "accept queue of each listener (Recv-Q against Send-Q)"},
			Rule:    judgeAcceptQueue, Refs: []string{refNetSysctl, refWorkerman},
		},
		{
			Key: "net.ipv4.tcp_max_syn_backlog", Title: "half-open connections without SYN cookies",
			Meaning: "How many half-open connections a listener remembers. Read only while tcp_syncookies is 0: with cookies on, the bound is " +
				"the accept queue's, so raising this key changes nothing.",
			Unit: UnitEntries, Shape: ShapeInt, DefaultNote: "at least 128, grows with memory",
			Scope: ScopeNamespace, Class: ClassInfo, LargerIsFine: true,
			Advice:  "none: with SYN cookies on it is not read, and without them net.ipv4.tcp_syncookies = 1 is the answer to dropped SYNs",
			Decides: []string{"net.ipv4.tcp_syncookies", "TcpExt.TCPReqQFullDrop", "TcpExt.ListenDrops", "TcpExt.ListenOverflows"},
			Rule:    judgeSynBacklog, Refs: []string{refIPSysctl},
		},
		{
			Key: keySyncookies, Title: "answer to a full queue of half-open connections",
			Meaning: "1 answers with a cookie instead of remembering the connection when the queue of half-open connections is full: the " +
				"protection against SYN floods. 2 always does so and is for tests of the stack. It is no tuning for busy servers: when it " +
				"acts, either somebody floods or the program accepts too slowly.",
			Unit: UnitNone, Shape: ShapeInt, Max: number(2), Default: "1", Scope: ScopeNamespace, Class: ClassWrong,
			Advice:  "1 on every host",
			Decides: []string{"the value", "TcpExt.TCPReqQFullDoCookies"},
			Rule:    judgeSyncookies, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_abort_on_overflow", Title: "reset instead of silence when the accept queue is full",
			Meaning: "1 answers the last packet of a handshake with a reset when the accept queue is full. A short burst that would have been " +
				"served a moment later then fails for the client. It does not turn dropped SYNs into resets.",
			Unit: UnitBool, Shape: ShapeInt, Default: "0", Scope: ScopeNamespace, Class: ClassNever,
			Advice:  "0 on every host",
			Decides: []string{"the value"}, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_synack_retries", Title: "how long a half-open connection lives",
			Meaning: "How often the answer to a SYN is repeated: 5 means about 63 seconds until a half-open connection is given up.",
			Unit:    UnitCount, Shape: ShapeInt, Min: number(0), Max: number(255), Default: "5", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_syn_retries", Title: "how long connect() tries",
			Meaning: "How often a SYN is repeated: 6 means about 131 seconds until connect() fails with a timeout.",
			Unit:    UnitCount, Shape: ShapeInt, Min: number(1), Max: number(127), Default: "6", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_syn_linear_timeouts", Title: "SYN repeats before the waiting time doubles",
			Meaning: "The first repeats of a SYN come at equal distances, only later ones at doubled ones.",
			Unit:    UnitCount, Shape: ShapeInt, Min: number(0), Max: number(127), Since: Version{6, 5}, Default: "4", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_migrate_req", Title: "pending connections move when a listener closes",
			Meaning: "1 hands connections that wait at a closing listener to another one of the same SO_REUSEPORT group. With 0 a reload that " +
				"closes one listener of a group resets the connections that waited there.",
			Unit: UnitBool, Shape: ShapeInt, Since: Version{5, 14}, Default: "0", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_fastopen", Title: "data in the first packet",
			Meaning: "A bit mask: 1 lets clients send data with the SYN, 2 lets servers take it, 0x400 turns it on for every listener without " +
				"its asking. Servers need 2 and either 0x400 or a socket option.",
			Unit: UnitNone, Shape: ShapeInt, Default: "1", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.core.netdev_max_backlog", Title: "packets waiting for the stack, per CPU",
			Meaning: "Length of the per-CPU queue between a driver and the protocol stack. Loopback, veth, RPS and drivers without NAPI pass " +
				"through it; most network cards do not.",
			Unit: UnitPackets, Shape: ShapeInt, Default: "1000", Scope: ScopeInitial, Class: ClassEvidence, LargerIsFine: true,
			Advice:  "when column 2 of /proc/net/softnet_stat grows: twice the value in force, up to 65536",
			Decides: []string{"softnet.dropped"},
			Rule: func(k Key, f *Facts) []Judgement {
				return f.seen("softnet.dropped").judge(Judgement{
					Verdict: Advice, Finding: "sysctl.netdev-backlog-overflow", Severity: Warning,
					Why:       "packets were dropped because a CPU's input queue was full",
					Recommend: double(f, k, 1000, 65536),
					Remedy:    "raise net.core.netdev_max_backlog, or spread the load over more CPUs (RPS, more queues)",
				})
			},
			Refs: []string{refNetSysctl},
		},
		{
			Key: "net.core.netdev_budget", Title: "packets one polling round may take",
			Meaning: "How many packets the kernel takes from all devices in one polling round before it lets others run.",
			Unit:    UnitPackets, Shape: ShapeInt, Default: "300", Scope: ScopeInitial, Class: ClassEvidence, LargerIsFine: true,
			Advice:  "when rounds end early and packets are dropped meanwhile: twice the value in force",
			Decides: []string{"softnet.time_squeeze", "softnet.dropped"}, Rule: judgeBudget, Refs: []string{refNetSysctl},
		},
		{
			Key: "net.core.netdev_budget_usecs", Title: "time one polling round may take",
			Meaning: "How long one polling round may last.",
			Unit:    UnitMicros, Shape: ShapeInt, Default: "2000", DefaultNote: "8000 with some timer frequencies", Since: Version{4, 12},
			Scope: ScopeInitial, Class: ClassEvidence, LargerIsFine: true,
			Advice:  "when rounds end early and packets are dropped meanwhile: twice the value in force",
			Decides: []string{"softnet.time_squeeze", "softnet.dropped"}, Rule: judgeBudget, Refs: []string{refNetSysctl},
		},
		{
			Key: "device.rx-ring", Title: "receive ring of the network card",
			Meaning: "Packets that the card received and had no room for. It is no sysctl: the ring's size is set with `ethtool -G`.",
			Unit:    UnitPackets, Shape: ShapeInt, Scope: ScopeDevice, Class: ClassEvidence, ReadOnly: true,
			Decides: []string{"device.rx_missed_errors"},
			Advice:  "a longer ring (`ethtool -G DEV rx N`), up to the maximum that `ethtool -g DEV` shows",
			Rule: func(_ Key, f *Facts) []Judgement {
				return f.seen("device.rx_missed_errors").judge(Judgement{
					Verdict: Advice, Finding: "device.rx-ring-overflow", Severity: Warning,
					Why:    "the network card dropped packets for which it had no buffer",
					Remedy: "see `ethtool -g DEV` and raise the ring with `ethtool -G DEV rx N`; look for a CPU that does all the interrupts",
				})
			},
			Refs: []string{"https://man7.org/linux/man-pages/man8/ethtool.8.html"},
		},
		{
			Key: "net.ipv4.tcp_fwmark_accept", Title: "accepted sockets inherit the packet's mark",
			Meaning: "1 gives an accepted socket the firewall mark of its SYN, so that policy routing by mark holds for the answers.",
			Unit:    UnitBool, Shape: ShapeInt, Default: "0", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.ip_unprivileged_port_start", Title: "first port that anybody may bind",
			Meaning: "Ports below it need CAP_NET_BIND_SERVICE. The ephemeral range must begin at or above it: the kernel refuses either write otherwise.",
			Unit:    UnitPorts, Shape: ShapeInt, Max: number(65535), Default: "1024", Since: Version{4, 11}, Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
	}
}

// double is twice the live value, at least floor and at most ceiling, and never
// below the live value; empty when the value is not known or high enough.
func double(f *Facts, k Key, floor, ceiling int64) string {
	v, ok := f.Live.Int(k)
	if !ok {
		return ""
	}
	want := min(max(2*v, floor), ceiling)
	if want <= v {
		return ""
	}
	return strconv.FormatInt(want, 10)
}

// judgeAcceptQueue speaks when connections wait in vain, and tells apart whether
// the setting or the program bounds the queue.
func judgeAcceptQueue(k Key, f *Facts) []Judgement {
	limit, ok := f.Live.Int(k)
	if !ok {
		return nil
	}
	overflow := f.seen("TcpExt.ListenOverflows")
	if !f.ListenersRead {
		return overflow.judge(Judgement{
			Verdict: Unknown, Finding: "sysctl.accept-queue-overflow", Severity: Warning,
			Why:     "connections were dropped at a full accept queue; which listener's could not be read",
			Missing: []string{"listeners with their queues"},
		})
	}
	var out []Judgement
	for _, l := range f.Listeners {
		now := l.Queued > l.Limit || l.Limit > 0 && float64(l.Queued) >= f.Profile.QueueShare()*float64(l.Limit)
		if l.Proto != "tcp" || !now && !(overflow.moving && l.dropping()) {
			continue
		}
		subject := l.name()
		ev := []Evidence{{"accept queue of " + subject, fmt.Sprintf("%d of %d", l.Queued, l.Limit)}}
		if l.dropping() {
			ev = append(ev, Evidence{"dropped at " + subject, l.Drops.String()})
		}
		ev = append(ev, overflow.evidence...)
		if !now {
			out = append(out, f.overflowed(k, l, limit, ev))
			continue
		}
		severity := Warning
		if l.Queued > l.Limit {
			severity = Critical // sk_acceptq_is_full: more than the backlog waits, everything further is dropped
		}
		if int64(l.Limit) == limit {
			out = append(out, Judgement{
				Verdict: Advice, Finding: "sysctl.somaxconn-bounds-queue", Severity: severity, Subject: subject,
				Why:       "the accept queue is full and net.core.somaxconn is what bounds it",
				Recommend: double(f, k, 4096, 65535), Evidence: ev,
				Remedy: "raise net.core.somaxconn, then restart the listener: it takes the bound when it calls listen(); and find out why " + nameOr(l.Program) + " accepts so slowly",
			})
			continue
		}
		out = append(out, Judgement{
			Verdict: Advice, Finding: "sysctl.application-bounds-queue", Severity: severity, Subject: subject, Evidence: ev,
			Why:    fmt.Sprintf("the accept queue is full; net.core.somaxconn would allow %d now, but %s asked for a backlog of %d, or the setting was that when it called listen()", limit, nameOr(l.Program), l.Limit),
			Remedy: "restart it, which is enough where the setting was raised since it started; otherwise raise the backlog in the program's own configuration (nginx `listen … backlog=`, php-fpm `listen.backlog`, redis `tcp-backlog`: 511 by default); raising the sysctl further changes nothing",
		})
	}
	if len(out) > 0 {
		return out
	}
	why := "connections were dropped at a full accept queue; no queue is full at this moment"
	if overflow.moving {
		why += ", and no listener that is still there counted them"
	} else {
		for _, l := range f.Listeners {
			if l.Drops != nil && l.Drops.Total > 0 {
				overflow.evidence = append(overflow.evidence, Evidence{"dropped at " + l.name(), l.Drops.String()})
			}
		}
	}
	return overflow.judge(Judgement{
		Verdict: Advice, Finding: "sysctl.accept-queue-overflow", Severity: Warning,
		Why:    why,
		Remedy: "watch the queues (`ss -lnt`, Recv-Q against Send-Q) to find the listener before raising anything",
	})
}

// overflowed is the word on a listener whose queue ran over while it was watched
// and is not full at this moment.
func (f *Facts) overflowed(k Key, l Listener, limit int64, ev []Evidence) Judgement {
	j := Judgement{
		Verdict: Advice, Finding: "sysctl.accept-queue-overflow", Severity: Warning, Subject: l.name(), Evidence: ev,
		Why: fmt.Sprintf("connections to %s were dropped at a full accept queue while this was measured; it is not full at this moment", nameOr(l.Program)),
	}
	if int64(l.Limit) == limit {
		j.Recommend = double(f, k, 4096, 65535)
		j.Remedy = "for bursts raise net.core.somaxconn, which bounds this queue, then restart the listener; and find out why " + nameOr(l.Program) + " accepts so slowly"
		return j
	}
	j.Remedy = fmt.Sprintf("for bursts raise the backlog of %d in the program's own configuration and restart it (net.core.somaxconn would allow %d; was it raised since the program started, the restart is enough); find out why it accepts so slowly", l.Limit, limit)
	return j
}

func nameOr(program string) string {
	if program == "" {
		return "the program"
	}
	return program
}

func judgeSynBacklog(k Key, f *Facts) []Judgement {
	if cookies, ok := f.Live.Int(keySyncookies); !ok || cookies != 0 {
		return nil
	}
	s := f.seen("TcpExt.TCPReqQFullDrop")
	// From three quarters of this key on, SYNs of clients that are not known are
	// dropped; that is counted as a drop at a listener and in no way of its own
	// (tcp_conn_request).
	drops, ok1 := f.Counters["TcpExt.ListenDrops"]
	overflows, ok2 := f.Counters["TcpExt.ListenOverflows"]
	if !ok1 || !ok2 {
		s.missing = append(s.missing, "TcpExt.ListenDrops")
	} else if drops.Total > overflows.Total {
		other := Counter{Total: drops.Total - overflows.Total, Window: drops.Window, Sampled: drops.Sampled && overflows.Sampled}
		if drops.Delta > overflows.Delta {
			other.Delta = drops.Delta - overflows.Delta
		}
		s.add("TcpExt ListenDrops without ListenOverflows", other)
	}
	if s.moving {
		s.evidence = append(s.evidence, f.halfOpen()...)
	}
	return s.judge(Judgement{
		Verdict: Advice, Finding: "sysctl.syn-queue-overflow", Severity: Warning,
		Why:    "SYNs are dropped at a full queue of half-open connections, because SYN cookies are off",
		Remedy: "turn net.ipv4.tcp_syncookies on, which takes every client that answers; this key matters only without",
	})
}

// halfOpen names the listeners with the longest queues of half-open connections.
func (f *Facts) halfOpen() []Evidence {
	var full []Listener
	for _, l := range f.Listeners {
		if l.HalfOpen > 0 && l.HalfOpen >= l.Limit {
			full = append(full, l)
		}
	}
	slices.SortStableFunc(full, func(a, b Listener) int { return b.HalfOpen - a.HalfOpen })
	var out []Evidence
	for _, l := range full[:min(len(full), 3)] {
		out = append(out, Evidence{"half-open connections of " + l.name(), fmt.Sprintf("%d; from %d on the queue is full", l.HalfOpen, max(l.Limit, 1))})
	}
	return out
}

func judgeSyncookies(k Key, f *Facts) []Judgement {
	if v, ok := f.Live.Int(k); ok && v == 2 {
		return nil // every SYN is answered with a cookie and counted so (tcp_conn_request)
	}
	cookies := f.seen("TcpExt.TCPReqQFullDoCookies")
	if cookies.moving {
		cookies.evidence = append(cookies.evidence, f.halfOpen()...)
	}
	return cookies.judge(Judgement{
		Verdict: Advice, Finding: "sysctl.syn-queue-cookies", Severity: Warning,
		Why:    "the queue of half-open connections overflows and cookies are sent: somebody floods, or a program accepts too slowly",
		Remedy: "look at the accept queues first; no sysctl repairs a program that does not accept",
	})
}

func judgeBudget(k Key, f *Facts) []Judgement {
	squeezed, dropped := f.seen("softnet.time_squeeze"), f.seen("softnet.dropped")
	if len(squeezed.missing)+len(dropped.missing) > 0 {
		return []Judgement{{Verdict: Unknown, Why: "the counters that decide were not read", Missing: append(squeezed.missing, dropped.missing...)}}
	}
	if !squeezed.moving || !dropped.moving {
		return nil
	}
	return []Judgement{{
		Verdict: Advice, Finding: "sysctl.netdev-budget-exhausted", Severity: Warning,
		Why:       "polling rounds end before the queues are empty, and packets are dropped meanwhile",
		Evidence:  append(squeezed.evidence, dropped.evidence...),
		Recommend: double(f, k, 0, 1<<20),
		Remedy:    "raise " + string(k) + ", or spread interrupts over more CPUs",
	}}
}
