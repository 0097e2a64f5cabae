package diagnose_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// The servers of the field. Each speaks one protocol as a real one does.

// answers is an HTTP server that gives one status to everything.
func answers(status int, headers ...string) func(net.Conn) {
	return func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
			return
		}
		body := http.StatusText(status)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, body, strings.Join(append(headers, ""), "\r\n"), len(body), body)
	}
}

// webSocket upgrades every client that asks properly.
func webSocket(c net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
		return
	}
	key := r.Header.Get("Sec-Websocket-Key")
	if key == "" {
		_, _ = io.WriteString(c, "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return
	}
	_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptKey(key))
	_, _ = io.Copy(io.Discard, c)
}

// acceptKey is RFC 6455, 4.2.2.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// textEcho answers each line, as a text:// worker does.
func textEcho(c net.Conn) {
	s := bufio.NewScanner(c)
	for s.Scan() {
		if _, err := fmt.Fprintf(c, "hello %s\n", strings.TrimSpace(s.Text())); err != nil {
			return
		}
	}
}

// frames takes a length of four bytes first, and closes where it is too large.
func frames(c net.Conn) {
	var head [4]byte
	for {
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(head[:])
		if n < 4 || n > 10<<20 {
			return // error package. package_length=…
		}
		if _, err := io.CopyN(io.Discard, c, int64(n)-4); err != nil {
			return
		}
	}
}

func silent(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// late speaks HTTP, and answers a request in its own time: what it forwards to is
// slow.
func late(c net.Conn) {
	r := bufio.NewReader(c)
	if _, err := http.ReadRequest(r); err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
		return
	}
	_, _ = io.Copy(io.Discard, r)
}

// lateTLS refuses plain text as nginx does, and never gets to the handshake.
func lateTLS(c net.Conn) {
	b := bufio.NewReader(c)
	if first, err := b.Peek(1); err == nil && first[0] == 'G' {
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nConnection: close\r\n\r\n<html>400 The plain HTTP request was sent to HTTPS port</html>")
		return
	}
	_, _ = io.Copy(io.Discard, b)
}

func banner(line string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, line)
		_, _ = io.Copy(io.Discard, c)
	}
}

// inTLS puts TLS in front of a server; a plain HTTP request gets what Go's and
// nginx's servers say to it.
func inTLS(t *testing.T, name string, notAfter time.Time, handle func(net.Conn)) func(net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		ca.DNSNames, ca.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	return func(c net.Conn) {
		b := bufio.NewReader(c)
		if first, err := b.Peek(1); err == nil && first[0] == 'G' {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nConnection: close\r\n\r\n<html>400 The plain HTTP request was sent to HTTPS port</html>")
			return
		}
		s := tls.Server(&peeked{c, b}, conf)
		if s.Handshake() != nil {
			return
		}
		handle(s)
	}
}

