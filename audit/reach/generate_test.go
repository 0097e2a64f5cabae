package reach_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
)

// vocabulary is what random rulesets speak of: the addresses, ports and
// interfaces of the laboratory, so that rules really decide about probes.
type vocabulary struct {
	clients4, clients6 []netip.Addr // sources of probes
	server4, server6   []netip.Addr
	links              []string // of the server, client side
	ports              []int    // with listeners
	closed             []int    // without
	special            []int    // with listeners that do not take every packet
	// nat is false where translations are left out.
	nat bool
}

// ruleset is a random ruleset in the languages of the loaders, piece by piece so
// that it can be shrunk.
type ruleset struct {
	commands []command
	tables   []*table
}

// table is one table of one back end.
type table struct {
	loader string // nft, iptables-nft, ip6tables-nft, iptables-legacy, ip6tables-legacy, ipset
	family string // of nft tables
	name   string
	sets   []string
	chains []*chain
	wide   string // the set w0
	// verbatim is the text of a table that was not drawn.
	verbatim string
}

type chain struct {
	name  string
	head  string // nft: the type line; iptables: the policy, "-" for user chains
	rules []string
}

// text is what the loader reads.
func (t *table) text() string {
	if t.verbatim != "" {
		return t.verbatim
	}
	var b strings.Builder
	if t.loader == "nft" {
		fmt.Fprintf(&b, "table %s %s {\n", t.family, t.name)
		for _, s := range t.sets {
			fmt.Fprintf(&b, "\t%s\n", s)
		}
		for _, c := range t.chains {
			fmt.Fprintf(&b, "\tchain %s {\n", c.name)
			if c.head != "" {
				fmt.Fprintf(&b, "\t\t%s\n", c.head)
			}
			for _, r := range c.rules {
				fmt.Fprintf(&b, "\t\t%s\n", r)
			}
			b.WriteString("\t}\n")
		}
		b.WriteString("}\n")
		return b.String()
	}
	fmt.Fprintf(&b, "*%s\n", t.name)
	for _, c := range t.chains {
		fmt.Fprintf(&b, ":%s %s [0:0]\n", c.name, c.head)
	}
	for _, c := range t.chains {
		for _, r := range c.rules {
			fmt.Fprintf(&b, "-A %s %s\n", c.name, r)
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

func (rs *ruleset) String() string {
	var b strings.Builder
	for _, c := range rs.commands {
		fmt.Fprintf(&b, "! %s\n", strings.Join(c, " "))
	}
	for _, t := range rs.tables {
		fmt.Fprintf(&b, "# %s\n%s", t.loader, t.text())
	}
	return b.String()
}

// generator draws random rulesets.
type generator struct {
	*rand.Rand
	vocabulary
	undecidable bool // may draw what a reading cannot tell
	routing     bool // may draw routing and settings
	wide        bool // draws the rarer half of the languages, too
	rare        bool // draws what few rulesets say, too
	parts       cornerTallies
	l4          string // what the rule being drawn speaks of
}

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

// source is a prefix around a client's address, or one that misses all.
func (g *generator) source(six bool) string {
	cs := g.clients4
	lens := []int{0, 1, 4, 8, 12, 16, 20, 24, 25, 28, 30, 31, 32, 32, 32}
	if six {
		cs = g.clients6
		lens = []int{0, 1, 8, 16, 32, 48, 63, 64, 65, 96, 112, 120, 127, 128, 128, 128}
	}
	p := netip.PrefixFrom(pick(g, cs...), pick(g, lens...)).Masked()
	return p.String()
}

func (g *generator) client(six bool) string {
	if six {
		return pick(g, g.clients6...).String()
	}
	return pick(g, g.clients4...).String()
}

func (g *generator) server(six bool) string {
	if six {
		return pick(g, g.server6...).String()
	}
	return pick(g, g.server4...).String()
}

func (g *generator) port() int {
	switch {
	case g.chance(15):
		return pick(g, g.closed...)
	case len(g.special) > 0 && g.chance(8):
		return pick(g, g.special...)
	}
	return pick(g, g.ports...)
}

func (g *generator) portRange() (int, int) {
	a := g.port()
	return a, a + g.IntN(4)
}

// draw makes a ruleset of one to four tables of any back ends.
func (g *generator) draw() *ruleset {
	rs := &ruleset{}
	if g.routing {
		rs.commands = g.surroundings()
		if g.rare {
			rs.commands = append(rs.commands, g.rareSurroundings()...)
		}
	}
	legacy := map[string]bool{}
	if g.wide {
		rs.tables = append(rs.tables, g.ipsetTable(false), g.ipsetTable(true))
		if g.chance(20) {
			rs.tables = append(rs.tables, g.netdevTable("d0"))
		}
	}
	if g.rare && g.chance(25) {
		rs.tables = append(rs.tables, g.egressTable("e0"))
	}
	for i := range 1 + g.IntN(3) {
		switch g.IntN(5) {
		case 0, 1, 2:
			rs.tables = append(rs.tables, g.nftTable(fmt.Sprintf("t%d", i)))
		default:
			loader := pick(g, "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")
			name := pick(g, "filter", "filter", "filter", "mangle", "raw", "security", "nat")
			if name == "nat" && !g.nat {
				name = "filter"
			}
			if !legacy[loader+name] {
				legacy[loader+name] = true
				rs.tables = append(rs.tables, g.xtTable(loader, name))
			}
		}
	}
	return rs
}
