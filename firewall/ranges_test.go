package firewall

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// small sets over 0–255, so that every value can be asked.
func drawRanges(t *rapid.T, label string) Ranges {
	n := rapid.IntRange(0, 6).Draw(t, label+" n")
	var rs []Range
	for range n {
		lo := rapid.Uint64Range(0, 255).Draw(t, label+" lo")
		hi := rapid.Uint64Range(lo, min(255, lo+40)).Draw(t, label+" hi")
		rs = append(rs, Range{Num(lo), Num(hi)})
	}
	return NewRanges(rs)
}

func TestRangesAreSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawRanges(t, "a"), drawRanges(t, "b")
		and, or, minus := a.Intersect(b), a.Union(b), a.Minus(b)
		for _, s := range []Ranges{a, b, and, or, minus} {
			for i := 1; i < len(s); i++ {
				if !s[i-1].Hi.Next().Less(s[i].Lo) {
					t.Fatalf("%v is not sorted, disjoint and apart", s)
				}
			}
		}
		for v := range uint64(256) {
			x := Num(v)
			ina, inb := a.Contains(x), b.Contains(x)
			if and.Contains(x) != (ina && inb) || or.Contains(x) != (ina || inb) || minus.Contains(x) != (ina && !inb) {
				t.Fatalf("value %d: a %v, b %v, and %v, or %v, minus %v", v, a, b, and, or, minus)
			}
		}
	})
}

// Long sets take other ways through the same operations than short ones.
func TestLongRangesAreSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rs []Range
		for i := range uint64(120) {
			if rapid.IntRange(0, 3).Draw(t, "gap") > 0 {
				rs = append(rs, Range{Num(i * 4), Num(i*4 + rapid.Uint64Range(0, 3).Draw(t, "len"))})
			}
		}
		a := NewRanges(rs)
		var few []Range
		for range rapid.IntRange(0, 5).Draw(t, "few") {
			lo := rapid.Uint64Range(0, 500).Draw(t, "lo")
			few = append(few, Range{Num(lo), Num(lo + rapid.Uint64Range(0, 60).Draw(t, "w"))})
		}
		b := NewRanges(few)
		and, minus, back := a.Intersect(b), a.Minus(b), b.Minus(a)
		for v := range uint64(600) {
			x := Num(v)
			ina, inb := a.Contains(x), b.Contains(x)
			if and.Contains(x) != (ina && inb) || minus.Contains(x) != (ina && !inb) || back.Contains(x) != (inb && !ina) {
				t.Fatalf("value %d: a %v, b %v, and %v, minus %v, back %v", v, a, b, and, minus, back)
			}
		}
		for _, s := range []Ranges{and, minus, back} {
			for i := 1; i < len(s); i++ {
				if !s[i-1].Hi.Next().Less(s[i].Lo) {
					t.Fatalf("%v is not sorted, disjoint and apart", s)
				}
			}
		}
	})
}

// Sets that are mostly the same share what they have in common; what is made of
// one must not change the other.
func TestAlikeRangesAreSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var as, bs []Range
		for i := range uint64(40) {
			r := Range{Num(i * 6), Num(i*6 + rapid.Uint64Range(0, 4).Draw(t, "len"))}
			switch rapid.IntRange(0, 9).Draw(t, "in") {
			case 0:
				as = append(as, r)
			case 1:
				bs = append(bs, r)
			case 2:
				as, bs = append(as, r), append(bs, Range{r.Lo, r.Lo.Add(Num(1))})
			case 3:
				as, bs = append(as, Range{r.Lo.Add(Num(1)), r.Hi}), append(bs, r)
			default:
				as, bs = append(as, r), append(bs, r)
			}
		}
		a, b := NewRanges(as), NewRanges(bs)
		was := [2]string{a.String(), b.String()}
		and, dna, minus, back := a.Intersect(b), b.Intersect(a), a.Minus(b), b.Minus(a)
		for _, s := range []Ranges{and, minus, back} {
			for i := 1; i < len(s); i++ {
				if !s[i-1].Hi.Next().Less(s[i].Lo) {
					t.Fatalf("%v is not sorted, disjoint and apart", s)
				}
			}
			_ = append(s, Range{}) // must not reach into a or b
		}
		if now := [2]string{a.String(), b.String()}; now != was {
			t.Fatalf("%v have become %v", was, now)
		}
		if !and.Equal(dna) {
			t.Fatalf("a∩b is %v, b∩a %v", and, dna)
		}
		for v := range uint64(250) {
			x := Num(v)
			ina, inb := a.Contains(x), b.Contains(x)
			if and.Contains(x) != (ina && inb) || minus.Contains(x) != (ina && !inb) || back.Contains(x) != (inb && !ina) {
				t.Fatalf("value %d: a %v, b %v, and %v, minus %v, back %v", v, a, b, and, minus, back)
			}
		}
	})
}

