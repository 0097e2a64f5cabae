package diagnose

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// worldView is one reading of the host during a watch.
type worldView struct {
	began, at time.Time // the reading took from began to at
	snap      *audit.Snapshot
	ev        *reach.Evaluator
	gen       uint32
	genKnown  bool
}

func (v *worldView) home() *reach.Namespace { return v.snap.World.Namespaces[0] }

// readWorld reads the host. The generation is asked before: a change during the
// reading makes the next look at it differ.
func readWorld(ctx context.Context, read func(context.Context, []netip.Addr) (*audit.Snapshot, error), ask []netip.Addr) (*worldView, error) {
	v := &worldView{began: time.Now()}
	v.gen, v.genKnown = generation()
	var err error
	if v.snap, err = read(ctx, ask); err != nil {
		return nil, err
	}
	v.at = time.Now()
	v.ev = reach.New(&v.snap.World)
	return v, nil
}

// linkName names a link by its index.
func (v *worldView) linkName(index int) string {
	if r := v.home().Route; r != nil {
		if l := r.Link(index); l != nil {
			return l.Name
		}
	}
	return ""
}

// local tells whether packets to an address are for this host, as far as known.
func (v *worldView) local(a netip.Addr) bool {
	local, known := LocalTo(v.snap, a)
	if local || !known || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return true
	}
	for _, r := range v.home().Route.Routes {
		if (r.Type == 3 || r.Type == 4) && r.Dst.Contains(a) { // RTN_BROADCAST, RTN_ANYCAST
			return true
		}
	}
	return false
}

// programs names what sits on the way of packets before the tap: XDP.
func (v *worldView) programs() []string {
	var out []string
	for _, p := range v.home().Programs {
		if p.Kind == "xdp" {
			out = append(out, strings.TrimSpace("XDP program "+p.Name)+" on "+p.Place)
		}
	}
	return out
}

// expectation is what the model of one reading says about an attempt.
type expectation struct {
	known bool
	why   string // where it is not
	a     reach.Answer
	f     face
	// answered: what was forwarded had been answered, and the answer is what is
	// stopped.
	answered bool
}

// expect asks the model about the very client, port and interface.
func (v *worldView) expect(f *flow) (x expectation) {
	q := reach.Query{Proto: firewall.TCP, From: f.from.Addr(), FromPort: f.from.Port(), To: f.to.Addr(), Port: f.to.Port(), Iif: v.linkName(f.links[len(f.links)-1])}
	if f.proto != ipTCP {
		q.Proto = firewall.UDP
	}
	a, err := v.ev.Ask(q, reach.WithPath)
	if err != nil {
		x.why = err.Error()
		return x
	}
	if why := v.home().Unread["firewall"]; why != "" {
		x.why = "the rules could not be read: " + why
		return x
	}
	x.known, x.a, x.f = true, a, faceOf(a, f.to.Addr(), 1)
	if x.f.sees == Timeout && !x.f.after && x.forwarded() {
		x.answered = v.answered(q)
	}
	return x
}

// answered tells whether the answer had begun its way before the packets were
// stopped: a chain of the forward hook sees both.
func (v *worldView) answered(q reach.Query) bool {
	a, err := v.ev.Ask(q, reach.WithRules)
	if err != nil {
		return false
	}
	began := false
	for _, l := range a.Lines {
		if l.Decides {
			return began
		}
		began = began || l.Stage == "" && strings.HasSuffix(l.Text, " leaves")
	}
	return false
}

// same tells that two answers name the same thing.
func (x *expectation) same(y *expectation) bool {
	// The text of a rule of nf_tables holds its counter; its handle is never another
	// rule's.
	return x.known == y.known && x.f.sees == y.f.sees && samePlace(x.f.by, y.f.by) && (x.f.by.Handle != 0 || x.f.by.Text == y.f.by.Text)
}

func samePlace(a, b reach.DecidedBy) bool {
	return a.Kind == b.Kind && a.Backend == b.Backend && a.Family == b.Family && a.Table == b.Table && a.Chain == b.Chain && a.Handle == b.Handle &&
		(a.Handle != 0 || a.Number == b.Number) && a.Namespace == b.Namespace && (a.Kind != reach.ByRule || a.Number > 0 || a.Text == b.Text)
}

// forwarded tells that the packet goes on to another namespace or host.
func (x *expectation) forwarded() bool {
	for _, h := range x.a.Path {
		if h.Hook == "forward" {
			return true
		}
	}
	return x.f.by.Namespace != "" || slices.ContainsFunc(x.a.Deliveries(), func(d reach.Delivered) bool { return d.NetNS != "" })
}

// movedOf is by how much a rule's own counter rose between two readings; known is
// false where it has none.
func movedOf(before, after *expectation) (n int64, known bool) {
	a, b := before.f.by.Rule, after.f.by.Rule
	if a == nil || b == nil || a.Packets < 0 || b.Packets < 0 || b.Packets < a.Packets || !samePlace(before.f.by, after.f.by) {
		return 0, false
	}
	return b.Packets - a.Packets, true
}

// conditionMoved is movedOf for the rule of a condition.
func conditionMoved(before, after *worldView, c reach.Condition) (n int64, known bool) {
	a, b := before.rule(c), after.rule(c)
	if a == nil || b == nil || a.Packets < 0 || b.Packets < 0 || b.Packets < a.Packets || a.Handle != b.Handle || a.Handle == 0 && a.Text() != b.Text() {
		return 0, false
	}
	return b.Packets - a.Packets, true
}

func (v *worldView) rule(c reach.Condition) *firewall.Rule {
	for _, ns := range v.snap.World.Namespaces {
		if ns.Name != c.Namespace || ns.Ruleset == nil || c.Chain == "" {
			continue
		}
		for _, t := range ns.Ruleset.Tables {
			if string(t.Backend) != c.Backend || string(t.Family) != c.Family || t.Name != c.Table {
				continue
			}
			for _, ch := range t.Chains {
				if ch.Name == c.Chain && c.Number > 0 && c.Number <= len(ch.Rules) {
					return ch.Rules[c.Number-1]
				}
			}
		}
	}
	return nil
}

// listener is the socket that an attempt is delivered to by the model.
func (v *worldView) listener(x *expectation) *listeners.Listener {
	d := x.a.DeliveredTo
	if d == nil {
		return nil
	}
	return v.socket(d.NetNS, d.Listener)
}

func (v *worldView) socket(netns, subject string) *listeners.Listener {
	for _, ns := range v.snap.World.Namespaces {
		if ns.Name != netns || ns.Listeners == nil {
			continue
		}
		for i := range ns.Listeners.Listeners {
			if l := &ns.Listeners.Listeners[i]; l.Subject() == subject {
				return l
			}
		}
	}
	return nil
}

// onPort lists the sockets of the namespace on a port.
func (v *worldView) onPort(proto uint8, port uint16) []*listeners.Listener {
	var out []*listeners.Listener
	t := v.home().Listeners
	if t == nil {
		return nil
	}
	for i := range t.Listeners {
		l := &t.Listeners[i]
		stream := l.Proto == listeners.TCP || l.Proto == listeners.MPTCP
		if l.Port() == port && (stream && proto == ipTCP || l.Proto == listeners.UDP && proto != ipTCP) {
			out = append(out, l)
		}
	}
	return out
}
