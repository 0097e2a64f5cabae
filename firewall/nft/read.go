package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	fw "github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// Options of Read. The zero value is the usual reading.
type Options struct {
	// MaxElements is the number of elements above which a set is not dumped:
	// such a set has Unread and Count. 0 means 200,000.
	MaxElements int
	// Ask are addresses that are looked up one by one in sets of addresses
	// that are not dumped.
	Ask []netip.Addr
	// LinkNames are the names of interfaces by index. nft shows them in rules
	// that hold an index.
	LinkNames map[int]string
	// Sets finds the ipsets that rules of iptables-nft name. Nil: matches on
	// them are opaque.
	Sets xtables.Sets
	// Attempts is how often a ruleset that changes under the reading is read
	// again before Read gives up with ErrChanged. 0 means 8, in about half a second.
	Attempts int
}

const (
	defaultMaxElements = 200_000
	defaultAttempts    = 8
	firstPause         = 10 * time.Millisecond // doubled from one attempt to the next
	// perChain is the number of rules above which they are dumped chain by
	// chain: the kernel walks from the head of what is dumped at every receive.
	perChain = 1000
)

// Read reads the whole ruleset of src: the tables of all families, in the
// order of the kernel. Errors: ErrNotPresent (with an empty ruleset), ErrChanged,
// *Error with the errno inside (EPERM where CAP_NET_ADMIN is missing) and
// *DecodeError.
func Read(ctx context.Context, src Source, opt Options) (*fw.Ruleset, error) {
	if opt.MaxElements == 0 {
		opt.MaxElements = defaultMaxElements
	}
	if opt.Attempts == 0 {
		opt.Attempts = defaultAttempts
	}
	for n := range opt.Attempts {
		if err := pause(ctx, n); err != nil {
			return nil, &Error{"read", "ruleset", err}
		}
		before, err := generation(ctx, src)
		if err != nil {
			if notPresent(err) {
				return &fw.Ruleset{}, ErrNotPresent
			}
			return nil, permission(err)
		}
		rs, err := readOnce(ctx, src, opt)
		var undecoded *DecodeError
		if err != nil && !changed(err) && !errors.As(err, &undecoded) {
			return nil, permission(err)
		}
		after, gerr := generation(ctx, src)
		switch {
		case gerr != nil:
			return nil, permission(gerr)
		case err == nil && before == after:
			return rs, nil
		case undecoded != nil && before == after:
			// Otherwise it may be a rule of a table or chain that was not there yet
			// when those were listed.
			return nil, err
		}
	}
	return nil, &Error{"read", "ruleset", ErrChanged}
}

// pause waits before the nth attempt: a firewall manager that starts commits its
// tables one by one, for a second or more.
func pause(ctx context.Context, n int) error {
	if n < 2 {
		return ctx.Err()
	}
	t := time.NewTimer(firstPause << min(n-2, 6))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// changed reports whether an error only says that the ruleset changed under
// the reading: a dump was interrupted, or what was listed is gone.
func changed(err error) bool {
	return errors.Is(err, ErrInterrupted) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EAGAIN)
}

// notPresent reports whether nfnetlink has no nf_tables (nfnetlink_rcv_msg:
// EINVAL for a subsystem that is not registered, EOPNOTSUPP with protocol
// modules missing).
func notPresent(err error) bool {
	return errors.Is(err, ErrNotPresent) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EPROTONOSUPPORT)
}

func permission(err error) error {
	if errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("%w (reading nf_tables needs CAP_NET_ADMIN)", err)
	}
	return err
}

// generation is the number that every change of the ruleset increments.
func generation(ctx context.Context, src Source) (uint32, error) {
	msg, err := src.Get(ctx, Request{Subsystem: subsysTables, Type: msgGetGen})
	if err != nil {
		return 0, err
	}
	_, b, _ := splitMessage(msg)
	for a := walk(b); a.next(); {
		if a.typ == genID {
			return be32(a.val), nil
		}
	}
	return 0, &DecodeError{"generation", errMalformed}
}

// each gives every message of a dump to f.
func each(ctx context.Context, src Source, req Request, f func([]byte) error) error {
	for msg, err := range src.Dump(ctx, req) {
		if err != nil {
			return err
		}
		if err := f(msg); err != nil {
			return err
		}
	}
	return nil
}

func dump(typ uint8) Request { return Request{Subsystem: subsysTables, Type: typ} }

// readOnce reads everything once. What is read last may have changed since
// what was read first; the caller checks that.
func readOnce(ctx context.Context, src Source, opt Options) (*fw.Ruleset, error) {
	d := newDecoder()
	d.links, d.sets = opt.LinkNames, opt.Sets
	for _, part := range []struct {
		typ uint8
		f   func([]byte) error
	}{
		{msgGetTable, d.table},
		{msgGetChain, d.chain},
		{msgGetSet, d.set},
		{msgGetObj, d.object},
		{msgGetFlowtable, d.flowtable},
	} {
		if err := each(ctx, src, dump(part.typ), part.f); err != nil && !absent(part.typ, err) {
			return nil, err
		}
	}
	for _, t := range d.tables {
		for _, s := range t.table.Sets {
			if err := d.readElements(ctx, src, t, t.sets[s.Name], opt); err != nil {
				return nil, err
			}
		}
	}
	if err := d.readRules(ctx, src, perChain); err != nil {
		return nil, err
	}
	for _, t := range d.tables {
		t.table.Backend = backendOf(t.table)
		d.lowerAgain(t)
	}
	order, err := hookOrder(ctx, src, d)
	if err != nil {
		return nil, err
	}
	d.ruleset.Order = order
	return d.ruleset, nil
}

