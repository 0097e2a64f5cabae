package diagnose

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostaudit/hostaudit/audit/lab"
)

// TestWatchVLAN: frames with an 802.1Q tag. The kernel takes those of priority
// alone, and throws away those of a VLAN that no interface is for; no 802.1Q
// device takes part, the tag is put into the frame by hand.
func TestWatchVLAN(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		tci  uint16
		six  bool
		end  Ending
		says string
	}{
		{"no tag", noTag, false, EndGaveUp, "the client reset it"},
		{"priority alone", 5 << 13, false, EndGaveUp, "the client reset it"},
		{"another VLAN", 5<<13 | 10, false, EndOtherVLAN, "tagged for VLAN 10, which no interface of this host takes"},
		{"another VLAN, IPv6", 4094, true, EndOtherVLAN, "tagged for VLAN 4094"},
		{"priority alone, IPv6", 1 << 13, true, EndGaveUp, "the client reset it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t, lab.Topology{})
			listen8080(t, l)
			w := watchIn(t, l.Server, WatchOptions{Port: 8080})
			sendFrame(t, l, c.tci, c.six)
			w.wait(t, 1)
			r := w.end(t)
			if len(r.Sightings) != 1 || r.Sightings[0].Ended != c.end || !strings.Contains(string(r.Sightings[0].Sentence), c.says) {
				t.Fatalf("want %s: %s %+v", c.end, r.Summary, r.Sightings)
			}
			if g := r.Sightings[0]; g.Disagreement != "" || (g.Remedy != "") != (c.end == EndOtherVLAN) || g.Interface != "eth0" {
				t.Errorf("%+v", g)
			}
			if c.end == EndOtherVLAN && r.Sightings[0].VLAN != c.tci&0xfff {
				t.Errorf("VLAN %d", r.Sightings[0].VLAN)
			}
		})
	}
}

// noTag stands for a frame without one.
const noTag = 0xffff

// sendFrame puts a SYN for port 8080 onto the client's first link, with a tag in
// its frame.
func sendFrame(t *testing.T, l *lab.Lab, tci uint16, six bool) {
	t.Helper()
	near, err := l.Client.Netlink().LinkByName("c0")
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Server.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	src, dst := l.ClientAddr(0), l.ServerAddr(0)
	if six {
		src, dst = l.ClientAddr6(0), l.ServerAddr6(0)
	}
	syn := synSegment(src, dst, 40001, 8080, 12345)
	frame := append(append([]byte{}, far.Attrs().HardwareAddr...), near.Attrs().HardwareAddr...)
	if tci != noTag {
		frame = append(frame, 0x81, 0x00, byte(tci>>8), byte(tci))
	}
	if six {
		frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(syn)), unix.IPPROTO_TCP, 64)
		frame = append(append(frame, src.AsSlice()...), dst.AsSlice()...)
	} else {
		header := []byte{0x45, 0, 0, byte(20 + len(syn)), 0, 1, 0, 0, 64, unix.IPPROTO_TCP, 0, 0}
		header = append(append(header, src.AsSlice()...), dst.AsSlice()...)
		sum := checksum(header)
		header[10], header[11] = byte(sum>>8), byte(sum)
		frame = append(append(frame, 0x08, 0x00), header...)
	}
	frame = append(frame, syn...)
	l.Client.Do(func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: near.Attrs().Index, Halen: 6}); err != nil {
			t.Error(err)
		}
	})
}

// TestWatchConntrack: the table of connections is full: what it drops is told by
// its counter. Before and after there is room, and everybody is served.
func TestWatchConntrack(t *testing.T) {
	t.Parallel()
	lab.Need(t, "nft")
	l := lab.New(t, lab.Topology{})
	listen8080(t, l)
	l.Server.Load(t, lab.NFT, "table inet f { chain i { type filter hook input priority 0; ct state established accept; }; }")
	for i, full := range []bool{false, true, false} {
		if err := l.Server.FlushConntrack(); err != nil {
			t.Fatal(err)
		}
		want, sees, cause := EndServed, lab.Connected, ID("")
		if full {
			l.Server.FillConntrack(t, l.ServerAddr(0))
			want, sees, cause = EndConntrack, lab.Timeout, ConntrackFull
		}
		w := watchIn(t, l.Server, WatchOptions{Port: 8080})
		if got := l.ProbeOnce(t, 1300*time.Millisecond, tcpProbe(l, ""))[0]; got.ClientSees != sees {
			t.Fatalf("%d: %v, want %v", i, got, sees)
		}
		w.wait(t, 1)
		r := w.end(t)
		if len(r.Sightings) != 1 {
			t.Fatalf("%d: %s", i, r.Summary)
		}
		g := r.Sightings[0]
		if g.Ended != want || g.Cause != cause || g.Verdict != Confirmed || g.Disagreement != "" || full && !strings.Contains(fmt.Sprint(g.Evidence), "connection tracking dropped") {
			t.Errorf("%d: ended %s, cause %q, %s, disagreement %q, %v: %s", i, g.Ended, g.Cause, g.Verdict, g.Disagreement, g.Evidence, r.Summary)
		}
	}
}
