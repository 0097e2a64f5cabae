package remedy

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// apartMark tells this binary that its mounts are its own: what is mounted over a
// program is seen by no other test.
const apartMark = "REMEDY_APART"

// ownMounts is a test binary with mounts of its own, within the laboratory.
func ownMounts(exe string, args ...string) *exec.Cmd {
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), apartMark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// apart lets a test that mounts over programs run beside others: in a process with
// mounts of its own. It returns true there; elsewhere it runs the test there.
func apart(t *testing.T) bool {
	t.Helper()
	if os.Getenv(apartMark) != "" {
		return true
	}
	t.Parallel()
	cmd := ownMounts("/proc/self/exe", "-test.v", "-test.run", "^"+t.Name()+"$")
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case err == nil && strings.Contains(text, "--- SKIP: "+t.Name()+" "):
		t.Skipf("%s", text)
	case err != nil || !strings.Contains(text, "--- PASS: "+t.Name()+" "):
		t.Errorf("%v\n%s", err, text)
	}
	return false
}
