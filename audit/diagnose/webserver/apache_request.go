package webserver

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// apacheRequest is one request on its way through a virtual host.
type apacheRequest struct {
	a    *apache
	q    Query
	ans  *Answer
	h    *apacheHost
	path string
	// places are the sections of the path, outer ones first: Location merges them
	// in order.
	places []*directive
	re     patterns
}

func (r *apacheRequest) unsure(d *directive) {
	if n := d.note(); !slices.Contains(r.ans.Unsure, n) {
		r.ans.Unsure = append(r.ans.Unsure, n)
	}
}

// servers are the blocks that count for the request: of the main server, and of
// the virtual host.
func (r *apacheRequest) servers() [][]*directive {
	if r.h.d == nil {
		return [][]*directive{r.a.main}
	}
	return [][]*directive{r.a.main, r.h.block}
}

func (r *apacheRequest) answer() {
	for _, block := range r.servers() {
		for _, d := range block {
			switch {
			case d.name == "location" && len(d.args) > 0, d.name == "locationmatch":
				if ok, known := r.inLocation(d); !known {
					r.unsure(d)
				} else if ok {
					r.places = append(r.places, d)
				}
			case d.name == "if", d.name == "elseif", d.name == "else":
				r.dynamic(d)
			case d.name == "proxy" && (d.arg(0) == "*" || d.arg(0) == "~"):
				r.places = append(r.places, d)
			}
		}
	}
	for _, p := range r.places {
		for _, d := range p.block {
			if d.name == "if" || d.name == "elseif" || d.name == "else" {
				r.dynamic(d)
			} else if d.name == "rewriterule" {
				r.unsure(d)
			}
		}
	}
	if r.rewrite() {
		return
	}
	pass := r.proxied()
	if r.denied() {
		return
	}
	if pass != nil {
		r.forward(pass, pass.target, pass.args)
		return
	}
	if r.redirected() {
		return
	}
	r.ans.Does, r.ans.Upgrade = Serves, No
	r.ans.Route = r.ans.Site
	r.ans.Action = r.ans.Site
	root := ""
	for _, block := range r.servers() {
		if d := lastOf(block, "documentroot"); d != nil {
			root, r.ans.Action = d.arg(0), d.note()
		}
	}
	if r.q.WebSocket {
		r.directories(root)
	}
}

// directories: one on the way to the files may have rules of its own, or let its
// .htaccess have some.
func (r *apacheRequest) directories(root string) {
	under := func(a, b string) bool { return underPath(cmpOr(strings.TrimSuffix(a, "/"), "/"), b) }
	for _, block := range r.servers() {
		for _, d := range block {
			p := d.arg(0)
			named := d.name == "directory" && strings.HasPrefix(p, "/") && !magic(p)
			if d.name != "directory" && d.name != "directorymatch" || named && !under(p, root) && !under(root, p) {
				continue
			}
			if slices.ContainsFunc(d.block, func(x *directive) bool {
				return x.name == "rewriterule" || x.name == "sethandler" && strings.HasPrefix(x.arg(0), "proxy:") || x.name == "allowoverride" && !strings.EqualFold(x.arg(0), "none")
			}) {
				r.unsure(d)
			}
		}
	}
}

// dynamic: an <If> decides by an expression.
func (r *apacheRequest) dynamic(d *directive) {
	if slices.ContainsFunc(d.block, func(x *directive) bool {
		return strings.HasPrefix(x.name, "redirect") || strings.HasPrefix(x.name, "require") || strings.HasPrefix(x.name, "proxy") || strings.HasPrefix(x.name, "rewrite") || x.name == "sethandler"
	}) {
		r.unsure(d)
	}
}

// inLocation tells whether a path is of a section (server/request.c,
// ap_location_walk).
func (r *apacheRequest) inLocation(d *directive) (ok, known bool) {
	pattern := d.arg(0)
	if d.name == "locationmatch" {
		return r.re.match(pattern, r.path, false)
	}
	if pattern == "~" {
		return r.re.match(d.arg(1), r.path, false)
	}
	if strings.ContainsAny(pattern, "*?[") {
		return false, false
	}
	p := strings.TrimSuffix(pattern, "/")
	return r.path == pattern || strings.HasPrefix(r.path, p+"/") || r.path == p && p == pattern, true
}

// apachePass is a line by which a request is handed on.
type apachePass struct {
	*directive
	target string
}

