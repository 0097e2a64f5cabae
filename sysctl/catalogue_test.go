package sysctl

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// documented are the keys of the reference that the catalogue must have.
const documented = `
net.core.somaxconn net.ipv4.tcp_max_syn_backlog net.ipv4.tcp_syncookies net.ipv4.tcp_abort_on_overflow net.ipv4.tcp_synack_retries
net.ipv4.tcp_syn_retries net.ipv4.tcp_syn_linear_timeouts net.ipv4.tcp_migrate_req net.ipv4.tcp_fastopen net.core.netdev_max_backlog
net.core.netdev_budget net.core.netdev_budget_usecs device.rx-ring
net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports net.ipv4.ip_unprivileged_port_start net.ipv4.ip_local_port_step_width
net.ipv4.tcp_tw_reuse net.ipv4.tcp_tw_reuse_delay net.ipv4.tcp_tw_recycle net.ipv4.tcp_max_tw_buckets net.ipv4.tcp_fin_timeout
limit.time-wait-length net.ipv4.tcp_timestamps net.ipv4.tcp_sack net.ipv4.tcp_window_scaling net.ipv4.tcp_rfc1337 net.ipv4.ip_autobind_reuse
net.ipv4.ip_nonlocal_bind net.ipv4.tcp_max_orphans
net.netfilter.nf_conntrack_max net.netfilter.nf_conntrack_buckets net.netfilter.nf_conntrack_tcp_timeout_established
net.netfilter.nf_conntrack_tcp_timeout_time_wait net.netfilter.nf_conntrack_tcp_timeout_syn_recv net.netfilter.nf_conntrack_tcp_be_liberal
net.netfilter.nf_conntrack_tcp_loose boot.conntrack-module
net.ipv4.conf.*.rp_filter net.ipv4.conf.*.log_martians net.ipv4.conf.*.route_localnet net.ipv4.conf.*.accept_local net.ipv4.conf.*.arp_ignore
net.ipv4.conf.*.arp_filter net.ipv4.conf.*.arp_announce net.ipv4.ip_forward net.ipv4.conf.*.forwarding net.ipv6.conf.*.forwarding
net.ipv6.conf.*.accept_ra net.ipv6.bindv6only net.ipv6.conf.*.disable_ipv6 net.ipv4.neigh.default.gc_thresh1 net.ipv4.neigh.default.gc_thresh2
net.ipv4.neigh.default.gc_thresh3 net.ipv4.tcp_mtu_probing net.ipv4.icmp_echo_ignore_all net.ipv4.icmp_ratelimit net.ipv4.icmp_ratemask
net.ipv4.tcp_mem net.ipv4.udp_mem net.ipv4.tcp_rmem net.ipv4.tcp_wmem net.core.rmem_max net.core.wmem_max net.core.rmem_default
net.core.wmem_default net.ipv4.udp_rmem_min net.ipv4.udp_wmem_min net.unix.max_dgram_qlen
net.ipv4.tcp_keepalive_time net.ipv4.tcp_keepalive_intvl net.ipv4.tcp_keepalive_probes net.ipv4.tcp_retries2
net.ipv4.tcp_slow_start_after_idle net.ipv4.tcp_congestion_control net.core.default_qdisc
fs.file-max fs.nr_open limit.nofile limit.select-loop limit.tasks limit.memory kernel.threads-max kernel.pid_max vm.max_map_count
net.ipv4.tcp_fack net.ipv4.tcp_low_latency net.ipv4.route.max_size net.ipv4.xfrm4_gc_thresh net.ipv4.netfilter.ip_conntrack_max
net.ipv4.tcp_adv_win_scale net.ipv6.ip_local_port_range`

func TestCatalogueComplete(t *testing.T) {
	for _, k := range strings.Fields(documented) {
		if _, ok := byKey[Key(k)]; !ok {
			t.Errorf("%s is missing", k)
		}
	}
}

