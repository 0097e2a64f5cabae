package remedy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// bootRules are those of the booted systems: the operator's port, answers and
// neighbour discovery pass.
const bootRules = `*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p %s -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -p tcp -j REJECT
COMMIT
`

// TestBoots runs whole systems with the real systemd and each owner of a ruleset:
// a port is opened through the owner and stays open through a reload and a reboot;
// a reboot in the middle of a change is undone by the recovery unit before the
// owner starts, however long that takes; a login that dies takes nothing along, the
// timer undoes the change; and a run that is killed while it writes to disk leaves
// nothing.
// testdata/boot/phase is what runs in there.
func TestBoots(t *testing.T) {
	t.Parallel()
	base := lab.BootBase(t)
	exe := filepath.Join(t.TempDir(), "hostaudit")
	build := exec.Command("go", "build", "-o", exe, "../../cmd/hostaudit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	some := make(chan struct{}, 3) // they mostly wait
	for _, owner := range []string{"ufw", "firewalld", "firewalld-iptables", "nftables", "netfilter-persistent", "netfilter-persistent-legacy"} {
		t.Run(owner, func(t *testing.T) {
			t.Parallel()
			some <- struct{}{}
			defer func() { <-some }()
			bootOwner(t, base, exe, owner)
		})
	}
}

// missing skips loudly, and fails with CI=true.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("MISSING (CI=true): %s", why)
	}
	t.Skipf("SKIPPED, missing here: %s", why)
}

// bootOwner boots a copy of the base, whose changes are in memory, until its last
// phase.
func bootOwner(t *testing.T, base, exe, owner string) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root := lab.BootCopy(t, base)
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		must(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		must(os.WriteFile(filepath.Join(root, name), []byte(text), mode))
	}
	copied := func(from, to string, mode os.FileMode) {
		t.Helper()
		data, err := os.ReadFile(from)
		must(err)
		put(to, string(data), mode)
	}
	copied(exe, "/usr/sbin/hostaudit", 0o755)
	copied("testdata/boot/phase", "/phase", 0o755)
	copied("testdata/boot/serve", "/serve", 0o644)
	copied("../../packaging/systemd/hostaudit-recover.service", "/etc/systemd/system/hostaudit-recover.service", 0o644)
	put("/etc/systemd/system/phase.service", "[Unit]\nAfter=multi-user.target\n[Service]\nType=exec\nExecStart=/phase\nKillMode=process\n", 0o644)
	// An owner that does not wait for the recovery loads what it takes out.
	put("/etc/systemd/system/hostaudit-recover.service.d/slow.conf", "[Service]\nExecStartPre=/bin/sleep 1\n", 0o644)
	for link, to := range map[string]string{
		"default.target":                                 "/lib/systemd/system/multi-user.target",
		"multi-user.target.wants/phase.service":          "/etc/systemd/system/phase.service",
		"sysinit.target.wants/hostaudit-recover.service": "/etc/systemd/system/hostaudit-recover.service",
	} {
		link = filepath.Join(root, "etc/systemd/system", link)
		must(os.MkdirAll(filepath.Dir(link), 0o755))
		_ = os.Remove(link)
		must(os.Symlink(to, link))
	}
	put("/owner", owner+"\n", 0o644)
	put("/rules.v4", fmt.Sprintf(bootRules, "icmp"), 0o644)
	put("/rules.v6", fmt.Sprintf(bootRules, "ipv6-icmp"), 0o644)
	put("/rules.nft", "#!/usr/sbin/nft -f\nflush ruleset\n\n"+nftDrop+"\n", 0o755)
	if strings.HasPrefix(owner, "netfilter-persistent") {
		// It cannot live beside ufw.
		out, err := exec.Command("unshare", "-nm", "chroot", root, "sh", "-c", "dpkg --purge ufw && dpkg -i /var/cache/apt/archives/*persistent*.deb && systemctl disable netfilter-persistent").CombinedOutput()
		if err != nil {
			t.Fatalf("install netfilter-persistent: %v\n%s", err, out)
		}
	}
	log := func() string {
		data, err := os.ReadFile(filepath.Join(root, "phase.log"))
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	boots := 0
	for ; boots < 6; boots++ {
		console := lab.BootOnce(t, root)
		if strings.Contains(log(), "\nFAIL") {
			t.Fatalf("%s", log())
		}
		if strings.Count(log(), "== boot") != boots+1 {
			t.Fatalf("boot %d did not come to its phase; its console:\n%s\n%s", boots+1, console[max(0, len(console)-3000):], log())
		}
		if _, err := os.Stat(filepath.Join(root, "phase.done")); err == nil {
			t.Logf("%d boots\n%s", boots+1, log())
			return
		}
	}
	t.Errorf("it does not end:\n%s", log())
}
