package firewall

import (
	"math/bits"
)

// maxSpread bounds the addresses and the ports of a range that are followed one by one.
const maxSpread = 64

// ways forks a class n times.
func (x *ruleWalk) ways(c Class, n int, why string) []Class {
	var out []Class
	for i := range n {
		if i < n-1 { // the last fork has two branches
			x.fork(&c, Condition{Rule: x.rule, Why: why})
		}
		out = append(out, c)
	}
	return out
}

// destination is nf_nat_setup_info with NF_NAT_MANIP_DST: get_unique_tuple.
func (x *ruleWalk) destination(c Class, n *NAT, addr, addrMax, port, portMax *Value) {
	w := c.State.Family.AddrLen()
	switch {
	case addr == nil:
		x.destinationPort(c, &c.State, n, port, portMax)
	case n.Flags&NATNetmap != 0:
		d := c
		mask := addr.Xor(*addrMax).Not(w)
		d.State.Local = c.State.Local.And(mask.Not(w)).Or(addr.And(mask))
		x.destinationPort(d, &c.State, n, port, portMax)
	default:
		for _, s := range x.spread(c, n, *addr, *addrMax, false) {
			d := s.Class
			d.State.Local, d.State.LocalUnknown = s.addr, s.unknown
			if s.unknown {
				x.fork(&d, Condition{Rule: x.rule, Why: "the destination is spread over several addresses by a hash"})
			}
			x.destinationPort(d, &c.State, n, port, portMax)
		}
	}
}

// destinationPort is what nf_nat_l4proto_unique_tuple does for a destination.
func (x *ruleWalk) destinationPort(c Class, before *State, n *NAT, port, portMax *Value) {
	const why = "the destination port is chosen from a range at random"
	settle := func(c Class, port uint16) {
		c.State.LocalPort, c.State.LocalPortUnknown = port, false
		x.settled(c, before)
	}
	if port == nil || !c.State.Proto.HasPorts() {
		x.settled(c, before)
		return
	}
	now, lo := c.State.LocalPort, uint16(port.Lo)
	size := int(portMax.Lo) - int(port.Lo) + 1
	switch {
	case size == 1:
		settle(c, lo)
	case size < 1, c.State.LocalPortUnknown:
		c.State.LocalPortUnknown = true
		x.fork(&c, Condition{Rule: x.rule, Why: why})
		x.settled(c, before)
	case n.Flags&NATPortOffset != 0:
		settle(c, lo+uint16(int(now-n.PortBase)%size))
	case n.Flags&(NATRandom|NATFullyRandom) == 0 && lo <= now && now <= uint16(portMax.Lo):
		settle(c, now) // l4proto_in_range
	case n.Flags&(NATRandom|NATFullyRandom) == 0 && x.env.FIB != nil && x.env.FIB.DNATTakesFirstPort():
		settle(c, lo) // in use it cannot be: that is a flow from the same address and port
	case size <= maxSpread:
		for i, way := range x.ways(c, size, why) {
			settle(way, lo+uint16(i))
		}
	default:
		c.State.LocalPortUnknown = true
		x.fork(&c, Condition{Rule: x.rule, Why: why})
		x.settled(c, before)
	}
}

// settled ends the translation of a destination.
func (x *ruleWalk) settled(c Class, before *State) {
	st := &c.State
	if st.Local != before.Local || st.LocalPort != before.LocalPort || st.LocalUnknown || st.LocalPortUnknown {
		st.CTStatus |= CTStatusDstNAT
	}
	x.settle(c)
}

// source is nf_nat_setup_info with NF_NAT_MANIP_SRC: get_unique_tuple.
func (x *ruleWalk) source(c Class, n *NAT, addr, addrMax, port, portMax *Value) {
	if addr == nil {
		x.changed(c, n, port, portMax)
		return
	}
	w := c.State.Family.AddrLen()
	if n.Flags&NATNetmap != 0 {
		for _, p := range c.netmapped(*addr, addr.Xor(*addrMax).Not(w)) {
			x.changed(p, n, port, portMax)
		}
		return
	}
	pieces := []Class{c}
	if n.Flags&(NATRandom|NATFullyRandom) == 0 {
		pieces = x.within(c, *addr, *addrMax, port, portMax)
	}
	for _, p := range pieces {
		for _, s := range x.spread(p, n, *addr, *addrMax, true) {
			d := s.Class
			d.State.RemoteAddrKind, d.State.RemoteAddr = RemoteConst, s.addr
			if s.unknown {
				d.State.RemoteAddrKind, d.State.RemoteAddr = RemoteUnknown, Value{}
			}
			x.changed(d, n, port, portMax)
		}
	}
}

func (x *ruleWalk) changed(c Class, n *NAT, port, portMax *Value) {
	c.State.CTStatus |= CTStatusSrcNAT
	x.sourcePort(c, n, port, portMax)
}

