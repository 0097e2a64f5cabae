package route

import (
	"cmp"
	"net/netip"
	"slices"
	"sort"
	"sync"

	"github.com/hostaudit/hostaudit/firewall"
)

// fib is one routing table, laid out for longest-prefix lookups of single
// addresses and of sets: the address space is cut into cells, each with the most
// specific prefix that covers it; prefixes know the next wider one. It is laid
// out at the first lookup, since a namespace's local and main table are asked
// either together or apart.
type fib struct {
	id     uint32
	family firewall.Family
	routes []*Route
	// sourced: a route of the table is for certain sources only.
	sourced bool
	// defaults are the routes to all addresses.
	defaults []*Route

	once  sync.Once
	nodes []node
	cells []cell // sorted by lo; the first begins at 0
	paint paintings
}

// node is a prefix with its routes in the order the kernel tries them.
type node struct {
	prefix netip.Prefix
	lo, hi firewall.Value
	routes []*Route
	parent int32 // -1: none
}

// cell is the addresses from lo up to the next cell.
type cell struct {
	lo   firewall.Value
	node int32 // -1: no prefix covers it
}

func newFIB(f firewall.Family, id uint32, routes []*Route) *fib {
	fb := &fib{id: id, family: f, routes: routes, paint: paintings{all: map[resolveKey][]tablePart{}}}
	for _, r := range routes {
		fb.sourced = fb.sourced || r.Src.Bits() > 0
		if r.Dst.Bits() == 0 {
			fb.defaults = append(fb.defaults, r)
		}
	}
	return fb
}

// build lays the table out.
func (fb *fib) build() {
	type keyed struct {
		lo firewall.Value
		r  *Route
	}
	all := make([]keyed, len(fb.routes))
	for i, r := range fb.routes {
		all[i] = keyed{firewall.AddrValue(r.Dst.Addr()), r}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		return cmp.Or(a.lo.Cmp(b.lo), cmp.Compare(a.r.Dst.Bits(), b.r.Dst.Bits()))
	})
	ordered := make([]*Route, len(all))
	for i := range all {
		ordered[i] = all[i].r
	}
	for i := 0; i < len(all); {
		j := i + 1
		for j < len(all) && ordered[j].Dst == ordered[i].Dst {
			j++
		}
		rs := ordered[i:j:j]
		sortRoutes(fb.family, rs)
		p := rs[0].Dst
		fb.nodes = append(fb.nodes, node{prefix: p, lo: all[i].lo, hi: firewall.Prefix(p)[0].Hi, routes: rs})
		i = j
	}
	fb.layOut()
}

// sortRoutes puts the routes of one prefix into the order of fib_find_alias
// (local table before main where they share a trie, larger TOS first, smaller
// metric first) or fib6_add_rt2node (smaller metric first). Equal ones stay in
// the order of the dump, which is the kernel's.
func sortRoutes(f firewall.Family, rs []*Route) {
	slices.SortStableFunc(rs, func(a, b *Route) int {
		if f == firewall.IPv6 {
			return cmp.Compare(a.Metric, b.Metric)
		}
		return cmp.Or(-cmp.Compare(a.Table, b.Table), -cmp.Compare(a.TOS, b.TOS), cmp.Compare(a.Metric, b.Metric))
	})
}

// layOut sweeps over the prefixes in order with a stack of those that are open.
func (fb *fib) layOut() {
	var open []int32
	emit := func(lo firewall.Value, n int32) {
		if k := len(fb.cells); k > 0 && fb.cells[k-1].lo == lo {
			fb.cells[k-1].node = n
			return
		}
		fb.cells = append(fb.cells, cell{lo, n})
	}
	top := func() int32 {
		if len(open) == 0 {
			return -1
		}
		return open[len(open)-1]
	}
	end := firewall.MaxValue(fb.family.AddrLen())
	closeUpTo := func(lo *firewall.Value) {
		for len(open) > 0 {
			hi := fb.nodes[top()].hi
			if lo != nil && !hi.Less(*lo) {
				return
			}
			open = open[:len(open)-1]
			if hi != end {
				emit(hi.Next(), top())
			}
		}
	}
	emit(firewall.Value{}, -1)
	for i := range fb.nodes {
		n := &fb.nodes[i]
		closeUpTo(&n.lo)
		n.parent = top()
		open = append(open, int32(i))
		emit(n.lo, int32(i))
	}
	closeUpTo(nil)
}

// size is the number of routes; a table that is not there has none.
func (fb *fib) size() int {
	if fb == nil {
		return 0
	}
	return len(fb.routes)
}

// at returns the index of the cell that v is in.
func (fb *fib) at(v firewall.Value) int {
	return sort.Search(len(fb.cells), func(i int) bool { return v.Less(fb.cells[i].lo) }) - 1
}

