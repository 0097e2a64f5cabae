package diagnose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

// Bounds of looking for the unit of a port.
const (
	maxUnits     = 3   // told of
	maxAsked     = 150 // socket units, and services that ended, whose properties are looked at
	maxUnitFiles = 500
)

// unitSearch looks for the units that should hold a port.
type unitSearch struct {
	root     string
	given    string // by --unit
	port     uint16
	services []audit.Service
	earlier  *Earlier
}

// candidate is a unit that may be the port's.
type candidate struct {
	name string
	// found says why, sure that it was named and not guessed.
	found string
	sure  bool
	// state, where it was asked already.
	state *UnitState
}

// units finds the units, the surest first, with what systemd says of them. Where
// systemd does not run, files alone tell.
func (q *unitSearch) units(ctx context.Context) ([]*Unit, error) {
	ctx, cancel := context.WithTimeout(ctx, systemdLimit)
	defer cancel()
	b, err := openBus(ctx, q.root)
	if err != nil {
		var out []*Unit
		for _, c := range q.named() {
			if u := readUnit(q.root, c.name); u.File != "" || c.name == q.given {
				u.Found, u.Sure = c.found, c.sure
				out = append(out, u)
			}
		}
		if errors.Is(err, errNoSystemd) {
			err = nil
		}
		return out[:min(len(out), maxUnits)], err
	}
	defer b.Close()
	all := q.named()
	sockets, err1 := q.sockets(ctx, b)
	ended, err2 := q.ended(ctx, b)
	all = append(append(all, sockets...), ended...)
	all = append(all, q.files()...)
	for _, name := range usual(q.port) {
		all = append(all, candidate{name: name, found: fmt.Sprintf("port %d is usually its", q.port)})
	}
	out, err3 := q.ask(ctx, b, all)
	return out, errors.Join(err1, err2, err3)
}

// ask asks about the candidates; what does not exist, and what is only guessed
// and runs, is none.
func (q *unitSearch) ask(ctx context.Context, b *bus, all []candidate) ([]*Unit, error) {
	var out []*Unit
	for i := 0; i < len(all) && len(out) < maxUnits; i++ {
		c := all[i]
		if !unitName().MatchString(c.name) {
			continue
		}
		s := c.state
		if s == nil {
			var err error
			if s, err = b.unit(ctx, serviceName(c.name)); err != nil {
				return out, err
			}
		}
		given := c.name == q.given
		known := slices.ContainsFunc(out, func(u *Unit) bool { return u.State.ID == s.ID })
		switch {
		case known, s.Load == "not-found" && !given, !c.sure && s.Runs():
			continue
		case !c.sure && s.Active == "inactive" && s.File != "enabled" && len(out) > 0:
			continue // one of several guesses, and not meant to run
		}
		if err := b.missing(ctx, s); err != nil {
			return out, err
		}
		u := readUnit(q.root, c.name)
		u.Name, u.Found, u.Sure, u.State = serviceName(c.name), c.found, c.sure, s
		if unitName().MatchString(s.ID) && s.ID != "" {
			u.Name = s.ID
		}
		out = append(out, u)
		// A socket unit holds the port for a service, and is ended with it.
		for _, other := range append(slices.Clone(s.TriggeredBy), s.Triggers...) {
			if strings.HasSuffix(other, ".socket") || strings.HasSuffix(u.Name, ".socket") {
				o, err := b.unit(ctx, other)
				if err != nil {
					return out, err
				}
				if strings.HasSuffix(other, ".socket") && !listensOn(o.Listen, q.port) || strings.HasSuffix(u.Name, ".socket") && o.Active != "failed" {
					continue
				}
				all = slices.Insert(all, i+1, candidate{other, "it belongs to " + u.Name, c.sure, o})
			}
		}
	}
	return out, nil
}

// missing finds units that another requires and that failed.
func (b *bus) missing(ctx context.Context, s *UnitState) error {
	if s.Active != "inactive" || len(s.Requires) == 0 {
		return nil
	}
	them, err := b.conn.ListUnitsByNamesContext(ctx, s.Requires[:min(len(s.Requires), maxAsked)])
	if err != nil {
		return fmt.Errorf("ask systemd what %s requires: %w", s.ID, err)
	}
	for _, x := range them {
		if x.ActiveState == "failed" || x.LoadState == "not-found" || x.LoadState == "masked" {
			s.Missing = append(s.Missing, x.Name)
		}
	}
	return nil
}

// named are the units that somebody or something names for the port.
func (q *unitSearch) named() []candidate {
	var out []candidate
	if q.given != "" {
		out = append(out, candidate{name: q.given, sure: true})
	}
	if e := q.earlier; e != nil && (strings.HasSuffix(e.Unit, ".service") || strings.HasSuffix(e.Unit, ".socket")) {
		out = append(out, candidate{name: e.Unit, found: "it held the port in the report of " + e.At.Format("2006-01-02 15:04"), sure: true})
	}
	for _, s := range q.services {
		if s.Proto != "udp" && s.Port == q.port && unitName().MatchString(s.Name) {
			out = append(out, candidate{name: s.Name, found: s.Source + " names the service of this port", sure: true})
		}
	}
	return out
}

