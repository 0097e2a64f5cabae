package nft

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestExprStore: what was kept comes back, whatever the order.
func TestExprStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s exprStore
		var all [][]byte
		prev := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "first")
		for range rapid.IntRange(1, 200).Draw(t, "rules") {
			b := bytes.Clone(prev)
			if rapid.IntRange(0, 9).Draw(t, "other length") == 0 {
				b = rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes")
			}
			for range rapid.IntRange(0, 6).Draw(t, "changes") {
				if len(b) > 0 {
					b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
				}
			}
			s.add(b)
			all = append(all, b)
			prev = b
		}
		for i := range all {
			if got := s.get(i); !bytes.Equal(got, all[i]) {
				t.Fatalf("rule %d: %x, kept %x", i, got, all[i])
			}
		}
	})
}
