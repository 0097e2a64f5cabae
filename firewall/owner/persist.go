package owner

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/hostaudit/hostaudit/firewall"
)

// Patch is a change of a file from which the owner loads its rules.
type Patch struct {
	File  string
	After []byte
	// Check is a program that reads the new content and refuses what it would not
	// load; CheckWith is what it reads instead of the new content, where that is only a
	// part.
	Check     []string
	CheckWith []byte
}

// Persist says how an insertion is made to last: the line for the owner's own
// file, at the same place as in the kernel. before is the rule that comes after
// the new one, nil for the end of the chain. h holds the rules as they will be
// (with the new one). nil without an error: the owner has no file.
func Persist(who Kind, h *Host, i *Insertion, before *firewall.Rule) (*Patch, error) {
	switch who {
	case NFTablesService:
		if i.Backend != firewall.NFTables {
			return nil, fmt.Errorf("the rule is one of %s, which nftables.service does not load", i.Backend)
		}
		for _, name := range []string{nftConf, nftConfRHEL} {
			if data, ok := h.Files[name]; ok && hasRules(data) {
				patch, err := persistNFT(name, h, i)
				if err != nil {
					return nil, fmt.Errorf("%s cannot be changed safely (%w): add to the chain %s %s %s by hand: %s", name, err, i.Family, i.Table, i.Chain, i.Expression())
				}
				return patch, nil
			}
		}
		return nil, errors.New("its file was not found")
	case NetfilterPersistent, IPTablesServices:
		names := map[firewall.TableFamily]string{firewall.TableIP: rulesV4, firewall.TableIP6: rulesV6}
		if who == IPTablesServices {
			names = map[firewall.TableFamily]string{firewall.TableIP: rulesV4RHEL, firewall.TableIP6: rulesV6RHEL}
		}
		if i.Backend == firewall.NFTables {
			return nil, fmt.Errorf("the rule is one of nftables, which %s does not load", who)
		}
		name := names[i.Family]
		data, ok := h.Files[name]
		if !ok {
			return nil, fmt.Errorf("%s does not exist", name)
		}
		after, err := insertSaved(data, h, i, before)
		if err != nil {
			return nil, fmt.Errorf("%s cannot be changed safely (%w): add by hand: -A %s", name, err, strings.Join(i.Spec(), " "))
		}
		return &Patch{File: name, After: after, Check: []string{i.Program() + "-restore", "--test"}}, nil
	}
	return nil, nil
}

// insertSaved puts a line into a file that iptables-restore reads: before the line
// of the following rule.
func insertSaved(data []byte, h *Host, i *Insertion, before *firewall.Rule) ([]byte, error) {
	lines := strings.SplitAfter(string(data), "\n")
	start, end := -1, -1
	for n, l := range lines {
		l = strings.TrimSpace(l)
		switch {
		case l == "*"+i.Table && start < 0:
			start = n
		case l == "*"+i.Table:
			return nil, fmt.Errorf("the table %s stands twice", i.Table)
		case l == "COMMIT" && start >= 0 && end < 0:
			end = n
		}
		// A comment can hold a line end (iptables-save writes it raw): then lines
		// are no rules.
		if strings.Count(strings.ReplaceAll(l, `\"`, ""), `"`)%2 != 0 {
			return nil, fmt.Errorf("line %d: a quoted text goes on over the line's end", n+1)
		}
	}
	if start < 0 || end < 0 {
		return nil, fmt.Errorf("no table %s", i.Table)
	}
	line := "-A " + strings.Join(i.Spec(), " ") + "\n"
	at := -1
	if before == nil {
		for n := start + 1; n < end; n++ {
			if chainOf(lines[n]) == i.Chain {
				at = n + 1
			}
		}
		if at < 0 {
			at = end // the first rule of the chain
		}
	} else {
		n, err := lineOf(lines, start, end, h, i, before)
		if err != nil {
			return nil, err
		}
		at = n
	}
	if !slices.ContainsFunc(lines[start:end], func(l string) bool { return strings.HasPrefix(l, ":"+i.Chain+" ") }) {
		return nil, fmt.Errorf("no chain %s", i.Chain)
	}
	return []byte(strings.Join(slices.Insert(lines, at, line), "")), nil
}

