package route

import (
	"math/bits"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

// DNATTakesFirstPort is what firewall.FIB says of it.
func (t *Table) DNATTakesFirstPort() bool { return t.firstPort }

// AsksDSCP tells whether a routing rule or a route is for some DSCP or TOS only.
func (t *Table) AsksDSCP() bool {
	rule := func(r *Rule) bool { return r.TOS != 0 || r.HasDSCP }
	return slices.ContainsFunc(t.Rules4, rule) || slices.ContainsFunc(t.Rules6, rule) || slices.ContainsFunc(t.Routes, func(r *Route) bool { return r.TOS != 0 })
}

// RoutesAgainInFull tells whether what netfilter routes again meets routing rules with
// its protocol and ports ("netfilter: Dissect flow after packet mangling"). Older
// kernels may have been given that, too.
func (t *Table) RoutesAgainInFull() bool { return t.againInFull }

// BigEndian is the byte order of the host.
func (t *Table) BigEndian() bool { return t.bigEndian }

// RedirectAddr is the address REDIRECT translates to (nf_nat_redirect_ipv4,
// nf_nat_redirect_ipv6): that of the interface the packet came in by, or the
// loopback address for packets made here (in nil). false: the interface has
// none, and the packet is dropped.
func (t *Table) RedirectAddr(f firewall.Family, in *firewall.Link, dst firewall.Value) (firewall.Value, bool) {
	if in == nil {
		if f == firewall.IPv6 {
			return loopback6, true
		}
		return firewall.Num(0x7f000001), true
	}
	l := t.link(in)
	for _, a := range t.Addrs {
		if a.Family != f || a.Link != l {
			continue
		}
		if f == firewall.IPv4 {
			return a.value(), !a.value().IsZero()
		}
		if a.Tentative() || a.Local.Is4In6() {
			continue
		}
		if s := scopeBits6(dst); s != 0 && s&scopeBits6(a.value()) == 0 {
			continue
		}
		return a.value(), true
	}
	return firewall.Value{}, false
}

// TProxyAddr is where TPROXY looks for a socket when its rule names no address
// (nf_tproxy_laddr4, nf_tproxy_laddr6, of iptables and nf_tables alike): the first
// address of the interface that the packet came in by, or else its destination.
func (t *Table) TProxyAddr(f firewall.Family, in *firewall.Link, dst firewall.Value) firewall.Value {
	l := t.link(in)
	for _, a := range t.Addrs {
		if a.Family != f || a.Link != l || l == nil ||
			f == firewall.IPv4 && a.Secondary() || f == firewall.IPv6 && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DEPRECATED) != 0 {
			continue
		}
		if !a.value().IsZero() {
			return a.value()
		}
		break
	}
	return dst
}

// scopeBits6 is ipv6_addr_type & IPV6_ADDR_SCOPE_MASK; 0 for global addresses.
func scopeBits6(v firewall.Value) int {
	const loopback, linkLocal, siteLocal, compatV4 = 0x10, 0x20, 0x40, 0x80
	switch {
	case multicast6.Contains(v):
		switch v.Hi >> 48 & 0xf {
		case 1:
			return loopback
		case 2:
			return linkLocal
		case 5:
			return siteLocal
		}
		return 0
	case v == loopback6:
		return loopback
	case linklocal6.Contains(v):
		return linkLocal
	case v.Hi>>54 == 0xfec0>>6:
		return siteLocal
	case v.Hi == 0 && v.Lo>>32 == 0 && v.Lo != 0:
		return compatV4
	}
	return 0
}

// MasqueradeAddr is the source MASQUERADE takes for packets to dst that leave by
// out: inet_select_addr towards the next hop, or ipv6_dev_get_saddr. false: it
// has none, or it cannot be told.
func (t *Table) MasqueradeAddr(f firewall.Family, out *firewall.Link, dst firewall.Value) (firewall.Value, bool) {
	as := t.MasqueradeAddrs(f, out, dst)
	if len(as) != 1 {
		return firewall.Value{}, false
	}
	return as[0], true
}

