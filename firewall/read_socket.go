package firewall

const loopback = 772 // ARPHRD_LOOPBACK

// readSocket reads of the socket that a packet would find: nft_socket_eval and
// socket_match, which look only for packets that came in and that no socket was
// found for yet (nft_socket_do_lookup, nf_sk_lookup_slow_v4, nf_sk_lookup_slow_v6).
// What is made here carries its own socket: the modelled local client's is an
// ordinary one, without a mark, which answers over lo find, too.
func (c *Class) readSocket(f Field, env *Env) reading {
	s := &c.State
	unknown := isUnknown("the socket that the packet would find")
	switch {
	case !s.Reply && s.In == nil, s.Reply && s.In != nil && s.In.Type == loopback && s.asDialled():
		if f.A == SocketTransparent || f.A == SocketMark || f.A == SocketWildcard && s.Proto == TCP && s.FlowProto == TCP {
			return isConst(0)
		}
		return unknown
	case s.Reply && s.In == nil && s.Owner != nil && s.Proto == TCP && f.A != SocketTransparent:
		return isAbsent() // the SYN-ACK is sent by the request (tcp_make_synack), which is no full socket
	case s.Reply || s.In == nil || env.SocketFor == nil:
		return unknown
	case s.Proto == ICMP || s.Proto == ICMPv6: // extract_icmp4_fields: the socket that an error is about
		return unknown
	case s.Proto != TCP && s.Proto != UDP: // nf_sk_lookup_slow_v4 knows no other
		return isAbsent()
	case s.TProxied: // nf_tproxy_assign_sock: the packet has its socket
		return unknown
	case s.LocalUnknown || s.LocalPortUnknown || s.RewroteHeader != "":
		return unknown
	}
	k, found := env.SocketFor(c, f.A)
	switch {
	case !found:
		return isAbsent()
	case s.Following && f.A != SocketTransparent:
		// The ACK of the handshake finds the request, which has neither a mark nor
		// a wildcard address to nft (sk_fullsock) and is no wildcard to xt, and
		// what follows finds the connection. Both are as transparent as their
		// listener (tcp_conn_request: no_srccheck).
		return unknown
	}
	return isKnown(k, unknown.why)
}

// asDialled reports whether a packet has the addresses and ports that its client
// knows.
func (s *State) asDialled() bool {
	return s.Local == s.OrigLocal && s.LocalPort == s.OrigLocalPort && !s.LocalUnknown && !s.LocalPortUnknown && s.Proto == s.FlowProto &&
		s.RemoteAddrKind == s.BaseAddrKind && s.RemoteAddr == s.BaseAddr && s.RemotePortKind == s.BasePortKind && s.RemotePort == s.BasePort
}
