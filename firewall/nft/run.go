package nft

import (
	"encoding/binary"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// run lowers one rule after the other. Its buffers are used again.
type run struct {
	d     *decoder
	t     *tableState
	chain *chainState

	m machine
	g guards

	// raw is the expression at work, part of the bytes that the rule keeps.
	raw  []byte
	last bool // no expression follows

	stmts   []fw.Stmt
	packets int64
	comment string

	partBuf  []part
	matchBuf []fw.Match
	scratch  []fw.Range
	attrs    table
}

// table is the attributes of one expression by number. It holds places, not
// slices: it is written for every expression, and the garbage collector has
// nothing to note.
type table struct {
	data    []byte
	at      [12]place
	unknown bool // an attribute that the model does not know
	bad     bool
}

// place is where the value of an attribute lies in the data: to is 0 for none.
type place struct{ from, to uint32 }

func (t *table) parse(b []byte, most uint16) {
	t.data = b
	clear(t.at[:most+1])
	t.unknown, t.bad = false, false
	for off := 0; off < len(b); {
		rest := b[off:]
		if len(rest) < 4 {
			t.bad = true
			return
		}
		n := int(binary.NativeEndian.Uint16(rest))
		if n < 4 || n > len(rest) {
			t.bad = true
			return
		}
		typ := binary.NativeEndian.Uint16(rest[2:]) & 0x3fff // NLA_TYPE_MASK
		if typ == 0 || typ > most {
			t.unknown = true
		} else {
			t.at[typ] = place{uint32(off + 4), uint32(off + n)}
		}
		off += (n + 3) &^ 3
	}
}

// val returns the value of an attribute, nil where there is none.
func (t *table) val(i int) []byte {
	p := t.at[i]
	if p.to == 0 {
		return nil
	}
	return t.data[p.from:p.to:p.to]
}

func (t *table) has(i int) bool     { return t.at[i].to != 0 }
func (t *table) num(i int) uint32   { return be32(t.val(i)) }
func (t *table) num64(i int) uint64 { return be64(t.val(i)) }

// reg returns the place of the register that attribute i names, for n bytes.
func (t *table) reg(i, n int) (int, bool) {
	if !t.has(i) {
		return 0, false
	}
	at, ok := register(t.num(i))
	return at, ok && fits(at, n)
}

// rule lowers the expressions of one rule.
func (r *run) rule(exprs []byte) []fw.Stmt {
	r.m.reset()
	r.g = guards{family: familyGuard(r.t.table.Family)}
	r.stmts = r.stmts[:0]
	r.scratch = r.scratch[:0]
	r.packets = -1
	r.comment = ""
	a := walk(exprs)
	for more := a.next(); more; {
		e := a
		more = a.next()
		r.last = !more
		r.raw = e.val
		if e.typ != listElem {
			r.opaque("rule", "an attribute that the model does not know")
			continue
		}
		r.expression(e.val)
	}
	if a.bad {
		r.raw = exprs
		r.opaque("rule", "a rule that could not be decoded")
	}
	r.flush()
	return r.stmts
}

// familyGuard is the family that the packets of a table are known to have.
func familyGuard(f fw.TableFamily) fw.Family {
	switch f {
	case fw.TableIP:
		return fw.IPv4
	case fw.TableIP6:
		return fw.IPv6
	default:
		return 0
	}
}

func (r *run) expression(b []byte) {
	var name, data []byte
	unknown := false
	a := walk(b)
	for a.next() {
		switch a.typ {
		case exprName:
			name = cstring(a.val)
		case exprData:
			data = a.val
		default:
			unknown = true
		}
	}
	e, ok := expressionNamed(name)
	if !ok {
		r.opaque(string(name), "the expression "+string(name)+", which the model does not know")
		return
	}
	r.attrs.parse(data, e.most)
	if r.attrs.unknown || r.attrs.bad || a.bad || unknown {
		r.opaque(string(name), "a form of the expression "+string(name)+" that the model does not know")
		return
	}
	e.lower(r, &r.attrs)
}

// expressionKind is how one expression of nf_tables is lowered: most is its
// highest attribute known.
type expressionKind struct {
	most  uint16
	lower func(*run, *table)
}

// expressionNamed finds how to lower an expression of nf_tables by the name of
// its kernel type (net/netfilter/nft_*.c).
func expressionNamed(name []byte) (expressionKind, bool) {
	switch string(name) {
	case "immediate":
		return expressionKind{2, (*run).immediate}, true
	case "cmp":
		return expressionKind{3, (*run).cmp}, true
	case "payload":
		return expressionKind{8, (*run).payload}, true
	case "meta":
		return expressionKind{3, (*run).meta}, true
	case "ct":
		return expressionKind{4, (*run).ct}, true
	case "counter":
		return expressionKind{3, (*run).counter}, true
	case "bitwise":
		return expressionKind{8, (*run).bitwise}, true
	case "byteorder":
		return expressionKind{5, (*run).byteorder}, true
	case "range":
		return expressionKind{5, (*run).rangeCmp}, true
	case "lookup":
		return expressionKind{5, (*run).lookup}, true
	case "match":
		return expressionKind{3, (*run).xtMatch}, true
	case "target":
		return expressionKind{3, (*run).xtTarget}, true
	case "dynset":
		return expressionKind{10, (*run).dynset}, true
	case "exthdr":
		return expressionKind{7, (*run).exthdr}, true
	case "rt":
		return expressionKind{2, (*run).rt}, true
	case "socket":
		return expressionKind{3, (*run).socket}, true
	case "fib":
		return expressionKind{3, (*run).fib}, true
	case "hash":
		return expressionKind{9, (*run).hash}, true
	case "numgen":
		return expressionKind{6, (*run).numgen}, true
	case "osf":
		return expressionKind{3, (*run).osf}, true
	case "xfrm":
		return expressionKind{4, (*run).xfrm}, true
	case "tunnel":
		return expressionKind{3, (*run).tunnel}, true
	case "inner":
		return expressionKind{5, (*run).inner}, true
	case "limit":
		return expressionKind{7, (*run).limit}, true
	case "quota":
		return expressionKind{4, (*run).quota}, true
	case "connlimit":
		return expressionKind{2, (*run).connlimit}, true
	case "last":
		return expressionKind{3, (*run).lastSeen}, true
	case "log":
		return expressionKind{6, (*run).log}, true
	case "queue":
		return expressionKind{4, (*run).queue}, true
	case "reject":
		return expressionKind{2, (*run).reject}, true
	case "nat":
		return expressionKind{7, (*run).nat}, true
	case "masq":
		return expressionKind{3, (*run).masq}, true
	case "redir":
		return expressionKind{3, (*run).redir}, true
	case "tproxy":
		return expressionKind{3, (*run).tproxy}, true
	case "synproxy":
		return expressionKind{3, (*run).synproxy}, true
	case "dup":
		return expressionKind{2, (*run).dup}, true
	case "fwd":
		return expressionKind{3, (*run).fwd}, true
	case "notrack":
		return expressionKind{0, (*run).notrack}, true
	case "objref":
		return expressionKind{5, (*run).objref}, true
	case "flow_offload":
		return expressionKind{1, (*run).flowOffload}, true
	default:
		return expressionKind{}, false
	}
}
