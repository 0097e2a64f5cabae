package diagnose

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

// names judges the look-up.
func (j *judge) names() {
	n := j.e.Names
	if n == nil {
		if s := j.e.Symptom; s != nil && s.Sees == NoName && j.e.Target.Named() {
			j.say(NameUnknown, Likely, "ask the resolver of the client", evidence("the client's message", "%s", s.Text))
			return
		}
		if j.e.Target.Addr.IsValid() || j.e.Target.Host == "" {
			j.clear(NameUnknown, "target", "it is an address")
			j.clear(DNSElsewhere, "target", "it is an address: no name is looked up")
		}
		return
	}
	var ev []audit.Evidence
	if len(n.Hosts) > 0 {
		ev = append(ev, evidence("hosts file", "%s %s", joinAddrs(n.Hosts), n.Name))
	}
	var outcomes []string
	dns := map[bool][]netip.Addr{}
	for _, a := range n.Answers {
		what := a.Outcome
		if len(a.Addrs) > 0 {
			what = joinAddrs(a.Addrs)
		} else if a.Outcome == "error" && a.Why != "" {
			what = a.Why
		}
		typ := "A"
		if a.Type == typeAAAA {
			typ = "AAAA"
		}
		if !slices.Contains(outcomes, a.Outcome) {
			outcomes = append(outcomes, a.Outcome)
		}
		dns[a.Type == typeAAAA] = append(dns[a.Type == typeAAAA], a.Addrs...)
		ev = append(ev, evidence("resolver "+a.Server.String(), "%s %s: %s", a.Name, typ, strings.TrimSpace(what+" "+strings.Join(a.CNAMEs, " "))))
	}
	if len(j.addrs) > 0 {
		j.say(NameUnknown, RuledOut, "", ev...)
		if s := j.e.Symptom; s != nil && s.Sees == NoName {
			j.out[NameUnknown].Verdict = CannotTell
			j.say(NameUnknown, Likely, "the name resolves here: ask the client's own resolver", ev...)
		}
		j.hostsAgainstDNS(n, dns)
		return
	}
	failed := slices.ContainsFunc(outcomes, func(o string) bool {
		return o == "timeout" || o == "servfail" || o == "error" || o == "refused"
	})
	authoritative := slices.Contains(outcomes, "nxdomain") || slices.Contains(outcomes, "no-data")
	switch {
	case authoritative && !failed:
		j.say(NameUnknown, Confirmed, "check the spelling in the URL; add the A or AAAA record", ev...)
	case authoritative:
		j.say(NameUnknown, Likely, "check the spelling and the record; not every resolver answered", ev...)
	default:
		j.say(NameUnknown, Likely, "check /etc/resolv.conf and the resolver: its failure says nothing about the name", ev...)
		j.out[NameUnknown].What = "the resolver fails"
	}
}

// hostsAgainstDNS notes a hosts file that says otherwise than the resolvers.
func (j *judge) hostsAgainstDNS(n *Resolution, dns map[bool][]netip.Addr) {
	all := append(slices.Clone(dns[false]), dns[true]...)
	if len(n.Hosts) == 0 || len(all) == 0 || slices.ContainsFunc(n.Hosts, func(a netip.Addr) bool { return slices.Contains(all, a) }) {
		return
	}
	v := CannotTell
	if j.observed != Connected && j.observed != ProtocolError && j.observed != "" {
		v = Likely
	}
	j.say(DNSElsewhere, v, "the hosts file of this host overrides the name: correct or remove the line", evidence("hosts file", "%s %s", joinAddrs(n.Hosts), n.Name),
		evidence("resolvers", "%s", joinAddrs(all)))
}

// attempts judges the connections tried from here.
func (j *judge) attempts() {
	e := j.e
	for i := range e.Attempts {
		a := &e.Attempts[i]
		to := a.To.Addr()
		switch a.Sees {
		case Connected:
			j.connected(a)
			j.elsewhereLed(a)
		case Refused, Unreachable:
			j.rejected(a)
		case Timeout:
			if private := privateRange(to); private.IsValid() {
				j.private(a, private)
			}
			if a.Route != nil && a.Route.Unanswered {
				j.unanswered(a, evidence("connection from here", "no answer of %s within %.1f s", a.To, a.Took))
			}
			if w := a.Wire; w != nil && w.SYNACK > 0 {
				j.say(ReplyPath, Likely, "a rule of this host throws the answer away: look at its INPUT rules", evidence("packets", "a SYN-ACK from %s came back, and the connection did not come about", to))
			}
		}
		j.egress(a)
	}
	if j.e.Side == SideServer && len(j.addrs) > 0 {
		j.privateAtServer()
	}
	for _, a := range j.addrs {
		if !privateRange(a).IsValid() {
			continue
		}
		return
	}
	if len(j.addrs) > 0 {
		j.clear(PrivateAddress, "target", "%s is a public address", joinAddrs(j.addrs))
	}
}

