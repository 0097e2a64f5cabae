package route

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// Key is what a lookup is keyed with besides addresses and interfaces.
type Key struct {
	Family firewall.Family
	// Mark is the packet's mark. What rules cannot tell of an unknown mark
	// makes the answer Unknown.
	Mark firewall.Known
	// UID is the user of the socket behind the packet; 0 for packets without one.
	UID firewall.Known
	TOS uint8 // the TOS or traffic-class byte
	// Proto is 0 where it is not known. It and the ports are asked for by `ipproto`, `sport` and `dport`
	// rules only. Sport and Dport are the possible ports; nil: cannot be told.
	Proto        firewall.Proto
	Sport, Dport firewall.Ranges
	// AnySource: the source need not be an address of this host
	// (FLOWI_FLAG_ANYSRC: transparent sockets). Output only.
	AnySource bool
	// Unbound: the output interface is the kernel's own choice, not that of a
	// bound socket: a RST or ICMP error to a link-local address. IPv6 does
	// not insist on it then. Output only.
	Unbound bool
}

// NoProto as [Key.Proto] is the protocol of a lookup that the kernel makes
// without one: no `ipproto` rule matches it.
const NoProto firewall.Proto = 255

// flow is one lookup. One of src and dst varies: that of the set the lookup is
// made for.
type flow struct {
	Key
	iif, oif int
	src, dst firewall.Value
	varies   side
	hasSaddr bool // IPv6: RT6_LOOKUP_F_HAS_SADDR
	// srcUnknown: src is not known, and a rule that compares it cannot be told.
	srcUnknown bool
	resolve    resolveKey
}

type side uint8

const (
	varySrc side = iota
	varyDst
)

// routed is a part of the answer of a lookup through all routing rules.
type routed struct {
	addrs firewall.Ranges
	result
	rule *Rule
}

// fibLookup is fib_lookup or fib6_rule_lookup for a set of addresses. An error
// of EAGAIN does not come back: it is ENETUNREACH, nothing found.
func (t *Table) fibLookup(fl *flow, set firewall.Ranges) []routed {
	d := t.domain(fl.Family)
	if set.Empty() {
		return nil
	}
	if d.unread != "" {
		return []routed{{addrs: set, result: result{unknown: d.unread}}}
	}
	if fl.Family == firewall.IPv6 || d.customRules == yes {
		return t.ruleLookup(d, fl, set)
	}
	merged := t.mergedLookup(d, fl, set)
	if d.customRules == no {
		return merged
	}
	return reconcile(merged, t.ruleLookup(d, fl, set),
		"the kernel may look in the local and main table together or one after the other: "+d.mergedWhy)
}

// reconcile keeps what two possible answers agree on.
func reconcile(a, b []routed, why string) []routed {
	var out []routed
	for _, p := range a {
		for _, q := range b {
			in := p.addrs.Intersect(q.addrs)
			if in.Empty() {
				continue
			}
			if p.result == q.result {
				out = append(out, routed{in, p.result, p.rule})
			} else {
				out = append(out, routed{in, result{unknown: why}, nil})
			}
		}
	}
	return out
}

// tableLookup asks one table.
func (t *Table) tableLookup(fb *fib, fl *flow, set firewall.Ranges) []tablePart {
	if fb == nil {
		return []tablePart{{set, result{err: unix.EAGAIN}}}
	}
	if fl.varies == varyDst {
		return fb.lookup(t, set, fl.resolve)
	}
	one := fb.lookup(t, firewall.Single(fl.dst), fl.resolve)
	return []tablePart{{set, one[0].result}}
}

// mergedLookup is fib_lookup without rules of one's own: the trie of the local
// and main table, then the default table. Older kernels go on to the default
// table, where there is one, even from a route that refuses.
func (t *Table) mergedLookup(d *domain, fl *flow, set firewall.Ranges) []routed {
	var out []routed
	add := func(addrs firewall.Ranges, r result) {
		p := routed{addrs: addrs, result: r}
		if p.err == unix.EAGAIN {
			p.err, p.route = unix.ENETUNREACH, nil
		}
		for _, rule := range d.rules {
			if p.route != nil && rule.Table == p.route.Table {
				p.rule = rule
				break
			}
		}
		out = append(out, p)
	}
	for _, p := range t.tableLookup(d.merged, fl, set) {
		if p.unknown != "" || p.err == 0 || !d.defaultTable || p.err != unix.EAGAIN && t.stopsAtRefusal {
			add(p.addrs, p.result)
			continue
		}
		for _, q := range t.tableLookup(d.fibs[tableDefault], fl, p.addrs) {
			if p.err != unix.EAGAIN && p.result != q.result {
				q.result = result{unknown: "whether the default table is asked after a route that refuses differs between kernels"}
			}
			add(q.addrs, q.result)
		}
	}
	return out
}

