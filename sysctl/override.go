package sysctl

import (
	"encoding/json"
	"slices"
	"strings"
)

// Override is a key that a program sets after the loader has applied the files.
type Override struct {
	Who string `json:"who"`
	// Key may hold "*" for an interface.
	Key Key `json:"key"`
	// Value is what it will set; empty when files do not tell.
	Value string `json:"value,omitempty"`
	Place
	When string `json:"when"` // when it acts
	// Certain: it will act at the next boot. Otherwise it is installed, and
	// whether it acts is not in the files.
	Certain bool `json:"certain"`
	// Never lowers or never raises, as tuned's => and =< do.
	Only string `json:"only,omitempty"` // "raise", "lower" or empty
}

// Concerns says whether the override is about the key.
func (o Override) Concerns(k Key) bool {
	if o.Key == k {
		return true
	}
	if !strings.Contains(string(o.Key), "*") {
		return false
	}
	if i := strings.LastIndexByte(string(o.Key), '.'); !strings.ContainsAny(string(o.Key[i+1:]), `*?[{/\`) && strings.IndexByte(string(o.Key), '{') < 0 &&
		!strings.HasSuffix(string(k), string(o.Key[i+1:])) {
		return false // another setting
	}
	return Assignment{Path: o.Key.Path(), Glob: true}.concerns(k)
}

var (
	dockerPrograms  = []string{"/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd", "/snap/bin/docker"}
	kubePrograms    = []string{"/usr/bin/kubelet", "/usr/local/bin/kubelet", "/usr/local/bin/k3s", "/usr/local/bin/rke2"}
	networkDirs     = []string{"/etc/systemd/network", "/run/systemd/network", "/usr/local/lib/systemd/network", "/usr/lib/systemd/network", "/lib/systemd/network"}
	libvirtPrograms = []string{"/usr/sbin/libvirtd", "/usr/sbin/virtnetworkd"}
	tunedDirs       = []string{"/etc/tuned", "/etc/tuned/profiles", "/usr/lib/tuned", "/usr/lib/tuned/profiles"}
	rcLocals        = []string{"/etc/rc.local", "/etc/rc.d/rc.local"}
)

const (
	ufwDefaults   = "/etc/default/ufw"
	ufwConf       = "/etc/ufw/ufw.conf"
	tunedActive   = "/etc/tuned/active_profile"
	tunedMain     = "/etc/tuned/tuned-main.conf"
	dockerConf    = "/etc/docker/daemon.json"
	networkdUnit  = "systemd-networkd.service"
	maxTunedChain = 16
)

// captureOverrides captures what detectOverrides reads.
func captureOverrides(c *capturer) {
	for _, p := range slices.Concat(dockerPrograms, kubePrograms, libvirtPrograms, []string{"/usr/sbin/bpftune", "/usr/sbin/NetworkManager"}) {
		c.walk(p)
	}
	for _, unit := range []string{"docker.service", "docker.socket", "kubelet.service", "k3s.service", "libvirtd.service", "virtnetworkd.service", "bpftune.service", "NetworkManager.service", "tuned.service", "ufw.service", networkdUnit, "rc-local.service"} {
		captureUnit(c, unit)
	}
	keep := func(words ...string) func(string) bool {
		return func(l string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(l, w) })
		}
	}
	c.lines(ufwDefaults, keep("IPT_SYSCTL"))
	c.lines(ufwConf, keep("ENABLED"))
	c.file(ufwSysctlFile(c.tree))
	c.file(tunedActive)
	c.file(tunedMain)
	for name, depth := strings.TrimSpace(c.text(tunedActive)), 0; name != "" && depth < maxTunedChain; depth++ {
		next := ""
		for _, p := range strings.Fields(name) {
			if strings.Contains(p, "/") {
				continue
			}
			for _, dir := range tunedDirs {
				c.file(dir + "/" + p + "/tuned.conf")
				next += " " + tunedIncludes(c.tree, dir+"/"+p+"/tuned.conf")
			}
		}
		name = strings.TrimSpace(next)
	}
	for _, dir := range networkDirs {
		c.dirLines(dir, func(n string) bool { return strings.HasSuffix(n, ".network") }, func(l string) bool {
			l = strings.TrimSpace(l)
			return strings.HasPrefix(l, "[") || slices.ContainsFunc(networkdKeys, func(k networkdKey) bool { return strings.HasPrefix(l, k.option) }) || strings.HasPrefix(l, "Name=")
		})
	}
	captureDockerConf(c)
	for _, p := range rcLocals {
		c.lines(p, keep("sysctl", "/proc/sys"))
	}
}

// captureDockerConf keeps of Docker's configuration only the switches that
// decide about forwarding: the rest may hold passwords of proxies.
func captureDockerConf(c *capturer) {
	n := c.file(dockerConf)
	if n == nil || n.Kind != NodeFile {
		return
	}
	var all map[string]json.RawMessage
	kept := map[string]json.RawMessage{}
	if err := json.Unmarshal(n.Data, &all); err == nil {
		for _, k := range []string{"ip-forward", "iptables", "ip6tables", "userland-proxy"} {
			if v, ok := all[k]; ok && (string(v) == "true" || string(v) == "false") {
				kept[k] = v
			}
		}
	} else {
		n.Err = "not valid JSON"
	}
	n.Data, _ = json.Marshal(kept)
}

func detectOverrides(t *Tree, b *Boot) {
	overrideUFW(t, b)
	overrideTuned(t, b)
	overrideNetworkd(t, b)
	overrideDocker(t, b)
	overrideKube(t, b)
	overrideOthers(t, b)
	overrideRCLocal(t, b)
}

// shellValue is the value of the last assignment of a name in a file of shell
// assignments, without quotes.
func shellValue(t *Tree, p, name string) (value string, line int) {
	eachLine(t, p, func(n int, l string) {
		if v, ok := strings.CutPrefix(l, name+"="); ok {
			value, line = strings.Trim(strings.TrimSpace(v), `"'`), n
		}
	})
	return value, line
}

