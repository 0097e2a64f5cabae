package sysctl

// keepaliveEntries concern idle and silent connections.
func keepaliveEntries() []*Entry {
	keep := func(name, title string, u Unit, def string) *Entry {
		return &Entry{
			Key: Key("net.ipv4.tcp_keepalive_" + name), Title: title,
			Meaning: "Only for sockets whose program has turned keepalive on and set no values of its own. It closes connections whose peer is gone; it " +
				"does not keep connections through idle limits elsewhere (load balancers 60 to 900 seconds, carrier NAT a few minutes): for those the " +
				"program must send something, a heartbeat.",
			Unit: u, Shape: ShapeInt, Min: number(1), Max: number(127), Default: def, Scope: ScopeNamespace, Class: ClassInfo,
			Decides: []string{"the value"}, Refs: []string{refIPSysctl},
		}
	}
	idle, between := keep("time", "idle time before the first keepalive probe", UnitSeconds, "7200"), keep("intvl", "time between keepalive probes", UnitSeconds, "75")
	idle.Max, between.Max = number(32767), number(32767)
	return []*Entry{
		idle, between,
		keep("probes", "keepalive probes before a connection is given up", UnitCount, "9"),
		{
			Key: "net.ipv4.tcp_retries1", Title: "repeats before the route is questioned",
			Meaning: "After so many repeats of a segment the kernel asks the network layer whether the route is dead.",
			Unit:    UnitCount, Shape: ShapeInt, Min: number(0), Max: number(255), Default: "3", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_retries2", Title: "repeats before a connection is given up",
			Meaning: "15 means about 924.6 seconds until a connection with unacknowledged data is reported dead.",
			Unit:    UnitCount, Shape: ShapeInt, Min: number(0), Max: number(255), Default: "15", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_rto_max_ms", Title: "longest wait between repeats",
			Meaning: "The waiting time between repeats doubles up to this.",
			Unit:    UnitMillis, Shape: ShapeInt, Min: number(1000), Max: number(120000), Since: Version{6, 15}, Default: "120000", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_rto_min_us", Title: "shortest wait before a repeat",
			Meaning: "In microseconds.",
			Unit:    UnitMicros, Shape: ShapeInt, Min: number(1), Max: number(1000000), Since: Version{6, 11}, Default: "200000", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_probe_interval", Title: "time between searches for a larger packet size",
			Meaning: "Concerns tcp_mtu_probing only.",
			Unit:    UnitSeconds, Shape: ShapeInt, Max: number(2000000), Default: "600", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_slow_start_after_idle", Title: "an idle connection starts slowly again",
			Meaning: "Throughput of connections with pauses; it does not decide whether clients connect.",
			Unit:    UnitBool, Shape: ShapeInt, Default: "1", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_congestion_control", Title: "congestion control",
			Meaning: "Throughput, not connectivity. A name whose module is not there leaves the old value.",
			Unit:    UnitNone, Shape: ShapeText, Scope: ScopeNamespace, Class: ClassInfo, DefaultNote: "cubic unless the kernel was built otherwise", Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_available_congestion_control", Title: "congestion controls that are loaded",
			Meaning: "What tcp_congestion_control can be set to without loading a module.",
			Unit:    UnitNone, Shape: ShapeWords, Scope: ScopeNamespace, Class: ClassInfo, ReadOnly: true, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.core.default_qdisc", Title: "queueing discipline of new devices",
			Meaning: "Throughput and latency, not connectivity; devices that exist keep theirs.",
			Unit:    UnitNone, Shape: ShapeText, Scope: ScopeInitial, Class: ClassInfo, DefaultNote: "pfifo_fast; systemd sets fq_codel", Refs: []string{refNetSysctl},
		},
		{
			Key: "net.ipv4.tcp_ecn", Title: "explicit congestion notification",
			Meaning: "2 answers when asked, 1 asks as well. A few old boxes on the way drop connections that ask.",
			Unit:    UnitNone, Shape: ShapeInt, Min: number(0), Max: number(2), Default: "2", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_ehash_entries", Title: "size of the connection hash",
			Meaning: "Entries of the hash that all connections stand in; negative in a namespace that shares the machine's. The default of tcp_max_tw_buckets is half of it.",
			Unit:    UnitEntries, Shape: ShapeInt, Since: Version{6, 1}, Scope: ScopeNamespace, Class: ClassInfo, ReadOnly: true, Refs: []string{refIPSysctl},
		},
	}
}
