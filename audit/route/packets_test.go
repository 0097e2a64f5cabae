package route

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// witnesses is the ruleset that writes down what becomes of a packet, known by
// its source port: which hook it reached, what `fib`, rpfilter and addrtype say.
// The destination port is the mark it gets.
const witnesses = `
table inet seen {
	set inp { type inet_service; flags dynamic; size 65535; }
	set out { type inet_service . iface_index; flags dynamic; size 65535; }
	set pre { type inet_service; flags dynamic; size 65535; }
	set marks { type inet_service . mark; flags dynamic; size 65535; }
%s
	chain first {
		type filter hook prerouting priority -310;
		udp dport 7001 meta mark set 1
		udp dport 7002 meta mark set 2
		udp dport 7003 meta mark set 3
	}
	chain pre {
		type filter hook prerouting priority -290;
		udp dport 7000-7003 add @pre { udp sport }
		udp dport 7000-7003 add @marks { udp sport . meta mark }
%s
	}
	chain inp { type filter hook input priority 0; udp dport 7000-7003 add @inp { udp sport }; }
	chain onward { type filter hook forward priority 0; udp dport 7000-7003 add @out { udp sport . oif }; udp dport 7000-7003 drop; }
}
`

// xtBits are matches of x_tables and the bit of the mark that stands for each.
var xtBits = []struct {
	six  bool // AddrType6 is asked
	args string
	bit  uint32
	ask  func(t *Table, f firewall.Family, p packet) []firewall.FIBPart
}{
	{false, "-m rpfilter", 0x100, rpAsk(0)},
	{false, "-m rpfilter --loose", 0x200, rpAsk(rpLoose)},
	{false, "-m rpfilter --validmark", 0x400, rpAsk(rpValidMark)},
	{false, "-m rpfilter --accept-local --loose", 0x800, rpAsk(rpLoose | rpAcceptLocal)},
	{false, "-m rpfilter --accept-local", 0x1000, rpAsk(rpAcceptLocal)},
	{true, "-m addrtype --src-type LOCAL", 0x2000, typeAsk(true, addrtypeLocal, false)},
	{true, "-m addrtype --dst-type LOCAL", 0x4000, typeAsk(false, addrtypeLocal, false)},
	{true, "-m addrtype --dst-type UNICAST", 0x8000, typeAsk(false, addrtypeUnicast, false)},
	{true, "-m addrtype --src-type LOCAL --limit-iface-in", 0x10000, typeAsk(true, addrtypeLocal, true)},
	{true, "-m addrtype --dst-type LOCAL --limit-iface-in", 0x20000, typeAsk(false, addrtypeLocal, true)},
	{true, "-m addrtype --dst-type ANYCAST", 0x40000, typeAsk(false, addrtypeAnycast, false)},
	{true, "-m addrtype --src-type UNREACHABLE", 0x80000, typeAsk(true, addrtypeUnreachable, false)},
	{true, "-m addrtype --dst-type LOCAL,UNREACHABLE", 0x100000, typeAsk(false, addrtypeLocal|addrtypeUnreachable, false)},
	{true, "-m addrtype --src-type MULTICAST", 0x200000, typeAsk(true, addrtypeMulticast, false)},
}

func rpAsk(flags uint32) func(*Table, firewall.Family, packet) []firewall.FIBPart {
	return func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.RPFilter(f, firewall.Single(p.src), p.in.Link, p.mark, flags, p.dst)
	}
}

func typeAsk(source bool, mask uint16, iface bool) func(*Table, firewall.Family, packet) []firewall.FIBPart {
	return func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		a := p.dst
		if source {
			a = p.src
		}
		var dev *firewall.Link
		if iface {
			dev = p.in.Link
		}
		if f == firewall.IPv6 {
			return t.AddrType6(firewall.Single(a), dev, mask)
		}
		// xt_addrtype in IPv4 is the type itself.
		parts := t.AddrType(f, firewall.Single(a), dev)
		for i := range parts {
			parts[i].Value = bit(mask>>parts[i].Value&1 != 0)
		}
		return parts
	}
}

