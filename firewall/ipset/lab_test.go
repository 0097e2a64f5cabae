package ipset

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// namespace moves the test to a network namespace of its own. The thread is
// never given back, so it ends with the test's goroutine.
func namespace(t *testing.T) {
	t.Helper()
	need(t, os.Getuid() == 0, "network namespaces need root")
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		need(t, false, "unshare: "+err.Error())
	}
}

// need skips the test where something is missing; in CI it fails.
func need(t *testing.T, ok bool, reason string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// tool runs a command in the test's namespace; input goes to its standard
// input.
func tool(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(args[0])
	need(t, err == nil, args[0]+" is not installed")
	cmd := exec.Command(path, args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustTool(t *testing.T, input string, args ...string) string {
	t.Helper()
	out, err := tool(t, input, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func readHere(t *testing.T) *Sets {
	t.Helper()
	k, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := Read(ctx, k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
