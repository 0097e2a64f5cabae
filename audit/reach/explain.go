package reach

import (
	"fmt"

	"github.com/hostaudit/hostaudit/firewall"
)

// steps lists the trace oldest first.
func (t *trail) steps() []tracked {
	var out []tracked
	for ; t != nil; t = t.prev {
		for s := t.step; s != nil; s = s.Prev {
			out = append(out, tracked{t.ns, s})
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

type tracked struct {
	ns *Namespace
	*firewall.Step
}

// hops sums the trace up as the base chains on the path.
func (t *trail) hops(e *Evaluator) []Hop {
	var out []Hop
	for _, s := range t.steps() {
		if s.Chain == nil || s.Verdict != firewall.Accept && s.Verdict != firewall.Drop && s.Verdict != firewall.Stolen {
			continue
		}
		h := Hop{Hook: s.Hook.String(), Chain: chainLabel(s.Chain), Verdict: s.Verdict.String(), DecidedBy: "policy", Namespace: s.ns.Name}
		if s.Rule != nil {
			h.Chain = chainLabel(s.Rule.Chain)
			h.DecidedBy = fmt.Sprintf("#%d %s", s.Rule.Number, s.Rule.Text())
		}
		if s.Verdict == firewall.Stolen {
			h.Verdict = "depends"
		}
		out = append(out, h)
	}
	return out
}

// lines tells the walk rule by rule.
func (t *trail) lines(e *Evaluator, by witness) []Line {
	var out []Line
	for _, s := range t.steps() {
		l := Line{Namespace: s.ns.Name, Stage: s.Hook.String(), Outcome: s.Outcome, Why: s.Why, Rule: s.Rule}
		switch {
		case s.Chain == nil:
			l.Stage, l.Text = "", s.Note
		case s.Rule == nil:
			l.Chain = chainLabel(s.Chain)
			l.Text = "policy " + s.Verdict.String()
			l.Decides = by.kind == ByPolicy && by.chain == s.Chain
		default:
			l.Chain = chainLabel(s.Chain)
			l.Text = s.Rule.Text()
			l.Decides = by.kind == ByRule && by.rule == s.Rule && s.Outcome == firewall.Yes
		}
		out = append(out, l)
	}
	return out
}
