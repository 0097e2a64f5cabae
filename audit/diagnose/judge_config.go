package diagnose

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/diagnose/webserver"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// reading is what a web server's configuration says about the target.
type reading struct {
	front *Front
	a     webserver.Answer
	// id is the cause that it shows, "" for none; v how sure it makes it.
	id     ID
	v      Verdict
	remedy string
	what   string // the kind of the cause, "" for its title
	ev     []audit.Evidence
	// aside: the answer is another for other clients, so that a probe from
	// elsewhere proves nothing.
	aside bool
	// dead: nothing takes what it forwards.
	dead bool
}

// read asks the configurations about each address that is dialled.
func (v *view) read(e *Evidence) []reading {
	var out []reading
	if len(e.Fronts) == 0 {
		return nil
	}
	model := reach.New(&e.Server.World)
	for i := range e.Fronts {
		f := &e.Fronts[i]
		addrs := []netip.Addr{{}}
		if !f.Local.Addr().IsUnspecified() {
			addrs[0] = f.Local.Addr()
		} else if own := slices.DeleteFunc(slices.Clone(v.addrs), func(a netip.Addr) bool { return !slices.Contains(localAddrs(f.ns), a) && !a.IsLoopback() }); len(own) > 0 {
			addrs = own
		}
		for _, a := range addrs[:min(len(addrs), maxTried)] {
			q := webserver.Query{Port: f.Local.Port(), Dialled: e.Target.Port, Addr: a, Host: e.Target.Host, Path: e.Target.Path, TLS: e.Target.TLS(), WebSocket: e.Target.WebSocket(), From: e.From}
			answer, ok := f.Config.Ask(q)
			if !ok || len(f.Config.Gaps) > 0 && answer.TLS != webserver.Yes {
				continue // what was not read may say otherwise
			}
			r := reading{front: f, a: answer}
			r.judge(e, model)
			if !slices.ContainsFunc(out, func(x reading) bool {
				return x.front == f && x.id == r.id && x.a.Action == r.a.Action && x.a.Listen == r.a.Listen
			}) {
				out = append(out, r)
			}
		}
	}
	return out
}

// server is the program as people call it.
func (r *reading) server() string {
	switch r.front.Config.Program {
	case "apache":
		return "Apache"
	case "haproxy":
		return "HAProxy"
	}
	return r.front.Config.Program
}

func (r *reading) accuse(id ID, v Verdict, remedy string) {
	if len(r.a.Unsure) > 0 || r.front.Config.Stale() || len(r.front.Config.Gaps) > 0 {
		v = min2(v, Likely)
	}
	r.id, r.v, r.remedy = id, v, remedy
}

// note adds a line as evidence.
func (r *reading) note(n webserver.Note, more string) {
	if n.Line > 0 {
		r.ev = append(r.ev, evidence(n.Place.String(), "%s", n.Text+more))
	}
}

func (r *reading) judge(e *Evidence, model *reach.Evaluator) {
	t, a := e.Target, r.a
	c := r.front.Config
	from := " (" + r.server() + ", pid " + itoa(c.PID) + ")"
	tlsScheme := map[string]string{"ws": "wss", "http": "https"}[t.Scheme]
	switch {
	case t.Scheme == "":
	case a.TLS == webserver.Yes && !t.TLS() && (t.Scheme != "http" || a.To == ""):
		r.note(a.Listen, from+": it speaks TLS, the URL says "+t.Scheme+"://")
		remedy := "let the client dial the scheme with TLS"
		if tlsScheme != "" {
			remedy = "let the client dial " + tlsScheme + "://"
		}
		r.accuse(TLSMismatch, Confirmed, remedy+", or "+c.PlainRemedy(a.Listen))
	case a.TLS == webserver.No && t.TLS():
		r.note(a.Listen, from+": without TLS, the URL says "+t.Scheme+"://")
		r.accuse(TLSMismatch, Confirmed, "let the client dial "+map[string]string{"wss": "ws", "https": "http", "ssl": "tcp"}[t.Scheme]+"://, or "+c.TLSRemedy(a.Listen))
	case len(c.Gaps) > 0:
	case (t.Scheme == "text" || t.Scheme == "frame") && !a.Bytes:
		r.note(a.Listen, from+": it speaks HTTP, the URL says "+t.Scheme+"://")
		r.accuse(ProtocolMismatch, Confirmed, "dial the port of the "+t.Scheme+":// service itself: "+r.server()+" passes on HTTP alone here")
	case t.HTTP() || a.Bytes:
		r.request(e, model, from)
	}
	for _, n := range a.Unsure {
		r.note(n, ": whether this changes it cannot be told from the configuration")
	}
	if r.id != "" && c.Stale() {
		r.ev = append(r.ev, evidence("age of the configuration", "%s was changed at %s, after %s read it (%s): what it runs with may be older", c.Newest, c.Changed.UTC().Format(time.DateTime), r.server(), c.Loaded.UTC().Format(time.DateTime)))
	}
}

