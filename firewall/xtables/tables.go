package xtables

import (
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

// hooks is NF_INET_NUMHOOKS; firewall.Hook counts them as the kernel does.
const hooks = 5

var chainNames = [hooks]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// tableKind is what the kernel fixes for a table: the hooks it has chains at,
// and with which priority and type they are called.
type tableKind struct {
	hooks    uint8
	priority [hooks]int
	typ      firewall.ChainType
	route    uint8 // hooks at which a changed mark makes the packet be routed again
}

const (
	atPre  = 1 << firewall.Prerouting
	atIn   = 1 << firewall.Input
	atFwd  = 1 << firewall.Forward
	atOut  = 1 << firewall.Output
	atPost = 1 << firewall.Postrouting
	atAll  = atPre | atIn | atFwd | atOut | atPost
)

func everywhere(p int) [hooks]int { return [hooks]int{p, p, p, p, p} }

// tableKinds are the tables of the kernel (iptable_filter.c, iptable_nat.c, …
// and their IPv6 twins, which are the same).
var tableKinds = map[string]tableKind{
	"raw":      {hooks: atPre | atOut, priority: everywhere(firewall.PriorityRaw)},
	"mangle":   {hooks: atAll, priority: everywhere(firewall.PriorityMangle), route: atOut},
	"filter":   {hooks: atIn | atFwd | atOut, priority: everywhere(firewall.PriorityFilter)},
	"security": {hooks: atIn | atFwd | atOut, priority: everywhere(firewall.PrioritySecurity)},
	"nat": {hooks: atPre | atIn | atOut | atPost, typ: firewall.ChainNAT, priority: [hooks]int{
		firewall.Prerouting: firewall.PriorityDstNAT, firewall.Output: firewall.PriorityDstNAT,
		firewall.Input: firewall.PrioritySrcNAT, firewall.Postrouting: firewall.PrioritySrcNAT,
	}},
}

// unknownKind stands for a table that the kernel proper does not have.
var unknownKind = tableKind{hooks: atAll}

func (k tableKind) base(h firewall.Hook) *firewall.Base {
	b := &firewall.Base{Type: k.typ, Hook: h, Priority: k.priority[h], Policy: firewall.Accept}
	if k.route&(1<<h) != 0 {
		b.Type = firewall.ChainRoute
	}
	return b
}

// tableInfo is struct ipt_getinfo.
type tableInfo struct {
	valid     uint32
	entry     [hooks]uint32
	underflow [hooks]uint32
	num, size uint32
}

func newTableInfo(fam firewall.TableFamily, name string, b []byte) (tableInfo, error) {
	var i tableInfo
	if len(b) < 84 {
		return i, &DecodeError{object(fam, name), len(b), fmt.Sprintf("%d bytes of table info", len(b))}
	}
	i.valid = u32(b, 32)
	for h := range hooks {
		i.entry[h], i.underflow[h] = u32(b, 36+4*h), u32(b, 56+4*h)
	}
	i.num, i.size = u32(b, 76), u32(b, 80)
	return i, nil
}
