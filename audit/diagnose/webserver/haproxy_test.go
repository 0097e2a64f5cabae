package webserver

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
)

// TestHAProxyFiles: several files and directories are one configuration.
func TestHAProxyFiles(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{
		"a.cfg": "defaults\n mode http\n", "d/2.cfg": "backend b\n server s 127.0.0.1:9\n", "d/1.cfg": "frontend f\n bind :80\n default_backend b\n", "d/.no.cfg": "garbage\n", "d/no": "garbage\n",
	})
	c := run(t, "haproxy", "-Ws", "-f", filepath.Join(dir, "a.cfg"), "-f", filepath.Join(dir, "d"))
	if want := []string{dir + "/a.cfg", dir + "/d/1.cfg", dir + "/d/2.cfg"}; len(c.Gaps) > 0 || !slices.Equal(c.Files, want) {
		t.Errorf("read %q, want %q, gaps %q", c.Files, want, c.Gaps)
	}
	if a, ok := c.Ask(Query{Port: 80}); !ok || a.Does != Forwards || len(a.Backends) != 1 || a.Backends[0].Port != 9 || a.Bytes {
		t.Errorf("%+v", a)
	}
}

// TestHAProxyConditions: acls as HAProxy's manual has them (7.1, 7.2).
func TestHAProxyConditions(t *testing.T) {
	t.Parallel()
	for cond, want := range map[string]Tri{
		"if { path /chat }": Yes, "if { path /cha }": No, "if { path_beg /ch }": Yes, "if { path -m beg /ch }": Yes, "if { path_end at }": Yes, "if { path_reg ^/c.*t$ }": Yes, "if { path_reg ( }": Unknown,
		"if !{ path /chat }": No, "if ! { path /chat }": No, "unless { path /chat }": No, "if { hdr(host) -i WWW.example.com }": Yes, "if { hdr(host) WWW.example.com }": No,
		"if { hdr(host),lower www.example.com }": Yes, "if { req.hdr(Host) -m end .com }": Yes, "if { hdr_dom(host) example.com }": Yes, "if { hdr(host),field(1,:) x }": Unknown, "if { hdr(cookie) -m found }": Unknown,
		"if { hdr(Upgrade) -i WebSocket } { hdr(Connection) -i upgrade }": Yes, "if { path /a } || { path /chat }": Yes, "if { path /a } or { path /b }": No, "if { path /a } { lua.x }": No, "if { path /chat } { lua.x }": Unknown,
		"if { lua.x } || { path /chat }": Yes, "if { lua.x } || { path /a }": Unknown, "if named": Yes, "if !named": No, "if nobody": Unknown, "if TRUE": Yes, "if FALSE || METH_GET": Yes, "if { src 203.0.113.0/24 }": Yes, "if { src -f list }": Unknown,
		"if { ssl_fc }": No, "if": Unknown, "if {": Unknown, "unless": Unknown, "if { method GET POST }": Yes, "if { path_dir chat }": Yes, "if { path_sub ha }": Yes,
	} {
		c := run(t, "haproxy", "-f", filepath.Join(files(t, map[string]string{"x.cfg": "frontend f\n mode http\n bind :80\n acl named path /x\n acl named path /chat\n use_backend b " + cond + "\nbackend b\n server s 127.0.0.1:9\n"}), "x.cfg"))
		a, ok := c.Ask(Query{Port: 80, Host: "www.example.com", Path: "/chat", WebSocket: true, From: netip.MustParseAddr("203.0.113.9")})
		got := tri(a.Does == Forwards)
		if len(a.Unsure) > 0 {
			got = Unknown
		}
		if !ok || got != want || len(c.Gaps) > 0 {
			t.Errorf("%s: %d, want %d %q", cond, got, want, c.Gaps)
		}
	}
}

// FuzzHAProxy: no text makes the reader fall, hang or leave its bounds.
func FuzzHAProxy(f *testing.F) {
	for _, s := range []string{
		"frontend \nbind :80\nuse_backend if || 0", "frontend f\n bind :80\n use_backend\n default_backend\n redirect\n http-request if a",
		"frontend f\n bind :80,[::]:8080 ssl crt x\n mode http\n acl a path_beg -i /x\n use_backend b if a || !{ ssl_fc }\nbackend b\n server s a:1 check\n", "listen l\n bind *:80-90\n server s 1.2.3.4\n",
		"defaults a\ndefaults b from a\n timeout client 1h\nfrontend f from b\n bind :80\n http-request redirect scheme https code 301 unless { ssl_fc }\n", "frontend f\n bind \"${HOST-x}:80\"\n tcp-request connection reject if { src 1.2.3.4 }\n",
	} {
		f.Add([]byte(s))
	}
	empty := emptyTree(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		tr := empty(t)
		r := &haReader{tree: tr, c: &Config{}, env: map[string]string{}}
		if r.text("x", string(b)) != nil {
			return
		}
		h := &haproxy{sections: r.sections, missing: map[string]bool{}}
		h.sockets(tr)
		for _, q := range queries {
			if a, ok := h.ask(q); ok && a.Listen.Line == 0 {
				t.Errorf("%+v: no line opens the port", q)
			}
		}
	})
}