// request judges what becomes of the URL's request.
func (r *reading) request(e *Evidence, model *reach.Evaluator, from string) {
	t, a := e.Target, r.a
	site := from
	if a.ByDefault && t.Named() {
		site += ": the default, since none has the name " + t.Host
	}
	r.note(a.Site, site)
	if a.Route != a.Site && a.Route != a.Action {
		r.note(a.Route, "")
	}
	switch a.Does {
	case webserver.Returns:
		r.note(a.Action, "")
		r.returns(t)
	case webserver.Serves:
		r.note(a.Action, ": files, no service that could take an upgrade")
		if t.WebSocket() {
			r.what = r.server() + " forwards this path nowhere"
			r.accuse(HandshakeRejected, Confirmed, cmpRemedy(a.Remedy, "forward "+pathOf(t)+" to the WebSocket service in this virtual host, or dial the path that is forwarded"))
		}
	case webserver.Forwards, webserver.Passes:
		r.note(a.Action, "")
		r.forwarded(e, model)
	}
}

func cmpRemedy(own, other string) string {
	if own != "" {
		return own
	}
	return other
}

func pathOf(t Target) string {
	p, _, _ := strings.Cut(t.Path, "?")
	if p == "" {
		p = "/"
	}
	return p
}

func (r *reading) returns(t Target) {
	a := r.a
	denied := a.Status == 403 && a.Action.Text != "" && !strings.HasPrefix(a.Action.Text, "return")
	r.aside = denied
	place := a.Action.Place.String()
	switch {
	case a.Status == 0 && a.To == "" || a.Status == 444: // without a word
		r.aside = true
		r.what = r.server() + " ends the connection"
		r.accuse(HandshakeRejected, Confirmed, cmpRemedy(a.Remedy, place+" ends the connection: let the client in there, if it is meant to come in"))
	case a.To != "" && t.WebSocket():
		r.what = r.server() + " answers the upgrade with a redirect"
		remedy := "WebSocket clients follow no redirect: let the client dial where it leads, " + a.To
		if strings.HasPrefix(a.To, "https:") && !t.TLS() {
			remedy = "WebSocket clients follow no redirect: let the client dial wss://, which this host redirects to"
		}
		r.accuse(HandshakeRejected, Confirmed, cmpRemedy(a.Remedy, remedy))
	case a.To != "":
	case denied:
		r.what = r.server() + " refuses this client"
		r.accuse(HandshakeRejected, Confirmed, cmpRemedy(a.Remedy, "allow the client before the line that refuses it ("+place+"), if it is meant to come in"))
	case a.Status >= 500:
		r.accuse(HandshakeRejected, Confirmed, cmpRemedy(a.Remedy, "the answer stands in the configuration: "+place))
	case t.WebSocket():
		r.accuse(HandshakeRejected, Confirmed, cmpRemedy(a.Remedy, "check the path and name of the URL, or forward "+pathOf(t)+" to the WebSocket service: "+place+" answers it"))
	}
}

