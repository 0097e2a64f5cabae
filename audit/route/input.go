package route

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// Input partitions sources by what happens to a packet from them to dst that
// came in by link in and got through prerouting: ip_route_input_slow, or
// ip6_route_input with the first checks of ip6_forward.
//
// A packet that this host sent to itself never gets here: over lo it keeps the
// route that Output gave it.
func (t *Table) Input(k Key, srcs firewall.Ranges, dst firewall.Value, in *firewall.Link) []Part {
	return t.input(&query{Key: k, varies: varySrc, dst: dst, in: t.link(in)}, srcs)
}

// InputTo is Input for one source and a set of destinations: the answers that
// come back for a forwarded connection, for one.
func (t *Table) InputTo(k Key, src firewall.Value, dsts firewall.Ranges, in *firewall.Link) []Part {
	return t.input(&query{Key: k, varies: varyDst, src: src, in: t.link(in)}, dsts)
}

// Receive partitions sources by what happens to a packet before prerouting:
// the fixed checks of ip_rcv_core and ip6_rcv_core. Verdict kinds are Drop and
// Local, the latter for "goes on to prerouting". For IPv4 nothing is checked
// but that the interface speaks it.
func (t *Table) Receive(f firewall.Family, srcs firewall.Ranges, dst firewall.Value, in *firewall.Link) []Part {
	l := t.link(in)
	if l == nil {
		return whole(srcs, Verdict{Unknown: "the interface is not among the links that were read"})
	}
	if v, off := l.familyOff(f); off {
		return whole(srcs, v)
	}
	p := painter{left: srcs}
	if f == firewall.IPv6 {
		martian := Verdict{Kind: Drop, Why: MartianSource, Witness: Witness{Text: "a multicast address cannot be a source"}}
		p.take(multicast6, martian)
		if !l.Loopback() && l.vrf() == nil {
			p.take(firewall.Single(loopback6), Verdict{Kind: Drop, Why: MartianSource, Witness: Witness{Text: "::1 cannot come in from outside"}})
			if dst == loopback6 {
				p.rest(Verdict{Kind: Drop, Why: MartianDestination, Witness: Witness{Text: "::1 cannot be reached from outside"}})
			}
		}
	}
	p.rest(Verdict{Kind: Local, Link: l.Link})
	return p.parts()
}

// query is one question to the input path.
type query struct {
	Key
	varies   side
	src, dst firewall.Value // the one that does not vary
	in       *Link
}

func (t *Table) input(q *query, set firewall.Ranges) []Part {
	switch {
	case set.Empty():
		return nil
	case q.in == nil:
		return whole(set, Verdict{Unknown: "the interface is not among the links that were read"})
	case q.in.vrf() != nil:
		return whole(set, Verdict{Unknown: "the interface belongs to the VRF " + q.in.vrf().Name})
	}
	if v, off := q.in.familyOff(q.Family); off {
		return whole(set, v)
	}
	if d := t.domain(q.Family); d.unread != "" {
		return whole(set, Verdict{Unknown: d.unread})
	}
	if q.Family == firewall.IPv4 {
		return t.input4(q, set)
	}
	return t.input6(q, set)
}

// familyOff reports whether the interface does not take packets of the family.
func (l *Link) familyOff(f firewall.Family) (Verdict, bool) {
	v := Verdict{Kind: Drop, Why: FamilyOff}
	switch {
	case f == firewall.IPv4 && l.conf4 == nil:
		v.Witness.Text = "the interface " + l.Name + " has no IPv4"
	case f == firewall.IPv6 && l.conf6 == nil:
		v.Witness.Text = "the interface " + l.Name + " has no IPv6"
	case f == firewall.IPv6 && conf(l.conf6, conf6DisableIPv6) != 0:
		v.Witness = Witness{SysctlWitness, confName("ipv6", l.Name, "disable_ipv6") + " = 1"}
	default:
		return Verdict{}, false
	}
	return v, true
}

func whole(set firewall.Ranges, v Verdict) []Part {
	if set.Empty() {
		return nil
	}
	return []Part{{set, v}}
}

