package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"

	"github.com/hostaudit/hostaudit/audit"
)

// projectURL is where the program is at home.
const projectURL = "https://github.com/hostaudit/hostaudit"

// SARIF writes the findings as SARIF 2.1.0. A finding that stands on a line of a
// file has it as location, every finding has its subject; an accepted one is
// suppressed with its reason.
func SARIF(w io.Writer, r *audit.Report, checks []*audit.Check) error {
	run := sarif.NewRunWithInformationURI("hostaudit", projectURL)
	if v := semantic(r.Host.Tool); v != "" {
		run.Tool.Driver.WithSemanticVersion(v)
	}
	for i := range r.Findings {
		f := &r.Findings[i]
		rule := run.AddRule(f.ID)
		if c := explained(checks, f.ID); c != nil && rule.ShortDescription == nil {
			rule.WithShortDescription(sarif.NewMultiformatMessageString().WithText(clean(c.Title, false) + "."))
			rule.WithFullDescription(sarif.NewMultiformatMessageString().WithText(c.Explanation()))
			rule.WithHelp(sarif.NewMultiformatMessageString().WithText(c.Explanation() + "\n\n" + strings.Join(c.Refs, "\n")))
			if len(c.Refs) > 0 {
				rule.WithHelpURI(c.Refs[0])
			}
		}
		result := run.CreateResultForRule(f.ID).WithLevel(level(f.Severity)).
			WithMessage(sarif.NewTextMessage(sentence(f.Title) + " " + sentence(f.Why) + " " + sentence(f.Remedy))).
			WithPartialFingerprints(map[string]string{"idAndSubject/v1": utf(f.ID + " " + f.Subject)})
		location := sarif.NewLocation().AddLogicalLocation(sarif.NewLogicalLocation().WithName(clean(f.Subject, false)).WithFullyQualifiedName(clean(string(r.Host.Name)+" "+f.Subject, false)))
		for _, e := range f.Evidence {
			if file, n, ok := fileLine(e.Source); ok {
				location.WithPhysicalLocation(sarif.NewPhysicalLocation().
					WithArtifactLocation(sarif.NewSimpleArtifactLocation("file://" + uriPath(file))).
					WithRegion(sarif.NewSimpleRegion(n, n)))
				break
			}
		}
		result.AddLocation(location)
		if a := f.Accepted; a != nil {
			result.AddSuppression(sarif.NewSuppression().WithKind("external").WithStatus("accepted").WithJustification(utf(a.Reason)))
		}
	}
	if run.Results == nil {
		run.Results = []*sarif.Result{}
	}
	invocation := sarif.NewInvocation().WithExecutionSuccessful(r.Complete()).WithEndTimeUtc(r.Host.TakenAt.Format(time.RFC3339))
	for _, g := range r.Incomplete {
		invocation.AddToolExecutionNotification(sarif.NewNotification().WithLevel("warning").WithMessage(sarif.NewTextMessage(sentence(g.What + ": " + g.Why))))
	}
	run.AddInvocation(invocation)
	rep := sarif.NewReport()
	rep.AddRun(run)
	if err := rep.PrettyWrite(w); err != nil {
		return fmt.Errorf("write sarif: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// explained finds the check whose finding it is.
func explained(checks []*audit.Check, id string) *audit.Check {
	for _, exact := range []bool{true, false} {
		for _, c := range checks {
			if exact && c.ID == id || !exact && slices.Contains(c.FindingIDs(), id) {
				return c
			}
		}
	}
	return nil
}

func level(s audit.Severity) string {
	switch s {
	case audit.Critical:
		return "error"
	case audit.Warning:
		return "warning"
	default:
		return "note"
	}
}

// sentence makes text safe for viewers and ends it.
func sentence(s string) string {
	s = clean(s, false)
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

func utf(s string) string { return clean(s, false) }

// fileLine reads "/etc/sysctl.d/x.conf:3".
func fileLine(source string) (file string, line int, ok bool) {
	i := strings.LastIndexByte(source, ':')
	if i < 1 || source[0] != '/' {
		return "", 0, false
	}
	n, err := strconv.Atoi(source[i+1:])
	return source[:i], n, err == nil && n > 0
}

// uriPath escapes a path for a file URI.
func uriPath(p string) string {
	var b strings.Builder
	for i := range len(p) {
		c := p[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// semantic is the version where it is one as SARIF wants it.
func semantic(v string) string {
	v = strings.TrimPrefix(v, "v")
	if strings.Count(v, ".") < 2 || v[0] < '0' || v[0] > '9' {
		return ""
	}
	return v
}
