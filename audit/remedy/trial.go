package remedy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/owner"
)

// maxRounds bounds the rules that one port may need.
const maxRounds = 32

// trial is a port being opened: the steps so far, on a world of its own, so that
// nothing is left of it when it cannot be finished.
type trial struct {
	p        *planner
	host     *owner.Host
	managers []owner.Owner
	port     *audit.Port
	opening  opening
	world    reach.World
	steps    []Step
	changes  []Change
	notes    []string
	files    map[string][]byte // as they will be
	done     []string
	marks    int
	// noIPv6: the owner keeps all of IPv6 out, whatever it is told to allow.
	noIPv6 bool
}

// errManual: the port cannot be opened automatically, for the reason it wraps.
type errManual struct{ why, words string }

func (e *errManual) Error() string { return e.why }

// open makes a port reachable for its audience: rule by rule, each where the one
// that decides stands, until the model says that nothing keeps the audience out.
func (p *planner) open(host *owner.Host, managers []owner.Owner, port *audit.Port, audience audit.Audience, f audit.Finding) error {
	t := &trial{p: p, host: host, managers: managers, port: port, files: p.Files, marks: p.marks,
		opening: opening{proto: string(port.Proto()), port: port.Number(), audience: audience, finding: f, target: port}}
	t.world = reach.World{Namespaces: slices.Clone(p.world.Namespaces)}
	err := t.run()
	var m *errManual
	if errors.As(err, &m) {
		p.manual(f, m.why, m.words)
		return nil
	}
	if err != nil {
		return err
	}
	if t.noIPv6 {
		const how = "set IPV6=yes in /etc/default/ufw, then ufw reload, then run hostaudit fix again"
		if len(t.steps) == 0 {
			p.manual(f, "ufw is set to IPV6=no and drops all of IPv6", how)
			return nil
		}
		t.notes = append(t.notes, "ufw is set to IPV6=no and drops all of IPv6: only IPv4 opens; to change that, "+how)
	}
	if len(t.steps) == 0 {
		p.manual(f, "only sources that a rule names are kept out, which is taken to be meant", "nothing, if it is; otherwise take that rule away, or put the accept before it yourself")
		return nil
	}
	p.world, p.Files, p.marks = t.world, t.files, t.marks
	p.plan.Steps = append(p.plan.Steps, t.steps...)
	p.plan.Changes = append(p.plan.Changes, t.changes...)
	p.plan.Notes = append(p.plan.Notes, t.notes...)
	p.plan.openings = append(p.plan.openings, t.opening)
	return nil
}

func (t *trial) run() error {
	for range maxRounds {
		row, ok := t.blocked()
		if !ok {
			return nil
		}
		if err := t.step(row); err != nil {
			return err
		}
	}
	return &errManual{why: fmt.Sprintf("after %d rules it is still kept from part of its audience", maxRounds)}
}

// blocked finds a part of the audience that a firewall keeps out, but for sources
// that a rule names: those are left out on purpose.
func (t *trial) blocked() (reach.Row, bool) {
	t.opening.left = nil
	for _, r := range reach.New(&t.world).NeighboursKnown().Listener(t.port.Listener).Rows {
		if !keptOut(r) {
			continue
		}
		var in []netip.Prefix
		for _, f := range audit.Clients(r.From) {
			in = append(in, t.opening.audience.Overlap(f)...)
		}
		if len(in) == 0 {
			continue
		}
		if t.noIPv6 && r.Family == firewall.IPv6.String() {
			t.opening.left = append(t.opening.left, in...)
			continue
		}
		if slices.ContainsFunc(deciders(r), func(d reach.DecidedBy) bool {
			return d.Rule != nil && named(t.world.Namespaces[0].Ruleset, d.Rule, 0)
		}) {
			t.opening.left = append(t.opening.left, in...)
			continue
		}
		r.From = in
		return r, true
	}
	return reach.Row{}, false
}

// deciders are the witnesses of a row.
func deciders(r reach.Row) []reach.DecidedBy {
	if len(r.Deciders) > 0 {
		return r.Deciders
	}
	return []reach.DecidedBy{r.DecidedBy}
}

