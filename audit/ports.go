package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hostaudit/hostaudit/listeners"
)

// PortsSchema names the form of PortUse in JSON.
const PortsSchema = "hostaudit/ports/v1"

// PortUse is the answer of `hostaudit ports`.
type PortUse struct {
	Schema string `json:"schema"`
	Host   Host   `json:"host"`
	// Ephemeral is null where the sockets could not be counted; Incomplete says why.
	Ephemeral *Ephemeral `json:"ephemeral"`
	// Sources count distinct ports by source address over all destinations: what
	// matters for sockets bound before they connect, and for UDP.
	Sources []SourceUse `json:"sources"`
	// Advice is what to do about the destinations and sources that are short of
	// ports, busiest first; empty where none is.
	Advice     []PortAdvice   `json:"advice"`
	States     map[string]int `json:"states"`
	Incomplete []Gap          `json:"incomplete"`
}

// SourceUse is the use of the range from one source address.
type SourceUse struct {
	Proto string  `json:"proto"`
	From  string  `json:"from"`
	Ports int     `json:"ports"`
	Share float64 `json:"share"`
	// Bound says that many of the ports were not chosen by connect(2) for one
	// destination but bound before, so that they are missing for every destination.
	Bound bool `json:"bound_before_connect"`
}

// PortLevel says how short ports are: "" for not, PortsHalf, PortsScarce.
type PortLevel string

// From half of the usable ports on connect(2) walks the other parity as well and
// takes ten times as long (measured, Linux 6.18); from 85 % on the last ports are
// near.
const (
	PortsHalf   PortLevel = "half-used"
	PortsScarce PortLevel = "nearly-exhausted"

	shareHalf, shareScarce = 0.5, 0.85
)

// LevelOf places a share of the usable ports.
func LevelOf(share float64) PortLevel {
	switch {
	case share >= shareScarce:
		return PortsScarce
	case share >= shareHalf:
		return PortsHalf
	}
	return ""
}

// Ephemeral says how the local ports are used.
type Ephemeral struct {
	Range  []int `json:"range"`
	Usable int   `json:"usable"`
	// Reserved and Taken are ports of the range that no connection is given:
	// ip_local_reserved_ports, and those that something listens on. They are no part
	// of Usable; Bound are those of Usable that sockets are bound to by number, and
	// that no connect(2) is given, either.
	Reserved int `json:"reserved"`
	Taken    int `json:"taken"`
	Bound    int `json:"bound"`
	// FirstHalf are the usable ports that connect(2) tries first.
	FirstHalf    int           `json:"first_half"`
	Destinations []Destination `json:"destinations"`
	// More counts destinations that are not listed.
	More  int `json:"more,omitempty"`
	Total int `json:"total"`
}

// Destination is the use of local ports towards one address and port.
type Destination struct {
	Proto string     `json:"proto"`
	From  netip.Addr `json:"from"`
	To    netip.Addr `json:"to"`
	Port  uint16     `json:"port"`
	InUse uint32     `json:"in_use"`
	// Held are those of InUse on ports that are neither reserved nor bound by number:
	// Share is theirs together with Ephemeral.Bound, what connect(2) cannot have.
	Held        uint32 `json:"held"`
	TimeWait    uint32 `json:"time_wait"`
	Established uint32 `json:"established"`
	Connecting  uint32 `json:"connecting"`
	// Bound are sockets whose port was bound by number, null where that was not
	// looked for.
	Bound   *uint32     `json:"bound"`
	Share   float64     `json:"share"`
	Level   PortLevel   `json:"level,omitempty"`
	Process *ProcessRow `json:"process"` // the one with most of the sockets
	Unowned string      `json:"unowned,omitempty"`
}

// PortAdvice is what to do about one shortage, in the order to try it.
type PortAdvice struct {
	Subject string    `json:"subject"`
	Level   PortLevel `json:"level"`
	Why     string    `json:"why"`
	Steps   []string  `json:"steps"`
}

func ephemeral(s *Snapshot) *Ephemeral {
	c := s.Census
	if c == nil {
		return nil
	}
	room := c.HeadRoom[listeners.TCP]
	e := &Ephemeral{
		Range: []int{int(c.Settings.Low), int(c.Settings.High)}, Usable: room.Usable, Reserved: room.Reserved, Taken: room.Taken, Bound: c.BoundPorts, FirstHalf: room.FirstHalf,
		Destinations: []Destination{}, More: c.More,
	}
	for i := range c.Destinations {
		d := &c.Destinations[i]
		row := Destination{Proto: string(d.Proto), From: d.From, To: d.To, Port: d.Port, InUse: d.InUse, Held: d.Held(), TimeWait: d.TimeWait,
			Established: d.Established, Connecting: d.Connecting, Share: d.Share, Level: LevelOf(d.Share), Unowned: string(d.Unowned)}
		if c.BoundKnown && d.Proto == listeners.TCP {
			row.Bound = &d.Bound
		}
		if len(d.Owners) > 0 {
			row.Process = processRow(&d.Owners[0].Process)
		}
		e.Destinations = append(e.Destinations, row)
		e.Total += int(d.InUse)
	}
	return e
}