func TestCatalogueEntries(t *testing.T) {
	seen := map[Key]bool{}
	for _, e := range Catalogue() {
		if seen[e.Key] {
			t.Errorf("%s stands twice", e.Key)
		}
		seen[e.Key] = true
		switch {
		case e.Title == "" || strings.HasSuffix(e.Title, "."):
			t.Errorf("%s: title %q", e.Key, e.Title)
		case e.Meaning == "" || !strings.HasSuffix(e.Meaning, "."):
			t.Errorf("%s: meaning %q", e.Key, e.Meaning)
		case len(e.Refs) == 0 || e.Scope == "" || e.Class == "" || e.Shape == "":
			t.Errorf("%s: incomplete", e.Key)
		case e.Class == ClassEvidence && e.Rule == nil && !strings.HasSuffix(string(e.Key), "mem"):
			t.Errorf("%s: evidence is asked for and no rule looks at any", e.Key)
		case e.Class != ClassInfo && e.Advice == "":
			t.Errorf("%s: does not say what is recommended", e.Key)
		case e.Class != ClassInfo && len(e.Decides) == 0:
			t.Errorf("%s: does not say what decides", e.Key)
		case e.Class == ClassNever && !slices.ContainsFunc(lintRules, func(r *LintRule) bool { return r.covers(e.Key) }):
			t.Errorf("%s: never recommended, and nothing finds it", e.Key)
		case e.Shape == ShapeInts && e.Fields < 2:
			t.Errorf("%s: no number of fields", e.Key)
		}
		if got, ok := FindID(e.ID()); !ok || got != e {
			t.Errorf("%s is not found by its id", e.Key)
		}
		text := e.Explain()
		for _, line := range strings.Split(text, "\n") {
			if len([]rune(line)) > 78 && !strings.Contains(line, "://") {
				t.Errorf("%s: line of %d columns: %s", e.Key, len([]rune(line)), line)
			}
		}
		if !strings.Contains(text, e.Title) || !strings.Contains(text, e.Refs[0]) {
			t.Errorf("%s: explanation lacks its title or reference", e.Key)
		}
		// fs., vm. and kernel. belong to the machine: never written.
		for _, p := range []string{"fs.", "vm.", "kernel."} {
			if strings.HasPrefix(string(e.Key), p) && e.Key.CheckWritable() == nil {
				t.Errorf("%s could be written", e.Key)
			}
		}
	}
}

// instance is the entry's key, on eth0 where it is a pattern.
func instance(e *Entry) Key {
	if strings.Contains(string(e.Key), "*") {
		return e.Key.WithInterface("eth0")
	}
	return e.Key
}

// healthy is a host on which everything was read and nothing is wrong.
func healthy() *Facts {
	f := &Facts{
		Kernel: Version{6, 18}, InitialNamespace: Yes, MemoryBytes: 32 << 30, Live: Values{}, Counters: Counters{},
		ListenersRead: true, Listeners: []Listener{{Proto: "tcp", Address: "0.0.0.0", Port: 443, Queued: 3, Limit: 511, Program: "nginx"}},
		CensusRead: true, Destinations: []Destination{{Proto: "tcp", From: "10.0.0.1", To: "10.0.0.2", Port: 3306, InUse: 200, TimeWait: 150}},
		Sockets: &SocketTotals{TCPMemPages: 10, UDPMemPages: 10, Orphans: 1, FinWait2: 2}, Conntrack: &ConntrackState{Hooked: Yes, Count: 1000},
		Files: &FileTable{Open: 1000, Max: math.MaxInt64}, ProcessesRead: true,
		Processes: []Process{{PID: 7, Name: "nginx", OpenFiles: 100, SoftLimit: 1024, HardLimit: 524288}},
		Roles: Roles{
			Router: No, ContainerHost: No, PolicyRouting: No, VRRP: No, DNATToLoopback: No, DNATElsewhere: No, RARoute: No, IPv6Wanted: No,
			PathMTULost: No, SystemdRaisesFD: Yes,
		},
		Boot: &Boot{Loader: BootSystemd},
	}
	set := func(k Key, v string) { f.Live[k] = Value{State: Present, Text: v} }
	for _, e := range Catalogue() {
		for _, n := range e.Decides {
			if strings.Contains(n, ".") && !strings.ContainsAny(n, " /") && !strings.HasPrefix(n, "net.") {
				f.Counters[n] = Counter{Sampled: true, Window: 1}
			}
		}
		if !e.Setting() {
			continue
		}
		k := instance(e)
		if ok, _ := e.Applicable(f.Kernel); !ok {
			f.Live[k] = Value{State: Absent}
			continue
		}
		if e.Default != "" {
			set(k, e.Default)
			if k != e.Key {
				set(k.WithInterface("all"), e.Default)
			}
		} else {
			set(k, "1000")
		}
		if strings.Contains(string(e.Key), "*") {
			if e.Default == "" {
				set(k, "0")
				set(e.Key.WithInterface("all"), "0")
			}
		}
	}
	f.Counters["Udp6.RcvbufErrors"] = Counter{Sampled: true, Window: 1}
	set(keyPortRange, "32768\t60999")
	set(keyReservedPorts, "")
	set(keyTWBuckets, "131072")
	set("net.ipv4.tcp_ehash_entries", "262144")
	set(keyConntrackMax, "262144")
	set(keyConntrackHash, "262144")
	set(keyFileMax, "2466177") // a kernel's own default, not raised by systemd
	set("net.ipv4.tcp_mem", "90000 120000 180000")
	set("net.ipv4.udp_mem", "90000 120000 180000")
	set("net.ipv4.tcp_rmem", "4096 131072 6291456")
	set("net.ipv4.tcp_wmem", "4096 16384 4194304")
	set("net.ipv4.tcp_max_orphans", "131072")
	return f
}