// lineOf finds the line of a rule between two others: the one that says the same,
// or, in a file that somebody wrote by hand, the one with the rule's number, where
// the file has as many rules in the chain as the kernel and each ends in the same
// target.
func lineOf(lines []string, start, end int, h *Host, i *Insertion, before *firewall.Rule) (int, error) {
	var same, rules []int
	want := normal(before.Text())
	for n := start + 1; n < end; n++ {
		if chainOf(lines[n]) == i.Chain {
			rules = append(rules, n)
			if normal(lines[n]) == want {
				same = append(same, n)
			}
		} else if f := strings.Fields(lines[n]); len(f) > 1 && strings.HasPrefix(f[0], "-") && f[0] != "-A" && f[1] == i.Chain {
			return 0, fmt.Errorf("line %d is no rule at the end of the chain", n+1)
		}
	}
	switch ch := i.InChain(h.Rules); {
	case len(same) == 1:
		return same[0], nil
	case len(same) > 1:
		return 0, errors.New("the rule that decides stands there twice")
	case ch == nil || len(rules)+1 != len(ch.Rules):
		return 0, errors.New("the rule that decides does not stand there, and the chain's rules are not those of the kernel")
	default:
		k := 0
		for _, r := range ch.Rules {
			if r.Number == i.Number {
				continue // the new one
			}
			if k == len(rules) {
				return 0, errors.New("the new rule's place is not known")
			}
			if targetOf(lines[rules[k]]) != targetOf(r.Text()) {
				return 0, fmt.Errorf("line %d: %q, where the kernel has %q", rules[k]+1, strings.TrimSpace(lines[rules[k]]), r.Text())
			}
			k++
		}
		if i.Number > len(rules) {
			return 0, errors.New("its place is not in the file")
		}
		return rules[i.Number-1], nil
	}
}

// targetOf is the word behind -j or -g of a rule.
func targetOf(rule string) string {
	f := strings.Fields(rule)
	for n, w := range f[:max(len(f)-1, 0)] {
		switch w {
		case "-j", "--jump", "-g", "--goto":
			return f[n+1]
		}
	}
	return ""
}

