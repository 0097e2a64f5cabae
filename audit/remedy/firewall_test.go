package remedy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

// drill is a host with rules, an operator at work over a connection, and a service
// that is blocked.
type drill struct {
	t     testing.TB
	lab   *lab.Lab
	sys   *System
	root  *lab.Root // of throwAway
	login net.Conn
	v6    bool
	cfg   audit.Config
}

const (
	webPort = 8080
	sshPort = 22
)

func newDrill(t testing.TB, v6 bool, audience audit.Audience) *drill {
	t.Helper()
	l := lab.New(t, lab.Topology{})
	d := &drill{t: t, lab: l, v6: v6}
	d.cfg.Services = []audit.Service{{Name: "web", Proto: "tcp", Port: webPort, Audience: audience, Source: "test"}}
	root := filepath.Join(t.TempDir(), "remedy-test")
	for _, dir := range []string{"etc", "var/lib", "run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.sys = &System{Root: root, Watch: noWatchdog{}, Tool: "test", Say: func(f string, a ...any) { t.Logf("say: "+f, a...) },
		Read: func(ctx context.Context) (*audit.Snapshot, error) {
			return collect.Host(ctx, collect.Options{Root: root, Quick: true, NoCensus: true})
		}}
	d.sys.Defaults()
	d.serve(webPort)
	d.serve(sshPort)
	// Clients come from beyond the link, too.
	gw, gw6 := l.ClientAddr(0).String(), l.ClientAddr6(0).String()
	l.Server.Run(t, "ip", "route", "replace", "default", "via", gw)
	l.Server.Run(t, "ip", "-6", "route", "replace", "default", "via", gw6)
	return d
}

// serve echoes what it gets, on a port of every address.
func (d *drill) serve(port int) {
	d.t.Helper()
	var ln net.Listener
	var err error
	d.lab.Server.Do(func() { ln, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port)) })
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
}

func (d *drill) server() netip.Addr {
	if d.v6 {
		return d.lab.ServerAddr6(0)
	}
	return d.lab.ServerAddr(0)
}

// dial connects from the client, once.
func (d *drill) dial(port uint16) (net.Conn, error) {
	var c net.Conn
	var err error
	d.lab.Client.Do(func() {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(d.server(), port).String(), 1200*time.Millisecond)
	})
	return c, err
}

// connects says whether a new connection gets through and is answered.
func (d *drill) connects(port uint16) bool {
	c, err := d.dial(port)
	if err != nil {
		return false
	}
	defer c.Close()
	return talks(c)
}

func talks(c net.Conn) bool {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return false
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return false
	}
	buf := make([]byte, 5)
	n, err := c.Read(buf)
	return err == nil && string(buf[:n]) == "hello"
}

// logIn opens the operator's connection.
func (d *drill) logIn() {
	d.t.Helper()
	c, err := d.dial(sshPort)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	d.login = c
	from, to := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	d.sys.Login = Login{Connection: fmt.Sprintf("%s %d %s %d", from.Addr().Unmap(), from.Port(), to.Addr().Unmap(), to.Port())}
}

