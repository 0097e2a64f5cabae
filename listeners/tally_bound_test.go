package listeners

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestPortsBoundByNumber: the sockets of each destination on ports that were bound by
// number are the same whether those ports are known before the walk, while it goes on,
// after it, or only by a second walk.
func TestPortsBoundByNumber(t *testing.T) {
	const first, toA, toB = 45000, 12, 5
	servers := []*sock{tcpListener(t, "127.0.0.1", 0), tcpListener(t, "127.0.0.1", 0)}
	for i := range toA + toB {
		server := servers[i/toA]
		s := newSock(t, unix.AF_INET, unix.SOCK_STREAM, 0).opt(t, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1).bind(t, "127.0.0.1", first+i)
		if err := unix.Connect(s.fd, &unix.SockaddrInet4{Port: server.port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
	}
	settings := PortSettings{Low: first, High: first + 399, Reserved: "45003,45100"}
	opt := CensusOptions{Settings: settings, Table: readTable(t), Bound: true}
	reserved, err := ParsePortSet(settings.Reserved)
	if err != nil {
		t.Fatal(err)
	}
	live := openLive(t)
	found := readBound(t.Context(), live, settings.Low, settings.High)
	if found.err != nil {
		t.Fatal(found.err)
	}
	half := &PortSet{} // some, but fewer than make a difference
	for name, prepare := range map[string]func(tl *tally, walked bool){
		"known before": func(tl *tally, walked bool) {
			if !walked {
				tl.onBound.found.Store(&found.ports)
			}
		},
		"known after": func(tl *tally, walked bool) {
			if walked {
				tl.onBound.found.Store(&found.ports)
			}
		},
		"forgotten": func(tl *tally, walked bool) {
			if walked {
				tl.onBound.lose()
			}
		},
		"never known": func(*tally, bool) {},
		"nothing remembered": func(tl *tally, walked bool) {
			tl.onBound.wanted = false
			if walked {
				tl.onBound.found.Store(&found.ports)
			}
		},
	} {
		tl := newTally(TCP, opt, reserved)
		tl.onBound.wanted = true
		prepare(tl, false)
		if err := tl.readTCP(t.Context(), live); err != nil {
			t.Fatal(err)
		}
		prepare(tl, true)
		if err := tl.recount(t.Context(), live, &found.ports); err != nil {
			t.Fatal(err)
		}
		for i, want := range []uint32{toA, toB} {
			var got *destinationCount
			for j := range tl.counts {
				if int(tl.counts[j].key.port) == servers[i].port {
					got = &tl.counts[j]
				}
			}
			if got == nil || got.inUse != want || got.apart != want {
				t.Errorf("%s: %+v, want %d in use, all apart", name, got, want)
			}
		}
	}
	tl := newTally(TCP, opt, reserved)
	half.Add(first)
	if got := tl.apartOf(half); !got.empty() {
		t.Errorf("one port of four hundred makes no difference, got %d", got.Count())
	}
	if got := tl.apartOf(&found.ports).Count(); got != toA+toB-1 {
		t.Errorf("%d ports apart, want %d without the reserved one", got, toA+toB-1)
	}
}
