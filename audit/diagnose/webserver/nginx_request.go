package webserver

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

func unescape(s string) (string, error) { return url.PathUnescape(s) }

// nginxRequest is one request on its way through the blocks.
type nginxRequest struct {
	n     *nginx
	q     Query
	a     *Answer
	s     *nginxServer
	chain []*directive // http, server, location …
	path  string
	vars  map[string]string
	hops  int
}

// effective is the innermost of the directives of a name.
func (r *nginxRequest) effective(name string) *directive {
	for i := len(r.chain) - 1; i >= 0; i-- {
		for _, d := range r.chain[i].block {
			if d.name == name {
				return d
			}
		}
	}
	return nil
}

// all are the directives of the names at the innermost level that has any.
func (r *nginxRequest) all(names ...string) (out []*directive) {
	for i := len(r.chain) - 1; i >= 0 && out == nil; i-- {
		for _, d := range r.chain[i].block {
			if slices.Contains(names, d.name) {
				out = append(out, d)
			}
		}
	}
	return out
}

func (r *nginxRequest) unsure(d *directive) {
	if n := d.note(); !slices.Contains(r.a.Unsure, n) {
		r.a.Unsure = append(r.a.Unsure, n)
	}
}

func (r *nginxRequest) last() *directive { return r.chain[len(r.chain)-1] }

// answer goes through the phases: rewrite of the server, location, rewrite of the
// location, access, content.
func (r *nginxRequest) answer() {
	if r.a.TLS == Yes && !r.q.TLS { // 497, before anything else
		for _, d := range r.all("error_page") {
			if slices.Contains(d.args, "497") {
				r.a.Does, r.a.Status, r.a.To, r.a.Action = Returns, 302, d.args[len(d.args)-1], d.note()
				return
			}
		}
	}
	if d := r.effective("ssl_reject_handshake"); d.arg(0) == "on" && r.q.TLS {
		r.a.Does, r.a.Action = NotKnown, d.note()
		r.unsure(d)
		return
	}
	if r.rewrite(r.s.d.block) {
		return
	}
	r.locate()
}

func (r *nginxRequest) locate() {
	if r.hops++; r.hops > 10 {
		r.a.Does = NotKnown
		r.unsure(r.s.d)
		return
	}
	r.chain = r.chain[:2:2]
	found, _ := r.find(r.s.d.block, 0)
	r.chain = append(r.chain, found...)
	r.enter()
}

// enter does what the location says.
func (r *nginxRequest) enter() {
	loc := r.last()
	if len(r.chain) > 2 {
		r.a.Route = loc.note()
		if r.rewrite(loc.block) {
			return
		}
	} else {
		r.a.Route = r.a.Site
	}
	if r.denied() {
		return
	}
	r.content(loc)
}

// find is ngx_http_core_find_location: the locations from the outer to the inner,
// and whether regular expressions are out.
func (r *nginxRequest) find(block []*directive, depth int) (chain []*directive, final bool) {
	if depth > maxDepth {
		return nil, false
	}
	var best *directive
	bestLen, noRegex := -1, false
	for _, d := range block {
		if d.name != "location" || len(d.args) == 0 {
			continue
		}
		mod, pattern := d.arg(0), d.arg(1)
		if len(d.args) == 1 {
			mod, pattern = "", d.arg(0)
			for _, m := range []string{"^~", "~*", "~", "="} { // location ~re without a space
				if p, ok := strings.CutPrefix(pattern, m); ok {
					mod, pattern = m, p
					break
				}
			}
		}
		switch mod {
		case "=":
			if pattern == r.path {
				return []*directive{d}, true
			}
		case "", "^~":
			if strings.HasPrefix(pattern, "@") {
				continue
			}
			if strings.HasPrefix(r.path, pattern) && len(pattern) > bestLen {
				best, bestLen, noRegex = d, len(pattern), mod == "^~"
			} else if r.path+"/" == pattern && forwarding(d) != nil && mod == "" && len(pattern) > bestLen {
				// ngx_http_core_find_static_location: 301 to the name with the slash.
				best, bestLen, noRegex = &directive{Place: d.Place, name: "location", args: []string{pattern}, block: []*directive{
					{Place: d.Place, name: "return", args: []string{"301", pattern}, said: d.text() + " leads " + r.path + " to " + pattern},
				}}, len(pattern), true
			}
		}
	}
	if best != nil {
		inner, done := r.find(best.block, depth+1)
		chain = append([]*directive{best}, inner...)
		if done {
			return chain, true
		}
	}
	if noRegex {
		return chain, true
	}
	for _, d := range block {
		if d.name != "location" || len(d.args) == 0 {
			continue
		}
		mod, pattern := d.arg(0), d.arg(1)
		if len(d.args) == 1 {
			for _, m := range []string{"~*", "~"} {
				if p, ok := strings.CutPrefix(d.arg(0), m); ok {
					mod, pattern = m, p
					break
				}
			}
		}
		if mod != "~" && mod != "~*" || strings.HasPrefix(d.arg(0), "^~") {
			continue
		}
		ok, known := matches(pattern, r.path, mod == "~*")
		if !known {
			r.unsure(d)
			continue
		}
		if ok {
			inner, _ := r.find(d.block, depth+1)
			return append([]*directive{d}, inner...), true
		}
	}
	return chain, false
}

