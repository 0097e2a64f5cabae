package reach_test

import (
	"fmt"
	"strings"
)

// The rarer half of the languages: maps to data, concatenated verdict maps,
// devices, raw payload, translation of sources, ipsets.

// wideSet draws a set or map of a kind that nftSet does not; its name is w0.
func (g *generator) wideSet(six bool) string {
	typ := "ipv4_addr"
	if six {
		typ = "ipv6_addr"
	}
	other := func(a string) string {
		for range 20 {
			if b := g.client(six); b != a {
				return b
			}
		}
		return a
	}
	a := g.client(six)
	switch g.IntN(9) {
	case 0:
		return fmt.Sprintf("map w0 { type %s : mark; elements = { %s : 0x1, %s : 0x2 } }", typ, a, other(a))
	case 1:
		return fmt.Sprintf("map w0 { type %s : mark; flags interval; elements = { %s : 0x1 } }", typ, g.source(six))
	case 2:
		return fmt.Sprintf("map w0 { type inet_service : %s . inet_service; elements = { %d : %s . %d, %d : %s . %d } }", typ, g.ports[0], g.server(six), g.port(), g.ports[1], g.server(six), g.port())
	case 3:
		lo, hi := g.portRange()
		return fmt.Sprintf("map w0 { type %s . inet_service : verdict; flags interval; elements = { %s . %d-%d : %s } }", typ, g.source(six), lo, hi, pick(g, "accept", "drop", "continue", "return"))
	case 4:
		return fmt.Sprintf("map w0 { type %s . inet_service : verdict; elements = { %s . %d : %s, %s . %d : %s } }", typ, a, g.port(), pick(g, "accept", "drop"), other(a), g.port(), pick(g, "drop", "return"))
	case 5:
		return fmt.Sprintf("map w0 { type %s : verdict; elements = { %s : %s, * : %s } }", typ, a, pick(g, "accept", "drop", "return"), pick(g, "accept", "drop", "continue"))
	case 6:
		return "set w0 { type ifname; elements = { " + pick(g, `"eth0"`, `"eth1"`, `"eth0", "lo"`) + " } }"
	case 7:
		return fmt.Sprintf("set w0 { type inet_proto . inet_service; elements = { tcp . %d, udp . %d, udp . %d } }", g.port(), g.ports[0], g.ports[1])
	default:
		return fmt.Sprintf("set w0 { type %s; flags timeout; elements = { %s timeout 1h, %s } }", typ, a, other(a))
	}
}

// settledMatch is true of every packet that has the field, or of none.
func (g *generator) settledMatch(six bool) string {
	zero := fmt.Sprintf("& 0x0 %s 0x%d", pick(g, "==", "!="), g.IntN(2))
	if six {
		return pick(g, "ip6 hoplimit "+pick(g, zero, "0-255", "> 255", ">= 0", "< 0"), "ip6 flowlabel "+zero, "ip6 length "+pick(g, zero, "0-65535", "!= 0-65535"), "ip6 dscp 0-63", "@nh,32,16 "+zero)
	}
	return pick(g, "ip ttl "+pick(g, zero, "0-255", "> 255", ">= 0", "< 0"), "ip id "+pick(g, zero, "0-65535", "!= 0-65535"), "ip length "+pick(g, zero, "{ 0-65535 }"), "ip checksum "+pick(g, zero, ">= 0"),
		"ip dscp "+pick(g, "0-63", "!= 0-63"), "meta length "+pick(g, ">= 0", "< 0"), "meta cpu >= 0", "tcp window "+pick(g, zero, ">= 0"), "udp checksum "+pick(g, zero, ">= 0"))
}

