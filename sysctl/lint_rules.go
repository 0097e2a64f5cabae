package sysctl

import (
	"math"
	"slices"
	"strings"
)

// LintRules returns the rules, in the order of the reference table.
func LintRules() []*LintRule { return lintRules }

var lintRules = []*LintRule{
	{
		ID: "sysctl.tw-recycle", Title: "tcp_tw_recycle is gone from the kernel, and did harm while it was there", Severity: Info, Keys: []Key{"net.ipv4.tcp_tw_recycle"},
		Why:     "removed in Linux 4.12 (a file that names it makes `sysctl -p` exit with 1); before that, it dropped connections of clients behind a common address translation",
		Instead: "delete the line; against port exhaustion keep connections open and reuse them",
		Refs:    []string{"https://github.com/cloudfoundry/cf-release/issues/758", refIPSysctl},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			on := firstInt(v) != 0
			if on && (c.f.Kernel != Version{}) && !c.f.Kernel.AtLeast(Version{4, 12}) {
				return true, Critical
			}
			return true, Info
		},
	},
	{
		ID: "sysctl.tw-reuse-inbound", Title: "tcp_tw_reuse = 1 for a server", Severity: Info, Keys: []Key{keyTWReuse},
		Why:     "it concerns outgoing connections only; for the TIME_WAIT that a server collects from its clients it does nothing, and that TIME_WAIT takes no ports",
		Instead: "leave the default (2, loopback only) unless outgoing connections to one destination run out of ports",
		Refs:    []string{refIPSysctl},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			return firstInt(v) == 1 && !c.f.outgoingTimeWait(0.50), Info
		},
	},
	{
		ID: "sysctl.tw-reuse-without-timestamps", Title: "tcp_tw_reuse without timestamps", Severity: Warning, Keys: []Key{keyTWReuse},
		Why:     "ports in TIME_WAIT are taken over only when both sides use timestamps, and they are off",
		Instead: "turn net.ipv4.tcp_timestamps on",
		Refs:    []string{refIPSysctl},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			ts, ok := c.number(keyTimestamps)
			return firstInt(v) != 0 && ok && ts == 0, Warning
		},
	},
	{
		ID: "sysctl.fin-timeout-misused", Title: "tcp_fin_timeout lowered", Severity: Info, Keys: []Key{"net.ipv4.tcp_fin_timeout"},
		Why:     "it is not the length of TIME_WAIT, which is 60 seconds compiled in: it concerns orphaned sockets in FIN_WAIT_2 only",
		Instead: "delete the line; no key shortens TIME_WAIT",
		Refs:    []string{refIPSysctl, "https://github.com/fastos/fastsocket/issues/51"},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			n := firstInt(v)
			return n > 0 && n < 60, Info
		},
	},
	{
		ID: "sysctl.tw-buckets-lowered", Title: "tcp_max_tw_buckets below the kernel's default", Severity: Warning, Keys: []Key{keyTWBuckets},
		Why:     "sockets in TIME_WAIT beyond the bound are destroyed, so that old segments can get into new connections; it saves about 256 bytes each and frees no port that matters",
		Instead: "delete the line: the kernel's default grows with memory",
		Refs:    []string{refIPSysctl},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			floor, ok := TWBucketsFloor(c.f)
			if !ok || firstInt(v) >= floor {
				return false, Warning
			}
			if _, exact := c.f.Live.Int("net.ipv4.tcp_ehash_entries"); !exact {
				return true, Info // the default was reckoned from the memory of today
			}
			return true, Warning
		},
	},
	{
		ID: "sysctl.syn-backlog-ineffective", Title: "tcp_max_syn_backlog raised with SYN cookies on", Severity: Info, Keys: []Key{"net.ipv4.tcp_max_syn_backlog"},
		Why:     "the kernel reads it only while tcp_syncookies is 0; with cookies on, the accept queue's bound counts",
		Instead: "delete the line; if an accept queue overflows, raise the program's backlog and net.core.somaxconn",
		Refs:    []string{refIPSysctl},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			cookies, ok := c.number(keySyncookies)
			// The kernel's own default cannot exceed 524288 / 128 (tcp_sk_init).
			return ok && cookies != 0 && firstInt(v) > 4096, Info
		},
	},
	{
		ID: "sysctl.file-max-lowered", Title: "fs.file-max lowered", Severity: Warning, Keys: []Key{keyFileMax},
		Why:     "systemd 240 and newer set fs.file-max to 9223372036854775807: any number in a file lowers it",
		Instead: "delete the line; the limit that counts is the process's, LimitNOFILE= in the unit",
		Refs:    []string{"https://github.com/NixOS/nixpkgs/issues/67970", refFsSysctl},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			n, err := parseInts(v, 1)
			if err != nil || n[0] == math.MaxInt64 {
				return false, Warning
			}
			raises := c.f.roles().SystemdRaisesFD
			switch {
			case raises == No, c.live:
				// The kernel's default is one file for 10 KiB of memory
				// (files_maxfiles_init); a live number above half of that can be it.
				return c.f.MemoryBytes > 0 && uint64(max(n[0], 0)) < c.f.MemoryBytes/(20<<10), Warning
			case raises == Yes:
				return true, Warning
			}
			return true, Info
		},
	},
	{
		ID: "sysctl.conntrack-buckets-missing", Title: "nf_conntrack_max without nf_conntrack_buckets", Severity: Warning,
		Keys:    []Key{keyConntrackMax, "net.nf_conntrack_max"},
		Why:     "the hash keeps its size, its chains grow to ten or twenty connections, and every packet walks them",
		Instead: "set net.netfilter.nf_conntrack_buckets with it (or `options nf_conntrack hashsize=` in modprobe.d), one for each to four connections",
		Refs:    []string{refConntrack},
		files:   true,
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			if c.sets(keyConntrackHash) || c.f.Boot != nil && c.f.Boot.HashSize != nil {
				return false, Warning
			}
			buckets, ok := c.f.Live.Int(keyConntrackHash)
			if !ok {
				return firstInt(v) > 4*262144, Info // more than four for the largest default
			}
			return firstInt(v) > 4*buckets, Warning
		},
	},
	{
		ID: "sysctl.ephemeral-range-overlaps", Title: "the ephemeral range covers ports of services", Severity: Warning, Keys: []Key{keyPortRange},
		Why:     "a client can be given the port of a service while that is down, and the start fails with \"Address already in use\"",
		Instead: "begin the range above the services (16384 65535), and name the ports inside it in net.ipv4.ip_local_reserved_ports",
		Refs:    []string{"https://github.com/twitter/twemproxy/issues/561", "https://github.com/stellar/stellar-core/issues/676"},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			r, err := ParseRange(v)
			if err != nil {
				return false, Warning
			}
			if r.Low <= 1024 && r.High >= 65000 {
				return true, Warning
			}
			if live, ok := c.f.Live.Get(keyPortRange); c.live || ok && ShapeInts.Equal(live, v) {
				return false, Warning // the entry of ip_local_reserved_ports names each port
			}
			text, _ := c.inForce(keyReservedPorts)
			reserved, _ := ParsePorts(strings.TrimSpace(text))
			return slices.ContainsFunc(c.f.Listeners, func(l Listener) bool {
				return (l.Proto == "tcp" || l.Configured) && r.Contains(l.Port) &&
					!slices.ContainsFunc(reserved, func(x PortRange) bool { return x.Contains(l.Port) })
			}), Warning
		},
	},
	{
		ID: "sysctl.ephemeral-range-parity", Title: "both ends of the ephemeral range are odd, or both even", Severity: Info, Keys: []Key{keyPortRange},
		Why:     "connect() takes one half of the range and bind(0) the other; with equal parity the halves differ in size, and the kernel logs \"prefer different parity for start/end values\"",
		Instead: "make one end even and the other odd",
		Refs:    []string{refIPSysctl},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			r, err := ParseRange(v)
			return err == nil && r.Low%2 == r.High%2, Info
		},
	},
	{
		ID: "sysctl.abort-on-overflow", Title: "tcp_abort_on_overflow on", Severity: Warning, Keys: []Key{"net.ipv4.tcp_abort_on_overflow"},
		Why:     "a client whose connection would have been accepted a moment later gets a reset; it does not help against a full queue",
		Instead: "set it to 0 and look at why the program accepts slowly",
		Refs:    []string{refIPSysctl},
		hit:     func(c *lintContext, k Key, v string) (bool, Severity) { return firstInt(v) != 0, Warning },
	},
	{
		ID: "sysctl.memory-oversized", Title: "megabytes for every socket", Severity: Warning,
		Keys:    []Key{"net.core.rmem_default", "net.core.wmem_default", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.tcp_mem", "net.ipv4.udp_mem"},
		Why:     "the default buffer is given to every socket at once, so thousands of connections take gigabytes; tcp_mem and udp_mem are counted in pages, not bytes",
		Instead: "leave defaults alone; TCP enlarges buffers by itself up to the third number of tcp_rmem and tcp_wmem",
		Refs:    []string{refIPSysctl, refNetSysctl},
		hit:     hitOversized,
	},
	{
		ID: "sysctl.tcp-feature-disabled", Title: "timestamps, SACK or window scaling off", Severity: Warning,
		Keys:    []Key{keyTimestamps, "net.ipv4.tcp_sack", "net.ipv4.tcp_window_scaling"},
		Why:     "without timestamps there is no protection against wrapped sequence numbers and no reuse of TIME_WAIT; without SACK every loss costs a window; without scaling no connection has more than 64 KiB on the way",
		Instead: "leave all three on; timestamps do not tell the uptime since Linux 4.10",
		Refs:    []string{refIPSysctl},
		hit:     func(c *lintContext, k Key, v string) (bool, Severity) { return isZero(v), Warning },
	},
	{
		ID: "sysctl.syncookies-off", Title: "tcp_syncookies off", Severity: Warning, Keys: []Key{keySyncookies},
		Why:     "a flood of SYNs fills the queue of half-open connections and nobody can connect",
		Instead: "set it to 1: cookies are sent only when the queue is full",
		Refs:    []string{refIPSysctl},
		hit:     func(c *lintContext, k Key, v string) (bool, Severity) { return isZero(v), Warning },
	},
	{
		ID: "sysctl.syncookies-forced", Title: "tcp_syncookies = 2", Severity: Info, Keys: []Key{keySyncookies},
		Why:     "2 answers every SYN with a cookie, which loses TCP options, and is for tests of the network stack",
		Instead: "set it to 1",
		Refs:    []string{refIPSysctl},
		hit:     func(c *lintContext, k Key, v string) (bool, Severity) { return firstInt(v) == 2, Info },
	},
	{
		ID: "sysctl.keepalive-misused", Title: "keepalive shortened to close connections faster", Severity: Info, Keys: []Key{"net.ipv4.tcp_keepalive_time"},
		Why:     "it counts only for sockets whose program turned keepalive on without values of its own, and closes nothing that lives",
		Instead: "use timeouts and heartbeats of the application; load balancers have idle limits of their own",
		Refs:    []string{refIPSysctl},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			n := firstInt(v)
			return n > 0 && n <= 60, Info
		},
	},
	{
		ID: "sysctl.tw-reuse-delay-short", Title: "tcp_tw_reuse_delay below a tenth of a second", Severity: Warning, Keys: []Key{"net.ipv4.tcp_tw_reuse_delay"},
		Why:     "below the tick of the peer's timestamp clock old segments can no longer be told from new ones",
		Instead: "leave the default of 1000 ms",
		Refs:    []string{refIPSysctl},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			n, err := parseInts(v, 1)
			return err == nil && n[0] < 100, Warning
		},
	},
	{
		ID: "sysctl.autobind-reuse", Title: "ip_autobind_reuse on", Severity: Info, Keys: []Key{"net.ipv4.ip_autobind_reuse"},
		Why:     "bind(0) hands out ports that are in use; the kernel's own text says experts only",
		Instead: "let programs that bind before they connect use IP_BIND_ADDRESS_NO_PORT",
		Refs:    []string{refIPSysctl},
		hit:     func(c *lintContext, k Key, v string) (bool, Severity) { return firstInt(v) != 0, Info },
	},
	{
		ID: "sysctl.unknown-key", Title: "a key that never existed", Severity: Info, Keys: []Key{"net.ipv6.ip_local_port_range"},
		Why:     "there is no such key: the ephemeral range of IPv6 is net.ipv4.ip_local_port_range",
		Instead: "delete the line",
		Refs:    []string{"https://github.com/aws/aws-graviton-getting-started/issues/488"},
		hit:     func(c *lintContext, k Key, v string) (bool, Severity) { return true, Info },
	},
	{
		ID: "sysctl.no-effect", Title: "a key without any effect", Severity: Info, files: true,
		Keys: []Key{
			"net.ipv4.tcp_fack", "net.ipv4.tcp_low_latency", "net.ipv4.route.max_size", "net.ipv4.xfrm4_gc_thresh", "net.ipv4.udp_wmem_min",
			"net.ipv4.tcp_adv_win_scale",
			"net.ipv4.ip_conntrack_max", "net.ipv4.netfilter.ip_conntrack_max", "net.ipv4.netfilter.ip_conntrack_tcp_timeout_established",
			"net.ipv4.netfilter.ip_conntrack_tcp_timeout_time_wait", "net.ipv4.netfilter.ip_conntrack_tcp_timeout_close_wait",
			"net.ipv4.netfilter.ip_conntrack_tcp_timeout_fin_wait", "net.ipv4.netfilter.ip_conntrack_tcp_timeout_syn_recv",
			"net.ipv4.netfilter.ip_conntrack_buckets", "net.ipv4.netfilter.ip_conntrack_udp_timeout", "net.ipv4.netfilter.ip_conntrack_generic_timeout",
		},
		Why:     "the kernel accepts or skips it and does nothing with it",
		Instead: "delete the line",
		Refs:    []string{refIPSysctl},
		hit: func(c *lintContext, k Key, v string) (bool, Severity) {
			since, dated := noEffectSince[k]
			if strings.HasPrefix(string(k), "net.ipv4.netfilter.ip_conntrack_") { // the compatibility code went
				since, dated = Version{4, 9}, true
			}
			return !dated || c.f.Kernel == Version{} || c.f.Kernel.AtLeast(since), Info
		},
	},
}

