package diagnose_test

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestKernelLog: what the kernel's own log says of a full SYN queue and of a full
// connection table, made for real. The log is one for the whole machine, and it
// is not said again at once: what other laboratories do shows in it as well.
func TestKernelLog(t *testing.T) {
	t.Parallel()
	t.Run("SYN queue", func(t *testing.T) {
		// On a port of its own: what it makes the kernel say accuses that port everywhere.
		const flooded = "tcp://198.51.100.20:8183"
		f := newField(t)
		f.sample = 500 * time.Millisecond
		f.server.Sysctl(t, "net.ipv4.tcp_syncookies", "0", "net.ipv4.tcp_max_syn_backlog", "65535")
		listen := func() *lab.Listeners {
			return f.server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: port("0.0.0.0:8183"), Backlog: 64})
		}
		l := listen()
		message := diagnose.Options{Message: "connect: connection timed out", From: netip.MustParseAddr(clientIP)}
		clear_(t, f.ask(t, onServer, flooded, diagnose.Options{}), onServer)
		if r := f.ask(t, onServer, flooded, message); r.Cause(diagnose.QueueFull).Verdict != diagnose.RuledOut {
			t.Errorf("before the flood:\n%s", text(t, r))
		}
		// A listener is warned of once, and not at all while the kernel says too much:
		// ten lines in five seconds, of whatever runs on this machine.
		for end := time.Now().Add(3 * time.Minute); ; {
			flood(t, f.client, serverIP+":8183", 400)
			r := f.ask(t, onServer, flooded, message)
			if strings.Contains(flat(t, r), "Possible SYN flooding on port 0.0.0.0:8183. Dropping request.") {
				blames(t, r, onServer, diagnose.QueueFull, diagnose.Likely)
				keep(t, "SYN queue", r)
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the kernel says nothing of the flood, or it is not told:\n%s", text(t, r))
			}
			// Another one in its place; beside it each would get too few to be full.
			l.Close()
			l = listen()
		}
	})
	t.Run("connection table", func(t *testing.T) {
		f := newField(t)
		serves(t, f)
		f.server.Load(t, lab.NFT, "table inet f { chain i { type filter hook input priority 0; ct state established accept; }; }")
		f.server.FillConntrack(t, netip.MustParseAddr(serverIP))
		for end := time.Now().Add(60 * time.Second); ; {
			f.ask(t, onClient, target, diagnose.Options{}) // its packets are dropped
			r := f.ask(t, onServer, target, diagnose.Options{})
			blames(t, r, onServer, diagnose.ConntrackFull, diagnose.Confirmed)
			if s := flat(t, r); strings.Contains(s, "nf_conntrack: table full") && strings.Contains(s, ", dropping packet") {
				keep(t, "connection table", r)
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the kernel says nothing of the table, or it is not told:\n%s", text(t, r))
			}
		}
		// The twin: there is room again, and the line of a moment ago accuses nobody.
		if err := f.server.FlushConntrack(); err != nil {
			t.Fatal(err)
		}
		clear_(t, f.ask(t, onServer, target, diagnose.Options{}), onServer)
	})
}

// flood sends SYNs of addresses that nobody has and whose answers nobody sees.
func flood(t *testing.T, n *lab.Namespace, to string, count int) {
	t.Helper()
	dst := port(to)
	n.Do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		for i := range count {
			src := netip.AddrFrom4([4]byte{203, 0, 113, 100})
			if err := unix.Sendto(fd, syn(netip.AddrPortFrom(src, uint16(1024+i)), dst), 0, &unix.SockaddrInet4{Addr: dst.Addr().As4()}); err != nil {
				t.Error(err)
				return
			}
		}
	})
}

// syn is an IPv4 packet with a SYN (RFC 791, RFC 9293).
func syn(from, to netip.AddrPort) []byte {
	s, d := from.Addr().As4(), to.Addr().As4()
	tcp := binary.BigEndian.AppendUint16(nil, from.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, to.Port())
	tcp = append(tcp, 0, 0, 1, 0, 0, 0, 0, 0, 5<<4, 2, 0xff, 0xff, 0, 0, 0, 0)
	pseudo := append(append(append([]byte{}, s[:]...), d[:]...), 0, unix.IPPROTO_TCP, 0, byte(len(tcp)))
	var sum uint32
	for b := append(pseudo, tcp...); len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	ip := append([]byte{0x45, 0, 0, byte(20 + len(tcp)), 0, 1, 0, 0, 64, unix.IPPROTO_TCP, 0, 0}, s[:]...)
	return append(append(ip, d[:]...), tcp...)
}
