package reach_test

import (
	"fmt"
	"net/netip"
	"strings"
)

// Translation to ranges of addresses and ports, by maps, and of networks.

// spread4 and spread6 are networks that translations spread over: further addresses of
// the server's eth1, each of them.
const (
	spread4 = "10.9.7.4/30"
	spread6 = "fd00:9:7::4/126"
)

func spread(six bool) netip.Prefix {
	if six {
		return netip.MustParsePrefix(spread6)
	}
	return netip.MustParsePrefix(spread4)
}

// spreadAddrs are the addresses of the network.
func spreadAddrs(six bool) (as []netip.Addr) {
	for a := spread(six).Addr(); spread(six).Contains(a); a = a.Next() {
		as = append(as, a)
	}
	return as
}

// natPart draws one or two tables that translate, with an ordinary one beside
// them now and then.
func (g *generator) natPart() *ruleset {
	rs := &ruleset{}
	if g.routing && g.chance(25) {
		rs.commands = g.surroundings()
	}
	for i := range 1 + g.IntN(2) {
		if g.chance(60) {
			rs.tables = append(rs.tables, g.natNFT(fmt.Sprintf("n%d", i), pick(g, -110, -105)+20*i))
		} else {
			rs.tables = append(rs.tables, g.natXT(pick(g, "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")))
		}
	}
	if len(rs.tables) == 2 && rs.tables[0].loader == rs.tables[1].loader && rs.tables[0].loader != "nft" {
		rs.tables = rs.tables[:1]
	}
	if g.chance(40) {
		rs.tables = append(rs.tables, g.nftTable("t9"))
	}
	return rs
}

func (g *generator) natNFT(name string, priority int) *table {
	t := &table{loader: "nft", name: name, family: pick(g, "inet", "ip", "ip6")}
	hooks := []string{"prerouting", "output", "input", "postrouting"}
	for i, h := range hooks {
		if i > 0 && g.chance(50) {
			continue
		}
		prio := priority
		if h == "input" || h == "postrouting" {
			prio += 200
		}
		c := &chain{name: h, head: fmt.Sprintf("type nat hook %s priority %d; policy accept;", h, prio)}
		for range 1 + g.IntN(3) {
			six := t.family == "ip6" || t.family == "inet" && g.chance(40)
			c.rules = append(c.rules, nftPart(g.natMatch(six, h), g.natStatement(six, h)))
		}
		t.chains = append(t.chains, c)
	}
	return t
}

// natMatch is a match that many probes meet; natStatement needs a protocol with
// ports.
func (g *generator) natMatch(six bool, hook string) string {
	ip := "ip"
	if six {
		ip = "ip6"
	}
	g.l4 = pick(g, "tcp", "tcp", "udp")
	m := pick(g, fmt.Sprintf("%s dport { %d, %d }", g.l4, g.port(), g.port()), fmt.Sprintf("%s dport %d-%d", g.l4, 80, pick(g, 443, 8080, 9999)), "meta l4proto "+g.l4, "meta l4proto "+g.l4)
	if hook == "postrouting" {
		m += " oif \"lo\""
	}
	if g.chance(25) {
		m += " " + pick(g, fmt.Sprintf("%s saddr %s", ip, g.source(six)), fmt.Sprintf("%s saddr != %s", ip, g.client(six)), fmt.Sprintf("%s daddr %s", ip, g.server(six)))
	}
	return m
}

// natPorts is a range of ports whose ends are served alike, where one is chosen at random;
// otherwise any.
func (g *generator) natPorts(random bool) string {
	if random {
		return pick(g, "8080-8081", "8080-8081", "9990-9997", "80", "443", "8081")
	}
	return pick(g, "8080-8081", "80-81", "81-90", "442-444", "8079-8082", "8080", "443-8081", "9990-9999", "8443-8447")
}

