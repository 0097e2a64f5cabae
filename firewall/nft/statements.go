package nft

import (
	"fmt"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// verdict lowers verdict data (nft_verdict_init).
func (r *run) verdict(b []byte) {
	v, ok := r.d.verdict(r.t, b)
	if !ok {
		r.opaque("verdict", "a verdict that the model does not know")
		return
	}
	switch v.Kind {
	case fw.Continue:
		// NFT_CONTINUE: the next expression is next.
	case verdictKindBreak:
		r.emitNever()
	default:
		r.emit(v)
	}
}

// lookup is nft_lookup_eval: a set, a map into a register, or a verdict map.
func (r *run) lookup(t *table) {
	flags := t.num(5)
	if !t.has(1) || !t.has(2) || flags > 1 {
		r.incomplete("lookup")
		return
	}
	s := r.t.set(cstring(t.val(1)))
	at, ok := t.reg(2, 1)
	if s == nil || !ok {
		r.incomplete("lookup")
		return
	}
	keys, why, known := r.keys(at, s)
	name := "@" + s.set.Name
	switch {
	case !t.has(3) && known:
		l := &fw.Lookup{Keys: keys, Set: s.set, Invert: flags == 1}
		r.emit(l)
		r.g.learnSet(l)
	case !t.has(3):
		r.unsure("lookup", "a look-up in "+name+" of "+why)
	case t.num(3) == 0 && known:
		r.emit(&fw.VerdictMap{Keys: keys, Map: s.set})
	case t.num(3) == 0:
		r.opaque("lookup", "a look-up in the verdict map "+name+" of "+why)
	default:
		dst, ok := t.reg(3, max(int(s.dataLen), 1))
		if !ok {
			r.incomplete("lookup")
			return
		}
		n := max(int(s.dataLen), 1)
		if !known {
			r.unsure("lookup", "a look-up in the map "+name+" of "+why)
			r.m.forget(dst, n, "what the map "+name+" holds for "+why)
			return
		}
		o := r.m.add(origin{kind: originMap, keys: keys, set: s.set, length: n, pending: true})
		r.m.store(dst, n, o, 0)
	}
}

func (r *run) counter(t *table) {
	if r.packets < 0 {
		r.packets = 0
	}
	r.packets += int64(t.num64(2))
	r.emit(inertCounter)
}

var (
	inertCounter = &fw.Inert{Name: "counter"}
	inertLog     = &fw.Inert{Name: "log"}
	inertLast    = &fw.Inert{Name: "last"}
	inertTrace   = &fw.Inert{Name: "nftrace"}
)

func (r *run) log(*table)      { r.emit(inertLog) }
func (r *run) lastSeen(*table) { r.emit(inertLast) }

// rateOf tells a limit in words.
func rateOf(t *table) string {
	unit := map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}[t.num64(2)]
	if unit == "" {
		unit = fmt.Sprintf("%d seconds", t.num64(2))
	}
	what := ""
	if t.num(4) == 1 {
		what = " bytes"
	}
	return fmt.Sprintf("a rate limit of %d%s/%s", t.num64(1), what, unit)
}

func (r *run) limit(t *table)     { r.unsure("limit", rateOf(t)) }
func (r *run) quota(t *table)     { r.unsure("quota", fmt.Sprintf("a quota of %d bytes", t.num64(1))) }
func (r *run) connlimit(t *table) { r.unsure("connlimit", connlimitOf(t)) }

func connlimitOf(t *table) string {
	return fmt.Sprintf("a limit of %d connections at a time", t.num(1))
}

// queue is nft_queue_eval.
func (r *run) queue(t *table) {
	flags := t.num(3)
	if t.has(3) {
		flags = uint32(be16(t.val(3)))
	}
	q := &fw.QueueTo{Bypass: flags&1 != 0}
	switch {
	case t.has(4):
		q.To = 0xffff
		if at, ok := t.reg(4, 2); ok {
			r.source(at, 2, true)
		}
	default:
		q.From = be16(t.val(1))
		total := max(be16(t.val(2)), 1)
		q.To = uint16(min(int(q.From)+int(total)-1, 0xffff))
	}
	r.emit(q)
}

// reject is nft_reject_*_eval.
func (r *run) reject(t *table) {
	code := u8(t.val(2))
	j := &fw.Reject{V4Type: 3, V6Type: 1, V4Code: code, V6Code: code}
	switch t.num(1) {
	case 0: // NFT_REJECT_ICMP_UNREACH: the code is that of the family
	case 1:
		*j = fw.Reject{TCPReset: true}
	case 2: // NFT_REJECT_ICMPX_UNREACH (nft_reject_icmp_code, nft_reject_icmpv6_code)
		v4 := [...]uint8{0, 3, 1, 13}
		v6 := [...]uint8{0, 4, 3, 1}
		if int(code) >= len(v4) {
			r.incomplete("reject")
			return
		}
		j.V4Code, j.V6Code = v4[code], v6[code]
	default:
		r.incomplete("reject")
		return
	}
	r.emit(j)
}

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