// MasqueradeAddrs are the sources that MASQUERADE may take, each once: more than
// one where the order of interfaces decides, which no reading tells. None: it cannot
// be told, or there is none.
func (t *Table) MasqueradeAddrs(f firewall.Family, out *firewall.Link, dst firewall.Value) (as []firewall.Value) {
	l := t.link(out)
	if l == nil || l.vrf() != nil {
		return nil
	}
	if f == firewall.IPv6 {
		if a, ok := t.sourceFor6(l, dst); ok {
			as = append(as, a)
		}
		return as
	}
	nh, ok := t.nextHops4(l, dst)
	if !ok {
		return nil
	}
	for _, hop := range nh {
		some := t.selectAddrs4(l, hop, 0)
		if len(some) == 0 || slices.Contains(some, firewall.Value{}) {
			return nil
		}
		for _, a := range some {
			if !slices.Contains(as, a) {
				as = append(as, a)
			}
		}
	}
	return as
}

// nextHops4 lists the neighbours a packet to dst that leaves by l can be sent to.
// Only its interface is known of its route; with the default rules that is the
// best one by that interface, otherwise any that covers dst.
func (t *Table) nextHops4(l *Link, dst firewall.Value) (nh []firewall.Value, ok bool) {
	add := func(gw netip.Addr) bool {
		switch {
		case !gw.IsValid():
			nh = append(nh, dst)
		case gw.Is4():
			nh = append(nh, firewall.AddrValue(gw))
		default:
			return false
		}
		return true
	}
	if t.v4.isDefault() {
		for _, p := range t.Output(Key{Family: firewall.IPv4}, firewall.Single(dst), firewall.Value{}, l.Link) {
			if p.Kind == Local { // over lo, to the destination itself
				add(netip.Addr{})
				continue
			}
			if p.Kind != Send {
				return nil, false
			}
			for _, h := range p.Hops {
				if !add(h.Gateway) {
					return nil, false
				}
			}
		}
		return nh, true
	}
	for _, r := range t.Routes {
		if r.Family != firewall.IPv4 || !firewall.Prefix(r.Dst).Contains(dst) {
			continue
		}
		for _, h := range r.Hops {
			if h.Link == l && !add(h.Gateway) {
				return nil, false
			}
		}
	}
	return nh, true
}

// SourceFor is the source address the kernel chooses for a packet to dst where
// the socket has none. oif is the interface it is bound to, nil for none. false:
// there is none, or it cannot be told.
func (t *Table) SourceFor(k Key, dst firewall.Value, oif *firewall.Link) (firewall.Value, bool) {
	fl := flow{Key: k, iif: loopbackIndex, varies: varyDst, resolve: resolveKey{tos: k.TOS & legacyTOS}}
	bound := t.link(oif)
	if oif != nil && bound == nil || t.domain(k.Family).unread != "" {
		return firewall.Value{}, false
	}
	if bound != nil {
		fl.oif, fl.resolve.oif = bound.Index, bound.Index
	}
	if k.Family == firewall.IPv6 {
		o := &sending{Key: k, oif: bound}
		r := t.lookup6(o, firewall.Single(dst))[0]
		if r.unknown != "" || r.err != 0 || r.route.rejects() {
			return firewall.Value{}, false
		}
		for _, o := range t.mixed(r.route) {
			if o.PrefSrc != r.route.PrefSrc {
				return firewall.Value{}, false
			}
		}
		if r.route.PrefSrc.IsValid() {
			return firewall.AddrValue(r.route.PrefSrc), true
		}
		hops := t.hops(r.result, fl.resolve)
		if len(hops) != 1 || t.resultLink(r.result).vrf() != nil {
			return firewall.Value{}, false
		}
		// rt6_get_prefsrc falls to ipv6_dev_get_saddr on the device of the route.
		return t.sourceFor6(t.link(hops[0].Link), dst)
	}
	if bound != nil && multicast4.Union(lbcast4).Contains(dst) {
		scope := uint8(unix.RT_SCOPE_UNIVERSE)
		if localMulticast.Union(lbcast4).Contains(dst) {
			scope = unix.RT_SCOPE_LINK
		}
		a, ok := t.selectAddr4(bound, firewall.Value{}, scope)
		return a, ok && !a.IsZero()
	}
	r := t.fibLookup(&fl, firewall.Single(dst))[0]
	switch {
	case r.unknown != "":
		return firewall.Value{}, false
	case r.err != 0 && bound != nil:
		a, ok := t.selectAddr4(bound, firewall.Value{}, unix.RT_SCOPE_LINK)
		return a, ok && !a.IsZero()
	case r.err != 0:
		return firewall.Value{}, false
	}
	if r.route.Type == typeLocal {
		if r.route.PrefSrc.IsValid() {
			return firewall.AddrValue(r.route.PrefSrc), true
		}
		return dst, true
	}
	hops, why := t.outputHops4(&sending{oif: bound}, &fl, r)
	if why != "" {
		return firewall.Value{}, false
	}
	a, why := t.sourceOf4(r.route, hops)
	return a, why == "" && !a.IsZero()
}

