package sysctl

import (
	"fmt"
	"strings"
)

// MeantFirewall is a firewall that the files of the host were set up for: somebody
// wrote rules for it. Whether it works is another matter, which the rules in the
// kernel tell.
type MeantFirewall struct {
	Who string // "ufw"
	// AtBoot: the next boot starts it. Off: its own configuration says that it is
	// switched off.
	AtBoot, Off bool
	// Testing: it works, and its own configuration has it cleared again and again.
	Testing  bool
	Evidence []Evidence
	Enable   string // the command that turns it on
}

// restoredRules are the files whose rules a unit loads at boot, with what a line
// says that keeps packets from coming in.
var restoredRules = []struct {
	who, unit string
	files     []string
	filters   func(line string) bool
}{
	{"nftables.service", "nftables.service", []string{"/etc/nftables.conf", "/etc/sysconfig/nftables.conf"},
		func(l string) bool { return strings.Contains(l, "hook input") }},
	{"netfilter-persistent", "netfilter-persistent.service", []string{"/etc/iptables/rules.v4", "/etc/iptables/rules.v6"}, inputFiltered},
	{"iptables.service", "iptables.service", []string{"/etc/sysconfig/iptables"}, inputFiltered},
	{"ip6tables.service", "ip6tables.service", []string{"/etc/sysconfig/ip6tables"}, inputFiltered},
}

// inputFiltered tells lines of iptables-save that keep packets out.
func inputFiltered(l string) bool {
	return strings.HasPrefix(l, ":INPUT DROP") ||
		strings.HasPrefix(l, "-A INPUT ") && (strings.HasSuffix(l, "-j DROP") || strings.Contains(l, "-j REJECT"))
}

const (
	csfConf     = "/etc/csf/csf.conf"
	csfDisabled = "/etc/csf/csf.disable"
)

var ufwUserRules = []string{"/etc/ufw/user.rules", "/etc/ufw/user6.rules"}

// captureFirewalls captures what MeantFirewalls judges by, and of files with rules
// only a few lines.
func captureFirewalls(c *capturer) {
	first := func(is func(string) bool) func(string) bool {
		n := 0
		return func(l string) bool {
			if is(l) {
				n++
			}
			return is(l) && n <= 8
		}
	}
	for _, p := range ufwUserRules {
		c.lines(p, first(ufwTuple))
	}
	captureUnit(c, "firewalld.service")
	for _, r := range restoredRules {
		captureUnit(c, r.unit)
		for _, p := range r.files {
			c.lines(p, first(r.filters))
		}
	}
	c.lines(csfConf, func(l string) bool { return strings.HasPrefix(l, "TESTING") })
	c.walk(csfDisabled)
}

// ufwTuple is the comment with which ufw keeps each rule of the user's.
func ufwTuple(l string) bool { return strings.HasPrefix(l, "### tuple ###") }

// MeantFirewalls lists the firewalls that somebody set this host up for, by the
// files. A firewall that is installed and was never given a rule is not among them.
func MeantFirewalls(t *Tree) []MeantFirewall {
	var out []MeantFirewall
	place := func(p string, is func(string) bool) (found []Evidence) {
		eachRaw(t, p, func(n int, l string) {
			if is(l) && len(found) == 0 {
				found = append(found, Evidence{Place{p, n}.String(), shorten(strings.TrimSpace(l))})
			}
		})
		return found
	}
	enabled, line := shellValue(t, ufwConf, "ENABLED")
	_, unit := unitEnabled(t, "ufw.service")
	m := MeantFirewall{Who: "ufw", Off: enabled == "no", AtBoot: enabled == "yes" && unit, Enable: "ufw enable"}
	for _, p := range ufwUserRules {
		m.Evidence = append(m.Evidence, place(p, ufwTuple)...)
	}
	if line > 0 && (m.AtBoot || m.Off && len(m.Evidence) > 0) {
		m.Evidence = append([]Evidence{{Place{ufwConf, line}.String(), "ENABLED=" + enabled}}, m.Evidence...)
		out = append(out, m)
	}
	if p, on := unitEnabled(t, "firewalld.service"); on {
		out = append(out, MeantFirewall{Who: "firewalld", AtBoot: true, Enable: "systemctl start firewalld", Evidence: []Evidence{{p, "enabled"}}})
	}
	for _, r := range restoredRules {
		p, on := unitEnabled(t, r.unit)
		if !on {
			continue
		}
		m := MeantFirewall{Who: r.who, AtBoot: true, Enable: fmt.Sprintf("systemctl restart %s", r.unit)}
		for _, f := range r.files {
			m.Evidence = append(m.Evidence, place(f, r.filters)...)
		}
		if len(m.Evidence) > 0 {
			m.Evidence = append([]Evidence{{p, "enabled"}}, m.Evidence...)
			out = append(out, m)
		}
	}
	eachLine(t, csfConf, func(n int, l string) {
		name, value, _ := strings.Cut(l, "=")
		if strings.TrimSpace(name) == "TESTING" && strings.Trim(strings.TrimSpace(value), `"'`) == "1" {
			out = append(out, MeantFirewall{Who: "CSF", Testing: true, Enable: `set TESTING = "0" and run csf -r`, Evidence: []Evidence{{Place{csfConf, n}.String(), l}}})
		}
	})
	if there, err := t.Exists(csfDisabled); err == nil && there {
		out = append(out, MeantFirewall{Who: "CSF", Off: true, Enable: "csf -e", Evidence: []Evidence{{csfDisabled, "is there"}}})
	}
	return out
}

// eachRaw calls yield for the lines of a captured file, comments too.
func eachRaw(t *Tree, p string, yield func(n int, line string)) {
	data, err := t.read(p)
	if err != nil && len(data) == 0 {
		return
	}
	for i, l := range strings.Split(string(data), "\n") {
		if l != "" {
			yield(i+1, l)
		}
	}
}
