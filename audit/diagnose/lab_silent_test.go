package diagnose_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostaudit/hostaudit/audit/diagnose"
	"github.com/hostaudit/hostaudit/audit/lab"
)

// A resolver that answers nothing is not asked for every name of a search list; one
// that is silent about a single domain is asked for the others.
func TestSilentResolver(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	const conf = "nameserver 127.0.0.1\nsearch a.test b.test c.test d.test e.test f.test\noptions ndots:5\n"
	if err := os.WriteFile(filepath.Join(root, "etc/resolv.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	ask := func(names map[string]string) *diagnose.Resolution {
		var r *diagnose.Resolution
		m := lab.New(t, lab.Topology{}).Server
		resolver(t, m, "127.0.0.1:53", names)
		m.Do(func() {
			r = diagnose.Resolve(t.Context(), "web", diagnose.ResolveOptions{Root: root, Limit: 100 * time.Millisecond})
		})
		return r
	}
	silence := map[string]string{"web": "!silence"}
	for _, d := range "abcdef" {
		silence[fmt.Sprintf("web.%c.test", d)] = "!silence"
	}
	r := ask(silence)
	if len(r.Answers) != 2 || r.Answers[0].Outcome != "timeout" || r.Answers[1].Outcome != "timeout" {
		t.Errorf("asked %d times: %+v", len(r.Answers), r.Answers)
	}
	if len(r.Gaps) != 1 || !strings.Contains(r.Gaps[0], "2 of 7 names") {
		t.Errorf("gaps %q", r.Gaps)
	}
	r = ask(map[string]string{"web.a.test": "!silence", "web.c.test": "!silence", "web.d.test": "192.0.2.7"})
	last := r.Answers[len(r.Answers)-2]
	if len(last.Addrs) != 1 || last.Addrs[0] != netip.MustParseAddr("192.0.2.7") || len(r.Gaps) != 0 {
		t.Errorf("%+v, gaps %q", r.Answers, r.Gaps)
	}
}
