package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// watched runs the program in a namespace as a process of its own, tells when it
// watches, and ends it as Ctrl-C does.
type watched struct {
	cmd    *exec.Cmd
	lines  chan string
	stderr bytes.Buffer
	all    []string
}

func startWatch(t *testing.T, n *lab.Namespace, args ...string) *watched {
	t.Helper()
	path, err := exec.LookPath("hostaudit")
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{cmd: exec.Command(path, append([]string{"watch"}, args...)...), lines: make(chan string, 1000)}
	w.cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	w.cmd.Stderr = &w.stderr
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.cmd.Stdout = wr
	if err := n.Start(w.cmd); err != nil {
		t.Fatal(err)
	}
	wr.Close()
	go func() {
		defer close(w.lines)
		defer r.Close()
		b := bufio.NewReader(r)
		for {
			line, err := b.ReadString('\n')
			if line != "" {
				w.lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		if w.cmd.ProcessState == nil {
			_ = w.cmd.Process.Kill()
			_ = w.cmd.Wait()
		}
	})
	w.until(t, "Watching|\"type\":\"watch\"")
	return w
}

// until reads lines until one fits.
func (w *watched) until(t *testing.T, form string) string {
	t.Helper()
	re := regexp.MustCompile(form)
	timeout := time.After(40 * time.Second)
	for {
		select {
		case line, ok := <-w.lines:
			if !ok {
				t.Fatalf("it ended before %q came\n%s%s", form, strings.Join(w.all, ""), w.stderr.String())
			}
			w.all = append(w.all, line)
			if re.MatchString(line) {
				return line
			}
		case <-timeout:
			t.Fatalf("%q did not come\n%s%s", form, strings.Join(w.all, ""), w.stderr.String())
		}
	}
}

// interrupt ends it, and gives what it wrote and its exit code.
func (w *watched) interrupt(t *testing.T) (string, int) {
	t.Helper()
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for line := range w.lines {
		w.all = append(w.all, line)
	}
	_ = w.cmd.Wait()
	return strings.Join(w.all, ""), w.cmd.ProcessState.ExitCode()
}

// TestWatchStreams: a line comes the moment it is known, through a pipe; Ctrl-C ends
// the watch with its summary, the sentence last; nothing of the host is changed.
func TestWatchStreams(t *testing.T) {
	lab.Need(t, "nft", "ip")
	l := lab.New(t, lab.Topology{})
	l.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addr("0.0.0.0:8080")})
	l.Server.Load(t, lab.NFT, "table inet filter { chain input { type filter hook input priority 0; policy accept; ip saddr 10.9.0.7 tcp dport 8080 counter drop; }; }")
	state := func() string {
		return l.Server.Run(t, "nft", "-s", "list", "ruleset") + l.Server.Run(t, "ip", "-d", "-o", "link", "show", "eth0")
	}
	before := state()
	if !strings.Contains(before, "promiscuity 0") {
		t.Fatalf("not what this test compares: %s", before)
	}
	w := startWatch(t, l.Server, "8080", "--for", "60s")
	if during := state(); during != before {
		t.Errorf("watching changed the host:\n%s\nbefore:\n%s", during, before)
	}
	ok := lab.Probe{Proto: lab.TCP, From: l.ClientAddr(0), To: netip.AddrPortFrom(l.ServerAddr(0), 8080)}
	if got := l.ProbeOnce(t, time.Second, ok)[0]; got.ClientSees != lab.Connected {
		t.Fatal(got)
	}
	w.until(t, `10\.9\.0\.1:\d+ +SYN, SYN-ACK`)
	barred := ok
	barred.From = netip.MustParseAddr("10.9.0.7")
	if got := l.ProbeOnce(t, 3200*time.Millisecond, barred)[0]; got.ClientSees != lab.Timeout {
		t.Fatal(got)
	}
	w.until(t, `10\.9\.0\.7:\d+ +SYN ×[34], no answer`)
	out, code := w.interrupt(t)
	if code != 0 && !strings.Contains(out, "not read") {
		t.Errorf("exit code %d\n%s%s", code, out, w.stderr.String())
	}
	flat := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"rule ip saddr 10.9.0.7 tcp dport 8080 counter", "counter of the rule: +", "do let tcp 8080 from 10.9.0.7 in before nftables inet filter input #1",
		"2 attempts: 1 served, 1 dropped here by nftables inet filter input #1. They did arrive: nothing before this host dropped them.",
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	if !strings.HasSuffix(flat, "dropped them.") {
		t.Errorf("the sentence is not the last:\n%s", out)
	}
	for line := range strings.Lines(out) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("escape sequences in a pipe")
	}
	if after := state(); after != before {
		t.Errorf("watching changed the host:\n%s", after)
	}
}

