package sysctl

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"
)

// simulateProcps is `sysctl --system` of procps-ng 4.0.2 (src/sysctl.c,
// PreloadSystem and write_setting_list).
func simulateProcps(o *Outcome, t *Tree, keys *KeySet) {
	for _, f := range procpsFiles(o, t) {
		procpsPreload(o, t, f)
	}
	// /etc/sysctl.conf comes last, when stat says it is a regular file.
	if _, n, err := t.resolve(sysctlConf, true); err == nil && n.Kind == NodeFile {
		procpsPreload(o, t, File{Path: sysctlConf})
	} else if err != nil && !isAbsent(err) {
		o.Gaps = append(o.Gaps, Gap{What: "read " + sysctlConf, Why: unwrapPath(err)})
	}
	procpsApply(o, keys)
}

// SimulateFiles is `sysctl -p FILE…` of procps-ng: the given files in order
// (patterns allowed), nothing else. The files must be in the tree: name them
// to CaptureFiles. Without a file it is `sysctl -p`, which reads
// /etc/sysctl.conf.
func SimulateFiles(t *Tree, keys *KeySet, files ...string) *Outcome {
	o := &Outcome{Loader: LoaderProcps, work: maxGlobWork}
	if len(files) == 0 {
		files = []string{sysctlConf}
	}
	for _, f := range files {
		procpsPreload(o, t, File{Path: f})
	}
	procpsApply(o, keys)
	o.finish()
	return o
}

// procpsFiles collects the *.conf names of all directories, hidden ones too;
// the first directory that has a name keeps it; order by name.
func procpsFiles(o *Outcome, t *Tree) []File {
	var files, replaced []File
	by := map[string]string{}
	var seen []string
	for _, dir := range sysctlDirs {
		resolved, names, err := t.list(dir)
		if err != nil {
			noteDir(o, dir, err)
			if len(names) == 0 {
				continue
			}
		}
		again := slices.Contains(seen, resolved)
		seen = append(seen, resolved)
		for _, name := range names {
			if !strings.HasSuffix(name, ".conf") {
				continue
			}
			p := dir + "/" + name
			if winner, ok := by[name]; ok {
				if !again { // /lib/sysctl.d through a link is the same file once more
					replaced = append(replaced, File{Path: p, ReplacedBy: winner})
				}
				continue
			}
			by[name] = p
			files = append(files, File{Path: p})
		}
	}
	return inReadingOrder(files, replaced)
}

