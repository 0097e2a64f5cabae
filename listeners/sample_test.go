package listeners

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A full accept queue is made for real: the counters must move, the listener's
// own and the namespace's, and by the same number.
func TestSampleSeesOverflow(t *testing.T) {
	l := newSock(t, unix.AF_INET, unix.SOCK_STREAM, 0).bind(t, "127.0.0.1", 0).listen(t, 1)
	quiet := tcpListener(t, "127.0.0.1", 0)
	tableBefore := readTable(t)
	before, err := ReadSample(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if len(before.Gaps) > 0 {
		t.Fatalf("gaps: %v", before.Gaps)
	}
	for range 4 { // two fit, the rest is dropped
		c := newSock(t, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err := unix.Connect(c.fd, &unix.SockaddrInet4{Port: l.port, Addr: [4]byte{127, 0, 0, 1}}); err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
	after, err := ReadSample(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	change, err := after.Sub(before)
	if err != nil {
		t.Fatal(err)
	}
	overflows, known := change.Counters[ListenOverflows]
	if !known || overflows < 2 || change.Counters[ListenDrops] < overflows || change.Over <= 0 {
		t.Errorf("overflows %d, drops %d, over %s", overflows, change.Counters[ListenDrops], change.Over)
	}
	table := readTable(t)
	q := byInode(t, table, l.inode).Accept
	if q.Len != 2 || q.Limit != 1 || !q.Full() || q.LimitedBy(4096) != LimitApplication {
		t.Errorf("queue %+v", q)
	}
	for _, c := range QueueChanges(tableBefore, table) {
		switch c.Listener.Inode {
		case l.inode:
			if !c.Known || c.Dropped < 2 {
				t.Errorf("full listener: %+v", c)
			}
		case quiet.inode:
			if !c.Known || c.Dropped != 0 {
				t.Errorf("quiet listener: %+v", c)
			}
		}
	}
	if after.SockStat.TCPInUse == 0 || len(after.SoftNet) == 0 || after.Counters["Tcp.CurrEstab"] != 0 {
		t.Errorf("%+v", after.SockStat)
	}
	if _, err := os.Stat("/proc/net/stat/nf_conntrack"); err == nil && (after.Conntrack == nil || after.Conntrack.Max == 0) {
		t.Error("conntrack statistics not read")
	}

	stored, err := json.Marshal(after)
	if err != nil {
		t.Fatal(err)
	}
	var back Sample
	if err := json.Unmarshal(stored, &back); err != nil {
		t.Fatal(err)
	}
	if c, err := back.Sub(before); err != nil || c.Counters[ListenOverflows] != overflows {
		t.Errorf("stored and read again: %v, %v", c, err)
	}
	back.NetNS++
	if _, err := back.Sub(before); err != ErrOtherNamespace {
		t.Errorf("samples of two namespaces compare: %v", err)
	}
}

func TestCountersThatDoNotCompareAreAbsent(t *testing.T) {
	got := Counters{"a": 5, "b": 1, "c": 9}.Sub(Counters{"a": 3, "b": 2})
	if len(got) != 1 || got["a"] != 2 {
		t.Errorf("%v", got)
	}
	soft := subSoftNet([]SoftNet{{CPU: 1, Dropped: 5}}, []SoftNet{{CPU: 1, Dropped: 1<<32 - 3}})
	if len(soft) != 1 || soft[0].Dropped != 8 {
		t.Errorf("%v", soft)
	}
	s, e := &Sample{Uptime: time.Second}, &Sample{Uptime: 2 * time.Second}
	if _, err := s.Sub(e); err == nil {
		t.Error("samples in the wrong order compare")
	}
}
