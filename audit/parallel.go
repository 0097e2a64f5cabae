package audit

import (
	"sync"
	"sync/atomic"
)

// atOnce is how many things are worked out side by side. More than there are
// processors take turns, which costs nothing.
const atOnce = 4

// ForEach calls f for 0 to n-1, several at once. What f does with an index must
// not depend on another's.
func ForEach(n int, f func(i int)) {
	var next atomic.Int64
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			f(i)
		}
	}
	var wg sync.WaitGroup
	for range max(min(n, atOnce)-1, 0) {
		wg.Go(work)
	}
	work()
	wg.Wait()
}
