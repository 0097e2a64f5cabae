package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// One rule in five is for any port, the others for one port of a listener.

// eachRule draws n rules: a source network and a port, 0 for any.
func eachRule(n int, each func(i int, network string, port int)) {
	g := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		a := g.Uint32()
		network := fmt.Sprintf("%d.%d.%d.%d", 11+a>>24%100, a>>16&255, a>>8&255, a&255)
		port := firstListener + g.IntN(1000)
		if i%5 == 0 {
			network, port = fmt.Sprintf("%d.%d.%d.0/24", 11+a>>24%100, a>>16&255, a>>8&255), 0
		}
		each(i, network, port)
	}
}

// firstListener is the port of the first listener on 0.0.0.0 that listeners/load
// makes.
const firstListener = 8

// nftRules is a table of one base chain with n rules and more after them.
func nftRules(n int, more string) string {
	var b strings.Builder
	b.WriteString("table inet filter {\nchain input {\ntype filter hook input priority 0; policy accept;\n")
	eachRule(n, func(_ int, network string, port int) { b.WriteString(nftRule(network, port)) })
	return b.String() + more + "}\n}\n"
}

func nftRule(network string, port int) string {
	if port == 0 {
		return "ip saddr " + network + " drop\n"
	}
	return fmt.Sprintf("ip saddr %s tcp dport %d drop\n", network, port)
}

// nftChains spreads n rules over so many chains, which the base chain jumps to
// by port, as the generators of Kubernetes and of panels do.
func nftChains(n, chains int) string {
	var b, jumps strings.Builder
	b.WriteString("table inet filter {\n")
	per := max(1, n/chains)
	chain := -1
	eachRule(per*chains, func(i int, network string, port int) {
		if i%per == 0 {
			if chain >= 0 {
				b.WriteString("}\n")
			}
			chain++
			fmt.Fprintf(&b, "chain c%d {\n", chain)
			fmt.Fprintf(&jumps, "tcp dport %d jump c%d\n", firstListener+chain%1000, chain)
		}
		b.WriteString(nftRule(network, port))
	})
	b.WriteString("}\nchain input {\ntype filter hook input priority 0; policy accept;\n")
	return b.String() + jumps.String() + "}\n}\n"
}

// nftSet is a block list of n addresses, in one set that one rule looks into.
func nftSet(n int) string {
	var b strings.Builder
	b.WriteString("table inet filter {\nset block { type ipv4_addr; elements = {\n")
	for i := range n {
		fmt.Fprintf(&b, "%d.%d.%d.%d,\n", 11+i>>24, i>>16&255, i>>8&255, i&255)
	}
	b.WriteString("} }\nchain input {\ntype filter hook input priority 0; policy accept;\nip saddr @block drop\n}\n}\n")
	return b.String()
}

// legacyRules is the filter table with n rules.
func legacyRules(n int) string {
	var b strings.Builder
	b.WriteString("*filter\n:INPUT ACCEPT [0:0]\n")
	eachRule(n, func(_ int, network string, port int) {
		if port == 0 {
			fmt.Fprintf(&b, "-A INPUT -s %s -j DROP\n", network)
			return
		}
		fmt.Fprintf(&b, "-A INPUT -s %s -p tcp -m tcp --dport %d -j DROP\n", network, port)
	})
	return b.String() + "COMMIT\n"
}

// openLoopback puts a rule for lo before all others, as nearly every host has
// it. Without it each packet that winds up a TIME_WAIT passes tens of thousands
// of rules, and a million of them take longer than their minute.
func openLoopback(text string) string {
	for after, rule := range map[string]string{"policy accept;\n": "iif lo accept\n", ":INPUT ACCEPT [0:0]\n": "-A INPUT -i lo -j ACCEPT\n"} {
		text = strings.Replace(text, after, after+rule, 1)
	}
	return text
}

// Loading. Both replace what is there.

func loadNFT(text string) error {
	return feed(strings.NewReader("flush ruleset\n"+text), "nft", "-f", "-")
}

func loadLegacy(text string) error {
	return feed(strings.NewReader(text), "iptables-legacy-restore")
}

// flush leaves no rules of either kind.
func flush() error {
	if err := loadNFT(""); err != nil {
		return err
	}
	return loadLegacy(legacyRules(0))
}
