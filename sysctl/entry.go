package sysctl

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Class says when the program speaks about a key at all.
type Class string

// The classes of the catalogue.
const (
	ClassEvidence Class = "evidence" // only with live evidence: a counter, a census, a rate
	ClassWrong    Class = "wrong"    // a state that is wrong under any load
	ClassNever    Class = "never"    // never recommended; reported where found
	ClassInfo     Class = "info"     // shown, never a finding
)

// Scope says whose setting it is.
type Scope string

// The scopes (kernel 6.18, measured).
const (
	ScopeNamespace Scope = "namespace" // each network namespace has its own
	ScopeGlobal    Scope = "global"    // one for the machine; visible and read-only in other namespaces
	ScopeInitial   Scope = "initial"   // one for the machine; does not exist in other namespaces
	ScopeHost      Scope = "host"      // outside net.: one for the machine, writable from any namespace
	ScopeProcess   Scope = "process"   // a limit of each process
	ScopeDevice    Scope = "device"    // of a network device or driver
)

// Unit is what a number counts.
type Unit string

// The units.
const (
	UnitNone    Unit = ""
	UnitBool    Unit = "switch"
	UnitBytes   Unit = "bytes"
	UnitPages   Unit = "pages"
	UnitSeconds Unit = "seconds"
	UnitMillis  Unit = "milliseconds"
	UnitMicros  Unit = "microseconds"
	UnitPackets Unit = "packets"
	UnitEntries Unit = "entries"
	UnitPorts   Unit = "ports"
	UnitCount   Unit = "count"
)

// Verdict is what the program thinks of a value on this host.
type Verdict string

// The verdicts; the words of the report.
const (
	OK      Verdict = "ok"
	Advice  Verdict = "advice"  // the evidence says that another value would help
	Wrong   Verdict = "wrong"   // wrong under any load
	Harmful Verdict = "harmful" // popular advice that does harm
	Unknown Verdict = "unknown" // a fact that decides could not be read
)

// Severity is how loud a finding is.
type Severity string

// The severities; the words of the report.
const (
	Critical Severity = "critical"
	Warning  Severity = "warning"
	Info     Severity = "info"
)

// Evidence is one observed thing behind a judgement.
type Evidence struct {
	Source string `json:"source"` // "TcpExt ListenOverflows"
	Value  string `json:"value"`  // "+12 in 1s (3044 since boot)"
}

// Judgement is what one entry says about this host.
type Judgement struct {
	Verdict Verdict `json:"verdict"`
	// Finding is the id of the finding ("sysctl.abort-on-overflow"); empty when
	// there is nothing to report.
	Finding  string   `json:"finding,omitempty"`
	Severity Severity `json:"severity,omitempty"`
	// Subject is what the finding is about where that is more than the key, for
	// example a port or a destination.
	Subject string `json:"subject,omitempty"`
	Why     string `json:"why"`
	// Recommend is the value to set, empty when none is recommended.
	Recommend string     `json:"recommend,omitempty"`
	Remedy    string     `json:"remedy,omitempty"` // what to do, in words
	Evidence  []Evidence `json:"evidence,omitempty"`
	// Part: the finding is another entry's; this one has a value to recommend for
	// the same cause and nothing to report beside it.
	Part bool `json:"part,omitempty"`
	// Missing names the facts that would be needed; set with Unknown.
	Missing []string `json:"missing,omitempty"`
}

// Entry is one setting or limit of the catalogue.
type Entry struct {
	// Key is the setting; "*" stands for an interface. Limits that are no
	// sysctl have a name of their own that begins with "limit.", "device." or
	// "boot.".
	Key   Key
	Title string // a few words, no full stop
	// Meaning is what it really does, for people.
	Meaning string
	Unit    Unit
	Shape   Shape
	Fields  int // how many integers, for ShapeInts
	// Min and Max bound the numbers that every kernel stores as they stand; what
	// happens beyond differs between versions. nil: from 0 to 2147483647, and to
	// 1 for switches.
	Min, Max *int64
	// Coarse values are kept in ticks of the kernel's clock: only full seconds
	// come back as they were written.
	Coarse bool
	// Atomic values are stored whole or not at all.
	Atomic bool
	// Default is the kernel's value where it is a constant; DefaultNote says
	// what it is otherwise, and since when.
	Default     string
	DefaultNote string
	Since       Version // first kernel that has it; zero: before 3.10
	Removed     Version // first kernel that has it no longer; zero: still there
	Scope       Scope
	Class       Class
	// Module is the kernel module without which the key does not exist.
	Module string
	// Decides names the counters and facts the rule looks at.
	Decides []string
	// Advice says in words how the recommended value follows from the host, where
	// one is ever recommended; Rule reckons it.
	Advice string
	// LargerIsFine: more than the wanted value is never a fault.
	LargerIsFine bool
	// ReadOnly keys are never written by this program.
	ReadOnly bool
	// Rule judges the key (an instance of it, for per-interface keys) on a
	// host. nil: the key is information.
	Rule func(k Key, f *Facts) []Judgement
	Refs []string
}

