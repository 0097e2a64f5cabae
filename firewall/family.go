package firewall

import (
	"fmt"
	"net/netip"
)

// Family is the address family of a packet: what the IP header says, not the
// family of a table.
type Family uint8

// The address families of a packet.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// FamilyOf returns the family of an address; an IPv4-mapped address is IPv4.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() || a.Is4In6() {
		return IPv4
	}
	return IPv6
}

// AddrLen is the length of an address in bytes: 4 or 16.
func (f Family) AddrLen() int {
	if f == IPv4 {
		return 4
	}
	return 16
}

func (f Family) String() string {
	if f == IPv4 {
		return "ip"
	}
	return "ip6"
}

// TableFamily is the family of a table, as nft names it. Legacy tables are
// "ip" or "ip6".
type TableFamily string

// The families of tables (include/uapi/linux/netfilter.h, NFPROTO_*).
const (
	TableIP     TableFamily = "ip"
	TableIP6    TableFamily = "ip6"
	TableInet   TableFamily = "inet"
	TableNetdev TableFamily = "netdev"
	TableBridge TableFamily = "bridge"
	TableARP    TableFamily = "arp"
)

// Sees reports whether a chain of a table of family t is called for IP packets
// of family f. Bridge and arp chains never are, netdev chains always are.
func (t TableFamily) Sees(f Family) bool {
	switch t {
	case TableIP:
		return f == IPv4
	case TableIP6:
		return f == IPv6
	case TableInet, TableNetdev:
		return true
	default:
		return false
	}
}

// Proto is an IP protocol number (include/uapi/linux/in.h, IPPROTO_*).
type Proto uint8

// The protocols the model tells apart by name.
const (
	ICMP    Proto = 1
	TCP     Proto = 6
	UDP     Proto = 17
	DCCP    Proto = 33
	ESP     Proto = 50
	AH      Proto = 51
	ICMPv6  Proto = 58
	SCTP    Proto = 132
	UDPLite Proto = 136
)

// HasPorts reports whether the first four bytes of the transport header are
// source and destination port.
func (p Proto) HasPorts() bool {
	switch p {
	case TCP, UDP, DCCP, SCTP, UDPLite:
		return true
	default:
		return false
	}
}

func (p Proto) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case DCCP:
		return "dccp"
	case ESP:
		return "esp"
	case AH:
		return "ah"
	case ICMPv6:
		return "icmpv6"
	case SCTP:
		return "sctp"
	case UDPLite:
		return "udplite"
	default:
		return fmt.Sprint(uint8(p))
	}
}

// Backend is the kernel part and front end a table belongs to; the strings are
// those of the JSON contract.
type Backend string

// The back ends.
const (
	NFTables       Backend = "nftables"
	IPTablesNFT    Backend = "iptables-nft"
	IPTablesLegacy Backend = "iptables-legacy"
)
