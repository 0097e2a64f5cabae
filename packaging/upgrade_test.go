package packaging

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// onHost runs a command on a throw-away copy of a root with a firewall and a web
// server (testdata/host.sh); work is its /work.
func onHost(t *testing.T, base, work string, args ...string) string {
	t.Helper()
	needRoot(t)
	need(t, "ip", "ss", "unshare")
	here, err := filepath.Abs("testdata/host.sh")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(here, append([]string{base}, args...)...)
	c.Dir = work
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestUpgradeWhilePending upgrades and downgrades while a real change of the firewall
// waits to be confirmed.
func TestUpgradeWhilePending(t *testing.T) {
	t.Parallel()
	base := withSystemd(t)
	dir, _, _ := packages(t)
	work := t.TempDir()
	copyTo(t, root{t, work}, dir+"/*.deb", "/old.deb")
	copyTo(t, root{t, work}, laterVersion(t)+"/*.deb", "/new.deb")
	output(t, nil, "cp", "packaging/testdata/upgrade/steps.sh", work+"/")
	if out := onHost(t, base, work, "/work/steps.sh"); !strings.HasSuffix(out, "ok: undone at its deadline\n") || !strings.Contains(out, "ok: undone by the new version\n") {
		t.Error(out)
	}
}
