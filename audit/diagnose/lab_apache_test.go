package diagnose_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// apacheProgram is what the distribution calls Apache's program.
func apacheProgram() string {
	if _, err := exec.LookPath("httpd"); err == nil {
		return "httpd"
	}
	return "apache2"
}

// apacheModules is where the distribution has the modules, relative or not.
func apacheModules(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib64/apache2", "/usr/lib/httpd/modules"} {
		if found, _ := filepath.Glob(filepath.Join(dir, "mod_proxy.so")); len(found) > 0 {
			return dir
		}
	}
	t.Fatal("no modules of Apache")
	return ""
}

// apache starts the real Apache. In conf, LOAD a b stands for the modules.
func apache(t *testing.T, n *lab.Namespace, conf string) string {
	t.Helper()
	head := "ServerRoot DIR\nServerName localhost\nPidFile DIR/pid\nErrorLog DIR/error.log\nUser nobody\nGroup nogroup\nStartServers 1\nListen 8080\n"
	load := func(names ...string) {
		for _, m := range names {
			head += "LoadModule " + m + "_module " + apacheModules(t) + "/mod_" + m + ".so\n"
		}
	}
	load("mpm_event", "authz_core")
	first, rest, _ := strings.Cut(conf, "\n")
	load(strings.Fields(strings.TrimPrefix(first, "LOAD"))...)
	if strings.Contains(first, " ssl") {
		head += "Listen 8443\n"
	}
	dir := inServer(t, head+"#------ the case\n"+rest+"\n")
	n.Daemon(t, apacheProgram(), "-d", dir, "-f", filepath.Join(dir, "server.conf"), "-D", "FOREGROUND")
	serving(t, n, "127.0.0.1:8080")
	return dir
}

// TestApache: what a real Apache does with requests, read from its configuration
// and asked of itself.
func TestApache(t *testing.T) {
	t.Parallel()
	lab.Need(t, apacheProgram())
	needUsers(t, "Apache does not serve as root")
	const proxy = "LOAD proxy proxy_http proxy_wstunnel\n"
	const ws = "ws://198.51.100.20:8080/chat"
	const tls = "SSLEngine on\nSSLCertificateFile DIR/cert.pem\nSSLCertificateKeyFile DIR/cert.pem\n"
	for _, c := range []webCase{
		{name: "ws scheme", conf: proxy + "<VirtualHost *:8080>\nProxyPass /chat ws://127.0.0.1:9000/chat\nProxyPass / http://127.0.0.1:9000/\n</VirtualHost>", target: ws},
		{name: "upgrade=websocket", conf: proxy + "<VirtualHost *:8080>\n<Location /chat>\nProxyPass http://127.0.0.1:9000/chat upgrade=websocket\n</Location>\n</VirtualHost>", target: ws},
		{name: "ws scheme without its module", conf: "LOAD proxy proxy_http\nProxyPass /chat ws://127.0.0.1:9000/chat\n", target: ws},
		{
			name:   "rewritten for upgrades alone",
			conf:   "LOAD proxy proxy_http proxy_wstunnel rewrite\n<VirtualHost *:8080>\nRewriteEngine On\nRewriteCond %{HTTP:Upgrade} =websocket [NC]\nRewriteRule ^/(.*) ws://127.0.0.1:9000/$1 [P,L]\nProxyPass / http://127.0.0.1:9000/\n</VirtualHost>",
			target: ws,
		},
		{
			name: "loses the upgrade", conf: proxy + "<VirtualHost *:8080>\nProxyPass /chat http://127.0.0.1:9000/chat\n</VirtualHost>", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Likely, probed: diagnose.HandshakeRejected, says: []string{"ProxyPass /chat http://127.0.0.1:9000/chat", `add: ProxyPass "/chat" "ws://127.0.0.1:9000/chat"`, "upgrade=websocket"},
		},
		{
			name: "the wide line comes first", conf: proxy + "<VirtualHost *:8080>\nProxyPass / http://127.0.0.1:9000/\nProxyPass /chat ws://127.0.0.1:9000/chat\n</VirtualHost>", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Likely, probed: diagnose.HandshakeRejected, says: []string{"ProxyPass / http://127.0.0.1:9000/", "before this line"},
		},
		{
			name: "nothing behind", conf: proxy + "<VirtualHost *:8080>\nProxyPass /chat ws://127.0.0.1:9001/chat\n</VirtualHost>", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"nothing listens on 127.0.0.1:9001"},
		},
		{
			name: "a module is missing", conf: "LOAD proxy\nProxyPass / http://127.0.0.1:9000/\n", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"without proxy_http_module"},
		},
		{
			name: "another path", conf: proxy + "<VirtualHost *:8080>\nDocumentRoot DIR/www\nProxyPass /ws ws://127.0.0.1:9000/chat\n</VirtualHost>", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"forward /chat to the WebSocket service"},
		},
		{
			name: "everybody is kept out", conf: proxy + "<VirtualHost *:8080>\n<Location /chat>\nRequire all denied\n</Location>\nProxyPass /chat ws://127.0.0.1:9000/chat\n</VirtualHost>", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"Require all denied"},
		},
		{
			name: "only this host is let in", conf: "LOAD authz_host proxy proxy_http proxy_wstunnel\n<VirtualHost *:8080>\n<Location /chat>\nRequire local\n</Location>\nProxyPass /chat ws://127.0.0.1:9000/chat\n</VirtualHost>", target: ws,
			passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"Require local"}, elsewhere: true,
		},
		{
			name:   "led to https",
			conf:   "LOAD rewrite\n<VirtualHost *:8080>\nServerName chat.example.com\nRewriteEngine on\nRewriteCond %{SERVER_NAME} =elsewhere.example.com\nRewriteRule ^ - [F]\nRewriteCond %{HTTPS} off\nRewriteRule ^ https://%{SERVER_NAME}%{REQUEST_URI} [END,NE,R=permanent]\n</VirtualHost>",
			target: ws, passive: diagnose.HandshakeRejected, sure: diagnose.Confirmed, probed: diagnose.HandshakeRejected, says: []string{"R=permanent", "dial wss://"},
		},
		{name: "a browser led to https", conf: "LOAD alias\n<VirtualHost *:8080>\nRedirect permanent / https://chat.example.com/\n</VirtualHost>", target: "http://198.51.100.20:8080/"},
		{
			name: "plain, dialled with TLS", conf: proxy + "<VirtualHost *:8080>\nProxyPass /chat ws://127.0.0.1:9000/chat\n</VirtualHost>", target: "wss://198.51.100.20:8080/chat",
			passive: diagnose.TLSMismatch, sure: diagnose.Confirmed, probed: diagnose.TLSMismatch, says: []string{"Listen 8080", "SSLEngine on, SSLCertificateFile"},
		},
		{
			name: "TLS, dialled plain", conf: "LOAD ssl proxy proxy_http proxy_wstunnel\n<VirtualHost *:8443>\n" + tls + "ProxyPass /chat ws://127.0.0.1:9000/chat\n</VirtualHost>", target: "ws://198.51.100.20:8443/chat",
			passive: diagnose.TLSMismatch, sure: diagnose.Confirmed, probed: diagnose.TLSMismatch, says: []string{"SSLEngine on", "dial wss://"},
		},
		{name: "TLS", conf: "LOAD ssl proxy proxy_http proxy_wstunnel\n<VirtualHost *:8443>\n" + tls + "ProxyPass /chat ws://127.0.0.1:9000/chat\n</VirtualHost>", target: "wss://198.51.100.20:8443/chat"},
	} {
		c.prove(t, apache)
	}
}
