package sysctl

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

const remedyNoFile = "raise LimitNOFILE= in the unit of the service (or minfds of the supervisor, rlimit_files of php-fpm, the container's ulimit) and restart it; " +
	"/etc/security/limits.conf and ulimit in /etc/profile do not reach services"

// descriptorEntries bound how many connections a process and a machine can hold open.
func descriptorEntries() []*Entry {
	return []*Entry{
		{
			Key: keyFileMax, Title: "open files of the whole machine",
			Meaning: "systemd 240 and newer set it to the largest number there is, so every line in a file that names a number lowers it. At the bound " +
				"nothing can be opened and no connection accepted by programs without CAP_SYS_ADMIN.",
			Unit: UnitCount, Shape: ShapeInt, Max: number(math.MaxInt64), DefaultNote: "9223372036854775807 under systemd 240 and newer, else one for each 10 KiB of memory",
			Scope: ScopeHost, Class: ClassEvidence, LargerIsFine: true, ReadOnly: true,
			Advice:  "no line at all under systemd 240 and newer",
			Decides: []string{"open files (fs.file-nr)"}, Rule: judgeFileMax,
			Refs: []string{refFsSysctl, "https://github.com/NixOS/nixpkgs/issues/67970"},
		},
		{
			Key: "fs.file-nr", Title: "open files now",
			Meaning: "Allocated, free (always 0), and the bound.",
			Unit:    UnitCount, Shape: ShapeInts, Fields: 3, Scope: ScopeHost, Class: ClassInfo, ReadOnly: true, Refs: []string{refFsSysctl},
		},
		{
			Key: keyNrOpen, Title: "highest limit of open files a process can be given",
			Meaning: "Caps the hard RLIMIT_NOFILE. A unit that asks for more fails to start or gets less.",
			Unit:    UnitCount, Shape: ShapeInt, Default: "1048576", DefaultNote: "systemd 240 and newer raise it as far as it goes", Scope: ScopeHost,
			Advice: "not below the largest LimitNOFILE= of a unit",
			Class:  ClassWrong, LargerIsFine: true, ReadOnly: true, Decides: []string{"LimitNOFILE= of units"}, Rule: judgeNrOpen, Refs: []string{refFsSysctl},
		},
		{
			Key: "limit.nofile", Title: "open files of a process",
			Meaning: "RLIMIT_NOFILE of the process that listens, and of its siblings: every connection is a descriptor. When they are used up, " +
				"connect() still succeeds and nothing answers: the connection waits in the accept queue. Read from /proc/PID/limits, not from " +
				"limits.conf, which services never see.",
			Unit: UnitCount, Shape: ShapeInt, Scope: ScopeProcess, Class: ClassEvidence, LargerIsFine: true, ReadOnly: true,
			Advice:  "above the connections that the service holds at its busiest, in its unit: from 80 % in use (profile database 70 %, websocket 60 %)",
			Decides: []string{"open descriptors of each listening process against its limit"}, Rule: judgeNoFile,
			Refs: []string{"https://man7.org/linux/man-pages/man5/systemd.exec.5.html", "https://github.com/systemd/systemd/issues/25478"},
		},
		{
			Key: "limit.select-loop", Title: "1024 descriptors of an event loop on select()",
			Meaning: "Workerman without the event or ev extension waits with select(2), which knows 1024 descriptors and no more, whatever the limits say.",
			Unit:    UnitCount, Shape: ShapeInt, Default: "1024", Scope: ScopeProcess, Class: ClassEvidence, ReadOnly: true,
			Advice:  "an event loop on epoll (PHP: the event or ev extension)",
			Decides: []string{"open descriptors", "the process waits in select(2) (/proc/PID/syscall)"}, Rule: judgeSelectLoop,
			Refs: []string{"https://man7.org/linux/man-pages/man2/select.2.html"},
		},
		{
			Key: "limit.tasks", Title: "processes and threads of a service",
			Meaning: "pids.max of the service's control group (TasksMax= of its unit, --pids-limit of a container), kernel.threads-max and " +
				"kernel.pid_max. A fork that fails looks like a service that does not listen, or that answers only some of its clients.",
			Unit: UnitCount, Shape: ShapeInt, Scope: ScopeProcess, Class: ClassEvidence, ReadOnly: true, Decides: []string{"pids.max"},
			Advice: "about twice what the service needs at its busiest (`systemctl show -p TasksCurrent UNIT`); infinity where its number of processes is bounded by its own configuration",
			Rule: func(_ Key, f *Facts) []Judgement {
				return judgeGroups(f, "pids.max", Judgement{
					Verdict: Advice, Finding: "limits.tasks-exhausted", Severity: Warning,
					Why:    "could not start further processes or threads because its control group is full",
					Remedy: "raise TasksMax= in the unit (`systemctl edit`), or the container's --pids-limit; find out whether it leaks processes",
				})
			},
			Refs: []string{"https://docs.kernel.org/admin-guide/cgroup-v2.html", "https://man7.org/linux/man-pages/man5/systemd.resource-control.5.html"},
		},
		{
			Key: "limit.memory", Title: "memory of a service",
			Meaning: "memory.max of the service's control group (MemoryMax= of its unit, --memory of a container). A process that is killed at the " +
				"limit takes its connections along and, until it is started again, the port refuses: to clients it looks like \"not listening\".",
			Unit: UnitBytes, Shape: ShapeInt, Scope: ScopeProcess, Class: ClassEvidence, ReadOnly: true, Decides: []string{"memory.oom_kill"},
			Advice: "what the service needs at its busiest (`systemctl show -p MemoryPeak UNIT`) and room to spare; no number helps a program that leaks",
			Rule: func(_ Key, f *Facts) []Judgement {
				return judgeGroups(f, "memory.oom_kill", Judgement{
					Verdict: Advice, Finding: "limits.killed-for-memory", Severity: Warning,
					Why:    "lost processes that the kernel killed for memory; until they are started again their port refuses connections",
					Remedy: "look at `journalctl -k` for the kill; give the unit more MemoryMax= (or the machine more memory), or find the leak",
				})
			},
			Refs: []string{"https://docs.kernel.org/admin-guide/cgroup-v2.html", "https://man7.org/linux/man-pages/man5/systemd.resource-control.5.html"},
		},
		{
			Key: "kernel.threads-max", Title: "threads of the whole machine",
			Meaning: "Bound of all threads.",
			Unit:    UnitCount, Shape: ShapeInt, Scope: ScopeHost, Class: ClassInfo, ReadOnly: true, LargerIsFine: true, DefaultNote: "grows with memory",
			Refs: []string{"https://docs.kernel.org/admin-guide/sysctl/kernel.html"},
		},
		{
			Key: "kernel.pid_max", Title: "highest process number",
			Meaning: "Bound of processes and threads together.",
			Unit:    UnitCount, Shape: ShapeInt, Scope: ScopeHost, Class: ClassInfo, ReadOnly: true, LargerIsFine: true, DefaultNote: "32768 or more by CPUs; systemd sets 4194304",
			Refs: []string{"https://docs.kernel.org/admin-guide/sysctl/kernel.html"},
		},
		{
			Key: "vm.max_map_count", Title: "memory maps of a process",
			Meaning: "Matters to databases and search engines that map many files.",
			Unit:    UnitCount, Shape: ShapeInt, Default: "65530", DefaultNote: "1048576 on some distributions", Scope: ScopeHost, Class: ClassInfo, ReadOnly: true, LargerIsFine: true,
			Refs: []string{"https://docs.kernel.org/admin-guide/sysctl/vm.html"},
		},
	}
}

// maxGroupFindings bounds how many control groups are named; the sum tells of more.
const maxGroupFindings = 16

// judgeGroups speaks about each control group whose counter is not 0: what grew
// while it was measured as loudly as j says, the rest as information. These
// counters begin with the group, which is made when its service starts.
func judgeGroups(f *Facts, counter string, j Judgement) []Judgement {
	if _, ok := f.Counters[counter]; !ok {
		return []Judgement{{Verdict: Unknown, Why: "the counters of control groups were not read", Missing: []string{counter}}}
	}
	var names []string
	for name, c := range f.Counters {
		if strings.HasPrefix(name, counter+":") && c.Total > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(f.Counters[b].Delta, f.Counters[a].Delta), cmp.Compare(a, b))
	})
	// A group's events count those of the groups in it, too: the innermost is
	// the one that is meant.
	names = slices.DeleteFunc(slices.Clone(names), func(outer string) bool {
		return slices.ContainsFunc(names, func(inner string) bool {
			return strings.HasPrefix(inner, outer+"/") && f.Counters[inner].Total >= f.Counters[outer].Total
		})
	})
	var out []Judgement
	for _, name := range names[:min(len(names), maxGroupFindings)] {
		c, g := f.Counters[name], j
		g.Subject = strings.TrimPrefix(name, counter+":")
		seen := fmt.Sprintf("%d since the group was made", c.Total)
		switch {
		case c.Moving():
			seen = fmt.Sprintf("+%d in %gs, %s", c.Delta, c.Window, seen)
		case c.Sampled:
			g.Severity = Info
			g.Why += " (not while this was measured)"
		default:
			g.Severity = Info
			g.Why += " (read once: whether it happens now was not measured)"
		}
		g.Evidence = []Evidence{{counter + " of " + g.Subject, seen}}
		out = append(out, g)
	}
	return out
}

