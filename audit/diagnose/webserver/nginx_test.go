package webserver

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// files writes a configuration; DIR stands for its directory.
func files(t testing.TB, list map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range list {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run reads a configuration as that of this very process.
func run(t testing.TB, name string, args ...string) *Config {
	t.Helper()
	p := Process{PID: os.Getpid(), Name: name, Command: strings.Join(append([]string{"/usr/sbin/" + name}, args...), "\x00")}
	return Read(t.Context(), []Process{p}, time.Now())
}

// need skips, loudly and as a failure with CI=true, where a program is missing.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED, needs " + err.Error())
	}
}

// TestNginxIncludes holds the files that are read against those that nginx itself
// says it reads.
func TestNginxIncludes(t *testing.T) {
	t.Parallel()
	need(t, "nginx")
	dir := files(t, map[string]string{
		"nginx.conf":       "# include no.conf;\nerror_log stderr; pid DIR/pid;\nevents {}\nhttp {\n access_log off;\n include \"mime types\";\n include conf.d/*.conf; include sites/[ab]*;\n include DIR/abs.conf;\n include none*.conf;\n log_format x 'a;{ include no.conf; }';\n}\n",
		"mime types":       "types { text/html html; }\n",
		"conf.d/b.conf":    "server { listen 127.0.0.1:65000; include snippets/*.inc; }",
		"conf.d/a.conf":    "map $http_upgrade $up { default upgrade; include DIR/map; }",
		"conf.d/.hid.conf": "server {}",
		"conf.d/old.bak":   "server {}",
		"sites/a":          "upstream a { server 127.0.0.1:1; }", "sites/c": "garbage {",
		"abs.conf": "server { listen 127.0.0.1:65000; server_name x; }", "map": "a b;\n", "snippets/s.inc": "location /x { return 404; }",
	})
	if err := os.Symlink(filepath.Join(dir, "abs.conf"), filepath.Join(dir, "sites/b-linked")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("nginx", "-T", "-q", "-p", dir, "-c", filepath.Join(dir, "nginx.conf")).Output()
	if err != nil {
		t.Fatalf("nginx -T: %v: %s", err, err.(*exec.ExitError).Stderr)
	}
	var want []string
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "# configuration file "); ok {
			want = append(want, strings.TrimSuffix(name, ":"))
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	c := run(t, "nginx", "-c", filepath.Join(dir, "nginx.conf"))
	if len(c.Gaps) > 0 || !slices.Equal(c.Files, want) || len(want) < 8 {
		t.Errorf("read\n%q\nnginx reads\n%q\ngaps %q", c.Files, want, c.Gaps)
	}
}

// TestNginxChoice: which server and location answer, as nginx's documentation has
// it.
func TestNginxChoice(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"nginx.conf": `http {
server { listen 80; return 200 first; }
server { listen 80 default_server; return 200 default; }
server { listen 80; server_name example.com www.example.com; return 200 exact; }
server { listen 80; server_name *.example.com; return 200 lead; }
server { listen 80; server_name example.*; return 200 trail; }
server { listen 80; server_name ~^r(?<n>[0-9]+)\.test$; return 200 regexp; }
server { listen 192.0.2.1:80; server_name example.com; return 200 address; }
server { listen [::]:80; return 200 six; }
server { listen 81;
 location = / { return 200 root; }
 location / { return 200 slash; }
 location /documents/ { return 200 documents; }
 location ^~ /images/ { return 200 images; }
 location ~* \.(gif|jpg)$ { return 200 pictures; }
 location /a/ { location /a/b/ { return 200 inner; } location ~ x$ { return 200 innerx; } return 200 a; }
 location /old { rewrite ^/old(.*)$ /documents$1 last; }
 location /gone { rewrite ^ https://example.org/ permanent; }
 location /spa { try_files $uri @app; }
 location @app { proxy_pass http://127.0.0.1:9; }
}
server { listen 83-84; listen [::]:83 ipv6only=off; server_name_in_redirect off; allow 192.0.2.0/24; deny all; location / { proxy_pass http://unix:/nowhere/x.sock:/y; } }
server { listen 82; set $to 127.0.0.1; location / { proxy_pass http://$to:9; } location /lua { content_by_lua_block { ngx.say("}{}", '}') -- } 
 } } }
}
stream { upstream s { server 127.0.0.1:9; server 127.0.0.1:10 down; } server { listen 85 ssl; proxy_pass s; } server { listen 86; ssl_preread on; proxy_pass $x; } }`})
	c := run(t, "nginx", "-c", filepath.Join(dir, "nginx.conf"))
	if len(c.Gaps) > 0 {
		t.Fatal(c.Gaps)
	}
	for _, x := range []struct {
		port             uint16
		addr, host, path string
		want             string
	}{
		{80, "198.51.100.1", "example.com", "/", "return 200 exact"}, {80, "198.51.100.1", "WWW.example.com.", "/", "return 200 exact"},
		{80, "198.51.100.1", "a.example.com", "/", "return 200 lead"}, {80, "198.51.100.1", "example.org", "/", "return 200 trail"},
		{80, "198.51.100.1", "r17.test", "/", "return 200 regexp"}, {80, "198.51.100.1", "r17.test.x", "/", "return 200 default"},
		{80, "192.0.2.1", "nobody", "/", "return 200 address"}, {80, "2001:db8::1", "example.com", "/", "return 200 six"}, {80, "", "nobody", "/", "return 200 default"},
		{81, "", "", "", "return 200 root"}, {81, "", "", "/index.html", "return 200 slash"}, {81, "", "", "/documents/x", "return 200 documents"},
		{81, "", "", "/images/1.gif", "return 200 images"}, {81, "", "", "/documents/1.JPG?x", "return 200 pictures"},
		{81, "", "", "/a/b/c", "return 200 inner"}, {81, "", "", "/a/b/x", "return 200 innerx"}, {81, "", "", "/a/c", "return 200 a"},
		{81, "", "", "/x/../documents//y", "return 200 documents"}, {81, "", "", "/old/z", "return 200 documents"}, {81, "", "", "/gone", "rewrite ^ https://example.org/ permanent"},
		{81, "", "", "/spa/1", "proxy_pass http://127.0.0.1:9"}, {82, "", "", "/", "proxy_pass http://$to:9"}, {82, "", "", "/lua", "content_by_lua_block"},
	} {
		q := Query{Port: x.port, Host: x.host, Path: x.path}
		if x.addr != "" {
			q.Addr = netip.MustParseAddr(x.addr)
		}
		a, ok := c.Ask(q)
		if !ok || a.Action.Text != x.want {
			t.Errorf("%+v: %v %q, want %q", q, ok, a.Action.Text, x.want)
		}
		if x.port == 82 && x.path == "/" && (len(a.Backends) != 1 || a.Backends[0].Port != 9) {
			t.Errorf("backends %+v", a.Backends)
		}
	}
	for port, want := range map[uint16]Tri{85: Yes, 86: Unknown} {
		if a, ok := c.Ask(Query{Port: port}); !ok || a.Does != Passes || !a.Bytes || a.TLS != want || port == 85 && (len(a.Backends) != 1 || a.Backends[0].Port != 9) || port == 86 && len(a.Unsure) == 0 {
			t.Errorf("stream %d: %v %+v", port, ok, a)
		}
	}
	for from, want := range map[string]Does{"192.0.2.9": Forwards, "192.0.3.9": Returns} {
		a, ok := c.Ask(Query{Port: 84, From: netip.MustParseAddr(from)})
		if !ok || a.Does != want || want == Forwards && (len(a.Backends) != 1 || !a.Backends[0].Missing) {
			t.Errorf("from %s: %v %+v", from, ok, a)
		}
	}
	if _, ok := c.Ask(Query{Port: 83, Addr: netip.MustParseAddr("2001:db8::1")}); !ok {
		t.Error("[::]:83 does not take IPv6")
	}
	if _, ok := c.Ask(Query{Port: 87}); ok {
		t.Error("a port that no line opens is answered")
	}
}

