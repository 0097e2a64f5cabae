package firewall

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// drawChain makes a chain of simple rules over one byte of source addresses.
func drawChain(t *rapid.T) *Chain {
	ch := &Chain{Name: "input", Table: &Table{Backend: NFTables, Family: TableIP, Name: "t"}, Base: &Base{Hook: Input, Policy: Accept}}
	for i := range rapid.IntRange(0, 40).Draw(t, "rules") {
		r := &Rule{Chain: ch, Number: i + 1}
		if rapid.IntRange(0, 3).Draw(t, "port?") == 0 {
			r.Stmts = append(r.Stmts, &Match{Operand: Plain(FieldDstPort, 2), In: Single(Num(rapid.Uint64Range(80, 82).Draw(t, "port")))})
		}
		r.Stmts = append(r.Stmts, &Match{Operand: Plain(FieldSrcAddr, 4), In: drawRanges(t, "src"), Invert: rapid.IntRange(0, 5).Draw(t, "not") == 0})
		r.Stmts = append(r.Stmts, &Verdict{Kind: rapid.SampledFrom([]VerdictKind{Accept, Drop, Return, Accept, Drop}).Draw(t, "verdict")})
		ch.Rules = append(ch.Rules, r)
	}
	return ch
}

// TestPaintingIsWalking: what painting says of a port is what the rules say one
// by one, for every source.
func TestPaintingIsWalking(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ch := drawChain(t)
		rs := &Ruleset{Tables: []*Table{ch.Table}}
		ch.Table.Chains = []*Chain{ch}
		for _, port := range []uint16{80, 81, 99} {
			c := Class{Remote: Span(Num(0), Num(255)), Ports: Span(Num(1024), Num(65535)), State: First(IPv4, TCP, Num(1), port)}
			pass, ends := rs.Walk(Input, []Class{c}, &Env{})
			for v := range uint64(256) {
				want, rule := Accept, 0
			walk:
				for _, r := range ch.Rules {
					for _, s := range r.Stmts {
						if m, ok := s.(*Match); ok {
							x := Num(v)
							if m.Operand.Field.Kind == FieldDstPort {
								x = Num(uint64(port))
							}
							if m.In.Contains(x) == m.Invert {
								continue walk
							}
						}
					}
					if k := r.verdictKind(); k != Return {
						want, rule = k, r.Number
					}
					break
				}
				got, by, n := Accept, 0, 0
				for _, p := range pass {
					if p.Remote.Contains(Num(v)) {
						n++
					}
				}
				for _, e := range ends {
					if e.Class.Remote.Contains(Num(v)) {
						n++
						got = Drop
						r := e.Rule
						if e.Painting != nil {
							r = e.Painting.Rule(Num(v))
						}
						by = r.Number
					}
				}
				if n != 1 || got != want || got == Drop && by != rule {
					t.Fatalf("port %d source %d: %v by rule %d (%d times), want %v by rule %d", port, v, got, by, n, want, rule)
				}
			}
		}
	})
}

// bigChain has n rules, one in five for any port.
func bigChain(n, ports int) *Ruleset {
	g := rand.New(rand.NewPCG(1, 2))
	ch := &Chain{Name: "input", Table: &Table{Backend: NFTables, Family: TableIP, Name: "t"}, Base: &Base{Hook: Input, Policy: Drop}}
	ch.Table.Chains = []*Chain{ch}
	for i := range n {
		r := &Rule{Chain: ch, Number: i + 1}
		lo := uint64(g.Uint32()) &^ 0xff
		r.Stmts = append(r.Stmts, &Match{Operand: Plain(FieldSrcAddr, 4), In: Span(Num(lo), Num(lo+uint64(g.IntN(256))))})
		r.Stmts = append(r.Stmts, &Match{Operand: Plain(FieldL4Proto, 1), In: Single(Num(6))})
		if i%5 != 0 {
			r.Stmts = append(r.Stmts, &Match{Operand: Plain(FieldDstPort, 2), In: Single(Num(uint64(1000 + g.IntN(ports))))})
		}
		r.Stmts = append(r.Stmts, &Verdict{Kind: []VerdictKind{Accept, Drop}[g.IntN(2)]})
		ch.Rules = append(ch.Rules, r)
	}
	return &Ruleset{Tables: []*Table{ch.Table}}
}

