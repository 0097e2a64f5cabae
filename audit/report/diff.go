package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/sysctl"
)

// DiffSchema names the form of a Diff in JSON.
const DiffSchema = "hostaudit/diff/v1"

// Kept is what two reports of scan are compared by.
type Kept struct {
	Schema string `json:"schema"`
	Host   struct {
		Name    string    `json:"name"`
		TakenAt time.Time `json:"taken_at"`
	} `json:"host"`
	Listeners []keptPort `json:"listeners"`
	Published []keptPort `json:"published"`
	Findings  []struct {
		ID, Subject, Title string
		Severity           audit.Severity
		Accepted           *audit.Accepted
	} `json:"findings"`
	Sysctls []struct {
		Key         string
		Live        *string
		AfterReboot *string `json:"after_reboot"`
	} `json:"sysctls"`
	Incomplete []audit.Gap `json:"incomplete"`
}

// keptPort is a listener or a published port of a report.
type keptPort struct {
	Proto, Address, Device, NetNS string
	Port                          uint16
	Exposure                      reach.Who
	Process                       *struct{ Name string }
	LeftOut                       string `json:"partition_left_out"`
	Partition                     []struct {
		From         []netip.Prefix
		Iif          string
		ClientSees   reach.Sees                `json:"client_sees"`
		AfterConnect reach.Sees                `json:"after_connect"`
		DecidedBy    struct{ Kind reach.Kind } `json:"decided_by"`
	}
}

// ReadKept reads the JSON of a report of scan.
func ReadKept(b []byte) (*Kept, error) {
	var k Kept
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	if k.Schema != audit.ScanSchema {
		return nil, errors.New("read report: it is no report of scan in JSON")
	}
	return &k, nil
}

// Diff is what changed from one report to another.
type Diff struct {
	Schema    string          `json:"schema"`
	Before    Side            `json:"before"`
	After     Side            `json:"after"`
	Listeners []ListenerDelta `json:"listeners"`
	Findings  []FindingDelta  `json:"findings"`
	Sysctls   []SysctlDelta   `json:"sysctls"`
}

// Side is one of the two reports. What it could not read may look gone.
type Side struct {
	Host       string      `json:"host"`
	TakenAt    time.Time   `json:"taken_at"`
	Incomplete []audit.Gap `json:"incomplete"`
}

// ListenerDelta is a listener or a published port that is new, gone, or has another
// audience or another program.
type ListenerDelta struct {
	Change  string `json:"change"` // new, gone, audience, program
	Subject string `json:"subject"`
	// Program is the name of the process, where it is known.
	ProgramBefore  string    `json:"program_before,omitempty"`
	ProgramAfter   string    `json:"program_after,omitempty"`
	ExposureBefore reach.Who `json:"exposure_before,omitempty"`
	ExposureAfter  reach.Who `json:"exposure_after,omitempty"`
	Opened         []Sources `json:"opened"`
	Closed         []Sources `json:"closed"`
	Unsure         []Sources `json:"unsure"`
	// NotCompared says why the sources were not compared.
	NotCompared string `json:"not_compared,omitempty"`
}

// Sources are client addresses that come in by one interface.
type Sources struct {
	Iif    string         `json:"iif"`
	Family string         `json:"family"` // ip, ip6
	From   []netip.Prefix `json:"from"`
	// Everyone: these are all clients that there are on the interface.
	Everyone bool `json:"everyone"`
}

// FindingDelta is a finding that is new, gone, or of another severity. One that
// has become accepted is gone.
type FindingDelta struct {
	Change   string         `json:"change"` // new, gone, severity
	ID       string         `json:"id"`
	Subject  string         `json:"subject"`
	Severity audit.Severity `json:"severity"`
	Title    string         `json:"title"`
}

// SysctlDelta is a setting whose value changed, or what a reboot makes of it.
type SysctlDelta struct {
	Key string `json:"key"`
	// Before and After are values in force; null: not there or not read.
	Before *string `json:"before"`
	After  *string `json:"after"`
	// Null: cannot be told.
	RebootBefore *string `json:"reboot_before"`
	RebootAfter  *string `json:"reboot_after"`
}