func (g *generator) natStatement(six bool, hook string) string {
	ip := "ip"
	if six {
		ip = "ip6"
	}
	flags := pick(g, "", "", "persistent", "random", "fully-random", "random,persistent")
	random := strings.Contains(flags, "random")
	in := func(a netip.Addr) string {
		if six {
			return "[" + a.String() + "]"
		}
		return a.String()
	}
	as := spreadAddrs(six)
	lo := g.IntN(len(as))
	hi := lo + g.IntN(len(as)-lo)
	rng := func(from, to netip.Addr) string {
		if from == to {
			return in(from)
		}
		return in(from) + "-" + in(to)
	}
	dports := []int{g.ports[0], g.ports[1], g.ports[2]}
	switch hook {
	case "prerouting", "output":
		switch g.IntN(10) {
		case 0, 1:
			return strings.TrimSpace(fmt.Sprintf("dnat %s to %s %s", ip, rng(as[lo], as[hi]), flags))
		case 2:
			return strings.TrimSpace(fmt.Sprintf("dnat %s to %s:%s %s", ip, rng(as[lo], as[hi]), g.natPorts(random), flags))
		case 3:
			return strings.TrimSpace(fmt.Sprintf("dnat %s to %s:%s %s", ip, in(netip.MustParseAddr(g.server(six))), g.natPorts(random), flags))
		case 4, 5:
			if strings.Contains(flags, "persistent") { // there is one address
				flags, random = "", false
			}
			return strings.TrimSpace(fmt.Sprintf("redirect to :%s %s", g.natPorts(random), flags))
		case 6:
			return fmt.Sprintf("dnat %s to %s dport map { %d : %s, %d : %s, %d : %s }", ip, g.l4, dports[0], pick(g, as...), dports[1], g.server(six), dports[2], pick(g, as...))
		case 7:
			return fmt.Sprintf("dnat %s addr . port to %s dport map { %d : %s . %d, %d : %s . %d }", ip, g.l4, dports[0], pick(g, as...), g.port(), dports[1], g.server(six), g.port())
		case 8:
			return fmt.Sprintf("redirect to :%s dport map { %d : %d, %d : %d }", g.l4, dports[0], g.port(), dports[1], g.port())
		default:
			own := "10.9.0.0/30"
			if six {
				own = "fd00:9:0::/126"
			}
			return pick(g, fmt.Sprintf("dnat %s prefix to %s daddr map { %s : %s }", ip, ip, own, spread(six)),
				fmt.Sprintf("dnat %s to %s saddr map { %s : %s, %s : %s }", ip, ip, g.clientOf(six, 0), pick(g, as...), g.clientOf(six, 1), pick(g, as...)),
				fmt.Sprintf("dnat %s interval to %s saddr map { %s : %s-%s, %s : %s }", ip, ip, g.clientOf(six, 0), as[1], as[3], g.clientOf(six, 2), as[0]))
		}
	case "input":
		a, z := netip.MustParseAddr("172.16.5.1"), netip.MustParseAddr("172.16.5.6")
		if six {
			a, z = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::3")
		}
		switch g.IntN(4) {
		case 0:
			return strings.TrimSpace(fmt.Sprintf("snat %s to %s %s", ip, rng(a, z), flags))
		case 1:
			return strings.TrimSpace(fmt.Sprintf("snat %s to %s:%s %s", ip, rng(a, pick(g, a, z)), pick(g, "2000-2499", "1024-65535", "40000-50000"), flags))
		case 2:
			return fmt.Sprintf("snat %s to %s saddr map { %s : %s, %s : %s }", ip, ip, g.clientOf(six, 0), a, g.clientOf(six, 1), z)
		default:
			if six {
				return "snat ip6 prefix to ip6 saddr map { 2001:db8::/64 : fd12:3456::/64 }"
			}
			return "snat ip prefix to ip saddr map { 172.16.5.0/29 : 198.51.100.0/29 }"
		}
	default:
		switch g.IntN(3) {
		case 0:
			return pick(g, "masquerade", "masquerade random", "masquerade to :2000-2499", "masquerade to :1024-65535", "masquerade to :5000-5499 random")
		case 1:
			return strings.TrimSpace(fmt.Sprintf("snat %s to %s %s", ip, rng(as[lo], as[hi]), flags))
		default:
			return strings.TrimSpace(fmt.Sprintf("snat %s to %s:%s %s", ip, rng(as[lo], as[hi]), pick(g, "2000-2499", "1024-65535"), flags))
		}
	}
}

// clientOf is the client's ith address, so that the keys of a map differ.
func (g *generator) clientOf(six bool, i int) string {
	if six {
		return g.clients6[i].String()
	}
	return g.clients4[i].String()
}

func (g *generator) natXT(loader string) *table {
	six := strings.HasPrefix(loader, "ip6")
	t := &table{loader: loader, name: "nat"}
	for _, name := range xtBuiltins["nat"] {
		c := &chain{name: name, head: "ACCEPT"}
		t.chains = append(t.chains, c)
		if name != "PREROUTING" && g.chance(50) {
			continue
		}
		for range 1 + g.IntN(3) {
			l4 := pick(g, "tcp", "tcp", "udp")
			m := "-p " + l4
			if g.chance(50) {
				m += pick(g, fmt.Sprintf(" --dport %d", g.port()), " --dport 80:8080", fmt.Sprintf(" -m multiport --dports %d,%d", g.port(), g.port()))
			}
			if g.chance(20) {
				m += pick(g, " -s ", " ! -s ") + g.source(six)
			}
			if name == "POSTROUTING" {
				m += " -o lo"
			}
			c.rules = append(c.rules, xtPart(m, g.natTarget(six, name)))
		}
	}
	return t
}

func (g *generator) natTarget(six bool, hook string) string {
	flags := pick(g, "", "", " --persistent", " --random", " --random --persistent")
	random := strings.Contains(flags, "--random")
	as := spreadAddrs(six)
	lo := g.IntN(len(as))
	hi := lo + g.IntN(len(as)-lo)
	rng := func(from, to netip.Addr, ports string) string {
		s := from.String()
		if from != to {
			s += "-" + to.String()
		}
		switch {
		case ports == "":
			return s
		case six:
			return "[" + s + "]:" + ports
		}
		return s + ":" + ports
	}
	ports := g.natPorts(random)
	switch hook {
	case "PREROUTING", "OUTPUT":
		switch g.IntN(7) {
		case 0, 1:
			return "DNAT --to-destination " + rng(as[lo], as[hi], "") + flags
		case 2:
			return "DNAT --to-destination " + rng(as[lo], as[hi], ports) + flags
		case 3:
			// Shifted ports (NF_NAT_RANGE_PROTO_OFFSET).
			return "DNAT --to-destination " + rng(as[lo], as[lo], pick(g, "8080-8083/80", "8079-8081/443", "80-81/8080", "443-445/8081", "8440-8450/77"))
		case 4:
			return "NETMAP --to " + spread(six).String()
		default:
			return "REDIRECT --to-ports " + ports + strings.TrimSuffix(flags, " --persistent")
		}
	case "INPUT":
		a, z := netip.MustParseAddr("172.16.5.1"), netip.MustParseAddr("172.16.5.6")
		if six {
			a, z = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::3")
		}
		return "SNAT --to-source " + rng(a, pick(g, a, z), pick(g, "", "2000-2499", "1024-65535")) + flags
	}
	return pick(g, "MASQUERADE", "MASQUERADE --to-ports 2000-2499", "MASQUERADE --random", "SNAT --to-source "+rng(as[lo], as[hi], pick(g, "", "2000-2499", "1024-65535"))+flags, "NETMAP --to "+spread(six).String())
}