func (d *drill) input() Input {
	d.t.Helper()
	snap, err := d.sys.Read(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	in := Input{Snapshot: snap, Config: &d.cfg, Checks: checks.All(), Findings: []string{portBlocked}}
	if err := d.sys.Gather(&in); err != nil {
		d.t.Fatal(err)
	}
	return in
}

// plan makes the plan inside the server.
func (d *drill) plan(choice owner.Kind) (p *Plan, in Input, err error) {
	d.lab.Server.Do(func() {
		in = d.input()
		in.Owner = choice
		p, err = NewPlan(in)
	})
	return p, in, err
}

func (d *drill) apply(p *Plan, in Input, verify func(context.Context) error) (err error) {
	d.lab.Server.Do(func() {
		if verify == nil {
			verify = d.sys.Verifier(p, in.Snapshot, in.Paths)
		}
		err = d.sys.Apply(context.Background(), p, ApplyOptions{Verify: verify, Again: func(context.Context) (*Plan, error) {
			again := d.input()
			again.Owner = in.Owner
			return NewPlan(again)
		}})
	})
	return err
}

// rulesets are the same policy in every back end: the operator's port and answers
// pass, everything else does not.
var rulesets = []struct {
	name    string
	loaders [2]lab.Loader // IPv4, IPv6
	texts   [2]string
	dump    []string
}{
	{"nft inet, drop rule", [2]lab.Loader{lab.NFT, lab.NFT}, [2]string{nftDrop, nftDrop}, []string{"nft", "list", "ruleset"}},
	{"nft inet, policy", [2]lab.Loader{lab.NFT, lab.NFT}, [2]string{nftPolicy, nftPolicy}, []string{"nft", "list", "ruleset"}},
	{"iptables-nft", [2]lab.Loader{lab.IPTablesNFT, lab.IP6TablesNFT}, [2]string{xtRules("icmp-port-unreachable"), xtRules("icmp6-port-unreachable")}, []string{"nft", "list", "ruleset"}},
	{"iptables-legacy", [2]lab.Loader{lab.IPTablesLegacy, lab.IP6TablesLegacy}, [2]string{xtRules("icmp-port-unreachable"), xtRules("icmp6-port-unreachable")}, []string{"iptables-legacy-save"}},
	{"legacy policy", [2]lab.Loader{lab.IPTablesLegacy, lab.IP6TablesLegacy}, [2]string{xtPolicy("icmp"), xtPolicy("ipv6-icmp")}, []string{"iptables-legacy-save"}},
	{"nft inet, no connection tracking", [2]lab.Loader{lab.NFT, lab.NFT}, [2]string{nftPlain, nftPlain}, []string{"nft", "list", "ruleset"}},
}

const nftDrop = `table inet filter {
	chain input {
		type filter hook input priority filter; policy accept;
		ct state established,related accept
		meta l4proto { icmp, ipv6-icmp } accept
		iifname "lo" accept
		tcp dport 22 accept
		ip saddr 203.0.113.66 drop
		tcp dport 1-65535 drop
	}
}`

// nftPlain asks for no state: connections are not tracked, and one that is open is let
// in by its port alone.
const nftPlain = `table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport 22 accept
		tcp dport 1-65535 drop
	}
}`

const nftPolicy = `table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		meta l4proto { icmp, ipv6-icmp } accept
		tcp dport 22 accept
	}
}`

func xtRules(reject string) string {
	return `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:BLOCK - [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -p tcp -j BLOCK
-A BLOCK -j REJECT --reject-with ` + reject + `
COMMIT
`
}

func xtPolicy(icmp string) string {
	return `*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p ` + icmp + ` -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
`
}

var everybody = audit.Audience{Kind: audit.ForEveryone}

// TestLockOutDrill opens a blocked port in every back end and family while an
// operator is at work over a live connection: the port opens, that connection
// lives and new ones get through all the while; rolled back, everything is as it
// was, to the letter.
func TestLockOutDrill(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-nft", "iptables-legacy", "ipv6")
	for _, rs := range rulesets {
		for fam, family := range []string{"IPv4", "IPv6"} {
			t.Run(rs.name+" "+family, func(t *testing.T) {
				t.Parallel()
				d := newDrill(t, fam == 1, everybody)
				if !d.connects(webPort) || !d.connects(sshPort) {
					t.Fatal("without rules the ports are not reached: nothing is proven here")
				}
				d.lab.Server.Load(t, rs.loaders[fam], rs.texts[fam])
				d.logIn()
				if d.connects(webPort) {
					t.Fatal("the rules do not block the port: nothing is proven here")
				}
				before := stable(d.lab.Server.Run(t, rs.dump...))
				p, in, err := d.plan("")
				if err != nil {
					t.Fatal(err)
				}
				if len(p.Steps) == 0 || len(p.Effect.Opens) == 0 || len(p.Effect.Closes) != 0 {
					t.Fatalf("no plan: %+v", p)
				}
				if len(p.Protected) == 0 {
					t.Errorf("the operator's connection is not protected: %v", p.Notes)
				}
				if err := d.apply(p, in, nil); err != nil {
					t.Fatalf("apply: %v\n%s", err, p.Text(nil, false))
				}
				if !d.connects(webPort) {
					t.Errorf("the port is still blocked\n%s", p.Text(nil, false))
				}
				if !talks(d.login) || !d.connects(sshPort) {
					t.Error("the operator was cut off")
				}
				again, _, err := d.plan("")
				if err != nil || len(again.Steps) != 0 {
					t.Errorf("a second time there is something to do: %v\n%s", err, again.Text(nil, false))
				}
				d.lab.Server.Do(func() { err = d.sys.Rollback(context.Background(), p.ID, false) })
				if err != nil {
					t.Errorf("rollback: %v", err)
				}
				if after := stable(d.lab.Server.Run(t, rs.dump...)); after != before {
					t.Errorf("after the rollback the rules are\n%s\nthey were\n%s", after, before)
				}
				if d.connects(webPort) || !d.connects(sshPort) || !talks(d.login) {
					t.Error("after the rollback it is not as it was")
				}
			})
		}
	}
}

// stable leaves counters out.
func stable(rules string) string {
	var out []string
	for line := range strings.Lines(rules) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		for i := range f {
			if i > 0 && (f[i-1] == "packets" || f[i-1] == "bytes") || strings.HasPrefix(f[i], "[") {
				f[i] = "N"
			}
		}
		out = append(out, strings.Join(f, " "))
	}
	return strings.Join(out, "\n")
}

