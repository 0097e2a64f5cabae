package xtables_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// ruleGen makes random matches around the packets that the test sends, so that
// they fall on both sides of every edge.
type ruleGen struct {
	*rand.Rand
	v6     bool
	client []netip.Addr
	server netip.Addr
}

func (g *ruleGen) not() string {
	if g.IntN(3) == 0 {
		return "! "
	}
	return ""
}

func (g *ruleGen) pick(of ...string) string { return of[g.IntN(len(of))] }

func (g *ruleGen) source() netip.Addr { return g.client[g.IntN(len(g.client))] }

// prefix is a network that holds a packet's address, or its neighbour.
func (g *ruleGen) prefix(a netip.Addr) string {
	if g.IntN(4) == 0 {
		a = a.Next()
	}
	return netip.PrefixFrom(a, a.BitLen()-g.IntN(a.BitLen())).Masked().String()
}

func (g *ruleGen) span(lo, hi int) string {
	a, b := lo+g.IntN(hi-lo), lo+g.IntN(hi-lo)
	return fmt.Sprintf("%d:%d", min(a, b), max(a, b))
}

// bitmask is a mask that is no prefix, and the address under it.
func (g *ruleGen) bitmask(a netip.Addr) string {
	b, m := a.AsSlice(), a.AsSlice()
	for i := range m {
		m[i] = byte(g.Uint32()) | 1
		b[i] &= m[i]
		if g.IntN(8) == 0 {
			b[i] ^= m[i] & 1
		}
	}
	x, _ := netip.AddrFromSlice(b)
	y, _ := netip.AddrFromSlice(m)
	return x.String() + "/" + y.String()
}

const firstPort, lastPort = 1000, 1004

// input makes one match for the INPUT chain.
func (g *ruleGen) input() string {
	port := func() string { return g.span(firstPort-1, lastPort+1) }
	proto := g.pick("tcp", "udp")
	switch g.IntN(24) {
	case 0:
		return g.not() + "-s " + g.prefix(g.source())
	case 1:
		return g.not() + "-d " + g.prefix(g.server)
	case 2:
		return g.not() + "-s " + g.bitmask(g.source())
	case 3:
		return g.not() + "-i " + g.pick("eth0", "eth+", "e+", "eth1", "lo", "eth0+", "et")
	case 4:
		return g.not() + "-p " + g.pick("tcp", "udp", "47")
	case 5:
		return "-p " + proto + " -m " + proto + " " + g.not() + "--dport " + port() + " " + g.not() + "--sport " + port()
	case 6:
		return "-p tcp " + g.not() + "--tcp-flags " + g.pick("SYN,RST,ACK,FIN SYN", "ALL SYN", "SYN,ACK SYN,ACK", "SYN NONE", "ALL NONE", "ACK NONE")
	case 7:
		return "-p " + proto + " -m multiport " + g.not() + g.pick("--dports ", "--sports ", "--ports ") + g.pick("1000:1002", "999:1003", "1003:1005", "1001") + "," + fmt.Sprint(firstPort+g.IntN(6))
	case 8:
		return "-m state " + g.not() + "--state " + g.pick("NEW", "ESTABLISHED,RELATED", "INVALID", "UNTRACKED", "NEW,UNTRACKED", "INVALID,UNTRACKED")
	case 9:
		return "-m conntrack " + g.not() + "--ctstate " + g.pick("NEW", "ESTABLISHED,RELATED", "INVALID", "UNTRACKED", "NEW,DNAT", "SNAT,DNAT", "INVALID,UNTRACKED")
	case 10, 11, 12:
		return "-m conntrack " + g.conntrack()
	case 13:
		a, b := g.source(), g.source()
		if b.Less(a) {
			a, b = b, a
		}
		return "-m iprange " + g.not() + "--src-range " + a.String() + "-" + b.String()
	case 14:
		return "-m iprange " + g.not() + "--dst-range " + g.server.Prev().String() + "-" + g.pick(g.server.Prev().String(), g.server.String(), g.server.Next().String())
	case 15:
		return "-m mark " + g.not() + "--mark " + g.pick("0x0", "0x5", "0x4/0x4", "0x0/0x2", "0x1/0x3", "0x3/0x1")
	case 16:
		return "-m connmark " + g.not() + "--mark " + g.pick("0x0", "0x7", "0x4/0x4", "0x0/0x2")
	case 17:
		return "-m pkttype " + g.not() + "--pkt-type " + g.pick("unicast", "multicast", "broadcast")
	case 18:
		return "-m physdev " + g.not() + g.pick("--physdev-is-in", "--physdev-is-bridged") + " " + g.not() + "--physdev-in e+"
	case 19:
		return "-m policy --dir in --pol " + g.pick("none", "ipsec")
	case 20:
		return "-m devgroup " + g.not() + "--src-group " + g.pick("0x0", "0x1", "0x0/0x1", "0x3/0x1")
	case 21:
		return "-m helper " + g.not() + "--helper ftp"
	case 22:
		return "-m statistic --mode random " + g.not() + "--probability " + g.pick("0", "1")
	default:
		return "-m recent --name l" + fmt.Sprint(g.IntN(3)) + " " + g.not() + "--set"
	}
}

