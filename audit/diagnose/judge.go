package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

// judge collects verdicts.
type judge struct {
	*view
	e   *Evidence
	out map[ID]*Cause
	led bool // another program took the connection, and nothing came of it
}

// strength orders verdicts by what one may overrule another: an accusation of
// one address stands, whatever another address proves.
func strength(v Verdict) int {
	switch v {
	case Confirmed:
		return 3
	case Likely:
		return 2
	case RuledOut:
		return 1
	}
	return 0
}

// say gives a verdict on a cause. A stronger one replaces a weaker one with its
// evidence; of equals the evidence adds up.
func (j *judge) say(id ID, v Verdict, remedy string, ev ...audit.Evidence) {
	c := j.out[id]
	switch {
	case strength(v) > strength(c.Verdict):
		c.Verdict, c.Evidence, c.Remedy = v, nil, ""
	case strength(v) < strength(c.Verdict):
		return
	}
	for _, x := range ev {
		if !slices.Contains(c.Evidence, x) {
			c.Evidence = append(c.Evidence, x)
		}
	}
	if c.Remedy == "" {
		c.Remedy = remedy
	}
}

// weaken turns an accusation into a weaker one, with the reason.
func (j *judge) weaken(id ID, v Verdict, ev ...audit.Evidence) {
	c := j.out[id]
	if strength(c.Verdict) > strength(v) {
		c.Verdict = v
		c.Evidence = append(c.Evidence, ev...)
	}
}

func (j *judge) clear(id ID, source, format string, args ...any) {
	j.say(id, RuledOut, "", evidence(source, format, args...))
}

func (j *judge) unsure(id ID, format string, args ...any) {
	j.say(id, CannotTell, "", evidence("to decide", format, args...))
}

func (j *judge) accused(ids ...ID) bool {
	return slices.ContainsFunc(ids, func(id ID) bool { return j.out[id].Accused() })
}

// Judge says why the client cannot use the target: every cause of the contract,
// the most probable first. It is a pure function.
func Judge(e *Evidence) *Report {
	j := &judge{view: newView(e), e: e, out: map[ID]*Cause{}}
	for _, c := range catalogue {
		j.out[c.id] = &Cause{ID: c.id, Verdict: CannotTell}
	}
	j.names()
	j.witnesses()
	j.attempts()
	j.otherPort()
	j.place()
	j.heard()
	j.queues()
	j.message()
	j.pathMTU()
	j.upstream()
	j.proxy()
	j.assign()
	j.protocols()
	j.behindFirewall()
	j.bySymptom()
	j.suppress()
	j.tunnelled()
	j.undecided()

	r := &Report{
		Schema: Schema, Target: e.Target.Text, Side: e.Side, WithServer: e.Side == SideClient && e.Server != nil, ClientSees: j.sees, Tried: e.Attempts, Incomplete: e.Gaps, TakenAt: e.Now.UTC(),
	}
	if e.From.IsValid() {
		r.From = e.From.String()
	}
	if r.Incomplete == nil {
		r.Incomplete = []audit.Gap{}
	}
	for i, c := range catalogue {
		x := j.out[c.id]
		if x.Evidence == nil {
			x.Evidence = []audit.Evidence{}
		}
		x.weight += c.prior
		if slices.Contains(c.sees, j.sees) {
			x.weight += 200
		}
		x.weight = x.weight*100 - i
		r.Causes = append(r.Causes, *x)
	}
	slices.SortStableFunc(r.Causes, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(a.Verdict.rank(), b.Verdict.rank()), cmp.Compare(b.weight, a.weight))
	})
	r.Summary = j.summary(r)
	return r
}

// bySymptom rules out what does not look like what the client sees, where that
// was observed.
func (j *judge) bySymptom() {
	if j.observed == "" || j.observed == NotKnown {
		return
	}
	source := "connection from here"
	if j.e.Symptom != nil && j.e.Symptom.Sees != "" {
		source = "the client's message"
	} else if j.observed == NoName {
		source = "name look-up"
	}
	for _, c := range catalogue {
		if slices.Contains(c.sees, j.observed) || slices.ContainsFunc(c.sees, j.leavesOpen) {
			continue
		}
		x := j.out[c.id]
		switch {
		case x.Verdict == CannotTell && j.observed == Connected && j.partly() && slices.ContainsFunc(j.e.Attempts, func(a Attempt) bool { return slices.Contains(c.sees, a.Sees) }):
			// It is what another address of the name meets.
		case x.Verdict == CannotTell && j.observed == Connected && len(x.Evidence) > 0 && (c.id == WrongAddress || c.id == DNSElsewhere):
			// That somebody answers does not make it the right one.
		case x.Verdict == CannotTell:
			j.clear(c.id, source, "the client sees %s, not %s", j.observed.words(), seesWords(c.sees))
		case x.Accused() && j.observed == Connected && len(j.addrs) < 2 && !j.partly() && c.id != CDNBetween: // some protocols get lost behind the connection
			// It connects: nothing stands in the way of this client.
			x.Verdict, x.Remedy = RuledOut, ""
			x.Evidence = append(x.Evidence, evidence(source, "the connection came about"))
		case x.Verdict == Confirmed && j.contradicted(c.id):
			x.Verdict = Likely
			x.Evidence = append(x.Evidence, evidence(source, "the client sees %s; by itself this would look like %s", j.observed.words(), seesWords(c.sees)))
		}
	}
}

