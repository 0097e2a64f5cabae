package remedy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

// PlanSchema names the form of a Plan in JSON.
const PlanSchema = "hostaudit/plan/v1"

// idLen is the length of a plan's id.
const idLen = 12

// Plan is what to change on one host in one state: a value. Two plans with the
// same id do the same to the same state.
type Plan struct {
	Schema  string   `json:"schema"`
	ID      string   `json:"id"`
	Changes []Change `json:"changes"`
	// Manual are findings that are left to the operator, and how to mend them.
	Manual []Manual `json:"manual"`
	Effect Effect   `json:"effect"`
	// Protected are the connections of operators that stay open, as new and as
	// established ones.
	Protected []Path `json:"protected"`
	// Notes are things to know before it is carried out.
	Notes []string `json:"notes"`
	// Risky plans are kept only when they are confirmed.
	Risky bool `json:"risky"`
	// Steps carry it out, live ones first.
	Steps []Step `json:"-"`

	openings []opening
	own      []netip.Prefix // this host's addresses
}

// Change is one thing that a plan changes, as it is shown.
type Change struct {
	Finding string `json:"finding"`
	// Kind is sysctl, firewall or file.
	Kind    string `json:"kind"`
	Subject string `json:"subject"`
	Before  string `json:"before"`
	After   string `json:"after"`
	// Persistent: it is there again after a reload of the owner and a reboot. Boot
	// says why, or why not.
	Persistent bool   `json:"persistent"`
	Boot       string `json:"boot"`
	Command    string `json:"command"`
	Owner      string `json:"owner"`
	// Restart names what has to be restarted for it to take effect, "" for nothing.
	Restart string `json:"restart,omitempty"`
	Undo    string `json:"undo"`
	// Diff is the change of a file, as diff -u shows it.
	Diff string `json:"diff,omitempty"`

	about string // the finding's subject, where it is another
}

// Manual is a finding that the plan does not mend.
type Manual struct {
	Finding string `json:"finding"`
	Subject string `json:"subject"`
	Why     string `json:"why"`
	Words   string `json:"words"`
	// Diff is a patch that would do it, "" for none.
	Diff string `json:"diff,omitempty"`
}

// Effect is what a plan changes for every listener.
type Effect struct {
	Opens  []EffectRow `json:"opens"`
	Closes []EffectRow `json:"closes"`
}

// EffectRow is a part of all sources for which a listener opens or closes; the
// answer in it is the one afterwards.
type EffectRow struct {
	Listener string `json:"listener"`
	Proto    string `json:"proto"`
	Port     uint16 `json:"port"`
	// Once is what has to be done before it is so (a restart), "" for nothing.
	Once string `json:"once,omitempty"`
	reach.Row
}

// Input is all that a plan is made of.
type Input struct {
	Snapshot *audit.Snapshot
	Config   *audit.Config
	Checks   []*audit.Check
	// Findings are the ids to mend, none for all that can be.
	Findings []string
	// Files are the host's files by path, of those that Files names.
	Files map[string][]byte
	// Present are the places of owner.Links that exist.
	Present map[string]bool
	// Owner is who is to be taken for the manager of the ruleset where there are
	// several, "" for none chosen.
	Owner owner.Kind
	// Configuration allows changes of servers' own configuration (bind addresses).
	Configuration bool
	// Paths are the operators' connections.
	Paths []Path
}

// planner is a plan in the making.
type planner struct {
	Input
	plan   *Plan
	pass   *audit.Pass
	report *audit.Report
	world  reach.World // as it will be
	// marks counts the rules, for comments that tell them apart.
	marks int
	// later is what opens only with a restart.
	later []EffectRow
}

// NewPlan says what to change. It is a pure function. It ends with ErrUnread where
// the host was not read completely enough, and with ErrRefused where changing
// it would cut an operator off or do more than was asked for.
func NewPlan(in Input) (*Plan, error) {
	p := &planner{Input: in, plan: &Plan{Schema: PlanSchema, Changes: []Change{}, Manual: []Manual{}, Notes: []string{}, Protected: []Path{},
		Effect: Effect{Opens: []EffectRow{}, Closes: []EffectRow{}}}}
	// A check of our own gets at what all checks see.
	probe := &audit.Check{ID: "remedy.probe", Title: "probe", Run: func(pass *audit.Pass) error {
		p.pass = pass
		return nil
	}}
	p.report = audit.Run(in.Snapshot, in.Config, append(slices.Clone(in.Checks), probe))
	if p.pass == nil {
		return nil, errors.New("plan: the audit did not run")
	}
	p.world = reach.World{Namespaces: slices.Clone(in.Snapshot.World.Namespaces)}
	if err := p.unread(); err != nil {
		return nil, err
	}
	if err := p.sysctls(); err != nil {
		return nil, err
	}
	if err := p.firewall(); err != nil {
		return nil, err
	}
	p.fileLimits()
	p.bindAddresses()
	p.rest()
	if err := p.finish(); err != nil {
		return nil, err
	}
	return p.plan, nil
}

