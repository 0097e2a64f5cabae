package nft

import (
	"fmt"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// verdictKindBreak is NFT_BREAK: the rule ends without a match. It never
// leaves the package.
const verdictKindBreak = fw.VerdictKind(200)

// verdict decodes verdict data of table t: nested NFTA_DATA_VERDICT.
func (d *decoder) verdict(t *tableState, b []byte) (*fw.Verdict, bool) {
	var v []byte
	for a := walk(b); a.next(); {
		if a.typ == dataVerdict {
			v = a.val
		}
	}
	if v == nil {
		return nil, false
	}
	var code int32
	var chain []byte
	has := false
	for a := walk(v); a.next(); {
		switch a.typ {
		case verdictCode:
			code, has = int32(be32(a.val)), true
		case verdictChain:
			chain = cstring(a.val)
		default:
			return nil, false
		}
	}
	if !has {
		return nil, false
	}
	k := verdictKey{}
	switch code {
	case 0:
		k.kind = fw.Drop
	case 1:
		k.kind = fw.Accept
	case verdictContinue:
		k.kind = fw.Continue
	case verdictBreak:
		k.kind = verdictKindBreak
	case verdictReturn:
		k.kind = fw.Return
	case verdictJump, verdictGoto:
		k.kind = fw.Jump
		if code == verdictGoto {
			k.kind = fw.Goto
		}
		c := t.chains[string(chain)]
		if c == nil {
			return nil, false
		}
		k.chain = c.chain
	default:
		if code&0xff != 3 { // NF_QUEUE, the queue's number in the upper half
			return nil, false
		}
		k.kind = fw.Queue
	}
	got, ok := d.verdicts[k]
	if !ok {
		got = &fw.Verdict{Kind: k.kind, Chain: k.chain}
		d.verdicts[k] = got
	}
	return got, true
}

// rule adds a rule to its chain.
func (d *decoder) rule(msg []byte) error {
	family, b, ok := splitMessage(msg)
	var table, chain, exprs, userdata []byte
	var handle, previous uint64
	a := walk(b)
	for a.next() {
		switch a.typ {
		case ruleTable:
			table = cstring(a.val)
		case ruleChain:
			chain = cstring(a.val)
		case ruleHandle:
			handle = be64(a.val)
		case ruleExpressions:
			exprs = a.val
		case rulePosition:
			previous = be64(a.val)
		case ruleUserdata:
			userdata = a.val
		}
	}
	t := d.run.t
	if t == nil || t.family != family || t.table.Name != string(table) {
		t = d.byName[tableKey{family, string(table)}]
		d.run.t = t
	}
	switch {
	case !ok || a.bad:
		return &DecodeError{"rule", errMalformed}
	case t == nil:
		return &DecodeError{"rule", fmt.Errorf("no table %q", table)}
	}
	c := t.lastChain
	if c == nil || c.chain.Name != string(chain) {
		c = t.chains[string(chain)]
		t.lastChain = c
	}
	if c == nil {
		return &DecodeError{"rule", fmt.Errorf("no chain %q in table %q", chain, table)}
	}
	if c.chain.Rules == nil {
		c.chain.Rules = make([]*fw.Rule, 0, min(c.use, 1<<16))
	}
	if n := len(c.chain.Rules); n > 0 && c.chain.Rules[n-1].Handle != previous || n == 0 && previous != 0 {
		return errGap
	}
	if len(d.rules) == 0 {
		d.rules = make([]fw.Rule, 128)
	}
	r := &d.rules[0]
	d.rules = d.rules[1:]
	d.run.chain = c
	stmts := d.run.rule(exprs)
	if c.text == nil {
		c.text = &chainText{table: t, chain: c.chain, sets: d.sets, exprs: &d.exprs, first: d.exprs.len()}
		c.text.print = c.text.rule
	}
	*r = fw.Rule{
		Chain:   c.chain,
		Number:  len(c.chain.Rules) + 1,
		Handle:  handle,
		Stmts:   d.keepStmts(stmts),
		Print:   c.text.print,
		Comment: commentOf(userdata),
		Packets: d.run.packets,
	}
	if r.Comment == "" {
		r.Comment = d.run.comment
	}
	if c.text.first+len(c.chain.Rules) != d.exprs.len() {
		return errGap // a dump goes chain by chain
	}
	d.exprs.add(exprs)
	c.chain.Rules = append(c.chain.Rules, r)
	return nil
}

// commentOf finds the comment in the user data of a rule or an element, which
// nft writes as type, length, value (NFTNL_UDATA_RULE_COMMENT is 0).
func commentOf(b []byte) string {
	for len(b) >= 2 {
		typ, n := b[0], int(b[1])
		b = b[2:]
		if n > len(b) {
			return ""
		}
		if typ == 0 {
			return string(cstring(b[:n]))
		}
		b = b[n:]
	}
	return ""
}