// keptOut says whether a firewall keeps the sources of a row out. Where only the
// order of chains is not known, and each order ends in another refusal, the answer
// is "depends".
func keptOut(r reach.Row) bool {
	if r.Iif == "lo" || r.Through() || r.DecidedBy.Kind != reach.ByRule && r.DecidedBy.Kind != reach.ByPolicy {
		return false
	}
	if !r.Unsure() {
		return true
	}
	return !slices.ContainsFunc(deciders(r), func(d reach.DecidedBy) bool { return !refuses(d) }) && len(r.Conditions) > 0 && !slices.ContainsFunc(r.Conditions, func(c reach.Condition) bool {
		return !strings.HasPrefix(c.TurnsOn, "the order in which the kernel calls these")
	})
}

// step adds what lets a blocked part of the audience in.
func (t *trial) step(row reach.Row) error {
	first := firstRefusal(row)
	ch, rule := t.decider(first)
	if ch == nil {
		return &errManual{why: "the chain that decides was not found again"}
	}
	if first.Namespace != "" {
		return &errManual{why: "another network namespace decides: " + first.Namespace}
	}
	who := owner.Of(ch, t.managers)
	if !who.Editable() {
		return &errManual{why: fmt.Sprintf("it is blocked by %s of %s, whose rules are never touched", ch.Name, who), words: who.Words()}
	}
	here := fmt.Sprintf("%s %s %s %s %d", ch.Table.Backend, ch.Table.Family, ch.Table.Name, ch.Name, first.Number)
	switch who {
	case owner.UFW:
		return t.ufw(ch, rule)
	case owner.Firewalld:
		if ch.Table.Name == "firewalld" || len(t.managers) > 0 && t.managers[0].Kind == owner.Firewalld {
			return t.firewalld(row)
		}
	}
	return t.insert(who, ch, rule, row, here)
}

// firstRefusal is the first of the rules and policies that may keep a row out; the
// next ones show once it lets the sources pass.
func firstRefusal(r reach.Row) reach.DecidedBy {
	all := deciders(r)
	if i := slices.IndexFunc(all, refuses); i >= 0 {
		return all[i]
	}
	return all[0]
}

// decider finds the chain, and the rule unless it is the policy.
func (t *trial) decider(d reach.DecidedBy) (*firewall.Chain, *firewall.Rule) {
	if d.Rule != nil {
		return d.Rule.Chain, d.Rule
	}
	for _, table := range t.world.Namespaces[0].Ruleset.Tables {
		if string(table.Backend) != d.Backend || string(table.Family) != d.Family || table.Name != d.Table {
			continue
		}
		for _, ch := range table.Chains {
			if ch.Name == d.Chain && ch.Base != nil {
				return ch, nil
			}
		}
	}
	return nil, nil
}

// families are those that a rule in a chain has to speak for.
func (t *trial) sources(fam firewall.TableFamily, row reach.Row) []netip.Prefix {
	if t.opening.audience.Kind == audit.ForEveryone {
		return nil
	}
	f := firewall.IPv4
	if fam == firewall.TableIP6 || fam == firewall.TableInet && row.Family == firewall.IPv6.String() {
		f = firewall.IPv6
	}
	return owner.Prefixes(t.opening.audience.Networks, f)
}

// mark is the comment of the next rule.
func (t *trial) mark() string {
	t.marks++
	if t.marks == 1 {
		return owner.CommentPrefix + placeholder
	}
	return fmt.Sprintf("%s%s/%d", owner.CommentPrefix, placeholder, t.marks)
}

