package diagnose

import (
	"fmt"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// recently is how old a line of the kernel's log may be to speak of what a client
// meets now: most of them come again every few seconds while the cause lasts.
const recently = 2 * time.Minute

// lastEvent is the last event of a kind that a test takes, nil for none.
func (l *KernelLog) lastEvent(kind KernelKind, take func(*KernelEvent) bool) *KernelEvent {
	if l == nil {
		return nil
	}
	for i := len(l.Events) - 1; i >= 0; i-- {
		if e := &l.Events[i]; e.Kind == kind && (take == nil || take(e)) {
			return e
		}
	}
	return nil
}

// fresh tells an event that speaks of now.
func (j *judge) fresh(e *KernelEvent) bool { return e != nil && j.e.Now.Sub(e.Time) < recently }

func (j *judge) kernelSaid(e *KernelEvent) audit.Evidence {
	return evidence("kernel's log", "%s:%s", e.Text, agoWords(e.Time, j.e.Now))
}

// counted tells whether a counter of the server's namespace has counted at all;
// known is false where it was not read. The kernel's log is that of the whole
// machine: what another namespace's sockets did shows in it, too, and not in
// this namespace's counters.
func (j *judge) counted(names ...string) (some, known bool) {
	s := j.e.Server
	if s == nil || len(s.Samples) == 0 {
		return false, false
	}
	last := s.Samples[len(s.Samples)-1].Counters
	for _, n := range names {
		v, ok := last[n]
		some, known = some || v > 0, known || ok
	}
	return some, known
}

const cookieRemedy = "net.ipv4.tcp_syncookies=1, so that a full SYN queue drops nobody; then raise the service's backlog and net.core.somaxconn, and restart it"

// kernel weighs what the kernel's log says of connections. What is old is no
// evidence of what a client meets now.
func (j *judge) kernel() {
	log := j.e.serverFacts().Kernel
	if log == nil {
		return
	}
	met := j.observed == Timeout || j.observed == ProtocolError
	flood := log.lastEvent(KernelSynFlood, func(e *KernelEvent) bool { return e.Port == j.e.Target.Port })
	some, known := j.counted(listeners.ReqQFullDrop, listeners.ReqQFullDoCookies)
	switch dropped := j.delta[listeners.ReqQFullDrop]; {
	case flood == nil || len(j.listening) == 0 || known && !some:
	case flood.Dropped && dropped > 0: // it is said once for each listener, however long ago
		j.say(QueueFull, Likely, cookieRemedy, evidence("counters", "TCPReqQFullDrop +%d %s", dropped, j.deltaOver), j.kernelSaid(flood))
	case flood.Dropped && j.fresh(flood) && met:
		j.say(QueueFull, Likely, cookieRemedy, j.kernelSaid(flood))
	case j.fresh(flood) && j.accused(QueueFull):
		j.say(QueueFull, j.out[QueueFull].Verdict, queueRemedy, j.kernelSaid(flood))
	}
	if e := log.lastEvent(KernelTCPMemory, nil); j.fresh(e) && met {
		j.say(QueueFull, Likely, "find out which sockets hold the memory (ss -tm: queues that nobody reads), then raise net.ipv4.tcp_mem",
			j.kernelSaid(e), evidence("what it means", "sockets use all the memory that net.ipv4.tcp_mem allows: data is thrown away and connections are reset"))
	}
	if e := log.lastEvent(KernelNeighbour, nil); j.fresh(e) && met && !j.home6(e) {
		j.say(ReplyPath, Likely, "raise net.ipv4.neigh.default.gc_thresh3 (for IPv6 net.ipv6.neigh.default.gc_thresh3), or make the network smaller",
			j.kernelSaid(e), evidence("what it means", "answers to hosts whose hardware address is not known yet are thrown away"))
	}
}

// home6 tells that a full neighbour table is the other family's than the client's.
func (j *judge) home6(e *KernelEvent) bool {
	six := strings.Contains(e.Text, "ndisc_cache")
	return j.e.From.IsValid() && j.e.From.Is6() != six
}

// tableFull is what the kernel's log says of the connection table of the server's
// namespace: fresh speaks of now, otherwise it is a time that was.
func (j *judge) tableFull(s *audit.Snapshot) (e *KernelEvent, fresh bool) {
	if s.Conntrack != nil && s.Conntrack.Counters["drop"]+s.Conntrack.Counters["early_drop"] == 0 {
		return nil, false // another namespace's
	}
	e = j.e.serverFacts().Kernel.lastEvent(KernelConntrack, func(e *KernelEvent) bool {
		if e.Namespace == 0 {
			return s.Meta.FirstNS || s.Meta.NSUnknown
		}
		return len(s.World.Namespaces) > 0 && e.Namespace == s.World.Namespaces[0].ID
	})
	return e, j.fresh(e)
}

// killedHere names processes that were killed for memory and may be the service,
// where no unit of it is known.
func (j *judge) killedHere() (ev []audit.Evidence, remedy string) {
	facts := j.e.serverFacts()
	var names []string
	if facts.Earlier != nil && facts.Earlier.Name != "" {
		names = append(names, facts.Earlier.Name)
	}
	if c := j.e.Config; c != nil {
		for _, s := range c.Services {
			if s.Proto != "udp" && s.Port == j.e.Target.Port && s.Name != "" {
				names = append(names, s.Name)
			}
		}
	}
	e := facts.Kernel.lastEvent(KernelOOM, func(e *KernelEvent) bool {
		for _, n := range names {
			if e.Comm == n[:min(len(n), 15)] {
				return true
			}
		}
		return false
	})
	if e == nil || j.e.Now.Sub(e.Time) > 24*time.Hour {
		return nil, ""
	}
	said, todo := killWords(e, j.e.Now)
	return []audit.Evidence{evidence("kernel's log", "%s", said)}, fmt.Sprintf("%s; then start the service", todo)
}
