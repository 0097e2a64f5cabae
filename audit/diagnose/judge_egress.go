package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

// egress looks for a rule of the client that holds its own packets back.
func (j *judge) egress(a *Attempt) {
	w := a.Wire
	if w == nil || a.Stage != "connect" || a.Route == nil || a.Route.Errno != "" || j.e.Side == SideBoth {
		return
	}
	if a.Route.Unanswered { // then no packet leaves either
		return
	}
	const remedy = "a rule of this host's own OUTPUT holds the connection back (local egress): let it out"
	switch {
	case w.SYN > 0:
	case a.Sees == Timeout && a.Route.tunnel() && a.Route.down:
		j.out[ClientProxy].What = "a tunnel of the client is dead"
		j.say(ClientProxy, Confirmed, "start the program behind the tunnel, or take its route away", evidence("route", "%s leads into the tunnel %s (%s), which has no carrier and takes no packet: the program behind it does not run", a.To.Addr(), a.Route.Interface, a.Route.LinkKind))
	case a.Sees == Timeout:
		j.say(ClientProxy, Confirmed, remedy, evidence("packets", "no SYN to %s left this host while it tried: its own output rules drop it", a.To))
	case a.Sees == Refused && w.RST == 0 && w.ICMP == 0:
		j.say(ClientProxy, Confirmed, remedy, evidence("packets", "%s is refused, yet no SYN left this host: its own rules reject it, or redirect it", a.To))
	case a.Sees == Unreachable && a.ICMP != nil && slices.Contains(ownAddrs(j.e.Here), a.ICMP.From):
		j.say(ClientProxy, Confirmed, remedy, evidence("packets", "no SYN to %s left this host; %s, this host itself", a.To, a.ICMP))
	default:
		return
	}
	if w.SYN == 0 && j.accused(ClientProxy) {
		for _, id := range []ID{RejectedByFirewall, NotListening, BindAddress, WrongPort, HostFirewall, PanelFirewall, CloudGroup, HostDown, PrivateAddress, QueueFull, ConntrackFull} {
			j.out[id].Verdict, j.out[id].Evidence, j.out[id].Remedy = RuledOut, []audit.Evidence{evidence("packets", "no SYN left this host")}, ""
		}
	}
}

// tunnels are the kinds of links that VPN and proxy programs make.
var tunnels = []string{"tun", "wireguard", "ppp", "ipip", "sit", "gre", "ip6gre", "ip6tnl", "xfrm", "vti"}

func (w *Way) tunnel() bool { return w != nil && slices.Contains(tunnels, w.LinkKind) }

// ledElsewhere tells a connection that came about although no SYN to its
// destination left this host: a rule or a program of this host leads it to
// somebody else, whose answer says nothing about the target.
func (e *Evidence) ledElsewhere(a *Attempt) bool {
	return a.Sees == Connected && e.Side == SideClient && a.Wire != nil && a.Wire.SYN == 0 && a.Route != nil && a.Route.Errno == "" && !a.Route.Local
}

// elsewhereLed judges a connection that a program of this host took in the
// target's place. Alone it is no fault: such a proxy may do its work well.
func (j *judge) elsewhereLed(a *Attempt) {
	if !j.e.ledElsewhere(a) {
		return
	}
	ev := []audit.Evidence{evidence("packets", "%s answered, yet no SYN to it left this host: its rules lead the connection to another program (REDIRECT, TPROXY, DNAT)", a.To)}
	for _, text := range redirects(j.e.Here, j.e.Target.Port) {
		ev = append(ev, evidence("rule", "%s", text))
	}
	const remedy = "look at the proxy that this host's rules lead the connection to: it takes connections, and nothing comes of them"
	if n := len(j.e.Probed); n > 0 {
		if p := j.e.Probed[n-1]; !p.unreachable() && (p.Speaks == "" && p.Closed || p.Status >= 502 && p.Status <= 504) {
			j.say(ClientProxy, Likely, remedy, ev...)
			j.led = true
			return
		}
	}
	j.say(ClientProxy, CannotTell, remedy, append(ev, evidence("to decide", "no SYN left this host, its rules lead the connection to another program (REDIRECT, TPROXY, DNAT): whether that one reaches the target; its log, or a connection past it"))...)
}

// carried tells that somebody else carries the connection, whatever settings say:
// a program that rules of this host lead it to, or a silent tunnel.
func (j *judge) carried() bool {
	return slices.ContainsFunc(j.e.Attempts, func(a Attempt) bool { return j.e.ledElsewhere(&a) || a.Sees == Timeout && a.Route.tunnel() })
}

// redirects are rules of this host that lead connections to a port elsewhere.
func redirects(s *audit.Snapshot, port uint16) []string {
	if s == nil || len(s.World.Namespaces) == 0 || s.World.Namespaces[0].Ruleset == nil {
		return nil
	}
	var out []string
	for _, t := range s.World.Namespaces[0].Ruleset.Tables {
		for _, c := range t.Chains {
			for _, r := range c.Rules {
				text := r.Text()
				if low := strings.ToLower(text); (strings.Contains(low, "redirect") || strings.Contains(low, "tproxy")) && (!strings.Contains(low, "dport") || strings.Contains(low, itoa(int(port)))) && len(out) < 3 {
					out = append(out, fmt.Sprintf("%s %s %s #%d: %s", t.Backend, t.Name, c.Name, r.Number, text))
				}
			}
		}
	}
	return out
}

// tunnelled notes a target that a tunnel of this host leads to, and which gives
// no answer: the tunnel is as suspect as everything behind it.
func (j *judge) tunnelled() {
	for i := range j.e.Attempts {
		a := &j.e.Attempts[i]
		if a.Sees != Timeout || !a.Route.tunnel() || j.accused(ClientProxy) {
			continue
		}
		ev := evidence("route", "%s leads into the tunnel %s (%s)", a.To.Addr(), a.Route.Interface, a.Route.LinkKind)
		const remedy = "see whether the tunnel works, or give the target a route past it"
		if j.accused(CloudGroup) {
			j.say(ClientProxy, Likely, remedy, ev, evidence("model of the server", "the server would answer: the tunnel, or something before the server, loses the packets"))
			continue
		}
		j.say(ClientProxy, CannotTell, remedy, evidence("to decide", "whether the tunnel %s (%s), into which the route to %s leads, works: a connection past it", a.Route.Interface, a.Route.LinkKind, a.To.Addr()))
	}
}
