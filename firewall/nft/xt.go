package nft

import (
	fw "github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// ext reads the match or target of x_tables that a compat expression holds
// (enum nft_match_attributes, nft_target_attributes).
func (t *table) ext() (xtables.Ext, bool) {
	e := xtables.Ext{Name: string(cstring(t.val(1))), Rev: uint8(t.num(2)), Info: t.val(3)}
	return e, e.Name != "" && t.has(2)
}

// xtContext tells the decoder of x_tables structs where the rule stands; ok is
// false for families that it does not know.
func (r *run) xtContext() (*xtables.Context, bool) {
	cx := &r.d.xt
	*cx = xtables.Context{Sets: r.d.sets}
	switch r.g.family {
	case fw.IPv4:
		cx.Family = fw.TableIP
	case fw.IPv6:
		cx.Family = fw.TableIP6
	default:
		return nil, false
	}
	cx.Hooks = r.chain.hooks
	if b := r.chain.chain.Base; b != nil {
		cx.Hooks = 1 << b.Hook
	}
	return cx, true
}

// xtMatch is nft_match_eval: a match of x_tables.
func (r *run) xtMatch(t *table) {
	e, ok := t.ext()
	if !ok {
		r.incomplete("match")
		return
	}
	if text, ok := xtables.Comment(e); ok {
		r.comment = text
		r.emit(&fw.Inert{Name: "comment", Detail: text})
		return
	}
	cx, ok := r.xtContext()
	if !ok {
		r.unsure(e.Name, "the match "+e.Name+" of x_tables in a table of more than one family")
		return
	}
	for _, s := range xtables.DecodeMatch(cx, e) {
		if m, ok := s.(*fw.Match); ok {
			borrowed := *m
			r.match(&borrowed)
			continue
		}
		r.emit(r.kept(s))
	}
}

// kept copies the bytes of an opaque statement to where they stay.
func (r *run) kept(s fw.Stmt) fw.Stmt {
	if o, ok := s.(*fw.Opaque); ok {
		o.Raw = r.d.keep(o.Raw)
	}
	return s
}

// xtTarget is nft_target_eval_xt: a target of x_tables.
func (r *run) xtTarget(t *table) {
	e, ok := t.ext()
	if !ok {
		r.incomplete("target")
		return
	}
	cx, ok := r.xtContext()
	if !ok {
		r.opaque(e.Name, "the target "+e.Name+" of x_tables in a table of more than one family")
		return
	}
	if e.Name == "NETMAP" && cx.Hooks == 0 {
		r.chain.again = true // it translates source or destination, as the hook is
	}
	for _, s := range xtables.DecodeTarget(cx, e) {
		r.emit(r.kept(s))
	}
	// It can have changed anything that was read before.
	r.m.forget(0, registerBytes, "a value that "+e.Name+" may have changed")
}
