package sysctl

import (
	"fmt"
	"strconv"
)

// conntrackEntries belong to the table of connections that stateful rules and
// address translation look into. They exist while the module is loaded.
func conntrackEntries() []*Entry {
	timeout := func(name, title, meaning, value string) *Entry {
		return &Entry{
			Key: Key("net.netfilter.nf_conntrack_" + name), Title: title, Meaning: meaning, Unit: UnitSeconds, Shape: ShapeInt, Max: number(2000000),
			Default: value, Scope: ScopeNamespace, Class: ClassEvidence, Module: "nf_conntrack",
			Decides: []string{"share of the table in use"}, Rule: judgeConntrackTimeout,
			Advice: "none by itself: nf_conntrack_max first; a shorter one only where `conntrack -L` shows that peers which are gone fill the table", Refs: []string{refConntrack},
		}
	}
	info := func(name, title, meaning, value string) *Entry {
		e := timeout(name, title, meaning, value)
		e.Class, e.Rule, e.Decides, e.Advice = ClassInfo, nil, nil, ""
		return e
	}
	return []*Entry{
		{
			Key: keyConntrackMax, Title: "most tracked connections",
			Meaning: "One number for the machine, against which each network namespace counts its own connections. When it is reached, packets of new connections are dropped: clients see a " +
				"timeout while everything else looks healthy (kernel log: \"nf_conntrack: table full, dropping packet\"). A write inside a " +
				"container is refused, and sysctl(8) reports success all the same.",
			Unit: UnitEntries, Shape: ShapeInt, DefaultNote: "as many as buckets; 262144 on large machines", Scope: ScopeGlobal,
			Class: ClassEvidence, Module: "nf_conntrack", LargerIsFine: true,
			Advice:  "from 85 % in use, or when entries are dropped: twice the value in force, at least 262144, together with the buckets",
			Decides: []string{"entries in use", "conntrack.drop", "conntrack.early_drop", "conntrack.insert_failed"},
			Rule:    judgeConntrackMax, Refs: []string{refConntrack},
		},
		{
			Key: "net.nf_conntrack_max", Title: "most tracked connections, by its other name",
			Meaning: "The same number as net.netfilter.nf_conntrack_max.",
			Unit:    UnitEntries, Shape: ShapeInt, Scope: ScopeInitial, Class: ClassInfo, Module: "nf_conntrack", ReadOnly: true,
			Refs: []string{refConntrack},
		},
		{
			Key: keyConntrackHash, Title: "hash buckets of the connection table",
			Meaning: "Each connection stands in two chains. With the same number of buckets as connections a chain holds two on average; ten times " +
				"more connections than buckets make every packet walk twenty.",
			Unit: UnitEntries, Shape: ShapeInt, DefaultNote: "memory / 16384, from 1024 to 262144", Scope: ScopeGlobal,
			Class: ClassWrong, Module: "nf_conntrack", LargerIsFine: true,
			Advice:  "one bucket a connection: the value of nf_conntrack_max",
			Decides: []string{string(keyConntrackMax)}, Rule: judgeConntrackBuckets, Refs: []string{refConntrack},
		},
		{
			Key: "boot.conntrack-module", Title: "connection tracking settings at boot",
			Meaning: "Settings below net.netfilter exist only once the module nf_conntrack is loaded. systemd-sysctl runs early; a firewall that " +
				"loads the module later brings it up with the defaults, whatever the files say.",
			Shape: ShapeText, Scope: ScopeHost, Class: ClassWrong, ReadOnly: true,
			Advice:  "a file below /etc/modules-load.d that names the module",
			Decides: []string{"modules-load.d", "lines for net.netfilter.nf_conntrack_* in sysctl files"}, Rule: judgeLateModules,
			Refs: []string{"https://github.com/systemd/systemd/issues/43362", "https://github.com/systemd/systemd/issues/1113"},
		},
		timeout("tcp_timeout_established", "idle time of an established connection in the table",
			"How long a silent connection is remembered. Five days by default: peers that vanish fill the table.", "432000"),
		timeout("tcp_timeout_time_wait", "TIME_WAIT in the table",
			"How long the table remembers a closed connection. It is not TCP's own TIME_WAIT.", "120"),
		timeout("tcp_timeout_syn_recv", "half-open connections in the table",
			"How long a handshake that does not end is remembered.", "60"),
		timeout("tcp_timeout_close_wait", "half-closed connections in the table",
			"How long a connection is remembered whose peer has closed and whose program has not.", "60"),
		timeout("tcp_timeout_fin_wait", "closing connections in the table",
			"How long a connection is remembered that waits for the peer's FIN.", "120"),
		timeout("udp_timeout", "UDP exchanges in the table",
			"How long a single UDP exchange is remembered.", "30"),
		timeout("udp_timeout_stream", "UDP streams in the table",
			"How long a UDP flow with packets both ways is remembered.", "120"),
		timeout("generic_timeout", "other protocols in the table",
			"How long flows of protocols without a tracker are remembered.", "600"),
		info("icmp_timeout", "pings in the table", "How long an echo is remembered.", "30"),
		{
			Key: "net.netfilter.nf_conntrack_tcp_be_liberal", Title: "out-of-window segments are not INVALID",
			Meaning: "1 calls only resets outside the window invalid. For paths on which this host sees one direction only, where a rule that " +
				"drops INVALID cuts healthy connections.",
			Unit: UnitBool, Shape: ShapeInt, Default: "0", Scope: ScopeNamespace, Class: ClassEvidence, Module: "nf_conntrack",
			Decides: []string{"conntrack.invalid"},
			Advice:  "1 only where a rule drops INVALID packets and the two directions of a connection take different paths",
			Rule: func(k Key, f *Facts) []Judgement {
				if v, _ := f.Live.Int(k); v != 0 {
					return nil
				}
				s := f.seen("conntrack.invalid")
				if !s.moving {
					return nil // old invalid packets are normal: scans, resets after a restart
				}
				return s.judge(Judgement{
					Verdict: Advice, Finding: "sysctl.conntrack-invalid", Severity: Info,
					Why:    "packets are called INVALID; if a rule drops those and the two directions take different paths, healthy connections are cut",
					Remedy: "look for a drop rule on `ct state invalid` whose counter grows and for asymmetric routes, before setting it to 1",
				})
			},
			Refs: []string{refConntrack},
		},
		{
			Key: "net.netfilter.nf_conntrack_tcp_loose", Title: "connections are picked up in the middle",
			Meaning: "1 tracks a connection whose beginning was not seen, so that established connections survive a restart of the firewall.",
			Unit:    UnitBool, Shape: ShapeInt, Default: "1", Scope: ScopeNamespace, Class: ClassInfo, Module: "nf_conntrack", Refs: []string{refConntrack},
		},
		{
			Key: "net.netfilter.nf_conntrack_expect_max", Title: "most expected connections",
			Meaning: "Bound of connections that helpers (FTP, SIP) announce.",
			Unit:    UnitEntries, Shape: ShapeInt, Min: number(1), Scope: ScopeGlobal, Class: ClassInfo, Module: "nf_conntrack", Refs: []string{refConntrack},
		},
		{
			Key: "net.bridge.bridge-nf-call-iptables", Title: "bridged IPv4 packets pass the firewall",
			Meaning: "1 sends bridged packets through the IP rules. Docker and Kubernetes turn it on; a rule set that does not expect it then " +
				"filters traffic between containers of one bridge.",
			Unit: UnitBool, Shape: ShapeInt, Default: "1", Scope: ScopeNamespace, Class: ClassInfo, Module: "br_netfilter",
			Refs: []string{"https://docs.kernel.org/networking/bridge.html"},
		},
		{
			Key: "net.bridge.bridge-nf-call-ip6tables", Title: "bridged IPv6 packets pass the firewall",
			Meaning: "As bridge-nf-call-iptables, for IPv6.",
			Unit:    UnitBool, Shape: ShapeInt, Default: "1", Scope: ScopeNamespace, Class: ClassInfo, Module: "br_netfilter",
			Refs: []string{"https://docs.kernel.org/networking/bridge.html"},
		},
	}
}