// ruleLookup is fib_rules_lookup. Goto goes forward only, so that one pass over
// the rules with a set waiting at each is enough.
func (t *Table) ruleLookup(d *domain, fl *flow, set firewall.Ranges) []routed {
	var out []routed
	waiting := make([]firewall.Ranges, len(d.rules)+1)
	waiting[0] = set
	for i, r := range d.rules {
		if waiting[i].Empty() {
			continue
		}
		match, next, doubt, why := t.match(r, fl, waiting[i])
		if !doubt.Empty() {
			out = append(out, routed{doubt, result{unknown: why}, r})
		}
		if !match.Empty() {
			switch r.Action {
			case actGoto:
				if j := target(d.rules, r); j > i {
					waiting[j] = waiting[j].Union(match)
				} else {
					next = next.Union(match)
				}
			case actNop:
				next = next.Union(match)
			case actTable:
				for _, p := range t.tableLookup(d.fibs[r.Table], fl, match) {
					gone := no
					switch {
					case p.unknown != "":
					case p.err == unix.EAGAIN:
						gone = yes
					case p.err == 0:
						gone = t.suppressed(r, p.result)
					}
					switch gone {
					case yes:
						next = next.Union(p.addrs)
						continue
					case unknown:
						p.result = result{unknown: fmt.Sprintf("routing rule %d suppresses by the prefix of a route whose nexthop object other routes share", r.Pref)}
					}
					out = append(out, routed{p.addrs, p.result, r})
				}
			case actUnreachable:
				out = append(out, routed{match, result{err: unix.ENETUNREACH}, r})
			case actProhibit:
				out = append(out, routed{match, result{err: unix.EACCES}, r})
			default:
				out = append(out, routed{match, result{err: unix.EINVAL}, r})
			}
		}
		waiting[i+1] = waiting[i+1].Union(next)
	}
	if rest := waiting[len(d.rules)]; !rest.Empty() {
		out = append(out, routed{rest, result{err: unix.ENETUNREACH}, nil})
	}
	return out
}

// target is the first rule with the preference that r goes to, -1 for none.
func target(rules []*Rule, r *Rule) int {
	if r.GotoNowhere {
		return -1
	}
	for j, s := range rules {
		if s.Pref == r.Goto {
			return j
		}
	}
	return -1
}

// suppressed is fib4_rule_suppress and fib6_rule_suppress.
func (t *Table) suppressed(r *Rule, res result) tri {
	short := func(rt *Route) bool { return rt.Dst.Bits() <= r.SuppressPrefixLen }
	for _, o := range t.mixed(res.route) {
		if short(o) != short(res.route) {
			return unknown
		}
	}
	if short(res.route) {
		return yes
	}
	if res.route.Family == firewall.IPv4 {
		res.hop = 0 // fib_info_nhc(fi, 0), whichever hop was taken
	}
	link := t.resultLink(res)
	if r.SuppressGroup >= 0 && link != nil && int64(link.Group) == r.SuppressGroup {
		return yes
	}
	return no
}

// resultLink is the device of a result (FIB_RES_DEV; rt6i_idev).
func (t *Table) resultLink(res result) *Link {
	if res.route == nil || res.hop >= len(res.route.Hops) {
		return nil
	}
	return res.route.Hops[res.hop].Link
}

// match splits a set by a rule (fib_rule_match, fib4_rule_match,
// fib6_rule_match).
func (t *Table) match(r *Rule, fl *flow, set firewall.Ranges) (match, other, doubt firewall.Ranges, why string) {
	m, why := t.matchFixed(r, fl)
	// What of the set the rule's prefixes leave.
	in := set
	if m != no {
		src, dst := r.Src, r.Dst
		if fl.Family == firewall.IPv6 && src.Bits() > 0 && !fl.hasSaddr && !fl.srcUnknown {
			if r.FindSource {
				m, why = unknown, "it compares a source that is not chosen yet"
			} else {
				m = no
			}
		}
		fixed, varying := src, dst
		fixedAddr := fl.src
		if fl.varies == varySrc {
			fixed, varying = dst, src
			fixedAddr = fl.dst
		}
		switch {
		case fixed.Bits() == 0:
		case fl.srcUnknown && fl.varies == varyDst:
			if m == yes {
				m, why = unknown, "the other address of the packet is not known"
			}
		case !firewall.Prefix(fixed).Contains(fixedAddr):
			m = no
		}
		if m != no && varying.Bits() > 0 {
			in = set.Intersect(firewall.Prefix(varying))
		}
	}
	if m == no {
		in = nil
	}
	if m == unknown && !in.Empty() {
		doubt, in = in, nil
		why = fmt.Sprintf("routing rule %d: %s", r.Pref, why)
	}
	rest := set.Minus(in).Minus(doubt)
	if r.Invert {
		return rest, in, doubt, why
	}
	return in, rest, doubt, why
}

