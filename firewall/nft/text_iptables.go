package nft

import (
	"bytes"
	"encoding/binary"

	fw "github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// xt writes a match or target of x_tables as nft does, which knows its name.
func (w *writer) xt(kind string, t *table) string {
	return "xt " + kind + ` "` + string(cstring(t.val(1))) + `"`
}

// iptables writes a rule as `iptables -S` does. iptables-nft says much of a
// rule in nf_tables' own expressions; they are turned back into the header and
// the structs of x_tables. ok is false where the rule holds what iptables
// cannot say.
func (c *chainText) iptables(r *fw.Rule, exprs []byte) (text string, ok bool) {
	n := 4
	if c.table.table.Family == fw.TableIP6 {
		n = 16
	}
	p := specReader{sets: c.table.sets, spec: xtables.Spec{
		Family: c.table.table.Family, Chain: c.chain.Name, Sets: c.sets,
		Header: xtables.Header{
			Src: make([]byte, n), SrcMask: make([]byte, n), Dst: make([]byte, n), DstMask: make([]byte, n),
			In: make([]byte, 16), InMask: make([]byte, 16), Out: make([]byte, 16), OutMask: make([]byte, 16),
		},
	}}
	for a := walk(exprs); a.next(); {
		if !p.expression(a.val) {
			return "", false
		}
	}
	return string(p.spec.Append(nil)), true
}

// specReader collects what one rule says.
type specReader struct {
	spec xtables.Spec
	sets map[string]*setInfo
	// What the register holds: a header of base, offset and length, or a meta
	// key; and a mask on it.
	payload      bool
	base, offset int
	length       int
	key          uint32
	mask         []byte
	lower        []byte // of a range in two comparisons
	konst        []byte
	ports        []byte // struct xt_tcp or xt_udp of the match on ports
}

func (p *specReader) expression(b []byte) bool {
	name, data := nameAndData(b)
	var t table
	t.parse(data, 11)
	s := &p.spec
	switch string(name) {
	case "counter":
	case "payload":
		if t.has(5) {
			return false
		}
		p.payload, p.base, p.offset, p.length, p.mask = true, int(t.num(2)), int(t.num(3)), int(t.num(4)), nil
	case "meta":
		if t.has(3) {
			if t.num(2) != metaNFTrace || len(p.konst) == 0 || s.Target.Name != "" {
				return false
			}
			s.Target = xtables.Ext{Name: "TRACE"}
			return true
		}
		p.payload, p.key, p.mask = false, t.num(2), nil
	case "bitwise":
		p.mask = dataOf(t.val(4))
		return t.num(6) == 0 && allZero(dataOf(t.val(5)))
	case "cmp":
		return p.cmp(t.num(2), dataOf(t.val(3)))
	case "range":
		return p.portRange(dataOf(t.val(3)), dataOf(t.val(4)), t.num(2) == 1)
	case "match":
		e, ok := t.ext()
		p.match(e)
		return ok
	case "target":
		e, ok := t.ext()
		s.Target = e
		return ok && s.Jump == ""
	case "limit":
		return p.limit(&t)
	case "log":
		return p.nflog(&t)
	case "immediate":
		if t.num(1) != 0 {
			p.konst = dataOf(t.val(2))
			return true
		}
		return p.verdict(t.val(2))
	default:
		return false
	}
	return true
}

func (p *specReader) match(e xtables.Ext) {
	p.spec.Matches = append(p.spec.Matches, e)
}

func (p *specReader) verdict(b []byte) bool {
	w := writer{t: &tableState{}}
	text := w.verdict(b)
	s := &p.spec
	verdict, chain, jumps := bytes.Cut([]byte(text), []byte(" "))
	switch {
	case jumps && string(verdict) == "jump":
		s.Jump = string(chain)
	case jumps && string(verdict) == "goto":
		s.Jump, s.Header.Goto = string(chain), true
	case text == "accept":
		s.Jump = "ACCEPT"
	case text == "drop":
		s.Jump = "DROP"
	case text == "return":
		s.Jump = "RETURN"
	case text == "continue":
	default:
		return false
	}
	return true
}

// noInterface is what iptables compares names with for `! -i +`, no interface at
// all (add_iifname in iptables/nft-shared.c).
const noInterface = "INVAL/D\x00"

// cmp takes a comparison up as an option of the header, or of a match on ports
// or marks.
func (p *specReader) cmp(op uint32, data []byte) bool {
	s := &p.spec
	h := &s.Header
	if op > cmpNEQ {
		switch {
		case op == cmpGTE && p.base == baseTransport && p.payload:
			p.lower = data
			return true
		case op == cmpLTE && p.lower != nil:
			lower := p.lower
			p.lower = nil
			return p.portRange(lower, data, false)
		case len(data) != 2:
		case op == cmpLTE:
			return p.portRange(make([]byte, 2), data, false)
		case op == cmpGT && be16(data) < 0xffff:
			return p.portRange(binary.BigEndian.AppendUint16(nil, be16(data)+1), []byte{0xff, 0xff}, false)
		case op == cmpLT && be16(data) > 0:
			return p.portRange(make([]byte, 2), binary.BigEndian.AppendUint16(nil, be16(data)-1), false)
		}
		return false
	}
	invert := func(bit uint8) {
		if op == cmpNEQ {
			h.Invert |= bit
		}
	}
	if !p.payload {
		switch p.key {
		case metaIIFName:
			if op == cmpEQ && string(data) == noInterface {
				copy(h.In, "+")
				fill(h.InMask, len(h.InMask)) // else it is not printed, as -i + is not
				h.Invert |= xtables.InvertIn
				break
			}
			copy(h.In, data)
			fill(h.InMask, len(data))
			invert(xtables.InvertIn)
		case metaOIFName:
			if op == cmpEQ && string(data) == noInterface {
				copy(h.Out, "+")
				fill(h.OutMask, len(h.OutMask))
				h.Invert |= xtables.InvertOut
				break
			}
			copy(h.Out, data)
			fill(h.OutMask, len(data))
			invert(xtables.InvertOut)
		case metaL4Proto:
			if len(data) != 1 {
				return false
			}
			h.Proto, h.HasProto = uint16(data[0]), true
			invert(xtables.InvertProto)
		case metaMark:
			info := make([]byte, 12)
			copy(info, data)
			if p.mask != nil {
				copy(info[4:], p.mask)
			} else {
				fill(info[4:8], 4)
			}
			if op == cmpNEQ {
				info[8] = 1
			}
			p.match(xtables.Ext{Name: "mark", Rev: 1, Info: info})
		default:
			return false
		}
		return true
	}
	n := len(h.Src)
	src, dst, proto := 12, 16, 9
	if n == 16 {
		src, dst, proto = 8, 24, 6
	}
	switch {
	case p.base == baseNetwork && p.offset == src && len(data) <= n:
		p.address(h.Src, h.SrcMask, data)
		invert(xtables.InvertSrc)
	case p.base == baseNetwork && p.offset == dst && len(data) <= n:
		p.address(h.Dst, h.DstMask, data)
		invert(xtables.InvertDst)
	case p.base == baseNetwork && p.offset == proto && len(data) == 1:
		h.Proto, h.HasProto = uint16(data[0]), true
		invert(xtables.InvertProto)
	case p.base == baseNetwork && p.offset == 6 && n == 4 && bytes.Equal(p.mask, []byte{0x1f, 0xff}) && allZero(data):
		h.Fragment = true
		if op == cmpEQ {
			h.Invert |= xtables.InvertFragment
		}
	case p.base == baseTransport && p.offset == 13 && len(data) == 1 && h.Proto == uint16(fw.TCP):
		mask := byte(0xff)
		if len(p.mask) == 1 {
			mask = p.mask[0]
		}
		return p.flags(mask, data[0], op == cmpNEQ)
	case p.base == baseTransport && p.mask == nil && len(data) == 2:
		return p.portRange(data, data, op == cmpNEQ)
	case p.base == baseTransport && p.mask == nil && len(data) == 4 && p.offset == 0 && op == cmpEQ:
		// Both ports at once.
		if !p.portRange(data[:2], data[:2], false) {
			return false
		}
		p.offset = 2
		return p.portRange(data[2:], data[2:], false)
	default:
		return false
	}
	return true
}

func fill(b []byte, n int) {
	for i := range b[:min(n, len(b))] {
		b[i] = 0xff
	}
}

func (p *specReader) address(addr, mask, data []byte) {
	copy(addr, data)
	if p.mask != nil {
		copy(mask, p.mask)
	} else {
		fill(mask, len(data))
	}
}

// Offsets in struct xt_tcp and xt_udp: source and destination range, then for
// TCP option, flag mask, flags, and the bits of what is inverted.
const (
	xtSourcePorts = 0
	xtDestPorts   = 4
	xtTCPMask     = 9
	xtTCPFlags    = 10
	xtTCPInvert   = 11
	xtUDPInvert   = 8

	xtInvertSource = 1
	xtInvertDest   = 2
	xtInvertFlags  = 4
)

// startPorts begins the match on tcp or udp. All comparisons of the rule are part
// of the first one, whatever stands in between (nft_tcp_match, nft_udp_match of
// iptables).
func (p *specReader) startPorts() bool {
	if p.ports != nil {
		return true
	}
	if p.spec.Header.Invert&xtables.InvertProto != 0 {
		return false
	}
	name := ""
	switch fw.Proto(p.spec.Header.Proto) {
	case fw.TCP:
		name, p.ports = "tcp", make([]byte, 12)
	case fw.UDP:
		name, p.ports = "udp", make([]byte, 10)
	default:
		return false
	}
	fill(p.ports[xtSourcePorts+2:], 2)
	fill(p.ports[xtDestPorts+2:], 2)
	p.match(xtables.Ext{Name: name, Info: p.ports})
	return true
}

func (p *specReader) portRange(lo, hi []byte, invert bool) bool {
	if !p.payload || p.base != baseTransport || len(lo) != 2 || len(hi) != 2 || p.offset != 0 && p.offset != 2 || !p.startPorts() {
		return false
	}
	at, bit := xtSourcePorts, byte(xtInvertSource)
	if p.offset == 2 {
		at, bit = xtDestPorts, xtInvertDest
	}
	binary.NativeEndian.PutUint16(p.ports[at:], be16(lo))
	binary.NativeEndian.PutUint16(p.ports[at+2:], be16(hi))
	if invert {
		p.ports[p.invertAt()] |= bit
	}
	return true
}

func (p *specReader) invertAt() int {
	if len(p.ports) == 12 {
		return xtTCPInvert
	}
	return xtUDPInvert
}

func (p *specReader) flags(mask, want byte, invert bool) bool {
	if !p.startPorts() || len(p.ports) != 12 {
		return false
	}
	p.ports[xtTCPMask], p.ports[xtTCPFlags] = mask, want
	if invert {
		p.ports[xtTCPInvert] |= xtInvertFlags
	}
	return true
}

// limit turns the expression into struct xt_rateinfo: the average in units of
// a ten-thousandth of the time between two packets, and the burst.
func (p *specReader) limit(t *table) bool {
	if t.num(4) != 0 || t.num(5) != 0 || t.num64(1) == 0 {
		return false
	}
	info := make([]byte, 40)
	binary.NativeEndian.PutUint32(info, uint32(10000*t.num64(2)/t.num64(1)))
	binary.NativeEndian.PutUint32(info[4:], t.num(3))
	p.match(xtables.Ext{Name: "limit", Info: info})
	return true
}

// nflog turns the expression into struct xt_nflog_info.
func (p *specReader) nflog(t *table) bool {
	if !t.has(1) || p.spec.Target.Name != "" || t.num(6) != 0 {
		return false
	}
	info := make([]byte, 80)
	binary.NativeEndian.PutUint32(info, t.num(3))
	binary.NativeEndian.PutUint16(info[4:], be16(t.val(1)))
	binary.NativeEndian.PutUint16(info[6:], be16(t.val(4)))
	if t.has(3) && t.num(3) != 0 {
		binary.NativeEndian.PutUint16(info[8:], 1) // XT_NFLOG_F_COPY_LEN
	}
	copy(info[12:75], cstring(t.val(2)))
	p.spec.Target = xtables.Ext{Name: "NFLOG", Info: info}
	return true
}
