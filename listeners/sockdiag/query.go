package sockdiag

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Family is an address family of a query (AF_INET, AF_INET6).
type Family uint8

// The families of internet sockets. AnyFamily asks for both in one walk; the
// kernel has that for TCP only (the older TCPDIAG_GETSOCK request).
const (
	AnyFamily Family = 0
	Inet4     Family = 2
	Inet6     Family = 10
)

func (f Family) String() string {
	switch f {
	case AnyFamily:
		return "any"
	case Inet4:
		return "inet"
	case Inet6:
		return "inet6"
	}
	return fmt.Sprintf("family-%d", uint8(f))
}

// Protocol is an IPPROTO_ number as given to socket(2).
type Protocol uint16

// Protocols that may have an inet_diag handler.
const (
	TCP     Protocol = 6
	UDP     Protocol = 17
	DCCP    Protocol = 33
	SCTP    Protocol = 132
	UDPLite Protocol = 136
	Raw     Protocol = 255
	MPTCP   Protocol = 262
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case DCCP:
		return "dccp"
	case SCTP:
		return "sctp"
	case UDPLite:
		return "udplite"
	case Raw:
		return "raw"
	case MPTCP:
		return "mptcp"
	}
	return fmt.Sprintf("protocol-%d", uint16(p))
}

// State is a socket state as the kernel numbers it (include/net/tcp_states.h).
// Other protocols borrow the numbers: an unconnected UDP socket is in Close, a
// connected one in Established.
type State uint8

// The states of tcp_states.h.
const (
	Established State = 1
	SynSent     State = 2
	SynRecv     State = 3
	FinWait1    State = 4
	FinWait2    State = 5
	TimeWait    State = 6
	Close       State = 7
	CloseWait   State = 8
	LastAck     State = 9
	Listen      State = 10
	Closing     State = 11
	NewSynRecv  State = 12
)

var stateNames = [...]string{
	Established: "established", SynSent: "syn-sent", SynRecv: "syn-recv", FinWait1: "fin-wait-1", FinWait2: "fin-wait-2",
	TimeWait: "time-wait", Close: "close", CloseWait: "close-wait", LastAck: "last-ack", Listen: "listen", Closing: "closing", NewSynRecv: "syn-recv",
}

func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return fmt.Sprintf("state-%d", uint8(s))
}

// States is a set of states, one bit a state: the kernel filters with it while
// it walks, which is far cheaper than receiving and dropping.
type States uint32

// Mask gives the set of the states named.
func Mask(states ...State) States {
	var m States
	for _, s := range states {
		m |= 1 << s
	}
	return m
}

// AllTCP is every state in which a TCP socket holds a local port, listeners
// apart. Close (bit 7) and BOUND_INACTIVE (bit 13) are left out for good: no
// socket in those states is in the hash of connections, and asking for them
// makes the kernel walk it, or the bind hash, in vain.
const AllTCP States = 1<<Established | 1<<SynSent | 1<<SynRecv | 1<<FinWait1 | 1<<FinWait2 |
	1<<TimeWait | 1<<CloseWait | 1<<LastAck | 1<<Closing

// neverTCP are the bits that [Query.Validate] refuses for TCP.
const neverTCP States = 1<<Close | 1<<13

// Optional attributes to ask for (enum INET_DIAG_*; the bit is attribute - 1).
const (
	WantInfo      uint8 = 1 << (attrInfo - 1)
	WantSKMemInfo uint8 = 1 << (attrSKMemInfo - 1)
)

// Query is one dump.
type Query struct {
	Family   Family
	Protocol Protocol
	States   States
	Want     uint8  // optional attributes, Want* bits
	Port     uint16 // local port; 0 is every port
	PeerPort uint16 // port of the other side; 0 is every port
	// BoundPort limits the dump to sockets whose local port was given to bind(2)
	// by number (SOCK_BINDPORT_LOCK), by a byte-code filter in the kernel.
	// Sockets in TIME_WAIT never match: the kernel has forgotten it by then.
	BoundPort bool
}

// Key names the query in a recording; equal queries have equal keys.
func (q Query) Key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s/states=%#x/want=%#x", q.Protocol, q.Family, uint32(q.States), q.Want)
	if q.Port != 0 {
		fmt.Fprintf(&b, "/port=%d", q.Port)
	}
	if q.PeerPort != 0 {
		fmt.Fprintf(&b, "/peer-port=%d", q.PeerPort)
	}
	if q.BoundPort {
		b.WriteString("/bound-port")
	}
	return b.String()
}