// forwarded judges the way on: the backends, and the upgrade.
func (r *reading) forwarded(e *Evidence, model *reach.Evaluator) {
	t, a := e.Target, r.a
	alive := len(a.Backends) > maxBackends // so many are not looked at
	held := false
	var dead []audit.Evidence
	for _, b := range a.Backends[:min(len(a.Backends), maxBackends)] {
		why, byRule := r.front.backendDead(e, model, b)
		if alive = alive || why == ""; why != "" {
			dead = append(dead, evidence("backend "+backendName(b), "%s", why))
		}
		held = held || byRule
	}
	if len(dead) > 0 && !alive {
		r.dead = true
		r.what = r.server() + " answers and its backend does not"
		r.ev = append(r.ev, dead...)
		if held {
			r.accuse(HandshakeRejected, Confirmed, "let this host itself reach "+backendName(a.Backends[0])+", which "+a.Backends[0].Place.String()+" names")
			return
		}
		r.accuse(HandshakeRejected, Confirmed, "start the service at "+backendName(a.Backends[0])+", or correct the address at "+a.Backends[0].Place.String())
		return
	}
	for _, b := range a.Backends[:min(len(a.Backends), maxBackends)] {
		if d, l := r.front.backendSpeaks(b); d != nil && t.wants() != "" && !fits(t.wants(), d.Protocol) && d.Protocol != SpeaksTLS && d.Protocol != SpeaksTCP && a.Scheme != "fastcgi" && a.Scheme != "uwsgi" && a.Scheme != "scgi" {
			r.ev = append(r.ev, evidence(d.Source, "%s: %s, which %s forwards to, the URL says %s://", d.Text, l.Subject(), r.server(), t.Scheme))
			r.accuse(ProtocolMismatch, Likely, "forward to the service that speaks "+t.wants()+" ("+b.Place.String()+"), or change the scheme of this one")
			return
		}
	}
	if !t.WebSocket() {
		return
	}
	for _, n := range a.Why {
		r.note(n, "")
	}
	if a.Upgrade == webserver.No {
		r.what = r.server() + " does not forward the WebSocket upgrade"
		v := Likely // a backend may answer an upgrade that has lost its headers
		if a.Scheme == "fastcgi" || a.Scheme == "uwsgi" || a.Scheme == "scgi" || a.Scheme == "grpc" || a.Scheme == "memcached" {
			v = Confirmed
		}
		r.accuse(HandshakeRejected, v, a.Remedy)
		return
	}
	if a.Idle > 0 && a.Idle < 10*time.Minute {
		r.note(a.IdleFrom, fmt.Sprintf(": a connection without a byte for %s is cut", a.Idle))
	}
}

func backendName(b webserver.Backend) string {
	switch {
	case b.Unix:
		return "unix:" + b.Name
	case b.Addr.IsValid():
		return netip.AddrPortFrom(b.Addr, b.Port).String()
	}
	return fmt.Sprintf("%s:%d", b.Name, b.Port)
}

