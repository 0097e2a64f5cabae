package nft

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lifted are rules of nft and what they are to the model, in the short form of
// show.
var lifted = []struct{ rule, want string }{
	{"accept", "accept"},
	{"jump sub", "jump sub"},
	{"goto sub", "goto sub"},
	{"counter drop", "inert counter; drop"},
	{"ip saddr 10.0.0.1 accept", "nfproto{0x2}; saddr{0xa000001}; accept"},
	{"ip saddr 10.0.0.0/8 accept", "nfproto{0x2}; saddr{0xa000000-0xaffffff}; accept"},
	{"ip saddr 10.0.0.0/9 accept", "nfproto{0x2}; saddr{0xa000000-0xa7fffff}; accept"},
	{"ip saddr 0.0.0.0/0 accept", "nfproto{0x2}; saddr?; accept"},
	{"ip saddr != 10.0.0.0/8 accept", "nfproto{0x2}; saddr!{0xa000000-0xaffffff}; accept"},
	{"ip saddr 10.0.0.1-10.0.0.9 accept", "nfproto{0x2}; saddr{0xa000001-0xa000009}; accept"},
	{"ip saddr != 10.0.0.1-10.0.0.9 accept", "nfproto{0x2}; saddr!{0xa000001-0xa000009}; accept"},
	{"ip saddr < 10.0.0.1 accept", "nfproto{0x2}; saddr{0x0-0xa000000}; accept"},
	{"ip saddr & 0.0.0.255 == 1 accept", "nfproto{0x2}; saddr&0xff{0x1}; accept"},
	{"ip6 saddr fe80::/10 accept", "nfproto{0xa}; saddr{0xfe800000000000000000000000000000-0xfebfffffffffffffffffffffffffffff}; accept"},
	{"ip6 daddr ff02::/16 accept", "nfproto{0xa}; daddr{0xff020000000000000000000000000000-0xff02ffffffffffffffffffffffffffff}; accept"},
	{"ip saddr { 10.0.0.1, 10.0.0.2 } accept", "nfproto{0x2}; saddr{0a000001 0a000002}; accept"},
	{"ip saddr { 10.0.0.0/8, 192.168.0.0/16 } drop", "nfproto{0x2}; saddr{0a000000-0affffff c0a80000-c0a8ffff}; drop"},
	{"ip saddr { 0.0.0.0-1.2.3.4, 255.255.255.255 } drop", "nfproto{0x2}; saddr{00000000-01020304 ffffffff}; drop"},
	{"ip saddr != @plain drop", "nfproto{0x2}; saddr!@plain; drop"},
	{"ip saddr . tcp dport { 10.0.0.1 . 22 } accept", "nfproto{0x2}; l4proto{0x6}; saddr.dport{0a00000100160000}; accept"},
	{"ip saddr . tcp dport { 10.0.0.0/8 . 22-23 } accept", "nfproto{0x2}; l4proto{0x6}; saddr.dport{0a00000000160000-0affffff00170000}; accept"},
	{"meta l4proto . th dport vmap { tcp . 53 : accept, udp . 53 : drop }", "l4proto.dport vmap {0600000000350000:accept 1100000000350000:drop}"},
	{"iifname . ip saddr { \"lo\" . 10.0.0.1 } accept", "nfproto{0x2}; iifname.saddr{6c6f00000000000000000000000000000a000001}; accept"},
	{"tcp dport 22 accept", "l4proto{0x6}; dport{0x16}; accept"},
	{"tcp dport != 22 accept", "l4proto{0x6}; dport!{0x16}; accept"},
	{"tcp dport 1-1024 accept", "l4proto{0x6}; dport{0x1-0x400}; accept"},
	{"tcp dport >= 1024 accept", "l4proto{0x6}; dport{0x400-0xffff}; accept"},
	{"tcp sport 1 tcp dport 2 accept", "l4proto{0x6}; sport{0x1}; dport{0x2}; accept"},
	{"th dport 53 accept", "dport{0x35}; accept"},
	{"tcp dport vmap { 22 : accept, 1-20 : drop }", "l4proto{0x6}; dport vmap {0001-0014:drop 0016:accept}"},
	{"tcp dport vmap { 22 : accept, * : jump sub }", "l4proto{0x6}; dport vmap {0016:accept *:jump sub}"},
	{"tcp flags & (fin|syn|rst|ack) == syn accept", "l4proto{0x6}; tcpflags&0x17{0x2}; accept"},
	{"tcp flags & (fin|syn|rst|ack) != syn accept", "l4proto{0x6}; tcpflags&0x17!{0x2}; accept"},
	{"tcp flags syn accept", "l4proto{0x6}; tcpflags&0x2!{0x0}; accept"},
	{"tcp flags == syn accept", "l4proto{0x6}; tcpflags{0x2}; accept"},
	{"icmp type echo-request accept", "nfproto{0x2}; l4proto{0x1}; icmptype{0x8}; accept"},
	{"icmp type echo-request icmp code 1 accept", "nfproto{0x2}; l4proto{0x1}; icmptype{0x8}; icmpcode{0x1}; accept"},
	{"icmpv6 type { 135, 136 } accept", "nfproto{0xa}; l4proto{0x3a}; icmptype{87 88}; accept"},
	{"ip protocol tcp tcp dport 22 accept", "nfproto{0x2}; ipproto{0x6}; dport{0x16}; accept"},
	{"meta l4proto { tcp, udp } th dport 53 accept", "l4proto{06 11}; dport{0x35}; accept"},
	{"ct state established,related accept", "ctstate&0x6!{0x0}; accept"},
	{"ct state != invalid accept", "ctstate!{0x1}; accept"},
	{"ct state vmap { established : accept, invalid : drop }", "ctstate~ vmap {01000000:drop 02000000:accept}"},
	{"ct status dnat accept", "ctstatus&0x20!{0x0}; accept"},
	{"ct mark 0x10-0x20 accept", "ctmark{0x10-0x20}; accept"},
	{"ct mark & 0xff00 == 0x100 accept", "ctmark&0xff00{0x100}; accept"},
	{"ct mark { 1, 2 } accept", "ctmark~{01000000 02000000}; accept"},
	{"ct label 5 accept", "ctlabel&0x20!{0x0}; accept"},
	{"ct direction reply accept", "ctdir{0x1}; accept"},
	{"ct original ip saddr 10.0.0.1 accept", "nfproto{0x2}; ctsaddr{0xa000001}; accept"},
	{"ct reply ip daddr 10.0.0.0/24 accept", "nfproto{0x2}; ctdaddr:1{0xa000000-0xa0000ff}; accept"},
	{"tcp dport 1 ct original proto-dst 22 accept", "l4proto{0x6}; dport{0x1}; ctdport{0x16}; accept"},
	{"ct bytes > 1000 accept", "ctbytes{0x3e9-0xffffffffffffffff}; accept"},
	{"ct mark set 5", "set ctmark 0x5"},
	{"ct mark set meta mark", "set ctmark mark"},
	{"meta mark set ct mark", "ctmark?; set mark ctmark"},
	{"meta mark set meta mark and 0xff or 0x100", "set mark mark&0xff^0x100"},
	{"ct mark set meta mark << 8", "set ctmark mark&0xffffff<<8"},
	{"meta mark set ip saddr map { 10.0.0.1 : 5 }", "nfproto{0x2}; set mark saddr map {0a000001:05000000}[0+4]"},
	{"meta mark set numgen inc mod 4", "set mark random[a counter of packets (modulo 4)]"},
	{"meta mark 5 accept", "mark{0x5}; accept"},
	{"meta mark & 0xff == 0x10 accept", "mark&0xff{0x10}; accept"},
	{"meta mark and 0xff000000 == 0x10000000 accept", "mark{0x10000000-0x10ffffff}; accept"},
	{"meta mark > 5 accept", "mark{0x6-0xffffffff}; accept"},
	{"meta mark { 1-5, 9 } accept", "mark{00000001-00000005 00000009}; accept"},
	{"iifname \"lo\" accept", "iifname{0x6c6f0000000000000000000000000000}; accept"},
	{"iifname \"eth*\" accept", "iifname{0x65746800000000000000000000000000-0x657468ffffffffffffffffffffffffff}; accept"},
	{"iifname != \"lo\" drop", "iifname!{0x6c6f0000000000000000000000000000}; drop"},
	{"iif lo accept", "iif{0x1}; accept"},
	{"skuid 1000-2000 accept", "skuid{0x3e8-0x7d0}; accept"},
	{"meta skuid { 0, 1000 } accept", "skuid~{00000000 e8030000}; accept"},
	{"meta nfproto vmap { ipv4 : accept, ipv6 : drop }", "nfproto vmap {02:accept 0a:drop}"},
	{"ip dscp cs1 accept", "nfproto{0x2}; dscp{0x8}; accept"},
	{"ip dscp < cs2 accept", "nfproto{0x2}; dscp{0x0-0xf}; accept"},
	{"ip6 dscp cs1 accept", "nfproto{0xa}; dscp{0x8}; accept"},
	{"ip ttl < 5 drop", "nfproto{0x2}; ttl{0x0-0x4}; drop"},
	{"ip frag-off & 0x1fff != 0 drop", "nfproto{0x2}; frag&0x1fff!{0x0}; drop"},
	{"ip dscp set cs3", "nfproto{0x2}; set payload 1:1+1 dscp payload@1,1,1&0x3^0x60"},
	{"ip daddr set 10.0.0.1", "nfproto{0x2}; set payload 1:16+4 daddr 0xa000001"},
	{"tcp dport set 22", "l4proto{0x6}; set payload 2:2+2 dport 0x16"},
	{"exthdr frag exists drop", "nfproto{0xa}; exthdr:44{0x1}; drop"},
	{"rt type 0 drop", "nfproto{0xa}; exthdr:43{0x1}; unknown[an IPv6 extension header of the packet]{0x0}; drop"},
	{"tcp option sack-perm exists accept", "l4proto{0x6}; tcpopt:4{0x1}; accept"},
	{"tcp option maxseg size set 1400", "l4proto{0x6}; inert tcp option"},
	{"fib daddr type local accept", "fibtype:2{0x2}; accept"},
	{"fib daddr . iif type { local, broadcast } accept", "fibtype:10~{02000000 03000000}; accept"},
	{"fib saddr . iif oif missing drop", "fibpresent:9{0x0}; drop"},
	{"fib saddr oifname \"lo\" accept", "fiboifname:1{0x6c6f0000000000000000000000000000}; accept"},
	{"socket transparent 1 accept", "socket{0x1}; accept"},
	{"rt ipsec exists accept", "ipsec{0x1}; accept"},
	{"rt ip nexthop 10.0.0.1 accept", "nfproto{0x2}; nexthop{0xa000001}; accept"},
	{"limit rate 5/minute accept", "opaque limit (a rate limit of 5/minute); accept"},
	{"quota over 1000 bytes drop", "opaque quota (a quota of 1000 bytes); drop"},
	{"ct count over 10 drop", "opaque connlimit (a limit of 10 connections at a time); drop"},
	{"log prefix \"x\" drop", "inert log; drop"},
	{"reject", "reject 3/3 1/4"},
	{"reject with tcp reset", "l4proto{0x6}; reject rst"},
	{"reject with icmp type host-prohibited", "nfproto{0x2}; reject 3/10 1/10"},
	{"reject with icmpx type admin-prohibited", "reject 3/13 1/1"},
	{"notrack", "notrack"},
	{"tcp dport 80 synproxy mss 1460", "l4proto{0x6}; dport{0x50}; synproxy"},
	{"add @dyn { ip saddr }", "nfproto{0x2}; add @dyn saddr"},
	{"update @dyn { ip saddr limit rate 5/second } drop", "nfproto{0x2}; update @dyn saddr limited by a rate limit of 5/second; drop"},
	{"counter name \"cnt\"", "inert counter"},
	{"quota name \"qt\" drop", "opaque quota (the quota qt); drop"},
	{"limit name \"lim\" accept", "opaque limit (the rate limit lim); accept"},
	{"ct helper set \"ftph\"", "set cthelper nowhere (the connection helper ftph)"},
	{"numgen random mod 10 vmap { 0-4 : accept, 5-9 : drop }", "random[chance (one of 10)] vmap {00000000-00000004:accept 00000005-00000009:drop}"},
	{"symhash mod 2 0 accept", "random[a hash of the connection's addresses and ports]{0x0}; accept"},
	{"@nh,96,32 0x0a000001 accept", "payload@1,12,4{0xa000001}; accept"},
	{"@ih,0,8 5 accept", "payload@3,0,1{0x5}; accept"},
	{"ether saddr 00:11:22:33:44:55 accept", "iiftype{0x1}; smac{0x1122334455}; accept"},
	{"meta day \"Monday\" accept", "time:1{0x1}; accept"},
	{"osf name \"Linux\" accept", "l4proto{0x6}; unknown[the operating system of the client, as its SYN shows it]{0x4c696e75780000000000000000000000}; accept"},
	{"tcp dport 80 accept comment \"web\"", "l4proto{0x6}; dport{0x50}; accept"},
}

