package sockdiag

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// message makes a netlink message in the given byte order.
func message(order binary.ByteOrder, typ, flags uint16, payload []byte) []byte {
	b := make([]byte, headerLen, headerLen+len(payload)+3)
	order.PutUint32(b, uint32(headerLen+len(payload)))
	order.PutUint16(b[4:], typ)
	order.PutUint16(b[6:], flags)
	b = append(b, payload...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func attr(order binary.ByteOrder, typ uint16, data ...byte) []byte {
	b := make([]byte, 4, 4+len(data)+3)
	order.PutUint16(b, uint16(4+len(data)))
	order.PutUint16(b[2:], typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// sample is a listener on [2001:db8::1]:443 with every attribute we read.
func sample(order binary.ByteOrder) []byte {
	p := make([]byte, RecordLen)
	p[0], p[1] = byte(Inet6), byte(Listen)
	binary.BigEndian.PutUint16(p[4:], 443)
	addr := netip.MustParseAddr("2001:db8::1").As16()
	copy(p[8:], addr[:])
	order.PutUint32(p[40:], 7)
	order.PutUint32(p[44:], 0x11)
	order.PutUint32(p[48:], 0x22)
	order.PutUint32(p[56:], 3)
	order.PutUint32(p[60:], 128)
	order.PutUint32(p[64:], 33)
	order.PutUint32(p[68:], 4711)
	u32 := func(v uint32) []byte { b := make([]byte, 4); order.PutUint32(b, v); return b }
	u64 := func(v uint64) []byte { b := make([]byte, 8); order.PutUint64(b, v); return b }
	p = append(p, attr(order, attrShutdown, 0)...)
	p = append(p, attr(order, attrSKV6Only, 1)...)
	p = append(p, attr(order, attrMark, u32(9)...)...)
	p = append(p, attr(order, attrCgroupID, u64(1<<40)...)...)
	mem := make([]byte, 36)
	order.PutUint32(mem[4:], 212992)
	order.PutUint32(mem[32:], 5)
	p = append(p, attr(order, attrSKMemInfo, mem...)...)
	opts := []byte{1 << 2, 1}
	if bigEndian(order) {
		opts = []byte{1 << 5, 1 << 7}
	}
	p = append(p, attr(order, attrSockOpt, opts...)...)
	p = append(p, attr(order, attrULPInfo, attr(order, 1, 'm', 'p', 't', 'c', 'p', 0)...)...)
	p = append(p, attr(order, 999, 1, 2, 3)...) // of a later kernel
	return p
}

// A recording of a machine of either byte order decodes the same.
func TestDecodeRecord(t *testing.T) {
	want := Record{
		Header: Header{Family: Inet6, State: Listen, Src: netip.MustParseAddr("2001:db8::1"), Dst: netip.IPv6Unspecified(), SrcPort: 443,
			Device: 7, Cookie: 0x2200000011, RecvQueue: 3, SendQueue: 128, UID: 33, Inode: 4711},
		V6Only: some(true), Mark: some(uint32(9)), CgroupID: some(uint64(1 << 40)), ULP: "mptcp",
		Opts: some(SockOpts{Freebind: true, BindAddressNoPort: true}), Memory: some(Memory{RecvLimit: 212992, Drops: some(uint32(5))}),
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		got, err := DecodeRecord(sample(order), order)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: %s", order, diff)
		}
	}
}

// Every way of cutting a record short is an error or a record, never a panic,
// and never a record that pretends to be another.
func TestDecodeRecordCutShort(t *testing.T) {
	full := sample(binary.NativeEndian)
	for n := range full {
		_, err := DecodeRecord(full[:n], binary.NativeEndian)
		if n < RecordLen && err == nil {
			t.Errorf("%d bytes accepted", n)
		}
	}
}

func TestScanFindsTheEnd(t *testing.T) {
	ne := binary.NativeEndian
	status := func(n int32) []byte { return ne.AppendUint32(nil, uint32(n)) }
	rec := message(ne, typeByFamily, 2, sample(ne))
	for _, c := range []struct {
		name        string
		datagram    []byte
		done        bool
		interrupted bool
		err         error
	}{
		{"records only", rec, false, false, nil},
		{"done", append(append([]byte{}, rec...), message(ne, typeDone, 2, status(0))...), true, false, nil},
		{"done without status", message(ne, typeDone, 2, nil), true, false, nil},
		{"no handler", message(ne, typeDone, 2, status(-int32(syscall.ENOENT))), true, false, ErrUnsupported},
		{"failed", message(ne, typeDone, 2, status(-int32(syscall.EPERM))), true, false, syscall.EPERM},
		{"error", message(ne, typeError, 0, append(status(-int32(syscall.EINVAL)), make([]byte, 16)...)), true, false, syscall.EINVAL},
		{"short error", message(ne, typeError, 0, nil), true, false, ErrTruncated},
		{"overrun", message(ne, typeOverrun, 0, nil), true, false, ErrTruncated},
		{"interrupted", message(ne, typeByFamily, 2|flagDumpIntr, sample(ne)), false, true, nil},
		{"length beyond the end", []byte{255, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, false, false, ErrTruncated},
		{"short header", []byte{1, 2, 3}, false, false, ErrTruncated},
	} {
		st := scan(c.datagram)
		if st.done != c.done || st.interrupted != c.interrupted || !errors.Is(st.err, c.err) || (c.err == nil) != (st.err == nil) {
			t.Errorf("%s: %+v", c.name, st)
		}
	}
}

func TestQueriesThatAreRefused(t *testing.T) {
	for _, q := range []Query{
		{Family: Inet4, Protocol: TCP},
		{Family: Inet4, Protocol: TCP, States: Mask(Listen, Close)},
		{Family: Inet4, Protocol: TCP, States: 1<<13 | Mask(Listen)},
		{Family: AnyFamily, Protocol: UDP, States: Mask(Close)},
		{Family: 3, Protocol: TCP, States: Mask(Listen)},
	} {
		if q.Validate() == nil {
			t.Errorf("%s accepted", q.Key())
		}
	}
	if err := (Query{Family: Inet4, Protocol: UDP, States: Mask(Close)}).Validate(); err != nil {
		t.Error(err)
	}
	if AllTCP&neverTCP != 0 {
		t.Error("AllTCP asks for states it must not")
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(sample(binary.LittleEndian), false)
	f.Add(sample(binary.BigEndian), true)
	f.Fuzz(func(t *testing.T, b []byte, big bool) {
		var order binary.ByteOrder = binary.LittleEndian
		if big {
			order = binary.BigEndian
		}
		r, err := DecodeRecord(b, order)
		if err == nil && (len(b) < RecordLen || r.Family != Inet4 && r.Family != Inet6) {
			t.Errorf("%d bytes decoded to family %v", len(b), r.Family)
		}
	})
}

func FuzzMessages(f *testing.F) {
	ne := binary.NativeEndian
	f.Add(append(message(ne, typeByFamily, 2, sample(ne)), message(ne, typeDone, 2, make([]byte, 4))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		scan(b)
		n := 0
		err := Records(b, ne, func(Record) error { n++; return nil })
		if n > len(b)/(headerLen+RecordLen) {
			t.Errorf("%d records in %d bytes: %v", n, len(b), err)
		}
		// The two walkers must agree on every message.
		for rest := b; len(rest) > 0; {
			m1, r1, err1 := NextMessage(rest, ne)
			m2, r2, err2 := NextNative(rest)
			if (err1 == nil) != (err2 == nil) || m1.Type != m2.Type || len(m1.Payload) != len(m2.Payload) || len(r1) != len(r2) {
				t.Fatalf("%+v, %d left, %v; native %+v, %d left, %v", m1, len(r1), err1, m2, len(r2), err2)
			}
			if err1 != nil {
				return
			}
			rest = r1
		}
	})
}
