package remedy

import (
	"slices"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// maxDepth bounds the walk up from a chain to its callers.
const maxDepth = 16

// named says whether a rule, or every way to its chain, is there for certain
// sources.
func named(rs *firewall.Ruleset, r *firewall.Rule, depth int) bool {
	if namesSources(r.Stmts) {
		return true
	}
	if r.Chain.Base != nil || depth == maxDepth {
		return false
	}
	callers := 0
	for _, t := range rs.Tables {
		for _, ch := range t.Chains {
			for _, c := range ch.Rules {
				if !calls(c, r.Chain) {
					continue
				}
				if callers++; !named(rs, c, depth+1) {
					return false
				}
			}
		}
	}
	return callers > 0
}

// calls says whether a rule leads into a chain.
func calls(r *firewall.Rule, ch *firewall.Chain) bool {
	return slices.ContainsFunc(r.Stmts, func(st firewall.Stmt) bool {
		switch v := st.(type) {
		case *firewall.Verdict:
			return v.Chain == ch
		case *firewall.VerdictMap:
			return slices.ContainsFunc(v.Map.Data, func(d firewall.Datum) bool { return d.Verdict != nil && d.Verdict.Chain == ch })
		}
		return false
	})
}

// namesSources says whether a rule is there for certain sources: it lists them, or
// asks the routing about them (the reverse path). It is no rule about a port then,
// and what it keeps out is kept out on purpose.
func namesSources(stmts []firewall.Stmt) bool {
	source := func(o firewall.Operand) bool {
		switch o.Field.Kind {
		case firewall.FieldSrcAddr, firewall.FieldSrcMAC:
			return true
		}
		return false
	}
	routing := func(o firewall.Operand) bool {
		switch o.Field.Kind {
		case firewall.FieldFIBType, firewall.FieldFIBOutIndex, firewall.FieldFIBOutName, firewall.FieldFIBPresent:
			return o.Field.A&firewall.FIBSrc != 0
		case firewall.FieldRPFilter:
			return true
		}
		return false
	}
	return slices.ContainsFunc(stmts, func(st firewall.Stmt) bool {
		switch m := st.(type) {
		case *firewall.Match:
			return source(m.Operand) && !m.Invert || routing(m.Operand)
		case *firewall.Lookup:
			return slices.ContainsFunc(m.Keys, source) && !m.Invert || slices.ContainsFunc(m.Keys, routing)
		case *firewall.IPSetMatch:
			return !m.Invert && slices.Contains(m.Src, true)
		case *firewall.AllOf:
			return !m.Invert && namesSources(statements(m.Of))
		case *firewall.AnyOf:
			return !m.Invert && namesSources(statements(m.Of))
		}
		return false
	})
}

func statements(ms []firewall.Matcher) []firewall.Stmt {
	out := make([]firewall.Stmt, len(ms))
	for i, m := range ms {
		out[i] = m
	}
	return out
}

// refuses: the witness drops or rejects.
func refuses(d reach.DecidedBy) bool {
	if d.Rule == nil {
		return d.Kind == reach.ByPolicy
	}
	for _, st := range d.Rule.Stmts {
		switch v := st.(type) {
		case *firewall.Reject:
			return true
		case *firewall.Verdict:
			return v.Kind == firewall.Drop
		}
	}
	return false
}
