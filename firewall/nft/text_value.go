package nft

import (
	"encoding/hex"
	"fmt"
	"math/big"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// valueKind is how nft writes a value: one of its datatypes (src/datatype.c,
// src/meta.c, src/ct.c, src/proto.c), numbered as in enum datatypes so that the
// key type of a set names one.
type valueKind uint32

const (
	valInteger    valueKind = 4
	valString     valueKind = 5
	valLLAddr     valueKind = 6
	valIPv4       valueKind = 7
	valIPv6       valueKind = 8
	valEther      valueKind = 9
	valEtherType  valueKind = 10
	valARPOp      valueKind = 11
	valProto      valueKind = 12
	valPort       valueKind = 13
	valICMPType   valueKind = 14
	valTCPFlag    valueKind = 15
	valDCCPType   valueKind = 16
	valMHType     valueKind = 17
	valTime       valueKind = 18
	valMark       valueKind = 19
	valIfIndex    valueKind = 20
	valARPHRD     valueKind = 21
	valRealm      valueKind = 22
	valClassID    valueKind = 23
	valUID        valueKind = 24
	valGID        valueKind = 25
	valCTState    valueKind = 26
	valCTDir      valueKind = 27
	valCTStatus   valueKind = 28
	valICMPv6Type valueKind = 29
	valCTLabel    valueKind = 30
	valPktType    valueKind = 31
	valICMPCode   valueKind = 32
	valICMPv6Code valueKind = 33
	valICMPXCode  valueKind = 34
	valDevGroup   valueKind = 35
	valDSCP       valueKind = 36
	valECN        valueKind = 37
	valFIBType    valueKind = 38
	valBoolean    valueKind = 39
	valCTEvent    valueKind = 40
	valIfName     valueKind = 41
	valIGMPType   valueKind = 42
	valTimeDate   valueKind = 43
	valHour       valueKind = 44
	valDay        valueKind = 45
	valCgroupV2   valueKind = 46
	valNFProto    valueKind = 2

	// Kinds that have no number in sets.
	valHex    valueKind = 1000 // raw payload
	valExists valueKind = 1001 // exists, missing
)

// hostOrder reports whether the kernel keeps values of the kind as numbers in
// host byte order.
func (k valueKind) hostOrder() bool {
	switch k {
	case valTime, valMark, valIfIndex, valARPHRD, valRealm, valClassID, valUID, valGID, valCTState, valCTStatus, valCTLabel,
		valDevGroup, valFIBType, valCTEvent, valTimeDate, valHour, valCgroupV2:
		return true
	}
	return false
}

// bitmask reports whether values of the kind are sets of flags.
func (k valueKind) bitmask() bool {
	switch k {
	case valTCPFlag, valCTState, valCTStatus, valCTLabel, valCTEvent:
		return true
	}
	return false
}

// names of values, per kind.
var valueNames = map[valueKind]map[uint64]string{
	valNFProto:   {2: "ipv4", 10: "ipv6"},
	valEtherType: {0x0800: "ip", 0x0806: "arp", 0x86dd: "ip6", 0x8100: "8021q", 0x88a8: "8021ad"},
	valARPOp:     {1: "request", 2: "reply", 3: "rrequest", 4: "rreply", 8: "inrequest", 9: "inreply", 10: "nak"},
	valICMPType: {0: "echo-reply", 3: "destination-unreachable", 4: "source-quench", 5: "redirect", 8: "echo-request",
		9: "router-advertisement", 10: "router-solicitation", 11: "time-exceeded", 12: "parameter-problem", 13: "timestamp-request",
		14: "timestamp-reply", 15: "info-request", 16: "info-reply", 17: "address-mask-request", 18: "address-mask-reply"},
	valICMPCode: {0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable", 3: "port-unreachable", 4: "frag-needed",
		9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited"},
	valICMPv6Code: {0: "no-route", 1: "admin-prohibited", 3: "addr-unreachable", 4: "port-unreachable", 5: "policy-fail", 6: "reject-route"},
	valICMPXCode:  {0: "no-route", 1: "port-unreachable", 2: "host-unreachable", 3: "admin-prohibited"},
	valICMPv6Type: {1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem", 128: "echo-request",
		129: "echo-reply", 130: "mld-listener-query", 131: "mld-listener-report", 132: "mld-listener-done", 133: "nd-router-solicit",
		134: "nd-router-advert", 135: "nd-neighbor-solicit", 136: "nd-neighbor-advert", 137: "nd-redirect", 138: "router-renumbering",
		141: "ind-neighbor-solicit", 142: "ind-neighbor-advert", 143: "mld2-listener-report"},
	valIGMPType: {0x11: "membership-query", 0x12: "membership-report-v1", 0x16: "membership-report-v2", 0x17: "leave-group", 0x22: "membership-report-v3"},
	valMHType: {0: "binding-refresh-request", 1: "home-test-init", 2: "careof-test-init", 3: "home-test", 4: "careof-test", 5: "binding-update",
		6: "binding-acknowledgement", 7: "binding-error", 8: "fast-binding-update", 9: "fast-binding-acknowledgement", 10: "fast-binding-advertisement",
		11: "experimental-mobility-header", 12: "home-agent-switch-message"},
	valDCCPType: {0: "request", 1: "response", 2: "data", 3: "ack", 4: "dataack", 5: "closereq", 6: "close", 7: "reset", 8: "sync", 9: "syncack"},
	valTCPFlag:  {1: "fin", 2: "syn", 4: "rst", 8: "psh", 16: "ack", 32: "urg", 64: "ecn", 128: "cwr"},
	valCTState:  {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"},
	valCTDir:    {0: "original", 1: "reply"},
	valCTStatus: {1: "expected", 2: "seen-reply", 4: "assured", 8: "confirmed", 16: "snat", 32: "dnat", 512: "dying"},
	valCTEvent: {1: "new", 2: "related", 4: "destroy", 8: "reply", 16: "assured", 32: "protoinfo", 64: "helper", 128: "mark", 256: "seqadj",
		512: "secmark", 1024: "label"},
	valPktType:  {0: "host", 1: "broadcast", 2: "multicast", 3: "other"},
	valFIBType:  {0: "unspec", 1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"},
	valECN:      {0: "not-ect", 1: "ect1", 2: "ect0", 3: "ce"},
	valARPHRD:   {1: "ether", 512: "ppp", 768: "ipip", 769: "ipip6", 772: "loopback", 776: "sit", 778: "ipgre"},
	valExists:   {0: "missing", 1: "exists"},
	valBoolean:  {0: "missing", 1: "exists"},
	valDevGroup: {0: `"default"`},
	valRealm:    {0: `"cosmos"`},
	valDay:      {0: `"Sunday"`, 1: `"Monday"`, 2: `"Tuesday"`, 3: `"Wednesday"`, 4: `"Thursday"`, 5: `"Friday"`, 6: `"Saturday"`},
	valDSCP: {0: "cs0", 1: "lephb", 8: "cs1", 10: "af11", 12: "af12", 14: "af13", 16: "cs2", 18: "af21", 20: "af22", 22: "af23", 24: "cs3",
		26: "af31", 28: "af32", 30: "af33", 32: "cs4", 34: "af41", 36: "af42", 38: "af43", 40: "cs5", 44: "va", 46: "ef", 48: "cs6", 56: "cs7"},
	valProto: {0: "ip", 1: "icmp", 2: "igmp", 3: "ggp", 4: "ipencap", 5: "st", 6: "tcp", 8: "egp", 9: "igp", 12: "pup", 17: "udp", 20: "hmp",
		22: "xns-idp", 27: "rdp", 29: "iso-tp4", 33: "dccp", 36: "xtp", 37: "ddp", 38: "idpr-cmtp", 41: "ipv6", 43: "ipv6-route", 44: "ipv6-frag",
		45: "idrp", 46: "rsvp", 47: "gre", 50: "esp", 51: "ah", 57: "skip", 58: "ipv6-icmp", 59: "ipv6-nonxt", 60: "ipv6-opts", 73: "rspf",
		81: "vmtp", 88: "eigrp", 89: "ospf", 93: "ax.25", 94: "ipip", 97: "etherip", 98: "encap", 103: "pim", 108: "ipcomp", 112: "vrrp",
		115: "l2tp", 124: "isis", 132: "sctp", 133: "fc", 135: "mobility-header", 136: "udplite", 137: "mpls-in-ip", 138: "manet", 139: "hip",
		140: "shim6", 141: "wesp", 142: "rohc", 143: "ethernet"},
}

// number reads big-endian bytes.
func number(b []byte) uint64 {
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}

// bigEndian turns a value of the kernel into big-endian bytes.
func bigEndian(b []byte, host bool) []byte {
	if !host || !hostLittle {
		return b
	}
	out := make([]byte, len(b))
	for i, c := range b {
		out[len(b)-1-i] = c
	}
	return out
}

// format writes a value, given most significant byte first.
func (k valueKind) format(b []byte, ifname func(int) string) string {
	if len(b) > 8 {
		switch k {
		case valIPv6, valIfName, valString, valCTLabel, valHex:
		default:
			return "0x" + strings.TrimLeft(hex.EncodeToString(b), "0")
		}
	}
	v := number(b)
	switch k {
	case valIPv4:
		if len(b) == 4 {
			return netip.AddrFrom4([4]byte(b)).String()
		}
	case valIPv6:
		if len(b) == 16 {
			return ipv6String(b)
		}
	case valEther, valLLAddr:
		var s []string
		for _, c := range b {
			s = append(s, fmt.Sprintf("%02x", c))
		}
		return strings.Join(s, ":")
	case valIfName, valString:
		return `"` + string(cstring(b)) + `"`
	case valMark:
		return fmt.Sprintf("0x%08x", v)
	case valHex:
		return "0x" + new(big.Int).SetBytes(b).Text(16)
	case valIfIndex:
		if name := ifname(int(v)); name != "" && v != 0 {
			return `"` + name + `"`
		}
		return strconv.FormatUint(v, 10)
	case valTime:
		return duration(time.Duration(v) * time.Millisecond)
	case valClassID:
		switch v {
		case 0:
			return "none"
		case 0xffffffff:
			return "root"
		}
		return fmt.Sprintf("%0x:%0x", v>>16, v&0xffff)
	case valHour:
		return hourOfDay(v)
	case valTimeDate:
		return time.Unix(0, int64(v)).Format(`"2006-01-02 15:04:05"`)
	case valCTLabel:
		return labels(b)
	}
	if k.bitmask() {
		return k.flags(v, " | ")
	}
	if name, ok := valueNames[k][v]; ok {
		return name
	}
	switch k {
	case valDSCP:
		return fmt.Sprintf("0x%02x", v)
	case valEtherType:
		return fmt.Sprintf("0x%04x", v)
	}
	return strconv.FormatUint(v, 10)
}

// flags writes a set of flags.
func (k valueKind) flags(v uint64, sep string) string {
	if v == 0 {
		return "0x0"
	}
	var out []string
	for bit := uint64(1); bit != 0 && bit <= v; bit <<= 1 {
		if v&bit == 0 {
			continue
		}
		name, ok := valueNames[k][bit]
		if !ok {
			name = fmt.Sprintf("0x%x", bit)
		}
		out = append(out, name)
	}
	return strings.Join(out, sep)
}

// labels writes connection labels, which nft numbers by bit.
func labels(b []byte) string {
	var out []string
	for i := len(b) - 1; i >= 0; i-- {
		for bit := range 8 {
			if b[i]&(1<<bit) != 0 {
				out = append(out, strconv.Itoa(8*(len(b)-1-i)+bit))
			}
		}
	}
	if out == nil {
		return "0x0"
	}
	return strings.Join(out, ",")
}

// ipv6String is inet_ntop: it differs from netip for addresses with an IPv4
// address in them.
func ipv6String(b []byte) string {
	a := netip.AddrFrom16([16]byte(b))
	zero := true
	for _, c := range b[:12] {
		zero = zero && c == 0
	}
	// glibc writes ::a.b.c.d for the old "compatible" addresses.
	if zero && (b[12] != 0 || b[13] != 0) {
		return "::" + netip.AddrFrom4([4]byte(b[12:])).String()
	}
	return a.String()
}

// duration writes a time span as nft does (time_print).
func duration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	ms := d.Milliseconds()
	days, ms := ms/86400000, ms%86400000
	h, ms := ms/3600000, ms%3600000
	m, ms := ms/60000, ms%60000
	s, ms := ms/1000, ms%1000
	var out string
	for _, p := range []struct {
		n    int64
		unit string
	}{{days, "d"}, {h, "h"}, {m, "m"}, {s, "s"}, {ms, "ms"}} {
		if p.n != 0 {
			out += fmt.Sprintf("%d%s", p.n, p.unit)
		}
	}
	return out
}

// hourOfDay writes seconds since midnight UTC as nft does, in local time.
func hourOfDay(v uint64) string {
	_, offset := time.Now().Zone()
	v = (v + uint64(offset) + 86400) % 86400
	if v%60 != 0 {
		return fmt.Sprintf(`"%02d:%02d:%02d"`, v/3600, v/60%60, v%60)
	}
	return fmt.Sprintf(`"%02d:%02d"`, v/3600, v/60%60)
}

func ms(n uint64) time.Duration { return time.Duration(min(n, 1<<40)) * time.Millisecond }
