package checks

import (
	"fmt"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// InterfaceMissing finds listeners bound to an interface that is gone.
var InterfaceMissing = &audit.Check{
	ID:       "listener.interface-missing",
	Title:    "a listener bound to an interface that is gone",
	Severity: audit.Warning,
	Doc: `A socket is bound to an interface (SO_BINDTODEVICE, or a link-local IPv6 address)
that was removed since. The kernel binds to the interface itself, not to its name:
when a tunnel, a bridge or a VPN is made anew under the same name the socket stays
with the one that is gone, and nothing arrives at it.

The program has to bind again, which for most means a restart. To have it follow,
bind its unit to the interface: BindsTo= and After=sys-subsystem-net-devices-NAME.device.`,
	Refs:   []string{refSocket},
	Causes: []audit.Cause{audit.ConnectionRefused},
	Needs:  []audit.Need{audit.NeedListeners, audit.NeedRoutes},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		for _, port := range p.Ports {
			if port.Listener == nil || !port.Home() || port.Proto() == listeners.Raw || !deaf(port) {
				continue
			}
			f := audit.Finding{
				Subject:  port.Subject(),
				Title:    fmt.Sprintf("%s is bound to interface %d, which is gone: nothing arrives at it", name(port), port.Listener.Device.Index),
				Why:      "a socket stays with the interface it was bound to, also where there is a new one of the same name",
				Evidence: []audit.Evidence{listening(port), {Source: "interfaces of the host", Value: fmt.Sprintf("none with index %d", port.Listener.Device.Index)}},
				Remedy:   restart(port) + ", so that it binds to the interface that is there now; or bind it to an address",
			}
			if port.Service != nil && port.Service.Audience.Kind != audit.ForHost && !served(p, port) {
				f.Severity = audit.Critical
			}
			p.Report(f)
		}
		return nil
	},
}

// deaf tells a socket whose interface is gone.
func deaf(port *audit.Port) bool {
	l := port.Listener
	return l != nil && l.Device.Index != 0 && port.Namespace.Route != nil && port.Namespace.Route.Link(l.Device.Index) == nil
}
