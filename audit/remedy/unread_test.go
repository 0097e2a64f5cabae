package remedy

import (
	"errors"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit"
	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/audit/reach"
)

// TestUnreadIsNoPlan: where something was not read nothing is found, which is not the
// same as nothing to change; what is not asked for does not matter.
func TestUnreadIsNoPlan(t *testing.T) {
	lab.Need(t, "nft")
	d := newDrill(t, false, everybody)
	d.lab.Server.Load(t, lab.NFT, nftDrop)
	plan := func(findings []string, change func(*audit.Snapshot, *reach.Namespace)) (p *Plan, err error) {
		d.lab.Server.Do(func() {
			in := d.input()
			in.Findings = findings
			if in.Snapshot.Sysctls == nil || in.Snapshot.World.Namespaces[0].Ruleset == nil {
				t.Fatal("the host was not read")
			}
			change(in.Snapshot, in.Snapshot.World.Namespaces[0])
			p, err = NewPlan(in)
		})
		return p, err
	}
	if p, err := plan([]string{portBlocked}, func(*audit.Snapshot, *reach.Namespace) {}); err != nil || len(p.Steps) == 0 {
		t.Fatalf("everything was read: %v", err)
	}
	why := map[string]string{"firewall": "a test", "routes": "a test", "listeners": "a test"}
	for name, lose := range map[string]func(*audit.Snapshot, *reach.Namespace){
		"the rules: a test":                        func(_ *audit.Snapshot, ns *reach.Namespace) { ns.Ruleset, ns.Unread = nil, why },
		"routes and addresses: a test":             func(_ *audit.Snapshot, ns *reach.Namespace) { ns.Route, ns.Unread = nil, why },
		"the listeners: a test":                    func(_ *audit.Snapshot, ns *reach.Namespace) { ns.Listeners, ns.Unread = nil, why },
		"the kernel's settings":                    func(s *audit.Snapshot, _ *reach.Namespace) { s.Sysctls = nil },
		"the rules: a test; the kernel's settings": func(s *audit.Snapshot, ns *reach.Namespace) { s.Sysctls, ns.Ruleset, ns.Unread = nil, nil, why },
	} {
		if _, err := plan(nil, lose); !errors.Is(err, ErrUnread) || !strings.HasSuffix(err.Error(), name) {
			t.Errorf("%s: it ended with %v", name, err)
		}
		only, settings := []string{portBlocked}, strings.HasPrefix(name, "the kernel")
		if _, err := plan(only, lose); errors.Is(err, ErrUnread) == settings {
			t.Errorf("%s, %v: it ended with %v", name, only, err)
		}
		only = []string{"sysctl.ephemeral-range-small"}
		if _, err := plan(only, lose); errors.Is(err, ErrUnread) != strings.Contains(name, "the kernel") {
			t.Errorf("%s, %v: it ended with %v", name, only, err)
		}
	}
	// What is no matter of reading is said.
	d.lab.Server.Run(t, "nft", "insert rule inet filter input tcp dport 8080 limit rate 5/second accept")
	p, err := plan([]string{portBlocked}, func(*audit.Snapshot, *reach.Namespace) {})
	if text := p.Text(nil, false); err != nil || len(p.Steps) != 0 || !strings.Contains(strings.Join(strings.Fields(text), " "), "8080 is blocked cannot be told") {
		t.Errorf("a rate limit: %v\n%s", err, text)
	}
}