// TestLift: what rules of nft are to the model.
func TestLift(t *testing.T) {
	needTools(t, "nft")
	inNetns(t)
	load(t, prelude("inet", ""))
	var want []string
	for _, l := range lifted {
		if out, err := tryTool("add rule inet t c "+l.rule+"\n", "nft", "-f", "-"); err != nil {
			t.Errorf("%s: %s", l.rule, out)
			continue
		}
		want = append(want, l.rule+" → "+l.want)
	}
	var got []string
	for _, c := range read(t, Options{}).Tables[0].Chains {
		for i, r := range c.Rules {
			rule := "?"
			if i < len(want) {
				rule, _, _ = strings.Cut(want[i], " → ")
			}
			got = append(got, rule+" → "+showRule(r))
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// spellings are the same rule as nft and as iptables write it, in their tables.
var spellings = []struct{ nft, iptables string }{
	{"ip saddr 10.0.0.0/8", "-s 10.0.0.0/8"},
	{"ip saddr != 10.0.0.0/9", "! -s 10.0.0.0/9"},
	{"ip daddr 10.0.0.1", "-d 10.0.0.1"},
	{"ip daddr & 255.0.255.0 == 10.0.0.0", "-d 10.0.0.0/255.0.255.0"},
	{"iifname \"lo\"", "-i lo"},
	{"iifname \"eth*\"", "-i eth+"},
	{"iifname != \"eth*\"", "! -i eth+"},
	{"oifname \"eth0\"", "-o eth0"},
	{"meta l4proto tcp", "-p tcp"},
	{"meta l4proto != tcp", "! -p tcp"},
	{"tcp dport 22", "-p tcp --dport 22"},
	{"tcp dport != 22", "-p tcp ! --dport 22"},
	{"tcp dport 22-30", "-p tcp --dport 22:30"},
	{"udp sport 53 udp dport 1024-65535", "-p udp --sport 53 --dport 1024:65535"},
	{"tcp flags & (fin|syn|rst|ack) == syn", "-p tcp --syn"},
	{"tcp flags & (fin|syn|rst|ack) != syn", "-p tcp ! --syn"},
	{"ip frag-off & 0x1fff != 0", "-f"},
	{"meta mark & 0xff == 0x1", "-m mark --mark 0x1/0xff"},
	{"meta mark != 5", "-m mark ! --mark 5"},
	{"ct state established,related", "-m conntrack --ctstate ESTABLISHED,RELATED"},
	{"meta l4proto icmp icmp type echo-request icmp code 0", "-p icmp --icmp-type 8/0"},
	{"meta pkttype broadcast", "-m pkttype --pkt-type broadcast"},
	{"fib daddr type local", "-m addrtype --dst-type LOCAL"},
}

// TestSpellings: nft and iptables decode to the same model.
func TestSpellings(t *testing.T) {
	needTools(t, "nft", "iptables-nft")
	inNetns(t)
	load(t, "add table ip n\nadd chain ip n c\n")
	tool(t, "", "iptables-nft", "-N", "c")
	for _, s := range spellings {
		load(t, "add rule ip n c "+s.nft+" counter accept")
		tool(t, "", "iptables-nft", append(append([]string{"-A", "c"}, splitWords(s.iptables)...), "-j", "ACCEPT")...)
	}
	rs := read(t, Options{})
	lists := map[string][]string{}
	for _, tab := range rs.Tables {
		for _, c := range tab.Chains {
			if c.Name != "c" {
				continue
			}
			for _, r := range c.Rules {
				lists[tab.Name] = append(lists[tab.Name], strings.ReplaceAll(showRule(r), "~", ""))
			}
		}
	}
	if len(lists["n"]) != len(spellings) || len(lists["filter"]) != len(spellings) {
		t.Fatalf("%d and %d rules of %d", len(lists["n"]), len(lists["filter"]), len(spellings))
	}
	for i, s := range spellings {
		if lists["n"][i] != lists["filter"][i] {
			t.Errorf("%s\n nft      %s\n iptables %s", s.nft, lists["n"][i], lists["filter"][i])
		}
	}
}
