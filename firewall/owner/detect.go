package owner

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/firewall"
)

// Files of the owners.
const (
	ufwConf       = "/etc/ufw/ufw.conf"
	nftConf       = "/etc/nftables.conf"
	nftConfRHEL   = "/etc/sysconfig/nftables.conf"
	rulesV4       = "/etc/iptables/rules.v4"
	rulesV6       = "/etc/iptables/rules.v6"
	rulesV4RHEL   = "/etc/sysconfig/iptables"
	rulesV6RHEL   = "/etc/sysconfig/ip6tables"
	csfConf       = "/etc/csf/csf.conf"
	panelPort     = "/www/server/panel/data/port.pl"
	shorewallConf = "/etc/shorewall/shorewall.conf"
	fireholConf   = "/etc/firehol/firehol.conf"
	apfConf       = "/etc/apf-firewall/conf.apf"
)

var ufwRules = []string{"/etc/ufw/user.rules", "/etc/ufw/user6.rules"}

// Paths are the files that Detect and Open judge by: Files holds those of them
// that exist, Present also links.
func Paths() []string {
	return append([]string{
		ufwConf, "/etc/default/ufw", nftConf, nftConfRHEL, rulesV4, rulesV6, rulesV4RHEL, rulesV6RHEL, csfConf, panelPort, shorewallConf, fireholConf, apfConf,
	}, ufwRules...)
}

// Links are places that exist where a unit is enabled; a trailing name is a
// link's, never followed.
func Links() []string {
	var out []string
	for _, unit := range []string{"nftables.service", "netfilter-persistent.service", "iptables.service", "ip6tables.service"} {
		for _, target := range []string{"multi-user", "sysinit", "basic", "network-pre"} {
			out = append(out, "/etc/systemd/system/"+target+".target.wants/"+unit)
		}
	}
	return out
}

// Host is what owners are told by.
type Host struct {
	Rules *firewall.Ruleset
	// Files maps those of Paths that exist to their content.
	Files map[string][]byte
	// Present are those of Links that exist.
	Present map[string]bool
}

// Owner is one that was found, and by what.
type Owner struct {
	Kind     Kind     `json:"kind"`
	Evidence []string `json:"evidence"`
}

func (h *Host) enabled(unit string) (string, bool) {
	for p := range h.Present {
		if h.Present[p] && strings.HasSuffix(p, "/"+unit) {
			return p, true
		}
	}
	return "", false
}

// UFWWithoutIPv6 says whether ufw is set to leave IPv6 alone, for which it then drops
// everything (IPV6=no in /etc/default/ufw).
func (h *Host) UFWWithoutIPv6() bool { return setting(h.Files["/etc/default/ufw"], "IPV6") == "no" }

