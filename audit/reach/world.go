package reach

import (
	"net/netip"
	"strings"

	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// World is everything on one host that a packet can meet: its network
// namespaces, the audited one first.
type World struct {
	Namespaces []*Namespace
}

// Namespace is one network namespace as it was read. A nil part could not be
// read; Unread says why, and answers that need it are "depends".
type Namespace struct {
	// ID is the inode of the namespace.
	ID uint64
	// Name is "" for the audited namespace, otherwise what an operator calls
	// it: the name in /run/netns, a container's name or id, or "pid 4711".
	Name      string
	Ruleset   *firewall.Ruleset
	Route     *route.Table
	Listeners *listeners.Table
	Programs  []Program
	// Unread maps a part ("firewall", "routes", "listeners", "programs") to the
	// reason why it could not be read.
	Unread map[string]string
	// Peers maps the index of a link (veth) to the namespace and index at its
	// other end.
	Peers map[int]Peer
	// Queues are the NFQUEUE numbers a program listens on
	// (/proc/net/netfilter/nfnetlink_queue); nil when that was not read.
	Queues map[uint16]bool
	// NoIPSec: neither IPsec policies nor states exist.
	NoIPSec bool
}

// Named tells a namespace that has a name of its own: not only a process in it, and
// not the machine's first.
func (ns *Namespace) Named() bool {
	return ns.Name != "" && ns.Name != "host" && !strings.HasPrefix(ns.Name, "pid ")
}

// Peer is the other end of a virtual link.
type Peer struct {
	Namespace uint64 // inode, as Namespace.ID
	Link      int
}

// Program is something beside netfilter that can decide about packets.
type Program struct {
	// Kind is xdp, tc, cgroup, netfilter, sk_lookup, ipvs or vrf.
	Kind string
	// Name is the program's own name, "" when it has none. Host text.
	Name string
	ID   uint32
	// Place says where it sits: "eth0 ingress", "/system.slice/web.service ingress".
	Place string
	// Link is the index of the interface it sits on, 0 for none.
	Link int
	// Cgroup is the path of the control group it sits on, "" for none; with
	// CgroupID as inet_diag tells it.
	Cgroup   string
	CgroupID uint64
	// In and Out: which direction it sees.
	In, Out bool
	// Hook and Family of a netfilter program.
	Hook   firewall.Hook
	Family firewall.Family
}

// Query asks whether a packet reaches a port.
type Query struct {
	Proto firewall.Proto
	// From is the client's address; invalid for "all of them".
	From netip.Addr
	// FromPort is the client's port, 0 for any unprivileged one.
	FromPort uint16
	// To is the address dialled; invalid for "each address of the interface".
	To   netip.Addr
	Port uint16
	// Iif is the interface the client's packets come in by; "" for the one that
	// the route back to From names, or all of them without From.
	Iif string
}
