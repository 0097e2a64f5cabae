package diagnose_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// haproxy starts the real HAProxy.
func haproxy(t *testing.T, n *lab.Namespace, conf string) string {
	t.Helper()
	head := "global\n  log stdout local0 emerg\ndefaults\n  mode http\n  timeout connect 1s\n  retries 0\n  timeout client 30s\n  timeout server 30s\n"
	dir := inServer(t, head+conf+"\n")
	n.Daemon(t, "haproxy", "-db", "-f", filepath.Join(dir, "server.conf"))
	at := "127.0.0.1:8080"
	if !strings.Contains(conf, ":8080") {
		at = "127.0.0.1:8443"
	}
	serving(t, n, at)
	return dir
}

// TestHAProxy: what a real HAProxy does with requests, read from its configuration
// and asked of itself.
func TestHAProxy(t *testing.T) {
	t.Parallel()
	lab.Need(t, "haproxy")
	const app = "backend app\n  server a 127.0.0.1:9000\n"
	const ws, text = "ws://198.51.100.20:8080/chat", "text://198.51.100.20:8080"
	for _, c := range []webCase{
		{name: "forwards by itself", conf: "frontend f\n  bind :8080\n  acl chat path_beg /chat\n  use_backend app if chat\n  default_backend none\nbackend none\n" + app, target: ws},
		{name: "for upgrades alone", conf: "frontend f\n  bind *:8080\n  acl up hdr(Upgrade) -i websocket\n  acl up2 hdr_sub(Connection) -i upgrade\n  use_backend app if up up2\n" + app, target: ws},
		{name: "listen", conf: "listen l\n  bind 0.0.0.0:8080\n  server a 127.0.0.1:9000\n", target: ws},
		{name: "bytes", conf: "listen l\n  mode tcp\n  bind 0.0.0.0:8080\n  server a 127.0.0.1:9000\n", target: ws},
		{
			name: "nothing behind", conf: "frontend f\n  bind :8080\n  default_backend app\nbackend app\n  server a 127.0.0.1:9001\n", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"nothing listens on 127.0.0.1:9001", "backend app"},
		},
		{
			name: "no backend for the path", conf: "frontend f\n  bind :8080\n  use_backend app if { path_beg /ws }\n" + app, target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"no backend takes the request", "default_backend NAME"},
		},
		{
			name: "the name without the port", conf: "frontend f\n  bind :8080\n  http-request deny unless { hdr(host) 198.51.100.20 }\n  default_backend app\n" + app, target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"http-request deny unless"},
		},
		{name: "the name with the port", conf: "frontend f\n  bind :8080\n  http-request deny unless { hdr(host) 198.51.100.20:8080 }\n  default_backend app\n" + app, target: ws},
		{
			name: "this client is kept out", conf: "frontend f\n  bind :8080\n  acl ours src 127.0.0.0/8 192.0.2.0/24\n  http-request deny deny_status 403 if !ours\n  default_backend app\n" + app, target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"http-request deny"}, elsewhere: true,
		},
		{name: "others are kept out", conf: "frontend f\n  bind :8080\n  acl ours src 127.0.0.0/8 203.0.113.10\n  http-request deny if !ours\n  default_backend app\n" + app, target: ws},
		{
			name: "led to https", conf: "frontend f\n  bind :8080\n  http-request redirect scheme https code 301 unless { ssl_fc }\n  default_backend app\n" + app, target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"redirect scheme https", "dial wss://"},
		},
		{name: "a browser led to https", conf: "frontend f\n  bind :8080\n  redirect scheme https if !{ ssl_fc }\n", target: "http://198.51.100.20:8080/"},
		{
			name: "deletes the header", conf: "frontend f\n  bind :8080\n  http-request del-header Upgrade\n  default_backend app\n" + app, target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Likely, probed: diagnose.HandshakeRejected, says: []string{"del-header Upgrade", "take out the line"},
		},
		{
			name: "plain, dialled with TLS", conf: "frontend f\n  bind :8080\n  default_backend app\n" + app, target: "wss://198.51.100.20:8080/chat",
			passive: diagnose.TLSMismatch, sure: diagnose.Confirmed, probed: diagnose.TLSMismatch, says: []string{"bind :8080 ssl crt FILE"},
		},
		{
			name: "TLS, dialled plain", conf: "frontend f\n  bind :8443 ssl crt DIR/cert.pem\n  default_backend app\n" + app, target: "ws://198.51.100.20:8443/chat",
			passive: diagnose.TLSMismatch, sure: diagnose.Confirmed, probed: diagnose.TLSMismatch, says: []string{"bind :8443 ssl crt", "dial wss://"},
		},
		{name: "TLS", conf: "frontend f\n  bind :8443 ssl crt DIR/cert.pem alpn http/1.1\n  default_backend app\n" + app, target: "wss://198.51.100.20:8443/chat"},
		{
			name: "HTTP, meant as a text worker", conf: "frontend f\n  bind :8080\n  default_backend app\n" + app, target: text,
			passive: diagnose.ProtocolMismatch, sure: diagnose.Confirmed, probed: diagnose.ProtocolMismatch, says: []string{"it speaks HTTP"},
		},
	} {
		c.prove(t, haproxy)
	}
}

// TestHAProxyJail: a process that has changed its root since it read its file is
// asked about what it read.
func TestHAProxyJail(t *testing.T) {
	t.Parallel()
	lab.Need(t, "haproxy")
	f := newField(t)
	f.server.Serve(t, "tcp", "127.0.0.1:9000", strictWebSocket)
	haproxy(t, f.server, "global\n  chroot "+t.TempDir()+"\nfrontend f\n  bind :8080\n  default_backend gone\nbackend gone\n  server a 127.0.0.1:9001\n")
	r := f.ask(t, onServer, "ws://198.51.100.20:8080/", diagnose.Options{})
	blames(t, r, onServer, diagnose.HandshakeRejected, diagnose.Confirmed)
	keep(t, "server", r)
}

// TestHAProxyJailSocket: from its jail, a process sees sockets below it, and none
// beside it.
func TestHAProxyJailSocket(t *testing.T) {
	t.Parallel()
	lab.Need(t, "haproxy")
	for _, inside := range []bool{true, false} {
		f := newField(t)
		jail := t.TempDir()
		f.server.Serve(t, "unix", filepath.Join(jail, "app.sock"), strictWebSocket)
		path := "/app.sock"
		if !inside {
			path = jail + path
		}
		haproxy(t, f.server, "global\n  chroot "+jail+"\nlisten l\n  bind :8080\n  server a unix@"+path+"\n")
		for _, probe := range []bool{false, true} {
			r := f.ask(t, onServer, "ws://198.51.100.20:8080/", diagnose.Options{Probe: probe})
			if inside {
				clear_(t, r, onServer)
			} else {
				blames(t, r, onServer, diagnose.HandshakeRejected, diagnose.Confirmed)
			}
		}
	}
}
