package owner

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hostaudit/hostaudit/firewall"
)

// Insertion is one accept rule in a chain that exists.
type Insertion struct {
	Backend firewall.Backend     `json:"backend"`
	Family  firewall.TableFamily `json:"family"`
	Table   string               `json:"table"`
	Chain   string               `json:"chain"`
	// Number is the place of the new rule among the chain's, from 1; the rule that
	// stood there comes next. Before is that rule's handle (nf_tables), 0 at the
	// end of the chain.
	Number int            `json:"number"`
	Before uint64         `json:"before_handle,omitempty"`
	Proto  string         `json:"proto"` // tcp or udp
	Port   uint16         `json:"port"`
	From   []netip.Prefix `json:"from,omitempty"` // of one family; nil for everybody
	// Comment marks the rule as ours: "hostaudit:7f3a9c01".
	Comment string `json:"comment"`
}

// CommentPrefix begins the comment of every rule that this program makes.
const CommentPrefix = "hostaudit:"

// Check refuses what no plan holds: an insertion is read from a journal.
func (i *Insertion) Check() error {
	name := func(s string) bool {
		return s != "" && len(s) < 128 && !strings.HasPrefix(s, "-") && !strings.ContainsFunc(s, func(r rune) bool {
			return r != '_' && r != '-' && r != '.' && r != '/' && r != '\\' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		})
	}
	switch {
	case i.Backend != firewall.NFTables && i.Backend != firewall.IPTablesNFT && i.Backend != firewall.IPTablesLegacy:
		return fmt.Errorf("bad back end %q", i.Backend)
	case i.Family != firewall.TableIP && i.Family != firewall.TableIP6 && (i.Family != firewall.TableInet || i.Backend != firewall.NFTables):
		return fmt.Errorf("bad family %q", i.Family)
	case !name(i.Table) || !name(i.Chain):
		return fmt.Errorf("a table or chain with a name that cannot be written safely: %q %q", i.Table, i.Chain)
	case i.Proto != "tcp" && i.Proto != "udp" || i.Port == 0:
		return fmt.Errorf("bad port %s %d", i.Proto, i.Port)
	case i.Number < 1:
		return fmt.Errorf("bad place %d", i.Number)
	case !isMark(i.Comment):
		return fmt.Errorf("bad comment %q", i.Comment)
	case i.Backend != firewall.NFTables && len(i.From) > 1:
		return errors.New("an iptables rule has one source")
	}
	for _, p := range i.From {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4() != i.From[0].Addr().Is4() || p.Addr().Is4In6() {
			return fmt.Errorf("bad source %s", p)
		}
	}
	return nil
}

// isMark: ours, and nothing that a quoted text could not hold.
func isMark(s string) bool {
	rest, ok := strings.CutPrefix(s, CommentPrefix)
	return ok && rest != "" && len(rest) < 32 && !strings.ContainsFunc(rest, func(r rune) bool {
		return r != '/' && (r < '0' || r > '9') && (r < 'a' || r > 'f')
	})
}

// String is the place and the rule.
func (i *Insertion) String() string {
	where := fmt.Sprintf("%s %s %s", i.Family, i.Table, i.Chain)
	if i.Backend != firewall.NFTables {
		return fmt.Sprintf("%s %s: -A %s", i.Backend, where, strings.Join(i.Spec(), " "))
	}
	return where + ": " + i.Expression()
}

// Expression is the rule in nft's language, without its place.
func (i *Insertion) Expression() string {
	var b strings.Builder
	if len(i.From) > 0 {
		field := "ip"
		if !i.From[0].Addr().Is4() {
			field = "ip6"
		}
		texts := make([]string, len(i.From))
		for n, p := range i.From {
			texts[n] = p.String()
		}
		set := texts[0]
		if len(texts) > 1 {
			set = "{ " + strings.Join(texts, ", ") + " }"
		}
		fmt.Fprintf(&b, "%s saddr %s ", field, set)
	}
	fmt.Fprintf(&b, "%s dport %d accept comment \"%s\"", i.Proto, i.Port, i.Comment)
	return b.String()
}

// Spec is the rule in iptables' language, from the chain's name on.
func (i *Insertion) Spec() []string {
	spec := []string{i.Chain}
	if len(i.From) > 0 {
		spec = append(spec, "-s", i.From[0].String())
	}
	return append(spec, "-p", i.Proto, "-m", i.Proto, "--dport", strconv.Itoa(int(i.Port)), "-m", "comment", "--comment", i.Comment, "-j", "ACCEPT")
}

// Program is the tool that changes the table: its base name.
func (i *Insertion) Program() string {
	if i.Backend == firewall.NFTables {
		return "nft"
	}
	front := "iptables"
	if i.Family == firewall.TableIP6 {
		front = "ip6tables"
	}
	if i.Backend == firewall.IPTablesLegacy {
		return front + "-legacy"
	}
	return front + "-nft"
}

// LockWait is how many seconds iptables waits for its lock (--wait).
const LockWait = 10

// Do is the command that puts the rule in, and what it reads.
func (i *Insertion) Do() (argv []string, stdin string) {
	if i.Backend == firewall.NFTables {
		verb := "add rule"
		place := ""
		if i.Before != 0 {
			verb, place = "insert rule", fmt.Sprintf(" handle %d", i.Before)
		}
		return []string{"nft", "-f", "-"}, fmt.Sprintf("%s %s %s %s%s %s\n", verb, i.Family, i.Table, i.Chain, place, i.Expression())
	}
	spec := i.Spec()
	argv = append([]string{i.Program(), "--wait", strconv.Itoa(LockWait), "-t", i.Table, "-I", spec[0], strconv.Itoa(i.Number)}, spec[1:]...)
	return argv, ""
}

