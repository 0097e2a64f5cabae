package remedy

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

// throwAway makes the host's files a copy of this machine's that nobody else sees.
func (d *drill) throwAway() {
	d.t.Helper()
	d.root = d.lab.Server.ThrowAway(d.t, filepath.Join(d.t.TempDir(), "remedy-test"))
	d.sys.Root = d.root.Path
}

// in runs a program of the throw-away root in the server's namespace.
func (d *drill) in(argv ...string) string {
	d.t.Helper()
	return d.root.Run(d.t, argv...)
}

// TestRealUFW opens a port through the real ufw, in both families: it survives
// ufw's reload and a start from nothing, the operator stays, and a rollback takes
// it out of ufw's own list.
func TestRealUFW(t *testing.T) {
	t.Parallel()
	lab.Need(t, "ufw", "iptables-nft", "ipv6")
	for _, v6 := range []bool{false, true} {
		d := newDrill(t, v6, everybody)
		d.throwAway()
		d.in("ufw", "allow", "22/tcp")
		d.in("ufw", "--force", "enable")
		d.logIn()
		if d.connects(webPort) {
			t.Fatal("ufw does not block the port: nothing is proven here")
		}
		rules := d.get("/etc/ufw/user.rules")
		p, in, err := d.plan("")
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Changes) != 1 || p.Changes[0].Owner != string(owner.UFW) || !p.Changes[0].Persistent || len(p.Protected) == 0 {
			t.Fatalf("%s", p.Text(nil, false))
		}
		if err := d.apply(p, in, nil); err != nil {
			t.Fatalf("%v\n%s", err, p.Text(nil, false))
		}
		if !d.connects(webPort) || !talks(d.login) || !d.connects(sshPort) {
			t.Error("it is not open, or the operator was cut off")
		}
		d.in("ufw", "reload")
		if !d.connects(webPort) {
			t.Error("after ufw reload it is blocked again")
		}
		again, _, err := d.plan("")
		if err != nil || len(again.Steps) != 0 {
			t.Errorf("a second time there is something to do: %v", err)
		}
		// As after a boot: no rules, and ufw starts.
		d.lab.Server.Run(t, "nft", "flush", "ruleset")
		d.in("/usr/lib/ufw/ufw-init", "start")
		if !d.connects(webPort) {
			t.Error("after a start from nothing it is blocked again")
		}
		d.lab.Server.Do(func() { err = d.sys.Rollback(context.Background(), "", false) })
		if err != nil {
			t.Error(err)
		}
		if d.connects(webPort) || !d.connects(sshPort) {
			t.Error("after the rollback it is not as it was")
		}
		if got := d.get("/etc/ufw/user.rules"); strings.Contains(got, "8080") || len(got) != len(rules) {
			t.Errorf("after the rollback ufw has the rules\n%s\nit had\n%s", got, rules)
		}
	}
}

// cutOff carries a plan out and leaves it as a run of an earlier boot that the power
// cut off after its last step.
func (d *drill) cutOff(p *Plan) {
	d.t.Helper()
	d.lab.Server.Do(func() {
		j, err := d.sys.begin(p, ApplyOptions{})
		if err != nil {
			d.t.Fatal(err)
		}
		st, err := d.sys.openStore(true)
		if err != nil {
			d.t.Fatal(err)
		}
		defer st.close()
		j.Step, j.BootID = len(p.Steps)-1, "another boot"
		if err := st.save(j); err != nil {
			d.t.Fatal(err)
		}
		for i := range p.Steps {
			if err := d.sys.set(context.Background(), &p.Steps[i], true); err != nil {
				d.t.Fatal(err)
			}
		}
	})
}

// TestUFWInterruptedByReboot: what ufw has on disk already when the host goes down
// is taken out of its files before ufw starts; where ufw has loaded it (the recovery
// comes late, or by hand), out of its rules as well.
func TestUFWInterruptedByReboot(t *testing.T) {
	t.Parallel()
	lab.Need(t, "ufw", "iptables-nft", "ipv6")
	for _, late := range []bool{false, true} {
		d := newDrill(t, false, everybody)
		d.throwAway()
		d.in("ufw", "allow", "22/tcp")
		d.in("ufw", "--force", "enable")
		rules := d.get("/etc/ufw/user.rules") + d.get("/etc/ufw/user6.rules")
		p, _, err := d.plan("")
		if err != nil {
			t.Fatal(err)
		}
		d.cutOff(p)
		if got := d.get("/etc/ufw/user.rules"); !strings.Contains(got, "8080") {
			t.Fatalf("ufw did not take it:\n%s", got)
		}
		d.lab.Server.Run(t, "nft", "flush", "ruleset")
		if late {
			d.in("/usr/lib/ufw/ufw-init", "start")
			if !d.connects(webPort) {
				t.Fatal("ufw has not loaded it: nothing is proven here")
			}
		}
		d.lab.Server.Do(func() { err = d.sys.Recover(context.Background()) })
		if err != nil {
			t.Error(err)
		}
		if got := d.get("/etc/ufw/user.rules") + d.get("/etc/ufw/user6.rules"); got != rules {
			t.Errorf("after the recovery (late: %v) ufw has the rules\n%s\nit had\n%s", late, got, rules)
		}
		if !late {
			d.in("/usr/lib/ufw/ufw-init", "start")
		}
		for _, d.v6 = range []bool{false, true} {
			if d.connects(webPort) || !d.connects(sshPort) {
				t.Errorf("after the recovery (late: %v) it is not as it was (IPv6: %v)\n%s", late, d.v6, d.in("iptables-save"))
			}
		}
	}
}

// TestUFWWithoutIPv6: ufw with IPV6=no opens IPv4 and says what is left.
func TestUFWWithoutIPv6(t *testing.T) {
	t.Parallel()
	lab.Need(t, "ufw", "iptables-nft", "ipv6")
	d := newDrill(t, false, everybody)
	d.throwAway()
	d.put("/etc/default/ufw", strings.Replace(d.get("/etc/default/ufw"), "IPV6=yes", "IPV6=no", 1))
	d.in("ufw", "allow", "22/tcp")
	d.in("ufw", "--force", "enable")
	d.logIn()
	if d.connects(webPort) {
		t.Fatal("ufw does not block the port")
	}
	p, in, err := d.plan("")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Steps) != 1 || len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "IPV6=yes") {
		t.Fatalf("%s", p.Text(nil, false))
	}
	if err := d.apply(p, in, nil); err != nil {
		t.Fatal(err)
	}
	if !d.connects(webPort) || !talks(d.login) {
		t.Error("it is not open, or the operator was cut off")
	}
	if d.v6 = true; d.connects(webPort) {
		t.Error("it is open for IPv6")
	}
	again, _, err := d.plan("")
	if err != nil || len(again.Steps) != 0 || len(again.Manual) == 0 || !strings.Contains(again.Manual[0].Words, "IPV6=yes") {
		t.Errorf("a second time: %v\n%s", err, again.Text(nil, false))
	}
}
