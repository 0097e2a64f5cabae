package sysctl

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestKeys(t *testing.T) {
	for name, want := range map[string]Key{
		"net.ipv4.tcp_sack": "net.ipv4.tcp_sack", "net/ipv4/tcp_sack": "net.ipv4.tcp_sack", "/proc/sys/net/ipv4/tcp_sack": "net.ipv4.tcp_sack",
		"net.ipv4.conf.eth0/100.rp_filter": "net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter": "net.ipv4.conf.eth0/100.rp_filter",
	} {
		if got := ParseKey(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	k := Key("net.ipv4.conf.eth0/100.rp_filter")
	if k.Path() != "net/ipv4/conf/eth0.100/rp_filter" {
		t.Error(k.Path())
	}
	if i, ok := k.Interface(); !ok || i != "eth0.100" {
		t.Error(i, ok)
	}
	if e, ok := Find(k); !ok || e.Key != "net.ipv4.conf.*.rp_filter" {
		t.Error("not found")
	}
	for _, bad := range []Key{"", "net", "net.ipv4.conf.eth0.nonsense", "kernel.pid_max", "net.ipv4.conf.../x", "NET.core.somaxconn", "net.core.somaxconn\n", "net.core.somaxconn x", "net.ipv4.conf.*.rp_filter", "vm.swappiness"} {
		if bad.CheckWritable() == nil {
			t.Errorf("%q could be written", bad)
		}
	}
	for _, good := range []Key{keySomaxconn, k, keyPortRange} {
		if err := good.CheckWritable(); err != nil {
			t.Error(err)
		}
	}
}

func TestEqualAndRaise(t *testing.T) {
	for _, c := range []struct {
		s    Shape
		a, b string
		same bool
	}{
		{ShapeInts, "4096\t131072\t6291456", " 4096 131072   6291456 ", true}, {ShapeInts, "1 2", "1 2 3", false}, {ShapeInt, "0x1000", "4096", true},
		{ShapeInt, "010", "8", true}, {ShapeInt, "65535 # c", "65535", true}, {ShapePorts, "1,2,3", "1-3", true}, {ShapePorts, "", "\n", true}, {ShapePorts, "1,3", "1-3", false},
		{ShapeWords, "cubic reno", "reno  cubic", true}, {ShapeText, " bbr", "bbr\n", true}, {ShapeText, "bbr", "cubic", false},
	} {
		if c.s.Equal(c.a, c.b) != c.same {
			t.Errorf("%s %q %q", c.s, c.a, c.b)
		}
	}
	for _, c := range []struct {
		s                Shape
		have, want, out  string
		changed, refused bool
	}{
		{ShapeInts, "4096 131072 6291456", "1 200000 1", "4096 200000 6291456", true, false}, {ShapeInt, "5", "4", "5", false, false},
		{ShapePorts, "8080", "8081,9000", "8080-8081,9000", true, false}, {ShapeWords, "a b", "b", "a b", false, false},
		{ShapeText, "a", "b", "", false, true}, {ShapeInt, "x", "1", "", false, true}, {ShapeInts, "1", "1 2", "", false, true},
	} {
		out, changed, err := c.s.Raise(c.have, c.want)
		if out != c.out || changed != c.changed || (err != nil) != c.refused {
			t.Errorf("%+v: %q %v %v", c, out, changed, err)
		}
	}
}

// TestPortsRoundTrip: a list survives rendering, and raising never loses a port.
func TestPortsRoundTrip(t *testing.T) {
	gen := rapid.SliceOf(rapid.Custom(func(t *rapid.T) PortRange {
		a, b := rapid.Uint16().Draw(t, "a"), rapid.Uint16().Draw(t, "b")
		return PortRange{min(a, b), max(a, b)}
	}))
	rapid.Check(t, func(t *rapid.T) {
		a, b := MergePorts(gen.Draw(t, "have")), MergePorts(gen.Draw(t, "want"))
		back, err := ParsePorts(FormatPorts(a))
		if err != nil || !slices.Equal(back, a) {
			t.Fatalf("%v became %v (%v)", a, back, err)
		}
		merged, _, err := ShapePorts.Raise(FormatPorts(a), FormatPorts(b))
		if err != nil {
			t.Fatal(err)
		}
		m, _ := ParsePorts(merged)
		port := rapid.Uint16().Draw(t, "port")
		has := func(l []PortRange) bool {
			return slices.ContainsFunc(l, func(r PortRange) bool { return r.Contains(port) })
		}
		if has(m) != (has(a) || has(b)) {
			t.Fatalf("port %d: %v + %v = %v", port, a, b, m)
		}
	})
}

func TestPlanAndDropIn(t *testing.T) {
	c, needed, err := PlanChange(keyPortRange, "32768\t60999", "16384 65535", "ports run out\nrm -rf /", false)
	if err != nil || !needed || c.After != "16384 65535" || strings.Contains(c.Reason, "\n") {
		t.Fatalf("%+v %v %v", c, needed, err)
	}
	if _, needed, err := PlanChange(keyPortRange, "10000 65535", "16384 65535", "", false); err != nil || needed {
		t.Errorf("would narrow: %v %v", needed, err)
	}
	r, needed, err := PlanChange(keyReservedPorts, "40000", "50000", "chat", false)
	if err != nil || !needed || r.After != "40000,50000" {
		t.Errorf("%+v %v", r, err)
	}
	if c, _, err := PlanChange("net.ipv4.conf.eth0.rp_filter", "1", "2", "asymmetric", true); err != nil || c.Inverse().After != "1" {
		t.Errorf("%+v %v", c, err)
	}
	for _, bad := range []struct {
		k    Key
		want string
	}{{keyFileMax, "1"}, {keySomaxconn, "1\n2"}, {keySomaxconn, "abc"}, {keySomaxconn, "99999999"}, {"net.ipv4.tcp_tw_reuse", "9"}} {
		if _, _, err := PlanChange(bad.k, "4096", bad.want, "", true); err == nil {
			t.Errorf("%s = %q was planned", bad.k, bad.want)
		}
	}

	d, err := ParseDropIn(nil)
	if err != nil {
		t.Fatal(err)
	}
	text := d.Set(c, r).Render()
	want := dropInHeader + "\n# ports run out rm -rf /\nnet.ipv4.ip_local_port_range = 16384 65535\n\n# chat\nnet.ipv4.ip_local_reserved_ports = 40000,50000\n"
	if string(text) != want {
		t.Errorf("%s", text)
	}
	again, err := ParseDropIn(text)
	if err != nil || string(again.Render()) != want {
		t.Fatalf("%v", err)
	}
	more := again.Set(Change{Key: keyReservedPorts, After: "60000", Reason: "db"})
	if s := more.Settings()[1]; s.Value != "40000,50000,60000" || s.Reason != "db" {
		t.Errorf("%+v", s)
	}
	if more.Remove(keyReservedPorts, keyPortRange).Render() != nil {
		t.Error("an empty file is no file")
	}
	for _, foreign := range []string{string(text) + "vm.swappiness = 1\n", string(text) + "# mine\n", "net.core.somaxconn=5\n", "x"} {
		if _, err := ParseDropIn([]byte(foreign)); !errors.Is(err, ErrForeign) {
			t.Errorf("%q: %v", foreign, err)
		}
	}
	// Both loaders read the file as it is meant, and the plan is simulated first.
	h := hostOf(map[string]string{"/etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf", "/etc/sysctl.conf": "net.ipv4.ip_local_port_range = 20000 30001"}, map[Key]string{keyPortRange: "32768 60999"})
	tree := everywhere(debian(map[string]string{"/etc/sysctl.d/99-sysctl.conf": "-> ../sysctl.conf", "/etc/sysctl.conf": "net.ipv4.ip_local_port_range = 20000 30001"})).With(DropInPath, text)
	after := NewHost(tree, h.Keys, h.Live, h.Kernel).Provenance(keyPortRange)
	if after.Reboot.Value != "16384 65535" || after.Persisted[0].File != DropInPath || after.Persisted[1].File != "/etc/sysctl.conf" {
		t.Errorf("%+v", after)
	}
	if m := d.Set(Change{Key: keyConntrackMax, After: "5"}).Modules(); !slices.Equal(m, []string{"nf_conntrack"}) {
		t.Errorf("%v", m)
	}
}

func TestFnmatchAndBraces(t *testing.T) {
	for _, c := range []struct {
		p, s string
		want bool
	}{
		{"*", "eth0", true}, {"*", ".hidden", false}, {".*", ".hidden", true}, {"e*0", "eth0", true}, {"e*1", "eth0", false}, {"[a-e]th?", "eth0", true},
		{"[!a-e]th?", "eth0", false}, {"[[:digit:]]", "5", true}, {"[]x]", "]", true}, {"[x", "[x", true}, {`\*`, "*", true}, {`\*`, "x", false}, {"a*b*c*d", strings.Repeat("ab", 2000), false},
	} {
		if got := fnmatch(c.p, c.s); got != c.want {
			t.Errorf("%q %.20q: %v", c.p, c.s, got)
		}
	}
	for p, want := range map[string][]string{"a{b,c}d": {"abd", "acd"}, "{a}": {"a"}, "a{b,{c,d}}": {"ab", "a{c,d}"}, "{}": nil, "{x": nil, `\{a,b}`: nil} {
		got, _ := expandBrace(p)
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q", p, got)
		}
	}
	budget := maxGlobWork
	glob(strings.Repeat("{a,b}", 30), globFlags{brace: true, noCheck: true}, NewKeySet(nil), &budget)
	if budget >= 0 {
		t.Error("the bomb was not stopped")
	}
	bomb := complete(files(map[string]string{"/etc/sysctl.d/x.conf": strings.Repeat("net."+strings.Repeat("{a,b}", 30)+"* = 1\n", 3)}))
	if o := Simulate(LoaderSystemd, bomb, NewKeySet([]Key{keySomaxconn})); len(o.Gaps) == 0 {
		t.Error("what was not expanded is no gap")
	}
}

// TestMeets: by meaning, larger where larger is fine, wider for the range.
func TestMeets(t *testing.T) {
	for _, c := range []struct {
		key         Key
		value, want string
		meets       bool
	}{
		{keySomaxconn, "65535", "4096", true},
		{keySomaxconn, "0x1000", " 4096\n", true},
		{keySomaxconn, "128", "4096", false},
		{"net.ipv4.tcp_rmem", "4096\t131072\t6291456", "4096 131072 6291456", true},
		{"net.ipv4.tcp_rmem", "4096 131072 8388608", "4096 131072 6291456", true},
		{"net.ipv4.tcp_rmem", "4096 87380 8388608", "4096 131072 6291456", false},
		{keyPortRange, "10000 65535", "10240 65000", true},
		{keyPortRange, "32768 60999", "10240 65000", false},
		{keyReservedPorts, "8080-8082", "8080,8081,8082", true},
		{"net.ipv4.tcp_fin_timeout", "120", "60", false},
	} {
		e, ok := Find(c.key)
		if !ok {
			t.Fatal(c.key)
		}
		if got := e.Meets(c.value, c.want); got != c.meets {
			t.Errorf("%s: %q meets %q: %v", c.key, c.value, c.want, got)
		}
	}
}
