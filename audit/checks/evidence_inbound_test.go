package checks_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// crowd opens n connections from the client without waiting for them.
func (h *host) crowd(to netip.AddrPort, n int) {
	h.t.Helper()
	fds := h.rush(to, n)
	h.t.Cleanup(func() { closeAll(fds) })
}

// rush is crowd, and leaves it to the caller to close.
func (h *host) rush(to netip.AddrPort, n int) (fds []int) {
	h.t.Helper()
	for range n {
		fd, err := dial(h.Client, none, to, 0)
		if err != nil {
			h.t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	time.Sleep(200 * time.Millisecond) // for the handshakes
	return fds
}

// TestAcceptQueueOverflow: nobody accepts. Either net.core.somaxconn bounds the
// queue or the program's own backlog, and only in the first case the setting is
// to be raised.
func TestAcceptQueueOverflow(t *testing.T) {
	t.Run("bounded by somaxconn", func(t *testing.T) {
		h := newHost(t, lab.Topology{})
		h.Server.Sysctl(t, "net.core.somaxconn", "16")
		deaf := h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:8080"), Backlog: 4096, Deaf: true})
		r := h.scan(func() { h.crowd(addrPort("10.9.0.2:8080"), 40) })
		f := queueFull(t, r)
		evidence(t, f, "accept queue", "17 of 16")
		evidence(t, f, "net.core.somaxconn", "it limits this queue")
		evidence(t, f, "TcpExt.ListenOverflows", "+")
		evidence(t, f, "dropped at this listener", "+")
		if f.Fix != audit.FixAutomatic {
			t.Errorf("fix is %s", f.Fix)
		}
		// What it recommends is enough, once the listener is opened again, and not before.
		h.Server.Sysctl(t, "net.core.somaxconn", recommended(t, f, "net.core.somaxconn"))
		h.crowd(addrPort("10.9.0.2:8080"), 40)
		if f := queueFull(t, h.scan(nil)); recommends(f, "net.core.somaxconn") || f.Fix == audit.FixAutomatic {
			t.Errorf("before the listener is opened again: %s, %q", f.Fix, f.Remedy)
		}
		deaf.Close()
		h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:8081"), Backlog: 4096, Deaf: true})
		for _, f := range ours(t, h.scan(func() { h.crowd(addrPort("10.9.0.2:8081"), 40) })) {
			if f.ID != "sysctl.accept-queue-overflow" || f.Severity != audit.Info {
				t.Errorf("with somaxconn as recommended: %s %s %v", f.Severity, f.ID, f.Evidence)
			}
		}
	})
	t.Run("bounded by the program", func(t *testing.T) {
		h := newHost(t, lab.Topology{})
		h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:8080"), Backlog: 16, Deaf: true})
		r := h.scan(func() { h.crowd(addrPort("10.9.0.2:8080"), 40) })
		if f := queueFull(t, r); recommends(f, "net.core.somaxconn") || f.Fix == audit.FixAutomatic {
			t.Errorf("somaxconn does not bound this queue: %s, %q", f.Fix, f.Remedy)
		}
	})
	// A burst that is over when the sockets are read: which listener it met, and
	// what bounds that one, is told all the same. The other one met nothing.
	for _, somaxconn := range []string{"16", "4096"} {
		t.Run("a burst, with somaxconn "+somaxconn, func(t *testing.T) {
			h := newHost(t, lab.Topology{})
			h.Server.Sysctl(t, "net.core.somaxconn", somaxconn)
			slow := h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:8080"), Backlog: 16, Deaf: true})
			h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:8081"), Backlog: 16})
			r := h.scan(func() {
				closeAll(append(h.rush(addrPort("10.9.0.2:8080"), 40), h.rush(addrPort("10.9.0.2:8081"), 10)...))
				slow.Drain()
			})
			f := want(t, r, audit.Warning, "sysctl.accept-queue-overflow", "tcp 0.0.0.0:8080")
			evidence(t, f, "dropped at tcp 0.0.0.0:8080", "+")
			if recommends(f, "net.core.somaxconn") != (somaxconn == "16") {
				t.Errorf("with net.core.somaxconn = %s: %q", somaxconn, f.Remedy)
			}
		})
	}
	t.Run("accepted in time", func(t *testing.T) {
		h := newHost(t, lab.Topology{})
		h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:8080")})
		silent(t, h.scan(func() { h.crowd(addrPort("10.9.0.2:8080"), 40) }), "sysctl.net.core.somaxconn")
	})
}

// queueFull is the one finding about a full queue of port 8080.
func queueFull(t *testing.T, r *audit.Report) audit.Finding {
	t.Helper()
	if len(r.Findings) != 1 || r.Findings[0].ID != "listener.queue-full" || r.Findings[0].Subject != "tcp 0.0.0.0:8080" || r.Findings[0].Severity != audit.Critical {
		t.Fatalf("findings %v, want listener.queue-full alone", ids(r))
	}
	return r.Findings[0]
}

// TestSynQueueOverflow: half-open connections of clients that never answer. With
// cookies off SYNs are dropped, with cookies on cookies are sent; either is said.
func TestSynQueueOverflow(t *testing.T) {
	flood := func(h *host) func() {
		return func() { h.flood("10.9.0.2:8080", 400) }
	}
	serve := func(t *testing.T, cookies string) *host {
		h := newHost(t, lab.Topology{})
		h.Server.Sysctl(t, "net.ipv4.tcp_syncookies", cookies, "net.ipv4.tcp_max_syn_backlog", "64")
		h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:8080"), Backlog: 64})
		return h
	}
	t.Run("dropped", func(t *testing.T) {
		h := serve(t, "0")
		r := h.scan(flood(h))
		f := want(t, r, audit.Warning, "sysctl.syn-queue-overflow", "net.ipv4.tcp_max_syn_backlog", "sysctl.syncookies-off")
		evidence(t, f, "TcpExt ListenDrops without ListenOverflows", "+")
		// With room in this key the listener's own bound drops them.
		h.Server.Sysctl(t, "net.ipv4.tcp_max_syn_backlog", "65535")
		f = want(t, h.scan(flood(h)), audit.Warning, "sysctl.syn-queue-overflow", "net.ipv4.tcp_max_syn_backlog", "sysctl.syncookies-off")
		evidence(t, f, "TcpExt TCPReqQFullDrop", "+")
		// What it says to do instead takes clients that answer.
		h.Server.Sysctl(t, "net.ipv4.tcp_syncookies", "1")
		if fd, err := dial(h.Client, none, addrPort("10.9.0.2:8080"), patience); err != nil {
			t.Errorf("with cookies on, a client that answers: %v", err)
		} else {
			unix.Close(fd)
		}
	})
	t.Run("cookies", func(t *testing.T) {
		h := serve(t, "1")
		f := want(t, h.scan(flood(h)), audit.Warning, "sysctl.syn-queue-cookies", "net.ipv4.tcp_syncookies")
		evidence(t, f, "TcpExt TCPReqQFullDoCookies", "+")
	})
	t.Run("room enough", func(t *testing.T) {
		h := newHost(t, lab.Topology{})
		h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:8080"), Backlog: 4096})
		r := h.scan(flood(h))
		silent(t, r, "sysctl.net.ipv4.tcp_syncookies")
	})
}

// flood sends n SYNs from as many addresses that never answer.
func (h *host) flood(to string, n int) {
	h.t.Helper()
	lab.Need(h.t, "nft")
	h.Client.Load(h.t, lab.NFT, "table ip quiet { chain in { type filter hook input priority 0; ip daddr 10.77.0.0/16 drop; }; }")
	dst := netip.MustParseAddrPort(to)
	h.Client.Do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			h.t.Error(err)
			return
		}
		defer unix.Close(fd)
		for i := range n {
			src := netip.AddrFrom4([4]byte{10, 77, byte(1 + i/250), byte(1 + i%250)})
			if err := unix.Sendto(fd, segment(netip.AddrPortFrom(src, 5000), dst, tcpSYN, 1000), 0, &unix.SockaddrInet4{Addr: dst.Addr().As4()}); err != nil {
				h.t.Error(err)
				return
			}
		}
	})
	time.Sleep(200 * time.Millisecond)
}

