package listeners

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

// Census is how the local ports of a namespace are used. It is an aggregate,
// made while the sockets stream past in constant memory; under traffic it is as
// exact as any count of moving things.
type Census struct {
	NetNS    uint64       `json:"netns"`
	Settings PortSettings `json:"settings"`
	// HeadRoom by protocol ("tcp", "udp").
	HeadRoom map[Proto]HeadRoom `json:"head_room"`
	// Sockets counts all that were seen, States the TCP ones by state. A closed
	// connection in FIN_WAIT_2 that only a timer keeps counts as fin-wait-2.
	Sockets uint64            `json:"sockets"`
	States  map[string]uint64 `json:"states"`
	// Destinations, busiest first. Only local ports within the range and without
	// a listener count: those a connect(2) competes for.
	Destinations []Destination `json:"destinations"`
	// More counts destinations that were seen but are not in the list.
	More int `json:"more,omitempty"`
	// Evicted is not 0 where there were more destinations than could be kept:
	// then a destination may have up to Destination.Missed more ports.
	Evicted uint64 `json:"evicted,omitempty"`
	// Sources, busiest first: distinct local ports by source address over all
	// destinations, reserved ones left out. It is the measure for sockets bound before they connect, and
	// for UDP, where a port serves one socket whatever its destination.
	Sources     []SourceUse `json:"sources"`
	MoreSources int         `json:"more_sources,omitempty"`
	// Inbound counts accepted connections by listening port, busiest first.
	Inbound []InboundUse `json:"inbound"`
	// Outside counts TCP connections whose local port is neither in the range nor
	// listened on: bound by number, or their listener is gone.
	Outside uint64 `json:"outside"`
	// BoundKnown: Destination.Bound was looked for. BoundPorts are the usable ports
	// that sockets are bound to by number: connect(2) passes over them.
	BoundKnown bool `json:"bound_known"`
	BoundPorts int  `json:"bound_ports,omitempty"`
	// Stalled are connections whose oldest segment was sent again and again without
	// an acknowledgement, at most 64.
	Stalled []Connection `json:"stalled,omitempty"`
	Gaps    []Gap        `json:"gaps,omitempty"`
}

// Destination is the use of local ports towards one (address, port) from one
// source address. IPv4-mapped addresses count as IPv4, whose ports they share.
type Destination struct {
	Proto Proto      `json:"proto"`
	From  netip.Addr `json:"from"`
	To    netip.Addr `json:"to"`
	Port  uint16     `json:"port"`
	// InUse are all states together, TimeWait those of them in TIME_WAIT.
	InUse       uint32 `json:"in_use"`
	TimeWait    uint32 `json:"time_wait"`
	Established uint32 `json:"established"`
	Connecting  uint32 `json:"connecting"` // SYN_SENT
	// Missed bounds what the count may lack (see Census.Evicted).
	Missed uint32 `json:"missed,omitempty"`
	// Share of the usable ports; LastHalf are the ports in use that connect(2)
	// tries last. Many of those while the first half has room were not chosen by
	// connect(2) but by bind(2) to port 0, which prefers them: a hint, no proof.
	Share    float64 `json:"share"`
	LastHalf uint32  `json:"last_half"`
	// Apart counts its sockets on ports that no connect(2) could have any more:
	// reserved since, or bound by number. Those bound by number by whomever are
	// missing towards every destination (Census.BoundPorts): Share counts them once.
	Apart uint32 `json:"apart,omitempty"`
	// Bound counts sockets whose port was given to bind(2) by number, NoPort those
	// with IP_BIND_ADDRESS_NO_PORT. The kernel tells neither of TIME_WAIT, and it
	// does not tell bind(2) to port 0 from connect(2).
	Bound  uint32 `json:"bound,omitempty"`
	NoPort uint32 `json:"no_port,omitempty"`
	// Inodes are a sample of its sockets, for the search for owners. TIME_WAIT has
	// none: the kernel has forgotten the process.
	Inodes  []uint32     `json:"inodes,omitempty"`
	Owners  []OwnerShare `json:"owners,omitempty"`
	Unowned Unowned      `json:"unowned,omitempty"`
}

// Held are the ports that connect(2) took for the destination from those that were
// not bound by number.
func (d *Destination) Held() uint32 { return d.InUse - min(d.Apart, d.InUse) }

