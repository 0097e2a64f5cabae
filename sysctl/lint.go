package sysctl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// LintRule is one piece of popular advice that does harm or nothing.
type LintRule struct {
	ID       string // of the finding
	Title    string
	Severity Severity
	Keys     []Key  // patterns with "*" for an interface
	Why      string // what is wrong with it
	Instead  string // the right thing to do
	Refs     []string
	// hit judges one value. in is nil for a live value.
	hit func(c *lintContext, k Key, value string) (found bool, s Severity)
	// files: only lines in files can be judged, a live value cannot.
	files bool
}

// LintFinding is a place where a rule applies.
type LintFinding struct {
	Rule     *LintRule
	Severity Severity
	Key      Key
	Value    string
	// Where is "file:line", or "live".
	Where string
	Live  bool
	Place
	// Idle says why the line has no effect at present (its file is replaced, a
	// later line wins); it is reported all the same, because it comes back with
	// the next tidying.
	Idle string
	Text string // for findings about a line that is no assignment
}

// Verdict is what the report says of the key.
func (l LintFinding) Verdict() Verdict {
	if l.Rule.Severity == Info && l.Severity == Info {
		if slices.Contains([]string{"sysctl.ephemeral-range-parity"}, l.Rule.ID) {
			return Wrong
		}
	}
	return Harmful
}

// lintContext is what rules may look at besides the value.
type lintContext struct {
	f    *Facts
	live bool // the value is live, not a line's
	// inForce is the value of another key in the same world: live, or under the
	// loader whose line is judged.
	inForce func(k Key) (string, bool)
	// sets says whether any line of that world sets a key.
	sets func(k Key) bool
}

func (c *lintContext) number(k Key) (int64, bool) {
	v, ok := c.inForce(k)
	if !ok {
		return 0, false
	}
	n, err := parseInts(v, 1)
	if err != nil {
		return 0, false
	}
	return n[0], true
}

// Live says whether the rule judges values in force, beside lines of files.
func (r *LintRule) Live() bool { return !r.files && r.hit != nil }

// covers says whether the rule is about a key.
func (r *LintRule) covers(k Key) bool {
	return slices.Contains(r.Keys, k)
}

// lintLive judges a live value by the rules.
func lintLive(k Key, f *Facts) []LintFinding {
	value, ok := f.Live.Get(k)
	if !ok {
		return nil
	}
	c := &lintContext{f: f, live: true, inForce: f.Live.Get, sets: func(Key) bool { return false }}
	var out []LintFinding
	for _, r := range lintRules {
		if r.files || !r.covers(k) {
			continue
		}
		if hit, s := r.hit(c, k, value); hit {
			out = append(out, LintFinding{Rule: r, Severity: s, Key: k, Value: value, Where: "live", Live: true})
		}
	}
	return out
}

// Lint finds harmful and useless advice in live values and in every line of the
// loaders' files, in force or not, and what is wrong with the files themselves.
// The order is that of the rules, then live before files, then file and line.
func Lint(f *Facts, outcomes []*Outcome, t *Tree) []LintFinding {
	var out []LintFinding
	for _, r := range lintRules {
		for _, k := range r.Keys {
			for _, l := range lintLive(k, f) {
				if l.Rule == r {
					out = append(out, l)
				}
			}
		}
		seen := map[string]bool{}
		for _, o := range outcomes {
			out = append(out, lintLines(r, f, o, seen)...)
		}
	}
	for _, o := range outcomes {
		out = append(out, lintProblems(f, o)...)
	}
	if t != nil {
		out = append(out, lintNames(t)...)
		out = append(out, lintLimits(t)...)
	}
	return dedupe(out)
}

// lintLines judges the lines of one loader. seen keeps a line that both loaders
// read from being reported twice.
func lintLines(r *LintRule, f *Facts, o *Outcome, seen map[string]bool) []LintFinding {
	c := &lintContext{
		f: f,
		inForce: func(k Key) (string, bool) {
			live, ok := f.Live.Get(k)
			if v, by, _ := o.InForce(k, live); by != nil {
				return v, true
			}
			if w, set := o.Winner(k); set {
				return w.Value, true // the key may not exist now, the line stands
			}
			return live, ok
		},
		sets: func(k Key) bool {
			return slices.ContainsFunc(o.Lines, func(a Assignment) bool {
				return a.Dead == "" && !a.Exclude && KeyFromPath(cleanPath(a.Path)) == k
			})
		},
	}
	var out []LintFinding
	for i, a := range o.Lines {
		if a.Exclude || seen[a.Where()] {
			continue
		}
		for _, k := range r.Keys {
			if !a.concerns(k) {
				continue
			}
			hit, s := r.hit(c, k, a.Value)
			if !hit {
				continue
			}
			seen[a.Where()] = true
			l := LintFinding{Rule: r, Severity: s, Key: k, Value: a.Value, Where: a.Where(), Place: Place{a.File, a.Line}, Idle: a.Dead}
			if w, ok := o.Winner(k); l.Idle == "" && ok && w.By != i {
				l.Idle = "overridden by " + o.Line(w).Where()
			}
			out = append(out, l)
			break
		}
	}
	return out
}