// fibExprs are the expressions of nft that are written down, with the model's
// answer to each.
var fibExprs = []struct {
	name, expr, typ string
	ask             func(t *Table, f firewall.Family, p packet) []firewall.FIBPart
}{
	{"st", "fib saddr type", "fib_addrtype", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.AddrType(f, firewall.Single(p.src), nil)
	}},
	{"dt", "fib daddr type", "fib_addrtype", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.AddrType(f, firewall.Single(p.dst), nil)
	}},
	{"sti", "fib saddr . iif type", "fib_addrtype", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.AddrType(f, firewall.Single(p.src), p.in.Link)
	}},
	{"dti", "fib daddr . iif type", "fib_addrtype", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.AddrType(f, firewall.Single(p.dst), p.in.Link)
	}},
	{"stFull", "fib saddr type", "fib_addrtype", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.FIBType(firewall.Single(p.src), p.fib(f, p.dst, 0, nil))
	}},
	{"dtFull", "fib daddr type", "fib_addrtype", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.FIBType(firewall.Single(p.dst), p.fib(f, p.src, 0, nil))
	}},
	{"dtiFull", "fib daddr . iif type", "fib_addrtype", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.FIBType(firewall.Single(p.dst), p.fib(f, p.src, 0, p.in.Link))
	}},
	{"so", "fib saddr oif", "iface_index", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.FIBOut(firewall.Single(p.src), p.fib(f, p.dst, 0, nil))
	}},
	{"soi", "fib saddr . iif oif", "iface_index", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.FIBOut(firewall.Single(p.src), p.fib(f, p.dst, 0, p.in.Link))
	}},
	{"do", "fib daddr oif", "iface_index", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.FIBOut(firewall.Single(p.dst), p.fib(f, p.src, 0, nil))
	}},
	{"smo", "fib saddr . mark . iif oif", "iface_index", func(t *Table, f firewall.Family, p packet) []firewall.FIBPart {
		return t.FIBOut(firewall.Single(p.src), p.fib(f, p.dst, p.mark, p.in.Link))
	}},
}

// packet is one packet put on the wire.
type packet struct {
	id       uint16
	src, dst firewall.Value
	mark     uint32
	in       *Link
	peer     string
}

func (p packet) fib(f firewall.Family, other firewall.Value, mark uint32, in *firewall.Link) FIBQuery {
	return FIBQuery{
		Key:   Key{Family: f, Mark: firewall.Known{Value: mark}, Proto: firewall.UDP},
		Other: other, In: in, PacketIn: p.in.Link, Inbound: true,
	}
}

func (p packet) key(f firewall.Family) Key {
	one := func(n uint16) firewall.Ranges { return firewall.Single(firewall.Num(uint64(n))) }
	return Key{Family: f, Mark: firewall.Known{Value: p.mark}, Proto: firewall.UDP, Sport: one(p.id), Dport: one(7000 + uint16(p.mark))}
}

// frame is the packet as Ethernet, IP and UDP.
func (p packet) frame(f firewall.Family) []byte {
	b := append([]byte(nil), p.in.MAC...)
	b = append(b, 2, 0, 0, 0, 0, 1)
	udp := binary.BigEndian.AppendUint16(nil, p.id)
	udp = binary.BigEndian.AppendUint16(udp, 7000+uint16(p.mark))
	udp = append(udp, 0, 12, 0, 0, 'h', 'i', '!', '\n')
	if f == firewall.IPv6 {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(udp)), 17, 64)
		b = p.src.AppendBytes(b, 16)
		b = p.dst.AppendBytes(b, 16)
		return append(b, udp...)
	}
	ip := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, 17, 0, 0}
	ip = p.src.AppendBytes(ip, 4)
	ip = p.dst.AppendBytes(ip, 4)
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	b = append(b, 8, 0)
	return append(append(b, ip...), udp...)
}

// TestAgainstPackets sends packets with any source and destination into random
// namespaces and holds the model against what becomes of them, and against what
// nft's fib and x_tables' rpfilter and addrtype say about them.
func TestAgainstPackets(t *testing.T) {
	lab.Need(t, "nft", "iptables-nft")
	base := *seedFlag
	if base == 0 {
		base = uint64(time.Now().UnixNano() % 1e9)
	}
	t.Logf("seed %d (-seed %d runs it again)", base, base)
	c := &count{kinds: map[string]int{}}
	worlds := uint64(max(*worldsFlag/2, 1))
	// Some outcomes are rare: more worlds are made until each has been seen.
	for i := uint64(0); i < worlds || *worldsFlag >= 8 && len(c.unseen()) > 0 && i < 6*worlds; i++ {
		t.Run(fmt.Sprint(base+i), func(t *testing.T) { packets(t, base+i, c) })
	}
	t.Logf("%d answers, %d unknown, %d wrong: %v", c.asked, c.unknown, c.wrong, c.kinds)
	if unseen := c.unseen(); *worldsFlag >= 8 && len(unseen) > 0 {
		t.Errorf("never seen: %v", unseen)
	}
}