// conntrackShare is how full the table is. ok is false when that is not known
// or nothing uses the table.
func conntrackShare(f *Facts) (share float64, maximum int64, ok bool) {
	maximum, has := f.Live.Int(keyConntrackMax)
	if !has || f.Conntrack == nil || maximum <= 0 {
		return 0, maximum, false
	}
	return ratio(f.Conntrack.Count, maximum), maximum, true
}

func judgeConntrackMax(k Key, f *Facts) []Judgement {
	s := f.seen("conntrack.drop", "conntrack.early_drop", "conntrack.insert_failed")
	share, maximum, ok := conntrackShare(f)
	if !ok {
		s.missing = append(s.missing, "number of tracked connections")
	}
	want := max(2*maximum, 262144)
	j := Judgement{
		Verdict: Advice, Finding: "sysctl.conntrack-near-limit", Severity: Warning,
		Why:       "connections could not be entered into the table, or older ones were thrown out for them",
		Recommend: strconv.FormatInt(want, 10),
		Remedy: fmt.Sprintf("raise %s to %d together with %s (about 320 bytes a connection, %d MiB when full); look for peers that vanish (timeouts) and for flows that need no tracking",
			k, want, keyConntrackHash, want*320>>20),
	}
	if ok && share >= 0.85 {
		j.Why = fmt.Sprintf("%s of the connection table is in use; when it is full, new connections time out", percent(share))
		j.Evidence = append(s.evidence, Evidence{"tracked connections", fmt.Sprintf("%d of %d", f.Conntrack.Count, maximum)})
		if share >= 0.95 {
			j.Severity = Critical
		}
		return []Judgement{j}
	}
	// drop and early_drop say that the table was full, insert_failed alone can
	// be a race of two packets: with room in the table it is worth a word only.
	if full := f.seen("conntrack.drop", "conntrack.early_drop"); !full.ever && s.ever {
		if !s.moving {
			return nil
		}
		j.Severity, j.Recommend = Info, ""
		j.Why = "connections could not be entered into the table although it has room: two packets raced, as DNS clients do that ask for two records at once"
		j.Remedy = "nothing to raise; for DNS, the resolver option single-request-reopen avoids the race"
	}
	return s.judge(j)
}

