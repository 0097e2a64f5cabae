package firewall

import (
	"slices"
	"strings"
	"sync"
)

// ipsetQuery asks one set about a class: what each dimension is, and from that
// which part of the class an element holds.
type ipsetQuery struct {
	set     *IPSet
	class   *Class
	nomatch bool

	// addr and addr2 are the packet's addresses for the two address parts.
	addr, addr2       reading
	hasAddr, hasAddr2 bool
	port              reading
	hasPort           bool
	// unknown names dimensions that cannot be told: every element may match.
	unknown     string
	unknownMark bool

	key ipsetKey
}

// ipsetKey is all of a query that is the same for all packets of the class, so
// that the sets of addresses and ports that follow from it are kept. It is
// comparable.
type ipsetKey struct {
	addr, addr2         Value
	varAddr, varAddr2   bool
	port                uint16
	varPort             bool
	proto               uint8
	iface               string
	mark                uint32
	nomatch, hasUnknown bool
}

// ipsetIndex holds what was derived from a set.
type ipsetIndex struct {
	once   sync.Once
	byPort map[uint32][]int32 // proto<<16 | port → elements
	levels bool               // elements of several prefix lengths, or nomatch
	found  sync.Map           // ipsetKey → ipsetFound
}

// dimension reads what the packet has for a part of the set. It reports false
// when the kernel cannot look the packet up at all.
func (q *ipsetQuery) dimension(d ipsetPart, src bool, env *Env) bool {
	c := q.class
	switch d {
	case ipsetAddr, ipsetAddr2:
		r := c.dstAddr()
		if src {
			r = c.srcAddr()
		}
		if c.State.RewroteHeader != "" {
			r = isUnknown("a header that " + c.State.RewroteHeader + " rewrote")
		}
		if d == ipsetAddr {
			q.addr, q.hasAddr = r, true
		} else {
			q.addr2, q.hasAddr2 = r, true
		}
	case ipsetPort:
		return q.portDimension(src)
	case ipsetIface:
		l := c.State.Out
		if src {
			l = c.State.In
		}
		if l == nil {
			return false // hash_netiface4_kadt: no name, nothing found
		}
		q.key.iface = l.Name
	case ipsetMark:
		if c.State.Mark.Unknown {
			q.unknown, q.unknownMark = "the packet mark", true
			break
		}
		q.key.mark = c.State.Mark.Value & q.set.MarkMask
	case ipsetMAC:
		const loopback = 772 // ARPHRD_LOOPBACK: addresses are zero
		if c.State.In == nil || c.State.In.Type == loopback {
			return false
		}
		q.unknown = "the MAC address of the packet"
	}
	return true
}

// portDimension is ip_set_get_ip4_port, and for bitmap:port
// ip_set_get_ip_port.
func (q *ipsetQuery) portDimension(src bool) bool {
	c := q.class
	q.key.proto = uint8(c.State.Proto)
	if q.set.Type == "bitmap:port" && c.State.Proto != TCP && c.State.Proto != UDP {
		return false
	}
	q.hasPort = true
	switch c.State.Proto {
	case TCP, UDP, UDPLite, SCTP:
		if src {
			q.port = c.srcPort()
		} else {
			q.port = c.dstPort()
		}
		if c.State.RewroteHeader != "" {
			q.port = isUnknown("a header that " + c.State.RewroteHeader + " rewrote")
		}
	case ICMP, ICMPv6:
		q.port = isConst(uint64(c.State.ICMPType)<<8 | uint64(c.State.ICMPCode))
	default:
		q.port = isConst(0)
	}
	return true
}

// ipsetFound is what a set holds of the packets that share a key: products of
// addresses and ports, disjoint. Addresses are as the packet has them, and
// everyAddr where none is variable.
type ipsetFound struct {
	yes, maybe []ipsetPiece
}

type ipsetPiece struct{ addrs, ports Ranges }

// answer splits the class.
func (q *ipsetQuery) answer() Parts {
	k := &q.key
	k.nomatch = q.nomatch
	set := func(r reading, has bool, v *Value, variable *bool) bool {
		switch {
		case !has:
		case r.kind == readConst:
			*v = r.value
		case r.kind == readRemote:
			*variable = true
		default:
			q.unknown = r.why
			return false
		}
		return true
	}
	knownAddr := set(q.addr, q.hasAddr, &k.addr, &k.varAddr)
	knownAddr2 := set(q.addr2, q.hasAddr2, &k.addr2, &k.varAddr2)
	knownPort := true
	if q.hasPort {
		switch q.port.kind {
		case readConst:
			k.port = uint16(q.port.value.Lo)
		case readPort:
			k.varPort = true
		default:
			q.unknown, knownPort = q.port.why, false
		}
	}
	if !knownAddr || !knownAddr2 || !knownPort || q.hasAddr && q.hasAddr2 && k.varAddr && k.varAddr2 && q.addr.value != q.addr2.value {
		if q.unknown == "" {
			q.unknown = "an address of the packet"
		}
		return allMaybe(q.class, q.unknown)
	}
	k.hasUnknown = q.unknown != ""
	f, ok := q.set.index.found.Load(*k)
	if !ok {
		f, _ = q.set.index.found.LoadOrStore(*k, q.find())
	}
	return q.parts(f.(ipsetFound))
}

