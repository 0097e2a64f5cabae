package collect

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// Host reads the running host, in the network namespace of the calling thread.
// What could not be read is in the snapshot's gaps; the error is for a context
// that has ended and for a system on which nothing can be read at all.
func Host(ctx context.Context, o Options) (*audit.Snapshot, error) {
	s, _, err := collect(ctx, o.withDefaults(), false)
	return s, err
}

// Record reads the running host as [Host] does, and keeps what it read.
func Record(ctx context.Context, o Options) (*audit.Snapshot, *Capture, error) {
	return collect(ctx, o.withDefaults(), true)
}

// collection is one reading of a host while it goes on.
type collection struct {
	o    Options
	keep bool
	uid  reader
	clock
	iterators *listeners.Iterators // over the processes of the machine
	host      *answers             // questions about the machine
	home      *visited             // the audited namespace
	homeFD    int                  // -1 where it could not be opened
	seen      []*visited
	others    []other // namespaces that links may lead to, all of the machine's
	snapshot  *audit.Snapshot
	capture   *Capture

	mu   sync.Mutex
	gaps []audit.Gap
	// hidden are gaps about namespaces that could not be seen or entered. They
	// count only where a link may lead there.
	hidden    []audit.Gap
	denied    int // that could not be entered
	deniedWhy string
}

// visited is one namespace of the collection: where it is, what it gave, and
// what was made of it.
type visited struct {
	place *place
	raw   reading
	decoded
	answers *answers
	// dropped namespaces are no part of the world: gone, closed to us, or with
	// neither a listener nor a link to elsewhere.
	dropped bool
}

func (c *collection) gap(g ...audit.Gap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gaps = append(c.gaps, g...)
}

// failed notes that a part of a namespace could not be read.
func (c *collection) failed(v *visited, part string, err error, n need) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v.fail(part, c.uid.explain(err, n))
}

func (c *collection) visit(inode uint64, name string, h *listeners.Handle) *visited {
	return &visited{
		place:   &place{inode: inode, handle: h},
		raw:     reading{ID: inode, Name: listeners.HostText(name)},
		decoded: decoded{id: inode, name: name},
		answers: liveAnswers(c.keep),
	}
}

func collect(ctx context.Context, o Options, keep bool) (*audit.Snapshot, *Capture, error) {
	inode, err := threadNamespace()
	if err != nil {
		return nil, nil, err
	}
	// Without procfs or the right to open it this stays nil, and is needed only
	// where the program's threads are in several namespaces.
	handle, err := (listeners.Namespace{Inode: inode, Own: true}).Open("")
	if err == nil {
		defer handle.Close()
	}
	homeFD, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(homeFD)
	}
	c := &collection{
		o: o, keep: keep, uid: self(), host: liveAnswers(keep), homeFD: homeFD, clock: clock{progress: o.Progress},
		snapshot: &audit.Snapshot{}, capture: &Capture{Schema: Schema, BigEndian: bigEndian()},
	}
	c.home = c.visit(inode, "", handle)
	c.iterators = listeners.PrepareIterators()
	defer c.iterators.Close()
	find := prepareOwners(listeners.OwnerOptions{Root: o.Root, Iterators: c.iterators})
	c.meta(ctx)

	// Counters are read before all else where they are read twice: what is read in
	// between then lies in the time that they were watched, and takes none beyond it.
	var first time.Time
	if !o.Quick {
		first = c.sample(ctx)
	}
	// What is independent runs side by side: the kernel walks its rules while
	// this program looks through processes.
	var wg, sockets sync.WaitGroup
	if o.Quick {
		wg.Go(func() { c.sample(ctx) })
	}
	sockets.Go(func() { _ = c.sockets(ctx, c.home) }) // the failure is noted
	wg.Go(func() { c.rules(ctx, c.home) })
	wg.Go(func() { c.routes(ctx, c.home) })
	wg.Go(func() { c.settings(ctx) })
	closeAll := c.namespaces(ctx)
	defer closeAll()
	c.elsewhere(ctx, c.seen, c.socketsOnly)
	sockets.Wait() // owners and control groups are looked for by them
	wg.Go(func() { c.owners(ctx, find) })
	wg.Go(func() { c.surroundings(ctx) })
	wg.Wait()
	c.last(ctx, first)
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("read the host: %w", err)
	}
	c.finish()
	return c.snapshot, c.capture, nil
}