// synproxy is nft_synproxy_eval; other packets than TCP break.
func (r *run) synproxy(*table) {
	r.requireProto(fw.TCP)
	r.emit(&fw.SynProxy{})
}

// dup is nft_dup_*_eval: a copy goes elsewhere, the packet goes on.
func (r *run) dup(*table) {
	r.emit(&fw.Inert{Name: "dup", Detail: "sends a copy of the packet elsewhere"})
}

// fwd is nft_fwd_netdev_eval: the packet leaves by another device. With an
// address the other family breaks.
func (r *run) fwd(t *table) {
	if t.has(2) {
		if f := familyNumber(t.num(3)); f != 0 {
			r.requireFamily(f)
		}
	}
	r.emit(&fw.Verdict{Kind: fw.Stolen})
}

func (r *run) notrack(*table) { r.emit(&fw.Notrack{}) }

// flowOffload is nft_flow_offload_eval. It breaks for packets of a flow that
// is not confirmed yet and for others it cannot take; what follows it depends.
func (r *run) flowOffload(*table) {
	if r.last {
		r.emit(&fw.Inert{Name: "flow add"})
		return
	}
	r.unsure("flow add", "whether the flow goes into the flowtable")
}

// metaSet is nft_meta_set_eval.
func (r *run) metaSet(t *table, key uint32) {
	set := func(kind fw.FieldKind, n int, host bool) {
		at, ok := t.reg(3, n)
		if !ok {
			r.incomplete("meta set")
			return
		}
		src := r.rewrite(at, n, host)
		r.emit(&fw.SetField{Kind: kind, From: src})
		r.m.stale(func(o *origin) bool { return o.kind == originField && o.op.Field.Kind == kind })
	}
	switch key {
	case metaMark:
		set(fw.FieldMark, 4, true)
	case metaPriority:
		set(fw.FieldPriority, 4, true)
	case metaSecmark:
		set(fw.FieldSecMark, 4, true)
	case metaPktType:
		set(fw.FieldPktType, 1, false)
	case metaNFTrace:
		r.emit(inertTrace)
	case metaBriBroute:
		r.opaque("meta set", "a bridged packet that is routed instead (meta broute)")
	default:
		r.opaque("meta set", fmt.Sprintf("a write of meta key %d, which the model does not know", key))
	}
}

// rewrite is source for a value that is written: a field that the packet lacks
// ends the rule before anything is written.
func (r *run) rewrite(at, n int, host bool) fw.Source {
	src := r.source(at, n, host)
	if f, ok := src.(*fw.FromField); ok && f.Operand.Shift == 0 {
		r.present(fw.Operand{Field: f.Operand.Field, Len: f.Operand.Len})
	}
	return src
}

// ctSet is nft_ct_set_eval and nft_ct_set_zone_eval.
func (r *run) ctSet(t *table, key uint32) {
	set := func(kind fw.FieldKind, n int, host bool) {
		at, ok := t.reg(4, n)
		if !ok {
			r.incomplete("ct set")
			return
		}
		src := r.rewrite(at, n, host)
		r.emit(&fw.SetField{Kind: kind, From: src})
		r.m.stale(func(o *origin) bool { return o.kind == originField && o.op.Field.Kind == kind })
	}
	switch key {
	case ctMark:
		set(fw.FieldCTMark, 4, true)
	case ctSecmark:
		set(fw.FieldCTSecMark, 4, true)
	case ctZone:
		set(fw.FieldCTZone, 2, true)
	case ctLabels:
		set(fw.FieldCTLabel, 16, true)
	case ctEventMask:
		set(fw.FieldCTEventMask, 4, true)
	default:
		r.opaque("ct set", fmt.Sprintf("a write of ct key %d, which the model does not know", key))
	}
}

// payloadSet is nft_payload_set_eval. Bytes at either end that are written back
// as they were are left out: nft rewrites two bytes where one is meant.
func (r *run) payloadSet(t *table, base uint8, offset, n int) {
	at, ok := t.reg(5, n)
	if !ok || base > baseInner {
		r.opaque("payload set", "a change of the packet that the model does not know")
		return
	}
	same := func(i int) bool {
		b := r.m.regs[at+i]
		o := &r.m.origins[b.origin]
		return o.kind == originPayload && o.base == base && int(b.index) == offset+i && b.mask == 0xff && b.xor == 0
	}
	from, to := 0, n
	for from < to && same(from) {
		from++
	}
	for to > from && same(to-1) {
		to--
	}
	if from == to {
		return // nothing changes; what was loaded is flushed in its turn
	}
	s := &fw.SetPayload{Base: int(base), Offset: offset + from, Len: to - from, From: fw.FromNowhere{Why: "a header that the rule rewrites"}}
	if f, ok := r.g.fieldAt(base, s.Offset); ok && f.offset == s.Offset && f.length == s.Len {
		s.Field = f.kind
	} else if r.g.family != 0 && base == baseNetwork && s.Offset+s.Len <= 2 {
		s.Field = fw.FieldDSCP
	}
	if s.Len <= 16 {
		s.From = r.rewrite(at+from, s.Len, false)
	}
	r.emit(s)
	r.m.stale(func(o *origin) bool {
		return o.kind == originPayload && o.base == base || o.kind == originField && o.op.Field.Kind == fw.FieldPayload && o.op.Field.A == uint32(base)
	})
}