// TestOperatorCutOff: somebody else shuts the operator out between the change and
// its verification; the change is taken back at once.
func TestOperatorCutOff(t *testing.T) {
	lab.Need(t, "nft")
	d := newDrill(t, false, everybody)
	d.lab.Server.Load(t, lab.NFT, nftDrop)
	d.logIn()
	p, in, err := d.plan("")
	if err != nil {
		t.Fatal(err)
	}
	err = d.apply(p, in, func(ctx context.Context) error {
		d.lab.Server.Run(t, "nft", "insert", "rule", "inet", "filter", "input", "tcp", "dport", "22", "drop")
		return d.sys.Verifier(p, in.Snapshot, in.Paths)(ctx)
	})
	if !errors.Is(err, ErrRolledBack) {
		t.Errorf("it ended with %v", err)
	}
	if rules := d.lab.Server.Run(t, "nft", "list", "ruleset"); strings.Contains(rules, "hostaudit") {
		t.Errorf("our rule is still there:\n%s", rules)
	}
}

// TestAudience: only those a service is meant for get in, one rule for each
// family.
func TestAudience(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-legacy")
	nets := audit.Audience{Kind: audit.ForNetworks, Networks: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("fd00:9::/64")}}
	for _, rs := range []int{0, 4} {
		d := newDrill(t, false, nets)
		d.lab.Server.Load(t, rulesets[rs].loaders[0], rulesets[rs].texts[0])
		stranger := lab.Probe{Proto: lab.TCP, From: netip.MustParseAddr("198.18.0.1"), To: netip.AddrPortFrom(d.lab.ServerAddr(0), webPort)}
		friend := stranger
		friend.From = netip.MustParseAddr("198.51.100.9")
		p, in, err := d.plan("")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.apply(p, in, nil); err != nil {
			t.Fatalf("%s: %v\n%s", rulesets[rs].name, err, p.Text(nil, false))
		}
		if !d.connects(webPort) {
			t.Errorf("%s: its audience does not get in\n%s", rulesets[rs].name, p.Text(nil, false))
		}
		if got := d.lab.Probe(t, stranger, friend); got[0].ClientSees == lab.Connected || got[1].ClientSees != lab.Connected {
			t.Errorf("%s: a stranger sees %v, a friend %v\n%s", rulesets[rs].name, got[0].ClientSees, got[1].ClientSees, p.Text(nil, false))
		}
		for _, r := range p.Effect.Opens {
			if outside := ranges(r.From).Minus(ranges(nets.Networks)); !outside.Empty() {
				t.Errorf("%s: the effect opens to %v", rulesets[rs].name, outside)
			}
		}
	}
}