// wideUse is a statement that uses the set w0, "" where none fits.
func (g *generator) wideUse(c *chain, w string, six bool) string {
	ip, src, dport := "ip", "saddr", "dport"
	if six {
		ip = "ip6"
	}
	if c.is("hook output") || c.is("hook postrouting") {
		src, dport = "daddr", "sport"
	}
	l4 := g.plain()
	typ := "ipv4_addr"
	if six {
		typ = "ipv6_addr"
	}
	fits := strings.Contains(w, "type "+typ)
	switch {
	case strings.Contains(w, ": mark;") && fits:
		return fmt.Sprintf("meta mark set %s %s map @w0", ip, src)
	case strings.Contains(w, "inet_service : ipv") && strings.Contains(w, ": "+typ) && c.is("type nat") && !c.is("hook input") && !c.is("hook postrouting"):
		return fmt.Sprintf("dnat %s to %s dport map @w0", ip, l4)
	case strings.Contains(w, ". inet_service : verdict") && fits && !c.is("type nat"):
		return fmt.Sprintf("%s %s . %s %s vmap @w0", ip, src, l4, dport)
	case strings.Contains(w, " : verdict") && fits && !c.is("type nat"):
		return fmt.Sprintf("%s %s vmap @w0", ip, src)
	case strings.Contains(w, "ifname"):
		if c.is("hook output") || c.is("hook postrouting") {
			return "oifname " + pick(g, "", "!= ") + "@w0"
		}
		return "iifname " + pick(g, "", "!= ") + "@w0"
	case strings.Contains(w, "inet_proto"):
		return "meta l4proto . th " + dport + " " + pick(g, "", "!= ") + "@w0"
	case strings.HasPrefix(w, "set") && fits:
		return fmt.Sprintf("%s %s %s@w0", ip, src, pick(g, "", "!= "))
	}
	return ""
}

