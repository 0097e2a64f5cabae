package ipset

import (
	"encoding/binary"
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

func native16(b []byte) uint16 { return binary.NativeEndian.Uint16(b) }

// maxElements is the number of elements of one set above which the rest is not
// kept and the set counts as unread.
const maxElements = 1 << 22

// decoder collects sets from the messages of a list.
type decoder struct {
	sets    []*firewall.IPSet
	byName  map[string]*firewall.IPSet
	indexed map[*firewall.IPSet]bool
	members map[*firewall.IPSet][]string
	flags   map[*firewall.IPSet]uint32
	strings map[string]string
}

func newDecoder() *decoder {
	return &decoder{
		byName:  map[string]*firewall.IPSet{},
		indexed: map[*firewall.IPSet]bool{},
		members: map[*firewall.IPSet][]string{},
		flags:   map[*firewall.IPSet]uint32{},
		strings: map[string]string{},
	}
}

// intern returns the text of b up to the first zero byte, shared.
func (d *decoder) intern(b []byte) string {
	for i, c := range b {
		if c == 0 {
			b = b[:i]
			break
		}
	}
	if s, ok := d.strings[string(b)]; ok {
		return s
	}
	s := string(b)
	d.strings[s] = s
	return s
}

// message decodes one message of the list: the header of a set, elements, or
// both (ip_set_dump_do).
func (d *decoder) message(b []byte) error {
	if len(b) < 4 {
		return &DecodeError{"list", fmt.Sprintf("a message of %d bytes", len(b))}
	}
	var name, typ, data, elems []byte
	var rev, family uint8
	var index uint16
	hasIndex := false
	a := walk(b[4:])
	for a.next() {
		switch {
		case a.typ == attrSetName:
			name = a.val
		case a.typ == attrTypeName:
			typ = a.val
		case a.typ == attrRevision && len(a.val) > 0:
			rev = a.val[0]
		case a.typ == attrFamily && len(a.val) > 0:
			family = a.val[0]
		case a.typ == attrIndex && len(a.val) >= 2:
			index, hasIndex = binary.BigEndian.Uint16(a.val), true
		case a.typ == attrData:
			data = a.val
		case a.typ == attrADT:
			elems = a.val
		}
	}
	if a.bad || name == nil {
		return &DecodeError{"list", "a message that is torn"}
	}
	n := d.intern(name)
	s := d.byName[n]
	if s == nil {
		if typ == nil {
			return &DecodeError{"set " + n, "elements before the set"}
		}
		s = &firewall.IPSet{Name: n, Type: d.intern(typ), Revision: rev, Index: index}
		switch family {
		case 2: // NFPROTO_IPV4
			s.Family = firewall.IPv4
		case 10: // NFPROTO_IPV6
			s.Family = firewall.IPv6
		}
		d.byName[n] = s
		d.sets = append(d.sets, s)
		d.indexed[s] = hasIndex
		d.header(s, data)
	}
	for e := walk(elems); ; {
		if !e.next() {
			if e.bad {
				return &DecodeError{"set " + n, "elements that are torn"}
			}
			return nil
		}
		if e.typ != attrData {
			continue
		}
		if err := d.element(s, e.val); err != nil {
			return err
		}
	}
}

// addrOf reads a nested address.
func addrOf(b []byte) []byte {
	for a := walk(b); a.next(); {
		if a.typ == addrIPv4 && len(a.val) == 4 || a.typ == addrIPv6 && len(a.val) == 16 {
			return a.val
		}
	}
	return nil
}

func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func be16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// header decodes what a set was made with.
func (d *decoder) header(s *firewall.IPSet, b []byte) {
	n := s.Family.AddrLen()
	full := firewall.MaxValue(n)
	s.Mask, s.MarkMask = full, 0xffffffff
	prefix := -1
	for a := walk(b); a.next(); {
		switch a.typ {
		case headNetmask:
			if len(a.val) > 0 && int(a.val[0]) <= 8*n {
				prefix = int(a.val[0])
			}
		case dataBitmask:
			if v := addrOf(a.val); len(v) == n {
				s.Mask = firewall.Bytes(v)
			}
		case dataMarkMask:
			s.MarkMask = be32(a.val)
		case dataPort:
			s.FirstPort = be16(a.val)
		case dataPortTo:
			s.LastPort = be16(a.val)
		case dataTimeout:
			s.Timeout, s.DefaultTimeout = true, be32(a.val)
		case headElements:
			s.Count = int(be32(a.val))
		case dataFlags:
			f := be32(a.val)
			d.flags[s] = f
			s.Counters, s.SKBInfo, s.ForceAdd = f&flagWithCounters != 0, f&flagWithSKBInfo != 0, f&flagForceAdd != 0
		}
	}
	switch {
	case prefix >= 0 && s.Type == "bitmap:ip":
		// Every element stands for a network of this length.
		d.flags[s] |= uint32(prefix)<<16 | 1<<31
	case prefix >= 0:
		s.Mask = firewall.PrefixMask(prefix, n)
	}
	if s.Type == "hash:net,net" && s.Mask != full {
		s.Unread = "a set of pairs of networks with a mask for both"
	}
}

// element decodes one element into the columns of its set.
func (d *decoder) element(s *firewall.IPSet, b []byte) error {
	if s.N >= maxElements {
		s.Unread = fmt.Sprintf("more than %d elements", maxElements)
		return nil
	}
	var addr, addr2, iface, ether, member, comment []byte
	var port uint16
	var proto uint8
	var flags, mark, timeout uint32
	n := s.Family.AddrLen()
	bits, bits2 := 8*n, 8*n
	hasPort := false
	a := walk(b)
	for a.next() {
		switch a.typ {
		case dataIP:
			addr = addrOf(a.val)
		case elemIP2:
			addr2 = addrOf(a.val)
		case dataCIDR:
			bits = first(a.val)
		case elemCIDR2:
			bits2 = first(a.val)
		case dataPort:
			port, hasPort = be16(a.val), true
		case dataProto:
			proto = uint8(first(a.val))
		case dataFlags:
			flags = be32(a.val)
		case dataMark:
			mark = be32(a.val)
		case dataTimeout:
			timeout = be32(a.val)
		case elemEther:
			ether = a.val
		case elemIface:
			iface = a.val
		case elemName:
			member = a.val
		case elemComment:
			comment = a.val
		}
	}
	if a.bad || bits > 8*n || bits2 > 8*n {
		return &DecodeError{"set " + s.Name, "an element that is torn"}
	}
	if s.Type == "list:set" {
		d.members[s] = append(d.members[s], d.intern(member))
		s.N++
		return nil
	}
	p, known := partsOf[s.Type]
	switch {
	case !known:
		s.Unread = "a set type that is not known here"
	case p.addr && len(addr) != n, p.addr2 && len(addr2) != n, p.port && !hasPort, p.mac && s.Type != "bitmap:ip,mac" && len(ether) != 6:
		return &DecodeError{"set " + s.Name, "an element that lacks a part"}
	}
	if s.Unread != "" {
		s.N++
		return nil
	}
	if f := d.flags[s]; f>>31 != 0 {
		bits = int(f >> 16 & 0xff)
	}
	d.add(s, p, elementParts{addr, addr2, ether, iface, bits, bits2, port, proto, mark, flags})
	if d.flags[s]&flagWithComment != 0 {
		s.Comments = append(s.Comments, d.intern(comment))
	}
	if s.Timeout {
		s.Timeouts = append(s.Timeouts, timeout)
	}
	s.N++
	return nil
}

func first(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	return int(b[0])
}
