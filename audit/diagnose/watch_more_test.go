package diagnose

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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

func listen8080(t *testing.T, l *lab.Lab) {
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("[::]:8080")})
}

func tcpProbe(l *lab.Lab, from string) lab.Probe {
	p := lab.Probe{Proto: lab.TCP, From: l.ClientAddr(0), To: netip.AddrPortFrom(l.ServerAddr(0), 8080)}
	if from != "" {
		p.From = netip.MustParseAddr(from)
	}
	return p
}

// TestWatchNothingCame: a watch without a SYN says what that means, names the
// cloud, and does not claim what it cannot know; with one SYN of somebody else it
// says that the way here is open.
func TestWatchNothingCame(t *testing.T) {
	t.Parallel()
	l := lab.New(t, lab.Topology{})
	listen8080(t, l)
	// The client's packets are stopped before this host.
	l.Client.Load(t, lab.NFT, "table inet f { chain c { type filter hook output priority 0; ip saddr 10.9.0.77 drop; }; }")
	w := watchIn(t, l.Server, WatchOptions{Port: 8080, From: netip.MustParseAddr("10.9.0.77"), Facts: &HostFacts{Cloud: &Cloud{Name: "AWS", Console: "EC2 console → Security Groups"}}})
	if got := l.ProbeOnce(t, 500*time.Millisecond, tcpProbe(l, "10.9.0.77"), tcpProbe(l, "")); got[0].ClientSees != lab.Timeout || got[1].ClientSees != lab.Connected {
		t.Fatal(got)
	}
	r := w.end(t)
	if r.Attempts != 0 || len(r.Sightings) != 0 || r.Others != 1 {
		t.Errorf("%d attempts, %d others", r.Attempts, r.Others)
	}
	for _, want := range []string{"0 SYNs from 10.9.0.77 for tcp 8080 reached this host", "This host accepts tcp 8080 from 10.9.0.77", "on AWS a security group", "cannot be read from here"} {
		if !strings.Contains(string(r.Summary), want) {
			t.Errorf("lacks %q: %s", want, r.Summary)
		}
	}
	if !strings.Contains(r.Remedy, "EC2 console") || !strings.Contains(strings.Join(r.Notes, "\n"), "1 SYN of other clients arrived") {
		t.Errorf("remedy %q, notes %q", r.Remedy, r.Notes)
	}
	// The other way round: this host would not let it in either, and says so.
	l.Server.Load(t, lab.NFT, "table inet f { chain c { type filter hook input priority 0; ip saddr 10.9.0.77 drop; }; }")
	r = watchIn(t, l.Server, WatchOptions{Port: 8080, From: netip.MustParseAddr("10.9.0.77")}).end(t)
	if !strings.Contains(string(r.Summary), "would not let 10.9.0.77 in: nftables inet f c #1") || strings.Contains(string(r.Summary), "AWS") {
		t.Errorf("%s", r.Summary)
	}
}

// TestWatchMany: several attempts of several kinds at once are told apart; each
// gets its own answer.
func TestWatchMany(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft")
	l := lab.New(t, lab.Topology{})
	listen8080(t, l)
	l.Server.Load(t, lab.NFT, "table inet f { chain c { type filter hook input priority 0; ip saddr 10.9.0.70 counter drop; ip saddr 10.9.0.71 reject with tcp reset; ip saddr 10.9.0.72 reject; }; }")
	w := watchIn(t, l.Server, WatchOptions{Port: 8080})
	l.ProbeOnce(t, 1200*time.Millisecond, tcpProbe(l, ""), tcpProbe(l, "10.9.0.70"), tcpProbe(l, "10.9.0.71"), tcpProbe(l, "10.9.0.72"), tcpProbe(l, "10.9.0.70"))
	r := w.end(t)
	var got []string
	for _, g := range r.Sightings {
		host, _, _ := strings.Cut(g.From, ":")
		got = append(got, fmt.Sprintf("%s %s %s %s", host, g.Ended, g.Verdict, witnessName(g.DecidedBy)))
		if g.Disagreement != "" {
			t.Errorf("%s: %s", g.From, g.Disagreement)
		}
	}
	slices.Sort(got)
	want := []string{
		"10.9.0.1 served confirmed nothing stands in the way",
		"10.9.0.70 dropped confirmed nftables inet f c #1", "10.9.0.70 dropped confirmed nftables inet f c #1",
		"10.9.0.71 rejected confirmed nftables inet f c #2", "10.9.0.72 rejected confirmed nftables inet f c #3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if !strings.HasPrefix(string(r.Summary), "5 attempts: 1 served, 2 dropped here by nftables inet f c #1, ") {
		t.Errorf("%s", r.Summary)
	}
}

