package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
)

// Loader names a program that applies sysctl files.
type Loader string

// The loaders.
const (
	LoaderSystemd Loader = "systemd-sysctl" // systemd-sysctl.service, at boot and per new interface
	LoaderProcps  Loader = "procps"         // sysctl --system, by hand or from an init script
)

// Loaders lists both, in the order they are reported.
func Loaders() []Loader { return []Loader{LoaderSystemd, LoaderProcps} }

// sysctlDirs are the directories of both loaders, strongest first. systemd
// built without split /usr leaves out the last; where /lib is a link to usr/lib
// it is the same directory anyway.
var sysctlDirs = []string{
	"/etc/sysctl.d",
	"/run/sysctl.d",
	"/usr/local/lib/sysctl.d",
	"/usr/lib/sysctl.d",
	"/lib/sysctl.d",
}

// sysctlConf is the traditional file: read last by procps, not at all by
// systemd unless a link in sysctl.d leads to it.
const sysctlConf = "/etc/sysctl.conf"

// Assignment is one line of a file that a loader understood.
type Assignment struct {
	File  string `json:"file"` // as the loader names it
	Line  int    `json:"line"` // as the loader counts, from 1
	Name  string `json:"name"` // the key as written, without the leading "-"
	Value string `json:"value"`
	// Path is what the loader made of the name: a path or pattern below /proc/sys.
	Path string `json:"path"`
	// Exclude marks a bare "-key": no value, only keeps the key out of globs.
	Exclude bool `json:"exclude,omitempty"`
	// IgnoreFailure marks "-key = value".
	IgnoreFailure bool `json:"ignore_failure,omitempty"`
	// Glob marks a Path that the loader expands.
	Glob bool `json:"glob,omitempty"`
	// Dead says why the line never takes effect whatever the kernel says:
	// its file is replaced, or another line took its place. Empty otherwise.
	Dead string `json:"dead,omitempty"`
}

// Where is "file:line".
func (a Assignment) Where() string { return fmt.Sprintf("%s:%d", a.File, a.Line) }

// Write is one value that the loader hands to the kernel.
type Write struct {
	Key   Key    `json:"key"`
	Value string `json:"value"`
	By    int    `json:"by"` // index into Outcome.Lines
}

// File is one file of a loader's list.
type File struct {
	Path string `json:"path"` // as the loader names it
	// ReplacedBy is the same-named file of a stronger directory, because of
	// which this one is not read.
	ReplacedBy string `json:"replaced_by,omitempty"`
	// Masks is set when the file holds nothing because it leads to the null
	// device or nowhere: it only keeps same-named files from being read.
	Masks bool `json:"masks,omitempty"`
	// Err says why it could not be read (by the loader or by the capture).
	Err string `json:"err,omitempty"`
}

// Problem is something wrong in a file.
type Problem struct {
	Kind ProblemKind `json:"kind"`
	File string      `json:"file"`
	Line int         `json:"line,omitempty"`
	Text string      `json:"text,omitempty"` // the offending text, shortened
}

// ProblemKind says what is wrong.
type ProblemKind string

// The kinds of a Problem.
const (
	ProblemSyntax     ProblemKind = "invalid-syntax"  // no "=": the line is skipped
	ProblemLongLine   ProblemKind = "line-too-long"   // systemd gives the rest of the file up
	ProblemUnsafePath ProblemKind = "unsafe-path"     // the name leaves /proc/sys
	ProblemNoKey      ProblemKind = "no-such-key"     // explicit name, not in this kernel now
	ProblemByteOrder  ProblemKind = "byte-order-mark" // the first line's key begins with a BOM
	ProblemUnreadable ProblemKind = "unreadable"      // the loader would block, or we could not read it all
)

// Outcome is what one loader does with a tree of files on a kernel that has a
// given set of keys.
type Outcome struct {
	Loader   Loader       `json:"loader"`
	Files    []File       `json:"files"`    // in reading order; replaced ones too
	Lines    []Assignment `json:"lines"`    // in reading order; those of replaced files too
	Writes   []Write      `json:"writes"`   // in writing order
	Problems []Problem    `json:"problems"` // in reading order
	Gaps     []Gap        `json:"gaps"`     // where the capture is too small to be sure

	more  int           // problems beyond maxProblems
	rest  Problem       // the first of them
	work  int           // glob alternatives left
	index *outcomeIndex // nil in an outcome that was not made by a simulation
}

