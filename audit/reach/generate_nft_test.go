package reach_test

import (
	"fmt"
	"strings"
)

// nftTable draws a native table.
func (g *generator) nftTable(name string) *table {
	t := &table{loader: "nft", name: name, family: pick(g, "inet", "inet", "ip", "ip6")}
	for i := range g.IntN(3) {
		t.sets = append(t.sets, g.nftSet(t, i))
	}
	wideSix := t.family == "ip6" || t.family == "inet" && g.chance(50)
	if g.wide {
		t.wide = g.wideSet(wideSix)
		if g.rare && g.chance(25) {
			t.wide = g.rareSet(wideSix)
		}
		t.sets = append(t.sets, t.wide)
	}
	users := g.IntN(3)
	for i := range 1 + g.IntN(3) {
		t.chains = append(t.chains, g.nftBase(t, fmt.Sprintf("base%d", i)))
	}
	for i := range users {
		t.chains = append(t.chains, &chain{name: fmt.Sprintf("user%d", i)})
	}
	for _, c := range t.chains {
		for range 1 + g.IntN(5) {
			c.rules = append(c.rules, g.nftRule(t, c, users))
		}
	}
	// Regular chains have to stand before those that jump to them.
	var ordered []*chain
	for i := len(t.chains) - 1; i >= 0; i-- {
		ordered = append(ordered, t.chains[i])
	}
	t.chains = ordered
	return t
}

func (g *generator) nftSet(t *table, i int) string {
	six := t.family == "ip6" || t.family == "inet" && g.chance(50)
	typ := "ipv4_addr"
	if six {
		typ = "ipv6_addr"
	}
	switch g.IntN(5) {
	case 0:
		return fmt.Sprintf("set s%d { type %s; elements = { %s, %s } }", i, typ, g.client(six), g.client(six)+"") // duplicates are fine
	case 1:
		return fmt.Sprintf("set s%d { type %s; flags interval; auto-merge; elements = { %s, %s } }", i, typ, g.source(six), g.source(six))
	case 2:
		return fmt.Sprintf("set s%d { type inet_service; flags interval; auto-merge; elements = { %d, %d-%d } }", i, g.port(), g.port(), 65000)
	case 3:
		a, b := g.portRange()
		return fmt.Sprintf("set s%d { type %s . inet_service; flags interval; elements = { %s . %d-%d } }", i, typ, g.source(six), a, b)
	default:
		return fmt.Sprintf("map s%d { type %s : verdict; flags interval; elements = { %s : %s } }", i, typ, g.source(six), pick(g, "accept", "drop", "continue", "return"))
	}
}

func (g *generator) nftBase(t *table, name string) *chain {
	hook := pick(g, "input", "input", "input", "prerouting", "prerouting", "output", "postrouting")
	typ := "filter"
	prio := fmt.Sprint(pick(g, -400, -300, -250, -200, -150, -120, -100, -50, -10, 0, 0, 0, 10, 50, 100, 300))
	if hook == "output" && g.chance(25) {
		typ = "route"
	}
	if g.nat && g.chance(20) {
		typ = "nat"
		hook = pick(g, "prerouting", "prerouting", "output", "input")
		if g.rare && g.chance(30) {
			hook = "postrouting"
		}
		prio = fmt.Sprint(pick(g, -190, -110, -100, -100, -90, 0, 100))
	}
	policy := pick(g, "accept", "accept", "accept", "drop")
	if typ == "nat" {
		policy = "accept"
	}
	return &chain{name: name, head: fmt.Sprintf("type %s hook %s priority %s; policy %s;", typ, hook, prio, policy)}
}

// plain is a transport protocol that may stand in a concatenation.
func (g *generator) plain() string {
	if g.l4 == "udp" {
		return "udp"
	}
	return "tcp"
}

func (c *chain) is(word string) bool { return strings.Contains(c.head, word) }

func (g *generator) nftRule(t *table, c *chain, users int) string {
	var parts []string
	g.l4 = pick(g, "tcp", "tcp", "udp", "meta l4proto { tcp, udp } th")
	six := t.family == "ip6" || t.family == "inet" && g.chance(50)
	for range g.IntN(4) {
		parts = append(parts, g.nftMatch(t, c, six))
	}
	if g.chance(25) {
		parts = append(parts, "counter")
	}
	if g.rare && g.chance(25) {
		if s := g.rareMatch(t, c, six); s != "" {
			parts = append(parts, s)
		}
		if s := g.rareAction(t, c, six, users); s != "" && g.chance(40) {
			return strings.Join(append(parts, s), " ")
		}
	}
	if g.wide && g.chance(40) {
		if g.chance(60) {
			parts = append(parts, g.wideMatch(t, c, six))
		}
		if s := g.wideUse(c, t.wide, six); s != "" && g.chance(60) {
			parts = append(parts, s)
			if !strings.Contains(s, "@w0") || strings.Contains(s, "map @w0") {
				return strings.Join(parts, " ")
			}
		}
		if s := g.wideAction(t, c, six); g.chance(50) {
			return strings.Join(append(parts, s), " ")
		}
	}
	parts = append(parts, g.nftAction(t, c, six, users))
	return strings.Join(parts, " ")
}

func (g *generator) nftMatch(t *table, c *chain, six bool) string {
	ip := "ip"
	if six {
		ip = "ip6"
	}
	not := pick(g, "", "", "!= ")
	// On output and postrouting the client is the destination.
	src, dst := "saddr", "daddr"
	sport, dport := "sport", "dport"
	out := c.is("hook output") || c.is("hook postrouting")
	if out {
		src, dst, sport, dport = dst, src, dport, sport
	}
	l4 := g.l4
	switch g.IntN(26) {
	case 0, 1, 2:
		return fmt.Sprintf("%s %s %s%s", ip, src, not, g.source(six))
	case 3:
		return fmt.Sprintf("%s %s %s{ %s, %s }", ip, src, not, g.client(six), g.client(six))
	case 4, 5:
		return fmt.Sprintf("%s %s %s%d", l4, dport, not, g.port())
	case 6:
		a, b := g.portRange()
		return fmt.Sprintf("%s %s %s%d-%d", l4, dport, not, a, b)
	case 7:
		return fmt.Sprintf("%s %s %s{ %d, %d }", l4, dport, not, g.port(), g.port())
	case 8:
		return fmt.Sprintf("%s %s %s%s", ip, dst, not, g.server(six))
	case 9:
		if out {
			return fmt.Sprintf("oifname %s%q", not, pick(g, g.links...))
		}
		return fmt.Sprintf("iifname %s%q", not, pick(g, g.links...))
	case 10:
		if out {
			return fmt.Sprintf("oif %q", pick(g, g.links...))
		}
		return fmt.Sprintf("iif %s%q", not, pick(g, g.links...))
	case 11:
		return `iifname "eth*"`
	case 12, 13:
		return "ct state " + not + pick(g, "new", "established", "established,related", "invalid", "untracked", "new,established", "related")
	case 14:
		return "meta mark " + pick(g, "0x0", "0x1", "0x2", "!= 0x1", "and 0x3 == 0x1", "and 0x2 == 0x0")
	case 15:
		return "ct mark " + pick(g, "0x0", "0x1", "!= 0x0", "and 0x1 == 0x1")
	case 16:
		return pick(g, "meta l4proto tcp", "meta l4proto udp", "meta l4proto != tcp", "meta l4proto { tcp, udp }")
	case 17:
		if t.family == "inet" {
			return pick(g, "meta nfproto ipv4", "meta nfproto ipv6", "meta protocol ip", "meta nfproto != ipv4")
		}
		return "meta l4proto tcp"
	case 18:
		for i, s := range t.sets {
			want := "ipv4_addr"
			if six {
				want = "ipv6_addr"
			}
			if strings.HasPrefix(s, "set") && strings.Contains(s, "type "+want+";") {
				return fmt.Sprintf("%s %s %s@s%d", ip, src, not, i)
			}
			if strings.Contains(s, "type "+want+" . ") {
				return fmt.Sprintf("%s %s . %s %s %s@s%d", ip, src, g.plain(), dport, not, i)
			}
			if strings.Contains(s, "type inet_service") {
				return fmt.Sprintf("%s %s %s@s%d", l4, dport, not, i)
			}
		}
		return "ct state new"
	case 19:
		if g.l4 != "tcp" {
			return "meta l4proto " + g.plain()
		}
		return pick(g, "tcp flags syn", "tcp flags & (fin|syn|rst|ack) == syn", "tcp flags & (syn|ack) != syn", "tcp flags != ack")
	case 20:
		if six {
			return fmt.Sprintf("ip6 %s & ::3 == ::%d", src, g.IntN(4))
		}
		return fmt.Sprintf("ip %s & 0.0.0.3 == 0.0.0.%d", src, g.IntN(4))
	case 21:
		return fmt.Sprintf("%s %s %s", l4, sport, pick(g, "1024-65535", "< 30000", ">= 40000", "!= 50000", "1-1023"))
	case 22:
		return fmt.Sprintf("meta l4proto tcp ct original proto-dst %s%d", not, g.port())
	case 23:
		return pick(g, "ct status dnat", "ct direction original", "ct direction reply", "ct status != dnat")
	case 24:
		if c.is("hook prerouting") || c.is("hook input") {
			return pick(g, "fib daddr type local", "fib saddr type local", "fib saddr type unicast", "fib daddr . iif type local", "fib saddr . iif oif missing",
				"fib saddr . iif oif exists", "fib saddr oif exists", `fib saddr oifname "eth0"`, `fib daddr oifname != "lo"`, "fib saddr . mark oif exists")
		}
		return "meta mark 0x0"
	default:
		a, b := g.portRange()
		return fmt.Sprintf("%s %s . %s %s { %s . %d, %s . %d-%d }", ip, src, g.plain(), dport, g.client(six), g.port(), g.client(six), a, b)
	}
}

func (g *generator) nftAction(t *table, c *chain, six bool, users int) string {
	if c.is("type nat") {
		return g.nftNAT(t, c, six)
	}
	n := g.IntN(22)
	switch {
	case n < 4:
		return "accept"
	case n < 8:
		return "drop"
	case n < 9:
		if c.is("hook prerouting") || c.is("hook input") {
			return pick(g, "reject", "meta l4proto "+g.plain()+" reject", g.icmpReject(t))
		}
		return "drop"
	case n < 13:
		if users > 0 {
			i := g.IntN(users)
			if !strings.HasPrefix(c.name, "user") || int(c.name[4]-'0') < i {
				return pick(g, "jump", "jump", "goto") + fmt.Sprintf(" user%d", i)
			}
		}
		return "return"
	case n < 14:
		return "return"
	case n < 16:
		return "meta mark set " + pick(g, "0x1", "0x2", "0x3", "ct mark", "meta mark or 0x2", "meta mark xor 0x1", "meta mark and 0x1") + pick(g, "", " accept", " drop")
	case n < 17:
		return "ct mark set " + pick(g, "0x1", "0x2", "meta mark", "ct mark or 0x1")
	case n < 18:
		dport := "dport"
		if c.is("hook output") || c.is("hook postrouting") {
			dport = "sport"
		}
		return fmt.Sprintf("%s %s vmap { %d : %s, %d-%d : %s }", g.l4, dport, g.ports[0], pick(g, "accept", "drop"), g.ports[1], g.ports[1]+1, pick(g, "accept", "drop", "return", "continue"))
	case n < 19:
		return "ct state vmap { " + pick(g, "new : accept", "new : drop", "new : continue, established : accept", "established : accept, invalid : drop") + " }"
	case n < 20:
		if c.is("priority -400") || c.is("priority -300") || c.is("priority -250") {
			if c.is("hook prerouting") || c.is("hook output") {
				return "notrack"
			}
		}
		for i, s := range t.sets {
			fam := "ip"
			if strings.Contains(s, "ipv6_addr") {
				fam = "ip6"
			}
			if strings.HasPrefix(s, "map") {
				dir := "saddr"
				if c.is("hook output") || c.is("hook postrouting") {
					dir = "daddr"
				}
				return fmt.Sprintf("%s %s vmap @s%d", fam, dir, i)
			}
		}
		return "accept"
	case n < 21 && g.undecidable:
		return "limit rate 1/hour burst 1 packets " + pick(g, "accept", "drop")
	default:
		return pick(g, "counter", "log prefix \"x\"", "accept", "drop")
	}
}

func (g *generator) icmpReject(t *table) string {
	switch {
	case g.l4 == "tcp" && g.chance(40):
		return "reject with tcp reset"
	case t.family == "inet":
		return "reject with icmpx type " + pick(g, "admin-prohibited", "host-unreachable", "port-unreachable", "no-route")
	case t.family == "ip":
		return "reject with icmp type " + pick(g, "admin-prohibited", "host-unreachable", "port-unreachable", "net-unreachable", "host-prohibited", "prot-unreachable")
	default:
		return "reject with icmpv6 type " + pick(g, "admin-prohibited", "addr-unreachable", "port-unreachable", "no-route")
	}
}

func (g *generator) nftNAT(t *table, c *chain, six bool) string {
	proto := "ip"
	if six {
		proto = "ip6"
	}
	to := g.server(six)
	if six {
		to = "[" + to + "]"
	}
	l4 := g.plain()
	switch {
	case c.is("hook input"), c.is("hook postrouting"):
		return fmt.Sprintf("meta l4proto %s accept", l4)
	case g.chance(50):
		return fmt.Sprintf("%s dport %d redirect to :%d", l4, g.port(), g.port())
	default:
		return fmt.Sprintf("meta l4proto %s dnat %s to %s:%d", l4, proto, to, g.port())
	}
}
