package webserver

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// begun reads files as those of each server, whose main file is called server.conf.
func begun(t testing.TB, name string, list map[string]string) *Config {
	t.Helper()
	dir := files(t, list)
	flag := map[string]string{"nginx": "-c", "haproxy": "-f", "apache2": "-f"}[name]
	args := []string{flag, filepath.Join(dir, "server.conf")}
	if name == "apache2" {
		args = append(args, "-d", dir)
	}
	return run(t, name, args...)
}

// emptyTree gives every input of a fuzz test an empty directory to read.
func emptyTree(f *testing.F) func(t *testing.T) *tree {
	all, err := openTree(f.Context(), f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(all.close)
	return func(t *testing.T) *tree {
		own := *all
		own.ctx, own.files = t.Context(), map[string]bool{}
		return &own
	}
}

// TestHostile: what is no configuration, no end of one, or turns on what is not
// read, is a gap.
func TestHostile(t *testing.T) {
	t.Parallel()
	many := map[string]string{"server.conf": "http { include d/*; }"}
	for i := range maxFiles + 10 {
		many["d/"+string(rune('a'+i%26))+strings.Repeat("x", i/26)] = "server {}"
	}
	for _, x := range []struct {
		program, name string
		files         map[string]string
	}{
		{"nginx", "loop", map[string]string{"server.conf": "include a;", "a": "include server.conf;"}},
		{"nginx", "itself", map[string]string{"server.conf": "include *.conf;"}},
		{"nginx", "garbage", map[string]string{"server.conf": "\x00\x01\x02\xff{{{"}},
		{"nginx", "unfinished", map[string]string{"server.conf": "http { server { listen 80;"}},
		{"nginx", "too many }", map[string]string{"server.conf": "http { } }"}},
		{"nginx", "deep", map[string]string{"server.conf": strings.Repeat("a {", 1000) + strings.Repeat("}", 1000)}},
		{"nginx", "wide", map[string]string{"server.conf": strings.Repeat("a;", maxItems+1)}},
		{"nginx", "huge", map[string]string{"server.conf": strings.Repeat("#", maxFileBytes+1)}},
		{"nginx", "gone", map[string]string{"server.conf": "http { include /nowhere/x; }"}},
		{"nginx", "many files", many},
		{"nginx", "lua", map[string]string{"server.conf": "http { content_by_lua_block { while true do { end }"}},
		{"haproxy", "garbage", map[string]string{"server.conf": "\x00\xff"}},
		{"haproxy", "before a section", map[string]string{"server.conf": "bind :80\n"}},
		{"haproxy", "quote", map[string]string{"server.conf": "global\n log \"x\n"}},
		{"haproxy", "conditional", map[string]string{"server.conf": "global\n.if defined(X)\n maxconn 1\n.endif\n"}},
		{"haproxy", "wide", map[string]string{"server.conf": "global\n" + strings.Repeat("a\n", maxItems+1)}},
		{"haproxy", "huge", map[string]string{"server.conf": strings.Repeat("#", maxFileBytes+1)}},
		{"apache2", "loop", map[string]string{"server.conf": "Include server.conf"}},
		{"apache2", "garbage", map[string]string{"server.conf": "\x00\xff<<<"}},
		{"apache2", "unfinished", map[string]string{"server.conf": "<VirtualHost *:80>\n"}},
		{"apache2", "crossed", map[string]string{"server.conf": "<A>\n<B>\n</A>\n</B>\n"}},
		{"apache2", "too many ends", map[string]string{"server.conf": "</VirtualHost>\n"}},
		{"apache2", "deep", map[string]string{"server.conf": strings.Repeat("<A>\n", 1000)}},
		{"apache2", "wide", map[string]string{"server.conf": strings.Repeat("a\n", maxItems+1)}},
		{"apache2", "gone", map[string]string{"server.conf": "Include nowhere.conf"}},
		{"apache2", "macro", map[string]string{"server.conf": "Use VHost a b"}},
		{"apache2", "version", map[string]string{"server.conf": "<IfVersion >= 2.4.50>\nListen 80\n</IfVersion>"}},
		{"apache2", "definitions that grow", map[string]string{"server.conf": "Define a xxxxxxxx\n" + strings.Repeat("Define a ${a}${a}${a}${a}\n", 40)}},
	} {
		if c := begun(t, x.program, x.files); len(c.Gaps) == 0 || strings.Contains(c.Gaps[0], "in time") {
			t.Errorf("%s, %s: gaps %q", x.program, x.name, c.Gaps)
		}
	}
	for _, program := range []string{"nginx", "haproxy"} {
		flag := map[string]string{"nginx": "-c", "haproxy": "-f"}[program]
		if c := run(t, program, flag, "/nowhere/server.conf"); len(c.Gaps) != 1 {
			t.Errorf("%s, gone: %q", program, c.Gaps)
		}
	}
	// A comment, or a file that ends in a continued line, is none.
	if c := begun(t, "apache2", map[string]string{"server.conf": `Listen 80 \`}); len(c.Gaps) > 0 {
		t.Errorf("the end is continued: %q", c.Gaps)
	}
}

// TestContinuedLines: a long file of continued lines is read to its end, at a cost
// that does not grow with the square of its length.
func TestContinuedLines(t *testing.T) {
	t.Parallel()
	c := begun(t, "apache2", map[string]string{"server.conf": "# " + strings.Repeat("x\\\n", maxFileBytes/3-10) + "\nListen 80\n"})
	if _, ok := c.Ask(Query{Port: 80}); !ok || len(c.Gaps) > 0 {
		t.Errorf("%v, gaps %q", ok, c.Gaps)
	}
}

// TestOpensOnlyFiles: to open a device or a pipe can do something (a watchdog
// begins to count, a writer goes on), so that they are looked at first.
func TestOpensOnlyFiles(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"server.conf": "http { include DIR/file; include DIR/pipe; include /proc/sys/kernel/ostype; server { listen 80; } }", "file": ""})
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := func(name string) func() bool {
		fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if _, err := unix.InotifyAddWatch(fd, name, unix.IN_OPEN); err != nil {
			t.Fatal(err)
		}
		return func() bool {
			n, err := unix.Read(fd, make([]byte, 4096))
			if err != nil && !errors.Is(err, unix.EAGAIN) {
				t.Fatal(err)
			}
			return n > 0
		}
	}
	file, fifo := opened(filepath.Join(dir, "file")), opened(pipe)
	c := run(t, "nginx", "-c", filepath.Join(dir, "server.conf"))
	if len(c.Gaps) != 2 || !strings.Contains(c.Gaps[0], "pipe: is no plain file") || !strings.Contains(c.Gaps[1], "ostype: is no plain file") {
		t.Errorf("gaps %q", c.Gaps)
	}
	if !file() {
		t.Error("the control: nobody is seen to open the file")
	}
	if fifo() {
		t.Error("the pipe was opened")
	}
}

// TestAnotherProcess: where the number of a process that has ended belongs to
// another one, that one's files are not read.
func TestAnotherProcess(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(files(t, map[string]string{"server.conf": "http { server { listen 80; } }"}), "server.conf")
	pid := os.Getpid()
	for start, gaps := range map[uint64]int{0: 0, startOf(pid): 0, 1: 1} {
		c := Read(t.Context(), []Process{{PID: pid, Name: "nginx", Command: "nginx\x00-c\x00" + conf, Start: start}}, time.Now())
		if len(c.Gaps) != gaps {
			t.Errorf("start %d: gaps %q, want %d", start, c.Gaps, gaps)
		}
	}
}

// TestGrowth: what a configuration makes of a short path stays short, and regular
// expressions cost little; both are unsure where they would not.
func TestGrowth(t *testing.T) {
	t.Parallel()
	const twice = "(((((((((a{2}){2}){2}){2}){2}){2}){2}){2}){2}){2}" // a thousand times a
	for _, x := range []struct{ program, name, text string }{
		{"apache2", "doubled path", "Listen 80\n<VirtualHost *:80>\nRewriteEngine on\n" + strings.Repeat("RewriteRule ^(.*)$ $1$1$1$1\n", 40) + "Redirect 404 /\n</VirtualHost>\n"},
		{"nginx", "long rewrite", "http { server { listen 80; location / { rewrite ^(.*)$ " + strings.Repeat("$1", 1<<20) + " last; } } }"},
		{"nginx", "long value", "http { server { listen 80; " + strings.Repeat("set $a x$a$a$a$a;", 20) + " set $b " + strings.Repeat("$a", 1<<20) + "; location / { proxy_pass http://$b; } } }"},
		{"nginx", "many expressions", "http { server { listen 80; " + strings.Repeat(`location ~ "`+twice+`{60}" { return 404; }`, 40_000) + " } }"},
		{"nginx", "a name that is not understood", "http { server { listen 80; server_name a; return 404; } server { listen 80; server_name ~(?=x)x; location / { proxy_pass http://a:1; } } }"},
		{"haproxy", "many expressions", "listen l\n mode http\n bind :80\n http-request deny if { path_reg" + strings.Repeat(" "+twice+"{60}", 30_000) + " }\n server a 127.0.0.1:9\n"},
	} {
		c := begun(t, x.program, map[string]string{"server.conf": x.text})
		a, ok := c.Ask(Query{Port: 80, Host: "h", Path: "/some/path"})
		if !ok || len(c.Gaps) > 0 {
			t.Errorf("%s, %s: %v, gaps %q", x.program, x.name, ok, c.Gaps)
		}
		if len(a.Unsure) == 0 && len(a.Backends) > 0 || len(a.Unsure) == 0 && a.Does == Returns {
			t.Errorf("%s, %s: sure of %s", x.program, x.name, a.Action.Text[:min(100, len(a.Action.Text))])
		}
	}
	big := strings.Repeat("x", 64<<10)
	words := "global\n log \"" + strings.Repeat("$BIG", 1<<18) + "\"\n"
	r := &haReader{tree: &tree{ctx: t.Context(), files: map[string]bool{}}, c: &Config{}, env: map[string]string{"BIG": big}}
	if err := r.text("x", words); !errors.Is(err, errTooMuch) {
		t.Errorf("haproxy, variables: %v", err)
	}
}

// TestManyConditions: each condition finds its acl among many without passing them
// all.
func TestManyConditions(t *testing.T) {
	t.Parallel()
	const n = 90_000
	var b strings.Builder
	b.WriteString("listen l\n mode http\n bind :80\n server a 127.0.0.1:9\n acl x path /x\n")
	b.WriteString(strings.Repeat(" acl a path /a\n", n))
	b.WriteString(strings.Repeat(" http-request deny if x\n", n))
	c := begun(t, "haproxy", map[string]string{"server.conf": b.String()})
	if a, ok := c.Ask(Query{Port: 80, Path: "/chat"}); !ok || a.Does != Forwards || len(c.Gaps) > 0 {
		t.Errorf("%v %+v, gaps %q", ok, a.Does, c.Gaps)
	}
}

// TestSocketsOfBackends: a socket is missing where its directory says so, and not
// where it cannot be looked at, or has another place than its name says.
func TestSocketsOfBackends(t *testing.T) {
	t.Parallel()
	jail := t.TempDir()
	if err := os.WriteFile(filepath.Join(jail, "app.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		program, text string
		missing       bool
	}{
		{"nginx", "http { server { listen 80; location / { proxy_pass http://unix:" + jail + "/app.sock; } } }", false},
		{"nginx", "http { server { listen 80; location / { proxy_pass http://unix:" + jail + "/no.sock; } } }", true},
		{"nginx", "http { server { listen 80; location / { proxy_pass http://unix:run/app.sock; } } }", false}, // from where the process stands
		{"nginx", "http { server { listen 80; location / { proxy_pass http://unix:" + loop + "; } } }", false}, // ELOOP: not told
		{"haproxy", "global\n chroot " + jail + "\nlisten l\n bind :80\n server a /app.sock\n", false},
		{"haproxy", "global\n chroot " + jail + "\nlisten l\n bind :80\n server a unix@" + jail + "/app.sock\n", true},
		{"haproxy", "listen l\n bind :80\n server a unix@" + jail + "/app.sock\n", false},
	} {
		c := begun(t, x.program, map[string]string{"server.conf": x.text})
		a, ok := c.Ask(Query{Port: 80})
		if !ok || len(a.Backends) != 1 || a.Backends[0].Missing != x.missing || len(c.Gaps) > 0 {
			t.Errorf("%s: %v %+v, gaps %q", x.text, ok, a.Backends, c.Gaps)
		}
	}
	// Once the time is over, nothing is said to be missing.
	tr, err := openTree(t.Context(), jail)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	tr.ctx = over
	if tr.absent("/no.sock") {
		t.Error("absent without a look")
	}
}

// TestSpares: servers that step in when the others are gone take part.
func TestSpares(t *testing.T) {
	t.Parallel()
	for program, text := range map[string]string{
		"nginx":   "http { upstream u { server 127.0.0.1:9 ; server 127.0.0.1:10 backup; server 127.0.0.1:11 down; } server { listen 80; location / { proxy_pass http://u; } } }",
		"haproxy": "listen l\n bind :80\n server a 127.0.0.1:9\n server b 127.0.0.1:10 backup\n server c 127.0.0.1:11 disabled\n",
		"apache2": "Listen 80\nLoadModule proxy_module x\nLoadModule proxy_http_module x\n<Proxy balancer://u>\nBalancerMember http://127.0.0.1:9\nBalancerMember http://127.0.0.1:10 status=+H\nBalancerMember http://127.0.0.1:11 status=D\n</Proxy>\nProxyPass / balancer://u/\n",
	} {
		c := begun(t, program, map[string]string{"server.conf": text})
		a, ok := c.Ask(Query{Port: 80})
		var ports []uint16
		for _, b := range a.Backends {
			ports = append(ports, b.Port)
		}
		if !ok || !slices.Equal(ports, []uint16{9, 10}) {
			t.Errorf("%s: %v %v, gaps %q", program, ok, ports, c.Gaps)
		}
	}
}

// TestUnsureChoices: what decides in a way that is not understood makes the answer
// unsure.
func TestUnsureChoices(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		program, text string
		want          string
		unsure        int
	}{
		{"nginx", "http { server { listen 80; location / { if ($http_upgrade) { break; } return 426; proxy_pass http://a:1; } } }", "proxy_pass http://a:1", 0},
		{"nginx", "http { server { listen 80; location / { if ($http_upgrade) { rewrite ^ /x break; } return 426; proxy_pass http://a:1; } } }", "proxy_pass http://a:1", 0},
		{"nginx", "http { server { listen 80; location / { if ($http_upgrade) { proxy_pass http://a:1; } return 426; } } }", "return 426", 0},
		{"nginx", "http { map $host $b { hostnames; default b:1; *.example.com a:1; } server { listen 80; location / { proxy_pass http://$b; } } }", "proxy_pass http://$b", 0},
		{"nginx", "http { server { listen 80; location / { nchan_pubsub websocket; } } }", "nchan_pubsub websocket", 1},
		{"nginx", "http { server { listen 80; location / { websockify_pass 127.0.0.1:5900; } } }", "websockify_pass 127.0.0.1:5900", 1},
		{"nginx", "http { server { listen 80; passenger_enabled on; root /srv/app/public; } }", "passenger_enabled on", 1},
		{"nginx", "http { passenger_enabled on; server { listen 80; passenger_enabled off; root /srv/app/public; } }", "root /srv/app/public", 0},
		{"apache2", "Listen 80\n<VirtualHost www.example.com:80>\nRedirect 404 /\n</VirtualHost>\n", "no VirtualHost for the port: the main server", 1},
		{"apache2", "Listen 80\n<Directory /srv>\nAllowOverride All\n</Directory>\n<VirtualHost *:80>\nDocumentRoot /srv/www\n</VirtualHost>\n", "DocumentRoot /srv/www", 1},
		{"apache2", "Listen 80\n<Directory ~ ^/s>\nAllowOverride FileInfo\n</Directory>\nDocumentRoot /srv/www\n", "DocumentRoot /srv/www", 1},
		{"apache2", "Listen 80\n<Directory /srv/www/chat>\nSetHandler proxy:ws://127.0.0.1:9/\n</Directory>\nDocumentRoot /srv/www\n", "DocumentRoot /srv/www", 1},
		{"apache2", "Listen 80\n<Directory /srv/w>\nAllowOverride All\n</Directory>\n<Directory />\nAllowOverride None\n</Directory>\nDocumentRoot /srv/www\n", "DocumentRoot /srv/www", 0},
		{"apache2", "Listen 80\n<VirtualHost www.example.com:81>\nRedirect 404 /\n</VirtualHost>\n", "no VirtualHost for the port: the main server", 0},
	} {
		c := begun(t, x.program, map[string]string{"server.conf": x.text})
		a, ok := c.Ask(Query{Port: 80, Host: "www.example.com", Path: "/chat", WebSocket: true, From: netip.MustParseAddr("203.0.113.1")})
		if !ok || a.Action.Text != x.want || len(a.Unsure) != x.unsure || len(c.Gaps) > 0 || strings.Contains(x.text, "hostnames") && a.Backends != nil {
			t.Errorf("%s: %v %q %v %v, want %q, gaps %q", x.text, ok, a.Action.Text, a.Unsure, a.Backends, x.want, c.Gaps)
		}
	}
}
