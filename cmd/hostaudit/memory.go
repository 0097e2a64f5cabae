package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	_ "github.com/hostaudit/hostaudit/cmd/hostaudit/hugepage"
)

// unhurried is how much memory the program takes before it looks for garbage
// for the first time. A scan of an ordinary host ends before that; the default,
// 4 MB, has it collect a dozen times and costs a fifth of its time.
const unhurried = 32 << 20

// modest is the heap that keeps the whole program below 64 MB.
const modest = 34 << 20

// delayCollection puts the first collection of garbage off until the program
// holds as much as unhurried; from then on collections come at a pace. GOGC and
// GOMEMLIMIT of the environment win.
func delayCollection() {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if _, set := os.LookupEnv(name); set {
			return
		}
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(unhurried)
	afterCollection(1)
}

// afterCollection sets the pace anew after the nth collection and each one that
// follows. Nothing refers to the sentinel, so that the next collection finds it.
func afterCollection(n int) {
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		debug.SetGCPercent(pace(live[0].Value.Uint64(), n))
		debug.SetMemoryLimit(math.MaxInt64)
		afterCollection(n + 1)
	})
}

// pace is the growth, in percent of what is in use, after which to collect again:
// as everywhere when it has doubled, or sooner where that keeps the program modest.
// Collecting after every few percent would take more time than it is worth, and
// what is in use may be more than modest by itself. What has collected more often
// than patient works out the sources of a thousand ports behind tens of thousands
// of rules: reading a big host takes some fifteen collections.
func pace(live uint64, collections int) int {
	const least, beyond, most, patient = 8, 50, 100, 40
	switch {
	case live == 0, collections > patient:
		return most
	case live > modest*115/100:
		return beyond
	case live >= modest:
		return least
	}
	return int(min(max((modest-live)*100/live, least), most))
}

// sentinel has a size of its own: objects without one share an address.
type sentinel struct{ _ [16]byte }
