package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveLen is what the kernel puts into one receive at most (netlink_dump
// caps an skb at 32 KiB). A smaller buffer loses records.
const receiveLen = 32 << 10

// Source gives the answers to queries as datagrams, in order. The datagram is
// only valid during the call of receive. An error of receive ends the dump and
// is returned as it is. A nil error means that the dump was complete; an error
// after some datagrams means that it was not.
type Source interface {
	Dump(ctx context.Context, q Query, receive func(datagram []byte) error) error
}

// Conn asks the kernel about the network namespace in which it was opened. It
// is not safe for concurrent use.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// Open opens the netlink socket on the calling thread, whose network namespace
// decides whose sockets the answers hold.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind sock_diag socket: %w", err)
	}
	// A dump never waits for anything but the processor; the timeout only keeps a
	// broken kernel from holding us for ever.
	tv := unix.NsecToTimeval(time.Second.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set timeout of sock_diag socket: %w", err)
	}
	return &Conn{fd: fd, buf: make([]byte, receiveLen)}, nil
}

// Close closes the socket.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// Dump implements [Source]. A dump that the kernel calls inconsistent ends with
// [ErrInterrupted] after its last datagram, a protocol without a handler with
// [ErrUnsupported].
func (c *Conn) Dump(ctx context.Context, q Query, receive func(datagram []byte) error) error {
	if err := q.Validate(); err != nil {
		return err
	}
	c.seq++
	if err := unix.Sendto(c.fd, q.Request(c.seq), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask for %s: %w", q.Key(), err)
	}
	finished, err := c.receive(ctx, receive)
	if err != nil {
		err = fmt.Errorf("dump %s: %w", q.Key(), err)
	}
	if !finished {
		// The rest of the dump is still queued in the kernel: this socket cannot
		// take another request.
		if reopenErr := c.reopen(); reopenErr != nil {
			return fmt.Errorf("%w; then %w", err, reopenErr)
		}
	}
	return err
}

// receive reads until the end of the dump. finished tells that the kernel ended
// it, so that nothing is left in the queue.
func (c *Conn) receive(ctx context.Context, each func(datagram []byte) error) (finished bool, err error) {
	interrupted := false
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		var from unix.RawSockaddrNetlink
		n, err := recvfrom(c.fd, c.buf, &from)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false, fmt.Errorf("no answer for a second: %w", err)
		case err != nil:
			return false, fmt.Errorf("receive: %w", err)
		case n > len(c.buf):
			return false, fmt.Errorf("receive %d bytes into %d: %w", n, len(c.buf), ErrTruncated)
		case n == 0:
			return false, fmt.Errorf("empty datagram: %w", ErrTruncated)
		case from.Pid != 0:
			continue // not from the kernel
		}
		datagram := c.buf[:n]
		if c.stale(datagram) {
			continue
		}
		st := scan(datagram)
		interrupted = interrupted || st.interrupted
		if st.err != nil {
			return st.done, st.err
		}
		if err := each(datagram); err != nil {
			return st.done, err
		}
		if st.done {
			if interrupted {
				return true, ErrInterrupted
			}
			return true, nil
		}
	}
}

// stale tells that a datagram answers an earlier request.
func (c *Conn) stale(datagram []byte) bool {
	return len(datagram) >= headerLen && binary.NativeEndian.Uint32(datagram[8:]) != c.seq
}

func (c *Conn) reopen() error {
	fresh, err := Open()
	if err != nil {
		return err
	}
	// The new socket must stay in the namespace of the old one; a caller that has
	// moved its thread since then must not get another host's sockets unseen.
	if same, err := sameNamespace(c.fd, fresh.fd); err != nil || !same {
		fresh.Close()
		return fmt.Errorf("reopen sock_diag socket: the thread has changed its network namespace (%w)", err)
	}
	unix.Close(c.fd)
	c.fd = fresh.fd
	return nil
}

// sameNamespace compares the network namespaces of two sockets by their cookie
// (SO_NETNS_COOKIE, Linux 5.14); kernels without it are taken at the caller's word.
func sameNamespace(a, b int) (bool, error) {
	ca, err := unix.GetsockoptUint64(a, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err == unix.ENOPROTOOPT {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	cb, err := unix.GetsockoptUint64(b, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return ca == cb, err
}

// recvfrom is recvfrom(2) with MSG_TRUNC, which makes it return the real length
// of the datagram, and without the allocation of unix.Recvfrom.
func recvfrom(fd int, b []byte, from *unix.RawSockaddrNetlink) (int, error) {
	size := uint32(unsafe.Sizeof(*from))
	n, _, errno := syscall.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_TRUNC, uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
