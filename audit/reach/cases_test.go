package reach_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// ruleCase is one case of testdata/cases: one thing that rulesets can say, in
// each spelling that it has. The words of a case, a line each:
//
//	case NAME [FLAG…]      depends: some answers cannot be told; uniform: all
//	                       probes may end the same; local: the client is the host;
//	                       together: nft and xt are rules of one host
//	! COMMAND              changes the server before the rules are loaded
//	probe PROTO FROM TO VIA [depends]   asked in place of the usual probes
//	nft RULE               in a chain at input of `table inet t`
//	nft: …                 a text for nft, indented below
//	xt RULE                for iptables and ip6tables, legacy and nft, in INPUT
//	                       unless -t and -A say otherwise; xt4, xt6: for one
//	xt4: …, xt6: …         a text for iptables-restore, indented below
//	arp: …                 a text for arptables-restore, indented below
//	ipset LINE             a line for `ipset restore`
//
// nft and xt of one case are two spellings of the same; each of xt is loaded
// by both back ends.
type ruleCase struct {
	name     string
	flags    []string
	setup    []command
	probes   []lab.Probe
	unsure   map[int]bool // of probes, by place
	nft, ips string
	arp      string
	xt       [2]string // of ip and ip6
}

func (c *ruleCase) is(flag string) bool { return slices.Contains(c.flags, flag) }

// readCases reads a file of cases.
func readCases(t *testing.T, file string) (cases []*ruleCase) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var c *ruleCase
	var block *string // that indented lines go to
	var rules []string
	xt := [2]map[string][]string{{}, {}}
	finish := func() {
		if c == nil {
			return
		}
		if len(rules) > 0 {
			c.nft += "table inet t {\n\tchain in {\n\t\ttype filter hook input priority 0; policy accept;\n\t\t" + strings.Join(rules, "\n\t\t") + "\n\t}\n}\n"
		}
		for i := range xt {
			for _, table := range []string{"raw", "mangle", "nat", "filter", "security"} {
				if lines := xt[i][table]; len(lines) > 0 {
					c.xt[i] += "*" + table + "\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
				}
			}
			xt[i] = map[string][]string{}
		}
		rules = nil
		cases = append(cases, c)
	}
	for n, line := range strings.Split(string(data), "\n") {
		word, rest, _ := strings.Cut(line, " ")
		if strings.HasPrefix(line, "\t") && block != nil {
			*block += strings.TrimPrefix(line, "\t") + "\n"
			continue
		}
		block = nil
		switch word {
		case "", "#":
		case "case":
			finish()
			f := strings.Fields(rest)
			c = &ruleCase{name: f[0], flags: f[1:], unsure: map[int]bool{}}
		case "!":
			c.setup = append(c.setup, strings.Fields(rest))
		case "probe":
			c.probe(t, strings.Fields(rest))
		case "nft":
			rules = append(rules, rest)
		case "nft:":
			block = &c.nft
		case "arp:":
			block = &c.arp
		case "xt4:":
			block = &c.xt[0]
		case "xt6:":
			block = &c.xt[1]
		case "ipset":
			c.ips += rest + "\n"
		case "xt", "xt4", "xt6":
			table := "filter"
			if r, ok := strings.CutPrefix(rest, "-t "); ok {
				table, rest, _ = strings.Cut(r, " ")
			}
			if !strings.HasPrefix(rest, "-A ") && !strings.HasPrefix(rest, ":") {
				rest = "-A INPUT " + rest
			}
			for i, f := range []string{"xt4", "xt6"} {
				if word == "xt" || word == f {
					xt[i][table] = append(xt[i][table], rest)
				}
			}
		default:
			t.Fatalf("%s:%d: what is %q?", file, n+1, line)
		}
	}
	finish()
	return cases
}

func (c *ruleCase) probe(t *testing.T, f []string) {
	t.Helper()
	if len(f) < 4 {
		t.Fatalf("case %s: probe %v", c.name, f)
	}
	p := lab.Probe{Proto: lab.TCP, To: netip.MustParseAddrPort(f[2]), Via: f[3]}
	if f[0] == "udp" {
		p.Proto = lab.UDP
	}
	if from, err := netip.ParseAddrPort(f[1]); err == nil {
		p.From, p.FromPort = from.Addr(), from.Port()
	} else {
		p.From = netip.MustParseAddr(f[1])
	}
	if len(f) > 4 && f[4] == "depends" {
		c.unsure[len(c.probes)] = true
	}
	c.probes = append(c.probes, p)
}

// spelling is one way to load a case.
type spelling struct {
	name  string
	parts []part
}

type part struct {
	loader lab.Loader
	text   string
}

