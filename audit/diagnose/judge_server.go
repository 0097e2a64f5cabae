package diagnose

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// counterNumbers are the numbers of a rule's counter in its text: they are evidence of
// their own.
var counterNumbers = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(` packets [0-9]+ bytes [0-9]+`) })

// ruleText names a witness with its place and text.
func ruleText(d reach.DecidedBy) string {
	if d.Kind == reach.ByRule && d.Text != "" && d.Number > 0 {
		return rulePlace(d) + ": " + counterNumbers().ReplaceAllString(d.Text, "")
	}
	return rulePlace(d)
}

// rulePlace names the place of a witness.
func rulePlace(d reach.DecidedBy) string {
	if d.Kind == reach.ByRule || d.Kind == reach.ByPolicy {
		return witnessName(&d)
	}
	if d.Namespace != "" {
		return d.Text + " in " + d.Namespace + ", where an address translation leads"
	}
	return d.Text
}

// conditionName names the rule or object that an answer turns on.
func conditionName(c reach.Condition) string {
	if c.Chain == "" {
		return c.Object
	}
	d := reach.DecidedBy{Kind: reach.ByRule, Backend: c.Backend, Family: c.Family, Table: c.Table, Chain: c.Chain, Number: c.Number, Text: orWord(c.Text, c.Object), Namespace: c.Namespace}
	if c.Number == 0 {
		return strings.TrimSpace(placeName(&d) + " " + d.Text)
	}
	return ruleText(d)
}

func (f *face) place() string {
	if f.to.IsValid() {
		return " to " + f.to.String()
	}
	return ""
}

// level is how sure the model's answer about a face makes a cause.
func (j *judge) level(f *face) Verdict {
	if f.assumed {
		g := *f
		g.assumed = false
		return min2(j.level(&g), Likely)
	}
	switch {
	case f.sees == NotKnown:
		if id, _ := j.turnsOn(f); shows(id, j.observed) {
			return Likely
		}
		return CannotTell
	case j.single && f.share < 1: // only if the packets come in by another interface
		if j.observed == f.sees {
			return Likely
		}
		return CannotTell
	case f.share > 0.999 || j.single:
		switch {
		case j.observed == "" || j.observed == f.sees:
			return Confirmed
		case j.observed == CannotAssign || j.observed == NoName || j.observed == ProtocolError:
			return CannotTell // it does not explain what the client sees
		}
		return Likely
	case j.observed == f.sees:
		return Likely
	case j.observed == "" && f.sees == j.model && f.sees != Connected:
		return Likely
	}
	return CannotTell
}

