package firewall

// Stmt is one statement of a rule. The concrete types are the matches
// ([Matcher]) and
//
//	*SetField *SetPayload *NAT *Verdict *VerdictMap *Reject *QueueTo *TProxy
//	*SynProxy *Notrack *SetUpdate *Inert *Opaque *Connmark
type Stmt interface{ stmt() }

// Matcher is a statement that lets a packet on to the rest of its rule, or not.
type Matcher interface {
	Stmt
	// Split tells which packets of the class match. It is pure.
	Split(c *Class, env *Env) Parts
}

// Source is where a rewrite or a translation takes a value from.
type Source interface{ source() }

// Const is a constant value.
type Const struct{ Value Value }

// FromField is the value of an operand.
type FromField struct{ Operand Operand }

// FromMap is the data of the element of Map that the operands find; Offset and
// Len cut a part out of concatenated data (bytes; Len 0: all of it). When no
// element is found the rule ends without a match.
type FromMap struct {
	Keys        []Operand
	Map         *Set
	Offset, Len int
	// HostOrder tells how the bytes of the data are to be read.
	HostOrder bool
}

// FromNowhere is a value that a reading of the host cannot tell (numgen,
// random, hash): Why names it.
type FromNowhere struct{ Why string }

func (Const) source()       {}
func (*FromField) source()  {}
func (*FromMap) source()    {}
func (FromNowhere) source() {}

// SetField writes a field: FieldMark, FieldCTMark, FieldPriority, FieldPktType,
// FieldCTZone, FieldCTLabel, FieldCTHelper, FieldSecMark, FieldCTEventMask, FieldCTSecMark.
// With Keep the new value is (old & Keep) ^ From instead of From (MARK
// --set-xmark, `meta mark set mark and … xor …`).
type SetField struct {
	Kind FieldKind
	From Source
	Keep *Value
	// Dir is the direction that a zone counts for.
	Dir ZoneDir
}

// Connmark is CONNMARK --save-mark (ToConnection) or --restore-mark, with
// their masks (xt_connmark_tg): save: ctmark = (ctmark & ^CTMask) ^ (mark & NFMask);
// restore: mark = (mark & ^NFMask) ^ (ctmark & CTMask).
type Connmark struct {
	ToConnection   bool
	CTMask, NFMask uint32
}

// SetPayload rewrites Len bytes of the packet at Offset of Base; Field names
// the header field where it is a whole known one, FieldNone otherwise.
type SetPayload struct {
	Base, Offset, Len int
	Field             FieldKind
	From              Source
}

// NATKind is a kind of address translation.
type NATKind uint8

// The kinds of translation.
const (
	DNAT NATKind = iota
	SNAT
	Masquerade
	Redirect
)

// Flags of a translation (NF_NAT_RANGE_*).
const (
	NATRandom      = 4
	NATPersistent  = 8
	NATFullyRandom = 16
	NATPortOffset  = 32
	NATNetmap      = 64
)

// NAT translates the connection. AddrMin is nil where the address is not
// changed (or chosen by the kernel: Masquerade, Redirect), PortMin where the
// port is not. AddrMax and PortMax are nil for a single value.
// With NATNetmap AddrMin and AddrMax are the ends of the new network, and the
// host part is kept.
type NAT struct {
	Kind             NATKind
	Family           Family // 0: that of the packet
	AddrMin, AddrMax Source
	PortMin, PortMax Source
	// PortBase is the base of NATPortOffset (`--to-destination a:lo-hi/base`).
	PortBase uint16
	Flags    uint32
}

// Verdict ends the rule with a fixed verdict.
type Verdict struct {
	Kind  VerdictKind
	Chain *Chain // of Jump and Goto
}

// VerdictMap ends the rule with the verdict of the element that the operands
// find; without one the rule does not match.
type VerdictMap struct {
	Keys []Operand
	Map  *Set
}

// Reject answers the packet and drops it.
type Reject struct {
	TCPReset bool
	// Type and Code of the ICMP or ICMPv6 error, of the packet's family.
	V4Type, V4Code uint8
	V6Type, V6Code uint8
}

// QueueTo hands the packet to a program in user space. Without Bypass it is
// dropped while no program listens; with one anything can happen.
type QueueTo struct {
	From, To uint16
	Bypass   bool
}

// TProxy hands the packet to a local socket at another address (nil: that of
// the incoming interface) without rewriting it. It takes effect only where such a socket exists; otherwise xt
// drops and nft breaks.
type TProxy struct {
	Addr, Port Source
	// MarkValue and MarkMask are what xt_TPROXY sets: (mark & ^mask) ^ value.
	MarkValue, MarkMask uint32
	XT                  bool
}

// SynProxy answers the SYN itself and goes on only after the handshake.
type SynProxy struct{}

// Notrack exempts the packet from connection tracking; Zone, Helper and so on
// of xt's CT target are not nil in With.
type Notrack struct{}

// CTTemplate is xt's CT target without --notrack: the connection gets a zone
// or a helper. Zone is 0 for none.
type CTTemplate struct {
	Zone   uint16
	Dir    ZoneDir
	Helper string
	// ZoneOfMark: the zone is the packet's mark.
	ZoneOfMark bool
}

// SetUpdate adds, updates or deletes an element of a set from the packet path
// (nft dynset, xt SET and recent --set). Limited says that the element carries
// a limit, quota or count, so that the statement may break the rule: then its
// outcome cannot be told.
type SetUpdate struct {
	Op      string // add, update, delete
	Keys    []Operand
	Set     *Set   // nil for xt SET and recent
	Name    string // of the set or list
	Limited string // "" or what limits it
	// Invert is set for `! add …` forms (NFT_DYNSET_F_INV).
	Invert bool
}

// Inert has no effect on the packet: counter, log, comment, TRACE, AUDIT,
// TCPMSS, DSCP, CHECKSUM, CLASSIFY and the like.
type Inert struct{ Name, Detail string }

// Opaque is what the model does not know. As a match (MayEnd false) it may
// match or not. With MayEnd it may also end the packet's way in any manner.
type Opaque struct {
	Name   string
	Reason string // for the reader: what the answer turns on
	Raw    []byte
	MayEnd bool
}

func (*SetField) stmt()   {}
func (*Connmark) stmt()   {}
func (*SetPayload) stmt() {}
func (*NAT) stmt()        {}
func (*Verdict) stmt()    {}
func (*VerdictMap) stmt() {}
func (*Reject) stmt()     {}
func (*QueueTo) stmt()    {}
func (*TProxy) stmt()     {}
func (*SynProxy) stmt()   {}
func (*Notrack) stmt()    {}
func (*CTTemplate) stmt() {}
func (*SetUpdate) stmt()  {}
func (*Inert) stmt()      {}
func (*Opaque) stmt()     {}
