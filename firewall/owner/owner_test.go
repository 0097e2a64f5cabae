package owner

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostaudit/hostaudit/firewall"
)

// rules makes a ruleset of chains: "backend family table chain".
func rules(chains ...string) *firewall.Ruleset {
	rs := &firewall.Ruleset{}
	for _, c := range chains {
		f := strings.Fields(c)
		t := &firewall.Table{Backend: firewall.Backend(f[0]), Family: firewall.TableFamily(f[1]), Name: f[2]}
		t.Chains = []*firewall.Chain{{Table: t, Name: f[3]}}
		rs.Tables = append(rs.Tables, t)
	}
	return rs
}

// TestDetect: each owner by what gives it away, and none by half of it.
func TestDetect(t *testing.T) {
	nft := map[string]bool{"/etc/systemd/system/sysinit.target.wants/nftables.service": true}
	for name, c := range map[string]struct {
		host Host
		want []Kind
	}{
		"nobody":                    {Host{Rules: rules("nftables inet filter input")}, nil},
		"ufw":                       {Host{Rules: rules("iptables-nft ip filter ufw-user-input"), Files: map[string][]byte{ufwConf: []byte("# x\nENABLED=yes\n")}}, []Kind{UFW}},
		"ufw switched off":          {Host{Rules: rules("iptables-nft ip filter ufw-user-input"), Files: map[string][]byte{ufwConf: []byte("ENABLED=no\n")}}, nil},
		"ufw not loaded":            {Host{Rules: rules("iptables-nft ip filter INPUT"), Files: map[string][]byte{ufwConf: []byte("ENABLED=yes\n")}}, nil},
		"firewalld":                 {Host{Rules: rules("nftables inet firewalld filter_INPUT")}, []Kind{Firewalld}},
		"firewalld with iptables":   {Host{Rules: rules("iptables-nft ip filter INPUT_ZONES")}, []Kind{Firewalld}},
		"nftables.service":          {Host{Rules: rules("nftables inet filter input"), Files: map[string][]byte{nftConf: []byte("table inet f {}\n")}, Present: nft}, []Kind{NFTablesService}},
		"nftables.service, no rule": {Host{Rules: rules("nftables inet filter input"), Files: map[string][]byte{nftConf: []byte("#!/usr/sbin/nft -f\nflush ruleset\n")}, Present: nft}, nil},
		"docker beside ufw": {Host{Rules: rules("iptables-nft ip filter DOCKER", "iptables-nft ip filter ufw-user-input"), Files: map[string][]byte{ufwConf: []byte("ENABLED=yes\n")}},
			[]Kind{UFW, Docker}},
		"kubernetes": {Host{Rules: rules("iptables-legacy ip nat KUBE-SERVICES")}, []Kind{Kubernetes}},
		"csf":        {Host{Rules: rules("iptables-legacy ip filter LOCALINPUT"), Files: map[string][]byte{csfConf: []byte("TESTING=\"0\"\n")}}, []Kind{CSF}},
		"panel":      {Host{Rules: rules(), Files: map[string][]byte{panelPort: []byte("8888\n")}}, []Kind{Panel}},
		"two": {Host{Rules: rules("nftables inet firewalld x"), Files: map[string][]byte{nftConf: []byte("table inet f {}\n")}, Present: nft},
			[]Kind{Firewalld, NFTablesService}},
	} {
		var got []Kind
		for _, o := range Detect(&c.host) {
			got = append(got, o.Kind)
			if len(o.Evidence) == 0 {
				t.Errorf("%s: %s without evidence", name, o.Kind)
			}
			if !o.Kind.Editable() && o.Kind.Words() == "" {
				t.Errorf("%s has no words", o.Kind)
			}
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// TestOf: a chain belongs to whom its name says, whoever manages the rest.
func TestOf(t *testing.T) {
	ufw := []Owner{{Kind: UFW}}
	for chain, want := range map[string]Kind{
		"iptables-nft ip filter DOCKER-USER": Docker, "iptables-nft ip filter KUBE-FIREWALL": Kubernetes, "iptables-legacy ip filter f2b-sshd": Fail2ban,
		"nftables inet firewalld filter_INPUT": Firewalld, "iptables-nft ip filter INPUT": UFW, "nftables inet filter input": Nobody, "nftables ip crowdsec x": CrowdSec,
	} {
		if got := Of(rules(chain).Tables[0].Chains[0], ufw); got != want {
			t.Errorf("%s: %s, want %s", chain, got, want)
		}
	}
}

// TestAtWork: an owner has loaded its rules where its own chains are there.
func TestAtWork(t *testing.T) {
	for chain, want := range map[string]Kind{
		"iptables-nft ip filter ufw-user-input": UFW, "iptables-legacy ip6 filter ufw6-user-input": UFW, "nftables inet firewalld filter_INPUT_ZONES": Firewalld,
		"iptables-nft ip filter INPUT_ZONES": Firewalld, "iptables-nft ip filter ufw-before-input": "", "nftables inet filter input": "",
	} {
		for _, who := range []Kind{UFW, Firewalld, NFTablesService} {
			if got := AtWork(who, rules(chain)); got != (who == want) {
				t.Errorf("%s at work by %s: %v", who, chain, got)
			}
		}
	}
}

// TestCheckRefuses what an insertion read from a journal must not hold.
func TestCheckRefuses(t *testing.T) {
	good := Insertion{Backend: firewall.NFTables, Family: firewall.TableInet, Table: "filter", Chain: "input", Number: 1, Proto: "tcp", Port: 80, Comment: "hostaudit:abc123",
		From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Insertion){
		"chain with a command": func(i *Insertion) { i.Chain = "input; flush ruleset" },
		"chain like an option": func(i *Insertion) { i.Chain = "-F" },
		"table with newline":   func(i *Insertion) { i.Table = "a\nb" },
		"comment not ours":     func(i *Insertion) { i.Comment = "x" },
		"comment with a quote": func(i *Insertion) { i.Comment = `hostaudit:a" accept; drop` },
		"no port":              func(i *Insertion) { i.Port = 0 },
		"icmp":                 func(i *Insertion) { i.Proto = "icmp" },
		"unmasked":             func(i *Insertion) { i.From = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")} },
		"bridge":               func(i *Insertion) { i.Family = firewall.TableBridge },
	} {
		i := good
		spoil(&i)
		if i.Check() == nil {
			t.Errorf("%s was taken", name)
		}
	}
	tool := Instruction{Owner: UFW, Do: []string{"ufw", "allow", "80"}, Undo: []string{"ufw", "delete", "allow", "80"}, Files: ufwRules, Mark: "comment=x"}
	if err := tool.Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Instruction){
		"another program": func(i *Instruction) { i.Undo = []string{"rm", "-rf", "/"} },
		"another owner":   func(i *Instruction) { i.Owner = Docker },
		"another file":    func(i *Instruction) { i.Files = []string{"/etc/passwd"} },
		"no undo":         func(i *Instruction) { i.Undo = nil },
	} {
		i := tool
		spoil(&i)
		if i.Check() == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

const saved = "# c\n*nat\n:INPUT ACCEPT [0:0]\nCOMMIT\n*filter\n:INPUT DROP [1:2]\n:X - [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n[3:4] -A INPUT -j DROP\n-A X -j DROP\nCOMMIT\n"

// TestSaved puts a line where the kernel has the rule, and refuses files in which
// that place is not plain.
func TestSaved(t *testing.T) {
	i := &Insertion{Backend: firewall.IPTablesLegacy, Family: firewall.TableIP, Table: "filter", Chain: "INPUT", Number: 2, Proto: "tcp", Port: 80, Comment: "hostaudit:a"}
	line := "-A " + strings.Join(i.Spec(), " ") + "\n"
	rule := func(text string) *firewall.Rule {
		return &firewall.Rule{Print: func(*firewall.Rule) string { return text }}
	}
	h := &Host{Rules: rules("iptables-legacy ip filter INPUT")}
	got, err := insertSaved([]byte(saved), h, i, rule("-A INPUT -j DROP"))
	if want := strings.Replace(saved, "[3:4]", line+"[3:4]", 1); err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	got, err = insertSaved([]byte(saved), h, i, nil)
	if want := strings.Replace(saved, "-A X", line+"-A X", 1); err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	for name, text := range map[string]string{
		"not there":     strings.Replace(saved, "[3:4] -A INPUT -j DROP\n", "", 1),
		"twice":         strings.Replace(saved, "-A X", "-A INPUT -j DROP\n-A X", 1),
		"no table":      strings.Replace(saved, "*filter", "*mangle", 1),
		"table twice":   saved + saved,
		"a raw newline": strings.Replace(saved, "-A X", "-A INPUT -m comment --comment \"a\nb\" -j DROP\n-A X", 1),
	} {
		if got, err := insertSaved([]byte(text), h, i, rule("-A INPUT -j DROP")); err == nil {
			t.Errorf("%s was taken:\n%s", name, got)
		}
	}
	// Written by hand, the rules are the kernel's by number and target.
	byHand := strings.Replace(strings.Replace(saved, "-m tcp ", "", 1), "-A INPUT -j DROP", "-A INPUT -p tcp -j REJECT", 1)
	ch := h.Rules.Tables[0].Chains[0]
	for n, text := range []string{"-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", "-A INPUT (the new one)", "-A INPUT -p tcp -j REJECT --reject-with icmp-port-unreachable"} {
		ch.Rules = append(ch.Rules, rule(text))
		ch.Rules[n].Number = n + 1
	}
	got, err = insertSaved([]byte(byHand), h, i, ch.Rules[2])
	if want := strings.Replace(byHand, "[3:4]", line+"[3:4]", 1); err != nil || string(got) != want {
		t.Errorf("by hand: %v\n%s", err, got)
	}
	for name, text := range map[string]string{
		"another rule":   strings.Replace(byHand, "-A X", "-A INPUT -p udp -j REJECT\n-A X", 1),
		"another target": strings.Replace(byHand, "ACCEPT\n[3:4]", "DROP\n[3:4]", 1),
		"an insertion":   strings.Replace(byHand, "-A INPUT -p tcp --dport 22", "-I INPUT -p tcp --dport 22", 1),
	} {
		if got, err := insertSaved([]byte(text), h, i, ch.Rules[2]); err == nil {
			t.Errorf("by hand, %s was taken:\n%s", name, got)
		}
	}
}

// TestZone finds the zone of an interface in either of firewalld's back ends.
func TestZone(t *testing.T) {
	for chain, texts := range map[string][]string{
		"nftables inet firewalld filter_INPUT_ZONES": {"ip saddr 10.0.0.0/8 goto filter_IN_trusted", `iifname "wg*" goto filter_IN_internal`, `iifname "eth0" goto filter_IN_dmz`, "goto filter_IN_public"},
		"iptables-legacy ip filter INPUT_ZONES":      {"-A INPUT_ZONES -s 10.0.0.0/8 -g IN_trusted", "-A INPUT_ZONES -i wg+ -g IN_internal", "-A INPUT_ZONES -i eth0 -g IN_dmz", "-A INPUT_ZONES -g IN_public"},
	} {
		rs := rules(chain)
		for _, text := range texts {
			rs.Tables[0].Chains[0].Rules = append(rs.Tables[0].Chains[0].Rules, &firewall.Rule{Print: func(*firewall.Rule) string { return text }})
		}
		for iif, want := range map[string]string{"eth0": "dmz", "wg7": "internal", "eth01": "public"} {
			if got, _ := FirewalldZone(rs, iif); got != want {
				t.Errorf("%s: %s is in zone %q, want %q", chain, iif, got, want)
			}
		}
	}
}

// TestWithoutUFW takes our rule out of ufw's file and leaves all others.
func TestWithoutUFW(t *testing.T) {
	mark := "comment=" + hex.EncodeToString([]byte("hostaudit:abc"))
	other := "### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n-A ufw-user-input -p tcp --dport 22 -j ACCEPT\n\n"
	ours := "### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in " + mark + "\n-A ufw-user-input -p tcp --dport 80 -j ACCEPT\n\n"
	for _, text := range []string{"*filter\n### RULES ###\n\n" + other + ours + "### END RULES ###\n", "*filter\n### RULES ###\n\n" + ours + other + "### END RULES ###\n"} {
		got, changed := WithoutUFW([]byte(text), mark)
		if want := strings.Replace(text, ours, "", 1); !changed || string(got) != want {
			t.Errorf("%v\n%s\nwant\n%s", changed, got, want)
		}
		if got, changed := WithoutUFW([]byte(text), mark+"00"); changed || string(got) != text {
			t.Errorf("another mark: %v\n%s", changed, got)
		}
	}
}

// FuzzFiles: whatever stands in an owner's file, looking for a place does not
// panic, and what is changed has one line more and all the others.
func FuzzFiles(f *testing.F) {
	f.Add([]byte(saved))
	f.Add([]byte("table inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0\n\t\tdrop\n\t}\n}\n"))
	rs := rules("nftables inet filter input")
	ch := rs.Tables[0].Chains[0]
	ch.Rules = []*firewall.Rule{{}, {}}
	f.Fuzz(func(t *testing.T, data []byte) {
		i := &Insertion{Backend: firewall.NFTables, Family: firewall.TableInet, Table: "filter", Chain: "input", Number: 1, Proto: "tcp", Port: 80, Comment: "hostaudit:a"}
		check := func(after []byte, err error) {
			if err != nil {
				return
			}
			a, b := strings.SplitAfter(string(after), "\n"), strings.SplitAfter(string(data), "\n")
			if len(a) != len(b)+1 {
				t.Fatalf("%d lines of %d", len(a), len(b))
			}
			for n := range b {
				if a[n] != b[n] {
					if !slices.Equal(a[n+1:], b[n:]) {
						t.Fatal("other lines have changed")
					}
					return
				}
			}
		}
		after, err := insertNFT(data, &Host{Rules: rs}, i)
		check(after, err)
		i.Family, i.Backend, i.Chain = firewall.TableIP, firewall.IPTablesNFT, "INPUT"
		after, err = insertSaved(data, &Host{Rules: rs}, i, nil)
		check(after, err)
		WithoutUFW(data, "comment=00")
		setting(data, "ENABLED")
		hasRules(data)
	})
}