func (j *judge) connected(a *Attempt) {
	ev := evidence("connection from here", "%s answered after %.1f ms", a.To, a.Took*1000)
	if j.partly() || j.e.ledElsewhere(a) { // what another address of the name, or another program, meets is another matter
		return
	}
	for _, id := range []ID{HostFirewall, PanelFirewall, CloudGroup, HostDown, RejectedByFirewall, NotListening, BindAddress, ConntrackFull, PrivateAddress, WrongPort} {
		j.say(id, RuledOut, "", ev)
	}
	small := ""
	if !j.e.Probing {
		small = "; large packets were not tried (--probe)"
	}
	j.clear(ReplyPath, "connection from here", "%s answered after %.1f ms%s", a.To, a.Took*1000, small)
	if local, known := LocalTo(j.e.Server, a.To.Addr()); !j.e.Target.Named() && (!known || local) {
		j.say(WrongAddress, RuledOut, "", ev)
	}
}

// rejected judges a refusal or an ICMP error.
func (j *judge) rejected(a *Attempt) {
	to := a.To.Addr()
	own := a.ICMP != nil && a.ICMP.From == to
	local := a.ICMP == nil && a.Took < 0.5 && a.Sees == Unreachable
	took := evidence("connection from here", "%s to %s after %.0f ms", a.Errno, a.To, a.Took*1000)
	const remedy = "let the port in before the rule that rejects, for the clients meant"
	switch {
	case a.ICMP != nil && (a.ICMP.prohibits() || a.ICMP.portUnreachable()):
		ev := []audit.Evidence{took, evidence("ICMP", "%s: a closed port is answered with a reset, this comes from a rule%s", a.ICMP, boxName(own))}
		j.say(RejectedByFirewall, Confirmed, remedy, ev...)
		if own {
			j.alive(a)
		}
		j.clear(NotListening, "ICMP", "the answer is no reset of a closed port")
		j.clear(BindAddress, "ICMP", "the answer is no reset of a closed port")
		j.clear(WrongPort, "ICMP", "the answer is no reset of a closed port")
	case own: // a host that says that it is itself unreachable
		j.say(RejectedByFirewall, Confirmed, remedy, took, evidence("ICMP", "%s, the address itself: a rule says so", a.ICMP))
		j.alive(a)
	case a.ICMP != nil && a.Route != nil && a.Route.Local:
	case a.ICMP != nil && slices.Contains(ownAddrs(j.e.Here), a.ICMP.From):
		j.unanswered(a, took)
	case a.ICMP != nil:
		j.say(HostDown, Likely, "ask the provider's console whether the server runs", took, evidence("ICMP", "%s, a router on the way", a.ICMP))
		j.say(RejectedByFirewall, CannotTell, remedy, took, evidence("ICMP", "%s: a router without a way, or a rule of it", a.ICMP))
	case a.Sees == Refused:
		j.alive(a)
		if w := a.Wire; w != nil && w.SYN > 0 && w.RST > 0 {
			j.unsure(RejectedByFirewall, "a reset came back: of a closed port or of a rule (reject with tcp reset), which look the same from here; %s", j.decides(RejectedByFirewall))
		}
		if !j.silence() {
			j.clear(CloudGroup, "connection from here", "a reset came back at once: the SYN got through, security groups drop in silence")
		}
	case local && a.Route != nil && a.Route.Errno != "":
		j.noWay(a, took)
	case local && a.Errno == "ENETUNREACH":
		j.noWay(a, took)
	case a.Sees == Unreachable && (a.Took >= 2.5 || a.Route != nil && a.Route.Unanswered):
		j.unanswered(a, took)
	case a.Errno == "EACCES" || a.Errno == "EINVAL" || a.Errno == "EPERM":
		j.say(ReplyPath, Likely, "a route or rule of this host forbids the connection: ip route get, ip rule", took)
	case a.Sees == Unreachable:
		j.say(RejectedByFirewall, Likely, remedy, took)
	}
	if private := privateRange(to); private.IsValid() {
		j.private(a, private)
	}
}

func boxName(own bool) string {
	if own {
		return " of the server itself"
	}
	return " of a box on the way"
}

// alive notes that the host answered.
func (j *judge) alive(a *Attempt) {
	if a.Route != nil && a.Route.Local && j.e.Side == SideClient || j.silence() {
		return
	}
	j.clear(HostDown, "connection from here", "%s answered at once (%s)", a.To.Addr(), orWord(a.Errno, "connected"))
	j.clear(PrivateAddress, "connection from here", "%s answers, so there is a way to it (unless a stranger has the same address)", a.To.Addr())
}

