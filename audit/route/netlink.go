package route

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	headerLen          = unix.SizeofNlMsghdr
	receiveSize        = 64 << 10
	sizeofRuleMsg      = 12 // struct fib_rule_hdr
	sizeofNexthopMsg   = 8  // struct nhmsg
	sizeofAddrLabelMsg = 12 // struct ifaddrlblmsg
	dumpAttempts       = 8
	// maxDump bounds one dump: a full Internet table of both families is
	// about 150 MB.
	maxDump = 1 << 30
)

// errInterrupted: the table changed under every attempt to dump it.
var errInterrupted = errors.New("kept changing while it was read")

// rtnetlink is a socket for questions to the kernel's routing. It is for one
// goroutine.
type rtnetlink struct {
	fd  int
	seq uint32
	buf []byte
}

func openRTNetlink() (*rtnetlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	s := &rtnetlink{fd: fd, buf: make([]byte, receiveSize)}
	// The timeout lets a silent kernel notice that the context has ended.
	tv := unix.NsecToTimeval(int64(200 * time.Millisecond))
	if err := errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
	); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// Without strict checking a route dump would hold cached exceptions. An
	// old kernel does not know the option; Decode leaves such routes out.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return s, nil
}

// openWatch opens a socket that hears of every change to what is captured.
func openWatch() (*rtnetlink, error) {
	s, err := openRTNetlink()
	if err != nil {
		return nil, err
	}
	const ipv6Rule, nexthop = 19, 32 // RTNLGRP_IPV6_RULE, RTNLGRP_NEXTHOP
	for _, group := range []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, ipv6Rule, nexthop,
	} {
		// An old kernel has no nexthop objects and no such group.
		if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil && group != nexthop {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// changed reports whether anything was heard since it was last asked. A queue
// that ran over counts.
func (s *rtnetlink) changed() bool {
	any := false
	for {
		_, _, err := unix.Recvfrom(s.fd, s.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return any
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return true
		default:
			any = true
		}
	}
}

func (s *rtnetlink) close() { unix.Close(s.fd) }

func family(af uint8, size int) []byte {
	b := make([]byte, size)
	b[0] = af
	return b
}

// linkQuery asks for links without their statistics.
func linkQuery() []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	const skipStats = 8 // RTEXT_FILTER_SKIP_STATS
	return appendAttr(b, unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, skipStats))
}

func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// dump returns the messages of a dump with their headers. A dump that the
// kernel marks as interrupted is taken again.
func (s *rtnetlink) dump(ctx context.Context, typ uint16, body []byte) ([]byte, error) {
	for range dumpAttempts {
		data, interrupted, err := s.ask(ctx, typ, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, body)
		if err != nil || !interrupted {
			return data, err
		}
	}
	return nil, errInterrupted
}

// request returns the answer to a question about one thing.
func (s *rtnetlink) request(ctx context.Context, typ uint16, body []byte) ([]byte, error) {
	data, _, err := s.ask(ctx, typ, unix.NLM_F_REQUEST, body)
	return data, err
}

func (s *rtnetlink) ask(ctx context.Context, typ uint16, flags int, body []byte) (data []byte, interrupted bool, err error) {
	s.seq++
	msg := make([]byte, headerLen, headerLen+len(body))
	binary.NativeEndian.PutUint32(msg, uint32(headerLen+len(body)))
	binary.NativeEndian.PutUint16(msg[4:], typ)
	binary.NativeEndian.PutUint16(msg[6:], uint16(flags))
	binary.NativeEndian.PutUint32(msg[8:], s.seq)
	msg = append(msg, body...)
	if err := unix.Sendto(s.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, false, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		n, _, rflags, from, err := unix.Recvmsg(s.fd, s.buf, nil, 0)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return nil, false, err
		case rflags&unix.MSG_TRUNC != 0:
			return nil, false, fmt.Errorf("answer longer than %d bytes", len(s.buf))
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue
		}
		done, intr, err := s.collect(s.buf[:n], &data, flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP)
		interrupted = interrupted || intr
		if err != nil || done {
			return data, interrupted, err
		}
		if len(data) > maxDump {
			return nil, false, fmt.Errorf("answer longer than %d bytes", maxDump)
		}
	}
}

// collect takes the messages of one datagram that answer the latest question.
func (s *rtnetlink) collect(b []byte, data *[]byte, dump bool) (done, interrupted bool, err error) {
	for len(b) >= headerLen {
		n := int(binary.NativeEndian.Uint32(b))
		if n < headerLen || n > len(b) {
			return false, false, errors.New("message longer than its datagram")
		}
		typ, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
		if binary.NativeEndian.Uint32(b[8:]) == s.seq {
			if flags&unix.NLM_F_DUMP_INTR != 0 {
				interrupted = true
			}
			switch typ {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				// Both begin with a negative errno; a dump that the kernel
				// refuses half-way ends with DONE.
				if n >= headerLen+4 {
					if code := int32(binary.NativeEndian.Uint32(b[headerLen:])); code != 0 {
						return true, interrupted, unix.Errno(-code)
					}
				}
				return true, interrupted, nil
			default:
				*data = append(*data, b[:n]...)
				if pad := (4 - n%4) % 4; pad != 0 {
					*data = append(*data, make([]byte, pad)...)
				}
				if !dump {
					return true, interrupted, nil
				}
			}
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return false, interrupted, nil
}
