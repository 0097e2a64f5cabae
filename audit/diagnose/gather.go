package diagnose

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// Options say what to gather for an answer.
type Options struct {
	Target Target
	// Here is this host as it was read, Server the other side's snapshot (nil for
	// none). Offline: Here was not read now and here, so nothing is sent either.
	Here, Server *audit.Snapshot
	Offline      bool
	Config       *audit.Config
	// Side fixes the side, "" finds it: a host that has the target's address is
	// the server.
	Side Side
	From netip.Addr
	Iif  string
	// Message is the client's own; then nothing is connected.
	Message string
	Probe   bool
	// Metadata allows asking the cloud's metadata service.
	Metadata  bool
	Public    []netip.Addr
	Source    netip.Addr
	Resolvers []netip.AddrPort
	// Limit is the deadline of the connections together, 0 means 4 seconds.
	Limit time.Duration
	Files HostOptions
	// Progress is told each step that may take time. May be nil.
	Progress func(step string)
	Now      time.Time
}

// Gather collects the evidence, each network step with a deadline of its own.
// Sockets are opened on the calling goroutine.
func Gather(ctx context.Context, o Options) *Evidence {
	say := o.Progress
	if say == nil {
		say = func(string) {}
	}
	e := &Evidence{Target: o.Target, Side: o.Side, From: o.From, Iif: o.Iif, Here: o.Here, Server: o.Server, Config: o.Config, Public: slices.Clone(o.Public), Source: o.Source, Now: o.Now, Probing: o.Probe}
	if o.Message != "" {
		s := ParseError(o.Message)
		e.Symptom = &s
		if s.Sees == "" {
			e.Gaps = append(e.Gaps, audit.Gap{What: "the client's message", Why: "it was not understood: " + o.Message})
		}
	}
	if !o.Offline {
		e.Facts = ReadHost(ctx, o.Files)
		e.Gaps = append(e.Gaps, e.Facts.Gaps...)
	}
	if o.Target.Named() && !o.Offline {
		say("look up " + o.Target.Host)
		e.Names = Resolve(ctx, o.Target.Host, ResolveOptions{Root: o.Files.Root, Servers: o.Resolvers})
		for _, g := range e.Names.Gaps {
			e.Gaps = append(e.Gaps, audit.Gap{What: "names", Why: g})
		}
	}
	e.settleSide(o.From.IsValid() || o.Iif != "" || o.Files.Unit != "" || o.Files.Log != "" || o.Metadata)
	if e.Server == nil && e.Side != SideClient {
		e.Server = e.Here
	}
	if o.Offline {
		return e
	}
	if e.Side != SideClient {
		e.fronts(ctx, say)
	}
	if o.Metadata {
		e.metadata(ctx, say)
	}
	if e.Side != SideClient {
		e.ended(ctx, o)
	}
	if e.Side == SideClient || e.Side == SideServer && e.From.IsValid() {
		e.running(ctx)
	}
	if o.Message == "" {
		if e.Side == SideServer {
			e.strangers(ctx, say)
		} else {
			e.connect(ctx, o, say)
		}
	}
	e.meant(ctx, say)
	if o.Probe {
		e.probe(ctx, o, say)
		e.sizes(ctx, say)
	}
	return e
}

// metadata asks the cloud of the server for its public address.
func (e *Evidence) metadata(ctx context.Context, say func(string)) {
	gap := func(what, why string) { e.Gaps = append(e.Gaps, audit.Gap{What: what, Why: why, Minor: true}) }
	c := e.Facts.Cloud
	switch {
	case e.Side == SideClient:
		gap("metadata", "it was not asked: this host is the client, and the server's cloud would have to say")
		return
	case c == nil:
		gap("metadata", "it was not asked: the firmware names no cloud that is known here")
		return
	}
	say("ask the metadata service of " + c.Name)
	if err := Metadata(ctx, c); err != nil {
		gap("metadata of "+c.Name, err.Error())
	}
	for _, p := range c.Public {
		if a, err := netip.ParseAddr(p); err == nil {
			e.Public = append(e.Public, a.Unmap())
		}
	}
}

// maxRunning bounds how many of this host's own connections are looked at.
const maxRunning = 1000