// witnesses turns what the server's model says into causes.
func (j *judge) witnesses() {
	for i := range j.faces {
		f := &j.faces[i]
		v := j.level(f)
		ev := []audit.Evidence{evidence("model of the server", "%s%s: %s", f.who, f.place(), ruleText(f.by))}
		if f.by.Rule != nil && f.by.Rule.Packets >= 0 {
			ev = append(ev, evidence("counter", "the rule has matched %d packets", f.by.Rule.Packets))
		}
		if f.assumed {
			ev = append(ev, evidence("assumption", "%s is this host's public address, which it does not have itself behind NAT (--public %s, or --metadata, makes sure)", f.to, f.to))
		}
		if v == CannotTell && f.sees != NotKnown && !j.single {
			ev = append(ev, evidence("to decide", "whether the client is one of them: --from ADDRESS"))
		}
		if f.sees == NotKnown {
			for _, c := range f.conds {
				ev = append(ev, evidence("condition", "%s turns on %s", conditionName(c), c.TurnsOn))
			}
			id, remedy := j.turnsOn(f)
			j.say(id, v, remedy, ev...)
			continue
		}
		if f.sees == Connected {
			continue
		}
		switch f.by.Kind {
		case reach.ByRule, reach.ByPolicy:
			id := j.firewallID(f)
			j.say(id, v, ownerOf(f.by).remedy(j, f), ev...)
		case reach.ByBindAddress:
			j.say(BindAddress, v, j.bindRemedy(), ev...)
		case reach.ByNoListener:
			j.notListening(v, ev)
		case reach.ByBacklog:
			j.say(QueueFull, v, queueRemedy, ev...)
		case reach.ByRPFilter, reach.ByRoute, reach.BySysctl:
			j.say(ReplyPath, v, replyRemedy(f), ev...)
		case reach.ByProgram:
			j.say(HostFirewall, min2(v, Likely), "look at the program (bpftool prog, bpftool net)", ev...)
		}
	}
	if j.modelled && !slices.ContainsFunc(j.faces, func(f face) bool { return f.sees != Connected }) {
		who := "the client"
		if !j.single {
			who = "every client"
		}
		for _, id := range []ID{HostFirewall, RejectedByFirewall, PanelFirewall} {
			j.clear(id, "model of the server", "its rules let %s through", who)
		}
		j.clear(ReplyPath, "model of the server", "the answer leaves by rules, routes and reverse-path filter")
		if n := j.delta[listeners.ReversePathFiltered]; n > 0 {
			j.out[ReplyPath].Verdict = CannotTell
		}
	} else if j.modelled {
		// Rules that decide for some have been named; those of other kinds are out.
		for _, f := range j.faces {
			if f.sees == NotKnown {
				return
			}
		}
		if !j.accused(HostFirewall, PanelFirewall) && !j.named(HostFirewall) {
			j.clear(HostFirewall, "model of the server", "no rule drops the connection")
		}
		if !j.accused(RejectedByFirewall) && !j.named(RejectedByFirewall) {
			j.clear(RejectedByFirewall, "model of the server", "no rule rejects the connection")
		}
		if !j.named(PanelFirewall) {
			j.clear(PanelFirewall, "model of the server", "no rule of a panel decides")
		}
	}
}

// turnsOn is the cause behind an answer that turns on something unknown.
func (j *judge) turnsOn(f *face) (id ID, remedy string) {
	switch f.by.Kind {
	case reach.ByBindAddress:
		return BindAddress, j.bindRemedy()
	case reach.ByNoListener:
		return NotListening, "start the service"
	case reach.ByBacklog:
		return QueueFull, queueRemedy
	case reach.ByRPFilter, reach.ByRoute, reach.BySysctl:
		return ReplyPath, replyRemedy(f)
	}
	return j.firewallID(f), ownerOf(f.by).remedy(j, f)
}

// shows tells that a client sees a cause so.
func shows(id ID, sees Sees) bool {
	return slices.ContainsFunc(catalogue, func(e entry) bool { return e.id == id && slices.Contains(e.sees, sees) })
}

// named tells that evidence has been noted about a cause.
func (j *judge) named(id ID) bool { return len(j.out[id].Evidence) > 0 }

func min2(a, b Verdict) Verdict {
	if strength(a) > strength(b) {
		return b
	}
	return a
}

func (j *judge) firewallID(f *face) ID {
	switch {
	case strings.Contains(f.hook, "output"), strings.Contains(f.hook, "postrouting"), strings.Contains(f.hook, "egress"):
		if f.sees != NotKnown {
			return ReplyPath
		}
	case ownerOf(f.by) == ownerPanel || ownerByChain(f.chain) == ownerPanel:
		return PanelFirewall
	}
	if f.sees == Refused || f.sees == Unreachable {
		return RejectedByFirewall
	}
	return HostFirewall
}

const queueRemedy = "mend the service first (why does it not accept? descriptor limit, blocked workers); then raise its backlog and net.core.somaxconn together and restart it"

