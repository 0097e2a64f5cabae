package reach_test

import (
	"math/rand/v2"
	"testing"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// BenchmarkPartition works out the rows of every port of the laboratory, for drawn
// rulesets of every back end.
func BenchmarkPartition(b *testing.B) {
	l := newBench(b)
	g := &generator{Rand: rand.New(rand.NewPCG(regressionSeed, 4)), vocabulary: l.vocabulary, undecidable: true}
	var worlds []*reach.World
	for i := range 24 {
		l.Server.Flush(b)
		g.wide = i%2 == 1
		l.load(b, g.draw())
		worlds = append(worlds, readWorld(b, l.Server))
	}
	for b.Loop() {
		for _, w := range worlds {
			e := reach.New(w)
			for _, port := range append(l.ports, l.closed...) {
				e.Partition(reach.Query{Proto: firewall.TCP, Port: uint16(port)})
			}
		}
	}
}
