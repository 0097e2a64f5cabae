package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hostaudit/hostaudit/audit"
)

// TestExitCode: what could not be read outranks findings, and the form of the
// report has no say.
func TestExitCode(t *testing.T) {
	critical := []audit.Finding{{Severity: audit.Critical}}
	for name, c := range map[string]struct {
		r      audit.Report
		failOn audit.Severity
		want   int
	}{
		"nothing":              {audit.Report{}, audit.Critical, 0},
		"critical":             {audit.Report{Findings: critical}, audit.Critical, 1},
		"a warning":            {audit.Report{Findings: []audit.Finding{{Severity: audit.Warning}}}, audit.Critical, 0},
		"a warning that fails": {audit.Report{Findings: []audit.Finding{{Severity: audit.Warning}}}, audit.Warning, 1},
		"never":                {audit.Report{Findings: critical}, "", 0},
		"accepted":             {audit.Report{Findings: []audit.Finding{{Severity: audit.Critical, Accepted: &audit.Accepted{}}}}, audit.Critical, 0},
		"incomplete":           {audit.Report{Findings: critical, Incomplete: []audit.Gap{{What: "firewall"}}}, audit.Critical, 3},
		"incomplete, minor":    {audit.Report{Findings: critical, Incomplete: []audit.Gap{{What: "owners", Minor: true}}}, audit.Critical, 1},
	} {
		if got := exitCode(outcome(&c.r, c.failOn)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	for _, c := range []struct {
		err  error
		want int
	}{
		{usagef("wrong"), 2}, {fmt.Errorf("x: %w", usagef("wrong")), 2}, {errors.New("the host cannot be read"), 3},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}