// backendAddrs are the addresses of a backend, none for a name that would have to be
// looked up.
func backendAddrs(b webserver.Backend) []netip.Addr {
	switch {
	case b.Addr.IsUnspecified(): // connect(2) to it is to the host itself
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	case b.Addr.IsValid():
		return []netip.Addr{b.Addr}
	case b.Loopback():
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	return nil
}

// maxBackends bounds how many backends are looked at.
const maxBackends = 32

// backendDead says why nothing takes a connection to a backend, "" where
// something does or where it cannot be told from here; byRule: something listens
// and is kept from it.
func (f *Front) backendDead(e *Evidence, model *reach.Evaluator, b webserver.Backend) (why string, byRule bool) {
	if b.Unix {
		if b.Missing {
			return "there is no socket " + b.Name, false
		}
		return "", false
	}
	for _, a := range backendAddrs(b) {
		if !a.IsLoopback() && !slices.Contains(localAddrs(f.ns), a) || f.ns.Listeners == nil {
			return "", false
		}
		if f.ns != e.Server.World.Namespaces[0] {
			if f.listens(a, b.Port) != nil {
				return "", false
			}
			why = fmt.Sprintf("nothing listens on port %d in %s", b.Port, f.ns.Name)
			continue
		}
		answer, err := model.Ask(reach.Query{Proto: firewall.TCP, From: a, To: a, Port: b.Port}, reach.WithPath)
		if err != nil || answer.ClientSees == reach.Connected || answer.ClientSees == reach.Depends || answer.DecidedBy == nil {
			return "", false
		}
		why, byRule = fmt.Sprintf("from this host: %s, %s", answer.ClientSees, ruleText(*answer.DecidedBy)), true
		if k := answer.DecidedBy.Kind; k == reach.ByNoListener || k == reach.ByBindAddress {
			byRule = false
			why = fmt.Sprintf("nothing listens on %s", netip.AddrPortFrom(a, b.Port))
		}
	}
	return why, byRule
}

// listens finds the listener that takes a connection to an address of its
// namespace.
func (f *Front) listens(a netip.Addr, port uint16) *listeners.Listener {
	if f.ns.Listeners == nil {
		return nil
	}
	for i := range f.ns.Listeners.Listeners {
		l := &f.ns.Listeners.Listeners[i]
		local := l.Local.Addr().Unmap()
		if overTCP(l) && l.Port() == port && (local == a || local.IsUnspecified() && (local.Is4() == a.Is4() || local.Is6() && !l.V6Only)) {
			return l
		}
	}
	return nil
}

// backendSpeaks is what the process behind a backend says of itself.
func (f *Front) backendSpeaks(b webserver.Backend) (*Declared, *listeners.Listener) {
	for _, a := range backendAddrs(b) {
		if !a.IsLoopback() && !slices.Contains(localAddrs(f.ns), a) {
			continue
		}
		if l := f.listens(a, b.Port); l != nil {
			if d := declared(l); d != nil && d.Protocol != "" {
				return d, l
			}
		}
	}
	return nil, nil
}

// misconfigured tells that a configuration shows a cause.
func (v *view) misconfigured() bool {
	return slices.ContainsFunc(v.readings, func(r reading) bool { return r.id != "" })
}

// aside tells that one shows a cause for the client alone, which a probe from
// this host does not meet.
func (v *view) aside() bool {
	return slices.ContainsFunc(v.readings, func(r reading) bool { return r.id != "" && r.aside })
}

// configured judges by the configuration of the web servers behind the port. What
// a probe or the client saw comes first: the configuration explains it, or is
// not what the server runs with.
func (j *judge) configured() {
	if j.accused(NotListening, BindAddress, WrongPort) || j.observed != "" && j.observed != Connected && j.observed != ProtocolError {
		return
	}
	for i := range j.readings {
		r := &j.readings[i]
		seen, status, well := j.answered()
		switch {
		case r.id == "":
			j.shown(r, seen && !well)
		case !seen, seen && well && r.aside && j.e.Side == SideServer:
			if j.say(r.id, r.v, r.remedy, r.ev...); j.out[r.id].Verdict == r.v && r.what != "" {
				j.out[r.id].What = r.what
			}
		case r.agrees(status, well):
			j.explain(r)
		}
	}
}

// answered is what is known of the answer that the client, or a probe, got: its
// status (0 for none), and whether it is what the URL means.
func (j *judge) answered() (seen bool, status int, well bool) {
	if s := j.e.Symptom; s != nil && s.Sees == ProtocolError {
		return true, s.Status, false
	}
	if len(j.e.Probed) > 0 {
		if p := j.e.Probed[len(j.e.Probed)-1]; !p.unreachable() && !p.Silent && (p.Speaks != "" || p.Closed) {
			return true, p.Status, !probeFails(j.e)
		}
	}
	return false, 0, false
}

// agrees: an answer of that status may be what the configuration makes.
func (r *reading) agrees(status int, well bool) bool {
	a := r.a
	switch {
	case r.id != HandshakeRejected:
		return !well
	case a.Does == webserver.Returns && status != 0:
		return status == a.Status
	case a.Does == webserver.Returns && a.Status != 0 && a.Status != 444:
		return !well
	case well:
		return false
	case status == 0:
		return true
	case r.dead:
		return status >= 502 && status <= 504
	case a.Does == webserver.Serves:
		return status < 500
	}
	return status != 101 && (status < 502 || status > 504)
}

// explain puts the lines of the configuration before what was seen of them.
func (j *judge) explain(r *reading) {
	c := j.out[r.id]
	was := c.Evidence
	if !c.Accused() {
		was = nil
	}
	if strength(r.v) > strength(c.Verdict) {
		c.Verdict = r.v
	}
	c.Evidence = append(slices.Clone(r.ev), was...)
	c.Remedy = r.remedy
	if r.what != "" {
		c.What = r.what
	}
	for _, id := range []ID{ProtocolMismatch, TLSMismatch, HandshakeRejected} {
		if x := j.out[id]; id != r.id && x.Accused() {
			x.weight -= 150
			j.weaken(id, Likely, evidence("root cause", "%s decides about it", r.ev[0].Source))
		}
	}
}

// shown says where a request goes that the configuration finds nothing against.
func (j *judge) shown(r *reading, failing bool) {
	if len(r.ev) == 0 {
		return
	}
	if c := j.out[HandshakeRejected]; failing && c.Accused() && r.a.Does == webserver.Forwards {
		c.Evidence = append(slices.Clone(r.ev), c.Evidence...)
		if len(r.a.Backends) > 0 && !r.a.Backends[0].Unix {
			c.Remedy += ": `hostaudit diagnose " + backendURL(j.e.Target, r.a.Scheme, r.a.Backends[0]) + "` on this host"
		}
		return
	}
	var way []string
	for _, e := range r.ev {
		way = append(way, e.Source+" "+e.Value)
	}
	j.unsure(HandshakeRejected, "the configuration has nothing against it (%s); --probe asks the server itself", strings.Join(way, "; "))
}

func backendURL(t Target, scheme string, b webserver.Backend) string {
	if t.WebSocket() {
		scheme = map[string]string{"https": "wss", "wss": "wss"}[scheme]
		if scheme == "" {
			scheme = "ws"
		}
	}
	return scheme + "://" + backendName(b)
}