// finish puts the parts together.
func (c *collection) finish() {
	c.seen = slices.DeleteFunc(c.seen, func(v *visited) bool { return v.dropped })
	all := append([]*visited{c.home}, c.seen...)
	var list []*decoded
	for _, v := range all {
		list = append(list, &v.decoded)
	}
	if c.denied > 0 {
		c.hidden = append(c.hidden, audit.Gap{What: "other network namespaces", Why: fmt.Sprintf("%d could not be entered: %s", c.denied, c.deniedWhy)})
	}
	minor := !leadsAway(list)
	for _, g := range c.hidden {
		g.Minor = minor
		c.gaps = append(c.gaps, g)
	}
	c.snapshot.Timings = c.timings
	c.capture.Gaps = gapsToJSON(c.gaps)
	assemble(c.snapshot, c.uid, list, c.gaps)
	if !c.keep {
		c.capture = nil
		return
	}
	p, t := c.capture, c.snapshot
	p.Reader = c.uid
	p.Meta, p.Samples, p.Census, p.Sysctls, p.Files, p.Timings = metaToJSON(t.Meta), t.Samples, t.Census, t.Sysctls, t.Files, c.timings
	p.SockStat, p.Conntrack, p.Memory = t.SockStat, t.Conntrack, t.Memory
	if t.Keys != nil {
		p.Keys = t.Keys.Keys()
	}
	for _, a := range c.o.Ask {
		p.Options.Ask = append(p.Options.Ask, a.String())
	}
	for _, v := range all {
		v.raw.Failed = v.decoded.failed
		v.raw.Answers = v.answers.recording()
		p.Taken = append(p.Taken, v.raw)
	}
	for _, o := range c.others {
		p.Others = append(p.Others, o.inode)
	}
	p.Host = c.host.recording()
}

// assemble fills the snapshot's world and gaps from what was decoded, the
// audited namespace first. Gaps of namespaces that no link leads to from there
// are minor.
func assemble(s *audit.Snapshot, uid reader, list []*decoded, gaps []audit.Gap) {
	near := reachable(list)
	s.World = reach.World{}
	s.Gaps = append([]audit.Gap(nil), gaps...)
	for _, d := range list {
		ns, own := d.world(uid)
		s.World.Namespaces = append(s.World.Namespaces, ns)
		for _, g := range own {
			g.Minor = g.Minor || !near[d.id]
			s.Gaps = append(s.Gaps, g)
		}
	}
}

// reachable gives the namespaces that links lead to from the first one.
func reachable(list []*decoded) map[uint64]bool {
	by := make(map[uint64]*decoded, len(list))
	for _, d := range list {
		by[d.id] = d
	}
	near := map[uint64]bool{list[0].id: true}
	todo := []*decoded{list[0]}
	for len(todo) > 0 {
		d := todo[0]
		todo = todo[1:]
		for _, p := range d.beside.peers {
			if next := by[p.Namespace]; next != nil && !near[p.Namespace] {
				near[p.Namespace] = true
				todo = append(todo, next)
			}
		}
	}
	return near
}

// leadsAway tells that a link of the audited namespace, or of one behind it,
// leads to a namespace that was not read.
func leadsAway(list []*decoded) bool {
	read := map[uint64]bool{}
	for _, d := range list {
		read[d.id] = true
	}
	near := reachable(list)
	for _, d := range list {
		if !near[d.id] {
			continue
		}
		if d.beside.lost > 0 {
			return true
		}
		for _, p := range d.beside.peers {
			if !read[p.Namespace] {
				return true
			}
		}
	}
	return false
}
