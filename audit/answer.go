package audit

import (
	"github.com/hostaudit/hostaudit/audit/reach"
)

// Answer answers a question of reach: about one client, or, without one, about
// all of them.
func Answer(ev *reach.Evaluator, q reach.Query, d reach.Detail) (reach.Answer, error) {
	if q.From.IsValid() {
		return ev.Ask(q, d)
	}
	a := reach.Answer{Query: reach.QueryJSON{Proto: q.Proto.String(), FromPort: q.FromPort, Port: q.Port, Iif: q.Iif}, Conditions: []reach.Condition{}}
	if q.To.IsValid() {
		a.Query.To = q.To.String()
	}
	a.Partition = ev.Partition(q)
	if a.Partition == nil {
		a.Partition = []reach.Row{}
	}
	return a, nil
}