// matchFixed compares everything of a rule but its prefixes.
func (t *Table) matchFixed(r *Rule, fl *flow) (tri, string) {
	if r.IifDetached || r.OifDetached {
		return no, ""
	}
	if r.Iif != "" {
		l := t.byName[r.Iif]
		if l == nil {
			return no, ""
		}
		if l.Index != fl.iif {
			if l.Kind == "vrf" && t.hasVRF {
				return unknown, "it names a VRF"
			}
			return no, ""
		}
	}
	if r.Oif != "" {
		l := t.byName[r.Oif]
		if l == nil {
			return no, ""
		}
		if l.Index != fl.oif {
			if l.Kind == "vrf" && t.hasVRF {
				return unknown, "it names a VRF"
			}
			return no, ""
		}
	}
	if r.L3mdev && (!t.hasVRF || t.outsideVRF(fl)) {
		return no, ""
	}
	if r.TOS != 0 && r.TOS != fl.TOS&tosMask(fl.Family) {
		return no, ""
	}
	if r.HasDSCP && (r.DSCP^fl.TOS>>2)&r.DSCPMask != 0 {
		return no, ""
	}
	res, why := yes, ""
	maybe := func(state tri, because string) {
		if state == no {
			res = no
		} else if state == unknown && res == yes {
			res, why = unknown, because
		}
	}
	if r.Mask != 0 {
		switch {
		case fl.Mark.Unknown:
			maybe(unknown, "the packet mark is not known")
		case (r.Mark^fl.Mark.Value)&r.Mask != 0:
			return no, ""
		}
	}
	if r.HasUIDs {
		switch {
		case fl.UID.Unknown:
			maybe(unknown, "the user behind the packet is not known")
		case fl.UID.Value < r.UIDs[0] || fl.UID.Value > r.UIDs[1]:
			return no, ""
		}
	}
	if r.IPProto != 0 {
		switch {
		case fl.Proto == 0:
			maybe(unknown, "the protocol is not known")
		case fl.Proto == NoProto:
			return no, ""
		case fl.Proto != r.IPProto:
			return no, ""
		}
	}
	maybe(portMatch(r.Sport, r.SportMask, fl.Sport), "it names a source port")
	maybe(portMatch(r.Dport, r.DportMask, fl.Dport), "it names a destination port")
	if r.L3mdev {
		maybe(unknown, "the packet belongs to a VRF")
	}
	if r.Opaque != "" {
		maybe(unknown, "not modelled: "+r.Opaque)
	}
	return res, why
}

// outsideVRF reports whether neither interface of the flow belongs to a VRF.
func (t *Table) outsideVRF(fl *flow) bool {
	for _, i := range []int{fl.iif, fl.oif} {
		if l := t.byIndex[i]; l != nil && l.vrf() != nil {
			return false
		}
	}
	return true
}

// tosMask is what of the TOS byte a `tos` rule compares: fib_dscp_masked_match,
// ip6_dscp.
func tosMask(f firewall.Family) uint8 {
	if f == firewall.IPv4 {
		return legacyTOS
	}
	return 0xfc
}

func portMatch(rng [2]uint16, mask uint16, ports firewall.Ranges) tri {
	if rng == [2]uint16{} {
		return yes
	}
	if ports == nil {
		return unknown
	}
	want := firewall.Span(firewall.Num(uint64(rng[0])), firewall.Num(uint64(rng[1])))
	if mask != 0 && mask != 0xffff {
		p, ok := ports.Only()
		if !ok {
			return unknown
		}
		if (uint16(p.Lo)^rng[0])&mask != 0 {
			return no
		}
		return yes
	}
	switch {
	case ports.Intersect(want).Empty():
		return no
	case ports.Minus(want).Empty():
		return yes
	default:
		return unknown
	}
}
