package firewall

import "net/netip"

// Link is a network interface as rules see it.
type Link struct {
	Index int
	Name  string
	Type  uint16 // ARPHRD_*: 1 ether, 772 loopback
	Group uint32
	Kind  string // rtnl link kind: "veth", "bridge", "" for physical
	// Master is the bridge or VRF the link is a port of, nil for none.
	Master *Link
	MAC    []byte
}

// RemoteKind tells how the remote peer's address or port looks to a rule now.
type RemoteKind uint8

// The kinds of remote address or port.
const (
	RemoteSame    RemoteKind = iota // the original one: that of the class
	RemoteConst                     // translated to State.RemoteAddr / RemotePort
	RemoteShifted                   // original + State.RemoteAddr (NETMAP)
	RemoteUnknown                   // translated to something a reading cannot tell
)

// Known is a number that may be unknown.
type Known struct {
	Value   uint32
	Unknown bool
}

// Owner is the socket behind a locally made packet, for `meta skuid` and xt
// owner.
type Owner struct {
	UID, GID   uint32
	UIDUnknown bool
	GIDUnknown bool
}

// State is everything of a packet that is one concrete thing for all packets of
// a class. States are compared with ==.
type State struct {
	Family Family
	Proto  Proto
	// FlowProto is the protocol of the flow's first packet; an ICMP error about it
	// has another (nf_ct_attach).
	FlowProto Proto
	// ARP is the operation of an ARP message (ARPRequest, ARPReply), 0 for IP
	// packets. The peer's address is the sender's protocol address, or the target's
	// with Reply.
	ARP uint8
	// Reply: the packet goes to the remote peer instead of coming from it.
	Reply bool

	// The remote peer, as a rule sees it now.
	RemoteAddrKind RemoteKind
	RemoteAddr     Value
	RemotePortKind RemoteKind
	RemotePort     uint16

	// This side, as a rule sees it now.
	Local     Value
	LocalPort uint16
	// LocalUnknown: translated to something that a reading cannot tell.
	LocalUnknown, LocalPortUnknown bool

	TCPFlags           uint8
	ICMPType, ICMPCode uint8
	// HopLimit is the TTL or hop limit where it is known, otherwise 0.
	HopLimit uint8
	// ShortWay: a rule set a TTL that may not be enough for the packet's way.
	ShortWay bool
	In, Out  *Link
	// Routed: the packet has a route (skb_dst), which what comes in by the wire
	// gets behind prerouting and what is made here from the beginning.
	Routed bool

	Mark     Known
	Priority Known
	PktType  uint8

	// What the peer's address and port were when the packet came into this
	// namespace: of RemoteSame kind unless another namespace of this host
	// translated them before.
	BaseAddrKind RemoteKind
	BaseAddr     Value
	BasePortKind RemoteKind
	BasePort     uint16

	// Connection. CTState is 0 while conntrack has not seen the packet.
	CTState  uint8
	CTStatus uint32
	CTMark   Known
	// CTZone is the zone the packet is to be tracked in or, once it is, that of
	// its connection, ZoneDir the directions it counts for; FlowZone and
	// FlowZoneDir are those of the connection.
	CTZone, FlowZone     uint16
	ZoneDir, FlowZoneDir ZoneDir
	// Template: a zone or a helper is chosen, and conntrack has not seen the
	// packet yet.
	Template   bool
	CTHelper   string
	CTLabelled bool // labels were set
	// Original and reply tuple's this-side address and port: the original
	// destination before DNAT, and the one after.
	OrigLocal     Value
	OrigLocalPort uint16
	// Expect is what conntrack will make of the packet when it sees it: CTNew,
	// CTEstablished or CTInvalid (0 counts as CTNew).
	Expect uint8
	// DstNATInit and SrcNATInit tell which manipulations of the flow are
	// settled, so that nat chains are not asked again (nf_nat_initialized).
	DstNATInit, SrcNATInit bool

	// Reroute: a chain of type route (legacy: mangle OUTPUT) changed the mark
	// or the DSCP field of a locally made packet, so that it is routed again
	// (nf_route_table_hook4, ipt_mangle_out).
	Reroute bool

	// DSCPSet: a rule set the DSCP field, and the routing asks for it (Env.DSCP).
	DSCPSet bool

	// TProxied: a TPROXY rule chose the socket at TProxyAddr:TProxyPort.
	TProxied   bool
	TProxyAddr Value
	TProxyPort uint16

	// RewroteHeader: a payload rewrite that the model cannot follow.
	RewroteHeader string

	Owner *Owner // nil: no socket known to stand behind the packet
	// OwnerUnknown: there may be a socket that the reading did not show.
	OwnerUnknown bool

	touched *touched
	// TCPStrict: only a SYN begins a connection (nf_conntrack_tcp_loose is 0).
	TCPStrict bool
	// Clash: the packet begins a flow in a zone of its own whose answers another flow
	// holds. It is dropped where conntrack would confirm it; where the namespace
	// translates, its source port becomes another.
	Clash bool
	// NextClash: the packet (a SYN-ACK) begins no flow there; what its sender sends
	// next does, and clashes.
	NextClash bool
	// Following: a client's packet after the SYN, with data or without.
	Following bool
	// flow is the translated first packet of the connection, of a later one.
	flow *State
	// found is the packet as its flow knows it, where conntrack did not find it in
	// another zone and took it for invalid.
	found *State
}

