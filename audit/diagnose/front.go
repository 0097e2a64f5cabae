package diagnose

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/diagnose/webserver"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// Front is a web server that takes what comes to the target's port, with the
// configuration that it runs with.
type Front struct {
	Config *webserver.Config
	// Local is the address and port of its socket: behind an address translation
	// another one than the client dials.
	Local netip.AddrPort
	ns    *reach.Namespace
}

// maxFronts bounds how many web servers behind one port are read.
const maxFronts = 4

// fronts reads the configuration of the web servers behind the target's port.
func (e *Evidence) fronts(ctx context.Context, say func(string)) {
	if e.Here == nil || e.Server != e.Here || len(e.Here.World.Namespaces) == 0 {
		return // the processes are of another host
	}
	for _, x := range e.frontSockets() {
		ps := webProcesses(x.l)
		program := webserver.Known(ps)
		if program == "" || len(e.Fronts) == maxFronts {
			continue
		}
		say("read the configuration of " + program)
		c := webserver.Read(ctx, ps, booted())
		for _, why := range c.Gaps {
			e.Gaps = append(e.Gaps, audit.Gap{What: "configuration of " + program + " (pid " + itoa(ps[0].PID) + ")", Why: why, Minor: true})
		}
		e.Fronts = append(e.Fronts, Front{Config: c, Local: netip.AddrPortFrom(x.l.Local.Addr().Unmap(), x.l.Port()), ns: x.ns})
	}
}

// frontSockets are the sockets that connections to the target's port come to: of
// this namespace, else where address translations lead.
func (e *Evidence) frontSockets() []foreign {
	var out []foreign
	home := e.Here.World.Namespaces[0]
	known := false
	if home.Listeners != nil {
		for i := range home.Listeners.Listeners {
			if l := &home.Listeners.Listeners[i]; l.Port() == e.Target.Port && overTCP(l) {
				out = append(out, foreign{l: l, ns: home})
				known = known || webserver.Known(webProcesses(l)) != ""
			}
		}
	}
	if known || !e.otherWebServers() {
		return out
	}
	for _, f := range newView(e).faces {
		for _, d := range f.got {
			for _, ns := range e.Here.World.Namespaces {
				if ns.Name != d.NetNS || ns.Listeners == nil {
					continue
				}
				for i := range ns.Listeners.Listeners {
					if l := &ns.Listeners.Listeners[i]; l.Port() == d.Port && l.Subject() == d.Listener && !holds(out, l) {
						out = append(out, foreign{l: l, ns: ns})
					}
				}
			}
		}
	}
	return out
}

func holds(list []foreign, l *listeners.Listener) bool {
	for _, x := range list {
		if x.l == l {
			return true
		}
	}
	return false
}

func overTCP(l *listeners.Listener) bool {
	return l.Proto == listeners.TCP || l.Proto == listeners.MPTCP
}

// otherWebServers: some listener on another port or in another namespace belongs
// to a web server that is read; otherwise there is no need to ask the model.
func (e *Evidence) otherWebServers() bool {
	for _, ns := range e.Here.World.Namespaces {
		if ns.Listeners == nil {
			continue
		}
		for i := range ns.Listeners.Listeners {
			if l := &ns.Listeners.Listeners[i]; overTCP(l) && webserver.Known(webProcesses(l)) != "" {
				return true
			}
		}
	}
	return false
}

func webProcesses(l *listeners.Listener) []webserver.Process {
	var out []webserver.Process
	for _, p := range l.Owners {
		out = append(out, webserver.Process{PID: p.PID, Name: string(p.Comm), Command: string(p.Command), Start: p.Start})
	}
	return out
}

// booted is when this host started, which the start times of processes count
// from (proc(5), starttime).
func booted() time.Time {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(t.Nano()))
}
