package diagnose

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/listeners"
)

// socketLook is what inet_diag told of the server's end of a connection.
type socketLook struct {
	tries int
	at    time.Time
	// state is the last one seen, 0 for none; gone: no such connection was there
	// the last time.
	state uint8
	gone  bool
	err   error
	// established: the handshake was complete. acceptedAt is when a process was
	// first seen to hold the connection; inode is the socket's then.
	established bool
	acceptedAt  time.Time
	inode       uint32
	owner       *listeners.Process
	owned       bool // owners were looked for
}

// The states of a connection (include/net/tcp_states.h).
const (
	tcpSynRecv    = 3
	tcpTimeWait   = 6
	tcpListen     = 10
	tcpNewSynRecv = 12
)

// looksAt are the ages of an attempt at which its socket is looked for.
var looksAt = []time.Duration{0, 20 * time.Millisecond, 60 * time.Millisecond, 150 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond, time.Second, 1500 * time.Millisecond, 2 * time.Second, 2700 * time.Millisecond}

// due tells that the socket is to be looked for again.
func (s *socketLook) due(age time.Duration) bool {
	return s.inode == 0 && s.tries < len(looksAt) && age >= looksAt[s.tries]
}

// look asks for the one connection, by inet_diag without a dump.
func (s *socketLook) look(local, remote netip.AddrPort) {
	s.tries++
	s.at = time.Now()
	s.state, s.gone, s.err = 0, false, nil
	var inode uint32
	s.state, inode, s.err = askSocket(local, remote)
	switch {
	case errors.Is(s.err, unix.ENOENT) || s.err == nil && s.state == tcpListen:
		s.state, s.gone, s.err = 0, true, nil
	case s.err != nil:
	case s.state == tcpSynRecv || s.state == tcpNewSynRecv:
	default:
		s.established = true
		if inode != 0 && s.inode == 0 {
			s.inode, s.acceptedAt = inode, s.at
		}
	}
}

// diagRequest is struct inet_diag_req_v2 (man 7 sock_diag).
type diagRequest [56]byte

func (r *diagRequest) Len() int          { return len(r) }
func (r *diagRequest) Serialize() []byte { return r[:] }

// askSocket gives state and inode of one TCP connection of the calling thread's
// namespace, ENOENT for none. A connection that nobody has accepted has inode 0.
func askSocket(local, remote netip.AddrPort) (state uint8, inode uint32, err error) {
	var r diagRequest
	r[0], r[1] = unix.AF_INET, unix.IPPROTO_TCP
	if local.Addr().Is6() {
		r[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(r[4:], 0xffffffff)
	binary.BigEndian.PutUint16(r[8:], local.Port())
	binary.BigEndian.PutUint16(r[10:], remote.Port())
	copy(r[12:28], local.Addr().AsSlice())
	copy(r[28:44], remote.Addr().AsSlice())
	for i := 48; i < 56; i++ {
		r[i] = 0xff // INET_DIAG_NOCOOKIE
	}
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	req.AddData(&r)
	msgs, err := req.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err != nil {
		return 0, 0, err
	}
	// struct inet_diag_msg: family, state, timer, retrans, the id (48 bytes),
	// expires, rqueue, wqueue, uid, inode.
	if len(msgs) == 0 || len(msgs[0]) < 72 {
		return 0, 0, errors.New("inet_diag: short answer")
	}
	return msgs[0][1], binary.NativeEndian.Uint32(msgs[0][68:]), nil
}

// ownersAtOnce bounds how often the processes are looked through in a second.
const ownersAtOnce = 10

// find looks for the process that holds the accepted connection.
func (s *socketLook) find(ctx context.Context) {
	s.owned = true
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	o, err := listeners.ReadOwners(ctx, []uint32{s.inode}, listeners.OwnerOptions{FirstOnly: true, Method: "proc"})
	if err != nil {
		return
	}
	for _, at := range o.Holders[s.inode] {
		if at >= 0 && at < len(o.Processes) {
			s.owner = &o.Processes[at]
			return
		}
	}
}

// generation is the number of the nf_tables ruleset, which every change raises
// (NFT_MSG_GETGEN); ok is false where it cannot be read.
func generation() (n uint32, ok bool) {
	const getGen, genID = 16, 1
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|getGen, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC})
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil || len(msgs) == 0 || len(msgs[0]) < 4 {
		return 0, false
	}
	attrs, err := nl.ParseRouteAttr(msgs[0][4:])
	if err != nil {
		return 0, false
	}
	for _, a := range attrs {
		if a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == genID && len(a.Value) >= 4 {
			return binary.BigEndian.Uint32(a.Value), true
		}
	}
	return 0, false
}
