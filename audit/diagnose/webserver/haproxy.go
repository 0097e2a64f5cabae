package webserver

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// haproxy answers from sections.
type haproxy struct {
	sections []*haSection
	missing  map[string]bool
}

// get is a setting of a section, or of its defaults.
func (s *haSection) get(words ...string) *directive {
	for at, depth := s, 0; at != nil && depth < maxDepth; at, depth = at.defaults, depth+1 {
		for _, d := range slices.Backward(at.lines) {
			if d.name == words[0] && (len(words) == 1 || d.arg(0) == words[1]) {
				return d
			}
		}
	}
	return nil
}

func (s *haSection) mode() string { return cmpOr(s.get("mode").arg(0), "tcp") }

func (h *haproxy) section(name string) *haSection {
	for _, s := range h.sections {
		if (s.name == "backend" || s.name == "listen") && s.arg(0) == name {
			return s
		}
	}
	return nil
}

// haSocket is the path of a socket address, "" for none.
func haSocket(s string) string {
	s = strings.TrimPrefix(s, "unix@")
	if strings.HasPrefix(s, "/") {
		return s
	}
	return ""
}

// sockets looks which sockets of servers are there, for a process that goes into
// its jail before it connects.
func (h *haproxy) sockets(t *tree) {
	jail := ""
	for _, s := range h.sections {
		if d := s.get("chroot"); s.name == "global" && d != nil {
			jail = d.arg(0)
		}
	}
	for _, s := range h.sections {
		for _, d := range s.lines {
			if p := haSocket(d.arg(1)); d.name == "server" && p != "" && t.absent(jail+p) {
				h.missing[p] = true
			}
		}
	}
}

// bindFits is how well a bind line takes a connection: 2 its very address, 1
// every address, 0 not.
func bindFits(d *directive, q Query) int {
	best := 0
	for spec := range strings.SplitSeq(d.arg(0), ",") {
		six := strings.HasPrefix(spec, "ipv6@")
		if p, rest, ok := strings.Cut(spec, "@"); ok {
			if p != "ipv4" && p != "ipv6" && p != "ip" {
				continue
			}
			spec = rest
		}
		i := strings.LastIndexByte(spec, ':')
		if i < 0 {
			continue
		}
		host, ports := strings.Trim(spec[:i], "[]"), spec[i+1:]
		low, high, ranged := strings.Cut(ports, "-")
		a, err := strconv.ParseUint(low, 10, 16)
		if err != nil {
			continue
		}
		b := a
		if ranged {
			if b, err = strconv.ParseUint(high, 10, 16); err != nil {
				continue
			}
		}
		if uint64(q.Port) < a || uint64(q.Port) > b {
			continue
		}
		addr, err := netip.ParseAddr(host)
		switch {
		case host == "" || host == "*":
			if !six && (!q.Addr.IsValid() || q.Addr.Is4()) || six && q.Addr.Is6() {
				best = max(best, 1)
			}
		case err != nil:
		case addr.IsUnspecified():
			if !q.Addr.IsValid() || q.Addr.Is4() == addr.Is4() || hasWord(d.args, "v4v6") {
				best = max(best, 1)
			}
		case addr == q.Addr:
			best = 2
		case !q.Addr.IsValid():
			best = max(best, 1)
		}
	}
	return best
}

// ask answers as HAProxy would.
func (h *haproxy) ask(q Query) (Answer, bool) {
	var front *haSection
	var bind *directive
	best := 0
	for _, s := range h.sections {
		if s.name != "frontend" && s.name != "listen" {
			continue
		}
		for _, d := range s.lines {
			if d.name != "bind" {
				continue
			}
			if n := bindFits(d, q); n > best {
				front, bind, best = s, d, n
			}
		}
	}
	if front == nil {
		return Answer{}, false
	}
	a := Answer{Listen: bind.note(), Site: front.note(), TLS: tri(hasWord(bind.args, "ssl"))}
	r := &haRequest{h: h, q: q, a: &a, path: cleanPath(q.Path), pathKnown: true, front: front}
	if q.Path == "" {
		r.path = "/"
	}
	if front.mode() != "http" {
		if a.TLS == No {
			a.TLS = Unknown // it passes TLS through
		}
		r.passing, a.Bytes = true, true
	}
	r.answer()
	return a, true
}

