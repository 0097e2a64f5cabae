package webserver

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// apache answers from directives.
type apache struct {
	main      []*directive
	hosts     []*apacheHost
	listen    []*directive
	balancers map[string][]*directive
	modules   map[string]bool
	missing   map[string]bool
}

// apacheHost is a virtual host; the main server is one without addresses.
type apacheHost struct {
	d     *directive // nil for the main server
	block []*directive
	addrs []apacheAddr
	names []string
	// named are the ports of its addresses that are host names, 0 for every one.
	named []uint16
}

type apacheAddr struct {
	addr netip.Addr // invalid for every address
	port uint16     // 0 for every port
}

func newApache(t *tree, main []*directive, modules map[string]bool) *apache {
	a := &apache{main: main, balancers: map[string][]*directive{}, modules: modules, missing: map[string]bool{}}
	for _, d := range main {
		switch d.name {
		case "listen":
			a.listen = append(a.listen, d)
		case "virtualhost":
			h := &apacheHost{d: d, block: d.block}
			for _, spec := range d.args {
				switch x, ok := apacheAddrOf(spec); {
				case ok:
					h.addrs = append(h.addrs, x)
				default:
					h.named = append(h.named, x.port)
				}
			}
			h.naming()
			a.hosts = append(a.hosts, h)
		}
	}
	a.backendsOf(t, main)
	return a
}

// backendsOf notes balancers, and the sockets named that are not there.
func (a *apache) backendsOf(t *tree, ds []*directive) {
	for _, d := range ds {
		if d.name == "proxy" && strings.HasPrefix(d.arg(0), "balancer:") {
			a.balancers[strings.TrimSuffix(d.arg(0), "/")] = d.block
		}
		for _, arg := range d.args {
			if p := apacheSocket(arg); p != "" && t.absent(p) {
				a.missing[p] = true
			}
		}
		a.backendsOf(t, d.block)
	}
}

// apacheSocket is the path in unix:/path|http://name, "" for none.
func apacheSocket(s string) string {
	s, ok := strings.CutPrefix(strings.TrimPrefix(s, "proxy:"), "unix:")
	if !ok {
		return ""
	}
	p, _, _ := strings.Cut(s, "|")
	return p
}

func (h *apacheHost) naming() {
	for _, d := range h.block {
		if d.name != "servername" && d.name != "serveralias" {
			continue
		}
		for _, n := range d.args {
			if _, rest, ok := strings.Cut(n, "://"); ok {
				n = rest
			}
			if i := strings.LastIndexByte(n, ':'); i > 0 && d.name == "servername" {
				n = n[:i]
			}
			h.names = append(h.names, strings.ToLower(n))
		}
	}
}

func apacheAddrOf(spec string) (a apacheAddr, ok bool) {
	host, port := spec, ""
	if end := strings.IndexByte(spec, ']'); strings.HasPrefix(spec, "[") && end > 0 {
		host, port = spec[1:end], strings.TrimPrefix(spec[end+1:], ":")
	} else if i := strings.LastIndexByte(spec, ':'); i >= 0 {
		host, port = spec[:i], spec[i+1:]
	}
	if port != "" && port != "*" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return a, false
		}
		a.port = uint16(n)
	}
	if host != "*" && host != "_default_" {
		var err error
		if a.addr, err = netip.ParseAddr(host); err != nil {
			return a, false
		}
	}
	return a, true
}

// listens finds the line that opens the port.
func (a *apache) listens(q Query) *directive {
	var wild *directive
	for _, d := range a.listen {
		spec := d.arg(0)
		if !strings.Contains(spec, ":") {
			spec = "*:" + spec
		}
		x, ok := apacheAddrOf(spec)
		switch {
		case !ok || x.port != q.Port:
		case x.addr.IsValid() && !x.addr.IsUnspecified() && q.Addr.IsValid() && x.addr == q.Addr:
			return d
		case !x.addr.IsValid() || x.addr.IsUnspecified() || !q.Addr.IsValid():
			if wild == nil {
				wild = d
			}
		}
	}
	return wild
}

// ask answers as Apache would (server/vhost.c; modules/mappers/mod_rewrite.c;
// modules/proxy/mod_proxy.c, proxy_trans; modules/mappers/mod_alias.c).
func (a *apache) ask(q Query) (Answer, bool) {
	l := a.listens(q)
	if l == nil {
		return Answer{}, false
	}
	ans := Answer{Listen: l.note()}
	for _, h := range a.hosts { // what a name means only Apache knows, which looked it up
		if slices.Contains(h.named, q.Port) || slices.Contains(h.named, 0) {
			ans.Unsure = append(ans.Unsure, h.d.note())
		}
	}
	hosts := a.at(q)
	site := &apacheHost{block: a.main}
	first := site
	if len(hosts) > 0 {
		site, first = hosts[0], hosts[0]
		ans.ByDefault = true
		for _, h := range hosts {
			if slices.ContainsFunc(h.names, func(n string) bool { return n == q.Host || wildName(n, q.Host) }) {
				site, ans.ByDefault = h, false
				break
			}
		}
		ans.Site = site.d.note()
	} else {
		ans.Site = Note{l.Place, "no VirtualHost for the port: the main server"}
	}
	engine := lastOf(first.block, "sslengine")
	if engine == nil {
		engine = lastOf(a.main, "sslengine")
	}
	switch {
	case !a.modules["ssl_module"]:
		ans.TLS = No
	case engine == nil && (q.Port == 443 || strings.EqualFold(l.arg(1), "https")):
		ans.TLS = Unknown
	case engine == nil || strings.EqualFold(engine.arg(0), "off"):
		ans.TLS = No
	case strings.EqualFold(engine.arg(0), "on"):
		ans.TLS = Yes
		ans.Listen = engine.note()
	}
	r := &apacheRequest{a: a, q: q, ans: &ans, h: site, path: cleanPath(q.Path)}
	r.answer()
	return ans, true
}

// at are the virtual hosts of the address and port, in order.
func (a *apache) at(q Query) (out []*apacheHost) {
	var wild []*apacheHost
	for _, h := range a.hosts {
		for _, x := range h.addrs {
			switch {
			case x.port != 0 && x.port != q.Port:
				continue
			case x.addr.IsValid() && (x.addr == q.Addr || !q.Addr.IsValid()):
				out = append(out, h)
			case !x.addr.IsValid():
				wild = append(wild, h)
			default:
				continue
			}
			break
		}
	}
	if len(out) > 0 && (q.Addr.IsValid() || len(wild) == 0) {
		return out
	}
	return wild
}

// wildName matches ServerAlias with * and ?.
func wildName(pattern, host string) bool {
	if !strings.ContainsAny(pattern, "*?") {
		return false
	}
	ok, err := path.Match(pattern, host)
	return ok && err == nil
}
