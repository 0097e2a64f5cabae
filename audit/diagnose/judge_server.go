package diagnose

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// ruleText names a witness with its place.
func ruleText(d reach.DecidedBy) string {
	switch d.Kind {
	case reach.ByRule:
		s := fmt.Sprintf("%s %s %s %s #%d", d.Backend, d.Family, d.Table, d.Chain, d.Number)
		if d.Text != "" {
			s += ": " + d.Text
		}
		return s
	case reach.ByPolicy:
		return fmt.Sprintf("%s %s %s %s, policy", d.Backend, d.Family, d.Table, d.Chain)
	}
	return d.Text
}

func (f *face) place() string {
	if f.to.IsValid() {
		return " to " + f.to.String()
	}
	return ""
}

// level is how sure the model's answer about a face makes a cause.
func (j *judge) level(f *face) Verdict {
	switch {
	case f.sees == NotKnown:
		if j.observed != "" && j.observed != Connected {
			return Likely
		}
		return CannotTell
	case j.single && f.share < 1: // only if the packets come in by another interface
		if j.observed == f.sees {
			return Likely
		}
		return CannotTell
	case f.share > 0.999 || j.single:
		if j.observed != "" && j.observed != f.sees {
			return Likely
		}
		return Confirmed
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
		if v == CannotTell && f.sees != NotKnown && !j.single {
			ev = append(ev, evidence("to decide", "whether the client is one of them: --from ADDRESS"))
		}
		if f.sees == NotKnown {
			for _, c := range f.conds {
				what := c.Text
				if what == "" {
					what = c.Object
				}
				ev = append(ev, evidence("condition", "%s turns on %s", strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Table, c.Chain, what)), c.TurnsOn))
			}
			j.say(j.firewallID(f), v, ownerOf(f.by).remedy(j, f), ev...)
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

// rulesOwner is who writes the rules of a chain, as its name tells.
type rulesOwner string

const (
	ownerNobody    rulesOwner = ""
	ownerUFW       rulesOwner = "ufw"
	ownerFirewalld rulesOwner = "firewalld"
	ownerFail2ban  rulesOwner = "fail2ban"
	ownerCrowdsec  rulesOwner = "crowdsec"
	ownerPanel     rulesOwner = "panel"
	ownerDocker    rulesOwner = "docker"
	ownerKube      rulesOwner = "kubernetes"
)

func ownerOf(d reach.DecidedBy) rulesOwner {
	if o := ownerByChain(d.Chain); o != ownerNobody {
		return o
	}
	switch {
	case strings.Contains(d.Text, "in_bt_"):
		return ownerPanel
	case d.Table == "firewalld":
		return ownerFirewalld
	case strings.HasPrefix(d.Table, "f2b-"), strings.Contains(d.Text, "f2b-"):
		return ownerFail2ban
	case strings.HasPrefix(d.Table, "crowdsec"), strings.Contains(d.Text, "crowdsec"):
		return ownerCrowdsec
	}
	return ownerNobody
}

func ownerByChain(chain string) rulesOwner {
	switch {
	case strings.HasPrefix(chain, "IN_BT"), strings.HasPrefix(chain, "OUT_BT"), strings.HasPrefix(chain, "FORWARD_BT"):
		return ownerPanel
	case strings.HasPrefix(chain, "ufw"):
		return ownerUFW
	case strings.HasPrefix(chain, "f2b-"):
		return ownerFail2ban
	case strings.HasPrefix(chain, "DOCKER"):
		return ownerDocker
	case strings.HasPrefix(chain, "KUBE"), strings.HasPrefix(chain, "cali-"):
		return ownerKube
	case strings.HasPrefix(strings.ToUpper(chain), "CROWDSEC"):
		return ownerCrowdsec
	}
	return ownerNobody
}

// remedy is the smallest opening in the owner's own language.
func (o rulesOwner) remedy(j *judge, f *face) string {
	port := j.e.Target.Port
	from := ""
	if j.e.From.IsValid() {
		from = j.e.From.String()
	}
	if strings.Contains(f.hook, "output") || strings.Contains(f.hook, "postrouting") {
		return fmt.Sprintf("let the answers of established connections out (ct state established,related accept) before %s", ruleText(f.by))
	}
	switch o {
	case ownerUFW:
		if from != "" {
			return fmt.Sprintf("ufw allow from %s to any port %d proto tcp", from, port)
		}
		return fmt.Sprintf("ufw allow %d/tcp, or for the clients meant: ufw allow from NETWORK to any port %d proto tcp", port, port)
	case ownerFirewalld:
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/tcp && firewall-cmd --reload (in the zone of the interface)", port)
	case ownerFail2ban:
		jail := strings.TrimPrefix(f.by.Chain, "f2b-")
		return fmt.Sprintf("the address is banned: fail2ban-client set %s unbanip %s", orWord(jail, "JAIL"), orWord(from, "ADDRESS"))
	case ownerCrowdsec:
		return fmt.Sprintf("the address is banned: cscli decisions delete --ip %s", orWord(from, "ADDRESS"))
	case ownerPanel:
		return fmt.Sprintf("open port %d in the panel (Security); a rule added beside the panel vanishes at its next reload", port)
	case ownerDocker:
		return "the rules are Docker's: publish the port, or change DOCKER-USER"
	case ownerKube:
		return "the rules are Kubernetes': change the network policy or the service"
	}
	source := "the clients meant"
	if from != "" {
		source = from
	}
	return fmt.Sprintf("let tcp %d from %s in before %s; never switch the firewall off", port, source, ruleText(f.by))
}

func orWord(s, other string) string {
	if s == "" {
		return other
	}
	return s
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

// notListening weighs a port without a socket.
func (j *judge) notListening(v Verdict, ev []audit.Evidence) {
	port := j.e.Target.Port
	for _, x := range j.elsewhere {
		where := orWord(x.ns.Name, "without a name")
		if !x.near { // a stranger's, as far as links tell
			ev = append(ev, evidence("sockets", "%s in network namespace %s, to which no link leads from here", x.l.Subject(), where))
			continue
		}
		j.say(BindAddress, min2(v, Likely), "publish the port of the container, or let the service listen in this namespace",
			evidence("sockets", "%s in network namespace %s alone", x.l.Subject(), where))
		v = min2(v, Likely) // which of them was meant is not known
		j.out[NotListening].weight -= 150
	}
	if n := j.nearPort(); n != nil {
		level := Likely
		if n.sure {
			level = min2(v, Confirmed)
		}
		if strength(v) >= strength(Likely) {
			j.say(WrongPort, level, fmt.Sprintf("dial port %d", n.port), n.ev...)
		}
	} else {
		j.unsure(WrongPort, "which port was meant: nothing says so (services: in the configuration would)")
	}
	remedy := "start the service, or find out why it does not start"
	facts := j.e.serverFacts()
	if u := facts.Unit; u != nil {
		switch {
		case u.Active:
			ev = append(ev, evidence("unit "+u.Name, "runs, and does not listen on port %d", port))
			remedy = "the unit runs: look at the port in its configuration and at its log"
		case u.StalePID > 0:
			ev = append(ev, evidence("unit "+u.Name, "does not run; %s names process %d, which does not exist", u.PIDFile, u.StalePID))
			remedy = "start it: systemctl start " + u.Name
		case u.File == "":
			ev = append(ev, evidence("unit "+u.Name, "no unit file"))
		default:
			ev = append(ev, evidence("unit "+u.Name, "does not run (%s)", u.File))
			remedy = "start it: systemctl start " + u.Name + "; systemctl status says how it ended"
		}
	}
	for _, h := range facts.Log {
		switch h.Kind {
		case LogBindInUse:
			ev = append(ev, evidence("log", "%s", h.Last))
			remedy = "another socket holds the port, perhaps an outgoing connection: put the port into net.ipv4.ip_local_reserved_ports and start the service"
		case LogBindDenied:
			ev = append(ev, evidence("log", "%s", h.Last))
			remedy = "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE"
		case LogExit, LogOutOfMemory, LogDisabled, LogBindNoAddr:
			ev = append(ev, evidence("log", "%s", h.Last))
		}
	}
	if s := j.e.Symptom; s != nil && s.Bind && !s.Connect && s.Kind == KindAddrInUse {
		ev = append(ev, evidence("the server's message", "%s", s.Text))
	}
	j.say(NotListening, v, remedy, ev...)
}

// near is a port that was probably meant.
type near struct {
	port uint16
	sure bool
	ev   []audit.Evidence
}

// nearPort looks for the listener that was meant.
func (j *judge) nearPort() *near {
	t := j.e.Target
	if j.e.Server == nil || j.e.Server.World.Namespaces[0].Listeners == nil {
		return nil
	}
	all := j.e.Server.World.Namespaces[0].Listeners.Listeners
	listens := func(port uint16) *listeners.Listener {
		for i := range all {
			if all[i].Port() == port && (all[i].Proto == listeners.TCP || all[i].Proto == listeners.MPTCP) {
				return &all[i]
			}
		}
		return nil
	}
	if c := j.e.Config; c != nil {
		var found *near
		for _, s := range c.Services {
			if s.Proto != "udp" && s.Port == t.Port {
				return nil // the very port is declared: the service does not run
			}
			if s.Proto != "udp" && listens(s.Port) != nil && (t.wants() != "" && workerScheme(s.Protocol) == t.wants() || permuted(s.Port, t.Port)) {
				if found != nil {
					found.sure = false
					continue
				}
				found = &near{s.Port, true, []audit.Evidence{evidence(s.Source, "service %s is on port %d, and listens", s.Name, s.Port)}}
			}
		}
		if found != nil {
			return found
		}
	}
	for i := range all {
		l := &all[i]
		if l.Proto != listeners.TCP && l.Proto != listeners.MPTCP || l.Local.Addr().Unmap().IsLoopback() {
			continue
		}
		d := declared(l)
		fits := d != nil && !d.Internal && t.wants() != "" && d.Protocol == t.wants()
		if fits || permuted(l.Port(), t.Port) {
			n := &near{port: l.Port(), ev: []audit.Evidence{evidence("sockets", "%s listens%s", l.Subject(), processName(l))}}
			if d != nil {
				n.ev = append(n.ev, evidence(d.Source, "%s", d.Text))
			}
			return n
		}
	}
	return nil
}

func processName(l *listeners.Listener) string {
	if len(l.Owners) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s, pid %d)", l.Owners[0].Comm, l.Owners[0].PID)
}

// permuted tells two numbers of the same digits in another order.
func permuted(a, b uint16) bool {
	x, y := []byte(itoa(int(a))), []byte(itoa(int(b)))
	slices.Sort(x)
	slices.Sort(y)
	return a != b && len(x) > 2 && string(x) == string(y)
}

// heard clears or notes what the sockets say by themselves.
func (j *judge) heard() {
	delivered := slices.ContainsFunc(j.faces, func(f face) bool { return f.got != nil && f.got.Listener != "" })
	reached := slices.ContainsFunc(j.faces, func(f face) bool { return f.sees == Connected })
	port := j.e.Target.Port
	if delivered && reached && j.sees != Refused {
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
		if d := declared(l); d != nil && d.Internal && j.e.Target.wants() != "" && d.Protocol != j.e.Target.wants() && j.sees != Refused {
			j.out[WrongPort].Verdict, j.out[WrongPort].Evidence = CannotTell, nil
			j.say(WrongPort, Likely, "dial the Gateway's own port", evidence(d.Source, "%s: an internal port of GatewayWorker, not for clients", d.Text))
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
		if f.got != nil && f.got.Listener != "" {
			where := ""
			if f.got.NetNS != "" {
				where = " in " + f.got.NetNS
			}
			return "delivered to " + f.got.Listener + where
		}
	}
	return "listens"
}

// queues looks at the accept queue, the descriptors and connection tracking.
func (j *judge) queues() {
	s := j.e.Server
	if s == nil {
		return
	}
	var full, files bool
	for _, l := range j.listening {
		q := l.Accept
		if q.Full() {
			full = true
			j.say(QueueFull, Confirmed, queueRemedy, evidence("sockets", "%s: %d connections wait, the limit is %d%s", l.Subject(), q.Len, q.Limit, processName(l)))
		}
		for _, p := range l.Owners {
			if fill, known := p.Files.Fill(); known && fill >= 1 {
				files = true
				j.say(QueueFull, Confirmed, "raise the descriptor limit (LimitNOFILE= of the unit) and restart; then look for leaked connections",
					evidence("process", "%s (pid %d) has %d of %d descriptors open: it cannot accept", p.Comm, p.PID, p.Files.Open, p.Files.Soft))
			}
		}
	}
	if h := hit(j.e.serverFacts().Log, LogTooManyFile, ""); h != nil && (full || j.observed == Timeout) {
		j.say(QueueFull, Likely, queueRemedy, evidence("log", "%s", h.Last))
	}
	if n := j.delta[listeners.ListenOverflows]; n > 0 && !full && !files {
		if len(j.listening) > 0 && j.listening[0].Accept.Fill() >= 0.8 {
			j.say(QueueFull, Likely, queueRemedy, evidence("counters", "ListenOverflows +%d %s", n, j.deltaOver))
		} else {
			j.say(QueueFull, CannotTell, queueRemedy, evidence("counters", "ListenOverflows +%d %s on this host, the queue of this port is not full now", n, j.deltaOver))
		}
	}
	if len(j.listening) > 0 && !full && !files && j.delta[listeners.ListenOverflows] == 0 && !j.accused(QueueFull) {
		q := j.listening[0].Accept
		j.clear(QueueFull, "sockets", "the queue is %d of %d and no connection was dropped at a queue %s", q.Len, q.Limit, j.deltaOver)
	} else if j.modelled && len(j.listening) == 0 {
		j.clear(QueueFull, "sockets", "no listener, no queue")
	}
	j.conntrack(s)
	if n := j.delta[listeners.ReversePathFiltered]; n > 0 {
		v := CannotTell
		if j.observed == Timeout {
			v = Likely
		}
		j.say(ReplyPath, v, "rp_filter=2 on the interface that the packets come in by; not rp_filter=0 everywhere", evidence("counters", "IPReversePathFilter +%d %s", n, j.deltaOver))
	}
}

func (j *judge) conntrack(s *audit.Snapshot) {
	c := s.Conntrack
	const remedy = "raise net.netfilter.nf_conntrack_max and the buckets with it, and persist both where the module is loaded; or notrack for the busy port"
	switch {
	case c == nil:
		for _, g := range s.Gaps {
			if strings.Contains(strings.ToLower(g.What), "conntrack") || strings.Contains(strings.ToLower(g.What), "connection tracking") {
				return
			}
		}
		j.clear(ConntrackFull, "connection tracking", "is not loaded")
	case c.Max == 0:
	default:
		var drops uint64
		if len(s.Samples) >= 2 {
			d := s.Samples[len(s.Samples)-1].Counters.Sub(s.Samples[0].Counters)
			for k, n := range d {
				if strings.HasPrefix(strings.ToLower(k), "conntrack.") && (strings.HasSuffix(k, "drop") || strings.HasSuffix(k, "early_drop")) {
					drops += n
				}
			}
		}
		e := evidence("connection tracking", "%d of %d entries", c.Count, c.Max)
		total := c.Counters["drop"] + c.Counters["early_drop"]
		switch {
		case drops > 0:
			j.say(ConntrackFull, Confirmed, remedy, e, evidence("counters", "%d packets dropped by the full table %s", drops, j.deltaOver))
		case c.Count >= c.Max:
			j.say(ConntrackFull, Confirmed, remedy, e, evidence("counters", "the table is full; %d packets dropped since the start", total))
		case c.Fill() >= 0.95:
			j.say(ConntrackFull, Likely, remedy, e)
		case c.Fill() < 0.8:
			j.clear(ConntrackFull, "connection tracking", "%d of %d entries", c.Count, c.Max)
		default:
			j.say(ConntrackFull, CannotTell, remedy, e)
		}
	}
}

// place judges the address and the name against the server's own.
func (j *judge) place() {
	e := j.e
	if !j.localKnown || len(j.addrs) == 0 {
		return
	}
	owned := append(slices.Clone(j.local), e.Public...)
	var hosts []netip.Addr
	for _, a := range j.local {
		if !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			hosts = append(hosts, a)
		}
	}
	// Behind 1:1 NAT a host does not know its public address of that family.
	behindNAT := func(a netip.Addr) bool {
		return global(a) && !slices.ContainsFunc(owned, func(o netip.Addr) bool { return global(o) && o.Is4() == a.Is4() })
	}
	var wrong, right []netip.Addr
	for _, a := range j.addrs {
		if local, _ := LocalTo(e.Server, a); local || slices.Contains(owned, a) {
			right = append(right, a)
		} else {
			wrong = append(wrong, a)
		}
	}
	cdnAddr := slices.ContainsFunc(wrong, func(a netip.Addr) bool { c, _ := cdnOf(a); return c != nil }) ||
		e.Names != nil && slices.ContainsFunc(e.Names.CNAMEs(), func(n string) bool { return cdnOfName(n) != nil })
	id, remedy := WrongAddress, "dial one of "+joinAddrs(hosts)
	if e.Target.Named() {
		id, remedy = DNSElsewhere, "correct the record: the server has "+joinAddrs(append(hosts, e.Public...))
		j.clear(WrongAddress, "target", "it is a name")
	}
	switch {
	case len(wrong) == 0:
		j.clear(id, "addresses of the server", "%s is its own", joinAddrs(right))
	case cdnAddr:
		j.say(id, CannotTell, "", evidence("addresses", "%s belongs to a CDN", joinAddrs(wrong)))
	default:
		ev := []audit.Evidence{evidence("target", "%s", joinAddrs(wrong)), evidence("addresses of the server", "%s", joinAddrs(append(hosts, e.Public...)))}
		v := Confirmed
		if slices.ContainsFunc(wrong, behindNAT) {
			v = CannotTell
			ev = append(ev, evidence("to decide", "the host's public address, which it does not know behind NAT: --public ADDRESS, or --metadata in a cloud"))
		}
		if e.Side == SideClient && len(right) == 0 && j.observed == Connected {
			v = CannotTell
			ev = append(ev, evidence("to decide", "who answers at %s: another host, or a balancer or proxy in front of the server", joinAddrs(wrong)))
		}
		if len(right) > 0 {
			v = min2(v, Likely)
			if slices.ContainsFunc(wrong, netip.Addr.Is6) && !slices.ContainsFunc(wrong, netip.Addr.Is4) {
				remedy = "the AAAA record alone is wrong: remove it, or give the server that address"
			}
			if j.observed == Connected && !j.partly() {
				v = CannotTell
			}
		}
		if e.Names != nil && len(e.Names.Hosts) > 0 {
			remedy = "the hosts file of this host overrides the name: correct the line there"
			ev = append(ev, evidence("hosts file", "%s %s", joinAddrs(e.Names.Hosts), e.Target.Host))
		}
		j.say(id, v, remedy, ev...)
	}
}

func joinAddrs(as []netip.Addr) string {
	var out []string
	for _, a := range as {
		if s := a.String(); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return "no address"
	}
	if len(out) > 8 {
		out = append(out[:8], "…")
	}
	return strings.Join(out, ", ")
}
