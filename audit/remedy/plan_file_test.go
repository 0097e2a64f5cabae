package remedy

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/listeners"
)

// TestRebind holds the one line that each known server binds by, and that nothing
// is guessed where several say so.
func TestRebind(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	for _, c := range []struct {
		comm, command, file, before, after string
		addr                               netip.Addr
		port                               uint16
	}{
		{"nginx", "", "/etc/nginx/conf.d/a.conf", "server {\n  listen 127.0.0.1:8080 default_server;\n  listen 127.0.0.1:8081;\n}\n", "server {\n  listen 0.0.0.0:8080 default_server;\n  listen 127.0.0.1:8081;\n}\n", v4, 8080},
		{"nginx", "", "/etc/nginx/nginx.conf", "  listen [::1]:8080;\n", "  listen [::]:8080;\n", v6, 8080},
		{"apache2", "", "/etc/apache2/ports.conf", "Listen 127.0.0.1:80\n", "Listen 0.0.0.0:80\n", v4, 80},
		{"haproxy", "", "/etc/haproxy/haproxy.cfg", "  bind 127.0.0.1:443 ssl crt /x\n", "  bind 0.0.0.0:443 ssl crt /x\n", v4, 443},
		{"php-fpm8.2", "", "/etc/php/8.2/fpm/pool.d/www.conf", "; listen = 127.0.0.1:9000\nlisten = 127.0.0.1:9000\r\n", "; listen = 127.0.0.1:9000\nlisten = 0.0.0.0:9000\r\n", v4, 9000},
		{"redis-server", "", "/etc/redis/redis.conf", "# bind 127.0.0.1\nbind 127.0.0.1 -::1\n", "# bind 127.0.0.1\nbind 0.0.0.0\n", v4, 6379},
		{"postgres", "", "/etc/postgresql/15/main/postgresql.conf", "#listen_addresses = 'localhost'\t# what\n", "listen_addresses = '*'\t# what\n", v4, 5432},
		{"mariadbd", "", "/etc/mysql/mariadb.conf.d/50-server.cnf", "bind-address            = 127.0.0.1\n", "bind-address            = 0.0.0.0\n", v4, 3306},
		{"mongod", "", "/etc/mongod.conf", "net:\n  port: 27017\n  bindIp: 127.0.0.1\n", "net:\n  port: 27017\n  bindIp: 0.0.0.0\n", v4, 27017},
		{"memcached", "", "/etc/memcached.conf", "-l 127.0.0.1\n", "-l 0.0.0.0\n", v4, 11211},
		{"php", "WorkerMan: master process  start_file=/srv/chat/start.php\x00", "/srv/chat/start.php", "<?php\n$w = new Worker('websocket://127.0.0.1:2346');\n", "<?php\n$w = new Worker('websocket://0.0.0.0:2346');\n", v4, 2346},
	} {
		srv := serverOf(&listeners.Process{Comm: listeners.HostText(c.comm), Command: listeners.HostText(c.command)})
		if srv == nil {
			t.Errorf("%s is not known", c.comm)
			continue
		}
		name, before, after, err := srv.rebind(map[string][]byte{c.file: []byte(c.before), "/etc/other": []byte(c.before)}, c.addr, c.port)
		if err != nil || name != c.file || before != c.before {
			t.Errorf("%s: %s %v", c.comm, name, err)
		}
		if d := cmp.Diff(c.after, after); d != "" {
			t.Errorf("%s: %s", c.comm, d)
		}
		if _, _, _, err := srv.rebind(map[string][]byte{c.file: []byte(c.before + c.before)}, c.addr, c.port); err == nil {
			t.Errorf("%s: two lines, and one was chosen", c.comm)
		}
		if _, _, _, err := srv.rebind(map[string][]byte{c.file: []byte(c.after)}, c.addr, c.port); err == nil {
			t.Errorf("%s: no line, and one was found", c.comm)
		}
	}
}

