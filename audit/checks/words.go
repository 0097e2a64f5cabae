package checks

import (
	"fmt"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// References that several checks share.
const (
	refSocket   = "https://man7.org/linux/man-pages/man7/ip.7.html"
	refIPv6     = "https://man7.org/linux/man-pages/man7/ipv6.7.html"
	refListen   = "https://man7.org/linux/man-pages/man2/listen.2.html"
	refHooks    = "https://wiki.nftables.org/wiki-nftables/index.php/Netfilter_hooks"
	refIPSysctl = "https://docs.kernel.org/networking/ip-sysctl.html"
	refLimits   = "https://man7.org/linux/man-pages/man2/getrlimit.2.html"
	refSysctlD  = "https://www.freedesktop.org/software/systemd/man/latest/sysctl.d.html"
	refWorkers  = "https://www.workerman.net/doc/workerman/faq/client-connect-fail.html"
)

// ruleName names a rule for sentences: "nftables inet filter input #7".
func ruleName(r *firewall.Rule) string {
	t := r.Chain.Table
	if t.Backend == firewall.NFTables {
		return fmt.Sprintf("%s %s %s %s #%d", t.Backend, t.Family, t.Name, r.Chain.Name, r.Number)
	}
	return fmt.Sprintf("%s %s %s #%d", t.Backend, t.Name, r.Chain.Name, r.Number)
}

// decider names what decided, for sentences.
func decider(d reach.DecidedBy) string {
	place := strings.Join(strings.Fields(d.Backend+" "+family(d)+" "+d.Table+" "+d.Chain), " ")
	switch d.Kind {
	case reach.ByRule:
		if d.Number > 0 {
			place += fmt.Sprintf(" #%d", d.Number)
		}
		if place == "" { // rules of several chains
			return d.Text
		}
		return fmt.Sprintf("%s (%s)", place, d.Text)
	case reach.ByPolicy:
		return fmt.Sprintf("the policy of %s", place)
	default:
		return d.Text
	}
}

// deciderName is decider without the rule's text.
func deciderName(d reach.DecidedBy) string {
	if d.Kind == reach.ByRule && d.Chain != "" {
		return strings.TrimSuffix(decider(reach.DecidedBy{Kind: d.Kind, Backend: d.Backend, Family: d.Family, Table: d.Table, Chain: d.Chain, Number: d.Number}), " ()")
	}
	return decider(d)
}

// family is shown for nftables, where tables of several families share names.
func family(d reach.DecidedBy) string {
	if d.Backend == string(firewall.NFTables) {
		return d.Family
	}
	if d.Family == string(firewall.TableIP6) {
		return "IPv6"
	}
	return ""
}

// byFirewall says whether netfilter decided.
func byFirewall(d reach.DecidedBy) bool { return d.Kind == reach.ByRule || d.Kind == reach.ByPolicy }

// who describes the process behind a port: "php, pid 901, chat.service".
func who(port *audit.Port) string {
	proc := port.Process()
	if proc == nil {
		return port.Program()
	}
	s := fmt.Sprintf("%s, pid %d", proc.Comm, proc.PID)
	if proc.Unit != "" {
		s += ", " + string(proc.Unit)
	}
	return s
}

// restart says how a changed listen address takes effect.
func restart(port *audit.Port) string {
	if proc := port.Process(); proc != nil && proc.Unit != "" && strings.HasSuffix(string(proc.Unit), ".service") {
		return "restart " + string(proc.Unit)
	}
	return "restart " + port.Program()
}

// name is what the operator calls the port, with its number: "chat (tcp 2346)".
func name(port *audit.Port) string {
	return fmt.Sprintf("%s (%s)", plainName(port), portWords(port.Proto(), port.Number()))
}

// plainName is the service's name, else the program's.
func plainName(port *audit.Port) string {
	if port.Service != nil {
		return port.Service.Name
	}
	return port.Program()
}

// seenAs says what a client sees, for titles.
func seenAs(s string) string {
	switch reach.Sees(s) {
	case reach.Refused:
		return `clients see "connection refused"`
	case reach.Timeout:
		return "clients see a timeout"
	case reach.Unreachable:
		return `clients see "no route to host"`
	case connectedToNothing:
		return "clients connect, and then wait in vain"
	default:
		return "clients see: " + s
	}
}

// connectedToNothing is reach.Row.Words where the handshake passes and what
// follows does not.
const connectedToNothing reach.Sees = "connected, then timeout"

// causesOf maps what a client sees to the groups of causes.
func causesOf(s string) []audit.Cause {
	if s == string(reach.Refused) {
		return []audit.Cause{audit.ConnectionRefused}
	}
	return []audit.Cause{audit.ConnectionTimeout}
}

// listening is the evidence of the socket itself.
func listening(port *audit.Port) audit.Evidence {
	return audit.Evidencef("listener", "%s, %s", port.Subject(), who(port))
}

// portWords is "tcp 8080".
func portWords(proto listeners.Proto, port uint16) string { return fmt.Sprintf("%s %d", proto, port) }
