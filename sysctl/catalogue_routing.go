package sysctl

import "fmt"

// routingEntries decide whether a packet that arrives is heard and whether its
// answer leaves by a way the client's network accepts.
func routingEntries() []*Entry {
	v4 := func(name, title, meaning string, u Unit, def string) *Entry {
		return &Entry{
			Key: Key("net.ipv4.conf.*." + name), Title: title, Meaning: meaning, Unit: u, Shape: ShapeInt, Default: def,
			Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		}
	}
	v6 := func(name, title, meaning string, u Unit, def string) *Entry {
		e := v4(name, title, meaning, u, def)
		e.Key = Key("net.ipv6.conf.*." + name)
		return e
	}
	rule := func(e *Entry, c Class, advice string, decides []string, r func(Key, *Facts) []Judgement, refs ...string) *Entry {
		e.Class, e.Advice, e.Decides, e.Rule = c, advice, decides, r
		e.Refs = append(e.Refs, refs...)
		return e
	}
	neigh := func(family, name, def, counter string) *Entry {
		e := &Entry{
			Key:   Key("net." + family + ".neigh.default." + name),
			Title: "size of the neighbour table",
			Meaning: "Addresses of the local network that the host remembers: below gc_thresh1 none is thrown out, above gc_thresh2 they are after " +
				"five seconds, beyond gc_thresh3 new neighbours cannot be learned and their packets are lost.",
			Unit: UnitEntries, Shape: ShapeInt, Default: def, Scope: ScopeInitial, Class: ClassEvidence, LargerIsFine: true,
			Advice:  "when the table was full: twice the value in force, the three together",
			Decides: []string{counter}, Refs: []string{refIPSysctl},
		}
		e.Rule = func(k Key, f *Facts) []Judgement {
			return f.seen(counter).judge(Judgement{
				Verdict: Advice, Finding: "sysctl.neighbour-table-full", Severity: Critical,
				Why:       "the neighbour table was full: hosts of the local network could not be reached",
				Recommend: double(f, k, 0, 1<<20),
				Remedy:    "raise gc_thresh3, and gc_thresh1 and gc_thresh2 with it",
			})
		}
		return e
	}
	return []*Entry{
		rule(v4("rp_filter", "reverse-path filter",
			"1 drops a packet when the way back to its source does not leave by the interface it came in; 2 only when there is no way back at all. "+
				"The larger of conf.all and the interface counts. On hosts with several ways out (two cards, VPN, macvlan, policy routing) 1 drops "+
				"healthy traffic without a trace except a counter.", UnitNone, "0"),
			ClassEvidence, "2 on an interface that filters strictly while the host routes by policy or drops are counted; never 0 by itself", []string{"TcpExt.IPReversePathFilter", "policy routing", "conf.all.rp_filter"}, judgeRPFilter,
			"https://github.com/systemd/systemd/issues/32563"),
		v4("log_martians", "log packets with impossible addresses",
			"1 logs packets that rp_filter drops: the proof when a counter is not enough.", UnitBool, "0"),
		rule(v4("route_localnet", "127.0.0.0/8 may be routed",
			"0 drops packets to 127.0.0.0/8 that come from outside, so a rule that redirects to 127.0.0.1 works for nobody outside. 1 lets them in, "+
				"and with them, from the local network, everything that listens on loopback only (CVE-2020-8558).", UnitBool, "0"),
			ClassWrong, "0; where a rule redirects to 127.0.0.0/8, another target for the rule rather than 1 here", []string{"rules that rewrite a destination to 127.0.0.0/8"}, judgeRouteLocalnet,
			"https://nvd.nist.gov/vuln/detail/CVE-2020-8558"),
		v4("accept_local", "own addresses as source are accepted", "For two interfaces of one host that talk over the wire.", UnitBool, "0"),
		v4("src_valid_mark", "the mark counts for rp_filter", "1 takes the firewall mark into account when the way back is looked up.", UnitBool, "0"),
		v4("arp_ignore", "which ARP requests are answered", "With several cards in one subnet, or behind a load balancer with direct return, decides who answers for an address.", UnitNone, "0"),
		v4("arp_filter", "answer ARP only on the interface of the route", "1 answers only where the kernel would send to the asker.", UnitBool, "0"),
		v4("arp_announce", "source address of ARP requests", "Which of its addresses the host tells when it asks.", UnitNone, "0"),
		v4("accept_redirects", "ICMP redirects are believed", "Another router may change the host's routes.", UnitBool, ""),
		v4("send_redirects", "ICMP redirects are sent", "A router tells hosts of a better way.", UnitBool, "1"),
		v4("accept_source_route", "source-routed packets are accepted", "Lets the sender choose the path; long obsolete.", UnitBool, ""),
		v4("secure_redirects", "redirects from known gateways only", "Believes redirects only from gateways in the routing table.", UnitBool, "1"),
		v4("forwarding", "forward IPv4 from this interface", "What ip_forward sets on all interfaces at once.", UnitBool, "0"),
		v4("promote_secondaries", "a secondary address takes over", "1 promotes a secondary address when the primary one goes; 0 loses all of the subnet.", UnitBool, "0"),
		v4("proxy_arp", "answer ARP for others", "Answers ARP for hosts behind this one.", UnitBool, "0"),
		{
			Key: "net.ipv4.ip_forward", Title: "forward IPv4 packets",
			Meaning: "Needed by containers, virtual machines, VPNs and routers. A write that changes it resets the other conf keys to the defaults of a " +
				"host or of a router, so it is never toggled blindly.",
			Unit: UnitBool, Shape: ShapeInt, Default: "0", Scope: ScopeNamespace, Class: ClassWrong,
			Advice:  "1 where rules hand connections to other hosts or namespaces, turned on by the program that needs it; nothing else",
			Decides: []string{"rules that rewrite a destination to another host or namespace"}, Rule: judgeForwarding,
			Refs: []string{refIPSysctl, "https://github.com/dev-sec/linux-baseline/issues/126"},
		},
		v6("forwarding", "forward IPv6 packets",
			"1 makes the interface a router's: it then ignores router advertisements unless accept_ra is 2.", UnitBool, "0"),
		rule(v6("accept_ra", "router advertisements are accepted",
			"1 accepts them unless the interface forwards, 2 always. A host that gets its default route from them loses it when forwarding is turned on.",
			UnitNone, "1"),
			ClassWrong, "2 on the interface whose default route comes from advertisements while it forwards", []string{"forwarding of the interface", "default route from a router advertisement"}, judgeAcceptRA,
			"https://github.com/moby/moby/issues/47966"),
		rule(v6("disable_ipv6", "no IPv6 on the interface",
			"1 removes all IPv6 addresses. If names still have AAAA records, clients with IPv6 fail; programs that bind [::] fail to start.", UnitBool, "0"),
			ClassWrong, "0 where clients or listeners use IPv6", []string{"AAAA records and IPv6 listeners"}, judgeDisableIPv6),
		v6("accept_redirects", "ICMPv6 redirects are believed", "Another router may change the host's routes.", UnitBool, "1"),
		v6("autoconf", "addresses from advertised prefixes", "Makes addresses from the prefixes in router advertisements.", UnitBool, "1"),
		v6("use_tempaddr", "temporary addresses", "2 prefers addresses that change daily for outgoing connections, which allow-lists elsewhere may not know.", UnitNone, "0"),
		v6("accept_dad", "duplicate address detection", "0 uses addresses without asking whether another host has them.", UnitNone, ""),
		{
			Key: "net.ipv6.bindv6only", Title: "[::] listens for IPv6 only",
			Meaning: "0: a socket on [::] serves IPv4 as well. 1, or the socket option: IPv4 clients are refused. The listener's own option decides.",
			Unit:    UnitBool, Shape: ShapeInt, Default: "0", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		neigh("ipv4", "gc_thresh1", "128", "arp_cache.table_fulls"),
		neigh("ipv4", "gc_thresh2", "512", "arp_cache.table_fulls"),
		neigh("ipv4", "gc_thresh3", "1024", "arp_cache.table_fulls"),
		neigh("ipv6", "gc_thresh1", "128", "ndisc_cache.table_fulls"),
		neigh("ipv6", "gc_thresh2", "512", "ndisc_cache.table_fulls"),
		neigh("ipv6", "gc_thresh3", "1024", "ndisc_cache.table_fulls"),
		{
			Key: "net.ipv4.tcp_mtu_probing", Title: "find a smaller packet size when large ones vanish",
			Meaning: "1 probes smaller sizes when a connection hangs because a hop drops large packets and the ICMP that would say so is filtered; 2 always probes.",
			Unit:    UnitNone, Shape: ShapeInt, Max: number(2), Default: "0", Scope: ScopeNamespace, Class: ClassEvidence,
			Advice:  "1 where connections hang after the handshake and the filter on the way is not yours",
			Decides: []string{"connections on which a full segment is repeated in vain while a shorter one after it is acknowledged", "TcpExt.TCPMTUPSuccess", "TcpExt.TCPMTUPFail"},
			Rule:    judgeMTUProbing,
			Refs:    []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.icmp_echo_ignore_all", Title: "ping is not answered",
			Meaning: "1: a ping that fails says nothing about this host.",
			Unit:    UnitBool, Shape: ShapeInt, Default: "0", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.icmp_ratelimit", Title: "distance between ICMP errors",
			Meaning: "Milliseconds between ICMP errors to one address, for the types in icmp_ratemask. A REJECT rule that answers with ICMP is " +
				"silent when it is asked more often: clients see refusals and timeouts mixed.",
			Unit: UnitMillis, Shape: ShapeInt, Coarse: true, Max: number(1000000), Default: "1000", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.icmp_ratemask", Title: "which ICMP types are limited",
			Meaning: "A bit for each ICMP type that icmp_ratelimit and icmp_msgs_per_sec hold back; 6168 is unreachable, source quench, time exceeded and parameter problem.",
			Unit:    UnitNone, Shape: ShapeInt, Default: "6168", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.icmp_msgs_per_sec", Title: "ICMP errors per second, all together",
			Meaning: "Bound of the limited ICMP types to all addresses together.",
			Unit:    UnitCount, Shape: ShapeInt, DefaultNote: "1000 or 10000, by version", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv6.icmp.ratelimit", Title: "distance between ICMPv6 errors",
			Meaning: "As icmp_ratelimit, for IPv6.",
			Unit:    UnitMillis, Shape: ShapeInt, Coarse: true, Max: number(1000000), DefaultNote: "1000 or 100, by version", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.tcp_l3mdev_accept", Title: "listeners serve all VRFs",
			Meaning: "1 lets a listener that is bound to no VRF accept connections that arrive in one.",
			Unit:    UnitBool, Shape: ShapeInt, Default: "0", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
		{
			Key: "net.ipv4.udp_l3mdev_accept", Title: "UDP sockets serve all VRFs",
			Meaning: "As tcp_l3mdev_accept, for UDP.",
			Unit:    UnitBool, Shape: ShapeInt, Default: "0", Scope: ScopeNamespace, Class: ClassInfo, Refs: []string{refIPSysctl},
		},
	}
}

// judgeMTUProbing speaks where large packets are seen to vanish. Where probing is
// on, its own counters say what it found.
func judgeMTUProbing(k Key, f *Facts) []Judgement {
	if v, _ := f.Live.Int(k); v != 0 {
		if s := f.seen("TcpExt.TCPMTUPSuccess", "TcpExt.TCPMTUPFail"); s.ever {
			return []Judgement{{Verdict: OK, Why: "it is on and probes: a path on the way does not take the largest packets", Evidence: s.evidence}}
		}
		return nil
	}
	switch f.roles().PathMTULost {
	case Yes:
		return []Judgement{{
			Verdict: Advice, Finding: "sysctl.mtu-probing-off", Severity: Warning, Recommend: "1", Evidence: f.LargeLost,
			Why:    "connections hang after the handshake because large packets vanish on the way and short ones arrive: a hop takes smaller ones only, and the ICMP that would say so is filtered",
			Remedy: "let ICMP \"fragmentation needed\" and \"packet too big\" through, or lower the MTU where the smaller hop is yours (VPN, PPPoE, tunnel); set tcp_mtu_probing = 1 where the filter is not yours",
		}}
	case Unsure:
		return []Judgement{{Verdict: Unknown, Why: "whether large packets vanish was not looked for", Missing: []string{"census of connections"}}}
	}
	return nil
}

// judgeRPFilter looks at the effective value: the larger of all and interface.
func judgeRPFilter(k Key, f *Facts) []Judgement {
	iface, _ := k.Interface()
	if iface == "default" || iface == "lo" {
		return nil // decides nothing for packets from outside
	}
	all, ok1 := f.Live.Int(k.WithInterface("all"))
	own, ok2 := f.Live.Int(k)
	if !ok1 || !ok2 {
		return []Judgement{{Verdict: Unknown, Why: "the larger of conf.all and the interface counts, and one was not read", Missing: []string{string(k.WithInterface("all"))}}}
	}
	effective := max(all, own)
	if iface == "all" || effective != 1 {
		return nil
	}
	ev := []Evidence{{"effective on " + iface, fmt.Sprintf("max(all %d, %s %d) = %d", all, iface, own, effective)}}
	s := f.seen("TcpExt.IPReversePathFilter")
	if f.roles().PolicyRouting == Yes {
		j := Judgement{
			Verdict: Wrong, Finding: "sysctl.rp-filter-strict", Severity: Warning, Subject: iface, Recommend: "2", Evidence: append(s.evidence, ev...),
			Why:    "the strict reverse-path filter drops packets whose answer would leave by another interface, this host routes by policy, and packets have been dropped",
			Remedy: "set 2 (loose) on the interface; the larger of conf.all and the interface counts, so this suffices",
		}
		if !s.ever {
			// Rules by source address pass the filter (fib_validate_source asks them),
			// rules by mark or incoming interface do not: the counter tells.
			if len(s.missing) > 0 {
				return []Judgement{{Verdict: Unknown, Why: "strict on a host that routes by policy; whether it drops anything was not read", Missing: s.missing}}
			}
			j.Verdict, j.Finding, j.Severity = OK, "", ""
			j.Why = "the strict reverse-path filter drops packets whose answer would leave by another interface, and this host routes by policy; so far it has dropped none"
			j.Remedy, j.Recommend = "", ""
		}
		return []Judgement{j}
	}
	s.evidence = append(s.evidence, ev...)
	return s.judge(Judgement{
		Verdict: Advice, Finding: "sysctl.rp-filter-drops", Severity: Warning, Subject: iface, Recommend: "2",
		Why:    "the reverse-path filter drops packets; the counter is the namespace's, this interface is one of those that filter strictly",
		Remedy: "turn log_martians on for a minute to see whose packets they are; if they are wanted, set 2 (loose) on this interface",
	})
}

func judgeRouteLocalnet(k Key, f *Facts) []Judgement {
	iface, _ := k.Interface()
	if iface == "default" || iface == "lo" {
		return nil
	}
	v, _ := f.Live.Int(k)
	// IN_DEV_ORCONF: conf.all or the interface.
	all, _ := f.Live.Int(k.WithInterface("all"))
	on := v != 0 || all != 0
	switch dnat := f.roles().DNATToLoopback; {
	case on && v != 0 && dnat == No:
		return []Judgement{{
			Verdict: Wrong, Finding: "sysctl.route-localnet-exposes", Severity: Warning, Subject: iface,
			Why:    "packets to 127.0.0.0/8 are accepted from outside and no rule needs it: neighbours on the local network can reach what listens on loopback only",
			Remedy: "set it to 0, or drop packets to 127.0.0.0/8 that do not come from lo",
		}}
	case !on && dnat == Yes && iface != "all":
		return []Judgement{{
			Verdict: Wrong, Finding: "sysctl.route-localnet-needed", Severity: Warning, Subject: iface, Evidence: f.ToLoopback,
			Why:    "a rule redirects to 127.0.0.0/8, and the kernel drops such packets from outside without a word",
			Remedy: "redirect to an address of the host instead (REDIRECT, or the service bound to it); route_localnet = 1 exposes all of loopback",
		}}
	case on && v != 0 && dnat == Unsure:
		return []Judgement{{Verdict: Unknown, Why: "right only if a rule redirects to 127.0.0.0/8", Missing: []string{"DNAT to loopback"}}}
	}
	return nil
}

func judgeForwarding(k Key, f *Facts) []Judgement {
	if v, _ := f.Live.Int(k); v != 0 || f.roles().DNATElsewhere != Yes {
		return nil
	}
	return []Judgement{{
		Verdict: Wrong, Finding: "sysctl.forwarding-needed", Severity: Warning, Evidence: f.ToElsewhere,
		Why:    "a rule hands connections to another host or network namespace, and this host does not forward packets",
		Remedy: "turn forwarding on through the program that needs it (Docker, VPN), which does so by itself when it starts; a write resets other conf keys",
	}}
}

func judgeAcceptRA(k Key, f *Facts) []Judgement {
	iface, _ := k.Interface()
	if iface == "all" || iface == "default" || iface == "lo" {
		return nil // accept_ra of an interface is its own (addrconf.c, ipv6_accept_ra)
	}
	ra, _ := f.Live.Int(k)
	fwKey := Key("net.ipv6.conf.*.forwarding").WithInterface(iface)
	fw, ok := f.Live.Int(fwKey)
	if !ok {
		return []Judgement{{Verdict: Unknown, Why: "whether the interface forwards was not read", Missing: []string{string(fwKey)}}}
	}
	if fw == 0 || ra == 2 || ra == 0 {
		return nil
	}
	switch f.roles().RARoute {
	case Yes:
		return []Judgement{{
			Verdict: Wrong, Finding: "sysctl.router-ignores-ra", Severity: Warning, Subject: iface, Recommend: "2",
			Evidence: []Evidence{{string(fwKey), fmt.Sprint(fw)}, {string(k), fmt.Sprint(ra)}},
			Why:      "the interface forwards and therefore ignores router advertisements, and the default route came from one: it vanishes when its lifetime ends",
			Remedy:   "set accept_ra = 2 on the interface that gets its route so",
		}}
	case Unsure:
		return []Judgement{{Verdict: Unknown, Why: "wrong if the IPv6 default route comes from router advertisements", Missing: []string{"origin of the IPv6 default route"}}}
	}
	return nil
}

// listenersV6 names a few listeners on IPv6 addresses.
func (f *Facts) listenersV6() (out []Evidence) {
	for _, l := range f.Listeners {
		if l.V6 && l.Address != "::1" && len(out) < 3 {
			out = append(out, Evidence{"listener", fmt.Sprintf("%s [%s]:%d, %s", l.Proto, l.Address, l.Port, nameOr(l.Program))})
		}
	}
	return out
}

func judgeDisableIPv6(k Key, f *Facts) []Judgement {
	iface, _ := k.Interface()
	if v, _ := f.Live.Int(k); v == 0 || iface == "default" || iface == "lo" {
		return nil
	}
	switch f.roles().IPv6Wanted {
	case Yes:
		return []Judgement{{
			Verdict: Wrong, Finding: "sysctl.ipv6-disabled", Severity: Warning, Subject: iface, Evidence: f.listenersV6(),
			Why:    "IPv6 is off here, but a name has an AAAA record that points here or a listener is bound to an IPv6 address: clients with IPv6 fail or wait",
			Remedy: "turn IPv6 on, or take the AAAA record away and bind the listener to IPv4",
		}}
	case Unsure:
		return []Judgement{{Verdict: Unknown, Why: "wrong if a name has an AAAA record that points here", Missing: []string{"AAAA records"}}}
	}
	return nil
}
