package sysctl

import (
	"slices"
	"strings"
)

// systemdLineMax is LONG_LINE_MAX of src/basic/fileio.h.
const systemdLineMax = 1 << 20

// pathMax and nameMax are PATH_MAX and NAME_MAX of <linux/limits.h>.
const (
	pathMax = 4096
	nameMax = 255
)

// simulateSystemd is run() of src/sysctl/sysctl.c (systemd 252): list the files
// of all directories, parse them into one ordered map, write the map.
func simulateSystemd(o *Outcome, t *Tree, keys *KeySet) {
	m := &systemdOptions{o: o, at: map[string]int{}}
	for _, f := range systemdFiles(o, t) {
		data := o.addFile(t, f)
		first := len(o.Lines)
		lines := parseSystemd(o, f.Path, data)
		if f.ReplacedBy != "" {
			for i := range lines {
				lines[i].Dead = "its file is replaced by " + f.ReplacedBy
			}
			o.Lines = append(o.Lines, lines...)
			continue
		}
		o.Lines = append(o.Lines, lines...)
		for i := first; i < len(o.Lines); i++ {
			m.put(i)
		}
	}
	m.apply(keys)
}

// systemdFiles is conf_files_list_strv: directories with their links resolved
// and without repetition; of equal basenames the one in the strongest directory
// counts; order by basename; hidden files are skipped. Nothing is stat'ed, so
// that a dangling link, too, keeps weaker files of its name from being read.
func systemdFiles(o *Outcome, t *Tree) []File {
	var files, replaced []File
	by := map[string]string{}
	var seen []string
	for _, dir := range sysctlDirs {
		resolved, names, err := t.list(dir)
		if err != nil && len(names) == 0 {
			noteDir(o, dir, err)
			continue
		}
		if slices.Contains(seen, resolved) {
			continue
		}
		seen = append(seen, resolved)
		if err != nil {
			noteDir(o, dir, err)
		}
		for _, name := range names {
			if !strings.HasSuffix(name, ".conf") || strings.HasPrefix(name, ".") {
				continue
			}
			p := strings.TrimSuffix(resolved, "/") + "/" + name
			if winner, ok := by[name]; ok {
				replaced = append(replaced, File{Path: p, ReplacedBy: winner})
				continue
			}
			by[name] = p
			files = append(files, File{Path: p})
		}
	}
	return inReadingOrder(files, replaced)
}

// inReadingOrder sorts by basename and puts replaced files before the ones that
// replace them.
func inReadingOrder(files, replaced []File) []File {
	all := append(replaced, files...)
	slices.SortStableFunc(all, func(a, b File) int { return strings.Compare(baseName(a.Path), baseName(b.Path)) })
	return all
}

// parseSystemd is parse_file of src/sysctl/sysctl.c.
func parseSystemd(o *Outcome, file string, data []byte) []Assignment {
	var out []Assignment
	noteByteOrderMark(o, file, data)
	for n := 1; len(data) > 0; n++ {
		line, rest, tooLong := systemdLine(data)
		if tooLong {
			o.problem(Problem{Kind: ProblemLongLine, File: file, Line: n})
			break
		}
		data = rest
		p := systemdStrip(line)
		if p == "" || p[0] == '#' || p[0] == ';' {
			continue
		}
		a := Assignment{File: file, Line: n}
		name, value, assigned := strings.Cut(p, "=")
		switch {
		case assigned:
			if strings.HasPrefix(name, "-") {
				a.IgnoreFailure = true
				name = name[1:]
			}
			a.Value = systemdStrip(value)
		case p[0] == '-':
			a.Exclude = true
			name = p[1:]
		default:
			o.problem(Problem{Kind: ProblemSyntax, File: file, Line: n, Text: shorten(p)})
			continue
		}
		a.Name = systemdStrip(name)
		a.Path = systemdNormalize(a.Name)
		a.Glob = strings.ContainsAny(a.Path, "*?[")
		out = append(out, a)
	}
	return out
}

// systemdLine is read_line_full of src/basic/fileio.c: newline, carriage
// return, NUL and their combinations end a line.
func systemdLine(data []byte) (line string, rest []byte, tooLong bool) {
	const zero, ten, thirteen = 1, 2, 4
	previous := 0
	end := 0
	for i, c := range data {
		if end >= systemdLineMax && previous == 0 {
			return "", nil, true
		}
		eol := 0
		switch c {
		case '\n':
			eol = ten
		case '\r':
			eol = thirteen
		case 0:
			eol = zero
		}
		if previous&zero != 0 || eol == 0 && previous != 0 || previous&eol != 0 {
			return string(data[:end]), data[i:], false
		}
		if eol != 0 {
			previous |= eol
			continue
		}
		end = i + 1
	}
	if end >= systemdLineMax {
		return "", nil, true
	}
	return string(data[:end]), nil, false
}

