package reach_test

import (
	"path/filepath"
	"regexp"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// managed is a host with two links to the clients, two containers behind it and
// services on every port that the managers' rules name.
func managed(t testing.TB, ports ...uint16) *lab.Lab {
	t.Helper()
	l := lab.New(t, lab.Topology{Links: 2, Containers: 2})
	l.Server.Sysctl(t, "net.ipv4.ip_forward", "1", "net.ipv6.conf.all.forwarding", "1")
	l.Server.Listen(t, everywhere(ports...)...)
	for _, c := range l.Containers {
		c.Listen(t, everywhere(80, 443)...)
	}
	var control []lab.Probe
	for _, port := range ports {
		control = append(control, dial(lab.TCP, l.ClientAddr(0), l.ServerAddr(0), port), dial(lab.UDP, l.ClientAddr6(0), l.ServerAddr6(1), port))
	}
	for k := range l.Containers {
		control = append(control, dial(lab.TCP, l.ClientAddr(0), l.ContainerAddr(k), 80), dial(lab.UDP, l.ClientAddr6(0), l.ContainerAddr6(k), 443))
	}
	l.Control(t, control...)
	return l
}

// TestUFW holds the model against the rules of the real ufw, in both back ends
// of iptables: networks, limits, denials and rejections, interfaces, IPv6, a
// profile of an application, ranges, routed traffic and an operator's own lines
// in before.rules.
func TestUFW(t *testing.T) {
	t.Parallel()
	lab.Need(t, "ufw", "iptables-nft", "iptables-legacy", "conntrack")
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			l := managed(t, 22, 53, 80, 443, 2222, 3478, 5222, 6003, 8080, 8081, 9000, 9090)
			root := l.Server.ThrowAway(t, filepath.Join(t.TempDir(), "files"))
			root.IPTables(t, backend)
			root.Write(t, "/etc/ufw/applications.d/chat", "[Chat]\ntitle=Chat\ndescription=A chat\nports=5222,5223/tcp|3478/udp\n")
			root.Edit(t, "/etc/ufw/before.rules", "*filter\n", `*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp --dport 8888 -j DNAT --to-destination 10.88.0.2:80
-A PREROUTING -i eth1 -p tcp --dport 8889 -j REDIRECT --to-ports 80
COMMIT
*filter
`)
			root.Edit(t, "/etc/ufw/before.rules", "# don't delete the 'COMMIT'", "-A ufw-before-input -p tcp --dport 9090 -s 203.0.113.0/24 -j ACCEPT\n# don't delete the 'COMMIT'")
			for _, rule := range [][]string{
				{"allow", "22/tcp"},
				{"limit", "2222/tcp"},
				{"deny", "from", "198.51.100.0/24", "to", "any", "port", "80"},
				{"allow", "80/tcp", "comment", "the web"},
				{"allow", "from", "10.9.0.0/24", "to", "any", "port", "8080", "proto", "tcp"},
				{"allow", "from", "2001:db8:5::/48", "to", "any", "port", "8080"},
				{"reject", "from", "172.16.5.0/28", "to", "any", "port", "8081", "proto", "tcp"},
				{"allow", "8081"},
				{"allow", "in", "on", "eth1", "to", "any", "port", "443", "proto", "tcp"},
				{"deny", "in", "on", "eth0", "to", "any", "port", "53"},
				{"allow", "53"},
				{"allow", "Chat"},
				{"allow", "proto", "tcp", "to", "any", "port", "6000:6007,7000"},
				{"allow", "proto", "tcp", "from", "any", "to", "10.9.1.2", "port", "9000"},
				{"allow", "log", "from", "8.8.4.4"},
				{"route", "allow", "in", "on", "eth0", "out", "on", "ctr0", "to", "10.88.0.2", "port", "80", "proto", "tcp"},
				{"route", "reject", "from", "203.0.113.0/24", "to", "10.88.1.2"},
				{"route", "limit", "in", "on", "eth1", "to", "10.88.1.2", "port", "443", "proto", "tcp"},
				{"route", "allow", "to", "fd00:88:1::2", "port", "443", "proto", "udp"},
			} {
				root.Run(t, append([]string{"ufw"}, rule...)...)
			}
			root.Run(t, "ufw", "prepend", "deny", "from", "203.0.113.200")
			root.Run(t, "ufw", "logging", "medium")
			root.Run(t, "ufw", "--force", "enable")

			s := &scene{name: "ufw-" + backend, lab: l, unsure: regexp.MustCompile(`recent|-m limit`)}
			outside := append(addrs("198.51.100.7", "172.16.5.6", "203.0.113.9", "203.0.113.200", "8.8.4.4", "2001:db8:5::7", "2001:db8::1"), l.ClientAddr(0), l.ClientAddr6(0))
			for _, via := range []string{"eth0", "eth1"} {
				s.probes = append(s.probes, across(lab.TCP, via, outside, append(hostAddrs(l, 0), hostAddrs(l, 1)[0]),
					22, 53, 80, 443, 2222, 5222, 5223, 6003, 8080, 8081, 8888, 8889, 9000, 9090)...)
				s.probes = append(s.probes, across(lab.UDP, via, outside, hostAddrs(l, 0), 22, 53, 80, 3478, 5222, 8081)...)
				s.probes = append(s.probes, across(lab.TCP, via, outside, boxAddrs(l), 80, 443)...)
				s.probes = append(s.probes, across(lab.UDP, via, outside, boxAddrs(l), 443)...)
			}
			s.probes = append(s.probes, inside(l, 22, 8080, 8888, 9)...)
			s.hold(t)
		})
	}
}
