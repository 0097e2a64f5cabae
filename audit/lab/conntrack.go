package lab

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// FillConntrack gives a namespace's table of connections entries towards an IPv4
// address until the kernel has no room for more. The bound is the machine's
// (nf_conntrack_max can be set in the first namespace alone), and each namespace
// counts against it by itself. The entries are assured ones, since the kernel
// gives up others early (early_drop); FlushConntrack takes them away again.
func (n *Namespace) FillConntrack(t testing.TB, to netip.Addr) {
	t.Helper()
	fd, err := -1, error(nil)
	n.Do(func() {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	answer := make([]byte, 8192)
	for i := uint32(0); i < 1<<20; {
		var batch []byte
		for range 200 {
			batch = append(batch, newEntry(to, i)...)
			i++
		}
		if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			t.Fatal(err)
		}
		if got, _, err := unix.Recvfrom(fd, answer, 0); err == nil && got >= 20 { // only errors are answered
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(answer[16:])))
			if i < 1000 || errno != unix.ENOMEM {
				t.Fatalf("entry %d: %v", i, errno)
			}
			return
		}
	}
	t.Fatal("the table takes a million entries")
}

// newEntry is the message that creates an established TCP connection, the i-th of
// its kind (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
func newEntry(to netip.Addr, i uint32) []byte {
	attr := func(kind uint16, data ...byte) []byte {
		b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(data)))
		b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
		return append(b, make([]byte, (4-len(b)%4)%4)...)
	}
	const nested = unix.NLA_F_NESTED
	tuple := func(kind uint16, src, dst netip.Addr, sport, dport uint16) []byte {
		s, d := src.As4(), dst.As4()
		ip := attr(nested|1, append(attr(1, s[:]...), attr(2, d[:]...)...)...)
		proto := attr(nested|2, slices.Concat(attr(1, unix.IPPROTO_TCP), attr(2, byte(sport>>8), byte(sport)), attr(3, byte(dport>>8), byte(dport)))...)
		return attr(nested|kind, append(ip, proto...)...)
	}
	client, sport := netip.AddrFrom4([4]byte{172, 16 + byte(i>>20), byte(i >> 12), byte(i >> 4)}), uint16(1024+i%16)
	const seenAssuredConfirmed = 0x2 | 0x4 | 0x8
	body := slices.Concat([]byte{unix.AF_INET, 0, 0, 0}, tuple(1, client, to, sport, 9), tuple(2, to, client, 9, sport),
		attr(3, 0, 0, 0, seenAssuredConfirmed), attr(7, 0, 0, 2, 0), // CTA_STATUS, CTA_TIMEOUT
		attr(nested|4, attr(nested|1, attr(1, 3)...)...)) // CTA_PROTOINFO: TCP, established
	b := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.NativeEndian.AppendUint16(b, 1<<8) // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_CREATE)
	return append(append(b, make([]byte, 8)...), body...)
}