type peeked struct {
	net.Conn
	r io.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// TestProtocols: every kind of listener against every kind of URL. The healthy
// twin of each is the same listener with the URL that fits.
func TestProtocols(t *testing.T) {
	t.Parallel()
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	nothing := diagnose.ID("")
	for _, c := range []struct {
		name   string
		handle func(net.Conn)
		scheme string
		want   diagnose.ID // nothing: not accused
		sure   diagnose.Verdict
	}{
		{"websocket", webSocket, "ws", nothing, ""},
		{"websocket", webSocket, "http", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"websocket", webSocket, "wss", diagnose.TLSMismatch, diagnose.Confirmed},
		{"http", answers(200), "http", nothing, ""},
		{"http", answers(200), "ws", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"http", answers(404), "ws", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"http", answers(200), "https", diagnose.TLSMismatch, diagnose.Confirmed},
		{"http, status 404", answers(404), "http", nothing, ""},
		{"http, status 403", answers(403), "ws", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"http, status 401", answers(401), "ws", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"wrong version", answers(426, "Sec-WebSocket-Version: 8"), "ws", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"upgrade headers lost", answers(400, "Server: nginx"), "ws", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"proxy without a backend", answers(502, "Server: nginx"), "ws", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"proxy without a backend", answers(502, "Server: nginx"), "http", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"proxy with a slow backend", answers(504, "Server: openresty"), "ws", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"proxy location without upgrade", answers(200, "Server: nginx/1.24"), "ws", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"proxy without the location", answers(404, "Server: nginx/1.24"), "ws", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"https", inTLS(t, serverIP, later, answers(200)), "https", nothing, ""},
		{"https", inTLS(t, serverIP, later, answers(200)), "http", diagnose.TLSMismatch, diagnose.Confirmed},
		{"wss", inTLS(t, serverIP, later, webSocket), "wss", nothing, ""},
		{"wss", inTLS(t, serverIP, later, webSocket), "ws", diagnose.TLSMismatch, diagnose.Confirmed},
		{"https", inTLS(t, serverIP, later, answers(200)), "wss", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"wss, backend down", inTLS(t, serverIP, later, answers(502, "Server: nginx")), "wss", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"expired certificate", inTLS(t, serverIP, past, webSocket), "wss", diagnose.TLSMismatch, diagnose.Confirmed},
		{"certificate of another name", inTLS(t, "other.example.com", later, webSocket), "wss", diagnose.TLSMismatch, diagnose.Confirmed},
		{"text", textEcho, "text", nothing, ""},
		{"text", textEcho, "ws", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"text", textEcho, "http", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"text", textEcho, "https", diagnose.TLSMismatch, diagnose.Confirmed},
		{"http", answers(200), "text", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"frame", frames, "frame", nothing, ""},
		{"frame", frames, "ws", diagnose.ProtocolMismatch, diagnose.Likely},
		{"http", answers(200), "frame", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"silence", silent, "ws", nothing, ""}, // cannot be told
		{"late", late, "ws", nothing, ""},
		{"late", late, "http", nothing, ""},
		{"TLS that is slow", lateTLS, "wss", nothing, ""},
		{"TLS that is slow", lateTLS, "ws", diagnose.TLSMismatch, diagnose.Confirmed},
		{"site that is https alone", answers(301, "Location: https://chat.example.com/"), "ws", diagnose.HandshakeRejected, diagnose.Confirmed},
		{"site that is https alone", answers(301, "Location: https://chat.example.com/"), "http", nothing, ""},
		{"silence", silent, "tcp", nothing, ""},
		{"ssh", banner("SSH-2.0-OpenSSH_9.2\r\n"), "ws", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"mysql", banner("J\x00\x00\x00\x0a8.0.36\x00"), "http", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"ssh", banner("SSH-2.0-OpenSSH_9.2\r\n"), "tcp", nothing, ""},
	} {
		t.Run(c.name+" dialled with "+c.scheme, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			f.server.Serve(t, "tcp", "0.0.0.0:8080", c.handle)
			for _, at := range []place{onServer, onClient, withBoth} {
				r := f.ask(t, at, c.scheme+"://198.51.100.20:8080/", diagnose.Options{Probe: true})
				if c.want != nothing {
					blames(t, r, at, c.want, c.sure)
					if r.ClientSees != diagnose.ProtocolError {
						t.Errorf("%s: the client sees %s", at, r.ClientSees)
					}
				} else {
					clear_(t, r, at)
				}
				keep(t, string(at), r)
			}
			// Without leave nothing is sent, and nothing is claimed.
			r := f.ask(t, onClient, c.scheme+"://198.51.100.20:8080/", diagnose.Options{})
			clear_(t, r, onClient)
		})
	}
}

// TestWorkers: processes with the titles, protocols and logs of Workerman, under
// PHP itself.
func TestWorkers(t *testing.T) {
	t.Parallel()
	lab.Need(t, "php")
	for _, c := range []struct {
		name, worker, target string
		want                 diagnose.ID
		verdict              diagnose.Verdict
	}{
		{"fits", "chat websocket://0.0.0.0:8080", "ws://198.51.100.20:8080", "", ""},
		{"http worker, ws URL", "web http://0.0.0.0:8080", "ws://198.51.100.20:8080", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"text worker, ws URL", "chat text://0.0.0.0:8080", "ws://198.51.100.20:8080", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"websocket worker, https page", "chat websocket://0.0.0.0:8080", "wss://198.51.100.20:8080", "", ""}, // told by a probe alone
		{"Register of GatewayWorker", "Register text://0.0.0.0:1236", "ws://198.51.100.20:1236", diagnose.ProtocolMismatch, diagnose.Confirmed},
		{"other port of the same protocol", "chat websocket://0.0.0.0:7272", "ws://198.51.100.20:8282", diagnose.WrongPort, diagnose.Likely},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newField(t)
			workers(t, f.server, c.worker)
			r := f.ask(t, onServer, c.target, diagnose.Options{})
			if c.want != "" {
				blames(t, r, onServer, c.want, c.verdict)
			} else {
				clear_(t, r, onServer)
			}
			keep(t, "server", r)
			r = f.ask(t, withBoth, c.target, diagnose.Options{})
			if c.want != "" {
				blames(t, r, withBoth, c.want, c.verdict)
			} else {
				clear_(t, r, withBoth)
			}
			keep(t, "both", r)
		})
	}
	t.Run("probed", func(t *testing.T) {
		t.Parallel()
		for target, want := range map[string]diagnose.ID{
			"websocket://0.0.0.0:8080 ws": "", "websocket://0.0.0.0:8080 wss": diagnose.TLSMismatch, "text://0.0.0.0:8080 ws": diagnose.ProtocolMismatch,
			"websocket://0.0.0.0:8080 http": diagnose.ProtocolMismatch, "frame://0.0.0.0:8080 ws": diagnose.ProtocolMismatch,
		} {
			f := newField(t)
			scheme, url, _ := strings.Cut(target, " ")
			workers(t, f.server, "chat "+scheme)
			r := f.ask(t, onClient, url+"://198.51.100.20:8080/", diagnose.Options{Probe: true})
			if want == "" {
				clear_(t, r, onClient)
			} else {
				blames(t, r, onClient, want, diagnose.Confirmed, diagnose.Likely)
			}
		}
	})
	t.Run("the log's magic numbers", func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		workers(t, f.server, "chat frame://0.0.0.0:8080")
		log := filepath.Join(f.serverRoot, "workerman.log")
		for line, want := range map[string]struct {
			scheme string
			id     diagnose.ID
		}{
			"error package. package_length=1195725856":                                                  {"http", diagnose.ProtocolMismatch},
			"error package. package_length=369295617":                                                   {"wss", diagnose.TLSMismatch},
			"SendBufferToWorker fail. The connections between Gateway and BusinessWorker are not ready": {"ws", diagnose.HandshakeRejected},
		} {
			if err := os.WriteFile(log, []byte("2026-11-20 12:00:00 pid:1 "+line+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			r := f.ask(t, onServer, want.scheme+"://198.51.100.20:8080", diagnose.Options{Files: diagnose.HostOptions{Log: log}})
			if c := r.Cause(want.id); !c.Accused() || !strings.Contains(flat(t, r), strings.Fields(line)[0]) {
				t.Errorf("%q: %s is %s\n%s", line, want.id, c.Verdict, text(t, r))
			}
		}
	})
}

