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
	icmpType  int // -1 for none
	needs     [4]need
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
	needICMPType
)

func newWriter(t *tableState) *writer {
	w := &writer{t: t, family: familyGuard(t.table.Family), transport: -1, icmpType: -1}
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
	if k == valTime {
		return strconv.FormatUint(number(b)/1000, 10) + "s"
	}
	if names := valueNames[k]; names != nil && !k.bitmask() && k != valExists {
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

// nameAndData splits the attributes of an expression (NFTA_EXPR_*).
func nameAndData(b []byte) (name, data []byte) {
	for a := walk(b); a.next(); {
		switch a.typ {
		case exprName:
			name = cstring(a.val)
		case exprData:
			data = a.val
		}
	}
	return name, data
}

func (w *writer) expression(b []byte) {
	name, data := nameAndData(b)
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
