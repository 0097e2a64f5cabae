package firewall

import "strings"

// IPSet is a set of the ipset subsystem. Its elements stand in columns, N long
// or nil where the type has no such part; all are in the order of the kernel's
// dump.
type IPSet struct {
	Name     string
	Index    uint16 // by which x_tables rules name it
	Type     string // "hash:ip,port"
	Revision uint8
	Family   Family // 0: a set without addresses, which takes packets of any family

	// Mask is laid over the packet's first address before it is looked up
	// (netmask and bitmask of hash sets); MaxValue of the address without one.
	Mask     Value
	MarkMask uint32 // of hash:ip,mark
	// FirstPort and LastPort bound bitmap:port.
	FirstPort, LastPort uint16

	N int
	// Addrs holds the addresses of the first address part one after the other,
	// 4 or 16 bytes each, Bits their prefix lengths. Addrs2 and Bits2 are the
	// second address part.
	Addrs, Addrs2 []byte
	Bits, Bits2   []uint8
	Ports         []uint16 // port, or ICMP type<<8 | code
	Protos        []uint8
	Ifaces        []string
	Marks         []uint32
	MACs          []byte   // six bytes each; all zero for an element of bitmap:ip,mac that has none yet
	Nomatch       []bool   // nil when no element has the flag
	Physdev       []bool   // of hash:net,iface; nil when no element has the flag
	Wildcard      []bool   // of hash:net,iface: Ifaces is a prefix; nil when no element has the flag
	Members       []*IPSet // of list:set, in order; nil for a member that was not read

	// Comments and Timeouts (seconds left, 0 for permanent) are for the
	// reader; nil when the set was made without.
	Comments []string
	Timeouts []uint32
	// Counters, SKBInfo and ForceAdd are the flags the set was made with.
	Counters, SKBInfo, ForceAdd bool
	// Timeout tells that the set was made with one, DefaultTimeout which
	// (seconds, 0 for permanent).
	Timeout        bool
	DefaultTimeout uint32

	// Unread says why the elements are not here; Count is their number.
	Unread string
	Count  int

	index ipsetIndex
}

// ipsetPart is what one dimension of a set is compared with.
type ipsetPart uint8

const (
	ipsetAddr ipsetPart = iota
	ipsetAddr2
	ipsetPort
	ipsetIface
	ipsetMark
	ipsetMAC
)

// ipsetTypes holds the dimensions of the set types.
var ipsetTypes = map[string][]ipsetPart{
	"bitmap:ip":         {ipsetAddr},
	"bitmap:ip,mac":     {ipsetAddr, ipsetMAC},
	"bitmap:port":       {ipsetPort},
	"hash:ip":           {ipsetAddr},
	"hash:ip,mac":       {ipsetAddr, ipsetMAC},
	"hash:ip,mark":      {ipsetAddr, ipsetMark},
	"hash:ip,port":      {ipsetAddr, ipsetPort},
	"hash:ip,port,ip":   {ipsetAddr, ipsetPort, ipsetAddr2},
	"hash:ip,port,net":  {ipsetAddr, ipsetPort, ipsetAddr2},
	"hash:mac":          {ipsetMAC},
	"hash:net":          {ipsetAddr},
	"hash:net,iface":    {ipsetAddr, ipsetIface},
	"hash:net,net":      {ipsetAddr, ipsetAddr2},
	"hash:net,port":     {ipsetAddr, ipsetPort},
	"hash:net,port,net": {ipsetAddr, ipsetPort, ipsetAddr2},
	"list:set":          {},
}

// IPSetMatch is x_tables' match on an ipset (`-m set --match-set NAME src,dst`).
type IPSetMatch struct {
	Set *IPSet
	// Src tells for each dimension given whether it is taken from the source of
	// the packet. Dimensions beyond those of the set are not used; with fewer
	// nothing is found.
	Src    []bool
	Invert bool
	// ReturnNomatch is --return-nomatch: elements with the nomatch flag are
	// found, others are not.
	ReturnNomatch bool
	// Counters is not empty when the counters of the element are compared too:
	// how.
	Counters string
}

func (*IPSetMatch) stmt() {}

// Split is set_match_v4 and ip_set_test.
func (m *IPSetMatch) Split(c *Class, env *Env) Parts {
	p := m.split(c, env, m.Set, 0)
	if m.Counters == "" {
		return p.inverted(m.Invert)
	}
	// What is in the set turns on the element's counters. Whether what is not
	// in it matches an inverted rule differs between kernels.
	why := "the counters of an element of ipset " + m.Set.Name + " (" + m.Counters + ")"
	if m.Invert {
		return allMaybe(c, why)
	}
	if len(p.Yes) > 0 {
		p.Why = why
	}
	p.Maybe = append(p.Maybe, p.Yes...)
	p.Yes = nil
	return p
}

// maxIPSetDepth bounds sets in sets; the kernel has only one level.
const maxIPSetDepth = 4

func (m *IPSetMatch) split(c *Class, env *Env, s *IPSet, depth int) Parts {
	dims, known := ipsetTypes[s.Type]
	switch {
	case !known:
		return allMaybe(c, "ipset "+s.Name+" of type "+s.Type+", which is not known here")
	case len(m.Src) < max(1, len(dims)):
		return allNo(c)
	case s.Family != 0 && s.Family != c.State.Family:
		return allNo(c)
	case c.State.touchesNamed(s.Name):
		return allMaybe(c, "ipset "+s.Name+", which the packet itself changes")
	case s.Unread != "":
		return allMaybe(c, "ipset "+s.Name+", which was not read: "+s.Unread)
	case s.Type == "list:set":
		return m.list(c, env, s, depth)
	case s.N == 0:
		return allNo(c)
	}
	// Only sets that can have the nomatch flag heed it (IPSET_TYPE_NOMATCH).
	q := ipsetQuery{set: s, class: c, nomatch: m.ReturnNomatch && strings.HasPrefix(s.Type, "hash:") && strings.Contains(s.Type, "net")}
	for i, d := range dims {
		if !q.dimension(d, m.Src[i], env) {
			return allNo(c)
		}
	}
	return q.answer()
}

// touchesNamed reports whether the packet itself has changed the ipset on its
// way (SET target).
func (s *State) touchesNamed(name string) bool {
	for t := s.touched; t != nil; t = t.next {
		if t.set == nil && t.name == name {
			return true
		}
	}
	return false
}

// list is list_set_ktest: the first member that holds the packet decides, so
// the packet is found when any does.
func (m *IPSetMatch) list(c *Class, env *Env, s *IPSet, depth int) Parts {
	if depth >= maxIPSetDepth {
		return allMaybe(c, "ipset "+s.Name+", whose members lie too deep")
	}
	var out Parts
	rest := []Piece{{c.Remote, c.Ports}}
	for _, member := range s.Members {
		var next []Piece
		for _, r := range rest {
			sub := c.with(r)
			var p Parts
			if member == nil {
				p = allMaybe(&sub, "a member of ipset "+s.Name+", which was not read")
			} else {
				p = m.split(&sub, env, member, depth+1)
			}
			out.Yes = append(out.Yes, p.Yes...)
			next = append(next, p.No...)
			if len(p.Maybe) > 0 {
				// A later member may still hold it for sure.
				out.Maybe = append(out.Maybe, p.Maybe...)
				out.Why = p.Why
			}
		}
		rest = next
	}
	out.No = rest
	return out
}
