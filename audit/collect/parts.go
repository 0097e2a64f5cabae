package collect

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

func (c *collection) meta(ctx context.Context) {
	type result struct {
		m      audit.Meta
		memory uint64
		gaps   []audit.Gap
	}
	r, err := timed(ctx, &c.clock, "host", c.o.Limit, nil, func(context.Context) (result, error) {
		m, gaps := readMeta(c.o.Root, c.o.Tool)
		memory, err := readMemory()
		if err != nil {
			gaps = append(gaps, audit.Gap{What: "size of the memory", Why: c.uid.explain(err, needNothing)})
		}
		return result{m, memory, gaps}, nil
	})
	if err != nil {
		c.gap(audit.Gap{What: "name and kernel of the host", Why: c.uid.explain(err, needNothing)})
		r.m = audit.Meta{TakenAt: time.Now().UTC(), Tool: c.o.Tool, UID: c.uid.UID, Root: c.o.Root}
	}
	c.gap(r.gaps...)
	c.snapshot.Meta, c.snapshot.Memory = r.m, r.memory
}

// sample reads the counters once; a quick reading keeps only the state of the
// tables, not the counters, whose growth it does not see.
func (c *collection) sample(ctx context.Context) time.Time {
	now := time.Now()
	type result struct {
		sample   *listeners.Sample
		counters listeners.Counters
		drops    map[uint64]uint32
		gaps     []audit.Gap
	}
	r, err := timed(ctx, &c.clock, "counters", c.o.Limit, c.home.place, func(ctx context.Context) (result, error) {
		if c.o.Quick {
			s, err := listeners.ReadTables(ctx, "")
			if err != nil {
				return result{}, err
			}
			return result{sample: s, gaps: gapsOf(s)}, nil
		}
		s, counters, gaps, err := readCounters(ctx)
		if err != nil {
			return result{}, err
		}
		drops, err := readDrops(ctx)
		if err != nil {
			gaps = append(gaps, audit.Gap{What: "drops of each listener", Why: c.uid.explain(err, needNothing), Minor: true})
		}
		return result{s, counters, drops, gaps}, nil
	})
	if err != nil {
		c.gap(audit.Gap{What: "counters", Why: c.uid.explain(err, needNothing)})
		return now
	}
	if len(c.snapshot.Samples) == 0 {
		c.gap(r.gaps...)
	}
	// The state of the tables is that of the last look.
	c.snapshot.SockStat, c.snapshot.Conntrack = &r.sample.SockStat, r.sample.Conntrack
	if c.o.Quick {
		c.gap(audit.Gap{What: "growth of counters", Minor: true,
			Why: "left out on request (--quick): whether queues overflow and limits are hit now was not measured"})
		return now
	}
	c.snapshot.Samples = append(c.snapshot.Samples, audit.Sample{At: now.UTC(), Counters: r.counters, Drops: r.drops})
	return now
}

// readDrops reads what each listening socket of the thread's namespace has thrown
// away since it was made.
func readDrops(ctx context.Context) (map[uint64]uint32, error) {
	t, _, err := readSockets(ctx, false)
	if err != nil {
		return nil, err
	}
	out := make(map[uint64]uint32, len(t.Listeners))
	for i := range t.Listeners {
		if l := &t.Listeners[i]; l.Cookie != 0 && l.Accept.Drops != nil {
			out[l.Cookie] = *l.Accept.Drops
		}
	}
	return out, nil
}

// last takes the second sample, as long after the first as was asked for.
func (c *collection) last(ctx context.Context, first time.Time) {
	if c.o.Quick {
		return
	}
	start := time.Now()
	if left := c.o.Sample - time.Since(first); left > 0 {
		t := time.NewTimer(left)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		c.took("waiting for the second sample", start)
	}
	c.sample(ctx)
}

// secret tells settings that hold secrets; nothing here turns on their values.
func secret(k sysctl.Key) bool {
	p := k.Path()
	return p == "net/ipv4/tcp_fastopen_key" || len(p) > 14 && p[len(p)-14:] == "/stable_secret"
}

