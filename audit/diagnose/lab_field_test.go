package diagnose_test

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/report"
)

// The hosts of the field: a client and a server in networks of their own, and a
// router between them that is everything that may stand between two hosts.
//
//	client eth0 203.0.113.10/24 – in  router out – eth0 198.51.100.20/24 server
//	            2001:db8:1::10/64                       2001:db8:2::20/64
const (
	clientIP  = "203.0.113.10"
	clientIP6 = "2001:db8:1::10"
	serverIP  = "198.51.100.20"
	serverIP6 = "2001:db8:2::20"
	routerIP  = "203.0.113.1" // towards the client, where its name server is
)

// field is a laboratory with throw-away roots of configuration files.
type field struct {
	client, router, server *lab.Namespace
	lab                    *lab.Lab
	clientRoot, serverRoot string
	// sample is how long counters are watched, 0 for not at all.
	sample time.Duration
	open   []*lab.Listeners
	// whole: namespaces beside the field's three are looked into. The laboratories
	// of other tests are no part of a field, and there are many at a time.
	whole bool
}

// reading are the options of a reading of one of the hosts.
func (f *field) reading(root string) collect.Options {
	o := collect.Options{Root: root, Quick: f.sample == 0, Sample: f.sample, MaxNamespaces: 1}
	if f.whole {
		o.MaxNamespaces = 0
	}
	return o
}

func newField(t *testing.T) *field {
	t.Helper()
	lab.Need(t, "ip", "nft")
	l := lab.New(t, lab.Topology{})
	f := &field{lab: l, client: l.Add(t, "caller"), router: l.Add(t, "router"), server: l.Add(t, "callee"), clientRoot: newRoot(t), serverRoot: newRoot(t)}
	p := netip.MustParsePrefix
	l.Join(t, lab.End{In: f.client, Interface: "eth0", Addrs: []netip.Prefix{p(clientIP + "/24"), p(clientIP6 + "/64")}},
		lab.End{In: f.router, Interface: "in", Addrs: []netip.Prefix{p(routerIP + "/24"), p("2001:db8:1::1/64")}})
	l.Join(t, lab.End{In: f.server, Interface: "eth0", Addrs: []netip.Prefix{p(serverIP + "/24"), p(serverIP6 + "/64")}},
		lab.End{In: f.router, Interface: "out", Addrs: []netip.Prefix{p("198.51.100.1/24"), p("2001:db8:2::1/64")}})
	ip(t, f.client, "route add default via "+routerIP)
	ip(t, f.client, "-6 route add default via 2001:db8:1::1")
	ip(t, f.server, "route add default via 198.51.100.1")
	ip(t, f.server, "-6 route add default via 2001:db8:2::1")
	f.router.Sysctl(t, "net.ipv4.ip_forward", "1", "net.ipv6.conf.all.forwarding", "1")
	return f
}

func ip(t *testing.T, n *lab.Namespace, args string) {
	t.Helper()
	n.Run(t, append([]string{"ip"}, strings.Fields(args)...)...)
}

