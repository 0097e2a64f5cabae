package route

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/firewall"
)

func throughJSON(t *testing.T, c *Capture) *Capture {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out := new(Capture)
	if err := json.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// asked is one question to the kernel itself (RTM_GETROUTE).
type asked struct {
	Key
	src, dst firewall.Value
	hasSrc   bool
	iif, oif int
	fibMatch bool
}

// told is the kernel's answer.
type told struct {
	errno   unix.Errno
	typ     uint8
	table   uint32
	oif     int
	gateway netip.Addr
	prefsrc netip.Addr
}

func (g told) String() string {
	if g.errno != 0 {
		return errnoName(g.errno)
	}
	return fmt.Sprintf("%s table %d oif %d via %s src %s", typeName(g.typ), g.table, g.oif, g.gateway, g.prefsrc)
}

func ask(t *testing.T, s *rtnetlink, q asked) told {
	t.Helper()
	af, w := uint8(unix.AF_INET), 4
	if q.Family == firewall.IPv6 {
		af, w = unix.AF_INET6, 16
	}
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[3] = af, uint8(8*w), q.TOS
	if q.fibMatch {
		binary.NativeEndian.PutUint32(b[8:], 0x2000)
	}
	u32 := func(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
	b = appendAttr(b, unix.RTA_DST, q.dst.AppendBytes(nil, w))
	if q.hasSrc {
		b[2] = uint8(8 * w)
		b = appendAttr(b, unix.RTA_SRC, q.src.AppendBytes(nil, w))
	}
	if q.iif != 0 {
		b = appendAttr(b, unix.RTA_IIF, u32(uint32(q.iif)))
	}
	if q.oif != 0 {
		b = appendAttr(b, unix.RTA_OIF, u32(uint32(q.oif)))
	}
	if q.Mark.Value != 0 {
		b = appendAttr(b, unix.RTA_MARK, u32(q.Mark.Value))
	}
	b = appendAttr(b, unix.RTA_UID, u32(q.UID.Value))
	if q.Proto != 0 {
		const ipProto, sport, dport = 27, 28, 29
		b = appendAttr(b, ipProto, []byte{byte(q.Proto)})
		b = appendAttr(b, sport, binary.BigEndian.AppendUint16(nil, uint16(q.Sport[0].Lo.Lo)))
		b = appendAttr(b, dport, binary.BigEndian.AppendUint16(nil, uint16(q.Dport[0].Lo.Lo)))
	}
	data, err := s.request(context.Background(), unix.RTM_GETROUTE, b)
	var got told
	if err != nil {
		if !errors.As(err, &got.errno) {
			t.Fatalf("ask the kernel: %v", err)
		}
		return got
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		order = binary.BigEndian
	}
	err = messages("oracle", order, data, unix.RTM_NEWROUTE, unix.SizeofRtMsg, func(m message) error {
		got.typ, got.table = m.fixed[7], uint32(m.fixed[4])
		for _, a := range m.attrs {
			switch a.typ {
			case unix.RTA_OIF:
				n, _ := a.u32(order)
				got.oif = int(n)
			case unix.RTA_TABLE:
				got.table, _ = a.u32(order)
			case unix.RTA_GATEWAY, unix.RTA_VIA:
				g, err := gateway(a, q.Family)
				if err != nil {
					return err
				}
				got.gateway = g
			case unix.RTA_PREFSRC:
				v, err := a.addr(q.Family)
				if err != nil {
					return err
				}
				got.prefsrc = v.Addr(q.Family)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}