// unseen are the outcomes that no packet has had.
func (c *count) unseen() (out []string) {
	for _, f := range []string{"ip", "ip6"} {
		for _, k := range []string{"local", "forward", "drop"} {
			if c.kinds[f+" "+k] == 0 {
				out = append(out, f+" "+k)
			}
		}
	}
	return out
}

func packets(t *testing.T, seed uint64, c *count) {
	l := lab.New(t, lab.Topology{})
	w := build(t, l, seed, seed%3 != 0)
	defer func() {
		if t.Failed() {
			t.Logf("seed %d\n%s", seed, w.dump(t))
		}
	}()
	var sets, rules strings.Builder
	for _, e := range fibExprs {
		fmt.Fprintf(&sets, "\tset %s { type inet_service . %s; flags dynamic; size 65535; }\n", e.name, e.typ)
		fmt.Fprintf(&rules, "\t\tudp dport 7000-7003 add @%s { udp sport . %s }\n", e.name, e.expr)
	}
	w.ns.Load(t, lab.NFT, fmt.Sprintf(witnesses, sets.String(), rules.String()))
	for _, tool := range []string{"iptables-nft", "ip6tables-nft"} {
		text := "*raw\n"
		for _, x := range xtBits {
			if tool == "ip6tables-nft" && strings.Contains(x.args, "ANYCAST") && !x.six {
				continue
			}
			text += fmt.Sprintf("-A PREROUTING %s -j MARK --or-mark %#x\n", x.args, x.bit)
		}
		if out, err := w.ns.Exec(t.Context(), text+"COMMIT\n", tool+"-restore"); err != nil {
			t.Fatalf("%s: %v %s", tool, err, out)
		}
	}
	table := w.read(t)
	for _, f := range []firewall.Family{firewall.IPv4, firewall.IPv6} {
		w.sendAndCompare(t, table, f, c)
	}
}

func (w *world) sendAndCompare(t *testing.T, table *Table, f firewall.Family, c *count) {
	var sent []packet
	var own, routed []firewall.Value
	for _, a := range table.Addrs {
		if a.Family == f && !a.Local.IsLoopback() {
			own = append(own, a.value())
		}
	}
	for _, r := range table.Routes {
		if r.Family == f && r.Type == typeUnicast && r.Dst.Bits() > 0 && !r.Dst.Addr().IsMulticast() {
			routed = append(routed, firewall.AddrValue(r.Dst.Addr()).Add(firewall.Num(uint64(w.n(3)))).And(firewall.MaxValue(f.AddrLen())))
		}
	}
	pick := func(from []firewall.Value) firewall.Value {
		if len(from) == 0 || w.n(3) == 0 {
			return w.random(f)
		}
		return from[w.n(len(from))]
	}
	pairs := [][2]string{{"v0", "p0"}, {"p0", "v0"}, {"v1", "p1"}, {"v3.7", "p3"}}
	for i := range 220 {
		pair := pairs[w.n(len(pairs))]
		dst := pick(own)
		if w.n(2) == 0 {
			dst = pick(routed)
		}
		src := pick(routed)
		if multicast4.Contains(dst) && f == firewall.IPv4 || multicast6.Contains(dst) && f == firewall.IPv6 {
			continue
		}
		sent = append(sent, packet{id: uint16(20000 + i), src: src, dst: dst, mark: uint32(w.n(4)), in: table.LinkByName(pair[0]), peer: pair[1]})
	}
	w.inject(t, table, f, sent)
	seen := w.seen(t)
	if len(seen["pre"]) == 0 {
		t.Fatal("no packet arrived: nothing is tested")
	}
	for _, p := range sent {
		w.compare(t, table, f, p, seen, c)
	}
	w.ns.Run(t, "nft", "flush set inet seen inp")
	for _, s := range []string{"out", "pre", "marks"} {
		w.ns.Run(t, "nft", "flush set inet seen "+s)
	}
	for _, e := range fibExprs {
		w.ns.Run(t, "nft", "flush set inet seen "+e.name)
	}
}

