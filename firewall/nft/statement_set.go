package nft

import (
	"fmt"

	fw "github.com/hostaudit/hostaudit/firewall"
)

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
	name, data := nameAndData(b)
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
