package reach

import (
	"strings"

	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// programs forks classes at the programs that sit on a link: they may do
// anything with a packet.
func (w *walk) programs(p *path, cs []firewall.Class, link *firewall.Link, in bool) []firewall.Class {
	for _, pr := range p.ns.Programs {
		switch pr.Kind {
		case "xdp", "tc":
			if pr.Link != link.Index || in && !pr.In || !in && !pr.Out {
				continue
			}
		default:
			continue
		}
		for i := range cs {
			w.doubtProgram(p, &cs[i], pr)
		}
	}
	return cs
}

// hookPrograms forks classes at BPF programs and IPVS, which sit in a
// netfilter hook.
func (w *walk) hookPrograms(p *path, cs []firewall.Class, h firewall.Hook) {
	for _, pr := range p.ns.Programs {
		for i := range cs {
			switch {
			case pr.Kind == "netfilter" && pr.Hook == h && (pr.Family == 0 || pr.Family == cs[i].State.Family),
				pr.Kind == "ipvs" && (h == firewall.Input || h == firewall.Forward || h == firewall.Output):
				w.doubtProgram(p, &cs[i], pr)
			}
		}
	}
}

// doubtProgram follows both ways: the program decides, or it lets the packet
// pass.
func (w *walk) doubtProgram(p *path, c *firewall.Class, pr Program) {
	object := pr.Kind + " program"
	if pr.Kind == "ipvs" {
		object = "IPVS"
	}
	if pr.Name != "" {
		object += " " + pr.Name
	}
	if pr.Place != "" {
		object += " at " + pr.Place
	}
	why := "what this program does with the packet"
	c.Doubt(firewall.Condition{Object: object, Why: why})
	w.finish(*c, p, Depends, witness{kind: ByProgram, ns: p.ns, text: object}, nil, why)
}

// sees reports whether the program sees the packets of a listener: it sits on
// the listener's control group or on one above it.
func (pr *Program) sees(l *listeners.Listener) bool {
	if pr.Cgroup == "/" || pr.CgroupID != 0 && pr.CgroupID == l.Cgroup {
		return true
	}
	for _, o := range l.Owners {
		path := string(o.Cgroup)
		if path == pr.Cgroup || strings.HasPrefix(path, strings.TrimSuffix(pr.Cgroup, "/")+"/") {
			return true
		}
	}
	return false
}
