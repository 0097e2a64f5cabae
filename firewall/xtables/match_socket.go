package xtables

import "github.com/hostaudit/hostaudit/firewall"

// Options of xt_owner (XT_OWNER_*).
const (
	ownerUID = 1 << iota
	ownerGID
	ownerSocket
	ownerSupplGroups
)

// matchOwner is owner_mt: without a socket the packet matches when every option
// used is inverted.
func matchOwner(_ *Context, b []byte) []firewall.Stmt {
	match, invert := b[16], b[17]
	absent := match == invert
	every := firewall.All(4)
	var to []firewall.Stmt
	add := func(k firewall.FieldKind, in firewall.Ranges, inv bool) {
		m := isHost(k, 4, in, inv)
		m.WantAbsent = absent
		to = append(to, m)
	}
	if match&ownerSocket != 0 {
		if invert&ownerSocket != 0 {
			add(firewall.FieldSKUID, nil, false)
		} else {
			add(firewall.FieldSKUID, every, false)
		}
	}
	if match&ownerUID != 0 {
		add(firewall.FieldSKUID, span(uint64(u32(b, 0)), uint64(u32(b, 4))), invert&ownerUID != 0)
	}
	if match&ownerGID != 0 {
		in := span(uint64(u32(b, 8)), uint64(u32(b, 12)))
		if match&ownerSupplGroups == 0 {
			add(firewall.FieldSKGID, in, invert&ownerGID != 0)
		} else {
			to = append(to, ownerGroups(in, invert&ownerGID != 0, absent)...)
		}
	}
	if len(to) == 0 {
		add(firewall.FieldSKUID, every, false)
	}
	return to
}

// ownerGroups matches the group of the socket or one of its supplementary
// groups, which cannot be told.
func ownerGroups(in firewall.Ranges, invert, absent bool) []firewall.Stmt {
	present := isHost(firewall.FieldSKGID, 4, firewall.All(4), false)
	present.WantAbsent = absent
	missing := isHost(firewall.FieldSKGID, 4, nil, false)
	missing.WantAbsent = true
	group := &firewall.AnyOf{Invert: invert, Of: []firewall.Matcher{
		isHost(firewall.FieldSKGID, 4, in, false),
		unknown("the supplementary groups of the socket's owner"),
	}}
	return []firewall.Stmt{present, &firewall.AnyOf{Of: []firewall.Matcher{missing, group}}}
}

// Flags of xt_socket (XT_SOCKET_*).
const (
	socketTransparent = 1 << iota
	socketNoWildcard
	socketRestoreMark
)

func matchSocket0(cx *Context, _ []byte) []firewall.Stmt {
	return matchSocket(cx, []byte{0})
}

// matchSocket is socket_match. Without NoWildcard (`--nowildcard`) sockets that
// listen on any address do not count.
func matchSocket(_ *Context, b []byte) []firewall.Stmt {
	flags := b[0]
	field := func(key uint32, in firewall.Ranges) *firewall.Match {
		m := is(firewall.FieldSocket, 1, in, false)
		m.Operand.Field.A = key
		return m
	}
	var to []firewall.Stmt
	switch {
	case flags&socketTransparent != 0:
		to = append(to, field(firewall.SocketTransparent, span(1, 1)))
	default:
		to = append(to, field(firewall.SocketTransparent, firewall.All(1)))
	}
	if flags&socketNoWildcard == 0 {
		to = append(to, field(firewall.SocketWildcard, span(0, 0)))
	}
	if flags&socketRestoreMark != 0 {
		mark := firewall.Plain(firewall.FieldSocket, 4)
		mark.Field.A, mark.HostOrder = firewall.SocketMark, true
		to = append(to, &firewall.SetField{Kind: firewall.FieldMark, From: &firewall.FromField{Operand: mark}})
	}
	return to
}

func matchCgroup0(_ *Context, b []byte) []firewall.Stmt {
	return cgroup("whether the socket's net_cls class is 0x%x", u32(b, 0))
}

func matchCgroup1(_ *Context, b []byte) []firewall.Stmt {
	return cgroupOrClass(b[0] != 0, b[4:4100], u32(b, 4100))
}

func matchCgroup2(_ *Context, b []byte) []firewall.Stmt {
	return cgroupOrClass(b[0] != 0, b[4:516], u32(b, 4))
}

func cgroupOrClass(hasPath bool, path []byte, class uint32) []firewall.Stmt {
	if hasPath {
		return cgroup("whether the socket is of the control group %s", cstring(path))
	}
	return cgroup("whether the socket's net_cls class is 0x%x", class)
}

// cgroup matches nothing without a socket, inverted or not (cgroup_mt_v0).
func cgroup(format string, of any) []firewall.Stmt {
	m := isHost(firewall.FieldCgroup, 4, firewall.All(4), false)
	return []firewall.Stmt{m, cannotTell("cgroup", format, of)}
}
