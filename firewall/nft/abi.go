package nft

import "encoding/binary"

// Message types and attributes of nfnetlink and nf_tables, named as in
// include/uapi/linux/netfilter/nf_tables.h without the NFT prefixes.
const (
	subsysTables = 10 // NFNL_SUBSYS_NFTABLES
	subsysHook   = 12 // NFNL_SUBSYS_HOOK

	msgGetTable     = 1
	msgGetChain     = 4
	msgGetRule      = 7
	msgGetSet       = 10
	msgGetSetElem   = 13
	msgGetGen       = 16
	msgGetObj       = 19
	msgGetFlowtable = 23

	msgHookGet = 0 // NFNL_MSG_HOOK_GET
)

// Protocol families (include/uapi/linux/netfilter.h).
const (
	nfprotoUnspec = 0
	nfprotoInet   = 1
	nfprotoIPv4   = 2
	nfprotoARP    = 3
	nfprotoNetdev = 5
	nfprotoBridge = 7
	nfprotoIPv6   = 10
)

// Attributes of tables, chains, hooks, rules, flowtables and objects.
const (
	tableName   = 1
	tableFlags  = 2
	tableHandle = 4
	tableOwner  = 7

	tableDormant = 1 // NFT_TABLE_F_DORMANT

	chainTable    = 1
	chainHandle   = 2
	chainName     = 3
	chainHook     = 4
	chainPolicy   = 5
	chainUse      = 6
	chainType     = 7
	chainFlags    = 10
	chainUserdata = 12

	chainFBinding = 4 // NFT_CHAIN_BINDING

	hookNum      = 1
	hookPriority = 2
	hookDev      = 3
	hookDevs     = 4

	deviceName   = 1 // NFTA_DEVICE_NAME
	devicePrefix = 2 // NFTA_DEVICE_PREFIX, since 6.16: a wildcard

	ruleTable       = 1
	ruleChain       = 2
	ruleHandle      = 3
	ruleExpressions = 4
	rulePosition    = 6
	ruleUserdata    = 7

	listElem = 1
	exprName = 1
	exprData = 2

	flowtableTable = 1
	flowtableName  = 2

	objTable = 1
	objName  = 2
	objType  = 3
	objData  = 4

	genID = 1
)

// Kinds of stateful objects (NFT_OBJECT_*).
const (
	objectCounter     = 1
	objectQuota       = 2
	objectCTHelper    = 3
	objectLimit       = 4
	objectConnlimit   = 5
	objectTunnel      = 6
	objectCTTimeout   = 7
	objectSecmark     = 8
	objectCTExpect    = 9
	objectSynproxy    = 10
	objectKindUnknown = 0
)

// Sets and their elements.
const (
	setTable       = 1
	setName        = 2
	setFlags       = 3
	setKeyType     = 4
	setKeyLen      = 5
	setDataType    = 6
	setDataLen     = 7
	setDesc        = 9
	setTimeout     = 11
	setUserdata    = 13
	setObjType     = 15
	setHandle      = 16
	setExpr        = 17
	setExpressions = 18
	setType        = 19 // since 6.16
	setCount       = 20 // since 6.16

	descSize   = 1
	descConcat = 2
	fieldLen   = 1

	setFAnonymous = 0x1
	setFConstant  = 0x2
	setFInterval  = 0x4
	setFMap       = 0x8
	setFTimeout   = 0x10
	setFEval      = 0x20
	setFObject    = 0x40
	setFConcat    = 0x80
	setFExpr      = 0x100

	elemListTable    = 1
	elemListSet      = 2
	elemListElements = 3

	elemKey         = 1
	elemData        = 2
	elemFlags       = 3
	elemTimeout     = 4
	elemExpiration  = 5
	elemUserdata    = 6
	elemExpr        = 7
	elemObjref      = 9
	elemKeyEnd      = 10
	elemExpressions = 11

	elemFIntervalEnd = 1
	elemFCatchAll    = 2

	dataValue   = 1
	dataVerdict = 2

	verdictCode  = 1
	verdictChain = 2

	dataTypeVerdict = 0xffffff00 // NFT_DATA_VERDICT
)

// Verdict codes of nf_tables beside NF_DROP 0, NF_ACCEPT 1 and NF_QUEUE 3.
const (
	verdictContinue = -1
	verdictBreak    = -2
	verdictJump     = -3
	verdictGoto     = -4
	verdictReturn   = -5
)

// Keys of meta (NFT_META_*).
const (
	metaLen = iota
	metaProtocol
	metaPriority
	metaMark
	metaIIF
	metaOIF
	metaIIFName
	metaOIFName
	metaIIFType
	metaOIFType
	metaSKUID
	metaSKGID
	metaNFTrace
	metaRTClassID
	metaSecmark
	metaNFProto
	metaL4Proto
	metaBriIIFName
	metaBriOIFName
	metaPktType
	metaCPU
	metaIIFGroup
	metaOIFGroup
	metaCgroup
	metaPRandom
	metaSecPath
	metaIIFKind
	metaOIFKind
	metaBriIIFPVID
	metaBriIIFVProto
	metaTimeNS
	metaTimeDay
	metaTimeHour
	metaSDIF
	metaSDIFName
	metaBriBroute
)

// Keys of ct (NFT_CT_*).
const (
	ctState = iota
	ctDirection
	ctStatus
	ctMark
	ctSecmark
	ctExpiration
	ctHelper
	ctL3Protocol
	ctSrc
	ctDst
	ctProtocol
	ctProtoSrc
	ctProtoDst
	ctLabels
	ctPkts
	ctBytes
	ctAvgPkt
	ctZone
	ctEventMask
	ctSrcIP
	ctDstIP
	ctSrcIP6
	ctDstIP6
	ctID
)

// hostLittle says that numbers in host byte order lie in registers with the
// least significant byte first.
var hostLittle = binary.NativeEndian.Uint16([]byte{1, 0}) == 1
