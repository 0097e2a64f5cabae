package checks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// found are the ids of the findings that entries of the sysctl catalogue make,
// by the entry's key, for the catalogue of checks. TestFindingIDs holds it to the
// catalogue.
var found = map[sysctl.Key][]string{
	"net.netfilter.nf_conntrack_max":            {"sysctl.conntrack-near-limit"},
	"net.netfilter.nf_conntrack_buckets":        {"sysctl.conntrack-buckets-missing"},
	"net.netfilter.nf_conntrack_tcp_be_liberal": {"sysctl.conntrack-invalid"},
	"boot.conntrack-module":                     {"sysctl.not-applied-at-boot"},
	"fs.file-max":                               {"sysctl.file-table-near-limit"},
	"fs.nr_open":                                {"sysctl.nr-open-below-limit"},
	"limit.nofile":                              {"limits.nofile-near-limit"},
	"limit.select-loop":                         {"limits.select-loop-full"},
	"limit.tasks":                               {"limits.tasks-exhausted"},
	"limit.memory":                              {"limits.killed-for-memory"},
	"net.core.somaxconn":                        {"sysctl.accept-queue-overflow", "sysctl.somaxconn-bounds-queue", "sysctl.application-bounds-queue"},
	"net.ipv4.tcp_max_syn_backlog":              {"sysctl.syn-queue-overflow"},
	"net.ipv4.tcp_syncookies":                   {"sysctl.syn-queue-cookies"},
	"net.core.netdev_max_backlog":               {"sysctl.netdev-backlog-overflow"},
	"net.core.netdev_budget":                    {"sysctl.netdev-budget-exhausted"},
	"net.core.netdev_budget_usecs":              {"sysctl.netdev-budget-exhausted"},
	"device.rx-ring":                            {"device.rx-ring-overflow"},
	"net.ipv4.udp_rmem_min":                     {"sysctl.udp-memory-pressure"},
	"net.ipv4.ip_local_port_range":              {"sysctl.ephemeral-range-small"},
	"net.ipv4.ip_local_reserved_ports":          {"sysctl.ephemeral-range-overlaps"},
	"net.ipv4.tcp_tw_reuse":                     {"sysctl.time-wait-exhaustion"},
	"net.ipv4.tcp_max_tw_buckets":               {"sysctl.time-wait-overflow"},
	"net.ipv4.tcp_fin_timeout":                  {"sysctl.fin-wait-pile-up"},
	"net.ipv4.ip_nonlocal_bind":                 {"sysctl.nonlocal-bind"},
	"net.ipv4.tcp_max_orphans":                  {"sysctl.orphans-near-limit"},
	"net.ipv4.ip_forward":                       {"sysctl.forwarding-needed"},
	"net.ipv4.tcp_mtu_probing":                  {"sysctl.mtu-probing-off"},
	"net.ipv4.conf.*.rp_filter":                 {"sysctl.rp-filter-strict", "sysctl.rp-filter-drops"},
	"net.ipv4.conf.*.route_localnet":            {"sysctl.route-localnet-exposes", "sysctl.route-localnet-needed"},
	"net.ipv6.conf.*.accept_ra":                 {"sysctl.router-ignores-ra"},
	"net.core.rmem_max":                         {"sysctl.udp-receive-buffer"},
	"net.ipv4.tcp_mem":                          {"sysctl.socket-memory-pressure"},
	"net.ipv4.udp_mem":                          {"sysctl.socket-memory-pressure"},
	"net.ipv4.neigh.default.gc_thresh3":         {"sysctl.neighbour-table-full"},
	"net.ipv6.neigh.default.gc_thresh3":         {"sysctl.neighbour-table-full"},
	"net.ipv6.conf.*.disable_ipv6":              {"sysctl.ipv6-disabled"},
}

// elsewhere are findings of the catalogue that other checks make, nearer to what
// the operator sees.
var elsewhere = []string{
	"limits.nofile-near-limit",        // listener.nofile-near-limit
	"sysctl.application-bounds-queue", // listener.queue-full, listener.queue-nearly-full
	"sysctl.somaxconn-bounds-queue",   // the same, with the value to set
}

// loud are the findings that can be critical; the others are warnings at most.
var loud = []string{
	"sysctl.ephemeral-range-small", "sysctl.time-wait-exhaustion", "sysctl.conntrack-near-limit", "sysctl.neighbour-table-full", "sysctl.file-table-near-limit",
	"limits.select-loop-full",
}

// causes says what a client sees, for findings where it is certain.
var causes = map[string][]audit.Cause{
	"sysctl.ephemeral-range-small":    {audit.CannotAssign},
	"sysctl.ephemeral-range-overlaps": {audit.ConnectionRefused},
	"sysctl.time-wait-exhaustion":     {audit.CannotAssign},
	"sysctl.conntrack-near-limit":     {audit.ConnectionTimeout},
	"sysctl.accept-queue-overflow":    {audit.ConnectionTimeout},
	"sysctl.syn-queue-overflow":       {audit.ConnectionTimeout},
	"sysctl.rp-filter-strict":         {audit.ConnectionTimeout},
	"sysctl.rp-filter-drops":          {audit.ConnectionTimeout},
	"sysctl.route-localnet-needed":    {audit.ConnectionTimeout},
	"sysctl.forwarding-needed":        {audit.ConnectionTimeout},
	"sysctl.neighbour-table-full":     {audit.ConnectionTimeout},
}

