package report

import (
	"slices"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/reach"
)

// What fills lines is said once; what is short, or differs in anything, again.
func TestSaidOnce(t *testing.T) {
	networks := "everyone but 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 and 17 more"
	rules := []string{"others: nftables inet filter input #51", "ip saddr 192.0.2.0/24 drop", "others: nftables inet filter input #56"}
	long := line{who: networks, decides: rules, mark: '~'}
	for name, c := range map[string]struct {
		above, below line
		who          string
		decides      []string
	}{
		"the same":       {long, long, "as above", []string{"as above"}},
		"other words":    {long, line{who: strings.Replace(networks, "17", "18", 1), decides: rules, mark: '~'}, strings.Replace(networks, "17", "18", 1), rules},
		"other rules":    {long, line{who: networks, decides: rules[:2], mark: '~'}, networks, rules[:2]},
		"another mark":   {long, line{who: networks, decides: rules, mark: '!'}, networks, rules},
		"short":          {line{who: "everyone", decides: rules[:1]}, line{who: "everyone", decides: rules[:1]}, "everyone", rules[:1]},
		"short, long":    {line{who: "nobody", decides: rules}, line{who: "nobody", decides: rules}, "nobody", []string{"as above"}},
		"nothing at all": {line{}, line{}, "", nil},
	} {
		got := c.below.after(&c.above)
		if got.who != c.who || !slices.Equal(got.decides, c.decides) {
			t.Errorf("%s: %q, %q", name, got.who, got.decides)
		}
	}
}

// TestDecidingSeveral: what stands for several witnesses is named by what they
// share, and never as rule 0 or as nothing.
func TestDecidingSeveral(t *testing.T) {
	const text = "one of: #1 drop; #2 drop"
	for _, c := range []struct {
		by         reach.DecidedBy
		head, body string
	}{
		{reach.DecidedBy{Kind: reach.ByRule, Backend: "nftables", Family: "ip", Table: "t", Chain: "in", Text: text}, "nftables ip t in", text},
		{reach.DecidedBy{Kind: reach.ByRule, Text: text}, text, ""},
		{reach.DecidedBy{Kind: reach.ByPolicy, Text: "one of: INPUT policy drop; FORWARD policy drop"}, "one of: INPUT policy drop; FORWARD policy drop", ""},
	} {
		if head, body := deciding(c.by); head != c.head || body != c.body {
			t.Errorf("%+v: %q, %q", c.by, head, body)
		}
	}
}
