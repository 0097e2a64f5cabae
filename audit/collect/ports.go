package collect

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// portKeys are the settings that decide which remedies fit.
var portKeys = []sysctl.Key{
	"net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_unprivileged_port_start",
	"net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_tw_reuse_delay", "net.ipv4.tcp_timestamps",
}

// Ports reads what [audit.Ports] answers from and nothing else of the host: the
// listeners, the census of local ports, the processes behind the busiest
// destinations, and the settings. It is made to be called again and again.
func Ports(ctx context.Context, o Options) (*audit.Snapshot, error) {
	o.Quick, o.NoCensus = true, false
	if o.BoundFrom == 0 {
		o.BoundFrom = 0.01 // whoever asks for the ports wants to know, but for next to none
	}
	o = o.withDefaults()
	inode, err := threadNamespace()
	if err != nil {
		return nil, err
	}
	handle, err := (listeners.Namespace{Inode: inode, Own: true}).Open("")
	if err == nil {
		defer handle.Close()
	}
	c := &collection{o: o, uid: self(), host: liveAnswers(false), homeFD: -1, clock: clock{progress: o.Progress}, snapshot: &audit.Snapshot{}}
	c.home = c.visit(inode, "", handle)
	c.meta(ctx)
	c.snapshot.Meta.FirstNS, c.snapshot.Meta.NSUnknown = first(inode)
	values, err := timed(ctx, &c.clock, "sysctls", o.Limit, c.home.place, func(ctx context.Context) (sysctl.Values, error) {
		return sysctl.ReadValues(ctx, sysctl.ProcSys, portKeys)
	})
	if err != nil {
		c.gap(audit.Gap{What: "sysctls", Why: c.uid.explain(err, needNothing)})
	}
	c.snapshot.Sysctls = values
	if c.sockets(ctx, c.home) == nil {
		// One owner of each socket is enough here.
		find := prepareOwners(listeners.OwnerOptions{Root: o.Root, FirstOnly: true, Ahead: true})
		c.census(ctx)
		c.destinationOwners(ctx, find)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read the ports: %w", err)
	}
	c.snapshot.Timings = c.timings
	assemble(c.snapshot, c.uid, []*decoded{&c.home.decoded}, c.gaps)
	return c.snapshot, nil
}

// destinationOwners names the processes behind the busiest destinations.
func (c *collection) destinationOwners(ctx context.Context, find ownersOf) {
	census := c.snapshot.Census
	var inodes []uint32
	if census != nil {
		inodes = census.SampleInodes(censusOwners)
	}
	o, err := timed(ctx, &c.clock, "owners", c.o.Limit, nil, func(ctx context.Context) (*listeners.Owners, error) {
		return find(ctx, inodes)
	})
	if census == nil {
		return
	}
	if err != nil {
		c.gap(audit.Gap{What: "owners of the sockets", Why: c.uid.explain(err, needOwners)})
		return
	}
	census.AssignOwners(o, censusOwners)
	for _, g := range o.Gaps {
		gap := audit.Gap{What: g.What, Why: g.Why, Minor: true}
		if o.Refused() && g.What != "user names" {
			gap.Why, gap.Minor = c.uid.explain(deniedError{g.Why}, needOwners), !census.Unowned()
		}
		c.gap(gap)
	}
}

// first tells whether a network namespace is that of process 1 of the machine.
func first(inode uint64) (is, unknown bool) {
	const initialPIDNS = 0xEFFFFFFC // PROC_PID_INIT_INO; elsewhere process 1 is a container's
	var pid, net unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &pid) != nil || pid.Ino != initialPIDNS || unix.Stat("/proc/1/ns/net", &net) != nil {
		return false, true
	}
	return net.Ino == inode, false
}
