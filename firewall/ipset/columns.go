package ipset

import "github.com/hostaudit/hostaudit/firewall"

// typeParts are the parts that elements of a type have. net and net2 tell that
// the address is a network.
type typeParts struct {
	addr, net, addr2, net2 bool
	port, proto            bool
	iface, mark, mac       bool
}

var partsOf = map[string]typeParts{
	"bitmap:ip":         {addr: true, net: true},
	"bitmap:ip,mac":     {addr: true, mac: true},
	"bitmap:port":       {port: true},
	"hash:ip":           {addr: true},
	"hash:ip,mac":       {addr: true, mac: true},
	"hash:ip,mark":      {addr: true, mark: true},
	"hash:ip,port":      {addr: true, port: true, proto: true},
	"hash:ip,port,ip":   {addr: true, port: true, proto: true, addr2: true},
	"hash:ip,port,net":  {addr: true, port: true, proto: true, addr2: true, net2: true},
	"hash:mac":          {mac: true},
	"hash:net":          {addr: true, net: true},
	"hash:net,iface":    {addr: true, net: true, iface: true},
	"hash:net,net":      {addr: true, net: true, addr2: true, net2: true},
	"hash:net,port":     {addr: true, net: true, port: true, proto: true},
	"hash:net,port,net": {addr: true, net: true, port: true, proto: true, addr2: true, net2: true},
}

// elementParts are the parts of one element.
type elementParts struct {
	addr, addr2, ether, iface []byte
	bits, bits2               int
	port                      uint16
	proto                     uint8
	mark, flags               uint32
}

// add appends an element to the columns.
func (d *decoder) add(s *firewall.IPSet, p typeParts, e elementParts) {
	if p.addr {
		s.Addrs = append(s.Addrs, e.addr...)
	}
	if p.net {
		s.Bits = append(s.Bits, uint8(e.bits))
	}
	if p.addr2 {
		s.Addrs2 = append(s.Addrs2, e.addr2...)
	}
	if p.net2 {
		s.Bits2 = append(s.Bits2, uint8(e.bits2))
	}
	if p.port {
		s.Ports = append(s.Ports, e.port)
	}
	if p.proto {
		s.Protos = append(s.Protos, e.proto)
	}
	if p.mark {
		s.Marks = append(s.Marks, e.mark)
	}
	if p.mac {
		var m [6]byte
		copy(m[:], e.ether)
		s.MACs = append(s.MACs, m[:]...)
	}
	s.Nomatch = flag(s.Nomatch, s.N, e.flags&flagNomatch != 0)
	if p.iface {
		s.Ifaces = append(s.Ifaces, d.intern(e.iface))
		s.Physdev = flag(s.Physdev, s.N, e.flags&flagPhysdev != 0)
		s.Wildcard = flag(s.Wildcard, s.N, e.flags&flagWildcard != 0)
	}
}

// flag appends to a column that stays nil until an element has the flag; n
// elements stand before.
func flag(col []bool, n int, on bool) []bool {
	if col == nil && !on {
		return nil
	}
	if col == nil {
		col = make([]bool, n, n+1)
	}
	return append(col, on)
}
