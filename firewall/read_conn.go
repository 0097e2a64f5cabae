package firewall

// readConn reads the connection (nft_ct_get_eval). Before conntrack has seen
// the packet, and for untracked ones, only the state can be read.
func (c *Class) readConn(f Field) (reading, bool) {
	s := &c.State
	switch f.Kind {
	case FieldCTState, FieldCTStateNAT:
		st := uint64(s.CTState)
		switch {
		case st == 0 && s.Template:
			st = CTNew // nf_ct_set(skb, template, IP_CT_NEW)
		case st == 0:
			st = CTInvalid
		}
		if f.Kind == FieldCTStateNAT && s.tracked() {
			if s.CTStatus&CTStatusSrcNAT != 0 {
				st |= CTSNAT
			}
			if s.CTStatus&CTStatusDstNAT != 0 {
				st |= CTDNAT
			}
		}
		return isConst(st), true
	case FieldCTStatus, FieldCTDirection, FieldCTMark, FieldCTZone, FieldCTHelper, FieldCTL3Proto, FieldCTL4Proto,
		FieldCTSrcAddr, FieldCTDstAddr, FieldCTSrcPort, FieldCTDstPort:
		if s.CTState == 0 && s.Template {
			return isUnknown("what a connection template holds before the packet is tracked"), true
		}
		if !s.tracked() {
			return isAbsent(), true
		}
	}
	switch f.Kind {
	case FieldCTStatus:
		return isConst(uint64(s.CTStatus)), true
	case FieldCTDirection:
		return boolConst(s.Reply && s.CTState != CTNew), true
	case FieldCTMark:
		return isKnown(s.CTMark, "the connection mark"), true
	case FieldCTZone:
		if f.A == 0 {
			return isConst(uint64(s.CTZone)), true
		}
		return isConst(uint64(zoneFor(s.CTZone, s.ZoneDir, ZoneDir(f.A) == ZoneReply))), true
	case FieldCTHelper:
		if s.CTHelper == "" {
			return isAbsent(), true
		}
		return isValue(NameValue(s.CTHelper)), true
	case FieldCTL3Proto:
		if s.Family == IPv4 {
			return isConst(2), true
		}
		return isConst(10), true
	case FieldCTL4Proto:
		return isConst(uint64(s.FlowProto)), true
	case FieldCTSrcAddr, FieldCTDstAddr, FieldCTSrcPort, FieldCTDstPort:
		return c.readTuple(f), true
	}
	return reading{}, false
}

// readTuple reads an address or port of the connection's tuples. The original
// tuple is the client's address and the destination it dialled; the reply
// tuple holds what the translation made of both so far.
func (c *Class) readTuple(f Field) reading {
	s := &c.State
	if s.Family == IPv4 || s.Family == IPv6 {
		original := f.A == 0
		if s.Reply && s.CTState == CTNew { // an answer that is a flow of its own
			switch local := original == (f.Kind == FieldCTSrcAddr || f.Kind == FieldCTSrcPort); {
			case f.Kind == FieldCTSrcAddr || f.Kind == FieldCTDstAddr:
				if local {
					return c.localAddr()
				}
				return c.remoteAddr()
			case local:
				return c.localPort()
			default:
				return c.remotePort()
			}
		}
		switch {
		case f.Kind == FieldCTSrcAddr && original:
			return c.addrOf(s.BaseAddrKind, s.BaseAddr)
		case f.Kind == FieldCTSrcPort && original:
			return c.portOf(s.BasePortKind, s.BasePort)
		case f.Kind == FieldCTDstAddr && original:
			return isValue(s.OrigLocal)
		case f.Kind == FieldCTDstPort && original:
			return isConst(uint64(s.OrigLocalPort))
		case s.Reply && s.CTStatus&(CTStatusSrcNAT|CTStatusDstNAT) != 0:
			return isUnknown("the reply tuple of the connection")
		case s.Reply && f.Kind == FieldCTSrcAddr:
			return isValue(s.OrigLocal)
		case s.Reply && f.Kind == FieldCTSrcPort:
			return isConst(uint64(s.OrigLocalPort))
		case s.Reply && f.Kind == FieldCTDstAddr:
			return c.addrOf(s.BaseAddrKind, s.BaseAddr)
		case s.Reply:
			return c.portOf(s.BasePortKind, s.BasePort)
		case s.flow != nil:
			d := *c
			d.State = *s.flow
			return d.readTuple(f)
		case f.Kind == FieldCTSrcAddr:
			return c.localAddr()
		case f.Kind == FieldCTSrcPort:
			return c.localPort()
		case f.Kind == FieldCTDstAddr:
			return c.remoteAddr()
		default:
			return c.remotePort()
		}
	}
	return isAbsent()
}

func (s *State) tracked() bool {
	return s.CTState&(CTNew|CTEstablished|CTRelated) != 0
}
