package checks_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// advice is the table of popular advice: the line, the finding, and whether the
// value can be tried in a namespace.
var advice = []struct {
	key, value, id string
	severity       audit.Severity
	live           bool
}{
	{"net.ipv4.tcp_tw_recycle", "1", "sysctl.tw-recycle", audit.Info, false},
	{"net.ipv4.tcp_tw_reuse", "1", "sysctl.tw-reuse-inbound", audit.Info, true},
	{"net.ipv4.tcp_fin_timeout", "15", "sysctl.fin-timeout-misused", audit.Info, true},
	{"net.ipv4.tcp_max_tw_buckets", "2000", "sysctl.tw-buckets-lowered", audit.Warning, true},
	{"net.ipv4.tcp_max_syn_backlog", "262144", "sysctl.syn-backlog-ineffective", audit.Info, true},
	{"fs.file-max", "6815744", "sysctl.file-max-lowered", audit.Info, false},
	{"net.netfilter.nf_conntrack_max", "26214400", "sysctl.conntrack-buckets-missing", audit.Warning, false},
	{"net.ipv4.ip_local_port_range", "1024 65535", "sysctl.ephemeral-range-overlaps", audit.Warning, true},
	{"net.ipv4.tcp_abort_on_overflow", "1", "sysctl.abort-on-overflow", audit.Warning, true},
	{"net.core.rmem_default", "16777216", "sysctl.memory-oversized", audit.Warning, false},
	{"net.ipv4.tcp_sack", "0", "sysctl.tcp-feature-disabled", audit.Warning, true},
	{"net.ipv4.tcp_window_scaling", "0", "sysctl.tcp-feature-disabled", audit.Warning, true},
	{"net.ipv4.tcp_syncookies", "0", "sysctl.syncookies-off", audit.Warning, true},
	{"net.ipv4.tcp_keepalive_time", "30", "sysctl.keepalive-misused", audit.Info, true},
	{"net.ipv6.ip_local_port_range", "1024 65000", "sysctl.unknown-key", audit.Info, false},
	{"net.ipv4.tcp_fack", "1", "sysctl.no-effect", audit.Info, false},
}

// TestAdviceInForce: each value of the table is set in a namespace of its own
// and found by a scan, with the place "in force"; the namespace as the kernel
// makes it is the twin.
func TestAdviceInForce(t *testing.T) {
	silent(t, newHost(t, lab.Topology{}).scan(nil), "sysctl.harmful-advice")
	for _, a := range advice {
		if !a.live {
			continue
		}
		t.Run(a.key, func(t *testing.T) {
			h := newHost(t, lab.Topology{})
			h.Server.Sysctl(t, a.key, a.value)
			besides := []string{}
			if a.key == "net.ipv4.tcp_max_syn_backlog" {
				h.Server.Sysctl(t, "net.ipv4.tcp_syncookies", "1")
			}
			f := want(t, h.scan(nil), a.severity, a.id, a.key, besides...)
			evidence(t, f, "in force", a.key+" = "+a.value)
		})
	}
	t.Run("reuse without timestamps", func(t *testing.T) {
		h := newHost(t, lab.Topology{})
		h.Server.Sysctl(t, "net.ipv4.tcp_timestamps", "0", "net.ipv4.tcp_tw_reuse", "2")
		r := h.scan(nil)
		want(t, r, audit.Warning, "sysctl.tw-reuse-without-timestamps", "net.ipv4.tcp_tw_reuse", "sysctl.tcp-feature-disabled")
		want(t, r, audit.Warning, "sysctl.tcp-feature-disabled", "net.ipv4.tcp_timestamps", "sysctl.tw-reuse-without-timestamps")
	})
}

