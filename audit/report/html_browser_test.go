package report

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// browser is a headless Chromium that is spoken to over a pipe, in a network
// namespace without any link: what it would load from elsewhere it cannot.
type browser struct {
	t       *testing.T
	to      io.Writer
	answers chan message
	session string
	id      int
	events  []message
}

// message is one of the DevTools protocol: a command, its answer or an event.
type message struct {
	ID        int             `json:"id,omitempty"`
	SessionID string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     json.RawMessage `json:"error,omitempty"`
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil && program == "" {
			program = p
		}
	}
	if program == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is not installed (packaging/dev/install-test-deps installs it)")
		}
		t.Skip("SKIPPED: chromium is not installed (packaging/dev/install-test-deps installs it); the page was not opened in a browser")
	}
	in, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	c.ExtraFiles = []*os.File{in, out} // 3 and 4
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	b := &browser{t: t, to: to, answers: make(chan message, 1000)}
	go func() {
		defer close(b.answers)
		r := bufio.NewReader(from)
		for {
			raw, err := r.ReadBytes(0)
			if err != nil {
				return
			}
			var m message
			if json.Unmarshal(bytes.TrimSuffix(raw, []byte{0}), &m) == nil {
				b.answers <- m
			}
		}
	}()
	t.Cleanup(func() {
		_ = b.send("Browser.close", nil)
		gone := time.AfterFunc(10*time.Second, func() { _ = c.Process.Kill() })
		_ = c.Wait()
		gone.Stop()
		to.Close()
		from.Close()
	})
	var target struct{ TargetID string }
	b.ask("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.ask("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.ask(domain+".enable", nil, nil)
	}
	return b
}

func (b *browser) send(method string, params any) error {
	p, err := json.Marshal(params)
	if err != nil {
		return err
	}
	b.id++
	m, err := json.Marshal(message{ID: b.id, SessionID: b.session, Method: method, Params: p})
	if err != nil {
		return err
	}
	_, err = b.to.Write(append(m, 0))
	return err
}

// next takes one message; events are kept.
func (b *browser) next() message {
	b.t.Helper()
	select {
	case m, ok := <-b.answers:
		if !ok {
			b.t.Fatal("the browser ended")
		}
		if m.Method != "" {
			b.events = append(b.events, m)
		}
		return m
	case <-time.After(time.Minute):
		b.t.Fatal("the browser says nothing")
		panic("unreachable")
	}
}

