package route

import (
	"bytes"
	"encoding/json"
	"flag"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

var update = flag.Bool("update", false, "write testdata again")

const fixture = "testdata/capture.json"

// TestUpdateFixture writes the capture that the offline tests read.
func TestUpdateFixture(t *testing.T) {
	if !*update {
		t.Skip("only with -update")
	}
	l := lab.New(t, lab.Topology{})
	w := build(t, l, 4242, true)
	b, err := json.MarshalIndent(settle(t, w.ns), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fixture, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB) *Capture {
	t.Helper()
	b, err := os.ReadFile(fixture)
	if err != nil {
		t.Fatal(err)
	}
	c := new(Capture)
	if err := json.Unmarshal(b, c); err != nil {
		t.Fatal(err)
	}
	return c
}

func decode(t testing.TB, c *Capture) *Table {
	t.Helper()
	table, err := Decode(c)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestReplay decodes a saved capture: no namespace, no root.
func TestReplay(t *testing.T) {
	table := decode(t, load(t))
	if len(table.Gaps) > 0 {
		t.Errorf("gaps: %v", table.Gaps)
	}
	var lines []string
	for _, r := range slices.Concat(table.Rules4, table.Rules6) {
		lines = append(lines, r.String())
	}
	for _, r := range table.Routes {
		lines = append(lines, r.String())
	}
	for _, a := range table.Addrs {
		lines = append(lines, a.String())
	}
	for _, f := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
		for _, l := range table.LocalAddrs(f) {
			for _, p := range l.Addrs.AddrPrefixes(f) {
				lines = append(lines, "local "+p.String()+" on "+l.Link.Name)
			}
		}
		for _, p := range table.Output(Key{Family: f}, firewall.All(f.AddrLen()), firewall.Value{}, nil) {
			lines = append(lines, f.String()+" "+brief(&p.Verdict)+" "+p.Addrs.String())
		}
	}
	got := strings.Join(lines, "\n") + "\n"
	const golden = "testdata/replay.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Error(d)
	}
}

// TestGaps takes one thing after the other out of a capture. What is missing is
// named, and no answer turns from one sure one into another.
func TestGaps(t *testing.T) {
	whole := decode(t, load(t))
	for name := range load(t).Blobs {
		t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
			for _, how := range []string{"error", "gone"} {
				c := load(t)
				if c.Blobs[name].Absent {
					return
				}
				delete(c.Blobs, name)
				if how == "error" {
					c.Blobs[name] = Blob{Err: "permission denied"}
				}
				table, err := Decode(c)
				if name == blobLinks || name == blobAddrs {
					if err == nil {
						t.Fatal("decoded without it")
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				quiet := name == blobTrieStat || name == blobProbe || name == osRelease
				if len(table.Gaps) == 0 && !quiet {
					t.Error("no gap is named")
				}
				compareSure(t, whole, table)
			}
		})
	}
}

// compareSure demands that less does not say something else than more does.
func compareSure(t *testing.T, more, less *Table) {
	t.Helper()
	for _, f := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
		all := firewall.All(f.AddrLen())
		var dst firewall.Value
		for _, a := range more.Addrs {
			if a.Family == f && !a.Local.IsLoopback() {
				dst = a.value()
			}
		}
		k := Key{Family: f, Proto: firewall.TCP, Sport: firewall.Single(firewall.Num(4000)), Dport: firewall.Single(firewall.Num(80))}
		for _, l := range more.Links {
			sameOrUnknown(t, more.Input(k, all, dst, l.Link), less.Input(k, all, dst, l.Link))
			sameOrUnknown(t, more.InputTo(k, dst, all, l.Link), less.InputTo(k, dst, all, l.Link))
		}
		sameOrUnknown(t, more.Output(k, all, dst, nil), less.Output(k, all, dst, nil))
	}
}

func sameOrUnknown(t *testing.T, more, less []Part) {
	t.Helper()
	for _, p := range more {
		for _, q := range less {
			if q.Kind == Unknown || p.Addrs.Intersect(q.Addrs).Empty() {
				continue
			}
			a, b := brief(&p.Verdict), brief(&q.Verdict)
			if p.Kind == Unknown || a != b {
				t.Errorf("%s: with everything %s, with less %s", p.Addrs.Intersect(q.Addrs), a, b)
			}
		}
	}
}

// TestChanging reads a namespace whose routes never come to rest: the capture
// decodes, or says what it could not do, and at rest it has no gap.
func TestChanging(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		h := l.Server.Netlink()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			r := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4(198, 51, 100, byte(i)), Mask: net.CIDRMask(32, 32)}, LinkIndex: 1}
			_ = h.RouteAdd(r)
			_ = h.RouteDel(r)
		}
	}()
	// The changes have to fall into four readings in a row; try until they do.
	gaps := 0
	for range 5000 {
		var c *Capture
		var err error
		l.Server.Do(func() { c, err = Acquire(t.Context()) })
		if err != nil {
			t.Fatal(err)
		}
		if gaps += len(decode(t, c).Gaps); gaps > 0 {
			break
		}
	}
	close(stop)
	<-done
	if gaps == 0 {
		t.Error("no change was noticed")
	}
	readTable(t, l.Server)
}

