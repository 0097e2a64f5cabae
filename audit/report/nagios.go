package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

// Nagios writes one line as monitoring plugins do, with performance data. The
// exit code stays the one that every format has; wrap it where a checker wants
// 0 to 3 by state (the first word says the state).
func Nagios(w io.Writer, r *audit.Report, o Options) error {
	state := "OK"
	switch {
	case r.Reaches(audit.Critical):
		state = "CRITICAL"
	case r.Reaches(audit.Warning):
		state = "WARNING"
	case !r.Complete():
		state = "UNKNOWN"
	}
	n := map[audit.Severity]int{}
	var first string
	for _, f := range r.Counting() {
		if first == "" && f.Severity.AtLeast(audit.Warning) {
			first = f.Title
		}
		n[f.Severity]++
	}
	text := r.Verdict
	if first != "" {
		text = strings.TrimSuffix(text, ".") + ": " + first
	}
	// "|" begins the performance data.
	text = strings.ReplaceAll(clean(text, o.ASCII), "|", "/")
	share := 0.0
	if r.Ephemeral != nil {
		for _, d := range r.Ephemeral.Destinations {
			share = max(share, d.Share)
		}
	}
	_, err := fmt.Fprintf(w, "HOSTAUDIT %s - %s | critical=%d;;1;0; warning=%d;1;;0; info=%d;;;0; listeners=%d;;;0; ephemeral_share=%.1f%%;50;85;0;100 incomplete=%d;;;0; time=%.3fs;;;0;\n",
		state, cut(text, 400, o.ASCII), n[audit.Critical], n[audit.Warning], n[audit.Info], len(r.Listeners), share*100, len(r.Incomplete), r.Host.Took)
	return err
}