// ForConnect is how many ports connect(2) has for a destination that nothing uses.
func (c *Census) ForConnect(proto Proto) int {
	usable := c.HeadRoom[proto].Usable
	if proto == TCP {
		usable -= min(c.BoundPorts, usable)
	}
	return usable
}

// OwnerShare is a process and how many of the sampled sockets it holds.
type OwnerShare struct {
	Process Process `json:"process"`
	Sampled int     `json:"sampled"`
}

// OnlyTimeWait is the reason of a destination without open sockets.
const OnlyTimeWait Unowned = "only-time-wait"

// SourceUse is the number of distinct ports in the range used from one address.
type SourceUse struct {
	Proto Proto      `json:"proto"`
	From  netip.Addr `json:"from"`
	Ports int        `json:"ports"`
	Share float64    `json:"share"`
	// LastHalf are those of Ports that connect(2) tries last and bind(2) to port 0
	// first. Together with Destination.LastHalf it tells the two apart where no
	// destination has used up the first half by itself.
	LastHalf int `json:"last_half"`
}

// InboundUse counts the accepted connections of a listening port. TIME_WAIT
// costs memory there, no ports. HalfOpen is its SYN queue.
type InboundUse struct {
	Port     uint16 `json:"port"`
	Sockets  uint32 `json:"sockets"`
	TimeWait uint32 `json:"time_wait"`
	HalfOpen uint32 `json:"half_open"`
}

// CensusOptions steer [ReadCensus].
type CensusOptions struct {
	Settings PortSettings
	// Table holds the listeners of the same namespace.
	Table *Table
	// Bound looks for ports bound by number as well, at the price of a second walk
	// of all sockets but TIME_WAIT. It is made only where a source address uses
	// more than BoundFrom of the ports.
	Bound     bool
	BoundFrom float64
	// Beside asks about the same namespace over a socket of its own. With it the
	// second walk goes on beside the first. May be nil.
	Beside Source
	// Top is how many destinations are listed, 0 means 100; sources and inbound
	// ports likewise.
	Top int
	// Keep is how many destinations are counted at once, 0 means 32,768.
	Keep int
}

// ReadCensus counts the sockets of the namespace that src asks about.
func ReadCensus(ctx context.Context, src Source, opt CensusOptions) (*Census, error) {
	if opt.Top <= 0 {
		opt.Top = 100
	}
	if opt.Table == nil {
		return nil, errors.New("census of local ports: the listeners are needed to tell inbound from outbound")
	}
	if !opt.Settings.Valid() {
		return nil, errors.New("census of local ports: no port range")
	}
	c := &Census{NetNS: src.NetNS(), Settings: opt.Settings, HeadRoom: map[Proto]HeadRoom{}, States: map[string]uint64{}}
	reserved, err := ParsePortSet(opt.Settings.Reserved)
	if err != nil {
		return nil, fmt.Errorf("census of local ports: %w", err)
	}
	tcp := newTally(TCP, opt, reserved)
	var early sync.WaitGroup
	var found *boundPorts
	if opt.Bound && opt.Beside != nil {
		tcp.onBound.wanted = true
		tcp.onBound.from = int(opt.BoundFrom * float64(int(opt.Settings.High)-int(opt.Settings.Low)+1))
		tcp.onBound.look = func() {
			early.Go(func() { found = tcp.onBound.find(ctx, opt.Beside, opt.Settings) })
		}
	}
	defer early.Wait() // it reads what the caller closes
	if err := tcp.readTCP(ctx, src); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("census of local ports: %w", err)
		}
		c.Gaps = append(c.Gaps, Gap{What: "ports: tcp", Why: err.Error()})
	}
	if c.Stalled, err = tcp.readStalled(ctx, src); err != nil {
		c.Gaps = append(c.Gaps, Gap{What: "ports: stalled connections", Why: err.Error()})
	}
	var bound *PortSet
	tcp.onBound.look = nil
	early.Wait()
	if opt.Bound && tcp.busiest() >= opt.BoundFrom {
		if found == nil {
			found = tcp.onBound.find(ctx, src, opt.Settings)
		}
		bound = &found.ports
		tcp.addBound(found)
		if found.err != nil {
			c.Gaps = append(c.Gaps, Gap{What: "ports: bound by number", Why: found.err.Error()})
		} else {
			c.BoundKnown = true
		}
		if err := tcp.recount(ctx, src, bound); err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("census of local ports: %w", err)
			}
			c.Gaps = append(c.Gaps, Gap{What: "ports: those bound by number, by destination", Why: err.Error()})
		}
	}
	udp := newTally(UDP, opt, reserved)
	if err := udp.readUDP(ctx, src); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("census of local ports: %w", err)
		}
		c.Gaps = append(c.Gaps, Gap{What: "ports: udp", Why: err.Error()})
	}
	for state, n := range tcp.states {
		if n > 0 {
			c.States[sockdiag.State(state).String()] += n
		}
	}
	for _, t := range []*tally{tcp, udp} {
		taken := *opt.Table.BoundPorts(t.proto)
		if t.proto == UDP {
			taken = PortSet{} // unconnected sockets are part of the use, not apart from it
		}
		room, err := opt.Settings.HeadRoom(&taken)
		if err != nil {
			return nil, err
		}
		c.HeadRoom[t.proto] = room
		gone := 0
		if t.proto == TCP && bound != nil {
			for i := range taken {
				taken[i] |= bound[i]
			}
			less, err := opt.Settings.HeadRoom(&taken)
			if err != nil {
				return nil, err
			}
			gone = room.Usable - less.Usable
			c.BoundPorts = gone
		}
		t.result(c, room, gone)
	}
	c.sort(opt.Top)
	return c, nil
}

