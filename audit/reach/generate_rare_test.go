package reach_test

import (
	"fmt"
	"strings"
)

// What few rulesets say: sockets and realms, verdict maps that jump, elements
// whose time is over, translation to one's own other addresses and on the way
// out, queues that nobody reads, egress and ARP chains, TPROXY with its routing.

// rareMatch is a match that nftMatch and wideMatch do not draw; "" where none fits.
func (g *generator) rareMatch(t *table, c *chain, six bool) string {
	ip, dport := "ip", "dport"
	if six {
		ip = "ip6"
	}
	in := c.is("hook prerouting") || c.is("hook input")
	if !in {
		dport = "sport"
	}
	not := pick(g, "", "!= ")
	switch g.IntN(10) {
	case 0:
		if in {
			return "socket transparent " + pick(g, "0", "1", "!= 1")
		}
	case 1:
		if in {
			return "meta l4proto udp socket " + pick(g, "mark 0", "mark 5", "mark != 5", "wildcard 0", "wildcard 1")
		}
	case 2:
		if c.is("hook input") || c.is("hook prerouting") {
			return pick(g, "rt classid ", "meta rtclassid ") + pick(g, "0", "0x50000", "!= 0x50000", "and 0xffff == 5", "!= 3")
		}
	case 3:
		if in && t.family != "inet" {
			return fmt.Sprintf("rt %s nexthop %s%s", ip, not, g.server(six))
		}
	case 4:
		return fmt.Sprintf("ct state . meta l4proto vmap { new . tcp : %s, established . tcp : %s, new . udp : %s }", pick(g, "continue", "accept", "drop"), pick(g, "continue", "accept"), pick(g, "continue", "accept", "drop"))
	case 5:
		return fmt.Sprintf("meta mark . meta l4proto %s{ 0x0 . tcp, 0x1 . udp, 0x2-0x3 . tcp }", not)
	case 6:
		if in {
			return fmt.Sprintf("iifname . %s saddr . meta l4proto vmap { %q . %s . tcp : %s, \"eth*\" . %s . udp : %s }", ip, pick(g, g.links...), g.client(six), pick(g, "accept", "drop", "continue"), g.client(six), pick(g, "accept", "drop"))
		}
	case 7:
		if !six && t.family != "ip6" {
			return pick(g, "ip frag-off & 0x1fff == 0", "ip frag-off & 0x3fff != 0", "ip hdrlength != 5", "ip protocol != { tcp, udp, icmp }")
		}
		return pick(g, "exthdr frag missing", "exthdr hbh exists", "exthdr rt missing")
	case 8:
		return fmt.Sprintf("meta l4proto { tcp, udp } th %s . ct state %s{ %d . new, %d . established, %d . new }", dport, not, g.port(), g.port(), g.ports[0])
	}
	return ""
}

// rareAction is a statement that the others do not draw; "" where none fits.
func (g *generator) rareAction(t *table, c *chain, six bool, users int) string {
	ip, any, own := "ip", "ip saddr 0.0.0.0/0", "127.0.0.1"
	if six {
		ip, any, own = "ip6", "ip6 saddr ::/0", "[::1]"
	}
	l4 := g.plain()
	if c.is("type nat") {
		switch {
		case c.is("hook postrouting"):
			return pick(g, any+" masquerade", fmt.Sprintf("oifname \"lo\" meta l4proto %s %s snat to %s", l4, any, g.server(six)), fmt.Sprintf("%s daddr %s masquerade", ip, g.source(six)), "oifname \"eth0\" accept")
		case c.is("hook input"):
			return ""
		}
		return fmt.Sprintf("%s dport %d dnat %s to %s:%d", l4, g.port(), ip, own, g.port())
	}
	switch g.IntN(5) {
	case 0:
		if users > 0 && !strings.HasPrefix(c.name, "user") {
			return fmt.Sprintf("%s dport vmap { %d : jump user%d, %d-%d : goto user%d }", l4, g.ports[0], g.IntN(users), g.ports[1], g.ports[1]+1, g.IntN(users))
		}
	case 1:
		return pick(g, "queue num 7 bypass", "queue num 7", "queue flags bypass to 3-5")
	case 2:
		if c.is("hook prerouting") && c.is("priority -150") {
			return fmt.Sprintf("meta l4proto %s tproxy %s to :9008 meta mark set 1 accept", l4, ip)
		}
	case 3:
		return "meta pkttype set " + pick(g, "host", "broadcast")
	case 4:
		return "meta priority set 1:2"
	}
	return ""
}

