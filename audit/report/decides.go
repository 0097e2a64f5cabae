package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// place names where a rule or policy stands: "nftables inet filter input #7".
func place(backend, family, table, chain string, number int) string {
	if backend != "nftables" { // legacy tables have no names of their own in a family
		if family == "ip6" {
			backend += " (IPv6)"
		}
		family = ""
	}
	s := strings.Join(strings.Fields(strings.Join([]string{backend, family, table, chain}, " ")), " ")
	if number > 0 {
		s += fmt.Sprintf(" #%d", number)
	}
	return s
}

// deciding says what a witness is, in one line and the text below it.
func deciding(d reach.DecidedBy) (head, text string) {
	switch d.Kind {
	case reach.ByRule:
		head, text = place(d.Backend, d.Family, d.Table, d.Chain, d.Number), d.Text
		if d.Chain == "" { // rules of several chains
			head, text = d.Text, ""
		}
	case reach.ByPolicy:
		head = d.Text // policies of several chains
		if d.Chain != "" {
			head = place(d.Backend, d.Family, d.Table, d.Chain, 0) + " " + policyWord(d.Text)
		}
	case reach.ByOpen:
		head = ""
	default:
		head = d.Text
		if head == "" {
			head = string(d.Kind)
		}
	}
	if d.Namespace != "" && head != "" {
		head += " in " + d.Namespace
	}
	return head, text
}

// policyWord is "policy drop", however the tool spells it.
func policyWord(text string) string {
	if strings.HasPrefix(text, "-P ") {
		if f := strings.Fields(text); len(f) == 3 {
			return "policy " + strings.ToLower(f[2])
		}
	}
	if text == "" {
		return "policy"
	}
	return text
}

// maxDeciders is how many deciding things a row of the table names.
const maxDeciders = 2

// decides lists what decides about a port, for the table: what keeps people out,
// and where only some get in also what lets them in.
func decides(x reach.Exposure) []string {
	var lines []string
	add := func(prefix string, ds []*reach.DecidedBy) {
		for i, d := range ds {
			if i == maxDeciders {
				lines = append(lines, "and "+number(len(ds)-i)+" more")
				break
			}
			head, text := deciding(*d)
			lines = append(lines, prefix+head)
			if text != "" {
				lines = append(lines, "  "+text)
			}
		}
	}
	out := deciders(x.Rows, func(r *reach.Row) bool { return !r.Through() && !r.Unsure() })
	in := deciders(x.Rows, func(r *reach.Row) bool { return r.Through() })
	switch x.Who {
	case reach.Uncertain:
		return conditions(x.Rows)
	case reach.Some:
		add("accepted by ", in)
		add("others: ", out)
	case reach.Everyone:
		add("accepted by ", in)
	default:
		add("", out)
		if len(lines) == 0 { // bound to loopback: nobody else's packets come so far
			add("", deciders(x.Rows, func(r *reach.Row) bool { return r.DecidedBy.Kind == reach.ByBindAddress }))
		}
	}
	return lines
}

// translatedBy names the rule that leads a published port elsewhere.
func translatedBy(d reach.DecidedBy) []string {
	head, text := deciding(d)
	return []string{"DNAT in " + head, "  " + text}
}

// deciders lists the witnesses of the rows that keep, without the kernel's own
// refusals; those that decide about more sources first.
func deciders(rows []reach.Row, keep func(*reach.Row) bool) []*reach.DecidedBy {
	type weighed struct {
		d *reach.DecidedBy
		w float64
	}
	var all []weighed
	for i := range rows {
		r := &rows[i]
		if r.Iif == "lo" || !keep(r) || !audit.HasClients(r.From) || r.DecidedBy.Kind == reach.ByOpen || r.DecidedBy.Kind == reach.ByRoute || r.DecidedBy.Kind == reach.ByRPFilter {
			continue
		}
		at := slices.IndexFunc(all, func(x weighed) bool { return *x.d == r.DecidedBy })
		if at < 0 {
			at = len(all)
			all = append(all, weighed{d: &r.DecidedBy})
		}
		all[at].w += share(r.From)
	}
	slices.SortStableFunc(all, func(a, b weighed) int {
		switch {
		case a.w > b.w:
			return -1
		case a.w < b.w:
			return 1
		}
		return 0
	})
	out := make([]*reach.DecidedBy, len(all))
	for i, x := range all {
		out[i] = x.d
	}
	return out
}

// conditions lists what an uncertain answer turns on.
func conditions(rows []reach.Row) []string {
	var all []string
	for _, r := range rows {
		if r.Iif == "lo" || !audit.HasClients(r.From) {
			continue
		}
		for _, c := range r.Conditions {
			s := condition(c)
			if before, _, ok := strings.Cut(s, ": it could not be read: "); ok {
				s = before + " could not be read" // why stands among what could not be read, once
			}
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	lines := all[:min(len(all), maxDeciders)]
	if n := len(all) - len(lines); n > 0 {
		lines = append(slices.Clone(lines), "and "+number(n)+" more")
	}
	return lines
}

// condition says what an answer turns on, in one line.
func condition(c reach.Condition) string {
	what := c.Object
	if c.Chain != "" {
		what = place(c.Backend, c.Family, c.Table, c.Chain, c.Number)
		if c.Text != "" {
			what += " (" + c.Text + ")"
		}
	}
	if c.Namespace != "" {
		what += " in " + c.Namespace
	}
	switch {
	case what == "":
		return c.TurnsOn
	case c.TurnsOn == "", c.TurnsOn == what:
		return what
	}
	return what + ": " + c.TurnsOn
}