// ufwSysctlFile is where ufw takes its own sysctls from.
func ufwSysctlFile(t *Tree) string {
	p, _ := shellValue(t, ufwDefaults, "IPT_SYSCTL")
	if !strings.HasPrefix(p, "/") {
		return "/etc/ufw/sysctl.conf"
	}
	return p
}

// overrideUFW: ufw runs `sysctl -e -q -p $IPT_SYSCTL` when it starts, after the
// boot's loading, and on every reload.
func overrideUFW(t *Tree, b *Boot) {
	if !b.has(t, ufwConf) {
		return
	}
	enabled, _ := shellValue(t, ufwConf, "ENABLED")
	if p, _ := shellValue(t, ufwDefaults, "IPT_SYSCTL"); p == "" {
		return
	}
	file := ufwSysctlFile(t)
	data, err := t.read(file)
	if err != nil {
		return
	}
	lines, _ := parseProcps(&Outcome{}, file, data, 0)
	for _, a := range lines {
		if a.Exclude {
			continue
		}
		b.Overrides = append(b.Overrides, Override{
			Who: "ufw", Key: KeyFromPath(cleanPath(a.Path)), Value: a.Value, Place: Place{a.File, a.Line},
			When: "when ufw starts and on `ufw reload`", Certain: strings.EqualFold(enabled, "yes"),
		})
	}
}

// tunedIncludes is the include= of a profile's [main] section.
func tunedIncludes(t *Tree, p string) string {
	out, section := "", ""
	eachLine(t, p, func(_ int, l string) {
		if strings.HasPrefix(l, "[") {
			section = l
			return
		}
		name, v, ok := strings.Cut(l, "=")
		if ok && section == "[main]" && strings.TrimSpace(name) == "include" {
			out = strings.NewReplacer(",", " ", "-?", "", "?", "").Replace(v)
		}
	})
	return strings.TrimSpace(out)
}

