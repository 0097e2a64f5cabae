package reach

import (
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/firewall"
)

// witness is the one thing that decided, before it is spelled out.
type witness struct {
	kind  Kind
	ns    *Namespace
	rule  *firewall.Rule
	chain *firewall.Chain // of a policy
	// painting holds the rules of many sources, until it is known which source
	// is meant; then rule is set.
	painting *firewall.Painting
	text     string
}

func (w witness) show() DecidedBy {
	switch w.kind {
	case ByRule:
		if w.rule == nil && w.painting != nil {
			return decidedByRule(w.ns, w.painting.First())
		}
		return decidedByRule(w.ns, w.rule)
	case ByPolicy:
		return decidedByPolicy(w.ns, w.chain)
	default:
		return DecidedBy{Kind: w.kind, Text: w.text, Namespace: w.ns.Name}
	}
}

// show spells a witness out. The text of a rule is made once: the same few
// rules decide about every port.
func (e *Evaluator) show(w witness) DecidedBy {
	r := w.rule
	if w.kind != ByRule || r == nil {
		return w.show()
	}
	if d, ok := e.shown.Load(r); ok {
		return d.(DecidedBy)
	}
	d := w.show()
	e.shown.Store(r, d)
	return d
}

// of returns the witness for one source.
func (w witness) of(source firewall.Value) witness {
	if w.painting != nil && w.rule == nil {
		w.rule, w.painting = w.painting.Rule(source), nil
	}
	return w
}

// final is how the way of a part of the sources ends: what the client sees, or
// that it cannot be told (unknown).
type final struct {
	firewall.Piece
	sees    Sees // Depends: cannot be told
	by      witness
	forks   *firewall.Fork
	why     string // of Depends: what it turns on
	late    bool   // it is the ACK of the handshake that ended here
	after   Sees   // of Connected: what becomes of the connection then, "" for nothing bad
	deliver *Delivered
	aim     netip.AddrPort // of what is not delivered: where destination NAT sent it
	trace   *trail
}

// trail is the trace of a way through several namespaces, newest first.
type trail struct {
	ns   *Namespace
	step *firewall.Step // newest step in this namespace
	prev *trail
}

func (w *walk) trail(p *path, c firewall.Class) *trail {
	if w.record == firewall.RecordNothing {
		return nil
	}
	return &trail{ns: p.ns, step: c.Trace, prev: p.trail}
}

// note writes a line into the trace of a class.
func (w *walk) note(c *firewall.Class, text string) {
	if w.record != firewall.RecordNothing {
		c.Trace = &firewall.Step{Note: text, Prev: c.Trace}
	}
}

// finish records the end of a class.
func (w *walk) finish(c firewall.Class, p *path, sees Sees, by witness, d *Delivered, why string) {
	if sees == Timeout && w.waversWhenResent(p, &c) {
		sees, why = Depends, "whether it is sent again: the packet that is dropped here changes a set that rules ask, and the next one may fare otherwise"
	}
	f := final{Piece: firewall.Piece{Remote: c.Remote, Ports: c.Ports}, sees: sees, by: by, forks: c.Forks,
		why: why, deliver: d, trace: w.trail(p, c)}
	if d == nil && sees != Connected {
		f.aim = w.aimOf(p, &c)
	}
	if w.later != nil {
		w.later.ending(&f)
	}
	w.finals = append(w.finals, f)
}

// waversWhenResent reports whether what the client sends again, when a packet is
// not answered, may fare otherwise because that packet has changed sets.
func (w *walk) waversWhenResent(p *path, c *firewall.Class) bool {
	if w.resent || p.ns != w.origin.ns || p.ns.Ruleset == nil || !p.ns.Ruleset.Remembers(c.State) {
		return false
	}
	if w.later != nil {
		return true
	}
	again := w.e.newWalk(AnswerOnly)
	again.proto, again.origin, again.resent = w.proto, w.origin, true
	again.send(&path{ns: p.ns}, firewall.Class{Remote: c.Remote, Ports: c.Ports, State: w.origin.first.WithSetsOf(c.State)})
	for i := range again.finals {
		if again.finals[i].sees != Timeout {
			return true
		}
	}
	return false
}

// otherPortsFare reports whether one of the finals ends otherwise for other ports
// of the client.
func (f *final) otherPortsFare(fs []*final) bool {
	return slices.ContainsFunc(fs, func(g *final) bool {
		return (g.sees != f.sees || g.after != f.after) && !g.Ports.Equal(f.Ports)
	})
}

// condition is what an end that cannot be told (sees is Depends) turns on.
func (f *final) condition() Condition {
	by := f.by.show()
	if by.Kind != ByRule && by.Kind != ByPolicy {
		return Condition{Object: f.by.text, TurnsOn: f.why, Namespace: by.Namespace}
	}
	return Condition{Backend: by.Backend, Family: by.Family, Table: by.Table, Chain: by.Chain, Number: by.Number, Handle: by.Handle,
		Text: by.Text, TurnsOn: f.why, Namespace: by.Namespace}
}
