package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// portsHost is a namespace with a hundred local ports, in which the clients of
// the tests run.
func portsHost(t *testing.T) *lab.Namespace {
	t.Helper()
	n := lab.New(t, lab.Topology{}).Server
	n.Sysctl(t, "net.ipv4.ip_local_port_range", "20000 20099")
	n.Sysctl(t, "net.ipv4.tcp_tw_reuse", "0")
	return n
}

// streamSocket is a socket of the calling thread's namespace.
func streamSocket(t *testing.T, kind int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func serverOn(t *testing.T, port int) int {
	t.Helper()
	fd := streamSocket(t, unix.SOCK_STREAM)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 1000); err != nil {
		t.Fatal(err)
	}
	return fd
}

// connectFrom connects from an address; bound sockets get their port from
// bind(2), the others from connect(2).
func connectFrom(t *testing.T, last byte, port int, bound bool) int {
	t.Helper()
	const ipBindAddressNoPort = 24
	fd := streamSocket(t, unix.SOCK_STREAM)
	if !bound {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, ipBindAddressNoPort, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, last}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func inHost(t *testing.T, n *lab.Namespace, args ...string) string {
	t.Helper()
	out, err := n.Exec(t.Context(), "", append([]string{"hostaudit"}, args...)...)
	if err != nil {
		t.Fatalf("hostaudit %v: %v", args, err)
	}
	return string(out)
}

// Short ports of every kind, each beside one that has the same number and is
// well.
func TestPortsTellsShortagesApart(t *testing.T) {
	n := portsHost(t)
	n.Do(func() {
		first, second := serverOn(t, 3306), serverOn(t, 6379)
		_ = second
		// 55 short connections from .5: half of the ports in TIME_WAIT.
		for range 55 {
			c := connectFrom(t, 5, 3306, false)
			a, _, err := unix.Accept4(first, unix.SOCK_CLOEXEC)
			if err != nil {
				t.Error(err)
				return
			}
			unix.Shutdown(c, unix.SHUT_WR)
			unix.Close(a)
			unix.Shutdown(c, unix.SHUT_RD)
		}
		// 90 open ones from .6: nearly all ports, none in TIME_WAIT.
		for range 90 {
			connectFrom(t, 6, 6379, false)
		}
		// 60 ports from .7 bound before they connect, to two destinations.
		for i := range 60 {
			connectFrom(t, 7, []int{3306, 6379}[i%2], true)
		}
		// The healthy twin: as many connections to two destinations, chosen by connect.
		for i := range 60 {
			connectFrom(t, 8, []int{3306, 6379}[i%2], false)
		}
	})
	if t.Failed() {
		return
	}
	text := inHost(t, n, "ports")
	t.Log("\n" + text)
	for _, l := range strings.Split(text, "\n") {
		if w := len([]rune(l)); w > 80 {
			t.Errorf("%d columns: %s", w, l)
		}
	}
	var p audit.PortUse
	if err := json.Unmarshal([]byte(inHost(t, n, "ports", "--format", "json")), &p); err != nil {
		t.Fatal(err)
	}
	if p.Ephemeral.Usable != 100 || p.Ephemeral.FirstHalf != 50 {
		t.Errorf("usable %d, first half %d", p.Ephemeral.Usable, p.Ephemeral.FirstHalf)
	}
	advice := map[string]audit.PortAdvice{}
	for _, a := range p.Advice {
		advice[a.Subject] = a
	}
	order := func(subject string, level audit.PortLevel, words ...string) {
		t.Helper()
		a, ok := advice[subject]
		if !ok || a.Level != level {
			t.Errorf("%s: %+v, want level %s", subject, a, level)
			return
		}
		at := 0
		for _, w := range words {
			i := at
			for i < len(a.Steps) && !strings.Contains(a.Steps[i], w) {
				i++
			}
			if i == len(a.Steps) {
				t.Errorf("%s: no step %q after %d in %q", subject, w, at, a.Steps)
				return
			}
			at = i + 1
		}
	}
	order("tcp 127.0.0.5 → 127.0.0.1:3306", audit.PortsHalf, "keep its connections open", "unix socket", "tuples", "ip_local_port_range = 16384 65535", "tcp_tw_reuse = 1")
	order("tcp 127.0.0.6 → 127.0.0.1:6379", audit.PortsScarce, "bound the number of connections", "unix socket", "tuples", "ip_local_port_range")
	for _, s := range advice["tcp 127.0.0.6 → 127.0.0.1:6379"].Steps {
		if strings.Contains(s, "tw_reuse") {
			t.Errorf("reuse of TIME_WAIT is advised for open connections: %s", s)
		}
	}
	order("tcp from 127.0.0.7", audit.PortsHalf, "IP_BIND_ADDRESS_NO_PORT", "keep connections open")
	for subject := range advice {
		if strings.Contains(subject, "127.0.0.8") {
			t.Errorf("the healthy source is said to be short: %+v", advice[subject])
		}
	}
	for _, s := range p.Sources {
		if s.Bound != (s.From == "127.0.0.7") {
			t.Errorf("source %+v", s)
		}
	}
	for _, want := range []string{"Local ports are nearly used up", "127.0.0.6", "in this order", "bound before they connect"} {
		if !strings.Contains(text, want) {
			t.Errorf("the screen lacks %q", want)
		}
	}
}

// A host whose ports are not short says so and advises nothing.
func TestPortsOfHealthyHost(t *testing.T) {
	n := portsHost(t)
	n.Do(func() {
		serverOn(t, 3306)
		for range 10 {
			connectFrom(t, 5, 3306, false)
		}
	})
	text := inHost(t, n, "ports")
	if !strings.Contains(text, "Local ports are not short.") || strings.Contains(text, "in this order") || !strings.Contains(text, "10 %") {
		t.Errorf("%s", text)
	}
}

// --watch follows what happens, line by line for a program, and ends on Ctrl-C
// without an error.
func TestPortsWatch(t *testing.T) {
	n := portsHost(t)
	n.Do(func() { serverOn(t, 3306) })
	path, err := exec.LookPath("hostaudit")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "ports", "--watch", "--interval", "100ms", "--format", "json")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &complaint
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	w.Close()
	_ = r.SetReadDeadline(time.Now().Add(time.Minute))
	lines := json.NewDecoder(r)
	total := func() int {
		t.Helper()
		var p audit.PortUse
		if err := lines.Decode(&p); err != nil {
			t.Fatalf("%v: %s", err, &complaint)
		}
		return p.Ephemeral.Total
	}
	if n := total(); n != 0 {
		t.Errorf("%d ports in use before anybody connects", n)
	}
	n.Do(func() {
		for range 7 {
			connectFrom(t, 5, 3306, false)
		}
	})
	for n := 0; n != 7; {
		if n = total(); n > 7 {
			t.Fatalf("%d ports in use", n)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines.Decode(&audit.PortUse{}) == nil {
		}
	}()
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v: %s", err, &complaint)
	}

	// Not a terminal: no cursor codes, one frame under the other.
	cmd = exec.Command(path, "ports", "--watch", "--interval", "100ms")
	if r, w, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, &complaint
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	w.Close()
	_ = r.SetReadDeadline(time.Now().Add(time.Minute))
	text, frames := "", bufio.NewReader(r)
	for strings.Count(text, "Ctrl-C ends") < 2 {
		line, err := frames.ReadString('\n')
		if text += line; err != nil {
			t.Fatalf("%v after %q: %s", err, text, &complaint)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("%q", text)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v: %s", err, &complaint)
	}
	// --for ends it, after one frame at least.
	if text := inHost(t, n, "ports", "--watch", "--interval", "100ms", "--for", "300ms"); !strings.Contains(text, "Ctrl-C ends") {
		t.Errorf("%q", text)
	}
	for _, args := range [][]string{{"--interval", "1s"}, {"--watch", "--interval", "1ms"}, {"--watch", "--output", "/dev/null"}, {"--watch", "--for", "-1s"}} {
		out, err := n.Exec(t.Context(), "", append([]string{"hostaudit", "ports"}, args...)...)
		if err == nil {
			t.Errorf("%v is accepted: %s", args, out)
		}
	}
}
