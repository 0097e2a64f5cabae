package audit

import "github.com/hostaudit/hostaudit/sysctl"

// ProfileRow is the profile that a scan was asked with, and what frameworks for
// such servers ask for.
type ProfileRow struct {
	Name  string     `json:"name"`
	Title string     `json:"title"`
	Asked []AskedRow `json:"asked"`
}

// AskedRow is one value that a framework's manual asks for, with our verdict.
type AskedRow struct {
	Key   sysctl.Key `json:"key"`
	Asked string     `json:"asked"`
	By    string     `json:"by"`
	// Live is the value in force, null where the key is not there or is a limit
	// of processes.
	Live *string `json:"live"`
	// Met says whether the value in force is what is asked for, or more of what
	// more is fine of; null where there is none.
	Met     *bool          `json:"met"`
	Verdict sysctl.Verdict `json:"verdict"`
	Why     string         `json:"why"`
}

// profileRow compares by meaning; nil without a profile.
func profileRow(s *Snapshot, p sysctl.Profile) *ProfileRow {
	if p.Name == "" {
		return nil
	}
	out := &ProfileRow{Name: p.Name, Title: p.Title, Asked: []AskedRow{}}
	for _, a := range p.Asked {
		row := AskedRow{Key: a.Key, Asked: a.Value, By: a.By, Verdict: a.Verdict, Why: a.Why}
		if e, ok := sysctl.Find(a.Key); ok && e.Setting() {
			if live, ok := s.Sysctls.Get(a.Key); ok {
				live = e.Shape.Canonical(live)
				met := e.Meets(live, a.Value)
				row.Live, row.Met = &live, &met
			}
		}
		out.Asked = append(out.Asked, row)
	}
	return out
}