// Ports says how the local ports are used.
func Ports(s *Snapshot) *PortUse {
	p := &PortUse{Schema: PortsSchema, Host: s.host(), Ephemeral: ephemeral(s), Sources: []SourceUse{}, Advice: []PortAdvice{}, States: map[string]int{}, Incomplete: []Gap{}}
	if s.Census == nil {
		p.Incomplete = append(p.Incomplete, s.Gaps...)
		return p
	}
	for state, n := range s.Census.States {
		p.States[state] = int(n)
	}
	p.Incomplete = append(p.Incomplete, s.portGaps()...)
	for i := range s.Census.Sources {
		u := &s.Census.Sources[i]
		p.Sources = append(p.Sources, SourceUse{string(u.Proto), u.From.String(), u.Ports, u.Share, boundBefore(s.Census, u)})
	}
	for i := range p.Ephemeral.Destinations {
		// Where ports bound by number are what is missing their source is spoken of.
		d := &p.Ephemeral.Destinations[i]
		if d.Level != "" && d.Proto == string(listeners.TCP) && LevelOf(float64(d.Held)/float64(max(s.Census.ForConnect(listeners.TCP), 1))) != "" {
			p.Advice = append(p.Advice, s.adviseDestination(d))
		}
	}
	for _, u := range p.Sources {
		if LevelOf(u.Share) != "" && (u.Bound || u.Proto == string(listeners.UDP)) {
			p.Advice = append(p.Advice, adviseSource(u))
		}
	}
	return p
}

// Complete says that nothing an answer turns on is missing.
func (p *PortUse) Complete() bool {
	return p.Ephemeral != nil && !slices.ContainsFunc(p.Incomplete, func(g Gap) bool { return !g.Minor })
}

// portGaps are those that concern the ports; a snapshot of the whole host has others.
// Owners that could not be seen count where a destination lacks its own.
func (s *Snapshot) portGaps() []Gap {
	out := []Gap{}
	for _, g := range s.Gaps {
		owners := strings.HasPrefix(g.What, "owners")
		if !owners && g.What != "sysctls" && g.What != "listeners" && g.What != "user names" && !strings.HasPrefix(g.What, "listeners: ") {
			continue
		}
		g.Minor = g.Minor || owners && !s.Census.Unowned()
		out = append(out, g)
	}
	for _, g := range s.Census.Gaps {
		out = append(out, Gap{What: g.What, Why: g.Why})
	}
	return out
}

// boundBefore tells sources whose ports were bound before they connected from
// those with connections to many destinations, which look the same in number:
// connect(2) takes the first half of the ports towards each destination before it
// touches the second, bind(2) to port 0 takes the second half first, and a port
// bound by number the kernel names. It says no where neither shows.
func boundBefore(c *listeners.Census, u *listeners.SourceUse) bool {
	if u.Proto != listeners.TCP || u.Ports == 0 {
		return false
	}
	room := c.HeadRoom[listeners.TCP]
	var bound int
	half := false
	for i := range c.Destinations {
		d := &c.Destinations[i]
		if d.Proto != u.Proto || d.From != u.From {
			continue
		}
		bound += int(d.Bound)
		// A destination that has used the first half explains ports of the second; what
		// is bound by number lies in either.
		half = half || int(d.InUse-d.LastHalf)+c.BoundPorts/2 >= room.FirstHalf*9/10
	}
	const some = 0.2
	return float64(bound) >= some*float64(u.Ports) || !half && float64(u.LastHalf) >= some*float64(u.Ports)
}

func (d *Destination) subject() string {
	return fmt.Sprintf("%s %s → %s", d.Proto, d.From, netip.AddrPortFrom(d.To, d.Port))
}

// adviseDestination puts the remedies in the order to try them, and leaves out
// what cannot help here.
func (s *Snapshot) adviseDestination(d *Destination) PortAdvice {
	a := PortAdvice{Subject: d.subject(), Level: d.Level}
	usable := s.Census.ForConnect(listeners.TCP)
	waiting := d.TimeWait*2 > d.InUse
	switch {
	case waiting:
		// TIME_WAIT lasts a minute (TCP_TIMEWAIT_LEN), so a sixtieth of it is new each second.
		a.Why = fmt.Sprintf("%d of %d ports are in TIME_WAIT: connections are opened and closed from here, about %d a second", min(d.TimeWait, d.Held), usable, max(1, d.TimeWait/60))
	default:
		a.Why = fmt.Sprintf("%d of %d ports are held by open connections", d.Held-min(d.TimeWait, d.Held), usable)
		if d.TimeWait > 0 {
			a.Why += fmt.Sprintf(", %d more are in TIME_WAIT", min(d.TimeWait, d.Held))
		}
	}
	if d.Level == PortsScarce {
		a.Why += `; when none is left connect() fails with "Cannot assign requested address"`
	} else {
		a.Why += "; from half on every connect() searches longer, about ten times"
	}
	who := "the program"
	if d.Process != nil {
		who = string(d.Process.Name)
	}
	if waiting {
		a.Steps = append(a.Steps, "let "+who+" keep its connections open and use them again: a pool, HTTP keep-alive, persistent connections")
	} else {
		a.Steps = append(a.Steps, "bound the number of connections of "+who+": a pool of fixed size; look for connections that it forgets to close")
	}
	if d.To.IsLoopback() || d.To == d.From {
		a.Steps = append(a.Steps, "the peer is on this host: connect to it by a unix socket, which takes no port")
	}
	a.Steps = append(a.Steps, "more tuples: each further address or port of the peer, and each further source address, has all ports again")
	if d.Bound != nil && *d.Bound*5 >= d.InUse {
		a.Steps = append(a.Steps, fmt.Sprintf("%d sockets bind a port by number before they connect: let connect() choose, or set IP_BIND_ADDRESS_NO_PORT (Linux 4.2)", *d.Bound))
	}
	if step := s.widen(); step != "" {
		a.Steps = append(a.Steps, step)
	}
	if step := s.reuse(d, waiting); step != "" {
		a.Steps = append(a.Steps, step)
	}
	return a
}

