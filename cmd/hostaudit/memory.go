package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
)

// unhurried is how much memory the program takes before it looks for garbage
// for the first time. A scan of an ordinary host ends before that; the default,
// 4 MB, has it collect a dozen times and costs a fifth of its time.
const unhurried = 32 << 20

// delayCollection puts the first collection of garbage off until the program
// holds as much as unhurried; from then on collections follow the growth of what
// is in use, as they do everywhere. GOGC and GOMEMLIMIT of the environment win.
func delayCollection() {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		if _, set := os.LookupEnv(name); set {
			return
		}
	}
	percent := debug.SetGCPercent(-1)
	debug.SetMemoryLimit(unhurried)
	// Nothing refers to it, so that the first collection finds it.
	runtime.SetFinalizer(&sentinel{}, func(*sentinel) {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(math.MaxInt64)
	})
}

// sentinel has a size of its own: objects without one share an address.
type sentinel struct{ _ [16]byte }
