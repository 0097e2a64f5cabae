package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// The verdict: a ratio at its ceiling passes, above it misses, and what was not
// measured, or compared with nothing, never passes.
func TestVerdict(t *testing.T) {
	ms := func(wall, cpu int) cost {
		return cost{time.Duration(wall) * time.Millisecond, time.Duration(cpu) * time.Millisecond, 10 << 20}
	}
	full, tenth := settings{Scale: 1}, settings{Scale: 10}
	for _, c := range []struct {
		name   string
		gate   gate
		result result
		in     settings
		want   string
	}{
		{"at the ceiling", gate{wall: 0.5}, result{Ours: ms(50, 0), Theirs: ms(100, 0)}, full, "pass"},
		{"above it", gate{wall: 0.5}, result{Ours: ms(51, 0), Theirs: ms(100, 0)}, full, "MISSED"},
		{"processor time", gate{wall: 0.5, cpu: 0.5}, result{Ours: ms(10, 60), Theirs: ms(100, 100)}, full, "MISSED"},
		{"nothing to compare with", gate{wall: 0.5}, result{Ours: ms(1, 1)}, full, "MISSED"},
		{"seconds", gate{seconds: 1}, result{Ours: ms(1001, 0)}, full, "MISSED"},
		{"memory", gate{seconds: 2, megabytes: 9}, result{Ours: ms(1001, 0)}, full, "MISSED"},
		{"enough memory", gate{seconds: 2, megabytes: 10}, result{Ours: ms(1001, 0)}, full, "pass"},
		{"failed", gate{wall: 0.5}, result{Ours: ms(1, 1), Theirs: ms(100, 100), Failed: "no such tool"}, full, "NOT MEASURED"},
		{"counts at full size", gate{wall: 0.5, full: true}, result{Ours: ms(51, 0), Theirs: ms(100, 0)}, tenth, "full size only"},
		{"at full size", gate{wall: 0.5, full: true}, result{Ours: ms(51, 0), Theirs: ms(100, 0)}, full, "MISSED"},
	} {
		if got := c.gate.status(c.in, c.result); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	good := result{Gate: "scan-small", Ours: ms(1, 1), Theirs: ms(100, 100)}
	bad := result{Gate: "scan-small", Ours: ms(100, 100), Theirs: ms(100, 100)}
	none := result{Gate: "scan-small", Failed: "killed"}
	for want, results := range map[int][]result{0: {good, good}, 1: {good, bad}, 2: {good, bad, none}} {
		if got := verdict(full, results); got != want {
			t.Errorf("exit status %d, want %d", got, want)
		}
	}
	if verdict(full, nil) != 2 {
		t.Error("nothing measured is a success")
	}
	var b bytes.Buffer
	printTable(&b, full, []result{good, bad, none})
	for _, want := range []string{"0.01 (0.35)", "**1 (0.35)**", "| NOT MEASURED |", "NOT MEASURED: whole scan, small host: killed", "3 gates, 1 passed"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &b)
		}
	}
}

// Every gate has a name of its own and a ceiling.
func TestGates(t *testing.T) {
	seen := map[string]bool{}
	for _, sc := range scenes {
		for _, g := range sc.gates {
			if seen[g.id] || g.title == "" || g.wall+g.cpu+g.seconds+g.megabytes == 0 || (g.wall+g.cpu > 0) != (g.against != "") {
				t.Errorf("gate %+v", g)
			}
			seen[g.id] = true
		}
	}
}

func TestMedian(t *testing.T) {
	c := median([]cost{{3, 30, 1}, {1, 10, 3}, {2, 20, 2}})
	if c != (cost{2, 20, 2}) {
		t.Errorf("%+v", c)
	}
	if c := median(nil); c != (cost{}) {
		t.Errorf("%+v", c)
	}
}

// The rules of the comparison are rules, for both kinds and in any number of
// chains.
func TestRulesets(t *testing.T) {
	if n := strings.Count(legacyRules(50), "-A INPUT"); n != 50 {
		t.Errorf("%d legacy rules", n)
	}
	if n := strings.Count(nftRules(50, ""), " drop\n"); n != 50 {
		t.Errorf("%d nft rules", n)
	}
	text := nftChains(50, 10)
	if strings.Count(text, " drop\n") != 50 || strings.Count(text, " jump ") != 10 || strings.Count(text, "{") != strings.Count(text, "}") {
		t.Errorf("chains:\n%s", text)
	}
	if n := strings.Count(nftSet(300), ",\n"); n != 300 {
		t.Errorf("%d elements", n)
	}
}
