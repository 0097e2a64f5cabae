package main

import (
	"encoding/json"
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/listeners"
)

// A listener that was closed while the host was read is gone, also for whoever may
// not see the owners: that would be said of a process that hides. The one that
// stays is not visible, and not gone.
func TestClosedMeanwhileIsGone(t *testing.T) {
	lab.Need(t, "setpriv")
	n := lab.New(t, lab.Topology{}).Server
	path, err := exec.LookPath("hostaudit")
	if err != nil {
		t.Fatal(err)
	}
	n.Do(func() { listenOn(t, 8001, 5) })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range max(2, runtime.NumCPU()) {
		wg.Go(func() {
			n.Do(func() {
				for port := 20000 + 1000*i; ; port++ {
					select {
					case <-stop:
						return
					default:
					}
					if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
						_ = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: 20000 + 1000*i + port%1000}), unix.Listen(fd, 1))
						unix.Close(fd)
					}
				}
			})
		})
	}
	defer func() { close(stop); wg.Wait() }()
	brief, gone := 0, 0
	for end := time.Now().Add(20 * time.Second); gone < 5 && time.Now().Before(end); {
		out, err := n.Exec(t.Context(), "", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", path, "scan", "--quick", "--fail-on", "never", "--format", "json")
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
			t.Fatal(err)
		}
		var r audit.Report
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		stays := false
		for _, l := range r.Listeners {
			switch {
			case l.NetNS != "":
			case l.Port == 8001:
				stays = l.Unowned == string(listeners.NoPrivilege)
			case l.Port >= 20000:
				brief++
				if l.Unowned == string(listeners.Gone) {
					gone++
				}
			}
		}
		if !stays {
			t.Fatalf("the listener that stays: %+v", r.Listeners)
		}
	}
	if gone < 5 {
		t.Errorf("%d of %d listeners that were closed at once are gone", gone, brief)
	}
}
