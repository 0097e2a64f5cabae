package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/audit/reach"
)

// blockedIDs are the findings that say that a port is not reached as it is
// meant to be.
var blockedIDs = []string{
	"listener.loopback-only", "listener.one-address-only", "listener.ipv6-only", "listener.address-missing", "listener.interface-missing", "listener.queue-full",
	"firewall.port-blocked", "service.audience-blocked", "service.not-listening",
}

// verdict is the answer in one line.
func verdict(r *Report, cfg *Config) string {
	var parts []string
	if n := len(cfg.Services); n > 0 {
		parts = append(parts, servicesVerdict(r, cfg))
	} else if blocked := r.blocked(); len(blocked) > 0 {
		parts = append(parts, fmt.Sprintf("%s cannot be reached as meant: %s", plural(len(blocked), "port", "ports"), strings.Join(blocked, ", ")))
	}
	count := map[Severity]int{}
	accepted := 0
	for _, f := range r.Findings {
		if f.Accepted != nil {
			accepted++
			continue
		}
		count[f.Severity]++
	}
	var words []string
	if n := count[Critical]; n > 0 {
		words = append(words, fmt.Sprintf("%d critical", n))
	}
	if n := count[Warning]; n > 0 {
		words = append(words, plural(n, "warning", "warnings"))
	}
	if n := count[Info]; n > 0 && len(words) == 0 {
		words = append(words, plural(n, "note", "notes"))
	}
	if len(parts) == 0 {
		parts = append(parts, r.openness())
	}
	if len(words) == 0 && len(cfg.Services) == 0 {
		words = append(words, "no findings")
	}
	if len(words) > 0 {
		parts = append(parts, strings.Join(words, ", "))
	}
	if accepted > 0 {
		parts = append(parts, fmt.Sprintf("%d accepted", accepted))
	}
	if !r.Complete() {
		parts = append(parts, "not everything could be read")
	}
	s := strings.Join(parts, "; ") + "."
	return strings.ToUpper(s[:1]) + s[1:]
}

// openness counts the listeners by who can reach them.
func (r *Report) openness() string {
	count := map[reach.Who]int{}
	apart := 0
	for i := range r.Listeners {
		if of := r.Listeners[i].Of; of != nil && of.Apart {
			apart++
			continue
		}
		count[r.Listeners[i].Exposure]++
	}
	for i := range r.Published {
		count[r.Published[i].Exposure]++
	}
	n := len(r.Listeners) + len(r.Published) - apart
	if n == 0 {
		return "nothing listens"
	}
	var open []string
	word := "open "
	for _, w := range []struct {
		who   reach.Who
		words string
	}{{reach.Everyone, "everyone"}, {reach.Some, "some"}, {reach.HostOnly, "this host only"}, {reach.Nobody, "nobody"}} {
		if c := count[w.who]; c > 0 {
			open = append(open, fmt.Sprintf("%d %sto %s", c, word, w.words))
			word = ""
		}
	}
	if c := count[reach.Uncertain]; c > 0 {
		open = append(open, fmt.Sprintf("of %d it depends", c))
	}
	return plural(n, "listener", "listeners") + ": " + strings.Join(open, ", ")
}

// blocked lists the ports that are not reached as evidence says they are meant to be.
func (r *Report) blocked() []string {
	var out []string
	for _, f := range r.Counting() {
		if f.Severity.AtLeast(Warning) && slices.Contains(blockedIDs, f.ID) && !slices.Contains(out, f.Subject) {
			out = append(out, f.Subject)
		}
	}
	return out
}

// servicesVerdict counts the configured services that not all of their audience
// can reach, or others as well.
func servicesVerdict(r *Report, cfg *Config) string {
	var blocked, open []string
	unsure := 0
	for _, svc := range cfg.Services {
		isBlocked, isOpen := false, false
		for _, f := range r.Counting() {
			if f.Severity == Critical && r.about(&f, svc) {
				isBlocked = isBlocked || slices.Contains(blockedIDs, f.ID)
				isOpen = isOpen || f.ID == "service.audience-exceeded"
			}
		}
		switch {
		case isBlocked:
			blocked = append(blocked, fmt.Sprint(svc.Port))
		case isOpen:
			open = append(open, fmt.Sprint(svc.Port))
		case r.uncertain(svc):
			unsure++
		}
	}
	n := len(cfg.Services)
	var parts []string
	if len(blocked) > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s cannot be reached as meant: %s", len(blocked), plural(n, "service", "services"), strings.Join(blocked, ", ")))
	}
	if len(open) > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s can be reached by others than meant: %s", len(open), plural(n, "service", "services"), strings.Join(open, ", ")))
	}
	if unsure > 0 {
		parts = append(parts, fmt.Sprintf("of %d of %s it cannot be told who reaches it", unsure, plural(n, "service", "services")))
	}
	if len(parts) == 0 {
		if n == 1 {
			return "the configured service is reached as meant"
		}
		return fmt.Sprintf("all %d configured services are reached as meant", n)
	}
	return strings.Join(parts, "; ")
}

// about says whether a finding is about a configured service.
func (r *Report) about(f *Finding, svc Service) bool {
	return f.Subject == svc.Subject() || slices.ContainsFunc(r.portsOf(svc), func(p *Port) bool { return p.Subject() == f.Subject })
}

func (r *Report) uncertain(svc Service) bool {
	return slices.ContainsFunc(r.portsOf(svc), func(p *Port) bool { return p.Exposure.Who == reach.Uncertain })
}

func (r *Report) portsOf(svc Service) []*Port {
	var out []*Port
	add := func(p *Port) {
		if p.Service != nil && p.Service.Port == svc.Port && p.Service.Proto == svc.Proto {
			out = append(out, p)
		}
	}
	for i := range r.Listeners {
		add(r.Listeners[i].Of)
	}
	for i := range r.Published {
		add(r.Published[i].Of)
	}
	return out
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
