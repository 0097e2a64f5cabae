package listeners

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

// boundTally counts, for each destination, the sockets on ports that somebody bound by
// number, while it is still being found out which ports those are. Until then it
// remembers destination and port of what goes past, in four bytes a socket.
type boundTally struct {
	wanted bool
	// look begins to look for them, as soon as so many sockets were seen that a source
	// may use as many ports.
	look  func()
	from  int
	found atomic.Pointer[PortSet] // from whoever looks for them
	ports *PortSet                // found, less those that count otherwise
	early [][]uint32              // place of the destination << 16 | port
	n     int
	lost  bool // too many were early, or their destinations were forgotten
}

const (
	earlyChunk = 1 << 16
	maxEarly   = 16 // chunks: a million sockets
)

// lose gives up: the sockets have to be walked through once more.
func (b *boundTally) lose() { b.early, b.lost = nil, true }

// find finds the sockets bound by number, and hands their ports over.
func (b *boundTally) find(ctx context.Context, src Source, s PortSettings) *boundPorts {
	found := readBound(ctx, src, s.Low, s.High)
	if found.err == nil {
		b.found.Store(&found.ports)
	}
	return found
}

// countOnBound counts a socket, or remembers it.
func (t *tally) countOnBound(d *destinationCount, port uint16) {
	b := &t.onBound
	switch {
	case !b.wanted || b.lost:
	case b.ports != nil:
		if b.ports.Has(port) {
			d.onBound++
		}
	default:
		place := t.placeOf(d)
		if place >= 1<<16 || b.n == maxEarly*earlyChunk {
			b.lose()
			return
		}
		if b.n%earlyChunk == 0 {
			b.early = append(b.early, make([]uint32, 0, 256))
		}
		last := &b.early[len(b.early)-1]
		*last = append(*last, uint32(place)<<16|uint32(port))
		b.n++
	}
}

// placeOf is the index of a destination in t.counts.
func (t *tally) placeOf(d *destinationCount) int {
	if i := t.cache[d.key.slot()]; i > 0 && int(i) <= len(t.counts) && &t.counts[i-1] == d {
		return int(i - 1)
	}
	return int(t.at[d.key])
}

// boundArrive has the ports looked for in time, and takes them up once they are found.
func (t *tally) boundArrive() {
	b := &t.onBound
	if b.look != nil && b.n >= b.from {
		b.look()
		b.look = nil
	}
	if !b.wanted || b.ports != nil || b.lost {
		return
	}
	found := b.found.Load()
	if found == nil {
		return
	}
	b.ports = t.apartOf(found)
	for _, chunk := range b.early {
		for _, e := range chunk {
			if b.ports.Has(uint16(e)) {
				t.counts[e>>16].onBound++
			}
		}
	}
	b.early = nil
}

// apartOf are the ports of the range that were bound by number and count for nothing
// else. Where they are next to none it makes no difference, and there are none.
func (t *tally) apartOf(bound *PortSet) *PortSet {
	apart, n := *bound, 0
	for port := int(t.low); port <= int(t.high); port++ {
		if p := uint16(port); bound.Has(p) && !t.reserved.Has(p) && !t.listening.Has(p) {
			n++
		} else {
			apart.remove(p)
		}
	}
	const few = 200 // parts of the range
	if n*few < int(t.high)-int(t.low)+1 {
		return &PortSet{}
	}
	return &apart
}

// recount finds out how many sockets of each destination are on ports that somebody
// bound by number. Where that was not counted as they went past it takes one walk
// more.
func (t *tally) recount(ctx context.Context, src Source, bound *PortSet) error {
	t.boundArrive()
	if t.onBound.ports != nil && !t.onBound.lost {
		for i := range t.counts {
			d := &t.counts[i]
			d.apart = min(d.apart+d.onBound, d.inUse)
		}
		return nil
	}
	apart := t.apartOf(bound)
	if apart.empty() {
		return nil
	}
	counted := make([]uint32, len(t.counts))
	q := sockdiag.Query{Family: sockdiag.AnyFamily, Protocol: sockdiag.TCP, States: sockdiag.AllTCP &^ sockdiag.Mask(sockdiag.SynRecv)}
	err := eachSocket(ctx, src, q, func(key *destinationKey, port uint16) error {
		if port < t.low || port > t.high || !apart.Has(port) {
			return nil
		}
		if i, ok := t.at[*key]; ok {
			counted[i]++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("count sockets on ports bound by number: %w", err)
	}
	for i, n := range counted {
		t.counts[i].apart = min(t.counts[i].apart+n, t.counts[i].inUse)
	}
	return nil
}
