package firewall

// TCP flags of the packets that the model walks (RFC 9293).
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagPSH = 0x08
	flagACK = 0x10
)

// First returns the state of the first packet of a flow from the remote peer to
// local:port of this side: a plain TCP SYN, or a datagram.
func First(f Family, p Proto, local Value, port uint16) State {
	s := State{Family: f, Proto: p, FlowProto: p, Local: local, LocalPort: port, OrigLocal: local, OrigLocalPort: port}
	if p == TCP {
		s.TCPFlags = flagSYN
	}
	return s
}

// Enter returns the state of a packet that comes into another network namespace
// by a link: what belonged to the old one is gone (skb_scrub_packet), and the
// addresses it has now are the original ones there.
func (s State) Enter(in *Link) State {
	n := State{Family: s.Family, Proto: s.Proto, FlowProto: s.Proto, Reply: s.Reply, In: in,
		RemoteAddrKind: s.RemoteAddrKind, RemoteAddr: s.RemoteAddr, RemotePortKind: s.RemotePortKind, RemotePort: s.RemotePort,
		BaseAddrKind: s.RemoteAddrKind, BaseAddr: s.RemoteAddr, BasePortKind: s.RemotePortKind, BasePort: s.RemotePort,
		Local: s.Local, LocalPort: s.LocalPort, LocalUnknown: s.LocalUnknown, LocalPortUnknown: s.LocalPortUnknown,
		OrigLocal: s.Local, OrigLocalPort: s.LocalPort,
		TCPFlags: s.TCPFlags, ICMPType: s.ICMPType, ICMPCode: s.ICMPCode, RewroteHeader: s.RewroteHeader, DSCPSet: s.DSCPSet}
	return n
}

// AnswerKind is what this host answers a first packet with.
type AnswerKind uint8

// The kinds of answer.
const (
	AnswerData        AnswerKind = iota // SYN-ACK, or a datagram from the same socket
	AnswerReset                         // the RST of a closed port
	AnswerRejectReset                   // the RST of a reject rule
	AnswerICMP                          // an ICMP error, of a rule or of the routing
	AnswerNoSocket                      // the ICMP error for a datagram that no socket takes
)

// Answer returns the state of the answer to the packet with state s, as it
// enters the output hook of the namespace it is made in. typ and code are those
// of AnswerICMP.
//
// The SYN-ACK, the datagram and a closed port's RST find their connection when
// conntrack sees them: ESTABLISHED. So does the ICMP error for a datagram that
// no socket takes (udp_rcv lets go of the connection first): RELATED. A reject
// rule's RST and every other ICMP error have it attached before any chain sees
// them (nf_ct_attach): RELATED. Without a connection the
// former are INVALID (a datagram: NEW), the latter INVALID as well.
func (s State) Answer(kind AnswerKind, typ, code uint8) State {
	a := s
	a.Reply = true
	a.In, a.Out = nil, nil
	a.Mark, a.Priority = Known{}, Known{}
	a.PktType = 0
	a.TProxied, a.Reroute, a.Routed, a.DSCPSet = false, false, false, false
	a.Owner, a.OwnerUnknown = nil, false
	switch kind {
	case AnswerData, AnswerReset:
		a.CTStatus |= CTStatusSeenReply | CTStatusConfirmed
	case AnswerNoSocket:
		// Of an ICMP error the flow sees no reply (nf_conntrack_in: only
		// IP_CT_ESTABLISHED_REPLY sets IPS_SEEN_REPLY).
		a.CTStatus |= CTStatusConfirmed
	case AnswerRejectReset, AnswerICMP: // attached to a flow as the packet left it
	}
	a.CTState = 0
	a.RewroteHeader = ""
	a.HopLimit, a.ShortWay = 0, false
	if kind == AnswerData || kind == AnswerReset || kind == AnswerNoSocket || !s.tracked() {
		a.CTZone, a.ZoneDir, a.Template = 0, 0, false
	}
	tracked := s.tracked()
	switch kind {
	case AnswerData:
		a.Expect = CTEstablished
		if s.Proto == TCP {
			a.TCPFlags = flagSYN | flagACK
		}
	case AnswerReset:
		a.Expect = CTEstablished
		a.TCPFlags = flagRST | flagACK
	case AnswerRejectReset:
		a.TCPFlags = flagRST | flagACK
		if tracked {
			a.CTState = CTRelated
		}
	case AnswerICMP, AnswerNoSocket:
		a.Proto = ICMP
		if s.Family == IPv6 {
			a.Proto = ICMPv6
		}
		a.TCPFlags = 0
		a.ICMPType, a.ICMPCode = typ, code
		a.Expect = CTRelated
		if tracked && kind == AnswerICMP {
			a.CTState = CTRelated
		}
	}
	if !tracked {
		a.CTStatus = 0
		a.CTMark = Known{}
		a.Expect = CTInvalid
		if s.Proto == UDP && kind == AnswerData {
			a.Expect = CTNew
			a.DstNATInit, a.SrcNATInit = false, false
		}
	}
	return a
}

