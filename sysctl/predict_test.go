package sysctl

import (
	"slices"
	"strings"
	"testing"
)

// debian is a host that boots with systemd.
func debian(m map[string]string) *Tree {
	all := map[string]string{
		"/sbin/init":                         "-> /lib/systemd/systemd",
		"/lib/systemd/systemd":               "ELF",
		"/usr/lib/systemd/systemd-sysctl":    "ELF",
		"/lib/udev/rules.d/99-systemd.rules": `ACTION=="add", SUBSYSTEM=="net", KERNEL!="lo", RUN+="/lib/systemd/systemd-sysctl --prefix=/net/ipv4/conf/$name"` + "\n",
	}
	for p, text := range m {
		all[p] = text
	}
	t := complete(files(all))
	return t
}

// everywhere marks what a test's tree does not name as looked for and missing.
func everywhere(t *Tree) *Tree {
	for _, p := range slices.Concat(systemdPrograms, initPrograms, initScripts, modulesFiles, dockerPrograms, kubePrograms, libvirtPrograms, rcLocals,
		[]string{ufwConf, ufwDefaults, tunedActive, tunedMain, dockerConf, "/usr/sbin/NetworkManager", sysctlConf, "/usr/sbin/bpftune"}) {
		if _, _, err := t.resolve(p, false); err != nil && t.Nodes[p] == nil {
			t.Nodes[p] = &Node{Kind: NodeMissing}
		}
	}
	return t
}

func hostOf(m map[string]string, live map[Key]string) *Host {
	v := Values{}
	var keys []Key
	for k, text := range live {
		v[k] = Value{State: Present, Text: text}
		keys = append(keys, k)
	}
	return NewHost(everywhere(debian(m)), NewKeySet(keys), v, Version{6, 18})
}

