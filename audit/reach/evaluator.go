package reach

import (
	"net/netip"
	"sync"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// Evaluator answers questions about one World. It is safe for concurrent use.
type Evaluator struct {
	world   *World
	byID    map[uint64]*Namespace
	owner   map[*firewall.Table]*Namespace
	mu      sync.Mutex
	lookup  map[*Namespace]*sockets
	own     map[ownKey]firewall.Ranges
	shown   sync.Map  // *firewall.Rule → DecidedBy
	scratch sync.Pool // *overlayScratch
	found   map[neighbourKey]discovery
	dscp    map[*Namespace]bool // whose routing asks for the DSCP field
	// neighboursKnown: see NeighboursKnown.
	neighboursKnown bool
}

// New returns an evaluator. The world is not changed, and must not be.
func New(w *World) *Evaluator {
	e := &Evaluator{world: w, byID: map[uint64]*Namespace{}, owner: map[*firewall.Table]*Namespace{}, lookup: map[*Namespace]*sockets{}, own: map[ownKey]firewall.Ranges{}, found: map[neighbourKey]discovery{}, dscp: map[*Namespace]bool{}}
	for _, ns := range w.Namespaces {
		e.byID[ns.ID] = ns
		if ns.Route != nil && ns.Route.AsksDSCP() {
			e.dscp[ns] = true
		}
		if ns.Ruleset == nil {
			continue
		}
		for _, t := range ns.Ruleset.Tables {
			e.owner[t] = ns
		}
	}
	return e
}

// NeighboursKnown has the evaluator answer for hosts that know each other's hardware
// addresses: neither what the rules make of neighbour discovery and ARP counts then,
// nor whom the kernel happens to have found when it was read, so that two readings
// differ by what was changed in between alone.
func (e *Evaluator) NeighboursKnown() *Evaluator {
	e.neighboursKnown = true
	return e
}

func (e *Evaluator) sockets(ns *Namespace) *sockets {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.lookup[ns]
	if s == nil {
		s = newSockets(ns)
		e.lookup[ns] = s
	}
	return s
}

// home is the audited namespace.
func (e *Evaluator) home() *Namespace { return e.world.Namespaces[0] }

// env is what rules of a namespace may ask.
func (w *walk) env(ns *Namespace) *firewall.Env {
	if env := w.envs[ns]; env != nil {
		return env
	}
	env := &firewall.Env{NoIPSec: ns.NoIPSec, Queues: ns.Queues, Record: w.record, DSCP: len(w.e.dscp) > 0}
	if ns.Route != nil {
		env.FIB = fib{ns.Route}
	}
	if ns.Listeners != nil {
		socks := w.e.sockets(ns)
		env.SocketFor = func(c *firewall.Class, key uint32) (firewall.Known, bool) { return w.socketFor(ns, c, key) }
		env.TProxyTo = func(st *firewall.State, addr netip.Addr, port uint16) firewall.Outcome {
			found := socks.find(st.Family, st.Proto, addr, port, st.In)
			switch {
			case found == nil:
				return firewall.No
			case !found.Transparent:
				// nft_tproxy and xt_TPROXY take only transparent sockets
				// (nf_sk_is_transparent).
				return firewall.No
			default:
				return firewall.Yes
			}
		}
	}
	if w.logAccepts {
		env.Accepted = func(h firewall.Hook, base *firewall.Chain, r *firewall.Rule, by *firewall.Painting, p firewall.Piece, sure bool) {
			if (h == firewall.Input || h == firewall.Forward) && !w.answering && w.later == nil && base.Base.Type == firewall.ChainFilter {
				w.accepts = append(w.accepts, accept{ns: ns, base: base, rule: r, painting: by, Piece: p})
			}
		}
	}
	w.envs[ns] = env
	return env
}

// accept is a piece of the sources that a rule let in.
type accept struct {
	ns   *Namespace
	base *firewall.Chain
	rule *firewall.Rule
	// painting holds the rules, each for its sources, where rule is nil.
	painting *firewall.Painting
	firewall.Piece
}

// protoOf is the transport protocol a listener speaks.
func protoOf(p listeners.Proto) firewall.Proto {
	switch p {
	case listeners.TCP, listeners.MPTCP:
		return firewall.TCP
	case listeners.UDP:
		return firewall.UDP
	case listeners.UDPLite:
		return firewall.UDPLite
	case listeners.SCTP:
		return firewall.SCTP
	case listeners.DCCP:
		return firewall.DCCP
	default:
		return 0
	}
}
