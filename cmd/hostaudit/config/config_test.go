package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/hostaudit/hostaudit/audit"
)

const good = `# what this host serves
services:
  - {name: chat, port: 2346, proto: tcp, audience: everyone, protocol: websocket}
  - {name: db,   port: 5432, proto: tcp, audience: [10.0.0.0/8, 192.0.2.7, "2001:db8::/32"]}
  - name: cache
    port: 6379
    audience: host
accept:
  - {id: listener.loopback-only, subject: "tcp 127.0.0.1:9000", reason: "php-fpm behind nginx", until: 2027-06-30}
fail-on: warning
sample: 2s
quick: true
width: 100
profile: websocket
`

func TestDecode(t *testing.T) {
	got, err := decode([]byte(good), "/etc/hostaudit/hostaudit.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"services": []audit.Service{
			{Name: "chat", Proto: "tcp", Port: 2346, Protocol: "websocket", Source: "hostaudit.yaml:3"},
			{Name: "db", Proto: "tcp", Port: 5432, Source: "hostaudit.yaml:4", Audience: audit.Audience{Kind: audit.ForNetworks, Networks: []netip.Prefix{
				netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/32")}}},
			{Name: "cache", Proto: "tcp", Port: 6379, Source: "hostaudit.yaml:5", Audience: audit.Audience{Kind: audit.ForHost}},
		},
		"accept": []audit.Waiver{{ID: "listener.loopback-only", Subject: "tcp 127.0.0.1:9000", Reason: "php-fpm behind nginx",
			Until: time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC), Source: "hostaudit.yaml:9"}},
		"fail-on": "warning", "sample": "2s", "quick": "true", "width": "100", "profile": "websocket",
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"servcies: []", `f.yaml:1: servcies: no such key (did you mean "services"?)`},
		{"services:\n  - {nmae: x}", `f.yaml:2: services[0].nmae: no such key (did you mean "name"?)`},
		{"services: 7", "f.yaml:1: services: the number 7 where a list is expected"},
		{"services: {}", "f.yaml:1: services: a mapping where a list is expected"},
		{"services: [7]", "f.yaml:1: services[0]: the number 7 where key: value is expected"},
		{"services:\n- name: a\n  port: 70000", "f.yaml:3: services[0].port: 70000 is not a port from 1 to 65535"},
		{"services:\n- name: a\n  port: -1", "f.yaml:3: services[0].port: -1 is not a port from 1 to 65535"},
		{"services:\n- name: a\n  port: 0x50", "f.yaml:3: services[0].port: 0x50 is not a port from 1 to 65535"},
		{"services:\n- name: a\n  port: http", `f.yaml:3: services[0].port: the text "http" where a number is expected`},
		{"services:\n- name: a\n  port: 1.5", "f.yaml:3: services[0].port: the number 1.5 where a number is expected"},
		{"services:\n- name: 5\n  port: 1", "f.yaml:2: services[0].name: the number 5 where text is expected"},
		{"services:\n- port: 1\n  audience: host", "f.yaml:2: services[0]: a service needs a name"},
		{"services:\n- name: a\n  audience: host", "f.yaml:2: services[0]: a service needs a port"},
		{"services:\n- name: a\n  port: 1", "f.yaml:2: services[0]: a service needs an audience: everyone, host, or a list of networks"},
		{"services:\n- {name: a, port: 1, audience: evryone}", `f.yaml:2: services[0].audience: "evryone" is neither everyone nor host nor a list of networks (did you mean "everyone"?)`},
		{"services:\n- {name: a, port: 1, audience: 10.0.0.0/8}", "f.yaml:2: services[0].audience: a network stands in a list: [10.0.0.0/8]"},
		{"services:\n- {name: a, port: 1, audience: [10.0.0.1/8]}", "f.yaml:2: services[0].audience[0]: 10.0.0.1/8 has bits set beyond its length; did you mean 10.0.0.0/8?"},
		{"services:\n- {name: a, port: 1, audience: []}", "f.yaml:2: services[0].audience: an empty list: nobody is meant to reach it; write host for this host only"},
		{"services:\n- {name: a, port: 1, audience: [x]}", `f.yaml:2: services[0].audience[0]: "x" is not a network such as 10.0.0.0/8`},
		{"services:\n- {name: a, port: 1, audience: }", "f.yaml:2: services[0].audience: nothing where text is expected"},
		{"services:\n- {name: a, port: 1, audience: host, proto: icmp}", `f.yaml:2: services[0].proto: "icmp" is none of tcp, udp`},
		{"services:\n- {name: a, port: 1, audience: host}\n- {name: b, port: 1, audience: host}", `f.yaml:3: services[1]: tcp 1 is configured twice, first as "a" (f.yaml:2)`},
		{"accept:\n- {id: x, subject: a, reason: b}", `f.yaml:2: accept[0].id: "x" is not the id of a finding, such as listener.loopback-only`},
		{"accept:\n- {id: a.b, subject: a}", "f.yaml:2: accept[0]: needs a reason"},
		{"accept:\n- {id: a.b, subject: a, reason: ' '}", "f.yaml:2: accept[0].reason: is empty"},
		{"accept:\n- {id: a.b, subject: a, reason: b, until: tomorrow}", `f.yaml:2: accept[0].until: "tomorrow" is not a date such as 2027-06-30`},
		{"accept:\n- {id: a.b, subject: a, reason: b, until: 2027-02-30}", `f.yaml:2: accept[0].until: "2027-02-30" is not a date such as 2027-06-30`},
		{"fail-on: high", `f.yaml:1: fail-on: "high" is none of critical, warning, info, never`},
		{"quick: yes please", `f.yaml:1: quick: the text "yes please" where true or false is expected`},
		{"sample: 2", "f.yaml:1: sample: the number 2 where text is expected"},
		{"sample: 2 s", `f.yaml:1: sample: "2 s" is not a duration such as 2s or 500ms`},
		{"sample: 1h", "f.yaml:1: sample: 1h is not between 0s and 10m"},
		{"width: 10", `f.yaml:1: width: "10" is not a width from 40 to 1000, or 0`},
		{"quick: true\nquick: false", "f.yaml:2: quick: stands twice, first in line 1"},
		{"a: &x 1", "f.yaml:1: anchors and aliases are not allowed"},
		{"services: &a [*a]", "f.yaml:1: anchors and aliases are not allowed"},
		{"[]", "f.yaml:1: a list where key: value is expected"},
		{"hello", `f.yaml:1: the text "hello" where key: value is expected`},
		{"quick: true\n---\nquick: true", "f.yaml:2: a second document; one is enough"},
		{"quick: [", "f.yaml:1: did not find expected node content"},
		{"quick: !foo true", `f.yaml:1: quick: a value of type "!foo" where true or false is expected`},
		{"? [a]\n: b", "f.yaml:1: no such key"},
	} {
		_, err := decode([]byte(c.in), "f.yaml")
		var e *Error
		if !errors.As(err, &e) || err.Error() != c.want {
			t.Errorf("%q:\n got %v\nwant %s", c.in, err, c.want)
		}
	}
	for _, ok := range []string{"", "# nothing\n", "---\n", "services:\n", "services: []\naccept: []\n"} {
		if _, err := decode([]byte(ok), "f.yaml"); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestPrecedence: file, then --config, then the environment, then flags; later wins.
func TestPrecedence(t *testing.T) {
	root := t.TempDir()
	write(t, root+DefaultFile, "fail-on: info\nwidth: 50\nsample: 3s\ncolor: never\nservices:\n- {name: a, port: 1, audience: host}\n")
	extra := write(t, filepath.Join(t.TempDir(), "x.yaml"), "width: 60\nsample: 4s\ncolor: always\nservices:\n- {name: b, port: 2, audience: host}\n")
	flags := pflag.NewFlagSet("t", pflag.ContinueOnError)
	for _, name := range []string{"color", "format"} {
		v, help, err := Flag(name)
		if err != nil {
			t.Fatal(err)
		}
		flags.Var(v, name, help)
	}
	if err := flags.Parse([]string{"--color", "auto"}); err != nil {
		t.Fatal(err)
	}
	s, err := Load(Options{Root: root, Explicit: extra, Environ: []string{"HOSTAUDIT_SAMPLE=5s", "HOSTAUDIT_COLOR=never", "PATH=/bin", "HOSTAUDIT_WIDTH="}, Flags: flags, EUID: os.Geteuid()})
	if err != nil {
		t.Fatal(err)
	}
	if s.FailOn != audit.Info || s.Width != 60 || s.Sample != 5*time.Second || s.Color != "auto" || s.Format != "text" || s.FormatAsked {
		t.Errorf("merged wrongly: %+v", s)
	}
	if len(s.Audit.Services) != 1 || s.Audit.Services[0].Name != "b" || s.Audit.Services[0].Source != "x.yaml:5" {
		t.Errorf("services: %+v", s.Audit.Services)
	}
	s, err = Load(Options{Root: root, Environ: []string{"HOSTAUDIT_SERVICES=[{name: e, port: 3, audience: everyone}]", "HOSTAUDIT_FORMAT=json"}, EUID: os.Geteuid()})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Audit.Services) != 1 || s.Audit.Services[0].Name != "e" || s.Audit.Services[0].Source != "environment HOSTAUDIT_SERVICES" || !s.FormatAsked {
		t.Errorf("environment: %+v", s)
	}
}

func TestEnvironmentMistakes(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{"HOSTAUDIT_FROMAT=json", `environment: HOSTAUDIT_FROMAT: no such setting (did you mean "HOSTAUDIT_FORMAT"?)`},
		{"HOSTAUDIT_X=", "environment: HOSTAUDIT_X: no such setting"},
		{"HOSTAUDIT_FORMAT=xml", `environment: HOSTAUDIT_FORMAT: "xml" is none of text, json, ndjson, sarif, junit, html, prometheus, nagios`},
		{"HOSTAUDIT_QUICK=1", `environment: HOSTAUDIT_QUICK: "1" is neither true nor false`},
		{"HOSTAUDIT_SERVICES=[{port: 0}]", "environment HOSTAUDIT_SERVICES:1: services[0].port: 0 is not a port from 1 to 65535"},
	} {
		_, err := Load(Options{Skip: true, Environ: []string{c.env}, EUID: 1})
		if err == nil || err.Error() != c.want {
			t.Errorf("%s:\n got %v\nwant %s", c.env, err, c.want)
		}
	}
}

