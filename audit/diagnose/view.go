package diagnose

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// face is one way a client meets the server: what it sees at one address, and
// what decides that, by the model of the server.
type face struct {
	to    netip.Addr
	sees  Sees
	by    reach.DecidedBy
	conds []reach.Condition
	hook  string // where the witness stands
	chain string // the base chain on the way that gave the verdict
	// share is the part of all clients that meets it, 1 for a single client.
	share float64
	who   string // the clients, for sentences
	iif   string
	got   []reach.Delivered
	// after: the handshake passes, and what follows it does not.
	after bool
	// assumed: the address dialled is not the host's own, and may be the one by
	// which a translation in front of it is reached.
	assumed bool
	six     bool // of a row of all clients: they are IPv6's
}

// view is what the judgement looks at, worked out once.
type view struct {
	addrs []netip.Addr // dialled
	// local are the server's own addresses, nil for not known; known tells.
	local      []netip.Addr
	localKnown bool
	faces      []face
	modelled   bool // the server's snapshot could be asked
	single     bool // about one client
	model      Sees // what most clients see by the model, "" without
	observed   Sees // by an attempt or the client's message
	sees       Sees
	listening  []*listeners.Listener // on the port, in the server's namespace
	elsewhere  []foreign             // on the port, in other namespaces
	delta      listeners.Counters
	deltaOver  string
	mtu        mtuSigns
	readings   []reading // of web servers' configurations
}

// foreign is a listener of another namespace.
type foreign struct {
	l  *listeners.Listener
	ns *reach.Namespace
	// near: a link leads there from the audited namespace.
	near bool
}

func newView(e *Evidence) *view {
	v := &view{}
	switch {
	case e.Target.Addr.IsValid():
		v.addrs = []netip.Addr{e.Target.Addr}
	case e.Names != nil:
		v.addrs = e.Names.Addrs()
	}
	if s := e.Server; s != nil && len(s.World.Namespaces) > 0 {
		home := s.World.Namespaces[0]
		v.local, v.localKnown = localAddrs(home), home.Route != nil
		v.sockets(s, e.Target.Port)
		v.ask(e, home)
		v.counters(s)
	}
	v.mtu = v.mtuSigns(e)
	v.readings = v.read(e)
	v.observe(e)
	return v
}

// localAddrs are the addresses of a namespace, tentative ones left out.
func localAddrs(ns *reach.Namespace) []netip.Addr {
	if ns.Route == nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range ns.Route.Addrs {
		if !a.Tentative() {
			out = append(out, a.Local)
		}
	}
	return out
}

// LocalTo tells whether an address is one of the audited host's own, loopback
// included; known is false where the addresses could not be read.
func LocalTo(s *audit.Snapshot, a netip.Addr) (local, known bool) {
	if a.IsLoopback() {
		return true, true
	}
	if s == nil || len(s.World.Namespaces) == 0 || s.World.Namespaces[0].Route == nil {
		return false, false
	}
	ns := s.World.Namespaces[0]
	if slices.Contains(localAddrs(ns), a) {
		return true, true
	}
	for _, r := range ns.Route.Routes {
		if r.Type == 2 && r.Dst.Contains(a) { // RTN_LOCAL
			return true, true
		}
	}
	return false, true
}

func (v *view) sockets(s *audit.Snapshot, port uint16) {
	home := s.World.Namespaces[0]
	near := map[uint64]bool{}
	for _, p := range home.Peers {
		near[p.Namespace] = true
	}
	for _, ns := range s.World.Namespaces {
		if ns.Listeners == nil {
			continue
		}
		for i := range ns.Listeners.Listeners {
			l := &ns.Listeners.Listeners[i]
			if l.Port() != port || l.Proto != listeners.TCP && l.Proto != listeners.MPTCP {
				continue
			}
			if ns == home {
				v.listening = append(v.listening, l)
			} else {
				v.elsewhere = append(v.elsewhere, foreign{l, ns, near[ns.ID]})
			}
		}
	}
}

