package diagnose_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// browser is a Chromium in a namespace of the field.
type browser struct {
	*lab.Browser
	t *testing.T
}

// browse starts a browser in a namespace.
func browse(t *testing.T, n *lab.Namespace) *browser {
	t.Helper()
	return &browser{lab.Browse(t, n.Start, "--disable-features=HttpsUpgrades"), t}
}

// open is what the browser says that cannot open a page, "" where it can.
func (b *browser) open(url string) string {
	b.t.Helper()
	var r struct{ ErrorText string }
	b.Ask("Page.navigate", map[string]any{"url": url}, &r)
	return r.ErrorText
}

// socket is what the browser's console says of a WebSocket that fails, or the
// exception where it does not even begin.
func (b *browser) socket(url string) string {
	b.t.Helper()
	// The page's own events say when it is over; the console's line comes beside.
	expression := `new Promise(done => { const s = new WebSocket("` + url + `"); s.onopen = () => done("opened"); s.onerror = () => done("failed"); })`
	id := b.Send("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true})
	said, over := "", false
	for !over || said == "" {
		m := b.Next()
		switch {
		case m.Method == "Log.entryAdded":
			var e struct{ Entry struct{ Text string } }
			if json.Unmarshal(m.Params, &e) == nil && strings.Contains(e.Entry.Text, "WebSocket") {
				said += e.Entry.Text
			}
		case m.Method == "Runtime.consoleAPICalled":
			said += string(m.Params)
		case m.ID == id:
			var r struct {
				Result           struct{ Value any }
				ExceptionDetails struct {
					Exception struct{ Description string }
				}
			}
			if err := json.Unmarshal(m.Result, &r); err != nil {
				b.t.Fatal(err)
			}
			if r.Result.Value == "opened" {
				return ""
			}
			over, said = true, said+r.ExceptionDetails.Exception.Description
		}
	}
	return said
}

// machineResolver answers in a field for the name servers that programs of this
// machine ask: no name exists.
func machineResolver(t *testing.T, f *field) {
	t.Helper()
	b, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		w := strings.Fields(line)
		if len(w) < 2 || w[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(w[1])
		switch {
		case err != nil:
		case a.IsLoopback():
			resolver(t, f.client, netip.AddrPortFrom(a, 53).String(), map[string]string{})
		case a.Is4():
			ip(t, f.router, "address add "+a.String()+"/32 dev lo")
			resolver(t, f.router, netip.AddrPortFrom(a, 53).String(), map[string]string{})
		}
	}
}

// TestBrowser: what Chromium says in each situation, of pages and of WebSockets, is
// understood, and with the server's snapshot leads to the cause.
func TestBrowser(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft")
	f := newField(t)
	machineResolver(t, f)
	situations(t, f)
	f.client.Sysctl(t, "net.ipv4.tcp_syn_retries", "1") // 3 s instead of two minutes
	later := time.Now().Add(time.Hour)
	f.server.Serve(t, "tcp", "0.0.0.0:8012", inTLS(t, serverIP, later, answers(200)))
	f.server.Serve(t, "tcp", "0.0.0.0:8013", webSocket)
	f.server.Serve(t, "tcp", "0.0.0.0:8014", answers(403))
	f.server.Serve(t, "tcp", "0.0.0.0:8015", answers(502, "Server: nginx"))
	f.server.Serve(t, "tcp", "0.0.0.0:8016", func(c net.Conn) { // an accept key of somebody else
		r := bufio.NewReader(c)
		for line, err := r.ReadString('\n'); err == nil && line != "\r\n"; line, err = r.ReadString('\n') {
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n")
	})
	f.server.Serve(t, "tcp", "0.0.0.0:8017", func(c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) })
	f.router.Serve(t, "tcp", "0.0.0.0:3128", answers(403)) // a proxy that lets nobody through
	b := browse(t, f.client)
	b.Page("")
	const ipv6 = "[" + serverIP6 + "]"
	f.server.Load(t, lab.NFT, "table ip6 f { chain i { type filter hook input priority 0; tcp dport 8003 reject with icmpv6 type admin-prohibited; }; }")
	none := diagnose.ID("")
	for _, c := range []struct {
		url   string // http(s): a page, ws(s): a socket
		proxy string
		text  string // part of what it says, "" where it opens
		sees  diagnose.Sees
		cause diagnose.ID // first with the server's snapshot, none where nothing is accused
	}{
		{"http://198.51.100.20:8008/", "", "", "", none},
		{"ws://198.51.100.20:8013/", "", "", "", none},
		{"http://198.51.100.20:8099/", "", "ERR_CONNECTION_REFUSED", diagnose.Refused, diagnose.NotListening},
		{"http://198.51.100.20:8002/", "", "ERR_CONNECTION_TIMED_OUT", diagnose.Timeout, diagnose.HostFirewall},
		{"http://198.51.100.20:8004/", "", "ERR_ADDRESS_UNREACHABLE", diagnose.Unreachable, diagnose.RejectedByFirewall},
		{"http://" + ipv6 + ":8003/", "", "ERR_NETWORK_ACCESS_DENIED", diagnose.Unreachable, diagnose.RejectedByFirewall},
		{"http://198.51.100.20:8011/", "", "ERR_ADDRESS_INVALID", diagnose.CannotAssign, diagnose.EphemeralExhausted},
		{"http://nowhere.invalid:8001/", "", "ERR_NAME_NOT_RESOLVED", diagnose.NoName, diagnose.NameUnknown},
		// Closed before the request or after it, whichever comes first.
		{"http://198.51.100.20:8005/", "", "ERR_", diagnose.ProtocolError, none},
		{"http://198.51.100.20:8017/", "", "ERR_EMPTY_RESPONSE", diagnose.ProtocolError, none},
		{"http://198.51.100.20:8006/", "", "ERR_CONNECTION_RESET", diagnose.ProtocolError, none},
		{"http://198.51.100.20:8007/", "", "ERR_INVALID_HTTP_RESPONSE", diagnose.ProtocolError, diagnose.ProtocolMismatch},
		{"https://198.51.100.20:8008/", "", "ERR_SSL_PROTOCOL_ERROR", diagnose.ProtocolError, diagnose.TLSMismatch},
		{"https://198.51.100.20:8009/", "", "ERR_CERT_", diagnose.ProtocolError, diagnose.TLSMismatch},
		{"http://198.51.100.20:6000/", "", "ERR_UNSAFE_PORT", diagnose.Refused, diagnose.WrongPort},
		{"http://198.51.100.20:8008/", "http://203.0.113.1:3129", "ERR_PROXY_CONNECTION_FAILED", diagnose.Refused, diagnose.ClientProxy},
		{"https://198.51.100.20:8012/", "http://203.0.113.1:3128", "ERR_TUNNEL_CONNECTION_FAILED", diagnose.Refused, diagnose.ClientProxy},
		{"ws://198.51.100.20:8099/", "", "ERR_CONNECTION_REFUSED", diagnose.Refused, diagnose.NotListening},
		{"ws://198.51.100.20:8002/", "", "ERR_CONNECTION_TIMED_OUT", diagnose.Timeout, diagnose.HostFirewall},
		{"ws://198.51.100.20:8004/", "", "ERR_ADDRESS_UNREACHABLE", diagnose.Unreachable, diagnose.RejectedByFirewall},
		{"ws://198.51.100.20:8005/", "", "WebSocket connection to", diagnose.ProtocolError, none},
		{"ws://198.51.100.20:8017/", "", "Connection closed before receiving a handshake response", diagnose.ProtocolError, none},
		{"ws://198.51.100.20:8006/", "", "WebSocket connection to", diagnose.ProtocolError, none},
		{"ws://198.51.100.20:8007/", "", "ERR_INVALID_HTTP_RESPONSE", diagnose.ProtocolError, diagnose.ProtocolMismatch},
		{"ws://198.51.100.20:8008/", "", "Unexpected response code: 200", diagnose.ProtocolError, diagnose.ProtocolMismatch},
		{"ws://198.51.100.20:8014/", "", "Unexpected response code: 403", diagnose.ProtocolError, diagnose.HandshakeRejected},
		{"ws://198.51.100.20:8015/", "", "Unexpected response code: 502", diagnose.ProtocolError, diagnose.HandshakeRejected},
		{"ws://198.51.100.20:8016/", "", "Sec-WebSocket-Accept", diagnose.ProtocolError, diagnose.HandshakeRejected},
		{"wss://198.51.100.20:8013/", "", "ERR_SSL_PROTOCOL_ERROR", diagnose.ProtocolError, diagnose.TLSMismatch},
		{"wss://198.51.100.20:8009/", "", "ERR_CERT_", diagnose.ProtocolError, diagnose.TLSMismatch},
		{"wss://198.51.100.20:8012/", "", "ERR_CERT_", diagnose.ProtocolError, diagnose.TLSMismatch}, // nobody vouches for it
	} {
		if c.proxy != "" {
			b.Page(c.proxy)
		}
		said := ""
		if strings.HasPrefix(c.url, "ws") {
			said = b.socket(c.url)
		} else {
			said = b.open(c.url)
		}
		if c.proxy != "" {
			b.Page("")
		}
		if !strings.Contains(said, c.text) || said == "" != (c.text == "") {
			t.Errorf("%s: the browser says %q, want %q", c.url, said, c.text)
		}
		if c.text == "" {
			continue
		}
		t.Logf("%-32s %s", c.url, said)
		if got := diagnose.ParseError(said); got.Sees != c.sees {
			t.Errorf("%s: %q is understood as %q (%s), want %s", c.url, said, got.Sees, got.Kind, c.sees)
			continue
		}
		r := f.ask(t, withBoth, c.url, diagnose.Options{Message: said})
		if first := &r.Causes[0]; c.cause == none && first.Accused() || c.cause != none && (first.ID != c.cause || !first.Accused()) {
			t.Errorf("%s: %q: %s %s comes first, want %q\n%s", c.url, said, first.ID, first.Verdict, c.cause, text(t, r))
		}
		keep(t, c.url, r)
	}
	// A page that came over TLS may open no plain socket.
	b.Ask("Security.setIgnoreCertificateErrors", map[string]any{"ignore": true}, nil)
	if said := b.open("https://198.51.100.20:8012/"); said != "" {
		t.Fatalf("the page over TLS does not open: %s", said)
	}
	said := b.socket("ws://198.51.100.20:8013/")
	t.Logf("%-32s %s", "ws of a page over TLS", said)
	r := f.ask(t, withBoth, "ws://198.51.100.20:8013/", diagnose.Options{Message: said})
	blames(t, r, withBoth, diagnose.TLSMismatch, diagnose.Confirmed)
	keep(t, "mixed content", r)
}
