package firewall

// FieldKind names what a match reads from a packet, its connection or its way.
type FieldKind uint8

// The fields. Unless said otherwise a field is a number in network byte order;
// names are sixteen bytes ([NameValue]). The A, B and C of [Field] are used
// only where said.
const (
	FieldNone FieldKind = iota

	// Headers.
	FieldNFProto   // NFPROTO_IPV4 2, NFPROTO_IPV6 10 (meta nfproto)
	FieldEtherType // meta protocol: 0x0800, 0x86dd
	FieldL4Proto   // transport protocol behind extension headers (meta l4proto, `-p`)
	FieldIPProto   // the byte in the IPv4 header / IPv6 next header (ip protocol, ip6 nexthdr)
	FieldSrcAddr
	FieldDstAddr
	FieldSrcPort
	FieldDstPort
	FieldTCPFlags // the low byte: CWR ECE URG ACK PSH RST SYN FIN
	FieldICMPType
	FieldICMPCode
	FieldIPVersion
	FieldFragment  // IPv4 flags and offset, 16 bits
	FieldExtHdr    // presence of IPv6 extension header A, or of IPv4 option A&^IPOption (1), or not (0)
	FieldTCPOption // presence of TCP option A
	FieldPayload   // A: base (0 link, 1 network, 2 transport, 3 inner), B: offset, C: length, bytes
	FieldSrcMAC
	FieldDstMAC
	FieldLength // of the packet, bytes
	FieldTTL    // or hop limit
	FieldDSCP   // 6 bits
	FieldECN    // 2 bits

	// The way.
	FieldInIndex
	FieldInName
	FieldInType // ARPHRD_*
	FieldInGroup
	FieldInKind // rtnl link kind as name bytes (meta iifkind)
	FieldOutIndex
	FieldOutName
	FieldOutType
	FieldOutGroup
	FieldOutKind
	FieldPhysIn // bridge port names of a bridged packet (physdev)
	FieldPhysOut
	FieldPktType // PACKET_HOST 0, BROADCAST 1, MULTICAST 2
	FieldMark
	FieldPriority
	FieldRealm
	FieldSecMark
	FieldSecPath     // 1 when the packet came through IPsec
	FieldFIBType     // type of an address (RTN_*); A: FIBSrc|FIBDst|FIBIn|FIBOut|FIBMark
	FieldFIBOutIndex // output interface of the route to an address; A as FieldFIBType. 0: none
	FieldFIBOutName
	FieldFIBPresent // 1 when a route exists, 0 when not; A as FieldFIBType
	FieldAddrType6  // xt_addrtype in IPv6: 1 when the mask B of XT_ADDRTYPE_* matches; A as FieldFIBType
	FieldRPFilter   // xt_rpfilter: 1 when the source passes; A: its flags (XT_RPFILTER_*)
	FieldRTNextHop  // next hop of the route (rt nexthop)
	FieldIPSec      // rt ipsec exists / meta secpath
	FieldCPU
	FieldRandom
	FieldTime // meta time, hour, day and xt_time
	FieldCgroup

	// The socket behind a packet.
	FieldSKUID
	FieldSKGID
	FieldSocket // A: Socket…; absent where no socket would be found

	// The connection.
	FieldCTState     // IP_CT bits as nft has them: invalid 1, established 2, related 4, new 8, untracked 64
	FieldCTStatus    // IPS_* bits
	FieldCTStateNAT  // xt_conntrack's --ctstate with SNAT or DNAT among the states: FieldCTState | SNAT 0x100 | DNAT 0x200
	FieldCTDirection // 0 original, 1 reply
	FieldCTMark
	FieldCTZone
	FieldCTLabel
	FieldCTHelper // name bytes
	FieldCTExpiration
	FieldCTL3Proto
	FieldCTL4Proto
	FieldCTSrcAddr // A: direction 0 original, 1 reply
	FieldCTDstAddr
	FieldCTSrcPort
	FieldCTDstPort
	FieldCTPackets
	FieldCTBytes
	FieldCTEventMask
	FieldCTSecMark

	// FieldUnknown is anything else: never readable from outside. Operand.Why
	// says what.
	FieldUnknown

	// The protocol addresses of an ARP message: what a FieldPayload of one reads
	// becomes these.
	FieldARPSender
	FieldARPTarget
)

// Flags of FieldFIBType, FieldFIBOut… and FieldFIBPresent (NFTA_FIB_F_*).
const (
	FIBSrc  = 1
	FIBDst  = 2
	FIBMark = 4
	FIBIn   = 8
	FIBOut  = 16
)

// What FieldSocket reads of the socket (NFT_SOCKET_*).
const (
	SocketTransparent = iota
	SocketMark
	SocketWildcard
	SocketCgroup
)

// Bits of FieldCTState (include/net/netfilter/nf_conntrack.h, NF_CT_STATE_BIT).
const (
	CTInvalid     = 1
	CTEstablished = 2
	CTRelated     = 4
	CTNew         = 8
	CTUntracked   = 64
	// Only in FieldCTStateNAT.
	CTSNAT = 0x100
	CTDNAT = 0x200
)

// IPOption marks the number of an IPv4 option in FieldExtHdr.
const IPOption = 1 << 8

// Bits of FieldCTStatus (include/uapi/linux/netfilter/nf_conntrack_common.h, IPS_*).
const (
	CTStatusExpected   = 1 << 0
	CTStatusSeenReply  = 1 << 1
	CTStatusAssured    = 1 << 2
	CTStatusConfirmed  = 1 << 3
	CTStatusSrcNAT     = 1 << 4
	CTStatusDstNAT     = 1 << 5
	CTStatusSrcNATDone = 1 << 7
	CTStatusDstNATDone = 1 << 8
)

// Field is one thing that can be read; comparable.
type Field struct {
	Kind    FieldKind
	A, B, C uint32
}

// Operand is a field as a match sees it: ((field & Mask) ^ Xor), shifted right
// by Shift bits (left when negative), cut to Len bytes.
type Operand struct {
	Field Field
	Len   int   // bytes, 1–16
	Mask  Value // MaxValue(Len) for no mask
	Xor   Value
	Shift int
	// HostOrder says that the kernel holds the number in host byte order when
	// it looks it up in a set, so that the bytes of the set's keys have to be
	// read that way (marks, interface indexes, conntrack state, …).
	HostOrder bool
	// Why names a FieldUnknown for the reader of a condition.
	Why string
}

// Plain returns the operand that is the field itself, n bytes wide.
func Plain(k FieldKind, n int) Operand {
	return Operand{Field: Field{Kind: k}, Len: n, Mask: MaxValue(n)}
}

// Masked returns the operand field & mask.
func Masked(k FieldKind, n int, mask Value) Operand {
	return Operand{Field: Field{Kind: k}, Len: n, Mask: mask}
}

// apply computes the operand from the field's value.
func (o *Operand) apply(v Value) Value {
	v = v.And(o.Mask).Xor(o.Xor)
	switch {
	case o.Shift > 0:
		v = v.Shr(uint(o.Shift))
	case o.Shift < 0:
		v = v.Shl(uint(-o.Shift))
	}
	return v.And(MaxValue(o.Len))
}

func (o *Operand) isPlain() bool {
	return o.Mask == MaxValue(o.Len) && o.Xor.IsZero() && o.Shift == 0
}
