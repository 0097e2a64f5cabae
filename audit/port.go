package audit

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// Port is a port of the host that somebody may be able to reach: a listener, or
// a port that address translation publishes.
type Port struct {
	Listener  *listeners.Listener // nil for a published port
	Namespace *reach.Namespace
	// Published is the port of the audited namespace that is translated, nil for
	// a listener.
	Published *reach.Published
	Exposure  reach.Exposure
	// Service is what the operator configured for it, nil for nothing.
	Service *Service
	// Apart is set for a listener of a network namespace that no link leads to from
	// the audited one: it is listed, and nothing else is said of it.
	Apart bool
}

// Subject names the port the same way in every run.
func (p *Port) Subject() string {
	if p.Listener == nil {
		return fmt.Sprintf("%s *:%d (published)", p.Proto(), p.Number())
	}
	s := p.Listener.Subject()
	if p.Namespace.Name != "" {
		s += " in " + p.Namespace.Name
	}
	return s
}

// Proto is the transport protocol as clients see it: a multipath TCP listener
// serves TCP.
func (p *Port) Proto() listeners.Proto {
	if p.Listener == nil {
		return listeners.Proto(p.Published.Proto.String())
	}
	if p.Listener.Proto == listeners.MPTCP {
		return listeners.TCP
	}
	return p.Listener.Proto
}

// Number is the port that clients of the audited namespace dial.
func (p *Port) Number() uint16 {
	if p.Listener == nil {
		return p.Published.Port
	}
	return p.Listener.Port()
}

// Home tells a port of the audited namespace.
func (p *Port) Home() bool { return p.Namespace.Name == "" }

// query asks about one client of the port.
func (p *Port) query(from netip.Addr) reach.Query {
	q := reach.Query{Proto: firewall.TCP, From: from, Port: p.Number()}
	if p.Proto() == listeners.UDP {
		q.Proto = firewall.UDP
	}
	if p.Listener != nil {
		// A listener on one address is asked about at that address.
		if a := p.Listener.Local.Addr().Unmap().WithZone(""); !a.IsUnspecified() && a.Is4() == from.Unmap().Is4() {
			q.To = a
		}
	}
	return q
}

// broadcast tells a datagram socket of the audited namespace that is bound to the
// broadcast address of a network. Who can send to it is what counts: it answers
// from another address than the one that was dialled.
func (p *Port) broadcast(locals func() []listeners.Local) bool {
	l := p.Listener
	return l != nil && p.Home() && l.Proto.Datagram() && l.Local.Addr().Is4() && !l.Local.Addr().IsMulticast() && !l.Local.Addr().IsUnspecified() &&
		l.Scope(locals()).Kind == listeners.ScopeGroup
}

// Process is the owner that stands for a listener, nil where none is known: of
// several the one with the lowest pid, which is usually the one that opened it.
func (p *Port) Process() *listeners.Process {
	if p.Listener == nil || len(p.Listener.Owners) == 0 {
		return nil
	}
	return &p.Listener.Owners[0]
}

// Program names who serves the port, for sentences: the process's name, or what
// is known instead.
func (p *Port) Program() string {
	if proc := p.Process(); proc != nil {
		return string(proc.Comm)
	}
	if p.Listener == nil {
		return p.Published.To.NetNS
	}
	switch p.Listener.Unowned {
	case listeners.KernelSocket:
		return "the kernel"
	default:
		return "an unknown process"
	}
}

