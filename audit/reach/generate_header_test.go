package reach_test

import (
	"fmt"
	"strings"
)

// Extension headers of IPv6, fragments and options of IPv4: what ordinary packets do
// not have, in every way that rules ask for it. Whether a rule meets an ordinary packet
// all the same (a header that is missing, a field compared with !=) the kernel says.

func (g *generator) headerPart() *ruleset {
	rs := &ruleset{}
	if g.chance(65) {
		rs.tables = append(rs.tables, g.headerNFT("h0", pick(g, "inet", "inet", "ip", "ip6")))
	}
	if len(rs.tables) == 0 || g.chance(60) {
		loader := pick(g, "ip6tables-nft", "ip6tables-legacy", "ip6tables-nft", "ip6tables-legacy", "iptables-nft", "iptables-legacy")
		rs.tables = append(rs.tables, g.headerXT(loader, pick(g, "filter", "filter", "mangle", "raw")))
	}
	return rs
}

func (g *generator) headerNFT(name, family string) *table {
	t := &table{loader: "nft", family: family, name: name}
	for i, h := range []string{"input", "prerouting", "output", "postrouting"} {
		if i > 0 && g.chance(65) {
			continue
		}
		c := &chain{name: h, head: fmt.Sprintf("type filter hook %s priority %d; policy accept;", h, pick(g, -450, -300, -150, 0, 10))}
		for range 1 + g.IntN(4) {
			six := family == "ip6" || family == "inet" && g.chance(65)
			var m []string
			for range 1 + g.IntN(2) {
				m = append(m, g.headerMatch(six))
			}
			if g.chance(50) {
				port := "dport"
				if i > 1 {
					port = "sport"
				}
				m = append(m, fmt.Sprintf("%s %s %s%d", pick(g, "tcp", "udp"), port, pick(g, "", "", "!= "), g.port()))
			}
			c.rules = append(c.rules, nftPart(strings.Join(m, " "), pick(g, "drop", "drop", "accept", "accept", "meta mark set 0x1")))
		}
		if g.chance(20) {
			c.rules = append(c.rules, "meta mark 0x1 drop")
		}
		t.chains = append(t.chains, c)
	}
	return t
}

func (g *generator) headerMatch(six bool) string {
	not := pick(g, "", "!= ")
	if !six {
		return pick(g,
			"ip frag-off & 0x1fff == 0", "ip frag-off & 0x1fff != 0", "ip frag-off & 0x2000 == 0", "ip frag-off & 0x3fff != 0", "ip hdrlength 5", "ip hdrlength != 5", "ip hdrlength > 5", "ip hdrlength { 5-6 }",
			"ip option lsrr "+pick(g, "exists", "missing"), "ip option rr "+pick(g, "exists", "missing"), "ip option ssrr "+pick(g, "exists", "missing"), "ip option ra "+pick(g, "exists", "missing"),
			"ip option lsrr type "+not+"131", "ip option rr length "+not+"7", "ip option ra value "+not+"0", "ip protocol "+not+pick(g, "ah", "esp", "sctp"), "ip version 4", "exthdr hbh missing")
	}
	h := pick(g, "hbh", "frag", "rt", "dst", "mh")
	return pick(g,
		"exthdr "+h+" exists", "exthdr "+h+" missing", "exthdr "+h+" missing", "exthdr "+h+" missing", "frag frag-off "+not+"0", "frag more-fragments "+pick(g, "0", "1"), "frag id "+not+"5", "frag nexthdr "+not+"tcp", "frag reserved "+not+"0",
		"hbh nexthdr "+not+pick(g, "tcp", "udp"), "hbh hdrlength "+not+"0", "rt type "+not+"0", "rt seg-left "+not+"0", "rt nexthdr "+not+"tcp", "dst nexthdr "+not+"tcp", "dst hdrlength "+not+"1", "mh type "+not+"1",
		"ip6 nexthdr "+not+pick(g, "tcp", "udp", "ipv6-frag", "hopopt", "ipv6-route"), "ip6 nexthdr { tcp, udp }", "meta l4proto "+not+pick(g, "ah", "esp", "tcp"))
}

func (g *generator) headerXT(loader, name string) *table {
	six := strings.HasPrefix(loader, "ip6")
	t := &table{loader: loader, name: name}
	for _, hook := range xtBuiltins[name] {
		c := &chain{name: hook, head: "ACCEPT"}
		t.chains = append(t.chains, c)
		if hook == "FORWARD" {
			continue
		}
		n := g.IntN(3)
		if hook == "INPUT" || name == "raw" && hook == "PREROUTING" {
			n++
		}
		for range n {
			end := pick(g, "DROP", "DROP", "ACCEPT", "LOG")
			if name == "mangle" && g.chance(30) {
				end = "MARK --set-mark 1"
			}
			c.rules = append(c.rules, xtPart(g.headerXTMatch(six), end))
		}
	}
	return t
}

func (g *generator) headerXTMatch(six bool) string {
	not := pick(g, "", "! ")
	proto := pick(g, "", "", "-p tcp ", "-p udp ", fmt.Sprintf("-p tcp --dport %d ", g.port()), fmt.Sprintf("-p tcp --sport %d ", g.port()))
	if !six {
		return pick(g, "-f "+pick(g, "", "-p tcp "), "! -f "+proto, "! -f "+proto, "-p ah -m ah "+not+"--ahspi 5", "-p esp -m esp "+not+"--espspi 5", not+"-p ah", not+"-p esp")
	}
	return pick(g,
		"-m frag "+not+"--fragid 5", "-m frag --fragmore", "-m frag --fraglast", "-m frag --fragfirst", "-m frag --fragres", proto+"-m rt "+not+"--rt-type 0", proto+"-m rt "+not+"--rt-segsleft 0", "-m hbh "+not+"--hbh-len 8", "-m dst "+not+"--dst-len 8",
		proto+"-m ipv6header "+not+"--header "+pick(g, "hop", "dst", "route", "frag", "auth", "esp", "none", "prot", "hop,dst", "frag,prot")+pick(g, "", " --soft"),
		proto+"-m ipv6header "+not+"--header "+pick(g, "hop", "prot", "frag,prot")+pick(g, "", " --soft"),
		"-p mh -m mh "+not+"--mh-type 1", "-m ah "+not+"--ahspi 5", "-p esp -m esp "+not+"--espspi 5", "-m srh "+not+"--srh-next-hdr 6", not+"-p "+pick(g, "esp", "ah", "ipv6-frag", "ipv6-route", "mh"))
}
