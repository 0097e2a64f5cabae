package checks

import (
	"fmt"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// SysctlLint finds popular advice that does harm or nothing.
var SysctlLint = &audit.Check{
	ID:       "sysctl.harmful-advice",
	Title:    "popular kernel settings that do harm or nothing",
	Severity: audit.Critical,
	Doc: `Guides for "tuning" a server hand on lines that lower limits, switch off what protects
connections, or have had no effect for years. They are looked for in the values in
force and in every file that systemd-sysctl or sysctl(8) read, also where another
line wins at present, because they come back with the next tidying; and so are
lines that the loaders skip or the kernel refuses. Each finding bears an id of its
own, such as sysctl.tw-buckets-lowered.

Most are information. Nothing here asks for a value because a list says so: each
rule says what is wrong under any load, and what to do instead.`,
	Refs:    []string{refIPSysctl, refSysctlD, "https://www.workerman.net/doc/workerman/appendices/kernel-optimization.html"},
	Needs:   []audit.Need{audit.NeedSysctls},
	Fix:     audit.FixManual,
	Reports: lintIDs(),
	Run: func(p *audit.Pass) error {
		var outcomes []*sysctl.Outcome
		if host := p.Host; host != nil {
			outcomes = host.Outcomes
		} else {
			p.Unsure("sysctl files", "could not be read; only the values in force were judged")
		}
		type key struct{ id, subject string }
		at := map[key]int{}
		var out []audit.Finding
		idle := map[key]bool{}
		more := map[int]int{} // places beyond maxLintEvidence, by finding
		for _, l := range sysctl.Lint(p.Facts, outcomes, p.Snapshot.Files) {
			if l.Live && l.Rule.ID == "sysctl.file-max-lowered" && p.Facts.Roles.SystemdRaisesFD == sysctl.Unsure {
				continue // without systemd the kernel's own default is a number as well
			}
			k := key{l.Rule.ID, string(l.Key)}
			if l.Key == "" || l.Key == "limit.nofile" {
				k.subject = l.File
			}
			i, again := at[k]
			if !again {
				i = len(out)
				at[k] = i
				idle[k] = true
				out = append(out, audit.Finding{
					ID: l.Rule.ID, Severity: audit.Info, Subject: k.subject, Title: lintTitle(k.subject, l.Rule.Title),
					Why: l.Rule.Why, Remedy: l.Rule.Instead, Refs: l.Rule.Refs, Causes: []audit.Cause{},
				})
			}
			if l.Idle == "" {
				idle[k] = false
				if audit.Severity(l.Severity).AtLeast(out[i].Severity) {
					out[i].Severity = audit.Severity(l.Severity)
				}
			}
			if len(out[i].Evidence) < maxLintEvidence {
				out[i].Evidence = append(out[i].Evidence, lintEvidence(l))
			} else {
				more[i]++
			}
		}
		for i, f := range out {
			if n := more[i]; n > 0 {
				f.Evidence = append(f.Evidence, audit.Evidencef("besides", "%d more places", n))
			}
			if idle[key{f.ID, f.Subject}] {
				f.Why += " (at present the line has no effect)"
			}
			p.Report(f)
		}
		return nil
	},
}

// maxLintEvidence bounds the places that one finding lists.
const maxLintEvidence = 16

func lintIDs() []string {
	ids := []string{"sysctl.harmful-advice"}
	for _, r := range sysctl.LintRules() {
		ids = append(ids, r.ID)
	}
	for _, r := range sysctl.FileRules() {
		ids = append(ids, r.ID)
	}
	return ids[1:]
}

// lintTitle names the key, unless the rule's title does.
func lintTitle(subject, title string) string {
	if last := subject[strings.LastIndexByte(subject, '.')+1:]; strings.Contains(title, last) {
		return title
	}
	return subject + ": " + title
}

func lintEvidence(l sysctl.LintFinding) audit.Evidence {
	value := l.Text
	if value == "" {
		value = fmt.Sprintf("%s = %s", l.Key, strings.Join(strings.Fields(l.Value), " "))
	}
	if l.Idle != "" {
		value += " (" + l.Idle + ")"
	}
	source := l.Where
	if l.Live {
		source = "in force"
	}
	return audit.Evidence{Source: source, Value: value}
}
