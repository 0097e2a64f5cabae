package webserver

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// nginxRequest is one request on its way through the blocks.
type nginxRequest struct {
	n     *nginx
	q     Query
	a     *Answer
	s     *nginxServer
	chain []*directive // http, server, location …
	path  string
	vars  map[string]string
	re    patterns
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
		ok, known := r.re.match(pattern, r.path, mod == "~*")
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
	done, _ := r.script(block, len(r.chain))
	return done
}

// script does the lines of a block and of the ifs in it, which nginx makes one
// program of: done when one decided, over when a break ended all of it. base is
// how long the chain is without an if that takes the request.
func (r *nginxRequest) script(block []*directive, base int) (done, over bool) {
	for _, d := range block {
		switch d.name {
		case "set":
			if v, ok := r.value(d.arg(1)); ok {
				r.vars[strings.TrimPrefix(d.arg(0), "$")] = v
			}
		case "break":
			return false, true
		case "return":
			r.returns(d)
			return true, true
		case "rewrite":
			switch r.rewritten(d) {
			case "done":
				return true, true
			case "break":
				return false, true
			}
		case "if":
			switch r.condition(d.args) {
			case Yes:
				if done, over = r.script(d.block, base); done {
					return true, true
				}
				if forwarding(d) != nil { // it takes the request, unless a line behind it ends that
					r.chain = append(r.chain[:base:base], d)
				}
				if over {
					return false, true
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
	return false, false
}

// rewritten does a rewrite line: "" where it does not match, "break", "done".
func (r *nginxRequest) rewritten(d *directive) string {
	to, flag := d.arg(1), d.arg(2)
	ok, known := r.re.match(d.arg(0), r.path, false)
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
	re := r.re.compile(d.arg(0), r.path, false)
	if re == nil || len(to)+strings.Count(to, "$1")*len(r.path) > maxValue || strings.Contains(strings.ReplaceAll(to, "$1", ""), "$") {
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
		if forwards(x.name) {
			return x
		}
	}
	return nil
}

func forwards(name string) bool {
	switch name {
	case "proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass":
		return true
	}
	return false
}

// foreign tells a line by which a program, or a module that is not nginx's own,
// makes the answer or decides about it.
func foreign(name string) bool {
	switch {
	case strings.HasSuffix(name, "_pass"):
		return !forwards(name)
	case strings.HasPrefix(name, "content_by_lua"), strings.HasPrefix(name, "access_by_lua"), strings.HasPrefix(name, "rewrite_by_lua"):
		return true
	case strings.HasPrefix(name, "nchan_"), strings.HasPrefix(name, "push_stream_"):
		return true
	}
	return name == "js_content" || name == "perl"
}

// content finds what makes the answer.
func (r *nginxRequest) content(loc *directive) {
	for _, d := range loc.block {
		if foreign(d.name) {
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
	if d := r.effective("passenger_enabled"); fwd == nil && d.arg(0) == "on" {
		r.a.Does, r.a.Action = NotKnown, d.note()
		r.unsure(d)
		return
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
