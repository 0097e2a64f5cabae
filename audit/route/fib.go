package route

import (
	"cmp"
	"net/netip"
	"slices"
	"sort"

	"github.com/hostaudit/hostaudit/firewall"
)

// fib is one routing table, laid out for longest-prefix lookups of single
// addresses and of sets: the address space is cut into cells, each with the most
// specific prefix that covers it; prefixes know the next wider one.
type fib struct {
	id     uint32
	family firewall.Family
	routes []*Route
	nodes  []node
	cells  []cell // sorted by lo; the first begins at 0
	// sourced: a route of the table is for certain sources only.
	sourced bool
	paint   paintings
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
	byPrefix := map[netip.Prefix]int{}
	for _, r := range routes {
		fb.sourced = fb.sourced || r.Src.Bits() > 0
		i, ok := byPrefix[r.Dst]
		if !ok {
			i = len(fb.nodes)
			byPrefix[r.Dst] = i
			p := firewall.Prefix(r.Dst)
			fb.nodes = append(fb.nodes, node{prefix: r.Dst, lo: p[0].Lo, hi: p[0].Hi})
		}
		fb.nodes[i].routes = append(fb.nodes[i].routes, r)
	}
	slices.SortFunc(fb.nodes, func(a, b node) int {
		return cmp.Or(a.lo.Cmp(b.lo), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	for i := range fb.nodes {
		sortRoutes(f, fb.nodes[i].routes)
	}
	fb.layOut()
	return fb
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

// defaults are the routes to all addresses.
func (fb *fib) defaults() []*Route {
	for n := fb.cells[0].node; n >= 0; n = fb.nodes[n].parent {
		if fb.nodes[n].prefix.Bits() == 0 {
			return fb.nodes[n].routes
		}
	}
	return nil
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
	for _, p := range parts {
		if in := p.addrs.Intersect(set); !in.Empty() {
			out = append(out, tablePart{in, p.result})
		}
	}
	return out
}

// maxPaintings bounds the cache: a host has few combinations of oif and TOS.
const maxPaintings = 256

func (fb *fib) walk(t *Table, set firewall.Ranges, k resolveKey) []tablePart {
	memo := map[int32]result{}
	index := map[result]int{}
	var out []tablePart
	fb.span(set, func(n int32, r firewall.Range) {
		res, ok := memo[n]
		if !ok {
			res = fb.resolve(t, n, k)
			memo[n] = res
		}
		i, ok := index[res]
		if !ok {
			i = len(out)
			index[res] = i
			out = append(out, tablePart{result: res})
		}
		out[i].addrs = append(out[i].addrs, r)
	})
	for i := range out {
		out[i].addrs = firewall.NewRanges(out[i].addrs)
	}
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
