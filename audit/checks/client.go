package checks

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// client is one address that stands for others: what it sees, by which
// interface it comes, and what decides.
type client struct {
	from netip.Addr
	iif  string
	sees string // reach.Row.Words
	by   reach.DecidedBy
}

// publicClients are addresses of the public internet (documentation prefixes and
// two everybody knows) that stand for "anybody".
var publicClients = []netip.Addr{
	netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("1.1.1.1"),
	netip.MustParseAddr("2001:db8:ffff::5"), netip.MustParseAddr("2600:1901::7"), netip.MustParseAddr("2a00:1450::5"),
}

// maxAsked bounds the clients that are asked about one row.
const maxAsked = 24

// candidates are addresses worth asking about among parts of the sources: public
// ones first, then the first and last of each part.
func candidates(parts ...netip.Prefix) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, a := range publicClients {
			if slices.ContainsFunc(parts, func(p netip.Prefix) bool { return p.Contains(a) }) && !yield(a) {
				return
			}
		}
		for _, p := range parts {
			first, last := p.Addr(), lastOf(p)
			if p.Bits() < p.Addr().BitLen()-1 {
				first, last = first.Next(), last.Prev() // not the network's own and broadcast address
			}
			for _, a := range []netip.Addr{first, last} {
				if usable(a) && !yield(a) {
					return
				}
			}
		}
	}
}

// usable leaves out what no client has: loopback, multicast, reserved.
func usable(a netip.Addr) bool {
	if a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.IsLinkLocalUnicast() {
		return false
	}
	if a.Is4() {
		b := a.As4()
		return b[0] != 0 && b[0] < 224
	}
	b := a.As16()
	return b[0]>>5 == 1 || b[0]&0xfe == 0xfc // 2000::/3 and fc00::/7
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// find looks for one real client among the rows that want is true for: an
// address of the part that keep leaves of each prefix, which comes in by the very
// interface of the row, for which the answer is the row's.
func find(p *audit.Pass, port *audit.Port, want func(reach.Row) bool, keep func(netip.Prefix) []netip.Prefix) (client, bool) {
	for _, row := range port.Exposure.Rows {
		if row.Iif == "lo" || !want(row) {
			continue
		}
		var parts []netip.Prefix
		for _, prefix := range row.From {
			parts = append(parts, keep(prefix)...)
		}
		asked := 0
		for a := range candidates(parts...) {
			if asked++; asked > maxAsked {
				break
			}
			ans, err := p.Clear(port, a)
			if err == nil && ans.Query.Iif == row.Iif && ans.ClientSees == row.ClientSees && ans.AfterConnect == row.AfterConnect {
				return client{a, row.Iif, row.Words(), *ans.DecidedBy}, true
			}
		}
	}
	return client{}, false
}

// blocked finds a client of the audience that does not get through.
func blocked(p *audit.Pass, port *audit.Port, audience audit.Audience) (client, bool) {
	return find(p, port, func(r reach.Row) bool {
		return !r.Through() && !r.Unsure() && !refusedByKernel(r)
	}, audience.Overlap)
}

// refusedByKernel tells rows of single addresses that routing refuses on an
// interface: the host's own, broadcasts, a container that dials its own published
// port. They are no clients that anybody waits for.
func refusedByKernel(r reach.Row) bool {
	return (r.DecidedBy.Kind == reach.ByRoute || r.DecidedBy.Kind == reach.ByRPFilter) &&
		!slices.ContainsFunc(r.From, func(p netip.Prefix) bool { return p.Bits() < p.Addr().BitLen() })
}

// uncertain finds a client of the audience of whom it cannot be told.
func uncertain(p *audit.Pass, port *audit.Port, audience audit.Audience) (client, []reach.Condition, bool) {
	for _, row := range port.Exposure.Rows {
		if !row.Unsure() {
			continue
		}
		one := *port
		one.Exposure.Rows = []reach.Row{row}
		if c, ok := find(p, &one, func(reach.Row) bool { return true }, audience.Overlap); ok {
			return c, row.Conditions, true
		}
	}
	return client{}, nil, false
}

// stranger finds a client outside the audience that gets through.
func stranger(p *audit.Pass, port *audit.Port, audience audit.Audience) (client, bool) {
	return find(p, port, func(r reach.Row) bool { return r.Through() }, func(row netip.Prefix) []netip.Prefix {
		return outside(row, audience, 0)
	})
}

// outside cuts the audience out of a prefix, halving it until its parts lie in or
// out; a few parts are enough.
func outside(p netip.Prefix, audience audit.Audience, depth int) []netip.Prefix {
	switch {
	case audience.Covers(p):
		return nil
	case len(audience.Overlap(p)) == 0:
		return []netip.Prefix{p}
	case depth >= 128 || p.Bits() == p.Addr().BitLen():
		return nil
	}
	lo, hi := halves(p)
	out := outside(lo, audience, depth+1)
	return append(out, outside(hi, audience, depth+1)...)
}

func halves(p netip.Prefix) (lo, hi netip.Prefix) {
	lo = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 1 << (7 - p.Bits()%8)
	a, _ := netip.AddrFromSlice(b)
	return lo, netip.PrefixFrom(a, p.Bits()+1)
}

// everyone is the widest audience.
var everyone = audit.Audience{Kind: audit.ForEveryone}

// publicly says whether anybody of the public internet gets through, and who.
func publicly(p *audit.Pass, port *audit.Port) (client, bool) {
	return find(p, port, func(r reach.Row) bool { return r.Through() }, func(row netip.Prefix) []netip.Prefix {
		var out []netip.Prefix
		for _, a := range publicClients {
			if row.Contains(a) {
				out = append(out, netip.PrefixFrom(a, a.BitLen()))
			}
		}
		return out
	})
}
