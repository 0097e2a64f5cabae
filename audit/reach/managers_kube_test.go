package reach_test

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// kubeNames are the words of testdata/managers/kube in each family.
var kubeNames = [2][]string{
	{"FAMILY_addr", "ipv4_addr", "FAMILY", "ip", "IP ", "ip ", "LOOPBACK", "127.0.0.0/8", "CLUSTER ", "10.96.0.0/12 ", "PODS", "10.88.0.0/16",
		"(POD0)", "10.88.0.2", "(POD1)", "10.88.1.2", "(NODE)", "10.9.0.2", "POD0", "10.88.0.2", "POD1", "10.88.1.2", "NODE ", "10.9.0.2 ",
		"VIP", "10.96.0.1", "BALANCER", "203.0.113.80", "EXTERNAL ", "203.0.113.81 ", "ALLOWED", "198.51.100.0/24"},
	{"FAMILY_addr", "ipv6_addr", "FAMILY", "ip6", "IP ", "ip6 ", "LOOPBACK", "::1/128", "CLUSTER ", "fd00:96::/108 ", "PODS", "fd00:88::/32",
		"(POD0)", "[fd00:88::2]", "(POD1)", "[fd00:88:1::2]", "(NODE)", "[fd00:9::2]", "POD0", "fd00:88::2", "POD1", "fd00:88:1::2", "NODE ", "fd00:9::2 ",
		"VIP", "fd00:96::1", "BALANCER", "2001:db8:80::80", "EXTERNAL ", "2001:db8:80::81 ", "ALLOWED", "2001:db8:5::/48"},
}

// TestKubeProxy holds the model against chains as kube-proxy makes them, in its
// iptables mode (either back end) and its nftables mode: cluster, external and
// load balancer's addresses, node ports, affinity, local endpoints, services
// without endpoints and one of which half the endpoints is dead. The pods are
// real namespaces. What chance decides stays open only where it matters: where
// half the endpoints is dead, and where the host itself is masqueraded on its way
// to itself, with an address that no reading tells.
func TestKubeProxy(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft", "iptables-nft", "iptables-legacy", "conntrack")
	for _, mode := range []struct {
		name, file string
		loaders    [2]lab.Loader
	}{
		{"nft", "iptables.rules", [2]lab.Loader{lab.IPTablesNFT, lab.IP6TablesNFT}},
		{"legacy", "iptables.rules", [2]lab.Loader{lab.IPTablesLegacy, lab.IP6TablesLegacy}},
		{"nftables", "nftables.nft", [2]lab.Loader{lab.NFT, lab.NFT}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			l := managed(t, 22, 80, 443, 8080, 8443, 9090)
			text, err := os.ReadFile(recorded("kube/"+mode.file, ""))
			if err != nil {
				t.Fatal(err)
			}
			for i, names := range kubeNames {
				l.Server.Load(t, mode.loaders[i], strings.NewReplacer(names...).Replace(string(text)))
			}
			l.Server.Sysctl(t, "net.ipv4.conf.all.route_localnet", "1")
			s := &scene{name: "kube-" + mode.name, lab: l, unsure: regexp.MustCompile(`HALF0|HAL0|THREE|THR2`)}
			services := addrs("10.96.0.11", "10.96.0.13", "10.96.0.14", "10.96.0.15", "10.96.0.16", "10.96.0.17", "10.96.0.99", "203.0.113.80", "203.0.113.81",
				"fd00:96::11", "fd00:96::13", "fd00:96::14", "fd00:96::15", "fd00:96::16", "fd00:96::17", "fd00:96::99", "2001:db8:80::80", "2001:db8:80::81")
			if mode.name == "nftables" { // what no rule names is forwarded there
				services = services[:len(services)-2]
				services = append(services[:7], services[9:]...)
				services = append(services, addrs("203.0.113.80", "2001:db8:80::80")...)
			}
			nodePorts := []uint16{22, 8080, 8443, 9090, 30080, 30081, 30082, 30083, 30084, 30085, 30443}
			outside := append(addrs("198.51.100.7", "10.9.0.77", "2001:db8:5::7", "2001:db8::1"), l.ClientAddr(0), l.ClientAddr6(0))
			for _, via := range []string{"eth0", "eth1"} {
				s.probes = append(s.probes, across(lab.TCP, via, outside, services, 80)...)
				s.probes = append(s.probes, across(lab.TCP, via, outside, addrs("10.96.0.13", "fd00:96::13"), 443)...)
				s.probes = append(s.probes, across(lab.UDP, via, outside, addrs("10.96.0.12", "fd00:96::12"), 53)...)
				s.probes = append(s.probes, across(lab.TCP, via, outside, append(hostAddrs(l, 0), hostAddrs(l, 1)...), nodePorts...)...)
				s.probes = append(s.probes, across(lab.TCP, via, outside, boxAddrs(l), 80)...)
			}
			s.probes = append(s.probes, across(lab.TCP, "eth0", outside, addrs("127.0.0.1"), 22, 30080)...)
			own := append(hostAddrs(l, 0), addrs("127.0.0.1", "::1")...)
			s.probes = append(s.probes, from(l.Server, across(lab.TCP, "", own[:2], append(services, own...), 80, 443, 30080, 30083, 30084, 30085))...)
			for k, c := range l.Containers {
				pod := []netip.Addr{l.ContainerAddr(k), l.ContainerAddr6(k)}
				s.probes = append(s.probes, from(c, across(lab.TCP, "", pod, append(services, hostAddrs(l, 0)...), 80, 30080, 30083))...)
				s.probes = append(s.probes, from(c, across(lab.TCP, "", pod, addrs("10.96.0.13", "fd00:96::13"), 443))...)
				s.probes = append(s.probes, from(c, across(lab.UDP, "", pod, addrs("10.96.0.12", "fd00:96::12"), 53))...)
			}
			s.hold(t)
		})
	}
}
