package reach

import (
	"net/netip"
	"slices"

	"github.com/hostaudit/hostaudit/firewall"
)

// Published is a port of the audited namespace that address translation leads
// to a listener elsewhere: in another namespace of this host (a container), or
// beyond it.
type Published struct {
	Proto firewall.Proto
	Port  uint16
	// To is the listener, or one of them; the rows name all.
	To Delivered
	// By is the rule that translates.
	By DecidedBy
	// Families are those ("ip", "ip6") that are translated to the namespace of To.
	Families []string
	Exposure
}

// Published lists the ports that DNAT rules lead to listeners in other network
// namespaces, those that no packet gets through to included: translated and then
// dropped on the way.
func (e *Evaluator) Published() []Published {
	ns := e.home()
	if ns.Ruleset == nil || ns.Route == nil {
		return nil
	}
	type key struct {
		p    firewall.Proto
		port uint16
	}
	seen := map[key]bool{}
	var out []Published
	for _, t := range ns.Ruleset.Tables {
		if t.Dormant {
			continue
		}
		for _, ch := range t.Chains {
			for _, r := range ch.Rules {
				protos, ports := r.Translates()
				for _, p := range protos {
					for _, port := range ports {
						k := key{p, port}
						if seen[k] {
							continue
						}
						seen[k] = true
						if x, ok := e.published(p, port); ok {
							x.By = decidedByRule(ns, r)
							out = append(out, x)
						}
					}
				}
			}
		}
	}
	return out
}

func (e *Evaluator) published(p firewall.Proto, port uint16) (Published, bool) {
	rows := e.Partition(Query{Proto: p, Port: port})
	x := Published{Proto: p, Port: port}
	for i := range rows {
		for _, d := range rows[i].Deliveries() {
			if x.To.NetNS == "" && d.NetNS != "" {
				x.To = d
			}
		}
	}
	aims := make([]string, len(rows)) // namespaces
	for i := range rows {
		d, ok := e.behind(p, rows[i].aim)
		if !ok {
			continue
		}
		aims[i] = d.NetNS
		if x.To.NetNS == "" {
			x.To = d
		}
	}
	if x.To.NetNS == "" {
		return x, false
	}
	for i := range rows {
		r := &rows[i]
		there := aims[i] == x.To.NetNS || slices.ContainsFunc(r.Deliveries(), func(d Delivered) bool { return d.NetNS == x.To.NetNS })
		if there && !slices.Contains(x.Families, r.Family) {
			x.Families = append(x.Families, r.Family)
		}
	}
	x.Exposure = Exposure{Who: e.who(rows), Rows: rows}
	return x, true
}

// behind is the listener at an address of another namespace that links lead to;
// false where there is none, or where several namespaces have the address.
func (e *Evaluator) behind(p firewall.Proto, to netip.AddrPort) (d Delivered, ok bool) {
	if !to.IsValid() {
		return d, false
	}
	f := firewall.FamilyOf(to.Addr())
	near, todo := map[*Namespace]bool{e.home(): true}, []*Namespace{e.home()}
	for len(todo) > 0 {
		ns := todo[0]
		todo = todo[1:]
		for _, peer := range ns.Peers {
			if next := e.byID[peer.Namespace]; next != nil && !near[next] {
				near[next] = true
				todo = append(todo, next)
			}
		}
		if ns == e.home() || ns.Route == nil || to.Addr().IsLoopback() || !e.isLocal(ns, f, to.Addr()) {
			continue
		}
		l := e.sockets(ns).find(f, p, to.Addr(), to.Port(), nil)
		if l == nil {
			continue
		}
		if ok {
			return Delivered{}, false
		}
		d, ok = *delivered(ns, l, to.Addr(), to.Port()), true
	}
	return d, ok
}

// Translated reports whether destination NAT sent the sources' packets elsewhere,
// and they did not get there.
func (r *Row) Translated() bool { return r.aim.IsValid() }

// aimOf is where destination NAT sent a packet that did not get there; an answer
// tells of the packet that it answers.
func (w *walk) aimOf(p *path, c *firewall.Class) netip.AddrPort {
	s := &c.State
	if s.Reply && w.reply.path != nil {
		p, s = w.reply.path, &w.reply.first
	}
	if s.Reply || s.LocalUnknown || s.LocalPortUnknown || s.CTStatus&firewall.CTStatusDstNAT == 0 || p.ns.Name != "" {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(s.Local.Addr(s.Family), s.LocalPort)
}
