package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"time"

	"golang.org/x/sys/unix"
)

// receiveSize is the size of one receive. The kernel fills at most 32 KiB, and
// walks from the head of the list again at every receive, so that smaller ones
// make a dump quadratically dearer.
const receiveSize = 32 << 10

// silence is how long the kernel may take for one answer where the context
// has no deadline.
const silence = 30 * time.Second

const (
	nlmsgHeader  = 16
	nfgenLen     = 4
	nlmFDumpIntr = 0x10
)

// Conn is the Source that asks the running kernel, in the network namespace
// that the calling thread had when Open was called. It is for one goroutine at
// a time.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
	out []byte
}

// Open opens a netlink socket for nfnetlink. It returns ErrNotPresent where the
// kernel has no nfnetlink.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, ErrNotPresent
		}
		return nil, &Error{"open", "netlink socket", err}
	}
	c := &Conn{fd: fd, buf: make([]byte, receiveSize)}
	if err := c.setup(); err != nil {
		unix.Close(fd)
		return nil, &Error{"open", "netlink socket", err}
	}
	return c, nil
}

func (c *Conn) setup() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// The answer to a dump is there before send returns; the timeout only lets
	// a silent kernel notice that the context has ended.
	tv := unix.NsecToTimeval(int64(200 * time.Millisecond))
	return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

func (c *Conn) send(req Request, flags uint16) error {
	c.seq++
	b := c.out[:0]
	b = binary.NativeEndian.AppendUint32(b, uint32(nlmsgHeader+nfgenLen+len(req.Attrs)))
	b = binary.NativeEndian.AppendUint16(b, uint16(req.Subsystem)<<8|uint16(req.Type))
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, c.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, req.Family, unix.NFNETLINK_V0, 0, 0)
	b = append(b, req.Attrs...)
	c.out = b
	return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive returns the next datagram that the kernel sent.
func (c *Conn) receive(ctx context.Context) ([]byte, error) {
	end := time.Now().Add(silence)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// With MSG_TRUNC the length is that of the whole datagram.
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			if time.Now().After(end) {
				return nil, errors.New("no answer from the kernel")
			}
			continue
		case err != nil:
			return nil, err
		case n > len(c.buf):
			return nil, errors.New("netlink message was truncated")
		}
		if nl, ok := from.(*unix.SockaddrNetlink); ok && nl.Pid != 0 {
			continue // not from the kernel
		}
		return c.buf[:n], nil
	}
}

// message is one netlink message of a datagram.
type message struct {
	typ, flags uint16
	payload    []byte
}

var errShort = errors.New("netlink message is cut short")

// cut takes the first message off a datagram; ours is false for one that
// answers an earlier request.
func (c *Conn) cut(b []byte) (m message, rest []byte, ours bool, err error) {
	if len(b) < nlmsgHeader {
		return m, nil, false, errShort
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < nlmsgHeader || n > len(b) {
		return m, nil, false, errShort
	}
	m.typ = binary.NativeEndian.Uint16(b[4:])
	m.flags = binary.NativeEndian.Uint16(b[6:])
	ours = binary.NativeEndian.Uint32(b[8:]) == c.seq
	m.payload = b[nlmsgHeader:n]
	return m, b[min((n+3)&^3, len(b)):], ours, nil
}

// status reads the errno of NLMSG_ERROR and NLMSG_DONE.
func (m message) status() error {
	if len(m.payload) < 4 {
		return nil
	}
	if code := int32(binary.NativeEndian.Uint32(m.payload)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

// Dump implements Source.
func (c *Conn) Dump(ctx context.Context, req Request) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		fail := func(err error) { yield(nil, &Error{"dump", req.object(), err}) }
		if err := c.send(req, unix.NLM_F_DUMP); err != nil {
			fail(err)
			return
		}
		interrupted, stopped := false, false
		for {
			b, err := c.receive(ctx)
			if err != nil {
				if !stopped {
					fail(err)
				}
				return
			}
			for len(b) > 0 {
				m, rest, ours, err := c.cut(b)
				if err != nil {
					if !stopped {
						fail(err)
					}
					return
				}
				b = rest
				if !ours {
					continue
				}
				interrupted = interrupted || m.flags&nlmFDumpIntr != 0
				switch m.typ {
				case unix.NLMSG_DONE, unix.NLMSG_ERROR:
					err := m.status()
					if err == nil && interrupted {
						err = ErrInterrupted
					}
					if err != nil && !stopped {
						fail(err)
					}
					return
				case unix.NLMSG_NOOP, unix.NLMSG_OVERRUN:
					continue
				}
				if !stopped && !yield(m.payload, nil) {
					if c.abandon() {
						return
					}
					// It is read to its end all the same, or the next request
					// would find the socket busy.
					stopped = true
				}
			}
		}
	}
}

// abandon ends a dump that nobody wants any more by taking a new socket for
// this one, in the same network namespace; false where that is not at hand,
// because the calling thread has moved since Open.
func (c *Conn) abandon() bool {
	ns, err := unix.IoctlRetInt(c.fd, unix.SIOCGSKNS)
	if err != nil {
		return false
	}
	defer unix.Close(ns)
	var socket, thread unix.Stat_t
	if unix.Fstat(ns, &socket) != nil || unix.Stat("/proc/thread-self/ns/net", &thread) != nil ||
		socket.Ino != thread.Ino || socket.Dev != thread.Dev {
		return false
	}
	fresh, err := Open()
	if err != nil {
		return false
	}
	unix.Close(c.fd)
	c.fd = fresh.fd
	return true
}

// Get implements Source.
func (c *Conn) Get(ctx context.Context, req Request) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, &Error{"get", req.object(), err} }
	if err := c.send(req, 0); err != nil {
		return fail(err)
	}
	for {
		b, err := c.receive(ctx)
		if err != nil {
			return fail(err)
		}
		for len(b) > 0 {
			m, rest, ours, err := c.cut(b)
			if err != nil {
				return fail(err)
			}
			b = rest
			if !ours {
				continue
			}
			switch m.typ {
			case unix.NLMSG_ERROR:
				if err := m.status(); err != nil {
					return fail(err)
				}
				continue
			case unix.NLMSG_NOOP, unix.NLMSG_DONE, unix.NLMSG_OVERRUN:
				continue
			}
			return m.payload, nil
		}
	}
}
