package diagnose

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// TestSystemdOutOfReach: a host without systemd is no gap; one whose systemd
// gives no answer is one, in time, and the unit's files still tell.
func TestSystemdOutOfReach(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"etc/systemd/system/chat.service": "[Service]\nExecStart=/srv/chat\n", "run/systemd/note": "", "run/dbus/note": ""} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	q := unitSearch{root: root, port: 8080, services: []audit.Service{{Name: "chat", Port: 8080, Proto: "tcp", Source: "hostaudit.yaml:2"}, {Name: "other", Port: 8080, Proto: "tcp"}}}
	ask := func(want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		units, err := q.units(ctx)
		if len(units) != 1 || units[0].Name != "chat.service" || units[0].File != "/etc/systemd/system/chat.service" || units[0].State != nil {
			t.Errorf("units %+v", units)
		}
		switch {
		case want == "" && err != nil:
			t.Error(err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("the error is %v, want %q in it", err, want)
		}
	}
	ask("")
	if err := os.Mkdir(filepath.Join(root, "run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	ask("connect to /run/systemd/private: no such file or directory")
	// It accepts, and says nothing.
	l, err := net.Listen("unix", filepath.Join(root, "run/systemd/private"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ask("connect to /run/systemd/private: no answer in time")
	// What leads out of the root is not followed.
	if err := os.Symlink(filepath.Join(root, "run/systemd/private"), filepath.Join(root, "run/dbus/system_bus_socket")); err != nil {
		t.Fatal(err)
	}
	ask("connect to /run/dbus/system_bus_socket: is no socket")
}

// TestOOMKill: what systemd says where it counts the kills of a group itself
// (version 2 of control groups), which takes a host with that.
func TestOOMKill(t *testing.T) {
	now := time.Date(2026, 11, 27, 1, 0, 0, 0, time.UTC)
	u := &Unit{Name: "chat.service", State: &UnitState{ID: "chat.service", Load: "loaded", Active: "failed", Sub: "failed", Result: "oom-kill", Code: 2, Status: 9, Ended: now.Add(-30 * time.Second), MemoryMax: 16 << 20}}
	w := unitWords{u: u, port: 8080, now: now}
	said, remedy := w.words()
	if said != "a process of it was killed for memory 30 s ago (2026-11-27 00:59:30 UTC); its MemoryMax= is 16 MiB" || remedy != "raise MemoryMax= of the unit, or let it need less; then start it: systemctl start chat.service" {
		t.Errorf("%q, %q", said, remedy)
	}
	u.State.MemoryMax = 1<<64 - 1
	if said, remedy = w.words(); strings.Contains(said, "MemoryMax") || !strings.HasPrefix(remedy, "it, or the host, needs more memory") {
		t.Errorf("%q, %q", said, remedy)
	}
}

// TestKernelVerdicts: recorded lines of tables that belong to the whole machine,
// and are not to be filled by a test, accuse while they are fresh and a client
// waits in vain; older ones, and clients that see something else, accuse nobody.
func TestKernelVerdicts(t *testing.T) {
	now := time.Date(2026, 11, 27, 1, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		line string
		id   ID
		from string
	}{
		{"6,1,0,-;TCP: out of memory -- consider tuning tcp_mem\n", QueueFull, "203.0.113.10"},
		{"6,1,0,-;neighbour: arp_cache: neighbor table overflow!\n", ReplyPath, "203.0.113.10"},
		{"6,1,0,-;neighbour: ndisc_cache: neighbor table overflow!\n", ReplyPath, "2001:db8::10"},
	} {
		for _, x := range []struct {
			name    string
			age     time.Duration
			sees    Sees
			from    string
			accused bool
		}{
			{"fresh", 10 * time.Second, Timeout, c.from, true},
			{"old", 10 * time.Minute, Timeout, c.from, false},
			{"another symptom", 10 * time.Second, Refused, c.from, false},
			{"the other family", 10 * time.Second, Timeout, map[string]string{"203.0.113.10": "2001:db8::10", "2001:db8::10": "203.0.113.10"}[c.from], c.id == QueueFull},
		} {
			p := kernelParser{began: now.Add(-x.age)}
			p.record([]byte(c.line))
			s := &audit.Snapshot{World: reach.World{Namespaces: []*reach.Namespace{{ID: 1}}}}
			r := Judge(&Evidence{
				Target: Target{Text: "tcp://:8080", Port: 8080}, Side: SideServer, From: netip.MustParseAddr(x.from), Symptom: &Symptom{Sees: x.sees, Text: "…"},
				Here: s, Server: s, Facts: &HostFacts{Kernel: p.done()}, Now: now,
			})
			// That nothing else was read of the host may accuse as well.
			blamed := slices.ContainsFunc(r.Cause(c.id).Evidence, func(e audit.Evidence) bool { return e.Source == "kernel's log" })
			if got := r.Cause(c.id).Accused() && blamed; got != x.accused {
				t.Errorf("%s, %s: accused %v: %+v", strings.TrimSpace(c.line), x.name, got, r.Cause(c.id))
			}
		}
	}
}

// What was killed for memory a moment before the last start does not explain how
// that one ended, unless it ended just so.
func TestKilledBeforeTheLastStart(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	state := func(status int32) *UnitState {
		return &UnitState{ID: "chat.service", Code: 2, Status: status, PID: 77, StartedAt: 100 * time.Second, EndedAt: 101 * time.Second}
	}
	for name, c := range map[string]struct {
		at     time.Duration
		pid    int
		status int32
		want   bool
	}{
		"a moment before, of the run before":    {99500 * time.Millisecond, 70, 11, false},
		"a moment before, by unlike clocks":     {99500 * time.Millisecond, 77, 9, true},
		"a moment before, a child of it":        {99500 * time.Millisecond, 78, 9, true},
		"since, a child of what crashed itself": {100500 * time.Millisecond, 78, 11, true},
		"since, itself":                         {100900 * time.Millisecond, 77, 9, true},
		"long before":                           {90 * time.Second, 77, 9, false},
	} {
		u := &Unit{Name: "chat.service", State: state(c.status)}
		e := &KernelEvent{Kind: KernelOOM, PID: c.pid, At: c.at, Group: "/system.slice/chat.service", Time: now}
		if got := u.killed(e, now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
