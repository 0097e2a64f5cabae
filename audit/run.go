package audit

import (
	"cmp"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

// Run judges a snapshot: who can reach what, and what every check says. It is a
// pure function; equal inputs give equal reports.
func Run(s *Snapshot, cfg *Config, checks []*Check) *Report {
	ev := reach.New(&s.World)
	base := Pass{Snapshot: s, Config: cfg, Reach: ev}
	settings := make(chan []SysctlRow, 1)
	go func() {
		base.Host = s.provenance()
		base.Facts = s.facts(base.Host, cfg.Profile)
		settings <- sysctlRows(s, base.Host, base.Facts)
	}()
	base.Ports = ports(s, cfg, ev)
	if rs := s.World.Namespaces[0].Ruleset; rs != nil {
		base.Openings = Openings(rs)
	}
	r := &Report{
		Schema: ScanSchema, Host: s.host(), Listeners: []ListenerRow{}, Published: []PublishedRow{}, Findings: []Finding{},
		Checks: []Result{}, Incomplete: []Gap{}, Timings: map[string]float64{}, IdleAccepts: []IdleAccept{},
	}
	r.Incomplete = append(r.Incomplete, weigh(s.Gaps, base.Ports)...)
	for _, t := range s.Timings {
		r.Timings[t.What] += t.Took.Seconds()
	}
	where := scopes(base.Ports)
	for _, p := range base.Ports {
		if p.Listener == nil {
			r.Published = append(r.Published, publishedRow(p))
			continue
		}
		row := listenerRow(p)
		row.Scope = where[p]
		r.Listeners = append(r.Listeners, row)
	}
	r.Sysctls = <-settings // base is whole now
	r.Ephemeral = ephemeral(s)
	r.Profile = profileRow(s, cfg.Profile)
	type ran struct {
		result Result
		found  []Finding
	}
	all := make([]ran, len(checks))
	ForEach(len(checks), func(i int) { all[i].result, all[i].found = checks[i].run(base) })
	order := map[[2]string]int{}
	for i, c := range checks {
		result, found := all[i].result, all[i].found
		r.Checks = append(r.Checks, result)
		if result.Status == Errored {
			r.Incomplete = append(r.Incomplete, Gap{What: "check " + c.ID, Why: result.Unsure[0].Why})
		}
		for _, f := range found {
			if f.Evidence == nil {
				f.Evidence = []Evidence{}
			}
			if f.Causes == nil {
				f.Causes = []Cause{}
			}
			if f.Refs == nil {
				f.Refs = []string{}
			}
			// The same thing said twice about the same subject is one finding.
			if _, again := order[f.key()]; again {
				continue
			}
			order[f.key()] = i
			r.Findings = append(r.Findings, f)
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity.rank(), b.Severity.rank()), cmp.Compare(order[a.key()], order[b.key()]),
			strings.Compare(a.ID, b.ID), strings.Compare(a.Subject, b.Subject))
	})
	for _, w := range accept(r.Findings, cfg.Accept, s.Meta.TakenAt) {
		r.IdleAccepts = append(r.IdleAccepts, IdleAccept{w.ID, w.Subject, w.Source})
	}
	r.Verdict = verdict(r, cfg)
	return r
}

// weigh makes the gap about processes that could not be looked into a minor one
// where every listener of the report has its owner all the same: the hidden
// processes hold sockets of other hosts' namespaces, or none.
func weigh(gaps []Gap, ports []*Port) []Gap {
	out := slices.Clone(gaps)
	if slices.ContainsFunc(ports, func(p *Port) bool { return p.Listener != nil && p.Listener.Unowned == listeners.NoPrivilege }) {
		return out
	}
	for i := range out {
		if strings.HasPrefix(out[i].What, "owners: ") { // as listeners.ReadOwners names it
			out[i].Minor = true
		}
	}
	return out
}

func (s *Snapshot) host() Host {
	m := s.Meta
	h := Host{Name: Text(m.Host), OS: Text(m.OS), Kernel: m.Kernel, Machine: m.Machine, BootID: m.BootID, Uptime: m.Uptime.Seconds(),
		TakenAt: m.TakenAt.UTC(), Tool: m.Tool, UID: m.UID, Root: m.Root, Backends: []string{}}
	if !m.NSUnknown {
		first := m.FirstNS
		h.FirstNS = &first
	}
	if rs := s.World.Namespaces[0].Ruleset; rs != nil {
		h.RulesRead = true
		for _, t := range rs.Tables {
			n := 0
			for _, ch := range t.Chains {
				n += len(ch.Rules)
			}
			h.Rules += n
			if b := string(t.Backend); n > 0 && !slices.Contains(h.Backends, b) {
				h.Backends = append(h.Backends, b)
			}
		}
	}
	slices.Sort(h.Backends)
	for _, t := range s.Timings {
		h.Took += t.Took.Seconds()
	}
	return h
}

func listenerRow(p *Port) ListenerRow {
	l := p.Listener
	row := ListenerRow{
		Proto: string(l.Proto), Address: l.Local.Addr().String(), Port: l.Port(), Device: Text(l.Device.Name), NetNS: Text(p.Namespace.Name),
		Process: processRow(p.Process()), Unowned: string(l.Unowned), Sharing: l.Sharing, Exposure: p.Exposure.Who,
		Partition: p.Exposure.Rows, PartitionLeftOut: p.Exposure.LeftOut, Service: serviceRow(p.Service), Of: p,
	}
	if row.Partition == nil {
		row.Partition = []reach.Row{}
	}
	if l.Tells(listeners.FactV6Only) {
		v := l.V6Only
		row.V6Only = &v
	}
	row.UID, row.Inode = l.UID, l.Inode
	if l.Tells(listeners.FactCgroup) {
		row.Cgroup = &l.Cgroup
	}
	if l.Tells(listeners.FactMark) {
		row.Mark = &l.Mark
	}
	if l.Tells(listeners.FactLimit) {
		row.Backlog = &Backlog{l.Accept.Len, l.Accept.Limit}
	}
	if len(l.Owners) > 1 {
		for i := range l.Owners {
			row.Processes = append(row.Processes, *processRow(&l.Owners[i]))
		}
	}
	return row
}

func publishedRow(p *Port) PublishedRow {
	row := PublishedRow{Proto: string(p.Proto()), Port: p.Number(), To: p.Published.To, By: p.Published.By, Exposure: p.Exposure.Who,
		Partition: p.Exposure.Rows, Service: serviceRow(p.Service), Of: p}
	if row.Partition == nil {
		row.Partition = []reach.Row{}
	}
	return row
}

func serviceRow(s *Service) *ServiceRow {
	if s == nil {
		return nil
	}
	return &ServiceRow{s.Name, s.Audience.String(), s.Source}
}
