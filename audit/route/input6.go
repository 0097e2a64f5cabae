package route

import (
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// strict6 is rt6_need_strict: destinations whose route must name the interface.
var strict6 = multicast6.Union(linklocal6).Union(firewall.Single(loopback6))

// input6 is ip6_route_input and what dst.input does first. IPv6 has no
// reverse-path filter.
func (t *Table) input6(q *query, set firewall.Ranges) []Part {
	p := painter{left: set}
	mcast := Verdict{Unknown: "which multicast groups the host has joined was not read"}
	if q.varies == varyDst {
		p.take(multicast6, mcast)
	} else if multicast6.Contains(q.dst) {
		p.rest(mcast)
	}
	if p.left.Empty() {
		return p.parts()
	}
	if t.fwd6 == unknown {
		p.rest(Verdict{Unknown: "net.ipv6.conf.all.forwarding could not be read"})
		return p.parts()
	}
	base := flow{Key: q.Key, iif: q.in.Index, src: q.src, dst: q.dst, varies: q.varies, hasSaddr: true}
	base.UID = firewall.Known{}
	base.resolve = resolveKey{oif: q.in.Index, reachable: t.fwd6 == no}
	for _, strict := range []bool{true, false} {
		sub := p.left
		if q.varies == varyDst {
			if strict {
				sub = sub.Intersect(strict6)
			} else {
				sub = sub.Minus(strict6)
			}
		} else if strict6.Contains(q.dst) != strict {
			continue
		}
		fl := base
		fl.resolve.iface = strict
		for _, r := range t.fibLookup(&fl, sub) {
			p.out = append(p.out, t.routed6(q, &fl, r)...)
		}
	}
	p.left = nil
	return p.parts()
}

func (t *Table) routed6(q *query, fl *flow, r routed) []Part {
	if r.unknown != "" {
		return whole(r.addrs, Verdict{Unknown: r.unknown})
	}
	if r.err != 0 {
		why, w := failure(r)
		return whole(r.addrs, Verdict{Kind: Drop, Why: why, Witness: w, ICMP: icmp6(r.err)})
	}
	link := t.resultLink(r.result)
	if link != nil && link.vrf() != nil {
		return whole(r.addrs, Verdict{Unknown: "the route leads into the VRF " + link.vrf().Name})
	}
	switch r.route.Type {
	case typeLocal, typeAnycast:
		return whole(r.addrs, Verdict{Kind: Local, Link: link.Link, Anycast: r.route.Type == typeAnycast})
	case typeUnicast:
		if r.route.rejects() {
			return whole(r.addrs, Verdict{Kind: Drop, Why: Unreachable, Witness: Witness{RouteWitness, r.route.String()}, ICMP: icmp6(unix.ENETUNREACH)})
		}
	default:
		return whole(r.addrs, Verdict{Unknown: "a route of type " + typeName(r.route.Type)})
	}
	if t.fwd6 == no && conf(q.in.conf6, conf6ForceForwarding) == 0 {
		return whole(r.addrs, Verdict{Kind: Drop, Why: ForwardingOff,
			Witness: Witness{SysctlWitness, "net.ipv6.conf.all.forwarding = 0"}})
	}
	return t.forward6(q, fl, r)
}

// forward6 is the source check of ip6_forward. It is left out where the packet
// leaves by the interface it came in by.
func (t *Table) forward6(q *query, fl *flow, r routed) []Part {
	hops := t.hops(r.result, fl.resolve)
	ok := Verdict{Kind: Forward, Hops: hops}
	var out []Part
	for i, h := range hops {
		p := painter{left: r.addrs}
		if h.Link.Index != q.in.Index {
			refuse := func(srcs firewall.Ranges, v Verdict) {
				if q.varies == varySrc {
					p.take(srcs, v)
				} else if srcs.Contains(q.src) {
					p.rest(v)
				}
			}
			martian := func(text string) Verdict {
				return Verdict{Kind: Drop, Why: MartianSource, Witness: Witness{Text: text}}
			}
			refuse(firewall.Single(firewall.Value{}), martian("a packet from :: is not forwarded"))
			refuse(firewall.Single(loopback6), martian("a packet from ::1 is not forwarded"))
			refuse(multicast6, martian("a multicast address cannot be a source"))
			const beyondScope = 2 // ICMPV6_NOT_NEIGHBOUR
			refuse(linklocal6, Verdict{Kind: Drop, Why: BeyondScope, ICMP: &ICMP{1, beyondScope},
				Witness: Witness{Text: "a link-local source is not forwarded to another link"}})
		}
		p.rest(ok)
		if i == 0 {
			out = p.parts()
			continue
		}
		out = agree(out, p.parts(), "which way a multipath route takes decides whether the source is accepted")
	}
	return out
}

// icmp6 is what the input function of a reject route sends: nothing for a
// blackhole.
func icmp6(e errno) *ICMP {
	const destUnreach, noRoute, prohibited = 1, 0, 1
	switch e {
	case unix.EINVAL:
		return nil
	case unix.EACCES:
		return &ICMP{destUnreach, prohibited}
	default:
		return &ICMP{destUnreach, noRoute}
	}
}
