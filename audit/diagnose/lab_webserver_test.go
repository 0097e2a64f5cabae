package diagnose_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// webCase is a configuration of a real web server on port 8080 (8443 with TLS) of
// the server, in front of a WebSocket service on 127.0.0.1:9000, and what is said
// of it.
type webCase struct {
	name, conf, target string
	// passive is what the configuration alone shows, "" for nothing, and how surely.
	passive diagnose.ID
	sure    diagnose.Verdict
	// probed is what the server's real answer shows, "" for nothing; the answer on
	// the server then names the configuration as well.
	probed diagnose.ID
	// says are words of the answers on the server.
	says []string
	// elsewhere: a probe from the server itself meets something else than the
	// client.
	elsewhere bool
}

// webServer starts a server with a configuration and returns once it listens.
// In conf, DIR stands for the directory of its files, where cert.pem is as well.
type webServer func(t *testing.T, n *lab.Namespace, conf string) (dir string)

// prove holds the answers for a case against the real server.
func (c webCase) prove(t *testing.T, start webServer) {
	t.Run(c.name, func(t *testing.T) {
		t.Parallel()
		f := newField(t)
		f.server.Serve(t, "tcp", "127.0.0.1:9000", strictWebSocket)
		fastCGI(t, f.server, "127.0.0.1:9003")
		start(t, f.server, c.conf)
		says := func(r *diagnose.Report, how string) {
			t.Helper()
			for _, s := range c.says {
				if !strings.Contains(flat(t, r), s) {
					t.Errorf("%s: no %q in\n%s", how, s, text(t, r))
				}
			}
		}
		r := f.ask(t, onServer, c.target, diagnose.Options{})
		if c.passive != "" {
			blames(t, r, onServer, c.passive, c.sure)
			says(r, "configuration alone")
		} else {
			clear_(t, r, onServer)
		}
		keep(t, "configuration alone", r)
		clear_(t, f.ask(t, onClient, c.target, diagnose.Options{}), onClient) // which sees none of it
		for _, at := range []place{onServer, onClient, withBoth} {
			r := f.ask(t, at, c.target, diagnose.Options{Probe: true})
			switch {
			case at == onServer && c.elsewhere:
				blames(t, r, at, c.passive, c.sure)
			case c.probed == "":
				clear_(t, r, at)
			default:
				blames(t, r, at, c.probed, diagnose.Confirmed)
			}
			if at == onServer && c.probed != "" {
				says(r, "probed")
			}
			keep(t, "probed "+string(at), r)
		}
	})
}

// fastCGI serves pages as php-fpm does.
func fastCGI(t *testing.T, n *lab.Namespace, addr string) {
	t.Helper()
	var l net.Listener
	var err error
	n.Do(func() { l, err = net.Listen("tcp", addr) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		_ = fcgi.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }))
	}()
}