// A set cut out of a large one costs what comes out, not what it came from.
func TestCutsOfLargeSetsAreShared(t *testing.T) {
	var large Ranges
	for i := range uint64(10_000) {
		large = append(large, Range{Num(i * 10), Num(i*10 + 3)})
	}
	part, most := large[100:9000], large[1:]
	one, stretch := Single(Num(5000)), Span(Num(995), Num(4995))
	for name, f := range map[string]func(){
		"one":            func() { large.Intersect(one) },
		"a stretch":      func() { large.Intersect(stretch) },
		"a part":         func() { large.Intersect(part) },
		"from a part":    func() { part.Intersect(large) },
		"without one":    func() { large.Minus(Single(Num(5))) },
		"without others": func() { part.Minus(Span(Num(200_000), Num(300_000))) },
		"without ends":   func() { most.Minus(large[9000:]) },
	} {
		if n := testing.AllocsPerRun(10, f); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestPreimageIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		op := Operand{Len: 1,
			Mask:  Num(rapid.Uint64Range(0, 255).Draw(t, "mask")),
			Xor:   Num(rapid.Uint64Range(0, 255).Draw(t, "xor")),
			Shift: rapid.IntRange(-3, 3).Draw(t, "shift")}
		in, domain := drawRanges(t, "in"), drawRanges(t, "domain")
		got, ok := preimage(&op, in, domain)
		if !ok {
			t.Fatal("out of budget for one byte")
		}
		for v := range uint64(256) {
			x := Num(v)
			if domain.Contains(x) && got.Contains(x) != in.Contains(op.apply(x)) {
				t.Fatalf("value %d → %v, in %v: preimage says %v", v, op.apply(x), in, got.Contains(x))
			}
		}
	})
}

func TestMinusPiecesCoversTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &Class{Remote: drawRanges(t, "remote"), Ports: drawRanges(t, "ports")}
		var taken []Piece
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			taken = append(taken, Piece{drawRanges(t, "r"), drawRanges(t, "p")})
		}
		rest := minusPieces(c, taken)
		for r := uint64(0); r < 256; r += 3 {
			for p := uint64(0); p < 256; p += 5 {
				in := func(ps []Piece) (n int) {
					for _, q := range ps {
						if q.Remote.Contains(Num(r)) && q.Ports.Contains(Num(p)) {
							n++
						}
					}
					return n
				}
				want := 0
				if in([]Piece{{c.Remote, c.Ports}}) == 1 && in(taken) == 0 {
					want = 1
				}
				if in(rest) != want {
					t.Fatalf("(%d, %d) stands %d times in the rest, want %d", r, p, in(rest), want)
				}
			}
		}
	})
}

func TestAddrPrefixesCoverExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawRanges(t, "s")
		var back Ranges
		n := 0
		for _, p := range s.AddrPrefixes(IPv4) {
			if p != p.Masked() {
				t.Fatalf("%v has host bits", p)
			}
			back = back.Union(Prefix(p))
			n++
		}
		if !back.Equal(s) {
			t.Fatalf("%v came back as %v", s, back)
		}
	})
	if got := All(16).AddrPrefixes(IPv6); len(got) != 1 || got[0] != netip.MustParsePrefix("::/0") {
		t.Fatalf("everything: %v", got)
	}
	if got := All(4).AddrPrefixes(IPv4); len(got) != 1 || got[0] != netip.MustParsePrefix("0.0.0.0/0") {
		t.Fatalf("everything: %v", got)
	}
}
