package xtables_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// setKind makes random elements of one set type. Packets go to a fixed address
// of the server, from sources that the elements are drawn around.
type setKind struct {
	typ, opts string
	dims      int
	elem      func(r *rand.Rand, g *setGen) string
}

// setGen draws addresses and ports of one family.
type setGen struct {
	v6     bool
	server netip.Addr
}

func (g *setGen) addr(r *rand.Rand) netip.Addr {
	if r.IntN(4) == 0 {
		return g.server
	}
	return g.source(r)
}

// source is an address from a small pool, so that packets meet elements.
func (g *setGen) source(r *rand.Rand) netip.Addr {
	if g.v6 {
		return netip.MustParseAddr(fmt.Sprintf("2001:db8:%x:%x::%x", r.IntN(3), r.IntN(3), 1+r.IntN(4)))
	}
	return netip.AddrFrom4([4]byte{10, byte(20 + r.IntN(2)), byte(r.IntN(3)), byte(1 + r.IntN(6))})
}

func (g *setGen) net(r *rand.Rand) string {
	a := g.addr(r)
	bits := []int{8, 15, 16, 22, 24, 30, 31, 32}
	if g.v6 {
		bits = []int{16, 32, 47, 48, 63, 64, 126, 128}
	}
	return netip.PrefixFrom(a, bits[r.IntN(len(bits))]).Masked().String()
}

func (g *setGen) port(r *rand.Rand) string {
	proto := []string{"tcp", "udp", "udp", "tcp", "icmp", "47"}[r.IntN(6)]
	switch {
	case proto == "icmp" && g.v6:
		return "icmpv6:128/0"
	case proto == "icmp":
		return "icmp:8/0"
	case proto == "47":
		return "47:0"
	default:
		return fmt.Sprintf("%s:%d", proto, ports[r.IntN(len(ports))])
	}
}

// ports are those that packets and elements use, at either end.
var ports = []int{1000, 1001, 1002, 1003}

func nomatch(r *rand.Rand) string {
	if r.IntN(3) == 0 {
		return " nomatch"
	}
	return ""
}

var setKinds = []setKind{
	{"hash:ip", "", 1, func(r *rand.Rand, g *setGen) string { return g.addr(r).String() }},
	{"hash:ip", "netmask MASK", 1, func(r *rand.Rand, g *setGen) string { return g.addr(r).String() }},
	{"hash:net", "", 1, func(r *rand.Rand, g *setGen) string { return g.net(r) + nomatch(r) }},
	{"hash:ip,port", "", 2, func(r *rand.Rand, g *setGen) string { return g.addr(r).String() + "," + g.port(r) }},
	{"hash:ip,port,ip", "", 3, func(r *rand.Rand, g *setGen) string {
		return g.addr(r).String() + "," + g.port(r) + "," + g.addr(r).String()
	}},
	{"hash:ip,port,net", "", 3, func(r *rand.Rand, g *setGen) string {
		return g.addr(r).String() + "," + g.port(r) + "," + g.net(r) + nomatch(r)
	}},
	{"hash:net,port", "", 2, func(r *rand.Rand, g *setGen) string { return g.net(r) + "," + g.port(r) + nomatch(r) }},
	{"hash:net,iface", "", 2, func(r *rand.Rand, g *setGen) string {
		return g.net(r) + "," + []string{"eth0", "eth1", "eth", "eth0", "eth1", "eth", "eth0", "physdev:eth0"}[r.IntN(8)] + []string{"", "", " wildcard"}[r.IntN(3)] + nomatch(r)
	}},
	{"hash:net,net", "", 2, func(r *rand.Rand, g *setGen) string { return g.net(r) + "," + g.net(r) + nomatch(r) }},
	{"hash:net,port,net", "", 3, func(r *rand.Rand, g *setGen) string {
		return g.net(r) + "," + g.port(r) + "," + g.net(r) + nomatch(r)
	}},
	{"hash:ip,mark", "markmask 0xff", 2, func(r *rand.Rand, g *setGen) string {
		return fmt.Sprintf("%s,0x%x", g.addr(r), r.IntN(2))
	}},
	{"bitmap:ip", "range 10.0.0.0-10.0.255.255 netmask 24", 1, nil},
	{"bitmap:ip", "range 10.20.0.0-10.20.255.255", 1, func(r *rand.Rand, g *setGen) string {
		return fmt.Sprintf("10.20.%d.%d", r.IntN(3), 1+r.IntN(6))
	}},
	{"bitmap:ip", "range 10.20.0.0-10.21.255.255 netmask 30", 1, func(r *rand.Rand, g *setGen) string { return g.source(r).String() }},
	{"bitmap:port", "range 1000-1002", 1, func(r *rand.Rand, g *setGen) string { return fmt.Sprint(1000 + r.IntN(3)) }},
}

