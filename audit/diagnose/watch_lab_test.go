package diagnose

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// watching is a watch that runs in a namespace.
type watching struct {
	cancel context.CancelFunc
	done   chan struct{}
	told   chan *Sighting // as they are told; beyond its room they are dropped
	report *WatchReport
	err    error
}

// aloneReader reads a host without the namespaces of other tests, of which there
// are many at a time.
func aloneReader(ctx context.Context, ask []netip.Addr) (*audit.Snapshot, error) {
	return collect.Host(ctx, collect.Options{Quick: true, NoCensus: true, Ask: ask, MaxNamespaces: 1})
}

func hostReader(ctx context.Context, ask []netip.Addr) (*audit.Snapshot, error) {
	return collect.Host(ctx, collect.Options{Quick: true, NoCensus: true, Ask: ask})
}

// watchIn starts a watch in a namespace, and returns when it has begun.
func watchIn(t *testing.T, n *lab.Namespace, o WatchOptions) *watching {
	t.Helper()
	return watchWith(t, n, o, aloneReader)
}

// watchWith is watchIn with another way of reading the host.
func watchWith(t *testing.T, n *lab.Namespace, o WatchOptions, read func(context.Context, []netip.Addr) (*audit.Snapshot, error)) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{cancel: cancel, done: make(chan struct{}), told: make(chan *Sighting, 1024)}
	began := make(chan struct{})
	if o.Proto == 0 {
		o.Proto = unix.IPPROTO_TCP
	}
	if o.For == 0 {
		o.For = 10 * time.Minute // tests end it themselves
	}
	o.Read = read
	o.Began = func(*WatchReport) { close(began) }
	o.Each = func(g *Sighting) {
		select {
		case w.told <- g:
		default:
		}
	}
	go func() {
		defer close(w.done)
		n.Do(func() { w.report, w.err = Watch(ctx, o) })
	}()
	t.Cleanup(func() { cancel(); <-w.done })
	select {
	case <-began:
	case <-w.done:
		t.Fatalf("watch: %v", w.err)
	}
	time.Sleep(250 * time.Millisecond) // some quiet, which the counters are held against
	return w
}

// wait waits until so many attempts have been told.
func (w *watching) wait(t *testing.T, n int) {
	t.Helper()
	limit := time.After(time.Minute)
	for range n {
		select {
		case <-w.told:
		case <-limit:
			t.Fatalf("%d attempts were not told within a minute", n)
		}
	}
}

// end stops the watch and gives its report.
func (w *watching) end(t *testing.T) *WatchReport {
	t.Helper()
	w.cancel()
	<-w.done
	if w.err != nil {
		t.Fatal(w.err)
	}
	return w.report
}

// watchCase makes one cause for real, and says what is to be told of it.
type watchCase struct {
	name     string
	need     []string
	topology lab.Topology
	listen   []lab.Listen // nil: on 0.0.0.0 and [::]
	prepare  func(*testing.T, *lab.Lab)
	load     lab.Loader
	rules    string
	probe    lab.Probe
	twice    bool // a first attempt goes before the watch
	hold     bool // the client keeps its connection open for the wait
	six      bool // over IPv6
	wait     time.Duration
	// sees is what the client of the laboratory sees, for the truth of the case.
	sees   lab.Sight
	end    Ending
	id     ID
	sure   Verdict
	by     string // part of the witness's name
	says   string // part of the sentence
	proof  string // part of the evidence
	syns   int    // at least
	remedy bool
}

