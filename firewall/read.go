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