func (c *ruleCase) spellings() (out []spelling) {
	sets := []part{}
	if c.ips != "" {
		sets = append(sets, part{lab.IPSet, c.ips})
	}
	if c.nft != "" && !c.is("together") {
		out = append(out, spelling{"nft", []part{{lab.NFT, c.nft}}})
	} else if c.nft != "" {
		sets = append(sets, part{lab.NFT, c.nft})
	}
	legacy, compat := spelling{"iptables-legacy", slices.Clone(sets)}, spelling{"iptables-nft", slices.Clone(sets)}
	for i, loaders := range [][2]lab.Loader{{lab.IPTablesLegacy, lab.IPTablesNFT}, {lab.IP6TablesLegacy, lab.IP6TablesNFT}} {
		if c.xt[i] != "" {
			legacy.parts = append(legacy.parts, part{loaders[0], c.xt[i]})
			compat.parts = append(compat.parts, part{loaders[1], c.xt[i]})
		}
	}
	if c.xt[0]+c.xt[1] != "" {
		out = append(out, legacy, compat)
	}
	if c.arp != "" {
		out = append(out, spelling{"arptables-nft", []part{{lab.ARPTablesNFT, c.arp}}})
	}
	if len(out) == 0 {
		out = append(out, spelling{name: "no rules"})
	}
	return out
}

// newCaseBench is newBench with sockets of every kind beside the usual ones.
func newCaseBench(t testing.TB) *bench {
	b := newBench(t)
	var ls []lab.Listen
	add := func(addr string, more lab.Listen) {
		for _, p := range []lab.Proto{lab.TCP, lab.UDP} {
			l := more
			l.Proto, l.Addr = p, netip.MustParseAddrPort(addr)
			ls = append(ls, l)
		}
	}
	add("10.9.0.2:9001", lab.Listen{})
	add("[::]:9002", lab.Listen{V6Only: true})
	add("0.0.0.0:9003", lab.Listen{})
	add("[::]:9004", lab.Listen{Device: "eth0"})
	add("[::]:9005", lab.Listen{ReusePort: true})
	add("[::]:9005", lab.Listen{ReusePort: true})
	add("127.0.0.1:9006", lab.Listen{})
	add("[::1]:9006", lab.Listen{})
	add("[fd00:9::2]:9007", lab.Listen{})
	add("[::ffff:10.9.0.2]:9009", lab.Listen{})
	add("0.0.0.0:9010", lab.Listen{Device: "eth1"})
	add("10.77.0.9:9011", lab.Listen{FreeBind: true})
	add("127.0.0.2:9012", lab.Listen{})
	add("0.0.0.0:9013", lab.Listen{})
	add("[::]:9013", lab.Listen{V6Only: true})
	add("[::]:9014", lab.Listen{Mark: 5})
	add("10.9.0.2:9015", lab.Listen{Transparent: true})
	add("[fd00:9::2]:9015", lab.Listen{Transparent: true, Mark: 5})
	add("[::]:9016", lab.Listen{ReusePort: true, Mark: 5})
	add("[::]:9016", lab.Listen{ReusePort: true, Mark: 6})
	b.Server.Listen(t, ls...)
	return b
}

// usual are the probes of a case that names none: every client to some ports,
// by both interfaces, of both protocols, and the host itself.
func (b *bench) usual() (out []lab.Probe) {
	k := 0
	for _, from := range append(slices.Clone(b.clients4), b.clients6...) {
		for _, port := range append(slices.Clone(b.ports), b.closed[0]) {
			to := b.server4
			if from.Is6() {
				to = b.server6
			}
			k++
			for i, proto := range []lab.Proto{lab.TCP, lab.UDP} {
				out = append(out, lab.Probe{Proto: proto, From: from, To: netip.AddrPortFrom(to[(k/2+i)%2], uint16(port)), Via: b.links[k%2]})
			}
		}
	}
	for _, port := range []int{80, 8080} {
		for _, a := range []string{"127.0.0.1", "10.9.0.2", "::1", "fd00:9::2"} {
			from := netip.MustParseAddr(a)
			to := b.server4[0]
			if from.Is6() {
				to = b.server6[0]
			}
			out = append(out, lab.Probe{Proto: lab.TCP, In: b.Server, From: from, To: netip.AddrPortFrom(to, uint16(port))},
				lab.Probe{Proto: lab.UDP, In: b.Server, From: from, To: netip.AddrPortFrom(to, uint16(port))})
		}
	}
	return out
}

// TestCases asks kernel and model about every case of testdata/cases, spelling
// by spelling: no answer is wrong, none depends that need not, probes end on
// both sides of the edge, and each rule reads as its own tool prints it.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.cases")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases (%v)", err)
	}
	lab.Need(t, "ipset")
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".cases"), func(t *testing.T) {
			t.Parallel()
			shared := newCaseBench(t)
			var open []lab.Probe
			for _, p := range shared.usual() {
				if !slices.Contains(shared.closed, int(p.To.Port())) {
					open = append(open, p)
				}
			}
			shared.Control(t, open...)
			for _, c := range readCases(t, f) {
				t.Run(c.name, func(t *testing.T) {
					b := shared
					if len(c.setup) > 0 {
						b = newCaseBench(t)
						for _, cmd := range c.setup {
							in := b.Server
							if cmd[0] == "client" {
								in, cmd = b.Client, cmd[1:]
							}
							if cmd[0] == "sysctl" {
								in.Sysctl(t, cmd[1], cmd[2])
								continue
							}
							in.Run(t, cmd...)
						}
					}
					for _, s := range c.spellings() {
						t.Run(s.name, func(t *testing.T) { b.hold(t, c, s) })
					}
				})
			}
		})
	}
}