// failures names the addresses that did not take the connection.
func (j *judge) failures() string {
	var out []string
	for _, a := range j.e.Attempts {
		if a.Sees != Connected {
			out = append(out, a.To.Addr().String()+": "+string(a.Sees))
		}
	}
	return strings.Join(out, ", ")
}

// silence tells that some address tried gave no answer.
func (j *judge) silence() bool {
	return slices.ContainsFunc(j.e.Attempts, func(a Attempt) bool { return a.Sees == Timeout })
}

// partly tells that some addresses were tried and failed beside one that works.
func (j *judge) partly() bool {
	return slices.ContainsFunc(j.e.Attempts, func(a Attempt) bool { return a.Sees != Connected })
}

// contradicted: a fact that would show otherwise at the client. Facts about the
// name, the protocol and the program's own address stand by themselves.
func (j *judge) contradicted(id ID) bool {
	switch id {
	case NotListening, BindAddress, WrongPort, RejectedByFirewall, HostFirewall, PanelFirewall, ReplyPath:
		return true
	}
	return false
}

// suppress keeps symptoms behind their root cause.
func (j *judge) suppress() {
	behind := func(root, symptom ID, why string) {
		if j.out[root].Accused() && j.out[symptom].Accused() {
			j.out[symptom].weight -= 150
			j.weaken(symptom, Likely, evidence("root cause", "%s", why))
		}
	}
	behind(NameUnknown, WrongAddress, "the name does not resolve")
	behind(DNSElsewhere, WrongAddress, "the address comes from the name")
	behind(DNSElsewhere, PrivateAddress, "the address comes from the name")
	behind(WrongPort, NotListening, "the service listens on another port")
	behind(HostFirewall, NotListening, "the firewall decides before the socket")
	behind(HostFirewall, BindAddress, "the firewall decides before the socket")
	behind(RejectedByFirewall, NotListening, "the firewall decides before the socket")
	behind(TimeWaitExhaustion, EphemeralExhausted, "the ports are held by TIME_WAIT")
	behind(TLSMismatch, ProtocolMismatch, "TLS comes before the protocol")
	behind(PanelFirewall, HostFirewall, "the rule is the panel's")
	if j.led {
		behind(ClientProxy, ProtocolMismatch, "another program of the client's host took the connection")
		behind(ClientProxy, HandshakeRejected, "another program of the client's host took the connection")
	}
	if j.localKnown && j.e.Side == SideClient && j.accused(WrongAddress) {
		behind(WrongAddress, HostDown, "the server has other addresses")
	} else {
		behind(HostDown, WrongAddress, "nobody has this address")
	}
	if j.accused(HostFirewall, PanelFirewall, ReplyPath, QueueFull, ConntrackFull, PrivateAddress, CDNBetween, ClientProxy, DNSElsewhere, WrongAddress, HostDown) {
		if c := j.out[CloudGroup]; c.Accused() { // something that is known to drop comes first
			c.Verdict, c.Remedy, c.Evidence = CannotTell, "", []audit.Evidence{evidence("to decide", "%s", j.decides(CloudGroup))}
		}
	}
	behind(CDNBetween, PrivateAddress, "the client talks to the proxy")
	if j.accused(NotListening, WrongPort, BindAddress, NameUnknown, HostFirewall, PanelFirewall, RejectedByFirewall) {
		for _, id := range []ID{ProtocolMismatch, TLSMismatch, HandshakeRejected} {
			if c := j.out[id]; c.Verdict == CannotTell {
				c.Evidence = []audit.Evidence{evidence("to decide", connectFirst)}
			}
		}
	}
}

// undecided says of every cause that is left open what would decide it.
func (j *judge) undecided() {
	for _, c := range catalogue {
		x := j.out[c.id]
		if x.Verdict != CannotTell || len(x.Evidence) > 0 {
			if x.Remedy == "" && x.Verdict == CannotTell {
				x.Remedy = j.decides(c.id)
			}
			continue
		}
		x.Evidence = []audit.Evidence{evidence("to decide", "%s", j.decides(c.id))}
	}
	for _, c := range catalogue {
		if x := j.out[c.id]; x.Accused() && x.Remedy == "" {
			x.Remedy = j.decides(c.id)
		}
	}
}

const connectFirst = "first the connection has to come about"

