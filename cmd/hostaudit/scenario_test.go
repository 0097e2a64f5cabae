package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

var record = flag.String("record", "", "save snapshots of the scenarios in this `DIR`")

func writeFile(name string, data []byte) error { return os.WriteFile(name, data, 0o644) }

// audited runs the program inside a namespace.
func audited(t *testing.T, n *lab.Namespace, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := -1
	n.Do(func() { code = run(args, strings.NewReader(""), &out, &errs, []string{"LC_ALL=C.UTF-8"}) })
	if code == 3 {
		// Other processes of the machine that runs the tests may be hidden from
		// it, and their namespaces come and go: no part of what is tested.
		for _, w := range []string{"owners: ", "network namespaces: ", "other ends of links", "other network namespaces", "of network namespace"} {
			if strings.Contains(out.String()+errs.String(), w) {
				code = want
			}
		}
	}
	if code != want {
		t.Fatalf("hostaudit %s: exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), code, want, out.String(), errs.String())
	}
	if err := holdToSchema(args, out.String()); err != nil {
		t.Error(err)
	}
	return out.String(), errs.String()
}

// scanned is what the tests look at in a report.
type scanned struct {
	Verdict   string
	Listeners []struct {
		Proto, Address, NetNS, Exposure string
		Port                            uint16
		Partition                       []struct {
			From       []netip.Prefix
			Iif        string
			ClientSees string `json:"client_sees"`
			DecidedBy  struct {
				Kind, Backend, Family, Table, Chain, Text string
				Number                                    int
			} `json:"decided_by"`
		}
	}
	Published []struct {
		Port     uint16
		Exposure string
		To       struct {
			NetNS string
			Port  uint16
		}
	}
	Findings []struct{ ID, Severity, Subject, Why string }
}

func (s *scanned) finding(id, subject string) string {
	for _, f := range s.Findings {
		if f.ID == id && f.Subject == subject {
			return f.Severity
		}
	}
	return ""
}

// exposed gives the exposure of a listener and all that decides against clients
// on eth0.
func (s *scanned) exposed(port uint16) (exposure string, deciders []string) {
	for _, l := range s.Listeners {
		if l.Port != port || l.NetNS != "" {
			continue
		}
		for _, r := range l.Partition {
			if r.Iif != "eth0" || r.ClientSees == "connected" {
				continue
			}
			d := r.DecidedBy
			text := d.Kind
			if d.Backend != "" {
				text = fmt.Sprintf("%s %s %s %s #%d", d.Backend, d.Family, d.Table, d.Chain, d.Number)
			}
			if !slices.Contains(deciders, text) {
				deciders = append(deciders, text)
			}
		}
		return l.Exposure, deciders
	}
	return "", nil
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

const services = `services:
  - {name: chat, port: 2346, audience: everyone}
  - {name: api, port: 8080, audience: everyone}
  - {name: job, port: 8081, audience: everyone}
  - {name: web, port: 9000, audience: everyone}
  - {name: db, port: 5432, audience: [10.9.0.0/26]}
`

// TestReportIsTrue: on a host with a service on loopback, one behind an nft drop,
// one behind an iptables-legacy drop that nft allows, and a port published into
// another namespace, the report names each one's audience and what decides, and
// a real client meets just that.
func TestReportIsTrue(t *testing.T) {
	lab.Need(t, "nft", "iptables-legacy")
	l := lab.New(t, lab.Topology{Containers: 1})
	s := l.Server
	for _, a := range []string{"127.0.0.1:2346", "0.0.0.0:8080", "0.0.0.0:8081", "0.0.0.0:9100", "[::]:8090"} {
		s.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addr(a)})
	}
	l.Containers[0].Listen(t, lab.Listen{Proto: lab.TCP, Addr: addr("0.0.0.0:80")})
	s.Sysctl(t, "net.ipv4.ip_forward", "1")
	probe := func(from, to string) lab.Probe {
		return lab.Probe{Proto: lab.TCP, From: netip.MustParseAddr(from), To: addr(to)}
	}
	for _, to := range []string{"10.9.0.2:8080", "10.9.0.2:8081", "10.9.0.2:9100"} {
		l.Control(t, probe("203.0.113.5", to))
	}
	container := l.ContainerAddr(0)
	s.Load(t, lab.NFT, `table inet filter {
		chain input { type filter hook input priority 0; policy accept;
			tcp dport { 22, 2346 } accept
			ct state established,related accept
			tcp dport 8080 drop comment "closed `+"\x1b[31m"+`"
			tcp dport 8081 accept
		}
	}
	table ip nat {
		chain prerouting { type nat hook prerouting priority -100;
			tcp dport 9000 dnat to `+container.String()+`:80
		}
	}`)
	s.Load(t, lab.IPTablesLegacy, "*filter\n:INPUT ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 8081 -j DROP\nCOMMIT\n")
	want := map[string]lab.Sight{
		"10.9.0.2:2346": lab.Refused, "10.9.0.2:8080": lab.Timeout, "10.9.0.2:8081": lab.Timeout, "10.9.0.2:9100": lab.Connected,
		"10.9.0.2:9000": lab.Connected,
	}
	for to, sight := range want {
		if got := l.Probe(t, probe("203.0.113.5", to))[0]; got.ClientSees != sight {
			t.Fatalf("the laboratory is not what this test takes it for: %v", got)
		}
		j, _ := audited(t, s, map[bool]int{true: 0, false: 1}[sight == lab.Connected], "reach", to, "--from", "203.0.113.5", "--format", "json")
		if !strings.Contains(j, fmt.Sprintf(`"client_sees": %q`, sight.String())) {
			t.Errorf("reach %s: want %s, got\n%s", to, sight, j)
		}
	}
	config := filepath.Join(t.TempDir(), "hostaudit.yaml")
	if err := writeFile(config, []byte(services)); err != nil {
		t.Fatal(err)
	}
	save(t, s, "scenario")
	out, _ := audited(t, s, 1, "scan", "--quick", "--config", config, "--format", "json")
	var r scanned
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		port     uint16
		exposure string
		decider  string
	}{
		{2346, "host-only", ""},
		{8080, "nobody", "nftables inet filter input #3"},
		{8081, "host-only", "iptables-legacy ip filter INPUT #2"}, // its first rule lets lo in
		{9100, "everyone", ""},
		{8090, "everyone", ""},
	} {
		exposure, deciders := r.exposed(c.port)
		if exposure != c.exposure || c.decider != "" && !slices.Contains(deciders, c.decider) {
			t.Errorf("port %d: %s by %q, want %s by %q", c.port, exposure, deciders, c.exposure, c.decider)
		}
	}
	if len(r.Published) != 1 || r.Published[0].Port != 9000 || r.Published[0].Exposure != "everyone" || r.Published[0].To.Port != 80 {
		t.Errorf("published: %+v", r.Published)
	}
	for _, f := range [][3]string{
		{"listener.loopback-only", "tcp 127.0.0.1:2346", "critical"},
		{"firewall.port-blocked", "tcp 0.0.0.0:8080", "critical"},
		{"firewall.port-blocked", "tcp 0.0.0.0:8081", "critical"},
		{"service.not-listening", "tcp 5432", "critical"},
		{"service.audience-blocked", "tcp *:9000 (published)", ""},
		{"firewall.port-blocked", "tcp 0.0.0.0:9100", ""},
		{"firewall.opens-unused-port", "tcp 22", "info"},
	} {
		if got := r.finding(f[0], f[1]); got != f[2] {
			t.Errorf("finding %s about %s: severity %q, want %q", f[0], f[1], got, f[2])
		}
	}
	if want := "4 of 5 services cannot be reached as meant: 2346, 8080, 8081, 5432"; !strings.Contains(r.Verdict, want) {
		t.Errorf("verdict %q, want %q in it", r.Verdict, want)
	}
	text, _ := audited(t, s, 1, "scan", "--quick", "--config", config)
	if strings.Contains(text, "\x1b") {
		t.Errorf("an escape sequence of the host came through:\n%q", text)
	}
}