// painter cuts a set into parts, first come first served.
type painter struct {
	left firewall.Ranges
	out  []Part
}

// take gives what is left of set the verdict.
func (p *painter) take(set firewall.Ranges, v Verdict) {
	in := p.left.Intersect(set)
	if in.Empty() {
		return
	}
	p.left = p.left.Minus(in)
	p.out = append(p.out, Part{in, v})
}

// rest gives everything left the verdict.
func (p *painter) rest(v Verdict) {
	if !p.left.Empty() {
		p.out = append(p.out, Part{p.left, v})
		p.left = nil
	}
}

func (p *painter) parts() []Part { return join(p.out) }

// join puts parts with the same verdict together.
func join(parts []Part) []Part {
	if len(parts) < 2 {
		return parts
	}
	index := map[verdictKey][]int{}
	out := parts[:0:0]
	more := map[int][]firewall.Ranges{} // what comes to a part
next:
	for _, p := range parts {
		k := p.key()
		for _, i := range index[k] {
			if slices.Equal(out[i].Hops, p.Hops) {
				more[i] = append(more[i], p.Addrs)
				continue next
			}
		}
		index[k] = append(index[k], len(out))
		out = append(out, p)
	}
	for i, sets := range more {
		if len(sets) < 4 {
			for _, s := range sets {
				out[i].Addrs = out[i].Addrs.Union(s)
			}
			continue
		}
		all := append([]firewall.Range(nil), out[i].Addrs...)
		for _, s := range sets {
			all = append(all, s...)
		}
		out[i].Addrs = firewall.NewRanges(all)
	}
	return out
}

type verdictKey struct {
	kind               VerdictKind
	link               *firewall.Link
	broadcast, anycast bool
	why                Why
	icmp               ICMP
	told               bool
	errno              string
	witness            Witness
	detail, unknown    string
	hops               int
}

func (v *Verdict) key() verdictKey {
	k := verdictKey{v.Kind, v.Link, v.Broadcast, v.Anycast, v.Why, ICMP{}, v.ICMP != nil, v.Errno, v.Witness, v.Detail, v.Unknown, len(v.Hops)}
	if v.ICMP != nil {
		k.icmp = *v.ICMP
	}
	return k
}

// hops lists the ways a packet can take that a lookup gave to a route: the one
// hop, or all usable ones of a multipath route, from which a flow hash chooses.
func (t *Table) hops(r result, k resolveKey) []NextHop {
	rt := r.route
	if len(rt.Hops) == 0 {
		return nil
	}
	pick := rt.Hops[r.hop : r.hop+1]
	if len(rt.Hops) > 1 && (rt.Family == firewall.IPv6 || k.oif == 0) {
		pick = nil
		for i, h := range rt.Hops {
			ok := i == r.hop
			if rt.Family == firewall.IPv4 {
				// ignore_routes_with_linkdown takes a hop out of the choice
				// at the next event only (fib_rebalance).
				ok = ok || h.alive(true)
			} else if !ok {
				_, good, why := t.score6(hop6{rt, i}, k)
				ok = good || why != ""
			}
			if ok {
				pick = append(pick, h)
			}
		}
	}
	var out []NextHop
next:
	for _, h := range pick {
		n := NextHop{Gateway: h.Gateway}
		if h.Link != nil {
			n.Link = h.Link.Link
		}
		for _, o := range out {
			if o == n {
				continue next
			}
		}
		out = append(out, n)
	}
	return out
}

// failure is the verdict on a packet that a lookup failed for.
func failure(r routed) (Why, Witness) {
	var w Witness
	switch {
	case r.route != nil:
		w = Witness{RouteWitness, r.route.String()}
	case r.rule != nil:
		w = Witness{RuleWitness, r.rule.String()}
	default:
		w = Witness{Text: "no route"}
	}
	switch r.err {
	case unix.EINVAL:
		return Blackhole, w
	case unix.EACCES:
		return Prohibit, w
	case unix.EHOSTUNREACH:
		return Unreachable, w
	default:
		if r.route != nil || r.rule != nil {
			return Unreachable, w
		}
		return NoRoute, w
	}
}

func errnoName(e errno) string { return unix.ErrnoName(e) }