func TestPredict(t *testing.T) {
	const fin, rng = "net.ipv4.tcp_fin_timeout", "net.ipv4.ip_local_port_range"
	for _, c := range []struct {
		name    string
		files   map[string]string
		live    map[Key]string
		key     Key
		value   string
		changes Fact
		why     string
	}{
		{"survives", map[string]string{"/etc/sysctl.d/1.conf": fin + "=30"}, map[Key]string{fin: "30"}, fin, "30", No, "/etc/sysctl.d/1.conf:1"},
		{"changes", map[string]string{"/etc/sysctl.d/1.conf": "#\n" + fin + " = 30"}, map[Key]string{fin: "15"}, fin, "30", Yes, "/etc/sysctl.d/1.conf:2"},
		{"same by meaning", map[string]string{"/etc/sysctl.d/1.conf": rng + " = 16384   65535"}, map[Key]string{rng: "16384\t65535"}, rng, "16384 65535", No, ""},
		{"not saved", nil, map[Key]string{fin: "15"}, fin, "60", Yes, "kernel's default"},
		{"default", nil, map[Key]string{fin: "60"}, fin, "60", No, "kernel's default"},
		{"sysctl.conf is not read at boot", map[string]string{"/etc/sysctl.conf": fin + "=15"}, map[Key]string{fin: "15"}, fin, "60", Yes, "no file that the boot applies sets it"},
		{"sysctl.conf linked", map[string]string{"/etc/sysctl.conf": fin + "=15", "/etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf"}, map[Key]string{fin: "15"}, fin, "15", No, "/etc/sysctl.d/99-sysctl.conf:1"},
		{"refused, earlier stays", map[string]string{"/etc/sysctl.d/1.conf": rng + "=16384 65535", "/etc/sysctl.d/2.conf": rng + "=65535 16384"}, map[Key]string{rng: "32768 60999"}, rng, "32768 60999", No, "refuses"},
		{"masked service", map[string]string{"/etc/systemd/system/systemd-sysctl.service": "-> /dev/null", "/etc/sysctl.d/1.conf": fin + "=30"}, map[Key]string{fin: "30"}, fin, "60", Yes, "masks"},
		{"ufw", map[string]string{
			"/etc/ufw/ufw.conf": "ENABLED=yes\n", "/etc/default/ufw": "IPT_SYSCTL=/etc/ufw/sysctl.conf\n", "/etc/ufw/sysctl.conf": "net/ipv4/conf/all/log_martians=0\n",
			"/etc/sysctl.d/1.conf": "net.ipv4.conf.all.log_martians=1",
		}, map[Key]string{"net.ipv4.conf.all.log_martians": "1"}, "net.ipv4.conf.all.log_martians", "0", Yes, "ufw sets it later (/etc/ufw/sysctl.conf:1)"},
		{"interface from default", map[string]string{"/etc/sysctl.d/1.conf": "net.ipv4.conf.default.rp_filter=2"}, map[Key]string{"net.ipv4.conf.eth0.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "2"}, "net.ipv4.conf.eth0.rp_filter", "", Unsure, "conf.default"},
		{"interface as default", map[string]string{"/etc/sysctl.d/1.conf": "net.ipv4.conf.default.rp_filter=2"}, map[Key]string{"net.ipv4.conf.eth0.rp_filter": "2", "net.ipv4.conf.default.rp_filter": "2"}, "net.ipv4.conf.eth0.rp_filter", "2", No, "conf.default"},
		{"interface by pattern", map[string]string{"/etc/sysctl.d/1.conf": "net.ipv4.conf.*.rp_filter=2\n-net.ipv4.conf.all.rp_filter"}, map[Key]string{"net.ipv4.conf.eth0.rp_filter": "2", "net.ipv4.conf.all.rp_filter": "0"}, "net.ipv4.conf.eth0.rp_filter", "2", No, "1.conf:1"},
		{"forwarding follows", map[string]string{"/etc/sysctl.d/1.conf": "net.ipv4.ip_forward=1"}, map[Key]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.eth0.forwarding": "1"}, "net.ipv4.conf.eth0.forwarding", "1", No, "follows net.ipv4.ip_forward"},
		{"module not loaded in time", map[string]string{"/etc/sysctl.d/1.conf": string(keyConntrackMax) + "=500000"}, map[Key]string{keyConntrackMax: "500000"}, keyConntrackMax, "", Unsure, "nf_conntrack"},
		{"module loaded in time", map[string]string{"/etc/sysctl.d/1.conf": string(keyConntrackMax) + "=500000", "/etc/modules-load.d/x.conf": "nf_conntrack\n"}, map[Key]string{keyConntrackMax: "500000"}, keyConntrackMax, "500000", No, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hostOf(c.files, c.live)
			p := h.Provenance(c.key).Reboot
			if p.Changes != c.changes || p.Known && !shapeOf(c.key).Equal(p.Value, c.value) || !strings.Contains(p.Why, c.why) {
				t.Errorf("%+v (boot %s, %s)", p, h.Boot.Loader, h.Boot.Why)
			}
		})
	}
}

func TestDockerMakesUncertain(t *testing.T) {
	h := hostOf(map[string]string{"/usr/bin/dockerd": "ELF", "/etc/sysctl.d/1.conf": "net.ipv4.ip_forward=0"}, map[Key]string{"net.ipv4.ip_forward": "1"})
	p := h.Provenance("net.ipv4.ip_forward")
	if p.Reboot.Known || p.Reboot.Changes != Unsure || !strings.Contains(p.Reboot.Why, "docker may set it later") {
		t.Errorf("%+v", p.Reboot)
	}
	h = hostOf(map[string]string{"/usr/bin/dockerd": "ELF", "/etc/docker/daemon.json": `{"ip-forward":false,"iptables":false}`, "/etc/sysctl.d/1.conf": "net.ipv4.ip_forward=0"}, map[Key]string{"net.ipv4.ip_forward": "1"})
	if p := h.Provenance("net.ipv4.ip_forward"); p.Reboot.Changes != Yes {
		t.Errorf("told not to: %+v", p.Reboot)
	}
}

func TestTunedOverrides(t *testing.T) {
	h := hostOf(map[string]string{
		"/etc/tuned/active_profile":                                 "mine\n",
		"/etc/tuned/mine/tuned.conf":                                "[main]\ninclude=throughput\n[sysctl]\nnet.core.somaxconn=>2048\n[vm]\nnet.ipv4.tcp_sack=0\n",
		"/usr/lib/tuned/throughput/tuned.conf":                      "[sysctl]\nnet.ipv4.tcp_rmem=\"4096 87380 16777216\"\nvm.swappiness=${x}\n",
		"/etc/systemd/system/multi-user.target.wants/tuned.service": "-> /usr/lib/systemd/system/tuned.service",
	}, map[Key]string{keySomaxconn: "4096"})
	var got []string
	for _, o := range h.Boot.Overrides {
		got = append(got, string(o.Key)+" "+o.Value+" "+o.Only+" "+o.Place.String())
		if !o.Certain {
			t.Errorf("%+v: the unit is enabled", o)
		}
	}
	want := []string{
		"net.core.somaxconn 2048 raise /etc/tuned/mine/tuned.conf:4",
		`net.ipv4.tcp_rmem "4096 87380 16777216"  /usr/lib/tuned/throughput/tuned.conf:2`,
		"vm.swappiness   /usr/lib/tuned/throughput/tuned.conf:3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if p := h.Provenance(keySomaxconn).Reboot; p.Known {
		t.Errorf("tuned raises what it finds, after the reboot: %+v", p)
	}
}

func TestWinnersAndLosers(t *testing.T) {
	h := hostOf(map[string]string{
		"/etc/sysctl.d/10-a.conf":     "net.core.somaxconn = 1000",
		"/usr/lib/sysctl.d/10-a.conf": "net.core.somaxconn = 999",
		"/run/sysctl.d/50-b.conf":     "net/core/somaxconn = 2000\nnet.core.somax* = 5\n-net.core.somaxconn.x",
		"/etc/sysctl.conf":            "net.core.somaxconn=3000",
	}, map[Key]string{keySomaxconn: "4096"})
	p := h.Provenance(keySomaxconn)
	if len(p.Persisted) != 2 || p.Persisted[0] != (Persisted{Loader: LoaderSystemd, Value: "2000", File: "/run/sysctl.d/50-b.conf", Line: 1}) ||
		p.Persisted[1] != (Persisted{Loader: LoaderProcps, Value: "3000", File: "/etc/sysctl.conf", Line: 1}) {
		t.Errorf("%+v", p.Persisted)
	}
	var got []string
	for _, l := range p.Losers[LoaderSystemd] {
		got = append(got, l.Where()+": "+l.Why)
	}
	want := []string{
		"/usr/lib/sysctl.d/10-a.conf:1: its file is replaced by /etc/sysctl.d/10-a.conf",
		"/etc/sysctl.d/10-a.conf:1: overridden by /run/sysctl.d/50-b.conf:1",
		"/run/sysctl.d/50-b.conf:2: the pattern leaves out keys that are named elsewhere",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	r := h.Row(keySomaxconn, &Facts{Live: h.Live})
	if r.AfterReboot != "2000" || r.Live != "4096" || !strings.Contains(r.Why, "a reboot changes it") {
		t.Errorf("%+v", r)
	}
	if d := h.Drifts(); len(d) != 1 || d[0].Key != keySomaxconn || d[0].Unsaved {
		t.Errorf("%+v", d)
	}
}
