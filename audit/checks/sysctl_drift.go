package checks

import (
	"fmt"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// SysctlDrift finds values that will not survive a reboot.
var SysctlDrift = &audit.Check{
	ID:       "sysctl.lost-at-reboot",
	Title:    "a kernel setting that a reboot changes",
	Severity: audit.Warning,
	Doc: `The value in force is not the one that the next boot will bring: it was set by hand or
by a program, or a file was changed and not applied, or another file wins than the
one that was meant. What the boot applies is worked out as systemd-sysctl and
sysctl(8) would: directories, masking, order of names, patterns, late modules, and
programs that set keys later (ufw, tuned, Docker, rc.local).

It is a warning for settings that this program judges, otherwise information. Keys
of which it cannot be told are not reported; their line in 'scan --format json'
says why.`,
	Refs:  []string{refSysctlD, "https://github.com/systemd/systemd/issues/43362"},
	Needs: []audit.Need{audit.NeedSysctls, audit.NeedFiles},
	Fix:   audit.FixManual,
	Run: func(p *audit.Pass) error {
		type group struct {
			finding audit.Finding
			more    int
		}
		var order []sysctl.Key
		groups := map[sysctl.Key]*group{}
		unread := map[sysctl.Key]bool{} // said once for the file, by SysctlLoaders
		for _, d := range p.Host.Disagreements() {
			unread[d.Key] = d.Boot == nil && sameLive(p, d)
		}
		for _, d := range p.Host.Drifts() {
			k := d.Key
			if unread[k] {
				continue
			}
			e, judged := sysctl.Find(k)
			if !judged && !strings.HasPrefix(string(k), "net.") {
				continue // no matter of connections
			}
			if _, per := k.Interface(); per {
				if d.Unsaved {
					continue // whoever brings interfaces up may set it, which no file tells
				}
				k = k.WithInterface("*") // one finding for all interfaces
			}
			if g := groups[k]; g != nil {
				g.more++
				g.finding.Evidence = append(g.finding.Evidence, drifted(d))
				continue
			}
			f := audit.Finding{
				Severity: audit.Info, Subject: string(k), Title: fmt.Sprintf("%s is %s now and will be %s after a reboot", d.Key, orEmpty(d.Live), orEmpty(d.Reboot.Value)),
				Why: "the boot applies " + by(d) + ", which brings another value: somebody or some program set this one since, or the line was changed and not applied", Evidence: []audit.Evidence{drifted(d)}, Causes: []audit.Cause{},
			}
			if judged && e.Class != sysctl.ClassInfo {
				f.Severity = audit.Warning
			}
			switch {
			case d.Unsaved:
				f.Why = "nothing that the boot applies sets it: it was set by hand or by a program, and the reboot brings the kernel's default"
				f.Remedy = fmt.Sprintf("if %s is meant to last, write %s = %s into a file below /etc/sysctl.d", orEmpty(d.Live), d.Key, d.Live)
			default:
				f.Remedy = fmt.Sprintf("decide which is meant: apply the file (sysctl -w %s=%q), or correct %s", d.Key, d.Reboot.Value, d.Reboot.By)
			}
			order = append(order, k)
			groups[k] = &group{finding: f}
		}
		for _, k := range order {
			g := groups[k]
			if g.more > 0 {
				g.finding.Title += fmt.Sprintf(", and %d more of its kind", g.more)
			}
			p.Report(g.finding)
		}
		return nil
	},
}

// by names what decides at boot.
func by(d sysctl.Drift) string {
	if d.Reboot.By == nil {
		return "no file for it"
	}
	return d.Reboot.By.String()
}

// orEmpty puts a word where a list has nothing in it.
func orEmpty(value string) string {
	if value == "" {
		return "empty"
	}
	return value
}

func drifted(d sysctl.Drift) audit.Evidence {
	return audit.Evidencef(string(d.Key), "%s in force; %s after a reboot: %s", orEmpty(d.Live), orEmpty(d.Reboot.Value), d.Reboot.Why)
}