// decides names what would settle a cause from here.
func (j *judge) decides(id ID) string {
	t, port := j.e.Target, j.e.Target.Port
	onServer := fmt.Sprintf("run `hostaudit diagnose %s` on the server, or give its snapshot with --server", t.Text)
	onClient := fmt.Sprintf("run `hostaudit diagnose %s` on the client", t.Text)
	switch id {
	case WrongPort, NotListening, BindAddress, HostFirewall, PanelFirewall, QueueFull, ConntrackFull, RejectedByFirewall:
		switch s := j.e.Symptom; {
		case j.e.Server == nil:
			return onServer
		case !j.modelled && len(j.addrs) > 0:
			return joinAddrs(j.addrs) + ": not an address of the server, so that its rules and sockets say nothing about it"
		case j.e.From.IsValid() && s != nil && s.Sees != "":
			return fmt.Sprintf("`hostaudit watch %d` on the server while the client tries", port)
		case j.e.From.IsValid():
			return fmt.Sprintf("the client's message (--error), or `hostaudit watch %d` on the server while it tries", port)
		case s != nil && s.Sees != "":
			return "give the client's address with --from"
		}
		return "give the client's address with --from, or its message with --error"
	case ReplyPath:
		if j.e.Server == nil {
			return onServer
		}
		return fmt.Sprintf("`hostaudit watch %d` on the server while the client tries: SYN in and no SYN-ACK out", port)
	case CloudGroup:
		return fmt.Sprintf("`hostaudit watch %d` on the server while the client tries: no SYN means that something before the host drops it", port)
	case DNSElsewhere, CDNBetween, ClientProxy, WrongAddress, PrivateAddress, HostDown:
		if j.e.Side == SideClient {
			return onServer
		}
		return onClient
	case EphemeralExhausted, TimeWaitExhaustion, SourceMissing:
		return "the connecting host decides: " + onClient + ", or `hostaudit ports` there"
	case ProtocolMismatch, TLSMismatch, HandshakeRejected:
		if len(j.e.Probed) > 0 {
			return "what the probe was answered does not tell; the service's log, or the client's message (--error)"
		}
		if j.e.Probing {
			return connectFirst
		}
		if s := j.e.Symptom; s != nil && s.Sees != "" {
			return "--probe sends the least that tells"
		}
		return "--probe sends the least that tells; --error takes the client's message"
	case NameUnknown:
		return onClient
	}
	return onClient
}

func (s Sees) words() string {
	switch s {
	case Refused:
		return "a refusal"
	case Timeout:
		return "a timeout"
	case Unreachable:
		return "an unreachable host"
	case CannotAssign:
		return "an address that cannot be assigned"
	case NoName:
		return "a name that does not resolve"
	case ProtocolError:
		return "an error after the connection"
	case Connected:
		return "a connection"
	}
	return string(s)
}

func seesWords(l []Sees) string {
	s := ""
	for i, x := range l {
		switch {
		case i == 0:
		case i == len(l)-1:
			s += " or "
		default:
			s += ", "
		}
		s += x.words()
	}
	return s
}

// summary is the answer in one sentence.
func (j *judge) summary(r *Report) string {
	what := map[Sees]string{
		Connected: "the connection comes about", Refused: "the client is refused", Timeout: "the client gets no answer", Unreachable: "the client is told that the host is unreachable",
		CannotAssign: "the connection finds no local address or port", NoName: "the name does not resolve", ProtocolError: "the connection comes about and then fails",
		NotKnown: "what the client sees turns on something that cannot be told from here",
	}[r.ClientSees]
	first := &r.Causes[0]
	switch {
	case first.Accused() && r.ClientSees == NotKnown: // then this says more than what the client may see
		return fmt.Sprintf("%s (%s, %s).", upper(first.Title()), first.ID, first.Verdict)
	case first.Verdict == Confirmed:
		return fmt.Sprintf("%s: %s (%s, confirmed).", upper(what), first.Title(), first.ID)
	case first.Verdict == Likely:
		return fmt.Sprintf("%s: probably %s (%s).", upper(what), first.Title(), first.ID)
	case r.ClientSees == Connected && j.observed == Connected && j.partly():
		return upper(what) + " by some addresses of the name and not by others (" + j.failures() + "): clients that use those fail, or wait for them first."
	case r.ClientSees == Connected && len(j.e.Probed) > 0 && j.e.Probed[len(j.e.Probed)-1].Speaks == "" && j.e.Probed[len(j.e.Probed)-1].Silent:
		return upper(what) + ", and the service gives no whole answer in time: it waits for another protocol, or it is busy or stuck (its accept queue, descriptors and log tell, on the server)."
	case r.ClientSees == Connected && j.observed == Connected:
		return upper(what) + "; nothing stands in the way from here."
	case r.ClientSees == Connected:
		return upper(what) + " as far as this host decides; what lies before it cannot be told from here."
	case first.Verdict == CannotTell && j.modelled && j.model == Connected && (r.ClientSees == Refused || r.ClientSees == Timeout || r.ClientSees == Unreachable):
		or := ""
		if j.leavesOpen(ProtocolError) {
			or = ", or the service itself says nothing (--probe)"
		}
		return fmt.Sprintf("%s; as the server is now it lets the client in: the cause is gone meanwhile%s, or it lies before the server: `hostaudit watch %d` there while the client tries.", upper(what), or, j.e.Target.Port)
	case first.Verdict == CannotTell:
		return fmt.Sprintf("%s; the cause cannot be told from the %s alone: %s.", upper(what), r.Side, j.decides(first.ID))
	}
	return upper(what) + "; no cause is left over."
}

func upper(s string) string {
	if s == "" {
		return s
	}
	if s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}
