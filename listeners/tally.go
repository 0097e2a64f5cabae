package listeners

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

const (
	keepDestinations = 32768
	keepSources      = 256 // 8 KiB each
	keepInodes       = 8
)

// address is an IPv6 or IPv4-mapped address as two big-endian words, which
// compare and hash faster than bytes.
type address [2]uint64

func addressOf(a netip.Addr) address {
	b := a.As16()
	return address{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
}

func (a address) netip() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], a[0])
	binary.BigEndian.PutUint64(b[8:], a[1])
	return netip.AddrFrom16(b).Unmap()
}

// destinationKey names a destination.
type destinationKey struct {
	from, to address
	port     uint16
}

// slot is where the key stands in the small cache before the map. Whoever
// chooses addresses to collide in it only makes us as slow as the map.
func (k *destinationKey) slot() uint32 {
	h := k.from[1] ^ k.to[1]*0x9e3779b97f4a7c15 ^ k.from[0] ^ k.to[0] ^ uint64(k.port)<<48
	h *= 0xbf58476d1ce4e5b9
	return uint32(h >> (64 - cacheBits))
}

const cacheBits = 10

type destinationCount struct {
	key                         destinationKey
	inUse, timeWait, connecting uint32
	established, lastHalf       uint32
	bound, noPort               uint32
	missed, apart, onBound      uint32
	inodes                      [keepInodes]uint32
	nInodes                     uint8
	source                      *PortSet // nil beyond keepSources
}

// tally counts the sockets of one protocol as they stream past: nothing is
// allocated for a socket, only for a new destination, and of those at most keep
// are held.
type tally struct {
	proto     Proto
	low, high uint16
	listening *PortSet
	reserved  *PortSet
	keep      int
	onBound   boundTally

	at      map[destinationKey]int32
	cache   [1 << cacheBits]int32 // index + 1 of the destination last seen in a slot
	counts  []destinationCount
	level   uint32 // an evicted or refused destination had at most this many
	evicted uint64

	sources     map[address]*PortSet
	moreSources map[address]struct{}

	sockets, outside uint64
	states           [16]uint64
	inbound          []InboundUse // by port, allocated when the first one comes
	// stalled are local ports of connections whose retransmission timer has run
	// out again and again, at most keepStalled.
	stalled []stallKey
}

func newTally(proto Proto, opt CensusOptions, reserved *PortSet) *tally {
	keep := opt.Keep
	if keep <= 0 {
		keep = keepDestinations
	}
	return &tally{
		proto: proto, low: opt.Settings.Low, high: opt.Settings.High, listening: opt.Table.BoundPorts(proto), reserved: reserved, keep: keep,
		at: map[destinationKey]int32{}, sources: map[address]*PortSet{}, moreSources: map[address]struct{}{},
	}
}

// datagram counts the records of one datagram of a dump, in this machine's byte
// order (a census is never replayed, its result is stored).
func (t *tally) datagram(b []byte) error {
	t.boundArrive()
	for len(b) > 0 {
		m, rest, err := sockdiag.NextNative(b)
		if err != nil {
			return err
		}
		b = rest
		if !m.IsRecord() {
			continue
		}
		if err := t.record(m.Payload); err != nil {
			return err
		}
	}
	return nil
}

// record counts one struct inet_diag_msg. It reads the fields where they lie:
// building a sockdiag.Header for a million sockets costs as much as the rest.
func (t *tally) record(p []byte) error {
	var key destinationKey
	if err := parseKey(p, &key); err != nil {
		return err
	}
	if p[2] == timerRetransmit && p[3] >= stalledFrom && len(t.stalled) < keepStalled {
		t.stall(p)
	}
	t.count(&key, sockdiag.State(p[1]), binary.BigEndian.Uint16(p[4:]), binary.NativeEndian.Uint32(p[68:]), p[sockdiag.RecordLen:])
	return nil
}