func (g *generator) wideMatch(t *table, c *chain, six bool) string {
	out := c.is("hook output") || c.is("hook postrouting")
	ip, src, dst, sport, dport, dev := "ip", "saddr", "daddr", "sport", "dport", "iif"
	if six {
		ip = "ip6"
	}
	if out {
		src, dst, sport, dport, dev = dst, src, dport, sport, "oif"
	}
	not := pick(g, "", "", "!= ")
	l4 := g.plain()
	at := 2 // of the port on this side in the transport header
	if out {
		at = 0
	}
	switch g.IntN(26) {
	case 22:
		return "ct status " + pick(g, "snat", "seen-reply", "confirmed", "!= confirmed", "assured", "!= assured", "!= snat", "0x100", "& 0x100 == 0x100", "& 0x20 == 0x20", "!= 0x0")
	case 0:
		return fmt.Sprintf("%sname . %s %s %s{ %q . %s, %q . %s }", dev, ip, src, not, pick(g, g.links...), g.client(six), "eth1", g.client(six))
	case 1:
		return fmt.Sprintf("meta l4proto . th %s %s{ tcp . %d, udp . %d }", dport, not, g.port(), g.port())
	case 2:
		if six {
			return "ip6 nexthdr " + not + pick(g, "tcp", "udp", "{ tcp, udp }")
		}
		return "ip protocol " + not + pick(g, "tcp", "udp", "{ tcp, udp }", "icmp")
	case 3:
		return fmt.Sprintf("meta l4proto %s @th,%d,16 %s%d", l4, at*8, not, g.port())
	case 4:
		return fmt.Sprintf("meta l4proto %s @th,%d,16 > %d", l4, at*8, pick(g, 79, 80, 442, 8080))
	case 5:
		if six {
			return pick(g, "ip6 version "+not+pick(g, "6", "6", "{ 6 }", "4-5"), "@nh,0,4 "+not+"6", "@nh,0,8 & 0xf0 == 0x60")
		}
		return pick(g, "ip version "+not+"4", "ip hdrlength 5", "@nh,72,8 6", "@nh,72,8 != 17", "@nh,0,8 0x45")
	case 23:
		return g.settledMatch(six)
	case 24:
		if out { // it has no link header yet, which the model does not know of every hook
			return "ct direction reply"
		}
		return "@ll,96,16 " + not + pick(g, "0x0800", "0x86dd", "0x0806")
	case 25:
		return pick(g, fmt.Sprintf("meta l4proto %s ct reply proto-src %s%d", l4, not, g.port()), fmt.Sprintf("ct reply %s daddr %s%s", ip, not, g.source(six)), fmt.Sprintf("ct reply %s saddr %s%s", ip, not, g.server(six)))
	case 6:
		return fmt.Sprintf("meta l4proto %s ct original %s daddr %s%s", l4, ip, not, g.server(six))
	case 7:
		return fmt.Sprintf("meta l4proto %s ct original %s saddr %s%s", l4, ip, not, g.source(six))
	case 8:
		return fmt.Sprintf("meta l4proto %s ct reply %s saddr %s%s", l4, ip, not, g.server(six))
	case 9:
		return fmt.Sprintf("ct protocol %s%s", not, l4)
	case 10:
		if t.family == "inet" {
			return "ct l3proto " + not + pick(g, "ipv4", "ipv6")
		}
		return "ct protocol tcp"
	case 11:
		return fmt.Sprintf("%s %s %s{ %d-%d, %d }", l4, dport, not, g.ports[0], g.ports[0]+pick(g, 0, 1, 7), g.port())
	case 12:
		a := g.client(six)
		return fmt.Sprintf("%s %s %s%s-%s", ip, src, not, a, a)
	case 13:
		return fmt.Sprintf("%s %s . %s %s . %s %s %s{ %s . %s . %d, %s . %s . %d }", ip, src, ip, dst, l4, dport, not, g.client(six), g.server(six), g.port(), g.client(six), g.server(six), g.port())
	case 14:
		return "meta mark vmap { 0x0 : " + pick(g, "continue", "accept", "drop") + ", 0x1 : " + pick(g, "accept", "drop", "return") + " }"
	case 15:
		return dev + `name vmap { "eth0" : ` + pick(g, "continue", "accept", "drop") + `, "eth1" : ` + pick(g, "continue", "accept", "drop") + " }"
	case 16:
		if out {
			return "meta pkttype != broadcast"
		}
		return pick(g, "meta pkttype host", "meta pkttype unicast", "meta pkttype != { broadcast, multicast }", "meta pkttype multicast")
	case 17:
		return pick(g, dev+"type ether", dev+"type != loopback", dev+"type loopback", dev+"group default", dev+"group != 0", `meta `+dev+` "lo"`)
	case 18:
		return fmt.Sprintf("%s %s %s%d-%d", l4, sport, not, 1024, pick(g, 65535, 50000))
	case 19:
		return fmt.Sprintf("ct original proto-src %s%d-%d meta l4proto %s", not, 1024, pick(g, 65535, 50000), l4)
	case 20:
		if c.is("hook prerouting") || c.is("hook input") {
			return "fib daddr type vmap { local : " + pick(g, "continue", "accept", "drop") + ", broadcast : drop, multicast : drop }"
		}
		return "meta mark 0"
	default:
		return "ct state vmap { established : " + pick(g, "accept", "continue") + ", related : accept, invalid : drop }"
	}
}

