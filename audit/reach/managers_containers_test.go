package reach_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// publisher draws rulesets of the kind that container engines write, in
// the language of each back end.
type publisher struct {
	*generator
	l *lab.Lab
}

// translation is one of them: a port of the host, and where it leads.
func (p *publisher) translation() (from int, to netip.Addr, port int) {
	return pick(p.generator, 8080, 8081, 8443), p.l.ContainerAddr(p.IntN(2)), pick(p.generator, 80, 443, 9)
}

func (p *publisher) match() string {
	return pick(p.generator, "", "-s "+p.source(false)+" ", "! -s "+p.specific(false)+" ", "-i eth0 ", "! -i br0 ", "-i eth+ ", "-o br0 ", "-i eth1 ! -o eth0 ")
}

func (p *publisher) xt() string {
	var b strings.Builder
	b.WriteString("*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n")
	b.WriteString("-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n")
	b.WriteString("-A POSTROUTING -s 10.88.0.0/24 ! -o br0 -j MASQUERADE\n")
	if p.chance(30) {
		b.WriteString("-A POSTROUTING -o br0 -j MASQUERADE\n")
	}
	if p.chance(40) {
		b.WriteString("-A DOCKER -i br0 -j RETURN\n")
	}
	for range 2 + p.IntN(2) {
		from, to, port := p.translation()
		m := pick(p.generator, "", "! -i br0 ", "-d "+p.l.ServerAddr(p.IntN(2)).String()+" ", "-s "+p.source(false)+" ")
		proto := pick(p.generator, "tcp", "tcp", "udp")
		fmt.Fprintf(&b, "-A DOCKER %s-p %s -m %s --dport %d -j DNAT --to-destination %v:%d\n", m, proto, proto, from, to, port)
	}
	b.WriteString("COMMIT\n*filter\n:INPUT ACCEPT [0:0]\n")
	fmt.Fprintf(&b, ":FORWARD %s [0:0]\n:OUTPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n:DOCKER-USER - [0:0]\n", pick(p.generator, "ACCEPT", "DROP", "DROP"))
	b.WriteString("-A FORWARD -j DOCKER-USER\n-A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -o br0 -j DOCKER\n-A FORWARD -i br0 ! -o br0 -j ACCEPT\n-A FORWARD -i br0 -o br0 -j ACCEPT\n")
	for range p.IntN(4) {
		m := p.match()
		switch p.IntN(4) {
		case 0:
			m += fmt.Sprintf("-p tcp -m conntrack --ctorigdstport %d ", pick(p.generator, 8080, 8081, 8443))
		case 1:
			m += "-p tcp -m tcp --dport 80 "
		case 2:
			m += "-m conntrack --ctstate DNAT "
		}
		fmt.Fprintf(&b, "-A DOCKER-USER %s-j %s\n", m, pick(p.generator, "DROP", "RETURN", "ACCEPT", "REJECT", "REJECT --reject-with icmp-admin-prohibited"))
	}
	for k := range 2 {
		if p.chance(80) {
			fmt.Fprintf(&b, "-A DOCKER -d %v/32 ! -i br0 -o br0 -p tcp -m tcp --dport %d -j ACCEPT\n", p.l.ContainerAddr(k), pick(p.generator, 80, 443))
		}
	}
	if p.chance(40) {
		fmt.Fprintf(&b, "-A DOCKER %s-j ACCEPT\n", p.match())
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

func (p *publisher) nft() string {
	var b strings.Builder
	b.WriteString("table ip engine {\n\tchain published {\n")
	for range 2 + p.IntN(2) {
		from, to, port := p.translation()
		m := pick(p.generator, "", `iifname != "br0" `, "ip daddr "+p.l.ServerAddr(p.IntN(2)).String()+" ", "ip saddr "+p.source(false)+" ")
		fmt.Fprintf(&b, "\t\t%s%s dport %d dnat to %v:%d\n", m, pick(p.generator, "tcp", "tcp", "udp"), from, to, port)
	}
	if p.chance(30) {
		fmt.Fprintf(&b, "\t\tdnat ip to tcp dport map { 8080 : %v . 80, 8443 : %v . 443 }\n", p.l.ContainerAddr(0), p.l.ContainerAddr(1))
	}
	fmt.Fprintf(&b, "\t}\n\tchain pre {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t\tfib daddr type local jump published\n\t}\n")
	fmt.Fprintf(&b, "\tchain out {\n\t\ttype nat hook output priority -100; policy accept;\n\t\tip daddr != 127.0.0.0/8 fib daddr type local jump published\n\t}\n")
	fmt.Fprintf(&b, "\tchain post {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\tip saddr 10.88.0.0/24 oifname != \"br0\" masquerade\n")
	if p.chance(30) {
		fmt.Fprintf(&b, "\t\t%s\n", pick(p.generator, `oifname "br0" masquerade`, `oifname "br0" snat to 10.88.0.1`, "ct status dnat masquerade"))
	}
	fmt.Fprintf(&b, "\t}\n}\ntable inet guard {\n\tchain forwarded {\n\t\ttype filter hook forward priority %s; policy %s;\n", pick(p.generator, "filter", "-5", "10"), pick(p.generator, "accept", "drop", "drop"))
	b.WriteString("\t\tct state established,related accept\n")
	for range 1 + p.IntN(4) {
		m := pick(p.generator, "", "ip saddr "+p.source(false)+" ", "ip saddr != "+p.specific(false)+" ", `iifname "eth0" `, `oifname "br0" `, "ct status dnat ", "meta l4proto tcp ct original proto-dst 8080 ", "tcp dport { 80, 443 } ")
		fmt.Fprintf(&b, "\t\t%s%s\n", m, pick(p.generator, "drop", "accept", "accept", "reject", "reject with icmpx admin-prohibited", "reject with tcp reset"))
	}
	b.WriteString("\t}\n}\n")
	return strings.ReplaceAll(b.String(), "\t\treject with tcp reset", "\t\tmeta l4proto tcp reject with tcp reset")
}

// TestContainersDifferential holds random translations to containers behind a
// bridge against packets: the published port, the container's own address, the
// host itself and a neighbouring container as clients.
func TestContainersDifferential(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-nft", "iptables-legacy", "conntrack")
	seed := *seedFlag
	if seed == 0 {
		seed = regressionSeed
	}
	t.Logf("seed %d (repeat with -seed %d)", seed, seed)
	l := lab.New(t, lab.Topology{Links: 2, Containers: 2, Bridge: true})
	l.Server.Sysctl(t, "net.ipv4.ip_forward", "1", "net.ipv6.conf.all.forwarding", "1")
	l.Server.Listen(t, everywhere(22, 8080)...)
	for _, c := range l.Containers {
		c.Listen(t, everywhere(80, 443)...)
	}
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 9))}
	g.clients4 = []netip.Addr{l.ClientAddr(0), netip.MustParseAddr("10.9.0.77"), netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("172.16.5.1")}
	p := &publisher{g, l}
	l.Control(t, dial(lab.TCP, l.ClientAddr(0), l.ServerAddr(0), 8080), dial(lab.TCP, l.ClientAddr(0), l.ContainerAddr(0), 80),
		dial(lab.UDP, l.ClientAddr(0), l.ContainerAddr(1), 443))
	loaders := map[lab.Loader]func() string{lab.NFT: p.nft, lab.IPTablesNFT: p.xt, lab.IPTablesLegacy: p.xt}
	var sum tally
	for round := range 9 {
		loader := []lab.Loader{lab.NFT, lab.IPTablesNFT, lab.IPTablesLegacy}[round%3]
		text := loaders[loader]()
		l.Server.Flush(t)
		l.Server.Load(t, loader, text)
		var outside, inside []lab.Probe
		for range 50 {
			q := lab.Probe{Proto: pick(g, lab.TCP, lab.TCP, lab.UDP), From: pick(g, g.clients4...), Via: pick(g, "eth0", "eth1")}
			to := pick(g, l.ServerAddr(0), l.ServerAddr(1), l.ContainerAddr(0), l.ContainerAddr(1))
			q.To = netip.AddrPortFrom(to, uint16(pick(g, 22, 80, 443, 8080, 8081, 8443)))
			if g.chance(12) {
				q.In, q.Via, q.From = l.Server, "", pick(g, l.ServerAddr(0), netip.MustParseAddr("10.88.0.1"))
			}
			outside = append(outside, q)
		}
		for range 6 {
			k := g.IntN(2)
			q := dial(lab.TCP, l.ContainerAddr(k), pick(g, l.ServerAddr(0), l.ServerAddr(1)), uint16(pick(g, 22, 8080, 8081, 8443)))
			q.In = l.Containers[k]
			inside = append(inside, q)
		}
		read := func() *reach.World { return hostWorld(t, l.Server) }
		for i, ps := range [][]lab.Probe{outside, inside} {
			r := hold(t, l, read, "br0", ps)
			if len(r.wrong) > 0 {
				t.Errorf("round %d: %d wrong with %v\n%s", round, len(r.wrong), loader, text)
				r.report(t, []string{"from outside", "from a container"}[i])
			}
			sum.asked, sum.depends, sum.wrong = sum.asked+r.asked, sum.depends+r.depends, append(sum.wrong, r.wrong...)
		}
	}
	t.Logf("%d probes, %d depends, %d wrong", sum.asked, sum.depends, len(sum.wrong))
	if sum.asked < 300 {
		t.Errorf("only %d probes were judged", sum.asked)
	}
	if sum.depends*10 > sum.asked {
		t.Errorf("%d of %d answers are depends", sum.depends, sum.asked)
	}
}
