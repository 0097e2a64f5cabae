package reach_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// fail2banJails are the test's: one for each way that fail2ban bans.
const fail2banJails = `[DEFAULT]
filter = sshd
backend = polling
logpath = /var/log/f2b-test.log
bantime = 3600
ignoreself = false

[ssh]
enabled = true
port = 22,2222
banaction = nftables

[dns]
enabled = true
port = 53
protocol = udp
banaction = nftables-multiport[blocktype=drop]

[all]
enabled = true
protocol = tcp,udp
banaction = nftables-allports

[web]
enabled = true
port = 80,443,6000:6010
banaction = iptables-multiport

[mail]
enabled = true
banaction = iptables-allports[blocktype=DROP]
protocol = tcp

[app]
enabled = true
port = 8080,8081
banaction = iptables-ipset[type=multiport, blocktype=DROP]

[timed]
enabled = true
banaction = iptables-ipset-proto6-allports[ipsettime=86400]

[boxes]
enabled = true
port = 80
chain = FORWARD
banaction = iptables-multiport[blocktype="REJECT --reject-with icmp-host-prohibited"]
`

// fail2banBans are whom each jail bans.
var fail2banBans = map[string]string{
	"ssh": "198.51.100.7 10.9.0.77 2001:db8::1", "dns": "172.16.5.6 2001:db8:5::7", "all": "8.8.4.4 2001:db8:66::9",
	"web": "203.0.113.9 172.16.5.0/28 2001:db8::1", "mail": "203.0.113.200 fd12:3456::9", "app": "198.51.100.7 10.9.0.1 2001:db8:5::7",
	"timed": "203.0.113.77 2001:db8:6::1", "boxes": "10.9.0.77 198.51.100.8",
}

// forgiven is banned and let go again.
const forgiven = "203.0.113.201"

// TestFail2ban holds the model against the bans of the real fail2ban: its sets
// and rules of nftables, its chains of iptables in either back end, and its
// ipsets, on a host with a few rules of its own.
func TestFail2ban(t *testing.T) {
	t.Parallel()
	lab.Need(t, "fail2ban-client", "fail2ban-server", "nft", "iptables-nft", "iptables-legacy", "ipset", "conntrack")
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			l := managed(t, 22, 53, 80, 443, 2222, 6003, 8080, 8081, 9090)
			root := l.Server.ThrowAway(t, filepath.Join(t.TempDir(), "files"))
			root.IPTables(t, backend)
			root.Run(t, "rm", "-rf", "/etc/fail2ban/jail.d")
			root.Write(t, "/etc/fail2ban/jail.local", fail2banJails)
			root.Write(t, "/var/log/f2b-test.log", "")
			root.Run(t, "mkdir", "-p", "/run/fail2ban")
			root.Run(t, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "2222", "-s", "10.9.0.0/24", "-j", "ACCEPT")
			root.Run(t, "iptables", "-A", "INPUT", "-i", "eth1", "-p", "tcp", "--dport", "8081", "-j", "DROP")
			root.Run(t, "ip6tables", "-A", "INPUT", "-i", "eth1", "-p", "tcp", "--dport", "8081", "-j", "REJECT")
			root.Daemon(t, "fail2ban-server", "-xf", "start")
			client := func(args ...string) { t.Helper(); root.Run(t, append([]string{"fail2ban-client"}, args...)...) }
			waitFor(t, "fail2ban", func(ctx context.Context) error {
				_, err := l.Server.Exec(ctx, "", "chroot", root.Path, "fail2ban-client", "ping")
				return err
			})
			want := map[string]int{}
			for jail, bans := range fail2banBans {
				client(append([]string{"set", jail, "banip"}, strings.Fields(bans)...)...)
				for _, ban := range strings.Fields(bans) {
					want[ban]++
				}
			}
			client("set", "ssh", "banip", forgiven)
			client("set", "ssh", "unbanip", forgiven)
			want[forgiven] = 0
			// A jail bans in its own time.
			waitFor(t, "the bans", func(ctx context.Context) error {
				said := ""
				for _, list := range [][]string{{"nft", "list", "table", "inet", "f2b-table"}, {"iptables-save"}, {"ip6tables-save"}, {"ipset", "list"}} {
					out, err := l.Server.Exec(ctx, "", append([]string{"chroot", root.Path}, list...)...)
					if err != nil {
						return err
					}
					said += out
				}
				words := strings.FieldsFunc(said, func(r rune) bool { return strings.ContainsRune(" ,\n\t", r) })
				have := map[string]int{}
				for _, w := range words {
					have[strings.TrimSuffix(strings.TrimSuffix(w, "/32"), "/128")]++
				}
				for ban, n := range want {
					if have[ban] < n || n == 0 && have[ban] > 0 {
						return fmt.Errorf("%s is banned %d times, want %d", ban, have[ban], n)
					}
				}
				return nil
			})
			s := &scene{name: "fail2ban-" + backend, lab: l}
			outside := append(addrs("198.51.100.7", "198.51.100.8", "172.16.5.6", "203.0.113.9", "203.0.113.77", "203.0.113.200", "203.0.113.201", "8.8.4.4", "10.9.0.77",
				"2001:db8::1", "2001:db8:5::7", "2001:db8:6::1", "2001:db8:66::9", "fd12:3456::9"), l.ClientAddr(0), l.ClientAddr6(0))
			for _, via := range []string{"eth0", "eth1"} {
				s.probes = append(s.probes, across(lab.TCP, via, outside, hostAddrs(l, 0), 22, 53, 80, 443, 2222, 6003, 8080, 8081, 9090, 9)...)
				s.probes = append(s.probes, across(lab.UDP, via, outside, hostAddrs(l, 0), 53, 80)...)
			}
			s.probes = append(s.probes, across(lab.TCP, "eth0", outside, boxAddrs(l)[:2], 80)...)
			s.probes = append(s.probes, inside(l, 22, 8080)...)
			s.hold(t)
		})
	}
}
