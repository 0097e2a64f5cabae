package route

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

func prefixes(texts ...string) firewall.Ranges {
	var out firewall.Ranges
	for _, s := range texts {
		out = out.Union(firewall.Prefix(netip.MustParsePrefix(s)))
	}
	return out
}

// The address ranges with a fixed meaning (include/linux/in.h ipv4_is_*,
// include/net/ipv6.h). They are never changed.
var (
	zeronet4       = prefixes("0.0.0.0/32")
	oldZeronet4    = prefixes("0.0.0.0/8").Minus(zeronet4)
	loopback4      = prefixes("127.0.0.0/8")
	multicast4     = prefixes("224.0.0.0/4")
	localMulticast = prefixes("224.0.0.0/24")
	lbcast4        = prefixes("255.255.255.255/32")
	multicast6     = prefixes("ff00::/8")
	linklocal6     = prefixes("fe80::/10")
	loopback6      = firewall.Num(1)
	// unicast6 is IPV6_ADDR_UNICAST of ipv6_addr_type.
	unicast6 = firewall.All(16).Minus(multicast6).Minus(prefixes("::/128", "::ffff:0:0/96"))
)

// loopbackIndex is LOOPBACK_IFINDEX: lookups for packets made here have it as
// their input interface.
const loopbackIndex = 1

// input4 is ip_route_input_slow.
func (t *Table) input4(q *query, set firewall.Ranges) []Part {
	p := painter{left: set}
	// on gives the verdict to the part of the set whose source or destination
	// lies in r.
	on := func(s side, r firewall.Ranges, v Verdict) {
		if q.varies == s {
			p.take(r, v)
		} else if r.Contains(q.fixed()) {
			p.rest(v)
		}
	}
	on(varyDst, multicast4, Verdict{Unknown: "which multicast groups the host has joined was not read"})
	martian := func(text string) Verdict {
		return Verdict{Kind: Drop, Why: MartianSource, Witness: Witness{Text: text}}
	}
	on(varySrc, multicast4, martian("a multicast address cannot be a source"))
	on(varySrc, lbcast4, martian("the broadcast address cannot be a source"))
	t.broadcast4(q, &p)
	on(varySrc, zeronet4, martian("0.0.0.0 cannot be a source"))
	on(varyDst, zeronet4, Verdict{Kind: Drop, Why: MartianDestination, Witness: Witness{Text: "0.0.0.0 cannot be a destination"}})
	if t.oldZeronet {
		v := Verdict{Unknown: "kernels before 5.3 take no packet from or to 0.0.0.0/8"}
		on(varySrc, oldZeronet4, v)
		on(varyDst, oldZeronet4, v)
	}
	localnet, why, text := t.or4(q.in, conf4RouteLocalnet, "route_localnet")
	if localnet != yes {
		v := Verdict{Kind: Drop, Why: RouteLocalnet, Witness: Witness{SysctlWitness, text}}
		if localnet == unknown {
			v = Verdict{Unknown: why}
		}
		on(varyDst, loopback4, v)
		on(varySrc, loopback4, v)
	}
	if p.left.Empty() {
		return p.parts()
	}
	fl := flow{Key: q.Key, iif: q.in.Index, src: q.src, dst: q.dst, varies: q.varies, resolve: resolveKey{tos: q.TOS & legacyTOS}}
	fl.UID = firewall.Known{}
	for _, r := range t.fibLookup(&fl, p.left) {
		p.out = append(p.out, t.routed4(q, &fl, r)...)
	}
	return p.parts()
}

func (q *query) fixed() firewall.Value {
	if q.varies == varySrc {
		return q.dst
	}
	return q.src
}

// broadcast4 is what goes to brd_input before any lookup: 255.255.255.255, and
// 0.0.0.0 to 0.0.0.0.
func (t *Table) broadcast4(q *query, p *painter) {
	take := func(set firewall.Ranges) {
		in := p.left.Intersect(set)
		p.left = p.left.Minus(in)
		p.out = append(p.out, t.brdInput(q, in)...)
	}
	zero := firewall.Single(firewall.Value{})
	switch {
	case q.varies == varyDst:
		take(lbcast4)
		if q.src.IsZero() {
			take(zero)
		}
	case lbcast4.Contains(q.dst):
		take(p.left)
	case q.dst.IsZero():
		take(zero)
	}
}

// brdInput is the label brd_input: the source is checked, except 0.0.0.0.
func (t *Table) brdInput(q *query, set firewall.Ranges) []Part {
	ok := Verdict{Kind: Local, Link: q.in.Link, Broadcast: true}
	if set.Empty() {
		return nil
	}
	if q.varies == varyDst {
		if zeronet4.Contains(q.src) {
			return whole(set, ok)
		}
		v := t.validate4(q, firewall.Single(q.src), firewall.Value{}, 0, false)
		return whole(set, v[0].or(ok))
	}
	p := painter{left: set}
	p.take(zeronet4, ok)
	for _, c := range t.validate4(q, p.left, firewall.Value{}, 0, false) {
		p.out = append(p.out, Part{c.addrs, c.or(ok)})
	}
	return p.out
}