func judgeConntrackBuckets(k Key, f *Facts) []Judgement {
	buckets, ok1 := f.Live.Int(k)
	maximum, ok2 := f.Live.Int(keyConntrackMax)
	if !ok1 || !ok2 || buckets <= 0 || maximum <= 4*buckets {
		return nil
	}
	return []Judgement{{
		Verdict: Wrong, Finding: "sysctl.conntrack-buckets-missing", Severity: Warning,
		Why:       fmt.Sprintf("%d connections share %d buckets: %d in a chain on average when the table is full, walked for every packet", maximum, buckets, 2*maximum/buckets),
		Evidence:  []Evidence{{string(keyConntrackMax), fmt.Sprint(maximum)}, {string(k), fmt.Sprint(buckets)}},
		Recommend: strconv.FormatInt(maximum, 10),
		Remedy:    "raise the buckets with the bound: one per connection, 8 bytes each",
	}}
}

func judgeConntrackTimeout(k Key, f *Facts) []Judgement {
	share, _, ok := conntrackShare(f)
	if !ok || share < 0.85 {
		return nil
	}
	v, _ := f.Live.Get(k)
	return []Judgement{{
		Verdict: OK,
		Why:     "the connection table is nearly full, and this timeout (" + v + " s) is one of those that decide how long dead peers stay in it; the bound is the first thing to raise",
	}}
}
