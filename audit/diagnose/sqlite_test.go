package diagnose

import (
	"encoding/binary"
	"errors"
	"testing"
)

// TestSQLiteOneCellMany: a page whose cells are all the same bytes holds more than
// the file does, and is damaged.
func TestSQLiteOneCellMany(t *testing.T) {
	t.Parallel()
	for cells, want := range map[int]error{1: errNoTable, 60: errNoTable, 1000: errSQLite} {
		b := make([]byte, 65536)
		copy(b, "SQLite format 3\x00")
		binary.BigEndian.PutUint16(b[16:], 1) // pages of 65536 bytes
		const at, text = 40_000, 900
		b[100] = 13 // a leaf
		binary.BigEndian.PutUint16(b[103:], uint16(cells))
		for i := range cells {
			binary.BigEndian.PutUint16(b[108+2*i:], at)
		}
		const serial = 13 + 2*text
		cell := []byte{0x80 | (text+3)>>7, (text + 3) & 0x7f, 1, 3, 0x80 | serial>>7, serial & 0x7f}
		copy(b[at:], cell)
		if _, err := sqliteRows(b, "firewall"); !errors.Is(err, want) {
			t.Errorf("%d cells: %v, want %v", cells, err, want)
		}
	}
}