// routed4 is what follows a lookup.
func (t *Table) routed4(q *query, fl *flow, r routed) []Part {
	forwarding := conf(q.in.conf4, conf4Forwarding) != 0
	off := Witness{SysctlWitness, confName("ipv4", q.in.Name, "forwarding") + " = 0"}
	if r.unknown != "" {
		return whole(r.addrs, Verdict{Unknown: r.unknown})
	}
	if r.err != 0 {
		why, w := failure(r)
		if !forwarding {
			// ip_error answers only where the interface forwards.
			return whole(r.addrs, Verdict{Kind: Drop, Why: why, Witness: w})
		}
		return whole(r.addrs, Verdict{Kind: Drop, Why: why, Witness: w, ICMP: icmp4(r.err)})
	}
	if l := t.resultLink(r.result); l != nil && l.vrf() != nil {
		return whole(r.addrs, Verdict{Unknown: "the route leads into the VRF " + l.vrf().Name})
	}
	switch r.route.Type {
	case typeBroadcast:
		own := conf(q.in.conf4, conf4BCForwarding) != 0
		all := t.all4["bc_forwarding"] != 0
		switch {
		case own && t.unread4["bc_forwarding"] != "":
			return whole(r.addrs, Verdict{Unknown: "net.ipv4.conf.all.bc_forwarding could not be read"})
		case own && all:
			return t.forward4(q, fl, r)
		}
		return t.brdInput(q, r.addrs)
	case typeLocal:
		ok := Verdict{Kind: Local, Link: t.resultLink(r.result).Link}
		return t.checked(q, r.addrs, 0, ok)
	}
	if !forwarding {
		return whole(r.addrs, Verdict{Kind: Drop, Why: ForwardingOff, Witness: off})
	}
	if r.route.Type != typeUnicast {
		return whole(r.addrs, Verdict{Kind: Drop, Why: MartianDestination, Witness: Witness{RouteWitness, r.route.String()}})
	}
	return t.forward4(q, fl, r)
}

// icmp4 is the code ip_error sends, nil for silence.
func icmp4(e errno) *ICMP {
	const destUnreach = 3
	switch e {
	case unix.EHOSTUNREACH:
		return &ICMP{destUnreach, 1}
	case unix.ENETUNREACH:
		return &ICMP{destUnreach, 0}
	case unix.EACCES:
		return &ICMP{destUnreach, 13}
	default:
		return nil
	}
}

// forward4 is ip_mkroute_input: the source is checked against the way the
// packet would leave.
func (t *Table) forward4(q *query, fl *flow, r routed) []Part {
	hops := t.hops(r.result, fl.resolve)
	ok := Verdict{Kind: Forward, Hops: hops}
	var out []Part
	for i, h := range hops {
		parts := t.checked(q, r.addrs, h.Link.Index, ok)
		if i == 0 {
			out = parts
			continue
		}
		out = agree(out, parts, "which way a multipath route takes decides whether the source is accepted")
	}
	return out
}

// agree keeps what two partitions of a set agree on.
func agree(a, b []Part, why string) []Part {
	var out []Part
	for _, p := range a {
		for _, q := range b {
			in := p.Addrs.Intersect(q.Addrs)
			if in.Empty() {
				continue
			}
			if p.key() == q.key() && slices.Equal(p.Hops, q.Hops) {
				out = append(out, Part{in, p.Verdict})
			} else {
				out = append(out, Part{in, Verdict{Unknown: why}})
			}
		}
	}
	return join(out)
}

// checked gives ok to the part of the set whose sources fib_validate_source
// accepts. oif is the interface the packet would leave by, 0 when it is local.
func (t *Table) checked(q *query, set firewall.Ranges, oif int, ok Verdict) []Part {
	if q.varies == varyDst {
		// The reverse lookup has the destinations as its sources.
		var out []Part
		for _, c := range t.validate4(q, set, firewall.Value{}, oif, true) {
			out = append(out, Part{c.addrs, c.or(ok)})
		}
		return out
	}
	var out []Part
	for _, c := range t.validate4(q, set, q.dst, oif, false) {
		out = append(out, Part{c.addrs, c.or(ok)})
	}
	return out
}

// or4 is IN_DEV_ORCONF: the key is on where the interface's or all's is.
func (t *Table) or4(l *Link, i int, key string) (tri, string, string) {
	if conf(l.conf4, i) != 0 {
		return yes, "", fmt.Sprintf("%s = %d", confName("ipv4", l.Name, key), conf(l.conf4, i))
	}
	if why := t.unread4[key]; why != "" {
		return unknown, "net.ipv4.conf.all." + key + " could not be read: " + why, ""
	}
	if t.all4[key] != 0 {
		return yes, "", fmt.Sprintf("net.ipv4.conf.all.%s = %d", key, t.all4[key])
	}
	return no, "", confName("ipv4", l.Name, key) + " = 0"
}
