package remedy

import (
	"context"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

// daemon runs a program of the throw-away root in the server's namespace until the
// test ends.
func (d *drill) daemon(argv ...string) *exec.Cmd {
	d.t.Helper()
	return d.root.Daemon(d.t, argv...)
}

// firewalld starts the real one, with a bus of its own.
func (d *drill) firewalld() *exec.Cmd {
	d.t.Helper()
	cmd := d.daemon("firewalld", "--nofork", "--nopid")
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, err := d.lab.Server.Exec(context.Background(), "", "chroot", d.sys.Root, "firewall-cmd", "--state"); err == nil {
			return cmd
		} else if time.Now().After(end) {
			d.t.Fatalf("firewalld does not come up: %v", err)
		}
	}
}

// TestRealFirewalld opens a port through the real firewalld, for everybody and for
// networks: at run time, after a reload, after a restart; and a rollback takes it
// out of both of its configurations.
func TestRealFirewalld(t *testing.T) {
	t.Parallel()
	lab.Need(t, "firewalld", "firewall-cmd", "dbus-daemon", "nft")
	nets := audit.Audience{Kind: audit.ForNetworks, Networks: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd00:9::/64")}}
	for name, audience := range map[string]audit.Audience{"everybody": everybody, "networks": nets} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDrill(t, false, audience)
			d.throwAway()
			d.in("mkdir", "-p", "/run/dbus")
			d.daemon("dbus-daemon", "--system", "--nofork", "--nopidfile")
			running := d.firewalld()
			d.logIn()
			if d.connects(webPort) {
				t.Fatal("firewalld does not block the port: nothing is proven here")
			}
			zone := d.in("firewall-cmd", "--list-all") + d.in("firewall-cmd", "--permanent", "--list-all")
			p, in, err := d.plan("")
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Changes) == 0 || p.Changes[0].Owner != string(owner.Firewalld) || len(p.Protected) == 0 {
				t.Fatalf("%s", p.Text(nil, false))
			}
			if err := d.apply(p, in, nil); err != nil {
				t.Fatalf("%v\n%s", err, p.Text(nil, false))
			}
			if !d.connects(webPort) || !talks(d.login) || !d.connects(sshPort) {
				t.Error("it is not open, or the operator was cut off")
			}
			d.in("firewall-cmd", "--reload")
			if !d.connects(webPort) {
				t.Error("after a reload it is blocked again")
			}
			again, _, err := d.plan("")
			if err != nil || len(again.Steps) != 0 {
				t.Errorf("a second time there is something to do: %v", err)
			}
			if err := syscall.Kill(running.Process.Pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = running.Wait()
			d.firewalld()
			if !d.connects(webPort) {
				t.Error("after a restart it is blocked again")
			}
			d.lab.Server.Do(func() { err = d.sys.Rollback(context.Background(), "", false) })
			if err != nil {
				t.Error(err)
			}
			if d.connects(webPort) || !d.connects(sshPort) {
				t.Error("after the rollback it is not as it was")
			}
			if now := d.in("firewall-cmd", "--list-all") + d.in("firewall-cmd", "--permanent", "--list-all"); now != zone {
				t.Errorf("after the rollback the zone is\n%s\nit was\n%s", now, zone)
			}
		})
	}
}

// TestFirewalldRecoveredLate: a change that a power cut left in firewalld's files, and
// that it has loaded since, is taken out of both of its configurations.
func TestFirewalldRecoveredLate(t *testing.T) {
	t.Parallel()
	lab.Need(t, "firewalld", "firewall-cmd", "dbus-daemon", "nft")
	d := newDrill(t, false, everybody)
	d.throwAway()
	d.in("mkdir", "-p", "/run/dbus")
	d.daemon("dbus-daemon", "--system", "--nofork", "--nopidfile")
	d.firewalld()
	zone := d.in("firewall-cmd", "--list-all") + d.in("firewall-cmd", "--permanent", "--list-all")
	p, _, err := d.plan("")
	if err != nil {
		t.Fatal(err)
	}
	d.cutOff(p)
	if !d.connects(webPort) {
		t.Fatal("firewalld has not loaded it: nothing is proven here")
	}
	d.lab.Server.Do(func() { err = d.sys.Recover(context.Background()) })
	if err != nil {
		t.Error(err)
	}
	if d.connects(webPort) || !d.connects(sshPort) {
		t.Error("after the recovery it is not as it was")
	}
	if now := d.in("firewall-cmd", "--list-all") + d.in("firewall-cmd", "--permanent", "--list-all"); now != zone {
		t.Errorf("after the recovery the zone is\n%s\nit was\n%s", now, zone)
	}
}
