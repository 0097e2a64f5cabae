package lab

import (
	"fmt"
	"os"
	"testing"
)

// TestBootedApart: systems that run side by side have control groups of their own. In
// one that they share, the systemd of one takes away the groups of the other's units.
func TestBootedApart(t *testing.T) {
	t.Parallel()
	if os.Getenv("LAB_AS_NOBODY") != "" {
		t.Skip("inside the run of TestAsNobody, who can boot nothing")
	}
	base := BootBase(t)
	l := New(t, Topology{})
	group := func(b *Booted) string {
		t.Helper()
		out, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.Init))
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	one, two := l.Client.Boot(t, BootCopy(t, base)), l.Server.Boot(t, BootCopy(t, base))
	if a, b := group(one), group(two); a == b {
		t.Errorf("both are in the control group\n%s", a)
	}
	// Each sees its own units there.
	for _, b := range []*Booted{one, two} {
		if out, err := b.Run(t, "ls", "/sys/fs/cgroup/init.scope/cgroup.procs"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}
