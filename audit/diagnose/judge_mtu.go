package diagnose

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// mtuSigns are signs of a path that swallows large packets without a word
// (RFC 2923, 2.1): the handshake passes, and what fills whole segments does not.
type mtuSigns struct {
	level    Verdict // "" without a sign
	evidence []audit.Evidence
	// stuck is a connection of the server that has got stuck so.
	stuck *listeners.Connection
}

func (s *mtuSigns) accuse() bool { return s.level == Confirmed || s.level == Likely }

// mtuSigns looks for them.
func (v *view) mtuSigns(e *Evidence) mtuSigns {
	var s mtuSigns
	add := func(level Verdict, x audit.Evidence) {
		if s.level == "" || strength(level) > strength(s.level) {
			s.level = level
		}
		s.evidence = append(s.evidence, x)
	}
	lost := e.Sizes != nil && e.Sizes.Answered && !e.Sizes.Whole && !e.Sizes.Told.IsValid()
	for _, p := range e.Probed {
		if p.SmallOnly {
			add(Confirmed, evidence("probe of "+p.To.String(), "the answer comes with segments of at most %d bytes, and twice stays away with those of the usual size", p.segment))
		}
	}
	if c := v.stuckAtServer(e); c != nil {
		s.stuck = c
		text := fmt.Sprintf("%s to %s: segments of %d bytes sent again %d times in a row without an acknowledgement", c.Local, c.Remote, c.Info.SendMSS, c.Info.Retransmits)
		switch {
		case c.Info.Sacked > 0:
			add(Confirmed, evidence("connection of the server", "%s, while a shorter one behind them was acknowledged", text))
		case lost && e.Side == SideServer:
			add(Confirmed, evidence("connection of the server", "%s", text))
		case e.Symptom != nil && e.Symptom.Kind == KindReadTimeout, e.Side == SideClient:
			add(Likely, evidence("connection of the server", "%s, and the client waits", text))
		default:
			add(CannotTell, evidence("connection of the server", "%s: the client is gone, or the path swallows packets of that size", text))
		}
	}
	for i := range e.Running {
		c := &e.Running[i]
		if e.Side == SideClient {
			switch {
			case c.Stuck() && c.FullSize():
				text := fmt.Sprintf("%s to %s: segments of %d bytes sent again %d times in a row without an acknowledgement", c.Local, c.Remote, c.Info.SendMSS, c.Info.Retransmits)
				switch {
				case c.Info.Sacked > 0 || lost:
					add(Confirmed, evidence("running connection", "%s", text))
				case slices.ContainsFunc(e.Attempts, func(a Attempt) bool { return a.Sees == Connected && a.To == c.Remote }):
					add(Likely, evidence("running connection", "%s, while a new connection to the same server comes about", text))
				default:
					add(CannotTell, evidence("running connection", "%s: the server is gone, or the path swallows packets of that size", text))
				}
			case c.Gap():
				add(Likely, evidence("running connection", "%s from %s: the end of the answer has come, and what belongs before it has stayed away for %.1f s", c.Local, c.Remote, float64(c.Info.SinceRecv)/1000))
			default:
				continue
			}
			break
		}
		if c.Gap() {
			add(Likely, evidence("connection of the server", "%s from %s: the end of the request has come, and what belongs before it has stayed away for %.1f s", c.Local, c.Remote, float64(c.Info.SinceRecv)/1000))
			break
		}
	}
	if lost {
		level := CannotTell
		if s.level != "" && s.level != CannotTell || e.Symptom != nil && e.Symptom.Kind == KindReadTimeout {
			level = Likely
		}
		add(level, evidence("echo requests", "packets of %d bytes to %s and back are answered, those of %d bytes vanish, and no router says why", e.Sizes.Carries, e.Sizes.To, e.Sizes.Size))
	}
	return s
}

// stuckAtServer is a connection to the service that has got stuck, of the client
// that is asked about, or of any.
func (v *view) stuckAtServer(e *Evidence) *listeners.Connection {
	if e.Server == nil || e.Server.Census == nil {
		return nil
	}
	var found *listeners.Connection
	for i := range e.Server.Census.Stalled {
		c := &e.Server.Census.Stalled[i]
		if c.Local.Port() != e.Target.Port || !c.FullSize() || e.From.IsValid() && c.Remote.Addr() != e.From {
			continue
		}
		if found == nil || c.Info.Sacked > found.Info.Sacked {
			found = c
		}
	}
	return found
}