// touched is the list of sets the packet itself has changed on its way.
type touched struct {
	name string
	set  *Set
	next *touched
}

// Class is a set of packets: every remote address in Remote combined with every
// remote port in Ports, all in one State. Remote and Ports are the peer's
// original address and port, before any translation, whatever the direction
// of the packet.
type Class struct {
	Remote Ranges
	Ports  Ranges
	State  State
	// Forks are the undecided rules behind which this class stands.
	Forks *Fork
	// Trace is the way so far, newest first; nil unless the evaluator records it.
	Trace *Step
}

// Fork is a place where the evaluator had to follow both ways: a rule or thing
// whose outcome a reading of the host cannot tell.
type Fork struct {
	Condition Condition
	next      *Fork
	depth     int
}

// Condition names a rule or object on which an answer depends, and what it
// turns on.
type Condition struct {
	Rule   *Rule // nil where it is no rule
	Object string
	Why    string
}

// Step is one line of a trace.
type Step struct {
	Hook    Hook
	Chain   *Chain
	Rule    *Rule // nil: the chain's policy, or a note
	Outcome Outcome
	Why     string // what decided: "the connection is new", "203.0.113.5 is not in …"
	Verdict VerdictKind
	Note    string
	Prev    *Step
}

// Outcome is the answer of a match: it does not, it does, or it cannot be told.
type Outcome uint8

// The outcomes.
const (
	No Outcome = iota
	Yes
	CannotTell
)

// Parts is a class split by a match. Each slice holds disjoint pieces.
type Parts struct {
	Yes, No, Maybe []Piece
	// Why names what Maybe turns on.
	Why string
}

// Piece is a part of a class: remote addresses times remote ports.
type Piece struct{ Remote, Ports Ranges }

