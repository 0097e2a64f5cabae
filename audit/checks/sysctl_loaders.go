package checks

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/sysctl"
)

// SysctlLoaders finds settings that the boot takes from other lines than
// sysctl(8) by hand.
var SysctlLoaders = &audit.Check{
	ID:       "sysctl.loaders-disagree",
	Title:    "kernel settings that the boot does not take from where sysctl(8) does",
	Severity: audit.Warning,
	Doc: `Two programs apply kernel settings: systemd-sysctl at boot, and sysctl(8) when
somebody types 'sysctl --system' or 'sysctl -p'. They do not read the same. sysctl(8)
reads /etc/sysctl.conf, last of all; systemd-sysctl does not know that file, unless a
link below /etc/sysctl.d leads to it. So a line there works when it is tried by hand
and is gone after the reboot; or wins by hand and loses at boot.

What each of them takes is worked out as the programs do it, from all directories,
with masked files, patterns and order of names.`,
	Refs:  []string{refSysctlD, "https://man7.org/linux/man-pages/man8/sysctl.8.html"},
	Needs: []audit.Need{audit.NeedSysctls, audit.NeedFiles},
	Fix:   audit.FixManual,
	Run: func(p *audit.Pass) error {
		if p.Host.Boot == nil || p.Host.Boot.Loader != sysctl.BootSystemd {
			p.NotApplicable() // the same program at boot and by hand, or it is not known
			return nil
		}
		at := map[string]int{}
		var out []audit.Finding
		found := p.Host.Disagreements()
		slices.SortStableFunc(found, func(a, b sysctl.Disagreement) int {
			return cmp.Or(cmp.Compare(a.Hand.File, b.Hand.File), cmp.Compare(a.Hand.Line, b.Hand.Line))
		})
		for _, d := range found {
			i, again := at[d.Hand.File]
			if !again {
				i = len(out)
				at[d.Hand.File] = i
				out = append(out, audit.Finding{Severity: audit.Info, Subject: d.Hand.File, Causes: []audit.Cause{}})
			}
			f := &out[i]
			if e, ok := sysctl.Find(d.Key); ok && e.Class != sysctl.ClassInfo {
				f.Severity = audit.Warning
			}
			if d.Unread {
				f.Title = "the boot does not apply " + d.Hand.File + ", sysctl(8) does"
				f.Why = "systemd-sysctl does not read " + d.Hand.File + ": what it sets works when it is tried by hand and is gone after the reboot"
				f.Remedy = fmt.Sprintf("move the lines that are meant into a file below /etc/sysctl.d, or link %s there (ln -s %s /etc/sysctl.d/99-sysctl.conf)", d.Hand.File, d.Hand.File)
			} else if f.Title == "" {
				f.Title = "a line of " + d.Hand.File + " wins by hand and loses at boot"
				f.Why = "sysctl(8) and systemd-sysctl read files in different order, so that different lines win"
				f.Remedy = "leave one line for each key, in one file below /etc/sysctl.d"
			}
			boot := "nothing"
			if d.Boot != nil {
				boot = fmt.Sprintf("%s (%s)", d.Boot.Value, sysctl.Place{File: d.Boot.File, Line: d.Boot.Line})
			}
			f.Evidence = append(f.Evidence, audit.Evidencef(sysctl.Place{File: d.Hand.File, Line: d.Hand.Line}.String(),
				"%s = %s; at boot: %s%s", d.Key, d.Hand.Value, boot, inForce(p, d)))
		}
		for _, f := range out {
			p.Report(f)
		}
		return nil
	},
}

// inForce says whether somebody applied the line by hand.
func inForce(p *audit.Pass, d sysctl.Disagreement) string {
	if sameLive(p, d) {
		return "; in force now"
	}
	return ""
}

// sameLive says whether the value of the line that wins by hand is in force.
func sameLive(p *audit.Pass, d sysctl.Disagreement) bool {
	live, ok := p.Facts.Live.Get(d.Key)
	if !ok {
		return false
	}
	shape := sysctl.ShapeText
	if e, known := sysctl.Find(d.Key); known {
		shape = e.Shape
	}
	return shape.Equal(live, d.Hand.Value)
}
