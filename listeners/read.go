package listeners

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

// Table is every listening socket of one network namespace.
type Table struct {
	NetNS     uint64     `json:"netns"`
	Listeners []Listener `json:"listeners"`
	// Fallbacks names the protocols read from /proc instead of sock_diag, and why.
	Fallbacks []Gap `json:"fallbacks,omitempty"`
	Gaps      []Gap `json:"gaps,omitempty"`
}

// Inodes gives the inodes of all listeners, for [ReadOwners].
func (t *Table) Inodes() []uint32 {
	var out []uint32
	for i := range t.Listeners {
		if ino := t.Listeners[i].Inode; ino != 0 {
			out = append(out, ino)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// plan is what is asked about one protocol.
type plan struct {
	proto  sockdiag.Protocol
	states sockdiag.States
	// listed are the names in /proc/net/protocols; where none is listed the kernel
	// cannot have such a socket, and must not be made to load a module by asking.
	listed []string
	files  []string // fallback below /proc/net
}

var plans = []plan{
	{sockdiag.TCP, sockdiag.Mask(sockdiag.Listen), []string{"TCP", "TCPv6"}, []string{"tcp", "tcp6"}},
	{sockdiag.MPTCP, sockdiag.Mask(sockdiag.Listen), []string{"MPTCP", "MPTCPv6"}, nil},
	{sockdiag.UDP, sockdiag.Mask(sockdiag.Close), []string{"UDP", "UDPv6"}, []string{"udp", "udp6"}},
	{sockdiag.UDPLite, sockdiag.Mask(sockdiag.Close), []string{"UDP-Lite", "UDPLITEv6"}, []string{"udplite", "udplite6"}},
	{sockdiag.SCTP, sockdiag.Mask(sockdiag.Listen), []string{"SCTP", "SCTPv6"}, []string{"sctp/eps"}},
	{sockdiag.DCCP, sockdiag.Mask(sockdiag.Listen), []string{"DCCP", "DCCPv6"}, nil},
	{sockdiag.Raw, sockdiag.Mask(sockdiag.Close), []string{"RAW", "RAWv6"}, []string{"raw", "raw6"}},
}

// Read reads the listening sockets of a namespace, without owners. What could
// not be read is in Gaps; the error is for a deadline that passed.
func Read(ctx context.Context, src Source) (*Table, error) {
	r := reader{src: src, order: orderOf(src), table: &Table{NetNS: src.NetNS()}}
	r.protocols(ctx)
	for _, p := range plans {
		if err := ctx.Err(); err != nil {
			return r.table, fmt.Errorf("read listeners: %w", err)
		}
		r.read(ctx, p)
	}
	r.finish()
	return r.table, ctx.Err()
}

type reader struct {
	src    Source
	order  binary.ByteOrder
	table  *Table
	counts map[string]int // of /proc/net/protocols; nil if not readable
}

func (r *reader) gap(what string, err error) {
	r.table.Gaps = append(r.table.Gaps, Gap{What: what, Why: err.Error()})
}

func (r *reader) protocols(ctx context.Context) {
	b, err := r.src.NetFile(ctx, "protocols")
	if err == nil {
		r.counts, err = parseProtocols(b)
	}
	if err != nil {
		r.counts = nil // then everything is asked for; nothing is lost by not knowing
	}
}

// inUse counts the sockets of a protocol in this namespace; -1 is not known.
// Absent protocols have none.
func (r *reader) inUse(p plan) int {
	if r.counts == nil {
		return -1
	}
	n := 0
	for _, name := range p.listed {
		n += r.counts[name]
	}
	return n
}

// countsMPTCP: since Linux 5.17 /proc/net/protocols counts MPTCP listeners
// (mptcp_listen), so that a count of none spares two walks of every listener.
func countsMPTCP(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 5 || major == 5 && minor >= 17
}

func (r *reader) absent(p plan) bool {
	if r.counts == nil {
		return false
	}
	return !slices.ContainsFunc(p.listed, func(name string) bool { _, ok := r.counts[name]; return ok })
}

func (r *reader) read(ctx context.Context, p plan) {
	if r.absent(p) || p.proto == sockdiag.MPTCP && r.inUse(p) == 0 && countsMPTCP(r.src.Kernel()) {
		return
	}
	proto := protoOf[p.proto]
	var socks []Socket
	var err error
	for _, family := range []sockdiag.Family{sockdiag.Inet4, sockdiag.Inet6} {
		var s []Socket
		s, err = r.diag(ctx, sockdiag.Query{Family: family, Protocol: p.proto, States: p.states, Want: sockdiag.WantSKMemInfo})
		socks = append(socks, s...)
		if family == sockdiag.Inet6 && errors.Is(err, sockdiag.ErrUnsupported) && len(socks) > 0 {
			err = nil // a kernel without IPv6
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		r.add(socks)
		return
	}
	if ctx.Err() != nil {
		return
	}
	if errors.Is(err, sockdiag.ErrUnsupported) && r.inUse(p) == 0 {
		return // cannot be asked, and the kernel counts none
	}
	if p.proto == sockdiag.MPTCP && errors.Is(err, sockdiag.ErrUnsupported) {
		// Their TCP half is in the TCP list; only the mark "mptcp" is lost.
		r.gap("listeners: mptcp shown as tcp", err)
		return
	}
	if len(p.files) == 0 {
		r.gap("listeners: "+string(proto), err)
		return
	}
	fromProc, procErr := r.procFiles(ctx, proto, p)
	if procErr != nil {
		r.gap("listeners: "+string(proto), errors.Join(err, procErr))
		r.add(socks) // what did come is true
		return
	}
	r.table.Fallbacks = append(r.table.Fallbacks, Gap{What: string(proto), Why: err.Error()})
	r.add(merge(socks, fromProc))
}

// merge prefers what sock_diag told over what /proc told of the same socket.
func merge(diag, proc []Socket) []Socket {
	type id struct {
		proto Proto
		inode uint32
	}
	have := map[id]bool{}
	for _, s := range diag {
		have[id{s.Proto, s.Inode}] = true
	}
	for _, s := range proc {
		if s.Inode == 0 || !have[id{s.Proto, s.Inode}] {
			diag = append(diag, s)
		}
	}
	return diag
}

func (r *reader) add(socks []Socket) {
	r.table.Listeners = slices.Grow(r.table.Listeners, len(socks))
	for _, s := range socks {
		r.table.Listeners = append(r.table.Listeners, Listener{Socket: s, Unowned: NotLookedUp})
	}
}

const (
	maxDumps  = 5   // of one query, until two agree
	maxRetry  = 3   // of a dump the kernel calls interrupted
	maxAgain  = 128 // ports asked for one by one
	maxListed = 1 << 20
)

var errTooMany = errors.New("more than a million listening sockets")

// diag reads one query so that no socket that lived through the reading is lost.
//
// The kernel hands a dump out in pieces and finds its place again by counting
// within a hash bucket: when an earlier socket of the bucket closes between two
// pieces, one that stays is skipped. So a dump of several pieces is repeated
// until a repetition brings nothing new, and what the last one lacks is asked
// for by its port: closed, or only skipped.
func (r *reader) diag(ctx context.Context, q sockdiag.Query) ([]Socket, error) {
	all, pieces, err := r.dumpOnce(ctx, q, 0)
	if err != nil || pieces <= 1 {
		return all, err
	}
	at := make(map[uint64]int, len(all)) // cookie → index in all
	last := make([]int, len(all))        // the last dump that had it
	for i := range all {
		at[all[i].Cookie] = i
	}
	n := 1
	for fresh := true; fresh && n < maxDumps; n++ {
		got, _, err := r.dumpOnce(ctx, q, len(all))
		fresh = false
		for _, s := range got {
			i, known := at[s.Cookie]
			if !known {
				i, fresh = len(all), true
				at[s.Cookie] = i
				all, last = append(all, s), append(last, n)
				continue
			}
			all[i], last[i] = s, n
		}
		if err != nil {
			return all, err
		}
	}
	gone, err := r.closed(ctx, q, all, last, n-1)
	if err != nil || len(gone) == 0 {
		return all, err
	}
	return slices.DeleteFunc(all, func(s Socket) bool { return gone[s.Cookie] }), nil
}

// closed asks once more, port by port, for the sockets that the last dump lacks
// and gives the cookies of those that are closed. Beyond maxAgain ports it gives
// none: then some that are listed may have closed meanwhile, but none is lost.
func (r *reader) closed(ctx context.Context, q sockdiag.Query, all []Socket, last []int, newest int) (map[uint64]bool, error) {
	doubtful := map[uint16][]uint64{}
	for i := range all {
		if last[i] != newest {
			port := all[i].Local.Port()
			doubtful[port] = append(doubtful[port], all[i].Cookie)
		}
	}
	if len(doubtful) > maxAgain {
		return nil, nil
	}
	gone := map[uint64]bool{}
	for _, port := range slices.Sorted(maps.Keys(doubtful)) { // a recording replays in the same order
		one := q
		one.Port = port
		got, pieces, err := r.dumpOnce(ctx, one, 0)
		if err != nil {
			return nil, err
		}
		if pieces > 1 {
			continue // as doubtful as before: keep them
		}
		for _, cookie := range doubtful[port] {
			gone[cookie] = !slices.ContainsFunc(got, func(s Socket) bool { return s.Cookie == cookie })
		}
	}
	return gone, nil
}

// dumpOnce reads one dump, of about as many sockets as expected, and tells in how
// many pieces its records came.
func (r *reader) dumpOnce(ctx context.Context, q sockdiag.Query, expected int) (socks []Socket, pieces int, err error) {
	for range maxRetry {
		socks, pieces = make([]Socket, 0, expected), 0
		err = r.src.Dump(ctx, q, func(datagram []byte) error {
			before := len(socks)
			err := sockdiag.Records(datagram, r.order, func(rec sockdiag.Record) error {
				if len(socks) >= maxListed {
					return errTooMany
				}
				s, listening := socketOf(q.Protocol, rec)
				if listening {
					socks = append(socks, s)
				}
				return nil
			})
			if len(socks) > before {
				pieces++
			}
			return err
		})
		if !errors.Is(err, sockdiag.ErrInterrupted) {
			return socks, pieces, err
		}
	}
	return socks, pieces, err
}

// socketOf turns a record into a Socket. Records of other states are none.
func socketOf(p sockdiag.Protocol, rec sockdiag.Record) (Socket, bool) {
	want := sockdiag.Listen
	if p == sockdiag.UDP || p == sockdiag.UDPLite || p == sockdiag.Raw {
		want = sockdiag.Close
	}
	if rec.State != want {
		return Socket{}, false
	}
	s := Socket{
		Proto: protoOf[p], Local: addrPort(rec.Src, rec.SrcPort), Locals: specific(rec.Locals),
		V6Only: rec.V6Only.Value, Device: Device{Index: int(rec.Device)},
		Accept: Queue{Len: rec.RecvQueue, Limit: rec.SendQueue},
		UID:    rec.UID, Inode: rec.Inode, Cookie: rec.Cookie,
		Cgroup: rec.CgroupID.Value, Mark: rec.Mark.Value,
		Freebind: rec.Opts.Value.Freebind, Transparent: rec.Opts.Value.Transparent,
	}
	if rec.Memory.Known {
		if rec.Memory.Value.Drops.Known {
			d := rec.Memory.Value.Drops.Value
			s.Accept.Drops = &d
		}
		if s.Proto.Datagram() {
			s.Accept.Len, s.Accept.Limit = rec.Memory.Value.RecvUsed, rec.Memory.Value.RecvLimit
		}
	} else if s.Proto.Datagram() {
		s.Accept.Limit = 0 // idiag_wqueue of a datagram socket is its send queue
		s.Untold = append(s.Untold, FactLimit)
	}
	if rec.Family == sockdiag.Inet6 && !rec.V6Only.Known {
		s.Untold = append(s.Untold, FactV6Only)
	}
	if !rec.Mark.Known {
		s.Untold = append(s.Untold, FactMark)
	}
	if !rec.CgroupID.Known {
		s.Untold = append(s.Untold, FactCgroup)
	}
	if !rec.Opts.Known {
		s.Untold = append(s.Untold, FactOpts)
	}
	if p == sockdiag.Raw && rec.Protocol.Known {
		s.Local = addrPort(rec.Src, uint16(rec.Protocol.Value))
	}
	return s, true
}

// finish joins what belongs together once all protocols are read.
func (r *reader) finish() {
	t := r.table
	// A multipath listener shows up a second time as the TCP socket inside it,
	// with the same inode (mptcp_subflow_create_socket copies it).
	multipath := map[uint32]bool{}
	for _, l := range t.Listeners {
		if l.Proto == MPTCP && l.Inode != 0 {
			multipath[l.Inode] = true
		}
	}
	t.Listeners = slices.DeleteFunc(t.Listeners, func(l Listener) bool { return l.Proto == TCP && multipath[l.Inode] })

	names := map[int]string{}
	for i := range t.Listeners {
		d := &t.Listeners[i].Device
		if d.Index == 0 {
			continue
		}
		name, known := names[d.Index]
		if !known {
			var err error
			name, err = r.src.DeviceName(d.Index)
			if err != nil && !errors.Is(err, unix.ENODEV) {
				r.gap(fmt.Sprintf("name of interface %d", d.Index), err)
			}
			names[d.Index] = name
		}
		d.Name = HostText(name)
	}

	slices.SortFunc(t.Listeners, func(a, b Listener) int { return compareSockets(a.Socket, b.Socket) })
	share(t.Listeners)
}

// share counts the sockets of each group. The list is sorted by protocol, port,
// address and device, so a group is a run.
func share(ls []Listener) {
	for i := 0; i < len(ls); {
		j := i + 1
		for j < len(ls) && ls[i].Proto == ls[j].Proto && ls[i].Local == ls[j].Local && ls[i].Device.Index == ls[j].Device.Index {
			j++
		}
		for k := i; k < j; k++ {
			ls[k].Sharing = j - i
		}
		i = j
	}
}