func judgeFileMax(_ Key, f *Facts) []Judgement {
	if f.Files == nil {
		return []Judgement{{Verdict: Unknown, Why: "how many files are open was not read", Missing: []string{"fs.file-nr"}}}
	}
	if f.Files.Max == 0 || float64(f.Files.Open) < 0.90*float64(f.Files.Max) {
		return nil
	}
	return []Judgement{{
		Verdict: Advice, Finding: "sysctl.file-table-near-limit", Severity: Critical,
		Evidence: []Evidence{{"fs.file-nr", fmt.Sprintf("%d of %d", f.Files.Open, f.Files.Max)}},
		Why:      "nine tenths of all files that this machine may open are open; beyond the bound no connection is accepted",
		Remedy:   "take the line that sets fs.file-max out of the sysctl files: without it systemd sets the largest number there is",
	}}
}

func judgeNrOpen(k Key, f *Facts) []Judgement {
	v, ok := f.Live.Int(k)
	if !ok || !f.ProcessesRead {
		return nil
	}
	var out []Judgement
	for _, p := range f.Processes {
		if p.UnitLimit == 0 || p.UnitLimit == math.MaxUint64 || p.UnitLimit <= uint64(v) {
			continue // infinity means "as much as fs.nr_open allows"
		}
		out = append(out, Judgement{
			Verdict: Wrong, Finding: "sysctl.nr-open-below-limit", Severity: Warning, Subject: p.subject(),
			Evidence: []Evidence{{strings.TrimSpace("LimitNOFILE= " + p.UnitLimitAt), fmt.Sprint(p.UnitLimit)}, {string(k), fmt.Sprint(v)}, {"hard limit of " + p.label(), unlimited(p.HardLimit)}},
			Why:      "the unit asks for more open files than fs.nr_open lets any process have",
			Remedy:   "raise fs.nr_open, or ask for less",
		})
	}
	return each(out)
}

func (p Process) label() string { return fmt.Sprintf("%s (pid %d)", nameOr(p.Name), p.PID) }

// subject names the service the same way in every run: its unit, else the program.
func (p Process) subject() string { return cmp.Or(p.Unit, nameOr(p.Name)) }

// each keeps one judgement for a subject, the loudest: a service has many processes.
func each(in []Judgement) []Judgement {
	var out []Judgement
	for _, j := range in {
		i := slices.IndexFunc(out, func(x Judgement) bool { return x.Subject == j.Subject })
		switch {
		case i < 0:
			out = append(out, j)
		case j.Severity == Critical && out[i].Severity != Critical:
			out[i] = j
		}
	}
	return out
}

func judgeNoFile(_ Key, f *Facts) []Judgement {
	if !f.ProcessesRead {
		return []Judgement{{Verdict: Unknown, Why: "the limits of the listening processes were not read", Missing: []string{"/proc/PID/limits and /proc/PID/fd"}}}
	}
	var out []Judgement
	for _, p := range f.Processes {
		if p.OpenFiles < 0 {
			out = append(out, Judgement{Verdict: Unknown, Subject: p.label(), Why: "its open files could not be counted", Missing: []string{fmt.Sprintf("/proc/%d/fd", p.PID)}})
			continue
		}
		if p.SoftLimit == 0 || p.SoftLimit == math.MaxUint64 {
			continue
		}
		share := float64(p.OpenFiles) / float64(p.SoftLimit)
		if share < f.Profile.FilesShare() {
			continue
		}
		j := Judgement{
			Verdict: Advice, Finding: "limits.nofile-near-limit", Severity: Warning, Subject: p.label(),
			Evidence: []Evidence{{"open descriptors", fmt.Sprintf("%d of %d (hard limit %s)", p.OpenFiles, p.SoftLimit, unlimited(p.HardLimit))}},
			Why:      "the process has nearly used up its descriptors; beyond the limit clients connect and get no answer",
			Remedy:   remedyNoFile,
		}
		if share >= 0.98 {
			j.Severity = Critical
		}
		out = append(out, j)
	}
	return out
}

func unlimited(v uint64) string {
	if v == math.MaxUint64 {
		return "unlimited"
	}
	return fmt.Sprint(v)
}

func judgeSelectLoop(_ Key, f *Facts) []Judgement {
	var out []Judgement
	for _, p := range f.Processes {
		if p.SelectLoop != Yes || p.OpenFiles < 800 {
			continue
		}
		j := Judgement{
			Verdict: Advice, Finding: "limits.select-loop-full", Severity: Warning, Subject: p.subject(),
			Evidence: []Evidence{{"open descriptors of " + p.label(), fmt.Sprintf("%d of 1024", p.OpenFiles)}, {"waits in", fmt.Sprintf("select(2), for descriptors below %d", p.SelectOn)}},
			Why:      "the process waits with select(2), which cannot watch more than 1024 descriptors, whatever the limits say",
			Remedy:   "give it an event loop on epoll: for PHP install the event or ev extension and restart",
		}
		if p.OpenFiles >= 1000 {
			j.Severity = Critical
		}
		out = append(out, j)
	}
	return each(out)
}