// inServer writes a server's files: the configuration, and a certificate with its key.
func inServer(t *testing.T, conf string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: serverIP}, IPAddresses: []net.IP{net.ParseIP(serverIP)}, DNSNames: []string{"chat.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var both bytes.Buffer
	_ = pem.Encode(&both, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	_ = pem.Encode(&both, &pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	write(t, dir, "cert.pem", both.String())
	write(t, dir, "www/index.html", "<html>\n")
	write(t, dir, "server.conf", strings.ReplaceAll(conf, "DIR", dir))
	return dir
}

// serving waits until something takes connections to each address.
func serving(t *testing.T, n *lab.Namespace, addrs ...string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for _, a := range addrs {
		for {
			var c net.Conn
			var err error
			n.Do(func() { c, err = net.DialTimeout("tcp", a, time.Second) })
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("nothing serves %s: %v", a, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// oneUser tells that this user namespace has a single user, so that servers
// cannot give up their privileges.
func oneUser(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasSuffix(strings.TrimSpace(string(b)), " 1")
}

// needUsers skips loudly, and fails with CI=true, where there is no other user.
func needUsers(t *testing.T, why string) {
	t.Helper()
	if !oneUser(t) {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("MISSING (CI=true): a second user: " + why)
	}
	t.Skip("SKIPPED: a user namespace of one user: " + why)
}

// nginx starts the real nginx with an http block.
func nginx(t *testing.T, n *lab.Namespace, conf string) string {
	t.Helper()
	master := ""
	if oneUser(t) {
		master = "master_process off;\n"
	}
	conf = "http { access_log off; client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e; root DIR/www;\n" + conf + "\n}\n"
	dir := inServer(t, fmt.Sprintf("user root;\n%sworker_processes 1;\nerror_log DIR/error.log;\npid DIR/pid;\ndaemon off;\nevents { worker_connections 64; }\n%s", master, conf))
	n.Daemon(t, "nginx", "-p", dir, "-c", filepath.Join(dir, "server.conf"))
	serving(t, n, "127.0.0.1:8080")
	return dir
}

const upgradeLines = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $up;"

// TestNginx: what a real nginx does with requests, read from its configuration and
// asked of itself.
func TestNginx(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nginx")
	const m = "map $http_upgrade $up { default upgrade; '' close; }\n"
	const ws, wss = "ws://198.51.100.20:8080/chat", "wss://198.51.100.20:8443/chat"
	for _, c := range []webCase{
		{name: "forwards the upgrade", conf: m + "server { listen 8080; location /chat { proxy_pass http://127.0.0.1:9000; " + upgradeLines + " proxy_read_timeout 1h; } }", target: ws},
		{name: "headers at the server", conf: m + "upstream app { server 127.0.0.1:9000; }\nserver { listen 8080 default_server; server_name _; " + upgradeLines + " location / { proxy_pass http://app/; } }", target: ws},
		{
			name: "loses the upgrade", conf: "server {\n listen 8080;\n location /chat {\n  proxy_pass http://127.0.0.1:9000;\n }\n}", target: ws, passive: diagnose.HandshakeRejected, sure: diagnose.Likely, probed: diagnose.HandshakeRejected,
			says: []string{"server.conf:11", "proxy_http_version 1.1;", "proxy_set_header Upgrade $http_upgrade;", `proxy_set_header Connection "upgrade";`},
		},
		{
			name: "one header of its own hides those of the server", conf: m + "server {\n listen 8080;\n " + upgradeLines + "\n location /chat { proxy_pass http://127.0.0.1:9000; proxy_set_header Host $host; } }", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Likely, probed: diagnose.HandshakeRejected, says: []string{"no proxy_set_header Upgrade"},
		},
		{name: "an upgrade leaves the rules", conf: "server { listen 8080; location / { if ($http_upgrade) { break; } return 426; proxy_pass http://127.0.0.1:9000; " + strings.ReplaceAll(upgradeLines, "$up", "upgrade") + " } }", target: ws},
		{name: "a spare takes over", conf: m + "upstream app { server 127.0.0.1:9001; server 127.0.0.1:9000 backup; }\nserver { listen 8080; location / { proxy_pass http://app; " + upgradeLines + " } }", target: ws},
		{
			name: "nothing behind", conf: m + "server {\n listen 8080;\n location /chat { proxy_pass http://127.0.0.1:9001; " + upgradeLines + " } }", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"nothing listens on 127.0.0.1:9001", "start the service at 127.0.0.1:9001"},
		},
		{
			name: "nothing behind for a browser", conf: "server { listen 8080; location / { proxy_pass http://127.0.0.1:9001; } }", target: "http://198.51.100.20:8080/",
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"nothing listens on 127.0.0.1:9001"},
		},
		{
			name: "no such socket", conf: "upstream app { server unix:/nowhere/app.sock; }\nserver { listen 8080; location / { proxy_pass http://app; } }", target: "http://198.51.100.20:8080/",
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"there is no socket /nowhere/app.sock"},
		},
		{
			name: "another path", conf: m + "server { listen 8080; location /ws { proxy_pass http://127.0.0.1:9000; " + upgradeLines + " } }", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"forward /chat to the WebSocket service"},
		},
		{
			name: "a path that ends in a slash", conf: m + "server { listen 8080; location /chat/ { proxy_pass http://127.0.0.1:9000; " + upgradeLines + " } }", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"/chat/"},
		},
		{
			name: "fastcgi", conf: "server { listen 8080; location / { fastcgi_pass 127.0.0.1:9003; } }", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"fastcgi_pass forwards no upgrade"},
		},
		{
			name: "everybody is kept out", conf: m + "server { listen 8080; location /chat {\n deny all;\n proxy_pass http://127.0.0.1:9000; " + upgradeLines + " } }", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"deny all", "server.conf:10"},
		},
		{
			name: "this client is kept out", conf: m + "server { listen 8080; location /chat { allow 127.0.0.1; deny 203.0.113.0/24; proxy_pass http://127.0.0.1:9000; " + upgradeLines + " } }", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"deny 203.0.113.0/24"}, elsewhere: true,
		},
		{
			name: "others are kept out", conf: m + "server { listen 8080; location /chat { allow 203.0.113.0/24; allow 127.0.0.1; deny all; proxy_pass http://127.0.0.1:9000; " + upgradeLines + " } }", target: ws,
		},
		{
			name: "led to https", conf: "server { listen 8080; server_name chat.example.com; if ($host = chat.example.com) { return 404; } return 301 https://$host$request_uri; }", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"return 301", "dial wss://"},
		},
		{name: "a browser led to https", conf: "server { listen 8080; return 301 https://$host$request_uri; }", target: "http://198.51.100.20:8080/"},
		{
			name: "plain, dialled with TLS", conf: m + "server { listen 8080; location / { proxy_pass http://127.0.0.1:9000; " + upgradeLines + " } }", target: "wss://198.51.100.20:8080/chat",
			passive: diagnose.TLSMismatch, sure: diagnose.Confirmed, probed: diagnose.TLSMismatch, says: []string{"listen 8080", "without TLS", "ssl_certificate FILE"},
		},
		{
			name: "TLS, dialled plain", conf: m + "server { listen 8080; listen 8443 ssl; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/cert.pem; location / { proxy_pass http://127.0.0.1:9000; " + upgradeLines + " } }", target: "ws://198.51.100.20:8443/chat",
			passive: diagnose.TLSMismatch, sure: diagnose.Confirmed, probed: diagnose.TLSMismatch, says: []string{"listen 8443 ssl", "dial wss://"},
		},
		{name: "TLS", conf: m + "server { listen 8080; listen 8443 ssl; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/cert.pem; location / { proxy_pass http://127.0.0.1:9000; " + upgradeLines + " } }", target: wss},
		{
			name: "HTTP, meant as a text worker", conf: "server { listen 8080; }", target: "text://198.51.100.20:8080",
			passive: diagnose.ProtocolMismatch, sure: diagnose.Confirmed, probed: diagnose.ProtocolMismatch, says: []string{"it speaks HTTP"},
		},
	} {
		c.prove(t, nginx)
	}
}

