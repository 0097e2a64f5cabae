package remedy

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hostaudit/hostaudit/listeners"
)

// server is a program whose configuration is known: where it lies, and which line
// binds a port.
type server struct {
	name  string
	comms []string // as the kernel names its processes
	// files are patterns (path.Match in the last two components), beneath the root.
	files []string
	// line finds the address in a line: its second group is the address, which is
	// put in place of. With port its third group is the port, which must be the
	// listener's.
	line func() *regexp.Regexp
	port bool
	// wide is what stands for every address.
	wide string
	// number finds the port that the whole file is about, in its first group, for
	// servers whose line does not name it; usual is the port where no line does.
	number func() *regexp.Regexp
	usual  uint16
	// v6only: its [::] does not take IPv4.
	v6only bool
	// gate is what else keeps clients out after the change, in the server itself.
	gate string
	// shown: the file is a program of the operator's own, outside /etc; the patch is
	// shown and never applied.
	shown bool
	// private servers (databases) are never opened to everyone.
	private bool
}

// lazy is compiled where it is used first: most runs use none.
func lazy(s string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(s) })
}

const loopback = `(127\.0\.0\.1|localhost|\[?::1\]?)`

var servers = []server{
	{name: "nginx", comms: []string{"nginx"}, port: true, wide: "0.0.0.0", v6only: true,
		files: []string{"/etc/nginx/nginx.conf", "/etc/nginx/conf.d/*.conf", "/etc/nginx/sites-available/*", "/etc/nginx/sites-enabled/*"},
		line:  lazy(`^(\s*listen\s+)` + loopback + `:(\d+)\b`)},
	{name: "Apache", comms: []string{"apache2", "httpd"}, port: true, wide: "0.0.0.0",
		files: []string{"/etc/apache2/ports.conf", "/etc/apache2/apache2.conf", "/etc/httpd/conf/httpd.conf", "/etc/httpd/conf.d/*.conf"},
		line:  lazy(`^(\s*(?i:listen)\s+)` + loopback + `:(\d+)\s*$`)},
	{name: "HAProxy", comms: []string{"haproxy"}, port: true, wide: "0.0.0.0", files: []string{"/etc/haproxy/haproxy.cfg", "/etc/haproxy/conf.d/*.cfg"},
		line: lazy(`^(\s*bind\s+)` + loopback + `:(\d+)\b`)},
	{name: "php-fpm", comms: []string{"php-fpm", "php-fpm7.4", "php-fpm8.1", "php-fpm8.2", "php-fpm8.3", "php-fpm8.4"}, port: true, wide: "0.0.0.0", private: true,
		files: []string{"/etc/php/*/fpm/pool.d/*.conf", "/etc/php-fpm.d/*.conf"},
		gate:  "listen.allowed_clients names who may connect, where it is set; without it whoever connects runs programs",
		line:  lazy(`^(\s*listen\s*=\s*)` + loopback + `:(\d+)\s*$`)},
	{name: "Redis", comms: []string{"redis-server", "valkey-server"}, wide: "0.0.0.0", private: true, files: []string{"/etc/redis/redis.conf", "/etc/redis.conf", "/etc/valkey/valkey.conf"},
		number: lazy(`^\s*port\s+(\d+)\s*$`), usual: 6379,
		gate: "with protected-mode yes and no password it answers local clients only (DENIED Redis is running in protected mode)",
		line: lazy(`^(\s*bind\s+)(127\.0\.0\.1(?:\s+-?::1)?|-?::1)\s*$`)},
	{name: "PostgreSQL", comms: []string{"postgres"}, wide: "*", private: true, files: []string{"/etc/postgresql/*/*/postgresql.conf"},
		number: lazy(`^\s*port\s*=\s*(\d+)\b`), usual: 5432,
		gate: "pg_hba.conf decides who may log in from where (no pg_hba.conf entry for host)",
		line: lazy(`^(\s*#?\s*listen_addresses\s*=\s*')(localhost|127\.0\.0\.1)'`)},
	{name: "MySQL", comms: []string{"mysqld", "mariadbd"}, wide: "0.0.0.0", private: true,
		files:  []string{"/etc/mysql/my.cnf", "/etc/mysql/mysql.conf.d/*.cnf", "/etc/mysql/mariadb.conf.d/*.cnf", "/etc/my.cnf", "/etc/my.cnf.d/*.cnf"},
		number: lazy(`^\s*port\s*=\s*(\d+)\s*$`), usual: 3306,
		gate: "accounts name the hosts they may come from (Host is not allowed to connect)",
		line: lazy(`^(\s*bind[-_]address\s*=\s*)` + loopback + `\s*$`)},
	{name: "MongoDB", comms: []string{"mongod"}, wide: "0.0.0.0", private: true, files: []string{"/etc/mongod.conf", "/etc/mongodb.conf"},
		number: lazy(`^\s*port:\s*(\d+)\s*$`), usual: 27017, gate: "without security.authorization everybody who connects may do everything",
		line: lazy(`^(\s*bindIp:\s*)(127\.0\.0\.1|localhost)\s*$`)},
	{name: "memcached", comms: []string{"memcached"}, wide: "0.0.0.0", private: true, files: []string{"/etc/memcached.conf"},
		number: lazy(`^-p\s+(\d+)\s*$`), usual: 11211, gate: "memcached asks nobody for a password",
		line: lazy(`^(-l\s+)` + loopback + `\s*$`)},
}

