package route

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "seed of the random namespaces, 0 for a new one")
	worldsFlag = flag.Int("worlds", 12, "number of random namespaces")
)

// count keeps the books of a differential test.
type count struct {
	asked, unknown, wrong int
	kinds                 map[string]int
}

// TestAgainstKernel builds random namespaces and holds every answer of the model
// against the kernel's own (RTM_GETROUTE), in both families and directions.
func TestAgainstKernel(t *testing.T) {
	lab.Need(t, "ipv6")
	base := *seedFlag
	if base == 0 {
		base = uint64(time.Now().UnixNano() % 1e9)
	}
	t.Logf("seed %d (-seed %d runs it again)", base, base)
	c := &count{kinds: map[string]int{}}
	for i := range uint64(*worldsFlag) {
		seed := base + i
		t.Run(fmt.Sprint(seed), func(t *testing.T) { differ(t, seed, c) })
	}
	t.Logf("%d questions, %d unknown, %d wrong: %v", c.asked, c.unknown, c.wrong, c.kinds)
	if c.asked < 3000 {
		t.Errorf("only %d questions", c.asked)
	}
	if c.unknown*20 > c.asked {
		t.Errorf("%d of %d unknown", c.unknown, c.asked)
	}
	for _, k := range []string{"in ip local", "in ip forward", "in ip drop", "in ip6 local", "in ip6 forward", "in ip6 drop",
		"out ip send", "out ip local", "out ip fail", "out ip6 send", "out ip6 local", "out ip6 fail"} {
		if c.kinds[k] == 0 {
			t.Errorf("never seen: %s", k)
		}
	}
}

func differ(t *testing.T, seed uint64, c *count) {
	l := lab.New(t, lab.Topology{})
	w := build(t, l, seed, seed%3 != 0)
	table := w.read(t)
	defer func() {
		if t.Failed() {
			t.Logf("seed %d\n%s", seed, w.dump(t))
		}
	}()
	var s *rtnetlink
	var err error
	w.ns.Do(func() { s, err = openRTNetlink() })
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for range 60 {
		for _, f := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
			w.askInput(t, table, s, f, c)
			w.askOutput(t, table, s, f, c)
			if t.Failed() {
				return // one disagreement is enough to look into
			}
		}
	}
}

func brief(v *Verdict) string {
	text := v.Kind.String()
	if v.Why != NoReason {
		text += " " + v.Why.String()
	}
	for _, h := range v.Hops {
		text += fmt.Sprintf(" [%s %s]", h.Link.Name, h.Gateway)
	}
	return text + fmt.Sprintf(" %s (%s; %s) %s", v.Errno, v.Witness.Text, v.Detail, v.Unknown)
}

func (w *world) dump(t *testing.T) string {
	out := ""
	for _, argv := range [][]string{
		{"ip", "-o", "link"}, {"ip", "-o", "addr"}, {"ip", "nexthop"}, {"ip", "rule"}, {"ip", "-6", "rule"}, {"ip", "-4", "route", "show", "table", "all"},
		{"ip", "-6", "route", "show", "table", "all"},
		{"sh", "-c", "grep . /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/conf/*/accept_local /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv6/conf/all/forwarding; cat /proc/net/fib_triestat"},
	} {
		text, err := w.ns.Exec(t.Context(), "", argv...)
		out += fmt.Sprintln(argv, err) + text
	}
	return out
}

func (w *world) random(f firewall.Family) firewall.Value {
	if f == firewall.IPv6 {
		return value(w.addr6())
	}
	return value(w.addr4())
}

func (w *world) key(f firewall.Family) Key {
	k := Key{Family: f, Mark: firewall.Known{Value: uint32(w.n(4))}}
	if w.n(6) == 0 {
		k.TOS = 0x10
	}
	k.Proto, k.Sport, k.Dport = firewall.TCP, firewall.Single(firewall.Num(uint64(900+w.n(300)))), firewall.Single(firewall.Num(80))
	if w.n(3) == 0 {
		k.Proto, k.Dport = firewall.UDP, firewall.Single(firewall.Num(53))
	}
	return k
}

