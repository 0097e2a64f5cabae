package firewall

// translatesPorts bounds the ports that one rule is asked about.
const translatesPorts = 64

// Translates returns the protocols and destination ports that a rule with a
// destination translation names; nothing for other rules, and for those that
// name no port or too many.
func (r *Rule) Translates() (protos []Proto, ports []uint16) {
	nat := false
	var set Ranges
	for _, s := range r.Stmts {
		switch m := s.(type) {
		case *NAT:
			nat = nat || m.Kind == DNAT
			if from, ok := m.AddrMin.(*FromMap); ok {
				set = set.Union(from.portKeys())
			}
		case *Match:
			if m.Invert {
				continue
			}
			switch m.Operand.Field.Kind {
			case FieldDstPort:
				set = m.In
			case FieldL4Proto, FieldIPProto:
				for _, v := range m.In {
					for p := v.Lo.Lo; p <= v.Hi.Lo && p < 256; p++ {
						protos = append(protos, Proto(p))
					}
				}
			}
		case *Lookup:
			if len(m.Keys) == 1 && m.Keys[0].Field.Kind == FieldDstPort && !m.Invert {
				if ix := m.Set.index(m.Keys); ix != nil {
					set = ix.values
				}
			}
		}
	}
	if !nat {
		return nil, nil
	}
	for _, v := range set {
		for p := v.Lo.Lo; p <= v.Hi.Lo && p <= 0xffff; p++ {
			if len(ports) == translatesPorts {
				return protos, ports
			}
			ports = append(ports, uint16(p))
		}
	}
	if len(protos) == 0 {
		protos = []Proto{TCP, UDP}
	}
	if len(protos) > 4 {
		protos = nil
	}
	return protos, ports
}

// portKeys are the keys of a map that is looked up by the destination port.
func (f *FromMap) portKeys() Ranges {
	if len(f.Keys) != 1 || f.Keys[0].Field.Kind != FieldDstPort || f.Map.Unread != "" {
		return nil
	}
	if ix := f.Map.index(f.Keys); ix != nil {
		return ix.values
	}
	return nil
}
