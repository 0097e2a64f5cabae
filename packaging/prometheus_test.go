package packaging

import (
	"encoding/json"
	"os"
	"regexp"
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
