package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/firewall"
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
	Listeners []struct {
		Proto, Address, Device, NetNS string
		Port                          uint16
		Partition                     []struct {
			From         []netip.Prefix
			Iif          string
			ClientSees   reach.Sees `json:"client_sees"`
			AfterConnect reach.Sees `json:"after_connect"`
		}
	} `json:"listeners"`
	Findings []struct {
		ID, Subject, Title string
		Severity           audit.Severity
		Accepted           *audit.Accepted
	} `json:"findings"`
	Sysctls []struct {
		Key  string
		Live *string
	} `json:"sysctls"`
	Incomplete []audit.Gap `json:"incomplete"`
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

// ListenerDelta is a listener that is new, gone, or has another audience: sources
// by interface, "eth0: 10.0.0.0/8", that got in and did not before, and the other
// way round. Unsure are sources of which one of the reports cannot tell.
type ListenerDelta struct {
	Change  string   `json:"change"` // new, gone, audience
	Subject string   `json:"subject"`
	Opened  []string `json:"opened"`
	Closed  []string `json:"closed"`
	Unsure  []string `json:"unsure"`
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

// SysctlDelta is a live value that changed; null: not there or not read.
type SysctlDelta struct {
	Key    string  `json:"key"`
	Before *string `json:"before"`
	After  *string `json:"after"`
}

// Compare says what changed. It is pure, and sorted by what it names.
func Compare(a, b *Kept) *Diff {
	d := &Diff{Schema: DiffSchema, Before: a.side(), After: b.side(), Listeners: []ListenerDelta{}, Findings: []FindingDelta{}, Sysctls: []SysctlDelta{}}
	was, is := a.audiences(), b.audiences()
	for _, s := range names(was, is) {
		w, before := was[s]
		i, after := is[s]
		delta := ListenerDelta{Change: "audience", Subject: s}
		switch {
		case !before:
			delta.Change = "new"
		case !after:
			delta.Change = "gone"
		}
		var sides []string
		for side := range names2(w, i) {
			sides = append(sides, side)
		}
		slices.Sort(sides)
		for _, side := range sides {
			x, y := w[side], i[side]
			delta.Opened = append(delta.Opened, part(side, y.in.Minus(x.in).Minus(x.unsure))...)
			delta.Closed = append(delta.Closed, part(side, x.in.Minus(y.in).Minus(y.unsure))...)
			delta.Unsure = append(delta.Unsure, part(side, x.unsure.Minus(y.unsure).Union(y.unsure.Minus(x.unsure)))...)
		}
		if delta.Change != "audience" || len(delta.Opened)+len(delta.Closed)+len(delta.Unsure) > 0 {
			delta.Opened, delta.Closed, delta.Unsure = list(delta.Opened), list(delta.Closed), list(delta.Unsure)
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
	old, now := map[string]*string{}, map[string]*string{}
	for _, s := range a.Sysctls {
		old[s.Key] = s.Live
	}
	for _, s := range b.Sysctls {
		now[s.Key] = s.Live
	}
	for _, k := range names(old, now) {
		if x, y := old[k], now[k]; (x == nil) != (y == nil) || x != nil && *x != *y {
			d.Sysctls = append(d.Sysctls, SysctlDelta{k, x, y})
		}
	}
	return d
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

// audience is who gets in by one interface in one family.
type audience struct {
	in, unsure firewall.Ranges
}

func part(side string, r firewall.Ranges) []string {
	if r.Empty() {
		return nil
	}
	iif, family, _ := strings.Cut(side, "\x00")
	f := firewall.IPv4
	if family == "6" {
		f = firewall.IPv6
	}
	return []string{iif + ": " + networks(r.AddrPrefixes(f))}
}

// audiences lists who reaches each listener, by interface and family. Sockets
// that share an address and a port are one.
func (k *Kept) audiences() map[string]map[string]audience {
	all := map[string]map[string]audience{}
	for _, l := range k.Listeners {
		s := l.Proto + " " + hostPort(l.Address, l.Port)
		if l.Device != "" {
			s += " on " + l.Device
		}
		if l.NetNS != "" {
			s += " in " + l.NetNS
		}
		sides := map[string]audience{}
		for _, r := range l.Partition {
			for _, p := range r.From {
				side := r.Iif + "\x004"
				if p.Addr().Is6() {
					side = r.Iif + "\x006"
				}
				a := sides[side]
				switch {
				case r.ClientSees == reach.Connected && r.AfterConnect == "":
					a.in = a.in.Union(ranges([]netip.Prefix{p}))
				case r.ClientSees == reach.Depends || r.AfterConnect == reach.Depends:
					a.unsure = a.unsure.Union(ranges([]netip.Prefix{p}))
				}
				sides[side] = a
			}
		}
		all[s] = sides
	}
	return all
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

func list(s []string) []string { return append([]string{}, s...) }

// DiffText writes a Diff for people.
func DiffText(w io.Writer, d *Diff, o Options) error {
	p := newPrinter(o)
	p.text(dim, "", "  ", fmt.Sprintf("%s · from %s to %s", d.After.Host, d.Before.TakenAt.UTC().Format(time.RFC3339), d.After.TakenAt.UTC().Format(time.RFC3339)))
	if d.Before.Host != d.After.Host {
		p.text(yellow, "", "  ", fmt.Sprintf("the earlier report is of another host: %s", d.Before.Host))
	}
	for _, f := range d.Findings {
		s := red
		if f.Change == "gone" {
			s = green
		}
		p.text(s, "", "  ", fmt.Sprintf("finding %s: %s %s (%s, %s)", f.Change, f.Severity, f.Title, f.ID, f.Subject))
	}
	for _, l := range d.Listeners {
		head := "listener " + l.Change + ": " + l.Subject
		if l.Change == "audience" {
			head = "audience of " + l.Subject
		}
		p.text(normal, "", "  ", head)
		for _, part := range []struct {
			style style
			word  string
			of    []string
		}{{red, "now gets in", l.Opened}, {green, "no longer gets in", l.Closed}, {yellow, "cannot be told on one side", l.Unsure}} {
			for _, s := range part.of {
				p.text(part.style, "  ", "    ", part.word+" by "+s)
			}
		}
	}
	for _, s := range d.Sysctls {
		p.text(normal, "", "  ", fmt.Sprintf("%s: %s, was %s", s.Key, valueWord(s.After), valueWord(s.Before)))
	}
	if d.Empty() {
		p.text(green, "", "  ", "Nothing changed.")
	}
	for _, g := range d.After.Incomplete {
		p.text(yellow, "", "  ", "could not be read now, so it may look gone: "+g.What+": "+g.Why)
	}
	for _, g := range d.Before.Incomplete {
		p.text(yellow, "", "  ", "could not be read then, so it may look new: "+g.What+": "+g.Why)
	}
	return p.flush(w)
}

func valueWord(s *string) string {
	if s == nil {
		return "absent or not read"
	}
	return *s
}
