package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/sysctl"
)

// FirewallDisabled finds a firewall that was set up and does not work.
var FirewallDisabled = &audit.Check{
	ID:       "firewall.disabled",
	Title:    "a firewall that was set up and is switched off",
	Severity: audit.Warning,
	Doc: `Somebody wrote rules for a firewall of this host (ufw, firewalld, nftables.service,
netfilter-persistent, iptables-services, CSF), and no rule in the kernel keeps
anything out: it was switched off, perhaps "to test", and left so. Where it is
enabled at boot, the next reboot turns it on again, and clients that came in
meanwhile may be cut off.

To find out whether a firewall keeps a client out it need not be off: 'hostaudit
reach PORT --from ADDRESS' names the rule, and its counter tells whether packets
meet it.

A host without any configured firewall is none of this check's business, and one
whose rules come from elsewhere has its rules.`,
	Refs:   []string{refHooks, "https://manpages.debian.org/bookworm/ufw/ufw.8.en.html"},
	Causes: []audit.Cause{},
	Needs:  []audit.Need{audit.NeedFirewall, audit.NeedFiles},
	Fix:    audit.FixManual,
	Run: func(p *audit.Pass) error {
		meta := p.Snapshot.Meta
		if !meta.FirstNS && meta.Root == "/" {
			p.NotApplicable() // the files are the machine's, this network namespace is not
			return nil
		}
		open := !keepsOut(p.Snapshot.World.Namespaces[0].Ruleset)
		for _, m := range sysctl.MeantFirewalls(p.Snapshot.Files) {
			if !open && !m.Testing {
				continue
			}
			f := audit.Finding{
				Subject: m.Who, Title: m.Who + " was set up for this host and is off: nothing keeps clients out",
				Why:    "rules were written for " + m.Who + ", and no rule or policy in the kernel drops or rejects incoming packets",
				Remedy: fmt.Sprintf("turn it on again (%s), with a second login open; to see whether it keeps a client out use 'hostaudit reach PORT --from ADDRESS' and its rules' counters instead", m.Enable),
			}
			switch {
			case m.Testing:
				f.Title = m.Who + " is in testing mode: it is cleared every few minutes"
				f.Why = "in testing mode " + m.Who + " takes its rules away again by a timer, so that what it keeps out comes in a few minutes later"
				f.Remedy = m.Enable
			case m.AtBoot:
				f.Why += "; it is enabled at boot, so that a reboot turns it on and whoever came in meanwhile may be cut off"
			}
			for _, e := range m.Evidence {
				f.Evidence = append(f.Evidence, audit.Evidence(e))
			}
			p.Report(f)
		}
		return nil
	},
}

// keepsOut says whether any rule or policy drops or rejects packets to this host.
// Chains of programs that only add to a firewall (bans, containers) do not count:
// they stay when it is switched off.
func keepsOut(rs *firewall.Ruleset) bool {
	seen := map[*firewall.Chain]bool{}
	var visit func(ch *firewall.Chain) bool
	visit = func(ch *firewall.Chain) bool {
		if ch == nil || seen[ch] || guest(ch) {
			return false
		}
		seen[ch] = true
		if ch.Unread != "" {
			return true // what is not known may
		}
		return slices.ContainsFunc(ch.Rules, func(r *firewall.Rule) bool { return refuses(r, visit) })
	}
	for _, t := range rs.Tables {
		if t.Dormant {
			continue
		}
		for _, ch := range t.Chains {
			if b := ch.Base; b == nil || b.Hook != firewall.Input && b.Hook != firewall.Prerouting && b.Hook != firewall.Ingress {
				continue
			}
			if ch.Base.Policy == firewall.Drop || visit(ch) {
				return true
			}
		}
	}
	return false
}

// refuses says whether a rule can drop or reject, or leads where that happens.
func refuses(r *firewall.Rule, visit func(*firewall.Chain) bool) bool {
	for _, st := range r.Stmts {
		switch v := st.(type) {
		case *firewall.Reject, *firewall.Opaque:
			return true
		case *firewall.Verdict:
			if v.Kind == firewall.Drop || visit(v.Chain) {
				return true
			}
		case *firewall.VerdictMap:
			for _, d := range v.Map.Data {
				if d.Verdict != nil && (d.Verdict.Kind == firewall.Drop || visit(d.Verdict.Chain)) {
					return true
				}
			}
		}
	}
	return false
}

// guest tells chains of programs that add to whatever firewall there is.
func guest(ch *firewall.Chain) bool {
	return slices.ContainsFunc([]string{"f2b-", "DOCKER", "KUBE-", "LIBVIRT_", "CROWDSEC", "cali-", "FLANNEL"}, func(p string) bool { return strings.HasPrefix(ch.Name, p) }) ||
		slices.Contains([]string{"f2b-table", "crowdsec", "crowdsec6", "libvirt_network", "kube-proxy"}, ch.Table.Name)
}