// haRequest is one request on its way through the sections.
type haRequest struct {
	h         *haproxy
	q         Query
	a         *Answer
	front     *haSection
	path      string
	pathKnown bool
	passing   bool // mode tcp
	re        patterns
}

func (r *haRequest) unsure(d *directive) {
	if n := d.note(); !slices.Contains(r.a.Unsure, n) {
		r.a.Unsure = append(r.a.Unsure, n)
	}
}

func (r *haRequest) answer() {
	if r.rules(r.front) {
		return
	}
	back, via := r.backend()
	if r.a.Does != NotKnown {
		return
	}
	if back == nil {
		if via != nil { // a name that is made up at run time
			r.a.Does, r.a.Action, r.a.Scheme = Forwards, via.note(), "http"
			r.a.Upgrade = Yes
			r.unsure(via)
			return
		}
		r.a.Does, r.a.Status, r.a.Action = Returns, 503, Note{r.front.Place, r.front.said + ": no backend takes the request"}
		r.a.Remedy = "name the backend that takes it: use_backend NAME if …, or default_backend NAME, in " + r.front.said + " (" + r.front.Place.String() + ")"
		if r.passing {
			r.a.Status = 0
		}
		return
	}
	if back != r.front && r.rules(back) {
		return
	}
	r.forward(back, via)
}

// rules does the rules of a section that end a request; true when one did.
func (r *haRequest) rules(s *haSection) bool {
	for _, kind := range []string{"tcp-request", "http-request", "redirect"} {
		if r.passing && kind != "tcp-request" {
			break
		}
		for _, d := range s.lines {
			if d.name != kind {
				continue
			}
			args, cond := splitCondition(d.args)
			if kind == "redirect" {
				args = append([]string{"redirect"}, args...)
			}
			if kind == "tcp-request" {
				if len(args) == 0 || args[0] == "inspect-delay" {
					continue
				}
				args = args[1:]
			}
			if len(args) == 0 {
				continue
			}
			action := args[0]
			ends := slices.Contains([]string{"deny", "reject", "silent-drop", "tarpit", "redirect", "return", "auth", "use-service"}, action)
			changes := slices.Contains([]string{"set-path", "replace-path", "set-uri", "replace-uri", "set-pathq", "replace-pathq", "normalize-uri"}, action)
			drops := action == "del-header" && len(args) > 1 && (strings.EqualFold(args[1], "upgrade") || strings.EqualFold(args[1], "connection"))
			if !ends && !changes && !drops && action != "accept" && action != "allow" {
				continue
			}
			switch r.holds(s, cond) {
			case No:
				continue
			case Unknown:
				if action != "accept" && action != "allow" {
					r.unsure(d)
				}
				continue
			}
			switch {
			case action == "accept" || action == "allow":
			case changes:
				r.pathKnown = false
				continue
			case drops:
				r.a.Why = append(r.a.Why, d.note())
				continue
			default:
				r.ends(d, args)
				return r.a.Does != NotKnown
			}
			break
		}
	}
	return false
}

