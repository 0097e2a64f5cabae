package route

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
)

// world is a namespace with random links, addresses, routes, rules and sysctls.
type world struct {
	rng   *rand.Rand
	ns    *lab.Namespace
	links []string
	lines []string

	made, refused int // lines the kernel took, and did not
}

// build makes a random world. custom: with routing rules.
func build(t *testing.T, l *lab.Lab, seed uint64, custom bool) *world {
	t.Helper()
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), ns: l.Add(t, fmt.Sprintf("w%d", seed))}
	w.makeLinks()
	w.addresses()
	w.routes()
	if custom {
		w.rules()
	} else {
		// What the kernel remembers and does not show.
		switch w.n(4) {
		case 0:
			w.line("-4 rule add pref 5 from 198.51.100.1 lookup 100")
			w.line("-4 rule del pref 5")
		case 1:
			w.line("-4 route add local 203.0.113.9 dev lo")
			w.line("-4 route del local 203.0.113.9 dev lo")
		}
	}
	failed, all := 0, 0
	for _, fam := range []string{"", "-4 ", "-6 "} {
		argv := append([]string{"ip"}, strings.Fields(fam)...)
		var script []string
		for _, line := range w.lines {
			if rest, ok := strings.CutPrefix(line, fam); ok && (fam != "" || line[0] != '-') {
				script = append(script, rest)
			}
		}
		// Some of the lines make no sense to the kernel; -force goes on.
		_, err := w.ns.Exec(t.Context(), strings.Join(script, "\n")+"\n", append(argv, "-force", "-batch", "-")...)
		if err != nil {
			failed += strings.Count(err.Error(), "Command failed")
		}
		all += len(script)
	}
	w.refused, w.made = w.refused+failed, w.made+all-failed
	if failed*2 > all {
		t.Fatalf("seed %d: %d of %d lines refused", seed, failed, all)
	}
	w.sysctls(t)
	return w
}