// those asks about the units of a pattern and of some states that take the port.
func (b *bus) those(ctx context.Context, pattern string, states []string, as candidate, takes func(*UnitState) bool) ([]candidate, error) {
	them, err := b.conn.ListUnitsByPatternsContext(ctx, states, []string{pattern})
	if err != nil {
		return nil, fmt.Errorf("ask systemd for its units %s: %w", pattern, err)
	}
	var out []candidate
	for _, x := range them[:min(len(them), maxAsked)] {
		if x.LoadState != "loaded" {
			continue
		}
		s, err := b.unit(ctx, x.Name)
		if err != nil {
			return out, err
		}
		if takes(s) {
			as.name, as.state = x.Name, s
			out = append(out, as)
		}
	}
	return out, nil
}

// sockets are the socket units that are to listen on the port.
func (q *unitSearch) sockets(ctx context.Context, b *bus) ([]candidate, error) {
	return b.those(ctx, "*.socket", []string{"inactive", "failed", "activating"}, candidate{found: "it is to listen on the port", sure: true}, func(s *UnitState) bool {
		return listensOn(s.Listen, q.port)
	})
}

// ended are the services that failed, or that are being started again and again,
// whose command names the port.
func (q *unitSearch) ended(ctx context.Context, b *bus) ([]candidate, error) {
	return b.those(ctx, "*.service", []string{"failed", "activating"}, candidate{found: "its command names the port"}, func(s *UnitState) bool {
		argv := slices.Clone(s.Environment)
		for _, r := range s.Ran {
			if r.As == "ExecStart" {
				argv = append(argv, r.Argv...)
			}
		}
		return namesPort(append(argv, instance(s.ID)), q.port)
	})
}

// instance is what stands behind the @ of a unit's name, "" for none.
func instance(name string) string {
	_, after, _ := strings.Cut(name, "@")
	if i := strings.LastIndexByte(after, '.'); i >= 0 {
		return "port=" + after[:i]
	}
	return ""
}

// files are the units whose files name the port, started or not. Of the
// distribution's own only socket units are looked at.
func (q *unitSearch) files() []candidate {
	var out []candidate
	seen := 0
	for _, dir := range []string{"etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"} {
		names, err := listWithin(q.root, dir)
		if err != nil {
			continue // most hosts lack some of them
		}
		for _, name := range names {
			socket := strings.HasSuffix(name, ".socket")
			if strings.Contains(name, "@.") || !socket && (!strings.HasSuffix(name, ".service") || strings.Contains(dir, "lib/") && !strings.Contains(dir, "local")) {
				continue
			}
			if seen++; seen > maxUnitFiles {
				return out
			}
			text, err := readWithin(q.root, dir+"/"+name, 64<<10)
			if err != nil {
				continue
			}
			var words []string
			for line := range strings.Lines(string(text)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				switch key = strings.TrimSpace(key); {
				case socket && key == "ListenStream" && listensOn([]string{"Stream " + strings.TrimSpace(value)}, q.port):
					out = append(out, candidate{name: name, found: "it is to listen on the port", sure: true})
				case !socket && (key == "ExecStart" || key == "Environment"):
					words = append(words, strings.Fields(value)...)
				}
			}
			if namesPort(words, q.port) {
				out = append(out, candidate{name: name, found: "its file names the port"})
			}
		}
	}
	return out
}

// listensOn tells that one of "Stream ADDRESS" is at a TCP port.
func listensOn(listen []string, port uint16) bool {
	return slices.ContainsFunc(listen, func(l string) bool {
		kind, addr, _ := strings.Cut(l, " ")
		return kind == "Stream" && !strings.HasPrefix(addr, "/") && !strings.HasPrefix(addr, "@") && (addr == itoa(int(port)) || strings.HasSuffix(addr, ":"+itoa(int(port))))
	})
}

// namesPort tells that the words of a command say on which port to listen.
func namesPort(words []string, port uint16) bool {
	number := itoa(int(port))
	for i, w := range words {
		w = strings.TrimRight(strings.Trim(w, `"'`), "/")
		before, ok := strings.CutSuffix(w, number)
		low := strings.ToLower(before)
		switch {
		case !ok:
		case before == "":
			if i > 0 && (port >= 1024 || strings.Contains(strings.ToLower(words[i-1]), "port") || words[i-1] == "-p" || words[i-1] == "-l") {
				return true
			}
		case low == "-p", low == "-l":
			return true
		case strings.HasSuffix(low, "="):
			for _, key := range []string{"port", "listen", "bind", "addr"} {
				if strings.Contains(low, key) {
					return true
				}
			}
		case strings.HasSuffix(low, ":"):
			host := low[:len(low)-1]
			switch host[strings.LastIndexAny(host, "=/@,")+1:] {
			case "", "0.0.0.0", "[::]", "*", "127.0.0.1", "[::1]", "localhost":
				return true
			}
		}
	}
	return false
}

// usual are the units that usually hold a port.
func usual(port uint16) []string {
	switch port {
	case 22:
		return []string{"ssh", "sshd"}
	case 25:
		return []string{"postfix", "exim4"}
	case 53:
		return []string{"named", "unbound", "dnsmasq"}
	case 80, 443:
		return []string{"nginx", "apache2", "httpd", "caddy", "lighttpd", "haproxy"}
	case 3306:
		return []string{"mariadb", "mysql", "mysqld"}
	case 5432:
		return []string{"postgresql"}
	case 5672:
		return []string{"rabbitmq-server"}
	case 6379:
		return []string{"redis-server", "redis", "valkey"}
	case 11211:
		return []string{"memcached"}
	case 27017:
		return []string{"mongod"}
	}
	return nil
}

func serviceName(name string) string {
	if !strings.Contains(name, ".") {
		name += ".service"
	}
	return name
}
