package checks

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// intent is for whom a port is meant, and what says so.
type intent struct {
	audience audit.Audience
	// declared: the operator configured it; otherwise it is read off evidence.
	declared bool
	evidence audit.Evidence
	// words end a sentence: "meant for everyone (hostaudit.yaml:4)".
	words string
}

// severity of a port that its audience cannot reach: what the operator declared
// is certain, the rest is very likely.
func (in intent) severity() audit.Severity {
	if in.declared {
		return audit.Critical
	}
	return audit.Warning
}

// intentOf says for whom a port is meant, false where nothing does.
func intentOf(p *audit.Pass, port *audit.Port) (intent, bool) {
	if s := port.Service; s != nil {
		words := fmt.Sprintf("meant for %s (%s)", s.Audience, s.Source)
		return intent{s.Audience, true, audit.Evidencef("services", "%s is %s", s.Name, words), words}, true
	}
	if !port.Home() {
		return intent{}, false
	}
	for _, o := range p.Openings {
		if !o.Opens(port.Proto(), port.Number()) {
			continue
		}
		in := intent{audience: audit.Audience{Kind: audit.ForEveryone}}
		if len(o.From) > 0 {
			in.audience = audit.Audience{Kind: audit.ForNetworks, Networks: o.From}
		}
		in.evidence = audit.Evidence{Source: "rule that opens the port", Value: ruleName(o.Rule) + ": " + o.Rule.Text()}
		in.words = fmt.Sprintf("opened to %s by %s", in.audience, ruleName(o.Rule))
		return in, true
	}
	return intent{}, false
}

// wellKnown are ports that are there for others: who binds them to every address
// means them to be reached.
var wellKnown = map[listeners.Proto][]uint16{
	listeners.TCP: {22, 25, 53, 80, 110, 143, 443, 465, 587, 853, 993, 995, 1883, 5222, 5269, 8080, 8443, 8883},
	listeners.UDP: {53, 443, 500, 853, 1194, 4500, 51820},
}

func isWellKnown(port *audit.Port) bool {
	return slices.Contains(wellKnown[port.Proto()], port.Number())
}

// local tells a listener that nobody outside its host can reach by its address.
func local(port *audit.Port) bool {
	if port.Listener == nil {
		return false
	}
	a := port.Listener.Local.Addr()
	return a.Unmap().IsLoopback()
}

// wildcard tells a listener on every address.
func wildcard(port *audit.Port) bool {
	return port.Listener != nil && port.Listener.Local.Addr().Unmap().IsUnspecified()
}

// served says whether another listener of the same port serves the audience of
// this one: a second socket on loopback beside a public one hides nothing.
func served(p *audit.Pass, port *audit.Port) bool {
	return slices.ContainsFunc(p.Ports, func(o *audit.Port) bool {
		return o != port && o.Home() && o.Proto() == port.Proto() && o.Number() == port.Number() && !local(o) &&
			(o.Listener == nil || sameFamily(o, port))
	})
}

// sameFamily: the other listener takes the address family that this one does.
func sameFamily(o, port *audit.Port) bool {
	a, b := o.Listener.Local.Addr().Unmap(), port.Listener.Local.Addr().Unmap()
	return a.Is4() == b.Is4() || a == netip.IPv6Unspecified() && !o.Listener.V6Only
}
