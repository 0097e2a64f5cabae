package checks_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestSelectLoop: a real process that listens, holds 900 descriptors and waits in
// select(2); its twin waits in epoll_wait(2).
func TestSelectLoop(t *testing.T) {
	lab.Need(t, "python3")
	const program = `
import os, resource, select, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
s = socket.socket(); s.bind(("0.0.0.0", 8080)); s.listen(16)
keep = [os.open("/dev/null", os.O_RDONLY) for _ in range(900)]
if sys.argv[1] == "select":
    sys.stdout.write("ready\n"); sys.stdout.flush()
    select.select([s], [], [])
else:
    e = select.epoll(); e.register(s)
    sys.stdout.write("ready\n"); sys.stdout.flush()
    e.poll()
`
	start := func(h *host, how string) {
		cmd := exec.Command("python3", "-c", program, how)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Server.Start(cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		b := make([]byte, 16)
		if n, err := out.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "ready") {
			t.Fatalf("%q %v", b[:n], err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	h := newHost(t, lab.Topology{})
	start(h, "select")
	r := h.scan(nil)
	for _, f := range ours(t, r) {
		if f.ID == "limits.select-loop-full" {
			evidence(t, f, "waits in", "select(2), for descriptors below 4")
			if f.Severity != audit.Warning {
				t.Errorf("severity %s", f.Severity)
			}
		}
	}
	if !strings.Contains(strings.Join(ids(r), " "), "limits.select-loop-full python3") {
		t.Fatalf("limits.select-loop-full is missing among %v", ids(r))
	}
	h = newHost(t, lab.Topology{})
	start(h, "epoll")
	silent(t, h.scan(nil), "sysctl.limit.select-loop")
}
