package route

import (
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// Output partitions destinations by what happens to a packet that this host
// sends to them from src (the zero address: not chosen yet): ip_route_output_key
// or ip6_route_output. oif is the interface the socket is bound to, nil for
// none. Verdict kinds are Local (over lo), Send and Fail.
func (t *Table) Output(k Key, dsts firewall.Ranges, src firewall.Value, oif *firewall.Link) []Part {
	if dsts.Empty() {
		return nil
	}
	o := &sending{Key: k, src: src}
	if oif != nil {
		if o.oif = t.link(oif); o.oif == nil {
			return whole(dsts, Verdict{Unknown: "the interface is not among the links that were read"})
		}
		if v := o.oif.vrf(); v != nil {
			return whole(dsts, Verdict{Unknown: "the interface belongs to the VRF " + v.Name})
		}
	}
	if d := t.domain(k.Family); d.unread != "" {
		return whole(dsts, Verdict{Unknown: d.unread})
	}
	if k.Family == firewall.IPv4 {
		return t.output4(o, dsts)
	}
	return t.output6(o, dsts)
}

// sending is one question to the output path.
type sending struct {
	Key
	src firewall.Value
	oif *Link
	// chosen: the kernel chose src itself, and does not check it.
	chosen bool
	// srcUnknown: src is not given and not known.
	srcUnknown bool
}

func fail(e errno, why Why, w Witness) Verdict {
	return Verdict{Kind: Fail, Why: why, Errno: errnoName(e), Witness: w}
}

// output4 is ip_route_output_key_hash_rcu.
func (t *Table) output4(o *sending, set firewall.Ranges) []Part {
	p := painter{left: set}
	if !o.src.IsZero() && !o.chosen {
		if multicast4.Contains(o.src) || lbcast4.Contains(o.src) || zeronet4.Contains(o.src) {
			p.rest(fail(unix.EINVAL, MartianSource, Witness{Text: o.src.Addr(firewall.IPv4).String() + " cannot be a source"}))
			return p.parts()
		}
		own := t.ipDevFind(o.src)
		noSuch := func() Verdict {
			return fail(unix.ENETUNREACH, NoSuchSource, Witness{Text: o.src.Addr(firewall.IPv4).String() + " is no address of this host"})
		}
		if o.oif == nil {
			var v Verdict
			switch {
			case t.several4[o.src]:
				v = Verdict{Unknown: "several interfaces have the source address, and the last to get it is taken"}
			case own == nil:
				v = noSuch()
			default:
				v = t.leave4(o, own, Verdict{Kind: Send, Broadcast: true, Hops: []NextHop{{Link: own.Link}}})
			}
			p.take(multicast4.Union(lbcast4), v)
		}
		if own == nil && !o.AnySource {
			p.rest(noSuch())
			return p.parts()
		}
	}
	if o.oif != nil {
		if !o.oif.Up() || o.oif.conf4 == nil {
			p.rest(fail(unix.ENETUNREACH, NoRoute, Witness{Text: "the interface " + o.oif.Name + " is down"}))
			return p.parts()
		}
		direct := *o
		if direct.src.IsZero() {
			direct.src = t.boundSource4(o.oif, unix.RT_SCOPE_LINK)
		}
		p.take(localMulticast.Union(lbcast4), t.leave4(&direct, o.oif, Verdict{Kind: Send, Broadcast: true, Hops: []NextHop{{Link: o.oif.Link}}}))
		if o.src.IsZero() {
			chosen := *o
			chosen.chosen = true
			var sure bool
			chosen.src, sure = t.selectAddr4(o.oif, firewall.Value{}, unix.RT_SCOPE_UNIVERSE)
			if !sure {
				p.take(multicast4, Verdict{Unknown: "the source address hangs on the order the interfaces were made in"})
			} else if some := p.left.Intersect(multicast4); !some.Empty() && !chosen.src.IsZero() {
				p.left = p.left.Minus(some)
				p.out = append(p.out, t.output4(&chosen, some)...)
			}
		}
	}
	p.take(firewall.Single(firewall.Value{}), Verdict{Kind: Local, Link: t.lo.Link})
	if p.left.Empty() {
		return p.parts()
	}
	fl := flow{Key: o.Key, iif: loopbackIndex, src: o.src, varies: varyDst, resolve: resolveKey{tos: o.TOS & legacyTOS}}
	if o.oif != nil {
		fl.oif, fl.resolve.oif = o.oif.Index, o.oif.Index
	}
	for _, r := range t.fibLookup(&fl, p.left) {
		q := painter{left: r.addrs}
		v := t.sent4(o, &fl, r)
		if v.Kind == Send {
			q.take(zeronet4, fail(unix.EINVAL, MartianDestination, Witness{Text: "0.0.0.0 cannot be a destination"}))
			special := v
			special.Broadcast = true
			if !lbcast4.Intersect(q.left).Empty() {
				special.Hops = withoutGateways(special.Hops)
				q.take(lbcast4, special)
			}
			// "If multicast route do not exist use default one, but do not
			// gateway in this case."
			special.Hops = v.Hops
			if r.route != nil && r.route.Dst.Bits() < 4 {
				special.Hops = withoutGateways(v.Hops)
			}
			q.take(multicast4, special)
		}
		q.rest(v)
		p.out = append(p.out, q.out...)
	}
	return p.parts()
}

func withoutGateways(hops []NextHop) []NextHop {
	out := make([]NextHop, len(hops))
	for i, h := range hops {
		out[i] = NextHop{Link: h.Link}
	}
	return out
}

// ipDevFind is __ip_dev_find: the interface whose local route src is.
func (t *Table) ipDevFind(src firewall.Value) *Link {
	if a := t.ifaddrs4[src]; a != nil {
		return a.Link
	}
	fb := t.v4.fibs[tableLocal]
	if t.v4.customRules == no {
		fb = t.v4.merged
	}
	if fb == nil {
		return nil
	}
	p := fb.lookup(t, firewall.Single(src), resolveKey{})
	if p[0].unknown == "" && p[0].err == 0 && p[0].route.Type == typeLocal {
		return t.resultLink(p[0].result)
	}
	return nil
}

// boundSource4 is the source chosen for a packet that leaves by an interface
// whatever the routes say; zero where there is none or it is not told.
func (t *Table) boundSource4(l *Link, scope uint8) firewall.Value {
	a, _ := t.selectAddr4(l, firewall.Value{}, scope)
	return a
}

// leave4 is the check of __mkroute_output: 127/8 does not leave by a real
// interface.
func (t *Table) leave4(o *sending, out *Link, v Verdict) Verdict {
	if !loopback4.Contains(o.src) || out.Loopback() {
		return v
	}
	on, why, text := t.or4(out, conf4RouteLocalnet, "route_localnet")
	switch on {
	case yes:
		return v
	case unknown:
		return Verdict{Unknown: why}
	default:
		return fail(unix.EINVAL, LoopbackSource, Witness{SysctlWitness, text})
	}
}

// sent4 is what follows the lookup.
func (t *Table) sent4(o *sending, fl *flow, r routed) Verdict {
	switch {
	case r.unknown != "":
		return Verdict{Unknown: r.unknown}
	case r.err != 0 && o.oif != nil:
		// "Apparently, routing tables are wrong. Assume, that the destination
		// is on link."
		if o.src.IsZero() {
			chosen := *o
			chosen.src = t.boundSource4(o.oif, unix.RT_SCOPE_LINK)
			o = &chosen
		}
		return t.leave4(o, o.oif, Verdict{Kind: Send, Hops: []NextHop{{Link: o.oif.Link}}})
	case r.err != 0:
		why, w := failure(r)
		return fail(r.err, why, w)
	}
	if l := t.resultLink(r.result); l != nil && l.vrf() != nil {
		return Verdict{Unknown: "the route leads into the VRF " + l.vrf().Name}
	}
	if r.route.Type == typeLocal {
		return Verdict{Kind: Local, Link: t.lo.Link}
	}
	hops, why := t.outputHops4(o, fl, r)
	if why != "" {
		return Verdict{Unknown: why}
	}
	if o.src.IsZero() {
		// The source is chosen first, and can be one that may not leave.
		chosen := *o
		if chosen.src, why = t.sourceOf4(r.route, hops); why != "" {
			return Verdict{Unknown: why}
		}
		o = &chosen
	}
	v := Verdict{Kind: Send, Hops: hops, Broadcast: r.route.Type != typeUnicast}
	for i, h := range hops {
		w := t.leave4(o, t.link(h.Link), v)
		switch {
		case w.Kind == Send:
		case i == 0 && len(hops) == 1:
			return w
		default:
			return Verdict{Unknown: "which way a multipath route takes decides whether 127/8 may leave"}
		}
	}
	return v
}

// outputHops4 is fib_select_path: among several default routes of one metric
// the state of the neighbours chooses (fib_select_default).
func (t *Table) outputHops4(o *sending, fl *flow, r routed) ([]NextHop, string) {
	hops := t.hops(r.result, fl.resolve)
	if o.oif != nil || len(r.route.Hops) > 1 || r.route.Dst.Bits() > 0 || r.route.Type != typeUnicast {
		return hops, ""
	}
	for _, s := range t.v4.fibs[r.route.Table].defaults {
		if s == r.route || s.TOS != r.route.TOS || s.Metric != r.route.Metric || s.Type != typeUnicast || len(s.Hops) == 0 {
			continue
		}
		a, b := s.Hops[0], r.route.Hops[0]
		if a.Gateway.IsValid() && (a.Link != b.Link || a.Gateway != b.Gateway) {
			return nil, "several default routes of the same metric: the state of their gateways chooses"
		}
	}
	return hops, ""
}

// output6 is ip6_route_output.
func (t *Table) output6(o *sending, set firewall.Ranges) []Part {
	if t.fwd6 == unknown {
		return whole(set, Verdict{Unknown: "net.ipv6.conf.all.forwarding could not be read"})
	}
	p := painter{left: set}
	base := flow{Key: o.Key, iif: loopbackIndex, src: o.src, varies: varyDst, hasSaddr: !o.src.IsZero()}
	base.resolve = resolveKey{reachable: t.fwd6 == no}
	if o.oif != nil {
		base.oif, base.resolve.oif = o.oif.Index, o.oif.Index
	}
	for _, strict := range []bool{true, false} {
		fl, sub := base, p.left.Minus(strict6)
		if strict {
			sub = p.left.Intersect(strict6)
		}
		fl.resolve.iface = strict || o.oif != nil && (!o.Unbound || o.src.IsZero())
		for _, r := range t.fibLookup(&fl, sub) {
			p.out = append(p.out, Part{r.addrs, t.sent6(&fl, r)})
		}
	}
	p.left = nil
	return p.parts()
}

func (t *Table) sent6(fl *flow, r routed) Verdict {
	switch {
	case r.unknown != "":
		return Verdict{Unknown: r.unknown}
	case r.err != 0:
		why, w := failure(r)
		return fail(r.err, why, w)
	}
	link := t.resultLink(r.result)
	if link != nil && link.vrf() != nil {
		return Verdict{Unknown: "the route leads into the VRF " + link.vrf().Name}
	}
	switch r.route.Type {
	case typeLocal, typeAnycast:
		// ip6_rt_get_dev_rcu: copies of local routes hang on lo.
		return Verdict{Kind: Local, Link: t.lo.Link, Anycast: r.route.Type == typeAnycast}
	}
	if r.route.rejects() {
		// The lookup succeeds, ip6_pkt_discard_out throws the packet away and
		// tells the sender.
		return fail(unix.ENETUNREACH, Unreachable, Witness{RouteWitness, r.route.String()})
	}
	return Verdict{Kind: Send, Hops: t.hops(r.result, fl.resolve), Broadcast: r.route.Type == typeMulticast}
}
