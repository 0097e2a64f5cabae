package lab

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is a uid and gid without any privilege.
const nobody = 65534

// TestAsNobody runs this very suite as an unprivileged user. The binary is
// copied, since the go command keeps it in a folder that only its user may read.
func TestAsNobody(t *testing.T) {
	t.Parallel()
	Need(t, "nft", "iptables-nft", "iptables-legacy", "ipset")
	if os.Getenv("LAB_AS_NOBODY") != "" || testing.Short() {
		t.Skip("inside that run already, or -short")
	}
	if !mapped(t, nobody) {
		t.Skip("SKIPPED: these tests run without root already, and there is no other uid to become")
	}
	if knob, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"); err == nil && strings.TrimSpace(string(knob)) == "1" {
		t.Skip("SKIPPED: this machine's AppArmor forbids unprivileged user namespaces (kernel.apparmor_restrict_unprivileged_userns=1)")
	}
	dir, err := os.MkdirTemp("/tmp", "lab-as-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "lab.test")
	if err := copyFile(binary, "/proc/self/exe"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.v", "-test.timeout=3m")
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, Marker+"=") && !strings.HasPrefix(v, "GOCOVERDIR=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "LAB_AS_NOBODY=1", "CI=true", "HOME="+dir, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as uid %d: %v\n%s", nobody, err, out)
	}
	for _, must := range []string{"--- PASS: TestSights/iptables-legacy/ip6 ", "--- PASS: TestFlush ", "--- PASS: TestContainers "} {
		if !strings.Contains(string(out), must) {
			t.Errorf("as uid %d, no %q in\n%s", nobody, must, out)
		}
	}
}

// mapped reports whether a uid exists in this user namespace.
func mapped(t *testing.T, uid int) bool {
	t.Helper()
	err := os.Chown(t.TempDir(), uid, uid)
	if err != nil && !errors.Is(err, syscall.EINVAL) {
		t.Fatal(err)
	}
	return err == nil
}

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
