package audit

import (
	"errors"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/reach"
	"github.com/hostaudit/hostaudit/listeners"
)

func check(run func(*Pass) error) *Check {
	return &Check{ID: "a.b", Title: "t", Doc: "d", Severity: Warning, Refs: []string{"r"}, Needs: []Need{NeedListeners}, Fix: FixManual, Run: run}
}

// TestOutcomes: the ways a check can end.
func TestOutcomes(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(*Pass) error
		want Status
	}{
		"pass":    {func(*Pass) error { return nil }, Passed},
		"fail":    {func(p *Pass) error { p.Report(Finding{Subject: "s"}); p.Unsure("x", "y"); return nil }, Failed},
		"unknown": {func(p *Pass) error { p.Unsure("x", "y"); p.NotApplicable(); return nil }, Unknown},
		"n/a":     {func(p *Pass) error { p.NotApplicable(); return nil }, NotApplicable},
		"error":   {func(*Pass) error { return errors.New("boom") }, Errored},
		"panic":   {func(*Pass) error { panic("boom") }, Errored},
	} {
		base := Pass{Snapshot: &Snapshot{World: reach.World{Namespaces: []*reach.Namespace{{Listeners: &listeners.Table{}}}}}}
		if r, _ := check(c.run).run(base); r.Status != c.want {
			t.Errorf("%s: %s, want %s", name, r.Status, c.want)
		}
		base.Snapshot.World.Namespaces[0] = &reach.Namespace{Unread: map[string]string{"listeners": "operation not permitted"}}
		if r, _ := check(c.run).run(base); r.Status != Unknown || !strings.Contains(r.Unsure[0].Why, "operation not permitted") {
			t.Errorf("%s without what it needs: %+v", name, r)
		}
	}
}

// TestValidate: each rule of the catalogue bites.
func TestValidate(t *testing.T) {
	ok := func() *Check { return check(func(*Pass) error { return nil }) }
	if err := Validate([]*Check{ok()}); err != nil {
		t.Fatalf("control: %v", err)
	}
	for want, spoil := range map[string]func(*Check){
		"area.what-is-wrong": func(c *Check) { c.ID = "Loopback" },
		"full stop":          func(c *Check) { c.Title = "t." },
		"no explanation":     func(c *Check) { c.Doc = " " },
		"no severity":        func(c *Check) { c.Severity = "loud" },
		"no fix":             func(c *Check) { c.Fix = "" },
		"no references":      func(c *Check) { c.Refs = nil },
		"needs nothing":      func(c *Check) { c.Needs = nil },
		"no judgement":       func(c *Check) { c.Run = nil },
	} {
		c := ok()
		spoil(c)
		if err := Validate([]*Check{c}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if err := Validate([]*Check{ok(), ok()}); err == nil {
		t.Error("the same id twice")
	}
}

// TestWeigh: hidden processes matter only where a listener's owner is among them.
func TestWeigh(t *testing.T) {
	gaps := []Gap{{What: "owners: 1 of 9 processes"}, {What: "firewall"}}
	owned := &Port{Listener: &listeners.Listener{Unowned: listeners.KernelSocket}}
	hidden := &Port{Listener: &listeners.Listener{Unowned: listeners.NoPrivilege}}
	if got := weigh(gaps, []*Port{owned, {}}); !got[0].Minor || got[1].Minor {
		t.Errorf("all owners known: %+v", got)
	}
	if got := weigh(gaps, []*Port{owned, hidden}); got[0].Minor {
		t.Errorf("an owner is hidden: %+v", got)
	}
	if gaps[0].Minor {
		t.Error("the snapshot's own gaps were changed")
	}
}
