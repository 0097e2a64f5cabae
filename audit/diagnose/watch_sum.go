package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// sighting makes what is told of an attempt from its verdict.
func (w *watcher) sighting(s *seen, v *verdict) *Sighting {
	f := s.f
	g := &Sighting{At: f.asked.first().UTC(), Proto: w.proto(), From: f.from.String(), To: f.to.String(), Interface: audit.Text(s.after.linkName(f.links[len(f.links)-1])),
		SYN: f.asked.count, SYNACK: f.answered.count, RST: f.reset.count, ICMP: f.refused.count, Ended: v.end, Cause: v.id, Verdict: v.sure,
		DecidedBy: v.by, Conditions: v.conds, Evidence: v.ev, Disagreement: v.odd, VLAN: f.vlan}
	if g.Conditions == nil {
		g.Conditions = []reach.Condition{}
	}
	if f.icmp != nil {
		g.Error = f.icmp.String()
	}
	if f.answered.count > 0 {
		d := f.answered.first().Sub(f.asked.first()).Seconds()
		g.AnsweredIn = &d
	}
	if !f.sock.acceptedAt.IsZero() {
		d := f.sock.acceptedAt.Sub(f.asked.first()).Seconds()
		g.AcceptedIn = &d
	}
	if v.end == EndServed && s.y.known && s.y.forwarded() || v.odd == "" && v.end != EndDropped && v.end != EndRejected && v.end != EndOtherVLAN {
		if l := s.after.listener(&s.y); l != nil {
			g.Listener = l.Subject()
			g.Process = processOf(l)
			if d := s.y.a.DeliveredTo; d.NetNS != "" {
				g.Listener += " in " + d.NetNS
			}
		}
	}
	if p := f.sock.owner; p != nil {
		g.Process = &WatchProcess{PID: p.PID, Name: audit.Text(p.Comm), Unit: audit.Text(p.Unit)}
	}
	if g.Process == nil && (v.end == EndServed || v.end == EndQueueFull || v.end == EndNotAccepted) {
		for _, l := range s.after.onPort(f.proto, f.to.Port()) {
			g.Process = processOf(l)
			g.Listener = l.Subject()
		}
	}
	if v.face != nil && v.odd == "" && v.end != EndServed {
		j := &judge{e: &Evidence{Target: Target{Port: w.o.Port}, From: f.from.Addr()}}
		g.Remedy = w.remedy(j, v)
	} else if v.end != EndServed {
		g.Remedy = w.remedy(nil, v)
	}
	g.taken = f.sock.inode != 0 || f.closedHere
	g.Sentence = audit.Text(endWords(g))
	return g
}

func processOf(l *listeners.Listener) *WatchProcess {
	if len(l.Owners) == 0 {
		return nil
	}
	p := &l.Owners[0]
	return &WatchProcess{PID: p.PID, Name: audit.Text(p.Comm), Unit: audit.Text(p.Unit)}
}

// remedy says what to do about an ending; j is nil where no witness is known.
func (w *watcher) remedy(j *judge, v *verdict) string {
	ruled := j != nil && v.face != nil && (v.face.by.Kind == reach.ByRule || v.face.by.Kind == reach.ByPolicy)
	switch v.end {
	case EndDropped, EndRejected, EndAnswerDrop:
		if ruled {
			if v.end == EndAnswerDrop {
				return fmt.Sprintf("let the answers of established connections out (ct state established,related accept) before %s", witnessName(v.by))
			}
			if o := ownerOf(v.face.by); o != ownerNobody && w.o.Proto == ipTCP {
				return o.remedy(j, v.face)
			}
			return opening(w.proto(), w.o.Port, j.e.From.String(), v.by)
		}
		return ""
	case EndQueueFull, EndNotAccepted:
		if w.o.Proto == ipTCP {
			return queueRemedy
		}
		return "mend the service first (why does it not read?); then give its socket a larger buffer"
	case EndRPFilter:
		return replyRemedy(&face{by: reach.DecidedBy{Kind: reach.ByRPFilter}})
	case EndNoWayBack:
		return replyRemedy(&face{by: reach.DecidedBy{Kind: reach.ByRoute}})
	case EndClosed:
		if v.id == BindAddress {
			return "have the service listen on the address that is dialled, if it is meant for these clients"
		}
		return "start the service, or have the client dial the port that it listens on"
	case EndAnswerLost:
		return "look along the way back: the client's own firewall, a router, another way out than in"
	case EndAckIgnored:
		return "look for rules that drop packets of connections already begun (ct state invalid), and at the accept queue"
	case EndOtherVLAN:
		return "give this host an interface for that VLAN (ip link add link … type vlan id …), or have the switch hand its port these frames without the tag"
	case EndConntrack:
		return "raise net.netfilter.nf_conntrack_max and its buckets, or leave this port untracked"
	}
	return ""
}

