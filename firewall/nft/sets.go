package nft

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// set adds a set, still without elements, to its table.
func (d *decoder) set(msg []byte) error {
	family, b, ok := splitMessage(msg)
	s := &fw.Set{}
	i := &setInfo{set: s}
	var table string
	var fields []int
	a := walk(b)
	for a.next() {
		switch a.typ {
		case setTable:
			table = string(cstring(a.val))
		case setName:
			s.Name = string(cstring(a.val))
		case setFlags:
			i.flags = be32(a.val)
		case setKeyType:
			i.keyType = be32(a.val)
		case setKeyLen:
			s.KeyLen = int(be32(a.val))
		case setDataType:
			i.dataType = be32(a.val)
		case setDataLen:
			i.dataLen = be32(a.val)
		case setDesc:
			for e := walk(a.val); e.next(); {
				switch e.typ {
				case descSize:
					i.size = be32(e.val)
				case descConcat:
					fields = describedFields(e.val)
				}
			}
		case setObjType:
			i.objType = be32(a.val)
		case setExpr:
			i.limited = limiter(a.val)
		case setExpressions:
			i.limited = limitedBy(nil, a.val)
		case setCount:
			i.count, i.hasCount = be32(a.val), true
		}
	}
	t := d.byName[tableKey{family, table}]
	if !ok || a.bad || t == nil || s.KeyLen < 1 || s.KeyLen > registerBytes || i.dataLen > registerBytes {
		return &DecodeError{"set " + s.Name, errMalformed}
	}
	s.Table = t.table
	f := i.flags
	s.Anonymous, s.Constant, s.Interval = f&setFAnonymous != 0, f&setFConstant != 0, f&setFInterval != 0
	s.Timeout, s.Dynamic = f&setFTimeout != 0, f&setFEval != 0
	s.IsMap = f&setFMap != 0
	s.IsVerdictMap = s.IsMap && i.dataType == dataTypeVerdict
	s.IsObjectMap = f&setFObject != 0
	s.Fields = keyFields(i, fields)
	if known := uint32(setFAnonymous | setFConstant | setFInterval | setFMap | setFTimeout | setFEval | setFObject | setFConcat | setFExpr); f&^known != 0 {
		s.Unread = fmt.Sprintf("a kind of set that the model does not know (flags %#x)", f)
	}
	if t.sets[s.Name] != nil {
		return errTwice
	}
	t.sets[s.Name] = i
	t.table.Sets = append(t.table.Sets, s)
	return nil
}

// describedFields reads NFTA_SET_DESC_CONCAT.
func describedFields(b []byte) []int {
	var out []int
	for a := walk(b); a.next(); {
		for f := walk(a.val); f.next(); {
			if f.typ == fieldLen {
				out = append(out, int(be32(f.val)))
			}
		}
	}
	return out
}

// keyFields tells the lengths of the parts of a set's key: as described to the
// kernel, or by the types that nft keeps there for itself. Nil when neither
// fits; then the first look-up tells.
func keyFields(i *setInfo, described []int) []int {
	fits := func(fields []int) bool {
		sum := 0
		for _, n := range fields {
			if n < 1 {
				return false
			}
			sum += (n + 3) &^ 3
		}
		return len(fields) > 1 && sum == i.set.KeyLen
	}
	if fits(described) {
		return described
	}
	if i.keyType >= 1<<typeBits {
		var fields []int
		for t := i.keyType; t != 0; t >>= typeBits {
			fields = append(fields, typeSize(t&(1<<typeBits-1)))
		}
		slices.Reverse(fields)
		if fits(fields) {
			return fields
		}
	}
	if i.flags&setFConcat != 0 || i.keyType >= 1<<typeBits || i.set.KeyLen > 16 {
		return nil
	}
	return []int{i.set.KeyLen}
}

// elements collects the elements of one set.
type elements struct {
	d *decoder
	t *tableState
	i *setInfo

	keys, ends []byte // ends has KeyLen bytes per element once one has an end
	isEnd      []bool
	data       []fw.Datum
	expires    []time.Duration
	stateful   []string
	comments   map[int]string
	n          int
	hasEnds    bool
	limited    bool
	timed      bool
	broken     string
}

// add decodes one message of a dump of elements.
func (e *elements) add(msg []byte) error {
	_, b, ok := splitMessage(msg)
	a := walk(b)
	for a.next() {
		if a.typ != elemListElements {
			continue
		}
		l := walk(a.val)
		for l.next() {
			if err := e.element(l.val); err != nil {
				return err
			}
		}
		if l.bad {
			ok = false
		}
	}
	if !ok || a.bad {
		return &DecodeError{"elements of set " + e.i.set.Name, errMalformed}
	}
	return nil
}

