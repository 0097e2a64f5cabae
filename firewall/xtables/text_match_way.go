package xtables

import (
	"fmt"
	"strings"
)

var routeTypes = []string{"UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW", "NAT", "XRESOLVE"}

func (p *printer) addrTypes(src, dst uint16, invSrc, invDst bool) {
	if src != 0 {
		p.not(invSrc)
		p.word("--src-type", names(uint64(src), routeTypes))
	}
	if dst != 0 {
		p.not(invDst)
		p.word("--dst-type", names(uint64(dst), routeTypes))
	}
}

func saveAddrtype0(p *printer, b []byte) {
	p.addrTypes(u16(b, 0), u16(b, 2), u32(b, 4) != 0, u32(b, 8) != 0)
}

func saveAddrtype1(p *printer, b []byte) {
	flags := u32(b, 4)
	p.addrTypes(u16(b, 0), u16(b, 2), flags&addrtypeInvertSource != 0, flags&addrtypeInvertDest != 0)
	p.flagWords(flags, "", "", "--limit-iface-in", "--limit-iface-out")
}

func saveIPRange(p *printer, b []byte) {
	flags := b[64]
	if flags&iprangeSrc != 0 {
		p.not(flags&iprangeSrcInv != 0)
		p.word("--src-range", p.addrAt(b, 0)+"-"+p.addrAt(b, 16))
	}
	if flags&iprangeDst != 0 {
		p.not(flags&iprangeDstInv != 0)
		p.word("--dst-range", p.addrAt(b, 32)+"-"+p.addrAt(b, 48))
	}
}

func saveMAC(p *printer, b []byte) {
	p.not(u32(b, 8) != 0)
	p.word("--mac-source", macText(b))
}

func savePhysdev(p *printer, b []byte) {
	inv, opts := b[64], b[65]
	item := func(bit uint8, words ...string) {
		if opts&bit != 0 {
			p.not(inv&bit != 0)
			p.word(words...)
		}
	}
	item(physdevIsIn, "--physdev-is-in")
	item(physdevIn, "--physdev-in", cstring(b[:16]))
	item(physdevIsOut, "--physdev-is-out")
	item(physdevOut, "--physdev-out", cstring(b[32:48]))
	item(physdevBridged, "--physdev-is-bridged")
}

func savePktType(p *printer, b []byte) {
	t := u32(b, 0)
	p.not(u32(b, 4) != 0)
	if t < 4 {
		p.word("--pkt-type", word(uint8(t), "unicast", "broadcast", "multicast", "otherhost"))
		return
	}
	p.word("--pkt-type", fmt.Sprint(int32(t)))
}

func saveDevgroup(p *printer, b []byte) {
	flags := u32(b, 0)
	for i, opt := range []string{"--src-group", "--dst-group"} {
		if flags&(1<<(2*i)) != 0 {
			p.not(flags&(2<<(2*i)) != 0)
			p.word(opt)
			p.named(u32(b, 4+8*i), u32(b, 8+8*i), map[uint32]string{0: "default"})
		}
	}
}

// named is markMask with the name that /etc/iproute2 gives to a number.
func (p *printer) named(v, mask uint32, of map[uint32]string) {
	if n, ok := of[v]; ok && mask == 0xffffffff {
		p.word(n)
		return
	}
	p.markMask(v, mask)
}

func saveRPFilter(p *printer, b []byte) {
	p.flagWords(uint32(b[0]), "--loose", "--validmark", "--accept-local", "--invert")
}

func savePolicy(p *printer, b []byte) {
	flags, n := u16(b, 304), min(int(u16(b, 306)), 4)
	p.word("--dir", map[bool]string{true: "in", false: "out"}[flags&policyIn != 0])
	p.word("--pol", map[bool]string{true: "none", false: "ipsec"}[flags&policyNone != 0])
	if flags&policyStrict != 0 {
		p.word("--strict")
	}
	for i := range n {
		p.policyElement(b[76*i : 76*i+76])
		if i+1 < n {
			p.word("--next")
		}
	}
}

// policyElement prints struct xt_policy_elem. The bits of its two bit fields
// are saddr, daddr, proto, mode, spi, reqid.
func (p *printer) policyElement(b []byte) {
	match, inv := policyBits(b[74]), policyBits(b[75])
	item := func(bit uint8, opt, value string) {
		if match&bit != 0 {
			p.not(inv&bit != 0)
			p.word(opt, value)
		}
	}
	item(32, "--reqid", dec(u32(b, 68)))
	item(16, "--spi", fmt.Sprintf("0x%x", u32(b, 64)))
	item(4, "--proto", protoName(uint16(b[72])))
	item(8, "--mode", word(b[73], "transport", "tunnel"))
	item(2, "--tunnel-dst", p.addrMaskAt(b, 32, 48))
	item(1, "--tunnel-src", p.addrMaskAt(b, 0, 16))
}

// policyBits brings the bit field of C to the order of a little-endian machine.
func policyBits(v uint8) uint8 {
	if u16([]byte{1, 0}, 0) == 1 {
		return v
	}
	var out uint8
	for i := range 8 {
		if v&(0x80>>i) != 0 {
			out |= 1 << i
		}
	}
	return out
}

func saveRealm(p *printer, b []byte) {
	p.not(b[8] != 0)
	p.word("--realm")
	p.named(u32(b, 0), u32(b, 4), map[uint32]string{0: "cosmos"})
}

func saveCPU(p *printer, b []byte) { p.number(u32(b, 4) != 0, "--cpu", uint64(u32(b, 0))) }

func saveCluster(p *printer, b []byte) {
	p.not(u32(b, 12)&1 != 0)
	p.f(" --cluster-local-nodemask 0x%08x --cluster-total-nodes %d --cluster-hash-seed 0x%08x", u32(b, 4), u32(b, 0), u32(b, 8))
}

