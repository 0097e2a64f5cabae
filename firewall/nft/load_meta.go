package nft

import (
	"fmt"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// meta is nft_meta_get_eval, and nft_meta_set_eval.
func (r *run) meta(t *table) {
	if !t.has(2) {
		r.incomplete("meta")
		return
	}
	key := t.num(2)
	if t.has(3) {
		r.metaSet(t, key)
		return
	}
	num := func(k fw.FieldKind, n int) { r.load(t, 1, fw.Plain(k, n), n, true) }
	net := func(k fw.FieldKind, n int) { r.load(t, 1, fw.Plain(k, n), n, false) }
	switch key {
	case metaLen:
		num(fw.FieldLength, 4)
	case metaProtocol:
		net(fw.FieldEtherType, 2)
	case metaPriority:
		num(fw.FieldPriority, 4)
	case metaMark:
		num(fw.FieldMark, 4)
	case metaIIF:
		num(fw.FieldInIndex, 4)
	case metaOIF:
		num(fw.FieldOutIndex, 4)
	case metaIIFName:
		net(fw.FieldInName, 16)
	case metaOIFName:
		net(fw.FieldOutName, 16)
	case metaIIFType:
		num(fw.FieldInType, 2)
	case metaOIFType:
		num(fw.FieldOutType, 2)
	case metaSKUID:
		num(fw.FieldSKUID, 4)
	case metaSKGID:
		num(fw.FieldSKGID, 4)
	case metaNFTrace:
		r.loadUnknown(t, 1, 1, "whether the packet is traced")
	case metaRTClassID:
		num(fw.FieldRealm, 4)
	case metaSecmark:
		num(fw.FieldSecMark, 4)
	case metaNFProto:
		net(fw.FieldNFProto, 1)
	case metaL4Proto:
		net(fw.FieldL4Proto, 1)
	case metaBriIIFName:
		net(fw.FieldPhysIn, 16)
	case metaBriOIFName:
		net(fw.FieldPhysOut, 16)
	case metaPktType:
		net(fw.FieldPktType, 1)
	case metaCPU:
		num(fw.FieldCPU, 4)
	case metaIIFGroup:
		num(fw.FieldInGroup, 4)
	case metaOIFGroup:
		num(fw.FieldOutGroup, 4)
	case metaCgroup:
		num(fw.FieldCgroup, 4)
	case metaPRandom:
		num(fw.FieldRandom, 4)
	case metaSecPath:
		net(fw.FieldSecPath, 1)
	case metaIIFKind:
		net(fw.FieldInKind, 16)
	case metaOIFKind:
		net(fw.FieldOutKind, 16)
	case metaBriIIFPVID:
		r.loadUnknown(t, 1, 2, "the VLAN of the bridge port")
	case metaBriIIFVProto:
		r.loadUnknown(t, 1, 2, "the VLAN protocol of the bridge")
	case metaTimeNS:
		num(fw.FieldTime, 8)
	case metaTimeDay:
		r.load(t, 1, field(fw.FieldTime, 1, 1), 1, false)
	case metaTimeHour:
		r.load(t, 1, field(fw.FieldTime, 2, 4), 4, true)
	case metaSDIF:
		r.loadUnknown(t, 1, 4, "the VRF that the packet came through")
	case metaSDIFName:
		r.loadUnknown(t, 1, 16, "the VRF that the packet came through")
	default:
		r.loadUnknown(t, 1, 16, fmt.Sprintf("meta key %d, which the model does not know", key))
	}
}

// ct is nft_ct_get_eval, and nft_ct_set_eval.
func (r *run) ct(t *table) {
	if !t.has(2) {
		r.incomplete("ct")
		return
	}
	key := t.num(2)
	if t.has(4) {
		r.ctSet(t, key)
		return
	}
	var dir uint32
	if t.has(3) {
		dir = uint32(u8(t.val(3)))
	}
	num := func(k fw.FieldKind, n int) { r.load(t, 1, fw.Plain(k, n), n, true) }
	net := func(k fw.FieldKind, n int) { r.load(t, 1, field(k, dir, n), n, false) }
	// addr loads an address of the connection; other families break.
	addr := func(k fw.FieldKind, f fw.Family) {
		proto := uint64(nfprotoIPv4)
		if f == fw.IPv6 {
			proto = nfprotoIPv6
		}
		if r.g.family != f {
			r.match(&fw.Match{Operand: fw.Plain(fw.FieldNFProto, 1), In: fw.Single(fw.Num(proto))})
		}
		net(k, f.AddrLen())
	}
	// either loads an address of the packet's family.
	either := func(k fw.FieldKind) {
		if r.g.family == 0 {
			r.loadUnknown(t, 1, 16, "an address of the connection, of either family")
			return
		}
		net(k, r.g.family.AddrLen())
	}
	switch key {
	case ctState:
		num(fw.FieldCTState, 4)
	case ctDirection:
		r.load(t, 1, fw.Plain(fw.FieldCTDirection, 1), 1, false)
	case ctStatus:
		num(fw.FieldCTStatus, 4)
	case ctMark:
		num(fw.FieldCTMark, 4)
	case ctSecmark:
		num(fw.FieldCTSecMark, 4)
	case ctExpiration:
		num(fw.FieldCTExpiration, 4)
	case ctHelper:
		r.load(t, 1, fw.Plain(fw.FieldCTHelper, 16), 16, false)
	case ctL3Protocol:
		r.load(t, 1, fw.Plain(fw.FieldCTL3Proto, 1), 1, false)
	case ctProtocol:
		r.load(t, 1, fw.Plain(fw.FieldCTL4Proto, 1), 1, false)
	case ctSrc:
		either(fw.FieldCTSrcAddr)
	case ctDst:
		either(fw.FieldCTDstAddr)
	case ctSrcIP:
		addr(fw.FieldCTSrcAddr, fw.IPv4)
	case ctDstIP:
		addr(fw.FieldCTDstAddr, fw.IPv4)
	case ctSrcIP6:
		addr(fw.FieldCTSrcAddr, fw.IPv6)
	case ctDstIP6:
		addr(fw.FieldCTDstAddr, fw.IPv6)
	case ctProtoSrc:
		net(fw.FieldCTSrcPort, 2)
	case ctProtoDst:
		net(fw.FieldCTDstPort, 2)
	case ctLabels:
		num(fw.FieldCTLabel, 16)
	case ctPkts:
		num(fw.FieldCTPackets, 8)
	case ctBytes:
		num(fw.FieldCTBytes, 8)
	case ctAvgPkt:
		r.loadUnknown(t, 1, 8, "the traffic of the connection")
	case ctZone:
		r.load(t, 1, field(fw.FieldCTZone, uint32(zoneDir(t)), 2), 2, true)
	case ctEventMask:
		num(fw.FieldCTEventMask, 4)
	case ctID:
		r.loadUnknown(t, 1, 4, "the kernel's number of the connection")
	default:
		r.loadUnknown(t, 1, 16, fmt.Sprintf("ct key %d, which the model does not know", key))
	}
}