// wideAction is a statement that ends or changes, "" where none fits the chain.
func (g *generator) wideAction(t *table, c *chain, six bool) string {
	ip := "ip"
	server := g.server(six)
	if six {
		ip = "ip6"
		server = "[" + server + "]"
	}
	l4 := g.plain()
	if c.is("type nat") {
		switch {
		case c.is("hook postrouting"):
			return "accept"
		case c.is("hook input"):
			return fmt.Sprintf("meta l4proto %s snat %s to %s", l4, ip, pick(g, g.client(six), g.client(six)))
		case g.chance(30):
			return fmt.Sprintf("meta l4proto %s redirect", l4)
		case g.chance(40):
			return fmt.Sprintf("meta l4proto %s dnat %s to %s", l4, ip, strings.Trim(server, "[]"))
		default:
			return fmt.Sprintf("%s dport { %d, %d } dnat %s to %s:%d", l4, g.port(), g.port(), ip, server, g.port())
		}
	}
	switch g.IntN(9) {
	case 0:
		return "meta mark set meta mark << 1"
	case 1:
		return "ct mark set meta mark or 0x1"
	case 2:
		return "meta mark set ct mark and 0x1"
	case 3, 4:
		if (c.is("priority -300") || c.is("priority -250") || c.is("priority -400")) && (c.is("hook prerouting") || c.is("hook output")) {
			return pick(g, "ct zone set 1", "ct zone set 1", "ct zone set 2", "ct original zone set 1", "ct reply zone set 1", "ct zone set 1 notrack", "notrack ct zone set 1")
		}
		return "counter"
	case 5:
		if six {
			return pick(g, "ip6 hoplimit set 64", "ip6 dscp set cs1", "ip6 hoplimit set 64 ip6 hoplimit 64", "ip6 hoplimit set 33 ip6 hoplimit < 33 drop")
		}
		return pick(g, "ip ttl set 64", "ip dscp set cs1", "ip ttl set 64 ip ttl 64", "ip ttl set 33 ip ttl < 33 drop")
	case 6:
		return "tcp option maxseg size set 1200"
	case 7:
		if c.is("hook prerouting") {
			return pick(g, "socket transparent 0 counter", fmt.Sprintf("meta l4proto %s tproxy %s to :%d", l4, ip, pick(g, 9008, 9999)))
		}
		return "ct zone 1 " + pick(g, "accept", "drop")
	default:
		return `log prefix "y" ` + pick(g, "accept", "drop", "continue")
	}
}

// netdevTable draws a table at the ingress of the interfaces.
func (g *generator) netdevTable(name string) *table {
	t := &table{loader: "nft", family: "netdev", name: name}
	if g.chance(40) {
		t.family = "inet"
	}
	c := &chain{name: "in", head: fmt.Sprintf("type filter hook ingress device %s priority %d; policy %s;", pick(g, g.links...), pick(g, -500, 0, 10), pick(g, "accept", "accept", "accept", "drop"))}
	for range 1 + g.IntN(4) {
		six := g.chance(40)
		ip := "ip"
		if six {
			ip = "ip6"
		}
		l4 := pick(g, "tcp", "udp")
		m := pick(g, fmt.Sprintf("%s saddr %s", ip, g.source(six)), fmt.Sprintf("%s dport %d", l4, g.port()), fmt.Sprintf("%s saddr %s %s dport != %d", ip, g.source(six), l4, g.port()),
			fmt.Sprintf("%s daddr %s", ip, g.server(six)), "meta l4proto "+l4, "meta protocol ip", "ether type ip6", "ip protocol udp", fmt.Sprintf("%s saddr . %s dport { %s . %d }", ip, l4, g.client(six), g.port()))
		c.rules = append(c.rules, m+" "+pick(g, "accept", "drop", "drop", "counter", "meta mark set 0x1", "meta mark set 0x2 accept"))
	}
	t.chains = []*chain{c}
	return t
}

// ipsetTable draws sets for `-m set`: s4 and p4, or s6 and p6.
func (g *generator) ipsetTable(six bool) *table {
	n, fam := "4", ""
	if six {
		n, fam = "6", " family inet6"
	}
	net := func() string {
		for {
			if p := g.source(six); !strings.HasSuffix(p, "/0") {
				return p
			}
		}
	}
	lines := []string{
		"create s" + n + " " + pick(g, "hash:net", "hash:net", "hash:ip") + fam,
		"create p" + n + " hash:ip,port" + fam,
	}
	for range 3 {
		if strings.Contains(lines[0], "hash:net") {
			lines = append(lines, "add s"+n+" "+net()+pick(g, "", "", " nomatch")+" -exist")
		} else {
			lines = append(lines, "add s"+n+" "+g.client(six)+" -exist")
		}
		lines = append(lines, fmt.Sprintf("add p%s %s,%s:%d -exist", n, g.client(six), pick(g, "tcp", "udp"), g.port()))
	}
	return &table{loader: "ipset", name: "sets" + n, verbatim: strings.Join(lines, "\n") + "\n"}
}

