package listeners

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// Whoever stops the world, as the collector of garbage does, sends signals to those
// who do not stop, and the verifier gives up at each.
func TestIteratorsWhileTheWorldIsStopped(t *testing.T) {
	wantIterators(t)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			runtime.GC()
		}
	})
	defer func() { stop.Store(true); wg.Wait() }()
	for range 200 {
		it := prepareIterators()
		for _, i := range []*iterator{&it.tasks, &it.files} {
			walk, err := i.walk()
			if err != nil {
				t.Fatal(err)
			}
			walk.Close()
		}
		it.Close()
	}
}
