package route

import (
	"net/netip"

	"github.com/hostaudit/hostaudit/firewall"
)

// VerdictKind is what routing does with a packet.
type VerdictKind uint8

// The kinds of verdict.
const (
	// Unknown: it cannot be told; Verdict.Unknown says why.
	Unknown VerdictKind = iota
	// Local: the packet is for this host. For Output: it goes over lo.
	Local
	// Forward: the packet is sent on by one of Hops.
	Forward
	// Send: a packet made here leaves by one of Hops.
	Send
	// Drop: the packet is thrown away. Where ICMP is not nil the sender is told.
	Drop
	// Fail: no packet can be sent; the sender on this host gets Errno.
	Fail
)

func (k VerdictKind) String() string {
	return [...]string{"unknown", "local", "forward", "send", "drop", "fail"}[k]
}

// Why is the kind of reason for a Drop or Fail.
type Why uint8

// The reasons.
const (
	NoReason           Why = iota
	RPFilter               // the reverse-path filter
	MartianSource          // no such source can come in (multicast, broadcast, 0/8, one of the host's own)
	MartianDestination     // no such destination can be routed (0/8, …)
	RouteLocalnet          // 127/8 from outside and route_localnet off
	NoRoute                // nothing found
	Blackhole
	Unreachable    // an `unreachable` route or rule
	Prohibit       // a `prohibit` route or rule
	ForwardingOff  // not for this host, and it does not forward
	FamilyOff      // the interface does not do this address family
	BeyondScope    // IPv6: a link-local source cannot be forwarded
	NoSuchSource   // Output: the source is no address of this host
	LoopbackSource // Output: 127/8 cannot leave by a real interface
)

func (w Why) String() string {
	return [...]string{
		"", "reverse-path filter", "martian source", "martian destination", "route_localnet", "no route", "blackhole",
		"unreachable", "prohibited", "forwarding off", "address family off", "beyond scope", "no such source", "loopback source",
	}[w]
}

// ICMP is the error the sender of a dropped packet is told.
type ICMP struct{ Type, Code uint8 }

// WitnessKind is the kind of thing that decided.
type WitnessKind uint8

// The kinds of witness.
const (
	NoWitness WitnessKind = iota // nothing in particular: no route there, or a fixed rule of the kernel
	RouteWitness
	RuleWitness
	SysctlWitness
	AddressWitness
)

// Witness is the one thing that decided, as the operator's tool prints it:
// `ip route show table all`, `ip rule`, `sysctl`, or for a fixed rule of the
// kernel a sentence.
type Witness struct {
	Kind WitnessKind
	Text string
}

// NextHop is a way a packet can leave.
type NextHop struct {
	Link *firewall.Link
	// Gateway is the neighbour; the zero Addr: the destination itself.
	Gateway netip.Addr
}

// Verdict is what routing does with a packet, and what decided.
type Verdict struct {
	Kind VerdictKind
	// Link is, for Local, the interface whose route makes the address local (lo
	// for 127/8 and AnyIP on lo).
	Link *firewall.Link
	// Broadcast: Local or Send to a broadcast or multicast address, which TCP
	// does not take. Anycast: to an IPv6 anycast address.
	Broadcast, Anycast bool
	// Hops are, for Forward and Send, the ways the packet can take. More than
	// one: a hash of the flow chooses, with a key no reading tells.
	Hops    []NextHop
	Why     Why
	ICMP    *ICMP
	Errno   string // Fail: "EINVAL", "ENETUNREACH", "EHOSTUNREACH", "EACCES"
	Witness Witness
	// Detail says more than the witness: where the way back to the source leads.
	Detail  string
	Unknown string
}

// Out returns the interface of a Forward or Send where it is certain.
func (v *Verdict) Out() *firewall.Link {
	if len(v.Hops) == 0 {
		return nil
	}
	for _, h := range v.Hops[1:] {
		if h.Link.Index != v.Hops[0].Link.Index {
			return nil
		}
	}
	return v.Hops[0].Link
}

// Part is one part of a partition: addresses (the set that was asked about) and
// the verdict they share.
type Part struct {
	Addrs firewall.Ranges
	Verdict
}