// samples are addresses of a part: its edges and some of its inside.
func (w *world) samples(f firewall.Family, parts []Part) []sample {
	var out []sample
	for i := range parts {
		p := &parts[i]
		for range 3 {
			r := p.Addrs[w.n(len(p.Addrs))]
			out = append(out, sample{r.Lo, p}, sample{r.Hi, p})
		}
	}
	for range 12 {
		a := w.random(f)
		for i := range parts {
			if parts[i].Addrs.Contains(a) {
				out = append(out, sample{a, &parts[i]})
			}
		}
	}
	return out
}

type sample struct {
	addr firewall.Value
	part *Part
}

func checkCover(t testing.TB, whole firewall.Ranges, parts []Part) {
	t.Helper()
	left := whole
	for _, p := range parts {
		if p.Addrs.Empty() {
			t.Fatalf("empty part: %+v", p.Verdict)
		}
		if !p.Addrs.Minus(left).Empty() {
			t.Fatalf("an address stands twice or was not asked about: %s", p.Addrs.Minus(left))
		}
		left = left.Minus(p.Addrs)
	}
	if !left.Empty() {
		t.Fatalf("not covered: %s", left)
	}
}

func (w *world) askInput(t *testing.T, table *Table, s *rtnetlink, f firewall.Family, c *count) {
	k := w.key(f)
	in := table.LinkByName(w.link())
	if in == nil {
		t.Fatal("a link is missing")
	}
	fixed := w.random(f)
	bySource := w.n(2) == 0
	all := firewall.All(f.AddrLen())
	var parts []Part
	if bySource {
		parts = table.Input(k, all, fixed, in.Link)
	} else {
		parts = table.InputTo(k, fixed, all, in.Link)
	}
	checkCover(t, all, parts)
	for _, sm := range w.samples(f, parts) {
		src, dst := sm.addr, fixed
		one := firewall.Single(sm.addr)
		var single []Part
		if bySource {
			single = table.Input(k, one, dst, in.Link)
		} else {
			src, dst = fixed, sm.addr
			single = table.InputTo(k, src, one, in.Link)
		}
		what := fmt.Sprintf("in %s from %s to %s by %s mark %d tos %#x %s %s", f, src.Addr(f), dst.Addr(f), in.Name, k.Mark.Value, k.TOS, k.Proto, k.Sport)
		if len(single) != 1 || single[0].key() != sm.part.key() {
			t.Errorf("%s: alone %s, in the set %s", what, brief(&single[0].Verdict), brief(&sm.part.Verdict))
			c.wrong++
		}
		if src.IsZero() || dst.IsZero() {
			continue // the attribute would not be taken as given
		}
		c.asked++
		v := sm.part.Verdict
		c.kinds["in "+f.String()+" "+v.Kind.String()]++
		if v.Kind == Unknown {
			c.unknown++
			c.kinds["unknown: "+v.Unknown]++
			continue
		}
		got := ask(t, s, asked{Key: k, src: src, dst: dst, hasSrc: true, iif: in.Index})
		if why := disagreeInput(f, in, &v, got); why != "" {
			t.Errorf("%s: model %s, kernel %s: %s", what, brief(&v), got, why)
			c.wrong++
		}
	}
}

func disagreeInput(f firewall.Family, in *Link, v *Verdict, got told) string {
	switch v.Kind {
	case Local:
		want := uint8(typeLocal)
		if v.Broadcast {
			want = typeBroadcast
		}
		if v.Anycast {
			want = typeAnycast
		}
		if got.errno != 0 || got.typ != want {
			return "not local"
		}
	case Forward:
		return disagreeHops(v.Hops, got)
	case Drop:
		if f == firewall.IPv6 {
			rejected := v.Why == Unreachable && got.typ == typeUnicast && got.oif == loopbackIndex
			switch {
			case rejected, v.Why == ForwardingOff, v.Why == BeyondScope, v.Why == MartianSource:
				if got.errno != 0 || got.typ != typeUnicast {
					return "the route is not there"
				}
				return ""
			}
		}
		want := unix.Errno(0)
		switch v.Why {
		case Blackhole, RPFilter, MartianSource, MartianDestination, RouteLocalnet:
			want = unix.EINVAL
		case NoRoute:
			want = unix.ENETUNREACH
		case Unreachable:
			want = unix.EHOSTUNREACH
			if got.errno == unix.ENETUNREACH {
				want = unix.ENETUNREACH // an unreachable rule
			}
		case Prohibit:
			want = unix.EACCES
		case ForwardingOff:
			want = unix.EHOSTUNREACH
		}
		if f == firewall.IPv4 && conf(in.conf4, conf4Forwarding) == 0 {
			switch v.Why {
			case Blackhole, NoRoute, Unreachable, Prohibit:
				want = unix.EHOSTUNREACH
			}
		}
		if got.errno != want {
			return "wants " + want.Error()
		}
		if f == firewall.IPv4 && v.ICMP != nil {
			codes := map[unix.Errno]uint8{unix.ENETUNREACH: 0, unix.EHOSTUNREACH: 1, unix.EACCES: 13}
			if code, ok := codes[got.errno]; !ok || code != v.ICMP.Code {
				return "another ICMP code"
			}
		}
	default:
		return "no verdict of the input path"
	}
	return ""
}