// findings are those to mend, accepted ones left out. An id of a check stands for
// all that the check finds.
func (p *planner) findings(ids ...string) []audit.Finding {
	var out []audit.Finding
	for _, f := range p.report.Counting() {
		if (len(ids) == 0 || slices.Contains(ids, f.ID)) && p.wanted(f.ID) {
			out = append(out, f)
		}
	}
	return out
}

func (p *planner) wanted(id string) bool {
	if len(p.Findings) == 0 || slices.Contains(p.Findings, id) {
		return true
	}
	c := audit.Find(p.Checks, id)
	return c != nil && slices.Contains(p.Findings, c.ID)
}

// manual leaves a finding to the operator.
func (p *planner) manual(f audit.Finding, why, words string) {
	if words == "" {
		words = f.Remedy
	}
	p.plan.Manual = append(p.plan.Manual, Manual{Finding: f.ID, Subject: f.Subject, Why: why, Words: words})
}

// handled says whether a finding is in the plan already, one way or the other.
func (p *planner) handled(f audit.Finding) bool {
	return slices.ContainsFunc(p.plan.Changes, func(c Change) bool { return c.Finding == f.ID && (c.Subject == f.Subject || c.about == f.Subject) }) ||
		slices.ContainsFunc(p.plan.Manual, func(m Manual) bool { return m.Finding == f.ID && m.Subject == f.Subject })
}

// rest names the findings that were asked for by id and that no plan exists for.
func (p *planner) rest() {
	if len(p.Findings) == 0 {
		return
	}
	for _, f := range p.findings() {
		if !p.handled(f) {
			p.manual(f, "there is no automatic change for it", "")
		}
	}
}

// finish orders the steps, works out the effect and gives the plan its id.
func (p *planner) finish() error {
	slices.SortStableFunc(p.plan.Steps, func(a, b Step) int { return cmp.Compare(phaseOrder(a.Phase), phaseOrder(b.Phase)) })
	if err := p.effect(); err != nil {
		return err
	}
	p.plan.number()
	for i := range p.plan.Steps {
		if err := p.plan.Steps[i].check(); err != nil {
			return fmt.Errorf("plan step %d: %w", i+1, err)
		}
	}
	return nil
}

func phaseOrder(p Phase) int {
	if p == Live {
		return 0
	}
	return 1
}

// placeholder stands in comments until the plan's id is known.
const placeholder = "0000feed0000"

// number makes the id of what the plan does and puts it into the comments.
func (p *Plan) number() {
	// The effect is no part of it: addresses come and go, and a plan made again has
	// its effect held to what was asked for all the same.
	canonical, err := json.Marshal(struct {
		Changes []Change
		Steps   []Step
	}{p.Changes, p.Steps})
	if err != nil {
		panic(err) // plain values
	}
	sum := sha256.Sum256(canonical)
	p.ID = hex.EncodeToString(sum[:])[:idLen]
	put := func(s string) string { return strings.ReplaceAll(s, placeholder, p.ID) }
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.Rule != nil {
			s.Rule.Comment = put(s.Rule.Comment)
		}
		if s.Tool != nil {
			for _, argv := range [][]string{s.Tool.Do, s.Tool.Undo, s.Tool.Query} {
				for n := range argv {
					argv[n] = put(argv[n])
				}
			}
			s.Tool.Mark = strings.ReplaceAll(s.Tool.Mark, hex.EncodeToString([]byte(placeholder)), hex.EncodeToString([]byte(p.ID)))
		}
		if s.File != nil && s.File.HasAfter {
			s.File.After = []byte(put(string(s.File.After)))
			if s.File.CheckWith != nil {
				s.File.CheckWith = []byte(put(string(s.File.CheckWith)))
			}
		}
	}
	for i := range p.Changes {
		c := &p.Changes[i]
		c.After, c.Command, c.Undo, c.Diff = put(c.After), put(c.Command), "hostaudit rollback "+p.ID, put(c.Diff)
	}
	for _, rows := range [][]EffectRow{p.Effect.Opens, p.Effect.Closes} {
		for i := range rows {
			r := &rows[i]
			r.DecidedBy.Text = put(r.DecidedBy.Text)
			for n := range r.Deciders {
				r.Deciders[n].Text = put(r.Deciders[n].Text)
			}
			for n := range r.Conditions {
				r.Conditions[n].Text = put(r.Conditions[n].Text)
			}
		}
	}
}
