package main

import (
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// listenOn opens a listener that nobody accepts from.
func listenOn(t *testing.T, port, backlog int) {
	t.Helper()
	fd := streamSocket(t, unix.SOCK_STREAM)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: port}), unix.Listen(fd, backlog)); err != nil {
		t.Fatal(err)
	}
}

// knock begins n connections without waiting for them.
func knock(t *testing.T, port, n int) {
	t.Helper()
	for range n {
		fd := streamSocket(t, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
	}
}

// Full queues with each reason for their limit, beside one that is as long and
// has room.
func TestQueueReasons(t *testing.T) {
	n := lab.New(t, lab.Topology{}).Server
	n.Sysctl(t, "net.core.somaxconn", "20")
	n.Do(func() {
		listenOn(t, 8001, 2)   // the program asked for little
		listenOn(t, 8002, 500) // somaxconn bounds it
		listenOn(t, 8004, 500) // has room
		knock(t, 8001, 6)
		knock(t, 8002, 40)
		knock(t, 8004, 5)
	})
	n.Sysctl(t, "net.core.somaxconn", "30")
	n.Do(func() {
		listenOn(t, 8003, 500) // bounded by what somaxconn will have been
		knock(t, 8003, 60)
	})
	n.Sysctl(t, "net.core.somaxconn", "20")
	time.Sleep(100 * time.Millisecond) // handshakes over loopback take none of it

	scan := func(args ...string) map[string]audit.Finding {
		t.Helper()
		out, err := n.Exec(t.Context(), "", append([]string{"hostaudit", "scan", "--fail-on", "never", "--format", "json"}, args...)...)
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
			t.Fatal(err)
		}
		var r audit.Report
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		found := map[string]audit.Finding{}
		for _, f := range r.Findings {
			if strings.HasPrefix(f.ID, "listener.queue-") {
				found[f.Subject] = f
			}
		}
		return found
	}
	// SYNs that found the queue full are repeated after a second: the counters
	// move while they are watched.
	found := scan("--sample", "4s")
	for subject, want := range map[string]string{
		"tcp 0.0.0.0:8001": "20: not what limits this queue, the program's own backlog of 2 does",
		"tcp 0.0.0.0:8002": "20: it limits this queue",
		"tcp 0.0.0.0:8003": "20 now; it was higher when the program called listen(), the next start gets less",
	} {
		f, ok := found[subject]
		if !ok || f.ID != "listener.queue-full" || f.Severity != audit.Critical {
			t.Errorf("%s: %+v", subject, f)
			continue
		}
		if !slices.ContainsFunc(f.Evidence, func(e audit.Evidence) bool { return e.Source == "net.core.somaxconn" && e.Value == want }) {
			t.Errorf("%s: %+v, want %q", subject, f.Evidence, want)
		}
		if !slices.ContainsFunc(f.Evidence, func(e audit.Evidence) bool {
			return e.Source == "TcpExt.ListenOverflows" && strings.HasPrefix(e.Value, "+")
		}) {
			t.Errorf("%s: no overflow in two samples: %+v", subject, f.Evidence)
		}
	}
	if f, ok := found["tcp 0.0.0.0:8004"]; ok {
		t.Errorf("a queue with room: %+v", f)
	}
	// Not watched: the counters stand high all the same, and are no evidence.
	for subject, f := range scan("--quick") {
		for _, e := range f.Evidence {
			if strings.HasPrefix(e.Source, "TcpExt.") {
				t.Errorf("%s: a count since the boot is evidence: %+v", subject, e)
			}
		}
	}
}

// A queue of half-open connections that overflows: cookies are sent, and two
// samples show it. Its twin has as many attempts and no overflow.
func TestSynQueueCookies(t *testing.T) {
	lab.Need(t, "nft")
	for _, flooded := range []bool{true, false} {
		n := lab.New(t, lab.Topology{}).Server
		n.Sysctl(t, "net.ipv4.tcp_syncookies", "1", "net.ipv4.tcp_syn_retries", "6")
		n.Do(func() { listenOn(t, 8001, 8) })
		if flooded {
			// The answers never arrive, so that every attempt stays half-open.
			n.Load(t, lab.NFT, "table ip t {\nchain c {\ntype filter hook input priority 0;\ntcp sport 8001 drop\n}\n}\n")
		}
		n.Do(func() { knock(t, 8001, map[bool]int{true: 60, false: 6}[flooded]) })
		out, err := n.Exec(t.Context(), "", "hostaudit", "scan", "--fail-on", "never", "--format", "json", "--sample", "4s")
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
			t.Fatal(err)
		}
		var r audit.Report
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(r.Findings, func(f audit.Finding) bool { return f.ID == "sysctl.syn-queue-cookies" })
		if (i >= 0) != flooded {
			t.Errorf("flooded %v: finding %v", flooded, i >= 0)
		}
		if i >= 0 && r.Findings[i].Severity != audit.Warning {
			t.Errorf("%+v", r.Findings[i])
		}
	}
}
