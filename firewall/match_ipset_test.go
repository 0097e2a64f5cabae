package firewall

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// kernelTest is what the kernel does with one packet, step by step
// (mtype_test_cidrs): for every pair of prefix lengths, the longer first, an
// element that is equal to the masked packet decides.
func kernelTest(s *IPSet, srcAddr, dstAddr Value, port uint16, proto uint8, iface string, mark uint32, src []bool, returnNomatch bool) bool {
	n := s.Family.AddrLen()
	side := func(i int) Value {
		if src[i] {
			return srcAddr
		}
		return dstAddr
	}
	parts := ipsetTypes[s.Type]
	bitsOf := func(col []uint8, i int) int {
		if col == nil {
			return 8 * n
		}
		return int(col[i])
	}
	for b1 := 8 * n; b1 >= 0; b1-- {
		for b2 := 8 * n; b2 >= 0; b2-- {
			stop := false
			for i := range s.N {
				if bitsOf(s.Bits, i) != b1 || bitsOf(s.Bits2, i) != b2 {
					continue
				}
				equal, netEqual := true, true
				for d, p := range parts {
					switch p {
					case ipsetAddr:
						netEqual = side(d).And(s.Mask).And(PrefixMask(b1, n)) == Bytes(s.Addrs[i*n:(i+1)*n])
						equal = equal && netEqual
					case ipsetAddr2:
						equal = equal && side(d).And(PrefixMask(b2, n)) == Bytes(s.Addrs2[i*n:(i+1)*n])
					case ipsetPort:
						equal = equal && s.Ports[i] == port && s.Protos[i] == proto
					case ipsetIface:
						equal = equal && s.ifaceIs(i, iface)
					case ipsetMark:
						equal = equal && s.Marks[i] == mark&s.MarkMask
					}
				}
				if netEqual && s.Type == "hash:net,iface" {
					stop = true
				}
				if equal {
					nomatch := s.Nomatch != nil && s.Nomatch[i]
					return nomatch == (returnNomatch && strings.Contains(s.Type, "net"))
				}
			}
			if stop {
				return false
			}
		}
	}
	return false
}

// randomSet makes a set of a type with addresses from a pool of 64.
func randomSet(r *rand.Rand, typ string) *IPSet {
	s := &IPSet{Name: "s", Type: typ, Family: IPv4, Mask: MaxValue(4), MarkMask: 0x3}
	if typ == "hash:ip" && r.IntN(2) == 0 {
		s.Mask = Num(0xfffffff5)
	}
	nets := map[ipsetPart]bool{ipsetAddr: strings.HasPrefix(typ, "hash:net"), ipsetAddr2: strings.HasSuffix(typ, ",net")}
	seen := map[string]bool{}
	for range 1 + r.IntN(12) {
		var row []byte
		var keep []func()
		for _, p := range ipsetTypes[typ] {
			switch p {
			case ipsetAddr, ipsetAddr2:
				bits := 32
				if nets[p] {
					bits = 26 + r.IntN(7)
				}
				v := Num(uint64(0x0a000000 + r.IntN(64))).And(PrefixMask(bits, 4))
				if p == ipsetAddr {
					v = v.And(s.Mask)
				}
				a := v.AppendBytes(nil, 4)
				row = append(append(row, a...), byte(bits))
				addrs, lens := &s.Addrs, &s.Bits
				if p == ipsetAddr2 {
					addrs, lens = &s.Addrs2, &s.Bits2
				}
				keep = append(keep, func() {
					*addrs = append(*addrs, a...)
					if nets[p] {
						*lens = append(*lens, uint8(bits))
					}
				})
			case ipsetPort:
				port, proto := uint16(1000+r.IntN(3)), []uint8{6, 17}[r.IntN(2)]
				row = append(row, byte(port), proto)
				keep = append(keep, func() { s.Ports, s.Protos = append(s.Ports, port), append(s.Protos, proto) })
			case ipsetIface:
				name := []string{"eth0", "eth1"}[r.IntN(2)]
				row = append(row, name...)
				keep = append(keep, func() { s.Ifaces = append(s.Ifaces, name) })
			case ipsetMark:
				m := uint32(r.IntN(4))
				row = append(row, byte(m))
				keep = append(keep, func() { s.Marks = append(s.Marks, m) })
			}
		}
		if seen[string(row)] {
			continue // the kernel keeps one
		}
		seen[string(row)] = true
		for _, f := range keep {
			f()
		}
		if strings.Contains(typ, "net") {
			s.Nomatch = append(s.Nomatch, r.IntN(3) == 0)
		}
		s.N++
	}
	return s
}

