package firewall

import (
	"encoding/binary"
	"sync"
	"time"
)

// Set is a named or anonymous set, map or verdict map of nf_tables. Keys are
// the bytes that the kernel compares: Fields parts, each padded to four bytes
// when there are several (a concatenation).
type Set struct {
	Table *Table
	Name  string // "" or "__set3" for anonymous ones
	// Fields are the lengths of the key's parts in bytes, without padding.
	Fields []int
	KeyLen int // stride of Keys in bytes
	// Keys holds Len keys one after the other. Ends holds the last key of each
	// interval (inclusive), nil when the set has no intervals; then key and
	// end are equal for a single value. Part by part for concatenations.
	Keys, Ends []byte
	N          int
	// Data holds the N values of a map, nil for a set.
	Data []Datum
	// Expires holds the time left of each element, 0 for none; nil when the
	// set has no timeouts.
	Expires []time.Duration
	// Stateful[i] names the expression of an element that may break the match
	// (limit, quota, connlimit), "" for none; nil when no element has one.
	Stateful []string
	// CatchAll is the element that everything else finds.
	CatchAll    *Datum
	HasCatchAll bool

	IsMap, IsVerdictMap, IsObjectMap                bool
	Interval, Dynamic, Timeout, Constant, Anonymous bool
	// Unread says why the elements are not here, "" when they are. A set that
	// is too large to be read has Count and Asked.
	Unread string
	Count  int
	// Asked holds the answers of the kernel for single keys of an unread set.
	Asked map[string]Asked

	indexes sync.Map // signature → *setIndex
}

// Asked is the kernel's answer to the look-up of one key.
type Asked struct {
	Found bool
	Data  Datum
}

// Datum is the value of a map's element: a verdict or bytes, or the name of a
// stateful object.
type Datum struct {
	Verdict *Verdict
	Bytes   []byte
	Object  string
}

// Key returns the i-th key and the end of its interval.
func (s *Set) Key(i int) (key, end []byte) {
	key = s.Keys[i*s.KeyLen : (i+1)*s.KeyLen]
	if s.Ends == nil {
		return key, key
	}
	return key, s.Ends[i*s.KeyLen : (i+1)*s.KeyLen]
}

// part returns where part i of a key lies.
func (s *Set) part(i int) (off, length int) {
	if len(s.Fields) <= 1 {
		return 0, s.KeyLen
	}
	for _, l := range s.Fields[:i] {
		off += (l + 3) &^ 3
	}
	return off, s.Fields[i]
}

// keyValue reads a part of a key as a number.
func keyValue(b []byte, hostOrder bool) Value {
	if !hostOrder {
		return Bytes(b)
	}
	switch len(b) {
	case 1:
		return Num(uint64(b[0]))
	case 2:
		return Num(uint64(binary.NativeEndian.Uint16(b)))
	case 4:
		return Num(uint64(binary.NativeEndian.Uint32(b)))
	case 8:
		return Num(binary.NativeEndian.Uint64(b))
	default:
		return Bytes(b)
	}
}
