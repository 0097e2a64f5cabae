package xtables

import (
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

const (
	extHeader = 32 // struct xt_entry_match and xt_entry_target before data
	extName   = 29 // XT_EXTENSION_MAXNAMELEN
)

// blob is the entries of a table.
type blob struct {
	fam    firewall.TableFamily
	table  string
	b      []byte
	header int // size of struct ipt_entry or ip6t_entry
	ip     int // size of struct ipt_ip or ip6t_ip6
}

func newBlob(fam firewall.TableFamily, table string, b []byte) *blob {
	l := &blob{fam: fam, table: table, b: b, header: entrySize, ip: ipSize}
	if fam == firewall.TableIP6 {
		l.header, l.ip = entry6Size, ip6Size
	}
	return l
}

func (l *blob) errorf(off int, format string, args ...any) error {
	return &DecodeError{object(l.fam, l.table), off, fmt.Sprintf(format, args...)}
}

// entry is struct ipt_entry or ip6t_entry at an offset of the blob.
type entry struct {
	off, target, next int // from the start of the blob
}

// entry reads the entry at off and checks that it lies within the blob.
func (l *blob) entry(off int) (entry, error) {
	if off < 0 || off+l.header > len(l.b) {
		return entry{}, l.errorf(off, "an entry that does not fit into %d bytes", len(l.b))
	}
	at := l.b[off+l.ip+4:]
	e := entry{off: off, target: off + int(u16(at, 0)), next: off + int(u16(at, 2))}
	if e.target < off+l.header || e.target+extHeader > e.next || e.next > len(l.b) {
		return entry{}, l.errorf(off, "an entry with target at %d and end at %d", e.target-off, e.next-off)
	}
	return e, nil
}

// packets is the entry's counter.
func (l *blob) packets(e entry) int64 { return int64(u64(l.b, e.off+l.header-16)) }

// ext reads the match or target at off, which ends before end. raw is all of
// it.
func (l *blob) ext(off, end int) (x Ext, raw []byte, err error) {
	if off+extHeader > end {
		return x, nil, l.errorf(off, "a match that does not fit")
	}
	size := int(u16(l.b, off))
	if size < extHeader || off+size > end {
		return x, nil, l.errorf(off, "a match of %d bytes", size)
	}
	raw = l.b[off : off+size]
	return Ext{Name: cstring(raw[2 : 2+extName]), Rev: raw[31], Info: raw[extHeader:]}, raw, nil
}

// isStandard reports whether the target of e is a verdict or a jump, and which.
func (l *blob) isStandard(e entry) (verdict int32, ok bool) {
	if l.b[e.target+2] != 0 || e.target+extHeader+4 > e.next {
		return 0, false
	}
	return int32(u32(l.b, e.target+extHeader)), true
}

// errorName returns the name in an ERROR target: the head of a user-defined
// chain, or the end of the table.
func (l *blob) errorName(e entry) (string, bool) {
	name := l.b[e.target+2 : e.target+2+extName]
	if string(name[:6]) != "ERROR\x00" {
		return "", false
	}
	return cstring(l.b[e.target+extHeader : e.next]), true
}

// chainSpan is a chain of the blob: the offsets of its first rule and of its
// last entry, which is the policy or the return at its end.
type chainSpan struct {
	chain       *firewall.Chain
	first, foot int
	rules       int
}

// chains finds the chains of the blob (as iptables' own library does): at the
// entry of every hook a built-in one begins, at every ERROR target but the last
// a user-defined one.
func (l *blob) chains(t *firewall.Table, info *tableInfo) ([]*chainSpan, error) {
	kind, known := tableKinds[l.table]
	if !known {
		kind = unknownKind
	}
	var spans []*chainSpan
	var cur *chainSpan
	last := -1 // entries seen in cur; the last one is its foot
	end := func() {
		if cur != nil && cur.rules > 0 {
			cur.foot, cur.rules = last, cur.rules-1
		}
	}
	begin := func(c *firewall.Chain, first int) {
		end()
		c.Table = t
		cur = &chainSpan{chain: c, first: first, foot: first}
		spans = append(spans, cur)
		t.Chains = append(t.Chains, c)
	}
	for off := 0; off < len(l.b); {
		e, err := l.entry(off)
		if err != nil {
			return nil, err
		}
		for h := range firewall.Hook(hooks) {
			if info.valid&(1<<h) != 0 && int(info.entry[h]) == off {
				c := &firewall.Chain{Name: chainNames[h], Base: kind.base(h)}
				if !known {
					c.Unread = "table " + l.table + ", whose place on the way is not known"
				}
				begin(c, off)
			}
		}
		name, isError := l.errorName(e)
		switch {
		case isError && e.next >= len(l.b):
			end()
			cur = nil
		case isError:
			begin(&firewall.Chain{Name: name}, e.next)
		case cur == nil:
			return nil, l.errorf(off, "a rule outside of any chain")
		default:
			cur.rules++
			last = off
		}
		off = e.next
	}
	if cur != nil {
		return nil, l.errorf(len(l.b), "a table without its last entry")
	}
	for _, s := range spans {
		if s.chain.Base == nil {
			continue
		}
		if err := l.policy(s, info); err != nil {
			return nil, err
		}
	}
	return spans, nil
}

// policy reads the policy of a built-in chain from its underflow.
func (l *blob) policy(s *chainSpan, info *tableInfo) error {
	at := int(info.underflow[s.chain.Base.Hook])
	if at != s.foot {
		return l.errorf(at, "the policy of chain %s, which does not end it", s.chain.Name)
	}
	e, err := l.entry(at)
	if err != nil {
		return err
	}
	v, ok := l.isStandard(e)
	switch {
	case ok && v == -2: // -NF_ACCEPT - 1
		s.chain.Base.Policy = firewall.Accept
	case ok && v == -1: // -NF_DROP - 1
		s.chain.Base.Policy = firewall.Drop
	default:
		return l.errorf(at, "the policy of chain %s, which is neither accept nor drop", s.chain.Name)
	}
	return nil
}