// endWords says where an attempt ended, in a few words.
func endWords(g *Sighting) string {
	by := witnessName(g.DecidedBy)
	at := func(verb, other string) string {
		if by != "" && g.DecidedBy.Kind != reach.ByOpen {
			return verb + " by " + by
		}
		return verb + other
	}
	s := ""
	switch g.Ended {
	case EndServed:
		s = "served"
		if g.Process != nil {
			s = "served by " + processWords(g)
		} else if g.Listener != "" {
			s = "served by " + g.Listener
		}
		if g.Proto == "tcp" && !g.taken && g.Process != nil {
			s = "connected (" + processWords(g) + " listens)"
		}
		if g.AnsweredIn != nil {
			s += fmt.Sprintf(" in %s", ms(seconds(*g.AnsweredIn)))
		}
	case EndNotAccepted:
		s = "connected, and " + orProcess(g) + " does not accept it"
	case EndDropped:
		s = at("dropped", " on this host before its socket")
	case EndRejected:
		s = at("rejected", " on this host")
	case EndClosed:
		s = "refused: nothing listens there"
		if by != "" && g.DecidedBy.Kind != reach.ByOpen {
			s = "refused: " + by
		}
	case EndQueueFull:
		s = "dropped at the full accept queue of " + orProcess(g)
		if g.Proto != "tcp" {
			s = "dropped at the full buffer of " + orProcess(g)
		}
	case EndRPFilter:
		s = "dropped by the reverse path filter on " + string(g.Interface)
	case EndNoWayBack:
		s = "no route back to the client"
		if by != "" && g.DecidedBy.Kind == reach.ByRoute && !strings.HasPrefix(by, "no route") {
			s += " (" + by + ")"
		}
	case EndAnswerDrop:
		s = at("the answer is dropped", " on this host")
	case EndAnswerLost:
		s = fmt.Sprintf("answered, and never acknowledged: lost after this host (%s)", times(g.SYNACK, "SYN-ACK"))
	case EndAckIgnored:
		s = "answered; the client's acknowledgement arrived and had no effect"
		if by != "" {
			s = "answered; what the client sends then is dropped by " + by
		}
	case EndGaveUp:
		s = "the client reset it after the SYN-ACK"
	case EndNoAnswer:
		s = "reached " + orProcess(g) + ", which sent no answer"
	case EndOtherVLAN:
		s = fmt.Sprintf("thrown away on %s: tagged for VLAN %d, which no interface of this host takes", g.Interface, g.VLAN)
	case EndConntrack:
		s = "dropped: the connection tracking table is full"
	case EndUnderWay:
		s = "still under way when the watch ended"
	default:
		s = "no answer left, and nothing here tells why"
		if len(g.Conditions) > 0 {
			c := g.Conditions[0]
			s = "no answer left; it turns on " + strings.TrimSpace(strings.Join([]string{c.Chain + c.Object, c.TurnsOn}, ": "))
		}
	}
	if g.Verdict == Likely && g.Ended != EndServed {
		s += " (likely)"
	}
	return s
}

func orProcess(g *Sighting) string {
	if g.Process == nil {
		return "the service"
	}
	return processWords(g)
}

func processWords(g *Sighting) string {
	return fmt.Sprintf("%s pid %d", g.Process.Name, g.Process.PID)
}