// parseKey reads the destination of a record into a zero key.
func parseKey(p []byte, key *destinationKey) error {
	if len(p) < sockdiag.RecordLen {
		return fmt.Errorf("socket record of %d bytes: %w", len(p), sockdiag.ErrTruncated)
	}
	p = p[:sockdiag.RecordLen]
	switch sockdiag.Family(p[0]) {
	case sockdiag.Inet4:
		key.from[1] = 0xffff<<32 | uint64(binary.BigEndian.Uint32(p[8:]))
		key.to[1] = 0xffff<<32 | uint64(binary.BigEndian.Uint32(p[24:]))
	case sockdiag.Inet6:
		key.from = address{binary.BigEndian.Uint64(p[8:]), binary.BigEndian.Uint64(p[16:])}
		key.to = address{binary.BigEndian.Uint64(p[24:]), binary.BigEndian.Uint64(p[32:])}
	default:
		return fmt.Errorf("socket record of address family %d", p[0])
	}
	key.port = binary.BigEndian.Uint16(p[6:])
	return nil
}

func (t *tally) count(key *destinationKey, state sockdiag.State, port uint16, inode uint32, attrs []byte) {
	t.sockets++
	t.states[state&15]++
	if t.proto == TCP {
		if t.listening.Has(port) {
			t.countInbound(port, state)
			return
		}
		if state == sockdiag.SynRecv {
			return // inbound, its listener just gone
		}
	}
	if port < t.low || port > t.high {
		t.outside++
		return
	}
	d := t.destination(key)
	if d == nil {
		return
	}
	d.inUse++
	if t.reserved.Has(port) {
		d.apart++
	}
	t.countOnBound(d, port)
	switch state {
	case sockdiag.TimeWait:
		d.timeWait++
	case sockdiag.Established:
		d.established++
	case sockdiag.SynSent:
		d.connecting++
	}
	if (port-t.low)%2 != 0 {
		d.lastHalf++
	}
	if d.source != nil {
		d.source.Add(port)
	}
	if inode != 0 {
		if d.nInodes < keepInodes {
			d.inodes[d.nInodes] = inode
			d.nInodes++
		}
		if noPort(attrs) {
			d.noPort++
		}
	}
}

func (t *tally) countInbound(port uint16, state sockdiag.State) {
	if t.inbound == nil {
		t.inbound = make([]InboundUse, 1<<16)
	}
	in := &t.inbound[port]
	in.Port = port
	in.Sockets++
	switch state {
	case sockdiag.TimeWait:
		in.TimeWait++
	case sockdiag.SynRecv:
		in.HalfOpen++
	}
}

// destination finds or makes the entry of a key.
func (t *tally) destination(key *destinationKey) *destinationCount {
	slot := key.slot()
	if i := t.cache[slot]; i > 0 && int(i) <= len(t.counts) && t.counts[i-1].key == *key {
		return &t.counts[i-1]
	}
	if i, ok := t.at[*key]; ok {
		t.cache[slot] = i + 1
		return &t.counts[i]
	}
	if len(t.counts) >= t.keep {
		t.evict()
	}
	t.at[*key] = int32(len(t.counts))
	t.counts = append(t.counts, destinationCount{key: *key, missed: t.level, source: t.source(key.from)})
	return &t.counts[len(t.counts)-1]
}

// evict makes room by forgetting the quieter half of the destinations. What is
// forgotten may come again; a later entry of the same key then lacks at most
// level (lossy counting). A destination with more than that is never lost.
func (t *tally) evict() {
	bounds := make([]uint32, len(t.counts))
	for i := range t.counts {
		bounds[i] = t.counts[i].inUse + t.counts[i].missed
	}
	t.onBound.lose() // the places of destinations change
	slices.Sort(bounds)
	t.level = max(t.level, bounds[len(bounds)/2])
	kept := t.counts[:0]
	clear(t.at)
	for _, d := range t.counts {
		if d.inUse+d.missed <= t.level {
			t.evicted++
			continue
		}
		t.at[d.key] = int32(len(kept))
		kept = append(kept, d)
	}
	clear(t.counts[len(kept):])
	t.counts = kept
}

