package diagnose

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/hostaudit/hostaudit/audit"
)

// besideLimit is the deadline of the connections beside the target's own.
const besideLimit = 2 * time.Second

// Meant is a configured service on another port than the one dialled, which the
// target probably means, as a client meets it.
type Meant struct {
	Service audit.Service
	// Tried is the connection to its port at the address that refused the one
	// dialled, nil where none was made.
	Tried *Attempt
}

// meantService finds the only configured service that fits a target on another
// port, by the URL's protocol or the digits of the port; nil for none or several,
// and where the very port is configured.
func meantService(c *audit.Config, t Target) *audit.Service {
	if c == nil {
		return nil
	}
	var found *audit.Service
	for i := range c.Services {
		s := &c.Services[i]
		switch {
		case s.Proto == "udp":
		case s.Port == t.Port:
			return nil
		case t.wants() != "" && workerScheme(s.Protocol) == t.wants() || permuted(s.Port, t.Port):
			if found != nil {
				return nil
			}
			found = s
		}
	}
	return found
}

// meant tries the port that the configuration names for the service, where the
// one dialled refuses and no snapshot of the server tells what listens there.
func (e *Evidence) meant(ctx context.Context, say func(string)) {
	if e.Side != SideClient || e.Server != nil {
		return
	}
	s := meantService(e.Config, e.Target)
	if s == nil {
		return
	}
	e.Meant = &Meant{Service: *s}
	i := slices.IndexFunc(e.Attempts, func(a Attempt) bool { return a.Sees == Refused })
	if i < 0 {
		return
	}
	to := netip.AddrPortFrom(e.Attempts[i].To.Addr(), s.Port)
	say("connect to " + to.String() + ", which the configuration names")
	as := Connect(ctx, []netip.AddrPort{to}, ConnectOptions{Limit: besideLimit})
	e.Meant.Tried = &as[0]
}

// strangers tries the addresses dialled that are not the server's own, from the
// server: whether somebody serves there is all that it can tell of them.
func (e *Evidence) strangers(ctx context.Context, say func(string)) {
	if e.Side != SideServer || e.Here == nil || len(e.Here.World.Namespaces) == 0 {
		return
	}
	v := &view{local: localAddrs(e.Here.World.Namespaces[0])}
	var to []netip.AddrPort
	for _, a := range e.dialled() {
		local, known := LocalTo(e.Here, a)
		if c, _ := cdnOf(a); known && !local && c == nil && !slices.Contains(e.Public, a) && !v.behindNAT(e, a) && len(to) < maxTried {
			to = append(to, netip.AddrPortFrom(a, e.Target.Port))
		}
	}
	if len(to) == 0 {
		return
	}
	say("connect to " + joinPorts(to) + ", not this host's own")
	e.Strangers = Connect(ctx, to, ConnectOptions{Limit: besideLimit})
}

// serving are those of them where somebody took the connection.
func (e *Evidence) serving() []netip.Addr {
	var out []netip.Addr
	for _, a := range e.Strangers {
		if a.Sees == Connected {
			out = append(out, a.To.Addr())
		}
	}
	return out
}

// otherPort judges the port that the configuration names, from the client.
func (j *judge) otherPort() {
	m := j.e.Meant
	if m == nil || j.observed != Refused {
		return
	}
	s, t := m.Service, j.e.Target
	ev := evidence(s.Source, "service %s is on port %d", s.Name, s.Port)
	switch {
	case m.Tried == nil:
		j.say(WrongPort, CannotTell, "", ev, evidence("to decide", "whether port %d, which the configuration names, answers", s.Port))
	case m.Tried.Sees == Connected:
		j.say(WrongPort, Likely, "dial port "+itoa(int(s.Port)), ev, evidence("connection from here", "%s answers, where port %d is refused", m.Tried.To, t.Port))
	default:
		j.say(WrongPort, CannotTell, "", ev, evidence("to decide", "port %d, which the configuration names, does not answer either (%s); %s", s.Port, m.Tried.Sees, j.decides(WrongPort)))
	}
}