// TestWatchRulesChange: rules that change while it runs are followed, by nf_tables'
// generation and without one (legacy); an attempt that was lost and let in after
// all ends as served.
func TestWatchRulesChange(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-legacy")
	l := lab.New(t, lab.Topology{})
	listen8080(t, l)
	w := watchIn(t, l.Server, WatchOptions{Port: 8080})
	step := func(from string, sees lab.Sight) {
		t.Helper()
		if got := l.ProbeOnce(t, 600*time.Millisecond, tcpProbe(l, from))[0]; got.ClientSees != sees {
			t.Fatal(got)
		}
	}
	step("10.9.0.60", lab.Connected)
	time.Sleep(time.Second)
	l.Server.Load(t, lab.NFT, "table inet f { chain c { type filter hook input priority 0; tcp dport 8080 counter drop; }; }")
	time.Sleep(4 * time.Second) // a change of nf_tables is noticed by itself
	step("10.9.0.61", lab.Timeout)
	time.Sleep(4 * time.Second)
	l.Server.Load(t, lab.NFT, "flush ruleset")
	l.Server.Load(t, lab.IPTablesLegacy, "*filter\n-A INPUT -p tcp --dport 8080 -j DROP\nCOMMIT\n")
	fd := dial(t, l.Client, netip.AddrPortFrom(l.ServerAddr(0), 8080))
	defer unix.Close(fd)
	time.Sleep(4500 * time.Millisecond)
	l.Server.Load(t, lab.IPTablesLegacy, "*filter\nCOMMIT\n")
	time.Sleep(5 * time.Second) // its next SYN gets through
	r := w.end(t)
	var got []string
	for _, g := range r.Sightings {
		got = append(got, string(g.Ended)+" "+witnessName(g.DecidedBy))
	}
	if want := []string{"served nothing stands in the way", "dropped nftables inet f c #1", "served nothing stands in the way"}; !slices.Equal(got, want) {
		t.Errorf("got %q\n%s", got, r.Summary)
	}
	if r.Attempts != 3 {
		t.Errorf("%d attempts", r.Attempts)
	}
	// The change had been noticed before the attempt came: the rule's counter has a
	// value from before.
	if ev := fmt.Sprint(r.Sightings[1].Evidence); !strings.Contains(ev, "counter of the rule +1") || strings.Contains(ev, "meanwhile") {
		t.Errorf("evidence %s", ev)
	}
}

// TestWatchDisagrees: where packets contradict the model, it is said, and the
// packets count. The reading of the host is tampered with: it lacks the rules.
func TestWatchDisagrees(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft")
	for _, c := range []struct {
		name, rule, says string
		sees             lab.Sight
		end              Ending
		deaf             bool // nothing listens
	}{
		{"reset", "tcp dport 8080 reject with tcp reset", "the RST is not the kernel's own", lab.Refused, EndRejected, false},
		{"reset, closed port", "tcp dport 8080 reject with tcp reset", "the RST is not the kernel's own", lab.Refused, EndRejected, true},
		{"datagram, closed port", "udp dport 8080 reject", "did not move", lab.Refused, EndRejected, true},
		{"icmp", "tcp dport 8080 reject", "answered with an ICMP error", lab.Refused, EndRejected, false},
		{"drop", "tcp dport 8080 drop", "no answer left", lab.Timeout, EndUnexplained, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t, lab.Topology{})
			if !c.deaf {
				listen8080(t, l)
			}
			blind := readServer(t, l)
			l.Server.Load(t, lab.NFT, "table inet f { chain c { type filter hook input priority 0; "+c.rule+"; }; }")
			p, o := tcpProbe(l, ""), WatchOptions{Port: 8080}
			if strings.HasPrefix(c.name, "datagram") {
				p.Proto, o.Proto = lab.UDP, unix.IPPROTO_UDP
			}
			w := watchWith(t, l.Server, o, func(context.Context, []netip.Addr) (*audit.Snapshot, error) { return blind, nil })
			if got := l.ProbeOnce(t, 600*time.Millisecond, p)[0]; got.ClientSees != c.sees {
				t.Fatal(got)
			}
			r := w.end(t)
			if len(r.Sightings) != 1 {
				t.Fatal(r.Summary)
			}
			g := r.Sightings[0]
			if g.Ended != c.end || !strings.Contains(g.Disagreement, c.says) || !c.deaf && !strings.Contains(g.Disagreement, "connected") || g.Verdict == Confirmed {
				t.Errorf("ended %s, %s, disagreement %q", g.Ended, g.Verdict, g.Disagreement)
			}
			if g.DecidedBy != nil && g.DecidedBy.Kind == "rule" {
				t.Errorf("a rule is named that nobody read: %s", witnessName(g.DecidedBy))
			}
		})
	}
}