// outcomeIndex finds the lines and writes of a key: a host with a thousand
// interfaces has tens of thousands of keys.
type outcomeIndex struct {
	writes   map[Key][]int // into Writes
	explicit map[Key][]int // into Lines: lines that name one key
	patterns []int         // into Lines
}

func (o *Outcome) makeIndex() {
	x := &outcomeIndex{writes: map[Key][]int{}, explicit: map[Key][]int{}}
	for i, w := range o.Writes {
		x.writes[w.Key] = append(x.writes[w.Key], i)
	}
	for i, a := range o.Lines {
		if a.Glob {
			x.patterns = append(x.patterns, i)
			continue
		}
		k := KeyFromPath(cleanPath(a.Path))
		x.explicit[k] = append(x.explicit[k], i)
	}
	o.index = x
}

// writesOf yields the indices of a key's writes, in writing order.
func (o *Outcome) writesOf(k Key) []int {
	if o.index != nil {
		return o.index.writes[k]
	}
	var out []int
	for i, w := range o.Writes {
		if w.Key == k {
			out = append(out, i)
		}
	}
	return out
}

// linesOf returns the indices of the lines that concern a key, in reading order.
func (o *Outcome) linesOf(k Key) []int {
	var out []int
	if o.index == nil {
		for i, a := range o.Lines {
			if a.concerns(k) {
				out = append(out, i)
			}
		}
		return out
	}
	out = append(out, o.index.explicit[k]...)
	for _, i := range o.index.patterns {
		if o.Lines[i].concerns(k) {
			out = append(out, i)
		}
	}
	slices.Sort(out)
	return out
}

// Simulate says what the loader does at boot (systemd-sysctl) or when it is run
// by hand (sysctl --system). keys are the settings that exist at that moment;
// names that are not among them are reported as ProblemNoKey and not written.
func Simulate(l Loader, t *Tree, keys *KeySet) *Outcome {
	o := &Outcome{Loader: l, work: maxGlobWork}
	if l == LoaderSystemd {
		simulateSystemd(o, t, keys)
	} else {
		simulateProcps(o, t, keys)
	}
	o.finish()
	return o
}

// maxProblems bounds the list: a file of something else has one for each line.
const maxProblems = 4096

// problem notes something wrong.
func (o *Outcome) problem(p Problem) {
	if len(o.Problems) < maxProblems {
		o.Problems = append(o.Problems, p)
		return
	}
	if o.more++; o.more == 1 {
		o.rest = p
	}
}

// finish makes the index, and a gap of work that was not done.
func (o *Outcome) finish() {
	if o.more > 0 {
		o.rest.Text = fmt.Sprintf("%s (and %d more problems)", o.rest.Text, o.more-1)
		o.Problems = append(o.Problems, o.rest)
	}
	o.makeIndex()
	if o.work < 0 {
		o.Gaps = append(o.Gaps, Gap{What: "simulate " + string(o.Loader), Why: "the patterns in the files expand to too much"})
	}
}

// Winner is the write that decides a key: the last one. ok is false where the
// loader does not touch the key. Whether the kernel takes the text is another
// question: InForce.
func (o *Outcome) Winner(k Key) (w Write, ok bool) {
	at := o.writesOf(k)
	if len(at) == 0 {
		return Write{}, false
	}
	return o.Writes[at[len(at)-1]], true
}

// Line is the assignment behind a write.
func (o *Outcome) Line(w Write) Assignment { return o.Lines[w.By] }