// TestIPSetMatchIsTheKernels holds the match over classes against the kernel's
// steps for single packets, for every type: those that the packets of
// firewall/xtables cannot prove where a kernel lacks them, too.
func TestIPSetMatchIsTheKernels(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	types := []string{"hash:ip", "hash:ip,mark", "hash:ip,port", "hash:ip,port,ip", "hash:ip,port,net", "hash:net", "hash:net,iface", "hash:net,net", "hash:net,port", "hash:net,port,net"}
	yes, no := 0, 0
	for range 3000 {
		typ := types[r.IntN(len(types))]
		s := randomSet(r, typ)
		m := &IPSetMatch{Set: s, ReturnNomatch: r.IntN(2) == 0, Invert: r.IntN(3) == 0}
		for range ipsetTypes[typ] {
			m.Src = append(m.Src, r.IntN(2) == 0)
		}
		st := First(IPv4, []Proto{TCP, UDP}[r.IntN(2)], Num(uint64(0x0a000000+r.IntN(64))), uint16(1000+r.IntN(3)))
		st.In, st.Out = &Link{Name: "eth0", Type: 1}, &Link{Name: "eth1", Type: 1}
		st.Mark = Known{Value: uint32(r.IntN(8))}
		st.Reply = r.IntN(3) == 0
		c := &Class{Remote: Span(Num(0x0a000000), Num(0x0a00003f)), Ports: Span(Num(1000), Num(1002)), State: st}
		if r.IntN(3) == 0 {
			c.State.RemoteAddrKind, c.State.RemoteAddr = RemoteShifted, Num(3)
		}
		parts := m.Split(c, &Env{})
		for range 12 {
			addr, port := Num(uint64(0x0a000000+r.IntN(64))), uint16(1000+r.IntN(3))
			now := addr
			if c.State.RemoteAddrKind == RemoteShifted {
				now = addr.Add(Num(3))
			}
			srcAddr, dstAddr, sport, dport := now, st.Local, port, st.LocalPort
			if st.Reply {
				srcAddr, dstAddr, sport, dport = dstAddr, srcAddr, dport, sport
			}
			p, iface := dport, st.Out.Name
			for i, d := range ipsetTypes[typ] {
				if d == ipsetPort && m.Src[i] {
					p = sport
				}
				if d == ipsetIface && m.Src[i] {
					iface = st.In.Name
				}
			}
			want := kernelTest(s, srcAddr, dstAddr, p, uint8(st.Proto), iface, st.Mark.Value, m.Src, m.ReturnNomatch) != m.Invert
			in := func(pieces []Piece) bool {
				return slices.ContainsFunc(pieces, func(q Piece) bool { return q.Remote.Contains(addr) && q.Ports.Contains(Num(uint64(port))) })
			}
			if in(parts.Yes) != want || in(parts.No) == want || in(parts.Maybe) {
				t.Fatalf("%s src=%v invert=%v return-nomatch=%v, packet %v:%d to %v:%d: want %v, yes %v no %v maybe %v\n%+v", typ, m.Src, m.Invert, m.ReturnNomatch,
					srcAddr, sport, dstAddr, dport, want, in(parts.Yes), in(parts.No), in(parts.Maybe), s)
			}
			if want {
				yes++
			} else {
				no++
			}
			one := c.with(Piece{Single(addr), Single(Num(uint64(port)))})
			if got := m.Split(&one, &Env{}); (len(got.Yes) > 0) != want || (len(got.No) > 0) == want {
				t.Fatalf("%s: the class of one says %+v, want %v", typ, got, want)
			}
		}
	}
	if yes < 1000 || no < 1000 {
		t.Errorf("%d yes, %d no: a test that cannot fail", yes, no)
	}
}

