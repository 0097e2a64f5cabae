package reach_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

var (
	seedFlag    = flag.Uint64("seed", 0, "seed of the differential test; 0: always the same, with -for by the clock")
	roundsFlag  = flag.Int("rounds", 40, "rulesets of the differential test")
	forFlag     = flag.Duration("for", 0, "run the differential test by the clock instead")
	keepFlag    = flag.Bool("keep", false, "write shrunk failures to testdata/differential")
	routing     = flag.Bool("routing", true, "draw routing rules, routes and settings, too")
	rareFlag    = flag.Bool("rare", false, "draw what few rulesets say in every round")
	partFlag    = flag.String("part", "", "draw only one part in every round: "+partNames())
	undecidable = flag.Bool("undecidable", false, "draw matches that a reading cannot tell, too")
)

// bench is a laboratory with listeners, and the probes that judge rulesets.
type bench struct {
	*lab.Lab
	vocabulary
	dirty bool   // surroundings were changed
	file  string // being judged
	// neighbours are the commands by which the hosts know each other for good.
	neighbours []command
	// unfound are the answers of the last round that depend on neighbour discovery
	// alone, lost those of them that did not come.
	unfound, lost int
	delivered     int // probes of the last round that came to a listener
	routed        int // its answers that the routing or a listener's address decided
	opened        []*lab.Listeners
}

func newBench(t testing.TB) *bench {
	lab.Need(t, "nft", "iptables-nft", "iptables-legacy", "conntrack")
	b := &bench{Lab: lab.New(t, lab.Topology{Links: 2})}
	b.Server.Sysctl(t, "net.ipv4.conf.all.rp_filter", "0", "net.ipv4.conf.eth0.rp_filter", "0", "net.ipv4.conf.eth1.rp_filter", "0")
	b.clients4 = []netip.Addr{b.ClientAddr(0), netip.MustParseAddr("10.9.0.77"), netip.MustParseAddr("172.16.5.1"), netip.MustParseAddr("172.16.5.6"),
		netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.200"), netip.MustParseAddr("8.8.4.4")}
	b.clients6 = []netip.Addr{b.ClientAddr6(0), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:5::1:2"), netip.MustParseAddr("2a00:1450::6"),
		netip.MustParseAddr("fd12:3456::9")}
	b.server4 = []netip.Addr{b.ServerAddr(0), b.ServerAddr(1)}
	b.server6 = []netip.Addr{b.ServerAddr6(0), b.ServerAddr6(1)}
	b.links = []string{"eth0", "eth1"}
	b.ports = []int{80, 443, 8080, 8081}
	b.closed = []int{81, 9999}
	b.special = []int{8443, 8444, 8445, 8446, 8447}
	b.nat = true
	for _, six := range []bool{false, true} {
		for _, a := range spreadAddrs(six) {
			c := append(ip(six), "addr", "add", a.String(), "dev", "eth1")
			if six {
				c = append(c, "nodad")
			}
			if _, err := b.Server.Exec(t.Context(), "", c...); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range []lab.Proto{lab.TCP, lab.UDP} {
		b.Server.Listen(t, lab.Listen{Proto: p, Addr: netip.MustParseAddrPort("[::]:8443"), Device: "eth0"},
			lab.Listen{Proto: p, Addr: netip.MustParseAddrPort("10.9.0.2:8444")}, lab.Listen{Proto: p, Addr: netip.MustParseAddrPort("[::]:8445"), V6Only: true},
			lab.Listen{Proto: p, Addr: netip.MustParseAddrPort("[::]:8446"), Mark: 5}, lab.Listen{Proto: p, Addr: netip.MustParseAddrPort("10.9.0.2:8447"), Transparent: true},
			lab.Listen{Proto: p, Addr: netip.MustParseAddrPort("[::]:9008"), Transparent: true})
	}
	b.rememberNeighbours(t)
	t.Cleanup(b.closeDrawn)
	for _, p := range b.ports {
		any := netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(p))
		b.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: any}, lab.Listen{Proto: lab.UDP, Addr: any})
	}
	return b
}