// TestWatchJSON: the fields that others rely on, in both forms.
func TestWatchJSON(t *testing.T) {
	lab.Need(t, "nft")
	l := lab.New(t, lab.Topology{})
	l.Server.Load(t, lab.NFT, "table inet filter { chain input { type filter hook input priority 0; policy accept; tcp dport 8080 reject with tcp reset; }; }")
	w := startWatch(t, l.Server, "8080", "--format", "ndjson")
	p := lab.Probe{Proto: lab.TCP, From: l.ClientAddr(0), To: netip.AddrPortFrom(l.ServerAddr(0), 8080)}
	if got := l.ProbeOnce(t, time.Second, p)[0]; got.ClientSees != lab.Refused {
		t.Fatal(got)
	}
	line := w.until(t, `"type":"attempt"`)
	var m struct{ Value json.RawMessage }
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatal(err)
	}
	g := holds(t, "attempt", m.Value, "at", "proto", "from", "to", "iif", "syn", "syn_ack", "rst", "icmp", "answered_in", "accepted_in", "ended", "cause", "verdict",
		"decided_by", "conditions", "process", "evidence", "sentence", "remedy")
	if string(g["ended"]) != `"rejected"` || string(g["cause"]) != `"rejected-by-firewall"` || string(g["verdict"]) != `"confirmed"` {
		t.Errorf("ended %s, cause %s, %s", g["ended"], g["cause"], g["verdict"])
	}
	holds(t, "decided_by", g["decided_by"], "kind", "backend", "table", "chain", "number", "handle", "text")
	out, _ := w.interrupt(t)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &m); err != nil {
		t.Fatal(err)
	}
	r := holds(t, "summary", m.Value, "schema", "target", "proto", "interfaces", "began", "watched", "stopped", "attempts", "not_followed", "groups", "other_clients",
		"passing", "lost_packets", "host_would", "notes", "summary", "incomplete")
	if string(r["attempts"]) != "1" || string(r["stopped"]) != "true" {
		t.Errorf("attempts %s, stopped %s", r["attempts"], r["stopped"])
	}
}

// TestWatchReaderGone: a reader that goes away ends the watch, without an error.
func TestWatchReaderGone(t *testing.T) {
	l := lab.New(t, lab.Topology{})
	r, wr := io.Pipe()
	code := make(chan int, 1)
	go l.Server.Do(func() {
		code <- run([]string{"watch", "8080", "--for", "10m", "--format", "ndjson"}, strings.NewReader(""), epipe{wr}, io.Discard, nil)
	})
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r.Close()
	p := lab.Probe{Proto: lab.TCP, From: l.ClientAddr(0), To: netip.AddrPortFrom(l.ServerAddr(0), 8080)}
	l.ProbeOnce(t, time.Second, p)
	select {
	case got := <-code:
		if got != 0 && got != 3 { // 3: what the machine of the test hides
			t.Errorf("exit code %d", got)
		}
	case <-time.After(40 * time.Second):
		t.Fatal("it goes on although nobody reads")
	}
}

// epipe turns a closed pipe into the error that a process gets.
type epipe struct{ w io.Writer }

func (e epipe) Write(b []byte) (int, error) {
	n, err := e.w.Write(b)
	if err != nil {
		err = unix.EPIPE
	}
	return n, err
}