// TestNginxReload: a file that was changed after nginx read it accuses nobody for
// sure, and does again once nginx has reloaded it.
func TestNginxReload(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nginx")
	needUsers(t, "nginx's workers cannot give up their privileges")
	f := newField(t)
	f.server.Serve(t, "tcp", "127.0.0.1:9000", strictWebSocket)
	dir := nginx(t, f.server, "server { listen 8080; location / { return 404; } }")
	const url = "ws://198.51.100.20:8080/chat"
	blames(t, f.ask(t, onServer, url, diagnose.Options{}), onServer, diagnose.HandshakeRejected, diagnose.Confirmed)
	file := filepath.Join(dir, "server.conf")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	well := strings.Replace(string(b), "return 404;", "proxy_pass http://127.0.0.1:9000; proxy_http_version 1.1; proxy_set_header Upgrade websocket; proxy_set_header Connection upgrade;", 1)
	change := func(text string) {
		t.Helper()
		time.Sleep(50 * time.Millisecond) // a tick of the clock that times of files come from
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	change(strings.Replace(string(b), "return 404;", "return 403;", 1))
	r := f.ask(t, onServer, url, diagnose.Options{})
	blames(t, r, onServer, diagnose.HandshakeRejected, diagnose.Likely)
	if !strings.Contains(flat(t, r), "was changed at") {
		t.Errorf("the age is not said:\n%s", text(t, r))
	}
	keep(t, "changed", r)
	// The file is mended, the server is not: the probe knows better than the file.
	change(well)
	clear_(t, f.ask(t, onServer, url, diagnose.Options{}), onServer)
	blames(t, f.ask(t, onServer, url, diagnose.Options{Probe: true}), onServer, diagnose.HandshakeRejected, diagnose.Confirmed)
	time.Sleep(50 * time.Millisecond)
	f.server.Run(t, "nginx", "-p", dir, "-c", file, "-s", "reload")
	deadline := time.Now().Add(30 * time.Second)
	for {
		r = f.ask(t, onServer, url, diagnose.Options{Probe: true})
		if !r.Causes[0].Accused() || time.Now().After(deadline) {
			break
		}
	}
	clear_(t, r, onServer)
	// And the other way round: the file is broken, the server still serves.
	change(string(b))
	clear_(t, f.ask(t, onServer, url, diagnose.Options{Probe: true}), onServer)
	blames(t, f.ask(t, onServer, url, diagnose.Options{}), onServer, diagnose.HandshakeRejected, diagnose.Likely)
}

// TestNginxRoot: a server in a mount namespace of its own has its files there, and
// not where this host has files of the same name.
func TestNginxRoot(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nginx", "unshare")
	f := newField(t)
	dir := inServer(t, "")
	master := ""
	if oneUser(t) {
		master = "master_process off;"
	}
	conf := "user root; " + master + " worker_processes 1; error_log stderr; pid /etc/nginx/pid; daemon off; events { worker_connections 64; } http { access_log off; include sites/*.conf; }"
	write(t, dir, "nginx.conf", conf)
	f.server.Daemon(t, "unshare", "--mount", "sh", "-ec", `mount -t tmpfs tmpfs /etc/nginx
mkdir /etc/nginx/sites /etc/nginx/outside
cp "$1/nginx.conf" /etc/nginx/
ln -s ../../../../../../etc/nginx/outside/one /etc/nginx/sites/one.conf
printf 'server { listen 8080;\nreturn 503; }\n' >/etc/nginx/outside/one
exec nginx`, "sh", dir)
	serving(t, f.server, "127.0.0.1:8080")
	r := f.ask(t, onServer, "http://198.51.100.20:8080/", diagnose.Options{})
	blames(t, r, onServer, diagnose.HandshakeRejected, diagnose.Confirmed)
	if !strings.Contains(flat(t, r), "/etc/nginx/sites/one.conf:2: return 503") {
		t.Errorf("the file and line are not named:\n%s", text(t, r))
	}
	keep(t, "server", r)
}

// TestNginxTranslated: the port is translated into the namespace of a container,
// as Docker does, and nginx there has files of its own.
func TestNginxTranslated(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nginx", "unshare", "nft")
	f := newField(t)
	f.whole = true
	box := f.lab.Add(t, "box")
	f.lab.Join(t, lab.End{In: f.server, Interface: "bridge", Addrs: []netip.Prefix{netip.MustParsePrefix("172.17.0.1/24")}},
		lab.End{In: box, Interface: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("172.17.0.2/24")}})
	ip(t, box, "route add default via 172.17.0.1")
	f.server.Sysctl(t, "net.ipv4.ip_forward", "1")
	f.server.Load(t, lab.NFT, "table ip n { chain p { type nat hook prerouting priority -100; tcp dport 8080 dnat to 172.17.0.2:80; }; }")
	dir := inServer(t, "")
	master := ""
	if oneUser(t) {
		master = "master_process off;"
	}
	write(t, dir, "nginx.conf", "user root; "+master+` worker_processes 1; error_log stderr; pid /etc/nginx/pid; daemon off; events { worker_connections 64; }
http { access_log off; server { listen 80;
location / { proxy_pass http://127.0.0.1:9001; } } }`)
	box.Daemon(t, "unshare", "--mount", "sh", "-ec", `mount -t tmpfs tmpfs /etc/nginx; cp "$1/nginx.conf" /etc/nginx/; exec nginx`, "sh", dir)
	serving(t, box, "172.17.0.2:80")
	serving(t, f.client, serverIP+":8080")
	r := f.ask(t, onServer, "http://198.51.100.20:8080/", diagnose.Options{})
	blames(t, r, onServer, diagnose.HandshakeRejected, diagnose.Confirmed)
	if s := flat(t, r); !strings.Contains(s, "/etc/nginx/nginx.conf:3: proxy_pass http://127.0.0.1:9001") || !strings.Contains(s, "nothing listens on port 9001") {
		t.Errorf("the line and the backend are not named:\n%s", text(t, r))
	}
	keep(t, "server", r)
	box.Serve(t, "tcp", "127.0.0.1:9001", answers(200))
	clear_(t, f.ask(t, onServer, "http://198.51.100.20:8080/", diagnose.Options{}), onServer)
}