// TestEveryBackEnd: a port that three back ends block is opened in all of them.
func TestEveryBackEnd(t *testing.T) {
	lab.Need(t, "nft", "iptables-nft", "iptables-legacy")
	d := newDrill(t, false, everybody)
	d.lab.Server.Load(t, lab.NFT, nftDrop)
	d.lab.Server.Load(t, lab.IPTablesNFT, xtPolicy("icmp"))
	d.lab.Server.Load(t, lab.IPTablesLegacy, xtRules("icmp-port-unreachable"))
	p, in, err := d.plan("")
	if err != nil {
		t.Fatal(err)
	}
	backends := map[string]bool{}
	for _, s := range p.Steps {
		if s.Rule != nil {
			backends[string(s.Rule.Backend)] = true
		}
	}
	if len(backends) != 3 {
		t.Errorf("rules for %v only\n%s", backends, p.Text(nil, false))
	}
	if err := d.apply(p, in, nil); err != nil {
		t.Fatalf("%v\n%s", err, p.Text(nil, false))
	}
	if !d.connects(webPort) {
		t.Error("still blocked")
	}
}

// TestNeverTouched: rules of owners that write them anew are left alone, and the
// operator gets their words.
func TestNeverTouched(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-nft", "iptables-legacy")
	chain := func(name string) string {
		return strings.ReplaceAll(xtRules("icmp-port-unreachable"), "BLOCK", name)
	}
	csf := strings.Replace(xtPolicy("icmp"), "COMMIT", ":LOCALINPUT - [0:0]\n-A INPUT -j LOCALINPUT\nCOMMIT", 1)
	for name, c := range map[string]struct {
		loader lab.Loader
		rules  string
		files  map[string]string
		words  string
	}{
		"fw4":            {lab.NFT, strings.Replace(nftDrop, "inet filter", "inet fw4", 1), nil, "/etc/config/firewall"},
		"libvirt":        {lab.NFT, strings.Replace(nftDrop, "inet filter", "inet libvirt_network", 1), nil, "virsh"},
		"libvirt chain":  {lab.IPTablesLegacy, chain("LIBVIRT_INP"), nil, "virsh"},
		"Docker":         {lab.IPTablesNFT, chain("DOCKER-USER"), nil, "DOCKER-USER"},
		"Kubernetes":     {lab.IPTablesLegacy, chain("KUBE-FIREWALL"), nil, "NetworkPolicy"},
		"kube-proxy nft": {lab.NFT, strings.Replace(nftDrop, "inet filter", "inet kube-proxy", 1), nil, "NetworkPolicy"},
		"Calico":         {lab.IPTablesLegacy, chain("cali-INPUT"), nil, "NetworkPolicy"},
		"Proxmox":        {lab.IPTablesLegacy, chain("PVEFW-INPUT"), nil, "Datacenter"},
		"CSF":            {lab.IPTablesLegacy, csf, map[string]string{"/etc/csf/csf.conf": "TESTING = \"0\"\n"}, "TCP_IN"},
	} {
		d := newDrill(t, false, everybody)
		for f, text := range c.files {
			d.put(f, text)
		}
		d.lab.Server.Load(t, c.loader, c.rules)
		if d.connects(webPort) {
			t.Fatalf("%s: nothing blocks the port", name)
		}
		p, _, err := d.plan("")
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Steps) != 0 || len(p.Manual) != 1 || !strings.Contains(p.Manual[0].Words, c.words) {
			t.Errorf("%s: %s", name, p.Text(nil, false))
		}
	}
	// A panel does not own the rules: they are changed, and its list is named.
	d := newDrill(t, false, everybody)
	d.put("/www/server/panel/data/port.pl", "8888\n")
	d.lab.Server.Load(t, lab.NFT, nftDrop)
	p, _, err := d.plan("")
	if err != nil || len(p.Steps) == 0 || len(p.Notes) == 0 || !strings.Contains(p.Notes[0], "aaPanel") {
		t.Errorf("a panel: %v\n%s", err, p.Text(nil, false))
	}
}