// TestWatchPlaces: attempts over lo and over a bridge are each seen once, by the
// interface that the rules see; SYNs that this host sends or forwards are none.
func TestWatchPlaces(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "ip")
	l := lab.New(t, lab.Topology{Containers: 1, Links: 2})
	listen8080(t, l)
	for _, args := range []string{
		"link add wide type bridge", "addr add 10.77.0.2/24 dev wide", "link set wide up", "link set eth1 master wide",
	} {
		l.Server.Run(t, append([]string{"ip"}, strings.Fields(args)...)...)
	}
	mac := func(n *lab.Namespace, link string) string {
		x, err := n.Netlink().LinkByName(link)
		if err != nil {
			t.Fatal(err)
		}
		return x.Attrs().HardwareAddr.String()
	}
	l.Client.Run(t, "ip", "addr", "add", "10.77.0.1/24", "dev", "c1")
	l.Client.Run(t, "ip", "neigh", "replace", "10.77.0.2", "lladdr", mac(l.Server, "wide"), "dev", "c1", "nud", "permanent")
	l.Server.Sysctl(t, "net.ipv4.ip_forward", "1")
	l.Containers[0].Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("0.0.0.0:8080")})
	l.Client.Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("0.0.0.0:8080")})
	l.Server.Load(t, lab.NFT, "table inet f { chain c { type filter hook input priority 0; iifname wide tcp dport 8080 counter drop; }; }")
	w := watchIn(t, l.Server, WatchOptions{Port: 8080})
	hold := func(n *lab.Namespace, mark int, to string) {
		t.Helper()
		n.Do(func() {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			if mark != 0 {
				_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark)
			}
			_ = unix.Connect(fd, sockaddr(netip.MustParseAddrPort(to)))
		})
	}
	hold(l.Server, 0, "127.0.0.1:8080")                    // over lo
	hold(l.Server, 0, "10.9.0.2:8080")                     // to itself, over lo as well
	hold(l.Client, 0, "10.77.0.2:8080")                    // by a bridge and its port: dropped
	hold(l.Server, 0, "10.9.0.1:8080")                     // this host as a client
	hold(l.Client, 1, l.ContainerAddr(0).String()+":8080") // forwarded
	time.Sleep(1500 * time.Millisecond)
	r := w.end(t)
	var got []string
	for _, g := range r.Sightings {
		got = append(got, fmt.Sprintf("%s %s %s %d", g.To, g.Interface, g.Ended, g.SYN))
	}
	slices.Sort(got)
	want := []string{"10.77.0.2:8080 wide dropped 2", "10.9.0.2:8080 lo served 1", "127.0.0.1:8080 lo served 1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if r.Passing != 1 {
		t.Errorf("%d passed through, want 1", r.Passing)
	}
}

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
		for _, o := range l.ProbeOnce(t, 2*time.Second, ps...) {
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
	var ps []lab.Probe
	for range 50 {
		ps = append(ps, tcpProbe(l, ""))
	}
	l.ProbeOnce(t, 300*time.Millisecond, ps...) // a SYN in and a RST out each
	got := len(tap.Read())
	lost, err := tap.Lost()
	if err != nil || got == 0 || got+int(lost) != 100 {
		t.Errorf("%d read, %d lost, %v: want 100 together", got, lost, err)
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

// TestWatchPrivilege: without CAP_NET_RAW there is a reason, and no half answer.
func TestWatchPrivilege(t *testing.T) {
	lab.Need(t)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its reduced rights
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			done <- err
			return
		}
		data[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			done <- err
			return
		}
		_, err := Watch(context.Background(), WatchOptions{Proto: unix.IPPROTO_TCP, Port: 8080, For: time.Second, Read: hostReader})
		done <- err
	}()
	if err := <-done; !errors.Is(err, ErrNoTap) {
		t.Errorf("%v", err)
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
