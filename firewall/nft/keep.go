package nft

import "encoding/binary"

// exprStore keeps the expressions of the rules of one chain in little space:
// most rules differ from the one before in a few bytes. Every keyEvery-th rule,
// and every one of another length, is kept whole; the others as pieces of
// unchanged length, changed length and changed bytes.
type exprStore struct {
	data  []byte
	start []uint32 // where rule i begins in data
	prev  []byte
	since int // rules since the last whole one
}

const keyEvery = 64

// Marks of how a rule is kept.
const (
	keptWhole = 0
	keptDelta = 1
)

func (s *exprStore) add(b []byte) {
	s.start = append(s.start, uint32(len(s.data)))
	if len(b) != len(s.prev) || s.since >= keyEvery {
		s.whole(b)
	} else {
		at := len(s.data)
		s.data = append(s.data, keptDelta)
		s.delta(b)
		if len(s.data)-at > len(b)/2 {
			s.data = s.data[:at]
			s.whole(b)
		} else {
			s.since++
		}
	}
	s.prev = append(s.prev[:0], b...)
}

func (s *exprStore) whole(b []byte) {
	s.since = 1
	s.data = append(s.data, keptWhole)
	s.data = binary.AppendUvarint(s.data, uint64(len(b)))
	s.data = append(s.data, b...)
}

func (s *exprStore) delta(b []byte) {
	same := func(i int) bool { return b[i] == s.prev[i] }
	for i := 0; i < len(b); {
		from := i
		for i+8 <= len(b) && binary.NativeEndian.Uint64(b[i:]) == binary.NativeEndian.Uint64(s.prev[i:]) {
			i += 8
		}
		for i < len(b) && same(i) {
			i++
		}
		if i == len(b) {
			return
		}
		change := i
		for i < len(b) && !same(i) {
			i++
		}
		s.data = binary.AppendUvarint(s.data, uint64(change-from))
		s.data = binary.AppendUvarint(s.data, uint64(i-change))
		s.data = append(s.data, b[change:i]...)
	}
}

// len returns how many rules there are.
func (s *exprStore) len() int { return len(s.start) }

// get returns the expressions of rule i.
func (s *exprStore) get(i int) []byte {
	key := i
	for s.data[s.start[key]] != keptWhole {
		key--
	}
	b := s.data[s.start[key]+1:]
	n, k := binary.Uvarint(b)
	out := append([]byte(nil), b[k:k+int(n)]...)
	for j := key + 1; j <= i; j++ {
		end := len(s.data)
		if j+1 < len(s.start) {
			end = int(s.start[j+1])
		}
		at := 0
		for b := s.data[s.start[j]+1 : end]; len(b) > 0; {
			skip, k := binary.Uvarint(b)
			n, l := binary.Uvarint(b[k:])
			at += int(skip)
			at += copy(out[at:], b[k+l:k+l+int(n)])
			b = b[k+l+int(n):]
		}
	}
	return out
}