// TestPolicyWithOneNetwork: a default-drop policy with one allowed network.
func TestPolicyWithOneNetwork(t *testing.T) {
	lab.Need(t, "nft")
	l := lab.New(t, lab.Topology{})
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addr("0.0.0.0:5432")})
	to := addr("10.9.0.2:5432")
	friend, stranger := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("203.0.113.5")
	l.Control(t, lab.Probe{Proto: lab.TCP, From: stranger, To: to})
	l.Server.Load(t, lab.NFT, `table inet filter {
		chain input { type filter hook input priority 0; policy drop;
			ct state established,related accept
			icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
			ip saddr 10.9.0.0/26 tcp dport 5432 accept
		}
	}`)
	for from, sight := range map[netip.Addr]lab.Sight{friend: lab.Connected, stranger: lab.Timeout} {
		if got := l.Probe(t, lab.Probe{Proto: lab.TCP, From: from, To: to})[0]; got.ClientSees != sight {
			t.Fatalf("the laboratory is not what this test takes it for: %v", got)
		}
	}
	config := filepath.Join(t.TempDir(), "hostaudit.yaml")
	if err := writeFile(config, []byte("services:\n- {name: db, port: 5432, audience: [10.9.0.0/26]}\n")); err != nil {
		t.Fatal(err)
	}
	save(t, l.Server, "policy")
	out, _ := audited(t, l.Server, 0, "scan", "--quick", "--config", config, "--format", "json")
	var r scanned
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	exposure, deciders := r.exposed(5432)
	if exposure != "some" || !slices.Contains(deciders, "nftables inet filter input #0") {
		t.Errorf("exposure %s by %q, want some by the policy", exposure, deciders)
	}
	// The same port meant for others: too narrow, too wide.
	for audience, id := range map[string]string{"everyone": "firewall.port-blocked", "[10.9.0.1]": "service.audience-exceeded", "host": "service.audience-exceeded"} {
		if err := writeFile(config, []byte("services:\n- {name: db, port: 5432, audience: "+audience+"}\n")); err != nil {
			t.Fatal(err)
		}
		out, _ := audited(t, l.Server, 1, "scan", "--quick", "--config", config, "--format", "json")
		var r scanned
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if r.finding(id, "tcp 0.0.0.0:5432") != "critical" {
			t.Errorf("audience %s: no critical %s in %+v", audience, id, r.Findings)
		}
	}
}

// save keeps a scenario as a snapshot for the scripts.
func save(t *testing.T, n *lab.Namespace, name string) {
	t.Helper()
	if *record == "" {
		return
	}
	root := filepath.Join(t.TempDir(), "root")
	for file, text := range map[string]string{
		"etc/os-release":              "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
		"etc/passwd":                  "root:x:0:0::/root:/bin/sh\n",
		"etc/sysctl.d/90-tuning.conf": "# from a guide\nnet.ipv4.tcp_max_tw_buckets = 20000\nnet.ipv4.tcp_tw_recycle = 0\n",
	} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(file, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	audited(t, n, 0, "snapshot", "--quick", "--root", root, "-o", filepath.Join(*record, name+".snapshot"))
}
