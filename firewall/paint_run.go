package firewall

// run is a stretch of rules for any port that are all simple: from..to in
// compiledChain.any.
type run struct {
	from, to int
	asked    asked
}

// asked are the things beside the protocols that rules of a run ask for.
type asked struct{ src, dst, links, conn, marks, flags bool }

func (a *asked) add(k FieldKind) {
	switch k {
	case FieldSrcAddr:
		a.src = true
	case FieldDstAddr:
		a.dst = true
	case FieldL4Proto, FieldIPProto, FieldNFProto, FieldEtherType:
	case FieldInName, FieldInIndex, FieldOutName, FieldOutIndex, FieldPktType:
		a.links = true
	case FieldCTState, FieldCTDirection, FieldCTMark:
		a.conn = true
	case FieldMark:
		a.marks = true
	case FieldTCPFlags:
		a.flags = true
	default:
		*a = asked{true, true, true, true, true, true}
	}
}

// asks notes what a rule asks for.
func (a *asked) asks(rule *Rule) {
	for _, s := range rule.Stmts {
		switch s := s.(type) {
		case *Match:
			a.add(s.Operand.Field.Kind)
		case *Lookup:
			for _, k := range s.Keys {
				a.add(k.Field.Kind)
			}
		}
	}
}

// of returns what matters of a state to the rules, so that states in which they
// say the same share one painting.
func (a *asked) of(s *State) State {
	k := State{Family: s.Family, Proto: s.Proto, Reply: s.Reply, RewroteHeader: s.RewroteHeader,
		RemoteAddrKind: s.RemoteAddrKind, RemoteAddr: s.RemoteAddr}
	if s.Reply && a.src || !s.Reply && a.dst {
		k.Local, k.LocalUnknown = s.Local, s.LocalUnknown
	}
	if a.links {
		k.In, k.Out, k.PktType = s.In, s.Out, s.PktType
	}
	if a.conn {
		k.CTState, k.Template, k.CTMark = s.CTState, s.Template, s.CTMark
	}
	if a.marks {
		k.Mark = s.Mark
	}
	if a.flags {
		k.TCPFlags, k.Following = s.TCPFlags, s.Following
	}
	return k
}

// runsOf finds the runs of a chain.
func (ch *Chain) runsOf(anyPort []int32) []run {
	var runs []run
	from := 0
	for i := 0; i <= len(anyPort); i++ {
		if i < len(anyPort) && ch.Rules[anyPort[i]].simple(false) {
			continue
		}
		if i-from >= paintFrom {
			n := run{from: from, to: i}
			for _, rule := range anyPort[from:i] {
				n.asked.asks(ch.Rules[rule])
			}
			runs = append(runs, n)
		}
		from = i + 1
	}
	return runs
}

// simple reports whether the rule holds nothing but matches of fields that do
// not depend on ports (with ports: that may name the destination port), and ends
// with accept, drop or return.
func (r *Rule) simple(ports bool) bool {
	for i, s := range r.Stmts {
		switch s := s.(type) {
		case *Inert:
		case *Match:
			if !portless(s.Operand.Field.Kind) && !(ports && s.Operand.Field.Kind == FieldDstPort) {
				return false
			}
		case *Lookup:
			for _, k := range s.Keys {
				if !portless(k.Field.Kind) && !(ports && k.Field.Kind == FieldDstPort) {
					return false
				}
			}
		case *Verdict:
			return i == len(r.Stmts)-1 && (s.Kind == Accept || s.Kind == Drop || s.Kind == Return)
		default:
			return false
		}
	}
	return false
}

func portless(k FieldKind) bool {
	switch k {
	case FieldSrcAddr, FieldDstAddr, FieldL4Proto, FieldIPProto, FieldNFProto, FieldEtherType, FieldInName, FieldInIndex,
		FieldOutName, FieldOutIndex, FieldCTState, FieldCTDirection, FieldMark, FieldCTMark, FieldPktType, FieldTCPFlags:
		return true
	}
	return false
}
