package remedy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/lab"
)

type ownerFake struct {
	name, script string
	want         error // nil: done
}

// ownerFakes are what an owner's own program may do, and how a change ends then.
var ownerFakes = []ownerFake{
	{"fails", "exit 1", ErrRolledBack},
	{"hangs", "sleep 1000", ErrRolledBack},
	{"floods", "head -c 100000000 /dev/zero", ErrRolledBack},
	{"does nothing and says well", "exit 0", ErrRolledBack},
	{"kills itself", "kill -9 $$", ErrRolledBack},
	{"garbage", `printf '\377\376\033[2J'; exit 2`, ErrRolledBack},
	{"hangs at first, once it is done", `if [ -e /once ]; then exec "$REAL" "$@"; fi; "$REAL" "$@"; : >/once; sleep 1000`, ErrRolledBack},
	{"works and says 3", `"$REAL" "$@"; exit 3`, nil},
}

// lie puts a script in the place of the owner's program, for what changes
// something; questions go to the real one.
func (d *drill) lie(program, script, question string) (restore func()) {
	d.t.Helper()
	p, err := findTool(d.sys.Root, program)
	if err != nil {
		d.t.Fatal(err)
	}
	p = filepath.Join(d.sys.Root, p)
	if err := os.Rename(p, p+".real"); err != nil {
		d.t.Fatal(err)
	}
	real := strings.TrimPrefix(p, d.sys.Root) + ".real"
	text := fmt.Sprintf("#!/bin/bash\nREAL=%s\ncase \"$*\" in %s) exec \"$REAL\" \"$@\";; esac\n%s\n", real, question, script)
	if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
		d.t.Fatal(err)
	}
	return func() {
		if err := os.Rename(p+".real", p); err != nil {
			d.t.Fatal(err)
		}
	}
}

// lies goes through all of them on one drill.
func (d *drill) lies(program, question string, fakes []ownerFake) {
	for _, fake := range fakes {
		_ = os.Remove(filepath.Join(d.sys.Root, "once"))
		p, in, err := d.plan("")
		if err != nil || len(p.Steps) == 0 {
			d.t.Fatalf("%s: %v %v", fake.name, p, err)
		}
		restore := d.lie(program, fake.script, question)
		err = d.apply(p, in, nil)
		restore()
		if fake.want == nil && err != nil || fake.want != nil && !errors.Is(err, fake.want) {
			d.t.Errorf("%s %s: it ended with %v, want %v", program, fake.name, err, fake.want)
		}
		if open := d.connects(webPort); open != (fake.want == nil) {
			d.t.Errorf("%s %s: the port is open: %v", program, fake.name, open)
		}
		if !talks(d.login) {
			d.t.Errorf("%s %s: the operator was cut off", program, fake.name)
		}
		if _, err := os.Stat(filepath.Join(d.sys.Root, d.sys.State, journalName)); err == nil {
			d.t.Errorf("%s %s: the journal is open", program, fake.name)
		}
	}
	d.lab.Server.Do(func() {
		if err := d.sys.Rollback(context.Background(), "", false); err != nil {
			d.t.Error(err)
		}
	})
}

// TestOwnersThatLie puts programs in the place of ufw and firewall-cmd that fail,
// hang, flood, lie or die: a fresh reading decides, and it is all old or all new.
func TestOwnersThatLie(t *testing.T) {
	t.Parallel()
	lab.Need(t, "ufw", "firewalld", "firewall-cmd", "dbus-daemon", "nft", "iptables-nft")
	t.Run("ufw", func(t *testing.T) {
		t.Parallel()
		d := newDrill(t, false, everybody)
		d.throwAway()
		d.in("ufw", "allow", "22/tcp")
		d.in("ufw", "--force", "enable")
		d.logIn()
		rules := d.get("/etc/ufw/user.rules")
		d.sys.ToolTime = 5 * time.Second
		d.lies("ufw", "status", ownerFakes)
		if got := d.get("/etc/ufw/user.rules"); got != rules {
			t.Errorf("ufw has the rules\n%s\nit had\n%s", got, rules)
		}
	})
	t.Run("firewalld", func(t *testing.T) {
		t.Parallel()
		d := newDrill(t, false, everybody)
		d.throwAway()
		d.in("mkdir", "-p", "/run/dbus")
		d.daemon("dbus-daemon", "--system", "--nofork", "--nopidfile")
		d.firewalld()
		d.logIn()
		zone := d.in("firewall-cmd", "--list-all") + d.in("firewall-cmd", "--permanent", "--list-all")
		d.sys.ToolTime = 10 * time.Second // firewall-cmd is slow beside other tests
		d.lies("firewall-cmd", "*--query-*", ownerFakes[3:])
		if now := d.in("firewall-cmd", "--list-all") + d.in("firewall-cmd", "--permanent", "--list-all"); now != zone {
			t.Errorf("the zone is\n%s\nit was\n%s", now, zone)
		}
	})
}
