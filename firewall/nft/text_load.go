package nft

import (
	"fmt"
	"strings"
)

// metaTexts are the keys of meta: name, kind and size of their values.
var metaTexts = map[uint32]left{
	metaLen: {name: "meta length", kind: valInteger, n: 4, host: true}, metaProtocol: {name: "meta protocol", kind: valEtherType, n: 2},
	metaPriority: {name: "meta priority", kind: valClassID, n: 4, host: true}, metaMark: {name: "meta mark", kind: valMark, n: 4, host: true},
	metaIIF: {name: "iif", kind: valIfIndex, n: 4, host: true}, metaOIF: {name: "oif", kind: valIfIndex, n: 4, host: true},
	metaIIFName: {name: "iifname", kind: valIfName, n: 16}, metaOIFName: {name: "oifname", kind: valIfName, n: 16},
	metaIIFType: {name: "meta iiftype", kind: valARPHRD, n: 2, host: true}, metaOIFType: {name: "meta oiftype", kind: valARPHRD, n: 2, host: true},
	metaSKUID: {name: "meta skuid", kind: valUID, n: 4, host: true}, metaSKGID: {name: "meta skgid", kind: valGID, n: 4, host: true},
	metaNFTrace: {name: "meta nftrace", kind: valInteger, n: 1}, metaRTClassID: {name: "meta rtclassid", kind: valRealm, n: 4, host: true},
	metaSecmark: {name: "meta secmark", kind: valMark, n: 4, host: true}, metaNFProto: {name: "meta nfproto", kind: valNFProto, n: 1},
	metaL4Proto: {name: "meta l4proto", kind: valProto, n: 1}, metaBriIIFName: {name: "meta ibrname", kind: valIfName, n: 16},
	metaBriOIFName: {name: "meta obrname", kind: valIfName, n: 16}, metaPktType: {name: "meta pkttype", kind: valPktType, n: 1},
	metaCPU: {name: "meta cpu", kind: valInteger, n: 4, host: true}, metaIIFGroup: {name: "iifgroup", kind: valDevGroup, n: 4, host: true},
	metaOIFGroup: {name: "oifgroup", kind: valDevGroup, n: 4, host: true}, metaCgroup: {name: "meta cgroup", kind: valInteger, n: 4, host: true},
	metaPRandom: {name: "meta random", kind: valInteger, n: 4, host: true}, metaSecPath: {name: "meta ipsec", kind: valExists, n: 1},
	metaIIFKind: {name: "meta iifkind", kind: valIfName, n: 16}, metaOIFKind: {name: "meta oifkind", kind: valIfName, n: 16},
	metaBriIIFPVID: {name: "meta ibrpvid", kind: valInteger, n: 2, host: true}, metaBriIIFVProto: {name: "meta ibrvproto", kind: valEtherType, n: 2},
	metaTimeNS: {name: "meta time", kind: valTimeDate, n: 8, host: true}, metaTimeDay: {name: "meta day", kind: valDay, n: 1},
	metaTimeHour: {name: "meta hour", kind: valHour, n: 4, host: true}, metaSDIF: {name: "meta sdif", kind: valIfIndex, n: 4, host: true},
	metaSDIFName: {name: "meta sdifname", kind: valIfName, n: 16}, metaBriBroute: {name: "meta broute", kind: valInteger, n: 1},
}

