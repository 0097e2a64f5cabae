package sysctl

import "slices"

// Profile is what a kind of server shifts: thresholds and expectations, never
// the rule that advice needs evidence.
type Profile struct {
	Name  string
	Title string
	// RangeWarn and RangeCritical are the shares of the ephemeral range in use
	// to one destination from which we speak; 0 means the general 0.50 and 0.85.
	RangeWarn, RangeCritical float64
	// QueueWarn is the share of an accept queue from which we speak; 0 means 0.80.
	QueueWarn float64
	// FilesWarn is the share of a process's descriptors; 0 means 0.80.
	FilesWarn float64
	// Expects are role facts that the profile takes for granted unless the host
	// says otherwise.
	Expects Roles
	// Asked are values that frameworks and guides for such servers ask for,
	// each with what we think of it.
	Asked []AskedValue
}

// AskedValue is a value that a framework's manual asks for.
type AskedValue struct {
	Key     Key
	Value   string
	By      string // who asks
	Verdict Verdict
	Why     string
}

func (p Profile) rangeWarn() float64     { return orElse(p.RangeWarn, 0.50) }
func (p Profile) rangeCritical() float64 { return orElse(p.RangeCritical, 0.85) }

// QueueShare is the share of an accept queue from which we speak.
func (p Profile) QueueShare() float64 { return orElse(p.QueueWarn, 0.80) }

// FilesShare is the share of a process's descriptors from which we speak.
func (p Profile) FilesShare() float64 { return orElse(p.FilesWarn, 0.80) }

func orElse(v, general float64) float64 {
	if v == 0 {
		return general
	}
	return v
}

// Profiles returns the known profiles.
func Profiles() []Profile {
	return []Profile{
		{Name: "web", Title: "web server: many short inbound connections", QueueWarn: 0.70},
		{
			Name: "proxy", Title: "reverse or forward proxy: every request is a connection in and a connection out",
			RangeWarn: 0.40, RangeCritical: 0.75, QueueWarn: 0.70,
		},
		{Name: "database", Title: "database: few, long, local clients", FilesWarn: 0.70},
		{
			Name: "container-host", Title: "container host: forwards for its containers",
			Expects: Roles{Router: Yes, ContainerHost: Yes},
		},
		{Name: "router", Title: "router or VPN gateway", Expects: Roles{Router: Yes}},
		{
			Name: "websocket", Title: "WebSocket or other long-lived connections",
			FilesWarn: 0.60, Asked: websocketValues(),
		},
	}
}

// ProfileByName finds a profile; the empty name is the empty profile.
func ProfileByName(name string) (Profile, bool) {
	if name == "" {
		return Profile{}, true
	}
	all := Profiles()
	i := slices.IndexFunc(all, func(p Profile) bool { return p.Name == name })
	if i < 0 {
		return Profile{}, false
	}
	return all[i], true
}

// websocketValues are the lines that the manual of the most used PHP framework
// for such servers tells its users to paste, one verdict a line.
func websocketValues() []AskedValue {
	const by = "Workerman manual, kernel tuning"
	return []AskedValue{
		{keyTWBuckets, "20000", by, Harmful, "below the kernel's default; sockets in TIME_WAIT beyond it are destroyed, which the manual calls recycling"},
		{keySomaxconn, "65535", by, Advice, "has a meaning for a program that asks for a long queue (Workerman asks for 102400), and only after the listener is opened again; raise it when an accept queue overflows"},
		{"net.ipv4.tcp_max_syn_backlog", "262144", by, OK, "no effect while tcp_syncookies is on, which is the default"},
		{"net.core.netdev_max_backlog", "30000", by, Advice, "only when column 2 of /proc/net/softnet_stat grows"},
		{"net.ipv4.tcp_tw_recycle", "0", by, OK, "the key was removed in Linux 4.12; the line makes `sysctl -p` exit with 1 and does nothing else"},
		{keyFileMax, "6815744", by, Harmful, "lowers the limit: systemd 240 and newer set it to 9223372036854775807"},
		{keyConntrackMax, "2621440", by, Advice, "only when the table fills, and then together with nf_conntrack_buckets"},
		{keyPortRange, "10240 65000", by, Wrong, "both ends even: the kernel prefers different parity; and the range swallows the ports of services that are not reserved"},
		{keyPortRange, "10000 65535", "Workerman manual, questions and answers", Advice, "parity is right (the manual says 55,535 ports, it is 55,536); only when one destination uses half of the range, and with the ports of services inside it in ip_local_reserved_ports"},
		{"limit.nofile", "102400", by, Advice, "each connection is a descriptor, so the limit of the listening process counts: LimitNOFILE= in its unit, not /etc/profile or limits.conf"},
		{"net.ipv4.tcp_keepalive_time", "55", by, OK, "irrelevant here: the framework sets keepalive on its own sockets when PHP's sockets extension is loaded; idle limits of load balancers call for an application heartbeat"},
	}
}

// roles merges what the host says with what the profile takes for granted:
// a fact that was read wins.
func (f *Facts) roles() Roles {
	r, e := f.Roles, f.Profile.Expects
	either := func(have *Fact, expected Fact) {
		if *have == Unsure {
			*have = expected
		}
	}
	either(&r.Router, e.Router)
	either(&r.ContainerHost, e.ContainerHost)
	either(&r.PolicyRouting, e.PolicyRouting)
	either(&r.VRRP, e.VRRP)
	either(&r.DNATToLoopback, e.DNATToLoopback)
	either(&r.DNATElsewhere, e.DNATElsewhere)
	either(&r.RARoute, e.RARoute)
	either(&r.IPv6Wanted, e.IPv6Wanted)
	either(&r.PathMTULost, e.PathMTULost)
	either(&r.SystemdRaisesFD, e.SystemdRaisesFD)
	return r
}