func saveIPVS(p *printer, b []byte) {
	inv, bits := b[38], b[39]
	if bits == 1 {
		p.not(inv&1 != 0)
		p.word("--ipvs")
	}
	item := func(bit uint8, words ...string) {
		if bits&bit != 0 {
			p.not(inv&bit != 0)
			p.word(words...)
		}
	}
	item(2, "--vproto", dec(b[34]))
	item(4, "--vaddr", p.addrMaskAt(b, 0, 16))
	item(8, "--vport", dec(be16(b, 32)))
	if bits&16 != 0 {
		p.word("--vdir", map[bool]string{true: "REPLY", false: "ORIGINAL"}[inv&16 != 0])
	}
	item(32, "--vmethod", map[uint8]string{0: "MASQ", 2: "IPIP", 3: "GATE"}[b[35]])
	item(64, "--vportctl", dec(be16(b, 36)))
}

func saveOwner(p *printer, b []byte) {
	match, inv := b[16], b[17]
	ids := func(bit uint8, opt string, lo, hi uint32) {
		if match&bit == 0 {
			return
		}
		p.not(inv&bit != 0)
		if lo != hi {
			p.word(opt, dec(lo)+"-"+dec(hi))
			return
		}
		p.word(opt, dec(lo))
	}
	if match&ownerSocket != 0 {
		p.not(inv&ownerSocket != 0)
		p.word("--socket-exists")
	}
	ids(ownerUID, "--uid-owner", u32(b, 0), u32(b, 4))
	ids(ownerGID, "--gid-owner", u32(b, 8), u32(b, 12))
	if match&ownerSupplGroups != 0 {
		p.not(inv&ownerSupplGroups != 0)
		p.word("--suppl-groups")
	}
}

func saveSocket(p *printer, b []byte) {
	p.flagWords(uint32(b[0]), "--transparent", "--nowildcard", "--restore-skmark")
}

func saveCgroup0(p *printer, b []byte) {
	p.number(u32(b, 4) != 0, "--cgroup", uint64(u32(b, 0)))
}

func saveCgroup1(p *printer, b []byte) { p.cgroup(b, b[4:4100], u32(b, 4100)) }

func saveCgroup2(p *printer, b []byte) { p.cgroup(b, b[4:516], u32(b, 4)) }

func (p *printer) cgroup(b, path []byte, class uint32) {
	if b[0] != 0 {
		p.not(b[2] != 0)
		p.word("--path")
		p.text(cstring(path))
	}
	if b[1] != 0 {
		p.number(b[3] != 0, "--cgroup", uint64(class))
	}
}

func (p *printer) set(opt string, s setInfo) {
	p.word(opt, p.setName(s.index))
	if sides := s.sides(); len(sides) > 0 {
		list := make([]string, len(sides))
		for i, src := range sides {
			list[i] = map[bool]string{true: "src", false: "dst"}[src]
		}
		p.word(strings.Join(list, ","))
	}
}

func (p *printer) matchSet(s setInfo) {
	p.not(s.flags&setInvert != 0)
	p.set("--match-set", s)
}

func saveSet0(p *printer, b []byte) { p.matchSet(newSetInfo0(b)) }

func saveSet1(p *printer, b []byte) { p.matchSet(newSetInfo(b)) }

func saveSet2(p *printer, b []byte) {
	s := newSetInfo(b)
	p.matchSet(s)
	if s.flags&setReturnNomatch != 0 {
		p.word("--return-nomatch")
	}
}

func saveSet3(p *printer, b []byte) {
	p.matchSet(newSetInfo(b))
	p.setFlags(u32(b, 40))
	p.counter("--packets", b[8], u64(b, 16))
	p.counter("--bytes", b[24], u64(b, 32))
}

func saveSet4(p *printer, b []byte) {
	p.matchSet(newSetInfo(b))
	p.setFlags(u32(b, 40))
	p.counter("--packets", b[16], u64(b, 8))
	p.counter("--bytes", b[32], u64(b, 24))
}

func (p *printer) setFlags(flags uint32) {
	if flags&cmdReturnNomatch != 0 {
		p.word("--return-nomatch")
	}
	if flags&(1<<3) != 0 {
		p.word("!", "--update-counters")
	}
	if flags&(1<<4) != 0 {
		p.word("!", "--update-subcounters")
	}
}

func (p *printer) counter(opt string, op uint8, v uint64) {
	switch op {
	case counterEQ, counterNE:
		p.number(op == counterNE, opt+"-eq", v)
	case counterLT:
		p.number(false, opt+"-lt", v)
	case counterGT:
		p.number(false, opt+"-gt", v)
	}
}

func saveRecent0(p *printer, b []byte) { p.recent(b, "") }

func saveRecent1(p *printer, b []byte) { p.recent(b, p.addrAt(b, 212)) }

func (p *printer) recent(b []byte, mask string) {
	op := b[8]
	p.not(b[9] != 0)
	p.flagWords(uint32(op), "", "--set")
	p.flagWords(uint32(op), "--rcheck", "", "--update", "--remove")
	if s := u32(b, 0); s != 0 {
		p.f(" --seconds %d", int32(s))
	}
	if op&recentReap != 0 {
		p.word("--reap")
	}
	if n := u32(b, 4); n != 0 {
		p.f(" --hitcount %d", int32(n))
	}
	if op&recentTTL != 0 {
		p.word("--rttl")
	}
	p.word("--name", cstring(b[10:210]))
	if mask != "" {
		p.word("--mask", mask)
	}
	switch b[210] {
	case 0:
		p.word("--rsource")
	case 1:
		p.word("--rdest")
	}
}