// noEffectSince is the first kernel in which a key that once did something does
// nothing; the others never did since Linux 3.6.
var noEffectSince = map[Key]Version{
	"net.ipv4.tcp_fack":          {4, 15},
	"net.ipv4.tcp_low_latency":   {4, 14},
	"net.ipv4.xfrm4_gc_thresh":   {4, 14},
	"net.ipv4.tcp_adv_win_scale": {6, 6},
}

func hitOversized(c *lintContext, k Key, v string) (bool, Severity) {
	const large = 4 << 20
	n, err := parseInts(v, 3)
	if err != nil {
		return false, Warning
	}
	switch k {
	case "net.core.rmem_default", "net.core.wmem_default":
		return n[0] >= large, Warning
	case "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem":
		return len(n) > 1 && n[1] >= large, Warning
	}
	// Pages: more than all memory is a number of bytes by mistake, or reckless.
	return len(n) == 3 && c.f.MemoryBytes > 0 && uint64(max(n[2], 0)) > c.f.MemoryBytes/pageSize, Warning
}

// firstInt is the first number of a value, -1 when there is none.
func firstInt(v string) int64 {
	n, err := parseInts(v, 1)
	if err != nil {
		return -1
	}
	return n[0]
}

func isZero(v string) bool {
	n, err := parseInts(v, 1)
	return err == nil && n[0] == 0
}

// outgoingTimeWait says whether TIME_WAIT of outgoing connections fills that
// share of the range to any destination.
func (f *Facts) outgoingTimeWait(share float64) bool {
	_, usable, ok := f.ephemeral()
	return ok && slices.ContainsFunc(f.Destinations, func(d Destination) bool {
		return ratio(int64(d.TimeWait), int64(d.usable(usable))) >= share
	})
}