func (e *elements) element(b []byte) error {
	s := e.i.set
	var key, end []byte
	var flags uint32
	var expires time.Duration
	var datum fw.Datum
	var comment string
	limited := e.i.limited
	a := walk(b)
	for a.next() {
		switch a.typ {
		case elemKey:
			key = dataOf(a.val)
		case elemKeyEnd:
			end = dataOf(a.val)
		case elemFlags:
			flags = be32(a.val)
		case elemTimeout, 8: // NFTA_SET_ELEM_PAD
		case elemExpiration:
			expires = time.Duration(min(be64(a.val), 1<<40)) * time.Millisecond
			e.timed = true
		case elemUserdata:
			comment = commentOf(a.val)
		case elemExpr:
			limited = limiter(a.val)
		case elemExpressions:
			limited = limitedBy(nil, a.val)
		case elemObjref:
			datum.Object = string(cstring(a.val))
		case elemData:
			if s.IsVerdictMap {
				v, ok := e.d.verdict(e.t, a.val)
				if !ok || v.Kind == verdictKindBreak {
					e.broken = "a verdict that the model does not know"
				}
				datum.Verdict = v
			} else {
				datum.Bytes = e.d.keep(dataOf(a.val))
			}
		default:
			e.broken = "elements of a form that the model does not know"
		}
	}
	if flags&^(elemFIntervalEnd|elemFCatchAll) != 0 {
		e.broken = "elements of a form that the model does not know"
	}
	if flags&elemFCatchAll != 0 && !a.bad {
		s.HasCatchAll, s.CatchAll = true, &datum
		if limited != "" {
			e.broken = "a catch-all element with " + limited
		}
		return nil
	}
	if a.bad || len(key) != s.KeyLen || end != nil && len(end) != s.KeyLen {
		return &DecodeError{"element of set " + s.Name, errMalformed}
	}
	if end != nil && !e.hasEnds {
		e.hasEnds = true
		e.ends = append(e.ends, e.keys...)
	}
	e.keys = append(e.keys, key...)
	if e.hasEnds {
		if end == nil {
			end = key
		}
		e.ends = append(e.ends, end...)
	}
	if s.Interval {
		e.isEnd = append(e.isEnd, flags&elemFIntervalEnd != 0)
	} else if flags&elemFIntervalEnd != 0 {
		e.broken = "an interval in a set without intervals"
	}
	if s.IsMap || s.IsObjectMap {
		e.data = append(e.data, datum)
	}
	if s.Timeout || e.timed {
		for len(e.expires) < e.n {
			e.expires = append(e.expires, 0)
		}
		e.expires = append(e.expires, expires)
	}
	if limited != "" || e.limited {
		e.limited = true
		for len(e.stateful) < e.n {
			e.stateful = append(e.stateful, "")
		}
		e.stateful = append(e.stateful, limited)
	}
	if comment != "" {
		if e.comments == nil {
			e.comments = map[int]string{}
		}
		e.comments[e.n] = comment
	}
	e.n++
	return nil
}

// finish gives the set its elements.
func (e *elements) finish() {
	s := e.i.set
	if e.broken != "" {
		s.Unread, s.Count = e.broken, e.n
		return
	}
	if s.Timeout || e.timed {
		for len(e.expires) < e.n {
			e.expires = append(e.expires, 0)
		}
	}
	if s.Interval && !e.hasEnds && e.i.flags&setFConcat == 0 {
		e.pair()
		return
	}
	e.i.comments = e.comments
	s.N, s.Keys, s.Data, s.Expires, s.Stateful = e.n, e.keys, e.data, e.expires, e.stateful
	if s.Interval {
		s.Ends = e.ends
		if !e.hasEnds {
			s.Ends = s.Keys
		}
	}
}

// pair makes intervals of the elements of an rbtree set, which begin or end
// one each. As in the kernel a key belongs to the greatest element that is not
// above it: an interval lasts until the next element, whichever kind it is, and
// where one ends and another begins at the same key the beginning counts.
func (e *elements) pair() {
	s := e.i.set
	n := s.KeyLen
	key := func(i int32) []byte { return e.keys[int(i)*n : int(i+1)*n] }
	order := make([]int32, e.n)
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		if c := bytes.Compare(key(a), key(b)); c != 0 {
			return c
		}
		switch {
		case e.isEnd[a] == e.isEnd[b]:
			return 0
		case e.isEnd[a]:
			return -1
		default:
			return 1
		}
	})
	// A dump can hold an element twice (see errTwice).
	order = slices.CompactFunc(order, func(a, b int32) bool { return e.isEnd[a] == e.isEnd[b] && bytes.Equal(key(a), key(b)) })
	starts := 0
	for _, end := range e.isEnd {
		if !end {
			starts++
		}
	}
	s.Keys, s.Ends = make([]byte, 0, starts*n), make([]byte, 0, starts*n)
	for j, i := range order {
		if e.isEnd[i] {
			continue
		}
		s.Keys = append(s.Keys, key(i)...)
		at := len(s.Ends)
		if j+1 < len(order) {
			s.Ends = append(s.Ends, key(order[j+1])...)
			decrement(s.Ends[at:])
		} else {
			s.Ends = append(s.Ends, bytes.Repeat([]byte{0xff}, n)...)
		}
		if e.data != nil {
			s.Data = append(s.Data, e.data[i])
		}
		if e.expires != nil {
			s.Expires = append(s.Expires, e.expires[i])
		}
		if e.limited {
			for len(e.stateful) < e.n {
				e.stateful = append(e.stateful, "")
			}
			s.Stateful = append(s.Stateful, e.stateful[i])
		}
		if c := e.comments[int(i)]; c != "" {
			if e.i.comments == nil {
				e.i.comments = map[int]string{}
			}
			e.i.comments[s.N] = c
		}
		s.N++
	}
}

// decrement subtracts one from a big-endian number.
func decrement(b []byte) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			return
		}
	}
}

// asked is the kernel's answer to the look-up of a single key, if it can be
// told from what came.
func (e *elements) asked() (fw.Asked, bool) {
	a := fw.Asked{Found: e.n > 0}
	if e.broken != "" || e.limited || e.n > 1 {
		return a, false
	}
	if len(e.data) > 0 {
		a.Data = e.data[0]
	}
	return a, true
}
