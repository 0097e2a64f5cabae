package route

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// hop6 is one struct fib6_info: a hop of a multipath route is a sibling of its
// own in IPv6.
type hop6 struct {
	route *Route
	hop   int
}

// index is the index of the hop's interface; reject routes hang on the loopback.
func (s hop6) index() int {
	if s.hop < len(s.route.Hops) {
		return s.route.Hops[s.hop].Link.Index
	}
	return loopbackIndex
}

// siblings lists the routes of a prefix as fib6_next does.
func (n *node) siblings() []hop6 {
	out := make([]hop6, 0, len(n.routes))
	for _, r := range n.routes {
		if r.Expired {
			continue
		}
		out = append(out, hop6{r, 0})
		for i := 1; i < len(r.Hops); i++ {
			out = append(out, hop6{r, i})
		}
	}
	return out
}

// resolve6 is fib6_table_lookup with fib6_select_path, or ip6_pol_route_lookup.
func (fb *fib) resolve6(t *Table, n int32, k resolveKey) result {
	if k.device {
		return fb.deviceMatch(n, k)
	}
	for {
		for i := n; i >= 0; i = fb.nodes[i].parent {
			if r, ok := t.select6(&fb.nodes[i], k); ok {
				return r
			}
		}
		if !k.reachable {
			return result{err: unix.EAGAIN}
		}
		k.reachable = false // also consider routes over dead gateways
	}
}

// select6 is rt6_select: among the routes of the best metric the one with the
// best score; when none will do, among all others.
func (t *Table) select6(n *node, k resolveKey) (result, bool) {
	all := n.siblings()
	if len(all) == 0 {
		return result{}, false
	}
	best, bestScore := -1, -1
	tied := false
	first := 0
	for first < len(all) && all[first].route.Metric == all[0].route.Metric {
		first++
	}
	for _, group := range [][2]int{{0, first}, {first, len(all)}} {
		for i := group[0]; i < group[1]; i++ {
			s := all[i]
			if s.route.hidden != "" {
				return result{unknown: fmt.Sprintf("route %s: %s", s.route.Dst, s.route.hidden)}, true
			}
			m, ok, why := t.score6(s, k)
			if why != "" {
				return result{unknown: why}, true
			}
			switch {
			case !ok || m < bestScore:
			case m > bestScore:
				best, bestScore, tied = i, m, false
			case best >= 0 && all[best].route != s.route && (s.hop > 0 || all[best].hop > 0):
				// The dump groups the hops of a multipath route, so that
				// their place among other routes is not known.
				tied = true
			}
		}
		if best >= 0 {
			break
		}
	}
	if best < 0 {
		return result{}, false
	}
	if tied {
		return result{unknown: fmt.Sprintf("several routes to %s are equally good", n.prefix)}, true
	}
	return finish6(all[best]), true
}

func finish6(s hop6) result {
	r := s.route
	if err := typeError(r.Type); err != 0 {
		return result{err: err, route: r}
	}
	return result{route: r, hop: s.hop}
}

// rejects is fib6_is_reject for a route that has no error type: one that points
// at the loopback without being local. The lookup itself succeeds.
func (r *Route) rejects() bool {
	return r.Family == firewall.IPv6 && r.Type == typeUnicast && len(r.Hops) > 0 &&
		r.Hops[0].Link != nil && r.Hops[0].Link.Loopback() && !(r.Dst.Addr().IsLoopback())
}

// score6 is find_match with rt6_score_route.
func (t *Table) score6(s hop6, k resolveKey) (m int, ok bool, why string) {
	r := s.route
	var link *Link
	var h Hop
	if s.hop < len(r.Hops) {
		h = r.Hops[s.hop]
		link = h.Link
		if !h.alive(k.ignoreLinkstate) {
			return 0, false, ""
		}
	} else if !r.usesHops() {
		// Reject routes hang on the loopback device.
		link = t.lo
	}
	if k.oif == 0 || link != nil && link.Index == k.oif {
		m = 2
	}
	if m == 0 && k.iface {
		return 0, false, ""
	}
	// IPV6_DECODE_PREF: low 1, medium 2, high 3.
	m |= int(r.Pref^2) & 3 << 2
	if k.reachable && h.Gateway.IsValid() {
		if t.failed == nil {
			return 0, false, "the IPv6 neighbours could not be read"
		}
		if t.failed[neighKey{link.Index, h.Gateway}] {
			return 0, false, ""
		}
	}
	return m, true, ""
}

// deviceMatch is rt6_device_match along the prefixes.
func (fb *fib) deviceMatch(n int32, k resolveKey) result {
	for ; n >= 0; n = fb.nodes[n].parent {
		all := fb.nodes[n].siblings()
		if len(all) == 0 {
			continue
		}
		for _, s := range all {
			if s.route.hidden != "" {
				return result{unknown: fmt.Sprintf("route %s: %s", s.route.Dst, s.route.hidden)}
			}
		}
		if s, ok := deviceMatch(all, k); ok {
			return finish6(s)
		}
	}
	return result{err: unix.EAGAIN}
}

func deviceMatch(all []hop6, k resolveKey) (hop6, bool) {
	dead := func(s hop6) bool {
		return s.hop < len(s.route.Hops) && s.route.Hops[s.hop].Flags&rtnhDead != 0 &&
			!s.route.Hops[s.hop].alive(true)
	}
	if k.oif == 0 && k.saddrAny && !dead(all[0]) {
		return all[0], true
	}
	for _, s := range all {
		if dead(s) {
			continue
		}
		if k.oif == 0 {
			if k.saddrHere || k.saddrLink != 0 && s.index() == k.saddrLink {
				return s, true
			}
			continue
		}
		if s.index() == k.oif {
			return s, true
		}
	}
	if k.oif != 0 && k.iface {
		return hop6{}, false
	}
	return all[0], !dead(all[0])
}