// sourceOf4 is fib_result_prefsrc: the source for packets that take a route by
// one of its hops. It is zero where it is not told but cannot be in 127/8.
func (t *Table) sourceOf4(r *Route, hops []NextHop) (addr firewall.Value, why string) {
	if r.PrefSrc.IsValid() {
		return firewall.AddrValue(r.PrefSrc), ""
	}
	loop := false
	for i, h := range hops {
		l := t.link(h.Link)
		gw := firewall.Value{}
		if h.Gateway.Is4() {
			gw = firewall.AddrValue(h.Gateway)
		}
		a, ok := t.selectAddr4(l, gw, r.Scope)
		if r.NexthopID != 0 {
			// A nexthop object keeps what its first user, or its own scope,
			// made it choose.
			for _, scope := range []uint8{unix.RT_SCOPE_UNIVERSE, unix.RT_SCOPE_LINK, unix.RT_SCOPE_HOST} {
				b, okToo := t.selectAddr4(l, gw, scope)
				ok = ok && okToo && a == b
			}
		}
		if !ok {
			a = firewall.Value{}
			for _, o := range t.Addrs {
				loop = loop || o.Family == firewall.IPv4 && o.Link != t.lo && loopback4.Contains(o.value())
			}
		}
		loop = loop || loopback4.Contains(a)
		if i > 0 && a != addr {
			addr = firewall.Value{}
			if loop {
				return addr, "which source address is chosen hangs on the way a multipath route takes"
			}
			continue
		}
		addr = a
	}
	if addr.IsZero() && loop {
		return addr, "the source address hangs on the order the interfaces were made in"
	}
	return addr, ""
}

// selectAddr4 is inet_select_addr, zero for none; false: it cannot be told.
func (t *Table) selectAddr4(l *Link, dst firewall.Value, scope uint8) (firewall.Value, bool) {
	as := t.selectAddrs4(l, dst, scope)
	if len(as) != 1 {
		return firewall.Value{}, false
	}
	return as[0], true
}

// selectAddrs4 is inet_select_addr, zero for none; nothing: it cannot be told. The
// kernel falls back to other interfaces in the order they were made, which no
// reading tells: then any may be the first. With route_localnet addresses of host
// scope count as well; what the kernel chose before the key was set it keeps until
// an address changes.
func (t *Table) selectAddrs4(l *Link, dst firewall.Value, scope uint8) []firewall.Value {
	on, _, _ := t.or4(l, conf4RouteLocalnet, "route_localnet")
	a := t.selectScoped4(l, dst, scope, unix.RT_SCOPE_HOST)
	if on == no {
		return a
	}
	if !slices.Equal(a, t.selectScoped4(l, dst, scope, unix.RT_SCOPE_LINK)) {
		return nil
	}
	return a
}

func (t *Table) selectScoped4(l *Link, dst firewall.Value, scope, localnet uint8) []firewall.Value {
	var first *Addr
	for _, a := range t.Addrs {
		if a.Family != firewall.IPv4 || a.Link != l || a.Secondary() || min(a.Scope, localnet) > scope {
			continue
		}
		if dst.IsZero() || firewall.Prefix(a.Prefix).Contains(dst) {
			return []firewall.Value{a.value()}
		}
		if first == nil {
			first = a
		}
	}
	if first != nil {
		return []firewall.Value{first.value()}
	}
	// lo is always the first interface.
	if a := t.fallback4(t.lo, scope); len(a) > 0 {
		return a
	}
	var found []firewall.Value
	for _, o := range t.Links {
		if o != t.lo && o.vrf() == nil {
			found = append(found, t.fallback4(o, scope)...)
		}
	}
	if len(found) == 0 {
		return []firewall.Value{{}}
	}
	return found
}

// fallback4 is in_dev_select_addr, as a list of at most one.
func (t *Table) fallback4(l *Link, scope uint8) []firewall.Value {
	for _, a := range t.Addrs {
		if a.Family == firewall.IPv4 && a.Link == l && !a.Secondary() && a.Scope != unix.RT_SCOPE_LINK && a.Scope <= scope {
			return []firewall.Value{a.value()}
		}
	}
	return nil
}

