package sysctl

import (
	"slices"
	"strings"
)

// Row is one entry of sysctls[] in the report of scan.
type Row struct {
	Key         Key         `json:"key"`
	Live        string      `json:"live"`
	Persisted   []Persisted `json:"persisted"`
	AfterReboot string      `json:"after_reboot"`
	Class       Class       `json:"class"`
	Verdict     Verdict     `json:"verdict"`
	Why         string      `json:"why"`
}

// Rows judges every key of the catalogue that exists, and every other key that
// a file sets (class information, its origin is all we know), sorted by key.
func (h *Host) Rows(f *Facts) []Row {
	var out []Row
	for _, k := range h.wanted() {
		if !h.Keys.Has(k) {
			continue
		}
		out = append(out, h.Row(k, f))
	}
	slices.SortFunc(out, func(a, b Row) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return out
}

// Row judges one key. A live value that a reboot would change says so in Why;
// after_reboot is empty when it cannot be told, with the reason in Why.
func (h *Host) Row(k Key, f *Facts) Row {
	p := h.Provenance(k)
	r := Row{Key: k, Live: shapeOf(k).Canonical(p.Live.Text), Persisted: p.Persisted, Class: ClassInfo, Verdict: OK}
	if e, ok := Find(k); ok {
		r.Class = e.Class
		j := Worst(e.Judge(k, f))
		r.Verdict, r.Why = j.Verdict, j.Why
	} else if p.Live.State == "" {
		r.Verdict, r.Why = Unknown, "was not read"
	} else if p.Live.State == Failed {
		r.Verdict, r.Why = Unknown, "could not be read: "+p.Live.Err
	} else {
		r.Why = "not in the catalogue; shown because a file sets it"
	}
	switch {
	case p.Reboot.Known:
		r.AfterReboot = shapeOf(k).Canonical(p.Reboot.Value)
		if p.Reboot.Changes == Yes {
			r.Why += "; a reboot changes it: " + p.Reboot.Why
		}
	case len(p.Persisted) > 0 || len(p.Overrides) > 0:
		r.Why += "; after a reboot: cannot be told, " + p.Reboot.Why
	}
	return r
}

// Drift is a key whose live value will not survive a reboot, or may not.
type Drift struct {
	Key     Key
	Live    string
	Reboot  Prediction
	Persist []Persisted
	// Unsaved: nothing sets the live value at boot, somebody set it by hand or a
	// program did; the reboot brings the kernel's default.
	Unsaved bool
}

// Disagreement is a key that the boot's loader and the other one set differently:
// `sysctl --system` by hand brings another value than the next boot.
type Disagreement struct {
	Key Key
	// Boot is what systemd-sysctl takes, nil where it takes nothing; Hand what
	// sysctl(8) takes.
	Boot, Hand *Persisted
	// Unread: systemd-sysctl does not read the file of Hand at all.
	Unread bool
}

// Disagreements lists the keys for which it matters by hand or at boot who
// applies the files; none unless systemd-sysctl does so at boot. A text that the
// kernel refuses counts as none. Sorted by key.
func (h *Host) Disagreements() []Disagreement {
	if h.Boot == nil || h.Boot.Loader != BootSystemd {
		return nil
	}
	boot := h.Outcome(LoaderSystemd)
	if boot == nil || len(boot.Gaps) > 0 {
		return nil
	}
	var out []Disagreement
	for _, k := range h.wanted() {
		d := Disagreement{Key: k}
		for _, p := range h.Provenance(k).Persisted {
			switch {
			case p.Refused:
			case p.Loader == LoaderSystemd:
				d.Boot = &p
			case p.Loader == LoaderProcps:
				d.Hand = &p
			}
		}
		if d.Hand == nil || d.Boot != nil && shapeOf(k).Equal(d.Boot.Value, d.Hand.Value) {
			continue
		}
		d.Unread = !slices.ContainsFunc(boot.Lines, func(a Assignment) bool { return a.File == d.Hand.File })
		out = append(out, d)
	}
	return out
}

// Drifts lists the keys of the catalogue and of the files whose live value the
// reboot changes for sure, sorted by key. Keys of which it cannot be told are
// not here: their rows say why.
func (h *Host) Drifts() []Drift {
	var out []Drift
	for _, k := range h.wanted() {
		p := h.Provenance(k)
		if p.Live.State != Present || p.Reboot.Changes != Yes {
			continue
		}
		out = append(out, Drift{Key: k, Live: shapeOf(k).Canonical(p.Live.Text), Reboot: p.Reboot, Persist: p.Persisted, Unsaved: p.Reboot.By == nil})
	}
	return out
}
