package remedy

import (
	"encoding/hex"
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

// portBlocked is the finding that openings mend.
const portBlocked = "firewall.port-blocked"

// maxRounds bounds the rules that one port may need.
const maxRounds = 32

// firewall plans an opening for every port that a firewall keeps its audience
// from.
func (p *planner) firewall() error {
	fs := p.findings(portBlocked)
	if len(fs) == 0 {
		return nil
	}
	home := p.Snapshot.World.Namespaces[0]
	switch {
	case home.Ruleset == nil:
		return fmt.Errorf("%w: the rules: %s", ErrUnread, home.Unread["firewall"])
	case home.Route == nil:
		return fmt.Errorf("%w: routes and addresses: %s", ErrUnread, home.Unread["routes"])
	}
	host := &owner.Host{Rules: home.Ruleset, Files: p.Files, Present: p.Present}
	all := owner.Detect(host)
	managers := owner.Managers(all)
	if p.Owner != "" {
		if !slices.ContainsFunc(managers, func(o owner.Owner) bool { return o.Kind == p.Owner }) && p.Owner != owner.Nobody {
			return refused(fmt.Errorf("--owner %s: it does not manage this host's ruleset; found: %s", p.Owner, kinds(managers)))
		}
		managers = slices.DeleteFunc(managers, func(o owner.Owner) bool { return o.Kind != p.Owner })
	}
	if len(managers) > 1 {
		return refused(fmt.Errorf("several owners of the ruleset, each of which undoes what the others do: %s; decide for one, or name it with --owner", kinds(managers)))
	}
	for _, o := range all {
		if o.Kind == owner.Panel {
			p.plan.Notes = append(p.plan.Notes, o.Kind.Words())
		}
	}
	for _, f := range fs {
		port := p.portOf(f)
		if port == nil {
			p.published(managers, f)
			continue
		}
		audience, known := audienceOf(port)
		if !known {
			p.manual(f, "nothing says for whom it is meant", fmt.Sprintf("say so in the configuration: services: [{name: NAME, port: %d, proto: %s, audience: everyone}], then run fix again", port.Number(), port.Proto()))
			continue
		}
		if err := p.open(host, managers, port, audience, f); err != nil {
			return err
		}
	}
	return nil
}

// published leaves a port that is translated to elsewhere to whom the rule belongs
// that keeps its clients out.
func (p *planner) published(managers []owner.Owner, f audit.Finding) {
	for _, port := range p.pass.Ports {
		if port.Listener != nil || port.Subject() != f.Subject {
			continue
		}
		for _, r := range port.Exposure.Rows {
			if !keptOut(r) {
				continue
			}
			t := &trial{world: p.world}
			ch, _ := t.decider(r.DecidedBy)
			if ch == nil {
				continue
			}
			who := owner.Of(ch, managers)
			words := who.Words()
			if words == "" {
				words = f.Remedy
			}
			p.manual(f, fmt.Sprintf("the port is translated (DNAT), and %s %s %s of %s decides; rules on that way are never touched", ch.Table.Family, ch.Table.Name, ch.Name, who), words)
			return
		}
	}
	p.manual(f, "the port is not one of this host's own", "")
}

func kinds(os []owner.Owner) string {
	var out []string
	for _, o := range os {
		out = append(out, fmt.Sprintf("%s (%s)", o.Kind, strings.Join(o.Evidence, ", ")))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, "; ")
}

func (p *planner) portOf(f audit.Finding) *audit.Port {
	for _, port := range p.pass.Ports {
		if port.Home() && port.Listener != nil && port.Subject() == f.Subject {
			return port
		}
	}
	return nil
}

// audienceOf is for whom a port is meant: as configured, else as a rule that names
// the port says.
func audienceOf(port *audit.Port) (audit.Audience, bool) {
	if port.Service != nil {
		return port.Service.Audience, port.Service.Audience.Kind != audit.ForHost
	}
	for _, o := range audit.Openings(port.Namespace.Ruleset) {
		if o.Opens(port.Proto(), port.Number()) {
			if len(o.From) > 0 {
				return audit.Audience{Kind: audit.ForNetworks, Networks: o.From}, true
			}
			return audit.Audience{Kind: audit.ForEveryone}, true
		}
	}
	return audit.Audience{}, false
}

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
	for _, r := range reach.New(&t.world).Listener(t.port.Listener).Rows {
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
		if rule := r.DecidedBy.Rule; rule != nil && named(t.world.Namespaces[0].Ruleset, rule, 0) {
			t.opening.left = append(t.opening.left, in...)
			continue
		}
		r.From = in
		return r, true
	}
	return reach.Row{}, false
}