func replyRemedy(f *face) string {
	switch f.by.Kind {
	case reach.ByRPFilter:
		return "rp_filter=2 on that interface, or routes that send the answer back by it (a table of its own for each source address); not rp_filter=0 everywhere"
	case reach.ByRoute:
		return "add a route back to the client by the interface its packets come in by (a routing table of its own for each network card)"
	}
	return "see the setting that decides"
}

func (j *judge) bindRemedy() string {
	for _, l := range j.listening {
		if d := declared(l); d != nil && d.Internal {
			return "do not widen it: this port is internal; clients belong on the Gateway's own port"
		}
	}
	if len(j.listening) > 0 && slices.Contains([]uint16{1236, 3306, 5432, 6379, 9000, 11211, 27017}, j.e.Target.Port) {
		return "widen the bind only if this service is meant for others than this host; otherwise connect from here. Prefer the one address that is needed, with a firewall rule"
	}
	return "bind the service to the address that clients dial (or to all: 0.0.0.0, for IPv6 clients [::] with V6ONLY=0) if it is meant for them, and restart it"
}

// heard clears or notes what the sockets say by themselves.
func (j *judge) heard() {
	delivered := slices.ContainsFunc(j.faces, func(f face) bool { return len(f.got) > 0 && f.got[0].Listener != "" })
	reached := slices.ContainsFunc(j.faces, func(f face) bool { return f.sees == Connected })
	port := j.e.Target.Port
	if delivered && reached {
		j.clear(NotListening, "sockets", "%s", j.faceListener())
		j.clear(WrongPort, "sockets", "something listens on exactly this port")
		j.clear(BindAddress, "sockets", "it takes connections to the address dialled")
	} else if j.modelled && len(j.listening) > 0 && !j.accused(NotListening) {
		j.clear(NotListening, "sockets", "%s%s", j.listening[0].Subject(), processName(j.listening[0]))
		if !j.accused(BindAddress) {
			j.clear(WrongPort, "sockets", "something listens on port %d", port)
		}
	}
	if j.modelled && !j.accused(BindAddress) && j.out[NotListening].Verdict == Confirmed {
		j.clear(BindAddress, "sockets", "no listener on port %d, on whatever address", port)
	}
	if j.accused(BindAddress) && len(j.listening) > 0 {
		j.clear(NotListening, "sockets", "%s%s", j.listening[0].Subject(), processName(j.listening[0]))
		j.clear(WrongPort, "sockets", "something listens on port %d", port)
	}
	for _, l := range j.listening {
		want := j.e.Target.wants()
		own := want == SpeaksFrame // a lanPort takes frames of its own
		if d := declared(l); d != nil && d.Internal && want != "" && d.Protocol != want && !(own && d.Protocol == "") && j.sees != Refused {
			j.out[WrongPort].Verdict, j.out[WrongPort].Evidence = CannotTell, nil
			remedy := "dial the Gateway's own port"
			if d.Own != "" {
				remedy += ", " + d.Own
			}
			j.say(WrongPort, Likely, remedy, evidence(d.Source, "%s: an internal port of GatewayWorker, not for clients", d.Text))
		}
	}
	// The server's log or message tells of a bind that failed, though nobody could
	// look at its sockets.
	if s := j.e.Symptom; s != nil && s.Bind && !s.Connect && (s.Kind == KindAddrInUse || s.Kind == KindAccess) && !j.accused(NotListening) && len(j.listening) == 0 {
		j.say(NotListening, Likely, "the server cannot bind its port: find what holds it (another listener, or an outgoing connection on it), or give it the right to",
			evidence("the server's message", "%s", s.Text))
	}
}

func (j *judge) faceListener() string {
	for _, f := range j.faces {
		if len(f.got) == 0 || f.got[0].Listener == "" {
			continue
		}
		var to []string
		for _, d := range f.got {
			where := ""
			if d.NetNS != "" {
				where = " in " + d.NetNS
			}
			to = append(to, d.Listener+where)
		}
		return "delivered to " + strings.Join(to, " or ")
	}
	return "listens"
}
