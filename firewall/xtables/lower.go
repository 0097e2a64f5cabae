package xtables

import (
	"bytes"

	"github.com/hostaudit/hostaudit/firewall"
)

// DecodeTable lowers the entries of a table. It is pure: the table keeps entries
// to print its rules from, so the caller must not change them.
func DecodeTable(fam firewall.TableFamily, name string, info, entries []byte, sets Sets) (*firewall.Table, error) {
	i, err := newTableInfo(fam, name, info)
	if err != nil {
		return nil, err
	}
	l := newBlob(fam, name, entries)
	t := &firewall.Table{Backend: firewall.IPTablesLegacy, Family: fam, Name: name}
	spans, err := l.chains(t, &i)
	if err != nil {
		return nil, err
	}
	d := newLowerer(l, spans, sets)
	if err := d.reach(); err != nil {
		return nil, err
	}
	p := &blobPrinter{blob: l, starts: d.starts, spans: make(map[*firewall.Chain]*chainSpan, len(spans)), sets: sets}
	d.print = p.rule
	for _, s := range spans {
		p.spans[s.chain] = s
		if err := d.chain(s); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// maxCached bounds the statements that are shared between rules.
const maxCached = 1 << 14

// lowerer lowers the rules of one table. Rules share the statements that say
// the same: most differ in an address or a port only.
type lowerer struct {
	*blob
	spans  []*chainSpan
	starts map[int]*firewall.Chain // by the offset of the first rule
	hooks  map[*firewall.Chain]uint8
	sets   Sets
	print  func(*firewall.Rule) string

	exts     map[string][]firewall.Stmt // by the bytes of a match or target
	ifaces   map[[65]byte][]firewall.Stmt
	jumps    map[*firewall.Chain]*[2]firewall.Verdict // jump, goto
	protos   [2][256]*firewall.Match
	matches  []firewall.Match
	ranges   []firewall.Range
	stmts    []firewall.Stmt
	scratch  []firewall.Stmt
	comments map[string]string
	ports    map[uint32]*firewall.Match
}

func newLowerer(l *blob, spans []*chainSpan, sets Sets) *lowerer {
	d := &lowerer{
		blob: l, spans: spans, sets: sets,
		starts:   make(map[int]*firewall.Chain, len(spans)),
		hooks:    make(map[*firewall.Chain]uint8, len(spans)),
		exts:     map[string][]firewall.Stmt{},
		ifaces:   map[[65]byte][]firewall.Stmt{},
		jumps:    map[*firewall.Chain]*[2]firewall.Verdict{},
		comments: map[string]string{},
		ports:    map[uint32]*firewall.Match{},
	}
	for _, s := range spans {
		d.starts[s.first] = s.chain
	}
	return d
}

// reach finds the hooks from which each chain can be reached, which NETMAP
// cannot be read without.
func (d *lowerer) reach() error {
	if !bytes.Contains(d.b, []byte("NETMAP\x00")) {
		return nil
	}
	spans := make(map[*firewall.Chain]*chainSpan, len(d.spans))
	var open []*firewall.Chain
	for _, s := range d.spans {
		spans[s.chain] = s
		if s.chain.Base != nil {
			d.hooks[s.chain] = 1 << s.chain.Base.Hook
			open = append(open, s.chain)
		}
	}
	for len(open) > 0 {
		c := open[len(open)-1]
		open = open[:len(open)-1]
		s := spans[c]
		for off, n := s.first, 0; n < s.rules; n++ {
			e, err := d.entry(off)
			if err != nil {
				return err
			}
			if v, ok := d.isStandard(e); ok && v >= 0 {
				if to := d.starts[int(v)]; to != nil && d.hooks[to]|d.hooks[c] != d.hooks[to] {
					d.hooks[to] |= d.hooks[c]
					open = append(open, to)
				}
			}
			off = e.next
		}
	}
	return nil
}

// chain lowers the rules of one chain.
func (d *lowerer) chain(s *chainSpan) error {
	if s.rules == 0 {
		return nil
	}
	cx := &Context{Family: d.fam, Hooks: d.hooks[s.chain], Sets: d.sets}
	rules := make([]firewall.Rule, s.rules)
	s.chain.Rules = make([]*firewall.Rule, s.rules)
	off := s.first
	for i := range rules {
		e, err := d.entry(off)
		if err != nil {
			return err
		}
		r := &rules[i]
		r.Chain, r.Number, r.Print, r.Packets = s.chain, i+1, d.print, d.packets(e)
		if err := d.rule(cx, r, e); err != nil {
			return err
		}
		s.chain.Rules[i] = r
		off = e.next
	}
	return nil
}

func (d *lowerer) rule(cx *Context, r *firewall.Rule, e entry) error {
	to := d.head(d.scratch[:0], cx, e)
	for off := e.off + d.header; off < e.target; {
		size := int(u16(d.b, off))
		if size < extHeader || off+size > e.target {
			return d.errorf(off, "a match of %d bytes", size)
		}
		raw := d.b[off : off+size]
		switch {
		case string(raw[2:10]) == "comment\x00":
			r.Comment = d.comment(raw[extHeader:])
		case isPort(raw):
			to = append(to, d.port(raw[extHeader+4:]))
		default:
			to = append(to, d.cached(cx, raw, DecodeMatch)...)
		}
		off += size
	}
	to, err := d.target(to, cx, e)
	if err != nil {
		return err
	}
	d.scratch = to
	r.Stmts = d.keep(to)
	return nil
}

// comment returns the text, shared between rules.
func (d *lowerer) comment(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	if s, ok := d.comments[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(d.comments) < maxCached {
		d.comments[s] = s
	}
	return s
}

// isPort reports whether a match is tcp or udp and asks for nothing but the
// destination port (struct xt_tcp, struct xt_udp), as most do.
func isPort(raw []byte) bool {
	name := string(raw[2:6])
	if name != "tcp\x00" && name != "udp\x00" || raw[31] != 0 || len(raw) < extHeader+16 {
		return false
	}
	b := raw[extHeader:]
	// The rest of both structs is flags, masks and padding: zero.
	return u16(b, 0) == 0 && u16(b, 2) == 0xffff && u64(b, 8) == 0 && (u16(b, 4) != 0 || u16(b, 6) != 0xffff)
}

// port matches a range of destination ports.
func (d *lowerer) port(b []byte) *firewall.Match {
	lo, hi := u16(b, 0), u16(b, 2)
	key := uint32(lo)<<16 | uint32(hi)
	if m := d.ports[key]; m != nil {
		return m
	}
	if lo > hi {
		return is(firewall.FieldDstPort, 2, nil, false)
	}
	m := d.match(firewall.FieldDstPort, 2, firewall.Num(uint64(lo)), firewall.Num(uint64(hi)), false)
	if len(d.ports) < maxCached {
		d.ports[key] = m
	}
	return m
}

// match makes a match on one range in the slabs.
func (d *lowerer) match(k firewall.FieldKind, n int, lo, hi firewall.Value, invert bool) *firewall.Match {
	if len(d.ranges) == cap(d.ranges) {
		d.ranges = make([]firewall.Range, 0, 512)
		d.matches = make([]firewall.Match, 0, 512)
	}
	i := len(d.ranges)
	d.ranges = append(d.ranges, firewall.Range{Lo: lo, Hi: hi})
	d.matches = append(d.matches, firewall.Match{Operand: firewall.Plain(k, n), In: firewall.Ranges(d.ranges[i : i+1 : i+1]), Invert: invert})
	return &d.matches[i]
}

// cached lowers the match or target in raw.
func (d *lowerer) cached(cx *Context, raw []byte, decode func(*Context, Ext) []firewall.Stmt) []firewall.Stmt {
	if s, ok := d.exts[string(raw)]; ok {
		return s
	}
	x := Ext{Name: cstring(raw[2 : 2+extName]), Rev: raw[31], Info: raw[extHeader:]}
	s := decode(cx, x)
	// NETMAP is the only struct that means another thing in another chain.
	if len(d.exts) < maxCached && x.Name != "NETMAP" {
		d.exts[string(raw)] = s
	}
	return s
}

var (
	acceptStmt = &firewall.Verdict{Kind: firewall.Accept}
	dropStmt   = &firewall.Verdict{Kind: firewall.Drop}
	queueStmt  = &firewall.Verdict{Kind: firewall.Queue}
	returnStmt = &firewall.Verdict{Kind: firewall.Return}
)

// target lowers the target of a rule: the standard one holds a verdict, or the
// offset of the rule to go on with.
func (d *lowerer) target(to []firewall.Stmt, cx *Context, e entry) ([]firewall.Stmt, error) {
	v, ok := d.isStandard(e)
	if !ok {
		size := int(u16(d.b, e.target))
		if size < extHeader || e.target+size > e.next {
			return nil, d.errorf(e.target, "a target of %d bytes", size)
		}
		return append(to, d.cached(cx, d.b[e.target:e.target+size], DecodeTarget)...), nil
	}
	switch {
	case v == -2: // -NF_ACCEPT - 1
		return append(to, acceptStmt), nil
	case v == -1: // -NF_DROP - 1
		return append(to, dropStmt), nil
	case v == -4: // -NF_QUEUE - 1
		return append(to, queueStmt), nil
	case v == -5: // XT_RETURN
		return append(to, returnStmt), nil
	case v < 0:
		return append(to, &firewall.Opaque{Name: "standard", MayEnd: true, Reason: "a verdict that is not known here"}), nil
	case int(v) == e.next:
		return to, nil // no target: the rule counts only
	}
	chain := d.starts[int(v)]
	if chain == nil {
		return nil, d.errorf(e.target, "a jump to byte %d, where no chain begins", v)
	}
	j := d.jumps[chain]
	if j == nil {
		j = &[2]firewall.Verdict{{Kind: firewall.Jump, Chain: chain}, {Kind: firewall.Goto, Chain: chain}}
		d.jumps[chain] = j
	}
	if h := newHeader(cx.family(), d.b[e.off:]); h.Goto {
		return append(to, &j[1]), nil
	}
	return append(to, &j[0]), nil
}

// head is DecodeHeader with statements shared where they can be. It reads the
// header in place: most of it is zero in most rules.
func (d *lowerer) head(to []firewall.Stmt, cx *Context, e entry) []firewall.Stmt {
	n := cx.addrLen()
	ip := d.b[e.off : e.off+d.ip]
	rest := ip[4*n:] // interfaces, protocol, flags
	invert := rest[67]
	protoCounts := u16(rest, 64) != 0
	if n == 16 {
		invert = rest[68]
		protoCounts = protoCounts && rest[67]&1 != 0
	}
	to = d.addr(to, cx, e, firewall.FieldSrcAddr, ip[:n], ip[2*n:3*n], invert&InvertSrc != 0)
	to = d.addr(to, cx, e, firewall.FieldDstAddr, ip[n:2*n], ip[3*n:4*n], invert&InvertDst != 0)
	if rest[32]|rest[48]|invert&(InvertIn|InvertOut) != 0 {
		to = append(to, d.iface(rest[:64], invert&(InvertIn|InvertOut))...)
	}
	fragment := n == 4 && (rest[66]&1 != 0 || invert&InvertFragment != 0)
	if proto := u16(rest, 64); protoCounts && proto < 256 && !fragment {
		inv := invert & InvertProto >> 6
		m := d.protos[inv][proto]
		if m == nil {
			m = is(firewall.FieldL4Proto, 1, span(uint64(proto), uint64(proto)), inv != 0)
			d.protos[inv][proto] = m
		}
		return append(to, m)
	}
	if !protoCounts && !fragment {
		return to
	}
	h := newHeader(cx.family(), ip)
	return h.protocol(to, cx)
}

// addr is Header.addr, with the usual prefix in a slab.
func (d *lowerer) addr(to []firewall.Stmt, cx *Context, e entry, k firewall.FieldKind, addr, mask []byte, invert bool) []firewall.Stmt {
	m, want := firewall.Bytes(mask), firewall.Bytes(addr)
	if m.IsZero() && want.IsZero() && !invert {
		return to
	}
	n := len(addr)
	if _, ok := prefixLen(m, n); !ok || m.IsZero() || want.And(m) != want {
		h := newHeader(cx.family(), d.b[e.off:])
		bit := uint8(InvertSrc)
		if k == firewall.FieldDstAddr {
			bit = InvertDst
		}
		return h.addr(to, cx, k, addr, mask, bit)
	}
	return append(to, d.match(k, n, want, want.Or(m.Not(n)), invert))
}

// iface lowers the four names and masks of the interfaces.
func (d *lowerer) iface(b []byte, invert uint8) []firewall.Stmt {
	var key [65]byte
	copy(key[:], b)
	key[64] = invert
	if s, ok := d.ifaces[key]; ok {
		return s
	}
	h := Header{In: b[:16], Out: b[16:32], InMask: b[32:48], OutMask: b[48:64], Invert: invert}
	s := h.iface(nil, firewall.FieldInName, h.In, h.InMask, InvertIn)
	s = h.iface(s, firewall.FieldOutName, h.Out, h.OutMask, InvertOut)
	if len(d.ifaces) < maxCached {
		d.ifaces[key] = s
	}
	return s
}

// keep copies statements into a slab.
func (d *lowerer) keep(s []firewall.Stmt) []firewall.Stmt {
	if len(s) == 0 {
		return nil
	}
	if cap(d.stmts)-len(d.stmts) < len(s) {
		d.stmts = make([]firewall.Stmt, 0, max(2048, len(s)))
	}
	i := len(d.stmts)
	d.stmts = append(d.stmts, s...)
	return d.stmts[i:len(d.stmts):len(d.stmts)]
}