// keptOut says whether a firewall keeps the sources of a row out. Where only the
// order of chains is not known, and each order ends in another refusal, the answer
// is "depends", and its witness is the rule of one of them.
func keptOut(r reach.Row) bool {
	if r.Iif == "lo" || r.Through() || r.DecidedBy.Kind != reach.ByRule && r.DecidedBy.Kind != reach.ByPolicy {
		return false
	}
	if !r.Unsure() {
		return true
	}
	return refuses(r.DecidedBy) && len(r.Conditions) > 0 && !slices.ContainsFunc(r.Conditions, func(c reach.Condition) bool {
		return !strings.HasPrefix(c.TurnsOn, "the order in which the kernel calls these")
	})
}

// maxDepth bounds the walk up from a chain to its callers.
const maxDepth = 16

// named says whether a rule, or every way to its chain, is there for certain
// sources.
func named(rs *firewall.Ruleset, r *firewall.Rule, depth int) bool {
	if namesSources(r.Stmts) {
		return true
	}
	if r.Chain.Base != nil || depth == maxDepth {
		return false
	}
	callers := 0
	for _, t := range rs.Tables {
		for _, ch := range t.Chains {
			for _, c := range ch.Rules {
				if !calls(c, r.Chain) {
					continue
				}
				if callers++; !named(rs, c, depth+1) {
					return false
				}
			}
		}
	}
	return callers > 0
}

// calls says whether a rule leads into a chain.
func calls(r *firewall.Rule, ch *firewall.Chain) bool {
	return slices.ContainsFunc(r.Stmts, func(st firewall.Stmt) bool {
		switch v := st.(type) {
		case *firewall.Verdict:
			return v.Chain == ch
		case *firewall.VerdictMap:
			return slices.ContainsFunc(v.Map.Data, func(d firewall.Datum) bool { return d.Verdict != nil && d.Verdict.Chain == ch })
		}
		return false
	})
}

// namesSources says whether a rule is there for certain sources: it lists them, or
// asks the routing about them (the reverse path). It is no rule about a port then,
// and what it keeps out is kept out on purpose.
func namesSources(stmts []firewall.Stmt) bool {
	source := func(o firewall.Operand) bool {
		switch o.Field.Kind {
		case firewall.FieldSrcAddr, firewall.FieldSrcMAC:
			return true
		}
		return false
	}
	routing := func(o firewall.Operand) bool {
		switch o.Field.Kind {
		case firewall.FieldFIBType, firewall.FieldFIBOutIndex, firewall.FieldFIBOutName, firewall.FieldFIBPresent:
			return o.Field.A&firewall.FIBSrc != 0
		case firewall.FieldRPFilter:
			return true
		}
		return false
	}
	return slices.ContainsFunc(stmts, func(st firewall.Stmt) bool {
		switch m := st.(type) {
		case *firewall.Match:
			return source(m.Operand) && !m.Invert || routing(m.Operand)
		case *firewall.Lookup:
			return slices.ContainsFunc(m.Keys, source) && !m.Invert || slices.ContainsFunc(m.Keys, routing)
		case *firewall.IPSetMatch:
			return !m.Invert && slices.Contains(m.Src, true)
		case *firewall.AllOf:
			return !m.Invert && namesSources(statements(m.Of))
		case *firewall.AnyOf:
			return !m.Invert && namesSources(statements(m.Of))
		}
		return false
	})
}