// Compare says what changed. It is pure, and sorted by what it names.
func Compare(a, b *Kept) *Diff {
	d := &Diff{Schema: DiffSchema, Before: a.side(), After: b.side(), Listeners: []ListenerDelta{}, Findings: []FindingDelta{}, Sysctls: []SysctlDelta{}}
	was, is := a.ports(), b.ports()
	for _, s := range names(was, is) {
		if delta, changed := comparePorts(was[s], is[s]); changed {
			delta.Subject = s
			d.Listeners = append(d.Listeners, delta)
		}
	}
	had, has := a.findings(), b.findings()
	for _, k := range names(had, has) {
		x, before := had[k]
		y, after := has[k]
		switch {
		case !before:
			y.Change = "new"
			d.Findings = append(d.Findings, y)
		case !after:
			x.Change = "gone"
			d.Findings = append(d.Findings, x)
		case x.Severity != y.Severity:
			y.Change = "severity"
			d.Findings = append(d.Findings, y)
		}
	}
	d.Sysctls = append(d.Sysctls, compareSysctls(a, b)...)
	return d
}

// compareSysctls leaves out what moves by itself: keys that count something.
func compareSysctls(a, b *Kept) []SysctlDelta {
	counts := map[string]bool{}
	for _, e := range sysctl.Catalogue() {
		counts[string(e.Key)] = e.ReadOnly && e.Class == sysctl.ClassInfo
	}
	all := map[string]SysctlDelta{}
	for _, s := range a.Sysctls {
		all[s.Key] = SysctlDelta{Key: s.Key, Before: s.Live, RebootBefore: s.AfterReboot}
	}
	for _, s := range b.Sysctls {
		d := all[s.Key]
		d.Key, d.After, d.RebootAfter = s.Key, s.Live, s.AfterReboot
		all[s.Key] = d
	}
	var out []SysctlDelta
	for _, k := range slices.Sorted(maps.Keys(all)) {
		d := all[k]
		live := (d.Before == nil) != (d.After == nil) || d.Before != nil && *d.Before != *d.After
		boot := d.RebootBefore != nil && d.RebootAfter != nil && *d.RebootBefore != *d.RebootAfter
		if (live || boot) && !counts[k] {
			out = append(out, d)
		}
	}
	return out
}

// Empty says whether nothing changed.
func (d *Diff) Empty() bool { return len(d.Listeners)+len(d.Findings)+len(d.Sysctls) == 0 }

// Reaches says whether a finding is new, or of a new severity, as loud as s.
func (d *Diff) Reaches(s audit.Severity) bool {
	return s != "" && slices.ContainsFunc(d.Findings, func(f FindingDelta) bool { return f.Change != "gone" && f.Severity.AtLeast(s) })
}

func (k *Kept) side() Side {
	return Side{Host: k.Host.Name, TakenAt: k.Host.TakenAt, Incomplete: append([]audit.Gap{}, k.Incomplete...)}
}

// side is one interface and family.
type side struct{ iif, family string }

// audience is who gets in by one side, and which clients there are.
type audience struct{ in, unsure, clients firewall.Ranges }

// port is a listener as it is compared; sockets that share an address and a port
// are one.
type port struct {
	program string
	who     reach.Who
	leftOut string
	sides   map[side]audience
}