// running looks at the connections that programs of this host have to the
// target; on the server, at those of the client to it.
func (e *Evidence) running(ctx context.Context) {
	to, local, peer := e.dialled(), uint16(0), e.Target.Port
	if e.Side == SideServer {
		to, local, peer = []netip.Addr{e.From}, e.Target.Port, 0
	}
	src, err := listeners.OpenLive("")
	if err == nil {
		defer src.Close()
		e.Running, err = listeners.ReadConnections(ctx, src, local, peer, maxRunning)
	}
	if err != nil {
		e.Gaps = append(e.Gaps, audit.Gap{What: "running connections to the target", Why: err.Error(), Minor: true})
	}
	e.Running = slices.DeleteFunc(e.Running, func(c listeners.Connection) bool { return !slices.Contains(to, c.Remote.Addr()) })
}

// sizes asks which packets get to the other side and back.
func (e *Evidence) sizes(ctx context.Context, say func(string)) {
	to := e.From // of the client, where this host is the server
	if e.Side == SideClient {
		to = e.asked.Addr()
	}
	if e.Side == SideBoth || !to.IsValid() {
		return
	}
	w, err := FindWay(to)
	if err != nil || w.Errno != "" || w.Local || w.LinkMTU == 0 {
		return
	}
	say("find out the sizes of packets that get to " + to.String())
	if e.Sizes, err = FindSizes(ctx, to, w.LinkMTU); err != nil {
		e.Gaps = append(e.Gaps, audit.Gap{What: "packet sizes to " + to.String(), Why: err.Error(), Minor: true})
	}
}

// servesBehindNAT: a public address is dialled, and this host has none, but a
// listener on the port for more than itself.
func (e *Evidence) servesBehindNAT(addrs []netip.Addr) bool {
	if e.Here == nil || len(e.Here.World.Namespaces) == 0 {
		return false
	}
	home := e.Here.World.Namespaces[0]
	v := &view{local: localAddrs(home)}
	if home.Route == nil || home.Listeners == nil || !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return v.behindNAT(e, a) }) {
		return false
	}
	return slices.ContainsFunc(home.Listeners.Listeners, func(l listeners.Listener) bool {
		return l.Port() == e.Target.Port && (l.Proto == listeners.TCP || l.Proto == listeners.MPTCP) && !l.Local.Addr().Unmap().IsLoopback()
	})
}

// settleSide finds out where this host stands. served: the questioner gave what
// only the server knows.
func (e *Evidence) settleSide(served bool) {
	addrs := e.dialled()
	own := func(a netip.Addr) bool { local, _ := LocalTo(e.Here, a); return local }
	loopback := len(addrs) > 0 && !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !a.IsLoopback() })
	switch {
	case e.Side != "":
	case loopback:
		e.Side = SideBoth
	case len(addrs) == 0 && e.Target.Host == "":
		e.Side = SideServer
	case slices.ContainsFunc(addrs, own), slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(e.Public, a) }):
		e.Side = SideServer
	case served: // they speak of the server
		e.Side = SideServer
	case e.servesBehindNAT(addrs):
		e.Side = SideServer
		e.Gaps = append(e.Gaps, audit.Gap{What: "side", Minor: true, Why: fmt.Sprintf("%s is not this host's own, but something listens on port %d here and the host has no public address itself: "+
			"it is taken for the server behind NAT (--side client if it is not)", joinAddrs(addrs), e.Target.Port)})
	default:
		e.Side = SideClient
	}
	if e.Side == SideServer && e.From.IsValid() && own(e.From) {
		e.Side = SideBoth
	}
	if e.Side == SideBoth && e.Source.IsValid() && !e.From.IsValid() {
		e.From = e.Source
	}
}

func (e *Evidence) dialled() []netip.Addr {
	switch {
	case e.Target.Addr.IsValid():
		return []netip.Addr{e.Target.Addr}
	case e.Names != nil:
		return e.Names.Addrs()
	}
	return nil
}

// maxTried bounds how many addresses of a name are tried.
const maxTried = 16

