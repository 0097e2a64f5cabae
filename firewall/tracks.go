package firewall

import (
	"strings"
	"sync"
)

// tracking is whether conntrack is registered for the packets of a family.
type tracking struct {
	once sync.Once
	of   map[Family]Outcome
}

// tracks reports whether conntrack sees packets of the family. It is registered
// while a rule needs it (nf_ct_netns_get: ct, NAT to an address of that family,
// masquerade, the iptables modules that ask for connections; rules of dormant
// tables and of chains that nothing calls count as well), and a nat chain alone is
// no need. Without it the NAT core lets every packet pass, whatever its chains say.
func (rs *Ruleset) tracks(f Family) Outcome {
	t := &rs.tracking
	t.once.Do(func() {
		t.of = map[Family]Outcome{}
		for _, f := range []Family{IPv4, IPv6} {
			t.of[f] = rs.needsTracking(f)
		}
	})
	return t.of[f]
}

func (rs *Ruleset) needsTracking(f Family) Outcome {
	need := No
	// Most rules of nat chains translate: those first.
	for _, nat := range []bool{true, false} {
		for _, t := range rs.Tables {
			// Conntrack of bridges brings that of both families with it.
			if !t.Family.Sees(f) && t.Family != TableBridge {
				continue
			}
			for _, ch := range t.Chains {
				if (ch.Base != nil && ch.Base.Type == ChainNAT) != nat {
					continue
				}
				if ch.Unread != "" {
					need = CannotTell
				}
				for _, r := range ch.Rules {
					for _, s := range r.Stmts {
						switch needsTracking(s, f) {
						case Yes:
							return Yes
						case CannotTell:
							need = CannotTell
						}
					}
				}
			}
		}
	}
	return need
}

// needsTracking reports whether the statement, in a table that sees the family,
// registers conntrack for it.
func needsTracking(s Stmt, f Family) Outcome {
	each := func(ms []Matcher) Outcome {
		need := No
		for _, m := range ms {
			switch needsTracking(m, f) {
			case Yes:
				return Yes
			case CannotTell:
				need = CannotTell
			}
		}
		return need
	}
	keys := func(ops []Operand) Outcome {
		need := No
		for _, o := range ops {
			switch {
			case o.Field.Kind.ofConnection():
				return Yes
			case o.Field.Kind == FieldUnknown:
				need = CannotTell
			}
		}
		return need
	}
	from := func(src Source) Outcome {
		switch src := src.(type) {
		case *FromField:
			return keys([]Operand{src.Operand})
		case *FromMap:
			return keys(src.Keys)
		}
		return No
	}
	switch s := s.(type) {
	case *Match:
		return keys([]Operand{s.Operand})
	case *Lookup:
		return keys(s.Keys)
	case *VerdictMap:
		return keys(s.Keys)
	case *AnyOf:
		return each(s.Of)
	case *AllOf:
		return each(s.Of)
	case *NAT: // nft_nat_init asks for the family of its addresses alone
		if s.Family == 0 || s.Family == f {
			return Yes
		}
		return No
	case *SetField:
		if s.Kind.ofConnection() {
			return Yes
		}
		return from(s.From)
	case *SetPayload:
		return from(s.From)
	case *Connmark, *CTTemplate, *SynProxy:
		return Yes
	case *SetUpdate:
		if s.Limited != "" { // perhaps `ct count`
			return CannotTell
		}
		return keys(s.Keys)
	case *Inert:
		if strings.HasPrefix(s.Name, "ct ") || s.Name == "flow add" || strings.HasPrefix(s.Name, "CONN") || s.Name == "CT" {
			return Yes
		}
		return No
	case *Verdict, *Reject, *QueueTo, *TProxy, *Notrack, *IPSetMatch, *RecentMatch:
		return No
	default:
		return CannotTell
	}
}

// ofConnection reports whether the field is one of the packet's connection.
func (k FieldKind) ofConnection() bool { return k >= FieldCTState && k <= FieldCTSecMark }
