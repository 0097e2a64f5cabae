package firewall

import (
	"sync"
)

// indexFrom is the number of rules from which a chain is worth an index.
const indexFrom = 4

// indexPorts bounds the ports that one rule is filed under.
const indexPorts = 64

// compiledChain is what the evaluator derives from a chain once: which rules can
// match packets to a port of this host.
type compiledChain struct {
	once   sync.Once
	byPort map[uint16][]int32 // rules that name the port, in order
	any    []int32            // all other rules, in order
	// bySource remembers which rules concern answers from an address; guarded
	// by mu.
	bySource map[sourceKey][]int32
	runs     []run
	starts   map[int]int // index in any → run that begins there
	// painted are the paintings made so far; guarded by mu.
	painted map[paintKey]*paintedOnce
	// commutes caches filtersOnly: 0 not known, 1 yes, 2 no.
	commutes int8
	mu       sync.Mutex
}

func (ch *Chain) index() *compiledChain {
	ch.compiled.once.Do(func() {
		cc := &ch.compiled
		cc.byPort = map[uint16][]int32{}
		for i, r := range ch.Rules {
			ports, ok := r.localPorts()
			if !ok {
				cc.any = append(cc.any, int32(i))
				continue
			}
			for _, p := range ports {
				for v := p.Lo.Lo; v <= p.Hi.Lo; v++ {
					cc.byPort[uint16(v)] = append(cc.byPort[uint16(v)], int32(i))
				}
			}
		}
		cc.runs = ch.runsOf(cc.any)
		cc.starts = map[int]int{}
		for i, r := range cc.runs {
			cc.starts[r.from] = i
		}
	})
	return &ch.compiled
}

// runAt returns the run that begins at an index of any, -1 for none.
func (cc *compiledChain) runAt(i int) int {
	if at, ok := cc.starts[i]; ok {
		return at
	}
	return -1
}

// localPorts returns the destination ports outside of which the rule surely
// does not match and does nothing; ok is false when it is not so restricted.
func (r *Rule) localPorts() (ports Ranges, ok bool) {
	for _, s := range r.Stmts {
		switch m := s.(type) {
		case *Match:
			if m.Operand.Field.Kind != FieldDstPort || !m.Operand.isPlain() || m.Invert || m.WantAbsent {
				continue
			}
			ports = m.In
		case *Lookup:
			if len(m.Keys) != 1 || m.Keys[0].Field.Kind != FieldDstPort || !m.Keys[0].isPlain() || m.Invert ||
				!m.Set.Anonymous || m.Set.Unread != "" || m.Set.HasCatchAll {
				continue
			}
			ix := m.Set.index(m.Keys)
			if ix == nil {
				continue
			}
			ports = ix.values
		case *AnyOf, *AllOf, *Inert:
			continue
		case *Opaque:
			if m.MayEnd {
				return nil, false
			}
			continue
		case Matcher:
			continue
		default:
			return nil, false
		}
		n := uint64(0)
		for _, p := range ports {
			n += p.Hi.Lo - p.Lo.Lo + 1
		}
		if n <= indexPorts && (len(ports) == 0 || ports[len(ports)-1].Hi.Lo <= 0xffff) {
			return ports, true
		}
	}
	return nil, false
}

// ruleOrder yields the indexes of the rules that classes can match, in order.
type ruleOrder struct {
	all  int // > 0: every index below
	a, b []int32
	next int
}

// relevant returns the order for classes that all go to one port of this host;
// otherwise every rule.
func (ch *Chain) relevant(cs []Class, env *Env) ruleOrder {
	if len(ch.Rules) < indexFrom || env.Record == RecordRules || cs[0].State.ARP != 0 {
		return ruleOrder{all: len(ch.Rules)}
	}
	if cs[0].State.Reply {
		return ch.answers(cs)
	}
	port := cs[0].State.LocalPort
	for i := range cs {
		s := &cs[i].State
		if s.Reply || s.LocalPort != port || s.LocalPortUnknown || !s.Proto.HasPorts() || s.RewroteHeader != "" {
			return ruleOrder{all: len(ch.Rules)}
		}
	}
	cc := ch.index()
	return ruleOrder{a: cc.any, b: cc.byPort[port]}
}

// keptSources bounds the source addresses whose rules a chain remembers.
const keptSources = 256

// answers returns the order for answers, which come from one address of this
// host: the rules that do not name other sources.
func (ch *Chain) answers(cs []Class) ruleOrder {
	src := cs[0].srcAddr()
	for i := range cs {
		s := &cs[i].State
		if !s.Reply || s.Family != cs[0].State.Family || s.RewroteHeader != "" || src.kind != readConst || cs[i].srcAddr().value != src.value ||
			cs[i].srcAddr().kind != readConst {
			return ruleOrder{all: len(ch.Rules)}
		}
	}
	k := sourceKey{cs[0].State.Family, src.value}
	cc := &ch.compiled
	cc.mu.Lock()
	defer cc.mu.Unlock()
	rules, ok := cc.bySource[k]
	if !ok {
		rules = []int32{}
		for i, r := range ch.Rules {
			if !r.excludes(k) {
				rules = append(rules, int32(i))
			}
		}
		if cc.bySource == nil || len(cc.bySource) >= keptSources {
			cc.bySource = map[sourceKey][]int32{}
		}
		cc.bySource[k] = rules
	}
	return ruleOrder{b: rules}
}

type sourceKey struct {
	family Family
	addr   Value
}

// excludes reports whether the rule names only other source addresses, so that
// it does nothing with a packet from this one.
func (r *Rule) excludes(k sourceKey) bool {
	for _, s := range r.Stmts {
		switch m := s.(type) {
		case *Match:
			if m.Operand.Field.Kind == FieldSrcAddr && m.Operand.isPlain() && m.Operand.Len == k.family.AddrLen() && !m.WantAbsent {
				return m.In.Contains(k.addr) == m.Invert
			}
		case Matcher, *Inert:
		case *Opaque:
			if m.MayEnd {
				return false
			}
		default:
			return false
		}
	}
	return false
}

// step returns the next index, -1 at the end.
func (o *ruleOrder) step() int {
	if o.all > 0 {
		if o.next == o.all {
			return -1
		}
		o.next++
		return o.next - 1
	}
	switch {
	case len(o.a) == 0 && len(o.b) == 0:
		return -1
	case len(o.b) == 0 || len(o.a) > 0 && o.a[0] < o.b[0]:
		i := o.a[0]
		o.a = o.a[1:]
		return int(i)
	default:
		i := o.b[0]
		o.b = o.b[1:]
		return int(i)
	}
}
