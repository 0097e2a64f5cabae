package sysctl

// goneEntries are keys without effect: removed, renamed, or never there. Found
// in a file they are clutter.
func goneEntries() []*Entry {
	gone := func(k Key, title, meaning string, removed Version) *Entry {
		return &Entry{
			Key: k, Title: title, Meaning: meaning, Shape: ShapeInt, Max: number(1), Removed: removed, Scope: ScopeNamespace, Class: ClassInfo, ReadOnly: true,
			Refs: []string{refIPSysctl},
		}
	}
	recycle := gone("net.ipv4.tcp_tw_recycle", "TIME_WAIT taken over without a care",
		"Dropped connections of clients behind a common address translation, because their timestamps do not belong together. Broken by random "+
			"timestamp offsets in 4.10, removed in 4.12. Every file that still has it was written for another age.", Version{4, 12})
	recycle.Class, recycle.Decides = ClassNever, []string{"the value"}
	recycle.Advice = "no line at all"
	recycle.Refs = append(recycle.Refs, "https://github.com/cloudfoundry/cf-release/issues/758", refWorkerman)
	return []*Entry{
		recycle,
		gone("net.ipv4.tcp_fack", "forward acknowledgement", "Still accepted, without any effect since Linux 4.15.", Version{}),
		gone("net.ipv4.tcp_low_latency", "latency before throughput", "Still accepted, without any effect since Linux 4.14.", Version{}),
		gone("net.ipv4.route.max_size", "size of the IPv4 route cache", "There is no such cache since Linux 3.6.", Version{}),
		gone("net.ipv4.xfrm4_gc_thresh", "threshold of the IPsec route cache", "There is no such cache since Linux 4.14.", Version{}),
		gone("net.ipv4.tcp_adv_win_scale", "share of a buffer that is announced", "Obsolete since Linux 6.6.", Version{}),
		gone("net.ipv4.ip_conntrack_max", "an old name of nf_conntrack_max", "Names of the connection tracking of Linux 2.6.", Version{2, 7}),
		gone("net.ipv4.netfilter.ip_conntrack_max", "an old name of nf_conntrack_max", "Removed with the compatibility code.", Version{4, 9}),
		gone("net.ipv4.netfilter.ip_conntrack_tcp_timeout_established", "an old name of a timeout", "Removed with the compatibility code.", Version{4, 9}),
		gone("net.ipv6.ip_local_port_range", "a key that never existed", "The ephemeral range of IPv6 is net.ipv4.ip_local_port_range.", Version{2, 7}),
	}
}
