package collect

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// place is a network namespace to read in.
type place struct {
	inode  uint64
	handle *listeners.Handle // nil for the caller's own where it could not be opened
}

// threadNamespace gives the network namespace of the calling thread.
func threadNamespace() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("identify the network namespace: %w", err)
	}
	return st.Ino, nil
}

// do runs fn on a thread of the namespace. Where the goroutine's thread is
// there already nothing is entered, which takes no privilege, and the goroutine is
// not held to it: threads that go elsewhere are given up (listeners.WithNamespace),
// so that all that goroutines share are in one namespace.
func (p *place) do(fn func() error) error {
	if here, err := threadNamespace(); err == nil && here == p.inode {
		return fn()
	}
	if p.handle == nil {
		return errors.New("the threads of this program are in another network namespace")
	}
	return listeners.WithNamespace(p.handle, fn)
}

// clock runs the parts of a collection: each with its own deadline, and its
// time noted.
type clock struct {
	progress func(string)

	mu      sync.Mutex
	timings []audit.Timing
}

func (c *clock) took(what string, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timings = append(c.timings, audit.Timing{What: what, Took: time.Since(since)})
}

// grace is how long a part may take to notice that its deadline has passed.
const grace = 500 * time.Millisecond

// timed runs one part in a namespace (nil: anywhere). A part that does not come
// back is left behind: its result is never looked at, so that nothing it still
// does can be seen.
func timed[T any](ctx context.Context, c *clock, what string, limit time.Duration, p *place, fn func(context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	start := time.Now()
	defer c.took(what, start)
	if c.progress != nil {
		c.progress(what)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan result, 1)
	go func() {
		var r result
		run := func() error {
			r.v, r.err = fn(ctx)
			return nil
		}
		var err error
		if p == nil {
			err = run()
		} else {
			err = p.do(run)
		}
		if err != nil {
			r.err = err
		}
		done <- r
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case r := <-done:
		return r.v, r.err
	case <-late.C:
		var zero T
		return zero, &lateError{what, limit}
	}
}
