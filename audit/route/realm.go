package route

import "github.com/hostaudit/hostaudit/firewall"

// HasRealms reports whether an IPv4 route or routing rule has a realm
// (fib_num_tclassid_users); without, every packet's realm is 0.
func (t *Table) HasRealms() bool { return t.realms }

// InputRealm partitions IPv4 sources by the realm of the route that a packet from
// them to a local address gets: that of the way back to the source, as the
// source's (__fib_validate_source, fib_combine_itag), in the upper half of 32 bits
// what is the destination's.
func (t *Table) InputRealm(srcs firewall.Ranges, dst firewall.Value, in *firewall.Link) []firewall.FIBPart {
	l := t.link(in)
	if l == nil || l.vrf() != nil {
		return []firewall.FIBPart{{Addrs: srcs, Unknown: "the realm of the route"}}
	}
	// The mark that the packet was routed with need not be the one it has now.
	q := &query{Key: Key{Family: firewall.IPv4, Mark: firewall.Known{Unknown: true}}, dst: dst, in: l}
	fl, why := t.reverse(q, dst, 0, false)
	if why != "" {
		return []firewall.FIBPart{{Addrs: srcs, Unknown: why}}
	}
	var out []firewall.FIBPart
	for _, r := range t.fibLookup(fl, srcs) {
		p := firewall.FIBPart{Addrs: r.addrs, Unknown: r.unknown}
		if r.unknown == "" && r.err == 0 && (r.route.uses(l) || t.hasAddr4(l)) { // otherwise last_resort
			p.Value = r.realm()
		}
		out = append(out, p)
	}
	return out
}

// OwnRealm is the realm of the route that a packet over lo to an address of this
// host has, which is that of __mkroute_output; false where it cannot be told.
func (t *Table) OwnRealm(to firewall.Value) (realm uint32, ok bool) {
	for _, r := range t.Routes {
		for _, h := range r.Hops {
			if r.Family == firewall.IPv4 && r.Type == typeLocal && (r.Realm != 0 || h.Realm != 0) {
				return 0, false
			}
		}
	}
	if first := defaultRules(firewall.IPv4)[0]; len(t.v4.rules) > 0 && t.v4.rules[0].same(first) {
		for _, own := range t.LocalAddrs(firewall.IPv4) {
			if own.Addrs.Contains(to) {
				return 0, true
			}
		}
	}
	for _, r := range t.v4.rules {
		if r.Realm != 0 {
			return 0, false
		}
	}
	return 0, true
}

// realm is fib_combine_itag.
func (r *routed) realm() uint32 {
	var of uint32
	if r.rule != nil {
		of = r.rule.Realm
	}
	tag := uint32(0)
	if r.hop < len(r.route.Hops) {
		tag = r.route.Hops[r.hop].Realm << 16
	}
	if tag == 0 {
		tag = of << 16
	}
	return tag | of>>16
}
