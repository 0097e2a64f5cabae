package reach_test

import (
	"fmt"
	"strings"
)

var xtBuiltins = map[string][]string{
	"filter":   {"INPUT", "FORWARD", "OUTPUT"},
	"security": {"INPUT", "FORWARD", "OUTPUT"},
	"mangle":   {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"raw":      {"PREROUTING", "OUTPUT"},
	"nat":      {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
}

// xtTable draws a table for one of the iptables commands.
func (g *generator) xtTable(loader, name string) *table {
	t := &table{loader: loader, name: name}
	six := strings.HasPrefix(loader, "ip6")
	for _, c := range xtBuiltins[name] {
		policy := "ACCEPT"
		if name != "nat" && g.chance(15) {
			policy = "DROP"
		}
		t.chains = append(t.chains, &chain{name: c, head: policy})
	}
	users := g.IntN(3)
	for i := range users {
		t.chains = append(t.chains, &chain{name: fmt.Sprintf("user%d", i), head: "-"})
	}
	for _, c := range t.chains {
		if c.name == "FORWARD" {
			continue
		}
		for range g.IntN(5) {
			c.rules = append(c.rules, g.xtRule(t, c, six, users))
		}
	}
	return t
}

func (g *generator) xtRule(t *table, c *chain, six bool, users int) string {
	var parts []string
	out := c.name == "OUTPUT" || c.name == "POSTROUTING"
	s, d := "-s", "-d"
	sport, dport := "--sport", "--dport"
	sports, dports := "--sports", "--dports"
	if out {
		s, d, sport, dport, sports, dports = d, s, dport, sport, dports, sports
	}
	not := func() string { return pick(g, "", "", "", "! ") }
	proto := ""
	if g.chance(60) {
		proto = pick(g, "tcp", "tcp", "udp")
		parts = append(parts, "-p "+proto)
	}
	if g.chance(40) {
		parts = append(parts, not()+s+" "+g.source(six))
	}
	if g.chance(10) {
		parts = append(parts, not()+d+" "+g.server(six))
	}
	if g.chance(15) {
		link := pick(g, append([]string{"eth+"}, g.links...)...)
		switch c.name {
		case "PREROUTING", "INPUT":
			parts = append(parts, not()+"-i "+link)
		case "OUTPUT", "POSTROUTING":
			parts = append(parts, not()+"-o "+link)
		}
	}
	if proto != "" && g.chance(60) {
		if g.chance(70) {
			a, b := g.portRange()
			parts = append(parts, "-m "+proto+" "+not()+dport+" "+pick(g, fmt.Sprint(a), fmt.Sprintf("%d:%d", a, b)))
		} else {
			parts = append(parts, "-m multiport "+not()+dports+fmt.Sprintf(" %d,%d,%d:%d", g.port(), g.port(), g.ports[0], g.ports[0]+1))
		}
	} else if proto != "" && g.chance(20) {
		parts = append(parts, "-m "+proto+" "+sport+" 1024:"+pick(g, "65535", "40000"))
	} else if proto == "tcp" && g.chance(20) {
		parts = append(parts, pick(g, "--syn", "! --syn", "--tcp-flags SYN,ACK SYN", "--tcp-flags ALL SYN"))
	} else if proto != "" && g.chance(20) {
		parts = append(parts, "-m multiport "+not()+"--ports "+fmt.Sprintf("%d,%d", g.port(), g.port()))
	}
	_ = sports
	for range g.IntN(2) {
		parts = append(parts, g.xtMatch(c, six, out, not))
	}
	if g.rare && g.chance(20) {
		if s := g.rareXTMatch(t, c, six); s != "" {
			parts = append(parts, s)
		}
	}
	if g.wide && g.chance(40) {
		parts = append(parts, g.wideXTMatch(t, c, six, out, proto, not))
	}
	if g.wide && g.chance(20) {
		return strings.Join(append(parts, g.wideXTTarget(t, c, six, proto)), " ")
	}
	return strings.Join(append(parts, g.xtTarget(t, c, six, proto, users)), " ")
}

func (g *generator) xtMatch(c *chain, six, out bool, not func() string) string {
	switch g.IntN(9) {
	case 0, 1, 2:
		return "-m conntrack " + not() + "--ctstate " + pick(g, "NEW", "ESTABLISHED", "RELATED,ESTABLISHED", "INVALID", "UNTRACKED", "NEW,ESTABLISHED", "DNAT", "NEW,DNAT")
	case 3:
		return "-m state --state " + pick(g, "NEW", "ESTABLISHED,RELATED")
	case 4:
		return "-m mark " + not() + "--mark " + pick(g, "0x1", "0x2/0x2", "0x0")
	case 5:
		return "-m connmark " + not() + "--mark " + pick(g, "0x1", "0x0", "0x1/0x1")
	case 6:
		dir := "--src-range"
		if out {
			dir = "--dst-range"
		}
		a, b := g.client(six), g.client(six)
		if a > b {
			a, b = b, a
		}
		return "-m iprange " + not() + dir + " " + a + "-" + a + strings.Repeat("", len(b)*0)
	case 7:
		if out {
			return "-m comment --comment \"a b\""
		}
		return "-m addrtype " + pick(g, "--dst-type LOCAL", "! --dst-type LOCAL", "--src-type LOCAL", "--src-type UNICAST")
	default:
		return "-m pkttype --pkt-type unicast"
	}
}

func (g *generator) xtTarget(t *table, c *chain, six bool, proto string, users int) string {
	if t.name == "nat" {
		if (c.name == "PREROUTING" || c.name == "OUTPUT") && proto != "" {
			to := g.server(six)
			if six {
				to = "[" + to + "]"
			}
			return pick(g, fmt.Sprintf("-j REDIRECT --to-ports %d", g.port()), fmt.Sprintf("-j DNAT --to-destination %s:%d", to, g.port()), "-j ACCEPT", "-j RETURN")
		}
		if g.rare && c.name == "POSTROUTING" {
			return pick(g, "-j MASQUERADE", "-o lo -j SNAT --to-source "+g.server(six), "-j ACCEPT", "-j RETURN")
		}
		return pick(g, "-j ACCEPT", "-j RETURN")
	}
	n := g.IntN(20)
	switch {
	case n < 5:
		return "-j ACCEPT"
	case n < 9:
		return "-j DROP"
	case n < 10 && t.name == "filter" && c.name == "INPUT":
		if six {
			return "-j REJECT --reject-with " + pick(g, "icmp6-port-unreachable", "icmp6-adm-prohibited", "icmp6-no-route", "icmp6-addr-unreachable")
		}
		return "-j REJECT --reject-with " + pick(g, "icmp-port-unreachable", "icmp-host-prohibited", "icmp-admin-prohibited", "icmp-net-unreachable", "icmp-host-unreachable")
	case n < 11 && t.name == "filter" && c.name == "INPUT" && proto == "tcp":
		return "-j REJECT --reject-with tcp-reset"
	case n < 14:
		if users > 0 {
			i := g.IntN(users)
			if !strings.HasPrefix(c.name, "user") || int(c.name[4]-'0') < i {
				return pick(g, "-j", "-j", "-g") + fmt.Sprintf(" user%d", i)
			}
		}
		return "-j RETURN"
	case n < 15:
		return "-j RETURN"
	case n < 17 && t.name == "mangle":
		return "-j MARK " + pick(g, "--set-mark 0x1", "--set-xmark 0x2/0x2", "--or-mark 0x1", "--and-mark 0x2", "--xor-mark 0x3")
	case n < 18 && t.name == "mangle":
		return "-j CONNMARK " + pick(g, "--save-mark", "--restore-mark", "--set-mark 0x1", "--or-mark 0x2")
	case n < 18 && t.name == "raw":
		return pick(g, "-j NOTRACK", "-j CT --notrack")
	case n < 19:
		return "-j LOG"
	default:
		return pick(g, "-j ACCEPT", "-j DROP")
	}
}