// madeSet is a set that the kernel took.
type madeSet struct {
	name string
	dims int
}

func makeSets(t *testing.T, n *lab.Namespace, r *rand.Rand, g *setGen) []madeSet {
	t.Helper()
	var made []madeSet
	missing := map[string]bool{}
	for round := range 2 {
		for i, k := range setKinds {
			if missing[k.typ] || g.v6 && strings.HasPrefix(k.typ, "bitmap:ip") {
				continue
			}
			name := fmt.Sprintf("s%d_%d", i, round)
			opts := strings.Replace(k.opts, "MASK", map[bool]string{false: "30", true: "64"}[g.v6], 1)
			if strings.HasPrefix(k.typ, "hash") {
				opts += " family " + map[bool]string{false: "inet", true: "inet6"}[g.v6]
			}
			if _, err := n.Exec(t.Context(), fmt.Sprintf("create %s %s %s\n", name, k.typ, opts), "ipset", "restore"); err != nil {
				missing[k.typ] = true
				t.Logf("this kernel has no %s: %s", k.typ, lastLine(err.Error()))
				continue
			}
			made = append(made, madeSet{name, k.dims})
			if k.elem == nil {
				continue // stays empty
			}
			for range 1 + r.IntN(14) {
				e := k.elem(r, g)
				_, err := n.Exec(t.Context(), "add "+name+" "+e+"\n", "ipset", "-exist", "restore")
				if err != nil && k.typ != "bitmap:ip" {
					t.Fatalf("add %s %s: %v", name, e, err)
				}
			}
		}
	}
	// Sets of sets, with members of several dimensions.
	plain := len(made)
	for i := range 4 {
		name := fmt.Sprintf("list%d", i)
		text := "create " + name + " list:set\n"
		for _, j := range r.Perm(plain)[:1+i*2] {
			text += "add " + name + " " + made[j].name + "\n"
		}
		n.Load(t, lab.IPSet, text)
		made = append(made, madeSet{name, 1 + r.IntN(3)})
	}
	return made
}

// TestSetMatchAgainstPackets holds the match on ipsets of every type against
// the kernel: every rule counts the packets it matches. Single packets are
// asked as a class of one and as members of the class of all.
func TestSetMatchAgainstPackets(t *testing.T) {
	lab.Need(t, "iptables-legacy", "ipset")
	seed := uint64(time.Now().UnixNano())
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "ip", true: "ip6"}[v6], func(t *testing.T) {
			t.Logf("seed %d", seed)
			setMatches(t, rand.New(rand.NewPCG(seed, 1)), v6)
		})
	}
}