func (b *browser) ask(method string, params, result any) {
	b.t.Helper()
	if params == nil {
		params = struct{}{}
	}
	if err := b.send(method, params); err != nil {
		b.t.Fatal(err)
	}
	for {
		m := b.next()
		if m.ID != b.id {
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

// eval evaluates an expression in the page, which its policy does not bind.
func (b *browser) eval(expression string, result any) {
	b.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.ask("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, r.ExceptionDetails)
	}
	if err := json.Unmarshal(r.Result.Value, result); err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
}

// open shows a page as wide as given, everything unfolded, and tells what is wrong
// with it: errors, requests, things that stick out.
func (b *browser) open(file string, width int) (wrong []error) {
	b.t.Helper()
	b.events = nil
	b.ask("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	url := "file://" + file
	b.ask("Page.navigate", map[string]any{"url": url}, nil)
	for !slices.ContainsFunc(b.events, func(m message) bool { return m.Method == "Page.loadEventFired" }) {
		b.next()
	}
	var sideways []string
	b.eval(`(() => {
		document.querySelectorAll("details").forEach(d => d.open = true);
		const out = [], root = document.documentElement;
		if (root.scrollWidth > root.clientWidth) out.push("the page: " + root.scrollWidth + " of " + root.clientWidth);
		document.querySelectorAll("body *").forEach(e => {
			if (e.getBoundingClientRect().right > root.clientWidth + 1) out.push(e.tagName + " " + e.className + ": " + e.textContent.slice(0, 40));
			if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX == "auto") out.push(e.tagName + " scrolls: " + e.scrollWidth + " of " + e.clientWidth);
		});
		return out;
	})()`, &sideways)
	for _, s := range sideways {
		wrong = append(wrong, errors.New("sideways: "+s))
	}
	for _, m := range b.events {
		switch m.Method {
		case "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded":
			wrong = append(wrong, fmt.Errorf("console: %s", m.Params))
		case "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			if err := json.Unmarshal(m.Params, &p); err != nil || p.Request.URL != url {
				wrong = append(wrong, fmt.Errorf("request: %s %w", p.Request.URL, err))
			}
		}
	}
	return wrong
}

// shot is what the page looks like; with HOSTAUDIT_SHOTS it is kept in that
// directory.
func (b *browser) shot(name string) (colours int) {
	b.t.Helper()
	var r struct{ Data string }
	b.ask("Page.captureScreenshot", nil, &r)
	raw, err := base64.StdEncoding.DecodeString(r.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if dir := os.Getenv("HOSTAUDIT_SHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), raw, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	picture, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		b.t.Fatal(err)
	}
	seen := map[[3]uint32]bool{}
	for y := picture.Bounds().Min.Y; y < picture.Bounds().Max.Y; y += 5 {
		for x := picture.Bounds().Min.X; x < picture.Bounds().Max.X; x += 5 {
			r, g, bl, _ := picture.At(x, y).RGBA()
			seen[[3]uint32{r, g, bl}] = true
		}
	}
	return len(seen)
}

// recordedHost is a host that was recorded in the laboratory.
func recordedHost(t *testing.T) *audit.Snapshot {
	t.Helper()
	f, err := os.Open("../../cmd/hostaudit/testdata/snapshot/scenario.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := collect.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// recorded is its page.
func recorded(t *testing.T) []byte {
	t.Helper()
	s := recordedHost(t)
	ev := reach.New(&s.World)
	var b bytes.Buffer
	err := HTML(&b, audit.Run(s, &audit.Config{}, checks.All()), Options{Ask: func(q reach.Query) (reach.Answer, error) { return audit.Answer(ev, q, reach.WithPath) }})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHTMLInBrowser opens the page in a real browser, on a phone and on a screen:
// no error, no request, nothing that sticks out, and the ways are drawn.
func TestHTMLInBrowser(t *testing.T) {
	b := newBrowser(t)
	var hostile bytes.Buffer
	if err := HTML(&hostile, hostileHTML(), Options{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, page := range map[string][]byte{"recorded": recorded(t), "hostile": hostile.Bytes()} {
		file := filepath.Join(dir, name+".html")
		if err := os.WriteFile(file, page, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, width := range []int{360, 1280} {
			if err := errors.Join(b.open(file, width)...); err != nil {
				t.Errorf("%s, %d wide: %v", name, width, err)
			}
			var n struct{ Ports, Ways, Deciding, Findings, Foreign int }
			b.eval(`({Ports: document.querySelectorAll(".port").length, Ways: document.querySelectorAll(".way").length, Deciding: document.querySelectorAll(".here").length,
				Findings: document.querySelectorAll(".finding").length, Foreign: document.querySelectorAll("script,img,iframe,link,object").length})`, &n)
			if n.Ports == 0 || n.Ways == 0 || n.Deciding == 0 || n.Findings == 0 || n.Foreign != 0 {
				t.Errorf("%s: the browser sees %+v", name, n)
			}
			if c := b.shot(fmt.Sprintf("%s-%d", name, width)); c < 10 {
				t.Errorf("%s, %d wide: the picture has %d colours", name, width, c)
			}
		}
	}
	// What this test looks for it sees.
	bad := filepath.Join(dir, "bad.html")
	if err := os.WriteFile(bad, []byte(`<meta name="viewport" content="width=device-width"><div style="width:900px">x</div><img src="http://192.0.2.1/x.png"><script>throw new Error("here")</script>`), 0o644); err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprint(b.open(bad, 390))
	for _, want := range []string{"sideways: ", "console: ", "request: http://192.0.2.1/x.png"} {
		if !strings.Contains(all, want) {
			t.Errorf("a page that is bad passes for %q: %s", want, all)
		}
	}
}