const (
	mtuWhat   = "the path swallows large packets (path MTU)"
	mtuRemedy = "let ICMP \"fragmentation needed\" (type 3 code 4; IPv6: packet too big) through on the whole path, or clamp the MSS on the router or tunnel (nft: tcp option maxseg size set rt mtu); " +
		"where neither is yours, net.ipv4.tcp_mtu_probing=1 on the side that sends gets each connection going after some seconds"
)

// pathMTU judges them.
func (j *judge) pathMTU() {
	s := j.mtu
	if s.level == "" {
		if m := j.e.Symptom; m != nil && m.Kind == KindReadTimeout && !j.accused(ReplyPath) {
			c := j.out[ReplyPath]
			c.Verdict, c.Evidence = CannotTell, []audit.Evidence{evidence("the client's message", "%s", m.Text),
				evidence("to decide", "whether large packets pass (path MTU): --probe on the client; on the server `hostaudit diagnose %s` while the client waits", j.e.Target.Text)}
		}
		return
	}
	remedy, ev := mtuRemedy, s.evidence
	if x := j.tooBig(); x != nil && x.Sees == reach.Timeout {
		ev = append(ev, evidence("model of the server", "it throws away what routers say about the size of packets: %s", ruleText(*x.By)))
		remedy = "accept ICMP \"fragmentation needed\" (IPv6: packet-too-big) before the rule that drops it: ct state related accept, or icmp type destination-unreachable"
	}
	ev = append(ev, j.mtuContext()...)
	c := j.out[ReplyPath]
	if s.level == CannotTell && !c.Accused() {
		c.Verdict, c.Remedy = CannotTell, ""
		c.Evidence = append(slices.Clone(ev), evidence("to decide", "%s; whether the client still waits tells: its message (--error), or --probe", ev[0].Value))
		return
	}
	j.say(ReplyPath, s.level, remedy, ev...)
	if c.Verdict == s.level && len(c.Evidence) > 0 && c.Evidence[0] == ev[0] {
		c.What = mtuWhat
	}
}

// tooBig asks the server's model how routers' messages about sizes fare there.
func (j *judge) tooBig() *reach.TooBig {
	e := j.e
	if e.Server == nil || len(e.Server.World.Namespaces) == 0 {
		return nil
	}
	home := e.Server.World.Namespaces[0]
	to, iif := netip.Addr{}, ""
	if len(j.faces) > 0 {
		to, iif = j.faces[0].to, j.faces[0].iif
	}
	if j.mtu.stuck != nil {
		to = j.mtu.stuck.Local.Addr()
	}
	if iif == "" || iif == "lo" {
		iif = linkOf(home, to)
	}
	if !to.IsValid() || iif == "" {
		return nil
	}
	x := reach.New(&e.Server.World).TooBig(to, e.Target.Port, iif)
	if x.By == nil && x.Sees != reach.Connected {
		return nil
	}
	return &x
}

// mtuContext is what belongs to it and accuses nobody by itself.
func (j *judge) mtuContext() []audit.Evidence {
	e := j.e
	var ev []audit.Evidence
	if z := e.Sizes; z != nil && z.Told.IsValid() {
		ev = append(ev, evidence("echo requests", "%s says that the path to %s carries %d bytes: this side learns it, the other may not", z.Told, z.To, z.MTU))
	} else if z != nil && z.Whole {
		ev = append(ev, evidence("echo requests", "packets of %d bytes get to %s: it is the way back that swallows them", z.Size, z.To))
	}
	for _, a := range e.Attempts {
		if w := a.Route; w != nil && w.LinkKind != "" {
			ev = append(ev, evidence("route", "by %s, of kind %s, MTU %d", w.Interface, w.LinkKind, w.LinkMTU))
			break
		}
	}
	if e.Server == nil {
		return ev
	}
	if n := j.delta["TcpExt.TCPMTUPFail"] + j.delta["TcpExt.TCPMTUPSuccess"]; n > 0 {
		ev = append(ev, evidence("counters", "TCPMTUPFail +%d, TCPMTUPSuccess +%d %s", j.delta["TcpExt.TCPMTUPFail"], j.delta["TcpExt.TCPMTUPSuccess"], j.deltaOver))
	}
	if v, ok := e.Server.Sysctls.Int("net.ipv4.tcp_mtu_probing"); ok && v == 0 {
		ev = append(ev, evidence("setting of the server", "net.ipv4.tcp_mtu_probing = 0: it does not look for a smaller size by itself"))
	}
	return ev
}
