package reach

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/firewall"
)

// deciding are the witnesses of the finals that cover a source: one, unless the
// finals come from a fork whose branches different things end, or from several
// ports of the client. What surely ends some of the sources (those that a mask
// picks out, say) need not be what ends the others.
type deciding struct {
	by  witness // the first
	all []witness
}

func decidersOf(fs []*final, as []*accept) (d deciding) {
	var ports firewall.Ranges
	var open *final
	for _, f := range fs {
		if !f.served() {
			d.put(f.by)
			continue
		}
		ports = ports.Union(f.Ports)
		if open == nil {
			open = f
		}
	}
	if open != nil {
		d.accepted(open.by, as, ports)
	}
	return d
}

// served reports whether nothing stood in the way.
func (f *final) served() bool { return f.sees == Connected && f.after == "" && f.by.kind == ByOpen }

func (d *deciding) put(by witness) {
	switch {
	case d.by.kind == "":
		d.by = by
	case d.all == nil && by != d.by:
		d.all = []witness{d.by, by}
	case d.all != nil && !slices.Contains(d.all, by):
		d.all = append(d.all, by)
	}
}

// accepted names what let a connected client in, from any of the ports: the rule
// of the last chain that would otherwise have dropped it; else the last that
// accepted it. Where that chain's policy let some packets pass, it may be the one
// before, or nothing at all.
func (d *deciding) accepted(open witness, as []*accept, ports firewall.Ranges) {
	for {
		last := lastChain(as)
		if last == nil {
			d.put(open)
			return
		}
		var covered firewall.Ranges
		policy := false
		for _, a := range as {
			switch {
			case !a.sameChain(last):
			case a.byPolicy():
				policy = true
			default:
				covered = covered.Union(a.Ports)
				d.put(witness{kind: ByRule, ns: a.ns, rule: a.rule, painting: a.painting})
			}
		}
		if !policy && ports.Minus(covered).Empty() {
			return
		}
		as = slices.DeleteFunc(slices.Clone(as), last.sameChain)
	}
}

func (a *accept) sameChain(b *accept) bool { return a.base == b.base && a.ns == b.ns }

// lastChain is an accept of the last chain that a rule accepted in, of those that
// would have dropped where there are any; nil for none.
func lastChain(as []*accept) (last *accept) {
	for _, a := range as {
		if !a.byPolicy() && (last == nil || a.base.Base.Policy == firewall.Drop || last.base.Base.Policy != firewall.Drop) {
			last = a
		}
	}
	return last
}

// byPolicy reports whether it was no rule that accepted.
func (a *accept) byPolicy() bool { return a.rule == nil && a.painting == nil }

// orBy adds what decides in another case, of another destination.
func (v *verdict) orBy(o *verdict) {
	if v.deciders == nil && o.deciders == nil && v.by == o.by {
		return
	}
	var d deciding
	for _, by := range v.candidates() {
		d.put(by)
	}
	for _, by := range o.candidates() {
		d.put(by)
	}
	v.deciders = d.all
}

func (v *verdict) candidates() []witness {
	if v.deciders == nil {
		return []witness{v.by}
	}
	return v.deciders
}

// decidedBy spells out what decided, and all that it may be where it is not one
// thing.
func (e *Evaluator) decidedBy(v *verdict) (DecidedBy, []DecidedBy) {
	if v.deciders == nil {
		return e.show(v.by), nil
	}
	all := make([]DecidedBy, len(v.deciders))
	for i, by := range v.deciders {
		all[i] = e.show(by)
	}
	return oneOf(all), all
}

// maxNamed bounds the witnesses that the text of several names.
const maxNamed = 4

// oneOf is the witness that stands for several of which one decides: what they
// share, and a text that names them.
func oneOf(all []DecidedBy) DecidedBy {
	d := all[0]
	d.Number, d.Handle, d.Rule = 0, 0, nil
	sameChain := true
	for _, o := range all[1:] {
		sameChain = sameChain && o.Backend == d.Backend && o.Family == d.Family && o.Table == d.Table && o.Chain == d.Chain && o.Namespace == d.Namespace
		if rank(o.Kind) < rank(d.Kind) {
			d.Kind = o.Kind
		}
		if o.Namespace != d.Namespace {
			d.Namespace = ""
		}
	}
	if !sameChain {
		d.Backend, d.Family, d.Table, d.Chain = "", "", "", ""
	}
	var names []string
	for i := range all {
		if n := all[i].name(sameChain); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	if len(names) == 1 { // nothing, for each of several containers
		d.Text = names[0]
		return d
	}
	d.Text = "one of: " + strings.Join(names[:min(len(names), maxNamed)], "; ")
	if n := len(names) - maxNamed; n > 0 {
		d.Text += fmt.Sprintf("; and %d more", n)
	}
	return d
}

// rank orders kinds: what a rule may decide is called decided by a rule.
func rank(k Kind) int {
	switch k {
	case ByRule:
		return 0
	case ByPolicy:
		return 1
	default:
		return 2
	}
}

// name is a witness in a list of several; its chain is left out where they share
// it.
func (d *DecidedBy) name(inChain bool) string {
	s := ""
	if d.Number > 0 {
		s = fmt.Sprintf("#%d ", d.Number)
	}
	switch {
	case inChain || d.Chain == "":
	case d.Backend == string(firewall.NFTables):
		s = d.Family + " " + d.Table + " " + d.Chain + " " + s
	default:
		s = d.Table + " " + d.Chain + " " + s
	}
	return s + d.Text
}
