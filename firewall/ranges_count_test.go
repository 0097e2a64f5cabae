package firewall

import (
	"math/rand/v2"
	"testing"
)

// TestPrefixesAreCounted: the number that AddrPrefixes makes room for is the
// number that it gives.
func TestPrefixesAreCounted(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 1))
	draw := func(f Family) Value {
		v := MaxValue(f.AddrLen())
		switch g.IntN(8) {
		case 0:
		case 1:
			v = Value{}
		default:
			v = Value{g.Uint64(), g.Uint64()}.And(v)
			if f == IPv6 && g.IntN(2) == 0 {
				v = v.Shr(uint(g.IntN(128)))
			}
			n := uint(g.IntN(8 * f.AddrLen()))
			v = v.Shr(n).Shl(n)
			if g.IntN(2) == 0 {
				v = v.Prev().And(MaxValue(f.AddrLen()))
			}
		}
		return v
	}
	for range 200_000 {
		f := []Family{IPv4, IPv6}[g.IntN(2)]
		r := Range{draw(f), draw(f)}
		if r.Hi.Less(r.Lo) {
			r.Lo, r.Hi = r.Hi, r.Lo
		}
		if got, want := r.prefixes(), len(Ranges{r}.AddrPrefixes(f)); got != want {
			t.Fatalf("%s: %v counts %d prefixes, has %d", f, r, got, want)
		}
	}
}