func (f *Facts) set(k Key, v string) { f.Live[k] = Value{State: Present, Text: v} }

func (f *Facts) grow(name string, delta uint64) {
	f.Counters[name] = Counter{Total: 1000 + delta, Delta: delta, Window: 1, Sampled: true}
}

// TestHealthyTwin: on a healthy host nothing is said about anything, and
// nothing is unknown.
func TestHealthyTwin(t *testing.T) {
	for _, p := range append(Profiles(), Profile{}) {
		f := healthy()
		f.Profile = p
		for _, e := range Catalogue() {
			for _, j := range e.Judge(instance(e), f) {
				if j.Verdict != OK || j.Finding != "" {
					t.Errorf("profile %q: %s: %+v", p.Name, e.Key, j)
				}
			}
		}
	}
}

// TestNothingRead: without facts nothing is claimed.
func TestNothingRead(t *testing.T) {
	live := healthy().Live
	for _, f := range []*Facts{{}, {Live: live}, {Live: live, Kernel: Version{3, 10}}} {
		for _, e := range Catalogue() {
			for _, j := range e.Judge(instance(e), f) {
				if j.Verdict != OK && j.Verdict != Unknown {
					t.Errorf("%s: %+v", e.Key, j)
				}
				if j.Verdict == Unknown && len(j.Missing) == 0 {
					t.Errorf("%s: unknown without saying what is missing", e.Key)
				}
			}
		}
	}
}

// TestAbsentKeyIsNoFailure: a key that is not there is not applicable.
func TestAbsentKeyIsNoFailure(t *testing.T) {
	f := healthy()
	for _, e := range Catalogue() {
		if !e.Setting() {
			continue
		}
		k := instance(e)
		f.Live[k] = Value{State: Absent}
		if j := Worst(e.Judge(k, f)); j.Verdict != OK || !strings.Contains(j.Why, "not applicable") {
			t.Errorf("%s: %+v", k, j)
		}
		f.Live[k] = Value{State: Failed, Err: "permission denied"}
		if j := Worst(e.Judge(k, f)); j.Verdict != Unknown {
			t.Errorf("%s: %+v", k, j)
		}
	}
}

