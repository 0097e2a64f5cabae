package firewall

// Hook is a place on a packet's way where base chains are called.
//
//	wire ─▶ ingress ─▶ prerouting ─▶ (route) ─▶ input ─▶ socket
//	                                   │
//	                                   └─▶ forward ─▶ postrouting ─▶ egress ─▶ wire
//	socket ─▶ (route) ─▶ output ─▶ postrouting ─▶ egress ─▶ wire or lo
type Hook uint8

// The hooks, in the order of the kernel (NF_INET_*), then those of a device.
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
	Ingress
	Egress
)

var hookNames = [...]string{"prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"}

func (h Hook) String() string {
	if int(h) < len(hookNames) {
		return hookNames[h]
	}
	return "hook?"
}

// Priorities of the kernel's own hooks (include/uapi/linux/netfilter_ipv4.h,
// NF_IP_PRI_*; the same in IPv6).
const (
	PriorityDefrag    = -400
	PriorityRaw       = -300
	PriorityConntrack = -200
	PriorityMangle    = -150
	PriorityDstNAT    = -100
	PriorityFilter    = 0
	PrioritySecurity  = 50
	PrioritySrcNAT    = 100
)

// ChainType is the type of a base chain.
type ChainType uint8

// The chain types. A legacy table "nat" has ChainNAT, the legacy mangle
// table's OUTPUT chain ChainRoute, all others ChainFilter.
const (
	ChainFilter ChainType = iota
	ChainNAT
	ChainRoute
)

// Ruleset is everything netfilter holds in one network namespace.
type Ruleset struct {
	Tables []*Table
	// Order holds, per hook, the order in which the kernel calls the base
	// chains, where it could be read (NFNL_SUBSYS_HOOK); nil otherwise. Only
	// with it is the order of chains of equal priority known.
	Order map[Hook][]*Chain
	// Flowtables are the names of flowtables ("inet filter ft"): once a flow is
	// in one, its packets pass no chain. First packets always do.
	Flowtables []string

	remembered remembered
	tracking   tracking
}

// Table is one table of one back end.
type Table struct {
	Backend Backend
	Family  TableFamily
	Name    string
	Handle  uint64
	Dormant bool   // NFT_TABLE_F_DORMANT: its chains are not called
	Owner   uint32 // netlink port id of the owning process, 0 for none
	Chains  []*Chain
	Sets    []*Set
}

// Chain is a base chain (Base is set) or a regular, user-defined one.
type Chain struct {
	Table  *Table
	Name   string
	Handle uint64
	Base   *Base
	Rules  []*Rule
	// Raw is not empty where the rules could not be read: why. Such a chain
	// is opaque as a whole.
	Unread string

	compiled compiledChain
}

// Base is what makes a chain a base chain.
type Base struct {
	Type     ChainType
	Hook     Hook
	Priority int
	Devices  []string    // of ingress and egress chains; a trailing * is a wildcard
	Policy   VerdictKind // Accept or Drop
}

// Rule is one rule: statements in the order of the kernel. A legacy rule's
// matches come first and its target last.
type Rule struct {
	Chain *Chain
	// Number counts the rules of the chain from 1, as `iptables -L
	// --line-numbers` does.
	Number int
	Handle uint64 // of nf_tables, 0 in legacy tables
	Stmts  []Stmt
	// Print gives the rule as its own tool prints it (`nft list ruleset`,
	// `iptables -S`). It is called only for rules that are shown.
	Print func(*Rule) string
	// Comment is the operator's comment, "" for none. Host text: hostile.
	Comment string
	// Packets counts what the rule has matched so far, -1 where it has no
	// counter.
	Packets int64
}

// Text returns the rule as its own tool prints it.
func (r *Rule) Text() string {
	if r.Print == nil {
		return ""
	}
	return r.Print(r)
}

// VerdictKind is what a rule or policy says about a packet.
type VerdictKind uint8

// The verdicts. Continue is no verdict at all: the next rule is next.
const (
	Continue VerdictKind = iota
	Accept
	Drop
	Return
	Jump
	Goto
	Queue
	Stolen
)

var verdictNames = [...]string{"continue", "accept", "drop", "return", "jump", "goto", "queue", "stolen"}

func (v VerdictKind) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "verdict?"
}