// adviseSource speaks of ports that are gone for every destination.
func adviseSource(u SourceUse) PortAdvice {
	a := PortAdvice{Subject: u.Proto + " from " + u.From, Level: LevelOf(u.Share)}
	if u.Proto == string(listeners.UDP) {
		a.Why = fmt.Sprintf("%d UDP sockets hold a port each, whatever their destination; when none is left bind() and connect() fail", u.Ports)
		a.Steps = []string{"close sockets after use, or send over one that stays", "more source addresses: each has all ports again"}
		return a
	}
	// connect(2) passes over a port that any socket was bound to, whatever their
	// addresses (__inet_hash_connect); bind(2) minds those of its own address alone.
	a.Why = fmt.Sprintf("of %d ports many were bound before their sockets connected: each of those is gone for every destination, not for one, and for connect() from other addresses, too; "+
		"when none is left bind() fails with \"Address already in use\" and connect() with \"Cannot assign requested address\"", u.Ports)
	a.Steps = []string{
		"set IP_BIND_ADDRESS_NO_PORT on sockets that bind a source address (Linux 4.2; nginx proxy_bind and HAProxy source do it): connect() then chooses a port for the destination",
		"keep connections open and use them again",
		"more source addresses to bind: each has all ports again",
	}
	return a
}

// Widest range that is advised: above the ports where services usually listen,
// of different parity at its ends.
const wideLow, wideHigh = 16384, 65535

// widen says how to widen the range with the listeners inside reserved; "" where
// it is as wide already.
func (s *Snapshot) widen() string {
	c := s.Census
	low, high := min(int(c.Settings.Low), wideLow), max(int(c.Settings.High), wideHigh)
	if start, ok := s.Sysctls.Int("net.ipv4.ip_unprivileged_port_start"); ok && int64(low) < start {
		low = int(c.Settings.Low) // the kernel refuses a range below it
	}
	if low == int(c.Settings.Low) && high == int(c.Settings.High) {
		return ""
	}
	step := fmt.Sprintf("a wider range: net.ipv4.ip_local_port_range = %d %d", low, high)
	reserved, err := listeners.ParsePortSet(c.Settings.Reserved)
	if t := s.World.Namespaces[0].Listeners; t != nil && err == nil {
		var inside []int
		for i := range t.Listeners {
			l := &t.Listeners[i]
			p := int(l.Port())
			if (l.Proto == listeners.TCP || l.Proto == listeners.MPTCP) && p >= low && p <= high && !reserved.Has(l.Port()) && !slices.Contains(inside, p) {
				inside = append(inside, p)
			}
		}
		if len(inside) > 0 {
			slices.Sort(inside)
			var words []string
			for _, p := range inside[:min(len(inside), 8)] {
				words = append(words, strconv.Itoa(p))
			}
			if n := len(inside) - len(words); n > 0 {
				words = append(words, fmt.Sprintf("… (%d more)", n))
			}
			step += ", with the listeners inside it in net.ipv4.ip_local_reserved_ports"
			if c.Settings.Reserved != "" {
				step += ", added to what that holds now, which a write replaces"
			}
			step += ": " + strings.Join(words, ",")
		}
	}
	return step
}

// reuse is the last remedy, and only where TIME_WAIT is what holds the ports.
func (s *Snapshot) reuse(d *Destination, waiting bool) string {
	v, ok := s.Sysctls.Int("net.ipv4.tcp_tw_reuse")
	if !waiting || !ok || v == 1 || v == 2 && d.To.IsLoopback() {
		return ""
	}
	step := "last: net.ipv4.tcp_tw_reuse = 1; it lets outgoing connections take over ports a second after they went to TIME_WAIT, and does nothing for clients of this host"
	if ts, ok := s.Sysctls.Int("net.ipv4.tcp_timestamps"); ok && ts == 0 {
		step += "; it has no effect while net.ipv4.tcp_timestamps = 0"
	}
	return step
}