// hold asks about one spelling of a case.
func (b *bench) hold(t *testing.T, c *ruleCase, s spelling) {
	b.Server.Flush(t)
	for _, p := range s.parts {
		b.Server.Load(t, p.loader, p.text)
	}
	probes := slices.Clone(c.probes)
	if len(probes) == 0 {
		probes = b.usual()
	}
	for i := range probes {
		if probes[i].Via == "local" {
			probes[i].Via, probes[i].In = "", b.Server
		}
	}
	w := readWorld(t, b.Server)
	unlike := b.compareTexts(t, w.Namespaces[0].Ruleset)
	for try := 0; len(unlike) > 0 && try < 3; try++ {
		// What a rule has counted is part of its text, and a packet that the
		// case before left behind can count between our reading and the tool's.
		w = readWorld(t, b.Server)
		unlike = b.compareTexts(t, w.Namespaces[0].Ruleset)
	}
	for _, u := range unlike {
		t.Error(u)
	}
	e := reach.New(w)
	outcomes := b.ask(t, c, probes)
	seen, depends, said := map[string]int{}, 0, 0
	complain := func(format string, args ...any) {
		if said++; said <= 2 || *verboseFlag {
			t.Errorf(format, args...)
		}
	}
	for i, o := range outcomes {
		a, err := e.Ask(b.query(probes[i], o.FromPort), reach.AnswerOnly)
		if err != nil {
			t.Fatalf("%v: %v", probes[i], err)
		}
		seen[fmt.Sprint(o.ClientSees, o.Delivered())]++
		unsure := a.ClientSees == reach.Depends || a.AfterConnect == reach.Depends
		if unsure {
			depends++
			if !c.is("depends") && !c.unsure[i] {
				complain("depends on %s; the kernel says %v", turnsOn(a.Conditions), o)
			}
			if len(a.Conditions) == 0 {
				complain("%v: depends, and does not say on what", probes[i])
			}
			continue
		}
		if c.unsure[i] {
			complain("%v: %s, which cannot be told", probes[i], a.Words())
		}
		if differs(a, o) {
			complain("%v", disagreement{probes[i], o.String(), a})
		}
	}
	if said > 0 {
		t.Errorf("%d of %d probes", said, len(probes))
	}
	if len(seen) < 2 && !c.is("uniform") {
		t.Errorf("all %d probes end the same: %v", len(probes), seen)
	}
	if c.is("depends") && depends == 0 {
		t.Error("no answer depends on anything")
	}
}

// ask probes; where rules count or remember what they saw, once.
func (b *bench) ask(t *testing.T, c *ruleCase, probes []lab.Probe) []lab.Outcome {
	return b.Probe(t, probes...)
}

var spaces = regexp.MustCompile(`\s+`)

// compareTexts holds the text of every rule against what its own tool prints.
func (b *bench) compareTexts(t *testing.T, rs *firewall.Ruleset) (unlike []string) {
	t.Helper()
	listing := ""
	printed := map[string]string{}
	for _, tb := range rs.Tables {
		for _, ch := range tb.Chains {
			for _, r := range ch.Rules {
				text := r.Text()
				if tb.Backend == firewall.NFTables {
					if listing == "" {
						listing = spaces.ReplaceAllString(b.Server.Run(t, "nft", "-a", "list", "ruleset"), " ")
					}
					if want := fmt.Sprintf(" %s # handle %d ", spaces.ReplaceAllString(text, " "), r.Handle); !strings.Contains(listing, want) {
						unlike = append(unlike, fmt.Sprintf("%s %s: %q is not printed by nft:\n%s", tb.Name, ch.Name, text, listing))
					}
					continue
				}
				tool := "iptables"
				if tb.Family == firewall.TableIP6 {
					tool = "ip6tables"
				}
				tool += map[firewall.Backend]string{firewall.IPTablesLegacy: "-legacy", firewall.IPTablesNFT: "-nft"}[tb.Backend]
				key := tool + " " + tb.Name
				if printed[key] == "" {
					printed[key] = b.Server.Run(t, tool, "-t", tb.Name, "-S")
				}
				if !strings.Contains("\n"+printed[key]+"\n", "\n"+text+"\n") {
					unlike = append(unlike, fmt.Sprintf("%s: %q is not printed:\n%s", key, text, printed[key]))
				}
			}
		}
	}
	return unlike
}

// turnsOn is what conditions turn on, in one line.
func turnsOn(cs []reach.Condition) string {
	var out []string
	for _, c := range cs {
		out = append(out, fmt.Sprintf("%s%s: %s", c.Text, c.Object, c.TurnsOn))
	}
	return strings.Join(out, "; ")
}
