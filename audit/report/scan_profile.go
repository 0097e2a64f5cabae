package report

import (
	"fmt"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// profile shows what frameworks ask for on such a server, each with the verdict.
func (p *printer) profile(r *audit.Report) {
	if r.Profile == nil || len(r.Profile.Asked) == 0 {
		return
	}
	p.heading("WHAT FRAMEWORKS ASK FOR")
	p.text(dim, "    ", "    ", "profile "+r.Profile.Name+": "+r.Profile.Title)
	by := ""
	for _, a := range r.Profile.Asked {
		if a.By != by {
			by = a.By
			p.text(dim, "    ", "    ", by)
		}
		here := "no such key here"
		switch {
		case a.Met != nil && *a.Met:
			here = "in force"
		case a.Live != nil:
			here = "here: " + *a.Live
		case a.Key == "limit.nofile":
			here = "see the limits of each process"
		}
		p.text(normal, "    ", "      ", fmt.Sprintf("%s = %s (%s)", a.Key, a.Asked, here))
		p.text(normal, "      ", "      ", verdictWords(a.Verdict)+": "+a.Why)
	}
}

// verdictWords says what to do about a value that somebody asks for.
func verdictWords(v sysctl.Verdict) string {
	switch v {
	case sysctl.Harmful, sysctl.Wrong:
		return "do not"
	case sysctl.Advice:
		return "only with evidence"
	default:
		return "needless"
	}
}

// shownDestinations is how many destinations the report names; `hostaudit ports`
// lists all.
const shownDestinations = 3

// headRoom says how many ports each of the busiest destinations has left, and
// what decides about those in TIME_WAIT.
func (p *printer) headRoom(r *audit.Report) {
	live := map[string]string{}
	for _, s := range r.Sysctls {
		if s.Live != nil {
			live[string(s.Key)] = *s.Live
		}
	}
	reserved := live["net.ipv4.ip_local_reserved_ports"]
	if reserved == "" {
		reserved = "none"
	}
	p.text(normal, "    ", "      ", "reserved (net.ipv4.ip_local_reserved_ports): "+reserved)
	wait := "TIME_WAIT lasts 60 s, which no setting changes"
	if n := live["net.ipv4.tcp_max_tw_buckets"]; n != "" {
		wait += fmt.Sprintf("; at most %s sockets (net.ipv4.tcp_max_tw_buckets)", n)
	}
	if live["net.ipv4.tcp_timestamps"] == "0" {
		wait += "; timestamps are off (net.ipv4.tcp_timestamps), so nothing is taken over"
	} else if ms := live["net.ipv4.tcp_tw_reuse_delay"]; ms != "" {
		wait += fmt.Sprintf("; where tcp_tw_reuse says so a port is taken over from %s ms of it on (net.ipv4.tcp_tw_reuse_delay), with timestamps, which are on", ms)
	}
	p.text(normal, "    ", "      ", wait)
	e := r.Ephemeral
	if e == nil {
		return
	}
	for i, d := range e.Destinations[:min(len(e.Destinations), shownDestinations)] {
		name := "busiest: "
		if i > 0 {
			name = "then: "
		}
		p.text(normal, "    ", "      ", fmt.Sprintf("%s%s %s → %s uses %s of %s ports (%s), %s of them in TIME_WAIT; %s left", name, d.Proto, d.From,
			hostPort(d.To.String(), d.Port), number(int(d.Held)), number(e.Usable-e.Bound), percent(float64(d.Held)/float64(max(e.Usable-e.Bound, 1))), number(int(min(d.TimeWait, d.Held))),
			number(max(e.Usable-e.Bound-int(d.Held), 0))))
	}
}
