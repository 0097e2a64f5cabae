package ipset

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	netlinkNetfilter = 12       // NETLINK_NETFILTER
	receiveSize      = 64 << 10 // the kernel sends at most 32 KiB at once
	silence          = 10 * time.Second

	soIPSet     = 83 // SO_IP_SET
	opGetByName = 6  // IP_SET_OP_GET_BYNAME
	nameSize    = 32 // IPSET_MAXNAMELEN
)

// Kernel is the Source of the network namespace of the thread that opened it.
type Kernel struct {
	fd, inet int
	absent   bool
	seq      uint32
	buf      []byte
}

// Open opens the sockets on the calling thread. Where the kernel has no ipset
// loaded it succeeds, and List says so.
func Open() (*Kernel, error) {
	k := &Kernel{fd: -1, inet: -1}
	if _, err := os.Stat("/sys/module"); err == nil {
		if _, err := os.Stat("/sys/module/ip_set"); errors.Is(err, os.ErrNotExist) {
			k.absent = true
			return k, nil
		}
	}
	var err error
	k.fd, err = syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkNetfilter)
	if err != nil {
		if errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.EAFNOSUPPORT) {
			k.fd, k.absent = -1, true
			return k, nil
		}
		return nil, &Error{"open", "sets", err}
	}
	if err := syscall.Bind(k.fd, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		k.Close()
		return nil, &Error{"open", "sets", err}
	}
	if k.inet, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0); err != nil {
		k.inet = -1
	}
	k.buf = make([]byte, receiveSize)
	return k, nil
}

// Close closes the sockets.
func (k *Kernel) Close() error {
	var err error
	for _, fd := range []*int{&k.fd, &k.inet} {
		if *fd >= 0 {
			err = errors.Join(err, syscall.Close(*fd))
			*fd = -1
		}
	}
	return err
}

// List implements Source: with the newest protocol that the kernel speaks.
func (k *Kernel) List(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if k.absent {
			yield(nil, ErrNotPresent)
			return
		}
		older := false
		for msg, err := range k.dump(ctx, protocolNew) {
			if errors.Is(err, syscall.Errno(errProtocol)) {
				older = true
				break
			}
			if !yield(msg, err) {
				return
			}
		}
		if !older {
			return
		}
		for msg, err := range k.dump(ctx, protocolOld) {
			if !yield(msg, err) {
				return
			}
		}
	}
}

// errFinished ends a dump without error.
var errFinished = errors.New("finished")

// dump sends IPSET_CMD_LIST and yields the answers.
func (k *Kernel) dump(ctx context.Context, proto byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		fail := func(err error) {
			if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP) {
				err = ErrNotPresent // nfnetlink_rcv_msg: no such subsystem
			}
			if errors.Is(err, os.ErrPermission) {
				err = fmt.Errorf("%w (reading ipset needs CAP_NET_ADMIN)", err)
			}
			if !errors.Is(err, ErrNotPresent) {
				err = &Error{"list", "sets", err}
			}
			yield(nil, err)
		}
		k.seq++
		if err := k.send(proto); err != nil {
			fail(err)
			return
		}
		for {
			b, err := k.receive(ctx)
			if err != nil {
				fail(err)
				return
			}
			for len(b) > 0 {
				var msg []byte
				msg, b, err = k.message(b)
				switch {
				case errors.Is(err, errFinished):
					return
				case err != nil:
					fail(err)
					return
				case msg != nil && !yield(msg, nil):
					k.drain(ctx, b)
					return
				}
			}
		}
	}
}

// drain reads the rest of a dump that nobody wants, so that the socket is free
// for the next.
func (k *Kernel) drain(ctx context.Context, b []byte) {
	for {
		for len(b) > 0 {
			var err error
			if _, b, err = k.message(b); err != nil {
				return
			}
		}
		var err error
		if b, err = k.receive(ctx); err != nil {
			return
		}
	}
}

func (k *Kernel) send(proto byte) error {
	b := make([]byte, 28)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], subsystem<<8|cmdList)
	binary.NativeEndian.PutUint16(b[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_ACK|syscall.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(b[8:], k.seq)
	b[16] = syscall.AF_INET // struct nfgenmsg
	binary.NativeEndian.PutUint16(b[20:], 5)
	binary.NativeEndian.PutUint16(b[22:], attrProtocol)
	b[24] = proto
	return syscall.Sendto(k.fd, b, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK})
}

// receive returns the next datagram.
func (k *Kernel) receive(ctx context.Context) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		wait := silence
		if at, ok := ctx.Deadline(); ok {
			wait = max(min(wait, time.Until(at)), time.Millisecond)
		}
		tv := syscall.NsecToTimeval(int64(wait))
		if err := syscall.SetsockoptTimeval(k.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tv); err != nil {
			return nil, err
		}
		n, _, err := syscall.Recvfrom(k.fd, k.buf, syscall.MSG_TRUNC)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return nil, err
		case n > len(k.buf):
			return nil, fmt.Errorf("a message of %d bytes was cut", n)
		}
		return k.buf[:n], nil
	}
}

// message cuts the first message off b. It is nil for one that belongs to
// another request.
func (k *Kernel) message(b []byte) (msg, rest []byte, err error) {
	if len(b) < syscall.NLMSG_HDRLEN {
		return nil, nil, errors.New("a message header that is torn")
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < syscall.NLMSG_HDRLEN || n > len(b) {
		return nil, nil, errors.New("a message that is torn")
	}
	rest = b[min((n+3)&^3, len(b)):]
	typ, seq := native16(b[4:]), binary.NativeEndian.Uint32(b[8:])
	body := b[syscall.NLMSG_HDRLEN:n]
	if seq != k.seq {
		return nil, rest, nil
	}
	switch typ {
	case syscall.NLMSG_DONE, syscall.NLMSG_ERROR:
		// The status of DONE is an error like any other.
		if len(body) >= 4 {
			if e := int32(binary.NativeEndian.Uint32(body)); e < 0 {
				return nil, rest, syscall.Errno(-e)
			}
		}
		if typ == syscall.NLMSG_ERROR {
			return nil, rest, nil // the acknowledgement
		}
		return nil, rest, errFinished
	default:
		return body, rest, nil
	}
}

// Index implements Source (ip_set_sockfn_get).
func (k *Kernel) Index(ctx context.Context, name string) (uint16, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if k.inet < 0 {
		return 0, &Error{"find", "set " + name, os.ErrClosed}
	}
	var req [8 + nameSize]byte // struct ip_set_req_get_set
	binary.NativeEndian.PutUint32(req[:], opGetByName)
	binary.NativeEndian.PutUint32(req[4:], protocolOld)
	copy(req[8:8+nameSize-1], name)
	n := uint32(len(req))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(k.inet), syscall.IPPROTO_IP, soIPSet,
		uintptr(unsafe.Pointer(&req[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, &Error{"find", "set " + name, errno}
	}
	index := native16(req[8:])
	if index == 65535 {
		return 0, &Error{"find", "set " + name, syscall.ENOENT}
	}
	return index, nil
}