// rewrite does the rewrite phase of a block; true when it decided.
func (r *nginxRequest) rewrite(block []*directive) bool {
	for _, d := range block {
		switch d.name {
		case "set":
			if v, ok := r.value(d.arg(1)); ok {
				r.vars[strings.TrimPrefix(d.arg(0), "$")] = v
			}
		case "break":
			return false
		case "return":
			r.returns(d)
			return true
		case "rewrite":
			switch r.rewritten(d) {
			case "done":
				return true
			case "break":
				return false
			}
		case "if":
			switch r.condition(d.args) {
			case Yes:
				if r.rewrite(d.block) {
					return true
				}
				if f := forwarding(d); f != nil && len(r.chain) > 1 { // it takes the request
					r.chain = append(r.chain, d)
					return false
				}
			case Unknown:
				if slices.ContainsFunc(d.block, func(x *directive) bool {
					return x.name == "return" || x.name == "rewrite" || x.name == "set" || x.name == "proxy_set_header" || strings.HasSuffix(x.name, "_pass")
				}) {
					r.unsure(d)
				}
			}
		}
	}
	return false
}

// rewritten does a rewrite line: "" where it does not match, "break", "done".
func (r *nginxRequest) rewritten(d *directive) string {
	to, flag := d.arg(1), d.arg(2)
	ok, known := matches(d.arg(0), r.path, false)
	switch {
	case !known:
		r.unsure(d)
		return ""
	case !ok:
		return ""
	case strings.HasPrefix(to, "http://"), strings.HasPrefix(to, "https://"), strings.HasPrefix(to, "$scheme"), flag == "redirect", flag == "permanent":
		r.a.Does, r.a.Status, r.a.To, r.a.Action = Returns, 302, to, d.note()
		if flag == "permanent" {
			r.a.Status = 301
		}
		return "done"
	case flag == "break":
		return "break" // the path changes, and the location stays
	}
	// The new path finds a location of its own.
	re := compiled(d.arg(0))
	if re == nil || strings.Contains(strings.ReplaceAll(to, "$1", ""), "$") {
		r.unsure(d)
		return ""
	}
	m := re.FindStringSubmatchIndex(r.path)
	r.path = cleanPath(string(re.ExpandString(nil, strings.ReplaceAll(to, "$1", "${1}"), r.path, m)))
	r.locate()
	return "done"
}

func (r *nginxRequest) returns(d *directive) {
	r.a.Does, r.a.Action = Returns, d.note()
	code, err := strconv.Atoi(d.arg(0))
	if err != nil { // return URL
		r.a.Status, r.a.To = 302, d.arg(0)
		return
	}
	r.a.Status = code
	if code >= 300 && code < 400 {
		r.a.To = d.arg(1)
	}
	r.errorPage()
}

// errorPage: an error may be answered by another location.
func (r *nginxRequest) errorPage() {
	for _, d := range r.all("error_page") {
		if slices.Contains(d.args, strconv.Itoa(r.a.Status)) && slices.ContainsFunc(d.args, func(s string) bool { return strings.HasPrefix(s, "=") || strings.HasPrefix(s, "@") }) {
			r.unsure(d)
		}
	}
}

