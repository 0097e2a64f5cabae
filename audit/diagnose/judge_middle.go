package diagnose

import (
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
)

// upstream judges what lies between client and server: the cloud, the host's
// power, a CDN.
func (j *judge) upstream() {
	e := j.e
	cloud := e.serverFacts().Cloud
	var where []audit.Evidence
	console := "look at the security groups, network ACLs and the firewall of the provider"
	if cloud != nil {
		where = append(where, evidence("DMI", "this is a machine of %s (%s)", cloud.Name, cloud.Source))
		console = cloud.Console
		for _, g := range cloud.Groups {
			where = append(where, evidence("metadata", "security group %s", g))
		}
	}
	if e.Side != SideClient {
		j.clear(HostDown, "this host", "it runs: this was made on it")
	}
	if e.Side == SideBoth {
		j.clear(CloudGroup, "this host", "client and server are the same host")
	}
	served := j.modelled && (j.model == Connected || j.model == Refused || j.model == Unreachable)
	if len(j.faces) > 0 && j.faces[0].sees == Refused && j.observed == Refused {
		j.clear(CloudGroup, "model of the server", "the server itself answers with a refusal")
	}
	if j.model == Unreachable && j.observed == Timeout && j.accused(RejectedByFirewall) {
		// The rule decides, whether its answer comes or not (icmp_ratelimit of icmp(7)).
		c := j.out[RejectedByFirewall]
		c.Evidence = append(c.Evidence, evidence("ICMP", "its answers are rate-limited (icmp_ratelimit): a client that gets none waits in vain"))
	} else if served && j.observed == Timeout && e.Side != SideBoth && (j.model != Connected || !j.leavesOpen(ProtocolError)) {
		sentence := "the server's listener, rules and routes would answer this client, and the client gets no answer: something before the server drops it (security group, network ACL, provider), or the answer is lost on its way"
		j.say(CloudGroup, Likely, console+": let tcp "+itoa(int(e.Target.Port))+" in from the clients meant", append(where, evidence("model of the server", "%s", sentence))...)
		j.say(HostDown, CannotTell, "", evidence("to decide", "whether the server has run all the time"))
	} else if j.out[CloudGroup].Verdict == CannotTell && len(where) > 0 {
		j.say(CloudGroup, CannotTell, console, append(where, evidence("to decide", "%s", j.decides(CloudGroup)))...)
	}
	j.panel()
	j.cdn()
}

