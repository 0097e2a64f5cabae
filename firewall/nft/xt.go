package nft

import fw "github.com/hostaudit/hostaudit/firewall"

// xtMatch is nft_match_eval: a match of x_tables.
func (r *run) xtMatch(t *table) {
	name := string(cstring(t.v[1]))
	r.unsure(name, "the match "+name)
}

// xtTarget is nft_target_eval_xt: a target of x_tables.
func (r *run) xtTarget(t *table) {
	name := string(cstring(t.v[1]))
	r.emit(&fw.Opaque{Name: name, Reason: "the target " + name, Raw: r.raw, MayEnd: true})
}
