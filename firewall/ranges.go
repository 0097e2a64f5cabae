package firewall

import (
	"math/bits"
	"net/netip"
	"slices"
	"sort"
	"strings"
)

// Range is the closed interval of values Lo–Hi.
type Range struct{ Lo, Hi Value }

// Ranges is a set of values: sorted, disjoint, not adjacent. The zero value is
// the empty set. Ranges are never changed in place, so they can be shared.
type Ranges []Range

// Single returns the set that holds v alone.
func Single(v Value) Ranges { return Ranges{{v, v}} }

// Span returns the set of all values from lo to hi, empty when hi < lo.
func Span(lo, hi Value) Ranges {
	if hi.Less(lo) {
		return nil
	}
	return Ranges{{lo, hi}}
}

// All returns the set of every value of a field n bytes wide.
func All(n int) Ranges { return Ranges{{Value{}, MaxValue(n)}} }

// Prefix returns the set of the addresses in p.
func Prefix(p netip.Prefix) Ranges { return Ranges{PrefixRange(p)} }

// PrefixRange is the interval of the addresses in p.
func PrefixRange(p netip.Prefix) Range {
	p = p.Masked()
	n := p.Addr().BitLen() / 8
	lo := AddrValue(p.Addr())
	return Range{lo, lo.Or(PrefixMask(p.Bits(), n).Not(n))}
}