// within lets those sources go as they are that are in the range already (in_range),
// and returns the others.
func (x *ruleWalk) within(c Class, addr, addrMax Value, port, portMax *Value) (others []Class) {
	in, out := c.Remote, Ranges(nil)
	switch c.State.RemoteAddrKind {
	case RemoteSame, RemoteShifted:
		in = c.Remote.Shift(c.State.RemoteAddr).Intersect(Span(addr, addrMax)).Shift(Value{}.Sub(c.State.RemoteAddr))
		out = c.Remote.Minus(in)
	case RemoteConst:
		if !Span(addr, addrMax).Contains(c.State.RemoteAddr) {
			in, out = nil, c.Remote
		}
	default:
		return []Class{c}
	}
	ports, otherPorts := c.Ports, Ranges(nil)
	if port != nil && c.State.Proto.HasPorts() {
		switch c.State.RemotePortKind {
		case RemoteSame:
			ports = c.Ports.Intersect(Span(*port, *portMax))
			otherPorts = c.Ports.Minus(ports)
		case RemoteConst:
			if !Span(*port, *portMax).Contains(Num(uint64(c.State.RemotePort))) {
				ports, otherPorts = nil, c.Ports
			}
		default:
			return []Class{c}
		}
	}
	if !in.Empty() && !ports.Empty() {
		x.settle(c.with(Piece{in, ports}))
	}
	if !in.Empty() && !otherPorts.Empty() {
		others = append(others, c.with(Piece{in, otherPorts}))
	}
	if !out.Empty() {
		others = append(others, c.with(Piece{out, c.Ports}))
	}
	return others
}

// sourcePort keeps the client's port where the range allows it. (The kernel
// takes another one when the tuple is in use; no rule can build on that.)
func (x *ruleWalk) sourcePort(c Class, n *NAT, port, portMax *Value) {
	other := func(c Class) Class {
		c.State.RemotePortKind, c.State.RemotePort = RemoteUnknown, 0
		return c
	}
	random := n.Flags&(NATRandom|NATFullyRandom) != 0
	switch {
	case !c.State.Proto.HasPorts():
	case port != nil && *port == *portMax:
		c.State.RemotePortKind, c.State.RemotePort = RemoteConst, uint16(port.Lo)
	case random:
		c = other(c)
	case port == nil:
	case c.State.RemotePortKind == RemoteSame:
		rng := Span(*port, *portMax)
		if in := c.Ports.Intersect(rng); !in.Empty() {
			x.settle(c.with(Piece{c.Remote, in}))
		}
		out := c.Ports.Minus(rng)
		if out.Empty() {
			return
		}
		c = other(c.with(Piece{c.Remote, out}))
	case c.State.RemotePortKind != RemoteConst || !Span(*port, *portMax).Contains(Num(uint64(c.State.RemotePort))):
		c = other(c)
	}
	x.settle(c)
}

// chosen is a part of a class with the address of a range that its packets get.
type chosen struct {
	Class
	addr    Value
	unknown bool
}

// spread is find_best_ips_proto: it chooses an address of a range by a hash of the
// packet's own addresses, the same one each time. Of many sources at once each of
// the addresses is followed.
func (x *ruleWalk) spread(c Class, n *NAT, addr, addrMax Value, src bool) []chosen {
	if addr == addrMax {
		return []chosen{{Class: c, addr: addr}}
	}
	st := &c.State
	h := natHash{family: st.Family, dst: st.Local, zone: uint32(st.FlowZone), persistent: n.Flags&NATPersistent != 0, toSource: src}
	ready := x.env.FIB != nil && !(st.LocalUnknown && !h.persistent)
	if ready {
		h.big = x.env.FIB.BigEndian()
	}
	if ready && st.RemoteAddrKind == RemoteConst {
		return []chosen{{Class: c, addr: h.choose(st.RemoteAddr, addr, addrMax)}}
	}
	if ready && st.RemoteAddrKind != RemoteUnknown && c.Remote.fewer(maxSpread) {
		var out []chosen
		by := map[Value]int{} // address → place in out
		for _, r := range c.Remote {
			for v := r.Lo; ; v = v.Add(Num(1)) {
				a := h.choose(v.Add(st.RemoteAddr), addr, addrMax)
				if i, ok := by[a]; ok {
					out[i].Class.Remote = out[i].Class.Remote.Union(Single(v))
				} else {
					by[a] = len(out)
					out = append(out, chosen{Class: c.with(Piece{Single(v), c.Ports}), addr: a})
				}
				if v == r.Hi {
					break
				}
			}
		}
		return out
	}
	if addrMax.Less(addr) || addr.Hi != addrMax.Hi || addr.Lo>>32 != addrMax.Lo>>32 || !Span(addr, addrMax).fewer(maxSpread) {
		return []chosen{{Class: c, unknown: true}}
	}
	var out []chosen
	for i, way := range x.ways(c, int(addrMax.Lo-addr.Lo)+1, "which address of the range a hash of the source chooses") {
		out = append(out, chosen{Class: way, addr: addr.Add(Num(uint64(i)))})
	}
	return out
}