// TestFiles: what may be read at all.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	euid := os.Geteuid()
	load := func(name string, euid int) error {
		_, err := Load(Options{Skip: true, Explicit: name, EUID: euid})
		return err
	}
	ok := write(t, dir+"/ok.yaml", "quick: true\n")
	if err := load(ok, euid); err != nil {
		t.Errorf("control: %v", err)
	}
	refused := func(name string, euid int, want string) {
		t.Helper()
		if err := load(name, euid); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	refused(dir+"/missing.yaml", euid, "no such file")
	refused(dir, euid, "not a regular file")
	refused("/dev/null", euid, "not a regular file")
	refused(write(t, dir+"/big.yaml", "#"+strings.Repeat("x", maxFile)), euid, "larger than")
	open := write(t, dir+"/open.yaml", "quick: true\n")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // only root's files can pass the owner's check
		refused(open, 0, "can be written by others")
		other := write(t, dir+"/other.yaml", "quick: true\n")
		if err := os.Chown(other, 65534, 65534); err != nil {
			t.Logf("cannot make a file of another user here: %v", err)
		} else {
			refused(other, 0, "belongs to user 65534")
		}
	} else {
		refused(ok, 0, "belongs to user")
	}
	if err := load(open, 1000); err != nil {
		t.Errorf("without root anybody's file counts: %v", err)
	}
}

