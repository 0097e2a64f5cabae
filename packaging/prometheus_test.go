package packaging

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestMetricsExist: alert rules and dashboard parse, and ask only for metrics that
// the report writes.
func TestMetricsExist(t *testing.T) {
	source, err := os.ReadFile("../audit/report/prometheus.go")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{}
	for _, m := range regexp.MustCompile(`m\.gauge\("(\w+)"`).FindAllSubmatch(source, -1) {
		written[string(m[1])] = true
	}
	if len(written) < 10 {
		t.Fatalf("the report writes only %v: this test looks in the wrong place", written)
	}
	for name, parse := range map[string]func([]byte, any) error{
		"prometheus/hostaudit.rules.yaml": yaml.Unmarshal, "prometheus/hostaudit-dashboard.json": json.Unmarshal,
	} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := parse(b, &v); err != nil || len(v) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		asked := regexp.MustCompile(`\bhostaudit_\w+`).FindAllString(string(b), -1)
		if len(asked) < 4 {
			t.Errorf("%s asks only for %v", name, asked)
		}
		for _, m := range asked {
			if !written[m] {
				t.Errorf("%s asks for %s, which no report holds", name, m)
			}
		}
	}
}

// TestAlertRules has the rules and the questions of the dashboard judged by Prometheus
// itself, and lets each rule fire on what a report writes, and not without.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	need(t, "promtool")
	dir, _, _ := packages(t)
	binary := dir + "/build/" + runtime.GOARCH + "/hostaudit"
	work := t.TempDir()
	rules, err := filepath.Abs("prometheus/hostaudit.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	output(t, nil, "promtool", "check", "rules", rules)

	// The dashboard's questions are sound: each as a rule that records it.
	b, err := os.ReadFile("prometheus/hostaudit-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var asked strings.Builder
	asked.WriteString("groups:\n- name: dashboard\n  rules:\n")
	n := 0
	for _, m := range regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllSubmatch(b, -1) {
		var expr string
		if err := json.Unmarshal(m[1], &expr); err != nil {
			t.Fatal(err)
		}
		n++
		fmt.Fprintf(&asked, "  - record: asked:%d\n    expr: %s\n", n, strconv.Quote(regexp.MustCompile(`\$\w+`).ReplaceAllString(expr, ".*")))
	}
	if n < 4 {
		t.Fatalf("the dashboard asks %d questions: this test looks in the wrong place", n)
	}
	write := func(name, text string) string {
		t.Helper()
		name = filepath.Join(work, name)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	output(t, nil, "promtool", "check", "rules", write("dashboard.yaml", asked.String()))

	// What a report writes, as series.
	series := func(environ string) string {
		t.Helper()
		out, _ := try([]string{environ}, binary, "scan", "--snapshot", "cmd/hostaudit/testdata/snapshot/scenario.snapshot", "--format", "prometheus")
		var b strings.Builder
		for l := range strings.SplitSeq(out, "\n") {
			if i := strings.LastIndexByte(l, ' '); i > 0 && (strings.HasPrefix(l, "hostaudit_finding{") || strings.HasPrefix(l, "hostaudit_complete") || strings.HasPrefix(l, "hostaudit_scan_timestamp")) {
				value := l[i+1:]
				if strings.HasPrefix(l, "hostaudit_scan_timestamp") {
					value = "0" // promtool begins at 0
				}
				fmt.Fprintf(&b, "    - series: %s\n      values: '%s+0x5000'\n", strconv.Quote(l[:i]), value)
			}
		}
		if strings.Count(b.String(), "\n") < 6 {
			t.Fatalf("the report writes\n%s", out)
		}
		return b.String()
	}
	const services = "HOSTAUDIT_SERVICES=[{name: api, port: 8080, audience: everyone}]"
	fires := func(series, alert, at, labels string) error {
		text := "rule_files: [" + rules + "]\nevaluation_interval: 10m\ntests:\n- interval: 1m\n  input_series:\n" + series +
			"  alert_rule_test:\n  - {eval_time: " + at + ", alertname: " + alert + ", exp_alerts: [" + labels + "]}\n"
		out, err := try(nil, "promtool", "test", "rules", write("test.yaml", text))
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	const critical = `{exp_labels: {severity: critical, id: firewall.port-blocked, subject: "tcp 0.0.0.0:8080"},
      exp_annotations: {summary: "firewall.port-blocked on : tcp 0.0.0.0:8080", description: "Clients are kept out, or let in, against what is meant. hostaudit checks firewall.port-blocked explains it."}}`
	if err := fires(series(services), "HostauditCriticalFinding", "10m", critical); err != nil {
		t.Error(err)
	}
	if err := fires(series(""), "HostauditCriticalFinding", "10m", ""); err != nil { // nothing is configured: a warning only
		t.Error(err)
	}
	if fires(series(""), "HostauditWarningFinding", "25h", "") == nil {
		t.Error("a warning of a day fires nothing")
	}
	if err := fires(series(""), "HostauditStale", "47h", ""); err != nil {
		t.Error(err)
	}
	if fires(series(""), "HostauditStale", "49h", "") == nil {
		t.Error("a report of two days ago fires nothing")
	}
}
