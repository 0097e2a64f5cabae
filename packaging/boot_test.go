package packaging

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// withSystemd is a Debian root that boots, and in which Ansible runs.
func withSystemd(t *testing.T) string {
	return bootstrapped(t, "bookworm-ansible-1", "init-system-helpers,python3-apt,python3-cffi-backend,ansible-core,nftables,iproute2,systemd")
}

// TestBooted installs the package in a root and boots it twice with the real
// systemd: the timer runs, the recovery unit stands where it must and is free, the
// hardened scan runs, finds, stores its report and is no failed unit; after removal
// and purge nothing is left.
func TestBooted(t *testing.T) {
	t.Parallel()
	base := withSystemd(t)
	need(t, "systemd-nspawn", "script", "unshare")
	dir, _, _ := packages(t)
	work := t.TempDir()
	copyTo(t, root{t, work}, dir+"/*.deb", "/")
	output(t, nil, "cp", "packaging/testdata/boot/steps.sh", work+"/")
	here, err := filepath.Abs("testdata/boot/boot.sh")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(here, base)
	c.Dir = work
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	b, err := c.CombinedOutput()
	out := string(b)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for boot, want := range map[string][]string{
		"1": {"reports = 1 700 600 root", "journal = 1"},
		"2": {"reports = 2 700 600 root", "journal = 2", "diff = 0", "removed = 0 inactive 0", "purged = 0 0"},
	} {
		// 3: what the hardened unit may not read is named in its report.
		want = append(want, "enabled = enabled", "active = active", "recover = no 9", "failed = 0", "scan = 0 success 3", "found = 2")
		for _, w := range want {
			if !strings.Contains(out, "\n"+boot+": "+w+"\n") {
				t.Errorf("boot %s: not %q", boot, w)
			}
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}