func (w *world) inject(t *testing.T, table *Table, f firewall.Family, sent []packet) {
	t.Helper()
	var fd int
	var err error
	w.ns.Do(func() { fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, p := range sent {
		to := &unix.SockaddrLinklayer{Ifindex: table.LinkByName(p.peer).Index}
		if err := unix.Sendto(fd, p.frame(f), 0, to); err != nil {
			t.Fatalf("send by %s: %v", p.peer, err)
		}
	}
	// Delivery over veth is a softirq on this CPU; give others a moment.
	time.Sleep(30 * time.Millisecond)
}

var elements = regexp.MustCompile(`(?s)elements = \{(.*?)\}`)

// seen reads the sets: set name, packet, what was written down.
func (w *world) seen(t *testing.T) map[string]map[uint16]string {
	t.Helper()
	return w.sets(t, "seen")
}

// set reads one set of a table.
func (w *world) set(t *testing.T, table, name string) map[uint16]string {
	t.Helper()
	return w.sets(t, table)[name]
}

func (w *world) sets(t *testing.T, table string) map[string]map[uint16]string {
	t.Helper()
	out := map[string]map[uint16]string{}
	text := w.ns.Run(t, "nft", "-nn", "list", "table", "inet", table)
	for _, block := range strings.Split(text, "\tset ")[1:] {
		name, _, _ := strings.Cut(block, " ")
		out[name] = map[uint16]string{}
		body, _, _ := strings.Cut(block, "\n\t}")
		m := elements.FindStringSubmatch(body)
		if m == nil {
			continue
		}
		for _, e := range strings.Split(m[1], ",") {
			id, rest, _ := strings.Cut(strings.TrimSpace(e), " . ")
			n, err := strconv.ParseUint(id, 10, 16)
			if err != nil {
				t.Fatalf("element %q of %s", e, name)
			}
			out[name][uint16(n)] = strings.Trim(rest, `"`)
		}
	}
	return out
}

func (w *world) compare(t *testing.T, table *Table, f firewall.Family, p packet, seen map[string]map[uint16]string, c *count) {
	what := fmt.Sprintf("%s from %s to %s by %s mark %d sport %d", f, p.src.Addr(f), p.dst.Addr(f), p.in.Name, p.mark, p.id)
	wrong := func(format string, args ...any) {
		t.Errorf("%s: %s", what, fmt.Sprintf(format, args...))
		c.wrong++
	}
	_, pre := seen["pre"][p.id]
	before := table.Receive(f, firewall.Single(p.src), p.dst, p.in.Link)[0]
	c.asked++
	if (before.Kind == Local) != pre {
		wrong("reached prerouting: %v, model %s", pre, brief(&before.Verdict))
	}
	if !pre {
		return
	}
	_, in := seen["inp"][p.id]
	out, fwd := seen["out"][p.id]
	v := table.Input(p.key(f), firewall.Single(p.src), p.dst, p.in.Link)[0].Verdict
	c.asked++
	c.kinds[f.String()+" "+v.Kind.String()]++
	ok := false
	switch v.Kind {
	case Unknown:
		ok = true
		c.unknown++
	case Local:
		ok = in && !fwd
	case Forward:
		for _, h := range v.Hops {
			ok = ok || fwd && !in && (out == h.Link.Name || out == strconv.Itoa(h.Link.Index))
		}
	case Drop:
		ok = !in && !fwd
	}
	if !ok {
		wrong("input %v, forward %v %s; model %s", in, fwd, out, brief(&v))
	}
	for _, e := range fibExprs {
		got, there := seen[e.name][p.id]
		parts := e.ask(table, f, p)
		if !there || len(parts) != 1 {
			wrong("%s: written down %v, parts %v", e.expr, there, parts)
			continue
		}
		c.asked++
		if parts[0].Unknown != "" {
			c.unknown++
			c.kinds["unknown "+e.expr+": "+parts[0].Unknown]++
			continue
		}
		want := strconv.Itoa(int(parts[0].Value))
		if l := table.LinkByName(got); l != nil {
			got = strconv.Itoa(l.Index)
		}
		if want != got {
			wrong("%s: %s, model %s", e.expr, got, want)
		}
	}
	text := seen["marks"][p.id]
	mark, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		t.Fatalf("%s: mark %q", what, text)
	}
	for _, x := range xtBits {
		parts := x.ask(table, f, p)
		c.asked++
		if parts[0].Unknown != "" {
			c.unknown++
			c.kinds["unknown "+x.args+": "+parts[0].Unknown]++
			continue
		}
		if got := uint32(mark)&x.bit != 0; got != (parts[0].Value == 1) {
			wrong("%s: %v, model %v", x.args, got, parts[0].Value)
		}
	}
}
