package remedy

import (
	"net/netip"
	"testing"
)

// FuzzJournal: whatever is found in place of a journal, reading it does not panic,
// and what is taken is written back as it was.
func FuzzJournal(f *testing.F) {
	j := &Journal{Schema: JournalSchema, ID: "0123456789ab", State: Intent, Step: 0, Steps: testSteps(f, newA)}
	b, err := j.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(journalMagic + " 2 x\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := decodeJournal(b)
		if err != nil {
			return
		}
		again, err := j.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeJournal(again); err != nil {
			t.Fatalf("what was taken is not taken again: %v", err)
		}
	})
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("12 (a) S 1 \x1b[2J\n) R 7 8"))
	f.Fuzz(func(t *testing.T, b []byte) { parseStat(b) })
}

func FuzzEstablished(f *testing.F) {
	f.Add([]byte("  sl  local_address rem_address   st\n   0: 0100007F:0016 0200007F:9C40 01 00000000:00000000\n"))
	f.Fuzz(func(t *testing.T, b []byte) { parseEstablished(b, map[uint16]bool{22: true}) })
}

// TestStatAndConnections: names that hold anything, and both address families.
func TestStatAndConnections(t *testing.T) {
	if comm, parent, ok := parseStat([]byte("12 (a) S 1 \x1b[2J\n) R 7 8")); !ok || comm != "a) S 1 \x1b[2J\n" || parent != 7 {
		t.Errorf("%q %d %v", comm, parent, ok)
	}
	text := "  sl  local_address rem_address   st tx_queue\n" +
		"   0: 0200A8C0:0016 0100A8C0:9C40 01 00000000:00000000\n" +
		"   1: 0200A8C0:0016 0100A8C0:9C41 06 00000000:00000000\n" +
		"   2: 000080FE00000000FF005450B6AD1DFE:0016 0000000000000000FFFF00000101A8C0:9C42 01 0\n"
	got := parseEstablished([]byte(text), map[uint16]bool{22: true})
	if len(got) != 2 || got[0].From != netip.MustParseAddr("192.168.0.1") || got[0].FromPort != 40000 || got[1].From != netip.MustParseAddr("192.168.1.1") {
		t.Errorf("%v", got)
	}
}
