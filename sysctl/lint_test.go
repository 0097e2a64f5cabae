package sysctl

import (
	"slices"
	"strings"
	"testing"
)

// files builds a tree from path → content; a content that begins with "-> " is
// a link.
func files(m map[string]string) *Tree {
	t := &Tree{Nodes: map[string]*Node{"/": {Kind: NodeDir, Listed: true}}}
	for _, dir := range slices.Concat(sysctlDirs, modulesDirs, udevDirs, modprobeDirs) {
		t = t.With(dir+"/.keep", []byte("x")).With(dir+"/.keep", nil)
	}
	for p, text := range m {
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			t = t.With(p, []byte("x"))
			t.Nodes[p] = &Node{Kind: NodeLink, Target: target}
			continue
		}
		t = t.With(p, []byte(text))
	}
	return t
}

// Everything that was never captured is a gap; the tests' trees are complete.
func complete(t *Tree) *Tree {
	for _, n := range t.Nodes {
		if n.Kind == NodeDir {
			n.Listed = true
		}
	}
	return t
}

func lintText(text string, f *Facts) []LintFinding {
	t := complete(files(map[string]string{"/etc/sysctl.d/50-x.conf": text}))
	keys := NewKeySet(slices.DeleteFunc(slices.Collect(mapKeys(f.Live)), func(k Key) bool { return f.Live[k].State != Present }))
	var outcomes []*Outcome
	for _, l := range Loaders() {
		outcomes = append(outcomes, Simulate(l, t, keys))
	}
	return Lint(f, outcomes, t)
}

func mapKeys(v Values) func(yield func(Key) bool) {
	return func(yield func(Key) bool) {
		for k := range v {
			if !yield(k) {
				return
			}
		}
	}
}

// lintCases: a line that is found and its healthy neighbour that is not.
var lintCases = []struct {
	id        string
	bad, good string
	severity  Severity
}{
	{"sysctl.tw-recycle", "net.ipv4.tcp_tw_recycle = 0", "# net.ipv4.tcp_tw_recycle = 0", Info},
	{"sysctl.tw-reuse-inbound", "net.ipv4.tcp_tw_reuse = 1", "net.ipv4.tcp_tw_reuse = 2", Info},
	{"sysctl.tw-reuse-without-timestamps", "net.ipv4.tcp_tw_reuse=1\nnet.ipv4.tcp_timestamps=0", "net.ipv4.tcp_tw_reuse=1", Warning},
	{"sysctl.fin-timeout-misused", "net.ipv4.tcp_fin_timeout = 15", "net.ipv4.tcp_fin_timeout = 60", Info},
	{"sysctl.tw-buckets-lowered", "net.ipv4.tcp_max_tw_buckets = 20000", "net.ipv4.tcp_max_tw_buckets = 2000000", Warning},
	{"sysctl.syn-backlog-ineffective", "net.ipv4.tcp_max_syn_backlog = 262144", "net.ipv4.tcp_max_syn_backlog = 262144\nnet.ipv4.tcp_syncookies = 0", Info},
	{"sysctl.file-max-lowered", "fs.file-max = 6815744", "fs.file-max = 9223372036854775807", Warning},
	{"sysctl.conntrack-buckets-missing", "net.netfilter.nf_conntrack_max = 2621440", "net.netfilter.nf_conntrack_max = 2621440\nnet.netfilter.nf_conntrack_buckets = 2621440", Warning},
	{"sysctl.ephemeral-range-overlaps", "net.ipv4.ip_local_port_range = 1024 65535", "net.ipv4.ip_local_port_range = 16384 65535", Warning},
	{"sysctl.ephemeral-range-overlaps", "net.ipv4.ip_local_port_range = 5000 65535", "net.ipv4.ip_local_port_range = 5000 65535\nnet.ipv4.ip_local_reserved_ports = 8080", Warning},
	{"sysctl.ephemeral-range-parity", "net.ipv4.ip_local_port_range = 10240 65000", "net.ipv4.ip_local_port_range = 10240 65535", Info},
	{"sysctl.abort-on-overflow", "net/ipv4/tcp_abort_on_overflow = 1", "net.ipv4.tcp_abort_on_overflow = 0", Warning},
	{"sysctl.memory-oversized", "net.core.rmem_default=16777216", "net.core.rmem_max=16777216", Warning},
	{"sysctl.memory-oversized", "net.ipv4.tcp_rmem = 4096 16777216 16777216", "net.ipv4.tcp_rmem = 4096 131072 16777216", Warning},
	{"sysctl.memory-oversized", "net.ipv4.tcp_mem = 8388608 8388608 8388609", "net.ipv4.tcp_mem = 100000 200000 300000", Warning},
	{"sysctl.tcp-feature-disabled", "net.ipv4.tcp_sack = 0", "net.ipv4.tcp_sack = 1", Warning},
	{"sysctl.tcp-feature-disabled", "net.ipv4.tcp_time* = 0", "net.ipv4.tcp_time* = 1", Warning},
	{"sysctl.syncookies-off", "net.ipv4.tcp_syncookies = 0", "net.ipv4.tcp_syncookies = 1", Warning},
	{"sysctl.syncookies-forced", "net.ipv4.tcp_syncookies = 2", "net.ipv4.tcp_syncookies = 1", Info},
	{"sysctl.keepalive-misused", "net.ipv4.tcp_keepalive_time = 30", "net.ipv4.tcp_keepalive_time = 600", Info},
	{"sysctl.tw-reuse-delay-short", "net.ipv4.tcp_tw_reuse_delay = 10", "net.ipv4.tcp_tw_reuse_delay = 1000", Warning},
	{"sysctl.autobind-reuse", "net.ipv4.ip_autobind_reuse = 1", "net.ipv4.ip_autobind_reuse = 0", Info},
	{"sysctl.unknown-key", "net.ipv6.ip_local_port_range = 1024 65000", "net.ipv4.ip_local_port_range = 16384 65535", Info},
	{"sysctl.no-effect", "net.ipv4.tcp_fack = 1", "", Info},
	{"sysctl.invalid-syntax", "net.ipv4.ip_forward 1", "net.ipv4.ip_forward = 1", Warning},
	{"sysctl.byte-order-mark", "\ufeffnet.ipv4.ip_forward = 1", "net.ipv4.ip_forward = 1", Warning},
	{"sysctl.unsafe-path", "net/../../../etc/passwd = x", "net.ipv4.ip_forward = 1", Warning},
	{"sysctl.value-refused", "net.ipv4.ip_local_port_range = 65535 16384", "net.ipv4.ip_local_port_range = 16384 65535", Warning},
	{"sysctl.value-refused", "net.ipv4.ip_forward = \"1\"", "net.ipv4.ip_forward = 1", Warning},
}

