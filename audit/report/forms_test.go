package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/xeipuuv/gojsonschema"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/checks"
)

// sarifSchema is the schema of OASIS (sarif-schema-2.1.0, errata 01), as the
// library that writes SARIF carries it in its source.
func sarifSchema(t *testing.T) *gojsonschema.Schema {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/owenrumney/go-sarif/v3").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), strings.TrimSpace(string(dir))+"/pkg/report/v210/sarif/schema.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	ast.Inspect(f, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil && len(s) > len(text) {
				text = s
			}
		}
		return true
	})
	if !strings.Contains(text, "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json") {
		t.Fatal("found no schema of SARIF 2.1.0 in the library")
	}
	s, err := gojsonschema.NewSchema(gojsonschema.NewStringLoader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(s *gojsonschema.Schema, doc string) error {
	r, err := s.Validate(gojsonschema.NewStringLoader(doc))
	if err != nil {
		return err
	}
	var wrong []error
	for _, e := range r.Errors() {
		wrong = append(wrong, errors.New(e.String()))
	}
	return errors.Join(wrong...)
}

// reports are those that forms are tried on: a recorded host, with an accepted
// finding, and one of hostile texts.
func reports(t *testing.T) map[string]*audit.Report {
	t.Helper()
	s := recordedHost(t)
	config := &audit.Config{Accept: []audit.Waiver{{ID: "firewall.port-blocked", Subject: "tcp 0.0.0.0:8080", Reason: "closed on purpose"}}}
	return map[string]*audit.Report{"recorded": audit.Run(s, config, checks.All()), "hostile": hostile()}
}

func rendered(t *testing.T, format string, r *audit.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := Scan(&b, format, r, checks.All(), Options{}); err != nil {
		t.Fatalf("%s: %v", format, err)
	}
	return b.String()
}

// TestSARIFIsValid holds what is printed, byte by byte, to the schema of OASIS.
func TestSARIFIsValid(t *testing.T) {
	schema := sarifSchema(t)
	for name, r := range reports(t) {
		doc := rendered(t, "sarif", r)
		if err := validate(schema, doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Count(doc, `"ruleId":`) != len(r.Findings) || len(r.Findings) == 0 {
			t.Errorf("%s: %d results of %d findings", name, strings.Count(doc, `"ruleId":`), len(r.Findings))
		}
		if name == "recorded" && (!strings.Contains(doc, `"suppressions"`) || !strings.Contains(doc, "closed on purpose")) {
			t.Error("the accepted finding is not suppressed")
		}
		for _, broken := range [][2]string{{`"version": "2.1.0"`, `"version": "2.0.0"`}, {`"message": {`, `"massage": {`}, {`"level": "`, `"level": "very `}} {
			if !strings.Contains(doc, broken[0]) || validate(schema, strings.Replace(doc, broken[0], broken[1], 1)) == nil {
				t.Errorf("%s: with %s it passes, or it has no %s", name, broken[1], broken[0])
			}
		}
	}
}

// TestJUnitCounts: the counts in the head are those of the cases, and loud findings
// fail.
func TestJUnitCounts(t *testing.T) {
	for name, r := range reports(t) {
		var s junitSuite
		if err := xml.Unmarshal([]byte(rendered(t, "junit", r)), &s); err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for _, c := range s.Cases {
			n["tests"]++
			if c.Failure != nil {
				n["failures"]++
			}
			if c.Error != nil {
				n["errors"]++
			}
			if c.Skipped != nil {
				n["skipped"]++
			}
		}
		if got, want := fmt.Sprint(s.Tests, s.Failures, s.Errors, s.Skipped), fmt.Sprint(n["tests"], n["failures"], n["errors"], n["skipped"]); got != want {
			t.Errorf("%s: the head says %s, the cases %s", name, got, want)
		}
		loud := 0
		for _, f := range r.Counting() {
			if f.Severity.AtLeast(audit.Warning) {
				loud++
			}
		}
		if s.Failures != loud || loud == 0 {
			t.Errorf("%s: %d failures, %d loud findings", name, s.Failures, loud)
		}
	}
}

// TestPrometheusIsRead: the parser of Prometheus itself takes it, and it counts what
// the report holds.
func TestPrometheusIsRead(t *testing.T) {
	for name, r := range reports(t) {
		p := expfmt.NewTextParser(model.LegacyValidation)
		families, err := p.TextToMetricFamilies(strings.NewReader(rendered(t, "prometheus", r)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, want := len(families["hostaudit_finding"].GetMetric()), len(r.Counting()); got != want {
			t.Errorf("%s: %d findings, want %d", name, got, want)
		}
		for f, family := range families {
			if family.GetHelp() == "" || family.GetType().String() != "GAUGE" {
				t.Errorf("%s: %s has no help or type", name, f)
			}
		}
	}
}

// TestNagiosLine holds the line to the guidelines of monitoring plugins: state, text,
// and performance data that they can parse.
func TestNagiosLine(t *testing.T) {
	line := regexp.MustCompile(`^HOSTAUDIT (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+ \|( [a-z_]+=[0-9.]+(s|%)?;[0-9]*;[0-9]*;0?;[0-9]*)+\n$`)
	for name, r := range reports(t) {
		if got := rendered(t, "nagios", r); !line.MatchString(got) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
