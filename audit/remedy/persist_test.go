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