// comparePorts compares a port before and after; nil is none.
func comparePorts(a, b *port) (d ListenerDelta, changed bool) {
	d = ListenerDelta{Change: "audience", Opened: []Sources{}, Closed: []Sources{}, Unsure: []Sources{}}
	switch {
	case a == nil:
		a, d.Change = &port{}, "new"
	case b == nil:
		b, d.Change = &port{}, "gone"
	}
	d.ProgramBefore, d.ProgramAfter, d.ExposureBefore, d.ExposureAfter = a.program, b.program, a.who, b.who
	if d.NotCompared = a.leftOut; b.leftOut != "" {
		d.NotCompared = b.leftOut
	}
	if d.NotCompared != "" {
		d.NotCompared = "too many sources to list: " + d.NotCompared
	} else {
		sides := map[side]bool{}
		for _, x := range []*port{a, b} {
			for s := range x.sides {
				sides[s] = true
			}
		}
		for _, s := range slices.SortedFunc(maps.Keys(sides), func(x, y side) int { return cmp.Or(cmp.Compare(x.iif, y.iif), cmp.Compare(x.family, y.family)) }) {
			x, y := a.sides[s], b.sides[s]
			clients := x.clients.Union(y.clients)
			d.Opened = s.add(d.Opened, y.in.Minus(x.in).Minus(x.unsure), clients)
			d.Closed = s.add(d.Closed, x.in.Minus(y.in).Minus(y.unsure), clients)
			d.Unsure = s.add(d.Unsure, x.unsure.Minus(y.unsure).Union(y.unsure.Minus(x.unsure)), clients)
		}
	}
	switch {
	case d.Change != "audience", len(d.Opened)+len(d.Closed)+len(d.Unsure) > 0, a.who != b.who:
		return d, true
	case a.program != b.program && a.program != "" && b.program != "":
		d.Change = "program"
		return d, true
	}
	return d, false
}

// add appends a part of the sources, if there is one.
func (s side) add(all []Sources, part, clients firewall.Ranges) []Sources {
	if part.Empty() {
		return all
	}
	f := firewall.IPv4
	if s.family == "ip6" {
		f = firewall.IPv6
	}
	return append(all, Sources{Iif: s.iif, Family: s.family, From: part.AddrPrefixes(f), Everyone: !clients.Empty() && clients.Minus(part).Empty()})
}

func (k *Kept) ports() map[string]*port {
	all := map[string]*port{}
	for i := range k.Listeners {
		l := &k.Listeners[i]
		s := l.Proto + " " + hostPort(l.Address, l.Port)
		if l.Device != "" {
			s += " on " + l.Device
		}
		if l.NetNS != "" {
			s += " in " + l.NetNS
		}
		all[s] = l.port()
	}
	for i := range k.Published {
		l := &k.Published[i]
		all[fmt.Sprintf("%s *:%d (published)", l.Proto, l.Port)] = l.port()
	}
	return all
}

func (l *keptPort) port() *port {
	p := &port{who: l.Exposure, leftOut: l.LeftOut, sides: map[side]audience{}}
	if l.Process != nil {
		p.program = l.Process.Name
	}
	for _, r := range l.Partition {
		for _, from := range r.From {
			s := side{r.Iif, "ip"}
			if from.Addr().Is6() {
				s.family = "ip6"
			}
			a, of := p.sides[s], ranges([]netip.Prefix{from})
			switch {
			case r.ClientSees == reach.Connected && r.AfterConnect == "":
				a.in = a.in.Union(of)
			case r.ClientSees == reach.Depends || r.AfterConnect == reach.Depends:
				a.unsure = a.unsure.Union(of)
			}
			if r.DecidedBy.Kind != reach.ByRoute && r.DecidedBy.Kind != reach.ByRPFilter && audit.HasClients([]netip.Prefix{from}) {
				a.clients = a.clients.Union(of)
			}
			p.sides[s] = a
		}
	}
	return p
}

func (k *Kept) findings() map[string]FindingDelta {
	all := map[string]FindingDelta{}
	for _, f := range k.Findings {
		if f.Accepted == nil {
			all[f.ID+"\x00"+f.Subject] = FindingDelta{ID: f.ID, Subject: f.Subject, Severity: f.Severity, Title: f.Title}
		}
	}
	return all
}

// names lists the keys of both, sorted.
func names[V any](a, b map[string]V) []string {
	var all []string
	for k := range names2(a, b) {
		all = append(all, k)
	}
	slices.SortFunc(all, cmp.Compare[string])
	return all
}

func names2[V any](a, b map[string]V) map[string]bool {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}
