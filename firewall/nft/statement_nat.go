package nft

import (
	fw "github.com/hostaudit/hostaudit/firewall"
)

// familyNumber is the packet family of an NFPROTO number, 0 for others.
func familyNumber(n uint32) fw.Family {
	switch n {
	case nfprotoIPv4:
		return fw.IPv4
	case nfprotoIPv6:
		return fw.IPv6
	default:
		return 0
	}
}

// natRanges reads the registers of an address and a port range.
func (r *run) natRanges(t *table, n *fw.NAT, addrMin, addrMax, portMin, portMax int) bool {
	read := func(i, length int) (fw.Source, bool) {
		if i == 0 || !t.has(i) {
			return nil, true
		}
		at, ok := t.reg(i, length)
		if !ok {
			return nil, false
		}
		return r.source(at, length, false), true
	}
	addrLen := 4
	if n.Family == fw.IPv6 {
		addrLen = 16
	}
	var ok [4]bool
	n.AddrMin, ok[0] = read(addrMin, addrLen)
	ok[1], ok[3] = true, true
	if addrMax != 0 && t.has(addrMax) && t.num(addrMax) != t.num(addrMin) {
		n.AddrMax, ok[1] = read(addrMax, addrLen)
	}
	n.PortMin, ok[2] = read(portMin, 2)
	if t.has(portMax) && t.num(portMax) != t.num(portMin) {
		n.PortMax, ok[3] = read(portMax, 2)
	}
	return ok == [4]bool{true, true, true, true}
}

// The flags of a translation that the model carries on.
const natFlags = fw.NATRandom | fw.NATPersistent | fw.NATFullyRandom | fw.NATPortOffset | fw.NATNetmap

// nat is nft_nat_eval: in an inet table the other family passes.
func (r *run) nat(t *table) {
	n := &fw.NAT{Flags: t.num(7) & natFlags}
	switch t.num(1) {
	case 0:
		n.Kind = fw.SNAT
	case 1:
		n.Kind = fw.DNAT
	default:
		r.incomplete("nat")
		return
	}
	// NF_NAT_RANGE_MAP_IPS and PROTO_SPECIFIED only repeat which registers are used.
	if !t.has(1) || !t.has(2) || t.num(7)&^(natFlags|3) != 0 {
		r.incomplete("nat")
		return
	}
	n.Family = familyNumber(t.num(2))
	if n.Family == 0 && t.has(3) {
		r.incomplete("nat")
		return
	}
	if !r.natRanges(t, n, 3, 4, 5, 6) {
		r.incomplete("nat")
		return
	}
	r.emit(n)
}

func (r *run) masq(t *table) {
	n := &fw.NAT{Kind: fw.Masquerade, Flags: t.num(1) & natFlags}
	if t.num(1)&^(natFlags|3) != 0 || !r.natRanges(t, n, 0, 0, 2, 3) {
		r.incomplete("masq")
		return
	}
	r.emit(n)
}

func (r *run) redir(t *table) {
	n := &fw.NAT{Kind: fw.Redirect, Flags: t.num(3) & natFlags}
	if t.num(3)&^(natFlags|3) != 0 || !r.natRanges(t, n, 0, 0, 1, 2) {
		r.incomplete("redir")
		return
	}
	r.emit(n)
}

// tproxy is nft_tproxy_eval.
func (r *run) tproxy(t *table) {
	p := &fw.TProxy{}
	f := familyNumber(t.num(1))
	if f != 0 {
		r.requireFamily(f)
	}
	if t.has(2) {
		n := 4
		if f == fw.IPv6 {
			n = 16
		}
		at, ok := t.reg(2, n)
		if !ok || f == 0 {
			r.incomplete("tproxy")
			return
		}
		p.Addr = r.source(at, n, false)
	}
	if t.has(3) {
		at, ok := t.reg(3, 2)
		if !ok {
			r.incomplete("tproxy")
			return
		}
		p.Port = r.source(at, 2, false)
	}
	r.emit(p)
}