func (t *tally) source(from address) *PortSet {
	if s, ok := t.sources[from]; ok {
		return s
	}
	if len(t.sources) < keepSources {
		s := new(PortSet)
		t.sources[from] = s
		return s
	}
	if len(t.moreSources) < keepDestinations {
		t.moreSources[from] = struct{}{}
	}
	return nil
}

// noPort finds IP_BIND_ADDRESS_NO_PORT in INET_DIAG_SOCKOPT (second byte, first
// bit field).
func noPort(attrs []byte) bool {
	const attrSockOpt = 22
	for len(attrs) >= 4 {
		n := int(binary.NativeEndian.Uint16(attrs))
		if n < 4 || n > len(attrs) {
			return false
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == attrSockOpt && n >= 6 {
			if nativeIsBig() {
				return attrs[5]&0x80 != 0
			}
			return attrs[5]&1 != 0
		}
		attrs = attrs[min((n+3)&^3, len(attrs)):]
	}
	return false
}

// readTCP streams all TCP sockets but listeners, of both families in one walk
// where the kernel can.
func (t *tally) readTCP(ctx context.Context, src Source) error {
	err := src.Dump(ctx, sockdiag.Query{Family: sockdiag.AnyFamily, Protocol: sockdiag.TCP, States: sockdiag.AllTCP}, t.datagram)
	if err == nil || errors.Is(err, sockdiag.ErrInterrupted) || ctx.Err() != nil || t.sockets > 0 {
		return err
	}
	return t.families(ctx, src, sockdiag.Query{Protocol: sockdiag.TCP, States: sockdiag.AllTCP}, "tcp", "tcp6")
}

// readUDP streams connected and unconnected sockets: both hold their port.
func (t *tally) readUDP(ctx context.Context, src Source) error {
	return t.families(ctx, src, sockdiag.Query{Protocol: sockdiag.UDP, States: sockdiag.Mask(sockdiag.Established, sockdiag.Close)}, "udp", "udp6")
}

// families streams the sockets of one family after the other, from the text tables
// named where the kernel refuses and nothing came so far.
func (t *tally) families(ctx context.Context, src Source, q sockdiag.Query, tables ...string) error {
	for _, q.Family = range []sockdiag.Family{sockdiag.Inet4, sockdiag.Inet6} {
		if err := src.Dump(ctx, q, t.datagram); err != nil {
			if q.Family == sockdiag.Inet6 && errors.Is(err, sockdiag.ErrUnsupported) {
				return nil
			}
			if t.sockets > 0 {
				return err
			}
			return t.fallback(ctx, src, err, tables...)
		}
	}
	return nil
}

// lineSource is a Source that can stream a text table.
type lineSource interface {
	NetLines(ctx context.Context, name string, each func(line []byte) error) error
}

// fallback counts from the text tables.
func (t *tally) fallback(ctx context.Context, src Source, why error, names ...string) error {
	lines, ok := src.(lineSource)
	if !ok {
		return why
	}
	for i, name := range names {
		err := lines.NetLines(ctx, name, func(line []byte) error {
			row, err := parseNetRow(line, t.proto.Datagram(), binary.NativeEndian)
			if err != nil {
				return fmt.Errorf("parse /proc/net/%s: %w", name, err)
			}
			if t.proto == TCP && (row.state == sockdiag.Listen || row.state == sockdiag.Close) {
				return nil
			}
			key := destinationKey{addressOf(row.local.Addr()), addressOf(row.remote.Addr()), row.remote.Port()}
			t.count(&key, row.state, row.local.Port(), row.inode, nil)
			return nil
		})
		if err != nil && (i == 0 || !gone(err)) {
			return errors.Join(why, err)
		}
	}
	return nil
}

// boundPorts are the sockets bound to a port by number.
type boundPorts struct {
	ports PortSet
	by    map[destinationKey]uint32 // those within the range
	err   error
}

// readBound finds the sockets bound to a port by number. TIME_WAIT is left out of
// the walk: nothing there could match.
func readBound(ctx context.Context, src Source, low, high uint16) *boundPorts {
	out := &boundPorts{by: map[destinationKey]uint32{}}
	q := sockdiag.Query{Family: sockdiag.AnyFamily, Protocol: sockdiag.TCP, States: sockdiag.AllTCP &^ sockdiag.Mask(sockdiag.TimeWait, sockdiag.SynRecv), BoundPort: true}
	out.err = eachSocket(ctx, src, q, func(key *destinationKey, port uint16) error {
		out.ports.Add(port)
		if port < low || port > high {
			return nil
		}
		if _, known := out.by[*key]; !known && len(out.by) >= keepDestinations {
			return errManyBound
		}
		out.by[*key]++
		return nil
	})
	return out
}

// eachSocket gives the destination and the local port of each socket of a dump.
func eachSocket(ctx context.Context, src Source, q sockdiag.Query, f func(key *destinationKey, port uint16) error) error {
	var key destinationKey // one for all: it leaves for the heap
	return src.Dump(ctx, q, func(b []byte) error {
		for len(b) > 0 {
			m, rest, err := sockdiag.NextNative(b)
			if err != nil {
				return err
			}
			b = rest
			if !m.IsRecord() {
				continue
			}
			key = destinationKey{}
			if err := parseKey(m.Payload, &key); err != nil {
				return err
			}
			if err := f(&key, binary.BigEndian.Uint16(m.Payload[4:])); err != nil {
				return err
			}
		}
		return nil
	})
}

// errManyBound keeps the memory constant on a host that binds towards more
// destinations than are ever counted.
var errManyBound = fmt.Errorf("sockets bound by number go to more than %d destinations", keepDestinations)

// addBound notes how many sockets of each destination were bound by number.
func (t *tally) addBound(b *boundPorts) {
	for key, n := range b.by {
		if i, ok := t.at[key]; ok {
			t.counts[i].bound += n
		}
	}
}

// busiest is the largest share of the range that one source address uses.
func (t *tally) busiest() float64 {
	most := 0
	for _, ports := range t.sources {
		most = max(most, ports.Count())
	}
	return float64(most) / float64(int(t.high)-int(t.low)+1)
}

// result adds the counts to the census. Until the list is cut only what can
// get into it is copied: the order is by share, so by count. gone are usable ports
// that are bound by number, for every destination.
func (t *tally) result(c *Census, room HeadRoom, gone int) {
	c.Sockets += t.sockets
	c.Evicted += t.evicted
	if t.proto == TCP {
		c.Outside = t.outside
	}
	share := func(n int) float64 {
		if room.Usable == 0 {
			return 1
		}
		return min(1, float64(n)/float64(room.Usable)) // sockets may come while they are counted
	}
	for i := range t.counts {
		d := &t.counts[i]
		if t.proto == UDP && d.key.port == 0 {
			continue // unconnected: counts for its source only
		}
		c.Destinations = append(c.Destinations, Destination{
			Proto: t.proto, From: d.key.from.netip(), To: d.key.to.netip(), Port: d.key.port,
			InUse: d.inUse, TimeWait: d.timeWait, Established: d.established, Connecting: d.connecting, Missed: d.missed,
			Share: share(int(d.inUse-d.apart) + gone), Apart: d.apart, LastHalf: d.lastHalf, Bound: d.bound, NoPort: d.noPort,
			Inodes: slices.Clone(d.inodes[:d.nInodes]),
		})
	}
	for from, ports := range t.sources {
		for i := range ports {
			ports[i] &^= t.reserved[i]
		}
		if n := ports.Count(); n > 0 {
			c.Sources = append(c.Sources, SourceUse{Proto: t.proto, From: from.netip(), Ports: n, Share: share(n), LastHalf: ports.countFrom(t.low + 1)})
		}
	}
	c.MoreSources += len(t.moreSources)
	for _, in := range t.inbound {
		if in.Sockets > 0 {
			c.Inbound = append(c.Inbound, in)
		}
	}
}

// isHeading tells the first line of a text table.
func isHeading(line []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(line), []byte("sl ")) }
