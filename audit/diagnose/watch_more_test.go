package diagnose

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
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
	// read is told when each reading of the host began that is over.
	read := make(chan time.Time, 1000)
	w := watchWith(t, l.Server, WatchOptions{Port: 8080, For: 10 * time.Minute}, func(ctx context.Context, ask []netip.Addr) (*audit.Snapshot, error) {
		began := time.Now()
		s, err := aloneReader(ctx, ask)
		read <- began
		return s, err
	})
	step := func(from string, sees lab.Sight) {
		t.Helper()
		if got := l.ProbeOnce(t, 900*time.Millisecond, tcpProbe(l, from))[0]; got.ClientSees != sees {
			t.Fatal(got)
		}
		w.wait(t, 1)
	}
	step("10.9.0.60", lab.Connected)
	l.Server.Load(t, lab.NFT, "table inet f { chain c { type filter hook input priority 0; tcp dport 8080 counter drop; }; }")
	changed := time.Now()
	limit := time.After(time.Minute)
	for began := (time.Time{}); began.Before(changed); { // a change of nf_tables is noticed by itself
		select {
		case began = <-read:
		case <-limit:
			t.Fatal("the change is not noticed")
		}
	}
	step("10.9.0.61", lab.Timeout)
	l.Server.Load(t, lab.NFT, "flush ruleset")
	l.Server.Load(t, lab.IPTablesLegacy, "*filter\n-A INPUT -p tcp --dport 8080 -j DROP\nCOMMIT\n")
	fd := dial(t, l.Client, netip.AddrPortFrom(l.ServerAddr(0), 8080))
	defer unix.Close(fd)
	w.wait(t, 1)
	l.Server.Load(t, lab.IPTablesLegacy, "*filter\nCOMMIT\n")
	w.wait(t, 1) // its next SYN gets through
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
	w := watchWith(t, l.Server, WatchOptions{Port: 8080}, hostReader)
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

// TestWatchDescriptors: a server at its limit of descriptors: the kernel completes
// the handshake, nobody accepts, and the reason is named.
func TestWatchDescriptors(t *testing.T) {
	t.Parallel()
	lab.Need(t, "perl", "prlimit")
	l := lab.New(t, lab.Topology{})
	cmd := exec.Command("prlimit", "--nofile=12:12", "perl", "-MIO::Socket::INET", "-e",
		`my $s = IO::Socket::INET->new(Listen => 50, LocalAddr => "0.0.0.0:8080", ReuseAddr => 1) or die; my @c;
		while (1) { my $c = $s->accept; if ($c) { push @c, $c } else { select(undef, undef, undef, 0.05) } }`)
	if err := l.Server.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	to := netip.AddrPortFrom(l.ServerAddr(0), 8080)
	ready := false
	for range 100 { // until it listens
		if o := l.ProbeOnce(t, 200*time.Millisecond, tcpProbe(l, ""))[0]; o.ClientSees == lab.Connected {
			ready = true
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !ready {
		t.Fatal("the server does not listen")
	}
	for range 15 { // more than it has descriptors for
		fd := dial(t, l.Client, to)
		t.Cleanup(func() { unix.Close(fd) })
	}
	time.Sleep(300 * time.Millisecond)
	w := watchIn(t, l.Server, WatchOptions{Port: 8080})
	fd := dial(t, l.Client, to)
	defer unix.Close(fd)
	time.Sleep(3 * time.Second)
	r := w.end(t)
	if len(r.Sightings) != 1 {
		t.Fatal(r.Summary)
	}
	g := r.Sightings[0]
	if ev := fmt.Sprint(g.Evidence); g.Ended != EndNotAccepted || g.Cause != QueueFull || !strings.Contains(ev, "of 12 open") || !strings.Contains(string(g.Sentence), "perl pid") {
		t.Errorf("ended %s, cause %s, %s: %s", g.Ended, g.Cause, g.Sentence, ev)
	}
}
