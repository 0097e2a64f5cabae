package diagnose

import (
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// queues looks at the accept queue, the descriptors and connection tracking.
func (j *judge) queues() {
	s := j.e.Server
	if s == nil {
		return
	}
	var full, files bool
	for _, l := range j.listening {
		q := l.Accept
		if q.Full() {
			full = true
			j.say(QueueFull, Confirmed, queueRemedy, evidence("sockets", "%s: %d connections wait, the limit is %d%s", l.Subject(), q.Len, q.Limit, processName(l)))
		}
		for _, p := range l.Owners {
			if fill, known := p.Files.Fill(); known && fill >= 1 {
				files = true
				j.say(QueueFull, Confirmed, "raise the descriptor limit (LimitNOFILE= of the unit) and restart; then look for leaked connections",
					evidence("process", "%s (pid %d) has %d of %d descriptors open: it cannot accept", p.Comm, p.PID, p.Files.Open, p.Files.Soft))
			}
		}
	}
	if h := hit(j.e.serverFacts().Log, LogTooManyFile, ""); h != nil && (full || j.observed == Timeout) {
		j.say(QueueFull, Likely, queueRemedy, evidence("log", "%s", h.Last))
	}
	if n := j.delta[listeners.ListenOverflows]; n > 0 && !full && !files {
		if len(j.listening) > 0 && j.listening[0].Accept.Fill() >= 0.8 {
			j.say(QueueFull, Likely, queueRemedy, evidence("counters", "ListenOverflows +%d %s", n, j.deltaOver))
		} else {
			j.say(QueueFull, CannotTell, queueRemedy, evidence("counters", "ListenOverflows +%d %s on this host, the queue of this port is not full now", n, j.deltaOver))
		}
	}
	if waits := j.e.Symptom != nil && (j.e.Symptom.Kind == KindReadTimeout || j.leavesOpen(ProtocolError)); waits && len(j.listening) > 0 && !full && !files {
		if q := j.listening[0].Accept; q.Len > 0 {
			j.say(QueueFull, Likely, "find out why the service does not accept: blocked or stopped workers, a descriptor limit", evidence("sockets", "%s: %d connections wait to be accepted (the limit is %d)%s", j.listening[0].Subject(), q.Len, q.Limit, processName(j.listening[0])))
		}
	}
	if len(j.listening) > 0 && !full && !files && j.delta[listeners.ListenOverflows] == 0 && !j.accused(QueueFull) {
		q := j.listening[0].Accept
		j.clear(QueueFull, "sockets", "the queue is %d of %d and no connection was dropped at a queue %s", q.Len, q.Limit, j.deltaOver)
	} else if j.modelled && len(j.listening) == 0 {
		j.clear(QueueFull, "sockets", "no listener, no queue")
	}
	j.conntrack(s)
	j.kernel()
	if n := j.delta[listeners.ReversePathFiltered]; n > 0 {
		v := CannotTell
		if j.observed == Timeout {
			v = Likely
		}
		j.say(ReplyPath, v, "rp_filter=2 on the interface that the packets come in by; not rp_filter=0 everywhere", evidence("counters", "IPReversePathFilter +%d %s", n, j.deltaOver))
	}
}

func (j *judge) conntrack(s *audit.Snapshot) {
	c := s.Conntrack
	const remedy = "raise net.netfilter.nf_conntrack_max and the buckets with it, and persist both where the module is loaded; or notrack for the busy port"
	switch {
	case c == nil:
		for _, g := range s.Gaps {
			if strings.Contains(strings.ToLower(g.What), "conntrack") || strings.Contains(strings.ToLower(g.What), "connection tracking") {
				return
			}
		}
		j.clear(ConntrackFull, "connection tracking", "is not loaded")
	case c.Max == 0:
	default:
		var drops uint64
		if len(s.Samples) >= 2 {
			d := s.Samples[len(s.Samples)-1].Counters.Sub(s.Samples[0].Counters)
			for k, n := range d {
				if strings.HasPrefix(strings.ToLower(k), "conntrack.") && (strings.HasSuffix(k, "drop") || strings.HasSuffix(k, "early_drop")) {
					drops += n
				}
			}
		}
		e := evidence("connection tracking", "%d of %d entries", c.Count, c.Max)
		total := c.Counters["drop"] + c.Counters["early_drop"]
		said, now := j.tableFull(s)
		switch {
		case drops > 0:
			j.say(ConntrackFull, Confirmed, remedy, e, evidence("counters", "%d packets dropped by the full table %s", drops, j.deltaOver))
		case c.Count >= c.Max:
			j.say(ConntrackFull, Confirmed, remedy, e, evidence("counters", "the table is full; %d packets dropped since the start", total))
			if said != nil {
				j.say(ConntrackFull, Confirmed, remedy, j.kernelSaid(said))
			}
		case now && (c.Fill() >= 0.8 || j.observed == Timeout):
			j.say(ConntrackFull, Likely, remedy, e, j.kernelSaid(said))
		case c.Fill() >= 0.95:
			j.say(ConntrackFull, Likely, remedy, e)
		case c.Fill() < 0.8 && said != nil:
			j.clear(ConntrackFull, "connection tracking", "%d of %d entries now; the kernel said last that it was full%s", c.Count, c.Max, agoWords(said.Time, j.e.Now))
		case c.Fill() < 0.8:
			j.clear(ConntrackFull, "connection tracking", "%d of %d entries", c.Count, c.Max)
		default:
			j.say(ConntrackFull, CannotTell, remedy, e)
		}
	}
}