// NewRanges sorts and joins any intervals; those with Hi < Lo are left out. It
// takes over its argument.
func NewRanges(rs []Range) Ranges {
	rs = slices.DeleteFunc(rs, func(r Range) bool { return r.Hi.Less(r.Lo) })
	if len(rs) == 0 {
		return nil
	}
	sorted := true
	for i := 1; i < len(rs); i++ {
		if !rs[i-1].Lo.Less(rs[i].Lo) {
			sorted = false
			break
		}
	}
	if !sorted {
		slices.SortFunc(rs, func(a, b Range) int { return a.Lo.Cmp(b.Lo) })
	}
	out := rs[:1]
	for _, r := range rs[1:] {
		last := &out[len(out)-1]
		if !last.Hi.Less(r.Lo) || last.Hi.Next() == r.Lo {
			if last.Hi.Less(r.Hi) {
				last.Hi = r.Hi
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// Empty reports whether the set holds nothing.
func (s Ranges) Empty() bool { return len(s) == 0 }

// Equal reports whether both sets hold the same values.
func (s Ranges) Equal(t Ranges) bool { return slices.Equal(s, t) }

// find returns the index of the first interval that ends at or after v.
func (s Ranges) find(v Value) int {
	return sort.Search(len(s), func(i int) bool { return !s[i].Hi.Less(v) })
}

// Contains reports whether v is in the set.
func (s Ranges) Contains(v Value) bool {
	i := s.find(v)
	return i < len(s) && !v.Less(s[i].Lo)
}

// Covers reports whether the whole interval is in the set.
func (s Ranges) Covers(r Range) bool {
	i := s.find(r.Lo)
	return i < len(s) && !r.Lo.Less(s[i].Lo) && !s[i].Hi.Less(r.Hi)
}

// Only returns the single value of a set that holds exactly one.
func (s Ranges) Only() (Value, bool) {
	if len(s) == 1 && s[0].Lo == s[0].Hi {
		return s[0].Lo, true
	}
	return Value{}, false
}

// Intersect returns the values in both sets. Where one of them is much smaller
// the cost is that of its size times a search; what comes out as a stretch of
// either set is shared with it.
func (s Ranges) Intersect(t Ranges) Ranges {
	if len(s) == 0 || len(t) == 0 {
		return nil
	}
	if len(s) < len(t) {
		s, t = t, s
	}
	if len(t) == 1 && !s[0].Lo.Less(t[0].Lo) && !t[0].Hi.Less(s[len(s)-1].Hi) || len(s) == len(t) && &s[0] == &t[0] {
		return s
	}
	g := gathering{s: s, t: t, room: len(s) + len(t)}
	if len(t) < len(s)/8 {
		g.room = s.meet(t)
	}
	for i, k := 0, 0; k < len(t); k++ {
		r := t[k]
		i = s.endsFrom(i, r.Lo)
		if i == len(s) {
			break
		}
		switch {
		case r.Hi.Less(s[i].Lo):
			continue
		case s[i] == r:
			g.add(t[k:k+1], i, k)
			continue
		case !r.Lo.Less(s[i].Lo) && !s[i].Hi.Less(r.Hi):
			g.add(t[k:k+1], neither, k) // s[i] may meet the next of t
			continue
		}
		j := s.beginsAfter(i, r.Hi)
		if s[i].Lo.Less(r.Lo) {
			g.add(Ranges{{r.Lo, s[i].Hi}}, neither, neither)
			i++
		}
		if i == j {
			continue
		}
		if last := s[j-1]; r.Hi.Less(last.Hi) {
			g.add(s[i:j-1], i, neither)
			g.add(Ranges{{last.Lo, r.Hi}}, neither, neither)
			i = j - 1 // its rest may meet the next of t
			continue
		}
		g.add(s[i:j], i, neither)
		i = j
	}
	return g.ranges()
}

// meet counts how often an interval of s meets one of t.
func (s Ranges) meet(t Ranges) (n int) {
	i := 0
	for _, r := range t {
		i = s.endsFrom(i, r.Lo)
		n += s.beginsAfter(i, r.Hi) - i
	}
	return n
}

// endsFrom is the index, from i on, of the first interval that ends at or after
// v: looked for in growing steps, so that neighbours are found at once.
func (s Ranges) endsFrom(i int, v Value) int {
	lo, step := i, 1
	for i < len(s) && s[i].Hi.Less(v) {
		lo = i + 1
		i += step
		step *= 2
	}
	return lo + s[lo:min(i, len(s))].find(v)
}

// beginsAfter is the index, from i on, of the first interval that begins after v.
func (s Ranges) beginsAfter(i int, v Value) int {
	lo, step := i, 1
	for i < len(s) && !v.Less(s[i].Lo) {
		lo = i + 1
		i += step
		step *= 2
	}
	i = min(i, len(s))
	return lo + sort.Search(i-lo, func(k int) bool { return v.Less(s[lo+k].Lo) })
}

// gathering makes a set out of intervals of two others, in order. As long as it
// is one stretch of either of them, nothing is copied.
type gathering struct {
	s, t Ranges
	// fromS and toS are the stretch of s that it is so far, where inS is set;
	// likewise for t.
	fromS, toS, fromT, toT int
	inS, inT               bool
	// out takes their place once it is neither; room is how long that may get.
	out  Ranges
	room int
}

// neither stands for the place in s or t of an interval that is not from there.
const neither = -1

// add appends intervals that stand at s[i:] and t[k:].
func (g *gathering) add(rs Ranges, i, k int) {
	if len(rs) == 0 {
		return
	}
	if g.out == nil {
		first := !g.inS && !g.inT
		inS := i >= 0 && (first || g.inS && g.toS == i)
		inT := k >= 0 && (first || g.inT && g.toT == k)
		if inS || inT {
			if first {
				g.fromS, g.fromT = i, k
			}
			g.inS, g.inT, g.toS, g.toT = inS, inT, i+len(rs), k+len(rs)
			return
		}
		so := g.ranges()
		g.out = append(make(Ranges, 0, max(g.room, len(so)+len(rs))), so...)
	}
	g.out = append(g.out, rs...)
}

func (g *gathering) ranges() Ranges {
	switch {
	case g.out != nil:
		return g.out
	case g.inS:
		return g.s[g.fromS:g.toS:g.toS]
	case g.inT:
		return g.t[g.fromT:g.toT:g.toT]
	}
	return nil
}

// Minus returns the values of s that are not in t. What comes out as a stretch
// of s is shared with it.
func (s Ranges) Minus(t Ranges) Ranges {
	if len(s) == 0 {
		return nil
	}
	t = t[t.endsFrom(0, s[0].Lo):]
	if t = t[:t.beginsAfter(0, s[len(s)-1].Hi)]; len(t) == 0 {
		return s
	}
	g := gathering{s: s, room: len(s) + len(t)}
	from := 0 // of the stretch that nothing was taken from
	for i, j := 0, 0; i < len(s); {
		// The next of t that meets anything, and the first that it meets.
		if j = t.endsFrom(j, s[i].Lo); j == len(t) {
			break
		}
		if i = s.endsFrom(i, t[j].Lo); i == len(s) {
			break
		}
		if t[j].Hi.Less(s[i].Lo) {
			continue
		}
		g.add(s[from:i], from, neither)
		lo, gone := s[i].Lo, false
		for ; j < len(t) && !s[i].Hi.Less(t[j].Lo); j++ {
			if lo.Less(t[j].Lo) {
				g.add(Ranges{{lo, t[j].Lo.Prev()}}, neither, neither)
			}
			if !t[j].Hi.Less(s[i].Hi) {
				gone = true
				break
			}
			lo = t[j].Hi.Next()
		}
		if !gone {
			g.add(Ranges{{lo, s[i].Hi}}, neither, neither)
		}
		i++
		from = i
	}
	g.add(s[from:], from, neither)
	return g.ranges()
}

// Union returns the values in either set.
func (s Ranges) Union(t Ranges) Ranges {
	if len(s) == 0 {
		return t
	}
	if len(t) == 0 {
		return s
	}
	all := make([]Range, 0, len(s)+len(t))
	i, j := 0, 0
	for i < len(s) && j < len(t) {
		if s[i].Lo.Less(t[j].Lo) {
			all = append(all, s[i])
			i++
		} else {
			all = append(all, t[j])
			j++
		}
	}
	all = append(all, s[i:]...)
	all = append(all, t[j:]...)
	return NewRanges(all)
}

// Shift adds d to every value, modulo 2^128. The caller sees to it that no
// interval crosses the end.
func (s Ranges) Shift(d Value) Ranges {
	if d.IsZero() {
		return s
	}
	out := make(Ranges, len(s))
	for i, r := range s {
		out[i] = Range{r.Lo.Add(d), r.Hi.Add(d)}
	}
	return out
}

// AddrPrefixes returns the fewest prefixes that cover exactly the addresses of
// the set, in order.
func (s Ranges) AddrPrefixes(f Family) []netip.Prefix {
	if len(s) == 0 {
		return nil
	}
	n := f.AddrLen()
	// Made as long as it gets: counting costs less than growing.
	count := 0
	for _, r := range s {
		count += r.prefixes()
	}
	out := make([]netip.Prefix, 0, count)
	for _, r := range s {
		lo := r.Lo
		for {
			size := lo.TrailingZeros()
			if size > 8*n {
				size = 8 * n
			}
			for size > 0 && r.Hi.Less(lo.Or(MaxValue(16).Shr(uint(128-size)))) {
				size--
			}
			out = append(out, netip.PrefixFrom(lo.Addr(f), 8*n-size))
			var end Value
			if size == 0 {
				end = lo
			} else {
				end = lo.Or(MaxValue(16).Shr(uint(128 - size)))
			}
			if !end.Less(r.Hi) {
				break
			}
			lo = end.Next()
		}
	}
	return out
}

// prefixes is the number of prefixes that make up the range: upwards one for
// each bit to where its ends first differ, from there downwards one for each bit
// of the first address behind it.
func (r Range) prefixes() int {
	end := r.Hi.Next()
	up := Value{}.Sub(r.Lo)
	if end.IsZero() { // it ends with the last address of IPv6
		return max(up.OnesCount(), 1)
	}
	below := MaxValue(16)
	if top := 127 - leadingZeros(r.Lo.Xor(end)); top > 0 {
		below = below.Shr(uint(128 - top))
	} else {
		below = Value{}
	}
	// A start with no bit there is one prefix up to that place.
	return max(up.And(below).OnesCount(), 1) + end.And(below).OnesCount()
}

func leadingZeros(v Value) int {
	if v.Hi != 0 {
		return bits.LeadingZeros64(v.Hi)
	}
	return 64 + bits.LeadingZeros64(v.Lo)
}

// String prints the intervals in hexadecimal, for tests and messages of defects.
func (s Ranges) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, r := range s {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(r.Lo.String())
		if r.Lo != r.Hi {
			b.WriteByte('-')
			b.WriteString(r.Hi.String())
		}
	}
	b.WriteByte('}')
	return b.String()
}
