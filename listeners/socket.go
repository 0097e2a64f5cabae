package listeners

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/hostaudit/hostaudit/listeners/sockdiag"
)

// Proto names a transport protocol as the reports spell it.
type Proto string

// The protocols read.
const (
	TCP     Proto = "tcp"
	MPTCP   Proto = "mptcp" // a multipath TCP listener; plain TCP clients reach it as well
	UDP     Proto = "udp"
	UDPLite Proto = "udplite"
	SCTP    Proto = "sctp"
	DCCP    Proto = "dccp"
	Raw     Proto = "raw" // Local.Port() is the IP protocol number
)

// Gap is something that could not be read.
type Gap struct {
	What string `json:"what"` // "listeners: sctp", "owners: 3 processes"
	Why  string `json:"why"`
}

// Device is the interface a socket is bound to with SO_BINDTODEVICE (or by a
// link-local IPv6 address). Index 0 is none. Name is empty where the interface
// is gone, which leaves the socket deaf.
type Device struct {
	Index int      `json:"index,omitempty"`
	Name  HostText `json:"name,omitempty"`
}

// Queue is the accept queue of a stream listener: Len connections wait for
// accept(2). The kernel takes one more than Limit (sk_acceptq_is_full), and
// Limit is the smaller of the application's backlog and somaxconn as it was
// when listen(2) was called. For datagram sockets both count bytes of the
// receive buffer.
type Queue struct {
	Len   uint32 `json:"queued"`
	Limit uint32 `json:"limit"`
	// Drops counts what this socket threw away since it was made: connection
	// attempts of a listener, datagrams of a datagram socket. Nil where the
	// kernel does not tell. Only the difference of two readings is evidence.
	Drops *uint32 `json:"drops,omitempty"`
}

// Full tells that the next connection is dropped.
func (q Queue) Full() bool { return q.Len > q.Limit }

// Fill is Len as a share of Limit; 1 and above is full or as good as full. A
// limit of 0 (listen(fd, 0)) holds a single connection.
func (q Queue) Fill() float64 {
	return float64(q.Len) / float64(max(q.Limit, 1))
}

// Facts that not every source can tell, for [Socket.Untold].
const (
	FactV6Only = "v6only"
	FactDevice = "device"
	FactLimit  = "queue-limit"
	FactMark   = "mark"
	FactCgroup = "cgroup"
	FactOpts   = "options"
)

// Socket is what the kernel tells of one listening socket. (An unconnected UDP
// socket takes datagrams from everyone and counts as listening.)
type Socket struct {
	Proto Proto          `json:"proto"`
	Local netip.AddrPort `json:"local"` // IPv4-mapped addresses stay mapped: the socket is an IPv6 one
	// Locals holds all addresses of a multi-homed SCTP endpoint, else nil.
	Locals []netip.Addr `json:"locals,omitempty"`
	V6Only bool         `json:"v6only"`
	Device Device       `json:"device"`
	Accept Queue        `json:"queue"`
	UID    uint32       `json:"uid"`
	Inode  uint32       `json:"inode"`
	Cookie uint64       `json:"cookie,omitempty"` // the kernel's name for the socket while it lives; 0 from /proc
	Cgroup uint64       `json:"cgroup,omitempty"` // id of the cgroup v2 directory it was made in
	Mark   uint32       `json:"mark,omitempty"`   // SO_MARK
	// IP_FREEBIND and IP_TRANSPARENT let a socket bind an address the host lacks.
	Freebind    bool `json:"freebind,omitempty"`
	Transparent bool `json:"transparent,omitempty"`
	// Untold names the facts above that the source could not tell; their fields
	// are zero and mean nothing.
	Untold []string `json:"untold,omitempty"`
	// Sharing counts the listening sockets of the same protocol, address, port
	// and device, this one included: above 1 is a SO_REUSEPORT group (for
	// datagrams possibly SO_REUSEADDR).
	Sharing int `json:"sharing"`
}

// Listener is a socket with its owners.
type Listener struct {
	Socket
	Owners []Process `json:"owners,omitempty"`
	// Unowned says why Owners is empty; it is empty when Owners is not.
	Unowned Unowned `json:"unowned,omitempty"`
}

// Tells reports whether the source could tell the fact (one of the Fact… constants).
func (s *Socket) Tells(fact string) bool {
	for _, u := range s.Untold {
		if u == fact {
			return false
		}
	}
	return true
}

// Subject names the listener the same way in every run: "tcp 0.0.0.0:80",
// "tcp [::]:80 on eth1".
func (s *Socket) Subject() string {
	subject := fmt.Sprintf("%s %s", s.Proto, s.Local)
	switch {
	case s.Device.Name != "":
		subject += " on " + string(s.Device.Name)
	case s.Device.Index != 0:
		subject += fmt.Sprintf(" on interface %d", s.Device.Index)
	}
	return subject
}

// Port is the local port.
func (s *Socket) Port() uint16 { return s.Local.Port() }

// Datagram tells protocols whose queues count bytes from those whose accept
// queue counts connections.
func (p Proto) Datagram() bool { return p == UDP || p == UDPLite || p == Raw }

func compareSockets(a, b Socket) int {
	return cmp.Or(
		cmp.Compare(a.Proto, b.Proto),
		cmp.Compare(a.Local.Port(), b.Local.Port()),
		a.Local.Addr().Compare(b.Local.Addr()),
		cmp.Compare(a.Device.Index, b.Device.Index),
		cmp.Compare(a.Inode, b.Inode),
		cmp.Compare(a.Cookie, b.Cookie),
	)
}

// protoOf maps the kernel's protocol numbers.
var protoOf = map[sockdiag.Protocol]Proto{
	sockdiag.TCP: TCP, sockdiag.MPTCP: MPTCP, sockdiag.UDP: UDP, sockdiag.UDPLite: UDPLite,
	sockdiag.SCTP: SCTP, sockdiag.DCCP: DCCP, sockdiag.Raw: Raw,
}
