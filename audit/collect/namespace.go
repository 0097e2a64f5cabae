package collect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// decoded is one namespace as it comes out of the decoders; live readings and
// replays fill it the same way.
type decoded struct {
	id     uint64
	name   string
	failed map[string]string

	table   *listeners.Table
	routes  *route.Table
	ruleset *firewall.Ruleset
	partly  error // tables of the ruleset that are marked as unread, and why
	beside  besideFacts
}

// besideFacts is what this package reads of a namespace itself.
type besideFacts struct {
	programs []reach.Program
	peers    map[int]reach.Peer
	// lost counts links whose other end is in no namespace that was found.
	lost    int
	queues  map[uint16]bool
	noIPSec bool
	// unread are the programs that may be missing, and why.
	unread []error
	// gaps concern the rest.
	gaps []audit.Gap
}

// fail notes that a part could not be read.
func (d *decoded) fail(part, why string) {
	if d.failed == nil {
		d.failed = map[string]string{}
	}
	d.failed[part] = why
}

// readBeside asks all questions of this package about one namespace.
func readBeside(uid reader, ns, host *answers, id uint64, groups socketGroups, others []other) besideFacts {
	var f besideFacts
	links, err := readLinks(ns)
	if err != nil {
		f.unread = append(f.unread, err)
	}
	var unread []error
	f.programs, unread = readPrograms(ns, host, links, groups)
	f.unread = append(f.unread, unread...)
	if f.peers, err = readPeers(ns, id, links, others); err != nil {
		f.gaps = append(f.gaps, audit.Gap{What: "other ends of links", Why: uid.explain(err, needSys)})
	}
	for _, l := range links {
		if _, ok := f.peers[l.Index]; !ok && l.paired() {
			f.lost++
		}
	}
	// An answer that needs one of these two is "depends" by itself.
	if f.queues, err = readQueues(ns); err != nil {
		f.gaps = append(f.gaps, audit.Gap{What: "listeners of NFQUEUE", Why: uid.explain(err, needAdmin), Minor: true})
	}
	if f.noIPSec, err = readNoIPSec(ns); err != nil {
		f.gaps = append(f.gaps, audit.Gap{What: "IPsec policies and states", Why: uid.explain(err, needAdmin), Minor: true})
	}
	return f
}

// socketGroups are the control groups that listeners were made in.
type socketGroups struct {
	ids []uint64
	// untold counts listeners of which the kernel does not tell it (before Linux
	// 5.8, or read from /proc).
	untold int
}

func groupsOf(t *listeners.Table) (g socketGroups) {
	if t == nil {
		return g
	}
	seen := map[uint64]bool{}
	for i := range t.Listeners {
		switch l := &t.Listeners[i]; {
		case !l.Tells(listeners.FactCgroup):
			g.untold++
		case l.Cgroup != 0:
			seen[l.Cgroup] = true
		}
	}
	g.ids = slices.Sorted(maps.Keys(seen))
	return g
}

// world makes the namespace of the model, and the gaps to report.
func (d *decoded) world(uid reader) (*reach.Namespace, []audit.Gap) {
	ns := &reach.Namespace{ID: d.id, Name: d.name, Listeners: d.table, Route: d.routes, Ruleset: d.ruleset,
		Programs: d.beside.programs, Peers: d.beside.peers, Queues: d.beside.queues, NoIPSec: d.beside.noIPSec, Unread: map[string]string{}}
	of := ""
	if d.name != "" {
		of = " of network namespace " + d.name
	}
	var gaps []audit.Gap
	if len(d.beside.unread) > 0 && d.failed[partPrograms] == "" {
		ns.Unread[partPrograms] = together(uid, d.beside.unread)
		gaps = append(gaps, audit.Gap{What: partPrograms + of, Why: ns.Unread[partPrograms]})
	}
	for _, part := range []string{partListeners, partRoutes, partFirewall, partPrograms} {
		if why := d.failed[part]; why != "" {
			ns.Unread[part] = why
			gaps = append(gaps, audit.Gap{What: part + of, Why: why})
		}
	}
	if d.partly != nil {
		gaps = append(gaps, audit.Gap{What: "a part of the " + partFirewall + of, Why: uid.explain(d.partly, needAdmin)})
	}
	if d.table != nil {
		for _, g := range d.table.Gaps {
			gaps = append(gaps, audit.Gap{What: g.What + of, Why: g.Why})
		}
	}
	if d.routes != nil {
		for _, g := range d.routes.Gaps {
			gaps = append(gaps, audit.Gap{What: g.What + of, Why: g.Why})
		}
	}
	for _, g := range d.beside.gaps {
		g.What += of
		gaps = append(gaps, g)
	}
	return ns, gaps
}

// together says why programs could not be read; what was refused for want of
// privilege is said once for all of them.
func together(uid reader, errs []error) string {
	var refused, why []string
	for _, err := range errs {
		if errors.Is(err, unix.EPERM) {
			what, _, _ := strings.Cut(err.Error(), ":")
			refused = append(refused, what)
		} else {
			why = append(why, uid.explain(err, needBPF))
		}
	}
	if len(refused) > 0 {
		why = append(why, uid.explain(fmt.Errorf("%s: %w", strings.Join(refused, ", "), unix.EPERM), needBPF))
	}
	return strings.Join(why, "; ")
}

// replay decodes a recorded namespace.
func (r *reading) replay(ctx context.Context, c *Capture, host *answers, options Options) *decoded {
	d := &decoded{id: r.ID, name: string(r.Name), failed: maps.Clone(r.Failed)}
	own := recordedAnswers(r.Answers, c.order())
	missing := errors.New("not in the snapshot")
	part := func(name string, there bool, n need, decode func() error) {
		if d.failed[name] != "" {
			return
		}
		err := missing
		if there {
			err = decode()
		}
		if err != nil {
			d.fail(name, c.Reader.explain(err, n))
		}
	}
	part(partListeners, r.Listeners != nil, needNothing, func() (err error) {
		d.table, err = listeners.Read(ctx, r.Listeners.Play())
		return err
	})
	if d.table != nil && c.Owners != nil {
		c.Owners.Assign(d.table.Listeners)
	}
	if d.table != nil && r.Later != nil {
		if later, err := listeners.Read(ctx, r.Later.Play()); err == nil {
			d.table.MarkGone(later)
		}
	}
	if r.Apart {
		return d
	}
	part(partRoutes, r.Routes != nil, needNothing, func() (err error) {
		d.routes, err = route.Decode(r.Routes)
		return err
	})
	part(partFirewall, r.Firewall != nil, needAdmin, func() error {
		read, err := replayFirewall(ctx, r.Firewall, own, options.Ask)
		if err == nil {
			d.ruleset, d.partly = read.ruleset, read.partly
		}
		return err
	})
	part(partPrograms, true, needBPF, func() error {
		others := make([]other, 0, len(c.Others))
		for _, inode := range c.Others {
			others = append(others, other{inode: inode})
		}
		d.beside = readBeside(c.Reader, own, host, r.ID, groupsOf(d.table), others)
		return nil
	})
	return d
}
