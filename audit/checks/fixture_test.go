package checks

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/audit/route"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// A fixture is a host in a few lines. On top of one real reading (links,
// addresses, routes of eth0 10.9.0.2/24 and fd00:9::2/64) it says:
//
//	listen tcp 127.0.0.1:2346 php [pid=] [unit=] [queue=3/128] [files=900/1024] [v6only] [device=] [untold=v6only] [unowned=…]
//	chain nftables inet filter input accept      a base chain at the input hook
//	rule [tcp|udp dport 22,80-90] [ip saddr 10.0.0.0/8] [iif lo] [opaque NAME] accept|drop|reject
//	service chat tcp 2346 everyone|host|PREFIX,…
//	accept ID SUBJECT… until=2027-01-01
//	sysctl KEY = VALUE                           in force
//	absent KEY                                   not there
//	file /etc/sysctl.d/x.conf KEY = VALUE        one line of a file
//	link /sbin/init TARGET                       a link
//	used FROM TO PORT IN_USE TIME_WAIT           the census; "used" alone: counted, and nothing in use
//	counter NAME BEFORE AFTER
//	address 192.0.2.10/24                        one more address of eth0
//	unread listeners|firewall|routes WHY
//	nofiles                                      no file could be read
//	want SEVERITY ID SUBJECT…                    a finding; all are listed
type fixture struct {
	t     *testing.T
	snap  *audit.Snapshot
	cfg   audit.Config
	chain *firewall.Chain
	want  []string
	root  string
}