// absent reports whether an error of a dump says that the kernel is older than
// what was asked for: objects came with 4.10, flowtables with 4.16.
func absent(typ uint8, err error) bool {
	return (typ == msgGetObj || typ == msgGetFlowtable) && (errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP))
}

// elementsRequest asks for the elements of a set.
func elementsRequest(t *tableState, set string) Request {
	b := appendString(nil, elemListTable, t.table.Name)
	b = appendString(b, elemListSet, set)
	return Request{Subsystem: subsysTables, Type: msgGetSetElem, Family: t.family, Attrs: string(b)}
}

// keyRequest asks for the element of a set that holds key.
func keyRequest(t *tableState, set string, key []byte) Request {
	req := elementsRequest(t, set)
	elem := appendAttr(nil, elemKey|nested, appendAttr(nil, dataValue, key))
	list := appendAttr(nil, listElem|nested, elem)
	req.Attrs += string(appendAttr(nil, elemListElements|nested, list))
	return req
}

func (d *decoder) readElements(ctx context.Context, src Source, t *tableState, i *setInfo, opt Options) error {
	s := i.set
	if s.Unread != "" {
		return nil
	}
	if i.hasCount && int64(i.count) > int64(opt.MaxElements) {
		s.Unread, s.Count = fmt.Sprintf("a set of %d elements", i.count), int(i.count)
		return d.ask(ctx, src, t, i, opt.Ask)
	}
	e := elements{d: d, t: t, i: i}
	if i.hasCount {
		n := int(min(i.count, 1<<20))
		e.keys = make([]byte, 0, n*s.KeyLen)
	}
	tooMany := false
	for msg, err := range src.Dump(ctx, elementsRequest(t, s.Name)) {
		if err != nil {
			return err
		}
		if err := e.add(msg); err != nil {
			return err
		}
		// Kernels before 6.16 do not tell the number of elements.
		if !i.hasCount && e.n > 2*opt.MaxElements {
			tooMany = true
			break
		}
	}
	if tooMany {
		s.Unread, s.Count = fmt.Sprintf("a set of more than %d elements", opt.MaxElements), e.n
		s.HasCatchAll, s.CatchAll = false, nil
		return d.ask(ctx, src, t, i, opt.Ask)
	}
	e.finish()
	return nil
}

// Types of keys that hold a plain address (nft's datatypes, which it keeps in
// the kernel for itself).
const (
	typeIPv4 = 7
	typeIPv6 = 8
)

// ask looks single addresses up in a set that is not dumped.
func (d *decoder) ask(ctx context.Context, src Source, t *tableState, i *setInfo, addrs []netip.Addr) error {
	s := i.set
	for _, addr := range addrs {
		key := addr.AsSlice()
		if len(key) != s.KeyLen || i.keyType != typeIPv4 && i.keyType != typeIPv6 {
			continue
		}
		e := elements{d: d, t: t, i: i}
		msg, err := src.Get(ctx, keyRequest(t, s.Name, key))
		switch {
		case errors.Is(err, syscall.ENOENT):
		case err != nil:
			return err
		default:
			if err := e.add(msg); err != nil {
				return err
			}
		}
		if a, ok := e.asked(); ok {
			if s.Asked == nil {
				s.Asked = map[string]fw.Asked{}
			}
			s.Asked[string(key)] = a
		}
	}
	return nil
}

// readRules dumps the rules: all at once, or chain by chain where there are
// many. The kernel's count of a chain's references only guides that choice: it
// already falls while a transaction is being prepared that deletes the rules,
// when they are still in force and the generation is still the old one.
func (d *decoder) readRules(ctx context.Context, src Source, perChain uint64) error {
	var rules, chains uint64
	for _, t := range d.tables {
		for _, c := range t.chains {
			rules += uint64(c.use)
			if c.use > 0 {
				chains++
			}
		}
	}
	p := startPipeline(d.rule)
	err := d.dumpRules(ctx, src, rules > perChain && chains > 1, p.add)
	// What the decoder found wrong says more than that the dump ended.
	if derr := p.finish(); derr != nil {
		return derr
	}
	return err
}

func (d *decoder) dumpRules(ctx context.Context, src Source, byChain bool, add func([]byte) error) error {
	if !byChain {
		return each(ctx, src, dump(msgGetRule), add)
	}
	for _, t := range d.tables {
		for _, c := range t.table.Chains {
			b := appendString(nil, ruleTable, t.table.Name)
			b = appendString(b, ruleChain, c.Name)
			if err := each(ctx, src, Request{Subsystem: subsysTables, Type: msgGetRule, Family: t.family, Attrs: string(b)}, add); err != nil {
				return err
			}
		}
	}
	return nil
}