const (
	tcpSYN = 0x02
)

// segment is an IPv4 packet with a TCP segment without data.
func segment(from, to netip.AddrPort, flags byte, sequence uint32) []byte {
	b := make([]byte, 40)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_TCP // the kernel fills length, id and checksum of the header
	src, dst := from.Addr().As4(), to.Addr().As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	tcp := b[20:]
	binary.BigEndian.PutUint16(tcp, from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	binary.BigEndian.PutUint32(tcp[4:], sequence)
	tcp[12], tcp[13] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 1024)
	sum := uint32(unix.IPPROTO_TCP + len(tcp))
	for _, part := range [][]byte{src[:], dst[:], tcp} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return b
}

// TestTasksExhausted: a control group in which no process more can be started.
// The group is one of this machine's, made for the test and taken away again.
func TestTasksExhausted(t *testing.T) {
	h := newHost(t, lab.Topology{})
	name, dir := serviceGroup(t, "pids.events")
	limit := func(n string) {
		if err := os.WriteFile(filepath.Join(dir, "pids.max"), []byte(n), 0); err != nil {
			t.Fatal(err)
		}
	}
	limit("1")
	silent(t, h.scan(func() { enter(t, dir, false) }), "sysctl.limit.tasks")
	f := want(t, h.scan(func() { enter(t, dir, true) }), audit.Warning, "limits.tasks-exhausted", "/"+name)
	evidence(t, f, "pids.max of /"+name, "+1 in")
	want(t, h.scan(nil), audit.Info, "limits.tasks-exhausted", "/"+name)
}

