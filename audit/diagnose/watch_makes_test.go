package diagnose

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// dial opens a connection from a namespace and leaves it open, complete or not.
func dial(t *testing.T, n *lab.Namespace, to netip.AddrPort) int {
	t.Helper()
	fd := -1
	n.Do(func() {
		family := unix.AF_INET
		if to.Addr().Is6() {
			family = unix.AF_INET6
		}
		var err error
		if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Error(err)
			return
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 1) // leaves by the first link, as probes do
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		_ = unix.Connect(fd, sockaddr(to))
	})
	return fd
}

// fillQueue fills the accept queue of port 8080, which a backlog of 1 has two
// places in.
func fillQueue(t *testing.T, l *lab.Lab) {
	for _, a := range []netip.Addr{l.ServerAddr(0), l.ServerAddr6(0)} {
		fd := dial(t, l.Client, netip.AddrPortFrom(a, 8080))
		t.Cleanup(func() { unix.Close(fd) })
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(set, 3000); n != 1 || err != nil {
			t.Fatalf("a place in the queue could not be taken: %v", err)
		}
		if e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); e != 0 || err != nil {
			t.Fatalf("a place in the queue could not be taken: %v %v", unix.Errno(e), err)
		}
	}
	time.Sleep(100 * time.Millisecond) // the last acknowledgement
}

func noRouteBack(t *testing.T, l *lab.Lab) {
	l.Server.Run(t, "ip", "route", "del", "default")
	l.Server.Run(t, "ip", "-6", "route", "del", "default")
}

// deafClient: the client's own rules drop what comes back.
func deafClient(t *testing.T, l *lab.Lab) {
	l.Client.Load(t, lab.NFT, "table inet f { chain c { type filter hook prerouting priority raw; tcp sport 8080 drop; }; }")
}

// publish leads port 8080 of the server to a port of the container, where only 80
// listens.
func publish(to uint16) func(*testing.T, *lab.Lab) {
	return func(t *testing.T, l *lab.Lab) {
		l.Server.Sysctl(t, "net.ipv4.ip_forward", "1", "net.ipv6.conf.all.forwarding", "1")
		l.Containers[0].Listen(t, lab.Listen{Proto: lab.TCP, Addr: netip.MustParseAddrPort("[::]:80")})
		l.Server.Load(t, lab.NFT, fmt.Sprintf(`table inet n { chain c { type nat hook prerouting priority dstnat;
			tcp dport 8080 dnat ip to %s:%d
			tcp dport 8080 dnat ip6 to [%s]:%d
		}
		}`, l.ContainerAddr(0), to, l.ContainerAddr6(0), to))
	}
}

func halfOpen(*testing.T, *lab.Lab) {}

// sendHalfOpen sends a SYN by hand, which the client's own kernel knows nothing
// of: it answers the SYN-ACK with a reset, as with a port scan.
func sendHalfOpen(t *testing.T, l *lab.Lab) {
	t.Helper()
	l.Client.Do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 1)
		if err := unix.Sendto(fd, synSegment(l.ClientAddr(0), l.ServerAddr(0), 40001, 8080, 12345), 0, &unix.SockaddrInet4{Addr: l.ServerAddr(0).As4()}); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(200 * time.Millisecond)
}

// synSegment is a SYN with its checksum.
func synSegment(src, dst netip.Addr, from, to uint16, seq uint32) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint32(b[4:], seq)
	b[12], b[13] = 5<<4, flagSYN
	binary.BigEndian.PutUint16(b[14:], 64240)
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(b))
	add := func(p []byte) {
		for i := 0; i+1 < len(p); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
	}
	add(src.AsSlice())
	add(dst.AsSlice())
	add(b)
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[16:], ^uint16(sum))
	return b
}

// emptyWorld is a host of which nothing could be read.
func emptyWorld() *worldView {
	s := &audit.Snapshot{World: reach.World{Namespaces: []*reach.Namespace{{Unread: map[string]string{"routes": "not read", "firewall": "not read", "listeners": "not read"}}}}}
	return &worldView{snap: s, ev: reach.New(&s.World)}
}

// readServer reads the server as it is now.
func readServer(t *testing.T, l *lab.Lab) *audit.Snapshot {
	t.Helper()
	var s *audit.Snapshot
	var err error
	l.Server.Do(func() { s, err = hostReader(t.Context(), nil) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}