// unanswered is an address that nobody on the link owns.
func (j *judge) unanswered(a *Attempt, took audit.Evidence) {
	to := a.To.Addr()
	proto := "ARP"
	if to.Is6() {
		proto = "neighbour discovery"
	}
	v := Likely
	if a.Route != nil && a.Route.Gateway.IsValid() {
		took.Value += "; the gateway " + a.Route.Gateway.String() + " does not answer " + proto
		j.say(ReplyPath, Likely, "the gateway is down: check the client's own network", took)
		return
	}
	j.say(HostDown, v, "ask the provider's console whether the server runs, and whether this is its address", took, evidence("link", "nobody answers %s for %s", proto, to))
	if !j.e.Target.Named() {
		j.say(WrongAddress, Likely, "check the address in the URL", took, evidence("link", "nobody on it owns %s", to))
	}
}

// noWay is a client without a route.
func (j *judge) noWay(a *Attempt, took audit.Evidence) {
	to := a.To.Addr()
	errno := a.Errno
	if a.Route != nil && a.Route.Errno != "" {
		errno = a.Route.Errno
	}
	switch errno {
	case "ENETUNREACH":
		if privateRange(to).IsValid() {
			return // said there
		}
		if !j.e.Target.Named() || to.Is6() {
			j.say(WrongAddress, Likely, "check the address; the client has no route to it", took, evidence("route", "this host has no route to %s", to))
		} else {
			j.say(WrongAddress, CannotTell, "", took)
		}
		if j.e.Target.Named() {
			j.say(ReplyPath, Likely, "give the client a route to "+to.String(), took, evidence("route", "this host has no route to %s", to))
		}
	default:
		kind := map[string]string{"EINVAL": "blackhole", "EHOSTUNREACH": "unreachable", "EACCES": "prohibit"}[errno]
		j.say(ReplyPath, Confirmed, "remove that route of the client (ip route show type "+kind+")", took, evidence("route", "a route of type %s of this host covers %s", kind, to))
		j.clear(RejectedByFirewall, "route", "the error comes from this host's own routes")
	}
	j.clear(HostDown, "route", "no packet left this host")
	j.clear(CloudGroup, "route", "no packet left this host")
}

// private judges a private address that did not answer, from the client.
func (j *judge) private(a *Attempt, private netip.Prefix) {
	to := a.To.Addr()
	const remedy = "dial the public address, or reach the network by VPN, peering or port forwarding"
	ev := []audit.Evidence{evidence("target", "%s lies in %s", to, private)}
	w := a.Route
	switch {
	case to.IsLoopback(), w == nil:
	case w.Errno == "ENETUNREACH":
		j.say(PrivateAddress, Confirmed, remedy, append(ev, evidence("route", "this host has no route to it"))...)
	case w.Errno != "":
	case w.Local || !w.Gateway.IsValid():
		j.clear(PrivateAddress, "route", "%s is on this host's own network (%s)", to, w.Interface)
	case w.Prefix.IsValid() && w.Prefix.Bits() > 0:
		j.clear(PrivateAddress, "route", "a route of its own leads there: %s via %s", w.Prefix, w.Gateway)
	case a.Sees == Timeout || a.Sees == Unreachable:
		ev = append(ev, evidence("route", "only the default route by %s leads there", w.Gateway))
		j.say(PrivateAddress, Likely, remedy, ev...)
	default:
		j.say(PrivateAddress, CannotTell, remedy, append(ev, evidence("to decide", "whether the one who answered is not a stranger with the same address"))...)
	}
}

// privateAtServer judges a private address of the server without a client run.
func (j *judge) privateAtServer() {
	for _, a := range j.addrs {
		p := privateRange(a)
		if !p.IsValid() || a.IsLoopback() {
			continue
		}
		from := j.e.From
		switch {
		case !from.IsValid():
			j.unsure(PrivateAddress, "%s lies in %s: clients outside that network cannot dial it; --from ADDRESS, or a run on the client, tells", a, p)
		case global(from) && (j.observed == Timeout || j.observed == Unreachable):
			j.say(PrivateAddress, Likely, "dial the public address, or reach the network by VPN or port forwarding", evidence("target", "%s lies in %s", a, p), evidence("client", "%s is on the Internet", from))
		case global(from):
			j.unsure(PrivateAddress, "%s lies in %s and the client %s is on the Internet: it needs a VPN or a route there, or the public address", a, p, from)
		case sameNetwork(j.e.Server, from):
			j.clear(PrivateAddress, "routes", "%s is in a network that this host has a route of its own to", from)
		default:
			j.unsure(PrivateAddress, "whether the network of %s is routed to %s", from, a)
		}
	}
}

// sameNetwork: a route other than a default one leads to the client.
func sameNetwork(s *audit.Snapshot, a netip.Addr) bool {
	if s == nil || s.World.Namespaces[0].Route == nil {
		return false
	}
	for _, r := range s.World.Namespaces[0].Route.Routes {
		if r.Dst.Bits() > 0 && r.Dst.Contains(a) {
			return true
		}
	}
	return false
}

func ownAddrs(s *audit.Snapshot) []netip.Addr {
	if s == nil || len(s.World.Namespaces) == 0 {
		return nil
	}
	return localAddrs(s.World.Namespaces[0])
}
