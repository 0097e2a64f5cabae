package nft

import fw "github.com/hostaudit/hostaudit/firewall"

// lowerAgain lowers the rules anew whose meaning turns on the hooks that reach
// their chain, now that all jumps are known.
func (d *decoder) lowerAgain(t *tableState) {
	found := false
	for _, c := range t.chains {
		found = found || c.again
	}
	if !found {
		return
	}
	for _, c := range t.table.Chains {
		if c.Base != nil && c.Base.Hook <= fw.Postrouting {
			t.markReached(c, 1<<c.Base.Hook)
		}
	}
	d.run.t = t
	for _, c := range t.chains {
		if !c.again || c.hooks == 0 {
			continue
		}
		d.run.chain = c
		for i, r := range c.chain.Rules {
			r.Stmts = d.keepStmts(d.run.rule(c.text.exprs.get(c.text.first + i)))
		}
	}
}

// markReached notes that the hooks reach the chain, and all that it jumps to.
func (t *tableState) markReached(c *fw.Chain, hooks uint8) {
	s := t.chains[c.Name]
	if s == nil || s.hooks&hooks == hooks {
		return
	}
	s.hooks |= hooks
	for _, r := range c.Rules {
		for _, stmt := range r.Stmts {
			switch v := stmt.(type) {
			case *fw.Verdict:
				if v.Chain != nil {
					t.markReached(v.Chain, hooks)
				}
			case *fw.VerdictMap:
				for i := range v.Map.Data {
					if d := v.Map.Data[i].Verdict; d != nil && d.Chain != nil {
						t.markReached(d.Chain, hooks)
					}
				}
				if v.Map.CatchAll != nil && v.Map.CatchAll.Verdict != nil && v.Map.CatchAll.Verdict.Chain != nil {
					t.markReached(v.Map.CatchAll.Verdict.Chain, hooks)
				}
			}
		}
	}
}