// ID is the name of the entry in the catalogue of checks: "sysctl." and the key.
func (e *Entry) ID() string { return "sysctl." + string(e.Key) }

// Setting says whether the entry is a file below /proc/sys.
func (e *Entry) Setting() bool {
	for _, p := range []string{"limit.", "device.", "boot."} {
		if strings.HasPrefix(string(e.Key), p) {
			return false
		}
	}
	return true
}

// Meets says whether a value is the wanted one by meaning: white space and the
// spelling of numbers and lists do not count, and where larger is fine each field
// may be larger.
func (e *Entry) Meets(value, want string) bool {
	if e.Shape.Equal(value, want) {
		return true
	}
	if e.Key == keyPortRange { // a wider range holds every narrower one
		v, err1 := ParseRange(value)
		w, err2 := ParseRange(want)
		return err1 == nil && err2 == nil && v.Low <= w.Low && v.High >= w.High
	}
	if !e.LargerIsFine {
		return false
	}
	_, below, err := e.Shape.Raise(value, want)
	return err == nil && !below
}

// Applicable says whether the kernel version has the key. A key that it should
// not have and has (a backport) is applicable because it is there.
func (e *Entry) Applicable(v Version) (bool, string) {
	switch {
	case v == Version{}:
		return true, ""
	case e.Removed != Version{} && v.AtLeast(e.Removed):
		return false, "removed in Linux " + e.Removed.String()
	case e.Since != Version{} && !v.AtLeast(e.Since):
		return false, "exists since Linux " + e.Since.String()
	}
	return true, ""
}

// Judge says what the entry means for the host. A key that is not there is
// never a failure: the answer is OK with the reason. Without a rule the answer
// is OK, too.
func (e *Entry) Judge(k Key, f *Facts) []Judgement {
	if e.Setting() {
		switch v := f.Live[k]; v.State {
		case Absent:
			why := "not applicable: the key does not exist here"
			if ok, reason := e.Applicable(f.Kernel); !ok {
				why = "not applicable: " + reason
			} else if e.Module != "" {
				why = "not applicable: module " + e.Module + " is not loaded"
			} else if e.Scope == ScopeInitial && f.InitialNamespace == No {
				why = "not applicable: the key exists in the machine's first network namespace only"
			}
			return []Judgement{{Verdict: OK, Why: why}}
		case Failed:
			return []Judgement{{Verdict: Unknown, Why: "could not be read: " + v.Err, Missing: []string{string(k)}}}
		case Present:
		default:
			return []Judgement{{Verdict: Unknown, Why: "was not read", Missing: []string{string(k)}}}
		}
	}
	var out []Judgement
	for _, l := range lintLive(k, f) {
		out = append(out, l.judgement())
	}
	if e.Rule != nil {
		out = append(out, e.Rule(k, f)...)
	}
	if len(out) == 0 && e.Rule == nil && e.Class == ClassInfo {
		return []Judgement{{Verdict: OK, Why: "information only; nothing on a host is wrong because of this value alone"}}
	}
	if len(out) == 0 {
		return []Judgement{{Verdict: OK, Why: "nothing speaks against it"}}
	}
	return out
}

// Worst returns the judgement that stands for the key in a list of one line a
// key: harmful before wrong before advice before unknown before ok.
func Worst(js []Judgement) Judgement {
	rank := func(v Verdict) int {
		return map[Verdict]int{Harmful: 5, Wrong: 4, Advice: 3, Unknown: 2, OK: 1}[v]
	}
	var worst Judgement
	for _, j := range js {
		if rank(j.Verdict) > rank(worst.Verdict) {
			worst = j
		}
	}
	return worst
}

// Version is a kernel version.
type Version struct{ Major, Minor int }

// ParseVersion reads uname's release, "6.1.0-37-amd64".
func ParseVersion(release string) (Version, error) {
	major, rest, ok := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(rest[:end])
	if !ok || err1 != nil || err2 != nil {
		return Version{}, fmt.Errorf("kernel release %q: no version in it", release)
	}
	return Version{a, b}, nil
}

// AtLeast says whether v is w or newer.
func (v Version) AtLeast(w Version) bool {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor)) >= 0
}

// String is "6.1".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
