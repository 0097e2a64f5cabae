package firewall

// RecentMatch is x_tables' recent without --set: whether the source (or the
// destination) is in a list. Who is in it, and since when, is not followed; but
// in a list that was empty when it was read nobody is, except whom the packet
// itself has put there (recent_mt: without an entry the match fails).
type RecentMatch struct {
	Name   string
	Empty  bool // the list was read, and nobody is in it
	Invert bool
	Why    string // what the match turns on otherwise
}

func (*RecentMatch) stmt() {}

// RecentName is the name under which [SetUpdate] and [RecentMatch] know a list.
func RecentName(list string) string { return "recent " + list }

// Split is recent_mt.
func (m *RecentMatch) Split(c *Class, _ *Env) Parts {
	if !m.Empty || c.State.touchesNamed(RecentName(m.Name)) {
		return allMaybe(c, m.Why)
	}
	return all(c, m.Invert)
}