// ruleCases produce each condition, one at a time, on the healthy host.
var ruleCases = []struct {
	name      string
	key       Key
	broken    func(f *Facts)
	finding   string
	severity  Severity
	recommend string
}{
	{"queue full, bounded by somaxconn", keySomaxconn, func(f *Facts) {
		f.set(keySomaxconn, "128")
		f.Listeners = []Listener{{Proto: "tcp", Address: "0.0.0.0", Port: 80, Queued: 129, Limit: 128}}
		f.grow("TcpExt.ListenOverflows", 12)
	}, "sysctl.somaxconn-bounds-queue", Critical, "4096"},
	{"queue full, bounded by the program", keySomaxconn, func(f *Facts) {
		f.Listeners = []Listener{{Proto: "tcp", Address: "0.0.0.0", Port: 80, Queued: 500, Limit: 511, Program: "nginx"}}
	}, "sysctl.application-bounds-queue", Warning, ""},
	{"overflows, no queue full now", keySomaxconn, func(f *Facts) { f.grow("TcpExt.ListenOverflows", 1) }, "sysctl.accept-queue-overflow", Warning, ""},
	{"overflows long ago", keySomaxconn, func(f *Facts) { f.grow("TcpExt.ListenOverflows", 0) }, "sysctl.accept-queue-overflow", Info, ""},
	{"SYN queue without cookies", "net.ipv4.tcp_max_syn_backlog", func(f *Facts) {
		f.set(keySyncookies, "0")
		f.grow("TcpExt.TCPReqQFullDrop", 5)
		f.Counters["TcpExt.TCPReqQFullDrop"] = Counter{Total: 5, Delta: 5, Window: 1, Sampled: true}
	}, "sysctl.syn-queue-overflow", Warning, ""},
	{"cookies sent", keySyncookies, func(f *Facts) { f.grow("TcpExt.TCPReqQFullDoCookies", 5) }, "sysctl.syn-queue-cookies", Warning, ""},
	{"cookies off", keySyncookies, func(f *Facts) { f.set(keySyncookies, "0") }, "sysctl.syncookies-off", Warning, ""},
	{"cookies forced", keySyncookies, func(f *Facts) { f.set(keySyncookies, "2") }, "sysctl.syncookies-forced", Info, ""},
	{"abort on overflow", "net.ipv4.tcp_abort_on_overflow", func(f *Facts) { f.set("net.ipv4.tcp_abort_on_overflow", "1") }, "sysctl.abort-on-overflow", Warning, ""},
	{"input queue drops", "net.core.netdev_max_backlog", func(f *Facts) { f.grow("softnet.dropped", 9) }, "sysctl.netdev-backlog-overflow", Warning, "2000"},
	{"budget", "net.core.netdev_budget", func(f *Facts) { f.grow("softnet.dropped", 9); f.grow("softnet.time_squeeze", 9) }, "sysctl.netdev-budget-exhausted", Warning, "600"},
	{"budget time", "net.core.netdev_budget_usecs", func(f *Facts) { f.grow("softnet.dropped", 9); f.grow("softnet.time_squeeze", 9) }, "sysctl.netdev-budget-exhausted", Warning, "4000"},
	{"ring", "device.rx-ring", func(f *Facts) { f.grow("device.rx_missed_errors", 9) }, "device.rx-ring-overflow", Warning, ""},
	{"range half used", keyPortRange, func(f *Facts) { f.Destinations[0].InUse = 20000 }, "sysctl.ephemeral-range-small", Warning, "16384 65535"},
	{"range nearly used", keyPortRange, func(f *Facts) { f.Destinations[0].InUse = 27000 }, "sysctl.ephemeral-range-small", Critical, "16384 65535"},
	{"range used, nothing to widen", keyPortRange, func(f *Facts) { f.set(keyPortRange, "10000 65535"); f.Destinations[0].InUse = 40000 }, "sysctl.ephemeral-range-small", Warning, ""},
	{"range shrunk by reserved ports", keyPortRange, func(f *Facts) {
		f.set(keyReservedPorts, "32769-60999")
		f.Destinations[0].InUse, f.Destinations[0].TimeWait = 1, 0
	}, "sysctl.ephemeral-range-small", Critical, "16384 65535"},
	{"parity", keyPortRange, func(f *Facts) { f.set(keyPortRange, "10240 65000") }, "sysctl.ephemeral-range-parity", Info, ""},
	{"range from 1024", keyPortRange, func(f *Facts) { f.set(keyPortRange, "1024 65535") }, "sysctl.ephemeral-range-overlaps", Warning, ""},
	{"listener in range", keyReservedPorts, func(f *Facts) {
		f.set(keyReservedPorts, "40000-40010")
		f.Listeners = append(f.Listeners, Listener{Proto: "tcp", Port: 50000, Program: "chat"}, Listener{Proto: "tcp", Port: 40005}, Listener{Proto: "udp", Port: 50001})
	}, "sysctl.ephemeral-range-overlaps", Warning, "40000-40010,50000"},
	{"TIME_WAIT fills the range", keyTWReuse, func(f *Facts) { f.Destinations[0].InUse, f.Destinations[0].TimeWait = 27000, 26000 }, "sysctl.time-wait-exhaustion", Critical, "1"},
	{"TIME_WAIT fills the range, as the range says it", keyPortRange, func(f *Facts) { f.Destinations[0].InUse, f.Destinations[0].TimeWait = 27000, 26000 }, "sysctl.time-wait-exhaustion", Critical, "16384 65535"},
	{"TIME_WAIT fills, timestamps off", keyTWReuse, func(f *Facts) {
		f.set(keyTimestamps, "0")
		f.set(keyTWReuse, "0")
		f.Destinations[0].InUse, f.Destinations[0].TimeWait = 27000, 26000
	}, "sysctl.time-wait-exhaustion", Critical, ""},
	{"reuse for a server", keyTWReuse, func(f *Facts) { f.set(keyTWReuse, "1") }, "sysctl.tw-reuse-inbound", Info, ""},
	{"reuse without timestamps", keyTWReuse, func(f *Facts) { f.set(keyTWReuse, "1"); f.set(keyTimestamps, "0") }, "sysctl.tw-reuse-without-timestamps", Warning, ""},
	{"reuse delay", "net.ipv4.tcp_tw_reuse_delay", func(f *Facts) { f.set("net.ipv4.tcp_tw_reuse_delay", "10") }, "sysctl.tw-reuse-delay-short", Warning, ""},
	{"recycle on an old kernel", "net.ipv4.tcp_tw_recycle", func(f *Facts) { f.Kernel = Version{3, 10}; f.set("net.ipv4.tcp_tw_recycle", "1") }, "sysctl.tw-recycle", Critical, ""},
	{"TIME_WAIT overflow", keyTWBuckets, func(f *Facts) { f.grow("TcpExt.TCPTimeWaitOverflow", 9) }, "sysctl.time-wait-overflow", Warning, "262144"},
	{"TIME_WAIT bound lowered", keyTWBuckets, func(f *Facts) { f.set(keyTWBuckets, "20000") }, "sysctl.tw-buckets-lowered", Warning, ""},
	{"TIME_WAIT bound lowered, hash not shown", keyTWBuckets, func(f *Facts) {
		f.set(keyTWBuckets, "20000")
		f.Live["net.ipv4.tcp_ehash_entries"] = Value{State: Absent}
	}, "sysctl.tw-buckets-lowered", Info, ""},
	{"fin timeout", "net.ipv4.tcp_fin_timeout", func(f *Facts) { f.set("net.ipv4.tcp_fin_timeout", "15") }, "sysctl.fin-timeout-misused", Info, ""},
	{"FIN_WAIT_2 pile", "net.ipv4.tcp_fin_timeout", func(f *Facts) { f.Sockets.FinWait2 = 60000 }, "sysctl.fin-wait-pile-up", Warning, ""},
	{"timestamps", keyTimestamps, func(f *Facts) { f.set(keyTimestamps, "0") }, "sysctl.tcp-feature-disabled", Warning, ""},
	{"sack", "net.ipv4.tcp_sack", func(f *Facts) { f.set("net.ipv4.tcp_sack", "0") }, "sysctl.tcp-feature-disabled", Warning, ""},
	{"scaling", "net.ipv4.tcp_window_scaling", func(f *Facts) { f.set("net.ipv4.tcp_window_scaling", "0") }, "sysctl.tcp-feature-disabled", Warning, ""},
	{"autobind", "net.ipv4.ip_autobind_reuse", func(f *Facts) { f.set("net.ipv4.ip_autobind_reuse", "1") }, "sysctl.autobind-reuse", Info, ""},
	{"nonlocal", "net.ipv4.ip_nonlocal_bind", func(f *Facts) { f.set("net.ipv4.ip_nonlocal_bind", "1") }, "sysctl.nonlocal-bind", Info, ""},
	{"orphans", "net.ipv4.tcp_max_orphans", func(f *Facts) { f.Sockets.Orphans = 50000 }, "sysctl.orphans-near-limit", Warning, "262144"},
	{"conntrack 90 %", keyConntrackMax, func(f *Facts) { f.Conntrack.Count = 236000 }, "sysctl.conntrack-near-limit", Warning, "524288"},
	{"conntrack 97 %", keyConntrackMax, func(f *Facts) { f.Conntrack.Count = 255000 }, "sysctl.conntrack-near-limit", Critical, "524288"},
	{"conntrack drops", keyConntrackMax, func(f *Facts) { f.grow("conntrack.drop", 3) }, "sysctl.conntrack-near-limit", Warning, "524288"},
	{"conntrack race", keyConntrackMax, func(f *Facts) { f.grow("conntrack.insert_failed", 3) }, "sysctl.conntrack-near-limit", Info, ""},
	{"conntrack buckets", keyConntrackHash, func(f *Facts) { f.set(keyConntrackMax, "2621440") }, "sysctl.conntrack-buckets-missing", Warning, "2621440"},
	{"late module", "boot.conntrack-module", func(f *Facts) {
		f.Boot.Late = []LateLine{{Key: keyConntrackMax, Value: "1", Module: "nf_conntrack", Place: Place{"/etc/sysctl.d/x.conf", 3}}}
	}, "sysctl.not-applied-at-boot", Warning, ""},
	{"invalid packets", "net.netfilter.nf_conntrack_tcp_be_liberal", func(f *Facts) { f.grow("conntrack.invalid", 30) }, "sysctl.conntrack-invalid", Info, ""},
	{"rp_filter drops", "net.ipv4.conf.eth0.rp_filter", func(f *Facts) {
		f.set("net.ipv4.conf.all.rp_filter", "1")
		f.grow("TcpExt.IPReversePathFilter", 4)
	}, "sysctl.rp-filter-drops", Warning, "2"},
	{"rp_filter and policy routing", "net.ipv4.conf.eth0.rp_filter", func(f *Facts) {
		f.set("net.ipv4.conf.eth0.rp_filter", "1")
		f.Roles.PolicyRouting = Yes
		f.grow("TcpExt.IPReversePathFilter", 0)
	}, "sysctl.rp-filter-strict", Warning, "2"},
	{"route_localnet on", "net.ipv4.conf.eth0.route_localnet", func(f *Facts) { f.set("net.ipv4.conf.eth0.route_localnet", "1") }, "sysctl.route-localnet-exposes", Warning, ""},
	{"route_localnet off", "net.ipv4.conf.eth0.route_localnet", func(f *Facts) { f.Roles.DNATToLoopback = Yes }, "sysctl.route-localnet-needed", Warning, ""},
	{"forwarding", "net.ipv4.ip_forward", func(f *Facts) { f.Roles.DNATElsewhere = Yes }, "sysctl.forwarding-needed", Warning, ""},
	{"RA", "net.ipv6.conf.eth0.accept_ra", func(f *Facts) { f.set("net.ipv6.conf.eth0.forwarding", "1"); f.Roles.RARoute = Yes }, "sysctl.router-ignores-ra", Warning, "2"},
	{"no IPv6", "net.ipv6.conf.eth0.disable_ipv6", func(f *Facts) { f.set("net.ipv6.conf.eth0.disable_ipv6", "1"); f.Roles.IPv6Wanted = Yes }, "sysctl.ipv6-disabled", Warning, ""},
	{"neighbours", "net.ipv4.neigh.default.gc_thresh3", func(f *Facts) { f.grow("arp_cache.table_fulls", 1) }, "sysctl.neighbour-table-full", Critical, "2048"},
	{"neighbours v6", "net.ipv6.neigh.default.gc_thresh3", func(f *Facts) { f.grow("ndisc_cache.table_fulls", 1) }, "sysctl.neighbour-table-full", Critical, "2048"},
	{"MTU", "net.ipv4.tcp_mtu_probing", func(f *Facts) { f.Roles.PathMTULost = Yes }, "sysctl.mtu-probing-off", Warning, "1"},
	{"TCP memory", "net.ipv4.tcp_mem", func(f *Facts) { f.Sockets.TCPMemPages = 130000 }, "sysctl.socket-memory-pressure", Warning, ""},
	{"UDP memory", "net.ipv4.udp_mem", func(f *Facts) { f.Sockets.UDPMemPages = 130000 }, "sysctl.socket-memory-pressure", Warning, ""},
	{"memory in bytes", "net.ipv4.tcp_mem", func(f *Facts) { f.set("net.ipv4.tcp_mem", "8388608 12582912 1677721600") }, "sysctl.memory-oversized", Warning, ""},
	{"default buffer", "net.core.rmem_default", func(f *Facts) { f.set("net.core.rmem_default", "16777216") }, "sysctl.memory-oversized", Warning, ""},
	{"UDP buffer, bounded by the setting", "net.core.rmem_max", func(f *Facts) { udpDrops(f, 2*212992) }, "sysctl.udp-receive-buffer", Warning, "1048576"},
	{"UDP buffer, bounded by the program", "net.core.rmem_max", func(f *Facts) { udpDrops(f, 100000) }, "sysctl.udp-receive-buffer", Warning, ""},
	{"UDP buffer, default", "net.core.rmem_max", func(f *Facts) { udpDrops(f, 212992) }, "sysctl.udp-receive-buffer", Warning, ""},
	{"UDP buffer, forced", "net.core.rmem_max", func(f *Facts) { udpDrops(f, 64<<20) }, "sysctl.udp-receive-buffer", Warning, ""},
	{"UDP buffer of a socket that is connected", "net.core.rmem_max", func(f *Facts) { f.grow("Udp.RcvbufErrors", 4) }, "sysctl.udp-receive-buffer", Warning, ""},
	{"overflows at a listener, bounded by somaxconn", keySomaxconn, func(f *Facts) {
		f.set(keySomaxconn, "128")
		f.grow("TcpExt.ListenOverflows", 12)
		f.Listeners = []Listener{{Proto: "tcp", Address: "0.0.0.0", Port: 80, Queued: 1, Limit: 128, Drops: &Counter{Total: 12, Delta: 12, Window: 1, Sampled: true}}}
	}, "sysctl.accept-queue-overflow", Warning, "4096"},
	{"overflows at a listener, bounded by the program", keySomaxconn, func(f *Facts) {
		f.grow("TcpExt.ListenOverflows", 12)
		f.Listeners = []Listener{{Proto: "tcp", Address: "0.0.0.0", Port: 80, Queued: 1, Limit: 128, Drops: &Counter{Total: 12, Delta: 12, Window: 1, Sampled: true}}}
	}, "sysctl.accept-queue-overflow", Warning, ""},
	{"UDP pressure", "net.ipv4.udp_rmem_min", func(f *Facts) { f.Sockets.UDPMemPages = 130000; f.grow("Udp.RcvbufErrors", 4) }, "sysctl.udp-memory-pressure", Warning, "16384"},
	{"keepalive", "net.ipv4.tcp_keepalive_time", func(f *Facts) { f.set("net.ipv4.tcp_keepalive_time", "30") }, "sysctl.keepalive-misused", Info, ""},
	{"files", keyFileMax, func(f *Facts) { f.Files = &FileTable{Open: 95, Max: 100} }, "sysctl.file-table-near-limit", Critical, ""},
	{"files lowered", keyFileMax, func(f *Facts) { f.set(keyFileMax, "65535") }, "sysctl.file-max-lowered", Warning, ""},
	{"nr_open", keyNrOpen, func(f *Facts) { f.Processes[0].UnitLimit = 2000000 }, "sysctl.nr-open-below-limit", Warning, ""},
	{"descriptors", "limit.nofile", func(f *Facts) { f.Processes[0].OpenFiles = 900 }, "limits.nofile-near-limit", Warning, ""},
	{"descriptors used up", "limit.nofile", func(f *Facts) { f.Processes[0].OpenFiles = 1024 }, "limits.nofile-near-limit", Critical, ""},
	{"select", "limit.select-loop", func(f *Facts) { f.Processes[0].SelectLoop, f.Processes[0].OpenFiles = Yes, 850 }, "limits.select-loop-full", Warning, ""},
	{"tasks", "limit.tasks", func(f *Facts) { f.grow("pids.max:/system.slice", 2); f.grow("pids.max:/system.slice/chat.service", 2) }, "limits.tasks-exhausted", Warning, ""},
	{"tasks once", "limit.tasks", func(f *Facts) { f.grow("pids.max:/system.slice/chat.service", 0) }, "limits.tasks-exhausted", Info, ""},
	{"killed for memory", "limit.memory", func(f *Facts) { f.grow("memory.oom_kill:/system.slice/chat.service", 1) }, "limits.killed-for-memory", Warning, ""},
	{"syn backlog raised", "net.ipv4.tcp_max_syn_backlog", func(f *Facts) { f.set("net.ipv4.tcp_max_syn_backlog", "262144") }, "sysctl.syn-backlog-ineffective", Info, ""},
}