func (w *world) line(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

func (w *world) n(n int) int { return w.rng.IntN(n) }

func (w *world) one(of ...string) string { return of[w.n(len(of))] }

func (w *world) maybe(p float64, text string) string {
	if w.rng.Float64() < p {
		return text
	}
	return ""
}

func (w *world) link() string { return w.links[w.n(len(w.links))] }

func (w *world) makeLinks() {
	for i := range 4 {
		name := fmt.Sprintf("v%d", i)
		if i == 3 {
			name = "v3.7"
		}
		w.links = append(w.links, name)
		w.line("link add %s group %d type veth peer name p%d", name, w.n(2), i)
		w.line("link set %s up", name)
		if i != 2 || w.n(2) == 0 { // without the peer there is no carrier
			w.line("link set p%d up", i)
		}
	}
	w.links = append(w.links, "p0")
}

// addr4 and addr6 are addresses of small pools, so that things meet.
func (w *world) addr4() string {
	switch w.n(40) {
	case 0:
		return w.one("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "255.255.255.255", "224.0.0.1", "239.1.1.1", "240.0.0.1")
	case 1:
		return fmt.Sprintf("192.0.2.%d", w.n(8))
	}
	return fmt.Sprintf("10.%d.%d.%d", w.n(3), w.n(3), []int{0, 1, 2, 3, 4, 7, 127, 255}[w.n(8)])
}

func (w *world) addr6() string {
	switch w.n(40) {
	case 0:
		return w.one("::1", "::", "ff02::1", "fe80::1", "fe80::2", "2001:db9::1", "::ffff:10.0.0.1")
	}
	return fmt.Sprintf("2001:db8:%x:%x::%x", w.n(3), w.n(3), w.n(5))
}

func (w *world) prefix(six bool) string {
	a, lens := w.addr4(), []int{0, 8, 12, 16, 22, 24, 24, 28, 30, 31, 32, 32}
	if six {
		a, lens = w.addr6(), []int{0, 32, 47, 48, 64, 64, 120, 126, 127, 128, 128}
	}
	return netip.PrefixFrom(netip.MustParseAddr(a), lens[w.n(len(lens))]).Masked().String()
}

func (w *world) addresses() {
	for range 3 + w.n(5) {
		p := fmt.Sprintf("%s/%d", w.addr4(), []int{8, 16, 24, 24, 28, 30, 31, 32}[w.n(8)])
		w.line("addr add %s dev %s %s %s", p, w.link(), w.maybe(0.5, "brd +"), w.maybe(0.2, "scope "+w.one("link", "host")))
	}
	for range 3 + w.n(4) {
		w.line("addr add %s/%d dev %s nodad", w.addr6(), []int{48, 64, 64, 126, 127, 128}[w.n(6)], w.link())
	}
	if w.n(4) == 0 {
		w.line("addr add %s/32 dev lo", w.addr4())
	}
}

func (w *world) routes() {
	table := func() string { return w.one("main", "main", "main", "local", "100", "101", "default") }
	w.line("-4 nexthop add id 1 dev %s", w.link())
	w.line("-4 nexthop add id 2 dev %s", w.link())
	w.line("-4 nexthop add id 3 group 1/2")
	w.line("-4 nexthop add id 4 blackhole")
	w.line("-6 nexthop add id 5 dev %s", w.link())
	w.line("-6 nexthop add id 6 dev %s", w.link())
	w.line("-6 nexthop add id 7 group 5/6")
	for range 15 + w.n(25) {
		six := w.n(2) == 0
		fam, via := "-4", w.addr4()
		if six {
			fam, via = "-6", w.addr6()
		}
		p := w.prefix(six)
		tail := fmt.Sprintf("table %s %s %s", table(), w.maybe(0.5, fmt.Sprintf("metric %d", 1+w.n(3))), w.maybe(0.1, "tos 0x10"))
		verb := w.one("add", "add", "append")
		switch w.n(12) {
		case 0:
			w.line("%s route %s %s %s %s", fam, verb, w.one("blackhole", "unreachable", "prohibit", "throw"), p, tail)
		case 1:
			w.line("%s route %s local %s dev %s %s", fam, verb, p, w.one("lo", w.link()), tail)
		case 2:
			w.line("%s route %s %s via %s dev %s onlink %s", fam, verb, p, via, w.link(), tail)
		case 3:
			w.line("%s route %s %s %s nexthop dev %s weight %d nexthop via %s dev %s onlink weight 1 %s", fam, verb, p, tail, w.link(), 1+w.n(2), via, w.link(),
				w.maybe(0.3, fmt.Sprintf("nexthop dev %s", w.link())))
		case 4:
			id := 1 + w.n(4)
			if six {
				id = 4 + w.n(4)
			}
			w.line("%s route %s %s nhid %d %s", fam, verb, p, id, tail)
		case 5:
			w.line("%s route %s %s dev %s %s src %s", fam, verb, p, w.link(), tail, via)
		case 6:
			if six {
				w.line("-6 route %s %s dev lo %s", verb, p, tail)
			} else {
				w.line("-4 route %s broadcast %s dev %s %s", verb, p, w.link(), tail)
			}
		default:
			w.line("%s route %s %s dev %s %s %s", fam, verb, p, w.link(), tail, w.maybe(0.1, "scope host"))
		}
	}
}

func (w *world) rules() {
	for range 2 + w.n(6) {
		six := w.n(2) == 0
		fam := "-4"
		if six {
			fam = "-6"
		}
		pref := 1 + w.n(40000)
		what := []string{w.maybe(0.15, "not")}
		from := "all"
		if w.n(2) == 0 {
			from = w.prefix(six)
		}
		what = append(what, "from "+from, w.maybe(0.3, "to "+w.prefix(six)), w.maybe(0.3, "iif "+w.one("lo", w.link(), "nothere")),
			w.maybe(0.1, "oif "+w.link()), w.maybe(0.3, fmt.Sprintf("fwmark %d/%d", w.n(4), 1+w.n(3))), w.maybe(0.1, "tos 0x10"),
			w.maybe(0.1, "uidrange 0-5"), w.maybe(0.15, "ipproto "+w.one("tcp", "udp")),
			w.maybe(0.1, "sport 1000-2000"), w.maybe(0.1, "dport 80"))
		action := fmt.Sprintf("lookup %s %s %s", w.one("main", "local", "100", "101", "102", "default"),
			w.maybe(0.3, fmt.Sprintf("suppress_prefixlength %d", w.n(33))), w.maybe(0.2, fmt.Sprintf("suppress_ifgroup %d", w.n(2))))
		switch w.n(8) {
		case 0:
			action = w.one("blackhole", "prohibit", "unreachable")
		case 1:
			action = fmt.Sprintf("goto %d", pref+1+w.n(10000))
		case 2:
			action = "goto 32766"
			pref %= 32766
		}
		w.line("%s rule add pref %d %s %s", fam, pref, strings.Join(what, " "), action)
	}
	switch w.n(5) {
	case 0:
		w.line("-4 rule add pref %d lookup local", w.n(40000))
		w.line("-4 rule del pref 0")
	case 1:
		w.line("-4 rule add pref 5 from 198.51.100.1 lookup 100")
		w.line("-4 rule del pref 5")
	}
}

func (w *world) sysctls(t *testing.T) {
	set := func(key string, value int) {
		w.ns.Sysctl(t, key, fmt.Sprint(value))
	}
	bit := func(p float64) int {
		if w.rng.Float64() < p {
			return 1
		}
		return 0
	}
	for _, l := range append([]string{"all"}, w.links...) {
		base := "net/ipv4/conf/" + l + "/"
		set(base+"rp_filter", []int{0, 0, 0, 1, 2}[w.n(5)])
		set(base+"accept_local", bit(0.15))
		set(base+"route_localnet", bit(0.15))
		set(base+"send_redirects", bit(0.5))
		set(base+"bc_forwarding", bit(0.3))
		set(base+"src_valid_mark", bit(0.2))
		set(base+"ignore_routes_with_linkdown", bit(0.2))
		set("net/ipv6/conf/"+l+"/ignore_routes_with_linkdown", bit(0.2))
	}
	set("net/ipv6/conf/all/forwarding", bit(0.5))
	for _, l := range w.links {
		set("net/ipv4/conf/"+l+"/forwarding", bit(0.6))
	}
	set("net/ipv4/nexthop_compat_mode", bit(0.7))
}

// read takes a capture inside the namespace and decodes what came through JSON.
func (w *world) read(t *testing.T) *Table { return readTable(t, w.ns) }

func readTable(t *testing.T, ns *lab.Namespace) *Table {
	t.Helper()
	c := settle(t, ns)
	table, err := Decode(throughJSON(t, c))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range table.Gaps {
		t.Errorf("gap: %s: %s", g.What, g.Why)
	}
	return table
}

// settle captures until nothing changes any more: the kernel brings up
// IPv6 addresses a moment after their interface.
func settle(t *testing.T, ns *lab.Namespace) *Capture {
	t.Helper()
	var last *Capture
	same := 0
	for range 200 {
		var c *Capture
		var err error
		ns.Do(func() { c, err = Acquire(context.Background()) })
		if err != nil {
			t.Fatal(err)
		}
		same++
		for _, name := range []string{blobRoutes4, blobRoutes6, blobRules4, blobRules6} {
			if last == nil || !bytes.Equal(stripped(t, c, name), stripped(t, last, name)) {
				same = 0
			}
		}
		if last = c; same == 4 {
			return c
		}
		time.Sleep(15 * time.Millisecond)
	}
	t.Fatal("the namespace does not come to rest")
	return nil
}

// stripped is an answer without the sequence numbers and lifetimes in it.
func stripped(t *testing.T, c *Capture, name string) []byte {
	var out []byte
	size := unix.SizeofRtMsg
	typ := uint16(unix.RTM_NEWROUTE)
	if name == blobRules4 || name == blobRules6 {
		typ, size = unix.RTM_NEWRULE, sizeofRuleMsg
	}
	err := messages(name, c.order(), c.Blobs[name].Data, typ, size, func(m message) error {
		out = append(out, m.fixed...)
		for _, a := range m.attrs {
			if a.typ != unix.RTA_CACHEINFO || typ != unix.RTM_NEWROUTE {
				out = append(out, a.value...)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func value(text string) firewall.Value { return firewall.AddrValue(netip.MustParseAddr(text)) }
