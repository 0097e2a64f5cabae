package route

import (
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

// sourceCheck is a part of the answer of fib_validate_source: no verdict means
// that the source is accepted.
type sourceCheck struct {
	addrs   firewall.Ranges
	verdict *Verdict
}

func (c sourceCheck) or(ok Verdict) Verdict {
	if c.verdict != nil {
		return *c.verdict
	}
	return ok
}

// validate4 is fib_validate_source. The set is one of sources, with dst as their
// destination; where dsts is true it is one of destinations, and the source is
// q.src.
func (t *Table) validate4(q *query, set firewall.Ranges, dst firewall.Value, oif int, dsts bool) []sourceCheck {
	if set.Empty() {
		return nil
	}
	all := func(v *Verdict) []sourceCheck { return []sourceCheck{{set, v}} }
	if why := t.unread4["rp_filter"]; why != "" {
		return all(&Verdict{Unknown: "net.ipv4.conf.all.rp_filter could not be read: " + why})
	}
	rpf := max(conf(q.in.conf4, conf4RPFilter), t.all4["rp_filter"])
	if rpf != 0 {
		return t.fullCheck(q, set, dst, oif, dsts, rpf)
	}
	redirects, why, _ := t.or4(q.in, conf4SendRedirects, "send_redirects")
	if redirects == unknown && oif == q.in.Index {
		return all(&Verdict{Unknown: why})
	}
	if t.realms || oif == q.in.Index && redirects == yes {
		return t.fullCheck(q, set, dst, oif, dsts, 0)
	}
	acceptLocal, why, _ := t.or4(q.in, conf4AcceptLocal, "accept_local")
	switch acceptLocal {
	case unknown:
		return all(&Verdict{Unknown: why})
	case yes:
		return all(nil)
	}
	custom := t.v4.customRules
	if custom != yes && t.localRoutes != no {
		custom = t.localRoutes
	}
	switch custom {
	case yes:
		return t.fullCheck(q, set, dst, oif, dsts, 0)
	case no:
		return t.quickCheck(q, set, dsts)
	}
	full, quick := t.fullCheck(q, set, dst, oif, dsts, 0), t.quickCheck(q, set, dsts)
	var out []sourceCheck
	for _, a := range full {
		for _, b := range quick {
			in := a.addrs.Intersect(b.addrs)
			if in.Empty() {
				continue
			}
			switch {
			case a.verdict == nil && b.verdict == nil:
				out = append(out, sourceCheck{in, nil})
			case a.verdict != nil && b.verdict != nil:
				out = append(out, sourceCheck{in, b.verdict})
			default:
				out = append(out, sourceCheck{in, &Verdict{Unknown: "the kernel checks such a source only once a local route or routing rule was added by hand, which no reading tells"}})
			}
		}
	}
	return out
}

// quickCheck is the short way: only an address of this host is no good source.
func (t *Table) quickCheck(q *query, set firewall.Ranges, dsts bool) []sourceCheck {
	own := func(a *Addr) *Verdict {
		return &Verdict{Kind: Drop, Why: MartianSource, Witness: Witness{AddressWitness, a.String()},
			Detail: "the source is an address of this host"}
	}
	if dsts {
		if a := t.ifaddrs4[q.src]; a != nil {
			return []sourceCheck{{set, own(a)}}
		}
		return []sourceCheck{{set, nil}}
	}
	var out []sourceCheck
	left := set
	for _, a := range t.Addrs {
		if a.Family != firewall.IPv4 || !left.Contains(a.value()) {
			continue
		}
		one := firewall.Single(a.value())
		left = left.Minus(one)
		out = append(out, sourceCheck{one, own(a)})
	}
	if !left.Empty() {
		out = append(out, sourceCheck{left, nil})
	}
	return out
}

// fullCheck is __fib_validate_source: the route back to the source.
func (t *Table) fullCheck(q *query, set firewall.Ranges, dst firewall.Value, oif int, dsts bool, rpf int32) []sourceCheck {
	acceptLocal, whyLocal, _ := t.or4(q.in, conf4AcceptLocal, "accept_local")
	fl, why := t.reverse(q, dst, oif, dsts)
	if why != "" {
		return []sourceCheck{{set, &Verdict{Unknown: why}}}
	}
	var out []sourceCheck
	for _, r := range t.fibLookup(fl, set) {
		out = append(out, sourceCheck{r.addrs, t.judge(q, r, rpf, acceptLocal, whyLocal)})
	}
	return out
}

// reverse is the lookup of the way back to the source. why says why it cannot be
// told, "" when it can.
func (t *Table) reverse(q *query, dst firewall.Value, oif int, dsts bool) (fl *flow, why string) {
	vmark, whyMark, _ := t.or4(q.in, conf4SrcValidMark, "src_valid_mark")
	if vmark == unknown && len(t.v4.rules) > 0 {
		return nil, whyMark
	}
	fl = &flow{Key: q.Key, iif: oif, resolve: resolveKey{tos: q.TOS & legacyTOS}, src: dst, varies: varyDst}
	if oif == 0 {
		fl.iif = loopbackIndex
	}
	if dsts {
		fl.varies, fl.dst = varySrc, q.src
	}
	fl.UID = firewall.Known{}
	fl.Sport, fl.Dport = q.Dport, q.Sport
	if vmark == no {
		fl.Mark = firewall.Known{}
	}
	return fl, ""
}

// judge is the rest of __fib_validate_source, after the lookup.
func (t *Table) judge(q *query, r routed, rpf int32, acceptLocal tri, whyLocal string) *Verdict {
	filter := func(detail string) *Verdict {
		return &Verdict{Kind: Drop, Why: RPFilter, Witness: Witness{SysctlWitness, t.rpFilterText(q.in)}, Detail: detail}
	}
	if r.unknown != "" {
		return &Verdict{Unknown: r.unknown}
	}
	if r.err != 0 {
		if rpf != 0 {
			_, w := failure(r)
			return filter("the way back to the source: " + w.Text)
		}
		return nil
	}
	switch r.route.Type {
	case typeUnicast:
	case typeLocal:
		switch acceptLocal {
		case unknown:
			return &Verdict{Unknown: whyLocal}
		case no:
			return &Verdict{Kind: Drop, Why: MartianSource, Witness: Witness{RouteWitness, r.route.String()}, Detail: "the source is an address of this host"}
		}
		if q.in.Loopback() {
			return nil
		}
	default:
		return &Verdict{Kind: Drop, Why: MartianSource, Witness: Witness{RouteWitness, r.route.String()}, Detail: "the source is no unicast address"}
	}
	if r.route.uses(q.in) {
		return nil
	}
	if !t.hasAddr4(q.in) {
		if rpf != 0 {
			return filter("the interface has no address, and the way back leaves by " + t.resultLink(r.result).Name)
		}
		return nil
	}
	if rpf == 1 {
		return filter("the way back leaves by " + t.resultLink(r.result).Name)
	}
	return nil
}

// uses is fib_info_nh_uses_dev.
func (r *Route) uses(l *Link) bool {
	for _, h := range r.Hops {
		if h.Link == l {
			return true
		}
	}
	return false
}

func (t *Table) hasAddr4(l *Link) bool {
	for _, a := range t.Addrs {
		if a.Family == firewall.IPv4 && a.Link == l {
			return true
		}
	}
	return false
}

// rpFilterText names the key that gives the effective value max(all, interface).
func (t *Table) rpFilterText(l *Link) string {
	own, all := conf(l.conf4, conf4RPFilter), t.all4["rp_filter"]
	if all > own {
		return fmt.Sprintf("net.ipv4.conf.all.rp_filter = %d", all)
	}
	return fmt.Sprintf("%s = %d", confName("ipv4", l.Name, "rp_filter"), own)
}