func (c *Census) sort(top int) {
	slices.SortFunc(c.Destinations, func(a, b Destination) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(b.InUse, a.InUse), cmp.Compare(a.Proto, b.Proto),
			a.From.Compare(b.From), a.To.Compare(b.To), cmp.Compare(a.Port, b.Port))
	})
	slices.SortFunc(c.Sources, func(a, b SourceUse) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(b.Ports, a.Ports), cmp.Compare(a.Proto, b.Proto), a.From.Compare(b.From))
	})
	slices.SortFunc(c.Inbound, func(a, b InboundUse) int {
		return cmp.Or(cmp.Compare(b.Sockets, a.Sockets), cmp.Compare(a.Port, b.Port))
	})
	if len(c.Destinations) > top {
		c.More += len(c.Destinations) - top
		c.Destinations = slices.Clip(c.Destinations[:top])
	}
	if len(c.Sources) > top {
		c.MoreSources += len(c.Sources) - top
		c.Sources = slices.Clip(c.Sources[:top])
	}
	if len(c.Inbound) > top {
		c.Inbound = slices.Clip(c.Inbound[:top])
	}
}

// SampleInodes gives the sampled sockets of the n busiest destinations, for
// [ReadOwners].
func (c *Census) SampleInodes(n int) []uint32 {
	var out []uint32
	for i := range c.Destinations[:min(n, len(c.Destinations))] {
		out = append(out, c.Destinations[i].Inodes...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// AssignOwners names the processes behind the n busiest destinations.
func (c *Census) AssignOwners(o *Owners, n int) {
	for i := range c.Destinations[:min(n, len(c.Destinations))] {
		d := &c.Destinations[i]
		d.Owners, d.Unowned = nil, ""
		count := map[int]int{}
		for _, ino := range d.Inodes {
			for _, at := range o.Holders[ino] {
				count[at]++
			}
		}
		for at, sampled := range count {
			if at >= 0 && at < len(o.Processes) {
				d.Owners = append(d.Owners, OwnerShare{o.Processes[at], sampled})
			}
		}
		slices.SortFunc(d.Owners, func(a, b OwnerShare) int {
			return cmp.Or(cmp.Compare(b.Sampled, a.Sampled), cmp.Compare(a.Process.PID, b.Process.PID))
		})
		switch {
		case len(d.Owners) > 0:
		case len(d.Inodes) == 0:
			d.Unowned = OnlyTimeWait
		default:
			d.Unowned = o.why()
			if d.Unowned == KernelSocket {
				d.Unowned = Gone // connections come and go; the kernel rarely connects
			}
		}
	}
}

// Unowned tells that a destination lacks its process because this user may not
// look into all of them.
func (c *Census) Unowned() bool {
	return slices.ContainsFunc(c.Destinations, func(d Destination) bool { return d.Unowned == NoPrivilege })
}
