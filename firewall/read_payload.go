package firewall

// readPayload reads bytes of a header that no named field stands for (`@nh,0,8`,
// `ip version 6`, u32): the model knows some of them, bit by bit.
func (c *Class) readPayload(f Field) reading {
	unknown := isUnknown(fieldWhy[FieldPayload])
	var h header
	switch f.A {
	case 0:
		h = c.linkHeader()
	case 1:
		h = c.networkHeader()
	case 2:
		h = c.transportHeader()
	default:
		return unknown
	}
	end := int(f.B + f.C)
	if f.C == 0 || f.C > 16 || end > len(h.bytes) {
		return unknown
	}
	return reading{kind: readConst, value: Bytes(h.bytes[f.B:end]), unsure: Bytes(h.unsure[f.B:end]), why: unknown.why}
}

// header is the beginning of a header: its bytes, and the bits of them that are
// not known.
type header struct{ bytes, unsure []byte }

func newHeader(n int) header {
	h := header{make([]byte, n), make([]byte, n)}
	for i := range h.unsure {
		h.unsure[i] = 0xff
	}
	return h
}

// put writes known bits.
func (h header) put(at int, v byte, known byte) {
	h.bytes[at] = v & known
	h.unsure[at] = ^known
}

// field writes a whole field where it is one known value.
func (h header) field(at, n int, r reading) {
	if r.kind != readConst {
		return
	}
	unsure := r.unsure.AppendBytes(nil, n)
	for i, b := range r.value.AppendBytes(nil, n) {
		h.put(at+i, b, ^unsure[i])
	}
}

// hasLinkHeader reports whether the packet came in with an Ethernet header
// (ARPHRD_ETHER, ARPHRD_LOOPBACK). What goes out has none yet.
func (c *Class) hasLinkHeader() bool {
	in := c.State.In
	return in != nil && (in.Type == 1 || in.Type == 772)
}

// linkHeader is the Ethernet header (IEEE 802.3), of which only the type is known.
func (c *Class) linkHeader() header {
	if !c.hasLinkHeader() {
		return header{}
	}
	h := newHeader(14)
	typ := uint16(0x0800)
	if c.State.Family == IPv6 {
		typ = 0x86dd
	}
	h.put(12, byte(typ>>8), 0xff)
	h.put(13, byte(typ), 0xff)
	return h
}

// networkHeader is an IPv4 header without options (RFC 791), or the fixed IPv6
// header (RFC 8200).
func (c *Class) networkHeader() header {
	if c.State.Family == IPv4 {
		h := newHeader(20)
		h.put(0, 0x45, 0xff)
		h.put(6, 0, 0xbf) // whole; "don't fragment" is the sender's affair
		h.put(7, 0, 0xff)
		h.put(9, byte(c.State.Proto), 0xff)
		h.field(12, 4, c.srcAddr())
		h.field(16, 4, c.dstAddr())
		return h
	}
	h := newHeader(40)
	h.put(0, 0x60, 0xf0)
	h.put(6, byte(c.State.Proto), 0xff)
	h.field(8, 16, c.srcAddr())
	h.field(24, 16, c.dstAddr())
	return h
}

// transportHeader is the beginning of a TCP (RFC 9293) or UDP header, or the
// first two bytes of an ICMP one.
func (c *Class) transportHeader() header {
	switch p := c.State.Proto; {
	case p == ICMP || p == ICMPv6:
		h := newHeader(8)
		h.put(0, c.State.ICMPType, 0xff)
		h.put(1, c.State.ICMPCode, 0xff)
		return h
	case p.HasPorts():
		h := newHeader(8)
		if p == TCP {
			h = newHeader(20)
			known := byte(0xff)
			if c.State.Following {
				known &^= flagPSH
			}
			h.put(13, c.State.TCPFlags, known)
		}
		h.field(0, 2, c.srcPort())
		h.field(2, 2, c.dstPort())
		return h
	default:
		return header{}
	}
}