// settings reads the sysctls and the files that set them.
func (c *collection) settings(ctx context.Context) {
	files, err := timed(ctx, &c.clock, "sysctl files", c.o.Limit, nil, func(ctx context.Context) (*sysctl.Tree, error) {
		return sysctl.CaptureFiles(ctx, c.o.Root, c.o.SysctlFiles...)
	})
	if err != nil {
		c.gap(audit.Gap{What: "sysctl files", Why: c.uid.explain(err, needFiles)})
		files = nil
	}
	type result struct {
		keys   *sysctl.KeySet
		values sysctl.Values
		gaps   []sysctl.Gap
	}
	r, err := timed(ctx, &c.clock, "sysctls", c.o.Limit, c.home.place, func(ctx context.Context) (result, error) {
		set := sysctl.AskKeys(ctx, sysctl.ProcSys)
		var gaps []sysctl.Gap
		if c.keep { // who reads the snapshot may ask for others
			keys, missing, err := sysctl.ListKeys(ctx, sysctl.ProcSys)
			if err != nil {
				return result{}, err
			}
			set, gaps = sysctl.NewKeySet(keys), missing
		}
		var outcomes []*sysctl.Outcome
		if files != nil {
			for _, l := range sysctl.Loaders() {
				outcomes = append(outcomes, sysctl.Simulate(l, files, set))
			}
		}
		wanted := sysctl.WantedKeys(set, outcomes...)
		ask := wanted[:0]
		for _, k := range wanted {
			if !secret(k) {
				ask = append(ask, k)
			}
		}
		values, err := sysctl.ReadValues(ctx, sysctl.ProcSys, ask)
		if !c.keep {
			gaps = set.Settle(values)
		}
		return result{set, values, gaps}, err
	})
	if err != nil {
		c.gap(audit.Gap{What: "sysctls", Why: c.uid.explain(err, needNothing)})
		r = result{}
	}
	for _, g := range r.gaps {
		c.gap(audit.Gap{What: g.What, Why: g.Why})
	}
	for _, g := range r.values.Gaps() {
		c.gap(audit.Gap{What: g.What, Why: g.Why})
	}
	if files != nil {
		for _, g := range files.Gaps() {
			c.gap(audit.Gap{What: g.What, Why: g.Why})
		}
	}
	c.snapshot.Files, c.snapshot.Sysctls, c.snapshot.Keys = files, r.values, r.keys
}

// rules reads the ruleset of a namespace, all back ends or none: an answer from
// half of them would be wrong.
func (c *collection) rules(ctx context.Context, v *visited) {
	r, err := timed(ctx, &c.clock, v.part(partFirewall), c.o.Limit, v.place, func(ctx context.Context) (rulesRead, error) {
		return liveFirewall(ctx, v.answers, c.o.Ask)
	})
	if err != nil {
		c.failed(v, partFirewall, err, needAdmin)
		return
	}
	v.ruleset, v.raw.Firewall, v.partly = r.ruleset, r.raw, r.partly
}

func (c *collection) routes(ctx context.Context, v *visited) {
	type result struct {
		capture *route.Capture
		table   *route.Table
	}
	r, err := timed(ctx, &c.clock, v.part(partRoutes), c.o.Limit, v.place, func(ctx context.Context) (result, error) {
		capture, err := route.Acquire(ctx)
		if err != nil {
			return result{}, err
		}
		table, err := route.Decode(capture)
		return result{capture, table}, err
	})
	if err != nil {
		c.failed(v, partRoutes, err, needNothing)
		return
	}
	v.decoded.routes, v.raw.Routes = r.table, r.capture
}

// readSockets reads the listeners of the calling thread's namespace.
func readSockets(ctx context.Context, keep bool) (*listeners.Table, *listeners.Tape, error) {
	live, err := listeners.OpenLive("")
	if err != nil {
		return nil, nil, err
	}
	defer live.Close()
	if !keep {
		t, err := listeners.Read(ctx, live)
		return t, nil, err
	}
	rec := listeners.NewRecorder(live)
	t, err := listeners.Read(ctx, rec)
	tape := rec.Tape()
	return t, &tape, err
}

type socketsRead struct {
	table *listeners.Table
	tape  *listeners.Tape
}

func (c *collection) sockets(ctx context.Context, v *visited) error {
	r, err := timed(ctx, &c.clock, v.part(partListeners), c.o.Limit, v.place, func(ctx context.Context) (socketsRead, error) {
		table, tape, err := readSockets(ctx, c.keep)
		return socketsRead{table, tape}, err
	})
	if err != nil {
		c.failed(v, partListeners, err, needNothing)
		return err
	}
	v.table, v.raw.Listeners = r.table, r.tape
	return nil
}

// censusOwners is how many destinations of the census get owners.
const censusOwners = 20

// ownersOf looks for the owners of sockets, once.
type ownersOf func(ctx context.Context, inodes []uint32) (*listeners.Owners, error)

// prepareOwners begins a search while the sockets are still being read; the
// function that it gives must be called.
func prepareOwners(o listeners.OwnerOptions) ownersOf {
	type prepared struct {
		search *listeners.OwnerSearch
		err    error
	}
	done := make(chan prepared, 1)
	go func() {
		s, err := listeners.PrepareOwners(o)
		done <- prepared{s, err}
	}()
	return func(ctx context.Context, inodes []uint32) (*listeners.Owners, error) {
		p := <-done
		if p.err != nil {
			return nil, p.err
		}
		defer p.search.Close()
		return p.search.Find(ctx, inodes)
	}
}