// rareSet is a set of which an element's time is over before anything is asked.
func (g *generator) rareSet(six bool) string {
	typ := "ipv4_addr"
	if six {
		typ = "ipv6_addr"
	}
	a, b := g.client(six), g.client(six)
	if a == b {
		return fmt.Sprintf("set w0 { type %s; flags timeout; elements = { %s timeout 1h expires 1ms } }", typ, a)
	}
	return fmt.Sprintf("set w0 { type %s; flags timeout; elements = { %s timeout 1h expires 1ms, %s timeout 1h } }", typ, a, b)
}

func (g *generator) rareXTMatch(t *table, c *chain, six bool) string {
	in := c.name == "INPUT" || c.name == "PREROUTING"
	switch g.IntN(3) {
	case 0:
		if in && t.name != "raw" && t.name != "nat" {
			return "-m socket --nowildcard" + pick(g, "", " --transparent")
		}
	case 1:
		if !six && c.name == "INPUT" {
			return "-m realm " + pick(g, "", "! ") + "--realm " + pick(g, "0", "0x50000", "5/0xffff", "3/0xff")
		}
	}
	return ""
}

// rareSurroundings draws realms, and the routing that TPROXY comes with.
func (g *generator) rareSurroundings() (cs []command) {
	if g.chance(40) {
		cs = append(cs, command{"ip", "-4", "route", "add", g.specific(false), "via", "10.9.0.1", "dev", "eth0", "metric", "9", "realm", pick(g, "5", "3", "3/5")})
	}
	if g.chance(15) {
		cs = append(cs, command{"ip", "-4", "rule", "add", "pref", pick(g, "100", "32000"), "to", g.specific(false), "table", "main", "realm", pick(g, "5", "3/5")})
	}
	if g.chance(30) {
		cs = append(cs, command{"ip", "-4", "rule", "add", "pref", "50", "fwmark", "1", "table", "100"}, command{"ip", "-4", "route", "add", "local", "default", "dev", "lo", "table", "100", "metric", "4"},
			command{"ip", "-6", "rule", "add", "pref", "50", "fwmark", "1", "table", "100"}, command{"ip", "-6", "route", "add", "local", "default", "dev", "lo", "table", "100", "metric", "4"})
	}
	return cs
}

// egressTable draws a table at the egress of an interface.
func (g *generator) egressTable(name string) *table {
	c := &chain{name: "out", head: fmt.Sprintf("type filter hook egress device %q priority %d; policy accept;", pick(g, append([]string{"lo"}, g.links...)...), pick(g, -500, 0, 10))}
	for range 1 + g.IntN(3) {
		six := g.chance(40)
		ip := "ip"
		if six {
			ip = "ip6"
		}
		l4 := pick(g, "tcp", "udp")
		c.rules = append(c.rules, pick(g, fmt.Sprintf("%s daddr %s", ip, g.source(six)), fmt.Sprintf("%s sport %d", l4, g.port()), fmt.Sprintf("%s saddr %s %s sport != %d", ip, g.server(six), l4, g.port()),
			"meta mark 1", "oifname \"eth1\" meta protocol ip")+" "+pick(g, "accept", "drop", "drop", "counter"))
	}
	return &table{loader: "nft", family: "netdev", name: name, chains: []*chain{c}}
}
