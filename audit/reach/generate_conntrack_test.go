package reach_test

import (
	"fmt"
	"slices"
)

// What conntrack makes of packets: its settings, packets that are exempt in one
// direction or by their flags, zones, and rules that tell the states apart.

// conntrackSettings are the settings of a namespace that could decide what
// conntrack says of a packet, with their values when nothing is drawn.
func conntrackSettings() [][2]string {
	return [][2]string{
		{"net.netfilter.nf_conntrack_tcp_loose", "1"},
		{"net.netfilter.nf_conntrack_tcp_be_liberal", "0"},
		{"net.netfilter.nf_conntrack_tcp_ignore_invalid_rst", "0"},
		{"net.netfilter.nf_conntrack_checksum", "1"},
		{"net.netfilter.nf_conntrack_acct", "0"},
		{"net.netfilter.nf_conntrack_tcp_max_retrans", "3"},
	}
}

// conntrackPart draws settings, a table that chooses what is tracked and how, and
// one that asks.
func (g *generator) conntrackPart() *ruleset {
	rs := &ruleset{}
	for i, s := range conntrackSettings() {
		v := pick(g, "0", "1")
		if i == 0 {
			v = pick(g, "0", "0", "1")
		} else if g.chance(60) {
			continue
		}
		rs.commands = append(rs.commands, command{"sysctl", s[0], v})
	}
	if g.chance(50) {
		rs.tables = append(rs.tables, g.conntrackXT(pick(g, "iptables-legacy", "iptables-nft")), g.conntrackXT(pick(g, "ip6tables-legacy", "ip6tables-nft")))
	} else {
		rs.tables = append(rs.tables, g.conntrackNFT())
	}
	rs.tables = append(rs.tables, g.stateTable())
	if g.chance(20) {
		// What the host sends after the handshake is left alone: whether conntrack
		// takes it for a new flow cannot be told.
		n := g.natNFT("n0", -105)
		n.chains = slices.DeleteFunc(n.chains, func(c *chain) bool { return c.is("hook output") || c.is("hook postrouting") })
		rs.tables = append(rs.tables, n)
	}
	return rs
}

// conntrackNFT says what is tracked.
func (g *generator) conntrackNFT() *table {
	t := &table{loader: "nft", name: "raw", family: "inet"}
	for _, h := range []string{"prerouting", "output"} {
		if g.chance(35) {
			continue
		}
		c := &chain{name: h, head: fmt.Sprintf("type filter hook %s priority -300; policy accept;", h)}
		port := "dport"
		if h == "output" {
			port = "sport"
		}
		for range 1 + g.IntN(2) {
			m := pick(g, "tcp flags & (syn | ack) == syn", "tcp flags & (syn | ack) == ack", "tcp flags & (syn | ack) == (syn | ack)", "tcp flags & rst == rst", fmt.Sprintf("tcp %s %d", port, g.port()),
				fmt.Sprintf("udp %s %d-%d", port, 80, 8080), "meta l4proto tcp", fmt.Sprintf("tcp %s { %d, %d }", port, g.port(), g.port()), "meta l4proto { icmp, icmpv6 } meta l4proto icmp")
			c.rules = append(c.rules, nftPart(m, pick(g, "notrack", "notrack", "notrack", "ct zone set 1", "ct original zone set 2", "ct reply zone set 2")))
		}
		t.chains = append(t.chains, c)
	}
	return t
}

func (g *generator) conntrackXT(loader string) *table {
	t := &table{loader: loader, name: "raw"}
	for _, name := range xtBuiltins["raw"] {
		c := &chain{name: name, head: "ACCEPT"}
		t.chains = append(t.chains, c)
		port := "--dport"
		if name == "OUTPUT" {
			port = "--sport"
		}
		for range g.IntN(3) {
			m := pick(g, "-p tcp --syn", "-p tcp --tcp-flags SYN,ACK ACK", "-p tcp --tcp-flags SYN,ACK SYN,ACK", fmt.Sprintf("-p tcp %s %d", port, g.port()), "-p udp", "-p tcp",
				fmt.Sprintf("-p udp %s 80:8080", port))
			c.rules = append(c.rules, xtPart(m, pick(g, "CT --notrack", "CT --notrack", "NOTRACK", "CT --zone 1", "CT --zone-orig 2", "CT --zone-reply 2")))
		}
	}
	return t
}

// stateTable asks for states.
func (g *generator) stateTable() *table {
	t := &table{loader: "nft", name: "ask", family: pick(g, "inet", "inet", "ip", "ip6")}
	for _, h := range []string{"input", "prerouting", "output", "postrouting"} {
		if h != "input" && g.chance(60) {
			continue
		}
		c := &chain{name: h, head: fmt.Sprintf("type filter hook %s priority %d; policy accept;", h, pick(g, -150, 0, 10))}
		out := h == "output" || h == "postrouting"
		for range 1 + g.IntN(4) {
			state := pick(g, "invalid", "invalid", "new", "established", "untracked", "{ new, untracked }", "{ established, related }", "{ invalid, untracked }", "related")
			m := "ct state " + state
			port := "dport"
			if out {
				port = "sport"
			}
			if g.chance(60) {
				m += pick(g, " tcp flags & (syn | ack) == ack", " tcp flags & syn == 0", fmt.Sprintf(" tcp %s %d", port, g.port()), fmt.Sprintf(" udp %s %d", port, g.port()), " meta l4proto tcp", " tcp flags & psh == psh",
					" ct direction original", " ct direction reply", " ct status seen-reply", " ct status assured")
			}
			end := pick(g, "drop", "drop", "accept", "accept", "ct mark set 0x1", "meta mark set 0x1")
			if !out && g.chance(15) { // of what follows the handshake it cannot be told
				m, end = "ct state "+pick(g, "new", "untracked")+" tcp flags & (syn | ack) == syn", "reject with tcp reset"
			}
			c.rules = append(c.rules, nftPart(m, end))
		}
		if !out && g.chance(15) {
			c.rules = append(c.rules, "ct mark 0x1 drop")
		}
		t.chains = append(t.chains, c)
	}
	return t
}