// watchCases are the rows of the table of fingerprints, and their relatives.
func watchCases() []watchCase {
	const dead = 8081
	port := func(p uint16) lab.Probe { return lab.Probe{Proto: lab.TCP, To: netip.AddrPortFrom(netip.Addr{}, p)} }
	udp := func(p uint16) lab.Probe { return lab.Probe{Proto: lab.UDP, To: netip.AddrPortFrom(netip.Addr{}, p)} }
	nft := func(hook, rule string) string {
		return fmt.Sprintf("table inet f { chain c { type filter hook %s; policy accept; %s; }; }", hook, rule)
	}
	filter := func(chain, rule string) string { return "*filter\n-A " + chain + " " + rule + "\nCOMMIT\n" }
	raw := func(rule string) string { return "*raw\n-A PREROUTING " + rule + "\nCOMMIT\n" }
	cs := []watchCase{
		{name: "healthy", probe: port(8080), hold: true, wait: 700 * time.Millisecond, end: EndServed, sure: Confirmed, says: "served by", proof: "socket: accepted", syns: 1},
		{name: "healthy under rules", need: []string{"nft"}, load: lab.NFT, rules: nft("input priority 0", "ct state established,related accept; tcp dport 8080 counter accept; counter drop"),
			probe: port(8080), hold: true, wait: 700 * time.Millisecond, end: EndServed, sure: Confirmed, says: "served by", proof: "socket: accepted", syns: 1},
		{name: "over at once", probe: port(8080), sees: lab.Connected, end: EndServed, sure: Confirmed, says: " pid ", syns: 1},
		{name: "no listener", probe: port(dead), sees: lab.Refused, end: EndClosed, id: NotListening, sure: Confirmed, says: "nothing listens", proof: "Tcp.OutRsts +1", syns: 1, remedy: true},
		{name: "input drop with counter", need: []string{"nft"}, load: lab.NFT, rules: nft("input priority 0", "tcp dport 8080 counter drop"), probe: port(8080), wait: 1300 * time.Millisecond,
			sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Confirmed, by: "nftables inet f c #1", proof: "counter of the rule: +2", syns: 2, remedy: true},
		{name: "input drop without counter", need: []string{"nft"}, load: lab.NFT, rules: nft("input priority 0", "tcp dport 8080 drop"), probe: port(8080), wait: 1300 * time.Millisecond,
			sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Confirmed, by: "nftables inet f c #1", proof: "dropped before the socket", syns: 2, remedy: true},
		{name: "policy drop", need: []string{"nft"}, load: lab.NFT, rules: "table inet f { chain c { type filter hook input priority 0; policy drop; tcp dport 22 accept; }; }", probe: port(8080),
			wait: 600 * time.Millisecond, sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Confirmed, by: "the policy of nftables inet f c", syns: 1, remedy: true},
		{name: "raw drop", need: []string{"nft"}, load: lab.NFT, rules: nft("prerouting priority raw", "tcp dport 8080 counter drop"), probe: port(8080), wait: 600 * time.Millisecond,
			sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Confirmed, by: "nftables inet f c #1", syns: 1, remedy: true},
		{name: "ingress drop with counter", need: []string{"nft"}, load: lab.NFT,
			rules: "table netdev f { chain c { type filter hook ingress device eth0 priority 0; policy accept; tcp dport 8080 counter drop; }; }", probe: port(8080), wait: 600 * time.Millisecond,
			sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Confirmed, by: "nftables netdev f c #1", proof: "dropped before the IP layer", syns: 1, remedy: true},
		{name: "ingress drop without counter", need: []string{"nft"}, load: lab.NFT,
			rules: "table netdev f { chain c { type filter hook ingress device eth0 priority 0; policy accept; tcp dport 8080 drop; }; }", probe: port(8080), wait: 600 * time.Millisecond,
			sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Confirmed, by: "nftables netdev f c #1", proof: "dropped before the IP layer", syns: 1, remedy: true},
		{name: "reject", need: []string{"nft"}, load: lab.NFT, rules: nft("input priority 0", "tcp dport 8080 counter reject"), probe: port(8080),
			sees: lab.Refused, end: EndRejected, id: RejectedByFirewall, sure: Confirmed, by: "nftables inet f c #1", proof: "port unreachable", syns: 1, remedy: true},
		{name: "reject with reset", need: []string{"nft"}, load: lab.NFT, rules: nft("input priority 0", "tcp dport 8080 reject with tcp reset"), probe: port(8080),
			sees: lab.Refused, end: EndRejected, id: RejectedByFirewall, sure: Confirmed, by: "nftables inet f c #1", proof: "Tcp.OutRsts +0", syns: 1, remedy: true},
		{name: "reject prohibited", need: []string{"nft"}, load: lab.NFT, rules: nft("input priority 0", "tcp dport 8080 reject with icmpx admin-prohibited"), probe: port(8080),
			sees: lab.Unreachable, end: EndRejected, id: RejectedByFirewall, sure: Confirmed, by: "nftables inet f c #1", proof: "prohibited", syns: 1, remedy: true},
		{name: "output drops the SYN-ACK", need: []string{"nft"}, load: lab.NFT, rules: nft("output priority 0", "tcp sport 8080 counter drop"), probe: port(8080), wait: 600 * time.Millisecond,
			sees: lab.Timeout, end: EndAnswerDrop, id: ReplyPath, sure: Confirmed, by: "nftables inet f c #1", syns: 1, remedy: true},
		{name: "accept queue full", listen: []lab.Listen{{Proto: lab.TCP, Addr: netip.MustParseAddrPort("[::]:8080"), Backlog: 1, Deaf: true}}, prepare: fillQueue, probe: port(8080),
			wait: 1300 * time.Millisecond, sees: lab.Timeout, end: EndQueueFull, id: QueueFull, sure: Confirmed, says: "full accept queue", proof: "ListenOverflows +2", syns: 2, remedy: true},
		{name: "not accepted", listen: []lab.Listen{{Proto: lab.TCP, Addr: netip.MustParseAddrPort("[::]:8080"), Backlog: 16, Deaf: true}}, probe: port(8080), wait: 3 * time.Second,
			hold: true, end: EndNotAccepted, id: QueueFull, sure: Confirmed, says: "does not accept", proof: "held by no process", syns: 1, remedy: true},
		{name: "no route back", prepare: noRouteBack, probe: port(8080), wait: 600 * time.Millisecond,
			sees: lab.Timeout, end: EndNoWayBack, id: ReplyPath, sure: Confirmed, says: "no route back", proof: "OutNoRoutes", syns: 1, remedy: true},
		{name: "the client never acknowledges", need: []string{"nft"}, prepare: deafClient, probe: port(8080), wait: 2700 * time.Millisecond,
			sees: lab.Timeout, end: EndAnswerLost, id: ReplyPath, sure: Confirmed, says: "lost after this host", proof: "no segment of the client", syns: 1, remedy: true},
		{name: "the acknowledgement is dropped here", need: []string{"nft"}, load: lab.NFT, rules: nft("input priority 0", "tcp dport 8080 tcp flags & (syn|ack) == ack counter drop"), probe: port(8080),
			hold: true, wait: 3 * time.Second, end: EndAckIgnored, id: HostFirewall, sure: Confirmed, by: "nftables inet f c #1", says: "what the client sends then is dropped", proof: "drops what follows the SYN", syns: 1, remedy: true},
		{name: "container by DNAT", need: []string{"nft"}, topology: lab.Topology{Containers: 1}, listen: []lab.Listen{}, prepare: publish(80), probe: port(8080), hold: true, wait: 1600 * time.Millisecond,
			end: EndServed, sure: Confirmed, says: "listens)", syns: 1},
		{name: "container by DNAT, dead port", need: []string{"nft"}, topology: lab.Topology{Containers: 1}, prepare: publish(81), probe: port(8080),
			sees: lab.Refused, end: EndClosed, id: NotListening, sure: Confirmed, says: "container0", syns: 1, remedy: true},
		{name: "redirect to a dead port", need: []string{"nft"}, load: lab.NFT, rules: "table inet n { chain c { type nat hook prerouting priority -100; tcp dport 8080 redirect to :8099; }; }",
			probe: port(8080), sees: lab.Refused, end: EndClosed, id: NotListening, sure: Confirmed, proof: "Tcp.OutRsts +1", syns: 1, remedy: true},
		{name: "datagram, healthy", probe: udp(8080), sees: lab.Connected, end: EndServed, sure: Confirmed, says: "served", syns: 1},
		{name: "datagram, no listener", probe: udp(dead), sees: lab.Refused, end: EndClosed, id: NotListening, sure: Confirmed, proof: "NoPorts +1", syns: 1, remedy: true},
		{name: "datagram, dropped", need: []string{"nft"}, load: lab.NFT, rules: nft("input priority 0", "udp dport 8080 counter drop"), probe: udp(8080),
			sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Confirmed, by: "nftables inet f c #1", syns: 1, remedy: true},
		{name: "datagram, rejected", need: []string{"nft"}, load: lab.NFT, rules: nft("input priority 0", "udp dport 8080 reject"), probe: udp(8080),
			sees: lab.Refused, end: EndRejected, id: RejectedByFirewall, sure: Confirmed, by: "nftables inet f c #1", proof: "NoPorts +0", syns: 1, remedy: true},
		{name: "datagram, not read", listen: []lab.Listen{{Proto: lab.UDP, Addr: netip.MustParseAddrPort("[::]:8080"), Deaf: true}}, probe: udp(8080),
			sees: lab.Timeout, end: EndNoAnswer, sure: Likely, says: "sent no answer", syns: 1},
	}
	// Both families of every case so far.
	for _, c := range cs[:len(cs):len(cs)] {
		if strings.Contains(c.proof, "dropped before") {
			c.proof = "" // neighbour discovery moves the counters as well
		}
		c.six, c.name = true, c.name+", IPv6"
		cs = append(cs, c)
	}
	cs = append(cs, []watchCase{
		{name: "a limit that is used up", need: []string{"nft"}, load: lab.NFT, rules: nft("input priority 0", "tcp dport 8080 limit rate over 1/hour burst 1 packets counter drop"), probe: port(8080),
			twice: true,
			wait:  600 * time.Millisecond, sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Likely, by: "nftables inet f c #1", syns: 1, remedy: true},
		{name: "panel's chain", need: []string{"iptables-legacy"}, load: lab.IPTablesLegacy, rules: "*filter\n:IN_BT - [0:0]\n-A INPUT -j IN_BT\n-A IN_BT -p tcp --dport 8080 -j DROP\nCOMMIT\n",
			probe: port(8080), wait: 600 * time.Millisecond, sees: lab.Timeout, end: EndDropped, id: PanelFirewall, sure: Confirmed, by: "iptables-legacy filter IN_BT #1", proof: "counter of the rule: +1", syns: 1, remedy: true},
		{name: "container by DNAT, dropped on the way", need: []string{"nft"}, topology: lab.Topology{Containers: 1}, prepare: publish(80), load: lab.NFT, rules: nft("forward priority 0", "oifname ctr0 counter drop"),
			probe: port(8080), wait: 600 * time.Millisecond, sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Confirmed, by: "nftables inet f c #1", proof: "counter of the rule: +1", syns: 1, remedy: true},
		{name: "container by DNAT, rejected on the way", need: []string{"nft"}, topology: lab.Topology{Containers: 1}, prepare: publish(80), load: lab.NFT, rules: nft("forward priority 0", "oifname ctr0 reject with tcp reset"),
			probe: port(8080), sees: lab.Refused, end: EndRejected, id: RejectedByFirewall, sure: Confirmed, by: "nftables inet f c #1", proof: "Tcp.OutRsts +0", syns: 1, remedy: true},
		{name: "container by DNAT, its answer dropped", need: []string{"nft"}, topology: lab.Topology{Containers: 1}, prepare: publish(80), load: lab.NFT, rules: nft("forward priority 0", "iifname ctr0 counter drop"),
			probe: port(8080), wait: 600 * time.Millisecond, sees: lab.Timeout, end: EndAnswerDrop, id: ReplyPath, sure: Confirmed, by: "nftables inet f c #1", syns: 1, remedy: true},
		{name: "bound to loopback", listen: []lab.Listen{{Proto: lab.TCP, Addr: netip.MustParseAddrPort("127.0.0.1:8080")}}, probe: port(8080),
			sees: lab.Refused, end: EndClosed, id: BindAddress, sure: Confirmed, says: "127.0.0.1:8080", proof: "Tcp.OutRsts +1", syns: 1, remedy: true},
		{name: "bound to IPv4 only", six: true, listen: []lab.Listen{{Proto: lab.TCP, Addr: netip.MustParseAddrPort("0.0.0.0:8080")}}, probe: port(8080),
			sees: lab.Refused, end: EndClosed, id: BindAddress, sure: Confirmed, says: "0.0.0.0:8080", syns: 1, remedy: true},
		{name: "reverse path filter", topology: lab.Topology{Links: 2}, prepare: func(t *testing.T, l *lab.Lab) { l.Server.Sysctl(t, "net.ipv4.conf.eth1.rp_filter", "1") },
			probe: lab.Probe{Proto: lab.TCP, From: netip.MustParseAddr("10.9.0.1"), Via: "eth1", To: netip.MustParseAddrPort("10.9.1.2:8080")}, wait: 600 * time.Millisecond,
			sees: lab.Timeout, end: EndRPFilter, id: ReplyPath, sure: Confirmed, says: "reverse path filter on eth1", proof: "IPReversePathFilter +", syns: 1, remedy: true},
		{name: "reset after the SYN-ACK", prepare: halfOpen, probe: lab.Probe{}, sees: lab.Timeout, end: EndGaveUp, sure: Confirmed, says: "the client reset it", syns: 1},
	}...)
	for _, six := range []bool{false, true} {
		x, suffix := lab.IPTablesLegacy, ""
		y := lab.IPTablesNFT
		port6, adm := "icmp-port-unreachable", "icmp-host-prohibited"
		admWord := "host prohibited"
		if six {
			x, y, suffix = lab.IP6TablesLegacy, lab.IP6TablesNFT, ", IPv6"
			port6, adm, admWord = "icmp6-port-unreachable", "icmp6-adm-prohibited", "administratively prohibited"
		}
		for _, front := range []struct {
			name   string
			loader lab.Loader
			need   string
			by     string
		}{{"legacy", x, "iptables-legacy", "iptables-legacy"}, {"iptables-nft", y, "iptables-nft", "iptables-nft"}} {
			by := front.by
			if six {
				by += " (IPv6)"
			}
			add := func(c watchCase) {
				c.name, c.need, c.load, c.six = front.name+" "+c.name+suffix, []string{front.need}, front.loader, six
				cs = append(cs, c)
			}
			add(watchCase{name: "input drop", rules: filter("INPUT", "-p tcp --dport 8080 -j DROP"), probe: port(8080), wait: 1300 * time.Millisecond,
				sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Confirmed, by: by + " filter INPUT #1", proof: "counter of the rule: +2", syns: 2, remedy: true})
			add(watchCase{name: "raw drop", rules: raw("-p tcp --dport 8080 -j DROP"), probe: port(8080), wait: 600 * time.Millisecond,
				sees: lab.Timeout, end: EndDropped, id: HostFirewall, sure: Confirmed, by: by + " raw PREROUTING #1", syns: 1, remedy: true})
			add(watchCase{name: "reject", rules: filter("INPUT", "-p tcp --dport 8080 -j REJECT --reject-with "+port6), probe: port(8080),
				sees: lab.Refused, end: EndRejected, id: RejectedByFirewall, sure: Confirmed, by: by + " filter INPUT #1", proof: "port unreachable", syns: 1, remedy: true})
			add(watchCase{name: "reject prohibited", rules: filter("INPUT", "-p tcp --dport 8080 -j REJECT --reject-with "+adm), probe: port(8080),
				sees: lab.Unreachable, end: EndRejected, id: RejectedByFirewall, sure: Confirmed, by: by + " filter INPUT #1", proof: admWord, syns: 1, remedy: true})
			add(watchCase{name: "reject with reset", rules: filter("INPUT", "-p tcp --dport 8080 -j REJECT --reject-with tcp-reset"), probe: port(8080),
				sees: lab.Refused, end: EndRejected, id: RejectedByFirewall, sure: Confirmed, by: by + " filter INPUT #1", proof: "Tcp.OutRsts +0", syns: 1, remedy: true})
			add(watchCase{name: "output drop", rules: filter("OUTPUT", "-p tcp --sport 8080 -j DROP"), probe: port(8080), wait: 600 * time.Millisecond,
				sees: lab.Timeout, end: EndAnswerDrop, id: ReplyPath, sure: Confirmed, by: by + " filter OUTPUT #1", syns: 1, remedy: true})
		}
	}
	return cs
}