func disagreeHops(hops []NextHop, got told) string {
	if got.errno != 0 {
		return "no route"
	}
	for _, h := range hops {
		if h.Link.Index == got.oif && h.Gateway == got.gateway {
			return ""
		}
	}
	return "another way"
}

func (w *world) askOutput(t *testing.T, table *Table, s *rtnetlink, f firewall.Family, c *count) {
	k := w.key(f)
	k.UID, k.Unbound = firewall.Known{Value: uint32(w.n(10))}, true
	var src firewall.Value
	if w.n(3) > 0 {
		// A source of this host, most of the time.
		src = w.random(f)
		for range 20 {
			a := table.Addrs[w.n(len(table.Addrs))]
			if a.Family == f {
				src = a.value()
				break
			}
		}
	}
	var oif *firewall.Link
	index := 0
	if w.n(3) == 0 {
		oif = table.LinkByName(w.link()).Link
		index = oif.Index
	}
	all := firewall.All(f.AddrLen())
	parts := table.Output(k, all, src, oif)
	checkCover(t, all, parts)
	for _, sm := range w.samples(f, parts) {
		one := table.Output(k, firewall.Single(sm.addr), src, oif)
		what := fmt.Sprintf("out %s from %s to %s by %v mark %d tos %#x uid %d %s %s", f, src.Addr(f), sm.addr.Addr(f), index, k.Mark.Value, k.TOS, k.UID.Value, k.Proto, k.Sport)
		if len(one) != 1 || one[0].key() != sm.part.key() {
			t.Errorf("%s: alone %s, in the set %s", what, brief(&one[0].Verdict), brief(&sm.part.Verdict))
			c.wrong++
		}
		if sm.addr.IsZero() {
			continue
		}
		c.asked++
		v := sm.part.Verdict
		c.kinds["out "+f.String()+" "+v.Kind.String()]++
		if v.Kind == Unknown {
			c.unknown++
			c.kinds["unknown: "+v.Unknown]++
			continue
		}
		got := ask(t, s, asked{Key: k, src: src, hasSrc: !src.IsZero(), dst: sm.addr, oif: index})
		why := ""
		switch v.Kind {
		case Local:
			if got.errno != 0 || got.oif != table.lo.Index {
				why = "not over lo"
			}
		case Send:
			why = disagreeHops(v.Hops, got)
		case Fail:
			rejected := f == firewall.IPv6 && v.Why == Unreachable && got.typ == typeUnicast && got.oif == loopbackIndex
			if errnoName(got.errno) != v.Errno && !rejected {
				why = "another error"
			}
		default:
			why = "no verdict of the output path"
		}
		if why != "" {
			t.Errorf("%s: model %s, kernel %s: %s", what, brief(&v), got, why)
			c.wrong++
			continue
		}
		if src.IsZero() && v.Kind != Fail && got.prefsrc.IsValid() {
			c.asked++
			if a, ok := table.SourceFor(k, sm.addr, oif); !ok {
				c.kinds["no source "+f.String()]++
			} else if c.kinds["source "+f.String()]++; a.Addr(f) != got.prefsrc {
				t.Errorf("%s: source %s, kernel %s", what, a.Addr(f), got.prefsrc)
				c.wrong++
			}
		}
	}
}
