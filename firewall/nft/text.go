package nft

import fw "github.com/hostaudit/hostaudit/firewall"

// chainText prints the rules of one chain: it keeps their expressions as the
// kernel gave them.
type chainText struct {
	table *tableState
	chain *fw.Chain
	exprs [][]byte
	print func(*fw.Rule) string
}

func (c *chainText) rule(r *fw.Rule) string { return "" }
