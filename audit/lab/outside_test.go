package lab

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestOutside runs one test of this suite in a process that could not enter the
// laboratory: it must say so and skip, and fail where nothing may be missing.
func TestOutside(t *testing.T) {
	t.Parallel()
	Need(t)
	for _, c := range []struct {
		ci     string
		fails  bool
		saying string
	}{
		{"", false, "SKIPPED, missing here: the laboratory could not be entered: for this test"},
		{"true", true, "MISSING (CI=true): the laboratory could not be entered: for this test"},
	} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.run=^TestDo$")
		for _, v := range os.Environ() {
			if !strings.HasPrefix(v, Marker+"=") && !strings.HasPrefix(v, "CI=") {
				cmd.Env = append(cmd.Env, v)
			}
		}
		cmd.Env = append(cmd.Env, whyOutside+"=for this test", "CI="+c.ci)
		out, err := cmd.CombinedOutput()
		if (err != nil) != c.fails || !strings.Contains(string(out), c.saying) {
			t.Errorf("CI=%q: %v\n%s", c.ci, err, out)
		}
	}
}