func (e *Evidence) connect(ctx context.Context, o Options, say func(string)) {
	var to []netip.AddrPort
	for _, a := range e.dialled() {
		to = append(to, netip.AddrPortFrom(a, e.Target.Port))
	}
	if len(to) == 0 {
		return
	}
	if len(to) > maxTried {
		to = to[:maxTried]
	}
	tap, err := OpenTap(e.Target.Port, 0)
	if err == nil {
		defer tap.Close()
	}
	say(fmt.Sprintf("connect to %s", joinPorts(to)))
	e.Attempts = Connect(ctx, to, ConnectOptions{Limit: o.Limit, Source: o.Source, Watch: tap})
	for i := range e.Attempts {
		a := &e.Attempts[i]
		w, err := FindWay(a.To.Addr())
		if err != nil {
			e.Gaps = append(e.Gaps, audit.Gap{What: "route to " + a.To.Addr().String(), Why: err.Error()})
			continue
		}
		a.Route = w
		// The server sees this address, unless something translates it on the way.
		if !e.From.IsValid() && a.From.IsValid() && e.Side == SideClient && e.Server != nil {
			local, known := LocalTo(e.Server, a.To.Addr())
			if local && known || known && global(a.From.Addr()) && global(a.To.Addr()) {
				e.From = a.From.Addr()
			}
		}
	}
	e.tryProxy(ctx, o, say)
}

func (e *Evidence) tryProxy(ctx context.Context, o Options, say func(string)) {
	e.ProxySetting = ProxyOf(e.Target, e.Facts)
	if e.ProxySetting == nil {
		return
	}
	host, port, ok := e.ProxySetting.ProxyAddr()
	if !ok {
		e.Gaps = append(e.Gaps, audit.Gap{What: e.ProxySetting.Name, Why: "names no proxy"})
		return
	}
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{a.Unmap()}
	} else {
		say("look up the proxy " + host)
		addrs = Resolve(ctx, host, ResolveOptions{Root: o.Files.Root, Servers: o.Resolvers}).Addrs()
	}
	if len(addrs) == 0 {
		e.Gaps = append(e.Gaps, audit.Gap{What: "proxy " + host, Why: "its name does not resolve"})
		return
	}
	p := netip.AddrPortFrom(addrs[0], port)
	say("connect to the proxy " + p.String())
	as := Connect(ctx, []netip.AddrPort{p}, ConnectOptions{Limit: 2 * time.Second})
	e.Proxy = &as[0]
}

// probe asks the listener what it speaks: from the server at the address that
// the listener has, loopback first; from a client at the first address that
// answers.
func (e *Evidence) probe(ctx context.Context, o Options, say func(string)) {
	var to netip.AddrPort
	limit := RemoteProbeLimit
	for _, a := range e.Attempts {
		if a.Sees == Connected {
			to = a.To
			break
		}
	}
	if e.Side != SideClient {
		limit = ProbeLimit
	}
	if e.Side == SideServer && e.Server != nil {
		home := e.Server.World.Namespaces[0]
		to = netip.AddrPort{}
		if a := listenAddr(home, e.Target.Port); a.IsValid() {
			to = netip.AddrPortFrom(a, e.Target.Port)
		}
	}
	if !to.IsValid() && o.Message != "" && e.Side == SideClient {
		if list := e.dialled(); len(list) > 0 { // the message stands for the connection
			to = netip.AddrPortFrom(list[0], e.Target.Port)
		}
	}
	if !to.IsValid() {
		return
	}
	e.asked = to
	say("ask " + to.String() + " what it speaks")
	e.Probed = append(e.Probed, Probe(ctx, to, e.Target, limit, o.Now))
}

// listenAddr is an address at which a listener of this host can be asked from
// the host itself.
func listenAddr(ns *reach.Namespace, port uint16) netip.Addr {
	if ns.Listeners == nil {
		return netip.Addr{}
	}
	for i := range ns.Listeners.Listeners {
		l := &ns.Listeners.Listeners[i]
		if l.Port() != port || l.Proto != listeners.TCP && l.Proto != listeners.MPTCP {
			continue
		}
		a := l.Local.Addr()
		switch {
		case !a.Unmap().IsUnspecified():
			return a.Unmap()
		case a.Is6() && !a.Is4In6() && l.V6Only:
			return netip.IPv6Loopback()
		}
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.Addr{}
}

func joinPorts(l []netip.AddrPort) string {
	s := ""
	for i, a := range l {
		if i > 0 {
			s += ", "
		}
		s += a.String()
	}
	return s
}