// Undo is the command that takes the rule out; handle is the one it has now.
func (i *Insertion) Undo(handle uint64) (argv []string, stdin string) {
	if i.Backend == firewall.NFTables {
		return []string{"nft", "-f", "-"}, fmt.Sprintf("delete rule %s %s %s handle %d\n", i.Family, i.Table, i.Chain, handle)
	}
	return append([]string{i.Program(), "--wait", strconv.Itoa(LockWait), "-t", i.Table, "-D"}, i.Spec()...), ""
}

// Command is what an operator would type.
func (i *Insertion) Command() string {
	argv, stdin := i.Do()
	if stdin != "" {
		return "nft " + quote(strings.TrimSuffix(stdin, "\n"))
	}
	return strings.Join(argv, " ")
}

// ByHand is what an operator would type to undo it.
func (i *Insertion) ByHand() string {
	if i.Backend == firewall.NFTables {
		return fmt.Sprintf("nft -a list chain %s %s %s, then nft delete rule … handle N of the rule with the comment %s", i.Family, i.Table, i.Chain, i.Comment)
	}
	argv, _ := i.Undo(0)
	return strings.Join(argv, " ")
}

func quote(s string) string { return "'" + s + "'" }

// InChain finds the chain in a ruleset, nil where it is not there.
func (i *Insertion) InChain(rs *firewall.Ruleset) *firewall.Chain {
	for _, t := range rs.Tables {
		if t.Backend != i.Backend || t.Family != i.Family || t.Name != i.Table {
			continue
		}
		for _, ch := range t.Chains {
			if ch.Name == i.Chain {
				return ch
			}
		}
	}
	return nil
}

// Find lists the rules of the chain that bear the comment.
func (i *Insertion) Find(rs *firewall.Ruleset) []*firewall.Rule {
	ch := i.InChain(rs)
	if ch == nil {
		return nil
	}
	var out []*firewall.Rule
	for _, r := range ch.Rules {
		if r.Comment == i.Comment {
			out = append(out, r)
		}
	}
	return out
}

// Is says whether a rule of the kernel is the one that was put in, and nothing
// else: somebody may have changed it and kept the comment. It is asked of the
// statements, not of text.
func (i *Insertion) Is(r *firewall.Rule) bool {
	var proto, port, accept, from bool
	for _, st := range r.Stmts {
		switch m := st.(type) {
		case *firewall.Inert:
		case *firewall.Verdict:
			if accept = m.Kind == firewall.Accept; !accept {
				return false
			}
		case *firewall.Match:
			if m.Invert || m.WantAbsent {
				return false
			}
			only, single := m.In.Only()
			switch m.Operand.Field.Kind {
			case firewall.FieldL4Proto:
				if proto = single && only == firewall.Num(uint64(i.proto())); !proto {
					return false
				}
			case firewall.FieldDstPort:
				if port = single && only == firewall.Num(uint64(i.Port)); !port {
					return false
				}
			case firewall.FieldSrcAddr:
				from = true
				for _, p := range i.From {
					from = from && m.Operand.Mask == firewall.MaxValue(m.Operand.Len) && m.In.Intersect(firewall.Prefix(p)).Equal(firewall.Prefix(p)) ||
						from && len(i.From) == 1 && m.Operand.Mask == firewall.PrefixMask(p.Bits(), m.Operand.Len) && single && only == firewall.AddrValue(p.Addr())
				}
			case firewall.FieldNFProto, firewall.FieldEtherType, firewall.FieldFragment, firewall.FieldIPVersion, firewall.FieldIPProto:
			default:
				return false
			}
		case *firewall.Lookup:
			if len(m.Keys) != 1 || m.Keys[0].Field.Kind != firewall.FieldSrcAddr || m.Invert {
				return false
			}
			from = true
		default:
			return false
		}
	}
	return proto && port && accept && from == (len(i.From) > 0)
}

func (i *Insertion) proto() firewall.Proto {
	if i.Proto == "udp" {
		return firewall.UDP
	}
	return firewall.TCP
}

// Rule is the rule as the model has it, for working out its effect before it
// exists.
func (i *Insertion) Rule() *firewall.Rule {
	r := &firewall.Rule{Comment: i.Comment, Packets: -1}
	if len(i.From) > 0 {
		f := firewall.FamilyOf(i.From[0].Addr())
		if i.Family == firewall.TableInet {
			nfproto := uint64(2)
			if f == firewall.IPv6 {
				nfproto = 10
			}
			r.Stmts = append(r.Stmts, &firewall.Match{Operand: firewall.Plain(firewall.FieldNFProto, 1), In: firewall.Single(firewall.Num(nfproto))})
		}
		var in firewall.Ranges
		for _, p := range i.From {
			in = in.Union(firewall.Prefix(p))
		}
		r.Stmts = append(r.Stmts, &firewall.Match{Operand: firewall.Plain(firewall.FieldSrcAddr, f.AddrLen()), In: in})
	}
	r.Stmts = append(r.Stmts,
		&firewall.Match{Operand: firewall.Plain(firewall.FieldL4Proto, 1), In: firewall.Single(firewall.Num(uint64(i.proto())))},
		&firewall.Match{Operand: firewall.Plain(firewall.FieldDstPort, 2), In: firewall.Single(firewall.Num(uint64(i.Port)))},
		&firewall.Verdict{Kind: firewall.Accept})
	text := i.Expression()
	if i.Backend != firewall.NFTables {
		text = "-A " + strings.Join(i.Spec(), " ")
	}
	r.Print = func(*firewall.Rule) string { return text }
	return r
}

// Prefixes cuts the sources down to those of one family, nil meaning all.
func Prefixes(from []netip.Prefix, f firewall.Family) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(from), func(p netip.Prefix) bool { return firewall.FamilyOf(p.Addr()) != f })
}
