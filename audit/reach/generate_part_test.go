package reach_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// corner is a part of what rulesets and hosts say that has a generator of its
// own, so that it is met often: -part draws it in every round, the ordinary mix
// now and then.
type corner struct {
	name string
	draw func(g *generator) *ruleset
	// counted: the rules of the part carry partComment, and at least this share
	// of them, in per cent, must have been met by probes.
	counted int
	// probes draws the probes; nil: the ordinary ones.
	probes func(b *bench, g *generator, n int) []lab.Probe
	// served is the least share of probes, in per cent, that come to a listener.
	served int
	// routed is the least share of answers, in per cent, that the routing or the
	// address and interface of a listener decide.
	routed int
}

func parts() []corner {
	return []corner{
		{name: "nat", draw: (*generator).natPart, counted: 25},
		{name: "neighbours", draw: (*generator).neighbourPart, counted: 25},
		{name: "sockets", draw: (*generator).socketPart, probes: (*bench).drawSockets, served: 10, routed: 3},
		{name: "headers", draw: (*generator).headerPart, counted: 15},
		{name: "conntrack", draw: (*generator).conntrackPart, counted: 25},
	}
}

func partNames() string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// cornerTally is what became of a part in a run.
type cornerTally struct {
	corner
	rounds, asked, depends, unfound, lost, met, all, delivered, byRoute int
}

type cornerTallies []*cornerTally

// newCornerTallies counts every part, or the one of -part.
func newCornerTallies(t testing.TB) (out cornerTallies) {
	for _, p := range parts() {
		if *partFlag == "" || *partFlag == p.name {
			out = append(out, &cornerTally{corner: p})
		}
	}
	if len(out) == 0 {
		t.Fatalf("-part %s: there are %s", *partFlag, partNames())
	}
	return out
}

// partEvery is how often the ordinary mix draws a part.
const partEvery = 4

// drawMix draws the ruleset of a round; of is nil where it is of no part.
func (g *generator) drawMix(round int) (rs *ruleset, of *cornerTally) {
	if *partFlag == "" && round%partEvery != partEvery-1 {
		return g.draw(), nil
	}
	of = g.parts[round/partEvery%len(g.parts)]
	return of.corner.draw(g), of
}

// draw draws the probes of a round.
func (of *cornerTally) draw(b *bench, g *generator, n int) []lab.Probe {
	if of == nil || of.corner.probes == nil {
		return b.draw(g, n)
	}
	return of.corner.probes(b, g, n)
}

// judged counts a round of a part.
func (of *cornerTally) judged(t testing.TB, b *bench, rs *ruleset, asked, depends int) {
	if of == nil {
		return
	}
	met, all := b.metRules(t, rs)
	of.rounds++
	of.delivered, of.byRoute = of.delivered+b.delivered, of.byRoute+b.routed
	of.unfound, of.lost = of.unfound+b.unfound, of.lost+b.lost
	of.asked, of.depends, of.met, of.all = of.asked+asked, of.depends+depends, of.met+met, of.all+all
}

func (ts cornerTallies) unfound() (n int) {
	for _, of := range ts {
		n += of.unfound
	}
	return n
}

// enough is the number of rules of a part from which their share says something.
const enough = 60

// report says what became of each part, and fails where one proves little.
func (ts cornerTallies) report(t testing.TB) {
	for _, of := range ts {
		if of.rounds == 0 {
			continue
		}
		t.Logf("part %s: %d rounds, %d probes, %d depends, %d delivered, %d decided by routing or bound address, %d of %d rules met packets",
			of.name, of.rounds, of.asked, of.depends, of.delivered, of.byRoute, of.met, of.all)
		if of.all >= enough && of.met*100 < of.all*of.counted {
			t.Errorf("part %s: only %d of %d rules met packets", of.name, of.met, of.all)
		}
		if of.asked >= 1000 && of.delivered*100 < of.asked*of.served {
			t.Errorf("part %s: only %d of %d probes came to a listener", of.name, of.delivered, of.asked)
		}
		if of.asked >= 1000 && of.byRoute*100 < of.asked*of.routed {
			t.Errorf("part %s: only %d of %d answers were decided by the routing or a listener's address", of.name, of.byRoute, of.asked)
		}
		if of.unfound > 0 {
			t.Logf("part %s: %d of %d answers that turn on discovery did not come", of.name, of.lost, of.unfound)
		}
		if of.unfound > 100 && of.lost*4 < of.unfound {
			t.Errorf("part %s: hosts that forgot each other found each other all the same", of.name)
		}
		// That hosts cannot find each other cannot be told for good: they may know.
		// The others come by the ruleset, a dozen at a time; TestDifferential holds
		// the sum of all parts more tightly.
		if of.asked >= 1000 && (of.depends-of.unfound)*50 > of.asked || of.unfound*2 > of.asked {
			t.Errorf("part %s: %d of %d answers are depends, %d of them on what neighbours know", of.name, of.depends, of.asked, of.unfound)
		}
	}
}

// partComment marks a rule of a part; its counter tells whether a probe met it.
const partComment = "of-the-part"

// metRules counts the rules of a part that the kernel has, and those that packets met.
func (b *bench) metRules(t testing.TB, rs *ruleset) (met, all int) {
	t.Helper()
	var commands [][]string
	for _, tb := range rs.tables {
		c := []string{"nft", "list", "ruleset"}
		if strings.Contains(tb.loader, "tables") {
			c = []string{tb.loader + "-save", "-c"}
		}
		if !slices.ContainsFunc(commands, func(d []string) bool { return slices.Equal(c, d) }) {
			commands = append(commands, c)
		}
	}
	for _, c := range commands {
		out, err := b.Server.Exec(t.Context(), "", c...)
		if err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		for _, line := range strings.Split(out, "\n") {
			// What iptables-nft loaded is counted as iptables lists it.
			if !strings.Contains(line, partComment) || c[0] == "nft" && !strings.HasSuffix(line, "comment \""+partComment+"\"") {
				continue
			}
			all++
			if metPackets.MatchString(line) {
				met++
			}
		}
	}
	return met, all
}

// metPackets is a counter above zero, of nft or of iptables-save.
var metPackets = regexp.MustCompile(`counter packets [1-9]|^\[[1-9]`)

// nftPart writes a rule of a part.
func nftPart(match, statement string) string {
	return strings.TrimSpace(match+" counter "+statement) + " comment \"" + partComment + "\""
}

// xtPart writes the same for iptables.
func xtPart(match, target string) string {
	return strings.TrimSpace(match) + " -m comment --comment " + partComment + " -j " + target
}
