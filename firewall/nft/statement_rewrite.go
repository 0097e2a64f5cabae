package nft

import (
	"fmt"

	fw "github.com/hostaudit/hostaudit/firewall"
)

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
		to := &fw.SetField{Kind: kind, From: src}
		if kind == fw.FieldCTZone {
			to.Dir = zoneDir(t)
		}
		r.emit(to)
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

// zoneDir is the direction that NFTA_CT_DIRECTION names, 0 where it is not there.
func zoneDir(t *table) fw.ZoneDir {
	switch {
	case !t.has(3):
		return 0
	case u8(t.val(3)) == 0:
		return fw.ZoneOriginal
	default:
		return fw.ZoneReply
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
	switch b := r.m.regs[at+from]; {
	case s.Len == 1 && b.mask == 0 && r.m.origins[b.origin].kind == originPayload:
		s.From = fw.Const{Value: fw.Num(uint64(b.xor))} // nothing is left of the byte that was there
	case s.Len <= 16:
		s.From = r.rewrite(at+from, s.Len, false)
	}
	r.emit(s)
	r.m.stale(func(o *origin) bool {
		return o.kind == originPayload && o.base == base || o.kind == originField && o.op.Field.Kind == fw.FieldPayload && o.op.Field.A == uint32(base)
	})
}
