package audit

import (
	"slices"
	"strings"

	"github.com/hostaudit/hostaudit/sysctl"
)

// provenance tells where the values of the catalogue's keys come from; nil
// without files.
func (s *Snapshot) provenance() *sysctl.Host {
	if s.Files == nil || s.Sysctls == nil {
		return nil
	}
	kernel, err := sysctl.ParseVersion(s.Meta.Kernel)
	if err != nil {
		kernel = sysctl.Version{}
	}
	keys := s.Keys
	if keys == nil {
		keys = sysctl.NewKeySet(present(s.Sysctls))
	}
	return sysctl.NewHost(s.Files, keys, s.Sysctls, kernel)
}

func present(live sysctl.Values) []sysctl.Key {
	var out []sysctl.Key
	for k, v := range live {
		if v.State != sysctl.Absent {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// Instances are the keys of a catalogue entry that were read: one, or for a
// setting of interfaces one each.
func (s *Snapshot) Instances(e *sysctl.Entry) []sysctl.Key {
	if !strings.Contains(string(e.Key), "*") {
		return []sysctl.Key{e.Key}
	}
	var out []sysctl.Key
	for k := range s.Sysctls {
		if found, ok := sysctl.Find(k); ok && found == e && k != e.Key {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// sysctlRows lists the catalogue with what this host has, and every other key
// that a file sets.
func sysctlRows(s *Snapshot, host *sysctl.Host, f *sysctl.Facts) []SysctlRow {
	rows := []SysctlRow{}
	if s.Sysctls == nil {
		return rows
	}
	if host == nil { // the files could not be read
		for _, e := range sysctl.Catalogue() {
			for _, k := range s.Instances(e) {
				text, ok := s.Sysctls.Get(k)
				if !e.Setting() || !ok {
					continue
				}
				j := sysctl.Worst(e.Judge(k, f))
				rows = append(rows, SysctlRow{Key: k, Live: &text, Persisted: []Persisted{}, Class: e.Class, Verdict: j.Verdict, Why: j.Why})
			}
		}
		return rows
	}
	for _, r := range host.Rows(f) {
		row := SysctlRow{Key: r.Key, Persisted: []Persisted{}, Class: r.Class, Verdict: r.Verdict, Why: r.Why}
		if _, ok := s.Sysctls.Get(r.Key); ok {
			row.Live = &r.Live
		}
		for _, p := range r.Persisted {
			row.Persisted = append(row.Persisted, Persisted{p.Loader, p.Value, p.File, p.Line})
		}
		if host.Provenance(r.Key).Reboot.Known {
			row.AfterReboot = &r.AfterReboot
		}
		rows = append(rows, row)
	}
	return rows
}
