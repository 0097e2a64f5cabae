package diagnose

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzPacket: whatever arrives on a link, the decoder and the tracker neither
// panic nor count what is not the port's.
func FuzzPacket(f *testing.F) {
	v4 := make([]byte, 20)
	v4[0], v4[8], v4[9] = 0x45, 64, unix.IPPROTO_TCP
	copy(v4[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	syn := synSegment(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 40000, 8080, 7)
	f.Add(uint16(unix.ETH_P_IP), append(append([]byte{}, v4...), syn...))
	icmp := append([]byte{}, v4...)
	icmp[9] = unix.IPPROTO_ICMP
	icmp = append(icmp, 3, 10, 0, 0, 0, 0, 0, 0)
	f.Add(uint16(unix.ETH_P_IP), append(append(icmp, v4...), syn[:8]...))
	v6 := make([]byte, 40)
	v6[0], v6[6], v6[7], v6[23], v6[39] = 0x60, unix.IPPROTO_TCP, 64, 1, 2
	f.Add(uint16(unix.ETH_P_IPV6), append(append([]byte{}, v6...), syn...))
	ext := append([]byte{}, v6...)
	ext[6] = unix.IPPROTO_HOPOPTS
	f.Add(uint16(unix.ETH_P_IPV6), append(append(ext, unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0), syn...))
	icmp6 := append([]byte{}, v6...)
	icmp6[6] = unix.IPPROTO_ICMPV6
	f.Add(uint16(unix.ETH_P_IPV6), append(append(append(icmp6, 1, 1, 0, 0, 0, 0, 0, 0), v6...), syn[:8]...))
	udp := append([]byte{}, v4...)
	udp[9] = unix.IPPROTO_UDP
	f.Add(uint16(unix.ETH_P_IP), append(udp, 0x9c, 0x40, 0x1f, 0x90, 0, 8, 0, 0))
	f.Fuzz(func(t *testing.T, protocol uint16, b []byte) {
		p, ok := decodePacket(protocol, b)
		if !ok {
			return
		}
		if p.Proto != unix.IPPROTO_TCP && p.Proto != unix.IPPROTO_UDP || !p.Src.Addr().IsValid() || p.Src.Addr().Is4() != p.Dst.Addr().Is4() {
			t.Fatalf("%+v", p)
		}
		if p.ICMP != nil {
			_ = p.ICMP.String()
		}
		tr := newTracker(tapFor{proto: unix.IPPROTO_TCP, port: 8080}, netip.Addr{}, netip.Addr{})
		for i := range 6 {
			q := p
			q.At = time.Unix(int64(i), 0)
			q.Outgoing = i%2 == 1
			n := tr.take(&q)
			if n.asked > 0 && (p.Dst.Port() != 8080 || !p.SYN || p.ACK || p.Proto != unix.IPPROTO_TCP || p.ICMP != nil) {
				t.Fatalf("counted: %+v", p)
			}
		}
		if len(tr.flows) > 1 {
			t.Fatalf("%d attempts of one packet", len(tr.flows))
		}
	})
}

// FuzzWatch: any order of packets between a few hosts keeps the tracker within its
// bounds, and every attempt can be judged into a sentence.
func FuzzWatch(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40, 50, 60, 70, 80, 90})
	f.Add([]byte{0, 0, 0, 17, 0, 0, 33, 0, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		tr := newTracker(tapFor{proto: unix.IPPROTO_TCP, port: 8080}, netip.Addr{}, netip.Addr{})
		now := time.Unix(1000, 0)
		server := netip.MustParseAddrPort("10.0.0.2:8080")
		for i := 0; i+2 < len(script); i += 3 {
			client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, script[i] >> 6}), 40000+uint16(script[i]>>5&1))
			now = now.Add(time.Duration(script[i+2]) * 7 * time.Millisecond)
			p := Packet{At: now, Proto: unix.IPPROTO_TCP, Link: int(script[i] & 3), Src: client, Dst: server, Seq: uint32(script[i+1] & 3)}
			switch k := script[i+1] >> 2 & 7; k {
			case 0, 1:
				p.SYN = true
			case 2:
				p.SYN, p.ACK = true, true
			case 3:
				p.RST, p.ACK = true, script[i+1]&1 == 1
			case 4:
				p.FIN, p.ACK = true, true
			case 5:
				p.ACK = true
			default:
				p.ICMP, p.To = &ICMP{From: server.Addr(), Type: 3, Code: script[i+1]}, client.Addr()
				p.Outgoing = true
			}
			if script[i+1]&0x80 != 0 {
				p.Outgoing = true
				if p.ICMP == nil {
					p.Src, p.Dst = p.Dst, p.Src
				}
			}
			tr.take(&p)
		}
		if len(tr.flows) > 8 || len(tr.order) != tr.all {
			t.Fatalf("%d attempts, %d in order, %d counted", len(tr.flows), len(tr.order), tr.all)
		}
		world := emptyWorld()
		for _, fl := range tr.order {
			s := &seen{f: fl, before: world, after: world, now: now}
			s.y = world.expect(fl)
			s.x = s.y
			v := judgeFlow(s)
			if v.end == "" || v.sure == "" {
				t.Fatalf("no ending: %+v", fl)
			}
			if v.by != nil && (v.by.Kind == "rule" || v.by.Kind == "policy") {
				t.Fatalf("a rule is blamed where none was read: %+v", v.by)
			}
			g := &Sighting{Ended: v.end, DecidedBy: v.by, Proto: "tcp", Verdict: v.sure}
			if endWords(g) == "" {
				t.Fatal("no words")
			}
		}
		tr.sweep(now.Add(time.Hour))
	})
}
