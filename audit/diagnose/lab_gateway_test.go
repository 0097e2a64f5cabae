package diagnose_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hostaudit/hostaudit/audit/diagnose"
)

// TestGatewayPorts: a Gateway's process has a port for clients and one for its
// own BusinessWorkers, under one title.
func TestGatewayPorts(t *testing.T) {
	t.Parallel()
	f := newField(t)
	workers(t, f.server, "ChatGateway websocket://0.0.0.0:7272 127.0.0.1:2900")
	workers(t, f.server, "ChatGateway websocket://0.0.0.0:8282 0.0.0.0:2901")
	workers(t, f.server, "push websocket://0.0.0.0:2346 0.0.0.0:5678") // a worker started inside another
	for _, at := range []place{onServer, onClient, withBoth} {
		for _, port := range []string{"7272", "8282", "2346"} {
			clear_(t, f.ask(t, at, "ws://198.51.100.20:"+port, diagnose.Options{Probe: true}), at)
		}
		// What a second port of a process that is no Gateway speaks is not known.
		clear_(t, f.ask(t, at, "http://198.51.100.20:5678", diagnose.Options{}), at)
	}
	for _, at := range []place{onServer, withBoth} {
		r := f.ask(t, at, "ws://198.51.100.20:2900", diagnose.Options{})
		blames(t, r, at, diagnose.BindAddress, diagnose.Confirmed)
		if !strings.Contains(flat(t, r), "do not widen it") {
			t.Errorf("%s: it is not said that the port is internal:\n%s", at, text(t, r))
		}
		keep(t, string(at), r)
	}
	r := f.ask(t, onClient, "ws://198.51.100.20:2900", diagnose.Options{})
	open(t, r, onClient, diagnose.Refused, diagnose.BindAddress, diagnose.WrongPort)
	r = f.ask(t, onServer, "ws://198.51.100.20:2901", diagnose.Options{})
	blames(t, r, onServer, diagnose.WrongPort, diagnose.Likely)
	if !strings.Contains(flat(t, r), "the Gateway's own port, 8282") {
		t.Errorf("the Gateway's own port is not named:\n%s", text(t, r))
	}
	keep(t, "server", r)
	for _, at := range []place{onServer, onClient, withBoth} { // it closes at what is no frame of its own
		r = f.ask(t, at, "ws://198.51.100.20:2901", diagnose.Options{Probe: true})
		blames(t, r, at, diagnose.ProtocolMismatch, diagnose.Likely)
	}
}

// TestInternalPorts: Register and lanPort are for the application's own programs,
// which use them from other hosts too; that is no fault. A browser's URL is.
func TestInternalPorts(t *testing.T) {
	t.Parallel()
	f := newField(t)
	workers(t, f.server, "Register text://0.0.0.0:1236")
	workers(t, f.server, "ChatGateway websocket://0.0.0.0:8282 0.0.0.0:2901")
	for _, at := range []place{onServer, onClient, withBoth} {
		for _, target := range []string{"text://198.51.100.20:1236", "tcp://198.51.100.20:1236", "198.51.100.20:1236", "tcp://198.51.100.20:2901", "frame://198.51.100.20:2901"} {
			clear_(t, f.ask(t, at, target, diagnose.Options{}), at)
		}
		clear_(t, f.ask(t, at, "text://198.51.100.20:1236", diagnose.Options{Probe: true}), at)
	}
	for _, at := range []place{onServer, withBoth} {
		r := f.ask(t, at, "ws://198.51.100.20:1236", diagnose.Options{})
		blames(t, r, at, diagnose.ProtocolMismatch, diagnose.Confirmed)
		if c := r.Cause(diagnose.WrongPort); !c.Accused() {
			t.Errorf("%s: %s is %s\n%s", at, c.ID, c.Verdict, text(t, r))
		}
		keep(t, string(at), r)
	}
}

// strictWebSocket upgrades who asks with all the headers (RFC 6455, 4.2.1).
func strictWebSocket(c net.Conn) {
	b := bufio.NewReader(c)
	r, err := http.ReadRequest(b)
	if err != nil || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptKey(r.Header.Get("Sec-Websocket-Key")))
	_, _ = io.Copy(io.Discard, b)
}

// TestReverseProxy: a reverse proxy before the service forwards the upgrade, loses
// its headers, finds no service, and knows no such path.
func TestReverseProxy(t *testing.T) {
	t.Parallel()
	f := newField(t)
	f.server.Serve(t, "tcp", "127.0.0.1:9000", strictWebSocket)
	var fault atomic.Value
	fault.Store("")
	handler := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			to := "http://127.0.0.1:9000"
			switch fault.Load() {
			case "dead":
				to = "http://127.0.0.1:9001"
			case "headers":
				p.Out.Header.Del("Upgrade")
				p.Out.Header.Del("Connection")
			}
			u, _ := url.Parse(to)
			p.SetURL(u)
		},
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, to string) (c net.Conn, err error) {
			f.server.Do(func() { c, err = (&net.Dialer{}).DialContext(ctx, network, to) })
			return c, err
		}},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	var l net.Listener
	var err error
	f.server.Do(func() { l, err = net.Listen("tcp", "0.0.0.0:8080") })
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault.Load() == "path" {
			w.Header().Set("Server", "nginx")
			http.NotFound(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	for _, c := range []struct{ fault, says string }{
		{"", ""}, {"headers", "forward Upgrade and Connection"}, {"dead", "its backend does not"}, {"path", "check the path"}, {"", ""},
	} {
		fault.Store(c.fault)
		for _, at := range []place{onServer, onClient, withBoth} {
			r := f.ask(t, at, "ws://198.51.100.20:8080/chat", diagnose.Options{Probe: true})
			if c.fault == "" {
				clear_(t, r, at)
				continue
			}
			blames(t, r, at, diagnose.HandshakeRejected, diagnose.Confirmed)
			if !strings.Contains(flat(t, r), c.says) {
				t.Errorf("%s, %s: no %q in\n%s", c.fault, at, c.says, text(t, r))
			}
			keep(t, c.fault+" "+string(at), r)
		}
	}
}

// TestCDNByHeaders: a CDN that neither addresses nor aliases tell shows in the
// headers of its answers.
func TestCDNByHeaders(t *testing.T) {
	t.Parallel()
	f := newField(t)
	serves(t, f)
	ip(t, f.router, "address add 192.0.2.7/32 dev lo")
	var status atomic.Int32
	status.Store(200)
	f.router.Serve(t, "tcp", "192.0.2.7:80", func(c net.Conn) {
		answers(int(status.Load()), "Server: cloudflare", "CF-RAY: 8f00-FRA", "")(c)
	})
	resolver(t, f.router, "203.0.113.1:53", map[string]string{"www.example.com": "192.0.2.7"})
	const site = "http://www.example.com/"
	for _, at := range []place{onClient, withBoth} {
		clear_(t, f.ask(t, at, site, diagnose.Options{Probe: true}), at)
	}
	status.Store(522)
	for _, at := range []place{onClient, withBoth} {
		r := f.ask(t, at, site, diagnose.Options{Probe: true})
		blames(t, r, at, diagnose.CDNBetween, diagnose.Confirmed)
		keep(t, string(at), r)
	}
}
