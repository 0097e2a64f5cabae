package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// ServiceNotListening finds configured services that nothing listens for.
var ServiceNotListening = &audit.Check{
	ID:       "service.not-listening",
	Title:    "a configured service that nothing listens for",
	Severity: audit.Critical,
	Doc: `The configuration names a service, and no process listens on its port, nor does a
rule translate the port to somewhere else. Clients see "connection refused".

Either the service is not running, or it listens on another port than the
configuration says. The evidence names what listens nearby.`,
	Refs:   []string{refWorkers, refSocket},
	Causes: []audit.Cause{audit.ConnectionRefused},
	Needs:  []audit.Need{audit.NeedListeners},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		if len(p.Config.Services) == 0 {
			p.NotApplicable()
			return nil
		}
		for i := range p.Config.Services {
			s := &p.Config.Services[i]
			if slices.ContainsFunc(p.Ports, func(port *audit.Port) bool { return port.Service == s }) {
				continue
			}
			f := audit.Finding{
				Subject:  s.Subject(),
				Title:    fmt.Sprintf(`%s: nothing listens on %s; clients see "connection refused"`, s.Name, portWords(listeners.Proto(s.Proto), s.Port)),
				Why:      fmt.Sprintf("%s is meant for %s (%s), and no socket is bound to the port", s.Name, s.Audience, s.Source),
				Evidence: []audit.Evidence{audit.Evidencef("services", "%s on %s, for %s (%s)", s.Name, s.Subject(), s.Audience, s.Source)},
				Remedy:   fmt.Sprintf("start %s; if it runs, correct the port where it is configured to listen, or in %s", s.Name, s.Source),
			}
			for _, port := range p.Ports {
				if port.Home() && port.Listener != nil && string(port.Proto()) == s.Proto && looksLike(s, port) {
					f.Evidence = append(f.Evidence, audit.Evidencef("listens instead", "%s, %s", port.Subject(), who(port)))
				}
			}
			p.Report(f)
		}
		return nil
	},
}

// looksLike tells a listener that may be the service on another port: its
// digits are swapped (2727 for 7272), or its program or unit bears the name.
func looksLike(s *audit.Service, port *audit.Port) bool {
	if sortedDigits(s.Port) == sortedDigits(port.Number()) {
		return true
	}
	proc := port.Process()
	if proc == nil || len(s.Name) < 3 {
		return false
	}
	return strings.Contains(string(proc.Comm), s.Name) || strings.Contains(string(proc.Unit), s.Name)
}

func sortedDigits(port uint16) string {
	d := []byte(fmt.Sprint(port))
	slices.Sort(d)
	return string(d)
}