// note counts an attempt among its like.
func (w *watcher) note(f *flow, g *Sighting, v *verdict) {
	r := w.report
	if len(r.Sightings) < maxKept {
		r.Sightings = append(r.Sightings, g)
	}
	i := w.group(g)
	if i < 0 {
		if len(r.Groups) == maxGroups {
			i = maxGroups - 1
		} else {
			r.Groups = append(r.Groups, WatchGroup{Ended: g.Ended, Cause: g.Cause, DecidedBy: g.DecidedBy, Example: f.from.Addr().String(), What: string(g.Sentence), Remedy: g.Remedy, verdict: g.Verdict, clients: map[string]bool{}})
			i = len(r.Groups) - 1
		}
	}
	group := &r.Groups[i]
	group.Attempts++
	if len(group.clients) < 1000 {
		group.clients[f.from.Addr().String()] = true
	}
	group.Clients = len(group.clients)
}

func (w *watcher) group(g *Sighting) int {
	return slices.IndexFunc(w.report.Groups, func(o WatchGroup) bool {
		if o.Ended != g.Ended || o.Cause != g.Cause {
			return false
		}
		if g.Ended == EndServed {
			return true
		}
		if o.DecidedBy == nil || g.DecidedBy == nil {
			return o.DecidedBy == g.DecidedBy
		}
		return samePlace(*o.DecidedBy, *g.DecidedBy)
	})
}

// forgetTold takes an attempt back out of the sums, to be judged again.
func (w *watcher) forgetTold(f *flow) {
	r := w.report
	if i := w.group(f.sighting); i >= 0 {
		if r.Groups[i].Attempts--; r.Groups[i].Attempts == 0 {
			r.Groups = slices.Delete(r.Groups, i, i+1)
		}
	}
	r.Sightings = slices.DeleteFunc(r.Sightings, func(g *Sighting) bool { return g == f.sighting })
	f.told, f.sighting, f.before = false, nil, w.world
}

// sum writes the summary.
func (w *watcher) sum() {
	r := w.report
	slices.SortStableFunc(r.Groups, func(a, b WatchGroup) int {
		return cmp.Or(cmp.Compare(b2i(b.Ended == EndServed), b2i(a.Ended == EndServed)), cmp.Compare(b.Attempts, a.Attempts))
	})
	r.HostWould = w.hostWould()
	for _, p := range w.world.programs() {
		r.Notes = append(r.Notes, p+": what it drops is not seen here")
	}
	if r.Others > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%s of other clients arrived meanwhile, so the way to this port is open for some", times(r.Others, w.question())))
	}
	if r.Passing > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%s for other hosts passed through; watch ADDRESS:%d watches one of those", times(r.Passing, w.question()), w.o.Port))
	}
	if r.NotFollowed > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d attempts came while %d others were followed; they were counted only", r.NotFollowed, maxFlows))
	}
	if w.unshown > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%s came faster than lines can be read; the sums have them", times(w.unshown, "attempt")))
	}
	if r.Attempts == 0 {
		// Nobody trying looks the same.
		r.Cause, r.Verdict = CloudGroup, CannotTell
		r.Summary, r.Remedy = audit.Text(w.nothingCame()), w.beforeRemedy()
		return
	}
	var parts []string
	for i, g := range r.Groups {
		if i == 4 {
			parts = append(parts, fmt.Sprintf("%d in other ways", rest(r.Groups[i:])))
			break
		}
		parts = append(parts, fmt.Sprintf("%d %s", g.Attempts, groupWords(&g)))
	}
	if r.NotFollowed > 0 {
		parts = append(parts, fmt.Sprintf("%d only counted", r.NotFollowed))
	}
	s := fmt.Sprintf("%s: %s.", times(r.Attempts, "attempt"), strings.Join(parts, ", "))
	if r.Failed() > 0 {
		s += " They did arrive: nothing before this host dropped them."
	}
	r.Summary = audit.Text(s)
	for i := range r.Groups {
		g := &r.Groups[i]
		if g.Ended == EndAnswerLost && g.Clients >= 100 {
			r.Notes = append(r.Notes, fmt.Sprintf("%d different addresses never acknowledged: forged ones do not (a SYN flood)", g.Clients))
		}
		if g.Remedy != "" && r.Remedy == "" {
			r.Remedy, r.Cause, r.Verdict = g.Remedy, g.Cause, g.verdict
		}
	}
}