// TestWatch makes every row of the table of counter fingerprints for real, over
// each front end and family it applies to, and holds what watch tells against what
// the client met. The healthy cases are the controls: in them nothing is accused.
func TestWatch(t *testing.T) {
	for _, c := range watchCases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

func (c *watchCase) run(t *testing.T) {
	lab.Need(t, c.need...)
	l := lab.New(t, c.topology)
	if c.listen == nil {
		c.listen = []lab.Listen{
			{Proto: lab.TCP, Addr: netip.MustParseAddrPort("[::]:8080")}, {Proto: lab.UDP, Addr: netip.MustParseAddrPort("[::]:8080")},
		}
	}
	if len(c.listen) > 0 {
		l.Server.Listen(t, c.listen...)
	}
	p := c.probe
	if !p.To.Addr().IsValid() {
		a := l.ServerAddr(0)
		if c.six {
			a = l.ServerAddr6(0)
		}
		p.To = netip.AddrPortFrom(a, max(p.To.Port(), 1))
	}
	if c.prepare != nil {
		c.prepare(t, l)
	}
	if c.rules != "" {
		l.Server.Load(t, c.load, c.rules)
	}
	if c.twice {
		if got := l.ProbeOnce(t, 300*time.Millisecond, p)[0]; got.ClientSees != lab.Connected {
			t.Fatalf("the first attempt: %v", got)
		}
	}
	o := WatchOptions{Port: p.To.Port()}
	if p.Proto == lab.UDP {
		o.Proto = unix.IPPROTO_UDP
	}
	if p.Proto == 0 {
		o.Port = 8080
	}
	read := aloneReader
	if c.topology.Containers > 0 {
		read = hostReader
	}
	w := watchWith(t, l.Server, o, read)
	switch {
	case p.Proto == 0:
		sendHalfOpen(t, l)
	case c.hold:
		held := dial(t, l.Client, p.To)
		defer unix.Close(held)
		time.Sleep(c.wait)
	default:
		if c.wait == 0 {
			c.wait = 300 * time.Millisecond
		}
		if strings.HasPrefix(c.name, "no route back") {
			p.From = netip.MustParseAddr("203.0.113.5")
			if c.six {
				p.From = netip.MustParseAddr("2001:db8::5")
			}
		}
		if got := l.ProbeOnce(t, c.wait, p)[0]; got.ClientSees != c.sees {
			t.Fatalf("the case is not what it says: %v, want %v", got, c.sees)
		}
	}
	time.Sleep(100 * time.Millisecond)
	r := w.end(t)
	if len(r.Sightings) != 1 || r.Attempts != 1 {
		t.Fatalf("%d attempts, %d told, want one: %s", r.Attempts, len(r.Sightings), r.Summary)
	}
	if testing.Verbose() {
		b, _ := json.MarshalIndent(r.Sightings[0], "", " ")
		t.Logf("%s\n%s", r.Summary, b)
	}
	c.check(t, r, r.Sightings[0])
}

// check compares what was told with what is true.
func (c *watchCase) check(t *testing.T, r *WatchReport, g *Sighting) {
	t.Helper()
	by, all := witnessName(g.DecidedBy), ""
	for _, e := range g.Evidence {
		all += e.Source + ": " + e.Value + "\n"
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s\nsentence %s\nby %s\n%sdisagreement %s\nsummary %s", fmt.Sprintf(format, args...), g.Sentence, by, all, g.Disagreement, r.Summary)
	}
	switch {
	case g.Ended != c.end:
		fail("ended %s, want %s", g.Ended, c.end)
	case g.Cause != c.id:
		fail("cause %q, want %q", g.Cause, c.id)
	case g.Verdict != c.sure:
		fail("verdict %s, want %s", g.Verdict, c.sure)
	case c.by != "" && by != c.by:
		fail("witness %q, want %q", by, c.by)
	case !strings.Contains(string(g.Sentence), c.says):
		fail("the sentence does not say %q", c.says)
	case !strings.Contains(all, c.proof):
		fail("the evidence lacks %q", c.proof)
	case g.SYN < c.syns:
		fail("%d questions, want %d", g.SYN, c.syns)
	case g.Disagreement != "":
		fail("it disagrees with the model")
	case c.end == EndServed && (r.Failed() > 0 || len(g.Conditions) > 0 || g.Remedy != ""):
		fail("something healthy is accused")
	case c.end == EndServed && g.DecidedBy != nil && g.DecidedBy.Kind != reach.ByOpen && g.DecidedBy.Kind != reach.ByRule:
		fail("decided by %s", g.DecidedBy.Kind)
	case c.remedy && (g.Remedy == "" || r.Remedy == ""):
		fail("no remedy")
	case c.id != "" && c.by != "" && !strings.Contains(string(r.Summary), c.by):
		fail("the summary does not name %s", c.by)
	case len(r.Incomplete) > 0 && !onlyPrograms(r):
		fail("incomplete: %v", r.Incomplete)
	}
}

// onlyPrograms: without all privileges programs cannot be listed, which is said.
func onlyPrograms(r *WatchReport) bool {
	for _, g := range r.Incomplete {
		if g.What != "programs" {
			return false
		}
	}
	return true
}
