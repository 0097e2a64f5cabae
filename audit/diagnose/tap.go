package diagnose

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is one packet of a handshake, a datagram, or an ICMP error about one, as
// it passed a link. Of an ICMP error Src and Dst are those of the packet that it
// quotes.
type Packet struct {
	At       time.Time
	Link     int   // index of the interface
	Outgoing bool  // sent by this host on that link
	Strange  bool  // for another host's hardware address: seen, and not this host's
	Proto    uint8 // IPPROTO_TCP or IPPROTO_UDP
	Src, Dst netip.AddrPort
	SYN, ACK bool
	RST, FIN bool
	Seq, Ack uint32
	TTL      uint8
	// VLAN is the 802.1Q id of the tag that the frame carried on this link, 0 for
	// none or one of priority alone.
	VLAN uint16
	// ICMP is set for an error message, with its sender; To is who it goes to.
	ICMP *ICMP
	To   netip.Addr
}

// Tap sees packets as they pass the links of the network namespace it was opened
// in: incoming ones before netfilter (ingress hook included), outgoing ones
// behind it. What an XDP program drops it does not see.
type Tap struct {
	fd   int
	want tapFor
	buf  []byte
	oob  []byte
}

// tapFor says what a tap takes.
type tapFor struct {
	proto uint8 // IPPROTO_TCP or IPPROTO_UDP
	port  uint16
	link  int // index of the interface, 0 for all
	flags uint8
	// follow are clients' ports of which every segment is taken.
	follow []uint16
}

const (
	flagFIN = 1
	flagSYN = 2
	flagRST = 4
)

// maxFollow bounds the clients that a filter follows; its jumps reach 255 steps.
const maxFollow = 32

// tapBuffer is the room for packets that have not been read, bytes as the kernel
// counts them (with its own overhead, about 800 for a SYN).
const tapBuffer = 16 << 20

// OpenTap opens a tap for TCP segments with SYN or RST from or to a port, and for
// ICMP errors, on one interface or (index 0) on all. The filter runs in the
// kernel, so that a busy host is not slowed down. It needs CAP_NET_RAW.
func OpenTap(port uint16, index int) (*Tap, error) {
	return openTap(tapFor{proto: unix.IPPROTO_TCP, port: port, link: index, flags: flagSYN | flagRST})
}

func openTap(want tapFor) (*Tap, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	t := &Tap{fd: fd, want: want, buf: make([]byte, 256), oob: make([]byte, 128)}
	fail := func(what string, err error) (*Tap, error) {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if err := t.attach(); err != nil {
		return fail("attach the filter of the packet socket", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
	// SO_RCVBUF ends at net.core.rmem_max, room for some 250 packets; beyond it
	// takes CAP_NET_ADMIN. What has no room is counted (Lost).
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, tapBuffer)
	}
	// The protocol comes with bind, so that nothing passes the filter before.
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap16(unix.ETH_P_ALL), Ifindex: want.link}); err != nil {
		return fail("bind the packet socket", err)
	}
	return t, nil
}

// Close ends the tap.
func (t *Tap) Close() error { return unix.Close(t.fd) }

// Wait waits for packets until a time; false when none came.
func (t *Tap) Wait(d time.Duration) bool {
	set := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(set, int(max(d, 0)/time.Millisecond)+1)
	return err == nil && n > 0
}

// attach puts the filter on the socket; the kernel exchanges one for another in
// one step.
func (t *Tap) attach() error {
	filter := tapFilter(t.want)
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.SetsockoptSockFprog(t.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
}

// follow takes every segment that comes from these ports, and no longer those of
// other ports that were followed before.
func (t *Tap) follow(ports []uint16) error {
	t.want.follow = ports[:min(len(ports), maxFollow)]
	return t.attach()
}

// maxRead bounds one reading of a tap, so that a flood takes no more memory than
// this many packets.
const maxRead = 8192

// Read gives the packets that are there, at most maxRead, and never waits.
func (t *Tap) Read() []Packet {
	var out []Packet
	for range maxRead {
		n, oobn, _, from, err := unix.Recvmsg(t.fd, t.buf, t.oob, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ENETDOWN) { // an interface went down; the socket goes on
			continue
		}
		if err != nil {
			break
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		p, ok := decodePacket(swap16(ll.Protocol), t.buf[:min(n, len(t.buf))])
		if !ok {
			continue
		}
		p.Link, p.Outgoing, p.Strange = ll.Ifindex, ll.Pkttype == unix.PACKET_OUTGOING, ll.Pkttype == unix.PACKET_OTHERHOST
		p.At, p.VLAN = ancillary(t.oob[:oobn])
		out = append(out, p)
	}
	return out
}

// Lost says how many packets the tap had no room for since it was last asked.
func (t *Tap) Lost() (uint32, error) {
	s, err := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, err
	}
	return s.Drops, nil
}

// ancillary reads when a packet came and the VLAN of its tag (struct
// tpacket_auxdata of include/uapi/linux/if_packet.h).
func ancillary(oob []byte) (at time.Time, vlan uint16) {
	const valid, id = 1 << 4, 0xfff // TP_STATUS_VLAN_VALID, VLAN_VID_MASK
	at = time.Now()
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return at, 0
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16:
			at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 18:
			if binary.NativeEndian.Uint32(m.Data)&valid != 0 {
				vlan = binary.NativeEndian.Uint16(m.Data[16:]) & id
			}
		}
	}
	return at, vlan
}