// BenchmarkPartitions: the exact sources of 1,000 listeners, 50,000 rules in one
// chain, against subtraction per listener (gate: 0.05).
func BenchmarkPartitions(b *testing.B) {
	const listeners = 1000
	class := func(port int) Class {
		return Class{Remote: All(4), Ports: Span(Num(1024), Num(65535)), State: First(IPv4, TCP, Num(1), uint16(port))}
	}
	for _, n := range []int{10_000, 50_000} {
		b.Run(fmt.Sprintf("painted/%d", n), func(b *testing.B) {
			b.StopTimer()
			for range b.N {
				rs := bigChain(n, listeners)
				b.StartTimer()
				for port := range listeners {
					rs.Walk(Input, []Class{class(1000 + port)}, &Env{})
				}
				b.StopTimer()
			}
		})
		b.Run(fmt.Sprintf("subtraction/%d", n), func(b *testing.B) {
			rs := bigChain(n, listeners)
			rules := rs.Tables[0].Chains[0].Rules
			const some = listeners / 50 // of the listeners; the figure is scaled
			b.ResetTimer()
			for range b.N {
				for port := range some {
					left := All(4)
					for _, r := range rules {
						src := r.Stmts[0].(*Match).In
						if m, ok := r.Stmts[2].(*Match); ok && !m.In.Contains(Num(uint64(1000+port))) {
							continue
						}
						left = left.Minus(src)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)*listeners/some, "ns/1000-listeners")
		})
	}
}

// TestPaintingsOfStates: a painting that packets in several states share says of
// each what the rules say one by one.
func TestPaintingsOfStates(t *testing.T) {
	eth0, lo := &Link{Index: 2, Name: "eth0"}, &Link{Index: 1, Name: "lo"}
	is := func(k FieldKind, n int, v Value, invert bool) *Match {
		return &Match{Operand: Plain(k, n), In: Single(v), Invert: invert}
	}
	for name, matches := range map[string][]*Match{
		"conn": {is(FieldCTState, 4, Num(CTNew), false), is(FieldCTState, 4, Num(CTEstablished), true),
			is(FieldCTDirection, 1, Num(1), false), is(FieldCTMark, 4, Num(7), false)},
		"mark":  {is(FieldMark, 4, Num(7), true)},
		"links": {is(FieldInName, 16, NameValue("lo"), false), is(FieldOutIndex, 4, Num(2), false), is(FieldPktType, 1, Num(0), false)},
		"flags": {is(FieldTCPFlags, 1, Num(flagSYN), false), is(FieldTCPFlags, 1, Num(flagSYN), true)},
		"proto": {is(FieldL4Proto, 1, Num(17), false)},
		"addrs": {is(FieldSrcAddr, 4, Num(3), false), is(FieldDstAddr, 4, Num(3), true)},
	} {
		t.Run(name, func(t *testing.T) { paintStates(t, matches, eth0, lo) })
	}
}

func paintStates(t *testing.T, matches []*Match, eth0, lo *Link) {
	rapid.Check(t, func(t *rapid.T) {
		ch := drawChain(t)
		rs := &Ruleset{Tables: []*Table{ch.Table}}
		ch.Table.Chains = []*Chain{ch}
		for _, r := range ch.Rules {
			if rapid.IntRange(0, 2).Draw(t, "more?") == 0 {
				r.Stmts = append([]Stmt{rapid.SampledFrom(matches).Draw(t, "match")}, r.Stmts...)
			}
		}
		for range 6 {
			s := First(IPv4, rapid.SampledFrom([]Proto{TCP, UDP}).Draw(t, "proto"), Num(rapid.Uint64Range(3, 4).Draw(t, "local")), 80)
			s.In = rapid.SampledFrom([]*Link{eth0, lo, nil}).Draw(t, "in")
			s.Out = rapid.SampledFrom([]*Link{eth0, nil}).Draw(t, "out")
			s.CTState = rapid.SampledFrom([]uint8{0, CTNew, CTEstablished, CTUntracked}).Draw(t, "ct")
			s.Template = rapid.Bool().Draw(t, "template")
			s.CTMark = Known{Value: rapid.Uint32Range(6, 7).Draw(t, "ctmark"), Unknown: rapid.Bool().Draw(t, "?")}
			s.Mark = Known{Value: rapid.Uint32Range(6, 7).Draw(t, "mark"), Unknown: rapid.IntRange(0, 3).Draw(t, "?") == 0}
			s.PktType = rapid.Uint8Range(0, 1).Draw(t, "pkttype")
			s.Reply = rapid.Bool().Draw(t, "reply")
			s.RemoteAddrKind = rapid.SampledFrom([]RemoteKind{RemoteSame, RemoteSame, RemoteConst}).Draw(t, "remote")
			s.RemoteAddr = Num(0)
			if s.RemoteAddrKind == RemoteConst {
				s.RemoteAddr = Num(rapid.Uint64Range(0, 255).Draw(t, "translated"))
			}
			if s.Following = rapid.Bool().Draw(t, "following"); s.Following && s.Proto == TCP {
				s.TCPFlags = rapid.SampledFrom([]uint8{flagSYN, flagACK}).Draw(t, "flags")
			}
			c := Class{Remote: Span(Num(0), Num(255)), Ports: Span(Num(1024), Num(65535)), State: s}
			pass, ends := rs.Walk(Input, []Class{c}, &Env{})
			slow, slowEnds := rs.Walk(Input, []Class{c}, &Env{Record: RecordRules})
			for v := range uint64(256) {
				got, want := outcomes(pass, ends, Num(v)), outcomes(slow, slowEnds, Num(v))
				if got != want {
					t.Fatalf("source %d in state %+v: %s, rule by rule %s", v, s, got, want)
				}
			}
		}
	})
}

// outcomes lists what becomes of a source: how often it passes, and the rules
// that end it.
func outcomes(pass []Class, ends []End, v Value) string {
	var all []string
	for _, c := range pass {
		if c.Remote.Contains(v) {
			all = append(all, fmt.Sprintf("passes with %d forks", len(c.Forks.Conditions())))
		}
	}
	for _, e := range ends {
		if !e.Class.Remote.Contains(v) {
			continue
		}
		r := e.Rule
		if e.Painting != nil {
			r = e.Painting.Rule(v)
		}
		n := 0
		if r != nil {
			n = r.Number
		}
		all = append(all, fmt.Sprintf("ends at %d with %d forks", n, len(e.Class.Forks.Conditions())))
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}
