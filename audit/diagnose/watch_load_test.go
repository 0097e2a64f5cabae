package diagnose

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/listeners"
)

// TestWatchFlood: a SYN flood from everywhere is counted, within bounds of memory,
// and what it hides is named.
func TestWatchFlood(t *testing.T) {
	lab.Need(t, "nft")
	l := lab.New(t, lab.Topology{})
	l.Server.Load(t, lab.NFT, "table inet f { chain c { type filter hook input priority 0; tcp dport 8080 counter drop; }; }")
	w := watchIn(t, l.Server, WatchOptions{Port: 8080})
	const many = 40000
	sent := 0
	l.Client.Do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 1)
		to := l.ServerAddr(0)
		for i := range many {
			src := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
			p := make([]byte, 20, 40)
			p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP
			binary.BigEndian.PutUint16(p[2:], 40)
			copy(p[12:], src.AsSlice())
			copy(p[16:], to.AsSlice())
			p = append(p, synSegment(src, to, uint16(1024+i%60000), 8080, uint32(i))...)
			if unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: to.As4()}) == nil {
				sent++
			}
		}
	})
	if sent < many/2 {
		t.Fatalf("only %d SYNs could be sent", sent)
	}
	time.Sleep(time.Second)
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	r := w.end(t)
	total := r.Attempts + int(r.LostPackets)
	if total < sent*9/10 || total > sent {
		t.Errorf("%d SYNs sent, %d counted and %d lost", sent, r.Attempts, r.LostPackets)
	}
	if len(r.Sightings) > maxKept || len(r.Groups) != 1 || r.NotFollowed == 0 {
		t.Errorf("%d kept, %d groups, %d not followed", len(r.Sightings), len(r.Groups), r.NotFollowed)
	}
	if g := r.Groups[0]; g.Ended != EndDropped || g.Attempts != r.Attempts-r.NotFollowed || g.Clients != 1000 {
		t.Errorf("group %+v", g)
	}
	if r.LostPackets > 0 && !slices.ContainsFunc(r.Incomplete, func(g audit.Gap) bool { return g.What == "packets" }) {
		t.Error("lost packets are not named")
	}
	if r.NotFollowed > 0 && !strings.Contains(strings.Join(r.Notes, " "), "counted only") {
		t.Errorf("notes %q", r.Notes)
	}
	if m.HeapAlloc > 256<<20 {
		t.Errorf("%d MB in use", m.HeapAlloc>>20)
	}
	t.Logf("%d sent, %d counted, %d lost; %d MB in use; %s", sent, r.Attempts, r.LostPackets, m.HeapAlloc>>20, r.Summary)
}

// TestWatchBusy: on a busy port where everybody is served nobody is accused, and
// nobody is forgotten.
func TestWatchBusy(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	listen8080(t, l)
	w := watchIn(t, l.Server, WatchOptions{Port: 8080})
	var ps []lab.Probe
	for range 500 {
		ps = append(ps, tcpProbe(l, ""))
	}
	n := 0
	for range 12 {
		for _, o := range l.ProbeOnce(t, time.Minute, ps...) { // as long as the slowest takes
			if o.ClientSees != lab.Connected {
				t.Fatal(o)
			}
			n++
		}
	}
	r := w.end(t)
	if r.Attempts+int(r.LostPackets) < n || r.Attempts > n || r.Failed() > 0 || r.Remedy != "" || r.Cause != "" {
		t.Errorf("%d connections, %d attempts, %d lost, %d failed: %s", n, r.Attempts, r.LostPackets, r.Failed(), r.Summary)
	}
	if g := r.Groups[0]; g.Ended != EndServed || g.Attempts+r.NotFollowed < r.Attempts*9/10 {
		t.Errorf("%+v", g)
	}
	t.Logf("%d connections, %d lost: %s", n, r.LostPackets, r.Summary)
}

// TestWatchBusyNeighbour: resets of another port move the same counter; a reject
// with a reset is not taken for a closed port because of them, nor the other way
// round.
func TestWatchBusyNeighbour(t *testing.T) {
	lab.Need(t, "nft")
	l := lab.New(t, lab.Topology{})
	l.Server.Load(t, lab.NFT, "table inet f { chain c { type filter hook input priority 0; tcp dport 8080 reject with tcp reset; }; }")
	for _, c := range []struct {
		port uint16
		end  Ending
	}{{8080, EndRejected}, {8090, EndClosed}} {
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
					unix.Close(dial(t, l.Client, netip.AddrPortFrom(l.ServerAddr(0), 9999)))
				}
			}
		}()
		w := watchIn(t, l.Server, WatchOptions{Port: c.port})
		time.Sleep(time.Second)
		p := tcpProbe(l, "")
		p.To = netip.AddrPortFrom(l.ServerAddr(0), c.port)
		if got := l.ProbeOnce(t, 400*time.Millisecond, p)[0]; got.ClientSees != lab.Refused {
			t.Error(got)
		}
		r := w.end(t)
		close(stop)
		<-done
		if len(r.Sightings) != 1 || r.Sightings[0].Ended != c.end || r.Sightings[0].Disagreement != "" {
			t.Errorf("port %d: %s %+v", c.port, r.Summary, r.Sightings)
		}
	}
}

