package sysctl

import "fmt"

const pagesAdvice = "all three bounds (pages of 4 KiB on most machines) together, and only where the memory is there; unread data in sockets first"

// memoryEntries bound what connections may buffer.
func memoryEntries() []*Entry {
	pages := func(k Key, proto string) *Entry {
		return &Entry{
			Key: k, Title: "memory of all " + proto + " sockets together",
			Meaning: "Three bounds in pages, not bytes: below the first nothing happens, above the second buffers are not enlarged any more, at the " +
				"third packets are dropped and connections reset.",
			Unit: UnitPages, Shape: ShapeInts, Fields: 3, Max: number(1 << 62), DefaultNote: "grows with memory", Scope: ScopeInitial,
			Class: ClassEvidence, Refs: []string{refIPSysctl},
		}
	}
	tcp := pages("net.ipv4.tcp_mem", "TCP")
	tcp.Decides = []string{"pages in use (sockstat)", "TcpExt.TCPMemoryPressures"}
	tcp.Advice = pagesAdvice
	tcp.Rule = func(k Key, f *Facts) []Judgement { return judgePages(k, f, "TcpExt.TCPMemoryPressures") }
	udp := pages("net.ipv4.udp_mem", "UDP")
	udp.Decides = []string{"pages in use (sockstat)"}
	udp.Advice = pagesAdvice
	udp.Rule = func(k Key, f *Facts) []Judgement { return judgePages(k, f, "") }
	buffer := func(k Key, title, meaning string) *Entry {
		return &Entry{
			Key: k, Title: title, Meaning: meaning, Unit: UnitBytes, Shape: ShapeInt, Scope: ScopeGlobal, Class: ClassEvidence, LargerIsFine: true,
			DefaultNote: "212992 or 4194304, by version", Refs: []string{refNetSysctl},
		}
	}
	rmem := buffer("net.core.rmem_max", "largest receive buffer a program may ask for",
		"Bounds SO_RCVBUF only. It does not bound TCP's own enlargement of buffers, which tcp_rmem does: raising it does nothing for programs that do not ask.")
	rmem.Decides = []string{"Udp.RcvbufErrors", "Udp6.RcvbufErrors", "datagrams dropped by each UDP socket, and the size of its buffer"}
	rmem.Advice = "when a UDP program that asked for as much as this allows drops: twice the value in force, from 1 MiB to 64 MiB"
	rmem.Rule = judgeReceiveBuffer
	wmem := buffer("net.core.wmem_max", "largest send buffer a program may ask for",
		"Bounds SO_SNDBUF only. It does not bound TCP's own enlargement of buffers, which tcp_wmem does.")
	wmem.Class = ClassInfo
	defaults := func(k Key, what string) *Entry {
		e := buffer(k, "default "+what+" buffer of sockets that are not TCP",
			"Every UDP, raw and unix socket begins with it. Megabytes here are multiplied by the number of sockets; TCP does not use it (tcp_rmem and tcp_wmem do).")
		e.Class, e.DefaultNote, e.Default, e.LargerIsFine = ClassNever, "", "212992", false
		e.Decides = []string{"the value"}
		e.Advice = "the default; a program that needs more asks for it (SO_RCVBUF, SO_SNDBUF)"
		return e
	}
	vector := func(k Key, which string) *Entry {
		return &Entry{
			Key: k, Title: "smallest, first and largest " + which + " buffer of a TCP connection",
			Meaning: "TCP enlarges a connection's buffer up to the third number when bandwidth times delay needs it. It costs nothing while unused; " +
				"more than bandwidth times delay gains nothing.",
			Unit: UnitBytes, Shape: ShapeInts, Fields: 3, Min: number(1), Default: "", DefaultNote: "4096 131072 6291456 and 4096 16384 4194304 on most machines",
			Scope: ScopeNamespace, Class: ClassEvidence, LargerIsFine: true, Decides: []string{"bandwidth × delay of the paths"},
			Advice: "the third number at bandwidth times delay of the slowest path that must be fast (1 Gbit/s × 100 ms: 12.5 MB); the first two as they are",
			Refs:   []string{refIPSysctl},
		}
	}
	return []*Entry{
		tcp, udp,
		vector("net.ipv4.tcp_rmem", "receive"), vector("net.ipv4.tcp_wmem", "send"),
		rmem, wmem,
		defaults("net.core.rmem_default", "receive"), defaults("net.core.wmem_default", "send"),
		{
			Key: "net.ipv4.udp_rmem_min", Title: "receive memory every UDP socket gets",
			Meaning: "A UDP socket may use this much even under memory pressure.",
			Unit:    UnitBytes, Shape: ShapeInt, Min: number(1), Default: "4096", Scope: ScopeNamespace, Class: ClassEvidence, LargerIsFine: true,
			Advice:  "when UDP is short of memory and drops: twice the value in force, from 16384 to 1 MiB",
			Decides: []string{"Udp.RcvbufErrors", "pages in use (sockstat)"},
			Rule: func(k Key, f *Facts) []Judgement {
				mem := f.Live.Ints("net.ipv4.udp_mem")
				if f.Sockets == nil || len(mem) < 2 || f.Sockets.UDPMemPages < mem[1] {
					return nil // without pressure the key has no effect
				}
				return f.seen("Udp.RcvbufErrors", "Udp6.RcvbufErrors").judge(Judgement{
					Verdict: Advice, Finding: "sysctl.udp-memory-pressure", Severity: Warning, Recommend: double(f, k, 16384, 1<<20),
					Why:    "UDP packets were dropped while UDP as a whole is short of memory",
					Remedy: "find the sockets that do not read (`ss -uam`); raise net.ipv4.udp_mem",
				})
			},
			Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.udp_wmem_min", Title: "send memory every UDP socket gets",
			Meaning: "Has no effect: the kernel does not account send memory this way.",
			Unit:    UnitBytes, Shape: ShapeInt, Min: number(1), Default: "4096", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.core.optmem_max", Title: "ancillary memory of a socket",
			Meaning: "For control messages and socket filters.",
			Unit:    UnitBytes, Shape: ShapeInt, DefaultNote: "20480 or 131072, by version", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refNetSysctl},
		},
		{
			Key: "net.unix.max_dgram_qlen", Title: "queue of a unix datagram socket",
			Meaning: "Messages that wait at a unix datagram socket such as /dev/log. Distributions set 10 to 512.",
			Unit:    UnitPackets, Shape: ShapeInt, Default: "10", Scope: ScopeNamespace, Class: ClassInfo, LargerIsFine: true, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_moderate_rcvbuf", Title: "TCP enlarges receive buffers by itself",
			Meaning: "0 leaves every connection with its first buffer.",
			Unit:    UnitBool, Shape: ShapeInt, Default: "1", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_notsent_lowat", Title: "unsent bytes before a socket counts as writable",
			Meaning: "Keeps less unsent data in the kernel when it is lowered.",
			Unit:    UnitBytes, Shape: ShapeInt, DefaultNote: "unlimited", Scope: ScopeNamespace, Class: ClassInfo, ReadOnly: true, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_limit_output_bytes", Title: "bytes of one connection in the queues below TCP",
			Meaning: "Keeps one connection from filling a device's queue.",
			Unit:    UnitBytes, Shape: ShapeInt, DefaultNote: "grew from 262144 to 4194304", Scope: ScopeNamespace, Class: ClassInfo, ReadOnly: true, Refs: []string{refIPSysctl},
		},
	}
}

