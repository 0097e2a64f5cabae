package sysctl

import (
	"strings"
	"testing"
)

// FuzzParsers: both parsers take any bytes, and what they return is well formed.
func FuzzParsers(f *testing.F) {
	for _, s := range []string{
		"", "net.core.somaxconn = 5\n", "-net.core.x\r\n; c\r#\x00a=b", "\ufeffa=b", "=5", "--a=b", "a\\=b\n\n\r\r\x00\x00c=d", "net.ipv4.conf.*.x=1\n-net/ipv4/conf/v.1/x",
		"/.//../=", "net.ipv4..=\v5\f", "[=5", "net.{a,b}*=1", "../../x=1",
	} {
		f.Add([]byte(s))
	}
	keys := NewKeySet([]Key{keySomaxconn, keyPortRange, "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.v/1.rp_filter"})
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, _ := parseProcps(&Outcome{}, "f", data, 0)
		for _, a := range append(lines, parseSystemd(&Outcome{}, "f", data)...) {
			if a.Line < 1 || strings.ContainsAny(a.Value, "\n\x00") || a.Exclude && a.Value != "" {
				t.Errorf("%+v", a)
			}
		}
		tree := &Tree{Nodes: map[string]*Node{
			"/": {Kind: NodeDir}, "/etc": {Kind: NodeDir}, "/etc/sysctl.d": {Kind: NodeDir, Listed: true, Entries: []string{"x.conf"}},
			"/etc/sysctl.d/x.conf": {Kind: NodeFile, Data: data}, sysctlConf: {Kind: NodeFile, Data: data},
		}}
		for _, l := range Loaders() {
			o := Simulate(l, tree, keys)
			for _, w := range o.Writes {
				if !keys.Has(w.Key) {
					t.Errorf("%s writes %s, which does not exist", l, w.Key)
				}
				if w.By >= len(o.Lines) || !o.Lines[w.By].concerns(w.Key) && !strings.Contains(o.Lines[w.By].Path, "..") && o.work >= 0 && strings.Count(o.Lines[w.By].Path, "{") < 5 {
					t.Errorf("%s: %s by %+v", l, w.Key, o.Lines[w.By])
				}
				o.Losers(w.Key)
				o.InForce(w.Key, "1 2")
			}
			Lint(&Facts{}, []*Outcome{o}, tree)
		}
	})
}

// FuzzGlob: no pattern runs away or finds what does not exist.
func FuzzGlob(f *testing.F) {
	for _, s := range []string{"/proc/sys/net/*/x", "/proc/sys/[", "{,}", "**", "/proc/sys/net/ipv4/conf/{a,b}*/[[:alpha:]]*", `\`, "/"} {
		f.Add(s)
	}
	keys := NewKeySet([]Key{keySomaxconn, "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.v/1.rp_filter"})
	f.Fuzz(func(t *testing.T, p string) {
		if len(p) > 200 {
			return
		}
		budget := 1000
		for _, m := range glob(p, globFlags{brace: true}, keys, &budget) {
			if !keys.exists(m) {
				t.Errorf("%q matches %q, which does not exist", p, m)
			}
		}
	})
}

// FuzzValues: canonical text is stable, and raising is a true upper bound.
func FuzzValues(f *testing.F) {
	f.Add("4096 131072", "0x10 5")
	f.Add("1-5,7", "6,,")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, s := range []Shape{ShapeInt, ShapeInts, ShapePorts, ShapeWords, ShapeText} {
			c := s.Canonical(a)
			if s.Canonical(c) != c {
				t.Errorf("%s: %q is not stable: %q", s, c, s.Canonical(c))
			}
			if m, _, err := s.Raise(a, b); err == nil {
				if again, changed, err := s.Raise(m, b); err != nil || changed {
					t.Errorf("%s: %q raised by %q again: %q %v", s, m, b, again, err)
				}
			}
		}
		for _, e := range Catalogue() {
			e.store(a, b)
		}
	})
}

// FuzzDropIn: what is accepted renders to itself.
func FuzzDropIn(f *testing.F) {
	f.Add([]byte(dropInHeader + "\n# x\nnet.core.somaxconn = 5\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if d, err := ParseDropIn(data); err == nil && string(d.Render()) != string(data) {
			t.Errorf("%q", data)
		}
	})
}
