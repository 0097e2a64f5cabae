package checks

import (
	"fmt"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
	"github.com/hostaudit/hostaudit/sysctl"
)

// QueueFull finds listeners that take no more connections.
var QueueFull = &audit.Check{
	ID:       "listener.queue-full",
	Title:    "a full accept queue drops new connections",
	Severity: audit.Critical,
	Doc: `The kernel completes connections and keeps them in the listener's accept queue until
the program accepts them. When it holds one more than its limit, the handshakes of
further clients are dropped: they see a timeout, after some clients before them
connected and got no answer.

The program is too slow, busy, stopped or out of descriptors: look at it first. A
longer queue only helps bursts. Its limit is the smaller of the program's backlog
and net.core.somaxconn, taken when listen() was called: after a change the
listener has to be opened again. net.ipv4.tcp_abort_on_overflow does not help.`,
	Refs:   []string{refListen, refIPSysctl},
	Causes: []audit.Cause{audit.ConnectionTimeout},
	Needs:  []audit.Need{audit.NeedListeners},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		return queues(p, func(q listeners.Queue) bool { return q.Full() }, "%s accepts no connections: its queue is full; clients see a timeout")
	},
}

// QueueNearlyFull finds listeners that soon take no more connections.
var QueueNearlyFull = &audit.Check{
	ID:       "listener.queue-nearly-full",
	Title:    "an accept queue is nearly full",
	Severity: audit.Warning,
	Doc: `At least four fifths of a listener's accept queue are taken (profiles web and proxy:
seven tenths): the program accepts more slowly than clients connect. When the queue is full, further clients see a timeout
(listener.queue-full explains what decides).`,
	Refs:   []string{refListen, refIPSysctl},
	Causes: []audit.Cause{audit.ConnectionTimeout},
	Needs:  []audit.Need{audit.NeedListeners},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		return queues(p, func(q listeners.Queue) bool {
			return !q.Full() && q.Limit >= 5 && q.Fill() >= p.Facts.Profile.QueueShare()
		}, "%s accepts connections too slowly: its queue is nearly full")
	},
}

func full(port *audit.Port) bool {
	return port.Listener != nil && !port.Listener.Proto.Datagram() && port.Listener.Tells(listeners.FactLimit) && port.Listener.Accept.Full()
}

// queues reports the listeners whose queue is as asked. Sockets of a
// SO_REUSEPORT group have queues of their own.
func queues(p *audit.Pass, is func(listeners.Queue) bool, title string) error {
	for _, port := range p.Ports {
		l := port.Listener
		if l == nil || l.Proto.Datagram() {
			continue
		}
		if !l.Tells(listeners.FactLimit) {
			p.Unsure(port.Subject(), "the kernel did not tell the length of the accept queue")
			continue
		}
		if !is(l.Accept) {
			continue
		}
		f := audit.Finding{
			Subject:  port.Subject(),
			Title:    fmt.Sprintf(title, name(port)),
			Why:      fmt.Sprintf("%s to be accepted by %s, and the queue takes %d", waiting(l.Accept.Len), who(port), l.Accept.Limit+1),
			Evidence: []audit.Evidence{audit.Evidencef("accept queue", "%d of %d", l.Accept.Len, l.Accept.Limit), listening(port)},
			Remedy:   fmt.Sprintf("find out why %s does not accept: busy, stopped, waiting for something, or out of descriptors", port.Program()),
		}
		f.Evidence = append(f.Evidence, dropped(p, l)...)
		if proc := port.Process(); proc != nil {
			if share, known := proc.Files.Fill(); known && share >= 1 {
				f.Why += fmt.Sprintf("; the program is out of descriptors (%d of %d)", proc.Files.Open, proc.Files.Soft)
				f.Remedy = "raise the descriptor limit: " + moreFiles(proc)
			}
		}
		evidence, remedy := limitedBy(p, port)
		f.Evidence = append(f.Evidence, evidence...)
		f.Remedy += remedy
		if value := longerQueue(p, l); value != "" {
			f.Fix = audit.FixAutomatic
			f.Remedy += fmt.Sprintf("; net.core.somaxconn = %s", value)
		}
		p.Report(f)
	}
	return nil
}

func waiting(n uint32) string {
	if n == 1 {
		return "1 connection waits"
	}
	return fmt.Sprintf("%d connections wait", n)
}

// limitedBy says what set the limit of a queue, and what makes it longer.
func limitedBy(p *audit.Pass, port *audit.Port) (evidence []audit.Evidence, remedy string) {
	const own = "; if it is only bursts, raise the program's own backlog (if net.core.somaxconn was raised since it started, a restart suffices)"
	const restarted = "; if it is only bursts, restart the program: it gets the backlog that it asks for, up to net.core.somaxconn as it is now; is the queue as short after that, raise the program's own backlog"
	somaxconn, ok := p.Snapshot.Sysctls.Int("net.core.somaxconn")
	if !ok {
		return nil, own
	}
	say := func(format string, args ...any) []audit.Evidence {
		return []audit.Evidence{audit.Evidencef("net.core.somaxconn", format, args...)}
	}
	switch q := port.Listener.Accept; q.LimitedBy(uint32(somaxconn)) {
	case listeners.LimitSomaxconn:
		return say("%d: it limits this queue", somaxconn), "; if it is only bursts, raise net.core.somaxconn and " + restart(port)
	case listeners.LimitEarlier:
		return say("%d now; it was higher when the program called listen(), the next start gets less", somaxconn), own
	default:
		return say("%d now, which would allow more than %d: the program asked for %d, or this setting was %d when it called listen()", somaxconn, q.Limit, q.Limit, q.Limit), restarted
	}
}

// longerQueue is what the catalogue recommends for net.core.somaxconn because of
// this listener, "" where the setting does not bound its queue.
func longerQueue(p *audit.Pass, l *listeners.Listener) string {
	const key = sysctl.Key("net.core.somaxconn")
	e, ok := sysctl.Find(key)
	if !ok || !home(p, l) {
		return ""
	}
	for _, j := range e.Judge(key, p.Facts) {
		if j.Finding == "sysctl.somaxconn-bounds-queue" && j.Subject == l.Subject() {
			return j.Recommend
		}
	}
	return ""
}

// home says whether the listener is one of the audited namespace, whose settings
// and counters were read.
func home(p *audit.Pass, l *listeners.Listener) bool {
	t := p.Snapshot.World.Namespaces[0].Listeners
	return t != nil && slices.ContainsFunc(t.Listeners, func(x listeners.Listener) bool { return x.Cookie == l.Cookie && x.Inode == l.Inode })
}

// dropped is what the kernel dropped at this listener and at full queues of all
// listeners, while it was watched. The count since the boot says nothing about
// now and is no evidence.
func dropped(p *audit.Pass, l *listeners.Listener) []audit.Evidence {
	var out []audit.Evidence
	if c, ok := p.Snapshot.Dropped(l); ok && c.Moving() {
		out = append(out, audit.Evidencef("dropped at this listener", "+%d in %g s", c.Delta, c.Window))
	}
	for _, name := range []string{"TcpExt.ListenOverflows", "TcpExt.ListenDrops"} {
		if c, ok := p.Facts.Counters[name]; ok && c.Sampled && c.Delta > 0 {
			out = append(out, audit.Evidencef(name, "+%d in %g s, all listeners together", c.Delta, c.Window))
		}
	}
	return out
}