// shift is what was added to the peer's original address.
func (q *ipsetQuery) shift() Value {
	if q.key.varAddr {
		return q.addr.value
	}
	return q.addr2.value
}

// parts turns what the set holds into pieces of the class.
func (q *ipsetQuery) parts(f ipsetFound) Parts {
	c := q.class
	pieces := func(in []ipsetPiece) []Piece {
		var out []Piece
		for _, p := range in {
			piece := Piece{c.Remote, c.Ports}
			if q.key.varAddr || q.key.varAddr2 {
				piece.Remote = c.Remote.Intersect(p.addrs.Shift(Value{}.Sub(q.shift())))
			}
			if q.key.varPort {
				piece.Ports = c.Ports.Intersect(p.ports)
			}
			if !piece.Remote.Empty() && !piece.Ports.Empty() {
				out = append(out, piece)
			}
		}
		return out
	}
	var out Parts
	out.Yes, out.Maybe = pieces(f.yes), pieces(f.maybe)
	if len(out.Maybe) > 0 {
		out.Why = q.unknown
		if out.Why == "" {
			out.Why = "the order in which the kernel keeps the elements of ipset " + q.set.Name
		}
	}
	out.No = minusPieces(c, append(slices.Clone(out.Yes), out.Maybe...))
	return out
}

// find looks through the elements in the kernel's order: longer prefixes first
// (mtype_test_cidrs).
func (q *ipsetQuery) find() ipsetFound {
	if q.key.varPort {
		return q.findByPort()
	}
	yes, maybe := q.findAt(q.key.port)
	return ipsetFound{yes: onePiece(yes, nil), maybe: onePiece(maybe, nil)}
}

func onePiece(addrs, ports Ranges) []ipsetPiece {
	if addrs.Empty() {
		return nil
	}
	return []ipsetPiece{{addrs: addrs, ports: ports}}
}

// findByPort answers for a variable port: port by port.
func (q *ipsetQuery) findByPort() ipsetFound {
	s := q.set
	var ports []uint16
	for i, p := range s.Ports {
		if s.Protos == nil || s.Protos[i] == q.key.proto {
			ports = append(ports, p)
		}
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)
	var f ipsetFound
	add := func(to []ipsetPiece, addrs Ranges, port uint16) []ipsetPiece {
		if addrs.Empty() {
			return to
		}
		v := Num(uint64(port))
		if n := len(to); n > 0 && to[n-1].addrs.Equal(addrs) {
			to[n-1].ports = to[n-1].ports.Union(Single(v))
			return to
		}
		return append(to, ipsetPiece{addrs: addrs, ports: Single(v)})
	}
	for _, p := range ports {
		yes, maybe := q.findAt(p)
		f.yes = add(f.yes, yes, p)
		f.maybe = add(f.maybe, maybe, p)
	}
	return f
}

// everyAddr stands for "all packets" where no address is variable.
var everyAddr = Ranges{{Value{}, MaxValue(16)}}

// findAt answers for one port: the addresses that are found and those that
// cannot be told, or everyAddr or nothing where no address is variable.
func (q *ipsetQuery) findAt(port uint16) (yes, maybe Ranges) {
	s := q.set
	s.prepare()
	byLevel := map[int]*ipsetLevel{}
	visit := func(i int) {
		r, nets, level := q.element(i)
		if nets.Empty() {
			return
		}
		if !s.index.levels {
			level = 0
		}
		l := byLevel[level]
		if l == nil {
			l = &ipsetLevel{}
			byLevel[level] = l
		}
		nomatch := s.Nomatch != nil && s.Nomatch[i]
		switch {
		case s.Type != "hash:net,iface":
		case s.Physdev != nil && s.Physdev[i]:
			l.mayCover = append(l.mayCover, nets...)
		default:
			l.covers = append(l.covers, nets...)
		}
		switch {
		case r.Empty():
		case nomatch != q.nomatch:
			l.no = append(l.no, r...)
		default:
			l.yes = append(l.yes, r...)
		}
	}
	if q.hasPort {
		for _, i := range s.index.byPort[s.portKey(q.key.proto, port)] {
			visit(int(i))
		}
	} else {
		for i := range s.N {
			visit(i)
		}
	}
	levels := make([]int, 0, len(byLevel))
	for l := range byLevel {
		levels = append(levels, l)
	}
	slices.Sort(levels) // the least specific first; the more specific override
	var all Ranges
	for _, n := range levels {
		l := byLevel[n]
		in, out, covers := NewRanges(l.yes), NewRanges(l.no), NewRanges(l.covers)
		all = all.Union(in)
		both := in.Intersect(out)
		doubt := yes.Intersect(NewRanges(l.mayCover))
		yes = yes.Minus(doubt).Minus(out).Minus(covers).Union(in).Minus(both)
		maybe = maybe.Union(doubt).Minus(out).Minus(covers).Minus(in).Union(both)
	}
	if q.unknown != "" {
		return nil, all
	}
	return yes, maybe
}

