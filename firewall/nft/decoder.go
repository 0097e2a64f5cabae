package nft

import (
	"fmt"

	fw "github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// decoder builds a ruleset out of messages. The order is that of Read: tables,
// chains, sets, elements, rules.
type decoder struct {
	tables  []*tableState
	byName  map[tableKey]*tableState
	ruleset *fw.Ruleset

	links    map[int]string
	sets     xtables.Sets
	xt       xtables.Context
	run      run
	matches  [1 << internBits]*fw.Match
	verdicts map[verdictKey]*fw.Verdict

	exprs exprStore

	// Slabs that small things are cut from.
	ranges []fw.Range
	rules  []fw.Rule
	stmts  []fw.Stmt
	bytes  []byte
}

type tableKey struct {
	family uint8
	name   string
}

// tableState is what is known of a table beside the model.
type tableState struct {
	table   *fw.Table
	family  uint8
	chains  map[string]*chainState
	sets    map[string]*setInfo
	objects map[objectKey]*object
	// links are the names of interfaces by index, for the text of rules.
	links map[int]string
	// lastChain is the chain of the rule before: dumps go chain by chain.
	lastChain *chainState
}

type chainState struct {
	chain *fw.Chain
	use   uint32 // references: rules, jumps and set elements
	// binding: the chain was written into the rule that jumps to it.
	binding bool
	// hooks are those that reach the chain, bit 1<<firewall.Hook; 0 while that
	// is not known.
	hooks uint8
	// again: the rules turn on hooks and are lowered again when it is known.
	again bool
	text  *chainText
}

type objectKey struct {
	kind uint32
	name string
}

// object is a stateful object, as far as the text of rules needs it.
type object struct {
	kind uint32
	data []byte
}

// setInfo is a set and what only its own decoding and the text of rules need.
type setInfo struct {
	set                    *fw.Set
	flags                  uint32
	keyType, dataType      uint32
	dataLen, objType, size uint32
	count                  uint32
	hasCount               bool
	limited                string // expression of every element that may break
	comments               map[int]string
}

type verdictKey struct {
	kind  fw.VerdictKind
	chain *fw.Chain
}

// errTwice and errGap: while another program prepares a transaction, a dump can
// hold an object twice and may leave one out, under the same generation: the
// kernel finds the place to go on by counting, and counts objects that are not
// active yet at one time and not at the other (nf_tables_dump_tables). Every
// rule names the one before it, so for rules both can be seen.
var (
	errTwice = fmt.Errorf("%w: an object was dumped twice", ErrInterrupted)
	errGap   = fmt.Errorf("%w: a rule was dumped out of order", ErrInterrupted)
)

func newDecoder() *decoder {
	d := &decoder{
		byName:   map[tableKey]*tableState{},
		ruleset:  &fw.Ruleset{},
		verdicts: map[verdictKey]*fw.Verdict{},
	}
	d.run.d = d
	return d
}

// set finds a set of the table by name.
func (t *tableState) set(name []byte) *setInfo { return t.sets[string(name)] }

// familyOf is the family of a table with the number that nfnetlink uses.
func familyOf(n uint8) fw.TableFamily {
	switch n {
	case nfprotoIPv4:
		return fw.TableIP
	case nfprotoIPv6:
		return fw.TableIP6
	case nfprotoInet:
		return fw.TableInet
	case nfprotoNetdev:
		return fw.TableNetdev
	case nfprotoBridge:
		return fw.TableBridge
	case nfprotoARP:
		return fw.TableARP
	default:
		return fw.TableFamily(fmt.Sprintf("family%d", n))
	}
}

// message splits a message into the family of its struct nfgenmsg and its
// attributes.
func splitMessage(msg []byte) (family uint8, rest []byte, ok bool) {
	if len(msg) < nfgenLen {
		return 0, nil, false
	}
	return msg[0], msg[nfgenLen:], true
}

// keep copies bytes to where they stay.
func (d *decoder) keep(b []byte) []byte {
	if len(b) > cap(d.bytes)-len(d.bytes) {
		d.bytes = make([]byte, 0, max(64<<10, len(b)))
	}
	n := len(d.bytes)
	d.bytes = append(d.bytes, b...)
	return d.bytes[n:len(d.bytes):len(d.bytes)]
}

// keepStmts copies statements to where they stay.
func (d *decoder) keepStmts(s []fw.Stmt) []fw.Stmt {
	if len(s) > cap(d.stmts)-len(d.stmts) {
		d.stmts = make([]fw.Stmt, 0, max(1024, len(s)))
	}
	n := len(d.stmts)
	d.stmts = append(d.stmts, s...)
	return d.stmts[n:len(d.stmts):len(d.stmts)]
}

// table adds a table.
func (d *decoder) table(msg []byte) error {
	family, b, ok := splitMessage(msg)
	a := walk(b)
	t := &fw.Table{Backend: fw.NFTables, Family: familyOf(family)}
	for a.next() {
		switch a.typ {
		case tableName:
			t.Name = string(cstring(a.val))
		case tableFlags:
			t.Dormant = be32(a.val)&tableDormant != 0
		case tableHandle:
			t.Handle = be64(a.val)
		case tableOwner:
			t.Owner = be32(a.val)
		}
	}
	if !ok || a.bad || t.Name == "" {
		return &DecodeError{"table", errMalformed}
	}
	if d.byName[tableKey{family, t.Name}] != nil {
		return errTwice
	}
	s := &tableState{table: t, family: family, chains: map[string]*chainState{}, sets: map[string]*setInfo{}, objects: map[objectKey]*object{}, links: d.links}
	d.tables = append(d.tables, s)
	d.byName[tableKey{family, t.Name}] = s
	d.ruleset.Tables = append(d.ruleset.Tables, t)
	return nil
}

// chain adds a chain to its table.
func (d *decoder) chain(msg []byte) error {
	family, b, ok := splitMessage(msg)
	c := &fw.Chain{}
	s := &chainState{chain: c}
	var table, hook, typ []byte
	policy := uint32(1)
	a := walk(b)
	for a.next() {
		switch a.typ {
		case chainTable:
			table = cstring(a.val)
		case chainName:
			c.Name = string(cstring(a.val))
		case chainHandle:
			c.Handle = be64(a.val)
		case chainHook:
			hook = a.val
		case chainPolicy:
			policy = be32(a.val)
		case chainUse:
			s.use = be32(a.val)
		case chainType:
			typ = cstring(a.val)
		case chainFlags:
			s.binding = be32(a.val)&chainFBinding != 0
		}
	}
	t := d.byName[tableKey{family, string(table)}]
	if !ok || a.bad || t == nil || c.Name == "" {
		return &DecodeError{"chain", errMalformed}
	}
	c.Table = t.table
	if hook != nil {
		base, err := decodeHook(t.table.Family, hook)
		if err != nil {
			return &DecodeError{fmt.Sprintf("hook of chain %s %s", t.table.Name, c.Name), err}
		}
		switch string(typ) {
		case "filter":
			base.Type = fw.ChainFilter
		case "nat":
			base.Type = fw.ChainNAT
		case "route":
			base.Type = fw.ChainRoute
		default:
			return &DecodeError{"chain " + c.Name, fmt.Errorf("unknown chain type %q", typ)}
		}
		switch policy {
		case 0:
			base.Policy = fw.Drop
		case 1:
			base.Policy = fw.Accept
		default:
			return &DecodeError{"chain " + c.Name, fmt.Errorf("unknown policy %d", policy)}
		}
		c.Base = base
	}
	if t.chains[c.Name] != nil {
		return errTwice
	}
	t.chains[c.Name] = s
	t.table.Chains = append(t.table.Chains, c)
	return nil
}

// decodeHook reads NFTA_CHAIN_HOOK. The numbers of hooks are those of the
// family (NF_INET_*, NF_NETDEV_*, NF_ARP_*).
func decodeHook(family fw.TableFamily, b []byte) (*fw.Base, error) {
	base := &fw.Base{}
	num := uint32(0)
	a := walk(b)
	for a.next() {
		switch a.typ {
		case hookNum:
			num = be32(a.val)
		case hookPriority:
			base.Priority = int(int32(be32(a.val)))
		case hookDev:
			if len(base.Devices) == 0 {
				base.Devices = append(base.Devices, string(cstring(a.val)))
			}
		case hookDevs:
			base.Devices = base.Devices[:0]
			devs := walk(a.val)
			for devs.next() {
				switch devs.typ {
				case deviceName:
					base.Devices = append(base.Devices, string(cstring(devs.val)))
				case devicePrefix:
					base.Devices = append(base.Devices, string(cstring(devs.val))+"*")
				default:
					return nil, fmt.Errorf("unknown kind of device %d", devs.typ)
				}
			}
			if devs.bad {
				return nil, errMalformed
			}
		}
	}
	if a.bad {
		return nil, errMalformed
	}
	switch family {
	case fw.TableNetdev:
		if num > 1 {
			return nil, fmt.Errorf("unknown hook %d", num)
		}
		base.Hook = [...]fw.Hook{fw.Ingress, fw.Egress}[num]
	case fw.TableARP:
		if num > 2 {
			return nil, fmt.Errorf("unknown hook %d", num)
		}
		base.Hook = [...]fw.Hook{fw.Input, fw.Output, fw.Forward}[num]
	default:
		if num > 5 {
			return nil, fmt.Errorf("unknown hook %d", num)
		}
		base.Hook = fw.Hook(num) // NF_INET_INGRESS is 5, as in the model
	}
	return base, nil
}

// flowtable notes the name of a flowtable.
func (d *decoder) flowtable(msg []byte) error {
	family, b, ok := splitMessage(msg)
	var table, name string
	a := walk(b)
	for a.next() {
		switch a.typ {
		case flowtableTable:
			table = string(cstring(a.val))
		case flowtableName:
			name = string(cstring(a.val))
		}
	}
	if !ok || a.bad {
		return &DecodeError{"flowtable", errMalformed}
	}
	d.ruleset.Flowtables = append(d.ruleset.Flowtables, fmt.Sprintf("%s %s %s", familyOf(family), table, name))
	return nil
}

// object notes a stateful object.
func (d *decoder) object(msg []byte) error {
	family, b, ok := splitMessage(msg)
	var table string
	var k objectKey
	o := &object{}
	a := walk(b)
	for a.next() {
		switch a.typ {
		case objTable:
			table = string(cstring(a.val))
		case objName:
			k.name = string(cstring(a.val))
		case objType:
			k.kind = be32(a.val)
		case objData:
			o.data = d.keep(a.val)
		}
	}
	t := d.byName[tableKey{family, table}]
	if !ok || a.bad || t == nil {
		return &DecodeError{"object", errMalformed}
	}
	o.kind = k.kind
	if t.objects[k] != nil {
		return errTwice
	}
	t.objects[k] = o
	return nil
}