// overrideTuned reads the [sysctl] sections of the active profile and of those
// it includes. tuned applies them late, then (reapply_sysctl) the files below
// /run/sysctl.d, /etc/sysctl.d and /etc/sysctl.conf over them.
func overrideTuned(t *Tree, b *Boot) {
	data, err := t.read(tunedActive)
	if err != nil {
		return
	}
	_, enabled := unitEnabled(t, "tuned.service")
	reapply := true
	if v, _ := shellValue(t, tunedMain, "reapply_sysctl"); v == "0" || strings.EqualFold(v, "false") {
		reapply = false
	}
	eachLine(t, tunedMain, func(_ int, l string) {
		if name, v, ok := strings.Cut(l, "="); ok && strings.TrimSpace(name) == "reapply_sysctl" {
			v = strings.TrimSpace(v)
			reapply = v != "0" && !strings.EqualFold(v, "false")
		}
	})
	seen := map[string]bool{}
	var read func(name string, depth int)
	read = func(name string, depth int) {
		if seen[name] || depth > maxTunedChain || strings.Contains(name, "/") {
			return
		}
		seen[name] = true
		for _, dir := range tunedDirs {
			p := dir + "/" + name + "/tuned.conf"
			if !b.has(t, p) {
				continue
			}
			for _, inc := range strings.Fields(tunedIncludes(t, p)) {
				read(inc, depth+1)
			}
			tunedSysctls(t, b, p, enabled, reapply)
			return
		}
	}
	for _, name := range strings.Fields(string(data)) {
		read(name, 0)
	}
}

func tunedSysctls(t *Tree, b *Boot, p string, enabled, reapply bool) {
	section := ""
	eachLine(t, p, func(n int, l string) {
		if strings.HasPrefix(l, "[") {
			section = l
			return
		}
		name, v, ok := strings.Cut(l, "=")
		if !ok || section != "[sysctl]" {
			return
		}
		o := Override{
			Who: "tuned", Key: ParseKey(strings.TrimSpace(name)), Value: strings.TrimSpace(v), Place: Place{p, n},
			When: "when tuned starts and when its profile changes", Certain: enabled,
		}
		switch {
		case strings.HasPrefix(o.Value, ">"):
			o.Only, o.Value = "raise", strings.TrimSpace(o.Value[1:])
		case strings.HasPrefix(o.Value, "<"):
			o.Only, o.Value = "lower", strings.TrimSpace(o.Value[1:])
		}
		if strings.Contains(o.Value, "${") {
			o.Value = "" // a variable that only tuned can fill
		}
		if reapply {
			o.When += "; then it applies /run/sysctl.d, /etc/sysctl.d and /etc/sysctl.conf once more, so a line there wins"
		}
		b.Overrides = append(b.Overrides, o)
	})
}

// networkdKey is an option of a .network file and the keys it writes.
type networkdKey struct {
	option string
	keys   []string // below net.ipv4.conf.IFACE / net.ipv6.conf.IFACE, or whole keys
	when   string
}

var networkdKeys = []networkdKey{
	{"IPForward", []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}, "forwarding"},
	{"IPv4Forwarding", []string{"net.ipv4.conf.*.forwarding"}, "forwarding"},
	{"IPv6Forwarding", []string{"net.ipv6.conf.*.forwarding"}, "forwarding"},
	{"IPMasquerade", []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}, "masquerading"},
	{"IPv6AcceptRA", []string{"net.ipv6.conf.*.accept_ra"}, "router advertisements"},
	{"IPv6PrivacyExtensions", []string{"net.ipv6.conf.*.use_tempaddr"}, "temporary addresses"},
	{"IPv4ReversePathFilter", []string{"net.ipv4.conf.*.rp_filter"}, "reverse-path filter"},
	{"IPv4RouteLocalnet", []string{"net.ipv4.conf.*.route_localnet"}, "route_localnet"},
	{"IPv4AcceptLocal", []string{"net.ipv4.conf.*.accept_local"}, "accept_local"},
	{"IPv4ProxyARP", []string{"net.ipv4.conf.*.proxy_arp"}, "proxy ARP"},
	{"LinkLocalAddressing", []string{"net.ipv6.conf.*.disable_ipv6"}, "link-local addresses"},
}