// Detect finds everybody who writes rules on the host: managers first.
func Detect(h *Host) []Owner {
	var out []Owner
	add := func(k Kind, evidence ...string) {
		slices.Sort(evidence)
		out = append(out, Owner{k, evidence})
	}
	chains := func(match func(name string) bool) (found []string) {
		for _, t := range h.Rules.Tables {
			for _, ch := range t.Chains {
				if match(ch.Name) {
					found = append(found, fmt.Sprintf("chain %s of %s %s (%s)", ch.Name, t.Family, t.Name, t.Backend))
				}
			}
		}
		return found[:min(len(found), 1)]
	}
	prefix := func(p string) []string { return chains(func(n string) bool { return strings.HasPrefix(n, p) }) }
	exact := func(names ...string) []string {
		return chains(func(n string) bool { return slices.Contains(names, n) })
	}
	table := func(names ...string) (found []string) {
		for _, t := range h.Rules.Tables {
			if slices.Contains(names, t.Name) {
				found = append(found, fmt.Sprintf("table %s %s", t.Family, t.Name))
			}
		}
		return found[:min(len(found), 1)]
	}
	if ev := exact("ufw-user-input", "ufw6-user-input"); len(ev) > 0 && setting(h.Files[ufwConf], "ENABLED") == "yes" {
		add(UFW, append(ev, "ENABLED=yes in "+ufwConf)...)
	}
	if ev := append(table("firewalld"), exact("INPUT_ZONES")...); len(ev) > 0 {
		add(Firewalld, ev...)
	}
	if p, on := h.enabled("nftables.service"); on {
		for _, f := range []string{nftConf, nftConfRHEL} {
			if hasRules(h.Files[f]) {
				add(NFTablesService, p, f)
			}
		}
	}
	if p, on := h.enabled("netfilter-persistent.service"); on {
		if f := firstWith(h, rulesV4, rulesV6); f != "" {
			add(NetfilterPersistent, p, f)
		}
	}
	for _, unit := range []string{"iptables.service", "ip6tables.service"} {
		if p, on := h.enabled(unit); on {
			if f := firstWith(h, rulesV4RHEL, rulesV6RHEL); f != "" {
				add(IPTablesServices, p, f)
				break
			}
		}
	}
	if _, ok := h.Files[csfConf]; ok {
		if ev := exact("LOCALINPUT", "LOGDROPIN"); len(ev) > 0 {
			add(CSF, append(ev, csfConf)...)
		}
	}
	if _, ok := h.Files[shorewallConf]; ok {
		if ev := append(exact("net-fw", "net2fw", "shorewall"), prefix("sw_")...); len(ev) > 0 {
			add(Shorewall, append(ev, shorewallConf)...)
		}
	}
	if _, ok := h.Files[fireholConf]; ok {
		if ev := append(prefix("in_"), prefix("in.")...); len(ev) > 0 {
			add(FireHOL, append(ev[:1], fireholConf)...)
		}
	}
	if _, ok := h.Files[apfConf]; ok {
		if ev := exact("TALLOW", "TDENY"); len(ev) > 0 {
			add(APF, append(ev, apfConf)...)
		}
	}
	if ev := table("fw4"); len(ev) > 0 {
		add(FW4, ev...)
	}
	if ev := prefix("PVEFW-"); len(ev) > 0 {
		add(PVE, ev...)
	}
	for _, g := range []struct {
		kind Kind
		ev   []string
	}{
		{Docker, prefix("DOCKER")},
		{Kubernetes, append(prefix("KUBE-"), table("kube-proxy")...)},
		{Libvirt, append(prefix("LIBVIRT_"), table("libvirt_network")...)},
		{CrowdSec, append(table("crowdsec", "crowdsec6"), prefix("CROWDSEC")...)},
		{Fail2ban, append(prefix("f2b-"), table("f2b-table")...)},
	} {
		if len(g.ev) > 0 {
			add(g.kind, g.ev[:1]...)
		}
	}
	if v, ok := h.Files[panelPort]; ok {
		add(Panel, fmt.Sprintf("%s (%s)", panelPort, strings.TrimSpace(string(v[:min(len(v), 20)]))))
	}
	return out
}

// Managers are the owners that decide about the whole ruleset.
func Managers(all []Owner) []Owner {
	return slices.DeleteFunc(slices.Clone(all), func(o Owner) bool { return !o.Kind.Manages() })
}

// Of names whose chain it is: a guest by the name of the chain, else the manager,
// else nobody.
func Of(ch *firewall.Chain, managers []Owner) Kind {
	has := func(k Kind) bool { return slices.ContainsFunc(managers, func(o Owner) bool { return o.Kind == k }) }
	n, t := ch.Name, ch.Table.Name
	begins := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(n, p) })
	}
	switch {
	case begins("DOCKER"):
		return Docker
	case begins("KUBE-") || t == "kube-proxy" || begins("cali-", "CILIUM_", "FLANNEL-"):
		return Kubernetes
	case begins("LIBVIRT_") || t == "libvirt_network":
		return Libvirt
	case begins("f2b-") || t == "f2b-table":
		return Fail2ban
	case begins("CROWDSEC") || strings.HasPrefix(t, "crowdsec"):
		return CrowdSec
	case t == "fw4":
		return FW4
	case begins("PVEFW-"):
		return PVE
	case t == "firewalld":
		return Firewalld
	case ch.Table.Backend == firewall.NFTables:
		if has(NFTablesService) {
			return NFTablesService
		}
		return Nobody
	}
	// iptables, either back end.
	for _, k := range []Kind{UFW, Firewalld, NetfilterPersistent, IPTablesServices, CSF, Shorewall, FireHOL, APF} {
		if has(k) {
			return k
		}
	}
	return Nobody
}

// setting reads NAME=value of a file of shell assignments, without running it.
func setting(data []byte, name string) string {
	value := ""
	for line := range bytes.Lines(data) {
		k, v, ok := strings.Cut(strings.TrimSpace(string(line)), "=")
		if ok && strings.TrimSpace(k) == name {
			value = strings.Trim(strings.TrimSpace(v), `"'`)
		}
	}
	return value
}

// hasRules says whether a file of nft commands makes anything.
func hasRules(data []byte) bool {
	for line := range bytes.Lines(data) {
		l := bytes.TrimSpace(line)
		if len(l) > 0 && l[0] != '#' && !bytes.HasPrefix(l, []byte("flush ruleset")) {
			return true
		}
	}
	return false
}

func firstWith(h *Host, names ...string) string {
	for _, n := range names {
		if len(bytes.TrimSpace(h.Files[n])) > 0 {
			return n
		}
	}
	return ""
}
