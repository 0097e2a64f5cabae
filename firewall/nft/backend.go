package nft

import fw "github.com/hostaudit/hostaudit/firewall"

// builtin is a chain that iptables-nft makes by itself.
type builtin struct {
	hook     fw.Hook
	priority int
	typ      fw.ChainType
}

// iptablesSecurity is the priority that iptables-nft gives the table security;
// in the legacy table and the kernel's own list it is 50.
const iptablesSecurity = 150

// builtins are the tables and chains of iptables-nft (iptables/nft.c,
// xtables_ipv4 and xtables_ipv6).
var builtins = map[string]map[string]builtin{
	"filter": {
		"INPUT":   {fw.Input, 0, fw.ChainFilter},
		"FORWARD": {fw.Forward, 0, fw.ChainFilter},
		"OUTPUT":  {fw.Output, 0, fw.ChainFilter},
	},
	"raw": {
		"PREROUTING": {fw.Prerouting, -300, fw.ChainFilter},
		"OUTPUT":     {fw.Output, -300, fw.ChainFilter},
	},
	"mangle": {
		"PREROUTING":  {fw.Prerouting, -150, fw.ChainFilter},
		"INPUT":       {fw.Input, -150, fw.ChainFilter},
		"FORWARD":     {fw.Forward, -150, fw.ChainFilter},
		"OUTPUT":      {fw.Output, -150, fw.ChainRoute},
		"POSTROUTING": {fw.Postrouting, -150, fw.ChainFilter},
	},
	"security": {
		"INPUT":   {fw.Input, iptablesSecurity, fw.ChainFilter},
		"FORWARD": {fw.Forward, iptablesSecurity, fw.ChainFilter},
		"OUTPUT":  {fw.Output, iptablesSecurity, fw.ChainFilter},
	},
	"nat": {
		"PREROUTING":  {fw.Prerouting, -100, fw.ChainNAT},
		"INPUT":       {fw.Input, 100, fw.ChainNAT},
		"OUTPUT":      {fw.Output, -100, fw.ChainNAT},
		"POSTROUTING": {fw.Postrouting, 100, fw.ChainNAT},
	},
}

// backendOf tells whether a table is one of iptables-nft: it has the name and
// only the base chains that iptables-nft makes. That is also what iptables-nft
// itself asks before it works on a table.
func backendOf(t *fw.Table) fw.Backend {
	known, ok := builtins[t.Name]
	if !ok || t.Family != fw.TableIP && t.Family != fw.TableIP6 {
		return fw.NFTables
	}
	found := false
	for _, c := range t.Chains {
		if c.Base == nil {
			continue
		}
		b := builtin{c.Base.Hook, c.Base.Priority, c.Base.Type}
		if t.Name == "security" && b.priority == fw.PrioritySecurity {
			b.priority = iptablesSecurity
		}
		if known[c.Name] != b {
			return fw.NFTables
		}
		found = true
	}
	if !found {
		return fw.NFTables
	}
	return fw.IPTablesNFT
}