// proxied finds the ProxyPass of the path: that of its Location, else the first
// that fits.
func (r *apacheRequest) proxied() *apachePass {
	for _, p := range slices.Backward(r.places) {
		for _, d := range p.block {
			if (d.name == "proxypass" || d.name == "proxypassmatch") && len(d.args) > 0 {
				r.ans.Route = p.note()
				if d.arg(0) == "!" {
					return nil
				}
				return &apachePass{d, d.arg(0)}
			}
			if h, ok := strings.CutPrefix(d.arg(0), "proxy:"); d.name == "sethandler" && ok {
				r.ans.Route = p.note()
				return &apachePass{d, h}
			}
		}
	}
	for _, block := range slices.Backward(r.servers()) {
		for _, d := range block {
			if len(d.args) < 2 {
				continue
			}
			ok := false
			switch d.name {
			case "proxypass":
				ok = underPath(d.arg(0), r.path)
			case "proxypassmatch":
				var known bool
				if ok, known = r.re.match(d.arg(0), r.path, false); !known {
					r.unsure(d)
				}
			}
			if !ok {
				continue
			}
			r.ans.Route = d.note()
			if d.arg(1) == "!" {
				return nil
			}
			return &apachePass{d, d.arg(1)}
		}
	}
	return nil
}

// underPath: /chat is the prefix of /chat and /chat/x, and not of /chats.
func underPath(prefix, p string) bool {
	rest, ok := strings.CutPrefix(p, prefix)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(prefix, "/"))
}

// denied does the access control of the sections of the path.
func (r *apacheRequest) denied() bool {
	for _, p := range slices.Backward(r.places) {
		var grant Tri
		seen := false
		for _, d := range p.block {
			if strings.HasPrefix(d.name, "requirea") || d.name == "requirenone" || d.name == "order" || d.name == "deny" || d.name == "allow" {
				r.unsure(d)
				return false
			}
			if d.name != "require" {
				continue
			}
			if grant = r.require(d); grant == Yes {
				return false
			}
			if seen = true; grant == Unknown {
				r.unsure(d)
				return false
			}
			r.ans.Action = d.note()
		}
		if seen {
			r.ans.Route = p.note()
			r.ans.Does, r.ans.Status = Returns, 403
			return true
		}
	}
	return false
}

// require decides one Require line.
func (r *apacheRequest) require(d *directive) Tri {
	switch strings.ToLower(d.arg(0)) {
	case "all":
		return tri(strings.EqualFold(d.arg(1), "granted"))
	case "local":
		if r.q.From.IsValid() {
			return tri(r.q.From.IsLoopback() || r.q.From == r.q.Addr)
		}
	case "ip":
		if !r.q.From.IsValid() {
			return Unknown
		}
		for _, a := range d.args[1:] {
			p, err := netip.ParsePrefix(a)
			if x, err2 := netip.ParseAddr(a); err2 == nil {
				p, err = netip.PrefixFrom(x, x.BitLen()), nil
			}
			if err != nil {
				return Unknown
			}
			if p.Contains(r.q.From) {
				return Yes
			}
		}
		return No
	}
	return Unknown
}

// redirected does the Redirect lines of mod_alias.
func (r *apacheRequest) redirected() bool {
	blocks := r.servers()
	for _, p := range r.places {
		blocks = append(blocks, p.block)
	}
	for _, block := range slices.Backward(blocks) {
		for _, d := range block {
			status, args := "302", d.args
			switch d.name {
			case "redirect", "redirectmatch":
				if len(args) > 1 && (len(args) == 3 || !strings.HasPrefix(args[0], "/") && d.name == "redirect" && !strings.Contains(args[0], "://")) {
					status, args = args[0], args[1:]
				}
			case "redirectpermanent":
				status = "301"
			case "redirecttemp":
			default:
				continue
			}
			if len(args) == 0 {
				continue
			}
			ok := true
			if d.name == "redirectmatch" {
				ok, _ = r.re.match(args[0], r.path, false)
			} else if len(args) > 1 || strings.HasPrefix(args[0], "/") {
				ok = underPath(args[0], r.path) || args[0] == "/"
			}
			if !ok {
				continue
			}
			r.ans.Does, r.ans.Action, r.ans.To = Returns, d.note(), args[len(args)-1]
			r.ans.Status = redirectStatus(status)
			if r.ans.Status >= 400 {
				r.ans.To = ""
			}
			return true
		}
	}
	return false
}

func redirectStatus(s string) int {
	switch strings.ToLower(s) {
	case "permanent":
		return 301
	case "temp", "":
		return 302
	case "seeother":
		return 303
	case "gone":
		return 410
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 302
	}
	return n
}