// conntrack combines options of the conntrack match, each inverted on its own.
func (g *ruleGen) conntrack() string {
	var opts []string
	for range 1 + g.IntN(3) {
		opts = append(opts, g.pick(
			g.not()+"--ctstate "+g.pick("NEW", "INVALID,UNTRACKED", "ESTABLISHED"),
			g.not()+"--ctproto "+g.pick("6", "17"),
			g.not()+"--ctorigsrc "+g.prefix(g.source()),
			g.not()+"--ctorigdst "+g.prefix(g.server),
			g.not()+"--ctreplsrc "+g.prefix(g.server),
			g.not()+"--ctrepldst "+g.prefix(g.source()),
			g.not()+"--ctorigsrcport "+g.span(firstPort-1, lastPort+1),
			g.not()+"--ctorigdstport "+g.span(firstPort-1, lastPort+1),
			g.not()+"--ctreplsrcport "+g.span(firstPort-1, lastPort+1),
			g.not()+"--ctrepldstport "+g.span(firstPort-1, lastPort+1),
			g.not()+"--ctstatus "+g.pick("NONE", "CONFIRMED", "SEEN_REPLY", "EXPECTED", "SEEN_REPLY,CONFIRMED"),
			"--ctdir "+g.pick("ORIGINAL", "REPLY"),
		))
	}
	seen := map[string]bool{}
	out := ""
	for _, o := range opts {
		name := strings.Fields(strings.TrimPrefix(o, "! "))[0]
		if !seen[name] {
			seen[name] = true
			out += " " + o
		}
	}
	return out
}

// output makes one match for the OUTPUT chain, which sees the answers.
func (g *ruleGen) output() string {
	switch g.IntN(5) {
	case 0:
		return "-m owner " + g.not() + "--uid-owner " + g.pick("0", "1-5", "0-3") + g.pick("", " "+g.not()+"--gid-owner 0", " "+g.not()+"--gid-owner 7")
	case 1:
		return "-m owner " + g.not() + "--socket-exists"
	case 2:
		return g.not() + "-o " + g.pick("eth0", "eth+", "lo")
	case 3:
		return g.not() + "-d " + g.prefix(g.source())
	default:
		return "-m conntrack " + g.conntrack()
	}
}

// seen is one packet of a probe: the chain it passes and its state.
type seen struct {
	chain string
	state firewall.State
}

// TestMatchesAgainstPackets holds random matches against the kernel: each rule
// counts what it matches. A sure answer that differs is an error.
func TestMatchesAgainstPackets(t *testing.T) {
	lab.Need(t, "iptables-legacy")
	seed := uint64(time.Now().UnixNano())
	for _, v6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "ip", true: "ip6"}[v6], func(t *testing.T) {
			t.Logf("seed %d", seed)
			matchesAgainstPackets(t, rand.New(rand.NewPCG(seed, 2)), v6)
		})
	}
}

