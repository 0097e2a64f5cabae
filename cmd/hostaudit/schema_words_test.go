package main

// schemaWords describe keys of the published schemas whose Go comment says too
// little for somebody who reads only the JSON: by Go type and key.
var schemaWords = map[string]string{
	"audit.Report.listeners":  "Every listening socket of the network namespace, and of the others that packets reach from it.",
	"audit.Report.published":  "Ports that a rule of address translation leads elsewhere, as container engines publish them.",
	"audit.Report.sysctls":    "The settings of the catalogue, judged.",
	"audit.Report.ephemeral":  "How the local ports of outgoing connections are used; null: the sockets could not be counted, and incomplete says why.",
	"audit.Report.findings":   "What is wrong, the loudest first. Compare two reports by (id, subject).",
	"audit.Report.checks":     "How every check ended.",
	"audit.Report.incomplete": "What could not be read. Where it is not empty, an absence in this report may be a gap.",
	"audit.Report.timings":    "Seconds by part of the reading.",

	"audit.Host.uptime":     "Seconds since the boot.",
	"audit.Host.uid":        "User that the reading was made as.",
	"audit.Host.rules":      "Number of firewall rules.",
	"audit.Host.rules_read": "Whether the rules could be read.",
	"audit.Host.root":       "Directory of --root, / for none.",
	"audit.Host.tool":       "Version of hostaudit.",
	"audit.Host.backends":   "Back ends that hold rules: nftables, iptables-nft, iptables-legacy.",

	"audit.ListenerRow.address":   "Address it is bound to; 0.0.0.0 or :: for all.",
	"audit.ListenerRow.device":    "Interface it is bound to (SO_BINDTODEVICE), empty for none.",
	"audit.ListenerRow.netns":     "Network namespace it listens in, empty for the audited one.",
	"audit.ListenerRow.unowned":   "Why process is null.",
	"audit.ListenerRow.backlog":   "The accept queue of TCP; for datagrams bytes of the receive queue.",
	"audit.ListenerRow.sharing":   "How many sockets share the port (SO_REUSEPORT).",
	"audit.ListenerRow.exposure":  "Who gets through, in one word. host-only: only this host itself; nobody: bound for others, let through for none; depends: it turns on something that a reading cannot tell.",
	"audit.ListenerRow.partition": "All source addresses; each stands in one row per interface and address family.",
	"audit.ListenerRow.service":   "What the configuration says about the port.",

	"audit.PublishedRow.to":            "Socket that it leads to.",
	"audit.PublishedRow.translated_by": "Rule that translates.",
	"audit.PublishedRow.exposure":      "Who gets through, as for listeners.",

	"audit.Backlog.queued": "Connections that wait to be accepted.",
	"audit.Backlog.limit":  "How many may wait.",

	"audit.SysctlRow.class":   "When it is judged: by evidence of this host, wrong under any load, never to be set, for information.",
	"audit.SysctlRow.verdict": "harmful: popular advice that does harm; unknown: a fact that decides could not be read.",

	"audit.Ephemeral.range":        "net.ipv4.ip_local_port_range: low and high.",
	"audit.Ephemeral.usable":       "Ports of the range that are neither reserved nor bound to: how many connections fit to each destination.",
	"audit.Ephemeral.reserved":     "Ports of the range in net.ipv4.ip_local_reserved_ports.",
	"audit.Ephemeral.taken":        "Ports of the range that something listens on.",
	"audit.Ephemeral.bound":        "Usable ports that sockets are bound to by number, which no connect(2) is given.",
	"audit.Ephemeral.destinations": "Busiest first.",
	"audit.Ephemeral.total":        "Sockets that hold a local port.",
	"audit.Destination.in_use":     "Ports held, those in TIME_WAIT included.",
	"audit.Destination.share":      "in_use of usable, 0 to 1.",

	"audit.Finding.severity": "critical: clients are kept out, or let in, against what is meant; warning: it will, or very likely does; info: worth knowing.",
	"audit.Finding.evidence": "What was seen on this host.",
	"audit.Finding.remedy":   "What to do.",
	"audit.Finding.fix":      "automatic: 'hostaudit fix' has a plan; manual: the remedy says what to do; none: nothing on this host mends it.",
	"audit.Finding.causes":   "What a client sees of it.",

	"audit.Gap.minor": "No answer turns on it.",

	"reach.Row.from":         "Networks of source addresses.",
	"reach.Row.iif":          "Interface that the packets come in by.",
	"reach.Row.client_sees":  "refused: a reset, or ICMP port unreachable; unreachable: any other ICMP error; depends: see conditions.",
	"reach.Row.conditions":   "What the answer turns on; never empty for depends.",
	"reach.Row.delivered_to": "Socket that the packet ends at.",

	"reach.DecidedBy.kind":    "open: nothing stands in the way.",
	"reach.DecidedBy.backend": "nftables, iptables-nft or iptables-legacy.",
	"reach.DecidedBy.number":  "Number of the rule in its chain, from 1.",
	"reach.DecidedBy.handle":  "Handle of nf_tables, 0 for none.",
	"reach.DecidedBy.text":    "The thing itself, in its own spelling.",

	"reach.Condition.turns_on": "What about it cannot be told from a reading.",

	"reach.Answer.client_sees": "Left out where the answer is a partition.",
	"reach.Answer.partition":   "Without a client: all source addresses.",
	"reach.Answer.path":        "The chains that the packet passes.",
	"reach.Answer.id":          "The id of the query.",

	"reach.QueryJSON.from":      "The client's address; left out: all clients.",
	"reach.QueryJSON.to":        "The address dialled; left out: every address of the host.",
	"reach.QueryJSON.from_port": "The client's port; left out: any unprivileged one.",
	"reach.QueryJSON.iif":       "Interface that the packets come in by; left out: the one that the route back to the client names.",

	"report.Diff.listeners":       "New and gone listeners and published ports, and those whose audience changed.",
	"report.ListenerDelta.opened": "Sources that get in now and did not before.",
	"report.ListenerDelta.closed": "Sources that got in before and do not now.",
	"report.ListenerDelta.unsure": "Sources of which one of the two reports cannot tell.",

	"remedy.Change.before": "Value before; for a rule empty.",
	"remedy.Change.owner":  "Who manages the thing, and through whom it is changed.",
	"remedy.Effect.opens":  "Sources for which a listener opens.",
	"remedy.Effect.closes": "Sources for which a listener closes.",
	"remedy.Journal.left":  "What could not be undone.",
}