// newRoot is a root with what every host has.
func newRoot(t *testing.T) string {
	dir := t.TempDir()
	write(t, dir, "etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
	write(t, dir, "etc/resolv.conf", "nameserver "+routerIP+"\n")
	return dir
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	name = filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func port(addr string) netip.AddrPort { return netip.MustParseAddrPort(addr) }

// listen opens a TCP listener that accepts everything.
func (f *field) listen(t *testing.T, n *lab.Namespace, addrs ...string) {
	t.Helper()
	for _, a := range addrs {
		f.open = append(f.open, n.Listen(t, lab.Listen{Proto: lab.TCP, Addr: port(a)}))
	}
}

// stop ends every listener.
func (f *field) stop() {
	for _, l := range f.open {
		l.Close()
	}
	f.open = nil
}

// places are where a diagnosis is made.
type place string

const (
	onServer place = "on the server" // with the client's address
	onClient place = "on the client"
	withBoth place = "on the client, with the server's snapshot"
)

// ask makes a diagnosis as the command does.
func (f *field) ask(t *testing.T, at place, target string, o diagnose.Options) *diagnose.Report {
	t.Helper()
	var err error
	if o.Target, err = diagnose.ParseTarget(target); err != nil {
		t.Fatal(err)
	}
	in := f.client
	o.Files.Root = f.clientRoot
	switch at {
	case onServer:
		in, o.Files.Root, o.Side = f.server, f.serverRoot, diagnose.SideServer
		if !o.From.IsValid() && o.Message == "" {
			o.From = netip.MustParseAddr(clientIP)
			if strings.Contains(target, "[") {
				o.From = netip.MustParseAddr(clientIP6)
			}
		}
	case withBoth:
		if o.Side = diagnose.SideClient; o.Server == nil {
			o.Server = f.snapshot(t, f.server)
		}
	default:
		o.Side = diagnose.SideClient
	}
	if o.Limit == 0 {
		o.Limit = 1200 * time.Millisecond
	}
	if o.Config == nil {
		o.Config = &audit.Config{}
	}
	var r *diagnose.Report
	in.Do(func() {
		o.Here, err = collect.Host(t.Context(), f.reading(o.Files.Root))
		if err != nil {
			return
		}
		o.Now = time.Now()
		r = diagnose.Judge(diagnose.Gather(t.Context(), o))
	})
	if err != nil {
		t.Fatal(err)
	}
	sound(t, r, at)
	return r
}

// snapshot is what `hostaudit snapshot` on a host gives, read again.
func (f *field) snapshot(t *testing.T, n *lab.Namespace) *audit.Snapshot {
	t.Helper()
	var b bytes.Buffer
	var err error
	n.Do(func() {
		var c *collect.Capture
		if _, c, err = collect.Record(t.Context(), f.reading(f.serverRoot)); err == nil {
			err = collect.Save(&b, c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := collect.Load(&b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// text is an answer as it is printed.
func text(t *testing.T, r *diagnose.Report) string {
	t.Helper()
	var b strings.Builder
	if err := report.DiagnoseText(&b, r, report.Options{Width: 80}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// otherSide are causes that only the other side can decide: never confirmed from
// one side alone.
var otherSide = map[place][]diagnose.ID{
	onServer: {diagnose.CloudGroup, diagnose.HostDown},
	onClient: {
		diagnose.HostFirewall, diagnose.NotListening, diagnose.BindAddress, diagnose.WrongPort, diagnose.QueueFull, diagnose.ConntrackFull, diagnose.PanelFirewall,
		diagnose.CloudGroup,
	},
	withBoth: {diagnose.CloudGroup},
}

// sound holds an answer to what every answer is.
func sound(t *testing.T, r *diagnose.Report, at place) {
	t.Helper()
	if len(r.Causes) != 23 {
		t.Errorf("%s: %d causes", at, len(r.Causes))
	}
	for _, c := range r.Causes {
		if len(c.Evidence) == 0 || c.Accused() && c.Remedy == "" {
			t.Errorf("%s: %s %s without evidence or remedy", at, c.ID, c.Verdict)
		}
		if c.Verdict == diagnose.Confirmed && slices.Contains(otherSide[at], c.ID) {
			t.Errorf("%s: %s confirmed, which only the other side can decide\n%s", at, c.ID, text(t, r))
		}
	}
	for line := range strings.Lines(text(t, r)) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > 80 {
			t.Errorf("%s: wider than 80 columns: %q", at, line)
		}
	}
}

// blames demands that a cause comes first, with one of the verdicts.
func blames(t *testing.T, r *diagnose.Report, at place, id diagnose.ID, verdicts ...diagnose.Verdict) {
	t.Helper()
	first := r.Causes[0]
	if first.ID != id || !slices.Contains(verdicts, first.Verdict) {
		t.Errorf("%s: %s %s comes first, want %s %v\n%s", at, first.ID, first.Verdict, id, verdicts, text(t, r))
	}
}

// open demands that nothing is accused and that the cause is not ruled out: what
// one side alone cannot tell.
func open(t *testing.T, r *diagnose.Report, at place, sees diagnose.Sees, ids ...diagnose.ID) {
	t.Helper()
	for _, c := range r.Causes {
		if c.Accused() {
			t.Errorf("%s: %s %s, which cannot be told\n%s", at, c.ID, c.Verdict, text(t, r))
		}
	}
	for _, id := range ids {
		if c := r.Cause(id); c.Verdict != diagnose.CannotTell {
			t.Errorf("%s: %s is %s, want it left open\n%s", at, id, c.Verdict, text(t, r))
		}
	}
	if r.ClientSees != sees {
		t.Errorf("%s: the client sees %s, want %s\n%s", at, r.ClientSees, sees, text(t, r))
	}
}

// clear demands that nothing is accused of anything.
func clear_(t *testing.T, r *diagnose.Report, at place) {
	t.Helper()
	open(t, r, at, diagnose.Connected)
}

// case_ is one cause made for real.
type case_ struct {
	name, target string
	// make produces the cause in a healthy field, in which target is served.
	make func(t *testing.T, f *field)
	// want says what comes first, by place.
	want map[place]want
	o    diagnose.Options
	// healthy makes the twin, nil for the service on every address.
	healthy func(t *testing.T, f *field)
	// sample is how long counters are watched.
	sample time.Duration
	// earlier: the server's snapshot was taken before the cause came about.
	earlier bool
	// says are words that the answer on the server has.
	says string
	// not are words that no answer has.
	not string
}

type want struct {
	id       diagnose.ID
	verdicts []diagnose.Verdict
	sees     diagnose.Sees
	open     []diagnose.ID // left open, nothing accused
}

func surely(id diagnose.ID, sees diagnose.Sees) want {
	return want{id: id, verdicts: []diagnose.Verdict{diagnose.Confirmed}, sees: sees}
}

func perhaps(id diagnose.ID, sees diagnose.Sees) want {
	return want{id: id, verdicts: []diagnose.Verdict{diagnose.Likely}, sees: sees}
}

func untold(sees diagnose.Sees, ids ...diagnose.ID) want { return want{sees: sees, open: ids} }

// prove asks from every place before the cause is made, when nothing may be
// accused, and after.
func (c case_) prove(t *testing.T) {
	t.Run(c.name, func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		f.sample = c.sample
		if c.healthy == nil {
			c.healthy = serves
		}
		c.healthy(t, f)
		var order []place
		for _, at := range []place{onServer, onClient, withBoth} {
			if _, ok := c.want[at]; ok {
				order = append(order, at)
			}
		}
		for _, at := range order {
			clear_(t, f.ask(t, at, c.target, c.o), at)
		}
		if t.Failed() {
			t.Fatal("the healthy twin is accused")
		}
		o := c.o
		if c.earlier {
			o.Server = f.snapshot(t, f.server)
		}
		c.make(t, f)
		for _, at := range order {
			w := c.want[at]
			if c.o = o; at != withBoth {
				c.o.Server = nil
			}
			r := f.ask(t, at, c.target, c.o)
			if r.ClientSees != w.sees {
				t.Errorf("%s: the client sees %s, want %s\n%s", at, r.ClientSees, w.sees, text(t, r))
			}
			if w.id != "" {
				blames(t, r, at, w.id, w.verdicts...)
			} else {
				open(t, r, at, w.sees, w.open...)
			}
			if s := flat(t, r); at == onServer && !strings.Contains(s, c.says) {
				t.Errorf("no %q in\n%s", c.says, text(t, r))
			} else if c.not != "" && strings.Contains(s, c.not) {
				t.Errorf("%s: %q in\n%s", at, c.not, text(t, r))
			}
			keep(t, c.name+" "+string(at), r)
		}
	})
}

var kept sync.Mutex

// keep appends an answer to the file that LAB_SCREENS names, for reading.
func keep(t *testing.T, name string, r *diagnose.Report) {
	t.Helper()
	file := os.Getenv("LAB_SCREENS")
	if file == "" {
		return
	}
	kept.Lock()
	defer kept.Unlock()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("=== " + t.Name() + ": " + name + "\n" + text(t, r) + "\n"); err != nil {
		t.Fatal(err)
	}
}

// child starts this binary in another role inside a namespace, and waits until it
// says that it is ready.
func child(t *testing.T, n *lab.Namespace, env []string, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(append(os.Environ(), "DIAGNOSE_TEST_ROLE="+role), env...)
	start(t, n, cmd)
	return cmd
}

// start starts a program inside a namespace, and waits until it says that it is
// ready.
func start(t *testing.T, n *lab.Namespace, cmd *exec.Cmd) {
	t.Helper()
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%q did not start: %v", cmd.Args, err)
	}
}

// hold opens connections and keeps them until the test ends; those that do not
// come about within wait are kept half open.
func hold(t *testing.T, n *lab.Namespace, to string, count int, wait time.Duration) (connected int) {
	t.Helper()
	n.Do(func() {
		for range count {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { unix.Close(fd) })
			ap := port(to)
			_ = unix.Connect(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()})
			set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			if n, _ := unix.Poll(set, int(wait.Milliseconds())); n == 1 && set[0].Revents&(unix.POLLERR|unix.POLLHUP) == 0 {
				connected++
			}
		}
	})
	return connected
}
