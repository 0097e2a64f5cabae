package report

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/checks"
	"github.com/hostaudit/hostaudit/audit/collect"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// browser is a Chromium in a network namespace without any link: what it would
// load from elsewhere it cannot.
type browser struct {
	*lab.Browser
	t *testing.T
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	b := &browser{lab.Browse(t, func(c *exec.Cmd) error {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if os.Geteuid() != 0 {
			c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		}
		return c.Start()
	}), t}
	b.Page("")
	return b
}

// eval evaluates an expression in the page, which its policy does not bind.
func (b *browser) eval(expression string, result any) {
	b.t.Helper()
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.Ask("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &r)
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
	b.Events = nil
	b.Ask("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	url := "file://" + file
	b.Ask("Page.navigate", map[string]any{"url": url}, nil)
	for !slices.ContainsFunc(b.Events, func(m lab.DevTools) bool { return m.Method == "Page.loadEventFired" }) {
		b.Next()
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
	for _, m := range b.Events {
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
	b.Ask("Page.captureScreenshot", nil, &r)
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