// cdn judges a proxy of a provider in between.
func (j *judge) cdn() {
	e := j.e
	var found *cdn
	var ev []audit.Evidence
	for _, a := range j.addrs {
		if c, p := cdnOf(a); c != nil {
			found = c
			ev = append(ev, evidence("address", "%s lies in %s of %s (list of %s)", a, p, c.name, cdnDate.Format("2006-01")))
		}
	}
	if e.Names != nil {
		for _, n := range e.Names.CNAMEs() {
			if c := cdnOfName(n); c != nil {
				found = c
				ev = append(ev, evidence("CNAME", "%s, of %s", n, c.name))
			}
		}
	}
	status := 0
	for _, p := range e.Probed {
		if name := cdnOfHeaders(p.Headers); name != "" {
			if found == nil {
				found = &cdn{name: name}
			}
			status = p.Status
			ev = append(ev, evidence("headers", "the answer is %s's (status %d)", name, p.Status))
		}
	}
	only := false // nothing but the status speaks for it
	if s := e.Symptom; s != nil && cdnStatus(s.Status) != "" && !j.allOwn() {
		status = s.Status
		if only = found == nil; only {
			found = &cdn{name: "Cloudflare"}
		}
		ev = append(ev, evidence("the client's message", "status %d is Cloudflare's own", s.Status))
	}
	if found == nil {
		if len(j.addrs) > 0 && (j.localKnown || e.Side == SideClient) {
			for _, a := range j.addrs {
				local, known := LocalTo(e.Server, a)
				if known && !local && e.Side != SideClient {
					return
				}
			}
			j.clear(CDNBetween, "addresses", "%s: of no CDN that is known here", joinAddrs(j.addrs))
		} else if e.Target.Host == "" {
			j.clear(CDNBetween, "target", "it is a port of this host")
		}
		return
	}
	fresh := Confirmed
	if e.Now.Sub(cdnDate) > cdnFresh {
		fresh = Likely
	}
	port, scheme := e.Target.Port, e.Target.Scheme
	passes, known := found.passes(port)
	raw := scheme == "tcp" || scheme == "text" || scheme == "frame" || scheme == "ssl"
	const remedy = "let the name point at the server itself (DNS only), use a port that the CDN passes, or its product for TCP; on the server let the CDN's ranges in"
	switch {
	case known && !passes && j.observed != Connected:
		j.say(CDNBetween, fresh, remedy, append(ev, evidence("CDN", "%s does not pass port %d", found.name, port))...)
	case raw:
		j.say(CDNBetween, fresh, remedy, append(ev, evidence("CDN", "it passes HTTP and WebSocket only, never %s://", scheme))...)
	case cdnStatus(status) != "":
		sure := Confirmed
		if only { // an application may use the number as well
			sure = Likely
		}
		j.out[CDNBetween].What = "the CDN in front does not get an answer of the server"
		j.say(CDNBetween, sure, "diagnose the server's own address, and let the CDN's ranges in there", append(ev, evidence("CDN", "status %d: %s", status, cdnStatus(status)))...)
	case j.observed == Connected || j.model == Connected && j.observed == "":
		j.say(CDNBetween, RuledOut, "", append(ev, evidence("CDN", "it stands in between and passes port %d", port))...)
	case j.observed == "":
		j.say(CDNBetween, CannotTell, "", append(ev, evidence("to decide", "a connection from the client"))...)
	default:
		j.say(CDNBetween, Likely, remedy, ev...)
	}
	if j.accused(CDNBetween) {
		for _, id := range []ID{DNSElsewhere} {
			if j.out[id].Verdict == CannotTell {
				j.clear(id, "addresses", "the name points at the CDN, as it should with one")
			}
		}
	}
}

// allOwn tells that every address dialled is known to be the server's own: nobody
// stands in between.
func (j *judge) allOwn() bool {
	return j.localKnown && len(j.addrs) > 0 && !slices.ContainsFunc(j.addrs, func(a netip.Addr) bool {
		local, _ := LocalTo(j.e.Server, a)
		return !local
	})
}

// panel judges a hosting panel: its database and its front end against the
// kernel's rules.
func (j *judge) panel() {
	e, port := j.e, j.e.Target.Port
	panel := e.serverFacts().Panel
	if panel == nil {
		if e.Side != SideClient && e.Facts != nil && !j.accused(PanelFirewall) {
			j.clear(PanelFirewall, "files", "no panel is installed")
		}
		return
	}
	ev := evidence("panel "+panel.Dir, "%s", panel.words(port, e.From))
	opens, drops := panel.Says(port, e.From)
	c := j.out[PanelFirewall]
	switch {
	case c.Accused():
		c.Evidence = append(c.Evidence, ev)
	case !j.accused(HostFirewall, RejectedByFirewall):
		c.Evidence = append(c.Evidence, ev)
	case panel.Known && panel.Drops(e.From):
		j.say(PanelFirewall, Likely, "take the client's address off the panel's black list (Security, IP rules)", ev)
	case panel.Known && !opens && port != panel.Port:
		remedy := "open the port in the panel (Security); its rules are not to be changed beside it"
		if drops {
			remedy = "remove the panel's own rule that drops the port (Security)"
		}
		j.say(PanelFirewall, Likely, remedy, ev)
	default: // it is open in the panel, and another rule drops it
		c.Verdict, c.Evidence = CannotTell, []audit.Evidence{ev}
		for _, id := range []ID{HostFirewall, RejectedByFirewall} {
			if x := j.out[id]; x.Accused() {
				x.Evidence = append(x.Evidence, ev)
			}
		}
	}
}
