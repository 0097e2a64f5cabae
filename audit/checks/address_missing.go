package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// AddressMissing finds listeners on an address that the host does not have.
var AddressMissing = &audit.Check{
	ID:       "listener.address-missing",
	Title:    "a listener on an address that the host does not have",
	Severity: audit.Warning,
	Doc: `A socket is bound to an address that no interface of this host has (any more), so
nobody can connect to it. It happens when an address is moved or removed while a
service runs, and when net.ipv4.ip_nonlocal_bind or IP_FREEBIND hide a mistyped
address. The next start of the service fails with "Cannot assign requested
address", the usual message for a cloud host's public address, which its
interface never has.

Where addresses move between hosts (VRRP), the standby host is right to listen.
Sockets with IP_TRANSPARENT serve addresses of others by design and are left out.`,
	Refs:   []string{refSocket, refIPSysctl},
	Causes: []audit.Cause{audit.CannotAssign, audit.ConnectionRefused},
	Needs:  []audit.Need{audit.NeedListeners, audit.NeedRoutes},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		for _, port := range p.Ports {
			if port.Listener == nil || !port.Home() || port.Listener.Transparent || port.Proto() == listeners.Raw || deaf(port) {
				continue
			}
			if port.Listener.Scope(audit.Locals(port.Namespace)).Kind != listeners.ScopeAbsent {
				continue
			}
			addr := port.Listener.Local.Addr()
			f := audit.Finding{
				Subject:  port.Subject(),
				Title:    fmt.Sprintf("%s listens on %s, which this host does not have", name(port), addr),
				Why:      "no interface has the address, so no client's packet for it is delivered here",
				Evidence: []audit.Evidence{listening(port), {Source: "addresses of the host", Value: addresses(port.Namespace)}},
				Remedy:   fmt.Sprintf("bind %s to an address the host has, or to 0.0.0.0; or bring the address up before the service starts (After=network-online.target)", plainName(port)),
			}
			if port.Service != nil && port.Service.Audience.Kind != audit.ForHost && !served(p, port) {
				f.Severity = audit.Critical
			} else if p.Facts.Roles.VRRP == sysctl.Yes {
				f.Severity = audit.Info
			}
			p.Report(f)
		}
		return nil
	},
}

// addresses lists what a client could dial.
func addresses(ns *reach.Namespace) string {
	var out []string
	for _, a := range ns.Route.Addrs {
		if !a.Local.IsLoopback() && !a.Local.IsLinkLocalUnicast() {
			out = append(out, a.Local.String())
		}
	}
	slices.Sort(out)
	if len(out) == 0 {
		return "none but loopback"
	}
	return strings.Join(slices.Compact(out), ", ")
}
