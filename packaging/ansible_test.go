package packaging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnsible takes a Debian host through the role with the real ansible-playbook:
// check mode, installation, audit, idempotence, failing on findings, a wrong
// configuration, check and diff of a fix, the fix, its confirmation. Controller
// and host are one: a throw-away copy of a bootstrapped root in namespaces of its
// own (testdata/ansible).
func TestAnsible(t *testing.T) {
	t.Parallel()
	base := withSystemd(t)
	need(t, "ip", "ss", "unshare")
	dir, _, _ := packages(t)
	work := t.TempDir()
	copyTo(t, root{t, work}, dir+"/*.deb", "/")
	for _, name := range []string{"play.yml", "steps.sh"} {
		output(t, nil, "cp", "packaging/testdata/ansible/"+name, work+"/")
	}
	// The collection as ansible-galaxy builds and installs it.
	if err := os.Mkdir(filepath.Join(work, "source"), 0o755); err != nil {
		t.Fatal(err)
	}
	output(t, nil, "cp", "-a", "packaging/ansible/.", work+"/source/")
	out := onHost(t, base, work, "bash", "-ec", `cd /work
		ansible-galaxy collection build --output-path . source
		ansible-galaxy collection install --collections-path collections ./hostaudit-hostaudit-*.tar.gz
		exec ./steps.sh`)
	if !strings.HasSuffix(out, "ALL DONE\n") || strings.Count(out, "\nok: ") < 9 {
		t.Errorf("not every step was gone:\n%s", out)
	}
}
