package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Attributes of an answer (linux/inet_diag.h, enum INET_DIAG_*).
const (
	attrInfo      = 2
	attrSKMemInfo = 7
	attrShutdown  = 8
	attrProtocol  = 10
	attrSKV6Only  = 11
	attrLocals    = 12
	attrMark      = 15
	attrULPInfo   = 19
	attrCgroupID  = 21
	attrSockOpt   = 22
)

// RecordLen is the length of struct inet_diag_msg.
const RecordLen = 72

// Header is the fixed part of a record (struct inet_diag_msg), enough for a
// census and decoded without allocating. IPv4-mapped addresses are kept as
// they are: Unmap where the difference does not matter.
type Header struct {
	Family    Family
	State     State
	Timer     uint8 // 1 retransmits; 3 is the TIME_WAIT timer, also of a FIN_WAIT_2 that only the timer keeps
	Retrans   uint8 // how often in a row the retransmission timer ran out (idiag_retrans)
	Src, Dst  netip.Addr
	SrcPort   uint16
	DstPort   uint16
	Device    uint32 // index of the interface the socket is bound to, 0 is none
	Cookie    uint64 // identifies the socket as long as it lives
	RecvQueue uint32 // listener: connections waiting for accept(2); else bytes
	SendQueue uint32 // listener: limit of that queue; else bytes
	UID       uint32
	Inode     uint32 // 0 where no descriptor can exist (TIME_WAIT, half-open)
}

// Optional holds a value that the kernel may or may not have sent.
type Optional[T any] struct {
	Value T
	Known bool
}

func some[T any](v T) Optional[T] { return Optional[T]{v, true} }

// SockOpts are the bits of struct inet_diag_sockopt (Linux 5.10).
type SockOpts struct {
	Freebind, Transparent, BindAddressNoPort bool
}

// Memory is INET_DIAG_SKMEMINFO (struct sock_diag_meminfo), in bytes.
type Memory struct {
	RecvUsed, RecvLimit uint32
	// Drops counts datagrams thrown away at this socket since it was made; for a
	// TCP listener, connection attempts (tcp_listendrop). Linux 4.7.
	Drops Optional[uint32]
}

// Record is one socket with the attributes the kernel sent.
type Record struct {
	Header
	V6Only   Optional[bool]
	Mark     Optional[uint32] // sent only to those with CAP_NET_ADMIN
	CgroupID Optional[uint64]
	Opts     Optional[SockOpts]
	Memory   Optional[Memory]
	Protocol Optional[uint8] // of a raw socket
	ULP      string          // upper layer protocol ("mptcp", "tls"), with WantInfo
	Locals   []netip.Addr    // all local addresses of a multi-homed SCTP endpoint
	TCP      Optional[TCPInfo]
}

// DecodeHeader fills h from the payload of a record in this machine's byte
// order, without allocating.
func DecodeHeader(p []byte, h *Header) error {
	if len(p) < RecordLen {
		return shortRecord(len(p))
	}
	p = p[:RecordLen:RecordLen]
	ne := binary.NativeEndian
	h.Family, h.State, h.Timer, h.Retrans = Family(p[0]), State(p[1]), p[2], p[3]
	h.SrcPort, h.DstPort = binary.BigEndian.Uint16(p[4:]), binary.BigEndian.Uint16(p[6:])
	switch h.Family {
	case Inet4:
		h.Src, h.Dst = netip.AddrFrom4([4]byte(p[8:12])), netip.AddrFrom4([4]byte(p[24:28]))
	case Inet6:
		h.Src, h.Dst = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	default:
		return unknownFamily(h.Family)
	}
	h.Device = ne.Uint32(p[40:])
	h.Cookie = uint64(ne.Uint32(p[44:])) | uint64(ne.Uint32(p[48:]))<<32
	h.RecvQueue, h.SendQueue = ne.Uint32(p[56:]), ne.Uint32(p[60:])
	h.UID, h.Inode = ne.Uint32(p[64:]), ne.Uint32(p[68:])
	return nil
}

func shortRecord(n int) error {
	return &DecodeError{"inet_diag_msg", 0, fmt.Errorf("%d of %d bytes: %w", n, RecordLen, ErrTruncated)}
}

func unknownFamily(f Family) error {
	return &DecodeError{"inet_diag_msg", 0, fmt.Errorf("unknown address family %d", f)}
}

// DecodeRecord decodes the payload of a record with its attributes. An unknown
// attribute is skipped (the kernel adds some with every other release); a known
// one that is too short is an error.
func DecodeRecord(p []byte, order binary.ByteOrder) (Record, error) {
	var r Record
	if sameOrder(order) {
		if err := DecodeHeader(p, &r.Header); err != nil {
			return r, err
		}
	} else {
		swapped, err := swapHeader(p)
		if err != nil {
			return r, err
		}
		if err := DecodeHeader(swapped[:], &r.Header); err != nil {
			return r, err
		}
	}
	for off := RecordLen; off < len(p); {
		if len(p)-off < 4 {
			return r, &DecodeError{"attribute header", off, ErrTruncated}
		}
		n, typ := int(order.Uint16(p[off:])), order.Uint16(p[off+2:])&0x3fff
		if n < 4 || n > len(p)-off {
			return r, &DecodeError{"attribute header", off, fmt.Errorf("attribute %d has length %d, %d bytes left: %w", typ, n, len(p)-off, ErrTruncated)}
		}
		if err := r.attribute(typ, p[off+4:off+n], order); err != nil {
			return r, &DecodeError{"attribute", off, err}
		}
		off += align4(n)
	}
	return r, nil
}

