package report

import "slices"

// Formats lists the forms a report of scan can have.
func Formats() []string {
	return []string{"text", "json", "ndjson", "sarif", "junit", "prometheus", "nagios"}
}

// Known tells whether there is such a form.
func Known(format string) bool { return slices.Contains(Formats(), format) }