// procpsPreload is Preload: the name goes through glob(3), braces included; a
// file that cannot be opened ends the list; lines are counted on across files.
func procpsPreload(o *Outcome, t *Tree, f File) {
	paths := []string{f.Path}
	if strings.ContainsAny(f.Path, `*?[{\`) {
		paths = glob(f.Path, globFlags{noCheck: true, brace: true}, treeGlobber{t}, &o.work)
	}
	line := 0
	for _, p := range paths {
		data := o.addFile(t, File{Path: p, ReplacedBy: f.ReplacedBy})
		lines, n := parseProcps(o, p, data, line)
		line = n
		for i := range lines {
			if f.ReplacedBy != "" {
				lines[i].Dead = "its file is replaced by " + f.ReplacedBy
			}
		}
		o.Lines = append(o.Lines, lines...)
		if _, _, err := t.resolve(p, true); err != nil && !errors.Is(err, errNotCaptured) {
			return
		}
	}
}

// parseProcps is the loop of Preload with parse_setting_line. It returns the
// number of the last line.
func parseProcps(o *Outcome, file string, data []byte, line int) ([]Assignment, int) {
	var out []Assignment
	noteByteOrderMark(o, file, data)
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n') + 1
		if end == 0 {
			end = len(data)
		}
		raw := data[:end]
		data = data[end:]
		line++
		if len(raw) < 2 {
			continue
		}
		// C strings: what follows a NUL byte is not seen.
		text, _, _ := strings.Cut(string(raw), "\x00")
		key := strings.TrimLeft(text, cSpace)
		if len(key) < 2 || key[0] == '#' || key[0] == ';' {
			continue
		}
		a := Assignment{File: file, Line: line}
		name, value, assigned := strings.Cut(key, "=")
		switch {
		case assigned:
			if strings.HasPrefix(name, "-") {
				a.IgnoreFailure = true
				name = name[1:]
			}
			a.Value = cTrimRight(strings.TrimLeft(value, cSpace))
		case key[0] == '-':
			a.Exclude = true
			name = key[1:]
		default:
			o.problem(Problem{Kind: ProblemSyntax, File: file, Line: line, Text: shorten(strings.TrimSpace(key))})
			continue
		}
		a.Name = cTrimRight(name)
		a.Path = normalizeSeparators(strings.TrimPrefix(a.Name, "-"))
		// The whole path is looked at, /proc/sys included, which has no pattern.
		a.Glob = strings.ContainsAny(a.Path, "*?[")
		out = append(out, a)
	}
	return out, line
}

// cSpace is isspace in the C locale.
const cSpace = " \t\n\v\f\r"

// cTrimRight is rstrip of src/sysctl.c, which never removes the first byte.
func cTrimRight(s string) string {
	end := len(s)
	for end > 1 && strings.IndexByte(cSpace, s[end-1]) >= 0 {
		end--
	}
	return s[:end]
}

// procpsApply is write_setting_list: every line in order; a pattern leaves out
// paths that stand in the list by themselves, assigned or excluded.
func procpsApply(o *Outcome, keys *KeySet) {
	explicit := map[string]bool{}
	for _, a := range o.Lines {
		if a.Dead == "" {
			explicit[procSys+a.Path] = true
		}
	}
	for i, a := range o.Lines {
		if a.Dead != "" || a.Exclude {
			continue
		}
		if !a.Glob {
			procpsWrite(o, keys, i, procSys+a.Path)
			continue
		}
		for _, p := range glob(procSys+a.Path, globFlags{}, keys, &o.work) {
			if !explicit[p] {
				procpsWrite(o, keys, i, p)
			}
		}
	}
}

// procpsWrite is WriteSetting: the path's realpath must lie below /proc/sys.
func procpsWrite(o *Outcome, keys *KeySet, i int, p string) {
	a := o.Lines[i]
	rel, dir, ok := keys.lookup(p)
	switch {
	case len(p) >= pathMax:
		fallthrough
	case !ok && !dir && leavesProcSys(p):
		o.problem(Problem{Kind: ProblemUnsafePath, File: a.File, Line: a.Line, Text: shorten(a.Name)})
	case !ok || dir:
		o.problem(Problem{Kind: ProblemNoKey, File: a.File, Line: a.Line, Text: shorten(a.Name)})
	default:
		o.Writes = append(o.Writes, Write{Key: KeyFromPath(rel), Value: a.Value, By: i})
	}
}

// procpsPiece is what sysctl(8) writes after the kernel refused a long value as a
// whole: the part before the last comma of the first 4096 bytes (proc_write of
// local/procio.c, which means lists of ports). What follows is written further
// on in the file, where the kernel takes no numbers (sysctl_writes_strict).
func procpsPiece(value string) (piece string, ok bool) {
	const lineLength = 4096
	if len(value)+1 <= lineLength { // a line end is written with it
		return "", false
	}
	comma := strings.LastIndexByte(value[:lineLength], ',')
	return value[:max(comma, 0)], comma >= 0
}

// leavesProcSys says whether a path climbs out of /proc/sys.
func leavesProcSys(p string) bool {
	depth := 0
	for _, c := range splitPath(p) {
		if c == ".." {
			depth--
		} else {
			depth++
		}
		if depth < 2 && c == ".." {
			return true
		}
	}
	return false
}

// cleanPath joins repeated separators and resolves ".." by the text alone.
func cleanPath(p string) string {
	var out []string
	for _, c := range splitPath(p) {
		if c == ".." {
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
			continue
		}
		out = append(out, c)
	}
	return strings.Join(out, "/")
}

// isAbsent says whether an error means that nothing is there.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}