func parseFixture(t *testing.T, text string) *fixture {
	t.Helper()
	f, err := os.Open("testdata/base.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	snap, err := collect.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	home := snap.World.Namespaces[0]
	home.Ruleset, home.Listeners, home.Programs, home.Unread = &firewall.Ruleset{}, &listeners.Table{}, nil, map[string]string{}
	snap.World.Namespaces = []*reach.Namespace{home}
	snap.Sysctls, snap.Keys, snap.Gaps, snap.Samples = sysctl.Values{}, nil, nil, nil
	snap.Census, snap.SockStat, snap.Conntrack = nil, nil, nil
	x := &fixture{t: t, snap: snap, root: t.TempDir()}
	s := bufio.NewScanner(strings.NewReader(text))
	noFiles := false
	for s.Scan() {
		words := strings.Fields(s.Text())
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		rest := words[1:]
		switch words[0] {
		case "listen":
			x.listen(rest)
		case "chain":
			x.base(rest)
		case "rule":
			x.rule(rest)
		case "service":
			x.service(rest)
		case "accept":
			w := audit.Waiver{ID: rest[0], Reason: "weighed", Source: "fixture:1"}
			for _, r := range rest[1:] {
				if d, ok := strings.CutPrefix(r, "until="); ok {
					w.Until, err = time.Parse(audit.DateForm, d)
					x.check(err)
					continue
				}
				w.Subject = strings.TrimSpace(w.Subject + " " + r)
			}
			x.cfg.Accept = append(x.cfg.Accept, w)
		case "sysctl":
			snap.Sysctls[sysctl.Key(rest[0])] = sysctl.Value{State: sysctl.Present, Text: strings.Join(rest[2:], " ")}
		case "absent":
			snap.Sysctls[sysctl.Key(rest[0])] = sysctl.Value{State: sysctl.Absent}
		case "failed":
			snap.Sysctls[sysctl.Key(rest[0])] = sysctl.Value{State: sysctl.Failed, Err: "permission denied"}
		case "file":
			x.file(rest[0], strings.Join(rest[1:], " "))
		case "link":
			p := filepath.Join(x.root, rest[0])
			x.check(os.MkdirAll(filepath.Dir(p), 0o755))
			x.check(os.Symlink(rest[1], p))
		case "used":
			x.used(rest)
		case "counter":
			x.counter(rest)
		case "address":
			p := netip.MustParsePrefix(rest[0])
			eth0 := *home.Route.Addrs[0]
			for _, a := range home.Route.Addrs {
				if a.Link.Name == "eth0" && a.Local.Is4() == p.Addr().Is4() {
					eth0 = *a
				}
			}
			eth0.Local, eth0.Prefix = p.Addr(), p.Masked()
			home.Route.Addrs = append(home.Route.Addrs, &eth0)
		case "noaddress6":
			home.Route.Addrs = slices.DeleteFunc(home.Route.Addrs, func(a *route.Addr) bool { return a.Local.Is6() && !a.Local.IsLoopback() })
		case "unread":
			home.Unread[rest[0]] = strings.Join(rest[1:], " ")
			switch rest[0] {
			case "listeners":
				home.Listeners = nil
			case "firewall":
				home.Ruleset = nil
			case "routes":
				home.Route = nil
			case "sysctls":
				snap.Sysctls = nil
			}
		case "nofiles":
			noFiles = true
		case "want":
			x.want = append(x.want, strings.Join(rest, " "))
		default:
			t.Fatalf("fixture: no such line %q", s.Text())
		}
	}
	snap.Meta.Root = x.root
	snap.Files = nil
	if !noFiles {
		snap.Files, err = sysctl.CaptureFiles(t.Context(), x.root)
		x.check(err)
	}
	return x
}

func (x *fixture) check(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *fixture) listen(w []string) {
	l := listeners.Listener{Socket: listeners.Socket{Proto: listeners.Proto(w[0]), Local: netip.MustParseAddrPort(w[1]), Sharing: 1, Accept: listeners.Queue{Limit: 4096}}}
	l.Inode = uint32(100 + len(x.snap.World.Namespaces[0].Listeners.Listeners))
	p := listeners.Process{PID: 900, Comm: listeners.HostText(w[2]), User: "www-data", UID: 33, Files: listeners.FileLimit{Open: 10, Soft: 1024, Hard: 4096}}
	for _, opt := range w[3:] {
		k, v, _ := strings.Cut(opt, "=")
		a, b, _ := strings.Cut(v, "/")
		switch k {
		case "pid":
			p.PID = x.number(v)
		case "unit":
			p.Unit = listeners.HostText(v)
		case "queue":
			l.Accept.Len, l.Accept.Limit = uint32(x.number(a)), uint32(x.number(b))
		case "files":
			p.Files.Open, p.Files.Soft = x.number(a), int64(x.number(b))
		case "v6only":
			l.V6Only = true
		case "device": // the name of one that is there, or the number of one that is gone
			if l.Device.Index, _ = strconv.Atoi(v); l.Device.Index == 0 {
				link := x.snap.World.Namespaces[0].Route.LinkByName(v)
				l.Device = listeners.Device{Index: link.Index, Name: listeners.HostText(v)}
			}
		case "untold":
			l.Untold = append(l.Untold, v)
		case "unowned":
			l.Unowned = listeners.Unowned(v)
		default:
			x.t.Fatalf("fixture: listen: no option %q", opt)
		}
	}
	if l.Unowned == "" {
		l.Owners = []listeners.Process{p}
	}
	t := x.snap.World.Namespaces[0].Listeners
	t.Listeners = append(t.Listeners, l)
}

func (x *fixture) number(s string) int {
	n, err := strconv.Atoi(s)
	x.check(err)
	return n
}

func (x *fixture) base(w []string) {
	rs := x.snap.World.Namespaces[0].Ruleset
	t := &firewall.Table{Backend: firewall.Backend(w[0]), Family: firewall.TableFamily(w[1]), Name: w[2]}
	x.chain = &firewall.Chain{Table: t, Name: w[3], Base: &firewall.Base{Hook: firewall.Input, Policy: firewall.Accept}}
	if w[4] == "drop" {
		x.chain.Base.Policy = firewall.Drop
	}
	t.Chains = []*firewall.Chain{x.chain}
	rs.Tables = append(rs.Tables, t)
}

func (x *fixture) rule(w []string) {
	text := strings.Join(w, " ")
	r := &firewall.Rule{Chain: x.chain, Number: len(x.chain.Rules) + 1, Packets: -1, Print: func(*firewall.Rule) string { return text }}
	match := func(k firewall.FieldKind, n int, in firewall.Ranges) {
		r.Stmts = append(r.Stmts, &firewall.Match{Operand: firewall.Plain(k, n), In: in})
	}
	for i := 0; i < len(w); i++ {
		switch w[i] {
		case "tcp", "udp":
			proto := map[string]firewall.Proto{"tcp": firewall.TCP, "udp": firewall.UDP}[w[i]]
			match(firewall.FieldL4Proto, 1, firewall.Single(firewall.Num(uint64(proto))))
			var ports firewall.Ranges
			for _, p := range strings.Split(w[i+2], ",") {
				lo, hi, ranged := strings.Cut(p, "-")
				if !ranged {
					hi = lo
				}
				ports = ports.Union(firewall.Span(firewall.Num(uint64(x.number(lo))), firewall.Num(uint64(x.number(hi)))))
			}
			match(firewall.FieldDstPort, 2, ports)
			i += 2
		case "ip", "ip6":
			p := netip.MustParsePrefix(w[i+2])
			proto := uint64(2)
			if p.Addr().Is6() {
				proto = 10
			}
			match(firewall.FieldNFProto, 1, firewall.Single(firewall.Num(proto)))
			match(firewall.FieldSrcAddr, p.Addr().BitLen()/8, firewall.Prefix(p))
			i += 2
		case "iif":
			match(firewall.FieldInName, 16, firewall.Single(firewall.NameValue(w[i+1])))
			i++
		case "established":
			mask := firewall.Operand{Field: firewall.Field{Kind: firewall.FieldCTState}, Len: 4, Mask: firewall.Num(firewall.CTEstablished), HostOrder: true}
			r.Stmts = append(r.Stmts, &firewall.Match{Operand: mask, In: firewall.Span(firewall.Num(1), firewall.MaxValue(4))})
		case "opaque":
			r.Stmts = append(r.Stmts, &firewall.Opaque{Name: w[i+1], Reason: w[i+1]})
			i++
		case "accept":
			r.Stmts = append(r.Stmts, &firewall.Verdict{Kind: firewall.Accept})
		case "drop":
			r.Stmts = append(r.Stmts, &firewall.Verdict{Kind: firewall.Drop})
		case "reject":
			r.Stmts = append(r.Stmts, &firewall.Reject{V4Type: 3, V4Code: 3, V6Type: 1, V6Code: 4})
		default:
			x.t.Fatalf("fixture: rule: no word %q", w[i])
		}
	}
	x.chain.Rules = append(x.chain.Rules, r)
}

func (x *fixture) service(w []string) {
	s := audit.Service{Name: w[0], Proto: w[1], Port: uint16(x.number(w[2])), Source: "hostaudit.yaml:1"}
	switch w[3] {
	case "everyone":
	case "host":
		s.Audience.Kind = audit.ForHost
	default:
		s.Audience.Kind = audit.ForNetworks
		for _, p := range strings.Split(w[3], ",") {
			s.Audience.Networks = append(s.Audience.Networks, netip.MustParsePrefix(p))
		}
	}
	x.cfg.Services = append(x.cfg.Services, s)
}

func (x *fixture) file(name, line string) {
	name = filepath.Join(x.root, name)
	x.check(os.MkdirAll(filepath.Dir(name), 0o755))
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	x.check(err)
	defer f.Close()
	_, err = fmt.Fprintln(f, line)
	x.check(err)
}

func (x *fixture) used(w []string) {
	if x.snap.Census == nil {
		x.snap.Census = &listeners.Census{Settings: listeners.PortSettings{Low: 32768, High: 60999}, States: map[string]uint64{},
			HeadRoom: map[listeners.Proto]listeners.HeadRoom{listeners.TCP: {Range: 28232, Usable: 28232}}}
	}
	if len(w) == 0 {
		return
	}
	d := listeners.Destination{Proto: listeners.TCP, From: netip.MustParseAddr(w[0]), To: netip.MustParseAddr(w[1]), Port: uint16(x.number(w[2])),
		InUse: uint32(x.number(w[3])), TimeWait: uint32(x.number(w[4]))}
	d.Share = float64(d.InUse) / 28232
	x.snap.Census.Destinations = append(x.snap.Census.Destinations, d)
}

func (x *fixture) counter(w []string) {
	if x.snap.Samples == nil {
		at := x.snap.Meta.TakenAt
		x.snap.Samples = []audit.Sample{{At: at, Counters: listeners.Counters{}}, {At: at.Add(time.Second), Counters: listeners.Counters{}}}
	}
	x.snap.Samples[0].Counters[w[0]], x.snap.Samples[1].Counters[w[0]] = uint64(x.number(w[1])), uint64(x.number(w[2]))
}