// fewer reports whether the set has at most n values.
func (s Ranges) fewer(n uint64) bool {
	for _, r := range s {
		d := r.Hi.Sub(r.Lo)
		if d.Hi != 0 || d.Lo >= n {
			return false
		}
		n -= d.Lo + 1
	}
	return true
}

// natHash is what find_best_ips_proto (net/netfilter/nf_nat_core.c) hashes beside
// the source.
type natHash struct {
	family     Family
	dst        Value
	zone       uint32
	persistent bool // NF_NAT_RANGE_PERSISTENT: the destination does not count
	toSource   bool // the source is translated, not the destination
	big        bool // the host is big-endian: it hashes words of network order as they lie
}

// words are those of union nf_inet_addr as the host reads them.
func (h natHash) words(v Value) (w [4]uint32) {
	if h.family == IPv4 {
		w[0] = h.host(uint32(v.Lo))
		return w
	}
	for i, half := range []uint64{v.Hi, v.Lo} {
		w[2*i], w[2*i+1] = h.host(uint32(half>>32)), h.host(uint32(half))
	}
	return w
}

// host is ntohl and htonl.
func (h natHash) host(v uint32) uint32 {
	if h.big {
		return v
	}
	return bits.ReverseBytes32(v)
}

func (h natHash) choose(src, lo, hi Value) Value {
	s, d, from, to := h.words(src), h.words(h.dst), h.words(lo), h.words(hi)
	last := 0
	if h.family == IPv6 {
		last = 3
	}
	seed := uint32(0)
	if !h.persistent {
		seed = d[last] ^ h.zone
	}
	j := jhash4(s, seed)
	out := s
	if !h.toSource {
		out = d
	}
	full := false
	for i := 0; i <= last; i++ {
		low, dist := uint32(0), ^uint32(0)
		if !full {
			low = h.host(from[i])
			dist = h.host(to[i]) - low + 1
		}
		out[i] = h.host(low + uint32(uint64(j)*uint64(dist)>>32)) // reciprocal_scale
		full = full || out[i] != to[i]
		if !h.persistent {
			if !h.toSource {
				d[i] = out[i] // the tuple's own destination is what is written
			}
			j ^= d[i]
		}
	}
	if h.family == IPv4 {
		return Num(uint64(h.host(out[0])))
	}
	half := func(i int) uint64 { return uint64(h.host(out[i]))<<32 | uint64(h.host(out[i+1])) }
	return Value{Hi: half(0), Lo: half(2)}
}

// jhash4 is jhash2 of four words (include/linux/jhash.h, after Bob Jenkins).
func jhash4(k [4]uint32, seed uint32) uint32 {
	rol := bits.RotateLeft32
	a := uint32(0xdeadbeef) + 4<<2 + seed
	b, c := a, a
	a, b, c = a+k[0], b+k[1], c+k[2]
	a, c = (a-c)^rol(c, 4), c+b
	b, a = (b-a)^rol(a, 6), a+c
	c, b = (c-b)^rol(b, 8), b+a
	a, c = (a-c)^rol(c, 16), c+b
	b, a = (b-a)^rol(a, 19), a+c
	c, b = (c-b)^rol(b, 4), b+a
	a += k[3]
	c = (c ^ b) - rol(b, 14)
	a = (a ^ c) - rol(c, 11)
	b = (b ^ a) - rol(a, 25)
	c = (c ^ b) - rol(b, 16)
	a = (a ^ c) - rol(c, 4)
	b = (b ^ a) - rol(a, 14)
	c = (c ^ b) - rol(b, 24)
	return c
}

// netmapBudget bounds the networks a source NETMAP is followed into.
const netmapBudget = 256

// netmapped maps the remote addresses into the network to/mask, one class for
// each network they come from.
func (c *Class) netmapped(to, mask Value) []Class {
	w := c.State.Family.AddrLen()
	to = to.And(mask)
	var out []Class
	rest := c.Remote
	if c.State.RemoteAddrKind == RemoteConst {
		d := *c
		d.State.RemoteAddr = c.State.RemoteAddr.And(mask.Not(w)).Or(to)
		return []Class{d}
	}
	for !rest.Empty() && c.State.RemoteAddrKind == RemoteSame && len(out) < netmapBudget {
		net := rest[0].Lo.And(mask)
		block := Span(net, net.Or(mask.Not(w)))
		d := c.with(Piece{rest.Intersect(block), c.Ports})
		d.State.RemoteAddrKind, d.State.RemoteAddr = RemoteShifted, to.Sub(net)
		out = append(out, d)
		rest = rest.Minus(block)
	}
	if !rest.Empty() {
		d := c.with(Piece{rest, c.Ports})
		d.State.RemoteAddrKind, d.State.RemoteAddr = RemoteUnknown, Value{}
		out = append(out, d)
	}
	return out
}
