package audit

import "time"

// accept marks the findings that the operator has weighed. An entry whose last
// day is over marks nothing, but says so. It returns the entries that no finding
// answers to.
func accept(findings []Finding, waivers []Waiver, now time.Time) (idle []Waiver) {
	for _, w := range waivers {
		used := false
		for i := range findings {
			f := &findings[i]
			if !w.covers(f) {
				continue
			}
			used = true
			if w.expired(now) {
				f.Expired = w.accepted()
				continue
			}
			f.Accepted = w.accepted()
		}
		if !used {
			idle = append(idle, w)
		}
	}
	return idle
}
