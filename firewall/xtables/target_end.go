package xtables

import "github.com/hostaudit/hostaudit/firewall"

// rejects are the ICMP errors of ipt_REJECT by enum ipt_reject_with, rejects6
// those of ip6t_REJECT: type and code.
var (
	rejects = map[uint32][2]uint8{
		0: {3, 0}, // icmp-net-unreachable
		1: {3, 1}, // icmp-host-unreachable
		2: {3, 2}, // icmp-proto-unreachable
		3: {3, 3}, // icmp-port-unreachable
		5: {3, 9}, // icmp-net-prohibited
		6: {3, 10},
		8: {3, 13}, // icmp-admin-prohibited
	}
	rejects6 = map[uint32][2]uint8{
		0: {1, 0}, // icmp6-no-route
		1: {1, 1}, // icmp6-adm-prohibited
		2: {1, 2},
		3: {1, 3}, // icmp6-addr-unreachable
		4: {1, 4}, // icmp6-port-unreachable
		7: {1, 5}, // icmp6-policy-fail
		8: {1, 6}, // icmp6-reject-route
	}
)

// targetReject is reject_tg and reject_tg6.
func targetReject(cx *Context, b []byte) []firewall.Stmt {
	with := u32(b, 0)
	v6 := cx.family() == firewall.IPv6
	if !v6 && with == 7 || v6 && with == 6 {
		return one(&firewall.Reject{TCPReset: true})
	}
	of := rejects
	if v6 {
		of = rejects6
	}
	e, ok := of[with]
	if !ok {
		return one(&firewall.Opaque{Name: "REJECT", Raw: b, MayEnd: true, Reason: "a REJECT of a kind that is not known here"})
	}
	if v6 {
		return one(&firewall.Reject{V6Type: e[0], V6Code: e[1]})
	}
	return one(&firewall.Reject{V4Type: e[0], V4Code: e[1]})
}

func targetNFQueue0(_ *Context, b []byte) []firewall.Stmt { return queue(u16(b, 0), 1, false) }

func targetNFQueue1(_ *Context, b []byte) []firewall.Stmt {
	return queue(u16(b, 0), u16(b, 2), false)
}

// targetNFQueue2 is revisions 2 (bypass) and 3 (flags, of which the first is
// bypass).
func targetNFQueue2(_ *Context, b []byte) []firewall.Stmt {
	return queue(u16(b, 0), u16(b, 2), u16(b, 4)&1 != 0)
}

func queue(first, total uint16, bypass bool) []firewall.Stmt {
	last := first
	if total > 1 {
		last = uint16(min(int(first)+int(total)-1, 0xffff))
	}
	return one(&firewall.QueueTo{From: first, To: last, Bypass: bypass})
}

// targetSynproxy is synproxy_tg.
func targetSynproxy(*Context, []byte) []firewall.Stmt { return one(&firewall.SynProxy{}) }

// targetTProxy0 and targetTProxy1 are tproxy_tg4 and tproxy_tg6. Without an
// address the socket is looked for at the interface's own, without a port at
// the packet's.
func targetTProxy0(_ *Context, b []byte) []firewall.Stmt {
	return tproxy(b, firewall.Bytes(b[8:12]), be16(b, 12))
}

func targetTProxy1(cx *Context, b []byte) []firewall.Stmt {
	return tproxy(b, cx.addr(b, 8), be16(b, 24))
}

func tproxy(b []byte, addr firewall.Value, port uint16) []firewall.Stmt {
	t := &firewall.TProxy{MarkMask: u32(b, 0), MarkValue: u32(b, 4), XT: true}
	if !addr.IsZero() {
		t.Addr = firewall.Const{Value: addr}
	}
	if port != 0 {
		t.Port = number(uint64(port))
	}
	return one(t)
}

func number(v uint64) firewall.Const { return firewall.Const{Value: firewall.Num(v)} }

// targetClusterIP: the packet is dropped unless a hash gives it to this node.
func targetClusterIP(_ *Context, b []byte) []firewall.Stmt {
	return one(&firewall.Opaque{Name: "CLUSTERIP", Raw: b, MayEnd: true, Reason: "which cluster node a hash of the packet chooses (CLUSTERIP)"})
}
