package firewall

// readKind tells what a field of a class is.
type readKind uint8

const (
	readConst  readKind = iota // the same known value for all packets of the class
	readRemote                 // the remote address plus a constant
	readPort                   // the remote port
	readAbsent                 // the packets do not have it
	readUnknown
	readFIB // decided by the routing, per remote address
)

// reading is the value of a field over a class.
type reading struct {
	kind  readKind
	value Value // of readConst; the addend of readRemote
	// unsure are the bits of a readConst that are not known; why says why.
	unsure Value
	why    string
	parts  []fibPart // of readFIB: partition of the original remote addresses
}

func isConst(v uint64) reading     { return reading{kind: readConst, value: Num(v)} }
func isValue(v Value) reading      { return reading{kind: readConst, value: v} }
func isAbsent() reading            { return reading{kind: readAbsent} }
func isUnknown(why string) reading { return reading{kind: readUnknown, why: why} }
func isKnown(k Known, why string) reading {
	if k.Unknown {
		return isUnknown(why)
	}
	return isConst(uint64(k.Value))
}

func boolConst(b bool) reading {
	if b {
		return isConst(1)
	}
	return isConst(0)
}

// remoteAddr reads the peer's address as a rule sees it now.
func (c *Class) remoteAddr() reading { return c.addrOf(c.State.RemoteAddrKind, c.State.RemoteAddr) }

func (c *Class) remotePort() reading { return c.portOf(c.State.RemotePortKind, c.State.RemotePort) }

// addrOf reads a peer's address that is related to the original one by k and v.
func (c *Class) addrOf(k RemoteKind, v Value) reading {
	only, single := c.Remote.Only()
	switch k {
	case RemoteSame, RemoteShifted:
		if single {
			return isValue(only.Add(v))
		}
		return reading{kind: readRemote, value: v}
	case RemoteConst:
		return isValue(v)
	default:
		return isUnknown("the address that source NAT chose")
	}
}

func (c *Class) portOf(k RemoteKind, p uint16) reading {
	switch k {
	case RemoteSame:
		if v, ok := c.Ports.Only(); ok {
			return isValue(v)
		}
		return reading{kind: readPort}
	case RemoteConst:
		return isConst(uint64(p))
	default:
		return isUnknown("the port that source NAT chose")
	}
}

func (c *Class) localAddr() reading {
	if c.State.LocalUnknown {
		return isUnknown("the address that destination NAT chose")
	}
	return isValue(c.State.Local)
}

func (c *Class) localPort() reading {
	if c.State.LocalPortUnknown {
		return isUnknown("the port that destination NAT chose")
	}
	return isConst(uint64(c.State.LocalPort))
}

// srcAddr and dstAddr are those of the IP header.
func (c *Class) srcAddr() reading {
	if c.State.Reply {
		return c.localAddr()
	}
	return c.remoteAddr()
}

func (c *Class) dstAddr() reading {
	if c.State.Reply {
		return c.remoteAddr()
	}
	return c.localAddr()
}

func (c *Class) srcPort() reading {
	if !c.State.Proto.HasPorts() {
		return isUnknown("bytes of a header without ports")
	}
	if c.State.Reply {
		return c.localPort()
	}
	return c.remotePort()
}

func (c *Class) dstPort() reading {
	if !c.State.Proto.HasPorts() {
		return isUnknown("bytes of a header without ports")
	}
	if c.State.Reply {
		return c.remotePort()
	}
	return c.localPort()
}

func linkField(l *Link, f func(*Link) Value) reading {
	if l == nil {
		// nft_meta: no device, index 0 and the empty name.
		return isValue(Value{})
	}
	return isValue(f(l))
}

