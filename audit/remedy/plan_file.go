package remedy

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/owner"
	"github.com/hostaudit/hostaudit/listeners"
)

// nofileNear is the finding that LimitNOFILE drop-ins mend.
const nofileNear = "listener.nofile-near-limit"

// unitForm is what the name of a service unit looks like: it becomes part of a path.
var unitForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9:_@][A-Za-z0-9:_.@-]*\.service$`) })

func limitPath(unit string) string { return "/etc/systemd/system/" + unit + ".d/50-hostaudit.conf" }

const limitHeader = "# Written by hostaudit (fix); undo with: hostaudit rollback\n"

// fileLimits plans a drop-in that raises the limit of open files of a unit: twice
// what it has, at least what systemd gives as the hard limit by default.
func (p *planner) fileLimits() {
	for _, f := range p.findings(nofileNear) {
		proc := p.process(f.Subject)
		if proc == nil || string(proc.Unit) != f.Subject || !unitForm().MatchString(f.Subject) || proc.Container != nil {
			p.manual(f, "it is no service unit of systemd on this host", "")
			continue
		}
		if proc.Files.Soft <= 0 {
			p.manual(f, "its limit is not known", "")
			continue
		}
		want := max(2*proc.Files.Soft, 524288)
		if top, ok := p.Snapshot.Sysctls.Int("fs.nr_open"); ok && want > top {
			if want = top; want <= proc.Files.Soft {
				p.manual(f, fmt.Sprintf("its limit is fs.nr_open (%d) already", top), "")
				continue
			}
		}
		name := limitPath(f.Subject)
		old, has := p.Files[name]
		if has && !strings.HasPrefix(string(old), limitHeader) {
			p.manual(f, name+" was written by somebody else", "")
			continue
		}
		data := fmt.Appendf(nil, "%s[Service]\n# %s\nLimitNOFILE=%d\n", limitHeader, shorten(oneLine(f.Title), 200), want)
		if has && bytes.Equal(old, data) {
			p.manual(f, name+" says so already", "systemctl daemon-reload && systemctl restart "+f.Subject)
			continue
		}
		p.plan.Steps = append(p.plan.Steps, Step{Phase: Persist, File: &FileChange{Path: name, Before: old, HasBefore: has, After: data, HasAfter: true}})
		p.plan.Changes = append(p.plan.Changes, Change{Finding: f.ID, Kind: "file", Subject: f.Subject, Before: fmt.Sprintf("LimitNOFILE=%d (in force)", proc.Files.Soft),
			After: fmt.Sprintf("LimitNOFILE=%d", want), Persistent: true, Boot: "systemd reads " + name, Command: name, Owner: "systemd",
			Restart: "systemctl daemon-reload && systemctl restart " + f.Subject, Diff: diff(name, string(old), string(data))})
	}
}

// process is the owner of a listener that a finding is about.
func (p *planner) process(unit string) *listeners.Process {
	for _, port := range p.pass.Ports {
		if port.Listener == nil {
			continue
		}
		for i := range port.Listener.Owners {
			if string(port.Listener.Owners[i].Unit) == unit {
				return &port.Listener.Owners[i]
			}
		}
	}
	return nil
}

// oneLine keeps host text from becoming a second line of a file.
func oneLine(s string) string {
	return strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, s)), " ")
}

// loopbackOnly is the finding that changes of a bind address mend.
const loopbackOnly = "listener.loopback-only"

// bindAddresses shows, for servers that are known, the one line of their
// configuration that binds a port to loopback. It is changed only on request
// (Input.Configuration), and only for what the configuration declares to be for
// others; what nobody declared stays private.
func (p *planner) bindAddresses() {
	for _, f := range p.findings(loopbackOnly) {
		var port *audit.Port
		for _, c := range p.pass.Ports {
			if c.Home() && c.Listener != nil && c.Subject() == f.Subject {
				port = c
			}
		}
		if port == nil {
			continue
		}
		if p.world.Namespaces[0].Route == nil || p.world.Namespaces[0].Ruleset == nil {
			p.manual(f, "routes or rules were not read: who would reach it cannot be told", "")
			continue
		}
		if port.Service == nil || port.Service.Audience.Kind == audit.ForHost {
			p.manual(f, "no service is declared for it, so it stays private", "")
			continue
		}
		srv := serverOf(port.Process())
		if srv == nil {
			p.manual(f, "the configuration of "+port.Program()+" is not known to this program", "")
			continue
		}
		name, before, after, err := srv.rebind(p.Files, port.Listener.Local.Addr(), port.Number())
		if err != nil {
			p.manual(f, err.Error(), "")
			continue
		}
		patch := diff(name, before, after)
		restart := "restart " + port.Program()
		if u := string(port.Process().Unit); unitForm().MatchString(u) {
			restart = "systemctl restart " + u
		}
		opens, strangers := p.afterRestart(srv, port, restart)
		switch {
		case srv.private && port.Service.Audience.Kind == audit.ForEveryone:
			p.manualPatch(f, "a "+srv.name+" open to everyone is never set up by this program: give it an audience of networks", "", patch)
			continue
		case len(strangers) > 0:
			p.manualPatch(f, fmt.Sprintf("with it %s would reach it, too, who are not among those it is meant for (%s)", some(strangers), port.Service.Audience),
				"first let the firewall keep them out, or bind it to the one address that its clients use", patch)
			continue
		case srv.shown:
			p.manualPatch(f, name+" is a program of your own", "change the line, then "+restart, patch)
			continue
		case !p.Configuration:
			p.manualPatch(f, "a server's own configuration is changed only on request", "hostaudit fix --configuration, then "+restart, patch)
			continue
		}
		step := Step{Phase: Persist, File: &FileChange{Path: name, Before: []byte(before), HasBefore: true, After: []byte(after), HasAfter: true}}
		p.plan.Steps = append(p.plan.Steps, step)
		files := map[string][]byte{}
		for k, v := range p.Files {
			files[k] = v
		}
		files[name] = []byte(after)
		p.Files = files
		p.plan.Changes = append(p.plan.Changes, Change{Finding: f.ID, Kind: "file", Subject: f.Subject, Before: "bound to " + port.Listener.Local.Addr().String(),
			After: "bound to every address", Persistent: true, Boot: srv.name + " reads " + name, Command: name, Owner: srv.name, Restart: restart, Diff: patch})
		p.later = append(p.later, opens...)
		if len(opens) == 0 {
			p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("after its restart a firewall still keeps everybody from port %d: run hostaudit fix again then", port.Number()))
		}
		if srv.gate != "" {
			p.plan.Notes = append(p.plan.Notes, srv.name+": "+srv.gate)
		}
	}
}

// afterRestart works out who reaches a server once it listens on every address,
// and which of them are not meant to, surely or perhaps.
func (p *planner) afterRestart(srv *server, port *audit.Port, restart string) (opens []EffectRow, strangers []netip.Prefix) {
	// A world in which it has been restarted.
	home := *p.world.Namespaces[0]
	table := *home.Listeners
	table.Listeners = slices.DeleteFunc(slices.Clone(table.Listeners), func(l listeners.Listener) bool { return l.Subject() == port.Listener.Subject() })
	bound := srv.rebound(port.Listener)
	for _, l := range bound {
		table.Listeners = append(table.Listeners, *l)
	}
	home.Listeners = &table
	ev := reach.New(&reach.World{Namespaces: append([]*reach.Namespace{&home}, p.world.Namespaces[1:]...)}).NeighboursKnown()
	for _, l := range bound {
		x := exposed{protoName(l.Proto), l.Port(), nil}
		for _, r := range ev.Listener(l).Rows {
			if r.Iif == "lo" || r.ClientSees != reach.Connected && r.ClientSees != reach.Depends {
				continue
			}
			from := ranges(audit.Clients(r.From))
			for _, a := range p.world.Namespaces[0].Route.Addrs {
				from = from.Minus(firewall.Prefix(netip.PrefixFrom(a.Local, a.Local.BitLen())))
			}
			f := firewall.IPv4
			if r.Family == firewall.IPv6.String() {
				f = firewall.IPv6
			}
			if port.Service.Audience.Kind != audit.ForEveryone {
				strangers = append(strangers, from.Minus(ranges(owner.Prefixes(port.Service.Audience.Networks, f))).AddrPrefixes(f)...)
			}
			if r.ClientSees == reach.Connected {
				add(&opens, l.Subject(), x, r, from)
			}
		}
	}
	for i := range opens {
		opens[i].Once = restart
	}
	return opens, strangers
}

func (p *planner) manualPatch(f audit.Finding, why, words, patch string) {
	p.manual(f, why, words)
	p.plan.Manual[len(p.plan.Manual)-1].Diff = patch
}
