package diagnose

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// The bounds of a watch: what is followed at once, what is kept for the report,
// and what is told apart in the sums. A flood beyond them is counted.
const (
	maxFlows  = 4096
	maxKept   = 512
	maxGroups = 256
	maxTimes  = 12 // of the packets of one attempt
	maxLinks  = 4
)

// copied is how long the copies of one packet on several links (a bridge and its
// port, a VLAN and the link below) may be apart.
const copied = 50 * time.Millisecond

// pass notes packets of one kind of one attempt, copies on other links left out.
type pass struct {
	count int
	times []time.Time // the first maxTimes
	link  int         // by which the last one came first
	last  time.Time
	seq   uint32
}

// note counts a packet; false where it is a copy of the last one on another link.
func (s *pass) note(p *Packet) bool {
	if s.count > 0 && p.Link != s.link && p.Seq == s.seq && p.At.Sub(s.last) < copied {
		return false
	}
	s.count++
	if len(s.times) < maxTimes {
		s.times = append(s.times, p.At)
	}
	s.link, s.last, s.seq = p.Link, p.At, p.Seq
	return true
}

func (s *pass) first() time.Time {
	if len(s.times) == 0 {
		return time.Time{}
	}
	return s.times[0]
}

// flow is one attempt: the SYNs of one connection, or the datagrams between two
// ports, with what answered them.
type flow struct {
	proto    uint8
	from, to netip.AddrPort
	seq      uint32 // of the SYN
	links    []int  // by which the question came, outermost first
	vlan     uint16 // of the tag that it still carried on the innermost one
	asked    pass   // SYNs or datagrams in
	answered pass   // SYN-ACKs or datagrams out
	reset    pass   // RSTs out
	refused  pass   // ICMP errors out
	icmp     *ICMP
	acked    bool // a segment beyond the SYN came from the client
	// closedHere: this host sent a FIN, so a process had the connection;
	// closedThere: the client did; over is when either or a reset came.
	closedHere, closedThere bool
	over                    time.Time
	// gaveUp: the client reset without ever acknowledging; cut: it reset an
	// established connection.
	gaveUp, cut bool

	before   *worldView // what was known of the host when it began
	sock     socketLook
	told     bool
	sighting *Sighting
	followed bool
}

// tracker joins packets to attempts.
type tracker struct {
	want  tapFor
	to    netip.Addr // the address dialled, invalid for any
	from  netip.Addr // the client, invalid for any
	local func(netip.Addr) bool

	flows map[[2]netip.AddrPort]*flow
	order []*flow // as they began, those that are over swept out now and then
	// others counts questions of clients that are not watched, passing those for
	// other hosts, untracked those beyond the bound; all are the watched ones.
	others, passing, untracked, all int
	// began is told each new attempt.
	began func(*flow)
}

func newTracker(want tapFor, to, from netip.Addr) *tracker {
	return &tracker{want: want, to: to, from: from, flows: map[[2]netip.AddrPort]*flow{}, local: func(netip.Addr) bool { return true }, began: func(*flow) {}}
}

// take joins one packet to its attempt. It tells what was counted: a question of
// the watched port (n.asked), a RST that answers one (n.reset).
func (t *tracker) take(p *Packet) (n tally) {
	if p.Strange || p.Proto != t.want.proto {
		return n
	}
	switch {
	case p.ICMP != nil:
		if p.Dst.Port() == t.want.port && p.Outgoing {
			if f := t.flows[[2]netip.AddrPort{p.Src, p.Dst}]; f != nil && p.To == p.Src.Addr() && f.refused.note(p) {
				f.icmp = p.ICMP
			}
		}
	case p.Dst.Port() == t.want.port && !p.Outgoing:
		return t.question(p)
	case p.Src.Port() == t.want.port && p.Outgoing:
		return t.answer(p)
	}
	return n
}

// tally counts packets of the watched port.
type tally struct{ asked, reset int }

func (t *tracker) question(p *Packet) (n tally) {
	key := [2]netip.AddrPort{p.Src, p.Dst}
	f := t.flows[key]
	tcp := t.want.proto == unix.IPPROTO_TCP
	if tcp && !(p.SYN && !p.ACK) {
		if f == nil || f.answered.count == 0 {
			return n
		}
		switch {
		case p.RST && !p.ACK && p.Seq == f.seq+1 && !f.acked:
			f.gaveUp, f.over = true, p.At
		case p.RST:
			f.cut, f.acked, f.over = true, f.acked || p.ACK, p.At
		case p.ACK:
			f.acked = true
			if p.FIN {
				f.closedThere, f.over = true, p.At
			}
		}
		return n
	}
	if f != nil && tcp && f.seq != p.Seq {
		f = nil // the client's port again, for another connection
	}
	if f != nil {
		if f.asked.note(p) {
			n.asked++
			if len(f.links) == 0 || f.links[0] != p.Link {
				f.links = []int{p.Link}
			}
			f.vlan = p.VLAN
		} else if !slices.Contains(f.links, p.Link) && len(f.links) < maxLinks {
			f.links, f.vlan = append(f.links, p.Link), p.VLAN
		} else if f.links[len(f.links)-1] == p.Link {
			f.vlan = p.VLAN
		}
		return n
	}
	if t.to.IsValid() && p.Dst.Addr() != t.to {
		return n
	}
	n.asked++
	if !t.to.IsValid() && !t.local(p.Dst.Addr()) {
		t.passing++
		return tally{}
	}
	if t.from.IsValid() && p.Src.Addr() != t.from {
		t.others++
		return n
	}
	t.all++
	if len(t.flows) >= maxFlows {
		t.untracked++
		return n
	}
	f = &flow{proto: p.Proto, from: p.Src, to: p.Dst, seq: p.Seq, links: []int{p.Link}, vlan: p.VLAN}
	f.asked.note(p)
	t.flows[key] = f
	t.order = append(t.order, f)
	t.began(f)
	return n
}

func (t *tracker) answer(p *Packet) (n tally) {
	f := t.flows[[2]netip.AddrPort{p.Dst, p.Src}]
	if p.RST && t.want.proto == unix.IPPROTO_TCP && (f == nil || f.told) {
		n.reset++ // of a client that is not watched
	}
	if f == nil {
		return n
	}
	switch {
	case t.want.proto != unix.IPPROTO_TCP:
		f.answered.note(p)
	case p.SYN && p.ACK:
		f.answered.note(p)
	case p.RST:
		if f.reset.note(p) && !f.told {
			n.reset++
		}
	case p.FIN:
		f.closedHere, f.over = true, p.At
	}
	return n
}

// sweep forgets attempts that were told and have been quiet for a while; where
// there are many, first those that were answered, since the others send again.
func (t *tracker) sweep(now time.Time) {
	many, full := len(t.flows) >= maxFlows/2, len(t.flows) >= maxFlows*3/4
	t.order = slices.DeleteFunc(t.order, func(f *flow) bool {
		answered := f.answered.count+f.reset.count+f.refused.count > 0
		if !f.told || now.Sub(f.asked.last) < forget && !full && (!many || !answered) {
			return false
		}
		key := [2]netip.AddrPort{f.from, f.to}
		if t.flows[key] == f {
			delete(t.flows, key)
		}
		return true
	})
}

// forget is how long a retransmission still counts for an attempt that was told:
// beyond the pause between the fifth and the sixth SYN (RFC 6298: 1, 2, 4 … s).
const forget = 40 * time.Second
