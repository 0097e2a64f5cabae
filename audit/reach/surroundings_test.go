package reach_test

import (
	"fmt"
	"strings"
	"testing"
)

// command is one change of the server's routing or settings.
type command []string

// surroundings draws what decides beside the rules: reverse-path filters,
// routing rules, routes, settings.
func (g *generator) surroundings() (cs []command) {
	for range g.IntN(4) {
		switch g.IntN(10) {
		case 0, 1:
			where := pick(g, "all", "eth0", "eth1")
			cs = append(cs, command{"sysctl", "net.ipv4.conf." + where + ".rp_filter", pick(g, "0", "1", "2")})
		case 2:
			cs = append(cs, command{"sysctl", "net.ipv4.conf." + pick(g, g.links...) + "." + pick(g, "route_localnet", "accept_local", "src_valid_mark"), "1"})
		case 3:
			cs = append(cs, command{"sysctl", pick(g, "net.ipv4.ip_forward", "net.ipv4.fwmark_reflect", "net.ipv4.tcp_fwmark_accept", "net.ipv6.fwmark_reflect"), "1"})
		case 4, 5:
			six := g.chance(35)
			cs = append(cs, append(ip(six), "route", "add", pick(g, "blackhole", "unreachable", "prohibit", "throw"), g.specific(six), "metric", "7"))
		case 6:
			six := g.chance(35)
			via := "10.9.1.1"
			if six {
				via = "fd00:9:1::1"
			}
			cs = append(cs, append(ip(six), "route", "add", g.specific(six), "via", via, "dev", "eth1", "metric", "9"))
		case 7, 8:
			six := g.chance(35)
			c := append(ip(six), "rule", "add", "pref", fmt.Sprint(pick(g, 50, 100, 32000, 40000)))
			switch g.IntN(10) {
			case 6:
				c = append(c, "not", "from", g.specific(six))
			case 7:
				c = append(c, "oif", pick(g, "eth0", "eth1", "lo"))
			case 8:
				c = append(c, "uidrange", pick(g, "0-0", "1-65535"), "to", g.specific(six))
			case 9:
				cs = append(cs, append(c, "table", "main", "suppress_prefixlength", pick(g, "0", "8", "24")))
				continue
			case 0:
				c = append(c, "fwmark", pick(g, "0x1", "0x2", "0x2/0x2"))
			case 1:
				c = append(c, "to", g.specific(six))
			case 2:
				c = append(c, "from", g.specific(six))
			case 3:
				c = append(c, "from", g.server(six))
			case 4:
				c = append(c, "iif", pick(g, "eth0", "eth1", "lo"))
			default:
				c = append(c, "ipproto", "tcp", pick(g, "sport", "dport"), fmt.Sprint(g.port()))
			}
			if g.chance(50) {
				c = append(c, pick(g, "blackhole", "prohibit", "unreachable"))
			} else {
				c = append(c, "table", "100")
			}
			cs = append(cs, c)
		default:
			six := g.chance(35)
			dst := pick(g, "default", g.specific(six))
			if g.chance(40) {
				cs = append(cs, append(ip(six), "route", "add", pick(g, "blackhole", "unreachable", "prohibit"), dst, "table", "100", "metric", "5"))
			} else {
				cs = append(cs, append(append(ip(six), "route", "add", dst), g.out(six, "100", "6")...))
			}
		}
	}
	return cs
}

// out ends a route by one of the interfaces. In IPv6 it has a gateway: the client
// answers no solicitation of the addresses that probes only pretend to have.
func (g *generator) out(six bool, table, metric string) command {
	i := g.IntN(len(g.links))
	c := command{"dev", g.links[i], "table", table, "metric", metric}
	if six {
		c = append(command{"via", fmt.Sprintf("fd00:9:%x::1", i)}, c...)
	}
	return c
}

func ip(six bool) command {
	if six {
		return command{"ip", "-6"}
	}
	return command{"ip", "-4"}
}

// specific is a prefix around a client's address that is no default route.
func (g *generator) specific(six bool) string {
	for {
		p := g.source(six)
		if !strings.HasSuffix(p, "/0") && !strings.HasSuffix(p, "/1") {
			return p
		}
	}
}

// surround applies the commands; those that the kernel refuses are left out.
func (b *bench) surround(t testing.TB, cs []command) {
	for _, c := range cs {
		if c[0] == "sysctl" {
			b.Server.Sysctl(t, c[1], c[2])
			continue
		}
		if c[0] == "listen" {
			b.listen(t, c[1:])
			continue
		}
		in := b.Server
		if c[0] == "client" {
			in, c = b.Client, c[1:]
		}
		if _, err := in.Exec(t.Context(), "", c...); err != nil && *verboseFlag {
			t.Logf("refused: %v: %v", c, err)
		}
	}
}

// reset undoes what surround did.
func (b *bench) reset(t testing.TB) {
	b.closeDrawn()
	b.Server.Exec(t.Context(), "", "ip", "-4", "route", "del", "local", "10.9.8.0/24", "table", "local")
	b.Server.Exec(t.Context(), "", "ip", "-6", "route", "del", "local", "fd00:9:8::/64", "table", "local")
	var kv []string
	for _, where := range []string{"all", "eth0", "eth1"} {
		kv = append(kv, "net.ipv4.conf."+where+".rp_filter", "0")
	}
	for _, where := range b.links {
		for _, k := range []string{"route_localnet", "accept_local", "src_valid_mark"} {
			kv = append(kv, "net.ipv4.conf."+where+"."+k, "0")
		}
	}
	kv = append(kv, "net.ipv4.fwmark_reflect", "0", "net.ipv4.tcp_fwmark_accept", "0", "net.ipv6.fwmark_reflect", "0")
	for _, s := range conntrackSettings() {
		kv = append(kv, s[0], s[1])
	}
	b.Server.Sysctl(t, kv...)
	b.surround(t, b.neighbours)
	for _, six := range []bool{false, true} {
		for _, pref := range []string{"50", "100", "32000", "40000"} {
			for range 4 {
				if _, err := b.Server.Exec(t.Context(), "", append(ip(six), "rule", "del", "pref", pref)...); err != nil {
					break
				}
			}
		}
		b.Server.Exec(t.Context(), "", append(ip(six), "route", "flush", "table", "100")...)
		for _, metric := range []string{"7", "9"} {
			out, _ := b.Server.Exec(t.Context(), "", append(ip(six), "-o", "route", "show")...)
			for _, line := range strings.Split(out, "\n") {
				if strings.Contains(line, " metric "+metric) {
					b.Server.Exec(t.Context(), "", append(append(ip(six), "route", "del"), strings.Fields(strings.TrimSuffix(strings.TrimSpace(line), "pref medium"))...)...)
				}
			}
		}
	}
}
