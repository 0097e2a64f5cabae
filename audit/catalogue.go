package audit

import "slices"

// Find looks a check up by its id, or by the id of one of its findings; nil where
// there is none.
func Find(checks []*Check, id string) *Check {
	if i := slices.IndexFunc(checks, func(c *Check) bool { return c.ID == id }); i >= 0 {
		return checks[i]
	}
	if i := slices.IndexFunc(checks, func(c *Check) bool { return slices.Contains(c.FindingIDs(), id) }); i >= 0 {
		return checks[i]
	}
	return nil
}

// PortsSchema names the form of PortUse in JSON.
const PortsSchema = "hostaudit/ports/v1"

// PortUse is the answer of `hostaudit ports`.
type PortUse struct {
	Schema string `json:"schema"`
	Host   Host   `json:"host"`
	// Ephemeral is null where the sockets could not be counted; Incomplete says why.
	Ephemeral *Ephemeral `json:"ephemeral"`
	// Sources count distinct ports by source address over all destinations: what
	// matters for sockets bound before they connect, and for UDP.
	Sources    []SourceUse    `json:"sources"`
	States     map[string]int `json:"states"`
	Incomplete []Gap          `json:"incomplete"`
}

// SourceUse is the use of the range from one source address.
type SourceUse struct {
	Proto string  `json:"proto"`
	From  string  `json:"from"`
	Ports int     `json:"ports"`
	Share float64 `json:"share"`
}

// Ports says how the local ports are used.
func Ports(s *Snapshot) *PortUse {
	p := &PortUse{Schema: PortsSchema, Host: s.host(), Ephemeral: ephemeral(s), Sources: []SourceUse{}, States: map[string]int{}, Incomplete: []Gap{}}
	if s.Census == nil {
		p.Incomplete = append(p.Incomplete, s.Gaps...)
		return p
	}
	for _, u := range s.Census.Sources {
		p.Sources = append(p.Sources, SourceUse{string(u.Proto), u.From.String(), u.Ports, u.Share})
	}
	for state, n := range s.Census.States {
		p.States[state] = int(n)
	}
	for _, g := range s.Census.Gaps {
		p.Incomplete = append(p.Incomplete, Gap{What: g.What, Why: g.Why})
	}
	return p
}