// Returned returns the state of an answer that comes back into a namespace by
// link in, where the first packet left it with state s.
func (s State) Returned(answer State, in *Link) State {
	a := s.Answer(AnswerData, 0, 0)
	a.Proto, a.TCPFlags, a.ICMPType, a.ICMPCode = answer.Proto, answer.TCPFlags, answer.ICMPType, answer.ICMPCode
	a.In = in
	if answer.Proto != s.Proto && a.Expect == CTEstablished {
		a.Expect = CTRelated // an ICMP error about the flow
		a.CTStatus = a.CTStatus&^CTStatusSeenReply | s.CTStatus&CTStatusSeenReply
	}
	return a
}

// Later returns the state of the client's next packets of a TCP connection, the
// ACK that completes the handshake and what it sends then, as they come into the namespace by link in
// (nil: they are made there). s is the state that the SYN had when it left the
// namespace or met its socket; answerTracked tells whether the SYN-ACK found the
// connection there.
//
// The ACK is ESTABLISHED and gets the translation of the flow. To a connection
// whose SYN-ACK was exempt from tracking it is INVALID (tcp_conntracks: sSS, an
// ACK of the original direction); where the SYN was exempt it is the first that
// conntrack sees of the flow: NEW with nf_conntrack_tcp_loose.
func (s State) Later(in *Link, answerTracked bool) State {
	a := State{Family: s.Family, Proto: s.Proto, FlowProto: s.Proto, In: in, TCPFlags: flagACK, Following: true, OwnerUnknown: true,
		RemoteAddrKind: s.BaseAddrKind, RemoteAddr: s.BaseAddr, RemotePortKind: s.BasePortKind, RemotePort: s.BasePort,
		BaseAddrKind: s.BaseAddrKind, BaseAddr: s.BaseAddr, BasePortKind: s.BasePortKind, BasePort: s.BasePort,
		Local: s.OrigLocal, LocalPort: s.OrigLocalPort, OrigLocal: s.OrigLocal, OrigLocalPort: s.OrigLocalPort,
		FlowZone: s.FlowZone, FlowZoneDir: s.FlowZoneDir, RewroteHeader: s.RewroteHeader, touched: s.touched}
	switch {
	case !s.tracked():
		a.Expect = CTNew
	case !answerTracked:
		a.Expect = CTInvalid
	default:
		a.Expect = CTEstablished
		a.CTStatus = s.CTStatus | CTStatusSeenReply | CTStatusConfirmed | CTStatusAssured // nf_conntrack_tcp_packet
		a.CTMark, a.CTHelper, a.CTLabelled = s.CTMark, s.CTHelper, s.CTLabelled
		a.DstNATInit, a.SrcNATInit = true, true
		if s.CTStatus&(CTStatusDstNAT|CTStatusSrcNAT) != 0 {
			a.flow = &s
		}
	}
	return a
}

// Acknowledging returns the state of what follows a SYN-ACK, out by a link.
func (s State) Acknowledging(out *Link) State {
	s.TCPFlags, s.Out, s.Routed = flagACK, out, true
	s.CTStatus |= CTStatusAssured
	return s
}

// ZoneDir says for which directions of a connection its zone counts; 0 is both.
type ZoneDir uint8