// draw draws the probes of one round.
func (b *bench) draw(g *generator, n int) []lab.Probe {
	var out []lab.Probe
	for range n {
		p := lab.Probe{Proto: lab.TCP, Via: pick(g, b.links...)}
		if g.chance(30) {
			p.Proto = lab.UDP
		}
		port := pick(g, b.ports...)
		if g.chance(10) {
			port = pick(g, b.closed...)
		} else if len(b.special) > 0 && g.chance(10) {
			port = pick(g, b.special...)
		}
		if g.chance(35) {
			p.From, p.To = pick(g, b.clients6...), netip.AddrPortFrom(pick(g, b.server6...), uint16(port))
		} else {
			p.From, p.To = pick(g, b.clients4...), netip.AddrPortFrom(pick(g, b.server4...), uint16(port))
		}
		if g.chance(10) {
			p.In, p.Via = b.Server, ""
			p.From = pick(g, append(append([]netip.Addr{}, b.server4...), netip.MustParseAddr("127.0.0.1"))...)
			if p.To.Addr().Is6() {
				p.From = pick(g, append(append([]netip.Addr{}, b.server6...), netip.IPv6Loopback())...)
			}
		}
		out = append(out, p)
	}
	return out
}

func (b *bench) query(p lab.Probe, fromPort uint16) reach.Query {
	q := reach.Query{Proto: firewall.TCP, From: p.From, To: p.To.Addr(), Port: p.To.Port(), Iif: p.Via, FromPort: fromPort}
	if p.Proto == lab.UDP {
		q.Proto = firewall.UDP
	}
	if p.In == b.Server {
		q.Iif = ""
	}
	return q
}

// load gives a ruleset to the server. Rules that are refused are left out, and
// tables whose fault is not found; the ruleset is what was loaded.
func (b *bench) load(t testing.TB, rs *ruleset) *ruleset {
	loaded := &ruleset{commands: rs.commands}
	b.surround(t, rs.commands)
	for _, tb := range rs.clone().tables {
		loader := map[string]lab.Loader{"nft": lab.NFT, "iptables-nft": lab.IPTablesNFT, "ip6tables-nft": lab.IP6TablesNFT,
			"iptables-legacy": lab.IPTablesLegacy, "ip6tables-legacy": lab.IP6TablesLegacy, "ipset": lab.IPSet}[tb.loader]
		err := b.Server.TryLoad(t.Context(), loader, tb.text())
		for tries := 0; err != nil && tries < 12 && tb.without(err.Error()); tries++ {
			err = b.Server.TryLoad(t.Context(), loader, tb.text())
		}
		if err != nil {
			if *verboseFlag {
				t.Logf("refused by %s: %v\n%s", tb.loader, err, tb.text())
			}
			continue
		}
		loaded.tables = append(loaded.tables, tb)
	}
	return loaded
}

// refusedLine is where nft and iptables-nft-restore say the fault lies.
var refusedLine = regexp.MustCompile(`(?:/dev/stdin:|line )(\d+)`)

// without leaves out the rule or set that a loader complains about; false where
// none is named.
func (t *table) without(complaint string) bool {
	m := refusedLine.FindStringSubmatch(complaint)
	if m == nil || t.verbatim != "" {
		return false
	}
	n, _ := strconv.Atoi(m[1])
	lines := strings.Split(t.text(), "\n")
	if n < 1 || n > len(lines) {
		return false
	}
	bad, removed := strings.TrimSpace(lines[n-1]), false
	drop := func(prefix string) func(string) bool {
		return func(s string) bool {
			is := strings.TrimSpace(prefix+s) == bad
			removed = removed || is
			return is
		}
	}
	t.sets = slices.DeleteFunc(t.sets, drop(""))
	for _, c := range t.chains {
		prefix := ""
		if t.loader != "nft" {
			prefix = "-A " + c.name + " "
		}
		c.rules = slices.DeleteFunc(c.rules, drop(prefix))
	}
	return removed
}

var verboseFlag = flag.Bool("refused", false, "show rulesets that the kernel refuses")

// disagreement is a probe whose outcome is not what the model says.
type disagreement struct {
	probe  lab.Probe
	kernel string
	model  reach.Answer
}