// overrideNetworkd: networkd writes keys of every interface it configures;
// accept_ra always (it handles router advertisements itself).
func overrideNetworkd(t *Tree, b *Boot) {
	_, enabled := unitEnabled(t, networkdUnit)
	any := false
	for _, p := range confFiles(t, networkDirs, ".network") {
		iface := "*"
		eachLine(t, p, func(n int, l string) {
			name, v, ok := strings.Cut(l, "=")
			name, v = strings.TrimSpace(name), strings.TrimSpace(v)
			if !ok {
				return
			}
			if name == "Name" {
				iface = "*"
				if !strings.ContainsAny(v, "*?[! ") {
					iface = v
				}
				return
			}
			for _, k := range networkdKeys {
				if k.option != name {
					continue
				}
				for _, key := range k.keys {
					kk := Key(key)
					if strings.Contains(key, "*") {
						kk = kk.WithInterface(iface)
					}
					b.Overrides = append(b.Overrides, Override{
						Who: "systemd-networkd", Key: kk, Place: Place{p, n},
						When: "when it configures the interface (" + k.when + ")", Certain: enabled,
					})
				}
			}
		})
		any = true
	}
	if any && enabled {
		b.Overrides = append(b.Overrides, Override{
			Who: "systemd-networkd", Key: "net.ipv6.conf.*.accept_ra", Value: "0",
			When: "when it configures an interface, on which it handles router advertisements itself",
		})
	}
}

// overrideDocker: dockerd turns forwarding on, and bridge filtering with it.
func overrideDocker(t *Tree, b *Boot) {
	at := firstPresent(t, b, dockerPrograms)
	if at == "" {
		return
	}
	conf := map[string]bool{}
	if data, err := t.read(dockerConf); err == nil {
		// A file that is not JSON stops dockerd; then it sets nothing, which is
		// what an empty map with Certain false says.
		_ = json.Unmarshal(data, &conf)
	}
	_, enabled := unitEnabled(t, "docker.service")
	add := func(k Key, v, when string, certain bool) {
		b.Overrides = append(b.Overrides, Override{Who: "docker", Key: k, Value: v, Place: Place{File: at}, When: when, Certain: certain})
	}
	if v, set := conf["ip-forward"]; !set || v {
		add("net.ipv4.ip_forward", "1", "when dockerd starts, if it is 0", enabled)
		add("net.ipv6.conf.all.forwarding", "1", "when dockerd creates an IPv6 network", false)
	}
	if v, set := conf["iptables"]; !set || v {
		add("net.bridge.bridge-nf-call-iptables", "1", "when a bridge network separates its containers", false)
		add("net.bridge.bridge-nf-call-ip6tables", "1", "when a bridge network separates its containers", false)
	}
	if v, set := conf["userland-proxy"]; set && !v {
		add("net.ipv4.conf.*.route_localnet", "1", "on its bridges, because userland-proxy is off", false)
	}
}

// overrideKube: kubelet and kube-proxy set keys of their own when they start.
func overrideKube(t *Tree, b *Boot) {
	at := firstPresent(t, b, kubePrograms)
	if at == "" {
		return
	}
	for _, o := range []struct {
		k    Key
		when string
	}{
		{keyConntrackMax, "when kube-proxy starts (conntrack.maxPerCore × CPUs, not below conntrack.min)"},
		{keyConntrackHash, "when kube-proxy raises nf_conntrack_max"},
		{"net.netfilter.nf_conntrack_tcp_timeout_established", "when kube-proxy starts"},
		{"net.netfilter.nf_conntrack_tcp_timeout_close_wait", "when kube-proxy starts"},
		{"net.ipv4.conf.all.route_localnet", "when kube-proxy serves node ports on loopback (iptables mode)"},
		{"net.ipv4.ip_forward", "when kube-proxy runs in IPVS mode, and by network plug-ins"},
		{"net.ipv4.conf.all.arp_ignore", "when kube-proxy runs in IPVS mode with strict ARP"},
		{"net.ipv4.conf.all.arp_announce", "when kube-proxy runs in IPVS mode with strict ARP"},
		{"net.bridge.bridge-nf-call-iptables", "by the network plug-in"},
		{"net.bridge.bridge-nf-call-ip6tables", "by the network plug-in"},
	} {
		b.Overrides = append(b.Overrides, Override{Who: "kubernetes", Key: o.k, Place: Place{File: at}, When: o.when})
	}
}

