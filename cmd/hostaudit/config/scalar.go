package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hostaudit/hostaudit/audit/report"
	"github.com/hostaudit/hostaudit/sysctl"
)

// kind is the YAML type of a setting.
type kind string

const (
	text    kind = "!!str"
	integer kind = "!!int"
	boolean kind = "!!bool"
)

// Scalar is a setting with one value: a key of the file, an environment variable
// and, on the commands that use it, a flag.
type Scalar struct {
	name  string
	kind  kind
	def   string
	Usage string
	check func(string) error
}

var scalars = []Scalar{
	{"fail-on", text, "critical", "severity from which findings make the exit code 1: critical, warning, info or never",
		oneOf("critical", "warning", "info", "never")},
	{"format", text, "text", "format of the report: " + strings.Join(report.Formats(), ", "), oneOf(report.Formats()...)},
	{"color", text, "auto", "colours: auto (on a terminal), always or never", oneOf("auto", "always", "never")},
	{"ascii", boolean, "false", "nothing but ASCII in text reports", isBool},
	{"width", integer, "0", "width of text reports in columns, 0 for that of the terminal", isWidth},
	{"sample", text, "1s", "how long counters are watched, 0s to 10m", isSample},
	{"quick", boolean, "false", "read counters once, without watching them", isBool},
	{"profile", text, "", "what kind of server this is: " + strings.Join(profiles(), ", "), oneOf(profiles()...)},
}

func scalar(name string) (Scalar, bool) {
	i := slices.IndexFunc(scalars, func(s Scalar) bool { return s.name == name })
	if i < 0 {
		return Scalar{}, false
	}
	return scalars[i], true
}

func profiles() []string {
	var out []string
	for _, p := range sysctl.Profiles() {
		out = append(out, p.Name)
	}
	return out
}

func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(words, s) {
			return nil
		}
		return fmt.Errorf("%q is none of %s%s", s, strings.Join(words, ", "), nearest(s, words))
	}
}

func isBool(s string) error {
	if s != "true" && s != "false" {
		return fmt.Errorf("%q is neither true nor false", s)
	}
	return nil
}

func isWidth(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n != 0 && (n < 40 || n > 1000) {
		return fmt.Errorf("%q is not a width from 40 to 1000, or 0", s)
	}
	return nil
}

func isSample(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 2s or 500ms", s)
	}
	if d < 0 || d > 10*time.Minute {
		return fmt.Errorf("%s is not between 0s and 10m", s)
	}
	return nil
}

// Value is a flag of a setting; it implements [pflag.Value] and checks what it is given.
type Value struct {
	scalar Scalar
	value  string
}

// Flag makes the flag of a setting.
func Flag(name string) (v *Value, usage string, err error) {
	s, ok := scalar(name)
	if !ok {
		return nil, "", errors.New("no setting " + name)
	}
	return &Value{s, s.def}, s.Usage, nil
}

// String is the present value.
func (v *Value) String() string { return v.value }

// Set checks and takes a value.
func (v *Value) Set(s string) error {
	if err := v.scalar.check(s); err != nil {
		return err
	}
	v.value = s
	return nil
}

// Type names the type in the help.
func (v *Value) Type() string {
	switch v.scalar.kind {
	case boolean:
		return "bool"
	case integer:
		return "N"
	default:
		return strings.ToUpper(v.scalar.name)
	}
}

// IsBoolFlag lets --quick stand without a value.
func (v *Value) IsBoolFlag() bool { return v.scalar.kind == boolean }

// nearest suggests a word of the list that is written almost the same.
func nearest(s string, words []string) string {
	best, at := min(3, len(s)/2), ""
	for _, w := range words {
		if d := distance(strings.ToLower(s), strings.ToLower(w), best); d < best {
			best, at = d, w
		}
	}
	if at == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", at)
}

// distance is the number of edits between two words (a letter put in, left out,
// exchanged, or swapped with its neighbour), at most limit.
func distance(a, b string, limit int) int {
	if len(a) > 64 || len(b) > 64 || len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return min(row[len(b)], limit)
}
