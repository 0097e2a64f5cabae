package remedy

import "github.com/hostaudit/hostaudit/firewall"

// cloneRules copies a ruleset so that chains of the copy can be changed: the
// evaluator keeps what it worked out with the chains of the original. Matches are
// shared, everything that leads to a chain is copied.
func cloneRules(rs *firewall.Ruleset) *firewall.Ruleset {
	c := cloner{map[*firewall.Chain]*firewall.Chain{}, map[*firewall.Set]*firewall.Set{}, map[*firewall.Table]*firewall.Table{}}
	out := &firewall.Ruleset{Flowtables: rs.Flowtables}
	for _, t := range rs.Tables {
		n := &firewall.Table{Backend: t.Backend, Family: t.Family, Name: t.Name, Handle: t.Handle, Dormant: t.Dormant, Owner: t.Owner}
		c.tables[t] = n
		out.Tables = append(out.Tables, n)
		for _, ch := range t.Chains {
			n.Chains = append(n.Chains, c.chain(ch))
		}
	}
	for _, t := range rs.Tables {
		n := c.tables[t]
		for _, s := range t.Sets {
			n.Sets = append(n.Sets, c.set(s))
		}
		for i, ch := range t.Chains {
			to := n.Chains[i]
			for _, r := range ch.Rules {
				to.Rules = append(to.Rules, c.rule(r, to))
			}
		}
	}
	if rs.Order != nil {
		out.Order = map[firewall.Hook][]*firewall.Chain{}
		for h, chains := range rs.Order {
			for _, ch := range chains {
				out.Order[h] = append(out.Order[h], c.chain(ch))
			}
		}
	}
	return out
}

type cloner struct {
	chains map[*firewall.Chain]*firewall.Chain
	sets   map[*firewall.Set]*firewall.Set
	tables map[*firewall.Table]*firewall.Table
}

func (c *cloner) chain(ch *firewall.Chain) *firewall.Chain {
	if ch == nil {
		return nil
	}
	if n, ok := c.chains[ch]; ok {
		return n
	}
	n := &firewall.Chain{Table: c.tables[ch.Table], Name: ch.Name, Handle: ch.Handle, Base: ch.Base, Unread: ch.Unread}
	if n.Table == nil {
		n.Table = ch.Table
	}
	c.chains[ch] = n
	return n
}

func (c *cloner) set(s *firewall.Set) *firewall.Set {
	if s == nil {
		return nil
	}
	if !s.IsVerdictMap {
		return s // leads to no chain
	}
	if n, ok := c.sets[s]; ok {
		return n
	}
	n := &firewall.Set{Table: s.Table, Name: s.Name, Fields: s.Fields, KeyLen: s.KeyLen, Keys: s.Keys, Ends: s.Ends, N: s.N, Expires: s.Expires,
		Stateful: s.Stateful, HasCatchAll: s.HasCatchAll, IsMap: s.IsMap, IsVerdictMap: s.IsVerdictMap, IsObjectMap: s.IsObjectMap,
		Interval: s.Interval, Dynamic: s.Dynamic, Timeout: s.Timeout, Constant: s.Constant, Anonymous: s.Anonymous, Unread: s.Unread, Count: s.Count}
	c.sets[s] = n
	for _, d := range s.Data {
		n.Data = append(n.Data, c.datum(d))
	}
	if s.CatchAll != nil {
		d := c.datum(*s.CatchAll)
		n.CatchAll = &d
	}
	if s.Asked != nil {
		n.Asked = map[string]firewall.Asked{}
		for k, a := range s.Asked {
			a.Data = c.datum(a.Data)
			n.Asked[k] = a
		}
	}
	return n
}

func (c *cloner) datum(d firewall.Datum) firewall.Datum {
	d.Verdict = c.verdict(d.Verdict)
	return d
}

func (c *cloner) verdict(v *firewall.Verdict) *firewall.Verdict {
	if v == nil || v.Chain == nil {
		return v
	}
	return &firewall.Verdict{Kind: v.Kind, Chain: c.chain(v.Chain)}
}

func (c *cloner) rule(r *firewall.Rule, in *firewall.Chain) *firewall.Rule {
	n := &firewall.Rule{Chain: in, Number: r.Number, Handle: r.Handle, Comment: r.Comment, Packets: r.Packets, Stmts: make([]firewall.Stmt, len(r.Stmts))}
	// The printer knows the rule by its place in the original.
	n.Print = func(*firewall.Rule) string { return r.Text() }
	for i, s := range r.Stmts {
		switch m := s.(type) {
		case *firewall.Verdict:
			n.Stmts[i] = c.verdict(m)
		case *firewall.VerdictMap:
			n.Stmts[i] = &firewall.VerdictMap{Keys: m.Keys, Map: c.set(m.Map)}
		default:
			n.Stmts[i] = s
		}
	}
	return n
}