// FIB is the routing of the host as rules can ask for it. Implemented by
// audit/route; nil makes everything that needs it cannot-tell.
type FIB interface {
	// AddrType partitions addrs by their type (RTN_*: 1 unicast, 2 local, 3
	// broadcast, 4 anycast, 5 multicast, 6 blackhole, 7 unreachable, 8
	// prohibit): `fib … type`, and xt_addrtype in IPv4.
	AddrType(addrs Ranges, q FIBQuery) []FIBPart
	// AddrType6 partitions addresses into those that the mask of xt_addrtype
	// matches in IPv6 (Value 1) and those it does not (Value 0); with dev not nil
	// only that interface counts.
	AddrType6(addrs Ranges, dev *Link, mask uint16) []FIBPart
	// OutIndex partitions addrs by the output interface of the route to them
	// (Index in FIBPart.Value, 0 for none): `fib … oif`.
	OutIndex(addrs Ranges, q FIBQuery) []FIBPart
	// LinkName is the name of the interface with an index, "" for none.
	LinkName(index int) string
	// RPFilter partitions source addresses into those xt_rpfilter accepts
	// (Value 1) and those it does not (Value 0).
	RPFilter(f Family, srcs Ranges, in *Link, mark uint32, flags uint32, dst Value) []FIBPart
	// Realms partitions source addresses of IPv4 by the realm that the route of a
	// packet from them to a socket of this host has (dst.tclassid).
	Realms(srcs Ranges, in *Link, dst Value) []FIBPart
	// HasRealms reports whether any IPv4 route or routing rule has a realm.
	HasRealms() bool
	// RedirectAddr is the address REDIRECT translates to for packets that came
	// in by link (nil: made on this host).
	RedirectAddr(f Family, in *Link, dst Value) (Value, bool)
	// DNATTakesFirstPort: where the port of a packet is outside of the range it is
	// translated to, the first of the range is taken; kernels between 5.0 and 6.8
	// take any, unasked, and older ones the next in turn.
	DNATTakesFirstPort() bool
	// BigEndian is the byte order of the host, in which it hashes addresses.
	BigEndian() bool
	// TProxyAddr is where TPROXY looks for a socket when its rule names no address.
	TProxyAddr(f Family, in *Link, dst Value) Value
	// MasqueradeAddrs are the source addresses that MASQUERADE may take for packets
	// to dst that leave by out; none: it cannot be told.
	MasqueradeAddrs(f Family, out *Link, dst Value) []Value
}

// FIBQuery is what a routing question of a rule is keyed with.
type FIBQuery struct {
	Family Family
	Proto  Proto
	Mark   uint32 // 0 unless the rule says `. mark`
	// Other is the packet's other address: the destination where the source is
	// asked about, and the other way round. OtherUnknown: it is not one address.
	Other        Value
	OtherUnknown bool
	// In and Out are set where the rule says `. iif` or `. oif`.
	In, Out *Link
	// PacketIn and PacketOut are the interfaces of the packet itself.
	PacketIn, PacketOut *Link
	// Source: the source address is asked about.
	Source bool
}

// FIBPart is one part of a partition by a routing question.
type FIBPart struct {
	Addrs Ranges
	Value uint32
	// Unknown says why it cannot be told; "" when it can.
	Unknown string
}

// Env is what matches may ask besides the packet.
type Env struct {
	FIB FIB
	// NoIPSec: the host has no IPsec state or policy, so that no packet comes
	// through a tunnel.
	NoIPSec bool
	// SocketFor reads of the socket that a packet which came in would find
	// (FieldSocket; key is Socket…); false where there is none. nil: cannot tell.
	SocketFor func(c *Class, key uint32) (Known, bool)
	// TProxyTo tells whether a listener takes a packet that TPROXY sends to
	// addr:port; nil: cannot tell.
	TProxyTo func(st *State, addr netip.Addr, port uint16) Outcome
	// DSCP: the routing somewhere asks for the DSCP field of packets.
	DSCP bool
	// Record tells how much of a trace the evaluator keeps.
	Record RecordLevel
	// Accepted, when not nil, is told of every piece of a class that a rule
	// accepted (or the rules of a painting, each for its sources), and whether
	// that is certain. Without either it is the policy that let a piece pass, which
	// a rule may have accepted as well.
	Accepted func(h Hook, base *Chain, r *Rule, by *Painting, p Piece, sure bool)
	// Queue lists the NFQUEUE numbers that a program listens on; nil: not read.
	Queues map[uint16]bool
}

// RecordLevel tells how much of a trace is kept in Class.Trace.
type RecordLevel uint8

// The levels: nothing, the verdicts of base chains, every rule.
const (
	RecordNothing RecordLevel = iota
	RecordVerdicts
	RecordRules
)