// TestVRF: a namespace with a VRF is not modelled, and says so.
func TestVRF(t *testing.T) {
	table := decode(t, load(t))
	in := table.LinkByName("v0")
	in.Master = &firewall.Link{Index: 900, Name: "red", Kind: "vrf"}
	table.hasVRF = true
	k := Key{Family: firewall.IPv4}
	for _, parts := range [][]Part{
		table.Input(k, firewall.All(4), value("10.0.0.1"), in.Link),
		table.Output(k, firewall.All(4), firewall.Value{}, in.Link),
	} {
		if len(parts) != 1 || parts[0].Kind != Unknown || !strings.Contains(parts[0].Unknown, "red") {
			t.Errorf("%+v", parts)
		}
	}
}

func TestIifFor(t *testing.T) {
	l := lab.New(t, lab.Topology{Links: 2})
	table := readTable(t, l.Server)
	for _, c := range [][2]string{
		{"10.9.0.77", "eth0"}, {"10.9.1.77", "eth1"}, {"10.9.1.2", "lo"}, {"127.0.0.1", "lo"}, {"fd00:9:1::77", "eth1"}, {"fe80::1%eth1", "eth1"},
		{"::1", "lo"}, {"::ffff:10.9.1.77", "eth1"},
	} {
		got := table.IifFor(netip.MustParseAddr(c[0]))
		if got == nil || got.Name != c[1] {
			t.Errorf("%s: %v, want %s", c[0], got, c[1])
		}
	}
	if got := table.IifFor(netip.MustParseAddr("fe80::1%nothere")); got != nil {
		t.Errorf("a zone that is not there: %v", got)
	}
}

// FuzzDecode: whatever the bytes, Decode returns, and what it returns answers.
func FuzzDecode(f *testing.F) {
	c := load(f)
	names := []string{blobLinks, blobAddrs, blobRoutes4, blobRoutes6, blobRules4, blobRules6, blobNeighs6, blobNexthops, blobLabels, blobTrieStat, blobProbe}
	for i, n := range names {
		f.Add(uint8(i), c.Blobs[n].Data, false)
	}
	f.Add(uint8(2), bytes.Repeat([]byte{0xff}, 64), true)
	f.Fuzz(func(t *testing.T, which uint8, data []byte, bigEndian bool) {
		c := load(t)
		c.BigEndian = bigEndian
		c.Blobs[names[int(which)%len(names)]] = Blob{Data: data}
		table, err := Decode(c)
		if err != nil {
			return
		}
		for _, r := range table.Routes {
			_ = r.String()
		}
		for _, r := range slices.Concat(table.Rules4, table.Rules6) {
			_ = r.String()
		}
		for _, fam := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
			all := firewall.All(fam.AddrLen())
			for _, l := range table.Links {
				checkCover(t, all, table.Input(Key{Family: fam}, all, value("10.0.0.1"), l.Link))
				table.MasqueradeAddr(fam, l.Link, value("10.0.0.1"))
			}
			checkCover(t, all, table.Output(Key{Family: fam}, all, firewall.Value{}, nil))
			table.AddrType(fam, all, nil)
			table.FIBOut(all, FIBQuery{Key: Key{Family: fam}})
			table.RPFilter(fam, all, table.lo.Link, 0, 0, firewall.Value{})
			table.LocalAddrs(fam)
		}
	})
}

// TestConf holds the values that come with the links against /proc/sys.
func TestConf(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	w := build(t, l, 77, false)
	table := w.read(t)
	asked := 0
	for f, keys := range confKeys {
		for key := range keys {
			for _, link := range table.Links {
				got, name, ok := link.Conf(f, key)
				data, err := w.ns.ReadFile("/proc/sys/" + strings.Join([]string{"net", map[firewall.Family]string{firewall.IPv4: "ipv4", firewall.IPv6: "ipv6"}[f], "conf", link.Name, key}, "/"))
				if err != nil || !ok {
					if (err == nil) != ok {
						t.Errorf("%s of %s: read %v, in the model %v", key, link.Name, err, ok)
					}
					continue
				}
				asked++
				if want := strings.TrimSpace(string(data)); want != strconv.Itoa(got) {
					t.Errorf("%s is %s, the model says %d", name, want, got)
				}
			}
		}
	}
	if asked < 100 {
		t.Errorf("only %d values compared", asked)
	}
}
