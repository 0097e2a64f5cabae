package diagnose

import (
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/hostaudit/hostaudit/audit/reach"
)

// rulesOwner is who writes the rules of a chain, as its name tells.
type rulesOwner string

const (
	ownerNobody    rulesOwner = ""
	ownerUFW       rulesOwner = "ufw"
	ownerFirewalld rulesOwner = "firewalld"
	ownerFail2ban  rulesOwner = "fail2ban"
	ownerCrowdsec  rulesOwner = "crowdsec"
	ownerPanel     rulesOwner = "panel"
	ownerDocker    rulesOwner = "docker"
	ownerKube      rulesOwner = "kubernetes"
)

func ownerOf(d reach.DecidedBy) rulesOwner {
	if o := ownerByChain(d.Chain); o != ownerNobody {
		return o
	}
	switch {
	case strings.Contains(d.Text, "in_bt_"):
		return ownerPanel
	case d.Table == "firewalld":
		return ownerFirewalld
	case strings.HasPrefix(d.Table, "f2b-"), strings.Contains(d.Text, "f2b-"):
		return ownerFail2ban
	case strings.HasPrefix(d.Table, "crowdsec"), strings.Contains(d.Text, "crowdsec"):
		return ownerCrowdsec
	}
	return ownerNobody
}

func ownerByChain(chain string) rulesOwner {
	switch {
	case strings.HasPrefix(chain, "IN_BT"), strings.HasPrefix(chain, "OUT_BT"), strings.HasPrefix(chain, "FORWARD_BT"):
		return ownerPanel
	case strings.HasPrefix(chain, "ufw"):
		return ownerUFW
	case strings.HasPrefix(chain, "f2b-"):
		return ownerFail2ban
	case strings.HasPrefix(chain, "DOCKER"):
		return ownerDocker
	case strings.HasPrefix(chain, "KUBE"), strings.HasPrefix(chain, "cali-"):
		return ownerKube
	case strings.HasPrefix(strings.ToUpper(chain), "CROWDSEC"):
		return ownerCrowdsec
	}
	return ownerNobody
}

// remedy is the smallest opening in the owner's own language.
func (o rulesOwner) remedy(j *judge, f *face) string {
	port := j.e.Target.Port
	from := ""
	if j.e.From.IsValid() {
		from = j.e.From.String()
	}
	if strings.Contains(f.hook, "output") || strings.Contains(f.hook, "postrouting") {
		return fmt.Sprintf("let the answers of established connections out (ct state established,related accept) before %s", rulePlace(f.by))
	}
	switch o {
	case ownerUFW:
		if from != "" {
			return fmt.Sprintf("ufw allow from %s to any port %d proto tcp", from, port)
		}
		return fmt.Sprintf("ufw allow %d/tcp, or for the clients meant: ufw allow from NETWORK to any port %d proto tcp", port, port)
	case ownerFirewalld:
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/tcp && firewall-cmd --reload (in the zone of the interface)", port)
	case ownerFail2ban:
		return fmt.Sprintf("the address is banned: fail2ban-client set %s unbanip %s", orWord(jailOf(f.by), "JAIL"), orWord(from, "ADDRESS"))
	case ownerCrowdsec:
		return fmt.Sprintf("the address is banned: cscli decisions delete --ip %s", orWord(from, "ADDRESS"))
	case ownerPanel:
		return fmt.Sprintf("open port %d in the panel (Security); a rule added beside the panel vanishes at its next reload", port)
	case ownerDocker:
		return "the rules are Docker's: publish the port, or change DOCKER-USER"
	case ownerKube:
		return "the rules are Kubernetes': change the network policy or the service"
	}
	return opening("tcp", port, orWord(from, "the clients meant"), &f.by)
}

// opening says where rules that nobody is known to own let clients in.
func opening(proto string, port uint16, from string, by *reach.DecidedBy) string {
	if by.Kind == reach.ByPolicy && by.Chain != "" {
		return fmt.Sprintf("accept %s %d from %s in %s, whose policy drops what no rule accepts; never switch the firewall off", proto, port, from, placeName(by))
	}
	return fmt.Sprintf("let %s %d from %s in before %s; never switch the firewall off", proto, port, from, rulePlace(*by))
}

// jailNames are how fail2ban's actions name what they make for a jail: the chain
// of iptables*, the set of iptables-ipset-*, firewallcmd-ipset and nftables*
// (action.d of fail2ban 0.11 and 1.0).
var jailNames = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?:@addr6?-set-|match-set (?:f2b|fail2ban)-)([A-Za-z0-9_.-]+?)6?(?: |$)`)
})

// jailOf is the jail of fail2ban behind a rule, "" where nothing names it.
func jailOf(d reach.DecidedBy) string {
	if m := jailNames().FindStringSubmatch(d.Text); m != nil {
		return m[1]
	}
	if jail, ok := strings.CutPrefix(d.Chain, "f2b-"); ok && jail != "chain" {
		return jail
	}
	return ""
}

func orWord(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
