package reach_test

import (
	"context"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// firewalldFiles are the zones, policies, sets and services of the test.
var firewalldFiles = map[string]string{
	"services/chat.xml": `<service><short>chat</short><port protocol="tcp" port="5222-5223"/><port protocol="udp" port="3478"/></service>`,
	"services/here.xml": `<service><short>here</short><port protocol="tcp" port="9000"/><destination ipv4="10.9.1.2"/></service>`,
	"ipsets/guests.xml": `<ipset type="hash:net"><entry>172.16.5.0/29</entry><entry>203.0.113.9</entry></ipset>`,
	"ipsets/bad.xml":    `<ipset type="hash:ip"><entry>8.8.4.4</entry></ipset>`,
	"ipsets/bad6.xml":   `<ipset type="hash:net"><option name="family" value="inet6"/><entry>2001:db8:66::/48</entry></ipset>`,
	"ipsets/pairs.xml":  `<ipset type="hash:ip,port"><entry>203.0.113.77,tcp:9090</entry></ipset>`,
	// The default zone, with the first link.
	"zones/public.xml": `<zone><short>Public</short>
		<interface name="eth0"/>
		<service name="ssh"/><service name="chat"/><service name="here"/>
		<port port="8080" protocol="tcp"/><port port="6000-6010" protocol="tcp"/>
		<source-port port="4242" protocol="tcp"/>
		<forward-port port="8888" protocol="tcp" to-port="80" to-addr="10.88.0.2"/>
		<forward-port port="8889" protocol="tcp" to-port="80"/>
		<masquerade/>
		<icmp-block name="echo-request"/>
		<rule family="ipv4"><source address="198.51.100.0/24"/><reject/></rule>
		<rule family="ipv4"><source address="203.0.113.200/32"/><port port="8080" protocol="tcp"/><drop/></rule>
		<rule family="ipv4"><source address="203.0.113.201"/><service name="ssh"/><reject type="icmp-admin-prohibited"/></rule>
		<rule family="ipv6"><source address="2001:db8:5::/48"/><port port="443" protocol="tcp"/><accept/></rule>
		<rule family="ipv6"><source address="2001:db8:6::/48" invert="true"/><port port="8443" protocol="tcp"/><accept/></rule>
		<rule><port port="2222" protocol="tcp"/><accept><limit value="2/m"/></accept></rule>
		<rule priority="-10" family="ipv4"><source address="198.51.100.5"/><accept/></rule>
		<rule priority="10"><port port="6005" protocol="tcp"/><reject/></rule>
		<rule priority="32767"><port port="9090" protocol="tcp"/><log prefix="late "/><drop/></rule>
		<rule family="ipv4"><source ipset="pairs"/><accept/></rule>
		<rule family="ipv4"><source address="10.9.0.77"/><forward-port port="8890" protocol="tcp" to-port="443" to-addr="10.88.1.2"/></rule>
	</zone>`,
	// The second link.
	"zones/internal.xml": `<zone><short>Internal</short><interface name="eth1"/><service name="ssh"/><port port="53" protocol="udp"/><port port="80" protocol="tcp"/><forward/></zone>`,
	"zones/dmz.xml":      `<zone target="%%REJECT%%"><short>DMZ</short><interface name="ctr0"/><port port="22" protocol="tcp"/><forward/></zone>`,
	"zones/boxes.xml":    `<zone target="DROP"><short>Boxes</short><interface name="ctr1"/><port port="22" protocol="tcp"/></zone>`,
	// By source, whatever the link.
	"zones/guests.xml":  `<zone target="ACCEPT"><short>Guests</short><source ipset="guests"/><source address="fd12:3456::/64"/><rule family="ipv4"><port port="53" protocol="udp"/><reject/></rule></zone>`,
	"zones/badlist.xml": `<zone target="DROP"><short>Bad</short><source ipset="bad"/><source ipset="bad6"/><port port="80" protocol="tcp"/></zone>`,
	"policies/todmz.xml": `<policy target="CONTINUE" priority="-5"><ingress-zone name="public"/><ingress-zone name="internal"/><egress-zone name="dmz"/>
		<port port="443" protocol="tcp"/><rule family="ipv4"><source address="203.0.113.0/25"/><port port="80" protocol="tcp"/><reject/></rule><rule family="ipv6"><port port="80" protocol="tcp"/><accept/></rule></policy>`,
	"policies/tobox.xml":  `<policy target="ACCEPT" priority="5"><ingress-zone name="internal"/><egress-zone name="boxes"/><rule family="ipv4"><source address="198.51.100.7"/><drop/></rule></policy>`,
	"policies/tohost.xml": `<policy target="CONTINUE" priority="-1"><ingress-zone name="ANY"/><egress-zone name="HOST"/><rule><port port="8081" protocol="tcp"/><accept/></rule><rule family="ipv4"><source address="203.0.113.77"/><port port="22" protocol="tcp"/><reject type="tcp-reset"/></rule></policy>`,
	"policies/out.xml":    `<policy target="ACCEPT" priority="-1"><ingress-zone name="HOST"/><egress-zone name="dmz"/><rule family="ipv4"><port port="443" protocol="tcp"/><reject/></rule></policy>`,
}

// TestFirewalld holds the model against the rules of the real firewalld, with
// each of its back ends: zones of interfaces, of networks and of sets, services,
// rich rules, priorities, limits, forwarded ports, masquerading, policies, and
// its check of the way back of IPv6.
func TestFirewalld(t *testing.T) {
	t.Parallel()
	lab.Need(t, "firewalld", "firewall-cmd", "dbus-daemon", "nft", "iptables-nft", "ipset", "conntrack")
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			l := managed(t, 22, 53, 80, 443, 2222, 3478, 5222, 6003, 6005, 8080, 8081, 8443, 9000, 9090)
			root := l.Server.ThrowAway(t, filepath.Join(t.TempDir(), "files"))
			root.IPTables(t, "nft")
			root.Edit(t, "/etc/firewalld/firewalld.conf", "FirewallBackend=nftables", "FirewallBackend="+backend)
			for name, text := range firewalldFiles {
				root.Write(t, "/etc/firewalld/"+name, `<?xml version="1.0" encoding="utf-8"?>`+"\n"+text+"\n")
			}
			root.Run(t, "firewall-offline-cmd", "--check-config")
			root.Run(t, "mkdir", "-p", "/run/dbus")
			root.Daemon(t, "dbus-daemon", "--system", "--nofork", "--nopidfile")
			root.Daemon(t, "firewalld", "--nofork", "--nopid")
			waitFor(t, "firewalld", func(ctx context.Context) error {
				_, err := l.Server.Exec(ctx, "", "chroot", root.Path, "firewall-cmd", "--state")
				return err
			})
			root.Run(t, "firewall-cmd", "--add-rich-rule", `rule family="ipv4" source address="203.0.113.9/32" port port="443" protocol="tcp" drop`)

			s := &scene{name: "firewalld-" + backend, lab: l, unsure: regexp.MustCompile(`limit`)}
			outside := append(addrs("198.51.100.7", "198.51.100.5", "172.16.5.6", "172.16.5.9", "203.0.113.9", "203.0.113.77", "203.0.113.200", "203.0.113.201", "8.8.4.4", "10.9.0.77",
				"2001:db8:5::7", "2001:db8:6::1", "2001:db8:66::9", "fd12:3456::9"), l.ClientAddr(0), l.ClientAddr6(0))
			for _, via := range []string{"eth0", "eth1"} {
				s.probes = append(s.probes, across(lab.TCP, via, outside, hostAddrs(l, 0),
					22, 53, 80, 443, 2222, 5222, 5223, 6003, 6005, 8080, 8081, 8443, 8888, 8889, 8890, 9000, 9090)...)
				s.probes = append(s.probes, across(lab.TCP, via, outside, hostAddrs(l, 1), 22, 9000)...)
				s.probes = append(s.probes, across(lab.UDP, via, outside, hostAddrs(l, 0), 53, 80, 3478)...)
				s.probes = append(s.probes, across(lab.TCP, via, outside, boxAddrs(l), 80, 443)...)
				s.probes = append(s.probes, across(lab.UDP, via, outside, boxAddrs(l), 443)...)
			}
			// A rule asks for the source port, so that without one nothing is sure.
			for i := range s.probes {
				s.probes[i].FromPort = 40000 + uint16(s.probes[i].Via[3]-'0')
			}
			for _, port := range []uint16{443, 8080, 9} {
				p := dial(lab.TCP, l.ClientAddr(0), l.ServerAddr(0), port)
				p.FromPort = 4242
				s.probes = append(s.probes, p)
			}
			s.probes = append(s.probes, inside(l, 22, 8080, 8888, 9)...)
			s.hold(t)
		})
	}
}
