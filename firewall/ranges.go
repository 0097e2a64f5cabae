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

// Intersect returns the values in both sets. When t is much smaller than s the
// cost is that of t times a binary search.
func (s Ranges) Intersect(t Ranges) Ranges {
	if len(s) == 0 || len(t) == 0 {
		return nil
	}
	if len(s) < len(t) {
		s, t = t, s
	}
	if len(t) == 1 && !s[0].Lo.Less(t[0].Lo) && !t[0].Hi.Less(s[len(s)-1].Hi) {
		return s
	}
	// t is the shorter one: whole stretches of s between its ends are copied.
	var out Ranges
	if len(s) > 64 {
		out = make(Ranges, 0, len(s)+len(t))
	}
	i := 0
	for _, r := range t {
		i += s[i:].find(r.Lo)
		j := i + sort.Search(len(s)-i, func(k int) bool { return r.Hi.Less(s[i+k].Lo) })
		if i == j {
			continue
		}
		n := len(out)
		out = append(out, s[i:j]...)
		if out[n].Lo.Less(r.Lo) {
			out[n].Lo = r.Lo
		}
		if last := len(out) - 1; r.Hi.Less(out[last].Hi) {
			out[last].Hi = r.Hi
			j-- // its rest may meet the next range of t
		}
		i = j
		if i == len(s) {
			break
		}
	}
	return out
}

// Minus returns the values of s that are not in t.
func (s Ranges) Minus(t Ranges) Ranges {
	if len(s) == 0 {
		return nil
	}
	if len(t) == 0 || t[len(t)-1].Hi.Less(s[0].Lo) || s[len(s)-1].Hi.Less(t[0].Lo) {
		return s
	}
	if len(t) < len(s)/8 {
		return s.minusFew(t)
	}
	out := make(Ranges, 0, len(s)+min(len(t), 8))
	j := 0
	for _, r := range s {
		if len(t)-j > 16 {
			j += t[j:].find(r.Lo)
		}
		for j < len(t) && t[j].Hi.Less(r.Lo) {
			j++
		}
		lo := r.Lo
		gone := false
		for k := j; k < len(t) && !r.Hi.Less(t[k].Lo); k++ {
			if lo.Less(t[k].Lo) {
				out = append(out, Range{lo, t[k].Lo.Prev()})
			}
			if !t[k].Hi.Less(r.Hi) {
				gone = true
				break
			}
			lo = t[k].Hi.Next()
		}
		if !gone {
			out = append(out, Range{lo, r.Hi})
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// minusFew is Minus for a set of few intervals: the stretches of s between them
// are copied. Where they do not touch s, s itself comes back.
func (s Ranges) minusFew(few Ranges) Ranges {
	var out Ranges
	touched := false
	i := 0
	var lo Value // where what is left of s[i] begins, if cut
	cut := false
	flush := func(to int) {
		if i < to && cut {
			out = append(out, Range{lo, s[i].Hi})
			i, cut = i+1, false
		}
		if i < to {
			out = append(out, s[i:to]...)
			i = to
		}
	}
	for _, r := range few {
		k := i + s[i:].find(r.Lo)
		if k == len(s) {
			break
		}
		first := s[k].Lo
		if k == i && cut {
			first = lo
		}
		if r.Hi.Less(first) {
			continue
		}
		if !touched {
			touched = true
			out = make(Ranges, 0, len(s)+len(few))
		}
		flush(k)
		if first.Less(r.Lo) {
			out = append(out, Range{first, r.Lo.Prev()})
		}
		i = k + sort.Search(len(s)-k, func(n int) bool { return r.Hi.Less(s[k+n].Hi) })
		cut = i < len(s) && !r.Hi.Less(s[i].Lo)
		lo = r.Hi.Next()
	}
	if !touched {
		return s
	}
	flush(len(s))
	if len(out) == 0 {
		return nil
	}
	return out
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
