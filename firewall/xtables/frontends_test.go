package xtables_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hostaudit/hostaudit/audit/lab"
	"github.com/hostaudit/hostaudit/firewall"
	"github.com/hostaudit/hostaudit/firewall/nft"
)

// readNFT reads the tables of iptables-nft.
func readNFT(t *testing.T, n *lab.Namespace) []*firewall.Table {
	t.Helper()
	var rs *firewall.Ruleset
	var err error
	n.Do(func() {
		sets, serr := readSets(context.Background())
		if serr != nil {
			err = serr
			return
		}
		c, oerr := nft.Open()
		if oerr != nil {
			err = oerr
			return
		}
		defer c.Close()
		rs, err = nft.Read(context.Background(), c, nft.Options{Sets: sets})
	})
	if err != nil {
		t.Fatal(err)
	}
	return rs.Tables
}

// TestFrontEndsGiveOneModel loads every rule of the corpus by iptables-legacy
// and by iptables-nft and holds the two models and texts against each other.
func TestFrontEndsGiveOneModel(t *testing.T) {
	lab.Need(t, "iptables-legacy", "iptables-nft", "ipset")
	old, new := lab.New(t, lab.Topology{}).Server, lab.New(t, lab.Topology{}).Server
	old.Load(t, lab.IPSet, labSets)
	new.Load(t, lab.IPSet, labSets)
	same, other, refused := 0, 0, 0
	for _, r := range corpus(t) {
		text := "*" + r.table + "\n" + chainsOf[r.table] + r.rule + "\nCOMMIT\n"
		if old.TryLoad(t.Context(), loader(r.fam, false), text) != nil || new.TryLoad(t.Context(), loader(r.fam, true), text) != nil {
			refused++
			continue
		}
		chain := strings.Fields(r.rule)[1]
		a, b := lastRule(readLegacy(t, old), r, chain), lastRule(readNFT(t, new), r, chain)
		if a == nil || b == nil {
			t.Errorf("rules.txt:%d: %s: not read (%v, %v)", r.line, r.rule, a != nil, b != nil)
			continue
		}
		if x, y := model(a), model(b); !slices.Equal(x, y) && !otherByNature(r.rule) {
			other++
			t.Errorf("rules.txt:%d: %s %s\nlegacy %s\nnft    %s", r.line, r.fam, r.rule, strings.Join(x, "\n       "), strings.Join(y, "\n       "))
		} else {
			same++
		}
	}
	t.Logf("%d rules are one model, %d are not; %d were refused", same, other, refused)
	if same < 500 {
		t.Errorf("only %d rules were compared", same)
	}
}

// otherByNature names the rules that iptables-nft does not hand to the kernel
// as x_tables structs, and whose own expressions say less: limit, log and trace.
// NETMAP in a user-defined chain needs the hooks that reach it.
func otherByNature(rule string) bool {
	return strings.Contains(rule, "-m limit") || strings.Contains(rule, "-j NFLOG") || strings.Contains(rule, "-j TRACE") || strings.Contains(rule, "-A onlydst")
}

func lastRule(tables []*firewall.Table, r corpusRule, chain string) *firewall.Rule {
	for _, tb := range tables {
		if tb.Family != r.fam || tb.Name != r.table {
			continue
		}
		for _, c := range tb.Chains {
			if c.Name == chain && len(c.Rules) > 0 {
				return c.Rules[len(c.Rules)-1]
			}
		}
	}
	return nil
}

// model writes the statements of a rule, without those that do nothing, in a
// canonical order: matches before the rest.
func model(r *firewall.Rule) []string {
	var matches, rest []string
	for _, s := range r.Stmts {
		switch s := s.(type) {
		case *firewall.Inert:
			if s.Name == "comment" || s.Name == "counter" {
				continue
			}
			rest = append(rest, dump(reflect.ValueOf(s)))
		case firewall.Matcher:
			matches = append(matches, dump(reflect.ValueOf(s)))
		case *firewall.Opaque:
			if s.MayEnd {
				rest = append(rest, dump(reflect.ValueOf(s)))
			} else {
				matches = append(matches, dump(reflect.ValueOf(s)))
			}
		default:
			rest = append(rest, dump(reflect.ValueOf(s)))
		}
	}
	slices.Sort(matches)
	return append(matches, rest...)
}

// dump writes a value, pointers followed, chains and sets by name. HostOrder
// counts only for the keys of sets, of which there are none here.
func dump(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case *firewall.Chain:
		if x == nil {
			return "nil"
		}
		return "chain " + x.Name
	case *firewall.IPSet:
		return "ipset " + x.Name
	case firewall.Value:
		return x.String()
	case firewall.Ranges:
		return x.String()
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return "nil"
		}
		return dump(v.Elem())
	case reflect.Struct:
		s := v.Type().Name() + "{"
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && !v.Field(i).IsZero() && f.Name != "Raw" && f.Name != "Why" && f.Name != "HostOrder" {
				s += " " + f.Name + ":" + dump(v.Field(i))
			}
		}
		return s + "}"
	case reflect.Slice:
		s := "["
		for i := range v.Len() {
			s += dump(v.Index(i)) + " "
		}
		return s + "]"
	default:
		return fmt.Sprint(v.Interface())
	}
}