func (d disagreement) String() string {
	s := fmt.Sprintf("%v: the kernel says %s, the model %s", d.probe, d.kernel, d.model.Words())
	if d.model.DecidedBy != nil {
		s += fmt.Sprintf(" by %+v", *d.model.DecidedBy)
	}
	return s
}

// judge compares the model's answers with what the probes see.
func (b *bench) judge(t testing.TB, rs *ruleset, probes []lab.Probe) (wrong []disagreement, depends, asked int) {
	b.Server.Flush(t)
	if b.dirty {
		b.reset(t)
	}
	b.dirty = len(rs.commands) > 0
	b.load(t, rs)
	e := reach.New(readWorld(t, b.Server))
	outcomes := b.Probe(t, probes...)
	b.unfound, b.lost, b.delivered, b.routed = 0, 0, 0, 0
	for i, o := range outcomes {
		a, err := e.Ask(b.query(probes[i], o.FromPort), reach.AnswerOnly)
		if err != nil {
			t.Fatalf("%v: %v", probes[i], err)
		}
		asked++
		// What is sure of every port of the client's is so of the one that was used.
		any, err := e.Ask(b.query(probes[i], 0), reach.AnswerOnly)
		if err != nil {
			t.Fatalf("%v from any port: %v", probes[i], err)
		}
		if any.ClientSees != reach.Depends && differs(any, o) {
			wrong = append(wrong, disagreement{probes[i], o.String() + " (asked about any port)", any})
		}
		for port, short := range map[uint16]reach.Answer{0: any, o.FromPort: a} {
			sameInDetail(t, e, b.query(probes[i], port), short)
		}
		if o.Delivered() {
			b.delivered++
		}
		if by := a.DecidedBy; by != nil && (by.Kind == reach.ByRoute || by.Kind == reach.ByRPFilter || by.Kind == reach.ByBindAddress) {
			b.routed++
		}
		if a.ClientSees == reach.Depends {
			depends++
			if turnsOnDiscovery(a) {
				b.unfound++
				if o.ClientSees == lab.Timeout {
					b.lost++
				}
			}
			if *verboseFlag {
				t.Logf("depends: %v: %+v", probes[i], a.Conditions)
			}
			continue
		}
		if differs(a, o) {
			wrong = append(wrong, disagreement{probes[i], o.String(), a})
		}
	}
	return wrong, depends, asked
}

// sameInDetail asks again, with the way that the packet takes: that changes no answer.
func sameInDetail(t testing.TB, e *reach.Evaluator, q reach.Query, short reach.Answer) {
	t.Helper()
	for _, d := range []reach.Detail{reach.WithPath, reach.WithRules} {
		long, err := e.Ask(q, d)
		if err != nil {
			t.Fatal(err)
		}
		if long.ClientSees != short.ClientSees || long.AfterConnect != short.AfterConnect || *long.DecidedBy != *short.DecidedBy || !slices.Equal(long.Conditions, short.Conditions) {
			t.Errorf("%+v: %s, %s by %+v on %v; in detail %d %s, %s by %+v on %v", q, short.ClientSees, short.AfterConnect, *short.DecidedBy, short.Conditions,
				d, long.ClientSees, long.AfterConnect, *long.DecidedBy, long.Conditions)
		}
	}
}

// differs holds an answer against what a probe saw. A TCP connection that is
// served was accepted by the listener, too; one that is connected to nothing was
// not.
func differs(a reach.Answer, o lab.Outcome) bool {
	if string(a.ClientSees) != o.ClientSees.String() {
		return true
	}
	return a.ClientSees == reach.Connected && a.AfterConnect != reach.Depends && a.Through() != o.Delivered()
}

// confirm asks the kernel and the model again about the probes that disagreed, so
// that a slow machine is not taken for a wrong model.
func (b *bench) confirm(t testing.TB, rs *ruleset, ds []disagreement) []disagreement {
	var probes []lab.Probe
	for _, d := range ds {
		probes = append(probes, d.probe)
	}
	again, _, _ := b.judge(t, rs, probes)
	return again
}

