package audit

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func day(s string) time.Time {
	t, err := time.Parse(DateForm, s)
	if err != nil {
		panic(err)
	}
	return t
}

// TestAccept: a waiver holds through its last day, by the clock of the snapshot.
func TestAccept(t *testing.T) {
	w := Waiver{ID: "a.b", Subject: "s", Reason: "weighed", Until: day("2027-06-30"), Source: "f:1"}
	for _, c := range []struct {
		now      time.Time
		accepted bool
	}{
		{day("2020-01-01"), true},
		{day("2027-06-30").Add(24*time.Hour - time.Nanosecond), true},
		{day("2027-07-01"), false},
	} {
		fs := []Finding{{ID: "a.b", Subject: "s", Severity: Critical}, {ID: "a.b", Subject: "other"}, {ID: "a.c", Subject: "s"}}
		idle := accept(fs, []Waiver{w, {ID: "x.y", Subject: "s", Reason: "r"}}, c.now)
		if (fs[0].Accepted != nil) != c.accepted || (fs[0].Expired != nil) == c.accepted {
			t.Errorf("at %v: accepted %v, expired %v", c.now, fs[0].Accepted, fs[0].Expired)
		}
		if fs[1].Accepted != nil || fs[2].Accepted != nil {
			t.Error("a waiver covers more than its finding")
		}
		if len(idle) != 1 || idle[0].ID != "x.y" {
			t.Errorf("idle entries: %v", idle)
		}
		r := Report{Findings: fs}
		if r.Reaches(Critical) == c.accepted || len(r.Counting()) != map[bool]int{true: 2, false: 3}[c.accepted] {
			t.Errorf("at %v the wrong findings count: %v", c.now, r.Counting())
		}
	}
}

func TestReaches(t *testing.T) {
	r := Report{Findings: []Finding{{ID: "a.b", Severity: Warning}}}
	for s, want := range map[Severity]bool{Critical: false, Warning: true, Info: true, "": false} {
		if r.Reaches(s) != want {
			t.Errorf("a warning reaches %q: %v", s, !want)
		}
	}
}

func TestAudience(t *testing.T) {
	p := netip.MustParsePrefix
	office := Audience{Kind: ForNetworks, Networks: []netip.Prefix{p("10.0.0.0/8"), p("2001:db8::/32")}}
	for _, c := range []struct {
		a       Audience
		sources string
		covers  bool
		overlap []string
	}{
		{Audience{Kind: ForEveryone}, "0.0.0.0/0", true, []string{"0.0.0.0/0"}},
		{Audience{Kind: ForHost}, "10.0.0.1/32", false, nil},
		{office, "10.1.0.0/16", true, []string{"10.1.0.0/16"}},
		{office, "10.0.0.0/8", true, []string{"10.0.0.0/8"}},
		{office, "8.0.0.0/6", false, []string{"10.0.0.0/8"}},
		{office, "11.0.0.0/8", false, nil},
		{office, "::/0", false, []string{"2001:db8::/32"}},
	} {
		var got []string
		for _, o := range c.a.Overlap(p(c.sources)) {
			got = append(got, o.String())
		}
		if c.a.Covers(p(c.sources)) != c.covers {
			t.Errorf("%v covers %s: %v", c.a, c.sources, !c.covers)
		}
		if d := cmp.Diff(c.overlap, got); d != "" {
			t.Errorf("%v and %s:\n%s", c.a, c.sources, d)
		}
	}
}
