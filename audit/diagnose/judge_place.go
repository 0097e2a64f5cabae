package diagnose

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

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
	var wrong, right []netip.Addr
	for _, a := range j.addrs {
		if local, _ := LocalTo(e.Server, a); local || slices.Contains(owned, a) {
			right = append(right, a)
		} else {
			wrong = append(wrong, a)
		}
	}
	cdnAddr := slices.ContainsFunc(wrong, func(a netip.Addr) bool { c, _ := cdnOf(a); return c != nil }) ||
		e.Names != nil && slices.ContainsFunc(e.Names.CNAMEs(), func(n string) bool { return cdnOfName(n) != nil }) ||
		slices.ContainsFunc(e.Probed, func(p *Probed) bool { return cdnOfHeaders(p.Headers) != "" })
	id, remedy := WrongAddress, "dial one of "+joinAddrs(hosts)
	if e.Target.Named() {
		id, remedy = DNSElsewhere, "correct the record: the server has "+joinAddrs(append(hosts, e.Public...))
		j.clear(WrongAddress, "target", "it is a name")
	}
	switch {
	case len(wrong) == 0:
		j.clear(id, "addresses of the server", "%s is its own", joinAddrs(right))
		if e.Side == SideClient && id == WrongAddress && j.accused(HostDown) { // as the snapshot has it; that nobody answers there now is the host's own matter
			j.weaken(id, CannotTell, evidence("to decide", "%s was the server's own when the snapshot was taken: whether it still is, its console or the provider's tells", joinAddrs(right)))
		}
	case cdnAddr:
		j.say(id, CannotTell, "", evidence("addresses", "%s belongs to a CDN", joinAddrs(wrong)))
	default:
		ev := []audit.Evidence{evidence("target", "%s", joinAddrs(wrong)), evidence("addresses of the server", "%s", joinAddrs(append(hosts, e.Public...)))}
		v := Confirmed
		if slices.ContainsFunc(wrong, func(a netip.Addr) bool { return j.behindNAT(e, a) }) {
			v = CannotTell
			ev = append(ev, evidence("to decide", "the host's public address, which it does not know behind NAT: --public ADDRESS, or --metadata in a cloud"))
		}
		if e.Side == SideClient && len(right) == 0 && j.observed == Connected {
			v = CannotTell
			ev = append(ev, evidence("to decide", "who answers at %s: another host, or a balancer or proxy in front of the server", joinAddrs(wrong)))
		}
		for _, a := range e.Strangers {
			if a.Sees != Connected {
				ev = append(ev, evidence("connection from here", "nobody serves at %s (%s)", a.To, a.Sees))
			}
		}
		if there := e.serving(); len(there) > 0 {
			v = CannotTell
			ev = append(ev, evidence("connection from here", "somebody serves at %s", joinAddrs(there)),
				evidence("to decide", "who serves at %s: a balancer or proxy in front of this server, or another host (`hostaudit watch %d` here while the client tries)", joinAddrs(there), e.Target.Port))
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
