package diagnose

import (
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

const (
	poolRemedy = "in this order: keep connections open (pool, keep-alive); a unix socket, or more addresses and ports to connect to; IP_BIND_ADDRESS_NO_PORT where the program binds before it connects; " +
		"widen net.ipv4.ip_local_port_range (reserve the ports of listeners in it); net.ipv4.tcp_tw_reuse=1 last, for outgoing connections with timestamps"
	twRemedy = "keep connections open instead of closing them after each request (pool, keep-alive), so that this side does not close first; net.ipv4.tcp_tw_reuse=1 helps outgoing connections after a second; " +
		"the 60 s cannot be shortened, and a small tcp_max_tw_buckets does harm"
)

// assign judges the local addresses and ports of the connecting host.
func (j *judge) assign() {
	e := j.e
	var failed *Attempt
	for i := range e.Attempts {
		if a := &e.Attempts[i]; a.Sees == CannotAssign {
			failed = a
		}
	}
	j.sourceMissing(failed)
	if e.Side == SideServer && (e.Symptom == nil || e.Symptom.Sees != CannotAssign) {
		// Accepted connections use no local ports.
		for _, id := range []ID{EphemeralExhausted, TimeWaitExhaustion} {
			j.clear(id, "server", "accepted connections take no local ports; this concerns the connecting host")
		}
		return
	}
	c := census(e.Here)
	if c == nil {
		return
	}
	usable := c.ForConnect(listeners.TCP)
	var best listeners.Destination
	share := 0.0
	for _, d := range c.Destinations {
		if d.Proto != listeners.TCP || d.Port != e.Target.Port || len(j.addrs) > 0 && !slices.Contains(j.addrs, d.To) {
			continue
		}
		if s := float64(d.Held()) / float64(max(usable, 1)); s > share || best.InUse == 0 {
			best, share = d, s
		}
	}
	var source listeners.SourceUse
	for _, s := range c.Sources {
		if s.Proto == listeners.TCP && s.Share > source.Share && (!e.Source.IsValid() || s.From == e.Source) {
			source = s
		}
	}
	bound := failed != nil && failed.Errno == "EADDRINUSE" || e.Symptom != nil && e.Symptom.Kind == KindAddrInUse && !(e.Symptom.Bind && !e.Symptom.Connect)
	observed := failed != nil || e.Symptom != nil && e.Symptom.Sees == CannotAssign && !(e.Symptom.Bind && !e.Symptom.Connect)
	ev := []audit.Evidence{}
	if failed != nil {
		ev = append(ev, evidence("connection from here", "%s of %s to %s after %.0f ms", failed.Errno, failed.Stage, failed.To, failed.Took*1000))
	} else if e.Symptom != nil && e.Symptom.Sees == CannotAssign {
		ev = append(ev, evidence("the client's message", "%s", e.Symptom.Text))
	}
	used := evidence("census", "%d of %d local ports in use towards %s port %d, %d of them in TIME_WAIT", best.Held(), usable, orWord(addrText(best), "this destination"), e.Target.Port, min(best.TimeWait, best.Held()))
	switch {
	case bound && source.Share >= 0.9:
		ev = append(ev, evidence("census", "%d local ports in use from %s over all destinations (%.0f %%): bound before connecting, each serves one connection", source.Ports, source.From, source.Share*100))
		j.timeWaitOr(best, share, observed, ev)
	case share >= 0.95 && observed:
		ev = append(ev, used)
		j.timeWaitOr(best, share, observed, ev)
	case share >= 0.95:
		ev = append(ev, used)
		j.say(EphemeralExhausted, Likely, poolRemedy, ev...)
	case failed != nil && failed.Stage == "connect" && failed.Errno == "EADDRNOTAVAIL" && !j.accused(SourceMissing):
		ev = append(ev, used)
		j.say(EphemeralExhausted, Likely, poolRemedy, ev...)
	case share < 0.5 && !bound && !(observed && failed == nil):
		for _, id := range []ID{EphemeralExhausted, TimeWaitExhaustion} {
			j.say(id, RuledOut, "", used)
		}
	default:
		for _, id := range []ID{EphemeralExhausted, TimeWaitExhaustion} {
			j.say(id, CannotTell, poolRemedy, append(ev, used, evidence("to decide", "`hostaudit ports` on the connecting host while it fails; a burst leaves only TIME_WAIT, for 60 s"))...)
		}
	}
}

func addrText(d listeners.Destination) string {
	if d.To.IsValid() {
		return d.To.String()
	}
	return ""
}

// timeWaitOr blames TIME_WAIT where it holds most of the ports.
func (j *judge) timeWaitOr(d listeners.Destination, share float64, observed bool, ev []audit.Evidence) {
	if d.InUse > 0 && float64(d.TimeWait) >= 0.5*float64(d.InUse) && share >= 0.5 {
		j.say(TimeWaitExhaustion, Confirmed, twRemedy, ev...)
		j.say(EphemeralExhausted, Likely, poolRemedy, ev...)
		return
	}
	j.say(EphemeralExhausted, Confirmed, poolRemedy, ev...)
	j.clear(TimeWaitExhaustion, "census", "%d of the %d ports are in TIME_WAIT", d.TimeWait, d.InUse)
}

func census(s *audit.Snapshot) *listeners.Census {
	if s == nil {
		return nil
	}
	return s.Census
}

// sourceMissing judges an address that a program binds.
func (j *judge) sourceMissing(failed *Attempt) {
	e := j.e
	const remedy = "bind 0.0.0.0 or the host's own (private) address; a cloud's public address is never on the network card. Where the address comes later: After=network-online.target; ip_nonlocal_bind only for VRRP"
	own := ownAddrs(e.Here)
	if failed != nil && failed.Stage == "bind" && failed.Errno == "EADDRNOTAVAIL" {
		j.say(SourceMissing, Confirmed, remedy, evidence("bind", "%s: EADDRNOTAVAIL, this host does not have the address", e.Source))
		for _, id := range []ID{EphemeralExhausted, TimeWaitExhaustion} {
			j.clear(id, "bind", "the error comes from the address, not from the ports")
		}
		return
	}
	s := e.Symptom
	if s == nil || s.Sees != CannotAssign || s.Kind != KindAddrNotAvail {
		if len(e.Attempts) > 0 && failed == nil {
			j.clear(SourceMissing, "connection from here", "it found a local address")
		} else if failed != nil && failed.Stage == "connect" {
			j.clear(SourceMissing, "connection from here", "the error came from connect, without an address bound")
		} else if failed != nil {
			j.clear(SourceMissing, "bind", "the address is there; the port was not to be had")
		} else if e.Side == SideServer && len(j.listening) > 0 && s == nil {
			j.clear(SourceMissing, "sockets", "the service listens")
		}
		return
	}
	ev := evidence("the client's message", "%s", s.Text)
	addr := s.Addr
	if !addr.IsValid() && s.Bind {
		addr = e.Target.Addr
	}
	switch {
	case s.Connect && !s.Bind:
		if !e.Source.IsValid() {
			j.say(SourceMissing, CannotTell, remedy, evidence("to decide", "whether the program binds an address of its own before it connects: --source ADDRESS"))
		} else if len(own) > 0 && !slices.Contains(own, e.Source) {
			j.say(SourceMissing, Confirmed, remedy, ev, evidence("addresses of this host", "%s; %s is not among them", joinAddrs(own), e.Source))
		} else if len(own) > 0 {
			j.clear(SourceMissing, "addresses of this host", "%s is one of them", e.Source)
		}
	case addr.IsValid() && len(own) > 0 && !addr.IsUnspecified() && !slices.Contains(own, addr):
		v := Likely
		if s.Bind {
			v = Confirmed
		}
		j.say(SourceMissing, v, remedy, ev, evidence("addresses of this host", "%s; %s is not among them", joinAddrs(own), addr))
		if s.Bind {
			for _, id := range []ID{EphemeralExhausted, TimeWaitExhaustion} {
				j.clear(id, "the client's message", "the error comes from bind, not from connect")
			}
		}
	case addr.IsValid() && slices.Contains(own, addr):
		j.say(SourceMissing, CannotTell, remedy, ev, evidence("addresses of this host", "%s is there now; it may have been missing (or tentative) when the program started", addr))
	case s.Bind:
		j.say(SourceMissing, Likely, remedy, ev)
	default:
		j.say(SourceMissing, CannotTell, remedy, ev, evidence("to decide", "whether bind or connect failed, and with which address"))
	}
}
