package webserver

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// maxValue bounds a text that is made by filling in variables or groups.
const maxValue = 8 << 10

var nginxVariable = regexp.MustCompile(`\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))`)

// value fills in the variables of a text; ok is false where one is not known.
func (r *nginxRequest) value(s string) (v string, ok bool) {
	ok = len(s) <= maxValue
	size := len(s)
	v = nginxVariable.ReplaceAllStringFunc(s, func(m string) string {
		if !ok {
			return ""
		}
		x, known := r.variable(strings.Trim(m, "${}"), 0)
		size += len(x)
		ok = known && size <= maxValue
		return x
	})
	return v, ok
}

// variable is the value of one, in a request that begins as the query does.
func (r *nginxRequest) variable(name string, depth int) (string, bool) {
	name = strings.ToLower(name)
	if v, ok := r.vars[name]; ok {
		return v, true
	}
	switch name {
	case "http_upgrade":
		if r.q.WebSocket {
			return "websocket", true
		}
		return "", true
	case "http_connection":
		if r.q.WebSocket {
			return "Upgrade", true
		}
		return "", false
	case "host", "http_host", "server_name":
		return r.q.Host, name == "host"
	case "scheme":
		if r.q.TLS {
			return "https", true
		}
		return "http", true
	case "https":
		if r.q.TLS {
			return "on", true
		}
		return "", true
	case "server_port":
		return strconv.Itoa(int(r.q.Port)), true
	case "uri", "document_uri":
		return r.path, true
	case "request_method":
		return "GET", true
	case "remote_addr":
		return r.q.From.String(), r.q.From.IsValid()
	}
	m := r.n.maps[name]
	if m == nil || depth > 4 {
		return "", false
	}
	in, ok := m.arg(0), false
	if v, isVar := strings.CutPrefix(in, "$"); isVar {
		in, ok = r.variable(strings.Trim(v, "{}"), depth+1)
	}
	if !ok {
		return "", false
	}
	fallback, re := "", ""
	for _, d := range m.block {
		switch {
		case d.name == "default":
			fallback = d.arg(0)
		case strings.HasPrefix(d.name, "~"):
			if re != "" {
				continue
			}
			p, fold := strings.CutPrefix(d.name[1:], "*")
			if hit, known := r.re.match(p, in, fold); !known {
				return "", false
			} else if hit {
				re = d.arg(0)
			}
		case d.name == "volatile":
		case d.name == "hostnames": // *.example.com: such masks are not held against it here
			return "", false
		case strings.EqualFold(strings.TrimPrefix(d.name, `\`), in):
			return r.plain(d.arg(0), depth)
		}
	}
	return r.plain(cmpOr(re, fallback), depth)
}

// plain is the value that a map gives, which may be another variable.
func (r *nginxRequest) plain(s string, depth int) (string, bool) {
	if v, ok := strings.CutPrefix(s, "$"); ok {
		return r.variable(strings.Trim(v, "{}"), depth+1)
	}
	return s, true
}

// condition decides the brackets of an if.
func (r *nginxRequest) condition(args []string) Tri {
	s := strings.TrimSpace(strings.Join(args, " "))
	s = strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(s, "("), ")"))
	f := strings.Fields(s)
	if len(f) == 0 || !strings.HasPrefix(f[0], "$") {
		return Unknown
	}
	v, ok := r.value(f[0])
	if !ok {
		return Unknown
	}
	if len(f) == 1 {
		return tri(v != "" && v != "0")
	}
	want := strings.Trim(strings.Join(f[2:], " "), `"'`)
	switch f[1] {
	case "=":
		return tri(v == want)
	case "!=":
		return tri(v != want)
	case "~", "~*", "!~", "!~*":
		hit, known := r.re.match(want, v, strings.HasSuffix(f[1], "*"))
		if !known {
			return Unknown
		}
		return tri(hit != strings.HasPrefix(f[1], "!"))
	}
	return Unknown
}

// backends are the addresses of a target: an upstream's, or its own; nil for not
// known.
func (n *nginx) backends(outer string, d *directive, target string, port uint16) []Backend {
	host := target
	if p := socketPath(target); p != "" {
		return []Backend{{Name: p, Unix: true, Missing: n.missing[p], Text: "unix:" + p, Place: d.Place}}
	}
	if i := strings.IndexByte(host, '/'); i >= 0 {
		host = host[:i]
	}
	if up := n.upstreams[outer+" "+host]; up != nil {
		var out []Backend
		for _, s := range up.block {
			if s.name != "server" || hasWord(s.args, "down") {
				continue
			}
			if p := socketPath(s.arg(0)); p != "" {
				out = append(out, Backend{Name: p, Unix: true, Missing: n.missing[p], Text: s.text(), Place: s.Place})
				continue
			}
			b, ok := backendOf(s.arg(0), 80)
			if !ok {
				return nil
			}
			b.Text, b.Place = s.text(), s.Place
			out = append(out, b)
		}
		return out
	}
	b, ok := backendOf(host, port)
	if !ok {
		return nil
	}
	b.Text, b.Place = d.text(), d.Place
	return []Backend{b}
}

func hasWord(args []string, w string) bool {
	for _, a := range args {
		if a == w {
			return true
		}
	}
	return false
}

// backendOf reads HOST[:PORT].
func backendOf(s string, port uint16) (Backend, bool) {
	host, p := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return Backend{}, false
		}
		host, p = s[1:end], strings.TrimPrefix(s[end+1:], ":")
	} else if i := strings.LastIndexByte(s, ':'); i >= 0 {
		if a, err := netip.ParseAddr(s); err != nil || !a.Is6() {
			host, p = s[:i], s[i+1:]
		}
	}
	if p != "" {
		x, err := strconv.ParseUint(p, 10, 16)
		if err != nil || x == 0 {
			return Backend{}, false
		}
		port = uint16(x)
	}
	if host == "" || port == 0 || strings.ContainsAny(host, "$% ") {
		return Backend{}, false
	}
	b := Backend{Port: port, Name: strings.ToLower(host)}
	if a, err := netip.ParseAddr(host); err == nil {
		b.Addr, b.Name = a.Unmap(), ""
	}
	return b, true
}
