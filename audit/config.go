package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/sysctl"
)

// Config is what the operator has told the audit: what is meant to be served,
// to whom, and which findings are accepted.
type Config struct {
	Services []Service
	Accept   []Waiver
	// Profile is what kind of server this is; the zero value is none in particular.
	Profile sysctl.Profile
	// NoLocalRows leaves the partitions of the host's own clients out where others
	// decide who can connect: a report that does not show them need not wait for them.
	NoLocalRows bool
}

// Service is something that is meant to be served.
type Service struct {
	Name     string
	Proto    string // tcp or udp
	Port     uint16
	Audience Audience
	// Protocol is what is spoken on the port (websocket, http, …), "" for not told.
	Protocol string
	// Source is where it was configured, "hostaudit.yaml:4".
	Source string
}

// Subject names the service in findings that have no listener to name.
func (s Service) Subject() string { return fmt.Sprintf("%s %d", s.Proto, s.Port) }

// AudienceKind tells the kinds of audience apart.
type AudienceKind uint8

// The kinds of audience.
const (
	ForEveryone AudienceKind = iota
	ForHost                  // this host only
	ForNetworks
)

// Audience is who is meant to reach a service.
type Audience struct {
	Kind     AudienceKind
	Networks []netip.Prefix // of ForNetworks, masked
}

// String is how the configuration spells it.
func (a Audience) String() string {
	switch a.Kind {
	case ForEveryone:
		return "everyone"
	case ForHost:
		return "host"
	}
	parts := make([]string, len(a.Networks))
	for i, p := range a.Networks {
		parts[i] = p.String()
	}
	return strings.Join(parts, ", ")
}

// Covers says whether a prefix of sources belongs to the audience as a whole.
func (a Audience) Covers(p netip.Prefix) bool {
	switch a.Kind {
	case ForEveryone:
		return true
	case ForHost:
		return false
	}
	return slices.ContainsFunc(a.Networks, func(n netip.Prefix) bool {
		return n.Bits() <= p.Bits() && n.Contains(p.Addr())
	})
}

// Overlap cuts a prefix of sources down to the part that belongs to the audience.
func (a Audience) Overlap(p netip.Prefix) []netip.Prefix {
	switch a.Kind {
	case ForEveryone:
		return []netip.Prefix{p}
	case ForHost:
		return nil
	}
	if a.Covers(p) {
		return []netip.Prefix{p}
	}
	var out []netip.Prefix
	for _, n := range a.Networks {
		if p.Contains(n.Addr()) && p.Bits() <= n.Bits() {
			out = append(out, n)
		}
	}
	return out
}

// Waiver is one finding that the operator has weighed and accepts.
type Waiver struct {
	ID, Subject, Reason string
	// Until is the last day on which it holds; zero for no end.
	Until  time.Time
	Source string
}

// DateForm is how a day is written.
const DateForm = time.DateOnly

// covers says whether the waiver names the finding.
func (w Waiver) covers(f *Finding) bool { return w.ID == f.ID && w.Subject == f.Subject }

// expired says whether the waiver's last day is over (in UTC).
func (w Waiver) expired(now time.Time) bool {
	return !w.Until.IsZero() && !now.Before(w.Until.AddDate(0, 0, 1))
}

func (w Waiver) accepted() *Accepted {
	a := &Accepted{Reason: w.Reason, Source: w.Source}
	if !w.Until.IsZero() {
		a.Until = w.Until.Format(DateForm)
	}
	return a
}
