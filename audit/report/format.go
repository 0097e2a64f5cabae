package report

import (
	"fmt"
	"io"

	"github.com/hostaudit/hostaudit/audit"
)

// Formats lists the forms a report of scan can have.
func Formats() []string {
	return []string{"text", "json", "ndjson", "sarif", "junit", "html", "prometheus", "nagios"}
}

// Scan writes the report of a scan in one of the Formats. checks explain the
// findings, where the form has a place for that.
func Scan(w io.Writer, format string, r *audit.Report, checks []*audit.Check, o Options) error {
	switch format {
	case "text":
		return Text(w, r, o)
	case "json":
		return JSON(w, r)
	case "ndjson":
		return NDJSON(w, r)
	case "sarif":
		return SARIF(w, r, checks)
	case "junit":
		return JUnit(w, r)
	case "html":
		return HTML(w, r, o)
	case "prometheus":
		return Prometheus(w, r)
	case "nagios":
		return Nagios(w, r, o)
	}
	return fmt.Errorf("no format %q", format)
}
