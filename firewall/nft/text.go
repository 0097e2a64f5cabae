package nft

import (
	"fmt"
	"strconv"
	"strings"

	fw "github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// chainText prints the rules of one chain. It keeps their expressions as the
// kernel gave them; only a rule that is shown is written out.
type chainText struct {
	table *tableState
	chain *fw.Chain
	sets  xtables.Sets
	exprs *exprStore // of all chains; this one's begin at first
	first int
	print func(*fw.Rule) string
}

// rule writes a rule as its own tool prints it: `nft list ruleset`, or
// `iptables -S` for a table of iptables-nft.
func (c *chainText) rule(r *fw.Rule) string {
	i := c.first + r.Number - 1
	if r.Number < 1 || i >= c.exprs.len() {
		return ""
	}
	exprs := c.exprs.get(i)
	if c.table.table.Backend == fw.IPTablesNFT {
		if s, ok := c.iptables(r, exprs); ok {
			return s
		}
	}
	w := newWriter(c.table)
	w.rule(exprs)
	out := w.String()
	if r.Comment != "" {
		out += ` comment "` + r.Comment + `"`
	}
	return out
}

// writer turns the register program of a rule back into nft's language
// (nftables src/netlink_delinearize.c).
type writer struct {
	t     *tableState
	regs  [registerBytes / 4]*left
	items []item
	attrs table

	// What the rule has said of the packet's headers so far, and the matches
	// that said it: nft leaves those out that the next match implies.
	link      bool // the link layer is Ethernet
	family    fw.Family
	transport int // protocol, -1 for none
	needs     [3]need
	etherType uint16
}

// item is one piece of the rule's text.
type item struct {
	left, op, right string // of a comparison
	numeric         string // the right side without names, for ranges
	text            string // of anything else
	dead            bool   // implied by another one
}

// need is a match that nft adds by itself for one of the header's layers.
type need struct {
	item int // -1: none
	// firm ones stay although implied.
	firm bool
}

const (
	needLink = iota
	needNetwork
	needTransport
)

func newWriter(t *tableState) *writer {
	w := &writer{t: t, family: familyGuard(t.table.Family), transport: -1}
	w.link = t.table.Family == fw.TableNetdev || t.table.Family == fw.TableBridge
	w.forgetNeeds()
	return w
}

func (w *writer) forgetNeeds() {
	for i := range w.needs {
		w.needs[i].item = -1
	}
}

func (w *writer) String() string {
	var out []string
	for _, it := range w.items {
		switch {
		case it.dead:
		case it.left != "":
			op := it.op
			if op != "" {
				op += " "
			}
			out = append(out, it.left+" "+op+it.right)
		default:
			out = append(out, it.text)
		}
	}
	return strings.Join(out, " ")
}

// left is what a register holds: the left side of a comparison.
type left struct {
	// A header: base, first bit and bits.
	payload   bool
	base      uint8
	bit, bits int
	ext       *protocolText // an extension header or option instead

	name string // of other loads: "ct state"
	kind valueKind
	n    int  // bytes
	host bool // still in host byte order

	mask, xor []byte // of bitwise, as the register has them
	shift     string

	konst []byte // an immediate

	// Of a map's data.
	isMap bool
	m     *setInfo
	keys  []keyKind
	part  int // which four bytes of the data
}

func (w *writer) set(at, n int, l *left) {
	if at < 0 || n < 1 || at+n > registerBytes {
		return
	}
	w.regs[at/4] = l
	for i := at/4 + 1; i < (at+n+3)/4; i++ {
		w.regs[i] = nil
	}
}

func (w *writer) at(at int) *left {
	if at < 0 || at >= registerBytes {
		return nil
	}
	return w.regs[at/4]
}

// say adds text that is no comparison. Matches before it stay as they are.
func (w *writer) say(format string, args ...any) {
	w.items = append(w.items, item{text: fmt.Sprintf(format, args...)})
	w.forgetNeeds()
}

// compare adds a comparison. A lower and an upper bound of the same thing make
// a range.
func (w *writer) compare(left, op, right string) {
	w.items = append(w.items, item{left: left, op: op, right: right})
}

// bound adds a comparison with a lower or an upper bound. Both of the same
// thing make a range, and nft writes numbers in ranges.
func (w *writer) bound(left, op string, kind valueKind, b []byte) {
	numeric := w.number(kind, b)
	if n := len(w.items); n > 0 && op == "<=" && w.items[n-1].op == ">=" && w.items[n-1].left == left {
		w.items[n-1].op = ""
		w.items[n-1].right = w.items[n-1].numeric + "-" + numeric
		return
	}
	w.items = append(w.items, item{left: left, op: op, right: w.value(kind, b), numeric: numeric})
}

// number writes a value without the name that it may have.
func (w *writer) number(k valueKind, b []byte) string {
	if names := valueNames[k]; names != nil && !k.bitmask() && k != valExists && k != valDay {
		if _, ok := names[number(b)]; ok {
			switch k {
			case valDSCP:
				return fmt.Sprintf("0x%02x", number(b))
			case valEtherType:
				return fmt.Sprintf("0x%04x", number(b))
			}
			return strconv.FormatUint(number(b), 10)
		}
	}
	return w.value(k, b)
}

// implied leaves out the match that nft adds for a layer.
func (w *writer) implied(layer int) {
	if n := w.needs[layer]; n.item >= 0 && !n.firm {
		w.items[n.item].dead = true
	}
	w.needs[layer].item = -1
}

func (w *writer) rule(exprs []byte) {
	for a := walk(exprs); a.next(); {
		w.expression(a.val)
	}
}

func (w *writer) expression(b []byte) {
	var name, data []byte
	for a := walk(b); a.next(); {
		switch a.typ {
		case exprName:
			name = cstring(a.val)
		case exprData:
			data = a.val
		}
	}
	t := &w.attrs
	t.parse(data, 11)
	reg := func(i int) int {
		at, ok := register(t.num(i))
		if !ok || !t.has(i) {
			return -1
		}
		return at
	}
	switch string(name) {
	case "immediate":
		if t.num(1) == 0 {
			// A verdict ends the rule; matches before it keep what they imply.
			w.items = append(w.items, item{text: w.verdict(t.val(2))})
			return
		}
		data := dataOf(t.val(2))
		w.set(reg(1), len(data), &left{konst: data, n: len(data)})
	case "payload":
		w.payload(t, reg)
	case "exthdr":
		w.exthdr(t, reg)
	case "meta", "ct", "rt", "socket", "fib", "numgen", "hash", "osf", "xfrm", "tunnel":
		w.load(string(name), t, reg)
	case "bitwise":
		w.bitwise(t, reg)
	case "byteorder":
		if l := w.at(reg(1)); l != nil {
			c := *l
			c.host = !c.host
			w.set(reg(2), int(t.num(4)), &c)
		}
	case "cmp":
		w.cmp(w.at(reg(1)), t.num(2), dataOf(t.val(3)))
	case "range":
		from, to := dataOf(t.val(3)), dataOf(t.val(4))
		l := w.at(reg(1))
		text, kind, host := w.left(l, len(from))
		op := ""
		if t.num(2) == 1 {
			op = "!="
		}
		w.compare(text, op, w.number(kind, bigEndian(from, host))+"-"+w.number(kind, bigEndian(to, host)))
	case "lookup":
		w.lookup(t, reg)
	case "match", "target":
		w.say("%s", w.xt(string(name), t))
	default:
		w.statement(string(name), t, reg)
	}
}

func (w *writer) value(k valueKind, b []byte) string {
	return k.format(b, w.ifname)
}

// ifname is the name of an interface by index, which rules of nft show.
func (w *writer) ifname(i int) string { return w.t.links[i] }

func (w *writer) verdict(b []byte) string {
	for a := walk(b); a.next(); {
		if a.typ != dataVerdict {
			continue
		}
		var code int32
		var chain string
		for v := walk(a.val); v.next(); {
			switch v.typ {
			case verdictCode:
				code = int32(be32(v.val))
			case verdictChain:
				chain = string(cstring(v.val))
			}
		}
		switch code {
		case 0:
			return "drop"
		case 1:
			return "accept"
		case verdictContinue:
			return "continue"
		case verdictBreak:
			return "break"
		case verdictReturn:
			return "return"
		case verdictJump:
			return "jump " + w.chainName(chain)
		case verdictGoto:
			return "goto " + w.chainName(chain)
		}
		if code&0xff == 3 {
			return "queue to " + strconv.Itoa(int(code>>16))
		}
	}
	return "verdict ?"
}

// chainName is the name of a chain, or the rules of one that has none of its
// own: it was written into the rule that jumps to it.
func (w *writer) chainName(name string) string {
	c := w.t.chains[name]
	if c == nil || !c.binding || c.text == nil {
		return name
	}
	var rules []string
	for _, r := range c.chain.Rules {
		rules = append(rules, c.text.rule(r))
	}
	return "{ " + strings.Join(rules, "; ") + " }"
}

func (w *writer) payload(t *table, reg func(int) int) {
	base, offset, n := uint8(t.num(2)), int(t.num(3)), int(t.num(4))
	if offset > 0xffff || n > registerBytes {
		return
	}
	if !t.has(5) {
		w.set(reg(1), n, &left{payload: true, base: base, bit: 8 * offset, bits: 8 * n, n: n})
		return
	}
	w.payloadSet(w.at(reg(5)), base, offset, n)
}

// payloadSet writes `ip dscp set cs1`. nft reads, masks and writes two bytes
// for the sake of the checksum, and means the bits that the mask clears.
func (w *writer) payloadSet(l *left, base uint8, offset, n int) {
	bit, bits := 8*offset, 8*n
	if l == nil {
		return
	}
	if l.payload && l.mask != nil && len(l.mask) == n {
		first, last := -1, -1
		for i := range bits {
			if l.mask[i/8]&(0x80>>(i%8)) == 0 {
				if first < 0 {
					first = i
				}
				last = i
			}
		}
		if first >= 0 {
			v := bitsOf(l.xor, first, last+1-first)
			target := &left{payload: true, base: base, bit: bit + first, bits: last + 1 - first}
			name, kind := w.header(target, false)
			w.say("%s set %s", name, w.value(kind, v))
			return
		}
	}
	target := &left{payload: true, base: base, bit: bit, bits: bits, n: n}
	name, kind := w.header(target, false)
	w.say("%s set %s", name, w.right(l, kind, n, false))
}

// bitsOf cuts bits out of bytes, as a number in as few bytes as it needs.
func bitsOf(b []byte, first, n int) []byte {
	out := make([]byte, (n+7)/8)
	for i := range n {
		src := first + n - 1 - i
		if src/8 < len(b) && b[src/8]&(0x80>>(src%8)) != 0 {
			out[len(out)-1-i/8] |= 1 << (i % 8)
		}
	}
	return out
}

// protocol returns the header that lies at base as far as the rule has said.
func (w *writer) protocol(base uint8) *protocolText {
	switch base {
	case baseLink:
		if w.link {
			return etherText
		}
	case baseNetwork:
		switch w.family {
		case fw.IPv4:
			return ipv4Text
		case fw.IPv6:
			return ipv6Text
		}
		if w.t.table.Family == fw.TableARP || w.etherType == 0x0806 {
			return arpText
		}
	case baseTransport:
		if p := transportTexts[uint8(max(w.transport, 0))]; p != nil && w.transport >= 0 {
			return p
		}
		return thText
	}
	return nil
}

// header names a piece of a header, and leaves out the matches that the name
// implies. part says that the piece can be the beginning of a field.
func (w *writer) header(l *left, part bool) (string, valueKind) {
	p := w.protocol(l.base)
	bit := l.bit
	if l.base == baseLink && bit >= 112 && w.etherType == 0x8100 {
		p, bit = vlanText, bit-112
	}
	f, ok := p.fieldOf(bit, l.bits)
	if !ok && part {
		if f, ok = p.startingAt(bit); ok && f.len < l.bits {
			ok = false
		}
	}
	if !ok {
		return fmt.Sprintf("@%s,%d,%d", [...]string{"ll", "nh", "th", "ih", "tun"}[min(l.base, 4)], l.bit, l.bits), valHex
	}
	switch l.base {
	case baseLink:
		w.implied(needLink)
		if p == vlanText {
			w.implied(needNetwork)
		}
	case baseNetwork:
		w.implied(needNetwork)
	case baseTransport:
		if p != thText {
			w.implied(needTransport)
		}
		if p.name == "icmp" || p.name == "icmpv6" {
			w.implied(needNetwork)
		}
	}
	return p.name + " " + f.name, f.kind
}

// left writes the left side of a comparison over n bytes, and tells how values
// beside it are written and whether they are in host byte order.
func (w *writer) left(l *left, n int) (string, valueKind, bool) {
	switch {
	case l == nil:
		return "?", valHex, false
	case l.payload && l.ext == nil:
		c := *l
		c.bits = 8 * n
		text, kind := w.header(&c, false)
		return text + l.binop(kind, w), kind, false
	case l.konst != nil:
		return w.value(valHex, l.konst), valHex, false
	case l.isMap:
		return w.mapText(l, false), l.dataKind(), l.dataKind().hostOrder()
	default:
		if l.ext != nil {
			w.implied(needNetwork)
		}
		return l.name + l.binop(l.kind, w), l.kind, l.host
	}
}

// binop writes what bitwise did to a value.
func (l *left) binop(kind valueKind, w *writer) string {
	out := l.shift
	if l.mask == nil {
		return out
	}
	host := l.host
	mask, xor := bigEndian(l.mask, host), bigEndian(l.xor, host)
	ones, clear, overlap := true, true, false
	for i := range mask {
		ones = ones && mask[i] == 0xff
		clear = clear && xor[i] == 0
		overlap = overlap || mask[i]&xor[i] != 0
	}
	exactOr := true // the mask clears just the bits that xor sets
	for i := range mask {
		exactOr = exactOr && mask[i] == ^xor[i]
	}
	either := make([]byte, len(mask))
	for i := range mask {
		either[i] = mask[i] | xor[i]
	}
	format := func(b []byte) string {
		if kind.bitmask() {
			s := kind.flags(number(b), " | ")
			if strings.Contains(s, " | ") {
				s = "(" + s + ")"
			}
			return s
		}
		return w.value(kind, b)
	}
	switch {
	case clear:
		return out + " & " + format(mask)
	case ones:
		return out + " ^ " + format(xor)
	case exactOr:
		return out + " | " + format(xor)
	case overlap:
		return out + " & " + format(mask) + " ^ " + format(xor)
	default:
		return out + " & " + format(either) + " | " + format(xor)
	}
}

// right writes a value that a statement takes from a register.
func (w *writer) right(l *left, kind valueKind, n int, host bool) string {
	switch {
	case l == nil:
		return "?"
	case l.konst != nil:
		b := l.konst
		if len(b) > n {
			b = b[:n]
		}
		b = bigEndian(b, host)
		if kind.bitmask() && kind != valCTLabel {
			return kind.flags(number(b), ",")
		}
		return w.value(kind, b)
	case l.isMap:
		return w.mapText(l, host)
	default:
		text, _, _ := w.left(l, n)
		return text
	}
}

func (w *writer) bitwise(t *table, reg func(int) int) {
	l := w.at(reg(1))
	n := int(t.num(3))
	if l == nil || n > registerBytes {
		return
	}
	c := *l
	switch t.num(6) {
	case 0:
		c.mask, c.xor = dataOf(t.val(4)), dataOf(t.val(5))
		if len(c.mask) != n || len(c.xor) != n {
			c.mask, c.xor = nil, nil
		}
	case 1:
		c.shift += " << " + strconv.FormatUint(hostValue(dataOf(t.val(7))).Lo, 10)
	case 2:
		c.shift += " >> " + strconv.FormatUint(hostValue(dataOf(t.val(7))).Lo, 10)
	case 3, 4, 5:
		op := [...]string{"&", "|", "^"}[t.num(6)-3]
		if other := w.at(reg(8)); other != nil {
			text, _, _ := w.left(other, other.n)
			c.shift += " " + op + " " + text
		} else {
			c.shift += " " + op + " " + w.value(c.kind, bigEndian(dataOf(t.val(7)), c.host))
		}
	}
	w.set(reg(2), n, &c)
}