// udpDrops is a UDP socket with a full receive buffer.
func udpDrops(f *Facts, buffer int) {
	f.grow("Udp.RcvbufErrors", 4)
	f.set("net.core.rmem_max", "212992")
	f.Listeners = append(f.Listeners, Listener{Proto: "udp", Address: "0.0.0.0", Port: 514, Queued: buffer, Limit: buffer, Drops: &Counter{Total: 4, Delta: 4, Window: 1, Sampled: true}})
}

func TestRules(t *testing.T) {
	spoken := map[Key]bool{}
	for _, c := range ruleCases {
		t.Run(c.name, func(t *testing.T) {
			f := healthy()
			c.broken(f)
			e, ok := Find(c.key)
			if !ok {
				t.Fatalf("%s is not in the catalogue", c.key)
			}
			spoken[e.Key] = true
			js := e.Judge(c.key, f)
			i := slices.IndexFunc(js, func(j Judgement) bool { return j.Finding == c.finding })
			if i < 0 {
				t.Fatalf("no %s in %+v", c.finding, js)
			}
			j := js[i]
			if j.Severity != c.severity || j.Recommend != c.recommend {
				t.Errorf("severity %s, recommends %q, want %s, %q: %+v", j.Severity, j.Recommend, c.severity, c.recommend, j)
			}
			if j.Verdict == OK || j.Verdict == Unknown || j.Why == "" || j.Remedy == "" {
				t.Errorf("incomplete: %+v", j)
			}
			if j.Recommend != "" {
				live, _ := f.Live.Get(c.key)
				if e.LargerIsFine {
					merged, changed, err := e.Shape.Raise(live, j.Recommend)
					if err != nil || !changed || !e.Shape.Equal(merged, j.Recommend) {
						t.Errorf("recommends %q over %q, which lowers or does nothing (%v)", j.Recommend, live, err)
					}
				}
				if err := CheckValue(c.key, live, j.Recommend); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, e := range Catalogue() {
		if e.Rule != nil && !spoken[e.Key] && e.Class != ClassInfo && e.Scope != ScopeInitial && !strings.Contains(string(e.Key), "timeout") {
			t.Errorf("no case makes %s speak", e.Key)
		}
	}
}

func TestKernelVersions(t *testing.T) {
	for release, want := range map[string]Version{"6.1.0-37-amd64": {6, 1}, "3.10.0-1160.el7.x86_64": {3, 10}, "6.18.44-fc-v657": {6, 18}, "5.15": {5, 15}} {
		if got, err := ParseVersion(release); err != nil || got != want {
			t.Errorf("%s: %v %v", release, got, err)
		}
	}
	for _, bad := range []string{"", "linux", "6", "x.y"} {
		if v, err := ParseVersion(bad); err == nil {
			t.Errorf("%q gives %v", bad, v)
		}
	}
	e, _ := Find("net.ipv4.tcp_tw_recycle")
	if ok, _ := e.Applicable(Version{4, 11}); !ok {
		t.Error("tcp_tw_recycle was there in 4.11")
	}
	if ok, why := e.Applicable(Version{4, 12}); ok || !strings.Contains(why, "4.12") {
		t.Error("tcp_tw_recycle is gone in 4.12")
	}
}

func TestProfilesShiftThresholdsOnly(t *testing.T) {
	f := healthy()
	f.Destinations[0].InUse = 12500 // 44 % of the range
	e, _ := Find(keyPortRange)
	if j := Worst(e.Judge(keyPortRange, f)); j.Verdict != OK {
		t.Errorf("general profile: %+v", j)
	}
	f.Profile, _ = ProfileByName("proxy")
	if j := Worst(e.Judge(keyPortRange, f)); j.Finding != "sysctl.ephemeral-range-small" {
		t.Errorf("proxy profile: %+v", j)
	}
	if _, ok := ProfileByName("nonsense"); ok {
		t.Error("unknown profile found")
	}
	for _, p := range Profiles() {
		for _, a := range p.Asked {
			if _, ok := Find(a.Key); !ok || a.Why == "" {
				t.Errorf("%s asks for %s, which is not in the catalogue", p.Name, a.Key)
			}
		}
	}
}