// sourceFor6 is ipv6_dev_get_saddr (RFC 6724 section 5) where the rules decide
// between the candidates by what a reading tells.
func (t *Table) sourceFor6(l *Link, dst firewall.Value) (firewall.Value, bool) {
	if t.labelsWhy != "" {
		return firewall.Value{}, false
	}
	d := dst.Addr(firewall.IPv6)
	scoped := scopeValue6(dst)
	var best *Addr
	tied := false
	for _, a := range t.Addrs {
		if a.Family != firewall.IPv6 || a.Tentative() || multicast6.Contains(a.value()) || a.Flags&unix.IFA_F_DADFAILED != 0 {
			continue
		}
		// "candidate source addresses are those of the outgoing interface" for
		// multicast and link-local destinations, of all otherwise.
		onlyLink := multicast6.Contains(dst) || scoped <= 2 || conf(l.conf6, conf6UseOIFAddrsOnly) != 0
		if onlyLink && a.Link != l || a.Link.vrf() != nil {
			continue
		}
		if best == nil {
			best = a
			continue
		}
		switch c := t.compare6(a, best, l, d, scoped); {
		case c > 0:
			best, tied = a, false
		case c == 0 && a.Link != best.Link:
			tied = true // the order of the interfaces decides
		}
	}
	if best == nil || tied {
		return firewall.Value{}, false
	}
	return best.value(), true
}

// compare6 is ipv6_get_saddr_eval rule by rule: positive where a is the better
// source.
func (t *Table) compare6(a, b *Addr, l *Link, dst netip.Addr, scope int) int {
	better := func(x, y bool) int {
		switch {
		case x == y:
			return 0
		case x:
			return 1
		default:
			return -1
		}
	}
	sa, sb := scopeValue6(a.value()), scopeValue6(b.value())
	score := func(s int) int {
		if s >= scope {
			return -s
		}
		return s - 128
	}
	rules := []func() int{
		func() int { return better(a.Local == dst, b.Local == dst) },
		func() int { return score(sa) - score(sb) },
		func() int {
			bad := func(x *Addr) bool { return x.Deprecated() || x.Flags&unix.IFA_F_OPTIMISTIC != 0 }
			return better(!bad(a), !bad(b))
		},
		func() int {
			return better(a.Flags&unix.IFA_F_HOMEADDRESS != 0, b.Flags&unix.IFA_F_HOMEADDRESS != 0)
		},
		func() int { return better(a.Link == l, b.Link == l) },
		func() int {
			want := t.label(dst, l.Index)
			return better(t.label(a.Local, a.Link.Index) == want, t.label(b.Local, b.Link.Index) == want)
		},
		func() int { // public addresses are preferred unless use_tempaddr is 2
			pref := conf(a.Link.conf6, conf6UseTempAddr) >= 2
			return better((a.Flags&unix.IFA_F_TEMPORARY != 0) == pref, (b.Flags&unix.IFA_F_TEMPORARY != 0) == (conf(b.Link.conf6, conf6UseTempAddr) >= 2))
		},
		func() int {
			return better(orchid(a.value()) == orchid(firewall.AddrValue(dst)), orchid(b.value()) == orchid(firewall.AddrValue(dst)))
		},
		func() int { return common(a, dst) - common(b, dst) },
	}
	for _, r := range rules {
		if c := r(); c != 0 {
			return c
		}
	}
	return 0
}

func orchid(v firewall.Value) bool { return v.Hi>>36 == 0x2001001 }

// common is the length of the common prefix, no longer than the address's own.
func common(a *Addr, dst netip.Addr) int {
	x := a.value().Xor(firewall.AddrValue(dst))
	n := bits.LeadingZeros64(x.Hi)
	if n == 64 {
		n += bits.LeadingZeros64(x.Lo)
	}
	return min(n, a.Prefix.Bits())
}

// scopeValue6 is __ipv6_addr_src_scope of an address: 1 interface, 2 link, 5
// site, 14 global.
func scopeValue6(v firewall.Value) int {
	switch {
	case multicast6.Contains(v):
		return int(v.Hi >> 48 & 0xf)
	case v.IsZero():
		return 0
	case v == loopback6, linklocal6.Contains(v):
		return 2
	case v.Hi>>54 == 0xfec0>>6:
		return 5
	}
	return 14
}