var (
	ruleSyntax = &LintRule{
		ID: "sysctl.invalid-syntax", Title: "a line that is no assignment", Severity: Warning,
		Why: "a line without \"=\" is skipped; sysctl(8) reports success all the same", Instead: "write key = value",
		Refs: []string{"https://man7.org/linux/man-pages/man5/sysctl.d.5.html"},
	}
	ruleByteOrder = &LintRule{
		ID: "sysctl.byte-order-mark", Title: "a byte order mark at the beginning of the file", Severity: Warning,
		Why:     "the mark becomes part of the first line, which is therefore not what it looks like: its key does not exist",
		Instead: "save the file without the mark",
	}
	ruleLongLine = &LintRule{
		ID: "sysctl.line-too-long", Title: "a line of more than a mebibyte", Severity: Warning,
		Why: "systemd-sysctl gives up the rest of the file", Instead: "find out what wrote it",
	}
	ruleUnsafe = &LintRule{
		ID: "sysctl.unsafe-path", Title: "a key that leaves /proc/sys", Severity: Warning,
		Why: "the loaders refuse it, or write something else than it says", Instead: "find out who wrote the line",
	}
	ruleUnreadable = &LintRule{
		ID: "sysctl.unreadable-file", Title: "a file that loaders hang on", Severity: Warning,
		Why: "it is a pipe or a device: a loader that opens it waits or reads for ever, and the boot with it", Instead: "remove it",
	}
	ruleRefused = &LintRule{
		ID: "sysctl.value-refused", Title: "a value that the kernel refuses", Severity: Warning,
		Why: "the write fails and the key keeps the value it had", Instead: "correct the value",
	}
	ruleName = &LintRule{
		ID: "sysctl.file-not-read", Title: "a file that no loader reads", Severity: Warning,
		Why: "only names that end in .conf are read", Instead: "rename the file, or remove it",
		Refs: []string{"https://man7.org/linux/man-pages/man5/sysctl.d.5.html"},
	}
)

// FileRules are the rules about files, for the catalogue of checks.
func FileRules() []*LintRule {
	return []*LintRule{ruleSyntax, ruleByteOrder, ruleLongLine, ruleUnsafe, ruleUnreadable, ruleRefused, ruleName, ruleLimits}
}

// lintProblems turns what the simulation met into findings.
func lintProblems(f *Facts, o *Outcome) []LintFinding {
	rules := map[ProblemKind]*LintRule{
		ProblemSyntax: ruleSyntax, ProblemByteOrder: ruleByteOrder, ProblemLongLine: ruleLongLine,
		ProblemUnsafePath: ruleUnsafe, ProblemUnreadable: ruleUnreadable,
	}
	var out []LintFinding
	for _, p := range o.Problems {
		r := rules[p.Kind]
		if r == nil {
			continue // a key that does not exist is not a fault
		}
		place := Place{p.File, p.Line}
		out = append(out, LintFinding{Rule: r, Severity: r.Severity, Where: place.String(), Place: place, Text: p.Text})
	}
	for _, w := range o.Writes {
		e, ok := Find(w.Key)
		if !ok {
			continue
		}
		live, _ := f.Live.Get(w.Key)
		if _, taken, known := e.store(live, w.Value); taken || !known {
			continue
		}
		a := o.Line(w)
		out = append(out, LintFinding{Rule: ruleRefused, Severity: Warning, Key: w.Key, Value: w.Value, Where: a.Where(), Place: Place{a.File, a.Line}})
	}
	return out
}

// lintNames finds files beside the ones that count whose name hides them.
func lintNames(t *Tree) []LintFinding {
	var out []LintFinding
	for _, dir := range sysctlDirs[:2] {
		resolved, names, err := t.list(dir)
		if err != nil && len(names) == 0 {
			continue
		}
		for _, name := range names {
			lower := strings.ToLower(name)
			if strings.HasSuffix(name, ".conf") || strings.HasPrefix(lower, "readme") || strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
				continue
			}
			// Only what looks like a name somebody chose: package managers leave
			// their own copies with known endings.
			if i := strings.LastIndexByte(name, '.'); i >= 0 && !strings.EqualFold(name[i:], ".conf") && !strings.EqualFold(name[i:], ".cfg") && !strings.EqualFold(name[i:], ".sysctl") {
				continue
			}
			p := strings.TrimSuffix(resolved, "/") + "/" + name
			out = append(out, LintFinding{Rule: ruleName, Severity: Warning, Where: p, Place: Place{File: p}})
		}
	}
	return out
}

func dedupe(in []LintFinding) []LintFinding {
	seen := map[string]bool{}
	return slices.DeleteFunc(in, func(l LintFinding) bool {
		id := l.Rule.ID + "\x00" + string(l.Key) + "\x00" + l.Where + "\x00" + strconv.Itoa(l.Line)
		again := seen[id]
		seen[id] = true
		return again
	})
}

// judgement turns a live finding into the entry's word.
func (l LintFinding) judgement() Judgement {
	return Judgement{
		Verdict: l.Verdict(), Finding: l.Rule.ID, Severity: l.Severity, Why: l.Rule.Why, Remedy: l.Rule.Instead,
		Evidence: []Evidence{{string(l.Key), l.Value}},
	}
}

// String is for people: where, what, why and what instead.
func (l LintFinding) String() string {
	what := l.Text
	if l.Key != "" {
		what = fmt.Sprintf("%s = %s", l.Key, l.Value)
	}
	return fmt.Sprintf("%s: %s (%s): %s; %s", l.Where, l.Rule.Title, what, l.Rule.Why, l.Rule.Instead)
}
