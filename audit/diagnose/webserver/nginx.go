package webserver

import (
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// nginx answers from directives.
type nginx struct {
	t         *tree // for sockets of backends, while reading
	servers   []*nginxServer
	upstreams map[string]*directive
	maps      map[string]*directive // by the variable that they set, without $
	missing   map[string]bool       // sockets that are not there
}

type nginxServer struct {
	d      *directive
	outer  *directive // http or stream
	stream bool
	listen []nginxListen
	names  []string
}

type nginxListen struct {
	d          *directive // nil for the default that no line names
	addr       netip.Addr // unspecified for every address
	low, high  uint16
	first, ssl bool
	mapped     bool // of [::]: it takes IPv4 as well
	unclear    bool // a host name
}

func newNginx(t *tree, main []*directive) *nginx {
	n := &nginx{t: t, upstreams: map[string]*directive{}, maps: map[string]*directive{}, missing: map[string]bool{}}
	for _, outer := range main {
		if outer.name != "http" && outer.name != "stream" {
			continue
		}
		for _, d := range outer.block {
			switch d.name {
			case "server":
				s := &nginxServer{d: d, outer: outer, stream: outer.name == "stream"}
				s.read()
				n.servers = append(n.servers, s)
			case "upstream":
				n.upstreams[outer.name+" "+d.arg(0)] = d
			case "map":
				n.maps[strings.TrimPrefix(d.arg(1), "$")] = d
			}
		}
	}
	n.sockets(main)
	n.t = nil
	return n
}

// sockets looks which sockets of the file system that are named as backends are
// there: asked later, nothing is read.
func (n *nginx) sockets(ds []*directive) {
	for _, d := range ds {
		for _, a := range d.args {
			if p := socketPath(a); p != "" && n.t.absent(p) {
				n.missing[p] = true
			}
		}
		n.sockets(d.block)
	}
}

// socketPath is the path in unix:/path, http://unix:/path:/uri, "" for none.
func socketPath(s string) string {
	_, p, ok := strings.Cut(s, "unix:")
	if !ok || strings.Contains(p, "$") {
		return ""
	}
	p, _, _ = strings.Cut(p, ":")
	return p
}

func (s *nginxServer) read() {
	for _, d := range s.d.block {
		switch d.name {
		case "listen":
			if l, ok := nginxListenOf(d); ok {
				s.listen = append(s.listen, l)
			}
		case "server_name":
			for _, a := range d.args {
				s.names = append(s.names, strings.ToLower(a))
			}
		case "ssl": // before 1.25
			if d.arg(0) == "on" {
				for i := range s.listen {
					s.listen[i].ssl = true
				}
			}
		}
	}
	if len(s.listen) == 0 && !s.stream {
		s.listen = []nginxListen{{addr: netip.IPv4Unspecified(), low: 80, high: 80}}
	}
}

func nginxListenOf(d *directive) (l nginxListen, ok bool) {
	l.d = d
	spec := d.arg(0)
	if spec == "" || strings.HasPrefix(spec, "unix:") || slices.Contains(d.args, "quic") || slices.Contains(d.args, "udp") {
		return l, false
	}
	host, port := spec, "80"
	switch i := strings.LastIndexByte(spec, ':'); {
	case strings.HasPrefix(spec, "["):
		end := strings.IndexByte(spec, ']')
		if end < 0 {
			return l, false
		}
		host = spec[1:end]
		if p, found := strings.CutPrefix(spec[end+1:], ":"); found {
			port = p
		}
	case i >= 0:
		host, port = spec[:i], spec[i+1:]
	case spec[0] >= '0' && spec[0] <= '9' && !strings.Contains(spec, "."):
		host, port = "*", spec
	}
	low, high, ranged := strings.Cut(port, "-")
	a, err := strconv.ParseUint(low, 10, 16)
	if err != nil {
		return l, false
	}
	b := a
	if ranged {
		if b, err = strconv.ParseUint(high, 10, 16); err != nil {
			return l, false
		}
	}
	l.low, l.high = uint16(a), uint16(b)
	switch addr, err := netip.ParseAddr(host); {
	case host == "*":
		l.addr = netip.IPv4Unspecified()
	case host == "localhost":
		l.addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case err != nil:
		l.unclear = true
	default:
		l.addr = addr
	}
	for _, p := range d.args[1:] {
		switch p {
		case "default_server", "default":
			l.first = true
		case "ssl":
			l.ssl = true
		case "ipv6only=off":
			l.mapped = true
		}
	}
	return l, true
}

// fits is how well a listen line takes a connection: 2 its very address, 1 every
// address, 0 not.
func (l nginxListen) fits(q Query) int {
	switch {
	case q.Port < l.low || q.Port > l.high || l.unclear:
		return 0
	case !q.Addr.IsValid() && l.addr.IsUnspecified():
		return 1
	case !q.Addr.IsValid():
		return 0
	case l.addr == q.Addr:
		return 2
	case l.addr.IsUnspecified() && (l.addr.Is4() == q.Addr.Is4() || l.addr.Is6() && l.mapped):
		return 1
	}
	return 0
}

// ask answers as nginx would (src/http/ngx_http_request.c, ngx_http_find_virtual_server;
// ngx_http_core_module.c, ngx_http_core_find_location).
func (n *nginx) ask(q Query) (Answer, bool) {
	var a Answer
	best := 0
	for _, s := range n.servers {
		for _, l := range s.listen {
			if l.unclear && q.Port >= l.low && q.Port <= l.high {
				a.Unsure = append(a.Unsure, l.d.note())
			}
			best = max(best, l.fits(q))
		}
	}
	if best == 0 && !q.Addr.IsValid() { // asked about no address: one that is there will do
		for _, s := range n.servers {
			for _, l := range s.listen {
				if q.Port >= l.low && q.Port <= l.high && !l.unclear {
					q.Addr = l.addr
					return n.ask(q)
				}
			}
		}
	}
	if best == 0 {
		return Answer{}, false
	}
	var here []*nginxServer
	var first *nginxServer
	a.TLS = No
	for _, s := range n.servers {
		for _, l := range s.listen {
			if l.fits(q) != best {
				continue
			}
			if !slices.Contains(here, s) {
				here = append(here, s)
			}
			if l.first && first == nil {
				first = s
			}
			if l.d != nil && (a.Listen.Line == 0 || l.ssl && a.TLS == No) {
				a.Listen = l.d.note()
			}
			if l.ssl { // one such line is enough for the whole socket
				a.TLS = Yes
			}
		}
	}
	if first == nil {
		first = here[0]
	}
	if a.Listen.Line == 0 {
		a.Listen = Note{here[0].d.Place, "server without a listen line: port 80"}
	}
	if first.stream {
		n.passes(&a, first)
		return a, true
	}
	r := &nginxRequest{n: n, q: q, a: &a, path: cleanPath(q.Path), vars: map[string]string{}}
	s := r.virtual(here)
	if a.ByDefault = s == nil; s == nil {
		s = first
	}
	a.Site = siteNote(s)
	r.s, r.chain = s, []*directive{s.outer, s.d}
	r.answer()
	return a, true
}

func siteNote(s *nginxServer) Note {
	for _, d := range s.d.block {
		if d.name == "server_name" {
			return d.note()
		}
	}
	return Note{s.d.Place, "server without a server_name"}
}

// passes answers for a server of the stream module.
func (n *nginx) passes(a *Answer, s *nginxServer) {
	a.Does, a.Scheme, a.Upgrade, a.Bytes = Passes, "tcp", Yes, true
	for _, d := range s.d.block {
		switch {
		case d.name == "proxy_pass":
			a.Route, a.Action = d.note(), d.note()
			a.Backends = n.backends("stream", d, d.arg(0), 0)
			if a.Backends == nil {
				a.Unsure = append(a.Unsure, d.note())
			}
		case d.name == "ssl_preread" && d.arg(0) == "on":
			a.TLS = Unknown // it passes TLS through
		case d.name == "return":
			a.Does, a.Action, a.Scheme, a.Upgrade = NotKnown, d.note(), "", Unknown
		case d.name == "deny", d.name == "allow":
			a.Unsure = append(a.Unsure, d.note())
		}
	}
	if a.TLS == No { // a TLS client may mean what is behind
		a.TLS = Unknown
	}
}

// virtual finds the server of a name: exact, *.name, name.*, regular expression.
func (r *nginxRequest) virtual(here []*nginxServer) *nginxServer {
	host := r.q.Host
	var lead, trail, re *nginxServer
	var leadLen, trailLen int
	var unclear []*nginxServer
	for _, s := range here {
		for _, name := range s.names {
			switch {
			case name == host, strings.HasPrefix(name, ".") && name[1:] == host:
				return s
			case strings.HasPrefix(name, "~"):
				if re != nil {
					continue
				}
				switch ok, known := r.re.match(name[1:], host, true); {
				case !known:
					unclear = append(unclear, s)
				case ok:
					re = s
				}
			case strings.HasPrefix(name, "*."), strings.HasPrefix(name, "."):
				if tail := strings.TrimPrefix(name, "*"); strings.HasSuffix(host, tail) && len(host) > len(tail) && len(tail) > leadLen {
					lead, leadLen = s, len(tail)
				}
			case strings.HasSuffix(name, ".*"):
				if head := strings.TrimSuffix(name, "*"); strings.HasPrefix(host, head) && len(head) > trailLen {
					trail, trailLen = s, len(head)
				}
			}
		}
	}
	for _, s := range []*nginxServer{lead, trail} {
		if s != nil {
			return s
		}
	}
	for _, s := range unclear { // it came before the one that matches
		r.a.Unsure = append(r.a.Unsure, siteNote(s))
	}
	return re
}

// cleanPath is the path that locations are held against: decoded, with slashes
// merged and dots resolved.
func cleanPath(p string) string {
	p, _, _ = strings.Cut(p, "?")
	if d, err := url.PathUnescape(p); err == nil {
		p = d
	}
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}
