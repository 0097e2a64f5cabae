package checks

import (
	"fmt"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// IPv6Only finds [::] listeners for everyone that refuse IPv4.
var IPv6Only = &audit.Check{
	ID:       "listener.ipv6-only",
	Title:    "a service for everyone that takes IPv6 only",
	Severity: audit.Critical,
	Doc: `A socket on [::] serves IPv4 as well, unless IPV6_V6ONLY is set on it (by the
program, or by net.ipv6.bindv6only=1). Then IPv4 clients see "connection refused",
while a look at the list of sockets shows [::]:PORT for both kinds.

It is reported where the port is meant for everyone, the host has an IPv4 address,
and no other socket takes the port over IPv4.`,
	Refs:   []string{refIPv6, refIPSysctl},
	Causes: []audit.Cause{audit.ConnectionRefused},
	Needs:  []audit.Need{audit.NeedListeners, audit.NeedRoutes},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		for _, port := range p.Ports {
			if port.Listener == nil || !port.Home() || !wildcard(port) {
				continue
			}
			l := port.Listener
			if a := l.Local.Addr(); a.Is4() || a.Is4In6() {
				continue
			}
			in, ok := intentOf(p, port)
			if !ok || in.audience.Kind == audit.ForHost || !wantsIPv4(in.audience) {
				continue
			}
			if !l.Tells(listeners.FactV6Only) {
				p.Unsure(port.Subject(), "the kernel did not tell whether the socket takes IPv4 as well")
				continue
			}
			if !l.V6Only || !hasIPv4(p) || takesIPv4(p, port) {
				continue
			}
			bindv6only, _ := p.Snapshot.Sysctls.Get("net.ipv6.bindv6only")
			p.Report(audit.Finding{
				Severity: in.severity(),
				Subject:  port.Subject(),
				Title:    fmt.Sprintf(`%s listens on [::] for IPv6 only; IPv4 clients see "connection refused"`, name(port)),
				Why:      fmt.Sprintf("IPV6_V6ONLY is set on the socket, nothing takes the port over IPv4, and the port is %s", in.words),
				Evidence: []audit.Evidence{listening(port), in.evidence, {Source: "net.ipv6.bindv6only", Value: bindv6only}},
				Remedy:   fmt.Sprintf("bind %s to 0.0.0.0:%d as well, or let its [::] socket take IPv4 (ipv6only=off in nginx, IPV6_V6ONLY=0 in a program), then %s", plainName(port), port.Number(), restart(port)),
			})
		}
		return nil
	},
}

func wantsIPv4(a audit.Audience) bool {
	if a.Kind == audit.ForEveryone {
		return true
	}
	for _, n := range a.Networks {
		if n.Addr().Is4() {
			return true
		}
	}
	return false
}

func hasIPv4(p *audit.Pass) bool {
	for _, a := range p.Snapshot.World.Namespaces[0].Route.Addrs {
		if a.Local.Is4() && !a.Local.IsLoopback() {
			return true
		}
	}
	return false
}

func takesIPv4(p *audit.Pass, port *audit.Port) bool {
	return slices.ContainsFunc(p.Ports, func(o *audit.Port) bool {
		if o == port || !o.Home() || o.Proto() != port.Proto() || o.Number() != port.Number() {
			return false
		}
		if o.Listener == nil {
			return true
		}
		a := o.Listener.Local.Addr()
		return a.Unmap().Is4() && !a.Unmap().IsLoopback() || a.IsUnspecified() && a.Is6() && !o.Listener.V6Only
	})
}
