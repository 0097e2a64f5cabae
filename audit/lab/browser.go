package lab

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Browser is a headless Chromium with one page at a time, spoken to over a pipe
// (the DevTools protocol). It is for one goroutine.
type Browser struct {
	// Events are those that came since the test last cleared them.
	Events []DevTools

	t       testing.TB
	to      io.Writer
	answers chan DevTools
	session string
	id      int
}

// DevTools is a message of the protocol: a command, its answer or an event.
type DevTools struct {
	ID        int             `json:"id,omitempty"`
	SessionID string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     json.RawMessage `json:"error,omitempty"`
}

// Browse starts a browser, by start in whichever namespace it is to be, with
// flags besides those that keep it to itself. The test ends it. Without Chromium
// the test is skipped, with CI=true it fails.
func Browse(t testing.TB, start func(*exec.Cmd) error, flags ...string) *Browser {
	t.Helper()
	program := ""
	for _, name := range []string{"google-chrome", "chromium-browser", "chromium"} {
		if p, err := exec.LookPath(name); err == nil {
			program = p
		}
	}
	if program == "" {
		missing(t, "chromium (packaging/dev/install-test-deps installs it)")
	}
	in, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir=" + t.TempDir(), "--remote-debugging-pipe", "about:blank",
	}, flags...)...)
	c.ExtraFiles = []*os.File{in, out} // 3 and 4
	if err := start(c); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	b := &Browser{t: t, to: to, answers: make(chan DevTools, 1000)}
	over := make(chan struct{})
	go func() {
		defer close(b.answers)
		r := bufio.NewReader(from)
		for {
			raw, err := r.ReadBytes(0)
			if err != nil {
				return
			}
			var m DevTools
			if json.Unmarshal(bytes.TrimSuffix(raw, []byte{0}), &m) != nil {
				continue
			}
			select {
			case b.answers <- m:
			case <-over:
			}
		}
	}()
	t.Cleanup(func() {
		close(over)
		b.session = ""
		b.Send("Browser.close", nil)
		gone := time.AfterFunc(10*time.Second, func() { _ = c.Process.Kill() })
		_ = c.Wait()
		gone.Stop()
		to.Close()
		from.Close()
	})
	return b
}

// Page opens a page of its own, by a proxy or without one ("").
func (b *Browser) Page(proxy string) {
	b.t.Helper()
	b.session = ""
	params := map[string]any{"url": "about:blank"}
	if proxy != "" {
		var x struct{ BrowserContextID string }
		b.Ask("Target.createBrowserContext", map[string]any{"proxyServer": proxy}, &x)
		params["browserContextId"] = x.BrowserContextID
	}
	var target struct{ TargetID string }
	b.Ask("Target.createTarget", params, &target)
	var attached struct{ SessionID string }
	b.Ask("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.Ask(domain+".enable", nil, nil)
	}
}

// Send sends a command and gives the number that its answer will have.
func (b *Browser) Send(method string, params any) (id int) {
	b.t.Helper()
	if params == nil {
		params = struct{}{}
	}
	p, err := json.Marshal(params)
	if err != nil {
		b.t.Fatal(err)
	}
	b.id++
	m, err := json.Marshal(DevTools{ID: b.id, SessionID: b.session, Method: method, Params: p})
	if err == nil {
		_, err = b.to.Write(append(m, 0))
	}
	if err != nil {
		b.t.Error(err)
	}
	return b.id
}

// Next waits for one message; events are kept.
func (b *Browser) Next() DevTools {
	b.t.Helper()
	var m DevTools
	select {
	case next, ok := <-b.answers:
		if m = next; !ok {
			b.t.Fatal("the browser ended")
		}
	case <-time.After(2 * time.Minute):
		b.t.Fatal("the browser says nothing")
	}
	if m.Method != "" {
		b.Events = append(b.Events, m)
	}
	return m
}

// Ask sends a command and waits for its result, which may be nil.
func (b *Browser) Ask(method string, params, result any) {
	b.t.Helper()
	id := b.Send(method, params)
	for {
		m := b.Next()
		if m.ID != id {
			continue
		}
		if m.Error != nil {
			b.t.Fatalf("%s: %s", method, m.Error)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				b.t.Fatalf("%s: %v", method, err)
			}
		}
		return
	}
}