// denied does the access phase.
func (r *nginxRequest) denied() bool {
	if r.effective("satisfy").arg(0) == "any" {
		r.unsure(r.effective("satisfy"))
		return false
	}
	if d := r.effective("internal"); d != nil && d == lastOf(r.last().block, "internal") && r.hops < 2 {
		r.a.Does, r.a.Status, r.a.Action = Returns, 404, d.note()
		return true
	}
	for _, d := range r.all("allow", "deny") {
		fits := Unknown
		switch p, err := netip.ParsePrefix(d.arg(0)); {
		case d.arg(0) == "all":
			fits = Yes
		case !r.q.From.IsValid() || d.arg(0) == "unix:":
		case err == nil:
			fits = tri(p.Contains(r.q.From))
		default:
			if x, err := netip.ParseAddr(d.arg(0)); err == nil {
				fits = tri(x == r.q.From)
			}
		}
		switch {
		case fits == Yes && d.name == "deny":
			r.a.Does, r.a.Status, r.a.Action = Returns, 403, d.note()
			r.errorPage()
			return true
		case fits == Yes:
			return r.passwords()
		case fits == Unknown:
			r.unsure(d)
		}
	}
	return r.passwords()
}

func (r *nginxRequest) passwords() bool {
	for _, name := range []string{"auth_basic", "auth_request", "auth_jwt"} {
		if d := r.effective(name); d != nil && d.arg(0) != "off" {
			r.unsure(d)
		}
	}
	return false
}

func tri(b bool) Tri {
	if b {
		return Yes
	}
	return No
}

func lastOf(block []*directive, name string) *directive {
	for _, d := range slices.Backward(block) {
		if d.name == name {
			return d
		}
	}
	return nil
}

// forwarding is the line by which a block hands requests on, nil for none.
func forwarding(d *directive) *directive {
	for _, x := range d.block {
		switch x.name {
		case "proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass":
			return x
		}
	}
	return nil
}

// content finds what makes the answer.
func (r *nginxRequest) content(loc *directive) {
	for _, d := range loc.block {
		if d.name == "content_by_lua_block" || d.name == "content_by_lua_file" || d.name == "content_by_lua" || d.name == "js_content" || d.name == "perl" || d.name == "access_by_lua_block" || d.name == "access_by_lua_file" || d.name == "rewrite_by_lua_block" {
			r.a.Does, r.a.Action = NotKnown, d.note()
			r.unsure(d)
			return
		}
	}
	fwd := forwarding(r.last())
	if fwd == nil {
		fwd = forwarding(loc)
	}
	if d := lastOf(loc.block, "try_files"); d != nil && len(d.args) > 0 {
		if r.tryFiles(d, fwd) {
			return
		}
	}
	if fwd == nil {
		r.a.Does, r.a.Upgrade = Serves, No
		r.a.Action = r.a.Route
		for _, name := range []string{"alias", "root"} {
			if d := r.effective(name); d != nil {
				r.a.Action = d.note()
				break
			}
		}
		return
	}
	r.forward(fwd)
}

// tryFiles goes on where no file is found; true when it went elsewhere.
func (r *nginxRequest) tryFiles(d, fwd *directive) bool {
	if !r.q.WebSocket && fwd == nil { // which files there are decides
		r.unsure(d)
	}
	last := d.args[len(d.args)-1]
	switch {
	case strings.HasPrefix(last, "@"):
		for _, x := range r.s.d.block {
			if x.name == "location" && x.arg(0) == last {
				r.chain = append(r.chain[:2:2], x)
				if r.hops++; r.hops > 10 {
					return true
				}
				r.enter()
				return true
			}
		}
	case strings.HasPrefix(last, "="):
		if fwd == nil {
			r.a.Does, r.a.Action, r.a.Upgrade = Serves, d.note(), No
			return true
		}
	case strings.HasPrefix(last, "/"):
		p, _, _ := strings.Cut(last, "?")
		if p == r.path || strings.Contains(p, "$") {
			break
		}
		r.path = cleanPath(p)
		r.locate()
		return true
	}
	return false
}

