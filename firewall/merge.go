package firewall

// merge joins classes that are in the same state, so that forks that come back
// together are walked once: twenty rules that cannot be told in a row cost
// twenty steps, not 2^20.
func merge(cs []Class) []Class {
	if len(cs) < 2 {
		return cs
	}
	out := cs[:0:0]
next:
	for _, c := range cs {
		for i := range out {
			if out[i].State == c.State && out[i].join(&c) {
				continue next
			}
		}
		out = append(out, c)
	}
	return out
}

// join adds another class of the same state, where the union is again one
// product of addresses and ports.
func (c *Class) join(d *Class) bool {
	samePorts, sameRemote := c.Ports.Equal(d.Ports), c.Remote.Equal(d.Remote)
	switch {
	case samePorts && sameRemote:
		switch {
		case c.Forks != nil && c.Forks == d.Forks:
			// Both branches of one fork are here again: it did not matter.
			c.Forks = c.Forks.next
		default:
			c.Forks = c.Forks.union(d.Forks)
		}
		return true
	case samePorts:
		c.Remote = c.Remote.Union(d.Remote)
	case sameRemote:
		c.Ports = c.Ports.Union(d.Ports)
	default:
		return false
	}
	c.Forks = c.Forks.union(d.Forks)
	return true
}

// union returns a list with the conditions of both.
func (f *Fork) union(g *Fork) *Fork {
	if f == g || g == nil {
		return f
	}
	if f == nil {
		return g
	}
	if f.depth < g.depth {
		f, g = g, f
	}
	for n := g; n != nil; n = n.next {
		if f.holds(n.Condition) {
			continue
		}
		f = &Fork{Condition: n.Condition, next: f, depth: f.depth + 1}
	}
	return f
}

func (f *Fork) holds(c Condition) bool {
	for ; f != nil; f = f.next {
		if f.Condition == c {
			return true
		}
	}
	return false
}

// Asks reports whether one of the conditions turns on what why says.
func (f *Fork) Asks(why string) bool {
	for ; f != nil; f = f.next {
		if f.Condition.Why == why {
			return true
		}
	}
	return false
}

// Conditions lists the conditions, oldest first, each once.
func (f *Fork) Conditions() []Condition {
	var out []Condition
	seen := map[Condition]bool{}
	for ; f != nil; f = f.next {
		if !seen[f.Condition] {
			seen[f.Condition] = true
			out = append(out, f.Condition)
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}
