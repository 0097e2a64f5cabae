package remedy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// put writes a file beneath the drill's root.
func (d *drill) put(name, text string) {
	d.t.Helper()
	p := filepath.Join(d.sys.Root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
}

func (d *drill) get(name string) string {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.sys.Root, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(data)
}

// TestSurvivesReload opens a port through the owner's own file: after the owner
// has loaded its file anew the port is open still, and blocked again once the
// change is rolled back and the file loaded.
func TestSurvivesReload(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-nft", "iptables-legacy")
	for _, c := range []struct {
		name, unit, file, text string
		load                   func(d *drill, text string)
	}{
		{"nftables.service", "nftables.service", "/etc/nftables.conf", "#!/usr/sbin/nft -f\nflush ruleset\n\n" + nftDrop + "\n", func(d *drill, text string) { d.lab.Server.Load(d.t, lab.NFT, text) }},
		{"nftables.service, policy", "nftables.service", "/etc/nftables.conf", "flush ruleset\n" + nftPolicy + "\n", func(d *drill, text string) { d.lab.Server.Load(d.t, lab.NFT, text) }},
		{"netfilter-persistent, nft", "netfilter-persistent.service", "/etc/iptables/rules.v4", xtRules("icmp-port-unreachable"), func(d *drill, text string) { d.lab.Server.Load(d.t, lab.IPTablesNFT, text) }},
		{"netfilter-persistent, legacy", "netfilter-persistent.service", "/etc/iptables/rules.v4", xtPolicy("icmp"), func(d *drill, text string) { d.lab.Server.Load(d.t, lab.IPTablesLegacy, text) }},
		{"iptables-services", "iptables.service", "/etc/sysconfig/iptables", xtRules("icmp-port-unreachable"), func(d *drill, text string) { d.lab.Server.Load(d.t, lab.IPTablesNFT, text) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDrill(t, false, everybody)
			d.put("/etc/systemd/system/multi-user.target.wants/"+c.unit, "")
			d.put(c.file, c.text)
			c.load(d, c.text)
			if d.connects(webPort) {
				t.Fatal("nothing blocks the port")
			}
			p, in, err := d.plan("")
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Changes) == 0 || !p.Changes[0].Persistent || p.Changes[0].Diff == "" {
				t.Fatalf("it does not last:\n%s", p.Text(nil, false))
			}
			if err := d.apply(p, in, nil); err != nil {
				t.Fatal(err)
			}
			c.load(d, d.get(c.file))
			if !d.connects(webPort) {
				t.Errorf("after a reload it is blocked again:\n%s", d.get(c.file))
			}
			again, _, err := d.plan("")
			if err != nil || len(again.Steps) != 0 {
				t.Errorf("after a reload there is something to do: %v", err)
			}
			d.lab.Server.Do(func() { err = d.sys.Rollback(context.Background(), "", false) })
			if err != nil {
				t.Error(err)
			}
			if got := d.get(c.file); got != c.text {
				t.Errorf("after the rollback the file is\n%s", got)
			}
			c.load(d, d.get(c.file))
			if d.connects(webPort) {
				t.Error("after the rollback it is open")
			}
		})
	}
}

// TestIncludedFile: the chain stands in a file that the owner's own includes, with
// names that another one defines.
func TestIncludedFile(t *testing.T) {
	lab.Need(t, "nft")
	d := newDrill(t, false, everybody)
	d.put("/etc/systemd/system/sysinit.target.wants/nftables.service", "")
	const main = "flush ruleset\ndefine ssh = 22\ninclude \"/etc/nftables.d/*.nft\"\n"
	chain := strings.Replace(nftDrop, "tcp dport 22", "tcp dport $ssh", 1) + "\n"
	d.put("/etc/nftables.conf", main)
	d.put("/etc/nftables.d/10-input.nft", chain)
	d.put("/etc/nftables.d/20-other.nft", "table ip other { }\n")
	load := func() {
		d.lab.Server.Load(t, lab.NFT, strings.Replace(main, "include \"/etc/nftables.d/*.nft\"\n", d.get("/etc/nftables.d/10-input.nft")+d.get("/etc/nftables.d/20-other.nft"), 1))
	}
	load()
	p, in, err := d.plan("")
	if err != nil || len(p.Changes) != 1 || !p.Changes[0].Persistent {
		t.Fatalf("%v\n%s", err, p.Text(nil, false))
	}
	if err := d.apply(p, in, nil); err != nil {
		t.Fatal(err)
	}
	load()
	if !d.connects(webPort) || d.get("/etc/nftables.conf") != main {
		t.Errorf("after a reload:\n%s", d.get("/etc/nftables.d/10-input.nft"))
	}
	d.lab.Server.Do(func() { err = d.sys.Rollback(context.Background(), "", false) })
	if err != nil || d.get("/etc/nftables.d/10-input.nft") != chain {
		t.Errorf("after the rollback: %v\n%s", err, d.get("/etc/nftables.d/10-input.nft"))
	}
}

