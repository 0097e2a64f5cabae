package reach

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// Who is who can reach a listener, in one word.
type Who string

// The exposures of the contract.
const (
	Everyone  Who = "everyone"
	Some      Who = "some"
	HostOnly  Who = "host-only"
	Nobody    Who = "nobody"
	Uncertain Who = "depends"
)

// Exposure is who can reach a port.
type Exposure struct {
	Who  Who
	Rows []Row
	// LeftOut says, where Rows is empty because the partition has more ranges of
	// addresses than a report can show, how large it is. Partition and Ask
	// answer exactly all the same.
	LeftOut string
}

// maxRanges bounds the ranges of addresses that the exposure of one listener
// spells out for one interface and family.
const maxRanges = 1024

// Listener tells who can reach a listener of the audited namespace: for a
// wildcard one at each of the host's addresses, otherwise at its own.
func (e *Evaluator) Listener(l *listeners.Listener) Exposure { return e.FromElsewhere(l, nil) }

// FromElsewhere is [Evaluator.Listener], but leaves out the rows of clients on the
// host itself (interface lo) of a family that has rows of other interfaces, where
// those say who can reach it and enough is true for them: to work out the way of the
// host's own packets takes as long as all else. With nil for enough nothing is left
// out.
func (e *Evaluator) FromElsewhere(l *listeners.Listener, enough func(rows []Row) bool) Exposure {
	q := Query{Proto: protoOf(l.Proto), Port: l.Port()}
	if q.Proto == 0 {
		return Exposure{Who: Uncertain}
	}
	a := l.Local.Addr().Unmap().WithZone("")
	ns := e.home()
	loopback := a.IsLoopback()
	if !a.IsUnspecified() {
		q.To = a
	} else if l.V6Only || a.Is4() {
		q.To = a // 0.0.0.0 or [::]: each address of that family
	}
	if ns.Route == nil || ns.Listeners == nil {
		return Exposure{Who: Uncertain, Rows: e.Partition(q)}
	}
	if loopback {
		q.Iif = "lo"
	}
	x := e.exposure(q, enough)
	if loopback && x.Who == Nobody && len(x.Rows) == 0 {
		x.Who = HostOnly
	}
	return x
}

// exposure is the partition of a question summed up, and left out where it is
// too large to show.
func (e *Evaluator) exposure(q Query, enough func(rows []Row) bool) Exposure {
	var x Exposure
	var sum tally
	ranges := 0
	for _, in := range entries(e.home(), q.Iif) { // lo is the last
		others := x.Rows
		settled := in.Name == "lo" && enough != nil && ranges == 0 && sum.settled() && enough(others)
		for _, f := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
			if q.To.IsValid() && firewall.FamilyOf(q.To) != f {
				continue
			}
			if settled && slices.ContainsFunc(others, func(r Row) bool { return r.Family == f.String() }) {
				continue
			}
			parts := e.partitionOn(e.home(), q, f, in, maxRanges)
			if n := size(parts); n > maxRanges {
				ranges += n
				for _, p := range parts {
					if p.remote.Minus(mapped6).Empty() {
						continue
					}
					// Enough for the sum: what they see and what sort of thing decides.
					sum.add(&Row{Iif: in.Name, ClientSees: p.sees, AfterConnect: p.after, DecidedBy: DecidedBy{Kind: p.by.kind}})
				}
				continue
			}
			rows := e.rowsOf(f, in, parts)
			for i := range rows {
				sum.add(&rows[i])
			}
			if x.Rows == nil {
				x.Rows = rows
			} else {
				x.Rows = append(x.Rows, rows...)
			}
		}
	}
	x.Who = sum.who()
	if ranges > 0 {
		x.Rows = nil
		x.LeftOut = fmt.Sprintf("%d ranges of addresses", ranges)
	}
	return x
}

// who sums rows up in one word.
func (e *Evaluator) who(rows []Row) Who {
	var t tally
	for i := range rows {
		t.add(&rows[i])
	}
	return t.who()
}

// tally sums rows up in one word. Sources that the kernel itself refuses on an
// interface (martians, the host's own addresses, reverse-path) do not count, and
// neither do IPv4-mapped ones, which no client's IPv6 packets come from. Those who
// may only fail to find this host's hardware address (undiscovered) count where
// nothing else lets anybody in.
type tally struct{ in, out, unsure, local, undiscovered bool }

func (t *tally) add(r *Row) {
	switch {
	case r.onlyMapped():
	case r.Iif == "lo":
		// What a local client sees may turn on its own source port alone.
		t.local = t.local || r.Through() || r.Unsure()
	case r.Through():
		t.in = true
	case r.Unsure() && !slices.ContainsFunc(r.Conditions, func(c Condition) bool { return c.TurnsOn != discoveryWhy }):
		t.undiscovered = true
	case r.Unsure():
		t.unsure = true
	case r.DecidedBy.Kind == ByRPFilter, r.DecidedBy.Kind == ByRoute:
	default:
		t.out = true
	}
}

// settled tells that the host's own clients do not count any more.
func (t tally) settled() bool { return t.in || t.unsure || t.undiscovered }

func (t tally) who() Who {
	switch {
	case t.in && t.out:
		return Some
	case t.unsure:
		return Uncertain
	case t.in:
		return Everyone
	case t.undiscovered:
		return Uncertain
	case t.local:
		return HostOnly
	default:
		return Nobody
	}
}

// onlyMapped reports whether all of the sources are IPv4-mapped.
func (r *Row) onlyMapped() bool {
	return len(r.From) > 0 && !slices.ContainsFunc(r.From, func(p netip.Prefix) bool {
		return !p.Addr().Is4In6() || p.Bits() < 96
	})
}

// entries are the links clients can come in by: those that are up and have an
// address of their own; lo last.
func entries(ns *Namespace, iif string) []*firewall.Link {
	if iif != "" {
		if l := linkNamed(ns, iif); l != nil {
			return []*firewall.Link{l}
		}
		return nil
	}
	return entryLinks(ns)
}
