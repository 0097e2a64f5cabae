package collect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// namespaces lists the other network namespaces of the machine and opens those
// that are to be read. The function it returns closes them.
func (c *collection) namespaces(ctx context.Context) (closeAll func()) {
	var open []*listeners.Handle
	closeAll = func() {
		for _, h := range open {
			h.Close()
		}
	}
	found, err := timed(ctx, &c.clock, "network namespaces", c.o.Limit, c.home.place, func(ctx context.Context) (*listeners.Namespaces, error) {
		return listeners.ReadNamespaces(ctx, "", c.iterators)
	})
	if err != nil {
		c.gap(audit.Gap{What: "other network namespaces", Why: c.uid.explain(err, needSys)})
		c.snapshot.Meta.NSUnknown = true
		return closeAll
	}
	c.snapshot.Meta.NSUnknown = true
	for _, n := range found.List {
		if n.First {
			c.snapshot.Meta.FirstNS, c.snapshot.Meta.NSUnknown = n.Own, false
		}
	}
	for _, g := range found.Gaps {
		c.hidden = append(c.hidden, audit.Gap{What: g.What, Why: c.uid.explain(deniedError{g.Why}, needOwners)})
	}
	// The machine's first namespace is where most links lead: it is asked first.
	slices.SortStableFunc(found.List, func(a, b listeners.Namespace) int {
		rank := func(n listeners.Namespace) int {
			switch {
			case n.Own:
				return 0
			case n.First:
				return 1
			}
			return 2
		}
		return rank(a) - rank(b)
	})
	for _, n := range found.List {
		if n.Own {
			c.others = append(c.others, other{n.Inode, c.openHome})
			continue
		}
		if len(c.seen) >= c.o.MaxNamespaces {
			c.gap(audit.Gap{What: "other network namespaces", Why: fmt.Sprintf("there are %d; only %d of them were read", len(found.List)-1, c.o.MaxNamespaces)})
			break
		}
		h, err := n.Open("")
		if errors.Is(err, listeners.ErrNamespaceGone) {
			continue
		}
		if err != nil {
			c.refused(err)
			continue
		}
		open = append(open, h)
		c.others = append(c.others, other{n.Inode, opener(n)})
		c.seen = append(c.seen, c.visit(n.Inode, string(n.Name), h))
	}
	return closeAll
}

// opener opens a namespace for its descriptor.
func opener(n listeners.Namespace) func() (int, func(), error) {
	return func() (int, func(), error) {
		var ways []string
		if n.PID != 0 {
			ways = append(ways, fmt.Sprintf("/proc/%d/ns/net", n.PID))
		}
		if n.Path != "" {
			ways = append(ways, string(n.Path))
		}
		err := error(listeners.ErrNamespaceGone)
		for _, way := range ways {
			fd, openErr := unix.Open(way, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if openErr != nil {
				err = openErr
				continue
			}
			// The pid or the path may belong to something else by now.
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && st.Ino == n.Inode {
				return fd, func() { unix.Close(fd) }, nil
			}
			unix.Close(fd)
		}
		return -1, nil, err
	}
}

func (c *collection) refused(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied++
	c.deniedWhy = c.uid.explain(err, needSys)
}

// atOnce is how many namespaces are read side by side.
const atOnce = 2

// elsewhere does something in each of these namespaces.
func (c *collection) elsewhere(ctx context.Context, these []*visited, do func(context.Context, *visited)) {
	work := make(chan *visited)
	var wg sync.WaitGroup
	for range min(atOnce, len(these)) {
		wg.Go(func() {
			for v := range work {
				do(ctx, v)
			}
		})
	}
	for _, v := range these {
		work <- v
	}
	close(work)
	wg.Wait()
}

// openHome lends the descriptor of the audited namespace.
func (c *collection) openHome() (int, func(), error) {
	if c.homeFD < 0 {
		return -1, nil, errors.New("the audited network namespace could not be opened")
	}
	return c.homeFD, func() {}, nil
}

// socketsOnly reads the listeners of another namespace; one that cannot be
// entered is dropped.
func (c *collection) socketsOnly(ctx context.Context, v *visited) {
	if err := c.sockets(ctx, v); err != nil && errors.Is(err, unix.EPERM) {
		v.dropped = true
		c.refused(err)
	}
}

// surroundings reads what stands beside netfilter in the audited namespace, and
// the rest of the namespaces that links lead to from there. Of the others, which
// no packet of this host comes to, the listeners are enough.
func (c *collection) surroundings(ctx context.Context) {
	c.beside(ctx, c.home)
	apart := slices.Clone(c.seen)
	for from := []*visited{c.home}; len(from) > 0 && len(apart) > 0; {
		linked := map[uint64]bool{}
		all := false // where a link leads that was not followed cannot be told
		for _, v := range from {
			all = all || v.decoded.failed[partPrograms] != "" || v.decoded.beside.lost > 0
			for _, p := range v.decoded.beside.peers {
				linked[p.Namespace] = true
			}
		}
		from = nil
		apart = slices.DeleteFunc(apart, func(v *visited) bool {
			next := all || linked[v.place.inode]
			if next {
				from = append(from, v)
			}
			return next
		})
		c.elsewhere(ctx, from, c.theRest)
	}
	for _, v := range apart {
		v.raw.Apart = true
		v.dropped = v.dropped || v.table != nil && len(v.table.Listeners) == 0
	}
}

// theRest reads everything else of another namespace, unless nothing there can
// matter: nobody listens and no link leads out of it.
func (c *collection) theRest(ctx context.Context, v *visited) {
	if v.dropped {
		return
	}
	c.beside(ctx, v)
	if v.table != nil && len(v.table.Listeners) == 0 && len(v.decoded.beside.peers) == 0 && v.decoded.beside.lost == 0 {
		v.dropped = true
		return
	}
	c.routes(ctx, v)
	c.rules(ctx, v)
}
