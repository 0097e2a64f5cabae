package audit

import (
	"fmt"
	"slices"
)

// Severity says how loud a finding is.
type Severity string

// The severities.
const (
	Critical Severity = "critical" // clients are kept out, or let in, against what is meant
	Warning  Severity = "warning"  // it will, or very likely does
	Info     Severity = "info"     // worth knowing
)

// Severities lists them, loudest first.
func Severities() []Severity { return []Severity{Critical, Warning, Info} }

// AtLeast says whether s is as loud as t or louder.
func (s Severity) AtLeast(t Severity) bool { return s.rank() <= t.rank() }

// rank is 0 for the loudest; unknown words come last.
func (s Severity) rank() int {
	if i := slices.Index(Severities(), s); i >= 0 {
		return i
	}
	return len(Severities())
}

// Cause is what a client sees when a finding bites: one of the four groups of
// the diagnosis.
type Cause string

// The causes.
const (
	ConnectionRefused Cause = "connection-refused"
	ConnectionTimeout Cause = "connection-timeout"
	CannotAssign      Cause = "cannot-assign-address"
	ProtocolError     Cause = "protocol-error"
)

// Fix says who can mend a finding.
type Fix string

// The kinds of fix.
const (
	FixAutomatic Fix = "automatic" // `hostaudit fix` has a plan for it
	FixManual    Fix = "manual"    // the remedy says what to do
	FixNone      Fix = "none"      // nothing on this host mends it
)

// Evidence is one observed thing behind a finding. Value is host text.
type Evidence struct {
	Source string `json:"source"`
	Value  string `json:"value"`
}

// Evidencef makes a piece of evidence.
func Evidencef(source, format string, args ...any) Evidence {
	return Evidence{source, fmt.Sprintf(format, args...)}
}

// Finding is one thing that is wrong, as the report shows it. Its texts may
// hold host text.
type Finding struct {
	// ID is area.what-is-wrong.
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Subject names what it is about, the same way in every run.
	Subject  string     `json:"subject"`
	Title    string     `json:"title"` // one line, the problem first
	Why      string     `json:"why"`
	Evidence []Evidence `json:"evidence"`
	Remedy   string     `json:"remedy"`
	Fix      Fix        `json:"fix"`
	Causes   []Cause    `json:"causes"`
	Refs     []string   `json:"refs"`
	// Accepted is set where the operator has weighed it; it does not count then.
	Accepted *Accepted `json:"accepted,omitempty"`
	// Expired tells of a waiver whose date has passed: the finding counts again.
	Expired *Accepted `json:"acceptance_expired,omitempty"`
}

// Accepted is why a finding does not count.
type Accepted struct {
	Reason string `json:"reason"`
	Until  string `json:"until,omitempty"` // the last day, 2027-06-30; "" for no end
	Source string `json:"source"`          // file:line of the entry
}

// key names a finding across runs.
func (f *Finding) key() [2]string { return [2]string{f.ID, f.Subject} }