// systemdStrip is strstrip: WHITESPACE of src/basic/string-util.h.
func systemdStrip(s string) string { return strings.Trim(s, " \t\n\r") }

// systemdNormalize is sysctl_normalize of src/basic/sysctl-util.c.
func systemdNormalize(s string) string {
	s = systemdSimplify(normalizeSeparators(s))
	if len(s) > 1 && s[0] == '/' {
		s = s[1:]
	}
	return s
}

// systemdSimplify is path_simplify of src/basic/path-util.c: repeated slashes,
// "." components and a trailing slash go; ".." stays. A component that is too
// long ends the work.
func systemdSimplify(s string) string {
	if s == "" {
		return s
	}
	var b strings.Builder
	if s[0] == '/' {
		b.WriteByte('/')
	}
	wrote := false
	for rest := s; ; {
		rest = skipSlashOrDot(rest)
		if rest == "" || rest == "." {
			break
		}
		if wrote {
			b.WriteByte('/')
		}
		n := strings.IndexByte(rest, '/')
		if n < 0 {
			n = len(rest)
		}
		if n > nameMax {
			b.WriteString(rest)
			return b.String()
		}
		b.WriteString(rest[:n])
		wrote = true
		rest = rest[n:]
	}
	if b.Len() == 0 {
		return "."
	}
	return b.String()
}

// skipSlashOrDot drops leading slashes and "./".
func skipSlashOrDot(s string) string {
	for {
		switch {
		case strings.HasPrefix(s, "/"):
			s = s[1:]
		case strings.HasPrefix(s, "./"):
			s = s[2:]
		default:
			return s
		}
	}
}

// systemdOptions is the ordered map of options: a changed value moves the key
// to the end, an equal one leaves it where it is.
type systemdOptions struct {
	o     *Outcome
	at    map[string]int // path → index into o.Lines
	order []int          // indices into o.Lines, -1 where removed
}

func (m *systemdOptions) put(i int) {
	a := &m.o.Lines[i]
	if old, ok := m.at[a.Path]; ok {
		was := &m.o.Lines[old]
		if was.Exclude == a.Exclude && was.Value == a.Value {
			was.IgnoreFailure = was.IgnoreFailure || a.IgnoreFailure
			a.Dead = "repeats " + was.Where()
			return
		}
		was.Dead = "overridden by " + a.Where()
		if a.Exclude {
			was.Dead = "taken back by the bare -key at " + a.Where()
		}
		m.order[slices.Index(m.order, old)] = -1
	}
	m.at[a.Path] = i
	m.order = append(m.order, i)
}

// apply is apply_all: explicit keys are written as they stand; a pattern is
// expanded over /proc/sys, and what stands in the map by itself is left out.
func (m *systemdOptions) apply(keys *KeySet) {
	for _, i := range m.order {
		if i < 0 || m.o.Lines[i].Exclude {
			continue
		}
		a := m.o.Lines[i]
		if !a.Glob {
			m.write(keys, i, a.Path)
			continue
		}
		for _, p := range glob(procSys+strings.TrimPrefix(a.Path, "/"), globFlags{noCheck: true, brace: true}, keys, &m.o.work) {
			rel := skipSlashOrDot(strings.TrimPrefix(p, "/proc/sys"))
			if _, explicit := m.at[rel]; explicit {
				continue
			}
			m.write(keys, i, rel)
		}
	}
}

// write is sysctl_write: a path that is not normalized after simplification is
// refused.
func (m *systemdOptions) write(keys *KeySet, i int, property string) {
	a := m.o.Lines[i]
	p := systemdSimplify(procSys + property)
	if len(p) >= pathMax || slices.Contains(strings.Split(p, "/"), "..") {
		m.o.problem(Problem{Kind: ProblemUnsafePath, File: a.File, Line: a.Line, Text: shorten(a.Name)})
		return
	}
	rel, dir, ok := keys.lookup(p)
	if !ok || dir {
		m.o.problem(Problem{Kind: ProblemNoKey, File: a.File, Line: a.Line, Text: shorten(a.Name)})
		return
	}
	m.o.Writes = append(m.o.Writes, Write{Key: KeyFromPath(rel), Value: a.Value, By: i})
}

// noteDir reports a directory that could not be listed; one that is not there
// is nothing to report.
func noteDir(o *Outcome, dir string, err error) {
	if isAbsent(err) {
		return
	}
	o.Gaps = append(o.Gaps, Gap{What: "read " + dir, Why: unwrapPath(err)})
}

// noteByteOrderMark reports a file that begins with a UTF-8 byte order mark: it
// becomes part of the first line's key.
func noteByteOrderMark(o *Outcome, file string, data []byte) {
	if strings.HasPrefix(string(data[:min(3, len(data))]), "\ufeff") {
		o.problem(Problem{Kind: ProblemByteOrder, File: file, Line: 1})
	}
}
