package diagnose

import (
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

// tcpOnly are protocols whose own name a URL of the scheme tcp leaves open.
func fits(want, speaks string) bool {
	switch {
	case want == "" || speaks == "" || speaks == SpeaksTCP && want != SpeaksWebSocket && want != SpeaksHTTP:
		return true
	case want == SpeaksHTTP && speaks == SpeaksWebSocket:
		return false
	case (want == SpeaksText || want == SpeaksFrame) && speaks == SpeaksOther:
		return true
	}
	return want == speaks
}

// mismatch is a declared protocol that is not the URL's.
type mismatch struct {
	d    Declared
	tls  bool
	from string
}

// passiveMismatch compares what the listener says of itself with the URL.
func passiveMismatch(e *Evidence, v *view) *mismatch {
	want := e.Target.wants()
	for _, l := range v.listening {
		d := declared(l)
		if d == nil {
			continue
		}
		switch {
		case d.Protocol == SpeaksTLS && !e.Target.TLS() && e.Target.Scheme != "":
			return &mismatch{d: *d, tls: true}
		case want != "" && !fits(want, d.Protocol) && d.Protocol != SpeaksTLS && d.Protocol != SpeaksTCP:
			return &mismatch{d: *d}
		}
	}
	if c := e.Config; c != nil && want != "" && e.Side != SideClient {
		for _, s := range c.Services {
			if s.Port != e.Target.Port || s.Proto == "udp" || s.Protocol == "" || fits(want, workerScheme(s.Protocol)) {
				continue
			}
			if p := workerScheme(s.Protocol); slices.Contains([]string{SpeaksWebSocket, SpeaksHTTP, SpeaksText, SpeaksFrame}, p) {
				return &mismatch{d: Declared{Protocol: p, Source: s.Source, Text: "service " + s.Name + ": protocol " + s.Protocol}}
			}
		}
	}
	return nil
}

// probeFails tells that the answer to the probe is not what the URL needs.
func probeFails(e *Evidence) bool {
	if len(e.Probed) == 0 {
		return false
	}
	p := e.Probed[len(e.Probed)-1]
	t := e.Target
	switch {
	case p.SmallOnly:
		return true
	case p.unreachable() || p.Speaks == "" && !p.Closed:
		return false
	case p.Closed && p.Speaks == "":
		return t.HTTP() || t.TLS()
	case t.Scheme == "":
		return false
	case t.TLS() != p.TLS || p.TLSAlert != "":
		return true
	case p.TLS && p.Certificate != "":
		return true
	case p.Speaks == SpeaksTLS && p.Silent && p.Status == 0: // nothing came inside of it yet
		return false
	case t.WebSocket():
		return !p.Upgraded || p.Dropped
	case t.HTTP():
		// HTTP without a status: it answered something else than the request.
		return p.Status == 0 && p.Speaks != SpeaksHTTP || p.Status >= 500 || p.Speaks == SpeaksWebSocket
	case t.Scheme == "text" || t.Scheme == "frame":
		return p.Speaks == SpeaksHTTP || p.Speaks == SpeaksWebSocket
	}
	return false
}

// protocols judges what the listener speaks against what the URL says.
func (j *judge) protocols() {
	e := j.e
	t := e.Target
	changeURL := func(d string) string {
		scheme := map[string]string{SpeaksWebSocket: "ws", SpeaksHTTP: "http", SpeaksText: "text", SpeaksFrame: "frame", SpeaksTCP: "tcp"}[d]
		if scheme == "" {
			return "the listener speaks " + d + ": the client dials another service than it means"
		}
		if t.WebSocket() {
			return "listen with the websocket scheme (new Worker('websocket://0.0.0.0:" + itoa(int(t.Port)) + "')), or let the client dial " + scheme + "://"
		}
		return "let the client dial " + scheme + "://, or change the listener's scheme to " + t.Scheme + "://"
	}
	if m := passiveMismatch(e, j.view); m != nil && !j.accused(NotListening, BindAddress) {
		v := Confirmed
		if len(e.Probed) > 0 && e.Probed[len(e.Probed)-1].Upgraded {
			v = CannotTell // the title says otherwise than the listener
		} else if j.sees != ProtocolError && j.sees != Connected {
			v = Likely
		}
		ev := evidence(m.d.Source, "%s, the URL says %s://", m.d.Text, t.Scheme)
		if m.tls {
			j.say(TLSMismatch, v, "let the client dial the scheme with TLS ("+map[string]string{"ws": "wss", "http": "https"}[t.Scheme]+"://)", ev)
		} else {
			j.say(ProtocolMismatch, v, changeURL(m.d.Protocol), ev)
		}
	}
	// A log tells of the past: of a time before the listener answered as it should.
	well := len(e.Probed) > 0 && e.Probed[len(e.Probed)-1].Speaks != "" && !probeFails(e)
	for _, h := range e.serverFacts().Log {
		switch {
		case well && (h.Kind == LogKnock || h.Kind == LogTLS || h.Kind == LogNotReady):
		case h.Kind == LogKnock && h.Value == "TLS":
			v := CannotTell
			if t.TLS() {
				v = Likely
			}
			j.say(TLSMismatch, v, tlsRemedy, evidence("log", "a TLS ClientHello came to a plain listener %d times: %s", h.Count, h.Last))
		case h.Kind == LogKnock && h.Value == "HTTP":
			v := CannotTell
			if t.HTTP() && !t.TLS() {
				v = Likely
			}
			j.say(ProtocolMismatch, v, "dial the port that speaks WebSocket or HTTP", evidence("log", "HTTP requests came to a listener of another protocol %d times: %s", h.Count, h.Last))
		case h.Kind == LogNotReady:
			j.say(HandshakeRejected, Likely, "start the BusinessWorkers and see that they reach the Register", evidence("log", "%s", h.Last))
		case h.Kind == LogTLS && !t.TLS():
			j.say(TLSMismatch, Likely, tlsRemedy, evidence("log", "%s", h.Last))
		}
	}
	if len(e.Probed) > 0 {
		j.probed(e.Probed[len(e.Probed)-1], changeURL)
	}
	if s := e.Symptom; s != nil && s.Sees == ProtocolError {
		j.protocolMessage(s)
	}
	j.configured()
	if j.sees == Connected && j.observed == Connected && len(e.Probed) == 0 && e.Symptom == nil {
		for _, id := range []ID{ProtocolMismatch, TLSMismatch, HandshakeRejected} {
			if j.out[id].Verdict == CannotTell {
				j.unsure(id, "%s", "--probe sends the least that tells")
			}
		}
	}
}

const tlsRemedy = "let the client dial ws:// (http://), or end TLS in front of the listener: nginx with a certificate, a location that forwards with HTTP/1.1, the Upgrade and Connection headers and a long read timeout"

func (j *judge) probed(p *Probed, changeURL func(string) string) {
	t := j.e.Target
	var ev []audit.Evidence
	for _, s := range p.Steps {
		ev = append(ev, evidence("probe of "+p.To.String(), "%s", s))
	}
	plainTLS := map[string]string{"ws": "wss", "http": "https"}[t.Scheme]
	switch {
	case p.unreachable():
		return
	case p.Speaks != "" && !j.accused(QueueFull):
		j.clear(QueueFull, "probe of "+p.To.String(), "the service took the connection and answered")
	}
	switch {
	case p.Speaks == "" && p.Closed && t.HTTP():
		j.say(ProtocolMismatch, Likely, "the listener closes the connection at an HTTP request: a frame or GatewayWorker port, a ban, or a package limit", ev...)
		if hit(j.e.serverFacts().Log, LogNotReady, "") != nil { // and this is what such a log announces
			j.say(HandshakeRejected, Likely, "", ev...)
			j.out[ProtocolMismatch].weight -= 150
		}
	case p.Late:
		for _, id := range []ID{ProtocolMismatch, TLSMismatch, HandshakeRejected} {
			j.say(id, CannotTell, "", append(slices.Clone(ev), evidence("to decide", "the listener speaks HTTP and has not answered the request in time: it, or what it forwards to, is slow, stuck or gone (a proxy says 502, 503 or 504 later)"))...)
		}
		return
	case p.Speaks == "":
		how := "the listener stays silent: text waits for a line end, frame for a length; look at its accept queue and descriptors first"
		if p.Closed {
			how = "the listener closes the connection at what was sent: its log tells why (--log)"
		}
		for _, id := range []ID{ProtocolMismatch, TLSMismatch, HandshakeRejected} {
			j.say(id, CannotTell, "", append(slices.Clone(ev), evidence("to decide", "%s", how))...)
		}
		return
	case t.TLS() && !p.TLS:
		j.say(TLSMismatch, Confirmed, tlsRemedy, ev...)
	case !t.TLS() && p.TLS && t.Scheme != "":
		j.say(TLSMismatch, Confirmed, "let the client dial "+orWord(plainTLS, "with TLS")+"://", ev...)
	case p.TLSAlert != "":
		j.say(TLSMismatch, Confirmed, "the listener refuses the handshake ("+p.TLSAlert+"): its certificate, name or versions", ev...)
	case p.TLS && p.Certificate != "":
		j.say(TLSMismatch, Confirmed, "renew the certificate, or dial the name it is for", append(ev, evidence("certificate", "%s", p.Certificate))...)
	}
	if !j.accused(TLSMismatch) {
		if t.TLS() && !p.TLS { // it was closed before it could show
			j.say(TLSMismatch, CannotTell, "", append(slices.Clone(ev), evidence("to decide", "whether the listener is meant to speak TLS: it closed the connection at the ClientHello, and at plain text as well"))...)
		} else if p.Untrusted && t.TLS() {
			j.say(TLSMismatch, CannotTell, "", append(slices.Clone(ev), evidence("certificate", "the roots of this host do not vouch for it; what the client trusts is not known"))...)
		} else {
			j.say(TLSMismatch, RuledOut, "", ev...)
		}
	}
	switch {
	case t.WebSocket() && p.Upgraded && p.Dropped:
		j.say(ProtocolMismatch, RuledOut, "", ev...)
		j.say(HandshakeRejected, CannotTell, "", append(slices.Clone(ev), evidence("to decide", "why the service closes right after the upgrade: its log (--log); a Gateway does so without BusinessWorkers, others with clients that they do not want"))...)
	case t.WebSocket() && p.Upgraded:
		j.say(ProtocolMismatch, RuledOut, "", ev...)
		j.say(HandshakeRejected, RuledOut, "", ev...)
	case t.WebSocket() && p.WrongAccept:
		j.say(HandshakeRejected, Likely, "a proxy in between answers the upgrade itself: the accept key does not fit", ev...)
	case t.WebSocket() && !t.TLS() && !p.TLS && p.Status >= 300 && p.Status < 400 && strings.HasPrefix(strings.ToLower(p.Headers["location"]), "https://"):
		j.say(HandshakeRejected, Confirmed, "WebSocket clients follow no redirect: let the client dial wss://, which this host redirects to", append(ev, evidence("header Location", "%s", p.Headers["location"]))...)
	case t.WebSocket() && p.Status > 0 && t.TLS() == p.TLS:
		j.status(p.Status, p.Speaks == SpeaksWebSocket, p.Headers["server"], ev, true)
	case p.Speaks != SpeaksTLS && t.wants() != "" && !fits(t.wants(), p.Speaks) && t.TLS() == p.TLS:
		j.say(ProtocolMismatch, Confirmed, changeURL(p.Speaks), ev...)
	case t.HTTP() && p.Status >= 400 && t.TLS() == p.TLS:
		j.status(p.Status, false, p.Headers["server"], ev, false)
	case t.wants() != "" && fits(t.wants(), p.Speaks) && t.TLS() == p.TLS:
		j.say(ProtocolMismatch, RuledOut, "", ev...)
		j.say(HandshakeRejected, RuledOut, "", ev...)
	}
}

// status judges a status line that is no success.
func (j *judge) status(code int, websocket bool, server string, ev []audit.Evidence, upgrade bool) {
	proxy := strings.Contains(strings.ToLower(server), "nginx") || strings.Contains(strings.ToLower(server), "apache") || strings.Contains(strings.ToLower(server), "haproxy") ||
		strings.Contains(strings.ToLower(server), "caddy") || strings.Contains(strings.ToLower(server), "openresty")
	switch {
	case cdnStatus(code) != "" && j.accused(CDNBetween): // said there
	case code == 502 || code == 503 || code == 504:
		j.say(HandshakeRejected, Confirmed, "the proxy answers and its backend does not: diagnose the backend's address as a target of its own", ev...)
	case !upgrade && code >= 400 && code < 500: // what the path means is the application's own
		j.say(HandshakeRejected, CannotTell, "", append(slices.Clone(ev), evidence("to decide", "whether the client means this path and may have it: the server speaks HTTP and answers %d", code))...)
		j.say(ProtocolMismatch, RuledOut, "", ev...)
	case code == 403 || code == 401:
		j.say(HandshakeRejected, Confirmed, "the server refuses this client: its check of Origin, cookies or credentials", ev...)
	case code == 404 && upgrade && !websocket && !proxy, code == 200 && upgrade && !websocket && !proxy, code >= 300 && code < 400 && upgrade && !proxy:
		j.say(ProtocolMismatch, Confirmed, "the listener speaks plain HTTP: dial the WebSocket port or path", ev...)
		j.say(HandshakeRejected, Likely, "check the path of the URL", ev...)
	case code == 404:
		j.say(HandshakeRejected, Confirmed, "check the path of the URL, and that the proxy forwards it with the Upgrade and Connection headers", ev...)
	case code == 426:
		j.say(HandshakeRejected, Confirmed, "the server wants another version (Sec-WebSocket-Version 13), or the proxy in front drops the Upgrade header", ev...)
	case code == 400 && upgrade:
		j.say(HandshakeRejected, Confirmed, "the upgrade headers do not arrive: forward Upgrade and Connection in the proxy (proxy_http_version 1.1)", ev...)
	case upgrade && code == 200 && websocket:
		j.say(HandshakeRejected, Confirmed, "the request came without Sec-WebSocket-Key: the proxy in front must forward the upgrade", ev...)
	case upgrade && proxy:
		j.say(HandshakeRejected, Confirmed, "the location does not forward the upgrade: proxy_http_version 1.1, Upgrade and Connection headers", ev...)
		j.say(ProtocolMismatch, Likely, "or the URL means another location", ev...)
	case upgrade:
		j.say(HandshakeRejected, Confirmed, "the server answers the upgrade with "+itoa(code), ev...)
	case code >= 500:
		j.say(HandshakeRejected, Likely, "the application fails: its own log says why", ev...)
	default:
		j.say(HandshakeRejected, RuledOut, "", ev...)
		j.say(ProtocolMismatch, RuledOut, "", ev...)
	}
}

// protocolMessage judges the client's message of an error after the connection.
func (j *judge) protocolMessage(s *Symptom) {
	ev := []audit.Evidence{evidence("the client's message", "%s", s.Text)}
	for _, id := range []ID{NotListening, WrongPort, BindAddress, HostFirewall, CloudGroup, HostDown, NameUnknown} {
		j.clear(id, "the client's message", "the connection came about")
	}
	decided := j.accused(ProtocolMismatch, TLSMismatch, HandshakeRejected)
	switch s.Kind {
	case KindReadTimeout, KindEmpty, KindReset:
	default:
		for _, id := range []ID{QueueFull, ReplyPath} {
			j.clear(id, "the client's message", "the service answered")
		}
	}
	switch s.Kind {
	case KindMixed:
		j.say(TLSMismatch, Confirmed, "the page is https, so the socket must be wss://: "+tlsRemedy, append(ev, evidence("browser", "it blocks a ws:// URL in an https page before any packet"))...)
	case KindPlainToTLS:
		j.say(TLSMismatch, Confirmed, "let the client dial https:// or wss://", ev...)
	case KindTLSToPlain:
		j.say(TLSMismatch, Confirmed, tlsRemedy, ev...)
	case KindCertificate:
		j.say(TLSMismatch, Confirmed, "renew the certificate, send the whole chain, or dial the name it is for", ev...)
	case KindTLS:
		j.say(TLSMismatch, Likely, tlsRemedy, ev...)
	case KindNotHTTP:
		v := Confirmed
		if decided && !j.accused(ProtocolMismatch) {
			v = Likely
		}
		j.say(ProtocolMismatch, v, "the listener does not speak HTTP: create it with the websocket scheme (new Worker('websocket://0.0.0.0:"+itoa(int(j.e.Target.Port))+"')), or dial another port", ev...)
	case KindStatus, KindHandshake:
		if s.Status == 0 {
			j.say(HandshakeRejected, Likely, "the status of the answer tells: --probe", ev...)
			return
		}
		j.status(s.Status, false, "", ev, j.e.Target.WebSocket() || s.Kind == KindHandshake)
	case KindEmpty, KindReset:
		if !decided {
			j.say(ProtocolMismatch, CannotTell, "", append(ev, evidence("to decide", "--probe, and the service's log: another protocol, a ban, a crash, or a BusinessWorker that is not connected"))...)
		}
	case KindReadTimeout:
		if !j.accused(QueueFull) {
			j.say(QueueFull, CannotTell, queueRemedy, append(ev, evidence("to decide", "the accept queue and the descriptors of the service, on the server"))...)
		}
	}
}