// TestFilePlans: the limit of open files of a unit, and a bind address that is
// changed on request only.
func TestFilePlans(t *testing.T) {
	lab.Need(t)
	d := newDrill(t, false, everybody)
	d.lab.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("127.0.0.1:9999")})
	d.cfg.Services = []audit.Service{{Name: "app", Proto: "tcp", Port: 9999, Audience: everybody, Source: "test"}}
	config := "server {\n  listen 127.0.0.1:9999;\n}\n"
	d.put("/etc/nginx/conf.d/app.conf", config)
	const drop = "/etc/systemd/system/app.service.d/50-hostaudit.conf"
	plan := func(configuration bool) (p *Plan, in Input) {
		t.Helper()
		d.lab.Server.Do(func() {
			in = d.input()
			ls := in.Snapshot.World.Namespaces[0].Listeners.Listeners
			for i := range ls {
				if ls[i].Port() == 9999 {
					ls[i].Owners = []listeners.Process{{PID: 1, Comm: "nginx", Unit: "app.service", Files: listeners.FileLimit{Open: 1000, Soft: 1024, Hard: 4096}}}
				}
			}
			if err := d.sys.Gather(&in); err != nil {
				t.Fatal(err)
			}
			in.Findings, in.Configuration = []string{nofileNear, loopbackOnly}, configuration
			var err error
			if p, err = NewPlan(in); err != nil {
				t.Fatal(err)
			}
		})
		return p, in
	}
	p, _ := plan(false)
	if len(p.Changes) != 1 || p.Changes[0].Restart == "" || !strings.Contains(p.Text(nil, false), "+  listen 0.0.0.0:9999;") {
		t.Fatalf("not asked for, and:\n%s", p.Text(nil, false))
	}
	p, _ = plan(true)
	if len(p.Changes) != 2 {
		t.Fatalf("%s", p.Text(nil, false))
	}
	d.lab.Server.Do(func() {
		if err := d.sys.Apply(t.Context(), p, ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	if got := d.get("/etc/nginx/conf.d/app.conf"); got != strings.Replace(config, "127.0.0.1", "0.0.0.0", 1) {
		t.Errorf("the configuration is\n%s", got)
	}
	if got := d.get(drop); !strings.Contains(got, "LimitNOFILE=524288\n") {
		t.Errorf("the drop-in is\n%s", got)
	}
	if again, _ := plan(true); len(again.Steps) != 0 {
		t.Errorf("a second time there is something to do:\n%s", again.Text(nil, false))
	}
	d.lab.Server.Do(func() {
		if err := d.sys.Rollback(t.Context(), "", false); err != nil {
			t.Error(err)
		}
	})
	if _, err := os.Stat(d.sys.Root + drop); err == nil || d.get("/etc/nginx/conf.d/app.conf") != config {
		t.Error("after the rollback it is not as it was")
	}
	// Never for what should stay private.
	d.cfg.Services = nil
	if p, _ = plan(true); strings.Contains(p.Text(nil, false), "0.0.0.0") {
		t.Errorf("nobody declared it:\n%s", p.Text(nil, false))
	}
}

// TestInstance: of several instances only the one with the port is changed.
func TestInstance(t *testing.T) {
	srv := serverOf(&listeners.Process{Comm: "redis-server"})
	files := map[string][]byte{"/etc/redis/redis.conf": []byte("bind 127.0.0.1\nport 6380\n")}
	if _, _, after, err := srv.rebind(files, netip.MustParseAddr("127.0.0.1"), 6379); err == nil {
		t.Errorf("another instance's file was changed:\n%s", after)
	}
	if _, _, after, err := srv.rebind(files, netip.MustParseAddr("127.0.0.1"), 6380); err != nil || !strings.Contains(after, "bind 0.0.0.0\n") {
		t.Errorf("%v\n%s", err, after)
	}
}

// TestRebindKeepsStrangersOut: a server for certain networks is bound to every
// address only where the firewall keeps everybody else out, and the plan says who
// reaches it after the restart.
func TestRebindKeepsStrangersOut(t *testing.T) {
	lab.Need(t, "nft")
	const friends = "10.9.0.0/24"
	nets := audit.Audience{Kind: audit.ForNetworks, Networks: []netip.Prefix{netip.MustParsePrefix(friends)}}
	d := newDrill(t, false, nets)
	d.lab.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("127.0.0.1:6379")})
	d.cfg.Services = []audit.Service{{Name: "cache", Proto: "tcp", Port: 6379, Audience: nets, Source: "test"}}
	d.put("/etc/redis/redis.conf", "bind 127.0.0.1 -::1\n")
	plan := func() (p *Plan) {
		t.Helper()
		d.lab.Server.Do(func() {
			in := d.input()
			ls := in.Snapshot.World.Namespaces[0].Listeners.Listeners
			for i := range ls {
				if ls[i].Port() == 6379 {
					ls[i].Owners = []listeners.Process{{PID: 1, Comm: "redis-server", Unit: "redis.service"}}
				}
			}
			if err := d.sys.Gather(&in); err != nil {
				t.Fatal(err)
			}
			in.Findings, in.Configuration = []string{loopbackOnly}, true
			var err error
			if p, err = NewPlan(in); err != nil {
				t.Fatal(err)
			}
		})
		return p
	}
	if p := plan(); len(p.Changes) != 0 || len(p.Manual) != 1 || !strings.Contains(p.Manual[0].Why, "would reach it, too") || p.Manual[0].Diff == "" {
		t.Errorf("nothing keeps strangers out, and:\n%s", p.Text(nil, false))
	}
	d.lab.Server.Load(t, lab.NFT, "table inet filter { chain input { type filter hook input priority filter; policy drop; ct state established,related accept; ip saddr "+friends+" tcp dport 6379 accept; }; }")
	p := plan()
	if len(p.Changes) != 1 || len(p.Effect.Opens) == 0 || len(p.Notes) == 0 || !strings.Contains(p.Notes[0], "protected-mode") {
		t.Fatalf("%s", p.Text(nil, false))
	}
	for _, r := range p.Effect.Opens {
		if r.Once == "" || !ranges(r.From).Minus(ranges(nets.Networks)).Empty() {
			t.Errorf("it opens to %v, once %q", r.From, r.Once)
		}
	}
}
