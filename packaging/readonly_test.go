package packaging

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// TestReadingWritesNothing traces the packaged program in a namespace with rules:
// the reading commands open nothing for writing, make nothing, remove nothing,
// start no program, and set no sysctl; --keep writes below its directory alone.
func TestReadingWritesNothing(t *testing.T) {
	t.Parallel()
	needRoot(t)
	need(t, "strace", "unshare", "nft", "ip")
	dir, _, _ := packages(t)
	binary := dir + "/build/" + runtime.GOARCH + "/hostaudit"
	const calls = "openat,open,openat2,creat,mkdir,mkdirat,unlink,unlinkat,rmdir,rename,renameat,renameat2,link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,chown,fchown,fchownat," +
		"truncate,ftruncate,mount,umount2,setns,execve,init_module,finit_module,sethostname,kill"
	traced := func(args string) []string {
		t.Helper()
		log := filepath.Join(t.TempDir(), "log")
		c := exec.Command("unshare", "-nm", "sh", "-c", "ip link set lo up; nft add table inet t; nft add chain inet t c '{ type filter hook input priority 0; policy accept; }'; nft add rule inet t c tcp dport 22 drop; "+
			"exec strace -f -qq -o "+log+" -e trace="+calls+" "+binary+" "+args)
		out, err := c.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 3) {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if len(lines) < 20 && !strings.HasPrefix(args, "checks") {
			t.Fatalf("%s: the trace has only %d lines", args, len(lines))
		}
		reads := regexp.MustCompile(`^\d+ +(<\.\.\. )?open(at|at2)?(\(| resumed).*$`)
		var writes []string
		for i, l := range lines {
			switch {
			case i == 0: // strace starts it
			case strings.Contains(l, "+++ exited"), strings.Contains(l, "--- SIG"), strings.HasSuffix(l, "<detached ...>"): // no call
			case strings.HasSuffix(l, " ???( <unfinished ...>"): // the program ended before the thread was in its call
			case reads.MatchString(l) && !regexp.MustCompile(`O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND|O_TMPFILE`).MatchString(l):
			case strings.Contains(l, "setns("), strings.Contains(l, "setns resumed"): // other namespaces are looked into
			case strings.Contains(l, `kill(`) && strings.Contains(l, ", 0)"):
			default:
				writes = append(writes, l)
			}
		}
		return writes
	}
	for _, args := range []string{
		"scan --quick", "scan --sample 100ms --format json", "reach 22", "reach 22 --from 192.0.2.1 --explain", "ports", "checks", "fix", "history",
		"diagnose 127.0.0.1:22 --error 'Connection refused'",
	} {
		if got := traced(args); len(got) > 0 {
			t.Errorf("%s:\n%s", args, strings.Join(got[:min(len(got), 5)], "\n"))
		}
	}
	reports := t.TempDir()
	kept := traced("scan --quick --keep 2 --reports " + reports)
	if len(kept) < 2 { // control: a file and its new name
		t.Errorf("--keep wrote nothing that this test sees: %q", kept)
	}
	for _, l := range kept {
		if !strings.Contains(l, reports) && !strings.Contains(l, ".json") && !strings.Contains(l, "fchmod(") {
			t.Errorf("--keep: %s", l)
		}
	}
}
