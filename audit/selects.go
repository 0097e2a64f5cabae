package audit

import (
	"encoding/binary"
	"net/netip"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// PortSpan is an inclusive range of ports.
type PortSpan struct{ Low, High uint16 }

// Contains says whether the port lies in the span.
func (s PortSpan) Contains(port uint16) bool { return s.Low <= port && port <= s.High }

// Selection is what a rule says in its matches about the packets it is for, read
// as intent. It decides nothing about packets: that is the evaluator's.
type Selection struct {
	Protos []listeners.Proto // nil: not named
	Ports  []PortSpan        // nil: not named
	From   []netip.Prefix    // nil: not named
	To     []netip.Prefix    // nil: not named
	// LoopbackOnly: only for packets that come in by lo or from loopback addresses.
	LoopbackOnly bool
	// OldOnly: not for the first packet of a connection.
	OldOnly bool
}

// Select reads the matches of a rule.
func Select(r *firewall.Rule) Selection {
	var s Selection
	for _, st := range r.Stmts {
		s.read(st)
	}
	return s
}

func (s *Selection) read(st firewall.Stmt) {
	switch m := st.(type) {
	case *firewall.Match:
		if !m.Invert && !m.WantAbsent && whole(m.Operand) {
			s.narrow(m.Operand.Field.Kind, m.In)
		} else if m.Operand.Field.Kind == firewall.FieldCTState && !m.Invert {
			s.state(m)
		}
	case *firewall.Lookup:
		if m.Invert || m.Set.Unread != "" {
			return
		}
		for i, k := range m.Keys {
			if whole(k) {
				s.narrow(k.Field.Kind, keysOf(m.Set, i, k))
			}
		}
	case *firewall.VerdictMap:
		for i, k := range m.Keys {
			if m.Map.Unread == "" && whole(k) && k.Field.Kind == firewall.FieldDstPort {
				s.narrow(k.Field.Kind, keysOf(m.Map, i, k))
			}
		}
	case *firewall.AnyOf:
		if m.Invert {
			return
		}
		var ports firewall.Ranges
		for _, of := range m.Of {
			x, ok := of.(*firewall.Match)
			if !ok || x.Invert || !whole(x.Operand) {
				return
			}
			switch x.Operand.Field.Kind {
			case firewall.FieldDstPort:
				ports = ports.Union(x.In)
			case firewall.FieldSrcPort: // multiport --ports
			default:
				return
			}
		}
		if len(ports) > 0 {
			s.narrow(firewall.FieldDstPort, ports)
		}
	case *firewall.AllOf:
		if !m.Invert {
			for _, of := range m.Of {
				s.read(of)
			}
		}
	}
}

// state notes a match on the connection state that leaves new connections out.
func (s *Selection) state(m *firewall.Match) {
	mask := m.Operand.Mask
	bits, only := m.In.Only()
	if mask.And(firewall.Num(firewall.CTNew)).IsZero() || only && bits.And(firewall.Num(firewall.CTNew)).IsZero() && !bits.IsZero() {
		s.OldOnly = true
	}
}

func whole(o firewall.Operand) bool {
	return o.Mask == firewall.MaxValue(o.Len) && o.Xor.IsZero() && o.Shift == 0
}

// keysOf lists the values of one part of a set's keys.
func keysOf(set *firewall.Set, part int, o firewall.Operand) firewall.Ranges {
	off := 0
	for _, n := range set.Fields[:min(part, len(set.Fields))] {
		off += (n + 3) &^ 3
	}
	var rs []firewall.Range
	for i := range set.N {
		k, e := set.Key(i)
		if off+o.Len > len(k) {
			return nil
		}
		rs = append(rs, firewall.Range{Lo: number(k[off:off+o.Len], o.HostOrder), Hi: number(e[off:off+o.Len], o.HostOrder)})
	}
	return firewall.NewRanges(rs)
}

func number(b []byte, hostOrder bool) firewall.Value {
	switch {
	case hostOrder && len(b) == 4:
		return firewall.Num(uint64(binary.NativeEndian.Uint32(b)))
	case hostOrder && len(b) == 2:
		return firewall.Num(uint64(binary.NativeEndian.Uint16(b)))
	}
	return firewall.Bytes(b)
}

// narrow takes one match into the selection.
func (s *Selection) narrow(k firewall.FieldKind, in firewall.Ranges) {
	switch k {
	case firewall.FieldDstPort:
		for _, r := range in {
			s.Ports = append(s.Ports, PortSpan{uint16(r.Lo.Lo), uint16(r.Hi.Lo)})
		}
	case firewall.FieldL4Proto, firewall.FieldIPProto:
		for p, proto := range map[firewall.Proto]listeners.Proto{firewall.TCP: listeners.TCP, firewall.UDP: listeners.UDP} {
			if in.Contains(firewall.Num(uint64(p))) {
				s.Protos = append(s.Protos, proto)
			}
		}
	case firewall.FieldSrcAddr:
		s.From = append(s.From, prefixes(in)...)
		all := len(in) > 0
		for _, p := range s.From {
			all = all && p.Addr().IsLoopback()
		}
		s.LoopbackOnly = s.LoopbackOnly || all
	case firewall.FieldDstAddr:
		s.To = append(s.To, prefixes(in)...)
	case firewall.FieldInName:
		if v, ok := in.Only(); ok && v.Name() == "lo" {
			s.LoopbackOnly = true
		}
	case firewall.FieldInIndex:
		if v, ok := in.Only(); ok && v == firewall.Num(1) { // the first link of every namespace is lo
			s.LoopbackOnly = true
		}
	}
}

// prefixes shows addresses: those that need more than 32 bits are IPv6.
func prefixes(in firewall.Ranges) []netip.Prefix {
	f := firewall.IPv4
	for _, r := range in {
		if firewall.MaxValue(4).Less(r.Hi) {
			f = firewall.IPv6
		}
	}
	return in.AddrPrefixes(f)
}

// Opening is a rule that accepts new connections to ports it names.
type Opening struct {
	Rule *firewall.Rule
	Selection
}

// Openings lists the rules that a packet to this host can come to and that
// accept what they name a port of: what somebody meant to open.
func Openings(rs *firewall.Ruleset) []Opening {
	var out []Opening
	seen := map[*firewall.Chain]bool{}
	var visit func(ch *firewall.Chain)
	visit = func(ch *firewall.Chain) {
		if ch == nil || seen[ch] {
			return
		}
		seen[ch] = true
		for _, r := range ch.Rules {
			accepts := false
			for _, st := range r.Stmts {
				switch v := st.(type) {
				case *firewall.Verdict:
					accepts = accepts || v.Kind == firewall.Accept
					visit(v.Chain)
				case *firewall.VerdictMap:
					for _, d := range v.Map.Data {
						if d.Verdict != nil {
							accepts = accepts || d.Verdict.Kind == firewall.Accept
							visit(d.Verdict.Chain)
						}
					}
				}
			}
			if !accepts {
				continue
			}
			if sel := Select(r); len(sel.Ports) > 0 && !sel.LoopbackOnly && !sel.OldOnly {
				out = append(out, Opening{r, sel})
			}
		}
	}
	for _, t := range rs.Tables {
		if t.Dormant {
			continue
		}
		for _, ch := range t.Chains {
			if ch.Base != nil && ch.Base.Hook == firewall.Input && ch.Base.Type == firewall.ChainFilter {
				visit(ch)
			}
		}
	}
	return out
}

// maxOpenWidth is how many ports a rule may name and still be read as meant for
// each of them.
const maxOpenWidth = 64

// Opens says whether the rule was written for this very port: it names it, alone
// or in a narrow range.
func (o Opening) Opens(proto listeners.Proto, port uint16) bool {
	if len(o.Protos) > 0 {
		named := false
		for _, p := range o.Protos {
			named = named || p == proto
		}
		if !named {
			return false
		}
	}
	for _, s := range o.Ports {
		if s.Contains(port) && int(s.High)-int(s.Low) < maxOpenWidth {
			return true
		}
	}
	return false
}
