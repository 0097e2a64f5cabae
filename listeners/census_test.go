package listeners

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

// dial makes a client socket and, unless nil, lets prepare work on it before it
// connects.
func dial(t testing.TB, to *sock, prepare func(*sock)) *sock {
	t.Helper()
	c := newSock(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	if prepare != nil {
		prepare(c)
	}
	if err := unix.Connect(c.fd, &unix.SockaddrInet4{Port: to.port, Addr: [4]byte(to.addr.To4())}); err != nil {
		t.Fatalf("connect: %v", err)
	}
	return c
}

func accept(t testing.TB, l *sock) *sock {
	t.Helper()
	fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	s := &sock{fd: fd}
	t.Cleanup(s.close)
	return s
}

// procOnly hides sock_diag, as a sandbox may.
type procOnly struct{ *Live }

func (procOnly) Dump(context.Context, sockdiag.Query, func([]byte) error) error {
	return unix.EPROTONOSUPPORT
}

var censusRuns atomic.Int32

func TestCensus(t *testing.T) {
	settings, err := ReadPortSettings(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	// Ports of its own for each run: TIME_WAIT outlives a test.
	run := int(censusRuns.Add(1))
	port, port6, first := uint16(4000+2*run), uint16(4001+2*run), int(settings.Low)+100*run
	server := tcpListener(t, "127.0.0.1", int(port)) // outside the range
	inRange := tcpListener(t, "127.0.0.1", first+10)
	server6 := newSock(t, unix.AF_INET6, unix.SOCK_STREAM, 0).bind(t, "::1", int(port6)).listen(t, 16)

	const kept, closed = 5, 3
	for range kept {
		dial(t, server, nil)
		accept(t, server)
	}
	for range closed { // the client closes first and goes to TIME_WAIT
		c := dial(t, server, nil)
		a := accept(t, server)
		c.close()
		a.close()
	}
	dial(t, server, func(s *sock) { s.bind(t, "127.0.0.1", first+20) })
	dial(t, server, func(s *sock) { s.bind(t, "127.0.0.1", 9000+run) }) // outside
	const ipBindAddressNoPort = 24
	dial(t, server, func(s *sock) {
		s.opt(t, unix.IPPROTO_IP, ipBindAddressNoPort, 1)
		s.bind(t, "127.0.0.1", 0)
	})
	bound0 := dial(t, server, func(s *sock) { s.bind(t, "127.0.0.1", 0) })
	dial(t, inRange, nil)
	accept(t, inRange)
	// An IPv6 socket that talks IPv4 uses IPv4's ports.
	mapped := newSock(t, unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err := unix.Connect(mapped.fd, &unix.SockaddrInet6{Port: server.port, Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}); err != nil {
		t.Fatal(err)
	}
	c6 := newSock(t, unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err := unix.Connect(c6.fd, &unix.SockaddrInet6{Port: server6.port, Addr: netip.IPv6Loopback().As16()}); err != nil {
		t.Fatal(err)
	}
	newSock(t, unix.AF_INET, unix.SOCK_DGRAM, 0).bind(t, "127.0.0.1", 0)
	u := newSock(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err := unix.Connect(u.fd, &unix.SockaddrInet4{Port: 53, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}

	table := readTable(t)
	live := openLive(t)
	census := func(src Source, bound bool) *Census {
		c, err := ReadCensus(t.Context(), src, CensusOptions{Settings: settings, Table: table, Bound: bound})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Gaps) > 0 {
			t.Fatalf("gaps: %v", c.Gaps)
		}
		return c
	}
	c := census(live, true)
	find := func(c *Census, proto Proto, port uint16) Destination {
		for _, d := range c.Destinations {
			if d.Proto == proto && d.Port == port {
				return d
			}
		}
		t.Fatalf("no destination %s port %d in %+v", proto, port, c.Destinations)
		return Destination{}
	}
	d := find(c, TCP, port)
	// kept + closed + bound by number + no-port + bind to 0 + mapped
	if d.InUse != kept+closed+4 || d.TimeWait != closed || d.Bound != 1 || d.NoPort != 1 || d.Established != kept+4 {
		t.Errorf("%+v", d)
	}
	if d.From != netip.MustParseAddr("127.0.0.1") || d.From != d.To {
		t.Errorf("from %s to %s", d.From, d.To)
	}
	if find(c, TCP, port6).InUse != 1 || find(c, UDP, 53).InUse != 1 {
		t.Errorf("%+v", c.Destinations)
	}
	if c.Outside < 1 {
		t.Errorf("%d outside the range", c.Outside)
	}
	for _, s := range c.Sources {
		// A connection to the listener in the range, and what other tests left.
		if s.Proto == TCP && s.From == d.From && s.Ports < int(d.InUse)+1 {
			t.Errorf("source %+v, of one destination %d", s, d.InUse)
		}
		if s.Proto == UDP && s.Ports != 2 {
			t.Errorf("source %+v", s)
		}
	}
	in := map[uint16]uint32{}
	for _, i := range c.Inbound {
		in[i.Port] = i.Sockets
	}
	// Four connections to the server were never accepted by us, but live in its queue.
	if in[port] != kept+5 || in[uint16(first+10)] != 1 || in[port6] != 1 {
		t.Errorf("inbound %v", in)
	}
	room := c.HeadRoom[TCP]
	// The listener is no usable port; the one bound by number is, but not connect(2)'s.
	if room.Taken != 1 || room.Usable != room.Range-1 || c.BoundPorts != 1 || c.ForConnect(TCP) != room.Range-2 {
		t.Errorf("%+v, %d bound", room, c.BoundPorts)
	}

	// bind(2) to port 0 takes the other half first: the hint the census gives.
	name, err := unix.Getsockname(bound0.fd)
	if err != nil {
		t.Fatal(err)
	}
	if (name.(*unix.SockaddrInet4).Port-int(settings.Low))%2 == 0 || d.LastHalf != 1 {
		t.Errorf("last half %d, port %d", d.LastHalf, name.(*unix.SockaddrInet4).Port)
	}

	owners, err := ReadOwners(t.Context(), c.SampleInodes(10), OwnerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.AssignOwners(owners, 10)
	if d := find(c, TCP, port); len(d.Owners) != 1 || d.Owners[0].Process.PID != os.Getpid() || d.Owners[0].Sampled != keepInodes {
		t.Errorf("owners %+v", d.Owners)
	}

	stored, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Census
	if err := json.Unmarshal(stored, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil || string(again) != string(stored) {
		t.Errorf("stored and read again it differs: %v", err)
	}

	// From /proc the same, but for what only sock_diag tells.
	fromProc, fromDiag := census(procOnly{live}, false), census(live, false)
	for _, c := range []*Census{fromProc, fromDiag} {
		for i := range c.Destinations {
			c.Destinations[i].NoPort, c.Destinations[i].Inodes = 0, nil
		}
	}
	if diff := cmp.Diff(fromDiag, fromProc, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// record makes the bytes of one struct inet_diag_msg in a netlink message.
func record(state sockdiag.State, sport, dport uint16, dst uint32) []byte {
	b := make([]byte, 16+sockdiag.RecordLen)
	ne := binary.NativeEndian
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], 20)
	p := b[16:]
	p[0], p[1] = unix.AF_INET, byte(state)
	binary.BigEndian.PutUint16(p[4:], sport)
	binary.BigEndian.PutUint16(p[6:], dport)
	copy(p[8:], []byte{10, 0, 0, 1})
	binary.BigEndian.PutUint32(p[24:], dst)
	return b
}

// A list of reserved ports may be longer than a read has room for.
func TestPortSettingsWithManyReserved(t *testing.T) {
	f, err := os.OpenFile("/proc/sys/net/ipv4/ip_local_reserved_ports", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Cleanup(func() { os.WriteFile(f.Name(), []byte("\n"), 0) })
	var list []byte
	for port := 1; port < 1<<16; port += 2 {
		from := len(list)
		list = fmt.Appendf(list, "%d,", port)
		// A single write takes less than a page; what comes from an offset is added.
		if _, err := f.WriteAt(list[from:], int64(from)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := ReadPortSettings(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	room, err := p.HeadRoom(nil)
	if want := (int(p.High) - int(p.Low) + 1) / 2; err != nil || room.Reserved != want {
		t.Errorf("%+v, %v; want %d reserved of %d bytes, %d were read", room, err, want, len(list), len(p.Reserved))
	}
}

func TestCensusAllocatesNothingPerSocket(t *testing.T) {
	var datagram []byte
	for i := range 300 {
		datagram = append(datagram, record(sockdiag.TimeWait, uint16(40000+i), 80, uint32(i%7))...)
	}
	tl := newTally(TCP, CensusOptions{Settings: PortSettings{Low: 32768, High: 60999}, Table: &Table{}}, &PortSet{})
	run := func() {
		if err := tl.datagram(datagram); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations for 300 sockets", n)
	}
	if tl.sockets != 102*300 || len(tl.counts) != 7 {
		t.Errorf("%d sockets, %d destinations", tl.sockets, len(tl.counts))
	}
}

// With more destinations than are kept the busy ones are still there, and what
// their counts may lack is told.
func TestCensusManyDestinations(t *testing.T) {
	tl := newTally(TCP, CensusOptions{Settings: PortSettings{Low: 1024, High: 65535}, Table: &Table{}, Keep: 100}, &PortSet{})
	const busy, busyCount = 0xffffff, 2000
	n := uint32(0)
	for i := range busyCount {
		for range 10 {
			n++
			if err := tl.datagram(record(sockdiag.Established, 2000, 80, n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := tl.datagram(record(sockdiag.Established, uint16(2000+i), 80, busy)); err != nil {
			t.Fatal(err)
		}
	}
	c := &Census{}
	tl.result(c, HeadRoom{Usable: 1000}, 0)
	c.sort(10)
	top := c.Destinations[0]
	if top.To != netip.MustParseAddr("0.255.255.255") || top.InUse > busyCount || top.InUse+top.Missed < busyCount || top.Missed > busyCount/10 {
		t.Errorf("%+v", top)
	}
	if c.Evicted == 0 || len(tl.counts) > 100 || len(tl.at) != len(tl.counts) {
		t.Errorf("evicted %d, kept %d", c.Evicted, len(tl.counts))
	}
}

func TestParsePortSettings(t *testing.T) {
	p, err := ParsePortSettings("32768\t60999\n", "8080,32770-32779,40001-40001\n")
	if err != nil {
		t.Fatal(err)
	}
	var listening PortSet
	listening.Add(50000)
	listening.Add(80)
	listening.Add(32770) // reserved already
	got, err := p.HeadRoom(&listening)
	if err != nil {
		t.Fatal(err)
	}
	want := HeadRoom{Range: 28232, Reserved: 11, Taken: 1, Usable: 28220, FirstHalf: 14116 - 5 - 1}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, bad := range [][2]string{{"", ""}, {"1", ""}, {"5 4", ""}, {"0 10", ""}, {"1 70000", ""}, {"1 2", "x"}, {"1 2", "5-4"}} {
		if _, err := ParsePortSettings(bad[0], bad[1]); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

// TestHeadRoomPortByPort holds the counting of whole words against looking at each
// port, at ranges that begin and end within words and at their edges.
func TestHeadRoomPortByPort(t *testing.T) {
	for _, r := range [][2]uint16{{1, 1}, {1, 65535}, {63, 64}, {64, 127}, {65, 190}, {32768, 60999}, {65535, 65535}} {
		for _, reservedText := range []string{"", "1-64", "63-65,128-191", "100-65535", "40000,50000-50010"} {
			var bound PortSet
			for _, port := range []uint16{1, 63, 64, 65, 127, 128, 40000, 40001, 60999, 65535} {
				bound.Add(port)
			}
			reserved, err := ParsePortSet(reservedText)
			if err != nil {
				t.Fatal(err)
			}
			p := PortSettings{Low: r[0], High: r[1], Reserved: reservedText}
			for _, b := range []*PortSet{nil, &bound} {
				var want HeadRoom
				for port := int(p.Low); port <= int(p.High); port++ {
					want.Range++
					switch {
					case reserved.Has(uint16(port)):
						want.Reserved++
					case b != nil && b.Has(uint16(port)):
						want.Taken++
					default:
						want.Usable++
						if (port-int(p.Low))%2 == 0 {
							want.FirstHalf++
						}
					}
				}
				if got, err := p.HeadRoom(b); err != nil || got != want {
					t.Errorf("%v reserved %q: %+v, %v; want %+v", r, reservedText, got, err, want)
				}
			}
		}
	}
}
