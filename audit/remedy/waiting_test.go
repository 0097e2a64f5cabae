package remedy

import (
	"context"
	"errors"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// waiting applies a plan that waits to be confirmed, and returns when it does; the
// channel gets how it ends.
func (d *drill) waiting(p *Plan, in Input, deadline time.Duration) <-chan error {
	d.t.Helper()
	ended := make(chan error, 1)
	go func() {
		var err error
		d.lab.Server.Do(func() {
			err = d.sys.Apply(context.Background(), p, ApplyOptions{Verify: d.sys.Verifier(p, in.Snapshot, in.Paths), Wait: true, Deadline: deadline})
		})
		ended <- err
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if f, err := d.sys.readFile(path.Join(d.sys.State, journalName)); err == nil && f != nil {
			if j, err := decodeJournal(f.data); err == nil && j.State == Applied {
				return ended
			}
		}
		select {
		case err := <-ended:
			d.t.Fatalf("it does not wait: %v", err)
		default:
		}
		if time.Now().After(end) {
			d.t.Fatal("it does not come to wait")
		}
	}
}

// confirm is a confirmation from a new login.
func (d *drill) confirm() (err error) {
	other := *d.sys
	other.at, other.Login = nil, Login{}
	d.lab.Server.Do(func() { _, err = other.Confirm(context.Background()) })
	return err
}

// TestWriterWhileItWaits: somebody else writes rules while a change waits to be
// confirmed. A confirmation keeps it only where all of it is in place still; otherwise
// nothing of it is left. What the other one wrote stays.
func TestWriterWhileItWaits(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-legacy", "ufw", "firewalld", "firewall-cmd", "dbus-daemon", "iptables-nft")
	const conf = "flush ruleset\n" + nftDrop + "\n"
	for _, c := range []struct {
		name  string
		set   func(d *drill)
		write func(d *drill)
		kept  bool
		// there is what the other one wrote.
		dump  []string
		there string
	}{
		{"nft, its file is loaded anew", func(d *drill) {
			d.put("/etc/systemd/system/sysinit.target.wants/nftables.service", "")
			d.put("/etc/nftables.conf", conf)
			d.lab.Server.Load(t, lab.NFT, conf)
		}, func(d *drill) { d.lab.Server.Load(t, lab.NFT, conf) }, false, []string{"nft", "list", "ruleset"}, "203.0.113.66"},
		{"nft, a ban", func(d *drill) { d.lab.Server.Load(t, lab.NFT, nftDrop) }, func(d *drill) {
			d.lab.Server.Run(t, "nft", "insert rule inet filter input ip saddr 203.0.113.99 tcp dport 22 reject")
		}, true, []string{"nft", "list", "ruleset"}, "203.0.113.99"},
		{"legacy, flushed and loaded", func(d *drill) { d.lab.Server.Load(t, lab.IPTablesLegacy, xtPolicy("icmp")) }, func(d *drill) {
			d.lab.Server.Load(t, lab.IPTablesLegacy, strings.Replace(xtPolicy("icmp"), "--dport 22", "--dport 22:23", 1))
		}, false, []string{"iptables-legacy-save"}, "22:23"},
		{"legacy, a ban", func(d *drill) { d.lab.Server.Load(t, lab.IPTablesLegacy, xtPolicy("icmp")) }, func(d *drill) {
			d.lab.Server.Run(t, "iptables-legacy", "-w", "30", "-I", "INPUT", "-s", "203.0.113.99", "-j", "DROP")
		}, true, []string{"iptables-legacy-save"}, "203.0.113.99"},
		{"legacy, our rule is changed and keeps its mark", func(d *drill) { d.lab.Server.Load(t, lab.IPTablesLegacy, xtPolicy("icmp")) }, func(d *drill) {
			saved := d.lab.Server.Run(t, "iptables-legacy-save")
			d.lab.Server.Load(t, lab.IPTablesLegacy, strings.Replace(saved, "--dport 8080", "--dport 8081", 1))
		}, false, []string{"iptables-legacy-save"}, "--dport 8081"},
		{"ufw reloads", func(d *drill) {
			d.throwAway()
			d.in("ufw", "allow", "22/tcp")
			d.in("ufw", "--force", "enable")
		}, func(d *drill) { d.in("ufw", "reload") }, true, []string{"nft", "list", "ruleset"}, "ufw-user-input"},
		{"ufw gets another rule", func(d *drill) {
			d.throwAway()
			d.in("ufw", "allow", "22/tcp")
			d.in("ufw", "--force", "enable")
		}, func(d *drill) { d.in("ufw", "insert", "1", "deny", "from", "203.0.113.99") }, true, []string{"nft", "list", "ruleset"}, "203.0.113.99"},
		{"ufw is reset", func(d *drill) {
			d.throwAway()
			d.in("ufw", "allow", "22/tcp")
			d.in("ufw", "--force", "enable")
		}, func(d *drill) { d.in("ufw", "--force", "reset") }, false, []string{"nft", "list", "ruleset"}, ""},
		{"firewalld reloads", func(d *drill) {
			d.throwAway()
			d.in("mkdir", "-p", "/run/dbus")
			d.daemon("dbus-daemon", "--system", "--nofork", "--nopidfile")
			d.firewalld()
		}, func(d *drill) { d.in("firewall-cmd", "--reload") }, false, []string{"nft", "list", "ruleset"}, "firewalld"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newDrill(t, false, everybody)
			c.set(d)
			d.logIn()
			if d.connects(webPort) {
				t.Fatal("nothing blocks the port")
			}
			p, in, err := d.plan("")
			if err != nil || len(p.Steps) == 0 {
				t.Fatalf("%v %v", p, err)
			}
			ended := d.waiting(p, in, 2*time.Minute)
			if !d.connects(webPort) {
				t.Error("while it waits the port is blocked")
			}
			c.write(d)
			err = d.confirm()
			applied := <-ended
			if (err == nil) != c.kept || (applied == nil) != c.kept {
				t.Errorf("confirm: %v, apply: %v; kept is %v", err, applied, c.kept)
			}
			for _, err := range []error{err, applied} {
				if err != nil && !errors.Is(err, ErrRolledBack) && !errors.Is(err, ErrLeft) {
					t.Errorf("it ended with %v", err)
				}
			}
			rules := d.lab.Server.Run(t, c.dump...)
			if !strings.Contains(rules, c.there) {
				t.Errorf("what somebody else wrote is gone:\n%s", rules)
			}
			if c.name != "ufw is reset" && d.connects(webPort) != c.kept {
				t.Errorf("the port is open: %v", !c.kept)
			}
			if strings.Contains(c.name, "its file") && d.get("/etc/nftables.conf") != conf {
				t.Errorf("the file is\n%s", d.get("/etc/nftables.conf"))
			}
			if f, err := d.sys.readFile(path.Join(d.sys.State, journalName)); err != nil || f != nil {
				t.Errorf("the journal is open: %v", err)
			}
		})
	}
}
