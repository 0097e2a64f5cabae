package reach_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// Listeners of every kind beside each other, on addresses of any interface and on
// such as only a local route knows, under rules of the routing and reverse-path filters.

// socketPorts are the ports of listeners that are drawn.
func socketPorts() []int { return []int{9100, 9101, 9102} }

// Addresses that no interface has, made the host's own by a local route (AnyIP).
const (
	anyIP4 = "10.9.8.9"
	anyIP6 = "fd00:9:8::9"
)

func (g *generator) socketPart() *ruleset {
	rs := &ruleset{}
	rs.commands = append(rs.commands, command{"ip", "-4", "route", "add", "local", "10.9.8.0/24", "dev", pick(g, "lo", "lo", "eth0")},
		command{"ip", "-6", "route", "add", "local", "fd00:9:8::/64", "dev", "lo"})
	for range 5 + g.IntN(6) {
		rs.commands = append(rs.commands, g.listener())
	}
	for range 1 + g.IntN(2) {
		rs.commands = append(rs.commands, g.surroundings()...)
	}
	for range g.IntN(3) {
		rs.commands = append(rs.commands, g.socketRoute()...)
	}
	if g.chance(30) {
		rs.tables = append(rs.tables, g.nftTable("t0"))
	}
	return rs
}

// listener is the command that opens one: "listen PROTO ADDRESS WORDS…".
func (g *generator) listener() command {
	addr := pick(g, "[::]", "[::]", "[::]", "0.0.0.0", "0.0.0.0", "10.9.0.2", "10.9.1.2", "[fd00:9::2]", "[fd00:9:1::2]", "10.9.7.5", "[fd00:9:7::5]", anyIP4, "["+anyIP6+"]", "127.0.0.1", "[::1]", "[::ffff:10.9.0.2]")
	c := command{"listen", pick(g, "tcp", "tcp", "udp"), fmt.Sprintf("%s:%d", addr, pick(g, socketPorts()...))}
	if addr == anyIP4 || addr == "["+anyIP6+"]" || g.chance(50) {
		c = append(c, "freebind")
	}
	if strings.HasPrefix(addr, "[") && g.chance(35) && !strings.Contains(addr, "ffff") {
		c = append(c, "v6only")
	}
	if g.chance(30) {
		c = append(c, "dev="+pick(g, "eth0", "eth1", "lo"))
	}
	if g.chance(40) {
		c = append(c, "reuseport")
	}
	if g.chance(15) {
		c = append(c, "mark=5")
	}
	return c
}

// socketRoute draws routing rules that the packets of these listeners meet.
func (g *generator) socketRoute() []command {
	six := g.chance(35)
	c := append(ip(six), "rule", "add", "pref", pick(g, "50", "100", "32000"))
	switch g.IntN(6) {
	case 0:
		c = append(c, "fwmark", "5")
	case 1:
		c = append(c, "ipproto", pick(g, "tcp", "udp"), "sport", strconv.Itoa(pick(g, socketPorts()...)))
	case 2:
		c = append(c, "ipproto", pick(g, "tcp", "udp"), "dport", strconv.Itoa(pick(g, socketPorts()...)))
	case 3:
		c = append(c, "uidrange", pick(g, "0-0", "1-1000"), "from", g.server(six))
	case 4:
		c = append(c, "iif", pick(g, "eth0", "eth1"), "to", g.server(six))
	default:
		c = append(c, "sport", "9100-9101", "oif", pick(g, "eth0", "eth1"))
	}
	if g.chance(40) {
		return []command{append(c, pick(g, "blackhole", "prohibit", "unreachable"))}
	}
	return []command{append(c, "table", "100"), append(append(ip(six), "route", "add", "default"), g.out(six, "100", "6")...)}
}

// drawSockets draws probes of the listeners.
func (b *bench) drawSockets(g *generator, n int) []lab.Probe {
	was := b.vocabulary
	defer func() { b.vocabulary = was }()
	b.ports, b.special = socketPorts(), nil
	b.server4 = append(slices.Clone(was.server4), netip.MustParseAddr("10.9.7.5"), netip.MustParseAddr(anyIP4))
	b.server6 = append(slices.Concat(was.server6, was.server6), netip.MustParseAddr("fd00:9:7::5"), netip.MustParseAddr(anyIP6))
	probes := b.draw(g, n)
	for i, p := range probes {
		// Local clients come from addresses that are there in every round.
		switch {
		case p.In == nil:
		case p.From == netip.MustParseAddr(anyIP4):
			probes[i].From = was.server4[0]
		case p.From == netip.MustParseAddr(anyIP6):
			probes[i].From = was.server6[0]
		}
	}
	return probes
}

// listen opens a listener that was drawn; one that the kernel refuses is left out.
func (b *bench) listen(t testing.TB, words []string) {
	l := lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort(words[1])}
	if words[0] == "udp" {
		l.Proto = lab.UDP
	}
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "freebind":
			l.FreeBind = true
		case "v6only":
			l.V6Only = true
		case "reuseport":
			l.ReusePort = true
		case "dev":
			l.Device = value
		case "mark":
			l.Mark, _ = strconv.Atoi(value)
		default:
			t.Fatalf("listen %v: what is %q?", words, w)
		}
	}
	ls, err := b.Server.TryListen(l)
	if err != nil {
		if *verboseFlag {
			t.Logf("refused: listen %v: %v", words, err)
		}
		return
	}
	b.opened = append(b.opened, ls)
}

// closeDrawn ends the listeners that were drawn.
func (b *bench) closeDrawn() {
	for _, ls := range b.opened {
		ls.Close()
	}
	b.opened = nil
}