// ctTexts are the keys of ct.
var ctTexts = map[uint32]left{
	ctState: {name: "state", kind: valCTState, n: 4, host: true}, ctDirection: {name: "direction", kind: valCTDir, n: 1},
	ctStatus: {name: "status", kind: valCTStatus, n: 4, host: true}, ctMark: {name: "mark", kind: valMark, n: 4, host: true},
	ctSecmark: {name: "secmark", kind: valMark, n: 4, host: true}, ctExpiration: {name: "expiration", kind: valTime, n: 4, host: true},
	ctHelper: {name: "helper", kind: valString, n: 16}, ctL3Protocol: {name: "l3proto", kind: valNFProto, n: 1},
	ctProtocol: {name: "protocol", kind: valProto, n: 1}, ctProtoSrc: {name: "proto-src", kind: valPort, n: 2},
	ctProtoDst: {name: "proto-dst", kind: valPort, n: 2}, ctLabels: {name: "label", kind: valCTLabel, n: 16, host: true},
	ctPkts: {name: "packets", kind: valInteger, n: 8, host: true}, ctBytes: {name: "bytes", kind: valInteger, n: 8, host: true},
	ctAvgPkt: {name: "avgpkt", kind: valInteger, n: 8, host: true}, ctZone: {name: "zone", kind: valInteger, n: 2, host: true},
	ctEventMask: {name: "event", kind: valCTEvent, n: 4, host: true}, ctSrcIP: {name: "ip saddr", kind: valIPv4, n: 4},
	ctDstIP: {name: "ip daddr", kind: valIPv4, n: 4}, ctSrcIP6: {name: "ip6 saddr", kind: valIPv6, n: 16}, ctDstIP6: {name: "ip6 daddr", kind: valIPv6, n: 16},
	ctID: {name: "id", kind: valInteger, n: 4},
}

// load notes what a register gets by a load, or writes a set.
func (w *writer) load(name string, t *table, reg func(int) int) {
	var l left
	dst := 1
	switch name {
	case "meta":
		key := t.num(2)
		m, ok := metaTexts[key]
		if !ok {
			m = left{name: fmt.Sprintf("meta %d", key), kind: valHex, n: 4}
		}
		if t.has(3) {
			text := m.name
			if !strings.HasPrefix(text, "meta ") {
				text = "meta " + text
			}
			w.say("%s set %s", text, w.right(w.at(reg(3)), m.kind, m.n, m.host))
			return
		}
		l = m
	case "ct":
		l = w.ct(t, reg)
		if l.n == 0 {
			return
		}
	case "rt":
		l = map[uint32]left{
			0: {name: "rt classid", kind: valRealm, n: 4, host: true}, 1: {name: "rt ip nexthop", kind: valIPv4, n: 4},
			2: {name: "rt ip6 nexthop", kind: valIPv6, n: 16}, 3: {name: "rt mtu", kind: valInteger, n: 2, host: true}, 4: {name: "rt ipsec", kind: valExists, n: 1},
		}[t.num(2)]
	case "socket":
		dst = 2
		l = map[uint32]left{
			0: {name: "socket transparent", kind: valInteger, n: 1}, 1: {name: "socket mark", kind: valMark, n: 4, host: true},
			2: {name: "socket wildcard", kind: valInteger, n: 1},
			3: {name: fmt.Sprintf("socket cgroupv2 level %d", t.num(3)), kind: valCgroupV2, n: 8, host: true},
		}[t.num(1)]
	case "fib":
		l = fibText(t.num(2), t.num(3))
	case "numgen":
		l = left{name: fmt.Sprintf("numgen %s mod %d", [...]string{"inc", "random"}[t.num(3)&1], t.num(2)), kind: valInteger, n: 4, host: true}
		l.name += offsetText(t.num(4))
	case "hash":
		dst = 2
		if t.num(7) == 1 {
			l = left{name: fmt.Sprintf("symhash mod %d", t.num(4)) + offsetText(t.num(6))}
		} else {
			text := w.joined(reg(1), int(t.num(3)))
			l = left{name: fmt.Sprintf("jhash %s mod %d", text, t.num(4))}
			if t.has(5) && t.num(5) != 0 {
				l.name += fmt.Sprintf(" seed 0x%x", t.num(5))
			}
			l.name += offsetText(t.num(6))
		}
		l.kind, l.n, l.host = valInteger, 4, true
	case "osf":
		l = left{name: "osf name", kind: valString, n: 16}
		if u8(t.val(2)) == 1 {
			l.name = "osf ttl loose name"
		} else if u8(t.val(2)) == 2 {
			l.name = "osf ttl skip name"
		}
		if t.num(3)&1 != 0 { // NFT_OSF_F_VERSION
			l.name = strings.TrimSuffix(l.name, "name") + "version"
		}
	case "xfrm":
		dir := "in"
		if u8(t.val(3)) == 1 {
			dir = "out"
		}
		spnum := ""
		if t.num(4) != 0 {
			spnum = fmt.Sprintf(" spnum %d", t.num(4))
		}
		l = map[uint32]left{
			1: {name: "ip daddr", kind: valIPv4, n: 4}, 2: {name: "ip6 daddr", kind: valIPv6, n: 16}, 3: {name: "ip saddr", kind: valIPv4, n: 4},
			4: {name: "ip6 saddr", kind: valIPv6, n: 16}, 5: {name: "reqid", kind: valInteger, n: 4, host: true}, 6: {name: "spi", kind: valInteger, n: 4},
		}[t.num(2)]
		l.name = "ipsec " + dir + spnum + " " + l.name
	case "tunnel":
		dst = 2
		l = left{name: "tunnel " + [...]string{"path", "id"}[t.num(1)&1], kind: valInteger, n: 4}
	}
	if l.n == 0 {
		l = left{name: name + " ?", kind: valHex, n: 4}
	}
	w.set(reg(dst), l.n, &l)
}

