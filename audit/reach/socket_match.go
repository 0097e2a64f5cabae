package reach

import (
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/listeners"
)

// socketFor reads of the listener that the first packet of a flow finds at its
// present destination: whatever rules may still translate, whether or not the
// host has the address (inet_lookup, udp4_lib_lookup with the interface that the
// packet came in by). key is one of firewall.Socket…. Where several sockets are
// equally good, such as those of a SO_REUSEPORT group, they have to agree.
func (w *walk) socketFor(ns *Namespace, c *firewall.Class, key uint32) (of firewall.Known, found bool) {
	st := &c.State
	cannotTell := firewall.Known{Unknown: true}
	addr := st.Local.Addr(st.Family)
	for _, pr := range ns.Programs {
		if pr.Kind == "sk_lookup" {
			return cannotTell, true
		}
	}
	if addr.IsMulticast() {
		return cannotTell, true // udp_v4_early_demux hands such packets to their only socket
	}
	best := 0
	for _, l := range w.e.sockets(ns).byPort[portKey{st.Proto, st.LocalPort}] {
		if l.Proto == listeners.MPTCP { // what is found is a TCP socket of its own
			return cannotTell, true
		}
		if !l.Tells(listeners.FactDevice) || !l.Tells(listeners.FactV6Only) {
			return cannotTell, true
		}
		n := score(l, st.Family, addr, st.In)
		if n == 0 || n < best {
			continue
		}
		k := socketFact(l, st.Family, key)
		if n == best && k != of {
			k = cannotTell
		}
		of, found, best = k, true, n
	}
	return of, found
}

// socketFact is one fact of a listener as packets of a family see it.
func socketFact(l *listeners.Listener, f firewall.Family, key uint32) firewall.Known {
	flag := func(is bool) firewall.Known {
		if is {
			return firewall.Known{Value: 1}
		}
		return firewall.Known{}
	}
	switch key {
	case firewall.SocketTransparent: // inet_sk_transparent
		if l.Tells(listeners.FactOpts) {
			return flag(l.Transparent)
		}
	case firewall.SocketMark:
		if l.Tells(listeners.FactMark) {
			return firewall.Known{Value: l.Mark}
		}
	case firewall.SocketWildcard: // inet_rcv_saddr == 0, ipv6_addr_any(&sk_v6_rcv_saddr)
		a := l.Local.Addr()
		if f == firewall.IPv4 {
			a = a.Unmap()
		}
		return flag(a.IsUnspecified())
	}
	return firewall.Known{Unknown: true}
}