func rest(gs []WatchGroup) (n int) {
	for _, g := range gs {
		n += g.Attempts
	}
	return n
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// groupWords is endWords for several attempts.
func groupWords(g *WatchGroup) string {
	switch g.Ended {
	case EndServed:
		return "served"
	case EndDropped, EndRejected:
		verb := "dropped"
		if g.Ended == EndRejected {
			verb = "rejected"
		}
		if by := witnessName(g.DecidedBy); by != "" {
			return verb + " here by " + by
		}
		return verb + " here"
	}
	return g.What
}

func (w *watcher) question() string {
	if w.o.Proto == ipTCP {
		return "SYN"
	}
	return "datagram"
}

// hostWould says what this host would do with an attempt, by the model.
func (w *watcher) hostWould() string {
	port := fmt.Sprintf("%s %d", w.proto(), w.o.Port)
	if w.world.home().Listeners == nil {
		return ""
	}
	if w.o.Proto != ipTCP {
		if len(w.world.onPort(w.o.Proto, w.o.Port)) == 0 {
			return "Nothing listens on " + port + " here"
		}
		return ""
	}
	t := Target{Port: w.o.Port, Addr: w.o.To}
	v := newView(&Evidence{Target: t, Side: SideServer, Server: w.world.snap, Here: w.world.snap, From: w.o.From})
	if !v.modelled {
		return ""
	}
	who := "everyone"
	if w.o.From.IsValid() {
		who = w.o.From.String()
	}
	f := &v.faces[0]
	switch {
	case f.sees == Connected && f.share > 0.999:
		return fmt.Sprintf("This host accepts %s from %s", port, who)
	case f.sees == Connected:
		return fmt.Sprintf("This host accepts %s from most clients", port)
	case f.sees == NotKnown:
		return ""
	case f.by.Kind == reach.ByNoListener || f.by.Kind == reach.ByBindAddress:
		text := upper(f.by.Text) + " here"
		if f.by.Kind == reach.ByBindAddress { // it begins with the socket's name
			text = "Here " + f.by.Text
		}
		return text + ": clients that get so far see \"connection refused\""
	}
	return fmt.Sprintf("And this host would not let %s in: %s", who, witnessName(&f.by))
}

// nothingCame is the sentence for a watch without a single packet.
func (w *watcher) nothingCame() string {
	r := w.report
	whose := ""
	if r.From != "" {
		whose = " from " + r.From
	}
	s := fmt.Sprintf("0 %ss%s for %s %s reached this host in %.0f s.", w.question(), whose, r.Proto, r.Target, r.Watched)
	if r.LostPackets > 0 {
		return s + " But packets were lost here before they could be looked at, so it cannot be told."
	}
	if r.HostWould != "" {
		s += " " + r.HostWould + "."
	}
	before := "a security group, a network ACL, a router or the provider"
	if c := w.cloud(); c != nil {
		before = "on " + c.Name + " a security group or network ACL"
	}
	return s + " If a client tried meanwhile, something before this host drops its packets (" + before + "), or it dials another address or port. What is before this host cannot be read from here."
}

func (w *watcher) cloud() *Cloud {
	if w.o.Facts == nil {
		return nil
	}
	return w.o.Facts.Cloud
}

func (w *watcher) beforeRemedy() string {
	first := ""
	if w.world.home().Listeners != nil && len(w.world.onPort(w.o.Proto, w.o.Port)) == 0 {
		first = "start the service first (unless the port is led elsewhere); "
	}
	do := first + fmt.Sprintf("run this again while the client tries, and compare the address it dials with this host's; then let %s %d in", w.proto(), w.o.Port)
	if c := w.cloud(); c != nil {
		return do + ": " + c.Console
	}
	return do + " where the network before this host is configured"
}

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }
