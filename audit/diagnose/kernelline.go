package diagnose

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// oomHunt is what the line before a kill says.
type oomHunt struct {
	pid            int
	group, limited string
}

var (
	// A name that a process gave itself has at most 15 bytes, any bytes, and stands
	// where these patterns have (.{0,15}): what it imitates is shorter than what
	// follows it.
	killedLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?s)^(?:Memory cgroup out of memory: |Out of memory(?: \(oom_kill_allocating_task\))?: )?Killed process ([0-9]{1,10}) (?:\((.{0,15})\) total-vm:|\((.{0,15})\),? )`)
	})
	faultLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?s)^(.{0,15})\[([0-9]{1,10})\]: segfault at [0-9a-f]+ ip [0-9a-f]+ sp `)
	})
	trapLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?s)^traps: (.{0,15})\[([0-9]{1,10})\] (?:general protection fault|trap [a-z ]+|[a-z ]+ exception) ip:[0-9a-f]+ sp:`)
	})
	floodLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:TCP: )?(?:request_sock_[A-Za-z0-9_]+: )?[Pp]ossible SYN flooding on port (\S{1,60})\. (Sending cookies|Dropping request)\.`)
	})
	fullLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:nf_conntrack: )?(?:nf_conntrack|ip_conntrack): table full(?: in netns ([0-9]{1,20}))?, dropping packet`)
	})
	neighLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:neighbour: )?(?:arp_cache|ndisc_cache): neighbor table overflow!?$|^(?:neighbour|Neighbour) table overflow`)
	})
)

// line reads one line of the kernel; ok is false for one that tells nothing here.
func (p *kernelParser) line(s string) (e KernelEvent, ok bool) {
	switch {
	case strings.HasPrefix(s, "oom-kill:constraint="):
		p.hunt = oomKill(s)
	case strings.HasPrefix(s, "Tasks in ") && strings.HasSuffix(s, " are going to be killed due to memory.oom.group set"):
		p.group = strings.TrimSuffix(strings.TrimPrefix(s, "Tasks in "), " are going to be killed due to memory.oom.group set")
	case strings.Contains(s, "Killed process "):
		return p.killed(s)
	case strings.Contains(s, "segfault at "), strings.HasPrefix(s, "traps: "):
		m := faultLine().FindStringSubmatch(s)
		if m == nil {
			m = trapLine().FindStringSubmatch(s)
		}
		if m != nil {
			pid, err := strconv.Atoi(m[2])
			return KernelEvent{Kind: KernelFault, PID: pid, Comm: m[1]}, err == nil
		}
	case strings.Contains(s, "ossible SYN flooding on port "):
		if m := floodLine().FindStringSubmatch(s); m != nil {
			port, ok := floodPort(m[1])
			return KernelEvent{Kind: KernelSynFlood, Port: port, Dropped: m[2] == "Dropping request"}, ok
		}
	case strings.Contains(s, "conntrack: table full"):
		if m := fullLine().FindStringSubmatch(s); m != nil {
			e := KernelEvent{Kind: KernelConntrack}
			var err error
			if m[1] != "" {
				e.Namespace, err = strconv.ParseUint(m[1], 10, 64)
			}
			return e, err == nil
		}
	case s == "TCP: out of memory -- consider tuning tcp_mem":
		return KernelEvent{Kind: KernelTCPMemory}, true
	case strings.Contains(s, "table overflow") && neighLine().MatchString(s):
		return KernelEvent{Kind: KernelNeighbour}, true
	}
	return e, false
}

// killed reads "Killed process PID (NAME) …".
func (p *kernelParser) killed(s string) (KernelEvent, bool) {
	m := killedLine().FindStringSubmatch(s)
	if m == nil {
		return KernelEvent{}, false
	}
	pid, err := strconv.Atoi(m[1])
	if err != nil {
		return KernelEvent{}, false
	}
	e := KernelEvent{Kind: KernelOOM, PID: pid, Comm: m[2] + m[3]}
	switch {
	case p.hunt.pid == pid:
		e.Group, e.Limited = p.hunt.group, p.hunt.limited
		p.group = ""
	case p.group != "" && strings.HasPrefix(s, "Memory cgroup"):
		e.Group, e.Limited = p.group, p.group
	}
	return e, true
}

// oomKill reads the line that dump_oom_summary (mm/oom_kill.c) writes:
//
//	oom-kill:constraint=…,nodemask=…,cpuset=…,mems_allowed=…{,oom_memcg=GROUP|,global_oom},task_memcg=GROUP,task=NAME,pid=N,uid=N
//
// Names of groups and of the process may hold any of its words: where one stands
// twice nothing is taken from the line.
func oomKill(s string) oomHunt {
	const task, memcg, limit = ",task=", ",task_memcg=", ",oom_memcg="
	i, j := strings.Index(s, memcg), strings.LastIndex(s, ",pid=")
	if i < 0 || j < i || strings.Count(s, memcg) != 1 || strings.Count(s, task) != 1 || strings.Count(s, limit) > 1 {
		return oomHunt{}
	}
	group, _, ok := strings.Cut(s[i+len(memcg):], task)
	number, _, _ := strings.Cut(s[j+len(",pid="):], ",")
	pid, err := strconv.Atoi(number)
	if !ok || err != nil || pid <= 0 {
		return oomHunt{}
	}
	h := oomHunt{pid: pid, group: group}
	if _, after, ok := strings.Cut(s[:i], limit); ok {
		h.limited = after
	}
	return h
}

// floodPort reads "8080", "0.0.0.0:8080" or "[::]:8080" (since Linux 6.2).
func floodPort(s string) (uint16, bool) {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		return uint16(n), n > 0
	}
	a, err := netip.ParseAddrPort(s)
	return a.Port(), err == nil && a.Port() > 0
}