// TestAdviceInFiles: the same lines in a file that another one masks, so that
// none is in force under any loader: each is found with file and line, and says
// that it has no effect at present.
func TestAdviceInFiles(t *testing.T) {
	h := newHost(t, lab.Topology{})
	var masked []string
	for _, a := range advice {
		masked = append(masked, a.key+" = "+a.value)
	}
	write := h.file
	write("usr/lib/sysctl.d/50-tuning.conf", strings.Join(masked, "\n")+"\n")
	write("etc/sysctl.d/50-tuning.conf", "net.ipv4.ip_forward 1\n") // masks it, and is no assignment
	write("etc/security/limits.conf", "* soft nofile 1024000\n")
	write("etc/profile", "ulimit -HSn 102400\n")
	r := h.scan(nil)
	found := map[string]audit.Finding{}
	for _, f := range ours(t, r) {
		found[f.ID+" "+f.Subject] = f
	}
	for i, a := range advice {
		f, ok := found[a.id+" "+a.key]
		if !ok {
			t.Errorf("%s = %s: no %s among %v", a.key, a.value, a.id, slices.Sorted(maps.Keys(found)))
			continue
		}
		if f.Severity != audit.Info || !strings.Contains(f.Why, "has no effect") {
			t.Errorf("%s: %s, %s", f.ID, f.Severity, f.Why)
		}
		evidence(t, f, "/usr/lib/sysctl.d/50-tuning.conf:"+itoa(i+1), "replaced by /etc/sysctl.d/50-tuning.conf")
	}
	for _, id := range []string{"sysctl.invalid-syntax /etc/sysctl.d/50-tuning.conf", "limits.ineffective-for-services /etc/security/limits.conf",
		"limits.ineffective-for-services /etc/profile"} {
		if _, ok := found[id]; !ok {
			t.Errorf("no %s among %v", id, slices.Sorted(maps.Keys(found)))
		}
	}
}

// TestLateModule: a line for a key of a module that nothing loads before the files
// are applied. It is found, and what is recommended ends it.
func TestLateModule(t *testing.T) {
	h := newHost(t, lab.Topology{})
	h.file("usr/lib/systemd/systemd-sysctl", "")
	h.file("usr/lib/systemd/systemd", "")
	h.file("sbin/x", "")
	if err := os.Symlink("/usr/lib/systemd/systemd", filepath.Join(h.root, "sbin/init")); err != nil {
		t.Fatal(err)
	}
	said := func() []string {
		return slices.DeleteFunc(ids(h.scan(nil)), func(s string) bool { return !strings.HasPrefix(s, "sysctl.not-applied-at-boot") })
	}
	h.file("etc/sysctl.d/10-mine.conf", "net.ipv4.tcp_syncookies = 1\n")
	if got := said(); len(got) > 0 {
		t.Errorf("a key that is always there: %v", got)
	}
	h.file("etc/sysctl.d/10-mine.conf", "net.netfilter.nf_conntrack_tcp_loose = 1\n")
	if got := said(); !slices.Equal(got, []string{"sysctl.not-applied-at-boot nf_conntrack"}) {
		t.Errorf("a key of a module: %v", got)
	}
	h.file("etc/modules-load.d/conntrack.conf", "nf_conntrack\n")
	if got := said(); len(got) > 0 {
		t.Errorf("with the module loaded at boot, as recommended: %v", got)
	}
}

// TestFirewallDisabled: the rules of nftables.service are in the kernel and keep a
// client out; somebody flushes them "to test", and the client comes in.
func TestFirewallDisabled(t *testing.T) {
	lab.Need(t, "nft")
	const rules = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0; policy drop;\n\t\tct state established accept\n\t\ttcp dport 22 accept\n\t}\n}\n"
	h := newHost(t, lab.Topology{})
	h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:80")})
	probe := lab.Probe{From: h.ClientAddr(0), To: addrPort("10.9.0.2:80")}
	said := func() []string {
		return slices.DeleteFunc(ids(h.scan(nil)), func(s string) bool { return !strings.HasPrefix(s, "firewall.disabled") })
	}
	h.sees(lab.Connected, probe)
	if got := said(); len(got) > 0 {
		t.Errorf("no firewall was ever set up: %v", got)
	}
	h.file("etc/nftables.conf", "flush ruleset\n"+rules)
	unit := filepath.Join(h.root, "etc/systemd/system/sysinit.target.wants")
	if err := os.MkdirAll(unit, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/lib/systemd/system/nftables.service", filepath.Join(unit, "nftables.service")); err != nil {
		t.Fatal(err)
	}
	h.Server.Load(t, lab.NFT, rules)
	h.sees(lab.Timeout, probe)
	if got := said(); len(got) > 0 {
		t.Errorf("the firewall works: %v", got)
	}
	h.Server.Run(t, "nft", "flush", "ruleset")
	h.sees(lab.Connected, probe)
	if got := said(); !slices.Equal(got, []string{"firewall.disabled nftables.service"}) {
		t.Errorf("flushed: %v", got)
	}
}
