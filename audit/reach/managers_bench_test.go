package reach_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
)

// hostWorld reads a namespace of the laboratory with everything that lies behind
// its links, as the program itself would.
func hostWorld(t testing.TB, n *lab.Namespace) *reach.World {
	t.Helper()
	var s *audit.Snapshot
	var err error
	n.Do(func() { s, err = collect.Host(t.Context(), collect.Options{Quick: true, NoCensus: true}) })
	if err != nil {
		t.Fatalf("read %s: %v", n.Name, err)
	}
	for _, part := range []string{"firewall", "routes", "listeners"} {
		if why := s.World.Namespaces[0].Unread[part]; why != "" {
			t.Fatalf("read %s: %s: %s", n.Name, part, why)
		}
	}
	return &s.World
}

// question asks what a probe asks. Iif is where a packet of a namespace behind
// the server comes in.
func question(l *lab.Lab, p lab.Probe, iif string, fromPort uint16) reach.Query {
	q := reach.Query{Proto: firewall.Proto(p.Proto), From: p.From, To: p.To.Addr(), Port: p.To.Port(), Iif: iif, FromPort: fromPort}
	switch p.In {
	case nil:
		q.Iif = p.Via
		if q.Iif == "" {
			q.Iif = "eth0"
		}
	case l.Server:
		q.Iif = ""
	}
	return q
}

// hold holds a world against probes. iif names the interface of the server for
// probes that start in a container. What disagrees is asked once more, after
// the world was read again, before it is believed.
func hold(t testing.TB, l *lab.Lab, read func() *reach.World, iif string, probes []lab.Probe) (r tally) {
	t.Helper()
	compare := func(probes []lab.Probe) (r tally) {
		e := reach.New(read())
		for i, o := range l.Probe(t, probes...) {
			a, err := e.Ask(question(l, probes[i], iif, o.FromPort), reach.AnswerOnly)
			if err != nil {
				t.Fatalf("%v: %v", probes[i], err)
			}
			r.asked++
			switch {
			case a.ClientSees == reach.Depends:
				r.depends++
				if *verboseFlag {
					t.Logf("depends: %v: %+v", probes[i], a.Conditions)
				}
			case len(l.Containers) > 0 && differs(a, o), string(a.ClientSees) != o.ClientSees.String():
				r.wrong = append(r.wrong, disagreement{probes[i], o.String(), a})
			}
		}
		return r
	}
	r = compare(probes)
	if len(r.wrong) > 0 {
		var again []lab.Probe
		for _, d := range r.wrong {
			again = append(again, d.probe)
		}
		r.wrong = compare(again).wrong
	}
	return r
}

// report says what hold found; every wrong answer is an error.
func (r tally) report(t testing.TB, name string) {
	t.Helper()
	for _, d := range r.wrong {
		t.Errorf("%s: %v", name, d)
	}
	t.Logf("%s: %d probes, %d depends, %d wrong", name, r.asked, r.depends, len(r.wrong))
}

// privateDir puts a tmpfs over a directory of the laboratory's own mount
// namespace and copies files of the machine's one into it, so that a real tool
// may write there.
func privateDir(t testing.TB, dir string, withContent bool) {
	t.Helper()
	scratch := t.TempDir()
	if withContent {
		if out, err := exec.Command("cp", "-a", dir+"/.", scratch).CombinedOutput(); err != nil {
			t.Fatalf("copy %s: %v: %s", dir, err, out)
		}
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	if err := unix.Mount(scratch, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount over %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// startDaemon starts a program in a namespace and ends it, with its process
// group, when the test ends. Its output goes to a file that is shown on failure.
func startDaemon(t testing.TB, n *lab.Namespace, env []string, argv ...string) {
	t.Helper()
	logFile, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.Start(cmd); err != nil {
		t.Fatalf("start %s: %v", argv[0], err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(15 * time.Second):
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		if t.Failed() {
			data, _ := os.ReadFile(logFile.Name())
			lines := strings.Split(string(data), "\n")
			t.Logf("%s said:\n%s", argv[0], strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
		logFile.Close()
	})
}

// waitFor asks until a thing is ready.
func waitFor(t testing.TB, what string, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s never came up: %v", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func dial(proto lab.Proto, from netip.Addr, to netip.Addr, port uint16) lab.Probe {
	return lab.Probe{Proto: proto, From: from, To: netip.AddrPortFrom(to, port)}
}