var counters = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\[\d+:\d+\] `) })

// normal is a rule's text without counters and double blanks.
func normal(s string) string {
	return strings.Join(strings.Fields(counters().ReplaceAllString(strings.TrimSpace(s), "")), " ")
}

func chainOf(line string) string {
	f := strings.Fields(counters().ReplaceAllString(strings.TrimSpace(line), ""))
	if len(f) < 2 || f[0] != "-A" {
		return ""
	}
	return f[1]
}

// insertNFT puts a line into a file of nft commands: into the block of the chain,
// at the place that the rule has in the kernel. It does so only where the block
// has one rule a line, and as many as the chain in the kernel: then the n-th line
// is the n-th rule.
func insertNFT(data []byte, h *Host, i *Insertion) ([]byte, error) {
	lines := strings.SplitAfter(string(data), "\n")
	start, end := -1, -1
	table, chain, depth := "", "", 0
	want := fmt.Sprintf("%s %s", i.Family, i.Table)
	for n, l := range lines {
		l = code(l)
		f := strings.Fields(strings.TrimSuffix(l, "{"))
		opens := strings.HasSuffix(l, "{")
		switch {
		case l == "":
		case depth == 0 && opens && len(f) >= 2 && f[0] == "table":
			table = strings.Join(f[1:], " ")
			if len(f) == 2 {
				table = "ip " + f[1]
			}
			depth = 1
		case depth == 1 && opens && len(f) == 2 && f[0] == "chain":
			chain, depth = f[1], 2
			if table == want && chain == i.Chain {
				if start >= 0 {
					return nil, errors.New("the chain stands there twice")
				}
				start = n + 1
			}
		case depth == 2 && l == "}":
			if table == want && chain == i.Chain {
				end = n
			}
			chain, depth = "", 1
		case depth == 1 && l == "}":
			table, depth = "", 0
		case depth == 1 && opens && strings.Count(l, "{") == 1:
			depth = 3 // a set, a map: not looked into
		case depth == 3 && l == "}":
			depth = 1
		case depth == 0 && (strings.HasPrefix(l, "add ") || strings.HasPrefix(l, "insert ") || strings.HasPrefix(l, "include")):
			if strings.Contains(l, i.Chain) {
				return nil, fmt.Errorf("line %d speaks of the chain, too", n+1)
			}
		case strings.Count(l, "{") != strings.Count(l, "}"):
			return nil, fmt.Errorf("line %d: a block that goes on over lines", n+1)
		}
	}
	if start < 0 || end < 0 || depth != 0 {
		return nil, errors.New("the chain does not stand there as a block of its own")
	}
	ch := i.InChain(h.Rules)
	var rules []int
	for n := start; n < end; n++ {
		l := code(lines[n])
		if l == "" || strings.HasPrefix(l, "type ") || strings.HasPrefix(l, "policy ") || strings.HasPrefix(l, "comment ") {
			continue
		}
		if strings.Contains(strings.Trim(l, ";"), ";") {
			return nil, fmt.Errorf("line %d holds several statements", n+1)
		}
		if strings.HasPrefix(l, "include ") || strings.HasPrefix(l, "define ") {
			return nil, fmt.Errorf("line %d is no rule", n+1)
		}
		rules = append(rules, n)
	}
	if ch == nil || len(rules)+1 != len(ch.Rules) {
		return nil, errors.New("its rules are not those of the kernel")
	}
	at, indent := end, "\t\t"
	if i.Number <= len(rules) {
		at = rules[i.Number-1]
		indent = lines[at][:len(lines[at])-len(strings.TrimLeft(lines[at], " \t"))]
	} else if len(rules) > 0 {
		last := lines[rules[len(rules)-1]]
		indent = last[:len(last)-len(strings.TrimLeft(last, " \t"))]
	}
	return []byte(strings.Join(slices.Insert(lines, at, indent+i.Expression()+"\n"), "")), nil
}

// code is a line without its comment and blanks around it.
func code(l string) string {
	quoted := false
	for n, r := range l {
		switch {
		case r == '"':
			quoted = !quoted
		case r == '#' && !quoted:
			l = l[:n]
			return strings.TrimSpace(l)
		}
	}
	return strings.TrimSpace(l)
}

// UFWChains are the chains in which ufw's own rules stand, one a family.
func UFWChains(rs *firewall.Ruleset) []Insertion {
	return find(rs, "ufw-user-input", "ufw6-user-input")
}

// AtWork says whether an owner with a program of its own has loaded its chains.
func AtWork(who Kind, rs *firewall.Ruleset) bool {
	switch who {
	case UFW:
		return len(UFWChains(rs)) > 0
	case Firewalld:
		return slices.ContainsFunc(zones, func(form zoneForm) bool { return len(find(rs, form.chains...)) > 0 })
	}
	return false
}

func find(rs *firewall.Ruleset, names ...string) []Insertion {
	var out []Insertion
	for _, t := range rs.Tables {
		for _, ch := range t.Chains {
			if slices.Contains(names, ch.Name) {
				out = append(out, Insertion{Backend: t.Backend, Family: t.Family, Table: t.Name, Chain: ch.Name})
			}
		}
	}
	return out
}

// zoneForm is how firewalld dispatches interfaces to zones: the chain, a rule for an
// interface, the rule for the rest, and the chain of a zone's accepts.
type zoneForm struct {
	chains     []string
	iface, any func() *regexp.Regexp
	allow      string
}

// zones are its two forms, by firewalld's back end.
var zones = []zoneForm{
	{[]string{"filter_INPUT_ZONES"}, sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`iifname "?([^" ]+)"? .*(?:goto|jump) filter_IN_([A-Za-z0-9_-]+)`)
	}),
		sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?:goto|jump) filter_IN_([A-Za-z0-9_-]+)`) }), "filter_IN_%s_allow"},
	{[]string{"INPUT_ZONES"}, sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`-i (\S+) .*-[gj] IN_([A-Za-z0-9_-]+)`) }),
		sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`-[gj] IN_([A-Za-z0-9_-]+)`) }), "IN_%s_allow"},
}

// FirewalldZone is the zone of an interface, read from firewalld's own rules (in
// either of its back ends), and the chains in which the zone's accepts stand. ""
// where it cannot be told.
func FirewalldZone(rs *firewall.Ruleset, iif string) (zone string, chains []Insertion) {
	for _, form := range zones {
		for _, t := range rs.Tables {
			for _, ch := range t.Chains {
				if !slices.Contains(form.chains, ch.Name) {
					continue
				}
				for _, r := range ch.Rules {
					text := r.Text() + " "
					if strings.Contains(text, "saddr") || strings.Contains(text, " -s ") || strings.Contains(text, "--match-set") {
						continue // a zone of sources
					}
					if m := form.iface().FindStringSubmatch(text); m != nil {
						if !sameInterface(m[1], iif) {
							continue
						}
						zone = m[2]
					} else if m := form.any().FindStringSubmatch(text); m != nil {
						zone = m[1]
					}
					if zone != "" {
						return zone, find(rs, fmt.Sprintf(form.allow, zone))
					}
				}
			}
		}
	}
	return "", nil
}

// sameInterface: a name, or the beginning of names (nft's *, iptables' +).
func sameInterface(pattern, name string) bool {
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, begin)
	}
	if begin, ok := strings.CutSuffix(pattern, "+"); ok {
		return strings.HasPrefix(name, begin)
	}
	return pattern == name
}

// WithoutUFW takes the rules with a comment out of a file of ufw's user rules: the
// line "### tuple ###" with the mark, and the rules that follow it up to the next
// empty line.
func WithoutUFW(data []byte, mark string) (rest []byte, changed bool) {
	skip := false
	var out bytes.Buffer
	for line := range bytes.Lines(data) {
		l := strings.TrimSpace(string(line))
		if strings.HasPrefix(l, "### tuple ###") {
			skip = slices.Contains(strings.Fields(l), mark)
			changed = changed || skip
		} else if l == "" || strings.HasPrefix(l, "###") {
			if skip && l == "" {
				skip = false
				continue
			}
			skip = false
		}
		if !skip {
			out.Write(line)
		}
	}
	return out.Bytes(), changed
}

// Offline is the command that undoes an instruction while its owner does not run,
// nil where there is none.
func (i *Instruction) Offline() []string {
	if i.Owner != Firewalld {
		return nil
	}
	out := []string{"firewall-offline-cmd"}
	for _, a := range i.Undo[1:] {
		if a != "--permanent" {
			out = append(out, a)
		}
	}
	return out
}