func offsetText(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" offset %d", n)
}

// joined writes what n register bytes hold, as a concatenation.
func (w *writer) joined(at, n int) string {
	var texts []string
	for i := 0; at >= 0 && i < n; {
		l := w.at(at + i)
		if l == nil {
			return "?"
		}
		text, _, _ := w.left(l, l.n)
		texts = append(texts, text)
		i += (max(l.n, 1) + 3) &^ 3
	}
	return strings.Join(texts, " . ")
}

func (w *writer) ct(t *table, reg func(int) int) left {
	key := t.num(2)
	c, ok := ctTexts[key]
	if !ok {
		switch key {
		case ctSrc, ctDst:
			c = left{name: [...]string{"saddr", "daddr"}[key-ctSrc], kind: valIPv4, n: 4}
			if w.family == 6 {
				c.kind, c.n = valIPv6, 16
			}
			if w.t.table.Family == "ip" || w.t.table.Family == "ip6" {
				c.name = map[valueKind]string{valIPv4: "ip ", valIPv6: "ip6 "}[c.kind] + c.name
			}
		default:
			c = left{name: fmt.Sprint(key), kind: valHex, n: 4}
		}
	}
	dir := ""
	if t.has(3) {
		dir = [...]string{"original ", "reply "}[u8(t.val(3))&1]
	}
	if t.has(4) {
		w.say("ct %s%s set %s", dir, c.name, w.right(w.at(reg(4)), c.kind, c.n, c.host))
		return left{}
	}
	switch key {
	case ctL3Protocol, ctProtocol, ctState, ctMark, ctDirection:
		dir = ""
	}
	c.name = "ct " + dir + c.name
	return c
}

func fibText(result, flags uint32) left {
	var of []string
	for i, name := range []string{"saddr", "daddr", "mark", "iif", "oif"} {
		if flags&(1<<i) != 0 {
			of = append(of, name)
		}
	}
	l := left{name: "fib " + strings.Join(of, " . ")}
	switch result {
	case 1:
		l.name, l.kind, l.n, l.host = l.name+" oif", valIfIndex, 4, true
	case 2:
		l.name, l.kind, l.n = l.name+" oifname", valIfName, 16
	case 3:
		l.name, l.kind, l.n, l.host = l.name+" type", valFIBType, 4, true
	default:
		return left{}
	}
	if flags&0x20 != 0 {
		l.kind, l.n, l.host = valExists, 4, true
	}
	return l
}

