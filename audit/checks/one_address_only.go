package checks

import (
	"fmt"
	"net/netip"

	"github.com/hostaudit/hostaudit/audit"
)

// OneAddressOnly finds services for everyone on a private address of a host that
// has a public one.
var OneAddressOnly = &audit.Check{
	ID:       "listener.one-address-only",
	Title:    "a service for everyone listens on one private address only",
	Severity: audit.Warning,
	Doc: `A listener bound to one address answers on that address and on no other: clients
that dial another address of the host see "connection refused".

It is reported where the port is meant for everyone (services:, or a rule that
opens it to all), the address it is bound to is a private one, and the host has
another address of the same family that is public. On hosts without a public
address (behind NAT, most cloud machines) the private one is the right one.`,
	Refs:   []string{refWorkers, refSocket},
	Causes: []audit.Cause{audit.ConnectionRefused},
	Needs:  []audit.Need{audit.NeedListeners, audit.NeedRoutes},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		for _, port := range p.Ports {
			if port.Listener == nil || !port.Home() || local(port) || wildcard(port) {
				continue
			}
			addr := port.Listener.Local.Addr().Unmap().WithZone("")
			if publicAddr(addr) || addr.IsMulticast() {
				continue
			}
			in, ok := intentOf(p, port)
			if !ok || in.audience.Kind != audit.ForEveryone || otherwiseServed(p, port) {
				continue
			}
			var public netip.Addr
			for _, a := range port.Namespace.Route.Addrs {
				if a.Local.Is4() == addr.Is4() && publicAddr(a.Local) {
					public = a.Local
				}
			}
			if !public.IsValid() {
				continue
			}
			wide := "0.0.0.0"
			if addr.Is6() {
				wide = "[::]"
			}
			p.Report(audit.Finding{
				Subject:  port.Subject(),
				Title:    fmt.Sprintf(`%s listens on %s only; clients that dial %s see "connection refused"`, name(port), addr, public),
				Why:      fmt.Sprintf("the port is %s, and %s is an address of private networks", in.words, addr),
				Evidence: []audit.Evidence{listening(port), in.evidence, audit.Evidencef("public address of the host", "%s", public)},
				Remedy:   fmt.Sprintf("bind %s to %s:%d, or to %s as well, then %s", plainName(port), wide, port.Number(), public, restart(port)),
			})
		}
		return nil
	},
}

// otherwiseServed: another listener takes the port on other addresses.
func otherwiseServed(p *audit.Pass, port *audit.Port) bool {
	for _, o := range p.Ports {
		if o == port || !o.Home() || o.Proto() != port.Proto() || o.Number() != port.Number() || local(o) {
			continue
		}
		if o.Listener == nil || wildcard(o) || publicAddr(o.Listener.Local.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// sharedSpace is RFC 6598, carrier-grade NAT.
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// publicAddr tells addresses that the internet routes.
func publicAddr(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace.Contains(a)
}