// read tells the value of a field over the class. The kernel functions are
// nft_meta_get_eval, nft_payload_eval, nft_ct_get_eval, nft_fib*_eval and the
// xt match functions; where a packet lacks the field they break or do not
// match, which is readAbsent.
func (c *Class) read(f Field, env *Env) reading {
	s := &c.State
	if s.ARP != 0 {
		return c.readARP(f)
	}
	if s.RewroteHeader != "" {
		switch f.Kind {
		case FieldSrcAddr, FieldDstAddr, FieldSrcPort, FieldDstPort, FieldTCPFlags, FieldICMPType, FieldICMPCode:
			return isUnknown("a header that " + s.RewroteHeader + " rewrote")
		}
	}
	switch f.Kind {
	case FieldNFProto:
		if s.Family == IPv4 {
			return isConst(2)
		}
		return isConst(10)
	case FieldEtherType:
		if s.Family == IPv4 {
			return isConst(0x0800)
		}
		return isConst(0x86dd)
	case FieldIPVersion:
		return isConst(uint64(s.Family))
	case FieldL4Proto, FieldIPProto:
		return isConst(uint64(s.Proto))
	case FieldSrcAddr:
		return c.srcAddr()
	case FieldDstAddr:
		return c.dstAddr()
	case FieldSrcPort:
		return c.srcPort()
	case FieldDstPort:
		return c.dstPort()
	case FieldTCPFlags:
		if s.Proto != TCP {
			return isUnknown("bytes of a header that is not TCP")
		}
		r := isConst(uint64(s.TCPFlags))
		if s.Following {
			r.unsure, r.why = Num(flagPSH), "whether the client's packet carries data"
		}
		return r
	case FieldICMPType, FieldICMPCode:
		if s.Proto != ICMP && s.Proto != ICMPv6 {
			return isUnknown("bytes of a header that is not ICMP")
		}
		if f.Kind == FieldICMPType {
			return isConst(uint64(s.ICMPType))
		}
		return isConst(uint64(s.ICMPCode))
	case FieldPayload:
		if s.RewroteHeader == "" {
			return c.readPayload(f)
		}
	case FieldFragment:
		// The modelled client sends whole packets (and conntrack joins
		// fragments before any chain but raw sees them); whether it sets "don't
		// fragment" is its own affair.
		return reading{kind: readConst, unsure: Num(0xc000), why: "the fragment flags of the packet"}
	case FieldExtHdr:
		return isConst(0) // the modelled client sends no extension headers and no options
	case FieldTTL:
		if s.HopLimit != 0 && s.RewroteHeader == "" {
			return isConst(uint64(s.HopLimit))
		}
		return isUnknown(fieldWhy[f.Kind])
	case FieldPktType:
		return isConst(uint64(s.PktType))
	case FieldMark:
		return isKnown(s.Mark, "the packet mark")
	case FieldPriority:
		return isKnown(s.Priority, "the packet priority")
	case FieldIPSec, FieldSecPath:
		if env.NoIPSec {
			return isConst(0)
		}
		return isUnknown("whether the packet comes through an IPsec tunnel")
	case FieldSKUID, FieldSKGID:
		return c.readOwner(f.Kind)
	case FieldCgroup:
		return c.readCgroup()
	case FieldSocket:
		return c.readSocket(f, env)
	case FieldRealm:
		return c.readRealm(env)
	case FieldRTNextHop:
		return c.readNextHop()
	case FieldPhysIn, FieldPhysOut:
		// xt_physdev and nft's ibrname see bridge ports only on packets that a
		// bridge hands to the IP hooks (br_netfilter).
		l := s.In
		if f.Kind == FieldPhysOut {
			l = s.Out
		}
		if l == nil || l.Kind != "bridge" {
			return isAbsent()
		}
		return isUnknown(fieldWhy[f.Kind])
	case FieldFIBType, FieldFIBOutIndex, FieldFIBOutName, FieldFIBPresent, FieldAddrType6, FieldRPFilter:
		return c.readFIB(f, env)
	}
	if r, ok := c.readLink(f.Kind); ok {
		return r
	}
	if r, ok := c.readConn(f); ok {
		return r
	}
	return isUnknown(fieldWhy[f.Kind])
}

