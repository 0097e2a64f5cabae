package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"syscall"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// Attributes of nfnetlink_hook (include/uapi/linux/netfilter/nfnetlink_hook.h).
const (
	hookAttrNum   = 1
	hookAttrChain = 6

	hookInfoDesc = 1
	hookInfoType = 2

	hookDescTable  = 1
	hookDescFamily = 2
	hookDescName   = 3

	hookTypeTables = 1 // NFNL_HOOK_TYPE_NFTABLES
)

// hookOrder asks the kernel in which order it calls the base chains of the IP
// hooks (net/netfilter/nfnetlink_hook.c, since 5.14), where that matters: where
// two chains that see the same packets have the same hook and priority. It is
// not asked otherwise, since asking can load a module. A kernel without
// nfnetlink_hook leaves the order unknown, which is no error.
//
// The order holds chains of nf_tables only. Legacy tables are in the kernel's
// list without a name, nat chains not at all: the NAT core calls them. A hook
// whose other chains are not all there is left out.
func hookOrder(ctx context.Context, src Source, d *decoder) (map[fw.Hook][]*fw.Chain, error) {
	var out map[fw.Hook][]*fw.Chain
	for h := fw.Prerouting; h <= fw.Postrouting; h++ {
		chains := chainsAt(d.ruleset, h)
		if !tied(chains) {
			continue
		}
		var lists [2][]*fw.Chain
		for i, family := range []uint8{nfprotoIPv4, nfprotoIPv6} {
			list, err := d.hookList(ctx, src, family, h)
			if hookUnknown(err) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			lists[i] = list
		}
		order := mergeOrders(lists[0], lists[1])
		if slices.ContainsFunc(chains, func(c *fw.Chain) bool { return !slices.Contains(order, c) }) {
			continue
		}
		if out == nil {
			out = map[fw.Hook][]*fw.Chain{}
		}
		out[h] = order
	}
	return out, nil
}

// hookUnknown reports whether the kernel has no nfnetlink_hook.
func hookUnknown(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EPROTONOSUPPORT)
}

// chainsAt lists the chains that a hook of the IP families calls itself.
func chainsAt(rs *fw.Ruleset, h fw.Hook) []*fw.Chain {
	var out []*fw.Chain
	for _, t := range rs.Tables {
		if t.Dormant || !t.Family.Sees(fw.IPv4) && !t.Family.Sees(fw.IPv6) {
			continue
		}
		for _, c := range t.Chains {
			if c.Base != nil && c.Base.Hook == h && c.Base.Type != fw.ChainNAT {
				out = append(out, c)
			}
		}
	}
	return out
}

// tied reports whether two of the chains see the same packets at the same
// priority.
func tied(chains []*fw.Chain) bool {
	for i, a := range chains {
		for _, b := range chains[:i] {
			for _, f := range []fw.Family{fw.IPv4, fw.IPv6} {
				if a.Base.Priority == b.Base.Priority && a.Table.Family.Sees(f) && b.Table.Family.Sees(f) {
					return true
				}
			}
		}
	}
	return false
}

// hookList is the order of the chains that one family's hook calls.
func (d *decoder) hookList(ctx context.Context, src Source, family uint8, h fw.Hook) ([]*fw.Chain, error) {
	req := Request{Subsystem: subsysHook, Type: msgHookGet, Family: family}
	req.Attrs = string(appendAttr(nil, hookAttrNum, binary.BigEndian.AppendUint32(nil, uint32(h))))
	var list []*fw.Chain
	err := each(ctx, src, req, func(msg []byte) error {
		_, b, ok := splitMessage(msg)
		a := walk(b)
		for a.next() {
			if a.typ == hookAttrChain {
				if c := d.hookChain(a.val); c != nil {
					list = append(list, c)
				}
			}
		}
		if !ok || a.bad {
			return &DecodeError{"hook", errMalformed}
		}
		return nil
	})
	return list, err
}

// hookChain finds the chain that NFNLA_HOOK_CHAIN_INFO names.
func (d *decoder) hookChain(b []byte) *fw.Chain {
	var desc []byte
	typ := uint32(0)
	for a := walk(b); a.next(); {
		switch a.typ {
		case hookInfoDesc:
			desc = a.val
		case hookInfoType:
			typ = be32(a.val)
		}
	}
	if typ != hookTypeTables {
		return nil
	}
	var k tableKey
	var name string
	for a := walk(desc); a.next(); {
		switch a.typ {
		case hookDescTable:
			k.name = string(cstring(a.val))
		case hookDescFamily:
			k.family = u8(a.val)
		case hookDescName:
			name = string(cstring(a.val))
		}
	}
	if t := d.byName[k]; t != nil && t.chains[name] != nil {
		return t.chains[name].chain
	}
	return nil
}

// mergeOrders makes one order of two that agree on what they share (the chains
// of inet tables).
func mergeOrders(a, b []*fw.Chain) []*fw.Chain {
	var out []*fw.Chain
	for _, c := range a {
		if i := slices.Index(b, c); i >= 0 {
			out = append(out, b[:i]...)
			b = b[i+1:]
		}
		out = append(out, c)
	}
	return append(out, b...)
}