// insert puts an accept before the rule that decides, or at the end of the chain
// whose policy does.
func (t *trial) insert(who owner.Kind, ch *firewall.Chain, rule *firewall.Rule, row reach.Row, here string) error {
	switch {
	case ch.Table.Family != firewall.TableIP && ch.Table.Family != firewall.TableIP6 && ch.Table.Family != firewall.TableInet:
		return &errManual{why: fmt.Sprintf("it is decided in a table of family %s", ch.Table.Family)}
	case ch.Table.Owner != 0:
		return &errManual{why: fmt.Sprintf("the table %s belongs to a running program, which alone can change it", ch.Table.Name)}
	case slices.Contains(t.done, here):
		return &errManual{why: fmt.Sprintf("an accept before %s does not let its clients in (the answer's way back may be what is blocked)", here)}
	}
	t.done = append(t.done, here)
	sources := [][]netip.Prefix{t.sources(ch.Table.Family, row)}
	if ch.Table.Backend != firewall.NFTables && len(sources[0]) > 0 {
		all := sources[0]
		sources = nil
		for _, p := range all {
			sources = append(sources, []netip.Prefix{p})
		}
	}
	for _, from := range sources {
		i := &owner.Insertion{Backend: ch.Table.Backend, Family: ch.Table.Family, Table: ch.Table.Name, Chain: ch.Name,
			Proto: t.opening.proto, Port: t.opening.port, From: from, Comment: t.mark()}
		i.Number = len(ch.Rules) + 1
		before := "the policy of " + ch.Name + " decides"
		if rule != nil {
			i.Number, i.Before = rule.Number, rule.Handle
			before = fmt.Sprintf("#%d decides: %s", rule.Number, rule.Text())
		}
		if err := i.Check(); err != nil {
			return &errManual{why: err.Error()}
		}
		ch, rule = t.apply(i, ch, rule)
		change := Change{Finding: t.opening.finding.ID, Kind: "firewall", Subject: t.opening.finding.Subject, Before: before,
			After: i.String(), Command: i.Command(), Owner: string(who), Boot: "nothing on this host is known to load the rules again: it is gone with the next reload or reboot"}
		t.steps = append(t.steps, Step{Phase: Live, Rule: i})
		t.persist(who, i, rule, &change)
		t.changes = append(t.changes, change)
	}
	return nil
}

// apply puts the rule into a copy of the rules and returns the places there.
func (t *trial) apply(i *owner.Insertion, ch *firewall.Chain, rule *firewall.Rule) (*firewall.Chain, *firewall.Rule) {
	home := *t.world.Namespaces[0]
	home.Ruleset = cloneRules(home.Ruleset)
	t.world.Namespaces = append([]*reach.Namespace{&home}, t.world.Namespaces[1:]...)
	to := i.InChain(home.Ruleset)
	r := i.Rule()
	r.Chain = to
	to.Rules = slices.Insert(to.Rules, i.Number-1, r)
	for n, x := range to.Rules {
		x.Number = n + 1
	}
	if rule == nil {
		return to, nil
	}
	return to, to.Rules[i.Number]
}

// persist adds the step that makes an insertion last, where its owner has a file
// for that; otherwise it says why not.
func (t *trial) persist(who owner.Kind, i *owner.Insertion, before *firewall.Rule, c *Change) {
	home := t.world.Namespaces[0]
	patch, err := owner.Persist(who, &owner.Host{Rules: home.Ruleset, Files: t.files, Present: t.p.Present}, i, before)
	switch {
	case err != nil:
		c.Boot = "it is gone with the next reload or reboot: " + err.Error()
		t.notes = append(t.notes, fmt.Sprintf("%s: %s", who, c.Boot))
		return
	case patch == nil:
		return
	}
	old := t.files[patch.File]
	files := map[string][]byte{}
	for k, v := range t.files {
		files[k] = v
	}
	files[patch.File] = patch.After
	t.files = files
	step := Step{Phase: Persist, File: &FileChange{Path: patch.File, Before: old, HasBefore: true, After: patch.After, HasAfter: true, Check: patch.Check, CheckWith: patch.CheckWith}}
	// One step a file: a second rule builds on the first.
	for n := range t.steps {
		if f := t.steps[n].File; f != nil && f.Path == patch.File {
			f.After, f.CheckWith = patch.After, patch.CheckWith
			step.File = nil
		}
	}
	for n := range t.p.plan.Steps {
		if f := t.p.plan.Steps[n].File; f != nil && f.Path == patch.File {
			f.After, f.CheckWith = patch.After, patch.CheckWith
			step.File = nil
		}
	}
	if step.File != nil {
		t.steps = append(t.steps, step)
	}
	c.Persistent, c.Boot = true, fmt.Sprintf("%s loads %s at boot and reload", who, patch.File)
	c.Command += "; and " + patch.File
	c.Diff = diff(patch.File, string(old), string(patch.After))
}

func ruleNumber(r *firewall.Rule) int {
	if r == nil {
		return 0
	}
	return r.Number
}
