package report

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// maxListed is how many networks are named before they are only counted.
const maxListed = 3

// whoCan says in words who can connect, from the rows of a partition.
func whoCan(x reach.Exposure) string {
	switch x.Who {
	case reach.Everyone:
		return "everyone"
	case reach.HostOnly:
		return "this host only"
	case reach.Nobody:
		return "nobody"
	case reach.Uncertain:
		return "depends"
	}
	if x.LeftOut != "" {
		return "some (" + x.LeftOut + ")"
	}
	return some(x.Rows)
}

// sideOf is one interface and family of a partition.
type sideOf struct {
	iif, family string
	words       string
}

// some describes a partition in which some get through.
func some(rows []reach.Row) string {
	var sides []sideOf
	for _, r := range rows {
		if r.Iif == "lo" || slices.ContainsFunc(sides, func(s sideOf) bool { return s.iif == r.Iif && s.family == r.Family }) {
			continue
		}
		sides = append(sides, sideOf{r.Iif, r.Family, sideWords(rows, r.Iif, r.Family)})
	}
	sides = slices.DeleteFunc(sides, func(s sideOf) bool { return s.words == "" })
	if len(sides) == 0 {
		return "some"
	}
	same := func(by func(sideOf) string) bool {
		seen := map[string]string{}
		for _, s := range sides {
			if w, ok := seen[by(s)]; ok && w != s.words {
				return false
			}
			seen[by(s)] = s.words
		}
		return true
	}
	familyName := func(s sideOf) string {
		if s.family == "ip6" {
			return "IPv6"
		}
		return "IPv4"
	}
	switch {
	case same(func(sideOf) string { return "" }):
		return sides[0].words
	case same(func(s sideOf) string { return s.family }):
		return join(sides, func(s sideOf) string { return familyName(s) })
	case same(func(s sideOf) string { return s.iif }):
		return join(sides, func(s sideOf) string { return "by " + s.iif })
	default:
		return join(sides, func(s sideOf) string { return familyName(s) + " by " + s.iif })
	}
}

// join lists sides, each label once, those with the same words together.
func join(sides []sideOf, label func(sideOf) string) string {
	var words []string
	labels := map[string][]string{}
	for _, s := range sides {
		if !slices.Contains(words, s.words) {
			words = append(words, s.words)
		}
		if l := label(s); !slices.Contains(labels[s.words], l) {
			labels[s.words] = append(labels[s.words], l)
		}
	}
	var parts []string
	for _, w := range words {
		ls := labels[w]
		l := strings.Join(ls[:min(len(ls), maxListed)], ", ")
		if n := len(ls) - maxListed; n > 0 {
			l += " and " + number(n) + " more"
		}
		parts = append(parts, l+": "+w)
	}
	return strings.Join(parts, "; ")
}

// sideWords says who gets through on one interface in one family. Sources that
// the kernel itself refuses there (its own addresses, martians, the reverse path)
// are nobody's clients and stay out.
func sideWords(rows []reach.Row, iif, family string) string {
	var in, out, unsure sourceLists
	var holes []netip.Prefix
	for _, r := range rows {
		if r.Iif != iif || r.Family != family {
			continue
		}
		switch {
		case r.Through():
			in = append(in, r.From)
		case r.Unsure():
			unsure = append(unsure, r.From)
		case r.DecidedBy.Kind != reach.ByRoute && r.DecidedBy.Kind != reach.ByRPFilter:
			out = append(out, r.From)
		case nobodys(r):
			holes = append(holes, r.From...)
		}
	}
	s := ""
	switch anyIn, anyOut := in.any(), out.any(); {
	case !anyIn && !anyOut && !unsure.any():
		return ""
	case !anyIn && !anyOut:
		return "depends"
	case !anyIn:
		s = "nobody"
	case !anyOut:
		s = "everyone"
	case in.share() > out.share():
		s = "everyone but " + networks(out.list(holes))
	default:
		s = networks(in.list(holes))
	}
	if unsure.any() {
		s += "; of " + networks(unsure.list(holes)) + " it depends"
	}
	return s
}

// sourceLists are the sources of several rows; those that no client has do not
// count. Of those who get through and those who do not only the fewer are listed.
type sourceLists [][]netip.Prefix

func (c sourceLists) any() bool { return slices.ContainsFunc(c, audit.HasClients) }

func (c sourceLists) share() float64 {
	s := 0.0
	for _, from := range c {
		for _, p := range from {
			if !audit.NoClient(p) {
				s += shareOf(p)
			}
		}
	}
	return s
}

// list gives them all, with holes closed (see fill).
func (c sourceLists) list(holes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, from := range c {
		out = audit.AppendClients(out, from)
	}
	return fill(out, holes)
}

// share is the part of all addresses that the prefixes cover.
func share(ps []netip.Prefix) float64 {
	s := 0.0
	for _, p := range ps {
		s += shareOf(p)
	}
	return s
}

func shareOf(p netip.Prefix) float64 { return 1 / float64(uint64(1)<<min(p.Bits(), 63)) }

func networks(ps []netip.Prefix) string {
	ps = loopback(slices.Clone(ps))
	// The widest say most.
	slices.SortStableFunc(ps, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	var parts []string
	for _, p := range ps[:min(len(ps), maxListed)] {
		if p.Bits() == p.Addr().BitLen() {
			parts = append(parts, p.Addr().String())
			continue
		}
		parts = append(parts, p.String())
	}
	s := strings.Join(parts, ", ")
	if n := len(ps) - maxListed; n > 0 {
		s += " and " + number(n) + " more"
	}
	return s
}

// loopback shows the many parts of 127.0.0.0/8 that are left without its
// broadcast address as what everybody calls them.
func loopback(ps []netip.Prefix) []netip.Prefix {
	whole := netip.MustParsePrefix("127.0.0.0/8")
	var parts []netip.Prefix
	for _, p := range ps {
		if p.Bits() > whole.Bits() && whole.Contains(p.Addr()) {
			parts = append(parts, p)
		}
	}
	if len(parts) < 2 || share(parts) < share([]netip.Prefix{whole})*0.99 {
		return ps
	}
	ps = slices.DeleteFunc(ps, func(p netip.Prefix) bool { return slices.Contains(parts, p) })
	return append([]netip.Prefix{whole}, ps...)
}

// fill closes the holes that single addresses without clients (the host's own,
// broadcasts) tear into networks: 10.9.0.0/26 stays one network though 10.9.0.2 is
// the host itself.
func fill(ps, holes []netip.Prefix) []netip.Prefix {
	if len(ps) < 2 || len(holes) == 0 {
		return ps
	}
	set, gaps := ranges(ps), ranges(holes)
	out := slices.DeleteFunc(set.Union(gaps).AddrPrefixes(firewall.FamilyOf(ps[0].Addr())), func(p netip.Prefix) bool {
		return gaps.Covers(firewall.PrefixRange(p)) // a hole that stands alone
	})
	if len(out) >= len(ps) {
		return ps
	}
	return out
}

func ranges(ps []netip.Prefix) firewall.Ranges {
	all := make([]firewall.Range, 0, len(ps))
	for _, p := range ps {
		all = append(all, firewall.PrefixRange(p))
	}
	return firewall.NewRanges(all)
}
