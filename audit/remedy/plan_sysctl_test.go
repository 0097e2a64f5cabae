package remedy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// TestSysctlPlan goes the whole way from a finding to a value that lasts: planned,
// live, on disk with its reason, what both loaders make of it, and back.
func TestSysctlPlan(t *testing.T) {
	lab.Need(t)
	d := newDrill(t, false, everybody)
	d.lab.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "32768 33767")
	const foreign = "/etc/sysctl.d/10-mine.conf"
	d.put(foreign, "net.ipv4.ip_local_port_range = 32768 33767\n")
	put := func(in *Input) {
		in.Findings = []string{"sysctl.ephemeral-range-small"}
		// Nearly all ports to one destination are in use.
		in.Snapshot.Census = &listeners.Census{
			Settings:     listeners.PortSettings{Low: 32768, High: 33767},
			HeadRoom:     map[listeners.Proto]listeners.HeadRoom{listeners.TCP: {Usable: 1000}},
			Destinations: []listeners.Destination{{Proto: listeners.TCP, From: d.lab.ServerAddr(0), To: d.lab.ClientAddr(0), Port: 3306, InUse: 950, Share: 0.95}},
		}
	}
	make := func() (p *Plan, in Input) {
		t.Helper()
		d.lab.Server.Do(func() {
			in = d.input()
			put(&in)
			var err error
			if p, err = NewPlan(in); err != nil {
				t.Fatal(err)
			}
		})
		return p, in
	}
	// What another file sets is not lost when the drop-in wins over it.
	d.put(foreign, "net.ipv4.ip_local_port_range = 15001 33767\n")
	if p, _ := make(); len(p.Changes) != 1 || !strings.HasPrefix(p.Changes[0].After, "15001 ") {
		t.Errorf("the range of another file is cut:\n%s", p.Text(nil, false))
	}
	d.put(foreign, "net.ipv4.ip_local_port_range = 32768 33767\n")
	p, _ := make()
	if len(p.Changes) != 1 || p.Changes[0].Subject != "net.ipv4.ip_local_port_range" {
		t.Fatalf("%s", p.Text(nil, false))
	}
	c := p.Changes[0]
	if !strings.Contains(c.Diff, "+# sysctl.ephemeral-range-small") || !strings.Contains(c.Boot, sysctl.DropInPath) && c.Persistent {
		t.Errorf("%s", p.Text(nil, false))
	}
	value := func() string {
		data, err := d.lab.Server.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(data)), " ")
	}
	d.lab.Server.Do(func() {
		if err := d.sys.Apply(context.Background(), p, ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	if value() != c.After || !strings.Contains(d.get(sysctl.DropInPath), "net.ipv4.ip_local_port_range = "+c.After+"\n") {
		t.Errorf("live %s, on disk\n%s", value(), d.get(sysctl.DropInPath))
	}
	// Somebody sets it by hand: scan names the value that the next boot brings, and
	// the file of this program.
	for _, f := range []string{"/usr/lib/systemd/systemd-sysctl", "/usr/lib/systemd/systemd", "/sbin/x"} {
		d.put(f, "")
	}
	if err := os.Symlink("/usr/lib/systemd/systemd", filepath.Join(d.sys.Root, "sbin/init")); err != nil {
		t.Fatal(err)
	}
	drift := func() string {
		var out string
		d.lab.Server.Do(func() {
			snap, err := d.sys.Read(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range audit.Run(snap, &d.cfg, checks.All()).Findings {
				if f.ID == "sysctl.lost-at-reboot" && f.Subject == "net.ipv4.ip_local_port_range" {
					out += f.Title + ": " + f.Evidence[0].Value + f.Remedy
				}
			}
		})
		return out
	}
	if got := drift(); got != "" {
		t.Errorf("as it was applied, scan says %s", got)
	}
	d.lab.Server.Sysctl(t, "net.ipv4.ip_local_port_range", "40000 50000")
	if got := drift(); !strings.Contains(got, c.After) || !strings.Contains(got, sysctl.DropInPath) {
		t.Errorf("changed by hand, scan says %q", got)
	}
	d.lab.Server.Sysctl(t, "net.ipv4.ip_local_port_range", c.After)
	// What systemd-sysctl would apply at the next boot, from the files as they are.
	tree, err := sysctl.CaptureFiles(context.Background(), d.sys.Root)
	if err != nil {
		t.Fatal(err)
	}
	keys := sysctl.NewKeySet([]sysctl.Key{"net.ipv4.ip_local_port_range"})
	if w, ok := sysctl.Simulate(sysctl.LoaderSystemd, tree, keys).Winner("net.ipv4.ip_local_port_range"); !ok || w.Value != c.After {
		t.Errorf("at boot: %+v %v", w, ok)
	}
	d.lab.Server.Do(func() {
		if err := d.sys.Rollback(context.Background(), p.ID, false); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(filepath.Join(d.sys.Root, sysctl.DropInPath)); err == nil || value() != "32768 33767" {
		t.Errorf("after the rollback: %s, %v", value(), err)
	}
	// A drop-in that somebody has edited is not overwritten.
	d.put(sysctl.DropInPath, "net.core.somaxconn = 1\n")
	d.lab.Server.Do(func() {
		in := d.input()
		put(&in)
		if _, err := NewPlan(in); err == nil || !strings.Contains(err.Error(), "edited by somebody else") {
			t.Errorf("a foreign drop-in: %v", err)
		}
	})
}
