package ipset

// Constants of include/uapi/linux/netfilter/ipset/ip_set.h, without the IPSET
// prefix.
const (
	subsystem = 6 // NFNL_SUBSYS_IPSET

	cmdProtocol = 1
	cmdList     = 7

	protocolNew = 7
	protocolOld = 6

	errProtocol = 4097 // IPSET_ERR_PROTOCOL
)

// Attributes of a command.
const (
	attrProtocol = 1
	attrSetName  = 2
	attrTypeName = 3
	attrRevision = 4
	attrFamily   = 5
	attrData     = 7
	attrADT      = 8
	attrIndex    = 11
)

// Attributes of the header of a set and of its elements.
const (
	dataIP       = 1
	dataIPTo     = 2
	dataCIDR     = 3
	dataPort     = 4
	dataPortTo   = 5
	dataTimeout  = 6
	dataProto    = 7
	dataFlags    = 8
	dataMark     = 10
	dataMarkMask = 11
	dataBitmask  = 12

	headNetmask  = 20
	headElements = 24

	elemEther   = 17
	elemName    = 18
	elemIP2     = 20
	elemCIDR2   = 21
	elemIface   = 23
	elemComment = 26

	addrIPv4 = 1
	addrIPv6 = 2
)

// Flags of a set and of an element (enum ipset_cadt_flags).
const (
	flagPhysdev      = 1 << 1
	flagNomatch      = 1 << 2
	flagWithCounters = 1 << 3
	flagWithComment  = 1 << 4
	flagForceAdd     = 1 << 5
	flagWithSKBInfo  = 1 << 6
	flagWildcard     = 1 << 7
)

// attrs walks netlink attributes:
//
//	for a := walk(b); a.next(); { switch a.typ { … a.val … } }
type attrs struct {
	b   []byte
	typ uint16
	val []byte
	bad bool // the bytes end within an attribute
}

func walk(b []byte) attrs { return attrs{b: b} }

func (a *attrs) next() bool {
	if len(a.b) < 4 {
		a.bad = a.bad || len(a.b) > 0
		return false
	}
	n := int(native16(a.b))
	if n < 4 || n > len(a.b) {
		a.bad = true
		return false
	}
	a.typ = native16(a.b[2:]) & 0x3fff
	a.val = a.b[4:n]
	a.b = a.b[min((n+3)&^3, len(a.b)):]
	return true
}