// TestOldLog: what a log tells of is over where the listener answers as the URL
// means.
func TestOldLog(t *testing.T) {
	t.Parallel()
	f := newField(t)
	f.server.Serve(t, "tcp", "0.0.0.0:8080", inTLS(t, serverIP, time.Now().Add(time.Hour), webSocket))
	log := filepath.Join(f.serverRoot, "workerman.log")
	if err := os.WriteFile(log, []byte("2026-11-20 12:00:00 pid:1 error package. package_length=369295617\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := diagnose.Options{Files: diagnose.HostOptions{Log: log}}
	r := f.ask(t, onServer, "wss://198.51.100.20:8080/", o)
	blames(t, r, onServer, diagnose.TLSMismatch, diagnose.Likely)
	o.Probe = true
	clear_(t, f.ask(t, onServer, "wss://198.51.100.20:8080/", o), onServer)
}

// TestNotReady: a Gateway without BusinessWorkers closes what it accepted, and says
// so in its log; the line is old news where the handshake comes about.
func TestNotReady(t *testing.T) {
	t.Parallel()
	const site = "ws://198.51.100.20:8080/"
	f := newField(t)
	var gateway atomic.Value
	gateway.Store("")
	f.server.Serve(t, "tcp", "0.0.0.0:8080", func(c net.Conn) {
		switch gateway.Load() {
		case "closes": // GatewayWorker: onConnect finds no worker
		case "upgrades and closes":
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err == nil {
				_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptKey(r.Header.Get("Sec-Websocket-Key")))
			}
		default:
			webSocket(c)
		}
	})
	log := filepath.Join(f.serverRoot, "workerman.log")
	if err := os.WriteFile(log, []byte("2026-11-20 12:00:00 pid:1 SendBufferToWorker fail. The connections between Gateway and BusinessWorker are not ready\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	logged, probing := diagnose.Options{Files: diagnose.HostOptions{Log: log}}, diagnose.Options{Probe: true}
	both := logged
	both.Probe = true
	blames(t, f.ask(t, onServer, site, logged), onServer, diagnose.HandshakeRejected, diagnose.Likely) // nobody was asked
	clear_(t, f.ask(t, onServer, site, both), onServer)
	for _, at := range []place{onServer, onClient, withBoth} {
		clear_(t, f.ask(t, at, site, probing), at)
	}
	for _, how := range []string{"closes", "upgrades and closes"} {
		gateway.Store(how)
		r := f.ask(t, onServer, site, both)
		blames(t, r, onServer, diagnose.HandshakeRejected, diagnose.Likely)
		if s := flat(t, r); !strings.Contains(s, "start the BusinessWorkers") {
			t.Errorf("%s: the remedy is not the workers:\n%s", how, text(t, r))
		}
		keep(t, how, r)
		// A message about it, and the log: the same.
		m := logged
		m.Message = "WebSocket connection to 'ws://198.51.100.20:8080/' failed: Connection closed before receiving a handshake response"
		blames(t, f.ask(t, onServer, site, m), onServer, diagnose.HandshakeRejected, diagnose.Likely)
	}
	// Without the log it may be any service that does not want this client.
	for _, at := range []place{onServer, onClient, withBoth} {
		r := f.ask(t, at, site, probing)
		open(t, r, at, diagnose.ProtocolError, diagnose.HandshakeRejected)
		if s := flat(t, r); !strings.Contains(s, "right after the upgrade") {
			t.Errorf("%s: it is not said what was seen:\n%s", at, text(t, r))
		}
		keep(t, string(at), r)
	}
}

// workers starts "NAME SCHEME://ADDRESS:PORT" each and waits until they serve.
func workers(t *testing.T, n *lab.Namespace, specs ...string) {
	t.Helper()
	lab.Need(t, "php")
	script, err := filepath.Abs("testdata/worker.php")
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range specs {
		start(t, n, exec.Command("php", append([]string{"-d", "display_errors=stderr", script}, strings.Fields(spec)...)...))
	}
}