// queries are asked of whatever a fuzzed configuration comes to.
var queries = []Query{
	{Port: 80, Host: "example.com", Path: "/chat", WebSocket: true}, {Port: 80, Path: "/a/../b?c", Addr: netip.MustParseAddr("192.0.2.1"), From: netip.MustParseAddr("203.0.113.1")},
	{Port: 443, Host: "example.com", TLS: true, WebSocket: true}, {Port: 8080, Addr: netip.MustParseAddr("2001:db8::1")},
}

// FuzzNginx: no text makes the reader fall, hang or leave its bounds.
func FuzzNginx(f *testing.F) {
	for _, s := range []string{
		"http { server { listen 80; location / { proxy_pass http://a:1; } } }", "stream { server { listen 80; proxy_pass a; } }", "a 'b c' \"d\\\"\" ${e}; # f\n",
		"http { map $http_upgrade $x { default $x; } server { location ~ (a { } if ($x = 1) { return 301 https://$host; } rewrite ^/(.*)$ /$1 last; } }",
		"http { server { listen 80 ssl; error_page 497 =301 /; location /chat { try_files $uri /chat; } location @x { } } }", "http { server { location / { rewrite ^ / last; } } }",
	} {
		f.Add([]byte(s))
	}
	empty := emptyTree(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		tokens, err := nginxTokens(b)
		if err != nil {
			return
		}
		tr := empty(t)
		r := &nginxReader{tree: tr, c: &Config{}, base: "/"}
		ds, _, err := r.block("x", tokens, 0)
		if err != nil {
			return
		}
		n := newNginx(tr, ds)
		for _, q := range queries {
			if a, ok := n.ask(q); ok && a.Does == Returns && a.Status == 0 && a.To == "" && a.Action.Text == "" {
				t.Errorf("%+v: returns nothing", q)
			}
		}
	})
}