func setMatches(t *testing.T, r *rand.Rand, v6 bool) {
	l := lab.New(t, lab.Topology{})
	n := l.Server
	g := &setGen{v6: v6, server: l.ServerAddr(0)}
	fam := firewall.TableIP
	if v6 {
		g.server, fam = l.ServerAddr6(0), firewall.TableIP6
	}
	sets := makeSets(t, n, r, g)
	text := "*filter\n" + control("INPUT")
	for _, s := range sets {
		for range 4 {
			dims := make([]string, max(1, s.dims+[]int{0, 0, 0, 1, -1}[r.IntN(5)]))
			for i := range dims {
				dims[i] = []string{"src", "dst"}[r.IntN(2)]
			}
			not, flag := "", ""
			if r.IntN(3) == 0 {
				not = "! "
			}
			if r.IntN(3) == 0 {
				flag = " --return-nomatch"
			}
			text += fmt.Sprintf("-A INPUT -m set %s--match-set %s %s%s\n", not, s.name, strings.Join(dims, ","), flag)
		}
	}
	n.Load(t, loader(fam, false), text+"COMMIT\n")
	chain := inputChain(t, readLegacy(t, n), fam)
	link := &firewall.Link{Index: 2, Name: "eth0", Type: 1, Kind: "veth"}
	checked, matched, wrong, untold := 0, 0, 0, 0
	check := func(probe lab.Probe, rule *firewall.Rule, c, one *firewall.Class, want bool) {
		m := rule.Stmts[0].(*firewall.IPSetMatch)
		got := answer(m.Split(c, &firewall.Env{}), one.Remote[0].Lo, one.Ports[0].Lo)
		text, _ := got.(string)
		switch {
		case got == want:
		case strings.HasPrefix(text, "cannot tell: the order in which the kernel keeps the elements of ipset "):
			untold++ // hash:net,iface with physdev
		default:
			wrong++
			t.Errorf("%v: %s: the kernel says %v, got %v", probe, rule.Text(), want, got)
		}
	}
	for range 30 {
		probe := lab.Probe{Proto: lab.UDP, From: g.source(r), FromPort: uint16(ports[r.IntN(len(ports))]), To: netip.AddrPortFrom(g.server, uint16(ports[r.IntN(len(ports))]))}
		if r.IntN(2) == 0 {
			probe.Proto = lab.TCP
		}
		before := counters(inputChain(t, readLegacy(t, n), fam))
		l.ProbeOnce(t, 200*time.Millisecond, probe)
		after := counters(inputChain(t, readLegacy(t, n), fam))
		if after[0] == before[0] {
			t.Fatalf("%v: no packet came", probe)
		}
		one, all := classesOf(probe, link)
		for i, rule := range chain.Rules[1:] {
			want := after[i+1] > before[i+1]
			checked++
			if want {
				matched++
			}
			check(probe, rule, one, one, want)
			check(probe, rule, all, one, want)
		}
	}
	t.Logf("%d rules, %d answers checked, %d of them matches, %d cannot be told, %d wrong", len(chain.Rules), checked, matched, untold, wrong)
	if matched == 0 || matched == checked {
		t.Error("a test that cannot fail")
	}
	if untold*25 > checked { // 2 %: each is asked for twice
		t.Errorf("%d of %d answers cannot be told", untold, 2*checked)
	}
	if wrong > 0 {
		out := n.Run(t, "ipset", "save")
		t.Log(out)
	}
}

// classesOf returns the probe's packet as a class of one, and the class of all
// sources and ports.
func classesOf(p lab.Probe, in *firewall.Link) (one, all *firewall.Class) {
	f := firewall.FamilyOf(p.From)
	s := firewall.First(f, firewall.Proto(p.Proto), firewall.AddrValue(p.To.Addr()), p.To.Port())
	s.In = in
	one = &firewall.Class{Remote: firewall.Single(firewall.AddrValue(p.From)), Ports: firewall.Single(firewall.Num(uint64(p.FromPort))), State: s}
	all = &firewall.Class{Remote: firewall.All(f.AddrLen()), Ports: firewall.All(2), State: s}
	return one, all
}

// answer looks a packet up in the parts: true, false or "maybe" and the like.
func answer(p firewall.Parts, addr, port firewall.Value) any {
	in := func(pieces []firewall.Piece) bool {
		return slices.ContainsFunc(pieces, func(q firewall.Piece) bool { return q.Remote.Contains(addr) && q.Ports.Contains(port) })
	}
	yes, no, maybe := in(p.Yes), in(p.No), in(p.Maybe)
	switch {
	case yes && !no && !maybe:
		return true
	case no && !yes && !maybe:
		return false
	case maybe && !yes && !no:
		return "cannot tell: " + p.Why
	default:
		return fmt.Sprintf("in several parts: yes %v, no %v, maybe %v", yes, no, maybe)
	}
}

func inputChain(t *testing.T, tables []*firewall.Table, fam firewall.TableFamily) *firewall.Chain {
	t.Helper()
	c := allChains(tables, fam)["INPUT"]
	if c == nil {
		t.Fatal("no INPUT chain")
	}
	return c
}

func counters(c *firewall.Chain) []int64 {
	out := make([]int64, len(c.Rules))
	for i, r := range c.Rules {
		out[i] = r.Packets
	}
	return out
}