// ask asks the model what clients meet.
func (v *view) ask(e *Evidence, home *reach.Namespace) {
	ev := reach.New(&e.Server.World)
	from := e.From
	if e.Side == SideBoth && !from.IsValid() {
		from = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	v.single = from.IsValid() || e.Side == SideBoth
	to := v.addrs
	if len(to) == 0 {
		to = []netip.Addr{{}}
	}
	for _, a := range to {
		if a.IsValid() {
			if local, _ := LocalTo(e.Server, a); !local {
				v.askTranslated(e, ev, home, from, a)
				continue
			}
		}
		if v.single {
			f := from
			if e.Side == SideBoth && a.IsValid() && (!e.From.IsValid() || e.From.Is4() != a.Is4()) {
				f = a
			} else if a.IsValid() && f.Is4() != a.Is4() {
				f = triedFrom(e, a, f)
			}
			v.askOne(e, ev, home, f, a)
			continue
		}
		v.askAll(e, ev, a)
	}
	v.modelled = len(v.faces) > 0
	slices.SortStableFunc(v.faces, func(a, b face) int { return cmp.Compare(b.share, a.share) })
	if v.modelled {
		v.model = v.faces[0].sees
	}
}

// triedFrom is the client's address of the other family, as the attempt to an
// address had it; the one that is known where there was none.
func triedFrom(e *Evidence, to, known netip.Addr) netip.Addr {
	for _, x := range e.Attempts {
		if x.To.Addr() == to && x.From.IsValid() {
			return x.From.Addr()
		}
	}
	return known
}

// askTranslated asks about an address by which something in front of the host
// leads to it (1:1 NAT of clouds): the host's own addresses stand for it. Where
// that is only a guess, since the host has no public address itself, the answers
// are marked so.
func (v *view) askTranslated(e *Evidence, ev *reach.Evaluator, home *reach.Namespace, from, a netip.Addr) {
	known := slices.Contains(e.Public, a)
	if !known && !v.behindNAT(e, a) || e.Side == SideBoth {
		return
	}
	own := netip.IPv4Unspecified()
	if a.Is6() {
		own = netip.IPv6Unspecified()
	}
	first := len(v.faces)
	if v.single {
		v.askOne(e, ev, home, from, own)
	} else {
		v.askAll(e, ev, own)
	}
	for i := range v.faces[first:] {
		f := &v.faces[first+i]
		f.to, f.assumed = a, !known
	}
}

// behindNAT tells that an address may be the server's although it does not have
// it: behind 1:1 NAT a host has no public address of that family.
func (v *view) behindNAT(e *Evidence, a netip.Addr) bool {
	owned := append(slices.Clone(v.local), e.Public...)
	return global(a) && !slices.ContainsFunc(owned, func(o netip.Addr) bool { return global(o) && o.Is4() == a.Is4() })
}

func (v *view) askOne(e *Evidence, ev *reach.Evaluator, home *reach.Namespace, from, to netip.Addr) {
	if to.IsValid() && from.Is4() != to.Is4() {
		return // a client dials addresses of its own family
	}
	q := reach.Query{Proto: firewall.TCP, From: from, To: to, Port: e.Target.Port, Iif: e.Iif}
	a, err := ev.Ask(q, reach.WithPath)
	if err != nil && e.Iif == "" {
		// No route back to the client: then its packets come in where the address is.
		if q.Iif = linkOf(home, to); q.Iif != "" {
			a, err = ev.Ask(q, reach.WithPath)
		}
	}
	if err != nil {
		return
	}
	f := faceOf(a, to, 1)
	f.who = "the client " + from.String()
	v.faces = append(v.faces, f)
	// On a host with several links the packets may come in elsewhere than the
	// route back names: where the dialled address is.
	if other := linkOf(home, to); e.Iif == "" && f.sees == Connected && other != "" && other != f.iif && f.iif != "lo" {
		q.Iif = other
		if b, err := ev.Ask(q, reach.WithPath); err == nil {
			g := faceOf(b, to, 0.5)
			g.who = "the client " + from.String() + ", its packets coming in by " + other
			if g.sees != f.sees {
				v.faces = append(v.faces, g)
			}
		}
	}
}

func faceOf(a reach.Answer, to netip.Addr, share float64) face {
	f := face{to: to, sees: seesOf(a.ClientSees, a.AfterConnect), conds: a.Conditions, share: share, iif: a.Query.Iif, got: a.Deliveries(), after: a.AfterConnect == reach.Timeout}
	if a.DecidedBy != nil {
		f.by = *a.DecidedBy
	}
	for i := len(a.Path) - 1; i >= 0; i-- {
		if h := a.Path[i]; h.Verdict != "accept" || i == len(a.Path)-1 {
			f.hook, f.chain = h.Hook, h.Chain
			if h.Verdict != "accept" {
				break
			}
		}
	}
	return f
}

// seesOf is what a client meets in the end: one whose handshake passes, and
// nothing after it, waits in vain.
func seesOf(s, after reach.Sees) Sees {
	switch s {
	case reach.Connected:
		switch after {
		case reach.Timeout:
			return Timeout
		case reach.Depends:
			return NotKnown
		}
		return Connected
	case reach.Refused:
		return Refused
	case reach.Unreachable:
		return Unreachable
	case reach.Timeout:
		return Timeout
	}
	return NotKnown
}

// linkOf names the link that has an address.
func linkOf(ns *reach.Namespace, a netip.Addr) string {
	if ns.Route == nil || !a.IsValid() {
		return ""
	}
	for _, x := range ns.Route.Addrs {
		if x.Local == a && x.Link != nil {
			return x.Link.Name
		}
	}
	return ""
}

// askAll sums the rows of all clients up by what decides.
func (v *view) askAll(e *Evidence, ev *reach.Evaluator, to netip.Addr) {
	rows := ev.Partition(reach.Query{Proto: firewall.TCP, To: to, Port: e.Target.Port, Iif: e.Iif})
	rows = slices.DeleteFunc(slices.Clone(rows), func(r reach.Row) bool { return r.Iif == "lo" || !audit.HasClients(r.From) })
	kernel := func(r reach.Row) bool {
		return r.DecidedBy.Kind == reach.ByRoute || r.DecidedBy.Kind == reach.ByRPFilter
	}
	if slices.ContainsFunc(rows, func(r reach.Row) bool { return !kernel(r) }) {
		// What the kernel refuses on an interface (its own addresses, martians, the
		// way back) is nobody's client where others are let through.
		rows = slices.DeleteFunc(rows, kernel)
	}
	total := map[string]float64{}
	for _, r := range rows {
		total[r.Family] += weigh(r.From)
	}
	first := len(v.faces)
	for _, r := range rows {
		share := weigh(r.From) / total[r.Family]
		i := slices.IndexFunc(v.faces[first:], func(f face) bool {
			return f.sees == seesOf(r.ClientSees, r.AfterConnect) && f.after == (r.AfterConnect == reach.Timeout) && f.by.Kind == r.DecidedBy.Kind && f.by.Chain == r.DecidedBy.Chain && f.by.Number == r.DecidedBy.Number &&
				f.by.Table == r.DecidedBy.Table && f.by.Backend == r.DecidedBy.Backend && sameFamily(f, r) && (len(r.Deciders) == 0 || f.by.Text == r.DecidedBy.Text)
		})
		if i >= 0 {
			v.faces[first+i].share += share
			continue
		}
		f := face{to: to, sees: seesOf(r.ClientSees, r.AfterConnect), after: r.AfterConnect == reach.Timeout, by: r.DecidedBy, conds: r.Conditions, share: share, iif: r.Iif, got: r.Deliveries(), who: "clients " + listPrefixes(audit.Clients(r.From)) + " by " + r.Iif}
		// The way of one of them tells at which hook it ends.
		if from := audit.Clients(r.From)[0].Addr(); from.IsValid() {
			q := reach.Query{Proto: firewall.TCP, From: from, To: to, Port: e.Target.Port, Iif: r.Iif}
			if a, err := ev.Ask(q, reach.WithPath); err == nil {
				g := faceOf(a, to, share)
				f.hook, f.chain = g.hook, g.chain
			}
		}
		v.faces = append(v.faces, f)
	}
	for i := first; i < len(v.faces); i++ {
		if f := &v.faces[i]; f.share > 0.999 {
			f.who = "every IPv4 client by " + f.iif
			if f.six {
				f.who = "every IPv6 client by " + f.iif
			}
		}
	}
}

func sameFamily(f face, r reach.Row) bool { return f.six == (r.Family == "ip6") }

func weigh(ps []netip.Prefix) float64 {
	s := 0.0
	for _, p := range audit.Clients(ps) {
		f := 1.0
		for range p.Bits() {
			f /= 2
		}
		s += f
	}
	return s
}

func listPrefixes(ps []netip.Prefix) string {
	const most = 3
	var out []string
	for i, p := range ps {
		if i == most {
			out = append(out, fmt.Sprintf("and %d more", len(ps)-most))
			break
		}
		if p.IsSingleIP() {
			out = append(out, p.Addr().String())
		} else {
			out = append(out, p.String())
		}
	}
	return strings.Join(out, ", ")
}

func (v *view) counters(s *audit.Snapshot) {
	if n := len(s.Samples); n >= 2 {
		v.delta = s.Samples[n-1].Counters.Sub(s.Samples[0].Counters)
		v.deltaOver = fmt.Sprintf("in %.1f s", s.Samples[n-1].At.Sub(s.Samples[0].At).Seconds())
	}
}

// observe settles what the client sees: by its own message, else by what was
// tried from here, else by the model.
func (v *view) observe(e *Evidence) {
	switch {
	case e.Symptom != nil && e.Symptom.Sees != "":
		v.observed = e.Symptom.Sees
		// What the program leaves open the server's model may settle.
		if slices.Contains(e.Symptom.Also, v.model) {
			v.observed = v.model
		}
	case e.Names != nil && len(v.addrs) == 0:
		v.observed = NoName
	case e.Proxy != nil && e.Proxy.Sees != Connected:
		v.observed = e.Proxy.Sees
	case len(e.Attempts) > 0:
		v.observed = e.Attempts[0].Sees
		led := false
		for i := range e.Attempts {
			if e.Attempts[i].Sees == Connected {
				v.observed = Connected
				led = led || e.ledElsewhere(&e.Attempts[i])
			}
		}
		if v.observed == Connected && (v.mtu.accuse() || probeFails(e) || len(e.Probed) == 0 && (passiveMismatch(e, v) != nil || v.misconfigured())) {
			v.observed = ProtocolError
		} else if v.observed == Connected && led { // to somebody else: the target itself was not met
			v.observed = ""
			if v.model == "" {
				v.sees = Connected
				return
			}
		}
	}
	switch {
	case v.observed != "":
		v.sees = v.observed
	case v.model != "":
		v.sees = v.model
		if v.sees == Connected && (v.mtu.accuse() || probeFails(e) || passiveMismatch(e, v) != nil || v.misconfigured() && (len(e.Probed) == 0 || v.aside())) {
			v.sees = ProtocolError
		}
	default:
		v.sees = NotKnown
	}
}
