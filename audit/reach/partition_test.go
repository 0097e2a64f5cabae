package reach_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// TestPartition holds the two forms of the question against each other: over
// random rulesets the rows cover every source exactly once, and samples of each
// row, asked one by one, get the row's answer, decided by what the row names.
func TestPartition(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (repeat with -seed %d)", seed, seed)
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 2)), vocabulary: b.vocabulary, undecidable: true, routing: true}
	asked, rows, left, several := 0, 0, 0, 0
	for round := range 60 {
		b.Server.Flush(t)
		b.reset(t)
		g.wide, g.rare = round%2 == 1, round%3 == 2
		rs := g.draw()
		b.load(t, rs)
		world := readWorld(t, b.Server)
		e := reach.New(world)
		n, err := withoutLocal(e, world)
		if err != nil {
			t.Fatalf("round %d: %v\n%v", round, err, rs)
		}
		left += n
		for _, port := range []uint16{uint16(b.ports[g.IntN(len(b.ports))]), 9999} {
			proto := pick(g, firewall.TCP, firewall.UDP)
			for _, to := range []netip.Addr{pick(g, b.server4...), pick(g, b.server6...), {}} {
				q := reach.Query{Proto: proto, To: to, Port: port}
				got := e.Partition(q)
				rows += len(got)
				for _, f := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
					if to.IsValid() && firewall.FamilyOf(to) != f {
						continue
					}
					if err := coversOnce(got, f); err != nil {
						t.Fatalf("round %d, %+v: %v\n%v", round, q, err, rs)
					}
				}
				for _, r := range got {
					if len(r.Deciders) > 0 {
						several++
					}
					for _, from := range samples(g, r) {
						if from.Is4In6() && !to.IsValid() {
							continue // it means IPv4
						}
						one := q
						one.From, one.Iif = from, r.Iif
						a, err := e.Ask(one, reach.AnswerOnly)
						if err != nil {
							t.Fatal(err)
						}
						asked++
						if a.ClientSees != r.ClientSees && r.ClientSees != reach.Depends {
							t.Fatalf("round %d: %v by %s to %v:%d: the row says %s by %+v, the single answer %s by %+v\n%v",
								round, from, r.Iif, to, port, r.ClientSees, r.DecidedBy, a.ClientSees, *a.DecidedBy, rs)
						}
						if err := sameDecider(a, r); err != nil {
							t.Errorf("round %d: %v by %s to %v %v:%d: the row %s, the single answer %s: %v\n%v", round, from, r.Iif, proto, to, port, r.Words(), a.Words(), err, rs)
						}
					}
				}
			}
		}
	}
	t.Logf("%d rows, %d of them with several deciders, %d samples, %d rows of local clients left out", rows, several, asked, left)
	if asked < 1000 || left < 100 || several == 0 || several > rows/2 {
		t.Errorf("only %d samples were asked, %d rows left out, %d of %d with several deciders", asked, left, several, rows)
	}
}

// sameDecider holds what decided about one of a row's sources against what the row
// names: the very same, or one of those that the row says may decide; and what the
// answer turns on stands in the row.
func sameDecider(a reach.Answer, r reach.Row) error {
	may := r.Deciders
	if len(may) == 0 {
		may = []reach.DecidedBy{r.DecidedBy}
	}
	did := a.Deciders
	if len(did) == 0 {
		did = []reach.DecidedBy{*a.DecidedBy}
	}
	for _, d := range did {
		if !slices.Contains(may, d) {
			return fmt.Errorf("decided by %+v, which is none of %+v", d, may)
		}
	}
	for _, c := range a.Conditions {
		if !slices.ContainsFunc(r.Conditions, func(d reach.Condition) bool {
			return c.Backend == d.Backend && c.Table == d.Table && c.Chain == d.Chain && c.Number == d.Number && c.Handle == d.Handle && c.Namespace == d.Namespace && (c.Chain != "" || c.Object == d.Object)
		}) {
			return fmt.Errorf("it turns on %+v, which is none of %+v", c, r.Conditions)
		}
	}
	return nil
}

// withoutLocal holds exposures without the rows of the host's own clients against the
// whole ones: who can connect is the same, and so is every row that is there. It
// counts the rows that are not.
func withoutLocal(e *reach.Evaluator, w *reach.World) (left int, err error) {
	all := func([]reach.Row) bool { return true }
	for i := range w.Namespaces[0].Listeners.Listeners {
		l := &w.Namespaces[0].Listeners.Listeners[i]
		whole, short := e.Listener(l), e.FromElsewhere(l, all)
		if whole.Who != short.Who || whole.LeftOut != short.LeftOut {
			return 0, fmt.Errorf("%s: %s (%s) with local rows, %s (%s) without", l.Subject(), whole.Who, whole.LeftOut, short.Who, short.LeftOut)
		}
		if none := e.FromElsewhere(l, func([]reach.Row) bool { return false }); !reflect.DeepEqual(none, whole) {
			return 0, fmt.Errorf("%s: rows were left out although they were wanted", l.Subject())
		}
		families := map[string]bool{}
		for _, r := range short.Rows {
			families[r.Family] = true
		}
		for _, r := range whole.Rows {
			if len(short.Rows) > 0 && reflect.DeepEqual(r, short.Rows[0]) {
				short.Rows = short.Rows[1:]
				continue
			}
			if r.Iif != "lo" || !families[r.Family] || whole.Who == reach.HostOnly || whole.Who == reach.Nobody {
				return 0, fmt.Errorf("%s: %s, left out: %+v", l.Subject(), whole.Who, r)
			}
			left++
		}
		if len(short.Rows) > 0 {
			return 0, fmt.Errorf("%s: a row more: %+v", l.Subject(), short.Rows[0])
		}
	}
	return left, nil
}