func swap16(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

func decodePacket(protocol uint16, b []byte) (Packet, bool) {
	switch protocol {
	case unix.ETH_P_IP:
		return decode(b, header4, 8, unix.IPPROTO_ICMP, 3)
	case unix.ETH_P_IPV6:
		return decode(b, header6, 7, unix.IPPROTO_ICMPV6, 1)
	}
	return Packet{}, false
}

// decode reads what one family's header was split from; icmp is the number of
// its ICMP, and unreachable the type that says so there.
func decode(b []byte, header split, ttl int, icmp, unreachable byte) (Packet, bool) {
	src, dst, proto, body, ok := header(b)
	if !ok {
		return Packet{}, false
	}
	p := Packet{TTL: b[ttl]}
	switch proto {
	case unix.IPPROTO_TCP:
		return p, p.segment(src, dst, body)
	case unix.IPPROTO_UDP:
		if len(body) < 8 {
			return p, false
		}
		p.Proto = proto
		p.ports(src, dst, body)
		p.Seq = 0
		return p, true
	case icmp:
		if len(body) < 8 || body[0] != unreachable {
			return p, false
		}
		qs, qd, qp, quoted, ok := header(body[8:])
		if !ok || qp != unix.IPPROTO_TCP && qp != unix.IPPROTO_UDP || len(quoted) < 4 {
			return p, false
		}
		p.Proto = qp
		p.ICMP, p.To = &ICMP{From: src, Type: body[0], Code: body[1]}, dst
		p.ports(qs, qd, quoted)
		return p, true
	}
	return p, false
}

// split takes the header off a packet.
type split func(b []byte) (src, dst netip.Addr, proto byte, body []byte, ok bool)

// header4 splits an IPv4 packet; a later fragment is none.
func header4(b []byte) (src, dst netip.Addr, proto byte, body []byte, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return src, dst, 0, nil, false
	}
	n := int(b[0]&15) * 4
	if n < 20 || len(b) < n || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
		return src, dst, 0, nil, false
	}
	return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], b[n:], true
}

// header6 splits an IPv6 packet, over its extension headers.
func header6(b []byte) (src, dst netip.Addr, proto byte, body []byte, ok bool) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return src, dst, 0, nil, false
	}
	src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	proto, body = b[6], b[40:]
	for range 8 {
		switch proto {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			if len(body) < 8 {
				return src, dst, 0, nil, false
			}
			n := 8 + int(body[1])*8
			if len(body) < n {
				return src, dst, 0, nil, false
			}
			proto, body = body[0], body[n:]
		case unix.IPPROTO_FRAGMENT:
			if len(body) < 8 || binary.BigEndian.Uint16(body[2:])&0xfff8 != 0 {
				return src, dst, 0, nil, false
			}
			proto, body = body[0], body[8:]
		default:
			return src, dst, proto, body, true
		}
	}
	return src, dst, 0, nil, false
}

func (p *Packet) ports(src, dst netip.Addr, b []byte) {
	p.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b))
	p.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
	if len(b) >= 8 {
		p.Seq = binary.BigEndian.Uint32(b[4:])
	}
}

func (p *Packet) segment(src, dst netip.Addr, b []byte) bool {
	if len(b) < 14 {
		return false
	}
	p.Proto = unix.IPPROTO_TCP
	p.ports(src, dst, b)
	p.Ack = binary.BigEndian.Uint32(b[8:])
	p.FIN, p.SYN, p.RST, p.ACK = b[13]&flagFIN != 0, b[13]&flagSYN != 0, b[13]&flagRST != 0, b[13]&16 != 0
	return true
}

// wireLog counts packets by connection.
type wireLog struct {
	out map[[2]netip.AddrPort]*Wire
}

func newWireLog() *wireLog { return &wireLog{out: map[[2]netip.AddrPort]*Wire{}} }

func (w *wireLog) drain(t *Tap) {
	if t == nil {
		return
	}
	for _, p := range t.Read() {
		key, reply := [2]netip.AddrPort{p.Src, p.Dst}, false
		if p.ICMP == nil && (p.SYN && p.ACK || p.RST) {
			key, reply = [2]netip.AddrPort{p.Dst, p.Src}, true
		}
		c := w.out[key]
		if c == nil {
			if len(w.out) > 4096 {
				continue
			}
			c = &Wire{}
			w.out[key] = c
		}
		switch {
		case p.Link == loopbackIndex:
			c.Loopback++
		case p.ICMP != nil:
			c.ICMP++
		case p.SYN && !p.ACK:
			c.SYN++
		case p.SYN && reply:
			c.SYNACK++
		case p.RST && reply:
			c.RST++
		}
	}
}

func (w *wireLog) of(a Attempt) *Wire {
	c := w.out[[2]netip.AddrPort{a.From, a.To}]
	if c != nil && c.SYN > 0 {
		return c
	}
	// Where this host translates its own source, another one is on the wire.
	sum := Wire{}
	if c != nil {
		sum = *c
	}
	for key, o := range w.out {
		if o != c && key[1] == a.To {
			sum.SYN, sum.SYNACK, sum.RST, sum.ICMP = sum.SYN+o.SYN, sum.SYNACK+o.SYNACK, sum.RST+o.RST, sum.ICMP+o.ICMP
		}
	}
	return &sum
}
