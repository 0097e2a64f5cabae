package diagnose_test

import (
	"strconv"
	"testing"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// serves is the healthy field: the service listens on every address.
func serves(t *testing.T, f *field) { f.listen(t, f.server, "[::]:8080") }

// everywhere is what a cause of the server gives: sure on the server and with
// its snapshot, not to be told on the client.
func everywhere(id diagnose.ID, sees diagnose.Sees) map[place]want {
	return map[place]want{onServer: surely(id, sees), onClient: untold(sees, id), withBoth: surely(id, sees)}
}

func loads(loader lab.Loader, text string) func(t *testing.T, f *field) {
	return func(t *testing.T, f *field) { f.server.Load(t, loader, text) }
}

// TestHostFirewall: a drop at each hook, in each back end, by rule and by policy.
func TestHostFirewall(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-nft", "iptables-legacy", "ipset")
	const v4, v6 = "tcp://198.51.100.20:8080", "tcp://[2001:db8:2::20]:8080"
	const input = "table inet f { chain i { type filter hook input priority 0; policy accept; "
	for _, c := range []case_{
		{name: "nft input rule", target: v4, make: loads(lab.NFT, input+"tcp dport 8080 counter drop; }; }"), says: "in before nftables inet f i #1; never"},
		{name: "nft input policy", target: v4, make: loads(lab.NFT, "table inet f { chain i { type filter hook input priority 0; policy drop; }; }"), says: "accept tcp 8080 from 203.0.113.10 in nftables inet f i, whose policy drops what no rule accepts; never"},
		{name: "nft input rule, IPv6", target: v6, make: loads(lab.NFT, input+"tcp dport 8080 drop; }; }")},
		{name: "nft policy", target: v4, make: loads(lab.NFT, "table inet f { chain i { type filter hook input priority 0; policy drop; ct state established accept; tcp dport 22 accept; }; }")},
		{name: "nft raw prerouting", target: v4, make: loads(lab.NFT, "table inet f { chain r { type filter hook prerouting priority raw; tcp dport 8080 drop; }; }")},
		{name: "nft ingress", target: v4, make: loads(lab.NFT, "table netdev f { chain g { type filter hook ingress device eth0 priority 0; tcp dport 8080 drop; }; }")},
		{name: "nft set of banned clients", target: v4, make: loads(lab.NFT, "table inet f2b-table { set addr-set-sshd { type ipv4_addr; elements = { 203.0.113.10 }; }; chain f2b-chain { type filter hook input priority -1; ip saddr @addr-set-sshd drop; }; }"), says: "fail2ban-client set sshd unbanip 203.0.113.10"},
		{name: "iptables-nft", target: v4, make: loads(lab.IPTablesNFT, "*filter\n-A INPUT -p tcp --dport 8080 -j DROP\nCOMMIT\n")},
		{name: "ip6tables-nft", target: v6, make: loads(lab.IP6TablesNFT, "*filter\n-A INPUT -p tcp --dport 8080 -j DROP\nCOMMIT\n")},
		{name: "iptables-legacy", target: v4, make: loads(lab.IPTablesLegacy, "*filter\n-A INPUT -p tcp --dport 8080 -j DROP\nCOMMIT\n")},
		{name: "iptables-legacy raw", target: v4, make: loads(lab.IPTablesLegacy, "*raw\n-A PREROUTING -p tcp --dport 8080 -j DROP\nCOMMIT\n")},
		{name: "iptables-legacy jump, ufw's names", target: v4, make: loads(lab.IPTablesLegacy, "*filter\n:ufw-user-input -\n-A INPUT -j ufw-user-input\n-A ufw-user-input -p tcp --dport 8080 -j DROP\nCOMMIT\n")},
		{name: "ipset of banned clients", target: v4, says: "fail2ban-client set http unbanip 203.0.113.10", make: func(t *testing.T, f *field) {
			f.server.Load(t, lab.IPSet, "create f2b-http hash:ip\nadd f2b-http 203.0.113.10\n")
			f.server.Load(t, lab.IPTablesLegacy, "*filter\n-A INPUT -m set --match-set f2b-http src -j DROP\nCOMMIT\n")
		}},
	} {
		c.want = everywhere(diagnose.HostFirewall, diagnose.Timeout)
		c.prove(t)
	}
}

// TestRejected: each kind of rejection, told apart from a closed port.
func TestRejected(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-legacy")
	for _, c := range []struct {
		name, with, target string
		sees               diagnose.Sees
		reset              bool
	}{
		{"icmp-port-unreachable", "icmp-port-unreachable", "", diagnose.Refused, false},
		{"tcp-reset", "tcp-reset", "", diagnose.Refused, true},
		{"icmp-host-prohibited", "icmp-host-prohibited", "", diagnose.Unreachable, false},
		{"icmp-admin-prohibited", "icmp-admin-prohibited", "", diagnose.Unreachable, false},
		{"icmp-host-unreachable", "icmp-host-unreachable", "", diagnose.Unreachable, false},
		{"icmp-net-unreachable", "icmp-net-unreachable", "", diagnose.Unreachable, false},
		{"icmp-net-prohibited", "icmp-net-prohibited", "", diagnose.Unreachable, false},
		{"icmp-proto-unreachable", "icmp-proto-unreachable", "", diagnose.Unreachable, false},
		{"icmp6-port-unreachable", "icmp6-port-unreachable", "6", diagnose.Refused, false},
		{"icmp6-addr-unreachable", "icmp6-addr-unreachable", "6", diagnose.Unreachable, false},
		{"icmp6-no-route", "icmp6-no-route", "6", diagnose.Unreachable, false},
		{"icmp6-adm-prohibited", "icmp6-adm-prohibited", "6", diagnose.Unreachable, false},
		{"icmp6-policy-fail", "icmp6-policy-fail", "6", diagnose.Unreachable, false},
		{"icmp6-reject-route", "icmp6-reject-route", "6", diagnose.Unreachable, false},
		{"tcp-reset, IPv6", "tcp-reset", "6", diagnose.Refused, true},
	} {
		k := case_{name: c.name, target: "tcp://198.51.100.20:8080", want: everywhere(diagnose.RejectedByFirewall, c.sees)}
		loader := lab.IPTablesLegacy
		if c.target == "6" {
			k.target, loader = "tcp://[2001:db8:2::20]:8080", lab.IP6TablesLegacy
		}
		k.make = loads(loader, "*filter\n-A INPUT -p tcp --dport 8080 -j REJECT --reject-with "+c.with+"\nCOMMIT\n")
		if !c.reset { // the ICMP error names who rejects
			k.want[onClient] = surely(diagnose.RejectedByFirewall, c.sees)
		}
		k.prove(t)
	}
	k := case_{name: "nft reject", target: "tcp://198.51.100.20:8080", want: everywhere(diagnose.RejectedByFirewall, diagnose.Unreachable),
		make: loads(lab.NFT, "table inet f { chain i { type filter hook input priority 0; tcp dport 8080 reject with icmpx type admin-prohibited; }; }")}
	k.want[onClient] = surely(diagnose.RejectedByFirewall, diagnose.Unreachable)
	k.prove(t)
}

// TestRejectedInSilence: the kernel limits the rate of ICMP errors to one client,
// so that a rule that rejects looks like one that drops.
func TestRejectedInSilence(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft")
	const unreachable = 1 << 3 // ICMP_DEST_UNREACH in icmp_ratemask
	f := newField(t)
	serves(t, f)
	for _, at := range []place{onServer, withBoth} {
		clear_(t, f.ask(t, at, target, diagnose.Options{}), at)
	}
	f.server.Load(t, lab.NFT, "table inet f { chain i { type filter hook input priority 0; tcp dport 8080 reject with icmpx type admin-prohibited; }; }")
	blames(t, f.ask(t, withBoth, target, diagnose.Options{}), withBoth, diagnose.RejectedByFirewall, diagnose.Confirmed)
	f.server.Sysctl(t, "net.ipv4.icmp_ratemask", strconv.Itoa(unreachable), "net.ipv4.icmp_ratelimit", "600000")
	for i := 0; ; i++ { // until the client's share is used up
		r := f.ask(t, withBoth, target, diagnose.Options{})
		if r.ClientSees == diagnose.Unreachable && i < 20 {
			continue
		}
		if r.ClientSees != diagnose.Timeout {
			t.Fatalf("after %d connections the client sees %s", i, r.ClientSees)
		}
		blames(t, r, withBoth, diagnose.RejectedByFirewall, diagnose.Likely)
		if c := r.Cause(diagnose.CloudGroup); c.Accused() {
			t.Errorf("%s is %s\n%s", c.ID, c.Verdict, text(t, r))
		}
		keep(t, "both", r)
		break
	}
	r := f.ask(t, onServer, target, diagnose.Options{Message: "Connection timed out"})
	blames(t, r, onServer, diagnose.RejectedByFirewall, diagnose.Likely)
	// What the same client meets without the rule.
	f.server.Load(t, lab.NFT, "flush ruleset")
	clear_(t, f.ask(t, withBoth, target, diagnose.Options{}), withBoth)
}
