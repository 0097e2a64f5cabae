package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
)

// Errors a caller branches on.
var (
	// ErrUnsupported: this kernel has no diag handler for the protocol. It is
	// not the same as "no such sockets".
	ErrUnsupported = errors.New("the kernel has no diag handler for this protocol")
	// ErrInterrupted: the kernel says the dump is not consistent (NLM_F_DUMP_INTR).
	ErrInterrupted = errors.New("the dump was interrupted by changes")
	// ErrTruncated: the answer was longer than the receive buffer or ended early.
	ErrTruncated = errors.New("the answer was truncated")
)

// DecodeError tells what could not be decoded, and where.
type DecodeError struct {
	What   string
	Offset int
	Err    error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("decode %s at byte %d: %v", e.What, e.Offset, e.Err)
}

// Unwrap gives the cause.
func (e *DecodeError) Unwrap() error { return e.Err }

// Message is one netlink message of a datagram. Payload points into it.
type Message struct {
	Type    uint16
	Flags   uint16
	Payload []byte
}

// IsRecord tells whether the message holds a socket (and not dump control).
func (m *Message) IsRecord() bool { return m.Type == typeByFamily || m.Type == typeTCPDiag }

// NextMessage takes the first message off a datagram and gives the rest. The
// end of the datagram is an empty rest. The byte order is the sender's.
func NextMessage(datagram []byte, order binary.ByteOrder) (m Message, rest []byte, err error) {
	if len(datagram) < headerLen {
		return m, nil, &DecodeError{"netlink header", 0, ErrTruncated}
	}
	n := order.Uint32(datagram)
	if n < headerLen || uint64(n) > uint64(len(datagram)) {
		return m, nil, &DecodeError{"netlink header", 0, fmt.Errorf("length %d in a datagram of %d: %w", n, len(datagram), ErrTruncated)}
	}
	m = Message{Type: order.Uint16(datagram[4:]), Flags: order.Uint16(datagram[6:]), Payload: datagram[headerLen:n:n]}
	return m, datagram[min(align4(int(n)), len(datagram)):], nil
}

// NextNative is [NextMessage] for this machine's own byte order, without the
// price of an interface call a field: a census sees a million messages.
func NextNative(datagram []byte) (m Message, rest []byte, err error) {
	if len(datagram) >= headerLen {
		n := uint64(binary.NativeEndian.Uint32(datagram))
		if n >= headerLen && n <= uint64(len(datagram)) {
			m = Message{binary.NativeEndian.Uint16(datagram[4:]), binary.NativeEndian.Uint16(datagram[6:]), datagram[headerLen:n:n]}
			if n = (n + 3) &^ 3; n < uint64(len(datagram)) {
				return m, datagram[n:], nil
			}
			return m, nil, nil
		}
	}
	return NextMessage(datagram, binary.NativeEndian)
}

// status is the end of a dump as one datagram tells it.
type status struct {
	done        bool
	interrupted bool
	err         error
}

// scan looks through a datagram for the end of the dump. Only this decides that
// a dump is complete: NLMSG_DONE with a status of zero.
func scan(datagram []byte) (st status) {
	order := binary.NativeEndian
	for len(datagram) > 0 {
		m, rest, err := NextNative(datagram)
		if err != nil {
			st.err = err
			return st
		}
		if m.Flags&flagDumpIntr != 0 {
			st.interrupted = true
		}
		switch m.Type {
		case typeDone:
			st.done = true
			// The status was added to NLMSG_DONE by netlink_dump_done; a missing
			// handler shows up here and nowhere else.
			if len(m.Payload) >= 4 {
				st.err = statusError(int32(order.Uint32(m.Payload)))
			}
			return st
		case typeError:
			st.done = true
			if len(m.Payload) < 4 {
				st.err = &DecodeError{"NLMSG_ERROR", 0, ErrTruncated}
				return st
			}
			st.err = statusError(int32(order.Uint32(m.Payload)))
			return st
		case typeOverrun:
			st.done, st.err = true, fmt.Errorf("NLMSG_OVERRUN: %w", ErrTruncated)
			return st
		case typeNoop, typeByFamily, typeTCPDiag:
		default:
			st.done, st.err = true, fmt.Errorf("unexpected netlink message type %d", m.Type)
			return st
		}
		datagram = rest
	}
	return st
}

func statusError(code int32) error {
	if code == 0 {
		return nil
	}
	errno := syscall.Errno(-code)
	switch errno {
	case syscall.ENOENT, syscall.EPROTONOSUPPORT, syscall.EOPNOTSUPP, syscall.EAFNOSUPPORT:
		return fmt.Errorf("%w (%w)", ErrUnsupported, errno)
	}
	return errno
}

func align4(n int) int { return (n + 3) &^ 3 }