// TestFileNotUnderstood: a file that is not plainly the kernel's rules is not
// edited; the operator gets the line.
func TestFileNotUnderstood(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft")
	for name, text := range map[string]string{
		"other rules": strings.Replace(nftDrop, "\t\ttcp dport 22 accept\n", "", 1),
		"one line":    "table inet filter { chain input { type filter hook input priority filter; tcp dport 1-65535 drop; }; }\n",
		"included":    "include \"/etc/nftables.d/*.nft\"\ntable inet other { }\n",
	} {
		d := newDrill(t, false, everybody)
		d.put("/etc/systemd/system/sysinit.target.wants/nftables.service", "")
		d.put("/etc/nftables.conf", text)
		d.lab.Server.Load(t, lab.NFT, nftDrop)
		p, in, err := d.plan("")
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Changes) != 1 || p.Changes[0].Persistent || !strings.Contains(p.Changes[0].Boot, "by hand: tcp dport 8080 accept") {
			t.Errorf("%s:\n%s", name, p.Text(nil, false))
		}
		if err := d.apply(p, in, nil); err != nil {
			t.Error(err)
		}
		if d.get("/etc/nftables.conf") != text {
			t.Errorf("%s: the file was edited", name)
		}
	}
}

// The files that RHEL's iptables-services comes with, and the same for IPv6.
const (
	rhelRules = `# sample configuration for iptables service
# you can edit this manually or use system-config-firewall
# please do not ask us to add additional ports/services to this default configuration
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
COMMIT
`
	rhelRules6 = `# sample configuration for ip6tables service
# you can edit this manually or use system-config-firewall
# please do not ask us to add additional ports/services to this default configuration
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p ipv6-icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -d fe80::/64 -p udp -m udp --dport 546 -m state --state NEW -j ACCEPT
-A INPUT -j REJECT --reject-with icmp6-adm-prohibited
-A FORWARD -j REJECT --reject-with icmp6-adm-prohibited
COMMIT
`
)

// TestIPTablesServices opens a port on a host laid out as RHEL's iptables-services
// lays it out, with its own files and the real iptables-restore, in both back ends and
// families at once: it lasts through a restart of the service and through a boot, and a
// rollback leaves the files as they came.
func TestIPTablesServices(t *testing.T) {
	t.Parallel()
	lab.Need(t, "iptables-nft", "iptables-legacy", "ipv6")
	for name, loaders := range map[string][2]lab.Loader{"nft": {lab.IPTablesNFT, lab.IP6TablesNFT}, "legacy": {lab.IPTablesLegacy, lab.IP6TablesLegacy}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDrill(t, false, everybody)
			for unit, file := range map[string]string{"iptables": rhelRules, "ip6tables": rhelRules6} {
				d.put("/etc/systemd/system/basic.target.wants/"+unit+".service", "")
				d.put("/etc/sysconfig/"+unit, file)
				d.put("/etc/sysconfig/"+unit+"-config", strings.ToUpper(unit)+"_SAVE_ON_STOP=\"no\"\n")
			}
			// As its init script does: flush, and load the file. A boot loads it into an empty
			// kernel.
			start := func() {
				for i, unit := range []string{"iptables", "ip6tables"} {
					d.lab.Server.Load(t, loaders[i], d.get("/etc/sysconfig/"+unit))
				}
			}
			boot := func() {
				d.lab.Server.Flush(t)
				start()
			}
			both := func(want bool, when string) {
				t.Helper()
				for _, v6 := range []bool{false, true} {
					if d.v6 = v6; d.connects(webPort) != want {
						t.Errorf("%s: over IPv6 %v: the port is open: %v", when, v6, !want)
					}
					if !d.connects(sshPort) {
						t.Errorf("%s: over IPv6 %v: the operator's port is blocked", when, v6)
					}
				}
				d.v6 = false
			}
			start()
			d.logIn()
			both(false, "at first")
			p, in, err := d.plan("")
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range p.Changes {
				if !c.Persistent || c.Diff == "" || c.Owner != "iptables-services" {
					t.Fatalf("%s", p.Text(nil, false))
				}
			}
			if err := d.apply(p, in, nil); err != nil {
				t.Fatalf("%v\n%s", err, p.Text(nil, false))
			}
			both(true, "applied")
			if !talks(d.login) {
				t.Error("the operator was cut off")
			}
			start()
			both(true, "restarted")
			boot()
			both(true, "booted")
			if again, _, err := d.plan(""); err != nil || len(again.Steps) != 0 {
				t.Errorf("after the boot there is something to do: %v", err)
			}
			d.lab.Server.Do(func() { err = d.sys.Rollback(context.Background(), "", false) })
			if err != nil || d.get("/etc/sysconfig/iptables") != rhelRules || d.get("/etc/sysconfig/ip6tables") != rhelRules6 {
				t.Errorf("rollback: %v\n%s%s", err, d.get("/etc/sysconfig/iptables"), d.get("/etc/sysconfig/ip6tables"))
			}
			both(false, "rolled back")
			boot()
			both(false, "rolled back and booted")
		})
	}
}