func TestIPSetMatchEdges(t *testing.T) {
	set := func(typ string) *IPSet {
		return &IPSet{Name: "s", Type: typ, Family: IPv4, Mask: MaxValue(4), MarkMask: 0xffffffff, N: 1, Addrs: []byte{10, 0, 0, 1}, MACs: make([]byte, 6)}
	}
	st := First(IPv4, TCP, Num(1), 22)
	st.In = &Link{Name: "eth0", Type: 1}
	lo := st
	lo.In = &Link{Name: "lo", Type: 772}
	six := First(IPv6, TCP, Num(1), 22)
	for _, tt := range []struct {
		name  string
		match IPSetMatch
		state State
		want  string
	}{
		{"found", IPSetMatch{Set: set("hash:ip"), Src: []bool{true}}, st, "yes"},
		{"more dimensions than the set has", IPSetMatch{Set: set("hash:ip"), Src: []bool{true, false, true}}, st, "yes"},
		{"fewer", IPSetMatch{Set: set("hash:ip,port"), Src: []bool{true}}, st, "no"},
		{"fewer, inverted", IPSetMatch{Set: set("hash:ip,port"), Src: []bool{true}, Invert: true}, st, "yes"},
		{"the other family", IPSetMatch{Set: set("hash:ip"), Src: []bool{true}}, six, "no"},
		{"the other family, inverted", IPSetMatch{Set: set("hash:ip"), Src: []bool{true}, Invert: true}, six, "yes"},
		{"counters", IPSetMatch{Set: set("hash:ip"), Src: []bool{true}, Counters: "more than 5 packets"}, st, "maybe"},
		{"counters of what is not in the set", IPSetMatch{Set: &IPSet{Type: "hash:ip", Family: IPv4}, Src: []bool{true}, Counters: "x"}, st, "no"},
		{"unread", IPSetMatch{Set: &IPSet{Type: "hash:ip", Family: IPv4, Unread: "too large"}, Src: []bool{true}}, st, "maybe"},
		{"a type from the future", IPSetMatch{Set: set("hash:new"), Src: []bool{true}}, st, "maybe"},
		{"MAC", IPSetMatch{Set: set("hash:mac"), Src: []bool{true}}, st, "maybe"},
		{"MAC over lo", IPSetMatch{Set: set("hash:mac"), Src: []bool{true}}, lo, "no"},
		{"a list with a member that was not read", IPSetMatch{Set: &IPSet{Type: "list:set", Members: []*IPSet{nil}}, Src: []bool{true}}, st, "maybe"},
		{"a list where a later member holds it", IPSetMatch{Set: &IPSet{Type: "list:set", Members: []*IPSet{{Type: "hash:ip", Family: IPv6, N: 1}, set("hash:ip")}}, Src: []bool{true}}, st, "yes"},
		{"a list in a list in a list …", IPSetMatch{Set: ring(), Src: []bool{true}}, st, "maybe"},
	} {
		c := &Class{Remote: Single(Num(0x0a000001)), Ports: Single(Num(5)), State: tt.state}
		p := tt.match.Split(c, &Env{})
		got := map[bool]string{true: "yes"}[len(p.Yes) > 0] + map[bool]string{true: "no"}[len(p.No) > 0] + map[bool]string{true: "maybe"}[len(p.Maybe) > 0]
		if got != tt.want || got == "maybe" && p.Why == "" {
			t.Errorf("%s: %s (%s), want %s", tt.name, got, p.Why, tt.want)
		}
	}
	touched := st
	touched.touched = &touched1
	c := &Class{Remote: All(4), Ports: All(2), State: touched}
	if p := (&IPSetMatch{Set: set("hash:ip"), Src: []bool{true}}).Split(c, &Env{}); len(p.Maybe) != 1 {
		t.Errorf("a set that the packet itself changed: %+v", p)
	}
}

// ring is a list that holds itself, which no kernel makes.
func ring() *IPSet {
	s := &IPSet{Type: "list:set"}
	s.Members = []*IPSet{s}
	return s
}

var touched1 = touched{name: "s"}