// ports works out who can reach what.
func ports(s *Snapshot, cfg *Config, ev *reach.Evaluator) []*Port {
	var out []*Port
	home := s.World.Namespaces[0]
	published := ev.Published()
	near := neighbours(s, published)
	for _, ns := range s.World.Namespaces {
		apart := !near[ns]
		if ns.Listeners == nil || apart && !s.ours(ns) {
			continue
		}
		for i := range ns.Listeners.Listeners {
			out = append(out, &Port{Listener: &ns.Listeners.Listeners[i], Namespace: ns, Apart: apart})
		}
	}
	var enough func([]reach.Row) bool
	if cfg.NoLocalRows {
		enough = func(rows []reach.Row) bool {
			who := whoOf(rows)
			return who != reach.HostOnly && who != reach.Nobody
		}
	}
	locals := sync.OnceValue(func() []listeners.Local { return Locals(home) }) // a router has a million routes
	ForEach(len(out), func(i int) {
		p := out[i]
		if p.Apart {
			// Its addresses and rules were not read.
			p.Exposure.Who = reach.Uncertain
			if p.Listener.Local.Addr().Unmap().IsLoopback() {
				p.Exposure.Who = reach.HostOnly
			}
			return
		}
		if p.Namespace != home {
			p.Exposure = within(ev, p, published)
			return
		}
		p.Exposure = ev.FromElsewhere(p.Listener, enough)
		if p.Exposure.Who == reach.Some && p.Exposure.LeftOut == "" {
			p.Exposure.Who = whoOf(p.Exposure.Rows)
		}
		if p.broadcast(locals) {
			p.Exposure.Who = whoBy(p.Exposure.Rows, func(r *reach.Row) bool { return r.Delivered != nil })
		}
	})
	for i := range published {
		out = append(out, &Port{Namespace: home, Published: &published[i], Exposure: translatedOnly(&published[i])})
	}
	for _, p := range out {
		if !p.Home() {
			continue // services are configured for this host's own ports
		}
		i := slices.IndexFunc(cfg.Services, func(svc Service) bool {
			return svc.Port == p.Number() && svc.Proto == string(p.Proto())
		})
		if i >= 0 {
			p.Service = &cfg.Services[i]
		}
	}
	slices.SortStableFunc(out, func(a, b *Port) int {
		return cmp.Or(cmp.Compare(a.Namespace.Name, b.Namespace.Name), cmp.Compare(a.Proto(), b.Proto()), cmp.Compare(a.Number(), b.Number()))
	})
	return out
}

// translatedOnly leaves out the address family that the rule does not translate:
// a port published for IPv4 is no IPv6 port.
func translatedOnly(p *reach.Published) reach.Exposure {
	rows := slices.DeleteFunc(slices.Clone(p.Rows), func(r reach.Row) bool { return !slices.Contains(p.Families, r.Family) })
	return reach.Exposure{Who: whoOf(rows), Rows: rows}
}

// ours tells a namespace that belongs to whoever audits, though no link leads to
// it: every one, seen from the machine's first; else those that have a name here (a
// container's, or one in /run/netns). What else is on the machine is somebody
// else's host.
func (s *Snapshot) ours(ns *reach.Namespace) bool {
	return s.Meta.FirstNS && !s.Meta.NSUnknown || ns.Named()
}

// linked leaves out the ports that lie apart.
func linked(ports []*Port) []*Port {
	if !slices.ContainsFunc(ports, func(p *Port) bool { return p.Apart }) {
		return ports
	}
	return slices.DeleteFunc(slices.Clone(ports), func(p *Port) bool { return p.Apart })
}

// neighbours are the namespaces whose listeners are judged: the audited one, those
// that links lead to from there, and those that ports are published into.
func neighbours(s *Snapshot, published []reach.Published) map[*reach.Namespace]bool {
	near := map[*reach.Namespace]bool{}
	var visit func(ns *reach.Namespace)
	visit = func(ns *reach.Namespace) {
		if near[ns] {
			return
		}
		near[ns] = true
		for _, peer := range ns.Peers {
			for _, other := range s.World.Namespaces {
				if other.ID == peer.Namespace {
					visit(other)
				}
			}
		}
	}
	visit(s.World.Namespaces[0])
	for _, p := range published {
		for _, ns := range s.World.Namespaces {
			if ns.Name == p.To.NetNS {
				visit(ns)
			}
		}
	}
	return near
}