// shrink leaves out tables, chains and rules as long as the disagreement stays.
func (b *bench) shrink(t testing.TB, rs *ruleset, d disagreement) *ruleset {
	still := func(r *ruleset) bool {
		w, _, _ := b.judge(t, r, []lab.Probe{d.probe})
		return len(w) > 0
	}
	cur := rs
	for changed, tries := true, 0; changed && tries < 300; {
		changed = false
		for i := 0; i < len(cur.commands); i++ {
			c := cur.clone()
			c.commands = append(c.commands[:i], c.commands[i+1:]...)
			tries++
			if still(c) {
				cur, changed = c, true
				i--
			}
		}
		for i := 0; i < len(cur.tables); i++ {
			c := cur.clone()
			c.tables = append(c.tables[:i], c.tables[i+1:]...)
			tries++
			if still(c) {
				cur, changed = c, true
				i--
			}
		}
		for i := range cur.tables {
			for j := range cur.tables[i].chains {
				for k := 0; k < len(cur.tables[i].chains[j].rules); k++ {
					c := cur.clone()
					ch := c.tables[i].chains[j]
					ch.rules = append(ch.rules[:k], ch.rules[k+1:]...)
					tries++
					if still(c) {
						cur, changed = c, true
						k--
					}
				}
			}
		}
	}
	return cur
}

func (rs *ruleset) clone() *ruleset {
	out := &ruleset{commands: append([]command(nil), rs.commands...)}
	for _, t := range rs.tables {
		n := *t
		n.chains, n.sets = nil, slices.Clone(t.sets)
		for _, c := range t.chains {
			m := *c
			m.rules = append([]string(nil), c.rules...)
			n.chains = append(n.chains, &m)
		}
		out.tables = append(out.tables, &n)
	}
	return out
}

// regressionSeed is the seed of plain `go test`, which repeats what was seen to
// hold; `make conformance` looks for new failures, by seeds of the clock.
const regressionSeed = 20261126

// TestDifferential holds the model against the kernel: random rulesets of every
// back end, real packets, zero wrong answers.
func TestDifferential(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	seed := *seedFlag
	switch {
	case seed != 0:
	case *forFlag > 0:
		seed = uint64(time.Now().UnixNano())
	default:
		seed = regressionSeed
	}
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), vocabulary: b.vocabulary, undecidable: *undecidable}
	t.Logf("seed %d (repeat with -seed %d)", seed, seed)
	var open []lab.Probe
	for _, p := range b.draw(g, 120) {
		if slices.Contains(b.ports, int(p.To.Port())) && p.In == nil {
			open = append(open, p)
		}
	}
	b.Control(t, open...)
	g.routing, g.parts = *routing, newCornerTallies(t)
	start := time.Now()
	asked, depends, bad := 0, 0, 0
	defer g.parts.report(t)
	for round := 0; ; round++ {
		if *forFlag > 0 && time.Since(start) > *forFlag || *forFlag == 0 && round >= *roundsFlag {
			break
		}
		g.wide, g.rare = round%2 == 1, round%3 == 2 || *rareFlag
		rs, of := g.drawMix(round)
		probes := of.draw(b, g, 100)
		wrong, dep, n := b.judge(t, rs, probes)
		of.judged(t, b, rs, n, dep)
		asked, depends = asked+n, depends+dep
		if len(wrong) == 0 {
			continue
		}
		if wrong = b.confirm(t, rs, wrong); len(wrong) == 0 {
			continue
		}
		bad++
		small := b.shrink(t, rs, wrong[0])
		t.Errorf("round %d: %d of %d probes disagree, for example\n%v\nwith\n%v", round, len(wrong), n, wrong[0], small)
		if *keepFlag {
			keep(t, fmt.Sprintf("%d-%d", seed, round), small, wrong[0].probe)
		}
		if bad >= 5 {
			break
		}
	}
	t.Logf("%d probes, %d depends (%.2f %%), %d rulesets disagree", asked, depends, 100*float64(depends)/float64(max(1, asked)), bad)
	if asked < 100 {
		t.Errorf("only %d probes were judged", asked)
	}
	most := 50 // one in fifty of a short run
	if asked >= 10_000 {
		most = 100
	}
	if !*undecidable && *partFlag == "" && (depends-g.parts.unfound())*most > asked {
		t.Errorf("%d of %d answers are depends though every match can be decided", depends, asked)
	}
}
