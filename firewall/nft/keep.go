package nft

import "encoding/binary"

// exprStore keeps the expressions of rules in little space: most rules differ
// in a few bytes from the last one of the same length. Every keyEvery-th of
// those is kept whole; the others as a distance to the one they differ from, and
// pieces of unchanged length, changed length and changed bytes.
type exprStore struct {
	// blocks are never moved: start is where rule i begins, its block's number
	// and the place in it.
	blocks [][]byte
	start  []uint32
	last   [keptLengths]lastRule
}

// lastRule is the last rule of one length.
type lastRule struct {
	rule  int
	since int // rules since the last whole one; 0: there is none
	exprs []byte
}

const (
	keyEvery    = 64
	keptLengths = 8
	// blockBits is the size of the largest blocks; the expressions of a rule are
	// one attribute, of 64 KiB at most.
	blockBits = 18
)

// Marks of how a rule is kept.
const (
	keptWhole = 0
	keptDelta = 1
)

func (s *exprStore) add(b []byte) {
	l := &s.last[len(b)/4%keptLengths]
	i := len(s.start)
	// A delta that is longer than this is none.
	room := 1 + 2*binary.MaxVarintLen32 + len(b)
	n := len(s.blocks) - 1
	if n < 0 || len(s.blocks[n])+room > cap(s.blocks[n]) {
		size := 8 << 10
		if n >= 0 {
			size = min(2*cap(s.blocks[n]), 1<<blockBits)
		}
		s.blocks = append(s.blocks, make([]byte, 0, max(size, room)))
		n++
	}
	data := s.blocks[n]
	at := len(data)
	s.start = append(s.start, uint32(n<<blockBits|at))
	whole := len(b) != len(l.exprs) || l.since == 0 || l.since >= keyEvery
	if !whole {
		data = append(data, keptDelta)
		data = binary.AppendUvarint(data, uint64(i-l.rule))
		data, whole = appendDelta(data, l.exprs, b, at+len(b)/2)
		l.since++
	}
	if whole {
		l.since = 1
		data = append(data[:at], keptWhole)
		data = binary.AppendUvarint(data, uint64(len(b)))
		data = append(data, b...)
	}
	s.blocks[n] = data
	l.rule, l.exprs = i, append(l.exprs[:0], b...)
}

// appendDelta appends how b differs from prev, unless data grows beyond most:
// tooLong.
func appendDelta(data, prev, b []byte, most int) (delta []byte, tooLong bool) {
	for i := 0; i < len(b); {
		from := i
		for i+8 <= len(b) && binary.NativeEndian.Uint64(b[i:]) == binary.NativeEndian.Uint64(prev[i:]) {
			i += 8
		}
		for i < len(b) && b[i] == prev[i] {
			i++
		}
		if i == len(b) {
			break
		}
		change := i
		for i < len(b) && b[i] != prev[i] {
			i++
		}
		if len(data)+2*binary.MaxVarintLen32+i-change > most {
			return data, true
		}
		data = binary.AppendUvarint(data, uint64(change-from))
		data = binary.AppendUvarint(data, uint64(i-change))
		data = append(data, b[change:i]...)
	}
	return data, false
}

// len returns how many rules there are.
func (s *exprStore) len() int { return len(s.start) }

// kept returns what is kept of rule i.
func (s *exprStore) kept(i int) []byte {
	block, at := s.start[i]>>blockBits, s.start[i]&(1<<blockBits-1)
	b := s.blocks[block][at:]
	if i+1 < len(s.start) && s.start[i+1]>>blockBits == block {
		b = b[:s.start[i+1]-s.start[i]]
	}
	return b
}

// get returns the expressions of rule i.
func (s *exprStore) get(i int) []byte {
	var deltas [][]byte
	b := s.kept(i)
	for b[0] != keptWhole {
		back, k := binary.Uvarint(b[1:])
		deltas = append(deltas, b[1+k:])
		i -= int(back)
		b = s.kept(i)
	}
	n, k := binary.Uvarint(b[1:])
	out := append([]byte(nil), b[1+k:1+k+int(n)]...)
	for j := len(deltas) - 1; j >= 0; j-- {
		at := 0
		for b := deltas[j]; len(b) > 0; {
			skip, k := binary.Uvarint(b)
			n, l := binary.Uvarint(b[k:])
			at += int(skip)
			at += copy(out[at:], b[k+l:k+l+int(n)])
			b = b[k+l+int(n):]
		}
	}
	return out
}
