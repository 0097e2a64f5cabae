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
	addr, addr2             reading
	hasAddr, hasAddr2       bool
	addrRemote, addr2Remote bool // they are the peer's
	port                    reading
	hasPort                 bool
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
		remote := src != c.State.Reply
		if d == ipsetAddr {
			q.addr, q.hasAddr, q.addrRemote = r, true, remote
		} else {
			q.addr2, q.hasAddr2, q.addr2Remote = r, true, remote
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
	for _, r := range []reading{q.addr, q.addr2, q.port} {
		if r.kind != readConst && r.kind != readRemote && r.kind != readPort {
			return allMaybe(q.class, r.why)
		}
	}
	// What the set holds is found for every address that the peer may have, and
	// kept; then the peer's own is looked up in that. So a set is gone through
	// once for each address and port of this side.
	k.varAddr = q.hasAddr && (q.addrRemote || !q.hasAddr2)
	k.varAddr2 = q.hasAddr2 && q.addr2Remote
	if q.hasAddr && !k.varAddr {
		k.addr = q.addr.value
	}
	if q.hasAddr2 && !k.varAddr2 {
		k.addr2 = q.addr2.value
	}
	if k.varPort = q.port.kind == readPort; !k.varPort {
		k.port = uint16(q.port.value.Lo)
	}
	k.hasUnknown = q.unknown != ""
	f, ok := q.set.index.found.Load(*k)
	if !ok {
		f, _ = q.set.index.found.LoadOrStore(*k, q.find())
	}
	return q.parts(f.(ipsetFound))
}

// parts turns what the set holds into pieces of the class.
func (q *ipsetQuery) parts(f ipsetFound) Parts {
	c := q.class
	variable := q.addr
	if !q.key.varAddr {
		variable = q.addr2
	}
	pieces := func(in []ipsetPiece) []Piece {
		var out []Piece
		for _, p := range in {
			piece := Piece{c.Remote, c.Ports}
			switch {
			case !q.key.varAddr && !q.key.varAddr2:
			case variable.kind == readConst:
				if !p.addrs.Contains(variable.value) {
					continue
				}
			case variable.value.IsZero():
				piece.Remote = c.Remote.Intersect(p.addrs)
			default:
				now := c.Remote.Shift(variable.value)
				piece.Remote = now.Intersect(p.addrs).Shift(Value{}.Sub(variable.value))
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
	if q.hasPort {
		for _, i := range s.index.byPort[s.portKey(q.key.proto, port)] {
			q.visit(int(i), byLevel)
		}
	} else {
		for i := range s.N {
			q.visit(i, byLevel)
		}
	}
	levels := make([]int, 0, len(byLevel))
	for l := range byLevel {
		levels = append(levels, l)
	}
	slices.Sort(levels) // the least specific first; the more specific override
	for _, n := range levels {
		l := byLevel[n]
		in, out, covers := NewRanges(l.yes), NewRanges(l.no), NewRanges(l.covers)
		if q.unknown != "" {
			maybe = maybe.Union(in)
			continue
		}
		both := in.Intersect(out)
		doubt := yes.Intersect(NewRanges(l.mayCover))
		yes = yes.Minus(doubt).Minus(out).Minus(covers).Union(in).Minus(both)
		maybe = maybe.Union(doubt).Minus(out).Minus(covers).Minus(in).Union(both)
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

// visit adds element i to its level.
func (q *ipsetQuery) visit(i int, byLevel map[int]*ipsetLevel) {
	s := q.set
	var buf [1]Range
	nets, level := q.element(i, buf[:0])
	if len(nets) == 0 {
		return
	}
	l := byLevel[level]
	if l == nil {
		l = &ipsetLevel{}
		byLevel[level] = l
	}
	if s.Ifaces != nil {
		if s.Physdev != nil && s.Physdev[i] {
			l.mayCover = append(l.mayCover, nets...)
		} else {
			l.covers = append(l.covers, nets...)
		}
		if !s.ifaceIs(i, q.key.iface) {
			return
		}
	}
	if nomatch := s.Nomatch != nil && s.Nomatch[i]; nomatch != q.nomatch {
		l.no = append(l.no, nets...)
		return
	}
	l.yes = append(l.yes, nets...)
}

// element appends the addresses for which element i is found, whatever the
// interface (everyAddr where none is variable), and tells its place in the
// kernel's order.
func (q *ipsetQuery) element(i int, to []Range) (nets []Range, level int) {
	s := q.set
	k := &q.key
	n := s.Family.AddrLen()
	if s.Marks != nil && !q.unknownMark && s.Marks[i] != k.mark {
		return nil, 0
	}
	nets = append(to, everyAddr...)
	part := func(addrs []byte, bits []uint8, mask, v Value, variable bool) {
		b := 8 * n
		if bits != nil {
			b = int(bits[i])
		}
		level = level<<8 | b
		lo := Bytes(addrs[i*n : (i+1)*n]).And(PrefixMask(b, n))
		hi := lo.Or(PrefixMask(b, n).Not(n))
		switch {
		case !variable:
			if v = v.And(mask); v.Less(lo) || hi.Less(v) {
				nets = nil
			}
		case mask == MaxValue(n):
			nets = cut(nets, lo, hi)
		default:
			nets = q.masked(nets, mask, lo, hi)
		}
	}
	if q.hasAddr {
		part(s.Addrs, s.Bits, s.Mask, k.addr, k.varAddr)
	}
	if q.hasAddr2 && len(nets) > 0 {
		part(s.Addrs2, s.Bits2, MaxValue(n), k.addr2, k.varAddr2)
	}
	if !s.index.levels {
		level = 0
	}
	return nets, level
}

// cut keeps the values from lo to hi.
func cut(rs []Range, lo, hi Value) []Range {
	out := rs[:0]
	for _, r := range rs {
		if r.Lo.Less(lo) {
			r.Lo = lo
		}
		if hi.Less(r.Hi) {
			r.Hi = hi
		}
		if !r.Hi.Less(r.Lo) {
			out = append(out, r)
		}
	}
	return out
}

// masked keeps the values v with lo <= v&mask <= hi.
func (q *ipsetQuery) masked(rs []Range, mask, lo, hi Value) []Range {
	n := q.set.Family.AddrLen()
	op := Operand{Len: n, Mask: mask}
	in, ok := preimage(&op, Ranges{{lo, hi}}, All(n))
	if !ok {
		q.unknown = "an address mask that makes too many ranges"
		return rs
	}
	return Ranges(rs).Intersect(in)
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
