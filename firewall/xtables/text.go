package xtables

import (
	"net/netip"
	"strconv"
	"sync"

	"github.com/hostaudit/hostaudit/firewall"
)

// Spec is a rule to be printed.
type Spec struct {
	Family  firewall.TableFamily
	Chain   string
	Header  Header
	Matches []Ext
	// Target is the target's struct; with an empty name Jump is the verdict or
	// chain instead, empty for a rule without target.
	Target Ext
	Jump   string
	// Sets names the ipsets; nil prints their indexes.
	Sets Sets
}

// Append appends the rule as `iptables -S` prints it, beginning with -A. A
// struct that is not known is shown as module, revision and bytes in brackets,
// where iptables would print nothing or fail.
func (s *Spec) Append(b []byte) []byte {
	p := &printer{b: b, v6: s.Family == firewall.TableIP6, sets: s.Sets}
	p.b = append(p.b, "-A "...)
	p.b = append(p.b, s.Chain...)
	p.header(&s.Header)
	for _, m := range s.Matches {
		p.match(m)
	}
	switch {
	case s.Target.Name != "":
		p.target(s.Target)
	case s.Jump != "" && s.Header.Goto:
		p.word("-g", s.Jump)
	case s.Jump != "":
		p.word("-j", s.Jump)
	}
	return p.b
}

// printer writes the options of a rule, each after a space.
type printer struct {
	b    []byte
	v6   bool
	sets Sets
}

// word appends " a b …".
func (p *printer) word(words ...string) {
	for _, w := range words {
		p.b = append(p.b, ' ')
		p.b = append(p.b, w...)
	}
}

// not appends " !" when on.
func (p *printer) not(on bool) {
	if on {
		p.b = append(p.b, " !"...)
	}
}

func (p *printer) header(h *Header) {
	p.address("-s", h.Src, h.SrcMask, h.Invert&InvertSrc != 0)
	p.address("-d", h.Dst, h.DstMask, h.Invert&InvertDst != 0)
	p.iface("-i", h.In, h.InMask, h.Invert&InvertIn != 0)
	p.iface("-o", h.Out, h.OutMask, h.Invert&InvertOut != 0)
	if h.Proto > 0 {
		p.not(h.Invert&InvertProto != 0)
		p.word("-p", protoName(h.Proto))
	}
	if h.Fragment {
		p.not(h.Invert&InvertFragment != 0)
		p.word("-f")
	}
}

// address prints an address of the header; a mask that is no prefix in full.
func (p *printer) address(opt string, addr, mask []byte, invert bool) {
	m := firewall.Bytes(mask)
	if m.IsZero() && !invert && (p.v6 || firewall.Bytes(addr).IsZero()) {
		return
	}
	p.not(invert)
	p.word(opt, p.ip(addr)+"/"+p.maskText(mask))
}

// ip prints an address as inet_ntop does.
func (p *printer) ip(b []byte) string {
	if len(b) == 4 {
		return netip.AddrFrom4([4]byte(b)).String()
	}
	return ip6Text([16]byte(b))
}

// maskText prints the length of a prefix mask, another mask as an address.
func (p *printer) maskText(mask []byte) string {
	if n, ok := prefixLen(firewall.Bytes(mask), len(mask)); ok {
		return strconv.Itoa(n)
	}
	return p.ip(mask)
}

// iface prints an interface name and its wildcard (xshared.c, save_iface).
func (p *printer) iface(opt string, name, mask []byte, invert bool) {
	if mask[0] == 0 {
		return
	}
	p.not(invert)
	p.word(opt, ifaceText(name, mask))
}

func ifaceText(name, mask []byte) string {
	text := cstring(name)
	for i, m := range mask {
		if i >= len(name) {
			break
		}
		if m == 0 {
			return text[:min(i, len(text))] + "+"
		}
		if name[i] == 0 {
			return text
		}
	}
	return text
}

// ip6Text prints an IPv6 address as inet_ntop(3) does: IPv4-mapped and
// -compatible ones with the dotted quad.
func ip6Text(b [16]byte) string {
	a := netip.AddrFrom16(b)
	if a.Is4In6() {
		return "::ffff:" + a.Unmap().String()
	}
	zero := true
	for _, c := range b[:12] {
		zero = zero && c == 0
	}
	if zero && (b[12] != 0 || b[13] != 0) {
		return "::" + netip.AddrFrom4([4]byte(b[12:])).String()
	}
	return a.String()
}