// exthdr notes a load of an extension header or option, or writes a change.
func (w *writer) exthdr(t *table, reg func(int) int) {
	typ, offset, n, op := u8(t.val(2)), 8*int(t.num(3)), int(t.num(4)), t.num(6)
	present := t.num(5)&1 != 0
	var p *protocolText
	name := ""
	switch op {
	case exthdrIPv6:
		p = extensionTexts[typ]
		if p == nil {
			p = &protocolText{name: fmt.Sprint(typ)}
		}
		if typ == 43 && offset >= 32 {
			p = srhText
		}
		if present {
			name = "exthdr " + p.name
		} else {
			name = p.name
		}
	case exthdrTCPOption:
		p = tcpOptionTexts[typ]
		if p == nil {
			p = &protocolText{name: fmt.Sprint(typ)}
		}
		name = "tcp option " + p.name
	case exthdrIPv4Option:
		p = &protocolText{name: ipOptionNames[typ], fields: []bitField{
			{"type", 0, 8, valInteger}, {"length", 8, 8, valInteger}, {"ptr", 16, 8, valInteger}, {"addr", 24, 32, valIPv4},
		}}
		if typ == 148 {
			p.fields = append(p.fields, bitField{"value", 16, 16, valInteger})
		}
		if p.name == "" {
			p.name = fmt.Sprint(typ)
		}
		name = "ip option " + p.name
		if t.has(1) {
			w.implied(needNetwork)
		}
	case exthdrSCTP:
		chunk, ok := sctpChunks[typ]
		if !ok {
			chunk = fmt.Sprint(typ)
		}
		p = &protocolText{name: chunk, fields: []bitField{{"type", 0, 8, valInteger}, {"flags", 8, 8, valInteger}, {"length", 16, 16, valInteger}}}
		name = "sctp chunk " + chunk
	case exthdrDCCP:
		p = &protocolText{}
		name = fmt.Sprintf("dccp option %d", typ)
	default:
		name = "exthdr ?"
		p = &protocolText{}
	}
	if !t.has(1) && !t.has(7) {
		w.say("reset %s", name)
		return
	}
	l := left{name: name, n: n, ext: p, kind: valHex}
	if present {
		l.kind, l.n = valExists, 1
	} else if f, ok := p.fieldOf(offset, 8*n); ok {
		l.name, l.kind = name+" "+f.name, f.kind
	} else if f, ok := sackText.fieldOf(offset, 8*n); ok && op == exthdrTCPOption && p.name == "sack" {
		l.name, l.kind = "tcp option "+f.name, f.kind
	} else {
		// Part of a field, which bitwise cuts out.
		l.payload, l.bit, l.bits = true, offset, 8*n
		if op == exthdrTCPOption && len(p.fields) == 0 {
			l.payload = false
			l.name = fmt.Sprintf("tcp option @%d,%d,%d", typ, offset, 8*n)
		}
	}
	if f, ok := p.startingAt(offset); op == exthdrTCPOption && l.payload && ok && f.len < 8 {
		l.payload, l.option, l.name = false, true, name // a part of a byte, which bitwise cuts out
	} else if op != exthdrIPv6 {
		l.ext = nil
		if l.payload {
			l.payload = false
			l.name = fmt.Sprintf("%s @%d,%d", name, offset, 8*n)
		}
	}
	if t.has(7) {
		w.say("%s set %s", l.name, w.right(w.at(reg(7)), l.kind, n, false))
		return
	}
	if l.payload {
		l.payload = false
		l.name = name
	}
	w.set(reg(1), max(n, 1), &l)
}

var sctpChunks = map[uint8]string{
	0: "data", 1: "init", 2: "init-ack", 3: "sack", 4: "heartbeat", 5: "heartbeat-ack", 6: "abort", 7: "shutdown", 8: "shutdown-ack", 9: "error",
	10: "cookie-echo", 11: "cookie-ack", 12: "ecne", 13: "cwr", 14: "shutdown-complete", 128: "asconf-ack", 192: "forward-tsn", 193: "asconf",
}