// ends says how a rule ends a request.
func (r *haRequest) ends(d *directive, args []string) {
	a := r.a
	word := func(name string) string {
		if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	a.Action = d.note()
	a.Does = Returns
	switch args[0] {
	case "deny":
		a.Status = 403
		if n, err := strconv.Atoi(cmpOr(word("deny_status"), word("status"))); err == nil {
			a.Status = n
		}
	case "tarpit":
		a.Status = 500
	case "return":
		a.Status = 200
		if n, err := strconv.Atoi(word("status")); err == nil {
			a.Status = n
		}
	case "redirect":
		a.Status = 302
		if n, err := strconv.Atoi(word("code")); err == nil {
			a.Status = n
		}
		a.To = cmpOr(cmpOr(word("location"), word("prefix")), "it with another scheme")
		if s := word("scheme"); s != "" {
			a.To = s + "://" + r.q.Host + r.path
		}
	case "reject", "silent-drop":
	default: // auth, use-service
		a.Does, a.Action = NotKnown, Note{}
		r.unsure(d)
	}
}

// backend is the section that takes the request, and the line that chose it.
func (r *haRequest) backend() (*haSection, *directive) {
	for _, d := range r.front.lines {
		if d.name != "use_backend" || len(d.args) == 0 {
			continue
		}
		args, cond := splitCondition(d.args)
		holds := r.holds(r.front, cond)
		if holds == No {
			continue
		}
		if holds == Unknown || len(args) == 0 {
			r.unsure(d)
			continue
		}
		if strings.Contains(args[0], "%[") {
			return nil, d
		}
		return r.h.section(args[0]), d
	}
	if d := r.front.get("default_backend"); d != nil {
		return r.h.section(d.arg(0)), d
	}
	if r.front.name == "listen" {
		return r.front, nil
	}
	return nil, nil
}

// forward says where the request goes.
func (r *haRequest) forward(back *haSection, via *directive) {
	a := r.a
	a.Does, a.Scheme, a.Upgrade = Forwards, "http", Yes
	if r.passing {
		a.Does, a.Scheme = Passes, "tcp"
	}
	if via != nil {
		a.Route = via.note()
	}
	a.Action = back.note()
	for _, d := range back.lines {
		if d.name == "server-template" || d.name == "dispatch" || d.name == "use-server" {
			r.unsure(d)
		}
		if d.name != "server" || hasWord(d.args, "disabled") {
			continue
		}
		if hasWord(d.args, "ssl") && !r.passing {
			a.Scheme = "https"
		}
		if i := slices.Index(d.args, "proto"); i >= 0 && d.arg(i+1) == "h2" && !r.passing {
			a.Upgrade = Unknown
		}
		spec := d.arg(1)
		if p := haSocket(spec); p != "" {
			a.Backends = append(a.Backends, Backend{Name: p, Unix: true, Missing: r.h.missing[p], Text: d.text(), Place: d.Place})
			continue
		}
		for _, p := range []string{"ipv4@", "ipv6@"} {
			spec = strings.TrimPrefix(spec, p)
		}
		b, ok := backendOf(spec, r.q.Port)
		if !ok {
			a.Backends = nil
			r.unsure(d)
			return
		}
		b.Text, b.Place = d.text(), d.Place
		a.Backends = append(a.Backends, b)
	}
	if len(a.Why) > 0 {
		a.Upgrade = No
		a.Remedy = "take out the line that deletes the header (" + a.Why[0].Place.String() + "): HAProxy forwards an upgrade by itself"
	}
	if len(a.Backends) == 0 && len(a.Unsure) == 0 {
		a.Does, a.Status, a.Action.Text = Returns, 503, back.said+": no server takes the request"
		a.Remedy = "give the backend a server line (" + back.Place.String() + ")"
		if r.passing {
			a.Status = 0
		}
		return
	}
	r.idle(back)
}

// idle is when a connection without a byte is cut: timeout tunnel, else the
// shorter of client and server.
func (r *haRequest) idle(back *haSection) {
	for _, d := range []*directive{back.get("timeout", "tunnel"), r.front.get("timeout", "client"), back.get("timeout", "server")} {
		v, ok := haTime(d.arg(1))
		if !ok {
			continue
		}
		if r.a.Idle == 0 || v < r.a.Idle {
			r.a.Idle, r.a.IdleFrom = v, d.note()
		}
		if d.arg(0) == "tunnel" {
			return
		}
	}
}

// haTime reads a time, milliseconds without a unit.
func haTime(s string) (time.Duration, bool) {
	if n, err := strconv.ParseUint(s, 10, 40); err == nil {
		return time.Duration(n) * time.Millisecond, true
	}
	if n, err := strconv.ParseUint(strings.TrimSuffix(s, "d"), 10, 16); err == nil {
		return time.Duration(n) * 24 * time.Hour, true
	}
	v, err := time.ParseDuration(s)
	return v, err == nil && v > 0
}