// TestTapLost: the packets that found no room are counted.
func TestTapLost(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	var tap *Tap
	l.Server.Do(func() {
		var err error
		if tap, err = OpenTap(8080, 0); err != nil {
			t.Fatal(err)
		}
	})
	defer tap.Close()
	if err := unix.SetsockoptInt(tap.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer); err == nil {
		fresh, err := OpenTap(8080, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		if n, err := unix.GetsockoptInt(fresh.fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || n < tapBuffer {
			t.Errorf("room for %d bytes, %v: net.core.rmem_max bounds it although the privilege is there", n, err)
		}
	}
	if err := unix.SetsockoptInt(tap.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil { // the least there is
		t.Fatal(err)
	}
	var whole *Tap // has room for all
	l.Server.Do(func() {
		var err error
		if whole, err = OpenTap(8080, 0); err != nil {
			t.Fatal(err)
		}
	})
	defer whole.Close()
	var ps []lab.Probe
	for range 50 {
		ps = append(ps, tcpProbe(l, ""))
	}
	for _, o := range l.ProbeOnce(t, time.Minute, ps...) { // a SYN in and a RST out each, and what is sent again
		if o.ClientSees != lab.Refused {
			t.Fatal(o)
		}
	}
	want := len(whole.Read())
	if none, err := whole.Lost(); err != nil || none != 0 || want < 100 {
		t.Fatalf("control: %d packets read, %d lost, %v", want, none, err)
	}
	got := len(tap.Read())
	lost, err := tap.Lost()
	if err != nil || got == 0 || lost == 0 || got+int(lost) != want {
		t.Errorf("%d read, %d lost, %v: want %d together", got, lost, err, want)
	}
}

// TestTapFilter: the kernel's filter takes what it should and nothing else, and a
// followed client's every segment.
func TestTapFilter(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	listen8080(t, l)
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("[::]:9090")}, lab.Listen{Proto: lab.UDP, Addr: netip.MustParseAddrPort("[::]:8080")})
	open := func(want tapFor) *Tap {
		var tap *Tap
		l.Server.Do(func() {
			var err error
			if tap, err = openTap(want); err != nil {
				t.Fatal(err)
			}
		})
		t.Cleanup(func() { tap.Close() })
		return tap
	}
	count := func(tap *Tap) (flagged, plain, udp, icmp int) {
		for _, p := range tap.Read() {
			switch {
			case p.ICMP != nil:
				icmp++
			case p.Proto == unix.IPPROTO_UDP:
				udp++
			case p.SYN || p.RST || p.FIN:
				flagged++
			default:
				plain++
			}
		}
		return
	}
	for _, six := range []bool{false, true} {
		to, from := l.ServerAddr(0), l.ClientAddr(0)
		if six {
			to, from = l.ServerAddr6(0), l.ClientAddr6(0)
		}
		tap := open(tapFor{proto: unix.IPPROTO_TCP, port: 8080, flags: flagSYN | flagRST | flagFIN})
		following := open(tapFor{proto: unix.IPPROTO_TCP, port: 8080, flags: flagSYN | flagRST | flagFIN})
		if err := following.follow([]uint16{1, 40007, 2}); err != nil {
			t.Fatal(err)
		}
		udp := open(tapFor{proto: unix.IPPROTO_UDP, port: 8080})
		p := lab.Probe{Proto: lab.TCP, From: from, FromPort: 40007, To: netip.AddrPortFrom(to, 8080)}
		other, datagram := p, p
		other.To, other.FromPort = netip.AddrPortFrom(to, 9090), 40008
		datagram.Proto, datagram.FromPort = lab.UDP, 0
		l.ProbeOnce(t, 500*time.Millisecond, p, other, datagram)
		time.Sleep(50 * time.Millisecond)
		// SYN, SYN-ACK, RST of the closing client; with the follower its ACK and data.
		if f, pl, u, i := count(tap); f != 3 || pl != 0 || u != 0 || i != 0 {
			t.Errorf("IPv6 %v: %d flagged, %d plain, %d udp, %d icmp", six, f, pl, u, i)
		}
		if f, pl, u, i := count(following); f != 3 || pl < 2 || u != 0 || i != 0 {
			t.Errorf("IPv6 %v, followed: %d flagged, %d plain, %d udp, %d icmp", six, f, pl, u, i)
		}
		if f, pl, u, i := count(udp); f != 0 || pl != 0 || u != 2 || i != 0 {
			t.Errorf("IPv6 %v, udp: %d flagged, %d plain, %d udp, %d icmp", six, f, pl, u, i)
		}
	}
}

// TestTracker: copies of a packet on several links (a VLAN, a bridge, a bond) are
// one; the interface is the innermost, which is what rules see. Retransmissions
// count, frames for other hosts and answers of others do not.
func TestTracker(t *testing.T) {
	tr := newTracker(tapFor{proto: unix.IPPROTO_TCP, port: 8080}, netip.Addr{}, netip.Addr{})
	at := time.Unix(1000, 0)
	client, server := netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("10.0.0.2:8080")
	send := func(after time.Duration, link int, change func(*Packet)) tally {
		p := Packet{At: at.Add(after), Link: link, Proto: unix.IPPROTO_TCP, Src: client, Dst: server, SYN: true, Seq: 9}
		if change != nil {
			change(&p)
		}
		return tr.take(&p)
	}
	reply := func(p *Packet) { p.Outgoing, p.Src, p.Dst, p.ACK, p.Seq = true, server, client, true, 77 }
	asked := 0
	for _, link := range []int{2, 5, 6} {
		asked += send(time.Duration(link)*time.Microsecond, link, nil).asked
	}
	for _, link := range []int{2, 5, 6} { // a second later
		asked += send(time.Second+time.Duration(link)*time.Microsecond, link, nil).asked
	}
	for _, link := range []int{6, 5, 2} { // the answer passes the links the other way round
		send(1100*time.Millisecond-time.Duration(link)*time.Microsecond, link, reply)
	}
	send(0, 3, func(p *Packet) { p.Strange, p.Src = true, netip.MustParseAddrPort("10.0.0.9:1") })
	send(0, 3, func(p *Packet) { p.Src, p.Dst, p.ACK = server, client, true })       // an answer to this host
	send(0, 3, func(p *Packet) { p.Dst = netip.MustParseAddrPort("10.0.0.2:8081") }) // another port
	send(0, 3, func(p *Packet) { p.Outgoing = true })                                // this host is the client
	if len(tr.order) != 1 || asked != 2 || tr.all != 1 {
		t.Fatalf("%d attempts, %d SYNs, %d counted", len(tr.order), asked, tr.all)
	}
	f := tr.order[0]
	if f.asked.count != 2 || f.answered.count != 1 || f.links[len(f.links)-1] != 6 || f.links[0] != 2 {
		t.Errorf("%d SYNs, %d SYN-ACKs, links %v", f.asked.count, f.answered.count, f.links)
	}
	// The same port of the client with another sequence number is a new attempt.
	send(10*time.Second, 2, func(p *Packet) { p.Seq = 4711 })
	if len(tr.order) != 2 || tr.all != 2 {
		t.Errorf("%d attempts", len(tr.order))
	}
}

// TestWatchNoise: on a busy host a counter that rises by itself proves nothing.
func TestWatchNoise(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := &ledger{idle: listeners.Counters{listeners.ListenOverflows: 100}, idleTime: 10 * time.Second, lastAt: at.Add(time.Second)}
	l.intervals = []*interval{{from: at, to: at.Add(200 * time.Millisecond), delta: listeners.Counters{listeners.ListenOverflows: 3, listeners.OutResets: 3}, asked: 3}}
	w, ok := l.around([]time.Time{at.Add(100 * time.Millisecond)})
	if !ok || w.rose(listeners.ListenOverflows, 3) {
		t.Error("10 a second of others are taken for this port's 3 in 0.2 s")
	}
	if !w.rose(listeners.OutResets, 3) || w.rose(listeners.OutResets, 4) || w.rose("no such", 1) {
		t.Error("what is quiet otherwise counts, as far as it goes")
	}
	if _, ok := l.around([]time.Time{at.Add(-time.Second)}); ok {
		t.Error("before the first reading nothing is known")
	}
	if _, ok := l.around([]time.Time{at.Add(2 * time.Second)}); ok {
		t.Error("what came after the last reading has not been counted")
	}
}

// TestWatchConntrackFull: the drop counter of connection tracking explains a
// silence; without it the same silence stays unexplained. (The limit itself is the
// machine's and is not touched by a test.)
func TestWatchConntrackFull(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, dropped := range []uint64{0, 1} {
		f := &flow{proto: ipTCP, from: netip.MustParseAddrPort("10.0.0.1:4000"), to: netip.MustParseAddrPort("10.0.0.2:80"), links: []int{2}}
		f.asked.note(&Packet{At: at.Add(50 * time.Millisecond)})
		l := &ledger{lastAt: at.Add(time.Second), idle: listeners.Counters{}, idleTime: time.Second}
		l.intervals = []*interval{{from: at, to: at.Add(100 * time.Millisecond), delta: listeners.Counters{"Ip.InReceives": 1, "Ip.InDelivers": 0}, dropped: listeners.Counters{"drop": dropped}, asked: 1}}
		world := emptyWorld()
		s := &seen{f: f, before: world, after: world, now: at.Add(4 * time.Second)}
		s.w, s.counted = l.around(f.asked.times)
		v := judgeFlow(s)
		switch {
		case dropped == 1 && (v.end != EndConntrack || v.id != ConntrackFull):
			t.Errorf("%+v", v)
		case dropped == 0 && v.end != EndUnexplained:
			t.Errorf("%+v", v)
		}
	}
}