// forward says where the request goes, and whether an upgrade goes with it.
func (r *apacheRequest) forward(d *apachePass, target string, args []string) {
	a := r.ans
	a.Does, a.Action = Forwards, d.note()
	if a.Route.Line == 0 {
		a.Route = a.Site
	}
	a.Scheme, a.Backends = r.a.backends(d.directive, target, 0)
	if a.Scheme == "fcgi" {
		a.Scheme = "fastcgi"
	}
	for _, w := range args {
		if v, ok := strings.CutPrefix(w, "timeout="); ok {
			if n, err := strconv.ParseUint(v, 10, 31); err == nil {
				a.Idle, a.IdleFrom = time.Duration(n)*time.Second, d.note()
			}
		}
	}
	handler := map[string]string{"http": "proxy_http_module", "https": "proxy_http_module", "fastcgi": "proxy_fcgi_module", "uwsgi": "proxy_uwsgi_module", "scgi": "proxy_scgi_module", "ajp": "proxy_ajp_module"}[a.Scheme]
	if handler != "" && !r.a.modules[handler] {
		a.Does, a.Status, a.Backends = Returns, 500, nil
		a.Action.Text += ", without " + handler
		a.Remedy = "load the module: a2enmod " + strings.TrimSuffix(handler, "_module") + ", and restart Apache"
		return
	}
	upgrades := slices.ContainsFunc(args, func(w string) bool {
		v, ok := strings.CutPrefix(strings.ToLower(w), "upgrade=")
		return ok && (v == "websocket" || v == "any")
	})
	line := `ProxyPass "` + cleanPath(r.q.Path) + `" "ws://` + firstBackend(a.Backends) + cleanPath(r.q.Path) + `"`
	switch a.Scheme {
	case "ws", "wss":
		switch {
		case r.a.modules["proxy_wstunnel_module"]:
			a.Upgrade = Yes
		case r.a.modules["proxy_http_module"]: // since 2.4.47
			a.Why = []Note{{d.Place, "mod_proxy_wstunnel is not loaded: Apache before 2.4.47 forwards no upgrade without it"}}
		default:
			a.Upgrade = No
			a.Why = []Note{{d.Place, "neither mod_proxy_wstunnel nor mod_proxy_http is loaded"}}
			a.Remedy = "load the module: a2enmod proxy_wstunnel, and restart Apache"
		}
	case "http", "https", "balancer":
		if a.Upgrade = tri(upgrades); !upgrades {
			a.Why = []Note{{d.Place, "without ws:// and without upgrade=websocket: the headers Upgrade and Connection do not reach the backend"}}
			a.Remedy = "before this line (" + d.Place.String() + ") add: " + line + " (a2enmod proxy_wstunnel), or end it with upgrade=websocket (Apache 2.4.47 and later); then apachectl configtest and graceful"
		}
	case "":
	default:
		a.Upgrade = No
		a.Remedy = "give the WebSocket service a line of its own before this one (" + d.Place.String() + "): " + line + " (a2enmod proxy_wstunnel)"
	}
}

func firstBackend(bs []Backend) string {
	switch {
	case len(bs) == 0 || bs[0].Unix:
		return "HOST:PORT"
	case bs[0].Addr.IsValid():
		return netip.AddrPortFrom(bs[0].Addr, bs[0].Port).String()
	}
	return bs[0].Name + ":" + strconv.Itoa(int(bs[0].Port))
}

// backends are the scheme and the addresses of a target, nil for not known.
func (a *apache) backends(d *directive, target string, depth int) (scheme string, out []Backend) {
	if p := apacheSocket(target); p != "" {
		_, rest, _ := strings.Cut(target, "|")
		scheme, _, _ = strings.Cut(rest, "://")
		return strings.ToLower(scheme), []Backend{{Name: p, Unix: true, Missing: a.missing[p], Text: d.text(), Place: d.Place}}
	}
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || depth > 1 {
		return "", nil
	}
	scheme = strings.ToLower(scheme)
	host := rest
	if i := strings.IndexAny(host, "/?"); i >= 0 {
		host = host[:i]
	}
	if scheme == "balancer" {
		for _, m := range a.balancers["balancer://"+host] {
			if m.name != "balancermember" || slices.ContainsFunc(m.args, func(s string) bool {
				status, ok := strings.CutPrefix(strings.ToLower(s), "status=")
				return ok && strings.ContainsAny(status, "ds") // disabled, stopped; h steps in
			}) {
				continue
			}
			s, bs := a.backends(m, m.arg(0), depth+1)
			if bs == nil {
				return s, nil
			}
			scheme, out = s, append(out, bs...)
		}
		return scheme, out
	}
	port := map[string]uint16{"http": 80, "ws": 80, "https": 443, "wss": 443, "fcgi": 9000, "ajp": 8009, "scgi": 4000}[scheme]
	b, ok := backendOf(host, port)
	if !ok {
		return scheme, nil
	}
	b.Text, b.Place = d.text(), d.Place
	return scheme, []Backend{b}
}