func TestLint(t *testing.T) {
	tested := map[string]bool{}
	for _, c := range lintCases {
		tested[c.id] = true
		f := healthy()
		f.Listeners = append(f.Listeners, Listener{Proto: "tcp", Port: 8080})
		found := slices.DeleteFunc(lintText(c.bad, f), func(l LintFinding) bool { return l.Rule.ID != c.id || l.Live })
		if len(found) != 1 {
			t.Errorf("%q: %d findings %s: %v", c.bad, len(found), c.id, found)
			continue
		}
		if l := found[0]; l.Severity != c.severity || l.File != "/etc/sysctl.d/50-x.conf" || l.Line != 1 || l.Rule.Instead == "" {
			t.Errorf("%q: %+v", c.bad, l)
		}
		for _, l := range lintText(c.good, f) {
			if l.Rule.ID == c.id {
				t.Errorf("%q: %v", c.good, l)
			}
		}
	}
	for _, r := range LintRules() {
		if !tested[r.ID] {
			t.Errorf("no case for %s", r.ID)
		}
	}
}

// TestLintMasked: bad advice is found even where it is not in force.
func TestLintMasked(t *testing.T) {
	f := healthy()
	tr := complete(files(map[string]string{
		"/etc/sysctl.d/50-x.conf":     "net.ipv4.tcp_sack = 1",
		"/usr/lib/sysctl.d/50-x.conf": "net.ipv4.tcp_sack = 0",
		"/usr/lib/sysctl.d/10-y.conf": "# tuned\nnet.ipv4.tcp_syncookies = 0",
		"/etc/sysctl.d/99-z.conf":     "net.ipv4.tcp_syncookies = 1",
		"/etc/sysctl.d/readme.txt":    "net.ipv4.tcp_sack = 0",
		"/etc/sysctl.d/99-forgotten":  "net.ipv4.tcp_sack = 0",
	}))
	keys := NewKeySet([]Key{"net.ipv4.tcp_sack", keySyncookies})
	got := map[string]string{}
	for _, l := range Lint(f, []*Outcome{Simulate(LoaderSystemd, tr, keys), Simulate(LoaderProcps, tr, keys)}, tr) {
		got[l.Rule.ID+" "+l.Where] = l.Idle
	}
	want := map[string]string{
		"sysctl.tcp-feature-disabled /usr/lib/sysctl.d/50-x.conf:1": "its file is replaced by /etc/sysctl.d/50-x.conf",
		"sysctl.syncookies-off /usr/lib/sysctl.d/10-y.conf:2":       "overridden by /etc/sysctl.d/99-z.conf:1",
		"sysctl.file-not-read /etc/sysctl.d/99-forgotten":           "",
	}
	for k, idle := range want {
		if g, ok := got[k]; !ok || g != idle {
			t.Errorf("%s: %q %v", k, g, ok)
		}
	}
	if len(got) != len(want) {
		t.Errorf("findings: %v", got)
	}
}

func TestLintLimits(t *testing.T) {
	tr := complete(files(map[string]string{
		"/etc/security/limits.conf":        "# comment nofile\n* soft nofile 1024000\nroot - nproc 5\n",
		"/etc/security/limits.d/20-x.conf": "www-data hard nofile 65535 # why\n",
		"/etc/profile":                     "export PATH\nulimit -HSn 102400\nulimit -c 0\n",
	}))
	var got []string
	for _, l := range lintLimits(tr) {
		got = append(got, l.Where+" "+l.Value)
	}
	want := []string{"/etc/security/limits.conf:2 1024000", "/etc/security/limits.d/20-x.conf:1 65535", "/etc/profile:2 102400"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