// coversOnce reports a source that does not stand in exactly one row of an
// interface.
func coversOnce(rows []reach.Row, f firewall.Family) error {
	per := map[string][]firewall.Range{}
	for _, r := range rows {
		if r.Family != f.String() {
			continue
		}
		for _, p := range r.From {
			per[r.Iif] = append(per[r.Iif], firewall.Prefix(p)...)
		}
	}
	if len(per) == 0 {
		return fmt.Errorf("no rows")
	}
	for iif, rs := range per {
		n := firewall.Value{}
		for _, r := range rs {
			n = n.Add(r.Hi.Sub(r.Lo)).Next()
		}
		all := firewall.NewRanges(append([]firewall.Range(nil), rs...))
		if !all.Equal(firewall.All(f.AddrLen())) {
			return fmt.Errorf("on %s the rows cover only %v", iif, all)
		}
		if want := firewall.MaxValue(f.AddrLen()).Next(); n != want {
			return fmt.Errorf("on %s some sources stand in several rows (%v addresses in all)", iif, n)
		}
	}
	return nil
}

// samples are the ends of some prefixes of a row and addresses inside.
func samples(g *generator, r reach.Row) (out []netip.Addr) {
	for range min(3, len(r.From)) {
		p := r.From[g.IntN(len(r.From))]
		rs := firewall.Prefix(p)
		f := firewall.IPv4
		if p.Addr().BitLen() == 128 {
			f = firewall.IPv6
		}
		out = append(out, rs[0].Lo.Addr(f), rs[0].Hi.Addr(f))
		span := rs[0].Hi.Sub(rs[0].Lo)
		in := firewall.Value{Hi: g.Uint64() & span.Hi, Lo: g.Uint64() & span.Lo}
		if in.Less(span) {
			out = append(out, rs[0].Lo.Add(in).Addr(f))
		}
	}
	return out
}

// TestOpaqueNeverFlips inserts a statement that the model does not know into
// random rulesets: a sure answer may become "depends", never the other sure one.
func TestOpaqueNeverFlips(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (repeat with -seed %d)", seed, seed)
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 3)), vocabulary: b.vocabulary}
	changed := 0
	for range 50 {
		b.Server.Flush(t)
		rs := g.draw()
		b.load(t, rs)
		probes := b.draw(g, 40)
		w := readWorld(t, b.Server)
		before := make([]reach.Sees, len(probes))
		e := reach.New(w)
		for i, p := range probes {
			before[i] = ask(t, e, b.query(p, 40000))
		}
		count := len(allRules(w))
		if count == 0 {
			continue
		}
		for range 10 {
			// A world does not change once it is asked: read it anew.
			w := readWorld(t, b.Server)
			r := allRules(w)[g.IntN(count)]
			at := g.IntN(len(r.Stmts) + 1)
			o := &firewall.Opaque{Name: "mystery", Reason: "a mystery", MayEnd: g.chance(50)}
			r.Stmts = append(append(append([]firewall.Stmt(nil), r.Stmts[:at]...), o), r.Stmts[at:]...)
			e := reach.New(w)
			for i, p := range probes {
				now := ask(t, e, b.query(p, 40000))
				if now != before[i] {
					changed++
				}
				if now != before[i] && now != reach.Depends && before[i] != reach.Depends {
					t.Fatalf("%v: %s became %s with an opaque statement at %d of rule %d of %s\n%v", p, before[i], now, at, r.Number, r.Chain.Name, rs)
				}
			}
		}
	}
	t.Logf("%d answers became or ceased to be depends", changed)
	if changed == 0 {
		t.Error("no answer ever changed: the test asks nothing")
	}
}

func allRules(w *reach.World) (rules []*firewall.Rule) {
	for _, tb := range w.Namespaces[0].Ruleset.Tables {
		for _, ch := range tb.Chains {
			rules = append(rules, ch.Rules...)
		}
	}
	return rules
}

func ask(t testing.TB, e *reach.Evaluator, q reach.Query) reach.Sees {
	a, err := e.Ask(q, reach.AnswerOnly)
	if err != nil {
		t.Fatal(err)
	}
	return a.ClientSees
}
