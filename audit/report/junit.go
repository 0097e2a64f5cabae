package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/hostaudit/hostaudit/audit"
)

type junitSuite struct {
	XMLName   xml.Name    `xml:"testsuite"`
	Name      string      `xml:"name,attr"`
	Hostname  string      `xml:"hostname,attr"`
	Timestamp string      `xml:"timestamp,attr"`
	Tests     int         `xml:"tests,attr"`
	Failures  int         `xml:"failures,attr"`
	Errors    int         `xml:"errors,attr"`
	Skipped   int         `xml:"skipped,attr"`
	Time      string      `xml:"time,attr"`
	Cases     []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string      `xml:"name,attr"`
	Class   string      `xml:"classname,attr"`
	Failure *junitText  `xml:"failure"`
	Error   *junitText  `xml:"error"`
	Skipped *junitText  `xml:"skipped"`
	Output  *junitBlock `xml:"system-out"`
}

type junitText struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

type junitBlock struct {
	Text string `xml:",chardata"`
}

// JUnit writes one test case a finding and one for every check without. A finding
// of information does not fail its case; an accepted one and a check that does
// not apply are skipped; a check that could not tell is skipped, what could not
// be read is an error.
func JUnit(w io.Writer, r *audit.Report) error {
	s := junitSuite{Name: "hostaudit", Hostname: clean(string(r.Host.Name), false), Timestamp: r.Host.TakenAt.Format("2006-01-02T15:04:05"), Time: fmt.Sprintf("%.3f", r.Host.Took)}
	add := func(c junitCase) {
		s.Tests++
		switch {
		case c.Failure != nil:
			s.Failures++
		case c.Error != nil:
			s.Errors++
		case c.Skipped != nil:
			s.Skipped++
		}
		s.Cases = append(s.Cases, c)
	}
	for _, f := range r.Findings {
		c := junitCase{Name: clean(f.Subject, false), Class: f.ID}
		text := lines(f)
		switch {
		case f.Accepted != nil:
			c.Skipped = &junitText{Message: clean("accepted: "+f.Accepted.Reason, false)}
		case f.Severity.AtLeast(audit.Warning):
			c.Failure = &junitText{Message: clean(f.Title, false), Type: string(f.Severity), Text: text}
		default:
			c.Output = &junitBlock{clean(f.Title, false) + "\n" + text}
		}
		add(c)
	}
	for _, res := range r.Checks {
		c := junitCase{Name: "check", Class: res.ID}
		switch res.Status {
		case audit.Failed:
			continue
		case audit.Errored:
			c.Error = &junitText{Message: unsure(res)}
		case audit.Unknown:
			c.Skipped = &junitText{Message: "cannot be told: " + unsure(res)}
		case audit.NotApplicable:
			c.Skipped = &junitText{Message: "not applicable"}
		}
		add(c)
	}
	for _, g := range r.Incomplete {
		if !g.Minor {
			add(junitCase{Name: clean(g.What, false), Class: "incomplete", Error: &junitText{Message: clean(g.Why, false)}})
		}
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(s); err != nil {
		return fmt.Errorf("write junit: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// lines are the details of a finding, one a line.
func lines(f audit.Finding) string {
	var b strings.Builder
	for _, e := range f.Evidence {
		fmt.Fprintf(&b, "seen: %s\n", clean(e.Source+": "+e.Value, false))
	}
	fmt.Fprintf(&b, "why: %s\ndo: %s\n", clean(f.Why, false), clean(f.Remedy, false))
	return b.String()
}

func unsure(r audit.Result) string {
	var parts []string
	for _, u := range r.Unsure {
		parts = append(parts, u.Subject+": "+u.Why)
	}
	return clean(strings.Join(parts, "; "), false)
}
