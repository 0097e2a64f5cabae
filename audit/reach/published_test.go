package reach_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// published is where the rulesets lie that real sites published: beside the
// project, never in it.
const published = "../../../shared/rulesets"

// TestPublishedRulesets loads each of them (where the kernel takes it) and holds
// the model against real probes from the addresses and interfaces, to the
// ports, that the ruleset itself names: zero wrong, at least 97 % decided.
func TestPublishedRulesets(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-nft", "iptables-legacy", "conntrack")
	files, _ := filepath.Glob(filepath.Join(published, "*"))
	if len(files) < 100 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the published rulesets are not in %s", published)
		}
		t.Skipf("SKIPPED: the published rulesets are not in %s", published)
	}
	var asked, depends, loaded, refused, wrong atomic.Int64
	var most sync.Map // files with many
	work := make(chan string)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for f := range work {
				t.Run(filepath.Base(f), func(t *testing.T) {
					n, d, w, ok := newEmptyBench(t).published(t, f)
					if !ok {
						refused.Add(1)
						return
					}
					loaded.Add(1)
					asked.Add(int64(n))
					if d > 10 {
						most.Store(filepath.Base(f), d)
					}
					depends.Add(int64(d))
					for _, x := range w {
						wrong.Add(1)
						t.Error(x)
					}
				})
			}
		})
	}
	for _, f := range files {
		if strings.HasSuffix(f, ".nft") || strings.HasSuffix(f, ".rules") {
			work <- f
		}
	}
	close(work)
	wg.Wait()
	decided := 100 * float64(asked.Load()-depends.Load()) / float64(max(1, asked.Load()))
	t.Logf("%d rulesets loaded, %d refused by the tools or the kernel; %d probes, %.2f %% decided, %d wrong",
		loaded.Load(), refused.Load(), asked.Load(), decided, wrong.Load())
	if loaded.Load() < 140 || asked.Load() < 3000 {
		t.Errorf("too little was judged")
	}
	if decided < 97 {
		t.Errorf("%.2f %% of the answers are decided, want 97", decided)
		most.Range(func(file, n any) bool {
			t.Logf("%s: %d of its 40", file, n)
			return true
		})
	}
}

func newEmptyBench(t testing.TB) *bench {
	b := &bench{Lab: lab.New(t, lab.Topology{Links: 2})}
	b.links = []string{"eth0", "eth1"}
	b.Server.Sysctl(t, "net.ipv4.conf.all.rp_filter", "0", "net.ipv4.conf.eth0.rp_filter", "0", "net.ipv4.conf.eth1.rp_filter", "0")
	return b
}

var (
	linkName  = regexp.MustCompile(`(?:(?:-i|-o|--in-interface|--out-interface) +|(?:iif|oif|iifname|oifname)(?: *!=)? *\{? *"?)([a-z][a-zA-Z0-9_.-]*)`)
	addr4     = regexp.MustCompile(`\b(\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3})(/\d{1,2})?\b`)
	addr6     = regexp.MustCompile(`\b([0-9a-f]{1,4}:[0-9a-f:]*:[0-9a-f:]*)(/\d{1,3})?\b`)
	portWords = regexp.MustCompile(`(?:--dports?|--ports?|dport|--to-ports?) +(?:!= *)?\{? *([0-9][0-9,:\- ]*)`)
)

// published judges one file.
func (b *bench) published(t *testing.T, file string) (asked, depends int, wrong []disagreement, ok bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
		return 0, 0, nil, false
	}
	b.file = filepath.Base(file)
	text := renameLinks(string(data))
	six := strings.HasSuffix(file, ".v6.rules")
	h := fnv.New64a()
	h.Write([]byte(filepath.Base(file)))
	g := &generator{Rand: rand.New(rand.NewPCG(h.Sum64(), 4))}
	b.Server.Flush(t)
	loader := lab.NFT
	switch {
	case six:
		loader = pick(g, lab.IP6TablesLegacy, lab.IP6TablesNFT)
	case strings.HasSuffix(file, ".rules"):
		loader = pick(g, lab.IPTablesLegacy, lab.IPTablesNFT)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.Server.TryLoad(ctx, loader, text); err != nil {
		if *verboseFlag {
			t.Logf("%s: refused: %v", filepath.Base(file), err)
		}
		return 0, 0, nil, false
	}
	ports := portsIn(text)
	var specs []lab.Listen
	for _, p := range ports[:len(ports)-1] {
		a := netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(p))
		specs = append(specs, lab.Listen{Proto: lab.TCP, Addr: a}, lab.Listen{Proto: lab.UDP, Addr: a})
	}
	ls := b.Server.Listen(t, specs...)
	defer ls.Close()
	var probes []lab.Probe
	namesLo := strings.Contains(text, " lo ") || strings.Contains(text, `"lo"`)
	froms4, froms6 := sourcesIn(text, addr4, b.ClientAddr(0)), sourcesIn(text, addr6, b.ClientAddr6(0))
	for range 40 {
		p := lab.Probe{Proto: lab.TCP, Via: pick(g, b.links...)}
		if g.chance(30) {
			p.Proto = lab.UDP
		}
		link := g.IntN(2)
		if six || g.chance(20) {
			p.From, p.To = pick(g, froms6...), netip.AddrPortFrom(b.ServerAddr6(link), uint16(pick(g, ports...)))
		} else {
			p.From, p.To = pick(g, froms4...), netip.AddrPortFrom(b.ServerAddr(link), uint16(pick(g, ports...)))
		}
		if namesLo && g.chance(12) {
			p.In, p.Via, p.From = b.Server, "", netip.MustParseAddr("127.0.0.1")
			if p.To.Addr().Is6() {
				p.From = netip.IPv6Loopback()
			}
		}
		probes = append(probes, p)
	}
	e := reach.New(readWorld(t, b.Server))
	before := b.compare(t, e, probes)
	// What disagrees is read and asked again before it is believed: sets with
	// timeouts and limits move.
	var again []lab.Probe
	for _, d := range before.wrong {
		again = append(again, d.probe)
	}
	if len(again) > 0 {
		before.wrong = b.compare(t, reach.New(readWorld(t, b.Server)), again).wrong
	}
	return before.asked, before.depends, before.wrong, true
}