// span calls f for every cell that the set touches, with the part of the set in it.
func (fb *fib) span(set firewall.Ranges, f func(n int32, r firewall.Range)) {
	for _, r := range set {
		for i := fb.at(r.Lo); i < len(fb.cells); i++ {
			lo, hi := fb.cells[i].lo, r.Hi
			if r.Hi.Less(lo) {
				break
			}
			if lo.Less(r.Lo) {
				lo = r.Lo
			}
			if i+1 < len(fb.cells) && !hi.Less(fb.cells[i+1].lo) {
				hi = fb.cells[i+1].lo.Prev()
			}
			f(fb.cells[i].node, firewall.Range{Lo: lo, Hi: hi})
		}
	}
}

// few is the number of cells up to which a set is walked cell by cell instead
// of being cut out of the painting of the whole space.
const few = 32

// touches reports whether the set touches at most few cells.
func (fb *fib) touchesFew(set firewall.Ranges) bool {
	if len(set) > few {
		return false
	}
	n := 0
	for _, r := range set {
		n += fb.at(r.Hi) - fb.at(r.Lo) + 1
	}
	return n <= few
}

// resolveKey is all that decides which route of a table a destination gets.
type resolveKey struct {
	tos             uint8
	oif             int
	ignoreLinkstate bool
	// IPv6
	iface     bool // RT6_LOOKUP_F_IFACE
	reachable bool // RT6_LOOKUP_F_REACHABLE
	device    bool // ip6_pol_route_lookup (rt6_device_match) instead of ip6_pol_route
	saddrAny  bool // device: no source given
	saddrHere bool // device: the source is an address of this host
	saddrLink int  // device: the source is an address of this link only, 0 for none
}

// result is what a table gives for a destination.
type result struct {
	err   errno // 0: route and hop are good
	route *Route
	hop   int // the hop the lookup itself settled on
	// unknown says why it cannot be told; "" when it can.
	unknown string
}

type tablePart struct {
	addrs firewall.Ranges
	result
}

// lookup partitions the set of destinations by the result of the table.
func (fb *fib) lookup(t *Table, set firewall.Ranges, k resolveKey) []tablePart {
	fb.once.Do(fb.build)
	if fb.touchesFew(set) {
		return fb.walk(t, set, k)
	}
	fb.paint.mu.Lock()
	parts, ok := fb.paint.all[k]
	if !ok {
		if len(fb.paint.all) >= maxPaintings {
			clear(fb.paint.all)
		}
		parts = fb.walk(t, firewall.All(fb.family.AddrLen()), k)
		fb.paint.all[k] = parts
	}
	fb.paint.mu.Unlock()
	out := make([]tablePart, 0, len(parts))
	var holes firewall.Ranges
	for _, p := range parts {
		in := p.addrs
		if len(set) < len(in) {
			// Most parts have no hole in them and stay as they are, uncopied.
			if holes == nil {
				holes = firewall.All(fb.family.AddrLen()).Minus(set)
			}
			if hit := in.Intersect(holes); !hit.Empty() {
				in = in.Minus(hit)
			}
		} else {
			in = in.Intersect(set)
		}
		if !in.Empty() {
			out = append(out, tablePart{in, p.result})
		}
	}
	return out
}

// maxPaintings bounds the cache: a host has few combinations of oif and TOS.
const maxPaintings = 256

func (fb *fib) walk(t *Table, set firewall.Ranges, k resolveKey) []tablePart {
	memo := map[int32]int{} // node → part
	index := map[result]int{}
	same := map[effect]*Route{}
	var out []tablePart
	part := func(res result) int {
		i, ok := index[res]
		if !ok {
			i = len(out)
			index[res] = i
			out = append(out, tablePart{result: res})
		}
		return i
	}
	add := func(i int, r firewall.Range) {
		// The cells come in order of their addresses.
		if a := out[i].addrs; len(a) > 0 && a[len(a)-1].Hi.Next() == r.Lo {
			a[len(a)-1].Hi = r.Hi
			return
		}
		out[i].addrs = append(out[i].addrs, r)
	}
	fb.span(set, func(n int32, r firewall.Range) {
		i, ok := memo[n]
		if !ok {
			i = part(t.shared(fb.resolve(t, n, k), same))
			memo[n] = i
		}
		add(i, r)
	})
	return out
}

func (fb *fib) resolve(t *Table, n int32, k resolveKey) result {
	if fb.family == firewall.IPv4 {
		return fb.resolve4(n, k)
	}
	if fb.sourced {
		return result{unknown: "the table holds routes for certain sources only (`from`)"}
	}
	return fb.resolve6(t, n, k)
}