// Workerman names its start file in the title of its processes, and binds where
// that file says.
var (
	startFile  = lazy(`^WorkerMan: .*start_file=(/[^\s*?\[\]\\]+\.php)`)
	workerLine = lazy(`^(.*\bnew\s+\\?(?:\w+\\)*Worker\(\s*['"][a-z]+://)` + loopback + `:(\d+)\b`)
)

// serverOf is the known server that a process is, nil for others.
func serverOf(p *listeners.Process) *server {
	if p == nil || p.Container != nil {
		return nil
	}
	if m := startFile().FindStringSubmatch(strings.ReplaceAll(string(p.Command), "\x00", " ")); m != nil && path.Clean(m[1]) == m[1] {
		return &server{name: "Workerman", files: []string{m[1]}, line: workerLine, port: true, wide: "0.0.0.0", shown: true}
	}
	for i := range servers {
		if slices.Contains(servers[i].comms, string(p.Comm)) {
			return &servers[i]
		}
	}
	return nil
}

// rebind finds the one line that binds the port to the address, in the files that
// were read, and gives the file before and after. Where no line or several say
// so, nothing is guessed.
func (s *server) rebind(files map[string][]byte, addr netip.Addr, port uint16) (name, before, after string, err error) {
	type place struct {
		file string
		line int
	}
	var found []place
	var text string
	for _, f := range sorted(files) {
		if !s.reads(f) || !s.about(files[f], port) {
			continue
		}
		lines := strings.SplitAfter(string(files[f]), "\n")
		for n, l := range lines {
			body := strings.TrimRight(l, "\r\n")
			m := s.line().FindStringSubmatchIndex(body)
			if m == nil || strings.HasPrefix(strings.TrimSpace(body), ";") {
				continue
			}
			if s.port {
				if got, err := strconv.Atoi(body[m[6]:m[7]]); err != nil || got != int(port) {
					continue
				}
			}
			if is6 := strings.Contains(body[m[4]:m[5]], "::1"); is6 != addr.Is6() && !strings.Contains(body[m[4]:m[5]], "127.") && body[m[4]:m[5]] != "localhost" {
				continue
			}
			wide := s.wide
			if addr.Is6() && s.port {
				wide = "[::]"
			}
			lead := body[m[2]:m[3]]
			lead = strings.Replace(lead, "#", "", 1) // postgresql shows its default in a comment
			found = append(found, place{f, n})
			changed := slices.Clone(lines)
			changed[n] = lead + wide + l[m[5]:]
			name, before, text = f, string(files[f]), strings.Join(changed, "")
		}
	}
	switch len(found) {
	case 0:
		return "", "", "", fmt.Errorf("no line of %s's configuration that binds it was found (%s)", s.name, strings.Join(s.files, ", "))
	case 1:
		return name, before, text, nil
	}
	return "", "", "", errors.New(s.name + " binds it in several places: " + found[0].file + ", " + found[1].file)
}

// about says whether a file is that of the instance with the port: a host may run
// several.
func (s *server) about(data []byte, port uint16) bool {
	if s.number == nil {
		return true
	}
	is := s.usual
	for line := range strings.Lines(string(data)) {
		if m := s.number().FindStringSubmatch(strings.TrimRight(line, "\r\n")); m != nil {
			n, err := strconv.ParseUint(m[1], 10, 16)
			if err != nil {
				return false
			}
			is = uint16(n)
		}
	}
	return is == port
}

// rebound are the sockets that the server has after its restart, as far as its
// configuration decides.
func (s *server) rebound(l *listeners.Listener) []*listeners.Listener {
	at := func(a netip.Addr, v6only bool) *listeners.Listener {
		n := *l
		n.Local, n.V6Only = netip.AddrPortFrom(a, l.Port()), v6only
		return &n
	}
	switch {
	case s.wide == "*":
		return []*listeners.Listener{at(netip.IPv4Unspecified(), false), at(netip.IPv6Unspecified(), true)}
	case s.port && l.Local.Addr().Is6():
		return []*listeners.Listener{at(netip.IPv6Unspecified(), s.v6only)}
	}
	return []*listeners.Listener{at(netip.IPv4Unspecified(), false)}
}

func sorted(files map[string][]byte) []string {
	out := make([]string, 0, len(files))
	for f := range files {
		out = append(out, f)
	}
	slices.Sort(out)
	return out
}

// reads says whether a file is one of the server's.
func (s *server) reads(name string) bool {
	return slices.ContainsFunc(s.files, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return err == nil && ok
	})
}