// Validate refuses queries that the kernel would answer with something else
// than was asked for, or only at an absurd price.
func (q Query) Validate() error {
	if q.States == 0 {
		return fmt.Errorf("query %s: no states", q.Key())
	}
	if (q.Protocol == TCP || q.Protocol == MPTCP) && q.States&neverTCP != 0 {
		return fmt.Errorf("query %s: states 7 and 13 walk the whole hash and hold nothing for TCP", q.Key())
	}
	if q.Family == AnyFamily && (q.Protocol != TCP || q.Port != 0 || q.PeerPort != 0) {
		return fmt.Errorf("query %s: only TCP can be asked for both families at once", q.Key())
	}
	if q.Family != AnyFamily && q.Family != Inet4 && q.Family != Inet6 {
		return fmt.Errorf("query %s: unknown family", q.Key())
	}
	return nil
}

// Message types and flags (linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h).
const (
	typeNoop          = 1
	typeError         = 2
	typeDone          = 3
	typeOverrun       = 4
	typeTCPDiag       = 18 // TCPDIAG_GETSOCK
	typeByFamily      = 20 // SOCK_DIAG_BY_FAMILY
	flagRequest       = 1
	flagDumpIntr      = 0x10
	flagDump          = 0x300
	reqAttrBytecode   = 1
	reqAttrProtocol   = 3
	bytecodeJump      = 1
	bytecodeAuto      = 6
	headerLen         = 16
	reqV2Len          = 56
	reqCompatLen      = 60
	sockidOffInReq    = 8
	sockidOffInCompat = 4
)

// Request gives the netlink message that asks the kernel q, in this machine's
// byte order (struct inet_diag_req_v2; struct inet_diag_req for AnyFamily).
func (q Query) Request(seq uint32) []byte {
	ne := binary.NativeEndian
	var body []byte
	msgType := uint16(typeByFamily)
	if q.Family == AnyFamily {
		msgType = typeTCPDiag
		body = make([]byte, reqCompatLen)
		body[3] = q.Want
		ne.PutUint32(body[52:], uint32(q.States))
	} else {
		body = make([]byte, reqV2Len)
		body[0] = uint8(q.Family)
		if q.Protocol <= 0xff {
			// Left 0 for the larger ones: a kernel that does not know the attribute
			// below would otherwise answer for the protocol of the low byte, and
			// 262 & 0xff is TCP.
			body[1] = uint8(q.Protocol)
		}
		body[2] = q.Want
		ne.PutUint32(body[4:], uint32(q.States))
		binary.BigEndian.PutUint16(body[sockidOffInReq:], q.Port)
		binary.BigEndian.PutUint16(body[sockidOffInReq+2:], q.PeerPort)
	}
	if q.BoundPort {
		// Two operations. AUTO is true for sockets whose port was *not* bound by
		// number and goes on to the jump; false leaps over it to the end, which is
		// "matches". The jump always takes its false branch, four bytes beyond the
		// end, which is "does not match" (inet_diag_bc_run; inet_diag_bc_audit
		// follows the true branches only, and they must end exactly).
		op := make([]byte, 8)
		op[0], op[1] = bytecodeAuto, 4
		ne.PutUint16(op[2:], 8)
		op[4], op[5] = bytecodeJump, 4
		ne.PutUint16(op[6:], 8)
		body = appendAttr(body, reqAttrBytecode, op)
	}
	if q.Protocol > 0xff {
		// The 8-bit field cannot hold it (INET_DIAG_REQ_PROTOCOL, Linux 5.10).
		body = appendAttr(body, reqAttrProtocol, ne.AppendUint32(nil, uint32(q.Protocol)))
	}
	msg := make([]byte, headerLen, headerLen+len(body))
	ne.PutUint32(msg[0:], uint32(headerLen+len(body)))
	ne.PutUint16(msg[4:], msgType)
	ne.PutUint16(msg[6:], flagRequest|flagDump)
	ne.PutUint32(msg[8:], seq)
	return append(msg, body...)
}

func appendAttr(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
