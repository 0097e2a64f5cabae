package nft

import fw "github.com/hostaudit/hostaudit/firewall"

// xt writes a match or target of x_tables as nft does: it knows only the name.
func (w *writer) xt(kind string, t *table) string {
	return "xt " + kind + ` "` + string(cstring(t.v[1])) + `"`
}

// iptables writes a rule as `iptables -S` does; ok is false where the rule
// holds what iptables does not know.
func (c *chainText) iptables(r *fw.Rule, exprs []byte) (string, bool) { return "", false }
