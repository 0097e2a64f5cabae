package nft

import (
	"slices"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// bitField is a field of a protocol header as nft names it, in bits.
type bitField struct {
	name        string
	offset, len int
	kind        valueKind
}

// protocolText is a protocol as nft names it (src/proto.c).
type protocolText struct {
	name   string
	fields []bitField
}

var (
	etherText = &protocolText{"ether", []bitField{
		{"daddr", 0, 48, valEther}, {"saddr", 48, 48, valEther}, {"type", 96, 16, valEtherType},
	}}
	vlanText = &protocolText{"vlan", []bitField{
		{"pcp", 0, 3, valInteger}, {"dei", 3, 1, valInteger}, {"id", 4, 12, valInteger}, {"type", 16, 16, valEtherType},
	}}
	arpText = &protocolText{"arp", []bitField{
		{"htype", 0, 16, valInteger}, {"ptype", 16, 16, valEtherType}, {"hlen", 32, 8, valInteger}, {"plen", 40, 8, valInteger},
		{"operation", 48, 16, valARPOp}, {"saddr ether", 64, 48, valEther}, {"saddr ip", 112, 32, valIPv4}, {"daddr ether", 144, 48, valEther},
		{"daddr ip", 192, 32, valIPv4},
	}}
	ipv4Text = &protocolText{"ip", []bitField{
		{"version", 0, 4, valInteger}, {"hdrlength", 4, 4, valInteger}, {"dscp", 8, 6, valDSCP}, {"ecn", 14, 2, valECN},
		{"length", 16, 16, valInteger}, {"id", 32, 16, valInteger}, {"frag-off", 48, 16, valInteger}, {"ttl", 64, 8, valInteger},
		{"protocol", 72, 8, valProto}, {"checksum", 80, 16, valInteger}, {"saddr", 96, 32, valIPv4}, {"daddr", 128, 32, valIPv4},
	}}
	ipv6Text = &protocolText{"ip6", []bitField{
		{"version", 0, 4, valInteger}, {"dscp", 4, 6, valDSCP}, {"ecn", 10, 2, valECN}, {"flowlabel", 12, 20, valInteger},
		{"length", 32, 16, valInteger}, {"nexthdr", 48, 8, valProto}, {"hoplimit", 56, 8, valInteger},
		{"saddr", 64, 128, valIPv6}, {"daddr", 192, 128, valIPv6},
	}}
	thText = &protocolText{"th", []bitField{{"sport", 0, 16, valPort}, {"dport", 16, 16, valPort}}}
)

// transportTexts are the transport protocols by number.
var transportTexts = map[uint8]*protocolText{
	uint8(fw.TCP): {"tcp", []bitField{
		{"sport", 0, 16, valPort}, {"dport", 16, 16, valPort}, {"sequence", 32, 32, valInteger}, {"ackseq", 64, 32, valInteger},
		{"doff", 96, 4, valInteger}, {"reserved", 100, 4, valInteger}, {"flags", 104, 8, valTCPFlag}, {"window", 112, 16, valInteger},
		{"checksum", 128, 16, valInteger}, {"urgptr", 144, 16, valInteger},
	}},
	uint8(fw.UDP): {"udp", []bitField{
		{"sport", 0, 16, valPort}, {"dport", 16, 16, valPort}, {"length", 32, 16, valInteger}, {"checksum", 48, 16, valInteger},
	}},
	uint8(fw.UDPLite): {"udplite", []bitField{
		{"sport", 0, 16, valPort}, {"dport", 16, 16, valPort}, {"csumcov", 32, 16, valInteger}, {"checksum", 48, 16, valInteger},
	}},
	uint8(fw.SCTP): {"sctp", []bitField{
		{"sport", 0, 16, valPort}, {"dport", 16, 16, valPort}, {"vtag", 32, 32, valInteger}, {"checksum", 64, 32, valInteger},
	}},
	uint8(fw.DCCP): {"dccp", []bitField{{"sport", 0, 16, valPort}, {"dport", 16, 16, valPort}, {"type", 67, 4, valDCCPType}}},
	uint8(fw.ICMP): {"icmp", []bitField{
		{"type", 0, 8, valICMPType}, {"code", 8, 8, valICMPCode}, {"checksum", 16, 16, valInteger}, {"id", 32, 16, valInteger},
		{"sequence", 48, 16, valInteger},
	}},
	uint8(fw.ICMPv6): {"icmpv6", []bitField{
		{"type", 0, 8, valICMPv6Type}, {"code", 8, 8, valICMPv6Code}, {"checksum", 16, 16, valInteger}, {"id", 32, 16, valInteger},
		{"sequence", 48, 16, valInteger},
	}},
	2: {"igmp", []bitField{
		{"type", 0, 8, valIGMPType}, {"mrt", 8, 8, valInteger}, {"checksum", 16, 16, valInteger}, {"group", 32, 32, valIPv4},
	}},
	uint8(fw.AH): {"ah", []bitField{
		{"nexthdr", 0, 8, valProto}, {"hdrlength", 8, 8, valInteger}, {"reserved", 16, 16, valInteger}, {"spi", 32, 32, valInteger}, {"sequence", 64, 32, valInteger},
	}},
	uint8(fw.ESP): {"esp", []bitField{{"spi", 0, 32, valInteger}, {"sequence", 32, 32, valInteger}}},
	108:           {"comp", []bitField{{"nexthdr", 0, 8, valProto}, {"flags", 8, 8, valInteger}, {"cpi", 16, 16, valInteger}}},
}

// icmpTexts and icmpv6Texts are the fields of messages of one type (icmp_dep in
// src/proto.c), whose names say that type.
var (
	icmpTexts = map[int]bitField{3: {"mtu", 48, 16, valInteger}, 5: {"gateway", 32, 32, valInteger}}

	icmpv6Texts = map[int]bitField{2: {"mtu", 32, 32, valInteger}, 4: {"parameter-problem", 32, 32, valInteger}, 130: {"max-delay", 32, 16, valInteger}}
)

// ofType are the fields of an ICMP message whose type is known.
func (p *protocolText) ofType(icmpType int) *protocolText {
	own, ok := icmpTexts[icmpType]
	if p.name == "icmpv6" {
		own, ok = icmpv6Texts[icmpType]
	}
	if !ok {
		return p
	}
	const common = 3 // type, code and checksum
	return &protocolText{p.name, append(slices.Clone(p.fields[:common]), own)}
}

// saysType reports whether the field is one of those.
func (f *bitField) saysType() bool {
	switch f.name {
	case "mtu", "gateway", "parameter-problem", "max-delay":
		return true
	}
	return false
}

// extensionTexts are the IPv6 extension headers by number (src/exthdr.c).
var extensionTexts = map[uint8]*protocolText{
	0:  {"hbh", []bitField{{"nexthdr", 0, 8, valProto}, {"hdrlength", 8, 8, valInteger}}},
	60: {"dst", []bitField{{"nexthdr", 0, 8, valProto}, {"hdrlength", 8, 8, valInteger}}},
	43: {"rt", []bitField{{"nexthdr", 0, 8, valProto}, {"hdrlength", 8, 8, valInteger}, {"type", 16, 8, valInteger}, {"seg-left", 24, 8, valInteger}}},
	44: {"frag", []bitField{
		{"nexthdr", 0, 8, valProto}, {"reserved", 8, 8, valInteger}, {"frag-off", 16, 13, valInteger}, {"reserved2", 29, 2, valInteger},
		{"more-fragments", 31, 1, valInteger}, {"id", 32, 32, valInteger},
	}},
	135: {"mh", []bitField{
		{"nexthdr", 0, 8, valProto}, {"hdrlength", 8, 8, valInteger}, {"type", 16, 8, valMHType}, {"reserved", 24, 8, valInteger}, {"checksum", 32, 16, valInteger},
	}},
}

// srhText are the fields of a routing header behind those that all have: nft takes
// them for a segment routing header, whatever its type.
var srhText = &protocolText{"srh", []bitField{
	{"last-entry", 32, 8, valInteger}, {"flags", 40, 8, valInteger}, {"tag", 48, 16, valInteger}, {"sid[1]", 64, 128, valIPv6}, {"sid[2]", 192, 128, valIPv6},
}}

// sackText are the further blocks of the option that bears the first one's name.
var sackText = &protocolText{"", []bitField{
	{"sack1 left", 80, 32, valInteger}, {"sack1 right", 112, 32, valInteger}, {"sack2 left", 144, 32, valInteger}, {"sack2 right", 176, 32, valInteger},
	{"sack3 left", 208, 32, valInteger}, {"sack3 right", 240, 32, valInteger},
}}

// tcpOptionTexts are the TCP options by number (src/tcpopt.c).
var tcpOptionTexts = map[uint8]*protocolText{
	0: {"eol", nil}, 1: {"nop", nil},
	2:  {"maxseg", []bitField{{"kind", 0, 8, valInteger}, {"length", 8, 8, valInteger}, {"size", 16, 16, valInteger}}},
	3:  {"window", []bitField{{"kind", 0, 8, valInteger}, {"length", 8, 8, valInteger}, {"count", 16, 8, valInteger}}},
	4:  {"sack-perm", []bitField{{"kind", 0, 8, valInteger}, {"length", 8, 8, valInteger}}},
	5:  {"sack", []bitField{{"kind", 0, 8, valInteger}, {"length", 8, 8, valInteger}, {"left", 16, 32, valInteger}, {"right", 48, 32, valInteger}}},
	8:  {"timestamp", []bitField{{"kind", 0, 8, valInteger}, {"length", 8, 8, valInteger}, {"tsval", 16, 32, valInteger}, {"tsecr", 48, 32, valInteger}}},
	19: {"md5sig", []bitField{{"kind", 0, 8, valInteger}, {"length", 8, 8, valInteger}}},
	30: {"mptcp", []bitField{{"kind", 0, 8, valInteger}, {"length", 8, 8, valInteger}, {"subtype", 16, 4, valInteger}}},
	34: {"fastopen", []bitField{{"kind", 0, 8, valInteger}, {"length", 8, 8, valInteger}}},
}

// ipOptionNames are the IPv4 options by number.
var ipOptionNames = map[uint8]string{7: "rr", 131: "lsrr", 137: "ssrr", 148: "ra"}

// fieldOf finds the field at a place of a header.
func (p *protocolText) fieldOf(offset, n int) (bitField, bool) {
	if p != nil {
		for _, f := range p.fields {
			if f.offset == offset && f.len == n {
				return f, true
			}
		}
	}
	return bitField{}, false
}

// startingAt finds the field that begins at a bit.
func (p *protocolText) startingAt(offset int) (bitField, bool) {
	if p != nil {
		for _, f := range p.fields {
			if f.offset == offset {
				return f, true
			}
		}
	}
	return bitField{}, false
}
