package diagnose

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// notListening weighs a port without a socket.
func (j *judge) notListening(v Verdict, ev []audit.Evidence) {
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
	told, todo := j.units()
	ev = append(ev, told...)
	if todo != "" {
		remedy = todo
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

// behindFirewall looks at what a client would meet once a firewall that drops or
// rejects it lets it in: the second cause, which would be next.
func (j *judge) behindFirewall() {
	e := j.e
	if !j.accused(HostFirewall, PanelFirewall, RejectedByFirewall) || !j.modelled {
		return
	}
	home := e.Server.World.Namespaces[0]
	if home.Listeners == nil || home.Ruleset == nil || translates(home.Ruleset) {
		return // where a translation leads is known to the model alone
	}
	takes := func(l *listeners.Listener) bool {
		own := l.Local.Addr().Unmap()
		if len(j.addrs) == 0 {
			return !own.IsLoopback()
		}
		return slices.ContainsFunc(j.addrs, func(a netip.Addr) bool {
			if own.IsUnspecified() {
				return own.Is4() == a.Is4() || own.Is6() && !l.V6Only
			}
			return own == a
		})
	}
	const next = "the firewall decides first, and then this would refuse the client"
	switch {
	case slices.ContainsFunc(j.listening, takes):
		return
	case len(j.listening) > 0:
		j.say(BindAddress, Likely, j.bindRemedy(), evidence("sockets", "%s%s takes no connections to %s: %s", j.listening[0].Subject(), processName(j.listening[0]), dialledWords(j.addrs), next))
		j.out[BindAddress].weight -= 150
	case len(j.elsewhere) == 0:
		j.say(NotListening, Likely, "start the service", evidence("sockets", "nothing listens on port %d: %s", e.Target.Port, next))
		j.out[NotListening].weight -= 150
	}
}

func dialledWords(as []netip.Addr) string {
	if len(as) == 0 {
		return "an address that others reach"
	}
	return joinAddrs(as)
}

// translates tells a ruleset that changes where packets go.
func translates(r *firewall.Ruleset) bool {
	for _, t := range r.Tables {
		for _, c := range t.Chains {
			if c.Base != nil && c.Base.Type == firewall.ChainNAT && c.Base.Hook == firewall.Prerouting && len(c.Rules) > 0 {
				return true
			}
		}
	}
	return false
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
