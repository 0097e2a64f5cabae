package xtables_test

import (
	"os"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall/xtables"
)

// TestRecentEmpty: of the lists of recent those are known to be empty in which
// nobody is, and no other.
func TestRecentEmpty(t *testing.T) {
	lab.Need(t, "iptables-legacy")
	n := lab.New(t, lab.Topology{}).Server
	empty := func() (of func(string) bool) {
		t.Helper()
		n.Do(func() {
			names, err := xtables.RecentEmpty()
			if err != nil {
				t.Fatal(err)
			}
			of = xtables.Recents(names)
		})
		return of
	}
	if empty()("one") {
		t.Error("a list that does not exist is empty")
	}
	n.Load(t, lab.IPTablesLegacy, "*filter\n-A INPUT -m recent --name one --rcheck -j DROP\n-A INPUT -m recent --name two --rcheck -j DROP\nCOMMIT\n")
	if is := empty(); !is("one") || !is("two") {
		t.Errorf("one: %v, two: %v; both are empty", is("one"), is("two"))
	}
	n.Do(func() {
		if err := os.WriteFile("/proc/thread-self/net/xt_recent/one", []byte("+192.0.2.7\n"), 0); err != nil {
			t.Fatal(err)
		}
	})
	if is := empty(); is("one") || !is("two") {
		t.Errorf("one: %v, two: %v; somebody is in one", is("one"), is("two"))
	}
}