// InForce plays all writes to a key onto the value before and returns what it
// holds then, with the write that put it there (nil where none changed it). A
// text that the kernel refuses leaves the value as it was. known is false where
// the model cannot tell what the kernel makes of a text; value is then that text.
func (o *Outcome) InForce(k Key, before string) (value string, by *Write, known bool) {
	e, inCatalogue := Find(k)
	if !inCatalogue {
		e = shapedLike(k, before)
	}
	value, known = before, true
	for _, i := range o.writesOf(k) {
		w := &o.Writes[i]
		after, ok, sure := e.store(value, w.Value)
		if piece, split := procpsPiece(w.Value); !ok && split && o.Loader == LoaderProcps {
			after, ok, sure = e.store(after, piece)
		}
		if ok || after != value {
			value, by = after, w
		}
		known = sure && inCatalogue && (known || ok && e.Fields <= 1)
	}
	return value, by, known
}

// Loser is a line that names a key and does not decide it.
type Loser struct {
	Assignment
	Why string `json:"why"`
}

// Losers returns the lines that set the key without deciding it, with the
// reason for each, in reading order.
func (o *Outcome) Losers(k Key) []Loser {
	winner, won := o.Winner(k)
	var out []Loser
	for _, i := range o.linesOf(k) {
		a := o.Lines[i]
		if won && winner.By == i {
			continue
		}
		why := a.Dead
		switch {
		case why != "":
		case a.Exclude:
			why = "a bare -key sets nothing, it keeps the key out of patterns"
		case slices.ContainsFunc(o.writesOf(k), func(w int) bool { return o.Writes[w].By == i }):
			why = "overridden by " + o.Lines[winner.By].Where()
		case a.Glob:
			why = "the pattern leaves out keys that are named elsewhere"
		case !won:
			why = "the key does not exist"
		default:
			why = "overridden by " + o.Lines[winner.By].Where()
		}
		out = append(out, Loser{a, why})
	}
	return out
}

// concerns says whether the line names the key, by itself or by pattern.
func (a Assignment) concerns(k Key) bool {
	if !a.Glob {
		return KeyFromPath(cleanPath(a.Path)) == k
	}
	return !endsOtherwise(a.Path, k) && matchPath(cleanPath(a.Path), k.Path())
}

// endsOtherwise tells cheaply that a pattern does not match: its last component
// is plain and not the key's. Most patterns name one setting of all interfaces.
func endsOtherwise(pattern string, k Key) bool {
	last := pattern[strings.LastIndexByte(pattern, '/')+1:]
	if last == "" || last == "." || last == ".." || strings.ContainsAny(last, `*?[\`) || strings.IndexByte(pattern, '{') >= 0 {
		return false
	}
	name := string(k[strings.LastIndexByte(string(k), '.')+1:])
	return name != "" && strings.IndexByte(name, '/') < 0 && name != last
}

// Keys returns every key that the loader writes, sorted.
func (o *Outcome) Keys() []Key {
	var out []Key
	for _, w := range o.Writes {
		out = append(out, w.Key)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// addFile reads one file and notes what is wrong with it.
func (o *Outcome) addFile(t *Tree, f File) []byte {
	data, err := t.read(f.Path)
	switch {
	case err == nil:
		f.Masks = len(data) == 0 && f.ReplacedBy == ""
	case errors.Is(err, fs.ErrNotExist):
		f.Masks = f.ReplacedBy == ""
	case errors.Is(err, errTooBig), errors.Is(err, errNotCaptured):
		f.Err = err.Error()
		o.Gaps = append(o.Gaps, Gap{What: "read " + f.Path, Why: unwrapPath(err)})
	case errors.Is(err, errWouldBlock):
		f.Err = err.Error()
		o.problem(Problem{Kind: ProblemUnreadable, File: f.Path, Text: errWouldBlock.Error()})
		o.Gaps = append(o.Gaps, Gap{What: "simulate " + string(o.Loader) + " on " + f.Path, Why: errWouldBlock.Error()})
	default:
		f.Err = err.Error()
		if !isAbsent(err) && !errors.Is(err, syscall.EISDIR) {
			o.Gaps = append(o.Gaps, Gap{What: "read " + f.Path, Why: unwrapPath(err)})
		}
	}
	o.Files = append(o.Files, f)
	return data
}

func unwrapPath(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// shorten keeps a hostile line from filling a report.
func shorten(s string) string {
	const longest = 120
	if len(s) <= longest {
		return s
	}
	return s[:longest] + "…"
}
