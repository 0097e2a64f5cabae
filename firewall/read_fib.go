package firewall

// readFIB asks the routing. The address asked about is the source or the
// destination of the packet; where that is the variable one, the answer is a
// partition.
func (c *Class) readFIB(f Field, env *Env) reading {
	if env.FIB == nil {
		return isUnknown("the routing of the host")
	}
	s := &c.State
	about := c.dstAddr()
	other := c.srcAddr()
	if f.Kind == FieldRPFilter || f.A&FIBSrc != 0 {
		about, other = other, about
	}
	if about.kind == readUnknown {
		return about
	}
	addrs := c.Remote
	var back Value
	switch {
	case about.kind == readConst:
		addrs = Single(about.value)
	case !about.value.IsZero():
		back = about.value
		addrs = addrs.Shift(back)
	}
	q := FIBQuery{Family: s.Family, Proto: s.Proto, PacketIn: s.In, PacketOut: s.Out, Source: f.A&FIBSrc != 0,
		Other: other.value, OtherUnknown: other.kind != readConst}
	if f.A&FIBMark != 0 {
		if s.Mark.Unknown {
			return isUnknown("the packet mark")
		}
		q.Mark = s.Mark.Value
	}
	if f.A&FIBIn != 0 {
		q.In = s.In
	}
	if f.A&FIBOut != 0 {
		q.Out = s.Out
	}
	var answer []FIBPart
	switch f.Kind {
	case FieldFIBType:
		answer = env.FIB.AddrType(addrs, q)
	case FieldAddrType6:
		dev := q.In
		if dev == nil {
			dev = q.Out
		}
		answer = env.FIB.AddrType6(addrs, dev, uint16(f.B))
	case FieldRPFilter:
		if s.Mark.Unknown {
			return isUnknown("the packet mark")
		}
		if q.OtherUnknown {
			return isUnknown("the reverse route of many destinations")
		}
		answer = env.FIB.RPFilter(s.Family, addrs, s.In, s.Mark.Value, f.A, q.Other)
	default:
		answer = env.FIB.OutIndex(addrs, q)
		if s.Following && s.In != nil {
			earlyDemuxed(answer, s.In)
		}
	}
	parts := fibParts(answer, func(v uint32) Value {
		switch {
		case f.Kind == FieldFIBPresent && v != 0:
			return Num(1)
		case f.Kind == FieldFIBOutName:
			return NameValue(env.FIB.LinkName(int(v)))
		}
		return Num(uint64(v))
	})
	if about.kind == readConst {
		if len(parts) != 1 {
			return isUnknown("the routing of the host")
		}
		if parts[0].unknown != "" {
			return isUnknown(parts[0].unknown)
		}
		return isValue(parts[0].value)
	}
	if !back.IsZero() {
		for i := range parts {
			parts[i].addrs = parts[i].addrs.Shift(Value{}.Sub(back))
		}
	}
	return reading{kind: readFIB, parts: parts}
}

// earlyDemuxed marks the answers that nft_fib_can_skip may replace: at the input
// hook a packet of an established connection has its socket already
// (tcp_v4_early_demux), and kernels that know the function take the interface it
// came in by without asking the routing.
func earlyDemuxed(parts []FIBPart, in *Link) {
	for i := range parts {
		if parts[i].Unknown == "" && parts[i].Value != uint32(in.Index) {
			parts[i].Unknown = "whether the kernel looks up the route of a packet whose socket it knows (nft_fib_can_skip)"
		}
	}
}

// fibParts are the parts of an answer of the routing, with their values.
func fibParts(answer []FIBPart, value func(uint32) Value) []fibPart {
	parts := make([]fibPart, len(answer))
	for i, p := range answer {
		parts[i] = fibPart{p.Addrs, value(p.Value), p.Unknown}
	}
	return parts
}

// fibPart is a part of the remote addresses with one answer of the routing.
type fibPart struct {
	addrs   Ranges
	value   Value
	unknown string // why it cannot be told, "" when it can
}
