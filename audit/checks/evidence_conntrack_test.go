package checks_test

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
)

const tracking = "table ip tracking { chain in { type filter hook input priority 0; ct state new accept; }; }"

// maxTestedTable bounds the table that the test fills: about 320 bytes each.
const maxTestedTable = 600_000

// TestConntrackFull fills the connection table of a namespace with real packets
// up to the machine's bound, which each namespace counts against by itself.
func TestConntrackFull(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a whole connection table")
	}
	lab.Need(t, "nft")
	h := newHost(t, lab.Topology{})
	h.Server.Load(t, lab.NFT, tracking)
	table := h.count("nf_conntrack_max")
	if table > maxTestedTable {
		missing(t, "a connection table of at most 600,000 entries")
	}
	// Nobody listens, and next to nobody is told so.
	h.Server.Sysctl(t, "net.ipv4.icmp_ratemask", "6168", "net.ipv4.icmp_msgs_per_sec", "1", "net.ipv4.icmp_msgs_burst", "1")
	// They would leave while this goes on, after half a minute.
	h.Server.Sysctl(t, "net.netfilter.nf_conntrack_udp_timeout", "600")
	const subject, check = "net.netfilter.nf_conntrack_max", "sysctl.net.netfilter.nf_conntrack_max"
	sent := 0
	fill := func(share int) func() {
		return func() {
			h.datagrams(sent, table*share/100)
			sent = max(sent, table*share/100)
		}
	}
	silent(t, h.scan(fill(50)), check)
	if got := h.count("nf_conntrack_count"); got < table*45/100 {
		t.Fatalf("control: %d of %d connections are tracked", got, table)
	}
	f := want(t, h.scan(fill(90)), audit.Warning, "sysctl.conntrack-near-limit", subject)
	evidence(t, f, "tracked connections", " of "+strconv.Itoa(table))
	f = want(t, h.scan(fill(103)), audit.Critical, "sysctl.conntrack-near-limit", subject)
	evidence(t, f, "conntrack early_drop", "+")

	// The other namespace has room: the bound is one number, the count is not.
	h.Client.Load(t, lab.NFT, tracking)
	echo(t, h.Client, "10.9.0.1:80")
	h.hold(h.Client, addrPort("10.9.0.1:80"), 3)
	b, err := h.Client.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if err != nil || strings.TrimSpace(string(b)) == "0" {
		t.Errorf("another namespace tracks %q connections (%v)", b, err)
	}
}

// count reads a number below net.netfilter of the server.
func (h *host) count(name string) int {
	h.t.Helper()
	b, err := h.Server.ReadFile("/proc/sys/net/netfilter/" + name)
	if err != nil {
		missing(h.t, err.Error())
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// datagrams sends one from each of the sources from first to last.
func (h *host) datagrams(first, last int) {
	h.t.Helper()
	h.Client.Do(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			h.t.Error(err)
			return
		}
		defer unix.Close(fd)
		to := &unix.SockaddrInet4{Addr: h.ServerAddr(0).As4()}
		b := make([]byte, 28)
		b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
		copy(b[16:], to.Addr[:])
		binary.BigEndian.PutUint16(b[22:], 9)
		binary.BigEndian.PutUint16(b[24:], 8) // no checksum
		for i := first; i < last; i++ {
			b[12], b[13], b[14], b[15] = 10, 78, byte(i>>8), byte(i)
			binary.BigEndian.PutUint16(b[20:], uint16(5000+i>>16))
			if err := unix.Sendto(fd, b, 0, to); err != nil {
				h.t.Error(err)
				return
			}
		}
	})
}

// TestConntrackInvalid: segments that belong to no connection and begin none.
func TestConntrackInvalid(t *testing.T) {
	lab.Need(t, "nft")
	serve := func() *host {
		h := newHost(t, lab.Topology{})
		h.Server.Load(t, lab.NFT, tracking)
		h.Server.Listen(t, lab.Listen{Proto: lab.TCP, Addr: addrPort("0.0.0.0:80")})
		return h
	}
	h := serve()
	odd := func() {
		dst := netip.MustParseAddrPort("10.9.0.2:80")
		h.Client.Do(func() {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			if err != nil {
				t.Error(err)
				return
			}
			defer unix.Close(fd)
			for i := range 20 {
				if err := unix.Sendto(fd, segment(netip.AddrPortFrom(h.ClientAddr(0), uint16(6000+i)), dst, 0x29, 1), 0, &unix.SockaddrInet4{Addr: dst.Addr().As4()}); err != nil {
					t.Error(err)
				}
			}
		})
		time.Sleep(100 * time.Millisecond)
	}
	f := want(t, h.scan(odd), audit.Info, "sysctl.conntrack-invalid", "net.netfilter.nf_conntrack_tcp_be_liberal")
	evidence(t, f, "conntrack invalid", "+20")
	h = serve()
	silent(t, h.scan(func() { h.crowd(addrPort("10.9.0.2:80"), 20) }), "sysctl.net.netfilter.nf_conntrack_tcp_be_liberal")
}