// fieldWhy says, for fields that only the packet itself can tell, what an
// answer turns on.
var fieldWhy = map[FieldKind]string{
	FieldFragment:     "IP fragmentation",
	FieldTCPOption:    "the TCP options of the client",
	FieldPayload:      "other bytes of the packet",
	FieldSrcMAC:       "the sender's MAC address",
	FieldDstMAC:       "the MAC address the packet was sent to",
	FieldLength:       "the packet's length",
	FieldTTL:          "the packet's TTL or hop limit",
	FieldDSCP:         "the DSCP field of the packet",
	FieldECN:          "the ECN bits of the packet",
	FieldRealm:        "the routing realm",
	FieldSecMark:      "the security mark",
	FieldRTNextHop:    "the next hop of the route",
	FieldCPU:          "the CPU that handles the packet",
	FieldRandom:       "chance",
	FieldTime:         "the time of day",
	FieldCgroup:       "the control group of the socket",
	FieldCTLabel:      "the labels of the connection",
	FieldCTBytes:      "the traffic of the connection",
	FieldCTPackets:    "the traffic of the connection",
	FieldCTSecMark:    "the security mark of the connection",
	FieldPhysIn:       "the bridge port of the packet",
	FieldPhysOut:      "the bridge port of the packet",
	FieldUnknown:      "something the model does not know",
	FieldCTEventMask:  "the event mask of the connection",
	FieldCTExpiration: "the age of the connection",
}

func (c *Class) readLink(k FieldKind) (reading, bool) {
	s := &c.State
	switch k {
	case FieldInIndex:
		return linkField(s.In, func(l *Link) Value { return Num(uint64(l.Index)) }), true
	case FieldOutIndex:
		return linkField(s.Out, func(l *Link) Value { return Num(uint64(l.Index)) }), true
	case FieldInName:
		return linkField(s.In, func(l *Link) Value { return NameValue(l.Name) }), true
	case FieldOutName:
		return linkField(s.Out, func(l *Link) Value { return NameValue(l.Name) }), true
	}
	// Beyond index and name nft_meta breaks without a device.
	var l *Link
	switch k {
	case FieldInType, FieldInGroup, FieldInKind:
		l = s.In
	case FieldOutType, FieldOutGroup, FieldOutKind:
		l = s.Out
	default:
		return reading{}, false
	}
	if l == nil {
		return isAbsent(), true
	}
	switch k {
	case FieldInType, FieldOutType:
		return isConst(uint64(l.Type)), true
	case FieldInGroup, FieldOutGroup:
		return isConst(uint64(l.Group)), true
	default:
		if l.Kind == "" {
			return isAbsent(), true // nft_meta_get_eval_kind: no rtnl_link_ops
		}
		return isValue(NameValue(l.Kind)), true
	}
}

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

// readCgroup is `meta cgroup` (nft_meta_get_eval_cgroup) and cgroup_mt_v0 to v2:
// the packet that opens a flow from outside has no socket. Later ones are given
// theirs ahead of input (tcp_v4_early_demux), and what leaves has its sender's.
func (c *Class) readCgroup() reading {
	if s := &c.State; s.In != nil && s.Out == nil && s.Owner == nil && !s.OwnerUnknown && !s.Reply && !s.Following && !s.TProxied {
		return isAbsent()
	}
	return isUnknown(fieldWhy[FieldCgroup])
}

// readOwner is `meta skuid` (nft_meta_get_eval_skugid): breaks where no socket
// with a file stands behind the packet.
func (c *Class) readOwner(k FieldKind) reading {
	s := &c.State
	if s.OwnerUnknown {
		return isUnknown("the user of the socket behind the packet")
	}
	if s.Owner == nil {
		return isAbsent()
	}
	if k == FieldSKUID {
		if s.Owner.UIDUnknown {
			return isUnknown("the user of the socket behind the packet")
		}
		return isConst(uint64(s.Owner.UID))
	}
	if s.Owner.GIDUnknown {
		return isUnknown("the group of the socket behind the packet")
	}
	return isConst(uint64(s.Owner.GID))
}

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