func (g *generator) wideXTMatch(t *table, c *chain, six, out bool, proto string, not func() string) string {
	n, src, dir2 := "4", "src", "src,dst"
	if six {
		n = "6"
	}
	if out {
		src, dir2 = "dst", "dst,src"
	}
	switch g.IntN(9) {
	case 0, 1:
		return "-m set " + not() + "--match-set s" + n + " " + src
	case 2:
		return "-m set " + not() + "--match-set p" + n + " " + dir2
	case 3:
		return "-m conntrack " + not() + "--ctorigdst " + g.server(six)
	case 4:
		if proto != "" {
			return fmt.Sprintf("-m conntrack --ctproto %s %s--ctorigdstport %d", proto, not(), g.port())
		}
		return "-m conntrack --ctdir " + pick(g, "ORIGINAL", "REPLY")
	case 5:
		return "-m conntrack " + not() + "--ctstatus " + pick(g, "SEEN_REPLY", "CONFIRMED", "NONE", "ASSURED")
	case 6:
		return "-m conntrack " + not() + "--ctorigsrc " + g.source(six)
	case 7:
		if t.name == "raw" || t.name == "mangle" {
			if c.name == "PREROUTING" {
				return "-m rpfilter " + pick(g, "", "--loose ", "--invert ", "--validmark ")
			}
		}
		return "-m mark --mark 0x0/0x3"
	default:
		a, b := g.client(six), g.client(six)
		if len(a) == len(b) && a > b {
			a, b = b, a
		} else if len(a) != len(b) {
			b = a
		}
		if out {
			return "-m iprange " + not() + "--dst-range " + a + "-" + b
		}
		return "-m iprange " + not() + "--src-range " + a + "-" + b
	}
}

func (g *generator) wideXTTarget(t *table, c *chain, six bool, proto string) string {
	to := g.server(six)
	switch {
	case t.name == "nat" && c.name == "INPUT":
		return "-j SNAT --to-source " + g.client(six)
	case t.name == "nat" && (c.name == "PREROUTING" || c.name == "OUTPUT"):
		net := "10.9.1.0/24"
		if six {
			net = "fd00:9:1::/64"
		}
		return pick(g, "-j DNAT --to-destination "+to, "-j REDIRECT", "-j NETMAP --to "+net)
	case t.name == "nat":
		return "-j RETURN"
	case t.name == "mangle":
		if g.chance(40) {
			if g.chance(30) && c.name == "PREROUTING" && proto != "" {
				return fmt.Sprintf("-j TPROXY --on-port %d", pick(g, 9008, 9999))
			}
			ttl := "-j TTL --ttl-set 64"
			if six {
				ttl = "-j HL --hl-set 64"
			}
			return pick(g, ttl, "-j DSCP --set-dscp 8", "-j TOS --set-tos 0x10/0x3f", "-j CHECKSUM --checksum-fill", "-j CLASSIFY --set-class 1:2", "-j TCPMSS --set-mss 1000")
		}
		return pick(g, "-j MARK --set-xmark 0x1/0x3", "-j CONNMARK --set-xmark 0x1/0x1", "-j CONNMARK --save-mark --nfmask 0x1 --ctmask 0x1", "-j CONNMARK --restore-mark --nfmask 0x3 --ctmask 0x3")
	case t.name == "raw":
		return pick(g, "-j CT --zone 1", "-j CT --notrack", "-j TRACE", "-j CT --zone-orig 1", "-j CT --zone-reply 1", "-j CT --zone mark", "-j MARK --set-mark 1")
	}
	return pick(g, "-j NFLOG", "-j ACCEPT", "-j DROP", "-j LOG --log-prefix x", "-j AUDIT --type accept", "-j NFQUEUE --queue-num 7", "-j NFQUEUE --queue-num 7 --queue-bypass")
}
