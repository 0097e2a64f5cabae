package remedy

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// nofileNear is the finding that LimitNOFILE drop-ins mend.
const nofileNear = "listener.nofile-near-limit"

// unitForm is what the name of a service unit looks like: it becomes part of a path.
var unitForm = regexp.MustCompile(`^[A-Za-z0-9:_@][A-Za-z0-9:_.@-]*\.service$`)

func limitPath(unit string) string { return "/etc/systemd/system/" + unit + ".d/50-hostaudit.conf" }

const limitHeader = "# Written by hostaudit (fix); undo with: hostaudit rollback\n"

// fileLimits plans a drop-in that raises the limit of open files of a unit: twice
// what it has, at least what systemd gives as the hard limit by default.
func (p *planner) fileLimits() {
	for _, f := range p.findings(nofileNear) {
		proc := p.process(f.Subject)
		if proc == nil || string(proc.Unit) != f.Subject || !unitForm.MatchString(f.Subject) || proc.Container != nil {
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
		if u := string(port.Process().Unit); unitForm.MatchString(u) {
			restart = "systemctl restart " + u
		}
		switch {
		case srv.private && port.Service.Audience.Kind == audit.ForEveryone:
			p.manualPatch(f, "a "+srv.name+" open to everyone is never set up by this program: give it an audience of networks", "", patch)
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
		p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("%s opens only with its restart (%s): then everybody whom the firewall lets through reaches it; hostaudit reach %d shows who that is", f.Subject, restart, port.Number()))
	}
}

func (p *planner) manualPatch(f audit.Finding, why, words, patch string) {
	p.manual(f, why, words)
	p.plan.Manual[len(p.plan.Manual)-1].Diff = patch
}