// TestPublished: a published port that is kept from its audience on the way through
// is left to the owner of the rule.
func TestPublished(t *testing.T) {
	lab.Need(t, "nft", "iptables-nft")
	d := newDrill(t, false, everybody)
	l := lab.New(t, lab.Topology{Containers: 1})
	d.lab = l
	d.sys.Read = func(ctx context.Context) (*audit.Snapshot, error) {
		return collect.Host(ctx, collect.Options{Quick: true, NoCensus: true}) // with other namespaces
	}
	l.Containers[0].Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("0.0.0.0:80")})
	l.Server.Run(t, "ip", "route", "replace", "default", "via", l.ClientAddr(0).String())
	l.Server.Sysctl(t, "net.ipv4.ip_forward", "1")
	l.Server.Load(t, lab.NFT, "table ip nat { chain prerouting { type nat hook prerouting priority -100; tcp dport 8080 dnat to "+l.ContainerAddr(0).String()+":80; }; }")
	to := lab.Probe{Proto: lab.TCP, From: netip.MustParseAddr("203.0.113.5"), To: netip.AddrPortFrom(l.ServerAddr(0), webPort)}
	if got := l.Probe(t, to)[0]; got.ClientSees != lab.Connected {
		t.Fatalf("the published port is not reached: %v", got)
	}
	l.Server.Load(t, lab.IPTablesNFT, "*filter\n:FORWARD ACCEPT [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -s 203.0.113.0/24 -p tcp -j DROP\nCOMMIT\n")
	if got := l.Probe(t, to)[0]; got.ClientSees != lab.Timeout {
		t.Fatalf("the published port is not blocked: %v", got)
	}
	p, _, err := d.plan("")
	if err != nil || len(p.Steps) != 0 || len(p.Manual) != 1 || !strings.Contains(p.Manual[0].Words, "DOCKER-USER") {
		t.Errorf("%v\n%s", err, p.Text(nil, false))
	}
}

// TestSeveralOwners are refused, unless one is named.
func TestSeveralOwners(t *testing.T) {
	lab.Need(t, "nft", "iptables-nft")
	d := newDrill(t, false, everybody)
	d.lab.Server.Load(t, lab.NFT, nftDrop)
	d.lab.Server.Load(t, lab.IPTablesNFT, strings.ReplaceAll(xtPolicy("icmp"), "COMMIT", ":ufw-user-input - [0:0]\nCOMMIT"))
	put := func(name, text string) {
		t.Helper()
		p := filepath.Join(d.sys.Root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("/etc/ufw/ufw.conf", "ENABLED=yes\n")
	put("/etc/nftables.conf", "flush ruleset\n"+nftDrop+"\n")
	put("/etc/systemd/system/sysinit.target.wants/nftables.service", "")
	if _, _, err := d.plan(""); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "ufw") || !strings.Contains(err.Error(), "nftables.service") {
		t.Errorf("it ended with %v", err)
	}
	p, _, err := d.plan(owner.NFTablesService)
	if err != nil || len(p.Steps) == 0 {
		t.Errorf("with one named: %v %v", p, err)
	}
}

// TestRisky: where the model is not sure that the operator still gets in, before
// and after, the change is kept only when a person confirms it.
func TestRisky(t *testing.T) {
	lab.Need(t, "nft")
	for rule, risky := range map[string]bool{"tcp dport 22 accept": false, "tcp dport 22 limit rate 100/second accept": true} {
		d := newDrill(t, false, everybody)
		d.lab.Server.Load(t, lab.NFT, strings.Replace(nftDrop, "tcp dport 22 accept", rule, 1))
		d.logIn()
		p, _, err := d.plan("")
		if err != nil || len(p.Steps) == 0 || p.Risky != risky || risky != strings.Contains(p.Text(nil, false), "hostaudit confirm") {
			t.Errorf("%s: %v\n%s", rule, err, p.Text(nil, false))
		}
	}
}

// TestAddressComes: the host gets an address while it is changed; nobody is cut off
// by that, and the change is kept.
func TestAddressComes(t *testing.T) {
	lab.Need(t, "nft")
	d := newDrill(t, false, everybody)
	d.lab.Server.Load(t, lab.NFT, nftDrop)
	d.logIn()
	p, in, err := d.plan("")
	if err != nil {
		t.Fatal(err)
	}
	err = d.apply(p, in, func(ctx context.Context) error {
		d.lab.Server.Run(t, "ip", "addr", "add", "10.9.0.77/24", "dev", "eth0")
		return d.sys.Verifier(p, in.Snapshot, in.Paths)(ctx)
	})
	if err != nil || !d.connects(webPort) {
		t.Errorf("it ended with %v", err)
	}
}