func (r *Record) attribute(typ uint16, v []byte, order binary.ByteOrder) error {
	need := func(n int) error {
		if len(v) < n {
			return fmt.Errorf("attribute %d has %d of %d bytes: %w", typ, len(v), n, ErrTruncated)
		}
		return nil
	}
	switch typ {
	case attrInfo:
		if len(v) > 0 {
			r.TCP = some(tcpInfo(v, order))
		}
	case attrSKV6Only:
		if err := need(1); err != nil {
			return err
		}
		r.V6Only = some(v[0] != 0)
	case attrMark:
		if err := need(4); err != nil {
			return err
		}
		r.Mark = some(order.Uint32(v))
	case attrCgroupID:
		if err := need(8); err != nil {
			return err
		}
		r.CgroupID = some(order.Uint64(v))
	case attrProtocol:
		if err := need(1); err != nil {
			return err
		}
		r.Protocol = some(v[0])
	case attrSKMemInfo: // SK_MEMINFO_RMEM_ALLOC, _RCVBUF, …, _DROPS is the ninth
		if err := need(8); err != nil {
			return err
		}
		m := Memory{RecvUsed: order.Uint32(v), RecvLimit: order.Uint32(v[4:])}
		if len(v) >= 36 {
			m.Drops = some(order.Uint32(v[32:]))
		}
		r.Memory = some(m)
	case attrSockOpt:
		if err := need(2); err != nil {
			return err
		}
		r.Opts = some(sockOpts(v, order))
	case attrULPInfo:
		return r.ulp(v, order)
	case attrLocals:
		return r.locals(v, order)
	}
	return nil
}

// sockOpts reads C bit-fields of type __u8: allocated from the least
// significant bit on little-endian machines, from the most significant on
// big-endian ones.
func sockOpts(v []byte, order binary.ByteOrder) SockOpts {
	bit := func(b byte, n uint) bool {
		if bigEndian(order) {
			n = 7 - n
		}
		return b>>n&1 != 0
	}
	return SockOpts{Freebind: bit(v[0], 2), Transparent: bit(v[0], 5), BindAddressNoPort: bit(v[1], 0)}
}

func (r *Record) ulp(v []byte, order binary.ByteOrder) error {
	const ulpName = 1 // INET_ULP_INFO_NAME
	for off := 0; off < len(v); {
		if len(v)-off < 4 {
			return fmt.Errorf("INET_DIAG_ULP_INFO: %w", ErrTruncated)
		}
		n, typ := int(order.Uint16(v[off:])), order.Uint16(v[off+2:])&0x3fff
		if n < 4 || n > len(v)-off {
			return fmt.Errorf("INET_DIAG_ULP_INFO: %w", ErrTruncated)
		}
		if typ == ulpName {
			name := v[off+4 : off+n]
			for i, c := range name {
				if c == 0 {
					name = name[:i]
					break
				}
			}
			r.ULP = string(name)
		}
		off += align4(n)
	}
	return nil
}

// locals reads INET_DIAG_LOCALS: an array of struct sockaddr_storage (128 bytes).
func (r *Record) locals(v []byte, order binary.ByteOrder) error {
	const storage = 128
	if len(v)%storage != 0 {
		return fmt.Errorf("INET_DIAG_LOCALS has %d bytes: %w", len(v), ErrTruncated)
	}
	for ; len(v) > 0; v = v[storage:] {
		switch Family(order.Uint16(v)) {
		case Inet4:
			r.Locals = append(r.Locals, netip.AddrFrom4([4]byte(v[4:8])))
		case Inet6:
			r.Locals = append(r.Locals, netip.AddrFrom16([16]byte(v[8:24])))
		default:
			return fmt.Errorf("INET_DIAG_LOCALS: unknown address family %d", order.Uint16(v))
		}
	}
	return nil
}

// bigEndian and sameOrder compare by identity: asking the interface to decode
// something would allocate for every record.
func bigEndian(order binary.ByteOrder) bool {
	switch order {
	case binary.BigEndian:
		return true
	case binary.LittleEndian:
		return false
	}
	return nativeBig()
}

func sameOrder(order binary.ByteOrder) bool { return bigEndian(order) == nativeBig() }

func nativeBig() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 0x100 }

// swapHeader turns the host-order words of struct inet_diag_msg around, for a
// recording made on a machine of the other byte order.
func swapHeader(p []byte) (out [RecordLen]byte, err error) {
	if len(p) < RecordLen {
		return out, shortRecord(len(p))
	}
	copy(out[:], p)
	for off := 40; off < RecordLen; off += 4 {
		out[off], out[off+1], out[off+2], out[off+3] = p[off+3], p[off+2], p[off+1], p[off]
	}
	return out, nil
}

// Records calls each for every socket of a datagram. Errors of each end the
// walk and are returned as they are.
func Records(datagram []byte, order binary.ByteOrder, each func(Record) error) error {
	for len(datagram) > 0 {
		m, rest, err := NextMessage(datagram, order)
		if err != nil {
			return err
		}
		datagram = rest
		if !m.IsRecord() {
			continue
		}
		r, err := DecodeRecord(m.Payload, order)
		if err != nil {
			return err
		}
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}