// ipsetLevel is the elements of one prefix length: what they find and what their
// nomatch flag excludes.
type ipsetLevel struct {
	yes, no []Range
	// covers are the networks of hash:net,iface: the search ends at the first
	// one that the address lies in, whatever the interface (multi in
	// mtype_test_cidrs). Those with physdev end it only when they happen to be
	// in the same hash bucket.
	covers, mayCover []Range
}

// element returns the addresses for which element i is found (everyAddr where
// none is variable), the addresses of its network, and its place in the
// kernel's order.
func (q *ipsetQuery) element(i int) (r, nets Ranges, level int) {
	s := q.set
	k := &q.key
	n := s.Family.AddrLen()
	nets = everyAddr
	if q.hasAddr {
		bits := 8 * n
		if s.Bits != nil {
			bits = int(s.Bits[i])
		}
		level = bits << 8
		nets = q.addrPart(s.Addrs[i*n:(i+1)*n], bits, s.Mask, k.addr, k.varAddr)
	}
	if q.hasAddr2 && !nets.Empty() {
		bits := 8 * n
		if s.Bits2 != nil {
			bits = int(s.Bits2[i])
		}
		level |= bits
		nets = nets.Intersect(q.addrPart(s.Addrs2[i*n:(i+1)*n], bits, MaxValue(n), k.addr2, k.varAddr2))
	}
	if nets.Empty() {
		return nil, nil, 0
	}
	r = nets
	if s.Marks != nil && !q.unknownMark && s.Marks[i] != k.mark {
		return nil, nil, 0
	}
	if s.Ifaces != nil && !s.ifaceIs(i, k.iface) {
		r = nil
	}
	return r, nets, level
}

// addrPart returns the packet addresses for which an address part of an
// element is equal: everyAddr or nothing for a constant one.
func (q *ipsetQuery) addrPart(addr []byte, bits int, mask, v Value, variable bool) Ranges {
	s := q.set
	n := len(addr)
	lo := Bytes(addr)
	pm := PrefixMask(bits, n)
	lo = lo.And(pm)
	if variable {
		if mask == MaxValue(n) {
			return Ranges{{lo, lo.Or(pm.Not(n))}}
		}
		op := Operand{Len: n, Mask: mask}
		out, ok := preimage(&op, Ranges{{lo, lo.Or(pm.Not(n))}}, All(n))
		if !ok {
			q.unknown = "an address mask that makes too many ranges"
			return All(n)
		}
		return out
	}
	v = v.And(mask)
	if s.Type == "hash:ip" && v.IsZero() {
		return nil // hash_ip4_kadt: the address 0 is not looked up
	}
	if v.And(pm) != lo {
		return nil
	}
	return everyAddr
}

// ifaceIs is the end of hash_netiface4_data_equal. Elements with physdev only
// match rules that ask for bridge ports, which no front end makes.
func (s *IPSet) ifaceIs(i int, name string) bool {
	if s.Physdev != nil && s.Physdev[i] {
		return false
	}
	if s.Wildcard != nil && s.Wildcard[i] {
		return strings.HasPrefix(name, s.Ifaces[i])
	}
	return s.Ifaces[i] == name
}

func (s *IPSet) portKey(proto uint8, port uint16) uint32 {
	if s.Protos == nil {
		return uint32(port)
	}
	return uint32(proto)<<16 | uint32(port)
}

// prepare derives the index of a set once.
func (s *IPSet) prepare() {
	s.index.once.Do(func() {
		if s.Ports != nil {
			s.index.byPort = make(map[uint32][]int32)
			for i, p := range s.Ports {
				var proto uint8
				if s.Protos != nil {
					proto = s.Protos[i]
				}
				k := s.portKey(proto, p)
				s.index.byPort[k] = append(s.index.byPort[k], int32(i))
			}
		}
		s.index.levels = s.Nomatch != nil || s.Type == "hash:net,iface"
	})
}
