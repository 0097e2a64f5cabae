package firewall

import "sync"

// remembered are the sets that rules ask.
type remembered struct {
	once  sync.Once
	sets  map[*Set]bool
	named map[string]bool // ipsets
}

// Remembers reports whether the packet has changed a set that some rule asks,
// so that the next packet may fare otherwise.
func (rs *Ruleset) Remembers(s State) bool {
	if s.touched == nil {
		return false
	}
	m := &rs.remembered
	m.once.Do(func() {
		m.sets, m.named = map[*Set]bool{}, map[string]bool{}
		for _, t := range rs.Tables {
			for _, ch := range t.Chains {
				for _, r := range ch.Rules {
					for _, st := range r.Stmts {
						m.asks(st)
					}
				}
			}
		}
	})
	for t := s.touched; t != nil; t = t.next {
		if m.sets[t.set] || t.set == nil && m.named[t.name] {
			return true
		}
	}
	return false
}

func (m *remembered) asks(s Stmt) {
	source := func(src Source) {
		if f, ok := src.(*FromMap); ok {
			m.sets[f.Map] = true
		}
	}
	switch s := s.(type) {
	case *Lookup:
		m.sets[s.Set] = true
	case *VerdictMap:
		m.sets[s.Map] = true
	case *IPSetMatch:
		m.set(s.Set, 0)
	case *RecentMatch:
		m.named[RecentName(s.Name)] = true
	case *AnyOf:
		for _, of := range s.Of {
			m.asks(of)
		}
	case *AllOf:
		for _, of := range s.Of {
			m.asks(of)
		}
	case *SetField:
		source(s.From)
	case *SetPayload:
		source(s.From)
	case *NAT:
		for _, src := range []Source{s.AddrMin, s.AddrMax, s.PortMin, s.PortMax} {
			source(src)
		}
	case *TProxy:
		source(s.Addr)
		source(s.Port)
	}
}

// set notes an ipset and its members.
func (m *remembered) set(s *IPSet, depth int) {
	if s == nil || depth > maxIPSetDepth {
		return
	}
	m.named[s.Name] = true
	for _, member := range s.Members {
		m.set(member, depth+1)
	}
}