// protoNames are the protocols that iptables prints by name: those that it
// knows itself, and those of /etc/protocols as Debian ships it.
var protoNames = map[uint16]string{
	1: "icmp", 2: "igmp", 3: "ggp", 4: "ipencap", 5: "st", 6: "tcp", 8: "egp", 9: "igp", 12: "pup", 17: "udp", 20: "hmp",
	22: "xns-idp", 27: "rdp", 29: "iso-tp4", 33: "dccp", 36: "xtp", 37: "ddp", 38: "idpr-cmtp", 41: "ipv6", 43: "ipv6-route",
	44: "ipv6-frag", 45: "idrp", 46: "rsvp", 47: "gre", 50: "esp", 51: "ah", 57: "skip", 58: "ipv6-icmp", 59: "ipv6-nonxt",
	60: "ipv6-opts", 73: "rspf", 81: "vmtp", 88: "eigrp", 89: "ospf", 93: "ax.25", 94: "ipip", 97: "etherip", 98: "encap",
	103: "pim", 108: "ipcomp", 112: "vrrp", 115: "l2tp", 124: "isis", 132: "sctp", 133: "fc", 135: "mobility-header",
	136: "udplite", 137: "mpls-in-ip", 138: "manet", 139: "hip", 140: "shim6", 141: "wesp", 142: "rohc", 143: "ethernet",
}

func protoName(n uint16) string {
	if s, ok := protoNames[n]; ok {
		return s
	}
	return strconv.Itoa(int(n))
}

// blobPrinter prints the rules of a table from its entries.
type blobPrinter struct {
	*blob
	starts map[int]*firewall.Chain
	spans  map[*firewall.Chain]*chainSpan
	sets   Sets

	mu      sync.Mutex
	offsets map[*firewall.Chain][]uint32
}

// rule is firewall.Rule.Print.
func (p *blobPrinter) rule(r *firewall.Rule) string {
	off, ok := p.offset(r)
	if !ok {
		return ""
	}
	e, err := p.entry(off)
	if err != nil {
		return ""
	}
	s := Spec{Family: p.fam, Chain: r.Chain.Name, Sets: p.sets}
	f := firewall.IPv4
	if p.fam == firewall.TableIP6 {
		f = firewall.IPv6
	}
	s.Header = newHeader(f, p.b[e.off:])
	for off := e.off + p.header; off < e.target; {
		x, raw, err := p.ext(off, e.target)
		if err != nil {
			return ""
		}
		s.Matches = append(s.Matches, x)
		off += len(raw)
	}
	v, standard := p.isStandard(e)
	switch {
	case !standard:
		if s.Target, _, err = p.ext(e.target, e.next); err != nil {
			return ""
		}
	case v == -2:
		s.Jump = "ACCEPT"
	case v == -1:
		s.Jump = "DROP"
	case v == -4:
		s.Jump = "QUEUE"
	case v == -5:
		s.Jump = "RETURN"
	case v >= 0 && int(v) != e.next:
		if c := p.starts[int(v)]; c != nil {
			s.Jump = c.Name
		}
	}
	return string(s.Append(nil))
}

// offset finds the entry of a rule. The offsets of a chain are found at once:
// whoever prints one rule prints others.
func (p *blobPrinter) offset(r *firewall.Rule) (int, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	offs, ok := p.offsets[r.Chain]
	if !ok {
		s := p.spans[r.Chain]
		if s == nil {
			return 0, false
		}
		offs = make([]uint32, 0, s.rules)
		for off := s.first; len(offs) < s.rules; {
			e, err := p.entry(off)
			if err != nil {
				return 0, false
			}
			offs = append(offs, uint32(off))
			off = e.next
		}
		if p.offsets == nil {
			p.offsets = make(map[*firewall.Chain][]uint32)
		}
		p.offsets[r.Chain] = offs
	}
	if r.Number < 1 || r.Number > len(offs) {
		return 0, false
	}
	return int(offs[r.Number-1]), true
}