// TestRoot: links are resolved inside the root and never leave it.
func TestRoot(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	write(t, root+"/real.yaml", "width: 77\n")
	write(t, outside+"/real.yaml", "width: 99\n")
	if err := os.MkdirAll(root+"/etc/hostaudit", 0o755); err != nil {
		t.Fatal(err)
	}
	link := func(target string) {
		os.Remove(root + DefaultFile)
		if err := os.Symlink(target, root+DefaultFile); err != nil {
			t.Fatal(err)
		}
	}
	load := func() (*Settings, error) { return Load(Options{Root: root, EUID: os.Geteuid()}) }
	link("/real.yaml")
	if s, err := load(); err != nil || s.Width != 77 {
		t.Errorf("absolute link: %+v, %v", s, err)
	}
	link("../../../../../../../../real.yaml")
	if s, err := load(); err != nil || s.Width != 77 {
		t.Errorf("link that climbs: %+v, %v", s, err)
	}
	link(outside + "/real.yaml")
	if s, err := load(); err != nil || s.Width == 99 {
		t.Errorf("link that leaves: %+v, %v", s, err)
	}
	if _, err := Load(Options{Root: root + "/nowhere", EUID: os.Geteuid()}); err == nil {
		t.Error("a root that does not exist is not an empty configuration")
	}
}

func TestRestrict(t *testing.T) {
	s := Settings{Format: "sarif"}
	if err := s.Restrict("text", "json"); err != nil || s.Format != "text" {
		t.Errorf("a format from a file gives way: %v %s", err, s.Format)
	}
	s = Settings{Format: "sarif", FormatAsked: true}
	if err := s.Restrict("text", "json"); err == nil {
		t.Error("a format that was asked for is refused")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("services: [[[[[["))
	f.Add([]byte("accept:\n- {id: a.b, subject: \"\\x00\", reason: b, until: 2027-06-30}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b, "f.yaml")
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%q: an error without a place: %v", b, err)
			}
			return
		}
		services, _ := m["services"].([]audit.Service)
		for _, s := range services {
			if s.Port == 0 || s.Name == "" {
				t.Fatalf("%q: %+v", b, s)
			}
		}
	})
}
