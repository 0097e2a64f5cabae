package nft

import (
	"slices"

	fw "github.com/hostaudit/hostaudit/firewall"
)

// Bases of payload (enum nft_payload_bases).
const (
	baseLink      = 0
	baseNetwork   = 1
	baseTransport = 2
	baseInner     = 3
)

// headerField is a field of a protocol header at its place.
type headerField struct {
	offset, length int
	kind           fw.FieldKind
}

// The fields that rules compare; everything else is FieldPayload.
var (
	ipv4Header = []headerField{
		{6, 2, fw.FieldFragment},
		{8, 1, fw.FieldTTL},
		{9, 1, fw.FieldIPProto},
		{12, 4, fw.FieldSrcAddr},
		{16, 4, fw.FieldDstAddr},
	}
	ipv6Header = []headerField{
		{6, 1, fw.FieldIPProto},
		{7, 1, fw.FieldTTL},
		{8, 16, fw.FieldSrcAddr},
		{24, 16, fw.FieldDstAddr},
	}
	portHeader = []headerField{
		{0, 2, fw.FieldSrcPort},
		{2, 2, fw.FieldDstPort},
	}
	tcpHeader = []headerField{
		{0, 2, fw.FieldSrcPort},
		{2, 2, fw.FieldDstPort},
		{13, 1, fw.FieldTCPFlags},
	}
	icmpHeader = []headerField{
		{0, 1, fw.FieldICMPType},
		{1, 1, fw.FieldICMPCode},
	}
	linkHeader = []headerField{
		{0, 6, fw.FieldDstMAC},
		{6, 6, fw.FieldSrcMAC},
	}
)

// guards is what the expressions of a rule so far have made sure of.
type guards struct {
	family fw.Family // 0: not known
	protos protoSet  // nil: any
}

// protoSet is a set of IP protocols.
type protoSet []uint8

func (p protoSet) all(f func(fw.Proto) bool) bool {
	for _, v := range p {
		if !f(fw.Proto(v)) {
			return false
		}
	}
	return len(p) > 0
}

// header returns the fields that lie at base. Without a guard for the network
// header the bytes could belong to either family, and stay bytes. The first
// four bytes of the transport header are the ports of every protocol that has
// ports, so they need no guard: for other protocols the evaluator cannot tell.
func (g *guards) header(base uint8) []headerField {
	switch base {
	case baseLink:
		return linkHeader
	case baseNetwork:
		switch g.family {
		case fw.IPv4:
			return ipv4Header
		case fw.IPv6:
			return ipv6Header
		}
	case baseTransport:
		switch {
		case g.protos.all(func(p fw.Proto) bool { return p == fw.TCP }):
			return tcpHeader
		case g.protos.all(func(p fw.Proto) bool { return p == fw.ICMP || p == fw.ICMPv6 }):
			return icmpHeader
		case g.protos == nil || slices.ContainsFunc(g.protos, func(p uint8) bool { return fw.Proto(p).HasPorts() }):
			return portHeader
		}
	}
	return nil
}

// fieldAt returns the field that holds the byte at offset of base.
func (g *guards) fieldAt(base uint8, offset int) (headerField, bool) {
	for _, f := range g.header(base) {
		if offset >= f.offset && offset < f.offset+f.length {
			return f, true
		}
	}
	return headerField{}, false
}

// learn notes what a match that has to be true says about the packet.
func (g *guards) learn(m *fw.Match) {
	if m.Invert || m.Operand.Mask != fw.MaxValue(m.Operand.Len) || m.Operand.Shift != 0 || !m.Operand.Xor.IsZero() {
		return
	}
	v, single := m.In.Only()
	switch m.Operand.Field.Kind {
	case fw.FieldNFProto:
		if single && v == fw.Num(nfprotoIPv4) {
			g.family = fw.IPv4
		} else if single && v == fw.Num(nfprotoIPv6) {
			g.family = fw.IPv6
		}
	case fw.FieldEtherType:
		if single && v == fw.Num(0x0800) {
			g.family = fw.IPv4
		} else if single && v == fw.Num(0x86dd) {
			g.family = fw.IPv6
		}
	case fw.FieldL4Proto, fw.FieldIPProto:
		var ps protoSet
		for _, r := range m.In {
			for p := r.Lo.Lo; p <= r.Hi.Lo && p < 256; p++ {
				if len(ps) == 16 {
					return
				}
				ps = append(ps, uint8(p))
			}
		}
		g.narrow(ps)
	}
}

// learnSet notes what a look-up in a constant set says about the packet.
func (g *guards) learnSet(l *fw.Lookup) {
	if l.Invert || len(l.Keys) != 1 || !l.Set.Constant || l.Set.HasCatchAll || l.Set.Unread != "" || l.Set.KeyLen != 1 || l.Set.N > 16 {
		return
	}
	switch l.Keys[0].Field.Kind {
	case fw.FieldL4Proto, fw.FieldIPProto:
	default:
		return
	}
	if l.Keys[0].Mask != fw.MaxValue(1) || l.Keys[0].Shift != 0 || !l.Keys[0].Xor.IsZero() {
		return
	}
	var ps protoSet
	for i := range l.Set.N {
		lo, hi := l.Set.Key(i)
		for p := int(lo[0]); p <= int(hi[0]); p++ {
			if len(ps) == 16 {
				return
			}
			ps = append(ps, uint8(p))
		}
	}
	g.narrow(ps)
}

// narrow intersects the known protocols with ps.
func (g *guards) narrow(ps protoSet) {
	if g.protos == nil {
		g.protos = ps
		return
	}
	var both protoSet
	for _, a := range g.protos {
		for _, b := range ps {
			if a == b {
				both = append(both, a)
				break
			}
		}
	}
	g.protos = both
	if both == nil {
		g.protos = protoSet{}
	}
}