// dynset is nft_dynset_eval: it changes a set, and breaks where the set is full
// or the expressions of the element say so.
func (r *run) dynset(t *table) {
	s := r.t.set(cstring(t.val(1)))
	at, ok := t.reg(4, 1)
	flags := t.num(9)
	op := t.num(3)
	if s == nil || !ok || flags&^3 != 0 || op > 2 {
		r.incomplete("dynset")
		return
	}
	keys, why, known := r.keys(at, s)
	if !known {
		r.unsure("dynset", "a change of set @"+s.set.Name+" by "+why)
		return
	}
	u := &fw.SetUpdate{Op: [...]string{"add", "update", "delete"}[op], Keys: keys, Set: s.set, Name: s.set.Name, Invert: flags&1 != 0}
	u.Limited = limitedBy(t.val(7), t.val(10))
	if u.Limited == "" && s.size > 0 && op != 2 {
		n := s.set.N
		if s.set.Unread != "" {
			n = s.set.Count
		}
		if n >= int(s.size) {
			u.Limited = fmt.Sprintf("whether set %s has room (it holds %d of %d)", s.set.Name, n, s.size)
		}
	}
	r.emit(u)
}

// limitedBy names the expressions of an element (one, or a list) that may break.
func limitedBy(one, list []byte) string {
	if one != nil {
		return limiter(one)
	}
	for a := walk(list); a.next(); {
		if s := limiter(a.val); s != "" {
			return s
		}
	}
	return ""
}

// limiter names an expression of an element that may break the rule, "" for
// one that cannot.
func limiter(b []byte) string {
	var name, data []byte
	for a := walk(b); a.next(); {
		switch a.typ {
		case exprName:
			name = cstring(a.val)
		case exprData:
			data = a.val
		}
	}
	var t table
	t.parse(data, 7)
	switch string(name) {
	case "counter", "last":
		return ""
	case "limit":
		return rateOf(&t)
	case "quota":
		return fmt.Sprintf("a quota of %d bytes", t.num64(1))
	case "connlimit":
		return connlimitOf(&t)
	default:
		return "the expression " + string(name) + " of its elements"
	}
}

// objref is nft_objref_eval and nft_objref_map_eval.
func (r *run) objref(t *table) {
	if t.has(3) {
		s := r.t.set(cstring(t.val(4)))
		at, ok := t.reg(3, 1)
		if s == nil || !ok {
			r.incomplete("objref")
			return
		}
		keys, why, known := r.keys(at, s)
		if known {
			r.emit(&fw.Lookup{Keys: keys, Set: s.set})
		} else {
			r.unsure("objref", "a look-up in the map @"+s.set.Name+" of "+why)
		}
		r.object(s.objType, "of map @"+s.set.Name)
		return
	}
	if !t.has(1) || !t.has(2) {
		r.incomplete("objref")
		return
	}
	r.object(t.num(1), string(cstring(t.val(2))))
}

// object lowers the evaluation of a stateful object.
func (r *run) object(kind uint32, name string) {
	switch kind {
	case objectCounter:
		r.emit(inertCounter)
	case objectQuota:
		r.unsure("quota", "the quota "+name)
	case objectLimit:
		r.unsure("limit", "the rate limit "+name)
	case objectConnlimit:
		r.unsure("connlimit", "the connection limit "+name)
	case objectCTHelper:
		r.emit(&fw.SetField{Kind: fw.FieldCTHelper, From: fw.FromNowhere{Why: "the connection helper " + name}})
		r.m.stale(func(o *origin) bool { return o.kind == originField && o.op.Field.Kind == fw.FieldCTHelper })
	case objectCTTimeout:
		r.emit(&fw.Inert{Name: "ct timeout", Detail: name})
	case objectCTExpect:
		r.emit(&fw.Inert{Name: "ct expectation", Detail: name})
	case objectSecmark:
		r.emit(&fw.SetField{Kind: fw.FieldSecMark, From: fw.FromNowhere{Why: "the security mark " + name}})
		r.m.stale(func(o *origin) bool { return o.kind == originField && o.op.Field.Kind == fw.FieldSecMark })
	case objectSynproxy:
		r.requireProto(fw.TCP)
		r.emit(&fw.SynProxy{})
	case objectTunnel:
		r.emit(&fw.Inert{Name: "tunnel", Detail: name})
	default:
		r.opaque("objref", "the object "+name+", of a kind that the model does not know")
	}
}
