package diagnose

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes is which packets get to an address and back, asked by ICMP echo requests
// that no router may cut into pieces.
type Sizes struct {
	To netip.Addr
	// Answered: a small request was. Where it was not, the rest is unknown: hosts
	// and filters may ignore echo requests.
	Answered bool
	// Size is the largest packet that the first link takes, bytes with the IP
	// header, and Whole tells that one was answered.
	Size  int
	Whole bool
	// Carries is the largest packet found to be answered where Whole is false.
	Carries int
	// Told is the router that said so, invalid for none: then large packets vanish
	// without a word. MTU is what it said.
	Told netip.Addr
	MTU  int
}

// echoWait is how long an echo request is waited for; it is sent twice.
const echoWait = 400 * time.Millisecond

// FindSizes asks for the sizes up to the MTU of the first link. Its socket is
// opened on the calling goroutine; where the kernel lets this user neither open
// one for echo requests (net.ipv4.ping_group_range) nor a raw one, that is the
// error.
func FindSizes(ctx context.Context, to netip.Addr, mtu int) (*Sizes, error) {
	e, err := openEcho(to)
	if err != nil {
		return nil, err
	}
	defer unix.Close(e.fd)
	s := &Sizes{To: to, Size: mtu, Carries: e.overhead() + 56}
	if s.Answered = e.answered(ctx, s, s.Carries); !s.Answered || mtu <= s.Carries {
		return s, nil
	}
	if s.Whole = e.answered(ctx, s, mtu); s.Whole || s.Told.IsValid() {
		return s, nil
	}
	low, high := s.Carries, mtu // answered, and not
	for high-low > 8 && ctx.Err() == nil {
		mid := (low + high) / 2
		if e.answered(ctx, s, mid) {
			low = mid
		} else {
			high = mid
		}
	}
	s.Carries = low
	return s, nil
}

// echo is a socket for ICMP echo requests to one address. What routers tell it
// of the path stays with it: the host's own connections must not profit from it
// and look healthy afterwards (ip_sk_accept_pmtu).
type echo struct {
	fd  int
	to  netip.Addr
	raw bool // with the IP header, which says that it may not be cut (IPv4)
	id  uint16
	seq uint16
}

func openEcho(to netip.Addr) (*echo, error) {
	e := &echo{to: to, id: uint16(os.Getpid())}
	const kind = unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	var err error
	switch {
	case to.Is6():
		if e.fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|kind, unix.IPPROTO_ICMPV6); err != nil {
			e.fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|kind, unix.IPPROTO_ICMPV6)
		}
	default:
		e.raw = true
		if e.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|kind, unix.IPPROTO_ICMP); err != nil {
			e.raw = false
			e.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|kind, unix.IPPROTO_ICMP)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open a socket for echo requests: %w", err)
	}
	if err = e.prepare(); err == nil {
		err = unix.Connect(e.fd, sockaddr(netip.AddrPortFrom(to, 0)))
	}
	if err != nil {
		unix.Close(e.fd)
		return nil, fmt.Errorf("prepare echo requests to %s: %w", to, err)
	}
	return e, nil
}

func (e *echo) prepare() error {
	if e.to.Is6() { // routers never cut its packets
		_ = unix.SetsockoptInt(e.fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
		_ = unix.SetsockoptInt(e.fd, unix.SOL_IPV6, unix.IPV6_DONTFRAG, 1)
		return unix.SetsockoptInt(e.fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_INTERFACE)
	}
	_ = unix.SetsockoptInt(e.fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	if e.raw {
		if err := unix.SetsockoptInt(e.fd, unix.SOL_IP, unix.IP_HDRINCL, 1); err != nil {
			return err
		}
	}
	return unix.SetsockoptInt(e.fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_INTERFACE)
}

// send sends one packet.
func (e *echo) send(b []byte) error {
	if e.raw || e.to.Is6() {
		_, err := unix.Write(e.fd, b)
		return err
	}
	// Without the privilege the kernel sets the bit, in a mode that takes what
	// routers say for the host: for as long as the call lasts.
	if err := unix.SetsockoptInt(e.fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE); err != nil {
		return err
	}
	_, err := unix.Write(e.fd, b)
	return cmpErr(err, unix.SetsockoptInt(e.fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_INTERFACE))
}

// overhead are the bytes of a packet around what an echo request carries.
func (e *echo) overhead() int {
	if e.to.Is4() {
		return 20 + 8
	}
	return 40 + 8
}

// answered asks with a packet of a size, twice if need be.
func (e *echo) answered(ctx context.Context, s *Sizes, size int) bool {
	for range 2 {
		e.seq++
		if err := e.send(e.request(size - e.overhead())); err != nil {
			if !e.told(s) {
				return false
			}
			continue
		}
		for end := time.Now().Add(echoWait); waitFor(ctx, e.fd, unix.POLLIN, end) == nil; {
			if e.told(s) {
				return false
			}
			b := make([]byte, 65536)
			n, err := unix.Read(e.fd, b)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
				continue
			}
			if err != nil {
				break
			}
			if e.mine(b[:n]) {
				return true
			}
		}
	}
	return false
}

// request is an echo request that carries n bytes.
func (e *echo) request(n int) []byte {
	b := make([]byte, 8+max(n, 0))
	b[0] = 8
	if e.to.Is6() {
		b[0] = 128
	}
	binary.BigEndian.PutUint16(b[4:], e.id)
	binary.BigEndian.PutUint16(b[6:], e.seq)
	if !e.raw { // the kernel does the rest
		return b
	}
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	head := make([]byte, 20, 20+len(b)) // length, checksum and source are filled in (man 7 raw)
	head[0], head[6], head[8], head[9] = 0x45, 0x40, 64, unix.IPPROTO_ICMP
	to := e.to.As4()
	copy(head[16:], to[:])
	return append(head, b...)
}

// checksum is RFC 1071's.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b)-1; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// mine tells the answer to the last request.
func (e *echo) mine(b []byte) bool {
	if e.raw && len(b) > 20 {
		b = b[min(int(b[0]&0xf)*4, len(b)):]
	}
	reply := byte(0)
	if e.to.Is6() {
		reply = 129
	}
	return len(b) >= 8 && b[0] == reply && binary.BigEndian.Uint16(b[6:]) == e.seq
}

// told reads the error queue: a router that says which size fits.
func (e *echo) told(s *Sizes) bool {
	oob := make([]byte, 256)
	_, n, _, _, err := unix.Recvmsg(e.fd, make([]byte, 256), oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return false
	}
	x := parseErrorQueue(oob[:n])
	if x == nil || x.MTU == 0 {
		return false
	}
	s.Told, s.MTU = x.From, x.MTU
	return true
}