// owners finds the processes that hold the listeners of all namespaces and the
// busiest outgoing connections, in one walk through the processes.
func (c *collection) owners(ctx context.Context, find ownersOf) {
	c.census(ctx)
	var inodes []uint32
	all := append([]*visited{c.home}, c.seen...)
	for _, v := range all {
		if v.table != nil {
			inodes = append(inodes, v.table.Inodes()...)
		}
	}
	census := c.snapshot.Census
	if census != nil {
		inodes = append(inodes, census.SampleInodes(censusOwners)...)
	}
	o, err := timed(ctx, &c.clock, "owners", c.o.Limit, nil, func(ctx context.Context) (*listeners.Owners, error) {
		return find(ctx, inodes)
	})
	if err != nil {
		c.gap(audit.Gap{What: "owners of the sockets", Why: c.uid.explain(err, needOwners)})
		for _, v := range all {
			if v.table != nil {
				for i := range v.table.Listeners {
					v.table.Listeners[i].Unowned = listeners.Unreadable
				}
			}
		}
		return
	}
	if c.keep {
		c.capture.Owners = o
	}
	if census != nil {
		census.AssignOwners(o, censusOwners)
	}
	for _, v := range all {
		if v.table == nil {
			continue
		}
		o.Assign(v.table.Listeners)
		c.markGone(ctx, v)
	}
	c.ownerGaps(o, all)
}

// markGone reads the listeners again where some have no owner that could be seen:
// they may just have been closed, and then nobody hides.
func (c *collection) markGone(ctx context.Context, v *visited) {
	suspect := false
	for i := range v.table.Listeners {
		suspect = suspect || v.table.Listeners[i].Unowned != ""
	}
	if !suspect {
		return
	}
	later, err := timed(ctx, &c.clock, v.part(partListeners)+", again", c.o.Limit, v.place, func(ctx context.Context) (socketsRead, error) {
		table, tape, err := readSockets(ctx, c.keep)
		return socketsRead{table, tape}, err
	})
	if err != nil {
		return // the first answer stands
	}
	v.table.MarkGone(later.table)
	v.raw.Later = later.tape
}

// ownerGaps says whose processes could not be looked into. Where every listener
// has an owner all the same, nothing turns on the others.
func (c *collection) ownerGaps(o *listeners.Owners, all []*visited) {
	unowned := false
	for _, v := range all {
		for i := range v.listeners() {
			unowned = unowned || v.listeners()[i].Unowned == listeners.NoPrivilege
		}
	}
	for _, g := range o.Gaps {
		gap := audit.Gap{What: g.What, Why: g.Why}
		switch {
		case g.What == "user names":
			gap.Minor = true
		case o.Refused():
			gap.Why, gap.Minor = c.uid.explain(deniedError{g.Why}, needOwners), !unowned
		}
		c.gap(gap)
	}
}

// listeners are those of the namespace, none where they could not be read.
func (v *visited) listeners() []listeners.Listener {
	if v.table == nil {
		return nil
	}
	return v.table.Listeners
}

// census counts how the local ports are used.
func (c *collection) census(ctx context.Context) {
	if c.o.NoCensus || c.home.table == nil {
		return
	}
	r, err := timed(ctx, &c.clock, "census of local ports", c.o.Limit, c.home.place, func(ctx context.Context) (*listeners.Census, error) {
		settings, err := listeners.ReadPortSettings(ctx, "")
		if err != nil {
			return nil, err
		}
		live, err := listeners.OpenLive("")
		if err != nil {
			return nil, err
		}
		defer live.Close()
		o := listeners.CensusOptions{Settings: settings, Table: c.home.table, Bound: true, BoundFrom: c.o.BoundFrom}
		if beside, err := listeners.OpenLive(""); err == nil { // without it one walk follows the other
			defer beside.Close()
			o.Beside = beside
		}
		return listeners.ReadCensus(ctx, live, o)
	})
	if err != nil {
		c.gap(audit.Gap{What: "census of local ports", Why: c.uid.explain(err, needNothing)})
		return
	}
	for _, g := range r.Gaps {
		c.gap(audit.Gap{What: g.What, Why: g.Why})
	}
	c.snapshot.Census = r
}

// beside reads what this package knows how to read.
func (c *collection) beside(ctx context.Context, v *visited) {
	groups := groupsOf(v.table)
	f, err := timed(ctx, &c.clock, v.part(partPrograms), c.o.Limit, v.place, func(ctx context.Context) (besideFacts, error) {
		return readBeside(c.uid, v.answers, c.host, v.decoded.id, groups, c.others), nil
	})
	if err != nil {
		c.failed(v, partPrograms, err, needBPF)
		return
	}
	v.decoded.beside = f
}

// part names a part of a namespace, for timings.
func (v *visited) part(name string) string {
	if v.name == "" {
		return name
	}
	return name + " of network namespace " + v.name
}

// deniedError is a refusal that a reader has put into words already.
type deniedError struct{ text string }

func (e deniedError) Error() string { return e.text }

// Is makes it a refusal for errors.Is.
func (e deniedError) Is(target error) bool { return target == unix.EPERM }
