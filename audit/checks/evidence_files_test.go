package checks_test

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// echoServer answers each client with its own bytes, may have 64 descriptors, and
// opens as many more as it is told.
const echoServer = `
import os, resource, selectors, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", 8080)); s.listen(16); s.setblocking(False)
e = selectors.PollSelector(); e.register(s, 1); e.register(sys.stdin, 1)
keep = []
print("ready", flush=True)
while True:
    for key, _ in e.select():
        if key.fileobj is sys.stdin:
            line = sys.stdin.readline()
            if not line: sys.exit(0)
            used = lambda: len(os.listdir("/proc/self/fd")) - 1
            try:
                while True:
                    if int(line) < 64 and used() >= int(line): break
                    keep.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
            print("done", flush=True)
        elif key.fileobj is s:
            try: c, _ = s.accept(); e.register(c, 1)
            except OSError: pass
        else:
            try: data = key.fileobj.recv(100)
            except OSError: data = b""
            if data: key.fileobj.sendall(data)
            else: e.unregister(key.fileobj); key.fileobj.close()
`

// program is a process of the server's, told what to do by lines.
type program struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func (h *host) program(text string) *program {
	h.t.Helper()
	lab.Need(h.t, "python3")
	p := &program{t: h.t, cmd: exec.Command("python3", "-c", text)}
	p.cmd.Stderr = os.Stderr
	in, err1 := p.cmd.StdinPipe()
	out, err2 := p.cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		h.t.Fatal(err1, err2)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := h.Server.Start(p.cmd); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	p.expect("ready")
	return p
}

func (p *program) expect(word string) {
	p.t.Helper()
	if line, err := p.out.ReadString('\n'); err != nil || strings.TrimSpace(line) != word {
		p.t.Fatalf("the program says %q (%v), want %q", line, err, word)
	}
}

func (p *program) tell(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		p.t.Fatal(err)
	}
	p.expect("done")
}

// answered connects from the client and says whether bytes come back.
func (h *host) answered(to netip.AddrPort) bool {
	h.t.Helper()
	fd, err := dial(h.Client, none, to, patience)
	if err != nil {
		h.t.Fatalf("connect to %v: %v", to, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		h.t.Fatal(err)
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 1500)
		if err == unix.EINTR {
			continue
		}
		return err == nil && n == 1
	}
}

// TestFilesNearLimit: a real process uses up its own descriptors. At the end a
// client still connects and gets no answer, as the finding says.
func TestFilesNearLimit(t *testing.T) {
	const id, to = "listener.nofile-near-limit", "10.9.0.2:8080"
	h := newHost(t, lab.Topology{})
	p := h.program(echoServer)
	found := func() (out []audit.Finding) {
		for _, f := range h.scan(nil).Findings {
			if f.ID == id {
				out = append(out, f)
			}
		}
		return out
	}
	if got := found(); len(got) > 0 || !h.answered(addrPort(to)) {
		t.Fatalf("a healthy service: %v", got)
	}
	p.tell("54")
	got := found()
	if len(got) != 1 || got[0].Severity != audit.Warning || !strings.HasPrefix(got[0].Subject, "python3") || !h.answered(addrPort(to)) {
		t.Fatalf("54 of 64 descriptors: %v", got)
	}
	evidence(t, got[0], fmt.Sprintf("/proc/%d", p.cmd.Process.Pid), "soft limit 64")
	// No unit started it: nobody is sent to a unit, nor promised a change.
	if got[0].Fix != audit.FixManual || strings.Contains(got[0].Remedy, "LimitNOFILE") || !strings.Contains(got[0].Remedy, fmt.Sprintf("prlimit --pid %d", p.cmd.Process.Pid)) {
		t.Errorf("remedy of a process without a unit: %s, %q", got[0].Fix, got[0].Remedy)
	}
	p.tell("64")
	p.tell("64") // and the one that the last client gave back
	if h.answered(addrPort(to)) {
		t.Fatal("control: a client is served though the program is out of descriptors")
	}
	if got = found(); len(got) != 1 || got[0].Severity != audit.Critical {
		t.Errorf("64 of 64 descriptors: %v", got)
	}
}

// TestUnitAsksForTooMuch: a service in a control group of its own, whose unit asks
// for more descriptors than fs.nr_open gives any process. fs.nr_open is the
// machine's: it is read here and never written.
func TestUnitAsksForTooMuch(t *testing.T) {
	h := newHost(t, lab.Topology{})
	name, dir := serviceGroup(t, "pids.events")
	p := h.program(echoServer)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(itoa(p.cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		t.Fatal(err)
	}
	most := strings.TrimSpace(string(b))
	if len(most) > 9 { // systemd raised it as far as it goes, no unit can ask for more
		missing(t, "a machine on which fs.nr_open is not at its end")
	}
	said := func() []string {
		return slices.DeleteFunc(ids(h.scan(nil)), func(s string) bool { return !strings.HasPrefix(s, "sysctl.nr-open") })
	}
	unit := "usr/lib/systemd/system/" + name
	h.file(unit, "[Unit]\nLimitNOFILE=2000000000\n[Service]\nLimitNOFILE="+most+"\n")
	if got := said(); len(got) > 0 {
		t.Errorf("as much as there is: %v", got)
	}
	h.file("etc/systemd/system/"+name+".d/more.conf", "[Service]\nLimitNOFILE=1024:2000M\n")
	if got := said(); !slices.Equal(got, []string{"sysctl.nr-open-below-limit " + name}) {
		t.Errorf("more than there is: %v", got)
	}
	h.file("etc/systemd/system/"+name+".d/zz.conf", "[Service]\nLimitNOFILE=infinity\n")
	if got := said(); len(got) > 0 {
		t.Errorf("infinity is as much as there is: %v", got)
	}
	_ = p.cmd.Process.Kill()
	time.Sleep(50 * time.Millisecond)
}