// within tells who can reach a listener of another namespace from outside this
// host: by a published port, or by its own address where the host forwards.
func within(ev *reach.Evaluator, p *Port, published []reach.Published) reach.Exposure {
	for _, pub := range published {
		if pub.To.NetNS != p.Namespace.Name || pub.To.Port != p.Listener.Port() || pub.Proto.String() != string(p.Proto()) {
			continue
		}
		// Where that way is blocked its own address may still be open.
		if x := translatedOnly(&pub); x.Who != reach.Nobody {
			return x
		}
	}
	a := p.Listener.Local.Addr().Unmap().WithZone("")
	if a.IsLoopback() {
		return reach.Exposure{Who: reach.HostOnly}
	}
	dial := []netip.Addr{a}
	if a.IsUnspecified() {
		dial = nil
		if p.Namespace.Route != nil {
			for _, own := range hostAddrs(p.Namespace) {
				if !own.IsLoopback() && !own.IsLinkLocalUnicast() && (own.Is4() || a.Is6()) && (own.Is6() || a.Is4() || !p.Listener.V6Only) {
					dial = append(dial, own)
				}
			}
		}
	}
	x := reach.Exposure{}
	for _, to := range dial {
		q := p.query(to)
		q.From, q.To = netip.Addr{}, to
		x.Rows = append(x.Rows, ev.Partition(q)...)
	}
	x.Who = whoOf(x.Rows)
	return x
}

// hostAddrs are the addresses of a namespace's links that are in use.
func hostAddrs(ns *reach.Namespace) []netip.Addr {
	if ns.Route == nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range ns.Route.Addrs {
		if !a.Tentative() && a.Link != nil && a.Link.Up() {
			out = append(out, a.Local)
		}
	}
	return out
}

// noClients6 are sources that no client has: unspecified and loopback, multicast
// (RFC 6890), IPv4-mapped ones on the wire.
var noClients6 = []netip.Prefix{netip.MustParsePrefix("::/127"), netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("::ffff:0:0/96")}

// Clients leaves out sources that no client has.
func Clients(from []netip.Prefix) []netip.Prefix {
	return AppendClients(make([]netip.Prefix, 0, len(from)), from)
}

// AppendClients appends the sources that clients may have.
func AppendClients(to, from []netip.Prefix) []netip.Prefix {
	to = slices.Grow(to, len(from))
	for _, p := range from {
		if !NoClient(p) {
			to = append(to, p)
		}
	}
	return to
}

// HasClients reports whether Clients would leave any.
func HasClients(from []netip.Prefix) bool {
	return slices.ContainsFunc(from, func(p netip.Prefix) bool { return !NoClient(p) })
}

// NoClient reports whether no client has an address of the prefix. Those of IPv4
// are this network, loopback, multicast and reserved addresses (RFC 6890).
func NoClient(p netip.Prefix) bool {
	if p.Addr().Is4() { // asked ten thousand times in a scan
		switch first := p.Addr().As4()[0]; {
		case first == 0, first == 127:
			return p.Bits() >= 8
		default:
			return first >= 224 && p.Bits() >= 3
		}
	}
	for _, n := range noClients6 {
		if n.Bits() <= p.Bits() && n.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// whoOf sums rows up in one word. What the kernel itself refuses on an interface
// (martians, the reverse path) is nobody's client.
func whoOf(rows []reach.Row) reach.Who { return whoBy(rows, (*reach.Row).Through) }

func whoBy(rows []reach.Row, through func(*reach.Row) bool) reach.Who {
	var in, out, unsure, local bool
	for i := range rows {
		r := &rows[i]
		switch {
		case r.Iif == "lo":
			local = local || through(r)
		case !HasClients(r.From):
		case through(r):
			in = true
		case r.Unsure():
			unsure = true
		case r.DecidedBy.Kind != reach.ByRPFilter && r.DecidedBy.Kind != reach.ByRoute:
			out = true
		}
	}
	switch {
	case in && out:
		return reach.Some
	case unsure:
		return reach.Uncertain
	case in:
		return reach.Everyone
	case local:
		return reach.HostOnly
	}
	return reach.Nobody
}
