package main

import (
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/listeners"
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
		"tcp 0.0.0.0:8001": "20 now, which would allow more than 2: the program asked for 2, or this setting was 2 when it called listen()",
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
		if i < 0 {
			continue
		}
		if r.Findings[i].Severity != audit.Warning {
			t.Errorf("%+v", r.Findings[i])
		}
		if !slices.ContainsFunc(r.Findings[i].Evidence, func(e audit.Evidence) bool {
			return e.Source == "half-open connections of tcp 0.0.0.0:8001" && strings.HasSuffix(e.Value, "; from 8 on the queue is full")
		}) {
			t.Errorf("whose queue it is is not said: %+v", r.Findings[i].Evidence)
		}
	}
}

// With tcp_syncookies = 2 every SYN gets a cookie: that they are sent says nothing
// about a queue. The control is the same load on a host that sends them when it must.
func TestSynCookiesForced(t *testing.T) {
	n := lab.New(t, lab.Topology{}).Server
	n.Sysctl(t, "net.ipv4.tcp_syncookies", "2")
	n.Do(func() { listenOn(t, 8001, 100) })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		n.Do(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
						_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1})
						_ = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 8001})
						unix.Close(fd)
					}
				}
			}
		})
	})
	found := queueFindings(t, n)
	close(stop)
	wg.Wait()
	sent := false
	for _, fs := range found {
		for _, f := range fs {
			if f.ID == "sysctl.syn-queue-cookies" {
				t.Errorf("%+v", f)
			}
			sent = sent || f.ID == "sysctl.syncookies-forced"
		}
	}
	if !sent {
		t.Errorf("that cookies are forced is not said: %+v", found)
	}
	stat, err := n.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		t.Fatal(err)
	}
	counters := listeners.Counters{}
	if err := listeners.ParseCounters(stat, counters); err != nil || counters[listeners.ReqQFullDoCookies] == 0 {
		t.Errorf("control: no cookie was sent: %v", err)
	}
}

// queueFindings scans, and gives what it finds about the queue of each port.
func queueFindings(t *testing.T, n *lab.Namespace, args ...string) map[string][]audit.Finding {
	t.Helper()
	out, err := n.Exec(t.Context(), "", append([]string{"hostaudit", "scan", "--fail-on", "never", "--format", "json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	var r audit.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	found := map[string][]audit.Finding{}
	for _, f := range r.Findings {
		found[f.Subject] = append(found[f.Subject], f)
	}
	return found
}

// somaxconn raised after listen(2) leaves a queue as short as it was. Nobody can
// say then that the program asked for so little, and a restart comes first.
func TestQueueLimitOfThePast(t *testing.T) {
	n := lab.New(t, lab.Topology{}).Server
	n.Sysctl(t, "net.core.somaxconn", "20")
	n.Do(func() {
		listenOn(t, 8001, 500)
		knock(t, 8001, 40)
	})
	n.Sysctl(t, "net.core.somaxconn", "4096")
	time.Sleep(100 * time.Millisecond)
	fs := queueFindings(t, n, "--quick")["tcp 0.0.0.0:8001"]
	if len(fs) != 1 || fs[0].ID != "listener.queue-full" {
		t.Fatalf("%+v", fs)
	}
	const want = "4096 now, which would allow more than 20: the program asked for 20, or this setting was 20 when it called listen()"
	if !slices.ContainsFunc(fs[0].Evidence, func(e audit.Evidence) bool { return e.Source == "net.core.somaxconn" && e.Value == want }) {
		t.Errorf("%+v", fs[0].Evidence)
	}
	if !strings.Contains(fs[0].Remedy, "restart the program") {
		t.Errorf("%s", fs[0].Remedy)
	}
}

// A queue with a backlog of 0 takes one connection, and is full with it: one
// finding says so, and none that it is not full.
func TestQueueOfBacklogZero(t *testing.T) {
	n := lab.New(t, lab.Topology{}).Server
	n.Do(func() {
		listenOn(t, 8001, 0)
		knock(t, 8001, 3)
		listenOn(t, 8002, 0) // its healthy twin
	})
	time.Sleep(100 * time.Millisecond)
	found := queueFindings(t, n, "--sample", "3s") // SYNs are repeated meanwhile
	fs := found["tcp 0.0.0.0:8001"]
	if len(fs) != 1 || fs[0].ID != "listener.queue-full" || !strings.HasPrefix(fs[0].Why, "1 connection waits to be accepted") {
		t.Errorf("%+v", fs)
	}
	if !slices.ContainsFunc(fs[0].Evidence, func(e audit.Evidence) bool { return e.Source == "dropped at this listener" }) {
		t.Errorf("nothing was dropped: %+v", fs[0].Evidence)
	}
	if fs := found["tcp 0.0.0.0:8002"]; len(fs) != 0 {
		t.Errorf("an empty queue: %+v", fs)
	}
}

// A queue that overflowed once and is quiet now: high counters accuse nobody, and
// who counted them is told.
func TestQueueQuietAgain(t *testing.T) {
	n := lab.New(t, lab.Topology{}).Server
	n.Do(func() {
		fd := streamSocket(t, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: 8001}), unix.Listen(fd, 2)); err != nil {
			t.Fatal(err)
		}
		var clients []int
		for range 50 {
			c := streamSocket(t, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
			_ = unix.Connect(c, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 8001})
			clients = append(clients, c)
		}
		time.Sleep(200 * time.Millisecond)
		for _, c := range clients { // closes them, and leaves the cleanup something to close
			unix.Shutdown(c, unix.SHUT_RDWR)
			unix.Dup3(fd, c, unix.O_CLOEXEC)
		}
		for {
			a, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				break
			}
			unix.Close(a)
		}
	})
	for subject, fs := range queueFindings(t, n) {
		for _, f := range fs {
			if strings.HasPrefix(f.ID, "listener.queue-") || f.ID == "sysctl.accept-queue-overflow" && f.Severity != audit.Info {
				t.Errorf("%s: %+v", subject, f)
			}
			if f.ID == "sysctl.accept-queue-overflow" && (strings.Contains(f.Why, "no listener that is still there") ||
				!slices.ContainsFunc(f.Evidence, func(e audit.Evidence) bool { return e.Source == "dropped at tcp 0.0.0.0:8001" })) {
				t.Errorf("the listener that counted them is still there: %+v", f)
			}
		}
	}
}