func statements(ms []firewall.Matcher) []firewall.Stmt {
	out := make([]firewall.Stmt, len(ms))
	for i, m := range ms {
		out[i] = m
	}
	return out
}

// refuses: the witness drops or rejects.
func refuses(d reach.DecidedBy) bool {
	if d.Rule == nil {
		return d.Kind == reach.ByPolicy
	}
	for _, st := range d.Rule.Stmts {
		switch v := st.(type) {
		case *firewall.Reject:
			return true
		case *firewall.Verdict:
			return v.Kind == firewall.Drop
		}
	}
	return false
}

// step adds what lets a blocked part of the audience in.
func (t *trial) step(row reach.Row) error {
	ch, rule := t.decider(row.DecidedBy)
	if ch == nil {
		return &errManual{why: "the chain that decides was not found again"}
	}
	if row.DecidedBy.Namespace != "" {
		return &errManual{why: "another network namespace decides: " + row.DecidedBy.Namespace}
	}
	who := owner.Of(ch, t.managers)
	if !who.Editable() {
		return &errManual{why: fmt.Sprintf("it is blocked by %s of %s, whose rules are never touched", ch.Name, who), words: who.Words()}
	}
	here := fmt.Sprintf("%s %s %s %s %d", ch.Table.Backend, ch.Table.Family, ch.Table.Name, ch.Name, row.DecidedBy.Number)
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

// ufw lets the audience in through ufw, where ufw's own order allows it: its user
// rules come before what it drops by default.
func (t *trial) ufw(ch *firewall.Chain, rule *firewall.Rule) error {
	if rule != nil && (strings.Contains(ch.Name, "-user-") || strings.Contains(ch.Name, "-before-")) {
		return &errManual{why: fmt.Sprintf("a rule that ufw was given decides (%s #%d)", ch.Name, rule.Number),
			words: "look at it with ufw status numbered; ufw delete NUMBER takes it away, ufw insert 1 allow … puts an accept before it"}
	}
	if ch.Table.Family == firewall.TableIP6 && t.host.UFWWithoutIPv6() {
		t.noIPv6 = true
		return nil
	}
	if slices.Contains(t.done, "ufw") {
		return &errManual{why: fmt.Sprintf("what ufw allows does not come before %s #%d", ch.Name, ruleNumber(rule))}
	}
	t.done = append(t.done, "ufw")
	mark := t.mark()
	for _, from := range audienceArgs(t.opening.audience) {
		if t.host.UFWWithoutIPv6() && strings.Contains(from, ":") {
			continue // ufw refuses it
		}
		rest := []string{"allow", "proto", t.opening.proto, "from", from, "to", "any", "port", fmt.Sprint(t.opening.port)}
		inst := &owner.Instruction{Owner: owner.UFW, Do: append(append([]string{"ufw"}, rest...), "comment", mark), Undo: append([]string{"ufw", "--force", "delete"}, rest...),
			Files: []string{"/etc/ufw/user.rules", "/etc/ufw/user6.rules"}, Mark: "comment=" + hex.EncodeToString([]byte(mark)), Lasts: true}
		t.steps = append(t.steps, Step{Phase: Live, Tool: inst})
		t.changes = append(t.changes, Change{Finding: t.opening.finding.ID, Kind: "firewall", Subject: t.opening.finding.Subject, Before: "ufw drops it by default",
			After: strings.Join(inst.Do, " "), Persistent: true, Boot: "ufw keeps it in /etc/ufw/user.rules", Command: strings.Join(inst.Do, " "), Owner: string(owner.UFW)})
		mark = t.mark()
	}
	t.marks--
	return t.userRules(owner.UFWChains(t.host.Rules))
}

// userRules puts the accept at the end of the chains where the owner will.
func (t *trial) userRules(chains []owner.Insertion) error {
	if len(chains) == 0 {
		return &errManual{why: "the owner's chains were not found"}
	}
	for _, base := range chains {
		var sources [][]netip.Prefix
		if t.opening.audience.Kind == audit.ForEveryone {
			sources = [][]netip.Prefix{nil}
		} else {
			for _, p := range t.opening.audience.Networks {
				if base.Family.Sees(firewall.FamilyOf(p.Addr())) {
					sources = append(sources, []netip.Prefix{p})
				}
			}
		}
		for _, from := range sources {
			i := base
			i.Proto, i.Port, i.From, i.Comment = t.opening.proto, t.opening.port, from, owner.CommentPrefix+placeholder
			ch := i.InChain(t.world.Namespaces[0].Ruleset)
			i.Number = len(ch.Rules) + 1
			t.apply(&i, ch, nil)
		}
	}
	return nil
}

// audienceArgs are the sources one by one, "any" for everybody.
func audienceArgs(a audit.Audience) []string {
	if a.Kind == audit.ForEveryone {
		return []string{"any"}
	}
	var out []string
	for _, p := range a.Networks {
		out = append(out, p.String())
	}
	return out
}

func ruleNumber(r *firewall.Rule) int {
	if r == nil {
		return 0
	}
	return r.Number
}

// firewalld lets the audience in through the zone of the interface that its
// clients come in by: at run time first, for good when that is verified.
func (t *trial) firewalld(row reach.Row) error {
	zone, chains := owner.FirewalldZone(t.world.Namespaces[0].Ruleset, row.Iif)
	if zone == "" {
		return &errManual{why: "the zone of " + row.Iif + " was not found", words: fmt.Sprintf("firewall-cmd --get-zone-of-interface=%s; firewall-cmd --zone=ZONE --add-port=%d/%s, and again with --permanent", row.Iif, t.opening.port, t.opening.proto)}
	}
	if slices.Contains(t.done, "zone "+zone) {
		return &errManual{why: fmt.Sprintf("what the zone %s allows does not come before %s", zone, row.DecidedBy.Chain)}
	}
	t.done = append(t.done, "zone "+zone)
	var what []string
	if t.opening.audience.Kind == audit.ForEveryone {
		what = []string{fmt.Sprintf("port=%d/%s", t.opening.port, t.opening.proto)}
	}
	for _, p := range t.opening.audience.Networks {
		family := "ipv4"
		if !p.Addr().Is4() {
			family = "ipv6"
		}
		what = append(what, fmt.Sprintf(`rich-rule=rule family="%s" source address="%s" port port="%d" protocol="%s" accept`, family, p, t.opening.port, t.opening.proto))
	}
	for _, w := range what {
		for _, phase := range []Phase{Live, Persist} {
			argv := func(verb string) []string {
				out := []string{"firewall-cmd"}
				if phase == Persist {
					out = append(out, "--permanent")
				}
				return append(out, "--zone="+zone, "--"+verb+"-"+w)
			}
			t.steps = append(t.steps, Step{Phase: phase, Tool: &owner.Instruction{Owner: owner.Firewalld, Do: argv("add"), Undo: argv("remove"), Query: argv("query"), Lasts: phase == Persist}})
		}
		t.changes = append(t.changes, Change{Finding: t.opening.finding.ID, Kind: "firewall", Subject: t.opening.finding.Subject, Before: "zone " + zone + " rejects it",
			After: w, Persistent: true, Boot: "firewalld keeps it in its zone " + zone, Owner: string(owner.Firewalld),
			Command: fmt.Sprintf("firewall-cmd --zone=%s --add-%s; and the same with --permanent", zone, w)})
	}
	return t.userRules(chains)
}
