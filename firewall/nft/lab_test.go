package nft

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// inNetns moves the test's goroutine into a network namespace of its own. What
// it starts is there as well. The thread ends with the goroutine.
func inNetns(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		unable(t, "making a network namespace needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread is not to be used again
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		unable(t, "unshare: "+err.Error())
	}
}

// unable skips a test, loudly, and fails it in CI.
func unable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("in CI this has to work: " + why)
	}
	t.Skip("SKIPPED: " + why)
}

// needTools skips the test where a tool is missing.
func needTools(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			unable(t, tool+" is not installed")
		}
	}
}

// tool runs a program in the namespace of the calling thread.
func tool(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	out, err := tryTool(stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return out
}

func tryTool(stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader([]byte(stdin))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return stderr.String(), err
	}
	return string(out), nil
}

// load gives a ruleset to nft.
func load(t testing.TB, ruleset string) {
	t.Helper()
	tool(t, ruleset, "nft", "-f", "-")
}

// read reads the ruleset of the namespace.
func read(t testing.TB, opt Options) *fw.Ruleset {
	t.Helper()
	src, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	rs, err := Read(context.Background(), src, opt)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}
