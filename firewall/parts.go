package firewall

// allYes, allNo and allMaybe are the answers of a match that tells no packets
// of the class apart.
func allYes(c *Class) Parts { return Parts{Yes: []Piece{{c.Remote, c.Ports}}} }
func allNo(c *Class) Parts  { return Parts{No: []Piece{{c.Remote, c.Ports}}} }

func allMaybe(c *Class, why string) Parts {
	return Parts{Maybe: []Piece{{c.Remote, c.Ports}}, Why: why}
}

// all is allYes or allNo.
func all(c *Class, yes bool) Parts {
	if yes {
		return allYes(c)
	}
	return allNo(c)
}

// byRemote splits the class by the peer's original address: yes inside the set.
func byRemote(c *Class, yes Ranges) Parts {
	in := c.Remote.Intersect(yes)
	if in.Empty() {
		return allNo(c)
	}
	out := c.Remote.Minus(yes)
	if out.Empty() {
		return allYes(c)
	}
	return Parts{Yes: []Piece{{in, c.Ports}}, No: []Piece{{out, c.Ports}}}
}

// byPort splits the class by the peer's original port: yes inside the set.
func byPort(c *Class, yes Ranges) Parts {
	in := c.Ports.Intersect(yes)
	if in.Empty() {
		return allNo(c)
	}
	out := c.Ports.Minus(yes)
	if out.Empty() {
		return allYes(c)
	}
	return Parts{Yes: []Piece{{c.Remote, in}}, No: []Piece{{c.Remote, out}}}
}

// inverted exchanges yes and no.
func (p Parts) inverted(invert bool) Parts {
	if invert {
		p.Yes, p.No = p.No, p.Yes
	}
	return p
}

// with returns the class cut down to a piece of it.
func (c *Class) with(p Piece) Class {
	d := *c
	d.Remote, d.Ports = p.Remote, p.Ports
	return d
}

// minusPieces returns what is left of the class after the (disjoint or not)
// pieces are taken out, as disjoint pieces.
func minusPieces(c *Class, taken []Piece) []Piece {
	rest := []Piece{{c.Remote, c.Ports}}
	for _, t := range taken {
		var next []Piece
		for _, r := range rest {
			both := r.Remote.Intersect(t.Remote)
			ports := r.Ports.Intersect(t.Ports)
			if both.Empty() || ports.Empty() {
				next = append(next, r)
				continue
			}
			if out := r.Remote.Minus(t.Remote); !out.Empty() {
				next = append(next, Piece{out, r.Ports})
			}
			if out := r.Ports.Minus(t.Ports); !out.Empty() {
				next = append(next, Piece{both, out})
			}
		}
		rest = next
	}
	return rest
}

// Split of AllOf follows x_tables: a rule's matches are all asked, and one sure
// no is a no whatever cannot be told about the others.
func (m *AllOf) Split(c *Class, env *Env) Parts {
	return allOf(c, env, m.Of, false).inverted(m.Invert)
}

// Split of AnyOf is the complement of AllOf over the complements.
func (m *AnyOf) Split(c *Class, env *Env) Parts {
	return allOf(c, env, m.Of, true).inverted(!m.Invert)
}

// allOf joins matches by and; with complement set each one is inverted first.
func allOf(c *Class, env *Env, of []Matcher, complement bool) Parts {
	type open struct {
		Piece
		maybe bool
	}
	var out Parts
	alive := []open{{Piece{c.Remote, c.Ports}, false}}
	for _, m := range of {
		var next []open
		for _, o := range alive {
			sub := c.with(o.Piece)
			p := m.Split(&sub, env).inverted(complement)
			out.No = append(out.No, p.No...)
			for _, y := range p.Yes {
				next = append(next, open{y, o.maybe})
			}
			for _, y := range p.Maybe {
				next = append(next, open{y, true})
				out.Why = p.Why
			}
		}
		alive = next
	}
	for _, o := range alive {
		if o.maybe {
			out.Maybe = append(out.Maybe, o.Piece)
		} else {
			out.Yes = append(out.Yes, o.Piece)
		}
	}
	return out
}

// joinPieces joins pieces that have the same ports.
func joinPieces(ps []Piece) []Piece {
	if len(ps) < 2 {
		return ps
	}
	type group struct {
		ports Ranges
		addrs []Range
	}
	var groups []group
next:
	for _, p := range ps {
		for i := range groups {
			if groups[i].ports.Equal(p.Ports) {
				groups[i].addrs = append(groups[i].addrs, p.Remote...)
				continue next
			}
		}
		groups = append(groups, group{p.Ports, append([]Range(nil), p.Remote...)})
	}
	out := make([]Piece, len(groups))
	for i, g := range groups {
		out[i] = Piece{NewRanges(g.addrs), g.ports}
	}
	return out
}
