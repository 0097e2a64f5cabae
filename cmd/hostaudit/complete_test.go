package main

import (
	"strings"
	"testing"
)

// TestCompletion: shells are offered ids and words, at once and without a host.
func TestCompletion(t *testing.T) {
	for _, c := range []struct {
		args []string
		want []string
		not  string
	}{
		{[]string{"checks", "firewall."}, []string{"firewall.port-blocked", "firewall.opens-unused-port"}, "listener."},
		{[]string{"checks", "firewall.port-blocked", ""}, nil, "firewall."},
		{[]string{"fix", "listener.loopback-only", "listener."}, []string{"listener.ipv6-only"}, "listener.loopback-only"},
		{[]string{"scan", "--format", ""}, []string{"text", "html", "nagios"}, "/"},
		{[]string{"diff", "--format", ""}, []string{"text", "json"}, "html"},
		{[]string{"scan", "--fail-on", ""}, []string{"critical", "never"}, "/"},
		{[]string{"snap"}, []string{"snapshot"}, "scan"},
	} {
		var out, errs strings.Builder
		if code := run(append([]string{"__complete"}, c.args...), nil, &out, &errs, nil); code != 0 {
			t.Errorf("%q: exit code %d: %s", c.args, code, errs.String())
		}
		lines := strings.Split(out.String(), "\n")
		has := func(start string) bool {
			for _, l := range lines {
				if strings.HasPrefix(l, start) {
					return true
				}
			}
			return false
		}
		for _, w := range c.want {
			if !has(w) {
				t.Errorf("%q: no %s in %q", c.args, w, lines)
			}
		}
		if has(c.not) {
			t.Errorf("%q: %s in %q", c.args, c.not, lines)
		}
	}
}
