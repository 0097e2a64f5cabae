package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// Explain finds what `hostaudit checks ID` explains: a check, a finding (popular
// advice each by itself), or any key or limit of the sysctl catalogue, also one
// that is information and has no check, in every spelling: "sysctl.KEY", "KEY",
// "net/ipv4/ip_forward", "net.ipv4.conf.eth0.rp_filter". nil where nothing of
// that name is known.
func Explain(id string) *audit.Check {
	all := All()
	if i := slices.IndexFunc(all, func(c *audit.Check) bool { return c.ID == id }); i >= 0 {
		return all[i]
	}
	for _, r := range slices.Concat(sysctl.LintRules(), sysctl.FileRules()) {
		if r.ID == id {
			return explainRule(r)
		}
	}
	if c := audit.Find(all, id); c != nil {
		return c
	}
	name := strings.TrimPrefix(id, "sysctl.")
	if e, ok := sysctl.Find(sysctl.ParseKey(name)); ok {
		return explainEntry(e)
	}
	if e, ok := sysctl.Find(sysctl.Key(name)); ok {
		return explainEntry(e)
	}
	var last []*sysctl.Entry // "tcp_tw_reuse", where only one key ends so
	for _, e := range sysctl.Catalogue() {
		if strings.HasSuffix(string(e.Key), "."+name) {
			last = append(last, e)
		}
	}
	if len(last) == 1 {
		return explainEntry(last[0])
	}
	return nil
}

// Informative names the entries of the sysctl catalogue that have no check.
func Informative() []string {
	var out []string
	for _, e := range sysctl.Catalogue() {
		if e.Rule == nil {
			out = append(out, string(e.Key))
		}
	}
	return out
}

// explainEntry is the check of an entry, or for information what it would be.
func explainEntry(e *sysctl.Entry) *audit.Check {
	c := sysctlCheck(e)
	if e.Rule != nil {
		return c
	}
	c.Severity, c.Fix, c.Reports = audit.Info, audit.FixNone, []string{}
	for _, r := range sysctl.LintRules() {
		if slices.Contains(r.Keys, e.Key) {
			c.Reports = append(c.Reports, r.ID)
		}
	}
	c.Run = func(p *audit.Pass) error { p.NotApplicable(); return nil }
	return c
}

// explainRule is one piece of popular advice by itself.
func explainRule(r *sysctl.LintRule) *audit.Check {
	sentence := func(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }
	doc := []string{sentence(r.Why), "Instead: " + r.Instead + "."}
	var keys []string
	for _, k := range r.Keys {
		keys = append(keys, string(k))
	}
	where := "Looked for in every file that systemd-sysctl or sysctl(8) reads, also where another line wins at present."
	if r.Live() {
		where = "Looked for in the value in force, and in every file that systemd-sysctl or sysctl(8) reads, also where another line wins at present."
	}
	if r.ID == "limits.ineffective-for-services" {
		where = "Looked for in /etc/security/limits.conf, limits.d, /etc/profile and profile.d."
	}
	doc = append(doc, where)
	if len(keys) > 0 {
		of := "its key"
		if len(keys) > 1 {
			of = "its keys"
		}
		doc = append(doc, fmt.Sprintf("`hostaudit checks KEY` explains %s: %s.", of, strings.Join(keys, ", ")))
	}
	c := &audit.Check{
		ID: r.ID, Title: r.Title, Doc: strings.Join(doc, "\n\n"), Severity: audit.Severity(r.Severity), Refs: r.Refs, Causes: causes[r.ID],
		Needs: []audit.Need{audit.NeedSysctls, audit.NeedFiles}, Fix: audit.FixManual,
		Run: SysctlLint.Run,
	}
	if r.ID == "sysctl.tw-recycle" {
		c.Severity = audit.Critical // before Linux 4.12
	}
	if len(c.Refs) == 0 {
		c.Refs = []string{refSysctlD}
	}
	return c
}
