package firewall

import (
	"fmt"
	"math/rand/v2"
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