// forward says where the request goes, and whether an upgrade goes with it.
func (r *nginxRequest) forward(d *directive) {
	a := r.a
	a.Does, a.Action = Forwards, d.note()
	target, known := r.value(d.arg(0))
	proto := strings.TrimSuffix(d.name, "_pass")
	if proto == "proxy" {
		var rest string
		var ok bool
		if proto, rest, ok = strings.Cut(target, "://"); !ok {
			proto, rest = "", target
		}
		target = rest
	}
	a.Scheme = proto
	if proto == "grpc" {
		target = strings.TrimPrefix(strings.TrimPrefix(target, "grpc://"), "grpcs://")
	}
	if known {
		port := uint16(0)
		switch proto {
		case "http":
			port = 80
		case "https":
			port = 443
		}
		a.Backends = r.n.backends(r.s.outer.name, d, target, port)
	}
	if t := r.effective(strings.TrimSuffix(d.name, "_pass") + "_read_timeout"); t != nil {
		if v, ok := nginxTime(t.arg(0)); ok {
			a.Idle, a.IdleFrom = v, t.note()
		}
	} else {
		a.Idle, a.IdleFrom = 60*time.Second, Note{d.Place, "proxy_read_timeout is not set: 60 s"}
	}
	if d.name != "proxy_pass" {
		a.Upgrade = No
		a.Why = []Note{d.note()}
		a.Remedy = "give the WebSocket service a location of its own with proxy_pass: " + d.name + " forwards no upgrade"
		return
	}
	r.upgrade(d)
}

// upgrade tells whether the headers of an upgrade reach the backend: both are
// hop by hop (RFC 9110, 7.6.1) and get lost unless they are set anew.
func (r *nginxRequest) upgrade(pass *directive) {
	a := r.a
	a.Upgrade = Yes
	missing := func(t Tri, n Note) {
		if a.Upgrade == Yes || t == No {
			a.Upgrade = t
		}
		a.Why = append(a.Why, n)
	}
	var upgrade, connection *directive
	for _, d := range r.all("proxy_set_header") {
		switch strings.ToLower(d.arg(0)) {
		case "upgrade":
			upgrade = d
		case "connection":
			connection = d
		}
	}
	var lines []string
	for _, h := range []struct {
		d           *directive
		name, fills string
	}{{upgrade, "Upgrade", "$http_upgrade"}, {connection, "Connection", `"upgrade"`}} {
		line := "proxy_set_header " + h.name + " " + h.fills + ";"
		if h.d == nil {
			lines = append(lines, line)
			missing(No, Note{pass.Place, "the header " + h.name + " is not set for the backend (no proxy_set_header " + h.name + ")"})
			continue
		}
		v, ok := r.value(h.d.arg(1))
		switch {
		case !ok:
			missing(Unknown, h.d.note())
		case !strings.Contains(strings.ToLower(v), map[string]string{"Upgrade": "websocket", "Connection": "upgrade"}[h.name]):
			lines = append(lines, line)
			missing(No, h.d.note())
		}
	}
	switch d := r.effective("proxy_http_version"); {
	case d == nil: // 1.0 before 1.29.7; not every backend minds
		lines = append([]string{"proxy_http_version 1.1;"}, lines...)
		missing(Unknown, Note{pass.Place, "proxy_http_version is not set: nginx before 1.29.7 speaks HTTP/1.0 to the backend, which has no upgrade"})
	case d.arg(0) == "1.0":
		lines = append([]string{"proxy_http_version 1.1;"}, lines...)
		missing(No, d.note())
	}
	if d := r.effective("proxy_pass_request_headers"); d.arg(0) == "off" {
		missing(No, d.note())
	}
	if len(lines) > 0 {
		a.Remedy = "beside " + pass.text() + " (" + pass.Place.String() + ") add: " + strings.Join(lines, " ") + " and a long proxy_read_timeout; then nginx -t && nginx -s reload"
	}
}

// nginxTime reads a time: 60, 60s, 5m, 1h 30m.
func nginxTime(s string) (time.Duration, bool) {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if strings.HasSuffix(s, "d") {
		n, err := strconv.ParseUint(strings.TrimSuffix(s, "d"), 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(strings.ReplaceAll(s, " ", ""))
	return d, err == nil && d > 0
}