// The directions of a zone (NF_CT_ZONE_DIR_ORIG, NF_CT_ZONE_DIR_REPL).
const (
	ZoneOriginal ZoneDir = 1
	ZoneReply    ZoneDir = 2
	// ZoneSame, of a flow: its packets are always looked for in its own zone.
	ZoneSame ZoneDir = 4
)

// zoneFor is nf_ct_zone_id: the zone of a packet of one direction.
func zoneFor(zone uint16, dir ZoneDir, reply bool) uint16 {
	if dir == ZoneOriginal && reply || dir == ZoneReply && !reply {
		return 0
	}
	return zone
}

// template chooses the zone that conntrack is to use for the packet; the first
// choice stands (a packet that has a connection or a template is left alone), but
// to nft (nft_ct_set_zone_eval) an untracked packet has none, to x_tables
// (xt_ct_target) it has.
func (s *State) template(zone uint16, dir ZoneDir, nft bool) bool {
	if s.CTState == CTUntracked && nft {
		s.CTState = 0
	}
	if s.CTState != 0 || s.Template {
		return false
	}
	s.Template, s.CTZone, s.ZoneDir = true, zone, dir
	return true
}

// otherWayTaken reports whether the flow that the packet would begin in its own
// zone has an answer that the table already holds, in the zone that counts for
// that direction (__nf_conntrack_confirm, nf_ct_key_equal).
func (s *State) otherWayTaken() bool {
	was := zoneFor(s.FlowZone, s.FlowZoneDir, !s.Reply)
	if s.Reply { // the answer to it is the first packet of the flow
		return was == zoneFor(s.CTZone, s.ZoneDir, true) && was == zoneFor(s.CTZone, s.ZoneDir, false)
	}
	return was == zoneFor(s.CTZone, s.ZoneDir, true)
}

// stranger makes of a later packet of a flow, in whose zone conntrack does not
// find it, what it is there: an answer to nothing, or the first of a flow.
func (s *State) stranger() {
	was := *s
	defer func() {
		if s.Expect == CTInvalid {
			s.found = &was
		}
	}()
	s.CTStatus, s.CTMark, s.CTHelper, s.CTLabelled = 0, Known{}, "", false
	s.DstNATInit, s.SrcNATInit, s.flow = false, false, nil
	switch {
	case s.Proto == UDP, s.Proto == TCP && !s.Reply && !s.TCPStrict:
		s.Expect = CTNew // tcp_new: with nf_conntrack_tcp_loose an ACK starts a flow
	default:
		s.Expect = CTInvalid // tcp_conntracks: sNO and a SYN-ACK or RST; icmp_error_message
	}
}

// Again prepares a packet that comes in by lo, after it went out there: conntrack
// looks once more at what it found invalid (nf_conntrack_in: nothing is attached).
func (s *State) Again() {
	if s.CTState != CTInvalid {
		return
	}
	if f := s.found; f != nil {
		s.Expect, s.CTStatus, s.CTMark, s.CTHelper, s.CTLabelled = f.Expect, f.CTStatus, f.CTMark, f.CTHelper, f.CTLabelled
		s.DstNATInit, s.SrcNATInit, s.flow = f.DstNATInit, f.SrcNATInit, f.flow
		s.found = nil
	}
	s.CTState, s.CTZone, s.ZoneDir, s.Template = 0, 0, 0, false
}

// SameSets reports whether the packet has changed no other sets than the one
// with state t.
func (s State) SameSets(t State) bool { return s.touched == t.touched }

// WithSetsOf returns the state of a packet that follows one with state t: the
// sets that it changed are changed.
func (s State) WithSetsOf(t State) State {
	s.touched = t.touched
	return s
}

// Confirm is nf_conntrack_confirm, at the end of input and postrouting.
func (s *State) Confirm() {
	if s.tracked() {
		s.CTStatus |= CTStatusConfirmed
	}
}

// Tracked reports whether conntrack knows the packet's connection.
func (s State) Tracked() bool { return s.tracked() }

// Doubt notes on the class a condition whose outcome a reading of the host
// cannot tell. Copies made afterwards are the branches of one fork.
func (c *Class) Doubt(cond Condition) {
	(*walker)(nil).fork(c, cond)
}
