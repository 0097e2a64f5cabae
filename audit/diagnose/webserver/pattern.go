package webserver

import (
	"regexp"
	"regexp/syntax"
)

// Bounds of the regular expressions of a configuration, which others wrote.
const (
	maxPattern = 1000      // bytes of one
	maxSteps   = 5_000     // of its program: repetitions in repetitions multiply
	maxEffort  = 100 << 20 // steps times the bytes they are held against, in one answer
)

// patterns are the regular expressions that are tried for one answer.
type patterns struct{ effort int }

// compile gives nil for an expression that is not understood here or costs too
// much; s is what it will be held against.
func (p *patterns) compile(re, s string, fold bool) *regexp.Regexp {
	if len(re) > maxPattern || p.effort > maxEffort {
		return nil
	}
	if fold {
		re = "(?i)" + re
	}
	tree, err := syntax.Parse(re, syntax.Perl)
	if err != nil {
		return nil
	}
	n := steps(tree)
	if p.effort += min(n, maxSteps) * (len(s) + 16); n > maxSteps {
		return nil
	}
	c, err := regexp.Compile(re)
	if err != nil {
		return nil
	}
	return c
}

// match tries an expression; known is false for one that is not tried.
func (p *patterns) match(re, s string, fold bool) (ok, known bool) {
	c := p.compile(re, s, fold)
	if c == nil {
		return false, false
	}
	return c.MatchString(s), true
}

func steps(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)/8
	for _, s := range re.Sub {
		n += steps(s)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}
