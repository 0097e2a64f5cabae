package firewall

// The operations of ARP (RFC 826).
const (
	ARPRequest = 1
	ARPReply   = 2
)

// ARPMessage returns the state of an ARP message about the address local of this
// host: one that comes in or, with out, that goes out.
func ARPMessage(op uint8, local Value, out bool) State {
	return State{Family: IPv4, ARP: op, Reply: out, Local: local, OrigLocal: local}
}

// Where the protocol addresses lie in an ARP message of Ethernet and IPv4.
const (
	arpSender = 14
	arpTarget = 24
	arpLength = 28
)

// sees reports whether chains of a table are called for a packet at a hook. ARP
// messages pass the hooks of their own family and those of the device; chains
// `inet … ingress` are called for IP only (nft_do_chain_inet_ingress).
func (t *Table) sees(s *State, h Hook) bool {
	switch {
	case s.ARP == 0:
		return t.Family.Sees(s.Family)
	case h == Ingress || h == Egress:
		return t.Family == TableNetdev
	default:
		return t.Family == TableARP
	}
}

// readARP reads a field of an ARP message. Without IP pktinfo there is neither a
// transport header nor its protocol (nft_set_pktinfo_unspec, nft_payload_eval).
func (c *Class) readARP(f Field) reading {
	s := &c.State
	unknown := isUnknown("what an ARP message holds")
	if s.RewroteHeader != "" {
		return unknown
	}
	switch f.Kind {
	case FieldEtherType:
		return isConst(0x0806)
	case FieldL4Proto:
		return isAbsent()
	case FieldMark:
		return isKnown(s.Mark, "the packet mark")
	case FieldARPSender:
		switch {
		case !s.Reply:
			return c.remoteAddr()
		case s.ARP == ARPReply:
			return isValue(s.Local)
		}
		return isUnknown("the sender address of this host's own ARP requests (arp_announce)")
	case FieldARPTarget:
		switch {
		case s.Reply:
			return c.remoteAddr()
		case s.ARP == ARPRequest:
			return isValue(s.Local)
		}
		return isUnknown("the sender address of this host's own ARP requests (arp_announce)")
	case FieldPayload:
		if f.A == 2 {
			return isAbsent()
		}
		return c.readARPBytes(f, unknown)
	}
	if r, ok := c.readLink(f.Kind); ok {
		return r
	}
	return unknown
}

func (c *Class) readARPBytes(f Field, unknown reading) reading {
	var h header
	switch {
	case f.A == 1:
		h = newHeader(arpLength)
		for i, b := range []byte{0, 1, 8, 0, 6, 4, 0, c.State.ARP} {
			h.put(i, b, 0xff)
		}
		h.field(arpSender, 4, c.readARP(Field{Kind: FieldARPSender}))
		h.field(arpTarget, 4, c.readARP(Field{Kind: FieldARPTarget}))
	case f.A == 0 && c.State.In != nil && c.State.In.Type == 1:
		h = newHeader(14)
		h.put(12, 0x08, 0xff)
		h.put(13, 0x06, 0xff)
	}
	end := int(f.B + f.C)
	if f.C == 0 || f.C > 16 || end > len(h.bytes) {
		return unknown
	}
	return reading{kind: readConst, value: Bytes(h.bytes[f.B:end]), unsure: Bytes(h.unsure[f.B:end]), why: unknown.why}
}

// asARP makes of an operand that loads the beginning of a protocol address one
// over the whole address, so that it can tell senders apart.
func (o *Operand) asARP() Operand {
	f := o.Field
	op := *o
	if f.Kind != FieldPayload || f.A != 1 || f.C < 1 || f.C > 4 || o.Shift < 0 {
		return op
	}
	switch f.B {
	case arpSender:
		op.Field = Field{Kind: FieldARPSender}
	case arpTarget:
		op.Field = Field{Kind: FieldARPTarget}
	default:
		return op
	}
	left := uint(8 * (4 - f.C))
	op.Mask, op.Xor, op.Shift = o.Mask.Shl(left), o.Xor.Shl(left), o.Shift+int(left)
	return op
}
