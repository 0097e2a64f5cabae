package checks

import (
	"fmt"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/listeners"
)

// FilesNearLimit finds listening processes that run out of descriptors.
var FilesNearLimit = &audit.Check{
	ID:       "listener.nofile-near-limit",
	Title:    "a listening process is running out of file descriptors",
	Severity: audit.Warning,
	Doc: `Every connection is a descriptor, and a process may have no more of them than its own
RLIMIT_NOFILE (/proc/PID/limits). When they are used up, accept() fails: clients
still connect, because the kernel completes the handshake, but get no answer, and
once the accept queue is full they see a timeout.

The limit of a service comes from LimitNOFILE= in its unit (or its supervisor, or
the container), not from /etc/security/limits.conf nor from ulimit in /etc/profile.
It is said from four fifths in use on, with profile database from seven tenths, with
websocket from six tenths.`,
	Refs:   []string{refLimits, "https://github.com/systemd/systemd/issues/25478"},
	Causes: []audit.Cause{audit.ConnectionTimeout},
	Needs:  []audit.Need{audit.NeedListeners},
	Fix:    audit.FixAutomatic,
	Run: func(p *audit.Pass) error {
		seen := map[int]bool{}
		unread := 0
		for _, port := range p.Ports {
			if port.Listener == nil {
				continue
			}
			for i := range port.Listener.Owners {
				proc := &port.Listener.Owners[i]
				if seen[proc.PID] {
					continue
				}
				seen[proc.PID] = true
				share, known := proc.Files.Fill()
				if !known {
					unread++
					continue
				}
				if share < p.Facts.Profile.FilesShare() || proc.Files.Soft < 0 {
					continue
				}
				// One finding a unit or program: pids change from run to run.
				subject := string(proc.Unit)
				if subject == "" {
					subject = string(proc.Comm)
				}
				f := audit.Finding{
					Subject: subject,
					Title:   fmt.Sprintf("%s uses %d of its %d file descriptors", proc.Comm, proc.Files.Open, proc.Files.Soft),
					Why:     "when they are used up, new clients connect and get no answer",
					Evidence: []audit.Evidence{
						audit.Evidencef(fmt.Sprintf("/proc/%d", proc.PID), "%d descriptors open, soft limit %d, hard limit %s", proc.Files.Open, proc.Files.Soft, hard(proc.Files.Hard)),
						listening(port),
					},
					Remedy: "find out whether it leaks descriptors; otherwise " + moreFiles(proc),
				}
				if !service(proc) {
					f.Fix = audit.FixManual
				} else {
					f.Remedy += "; hostaudit fix listener.nofile-near-limit shows the change"
				}
				if share >= 0.95 {
					f.Severity = audit.Critical
				}
				p.Report(f)
			}
		}
		if unread > 0 {
			p.Unsure("open files", fmt.Sprintf("the descriptors of %d processes may not be counted without more privilege", unread))
		}
		return nil
	},
}

// service tells whether systemd starts the process with a limit of its own.
func service(proc *listeners.Process) bool {
	return proc.Container == nil && strings.HasSuffix(string(proc.Unit), ".service") && !strings.Contains(string(proc.Unit), "/")
}

// moreFiles says where the limit of descriptors of a process is raised.
func moreFiles(proc *listeners.Process) string {
	switch {
	case proc.Container != nil:
		return "raise it for the container (docker run --ulimit nofile=…, default-ulimits of its runtime) and start it anew"
	case service(proc):
		return "set LimitNOFILE= in its unit and restart it"
	}
	return fmt.Sprintf("raise it where it is started (it is no service of systemd): ulimit -n, its supervisor or its own settings; for the process as it runs: prlimit --pid %d --nofile=N", proc.PID)
}

func hard(n int64) string {
	if n < 0 {
		return "unlimited"
	}
	return fmt.Sprint(n)
}
