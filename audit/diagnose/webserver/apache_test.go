package webserver

import (
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestApacheIncludes holds the files that are read against those that Apache
// itself says it reads.
func TestApacheIncludes(t *testing.T) {
	t.Parallel()
	program := "apache2"
	if _, err := exec.LookPath("httpd"); err == nil {
		program = "httpd"
	}
	need(t, program)
	modules := "/usr/lib/apache2/modules"
	if program == "httpd" {
		modules = "/usr/lib64/httpd/modules"
	}
	dir := files(t, map[string]string{
		"server.conf": "ServerRoot \"DIR\"\nServerName x\nLoadModule mpm_event_module " + modules + "/mod_mpm_event.so\nLoadModule authz_core_module " + modules + "/mod_authz_core.so\nListen 127.0.0.1:65000\n" +
			"Define where conf.d\n# Include no.conf\nInclude ${where}/*.conf\nIncludeOptional none/*.conf\nInclude tree\n<IfModule mpm_event_module>\nInclude \\\n  yes.conf\n</IfModule>\n" +
			"<IfModule !authz_core_module>\nInclude no.conf\n</IfModule>\n<IfModule mod_nothing.c>\nInclude no.conf\n</IfModule>\n<IfDefine where>\nInclude \"a b.conf\"\n</IfDefine>\n" +
			"<IfDefine nowhere>\nInclude no.conf\n</IfDefine>\n<IfFile DIR/yes.conf>\nInclude DIR/file.conf\n</IfFile>\n<IfVersion >= 2.4>\nInclude version.conf\n</IfVersion>\n",
		"conf.d/b.conf": "Include conf.d/inner.inc\n", "conf.d/inner.inc": "# nothing\n", "conf.d/.hid.conf": "garbage", "conf.d/old.bak": "garbage",
		"tree/1": "# 1\n", "tree/sub/2": "# 2\n", "yes.conf": "# yes\n", "a b.conf": "# ab\n", "file.conf": "# file\n", "version.conf": "# version\n", "no.conf": "garbage\n", "logs/x": "",
	})
	out, err := exec.Command(program, "-t", "-D", "DUMP_INCLUDES", "-d", dir, "-f", filepath.Join(dir, "server.conf")).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
	var want []string
	for line := range strings.Lines(string(out)) {
		if _, name, ok := strings.Cut(strings.TrimSpace(line), ") "); ok && strings.HasPrefix(name, dir) {
			want = append(want, name)
		} else if name, ok := strings.CutPrefix(strings.TrimSpace(line), "(*) "); ok {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	c := run(t, "apache2", "-d", dir, "-f", filepath.Join(dir, "server.conf"))
	if len(c.Gaps) > 0 || !slices.Equal(c.Files, want) || len(want) < 9 {
		t.Errorf("read\n%q\n%s reads\n%q\ngaps %q\n%s", c.Files, program, want, c.Gaps, out)
	}
}

// TestApacheChoice: which virtual host and line answer.
func TestApacheChoice(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"server.conf": `Listen 80
Listen 192.0.2.7:81
Listen 82
LoadModule proxy_module x/mod_proxy.so
LoadModule proxy_http_module x/mod_proxy_http.so
LoadModule ssl_module x/mod_ssl.so
Redirect /main https://main.example.com/
<VirtualHost *:80>
 ServerName first
 Redirect 410 /gone
 RedirectMatch permanent ^/m(.*) /n$1
 ProxyPass /p/no !
 ProxyPass /p http://127.0.0.1:9
 ProxyPassMatch "^/re/(.*)\.x$" "http://127.0.0.1:9/$1"
 <Location /loc>
  ProxyPass http://127.0.0.1:10/
 </Location>
 <Proxy balancer://app>
  BalancerMember http://127.0.0.1:11
  BalancerMember http://127.0.0.1:12 status=+D
 </Proxy>
 ProxyPass /b balancer://app/
 <If "%{HTTP_HOST} == 'x'">
  Require all denied
 </If>
</VirtualHost>
<VirtualHost *:80>
 ServerName https://named.example.com:80
 ServerAlias *.named.example.com other
 DocumentRoot /srv
</VirtualHost>
<VirtualHost 192.0.2.1:80>
 SSLEngine on
 Redirect / https://address/
</VirtualHost>
`})
	c := run(t, "apache2", "-d", dir, "-f", "server.conf")
	if len(c.Gaps) > 0 {
		t.Fatal(c.Gaps)
	}
	for _, x := range []struct {
		port             uint16
		addr, host, path string
		want             string
		backend          uint16
		unsure           int
	}{
		{80, "", "nobody", "/", "<VirtualHost *:80>", 0, 1}, {80, "", "nobody", "/gone", "Redirect 410 /gone", 0, 1}, {80, "", "nobody", "/mx", "RedirectMatch permanent ^/m(.*) /n$1", 0, 1},
		{80, "", "nobody", "/p/no", "<VirtualHost *:80>", 0, 1}, {80, "", "nobody", "/p/x", "ProxyPass /p http://127.0.0.1:9", 9, 1}, {80, "", "nobody", "/px", "<VirtualHost *:80>", 0, 1},
		{80, "", "nobody", "/re/a.x", `ProxyPassMatch "^/re/(.*)\.x$" "http://127.0.0.1:9/$1"`, 9, 1}, {80, "", "nobody", "/loc/1", "ProxyPass http://127.0.0.1:10/", 10, 1},
		{80, "", "nobody", "/b/1", "ProxyPass /b balancer://app/", 11, 1},
		{80, "", "named.example.com", "/", "DocumentRoot /srv", 0, 0}, {80, "", "a.named.example.com", "/", "DocumentRoot /srv", 0, 0}, {80, "", "other", "/main", "Redirect /main https://main.example.com/", 0, 0},
		{80, "192.0.2.1", "other", "/x", "Redirect / https://address/", 0, 0}, {81, "192.0.2.7", "", "/", "no VirtualHost for the port: the main server", 0, 0},
	} {
		q := Query{Port: x.port, Host: x.host, Path: x.path}
		if x.addr != "" {
			q.Addr = netip.MustParseAddr(x.addr)
		}
		a, ok := c.Ask(q)
		if !ok || a.Action.Text != x.want || len(a.Unsure) != x.unsure || x.backend != 0 && (len(a.Backends) != 1 || a.Backends[0].Port != x.backend) {
			t.Errorf("%+v: %v %q %v %v, want %q", q, ok, a.Action.Text, a.Backends, a.Unsure, x.want)
		}
		if want := map[bool]Tri{true: Yes, false: No}[x.addr == "192.0.2.1"]; a.TLS != want {
			t.Errorf("%+v: TLS %d", q, a.TLS)
		}
	}
	if _, ok := c.Ask(Query{Port: 81, Addr: netip.MustParseAddr("192.0.2.8")}); ok {
		t.Error("an address that no line opens is answered")
	}
}

// FuzzApache: no text makes the reader fall, hang or leave its bounds.
func FuzzApache(f *testing.F) {
	for _, s := range []string{
		"Listen 80\n<VirtualHost *:80>\nProxyPass / http://a/\n</VirtualHost>\n", "Listen 80\nRewriteEngine on\nRewriteCond %{HTTP:Upgrade} websocket [NC,OR]\nRewriteCond %{X} !=a\nRewriteRule ^/(.*) ws://h:1/$1 [P,L]\n",
		"Listen [::]:80\n<Location ~ (>\nRequire ip 1.2.3.4\n</Location>\nDefine a ${a}\nRedirect\nInclude \\\n x*\n", "<IfModule !x>\n<IfDefine>\n</IfDefine>\n</IfModule>\nListen 443 https\n",
	} {
		f.Add([]byte(s))
	}
	empty := emptyTree(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, err := apacheLines(b)
		if err != nil {
			return
		}
		tr := empty(t)
		r := &apacheReader{tree: tr, c: &Config{}, root: "/", defs: map[string]string{}, modules: map[string]bool{}}
		ds, _, err := r.block("x", lines, "", 0, true)
		if err != nil {
			return
		}
		a := newApache(tr, ds, r.modules)
		for _, q := range queries {
			if x, ok := a.ask(q); ok && x.Listen.Line == 0 {
				t.Errorf("%+v: no line opens the port", q)
			}
		}
	})
}