// sysctlChecks makes a check of every entry of the sysctl catalogue that can
// find something.
func sysctlChecks() []*audit.Check {
	var out []*audit.Check
	for _, e := range sysctl.Catalogue() {
		if e.Rule == nil {
			continue
		}
		out = append(out, sysctlCheck(e))
	}
	return out
}

func sysctlCheck(e *sysctl.Entry) *audit.Check {
	c := &audit.Check{
		ID: e.ID(), Title: e.Title, MakeDoc: func() string { return explanation(e) }, Severity: audit.Warning, Refs: e.Refs,
		Needs: []audit.Need{audit.NeedSysctls}, Fix: audit.FixManual, Reports: found[e.Key],
	}
	if len(c.Refs) == 0 {
		c.Refs = []string{refIPSysctl}
	}
	for _, id := range c.Reports {
		c.Causes = append(c.Causes, causes[id]...)
		if slices.Contains(loud, id) {
			c.Severity = audit.Critical
		}
	}
	slices.Sort(c.Causes)
	c.Causes = slices.Compact(c.Causes)
	c.Run = func(p *audit.Pass) error {
		keys := []sysctl.Key{e.Key}
		if e.Setting() {
			keys = p.Snapshot.Instances(e)
		}
		applicable := false
		for _, k := range keys {
			for _, j := range e.Judge(k, p.Facts) {
				if v := p.Facts.Live[k]; !e.Setting() || v.State == sysctl.Present {
					applicable = true
				}
				judged(p, k, j)
			}
		}
		if !applicable {
			p.NotApplicable()
		}
		return nil
	}
	return c
}

// judged turns one judgement of the catalogue into a finding.
func judged(p *audit.Pass, k sysctl.Key, j sysctl.Judgement) {
	if j.Verdict == sysctl.Unknown {
		why := j.Why
		if len(j.Missing) > 0 {
			why += " (" + strings.Join(j.Missing, ", ") + ")"
		}
		p.Unsure(string(k), why)
		return
	}
	if j.Finding == "" || j.Part || slices.Contains(elsewhere, j.Finding) || isLint(j.Finding) && j.Subject == "" {
		return // the lint says it together with the files
	}
	f := audit.Finding{
		ID: j.Finding, Severity: audit.Severity(j.Severity), Subject: j.Subject, Title: title(k, j), Why: j.Why, Remedy: j.Remedy, Causes: causes[j.Finding],
	}
	if f.Subject == "" {
		f.Subject = string(k)
	}
	if f.Causes == nil {
		f.Causes = []audit.Cause{}
	}
	for _, e := range j.Evidence {
		f.Evidence = append(f.Evidence, audit.Evidence(e))
	}
	named := slices.ContainsFunc(j.Evidence, func(e sysctl.Evidence) bool { return e.Source == string(k) })
	if v, ok := p.Facts.Live.Get(k); ok && !named {
		f.Evidence = append(f.Evidence, audit.Evidencef(string(k), "%s", strings.Join(strings.Fields(v), " ")))
	}
	if j.Recommend != "" {
		if e, ok := sysctl.Find(k); ok && e.Setting() && !k.Routes() {
			f.Fix = audit.FixAutomatic
		}
		f.Remedy = strings.TrimSuffix(f.Remedy, ".") + fmt.Sprintf("; %s = %s", k, j.Recommend)
		if f.Fix == audit.FixAutomatic {
			f.Remedy += "; hostaudit fix " + f.ID + " shows the change"
		}
	}
	p.Report(f)
}

// title is one line: the subject and the beginning of why.
func title(k sysctl.Key, j sysctl.Judgement) string {
	what := j.Subject
	if what == "" {
		what = string(k)
	}
	why, _, _ := strings.Cut(j.Why, ";")
	if first, _, ok := strings.Cut(why, ": "); ok && len(first) > 30 {
		why = first
	}
	return what + ": " + why
}

func isLint(id string) bool {
	return slices.ContainsFunc(sysctl.LintRules(), func(r *sysctl.LintRule) bool { return r.ID == id })
}

// explanation is the entry's own without its first line and its references, which
// a check has elsewhere.
func explanation(e *sysctl.Entry) string {
	paragraphs := strings.Split(strings.TrimSpace(e.Explain()), "\n\n")
	if len(paragraphs) > 1 {
		paragraphs = paragraphs[1:]
	}
	if n := len(paragraphs) - 1; n > 0 && strings.HasPrefix(paragraphs[n], "https://") {
		paragraphs = paragraphs[:n]
	}
	return strings.Join(paragraphs, "\n\n")
}
