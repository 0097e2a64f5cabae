package reach_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/reach"
)

// Rules about ARP and neighbour discovery, between hosts that have forgotten each
// other: an answer that reads "connected" says that both can be found.

// neighbourPart draws them. Both hosts forget each other before the rules are loaded.
func (g *generator) neighbourPart() *ruleset {
	rs := &ruleset{}
	for _, link := range []string{"eth0", "eth1"} {
		rs.commands = append(rs.commands, command{"ip", "neigh", "flush", "dev", link, "nud", "all"})
	}
	for _, link := range []string{"c0", "c1"} {
		rs.commands = append(rs.commands, command{"client", "ip", "neigh", "flush", "dev", link, "nud", "all"})
	}
	what := g.IntN(5)
	if what != 0 {
		rs.tables = append(rs.tables, g.arpTable())
	}
	if what < 4 {
		rs.tables = append(rs.tables, g.discoveryTable())
	}
	if what == 4 {
		rs.tables = append(rs.tables, g.arpIngress())
	}
	return rs
}

// arpTable draws chains of family arp.
func (g *generator) arpTable() *table {
	t := &table{loader: "nft", family: "arp", name: "a0"}
	for _, h := range []string{"input", "output"} {
		if g.chance(25) {
			continue
		}
		c := &chain{name: h, head: fmt.Sprintf("type filter hook %s priority %d; policy %s;", h, pick(g, -10, 0), pick(g, "accept", "accept", "drop"))}
		dev := "iif"
		if h == "output" {
			dev = "oif"
		}
		for range 1 + g.IntN(4) {
			not := pick(g, "", "", "!= ")
			net := pick(g, "10.9.0.0/24", "10.9.0.0/16", "10.9.1.0/24", "10.9.0.2", "10.9.0.9", "10.9.0.128/25", "10.9.1.2", "10.9.0.1", "0.0.0.0/0")
			m := pick(g, "arp operation "+not+pick(g, "request", "reply"), "arp operation { request, reply }", "arp operation "+pick(g, "rrequest", "inrequest", "nak"), "arp htype "+not+"1", "arp ptype "+not+"0x0800", "arp hlen "+not+"6",
				"arp plen "+not+"4", "arp saddr ip "+not+net, "arp daddr ip "+not+net, "arp operation request arp daddr ip "+net, "arp operation reply arp saddr ip "+net, fmt.Sprintf("%sname %s%q", dev, not, pick(g, g.links...)),
				fmt.Sprintf("%s %q arp operation request", dev, pick(g, g.links...)), "meta mark "+not+"0x0", "arp saddr ip . arp daddr ip { 10.9.0.1 . 10.9.0.2, 10.9.0.2 . 10.9.0.1, 10.9.1.1 . 10.9.1.2, 10.9.1.2 . 10.9.1.1 }")
			c.rules = append(c.rules, nftPart(m, pick(g, "accept", "accept", "accept", "drop", "meta mark set 0x1")))
		}
		t.chains = append(t.chains, c)
	}
	return t
}

// arpIngress draws a chain at the ingress of the interfaces.
func (g *generator) arpIngress() *table {
	c := &chain{name: "in", head: fmt.Sprintf("type filter hook ingress device %q priority 0; policy %s;", pick(g, g.links...), pick(g, "accept", "drop"))}
	for range 1 + g.IntN(4) {
		c.rules = append(c.rules, nftPart(pick(g, "meta protocol arp", "ether type arp", "meta protocol != arp", "arp operation request", "arp operation != reply", "meta protocol ip", "meta protocol ip6", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }",
			"meta protocol { arp, ip, ip6 }", "arp saddr ip 10.9.0.0/16"), pick(g, "accept", "accept", "drop", "meta mark set 0x1")))
	}
	return &table{loader: "nft", family: "netdev", name: "d0", chains: []*chain{c}}
}

// discoveryTable draws rules about the messages of neighbour discovery.
func (g *generator) discoveryTable() *table {
	t := &table{loader: "nft", family: pick(g, "ip6", "inet"), name: "nd"}
	for i, h := range []string{"input", "prerouting", "output", "postrouting"} {
		if i > 0 && g.chance(60) {
			continue
		}
		c := &chain{name: h, head: fmt.Sprintf("type filter hook %s priority %d; policy %s;", h, pick(g, -400, -150, 0, 10), pick(g, "accept", "accept", "drop"))}
		c.rules = append(c.rules, "meta l4proto { tcp, udp } accept", "icmpv6 type destination-unreachable accept")
		for range 1 + g.IntN(4) {
			not := pick(g, "", "", "!= ")
			m := pick(g, "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }", "icmpv6 type "+not+pick(g, "nd-neighbor-solicit", "nd-neighbor-advert", "echo-request", "nd-router-advert"),
				"meta l4proto "+not+"ipv6-icmp", "ct state "+not+pick(g, "untracked", "invalid", "new", "established"), "ip6 hoplimit "+not+"255", "ip6 hoplimit < 255", "icmpv6 code "+not+"0", "ip6 nexthdr ipv6-icmp",
				"ip6 daddr "+not+pick(g, "ff02::/16", "ff02::1:ff00:0/104", "ff02::1:ff00:2", "fe80::/10", "fd00:9::/32", "fd00:9::2"), "ip6 saddr "+not+pick(g, "fe80::/10", "fd00:9::/32", "fd00:9::1", "::", "2001:db8::/32"),
				"icmpv6 type 133-137", "meta mark 0x1", "meta nfproto ipv6", "tcp dport 80", "ct state vmap { invalid : drop, untracked : accept }")
			end := pick(g, "accept", "accept", "accept", "drop", "meta mark set 0x1")
			if strings.Contains(m, "vmap") {
				end = ""
			}
			c.rules = append(c.rules, nftPart(m, end))
		}
		t.chains = append(t.chains, c)
	}
	return t
}

// rememberNeighbours notes the entries of both hosts that are for good.
func (b *bench) rememberNeighbours(t testing.TB) {
	for _, in := range []string{"", "client"} {
		ns := b.Server
		if in != "" {
			ns = b.Client
		}
		out, err := ns.Exec(t.Context(), "", "ip", "neigh", "show", "nud", "permanent")
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			f := strings.Fields(line) // ADDRESS dev LINK lladdr MAC PERMANENT
			if len(f) >= 5 && f[1] == "dev" && f[3] == "lladdr" {
				c := command{"ip", "neigh", "replace", f[0], "lladdr", f[4], "dev", f[2], "nud", "permanent"}
				if in != "" {
					c = append(command{in}, c...)
				}
				b.neighbours = append(b.neighbours, c)
			}
		}
	}
	if len(b.neighbours) == 0 {
		t.Fatal("no neighbour is known for good")
	}
}

// turnsOnDiscovery reports that an answer depends on nothing but what hosts know of
// each other, which rules keep them from asking.
func turnsOnDiscovery(a reach.Answer) bool {
	for _, c := range a.Conditions {
		if !strings.Contains(c.TurnsOn, "hardware address") && !strings.Contains(c.TurnsOn, "what finds it") {
			return false
		}
	}
	return len(a.Conditions) > 0
}