func matchesAgainstPackets(t *testing.T, r *rand.Rand, v6 bool) {
	l := lab.New(t, lab.Topology{})
	n := l.Server
	g := &ruleGen{Rand: r, v6: v6, server: l.ServerAddr(0)}
	fam, any := firewall.TableIP, "0.0.0.0"
	for i := range 6 {
		g.client = append(g.client, netip.AddrFrom4([4]byte{10, 20, byte(i / 3), byte(1 + i*3)}))
	}
	if v6 {
		fam, any, g.server, g.client = firewall.TableIP6, "::", l.ServerAddr6(0), nil
		for i := range 6 {
			g.client = append(g.client, netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::%x", i/3, 1+i*3)))
		}
	}
	for port := firstPort; port <= lastPort; port++ {
		n.Listen(t, lab.Listen{Proto: lab.UDP, Addr: netip.AddrPortFrom(netip.MustParseAddr(any), uint16(port)), V6Only: v6})
	}
	// Port 1003 is not tracked; port 1002 carries marks.
	const untracked, marked = 1003, 1002
	raw := fmt.Sprintf("*raw\n-A PREROUTING -p udp --dport %d -j NOTRACK\n-A OUTPUT -p udp --sport %d -j NOTRACK\nCOMMIT\n"+
		"*mangle\n-A PREROUTING -p udp --dport %d -j MARK --set-mark 5\n-A PREROUTING -p udp --dport %d -j CONNMARK --set-mark 7\nCOMMIT\n", untracked, untracked, marked, marked)
	text := "*filter\n" + control("INPUT") + control("OUTPUT")
	for i := range 260 {
		if i%4 == 3 {
			text += "-A OUTPUT " + g.output() + "\n"
		} else {
			text += "-A INPUT " + g.input() + "\n"
		}
	}
	n.Load(t, loader(fam, false), raw+text+"COMMIT\n")
	link := &firewall.Link{Index: 2, Name: "eth0", Type: 1, Kind: "veth"}
	checked, matched, untold, wrong := 0, 0, 0, 0
	for range 40 {
		p := lab.Probe{Proto: lab.UDP, From: g.source(), FromPort: uint16(firstPort + g.IntN(5)), To: netip.AddrPortFrom(g.server, uint16(firstPort+g.IntN(5)))}
		if g.IntN(3) == 0 {
			p.Proto = lab.TCP
		}
		if err := n.FlushConntrack(); err != nil {
			t.Fatal(err)
		}
		before := allChains(readLegacy(t, n), fam)
		l.ProbeOnce(t, 300*time.Millisecond, p)
		after := allChains(readLegacy(t, n), fam)
		for _, s := range packetsOf(p, link, untracked, marked) {
			a, b := before[s.chain], after[s.chain]
			if a.Rules[0].Packets == b.Rules[0].Packets {
				t.Fatalf("%v: no packet came through %s", p, s.chain)
			}
			for i, rule := range a.Rules[1:] {
				want := b.Rules[i+1].Packets > rule.Packets
				checked++
				if want {
					matched++
				}
				for _, c := range []firewall.Class{
					{Remote: firewall.Single(firewall.AddrValue(p.From)), Ports: firewall.Single(firewall.Num(uint64(p.FromPort))), State: s.state},
					{Remote: firewall.All(p.From.BitLen() / 8), Ports: firewall.All(2), State: s.state},
				} {
					switch got := ruleAnswer(rule, c, firewall.AddrValue(p.From), firewall.Num(uint64(p.FromPort))); got {
					case want:
					case "maybe":
						untold++
					default:
						wrong++
						t.Errorf("%v: %s: the kernel says %v, got %v", p, rule.Text(), want, got)
					}
				}
			}
		}
	}
	t.Logf("%d answers checked, %d of them matches, %d cannot be told, %d wrong", checked, matched, untold, wrong)
	if matched == 0 || matched == checked || untold*4 > checked {
		t.Error("a test that cannot fail")
	}
}

// control is two rules at the head of a chain: the first keeps neighbour
// discovery and ICMP errors from the counters, the second counts what is left.
func control(chain string) string {
	return "-A " + chain + " -p ipv6-icmp -j ACCEPT\n-A " + chain + " -m comment --comment control\n"
}

// packetsOf returns the packets of a probe and the chains they pass: the first
// packet, and the answer of a UDP listener.
func packetsOf(p lab.Probe, link *firewall.Link, untracked, marked uint16) []seen {
	s := firewall.First(firewall.FamilyOf(p.From), firewall.Proto(p.Proto), firewall.AddrValue(p.To.Addr()), p.To.Port())
	s.In, s.CTState = link, firewall.CTNew
	if p.Proto == lab.UDP && p.To.Port() == untracked {
		s.CTState = firewall.CTUntracked
	}
	if p.Proto == lab.UDP && p.To.Port() == marked {
		s.Mark.Value, s.CTMark.Value = 5, 7
	}
	out := []seen{{"INPUT", s}}
	if p.Proto == lab.UDP {
		a := s.Answer(firewall.AnswerData, 0, 0)
		a.Out, a.CTState = link, firewall.CTEstablished
		if p.To.Port() == untracked {
			a.CTState = firewall.CTUntracked
		}
		a.Owner = &firewall.Owner{}
		out = append(out, seen{"OUTPUT", a})
	}
	return out
}

// ruleAnswer asks all statements of a rule about the packet: true, false or
// "maybe".
func ruleAnswer(r *firewall.Rule, c firewall.Class, addr, port firewall.Value) any {
	env := &firewall.Env{NoIPSec: true}
	maybe := false
	for _, s := range r.Stmts {
		m, ok := s.(firewall.Matcher)
		if !ok {
			if _, opaque := s.(*firewall.Opaque); opaque {
				maybe = true
			}
			continue
		}
		switch answer(m.Split(&c, env), addr, port) {
		case true:
		case false:
			return false
		default:
			maybe = true
		}
	}
	if maybe {
		return "maybe"
	}
	return true
}

func allChains(tables []*firewall.Table, fam firewall.TableFamily) map[string]*firewall.Chain {
	out := map[string]*firewall.Chain{}
	for _, tb := range tables {
		if tb.Family == fam && tb.Name == "filter" {
			for _, c := range tb.Chains {
				if len(c.Rules) > 0 {
					c.Rules = c.Rules[1:] // see control
				}
				out[c.Name] = c
			}
		}
	}
	return out
}