type tally struct {
	asked, depends int
	wrong          []disagreement
}

func (b *bench) compare(t *testing.T, e *reach.Evaluator, probes []lab.Probe) (r tally) {
	for i, o := range b.Probe(t, probes...) {
		a, err := e.Ask(b.query(probes[i], o.FromPort), reach.AnswerOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		r.asked++
		switch {
		case a.ClientSees == reach.Depends:
			r.depends++
			t.Logf("depends: %v: %+v", probes[i], a.Conditions) // shown when the test fails
		case differs(a, o):
			r.wrong = append(r.wrong, disagreement{probes[i], o.String(), a})
		}
	}
	return r
}

// renameLinks gives the first two interfaces that a ruleset names the names of
// the laboratory's.
func renameLinks(text string) string {
	names := map[string]string{}
	for _, m := range linkName.FindAllStringSubmatch(text, -1) {
		if n := m[1]; n != "lo" && n != "eth0" && n != "eth1" && names[n] == "" && len(names) < 2 {
			names[n] = fmt.Sprintf("eth%d", len(names))
		}
	}
	for from, to := range names {
		text = regexp.MustCompile(`(["\s{,]|^)`+regexp.QuoteMeta(from)+`(["\s},]|$)`).ReplaceAllString(text, "${1}"+to+"${2}")
	}
	return text
}

// portsIn lists ports that a ruleset names, and 22, 80 and a port that nothing
// listens on, last.
func portsIn(text string) []int {
	seen := map[int]bool{9: true}
	out := []int{}
	add := func(p int) {
		if p > 0 && p < 65536 && !seen[p] && len(out) < 14 {
			seen[p] = true
			out = append(out, p)
		}
	}
	add(22)
	add(80)
	for _, m := range portWords.FindAllStringSubmatch(text, -1) {
		for _, w := range strings.FieldsFunc(m[1], func(r rune) bool { return r < '0' || r > '9' }) {
			if p, err := strconv.Atoi(w); err == nil {
				add(p)
			}
		}
	}
	return append(out, 9)
}

// sourcesIn lists addresses at the edges of the prefixes that a ruleset names.
func sourcesIn(text string, form *regexp.Regexp, always netip.Addr) []netip.Addr {
	seen := map[netip.Addr]bool{}
	var out []netip.Addr
	add := func(a netip.Addr) {
		if !a.IsValid() || seen[a] || a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.IsLinkLocalUnicast() || len(out) >= 24 ||
			a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 224) || strings.HasPrefix(a.String(), "10.9.") && a != always ||
			strings.HasPrefix(a.String(), "fd00:9:") && a != always || a.Is4In6() {
			return
		}
		seen[a] = true
		out = append(out, a)
	}
	add(always)
	if always.Is4() {
		add(netip.MustParseAddr("198.51.100.7"))
	} else {
		add(netip.MustParseAddr("2001:db8::7"))
	}
	for _, m := range form.FindAllStringSubmatch(text, -1) {
		a, err := netip.ParseAddr(m[1])
		if err != nil || a.Is4() != always.Is4() {
			continue
		}
		add(a)
		if bits, err := strconv.Atoi(strings.TrimPrefix(m[2], "/")); err == nil {
			if p, err := a.Prefix(bits); err == nil {
				add(p.Addr().Prev())
				add(p.Addr().Next())
			}
		}
		add(a.Next())
	}
	return out
}