// serviceGroup makes a control group of this machine as systemd makes one for a
// service, with the file of one controller in it, and takes it away again.
func serviceGroup(t *testing.T, file string) (name, dir string) {
	t.Helper()
	name = fmt.Sprintf("hostaudit-test-%d.service", os.Getpid())
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, name, file)); err == nil {
			dir = filepath.Join(root, name)
			break
		}
		_ = os.Remove(filepath.Join(root, name))
	}
	if dir == "" {
		missing(t, "no control group with "+file+" can be made here")
	}
	t.Cleanup(func() {
		var err error
		for range 100 { // a killed process leaves it a moment later
			if err = os.Remove(dir); err == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("leftover: %v", err)
	})
	return name, dir
}

// TestKilledForMemory: a process in a control group takes more memory than the
// group may have, and the kernel kills it.
func TestKilledForMemory(t *testing.T) {
	lab.Need(t, "python3")
	h := newHost(t, lab.Topology{})
	file, bound := "memory.events", "memory.max"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		file, bound = "memory.oom_control", "memory.limit_in_bytes" // version 1
	}
	name, dir := serviceGroup(t, file)
	if err := os.WriteFile(filepath.Join(dir, bound), []byte(itoa(48<<20)), 0); err != nil {
		t.Fatal(err)
	}
	if swap := filepath.Join(dir, "memory.swap.max"); file == "memory.events" {
		_ = os.WriteFile(swap, []byte("0"), 0)
	}
	take := func(mib string) error {
		script := `echo $$ > "$1"; exec python3 -c "import sys; b = bytearray(int(sys.argv[1]) << 20)" ` + mib
		return command("sh", "-c", script, "sh", filepath.Join(dir, "cgroup.procs")).Run()
	}
	silent(t, h.scan(func() {
		if err := take("4"); err != nil {
			t.Error(err)
		}
	}), "sysctl.limit.memory")
	f := want(t, h.scan(func() {
		if take("200") == nil {
			t.Error("control: it was not killed")
		}
	}), audit.Warning, "limits.killed-for-memory", "/"+name)
	evidence(t, f, "memory.oom_kill of /"+name, "+1 in")
}

// enter runs a shell in the control group, which starts another process there.
func enter(t *testing.T, dir string, fork bool) {
	t.Helper()
	script := `echo $$ > "$1"; exec true`
	if fork {
		script = `echo $$ > "$1"; (true); exit 0`
	}
	cmd := command("sh", "-c", script, "sh", filepath.Join(dir, "cgroup.procs"))
	if out, err := cmd.CombinedOutput(); err != nil && !fork {
		t.Errorf("%v: %s", err, out)
	}
	for range 100 { // the group is empty when its last process was reaped
		b, err := os.ReadFile(filepath.Join(dir, "pids.current"))
		if err != nil || string(b) == "0\n" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a process stayed in the control group")
}
