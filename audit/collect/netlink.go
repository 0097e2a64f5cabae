package collect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// dumpTries is how often a dump that the kernel calls inconsistent
// (NLM_F_DUMP_INTR) is asked for again.
const dumpTries = 4

// netlinkAsk sends one request on the calling thread and gives the payloads of
// the messages that came. request holds everything after struct nlmsghdr.
func netlinkAsk(protocol int, typ uint16, flags int, request []byte) ([][]byte, error) {
	for try := 1; ; try++ {
		req := nl.NewNetlinkRequest(int(typ), flags)
		req.AddRawData(request)
		out, err := req.Execute(protocol, 0)
		if errors.Is(err, nl.ErrDumpInterrupted) {
			if try < dumpTries {
				continue
			}
			return out, fmt.Errorf("changed each of the %d times it was read: %w", try, err)
		}
		return out, err
	}
}

// The message layout of rtnetlink, include/uapi/linux/rtnetlink.h.
const (
	ifinfomsgLen = 16
	tcmsgLen     = 20
	rtgenmsgLen  = 4 // struct rtgenmsg, padded
)

var errShortMessage = errors.New("netlink message is too short")

// attrs walks the netlink attributes in b; the type comes without the flags
// NLA_F_NESTED and NLA_F_NET_BYTEORDER. It ends at the first attribute that
// does not fit, with ok false in *whole.
func attrs(b []byte, order binary.ByteOrder, whole *bool) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(order.Uint16(b))
			if n < 4 || n > len(b) {
				if whole != nil {
					*whole = false
				}
				return
			}
			if !yield(order.Uint16(b[2:])&0x3fff, b[4:n:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// attr appends one attribute in native byte order.
func attr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
func big32(v uint32) []byte    { return binary.BigEndian.AppendUint32(nil, v) }

// text cuts the NUL that ends a string of the kernel.
func text(b []byte) string { return unix.ByteSliceToString(b) }
