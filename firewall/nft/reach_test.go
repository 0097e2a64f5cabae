package nft

import (
	"strings"
	"testing"
)

// TestNetmapInUserChain: NETMAP translates the destination or the source as the
// hooks that reach its chain say.
func TestNetmapInUserChain(t *testing.T) {
	needTools(t, "iptables-nft")
	inNetns(t)
	for _, args := range []string{
		"-N dst", "-N deeper", "-N src", "-N both",
		"-A PREROUTING -j dst", "-A dst -j deeper", "-A deeper -j NETMAP --to 10.1.0.0/24",
		"-A POSTROUTING -g src", "-A src -j NETMAP --to 10.2.0.0/24",
		"-A PREROUTING -j both", "-A POSTROUTING -j both", "-A both -j NETMAP --to 10.3.0.0/24",
	} {
		tool(t, "", "iptables-nft", append([]string{"-t", "nat"}, strings.Fields(args)...)...)
	}
	got := map[string]string{}
	for _, c := range read(t, Options{}).Tables[0].Chains {
		for _, r := range c.Rules {
			got[c.Name] = showRule(r)
		}
	}
	for chain, want := range map[string]string{"deeper": "dnat", "src": "snat", "both": "OPAQUE NETMAP"} {
		if !strings.Contains(got[chain], want) {
			t.Errorf("chain %s: %s, not %s", chain, got[chain], want)
		}
	}
}