// overrideOthers are programs whose configuration does not say which keys.
func overrideOthers(t *Tree, b *Boot) {
	if at := firstPresent(t, b, libvirtPrograms); at != "" {
		b.Overrides = append(b.Overrides, Override{Who: "libvirt", Key: "net.ipv4.ip_forward", Value: "1", Place: Place{File: at}, When: "when a routed or NAT network starts"})
	}
	if _, on := unitEnabled(t, "NetworkManager.service"); on && b.has(t, "/usr/sbin/NetworkManager") {
		for _, k := range []Key{"net.ipv6.conf.*.accept_ra", "net.ipv6.conf.*.use_tempaddr", "net.ipv6.conf.*.disable_ipv6", "net.ipv4.conf.*.rp_filter"} {
			b.Overrides = append(b.Overrides, Override{Who: "NetworkManager", Key: k, Place: Place{File: "/usr/sbin/NetworkManager"}, When: "when it activates a connection"})
		}
		for _, k := range []Key{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
			b.Overrides = append(b.Overrides, Override{Who: "NetworkManager", Key: k, Value: "1", Place: Place{File: "/usr/sbin/NetworkManager"}, When: "when it activates a shared connection"})
		}
	}
	if _, on := unitEnabled(t, "bpftune.service"); on {
		for _, k := range []Key{"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.core.netdev_max_backlog", "net.ipv4.neigh.default.gc_thresh3", "net.ipv4.tcp_max_orphans", "net.ipv4.tcp_congestion_control"} {
			b.Overrides = append(b.Overrides, Override{Who: "bpftune", Key: k, When: "at any time, unless an administrator has set the key", Only: "raise", Place: Place{File: "/usr/sbin/bpftune"}})
		}
	}
}

// overrideRCLocal finds `sysctl -w key=value` and `echo value > /proc/sys/…`.
func overrideRCLocal(t *Tree, b *Boot) {
	for _, p := range rcLocals {
		eachLine(t, p, func(n int, l string) {
			words := strings.Fields(strings.NewReplacer(`"`, "", "'", "", ";", " ", "&", " ").Replace(l))
			for i, w := range words {
				if name, v, ok := strings.Cut(w, "="); ok && slices.ContainsFunc(words[:i], func(x string) bool { return strings.HasSuffix(x, "sysctl") }) && strings.ContainsAny(name, "./") {
					b.Overrides = append(b.Overrides, Override{Who: "rc.local", Key: ParseKey(strings.TrimLeft(name, "-")), Value: v, Place: Place{p, n}, When: "at the end of the boot, if rc.local is executable and started"})
				}
				if _, file, ok := strings.Cut(w, procSys); ok && file != "" {
					b.Overrides = append(b.Overrides, Override{Who: "rc.local", Key: KeyFromPath(cleanPath(file)), Place: Place{p, n}, When: "at the end of the boot, if rc.local is executable and started"})
				}
			}
		})
		if _, n, err := t.resolve(p, true); err == nil && n.Kind == NodeFile {
			return // /etc/rc.local is often a link to the other
		}
	}
}

func firstPresent(t *Tree, b *Boot, paths []string) string {
	for _, p := range paths {
		if b.has(t, p) {
			return p
		}
	}
	return ""
}