// judgeReceiveBuffer tells for each UDP socket that drops what bounds its buffer:
// this setting, or what its program asked for (sk_setsockopt doubles it), or
// nothing it asked for.
func judgeReceiveBuffer(k Key, f *Facts) []Judgement {
	allowed, ok := f.Live.Int(k)
	if !ok {
		return nil
	}
	s := f.seen("Udp.RcvbufErrors", "Udp6.RcvbufErrors")
	if !f.ListenersRead {
		return s.judge(Judgement{
			Verdict: Unknown, Finding: "sysctl.udp-receive-buffer", Severity: Warning,
			Why: "datagrams were dropped at full receive buffers; which socket's could not be read", Missing: []string{"UDP sockets with their buffers"},
		})
	}
	if s.sampled && !s.moving {
		return nil // UDP that lost something some time ago is no news
	}
	if !s.moving {
		return s.judge(Judgement{
			Verdict: Advice, Finding: "sysctl.udp-receive-buffer", Severity: Info, Why: "datagrams were dropped at full receive buffers",
			Remedy: "see which sockets drop (`ss -uam`, the number after d) when it happens again",
		})
	}
	var out []Judgement
	for _, l := range f.Listeners {
		if l.Proto != "udp" && l.Proto != "udplite" || !l.dropping() {
			continue
		}
		j := Judgement{
			Verdict: Advice, Finding: "sysctl.udp-receive-buffer", Severity: Warning, Subject: l.name(),
			Evidence: append([]Evidence{
				{"dropped at " + l.name(), l.Drops.String()}, {"its receive buffer", fmt.Sprintf("%d bytes, %d of them taken", l.Limit, l.Queued)},
			}, s.evidence...),
		}
		own, _ := f.Live.Int("net.core.rmem_default")
		switch {
		case l.Limit == 0:
			j.Why = "datagrams are dropped because its receive buffer is full; how large that is the kernel does not tell"
			j.Remedy = "find out why " + nameOr(l.Program) + " reads so slowly; for bursts let it ask for a larger buffer (SO_RCVBUF)"
		case int64(l.Limit) == 2*allowed:
			j.Why = "datagrams are dropped because its receive buffer is full, and net.core.rmem_max is what bounds it: the program asked for that much or more"
			j.Recommend = double(f, k, 1<<20, 64<<20)
			j.Remedy = "raise net.core.rmem_max and restart the program; a program that cannot keep up needs more than a buffer"
		case int64(l.Limit) == own:
			j.Why = "datagrams are dropped because its receive buffer is full; the program took the default size (net.core.rmem_default)"
			j.Remedy = fmt.Sprintf("find out why %s reads so slowly; for bursts let it ask for a larger buffer in its own configuration (SO_RCVBUF, up to %d bytes by net.core.rmem_max); raising net.core.rmem_max alone changes nothing", nameOr(l.Program), allowed)
		case int64(l.Limit) > 2*allowed:
			j.Why = fmt.Sprintf("datagrams are dropped because its receive buffer of %d bytes is full, which is more than net.core.rmem_max gives (SO_RCVBUFFORCE, or it was lowered since)", l.Limit)
			j.Remedy = "find out why " + nameOr(l.Program) + " reads so slowly; for bursts raise the buffer in its own configuration"
		default:
			j.Why = fmt.Sprintf("datagrams are dropped because its receive buffer is full; the program itself asked for %d bytes, and net.core.rmem_max would allow %d", l.Limit/2, allowed)
			j.Remedy = "find out why " + nameOr(l.Program) + " reads so slowly; for bursts raise the buffer in its own configuration; raising net.core.rmem_max alone changes nothing"
		}
		out = append(out, j)
	}
	if len(out) > 0 {
		return out
	}
	return s.judge(Judgement{
		Verdict: Advice, Finding: "sysctl.udp-receive-buffer", Severity: Warning,
		Why:    "datagrams were dropped at full receive buffers of sockets that are connected, or closed by now",
		Remedy: "see which sockets drop (`ss -uam`, the number after d); what bounds a buffer is what its program asked for (SO_RCVBUF), up to net.core.rmem_max",
	})
}

// judgePages compares pages in use with the middle bound, where pressure begins.
func judgePages(k Key, f *Facts, counter string) []Judgement {
	bounds := f.Live.Ints(k)
	var s sighting
	if counter != "" {
		s = f.seen(counter)
	}
	switch {
	case len(bounds) < 3:
		return nil
	case f.Sockets == nil:
		s.missing = append(s.missing, "/proc/net/sockstat")
	default:
		used := f.Sockets.TCPMemPages
		if k == "net.ipv4.udp_mem" {
			used = f.Sockets.UDPMemPages
		}
		if used >= bounds[1] {
			s.ever, s.moving = true, true
			s.evidence = append(s.evidence, Evidence{"pages in use", fmt.Sprintf("%d, pressure from %d, drops from %d", used, bounds[1], bounds[2])})
		}
	}
	return s.judge(Judgement{
		Verdict: Advice, Finding: "sysctl.socket-memory-pressure", Severity: Warning,
		Why:    "sockets use more memory than " + string(k) + " grants without pressure: buffers shrink, packets are dropped",
		Remedy: "find the sockets that hold it (`ss -tm`, `ss -um`): unread data first; raise the three bounds (in pages) only if the memory is there",
	})
}
