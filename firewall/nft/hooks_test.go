package nft

import (
	"context"
	"encoding/binary"
	"iter"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// hookSource answers for nfnetlink_hook, which the kernel of the lab lacks:
// messages made after net/netfilter/nfnetlink_hook.c.
type hookSource struct {
	failing
	lists map[uint8][][3]string // by family: family of the table, table, chain
}

func (s hookSource) Dump(_ context.Context, req Request) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if s.err != nil {
			yield(nil, s.err)
			return
		}
		if req.Subsystem != subsysHook || req.Attrs != "\x08\x00\x01\x00\x00\x00\x00\x01" {
			yield(nil, syscall.EBADMSG)
			return
		}
		for _, c := range s.lists[req.Family] {
			msg := []byte{req.Family, 0, 0, 0}
			msg = appendString(msg, 4, "nft_do_chain_inet")
			msg = appendAttr(msg, 1, []byte{0, 0, 0, 1})
			if c[1] != "" {
				desc := appendString(nil, hookDescTable, c[1])
				desc = appendString(desc, hookDescName, c[2])
				desc = appendAttr(desc, hookDescFamily, []byte(c[0]))
				info := appendAttr(nil, hookInfoType, binary.BigEndian.AppendUint32(nil, 1))
				msg = appendAttr(msg, hookAttrChain, appendAttr(info, hookInfoDesc, desc))
			}
			if !yield(msg, nil) {
				return
			}
		}
	}
}

// TestHookOrder: the order of chains of equal priority is taken from the hook
// dump; where the kernel has none it is unknown and no error.
func TestHookOrder(t *testing.T) {
	d := newDecoder()
	add := func(family uint8, table, chain string, priority int) {
		if d.byName[tableKey{family, table}] == nil {
			if err := d.table(append([]byte{family, 0, 0, 0}, appendString(nil, tableName, table)...)); err != nil {
				t.Fatal(err)
			}
		}
		hook := appendAttr(nil, hookNum, []byte{0, 0, 0, 1})
		hook = appendAttr(hook, hookPriority, binary.BigEndian.AppendUint32(nil, uint32(priority)))
		msg := append([]byte{family, 0, 0, 0}, appendString(nil, chainTable, table)...)
		msg = appendString(msg, chainName, chain)
		msg = appendAttr(msg, chainHook, hook)
		msg = appendString(msg, chainType, "filter")
		if err := d.chain(msg); err != nil {
			t.Fatal(err)
		}
	}
	add(nfprotoInet, "x", "one", 0)
	add(nfprotoIPv4, "y", "two", 0)
	add(nfprotoIPv6, "y", "three", 0)
	add(nfprotoIPv4, "z", "late", 10)
	lists := map[uint8][][3]string{
		nfprotoIPv4: {{"", "", ""}, {"\x02", "y", "two"}, {"\x01", "x", "one"}, {"\x02", "z", "late"}},
		nfprotoIPv6: {{"\x01", "x", "one"}, {"\x0a", "y", "three"}},
	}
	names := func(src Source) []string {
		order, err := hookOrder(context.Background(), src, d)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, c := range order[fw.Input] {
			out = append(out, c.Name)
		}
		return out
	}
	if d := cmp.Diff([]string{"two", "one", "late", "three"}, names(hookSource{lists: lists})); d != "" {
		t.Error(d)
	}
	if got := names(hookSource{failing: failing{syscall.EINVAL}}); got != nil {
		t.Errorf("an order %v from a kernel that tells none", got)
	}
	// A list without one of the chains is not taken for the whole order.
	lists[nfprotoIPv4] = lists[nfprotoIPv4][:2]
	lists[nfprotoIPv6] = nil
	if got := names(hookSource{lists: lists}); got != nil {
		t.Errorf("an order %v from a list that lacks a chain", got)
	}
}
