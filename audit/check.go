package audit

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/sysctl"
)

// Need names a part of the snapshot that a check cannot judge without.
type Need string

// The parts.
const (
	NeedListeners Need = "listeners"
	NeedFirewall  Need = "firewall"
	NeedRoutes    Need = "routes"
	NeedSysctls   Need = "sysctls"
	NeedFiles     Need = "sysctl files"
	NeedCensus    Need = "census of local ports"
)

// Check is one thing the audit looks for. It is a value: a name, an
// explanation, and a pure function of what was read.
type Check struct {
	// ID is area.what-is-wrong; findings of the check bear it, or one of Reports.
	ID    string
	Title string // a few words, no full stop
	// Doc explains it to the operator: what it means, how it is judged, what to do.
	Doc string
	// MakeDoc makes the explanation where it is not in Doc: text that few runs show.
	MakeDoc func() string
	// Severity is the loudest that its findings are.
	Severity Severity
	Refs     []string
	Causes   []Cause
	Needs    []Need
	Fix      Fix
	// Reports are the ids of its findings where they differ from ID.
	Reports []string
	// Run reports findings to the pass. An error means that the check itself
	// failed, never that the host did.
	Run func(*Pass) error
}

// Explanation is what the check says of itself to the operator (see Doc).
func (c *Check) Explanation() string {
	if c.MakeDoc != nil {
		return c.MakeDoc()
	}
	return c.Doc
}

// FindingIDs are the ids that findings of the check can bear.
func (c *Check) FindingIDs() []string {
	if len(c.Reports) > 0 {
		return c.Reports
	}
	return []string{c.ID}
}

// Status is how a check ended.
type Status string

// The ends of a check.
const (
	Passed        Status = "pass"
	Failed        Status = "fail"           // it has findings
	Unknown       Status = "unknown"        // something that decides could not be read or told
	Errored       Status = "error"          // the check failed, not the host
	NotApplicable Status = "not-applicable" // there is nothing here to judge
)

// Result is the end of one check.
type Result struct {
	ID     string `json:"id"`
	Status Status `json:"status"`
	// Unsure says what it could not tell, and why.
	Unsure []Unsure `json:"unsure,omitempty"`
}

// Unsure is one thing a check could not judge.
type Unsure struct {
	Subject string `json:"subject"`
	Why     string `json:"why"`
}

// Pass is what a check sees: the snapshot, the configuration, and who can reach
// what, worked out once for all checks.
type Pass struct {
	Check    *Check
	Snapshot *Snapshot
	Config   *Config
	// Ports are the listeners of all namespaces that links lead to and the ports published by
	// address translation, with who can reach them.
	Ports []*Port
	// Openings are the rules of the audited namespace that open ports by number.
	Openings []Opening
	// Host tells where settings come from and what a reboot brings; nil without files.
	Host *sysctl.Host
	// Facts are what the catalogue of sysctls looks at.
	Facts *sysctl.Facts
	// Reach answers questions about single clients.
	Reach *reach.Evaluator

	findings      []Finding
	unsure        []Unsure
	notApplicable bool
}

// Report adds a finding. What it leaves out is taken from the check.
func (p *Pass) Report(f Finding) {
	if f.ID == "" {
		f.ID = p.Check.ID
	}
	if f.Severity == "" {
		f.Severity = p.Check.Severity
	}
	if f.Fix == "" {
		f.Fix = p.Check.Fix
	}
	if f.Causes == nil {
		f.Causes = p.Check.Causes
	}
	if f.Refs == nil {
		f.Refs = p.Check.Refs
	}
	p.findings = append(p.findings, f)
}

// Unsure says that something could not be judged, and why.
func (p *Pass) Unsure(subject, why string) {
	p.unsure = append(p.unsure, Unsure{subject, why})
}

// NotApplicable says that there is nothing here to judge.
func (p *Pass) NotApplicable() { p.notApplicable = true }

// Clear says whether a client with this address gets through to a port, when it
// comes the way that the host's routes name: the answer, and the interface.
func (p *Pass) Clear(port *Port, from netip.Addr) (reach.Answer, error) {
	return p.Reach.Ask(port.query(from), reach.AnswerOnly)
}

// run runs the check on a pass of its own.
func (c *Check) run(base Pass) (Result, []Finding) {
	p := base
	p.Check, p.Ports = c, linked(base.Ports)
	r := Result{ID: c.ID}
	for _, n := range c.Needs {
		if why := p.Snapshot.lacks(n); why != "" {
			r.Status, r.Unsure = Unknown, []Unsure{{string(n), why}}
			return r, nil
		}
	}
	if err := c.attempt(&p); err != nil {
		r.Status, r.Unsure = Errored, []Unsure{{c.ID, err.Error()}}
		return r, nil
	}
	r.Unsure = p.unsure
	switch {
	case len(p.findings) > 0:
		r.Status = Failed
	case len(p.unsure) > 0:
		r.Status = Unknown
	case p.notApplicable:
		r.Status = NotApplicable
	default:
		r.Status = Passed
	}
	return r, p.findings
}

// attempt keeps a defect of one check from taking the others along.
func (c *Check) attempt(p *Pass) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("defect in check %s: %v", c.ID, r)
		}
	}()
	return c.Run(p)
}

// lacks says why a part is not there, "" where it is.
func (s *Snapshot) lacks(n Need) string {
	home := s.World.Namespaces[0]
	switch n {
	case NeedListeners:
		if home.Listeners == nil {
			return unread(home, "listeners")
		}
	case NeedFirewall:
		if home.Ruleset == nil {
			return unread(home, "firewall")
		}
	case NeedRoutes:
		if home.Route == nil {
			return unread(home, "routes")
		}
	case NeedSysctls:
		if s.Sysctls == nil {
			return "could not be read"
		}
	case NeedFiles:
		if s.Files == nil {
			return "could not be read"
		}
	case NeedCensus:
		if s.Census == nil {
			return "was not counted"
		}
	}
	return ""
}

func unread(ns *reach.Namespace, part string) string {
	if why := ns.Unread[part]; why != "" {
		return "could not be read: " + why
	}
	return "could not be read"
}

var checkID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9]*\.[a-z0-9*][a-z0-9_.*-]*$`) })

// Validate holds a catalogue to its rules: ids well formed and unique, every
// check documented, no check without a judgement.
func Validate(checks []*Check) error {
	var errs []error
	seen := map[string]bool{}
	for _, c := range checks {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("check %q: %s", c.ID, fmt.Sprintf(format, args...)))
		}
		if !checkID().MatchString(c.ID) {
			bad("the id is not area.what-is-wrong")
		}
		if seen[c.ID] {
			bad("stands twice")
		}
		seen[c.ID] = true
		if c.Title == "" || strings.HasSuffix(c.Title, ".") || strings.Contains(c.Title, "\n") {
			bad("the title must be one line without full stop")
		}
		if strings.TrimSpace(c.Explanation()) == "" {
			bad("no explanation")
		}
		if !slices.Contains(Severities(), c.Severity) {
			bad("no severity %q", c.Severity)
		}
		if !slices.Contains([]Fix{FixAutomatic, FixManual, FixNone}, c.Fix) {
			bad("no fix %q", c.Fix)
		}
		if len(c.Refs) == 0 {
			bad("no references")
		}
		if len(c.Needs) == 0 {
			bad("needs nothing")
		}
		if c.Run == nil {
			bad("no judgement")
		}
	}
	return errors.Join(errs...)
}
