package sysctl

import (
	"slices"
	"strings"
)

// globber is the file system that glob is asked about.
type globber interface {
	names(dir string) []string // names in a directory, without "." and ".."
	exists(path string) bool   // as lstat
	isDir(path string) bool    // as stat
}

// globFlags are those flags of glob(3) that the loaders use.
type globFlags struct {
	noCheck bool // GLOB_NOCHECK: a pattern without a match stands for itself
	brace   bool // GLOB_BRACE
}

// Bounds of what hostile patterns can make us do: paths from one pattern, and
// alternatives of all patterns of one simulation together.
const (
	maxGlobResults = 65536
	maxGlobWork    = 1 << 18
)

// glob is glob(3) of the GNU C library in the C locale: braces first, then each
// directory level; "*", "?" and a leading "[" do not match a leading dot; the
// separators of the pattern are kept as they are, which matters because the
// loaders compare results with explicit paths as strings.
//
// budget is how many alternatives may still be tried; a negative one afterwards
// says that the result is cut.
func glob(pattern string, fl globFlags, fsys globber, budget *int) []string {
	if *budget < 0 {
		return nil
	}
	return globBudget(pattern, fl, fsys, budget)
}

// globBudget stops when a hostile pattern, {a,b}{a,b}{a,b}…, has used up its
// budget of alternatives.
func globBudget(pattern string, fl globFlags, fsys globber, budget *int) []string {
	if fl.brace {
		if alternatives, ok := expandBrace(pattern); ok {
			var out []string
			for _, a := range alternatives {
				if *budget < 0 {
					break
				}
				out = append(out, globBudget(a, globFlags{brace: true}, fsys, budget)...)
			}
			if len(out) > 0 {
				return out[:min(len(out), maxGlobResults)]
			}
			// Without any match glibc goes on with the pattern as it stands.
		}
	}
	if *budget--; *budget < 0 {
		return nil
	}
	out := globPath(pattern, fsys)
	if len(out) == 0 && fl.noCheck {
		return []string{pattern}
	}
	slices.Sort(out)
	return out
}

// globPath expands a pattern without braces.
func globPath(pattern string, fsys globber) []string {
	dir, name := "", pattern
	if i := strings.LastIndexByte(pattern, '/'); i >= 0 {
		dir, name = pattern[:i], pattern[i+1:]
		if dir == "" {
			dir = "/"
		}
	}
	switch pattern {
	case "":
		return nil
	case "/":
		return []string{"/"}
	}
	if name == "" {
		// "pattern/": what pattern matches, directories marked with a slash and
		// files as they are (glob calls itself with GLOB_MARK).
		out := globPath(strings.TrimRight(dir, "/"), fsys)
		for i, d := range out {
			if fsys.isDir(d) {
				out[i] = d + "/"
			}
		}
		return out
	}
	dirs := []string{unescape(dir)}
	if hasMeta(dir) {
		dirs = globPath(dir, fsys)
	}
	var out []string
	for _, d := range dirs {
		join := func(n string) string {
			switch d {
			case "":
				return n
			case "/":
				return "/" + n
			}
			return d + "/" + n
		}
		if !hasMeta(name) {
			if p := join(unescape(name)); fsys.exists(p) {
				out = append(out, p)
			}
			continue
		}
		if d != "" && !fsys.isDir(d) {
			continue
		}
		for _, n := range fsys.names(d) {
			if fnmatch(name, n) {
				out = append(out, join(n))
				if len(out) > maxGlobResults {
					return out
				}
			}
		}
	}
	return out
}

// hasMeta is glibc's __glob_pattern_p with quoting: an opening bracket counts
// only when a closing one follows.
func hasMeta(p string) bool {
	open := false
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*', '?':
			return true
		case '\\':
			if i+1 < len(p) {
				i++
			}
		case '[':
			open = true
		case ']':
			if open {
				return true
			}
		}
	}
	return false
}

func unescape(p string) string {
	if !strings.Contains(p, `\`) {
		return p
	}
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '\\' && i+1 < len(p) {
			i++
		}
		b.WriteByte(p[i])
	}
	return b.String()
}

// expandBrace expands the first brace expression of a pattern. "{}" alone and
// an unbalanced brace are literal, as in glibc.
func expandBrace(p string) ([]string, bool) {
	begin := -1
	for i := 0; i < len(p); i++ {
		if p[i] == '\\' {
			i++
			continue
		}
		if p[i] == '{' {
			begin = i
			break
		}
	}
	if begin < 0 || p == "{}" {
		return nil, false
	}
	var parts []string
	start, depth := begin+1, 0
	for i := begin + 1; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case '{':
			depth++
		case ',':
			if depth == 0 {
				parts = append(parts, p[start:i])
				start = i + 1
			}
		case '}':
			if depth > 0 {
				depth--
				continue
			}
			parts = append(parts, p[start:i])
			out := make([]string, len(parts))
			for j, part := range parts {
				out[j] = p[:begin] + part + p[i+1:]
			}
			return out, true
		}
	}
	return nil, false
}

// fnmatch is fnmatch(3) with FNM_PERIOD for one path component, in the C locale.
func fnmatch(pattern, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") && !strings.HasPrefix(pattern, `\.`) {
		return false
	}
	return matchHere(pattern, name)
}

// matchHere matches with one point of return per star, so that no pattern takes
// more than the product of the lengths.
func matchHere(p, s string) bool {
	starP, starS := -1, 0
	i, j := 0, 0
	for j < len(s) || i < len(p) {
		if i < len(p) {
			switch p[i] {
			case '*':
				starP, starS = i, j
				i++
				continue
			case '?':
				if j < len(s) {
					i++
					j++
					continue
				}
			case '[':
				if j < len(s) {
					if ok, n, valid := matchBracket(p[i:], s[j]); valid {
						if ok {
							i += n
							j++
							continue
						}
						break
					}
					if s[j] == '[' {
						i++
						j++
						continue
					}
				}
			case '\\':
				if i+1 < len(p) {
					if j < len(s) && p[i+1] == s[j] {
						i += 2
						j++
						continue
					}
					break
				}
				// A trailing backslash matches nothing in glibc.
			default:
				if j < len(s) && p[i] == s[j] {
					i++
					j++
					continue
				}
			}
		}
		if starP < 0 || starS >= len(s) {
			return false
		}
		starS++
		i, j = starP+1, starS
	}
	return true
}

// matchBracket matches one byte against the bracket expression at the start of
// p and returns its length; valid is false when p holds no complete expression.
func matchBracket(p string, c byte) (ok bool, length int, valid bool) {
	i := 1
	not := false
	if i < len(p) && (p[i] == '!' || p[i] == '^') {
		not = true
		i++
	}
	matched := false
	for first := true; ; first = false {
		if i >= len(p) {
			return false, 0, false
		}
		if p[i] == ']' && !first {
			return matched != not, i + 1, true
		}
		if strings.HasPrefix(p[i:], "[:") {
			if end := strings.Index(p[i+2:], ":]"); end >= 0 {
				member, known := inClass(p[i+2:i+2+end], c)
				if !known {
					return false, i, true // an unknown class fails the match
				}
				matched = matched || member
				i += end + 4
				continue
			}
		}
		lo, n := bracketByte(p[i:])
		if n == 0 {
			return false, 0, false
		}
		i += n
		hi := lo
		if i+1 < len(p) && p[i] == '-' && p[i+1] != ']' {
			var m int
			hi, m = bracketByte(p[i+1:])
			if m == 0 {
				return false, 0, false
			}
			i += 1 + m
		}
		if lo <= c && c <= hi {
			matched = true
		}
	}
}

// bracketByte reads one member of a bracket expression: a byte, an escaped
// byte, or [.x.] and [=x=].
func bracketByte(p string) (byte, int) {
	if p == "" {
		return 0, 0
	}
	if p[0] == '\\' && len(p) > 1 {
		return p[1], 2
	}
	if len(p) >= 5 && p[0] == '[' && (p[1] == '.' || p[1] == '=') && p[3] == p[1] && p[4] == ']' {
		return p[2], 5
	}
	return p[0], 1
}

func inClass(name string, c byte) (member, known bool) {
	lower := c >= 'a' && c <= 'z'
	upper := c >= 'A' && c <= 'Z'
	digit := c >= '0' && c <= '9'
	graph := c > 0x20 && c < 0x7f
	switch name {
	case "alpha":
		return lower || upper, true
	case "lower":
		return lower, true
	case "upper":
		return upper, true
	case "digit":
		return digit, true
	case "alnum":
		return lower || upper || digit, true
	case "xdigit":
		return digit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F', true
	case "space":
		return c == ' ' || c >= '\t' && c <= '\r', true
	case "blank":
		return c == ' ' || c == '\t', true
	case "print":
		return graph || c == ' ', true
	case "graph":
		return graph, true
	case "punct":
		return graph && !lower && !upper && !digit, true
	case "cntrl":
		return c < 0x20 || c == 0x7f, true
	}
	return false, false
}

// matchPath says whether a pattern of path components, braces allowed, could
// name a path. It answers as glob would, for one path and without a file system.
func matchPath(pattern, path string) bool {
	budget := 256
	return matchPathBudget(pattern, path, &budget)
}

func matchPathBudget(pattern, path string, budget *int) bool {
	if *budget--; *budget < 0 {
		return false
	}
	if alternatives, ok := expandBrace(pattern); ok {
		for _, a := range alternatives {
			if matchPathBudget(a, path, budget) {
				return true
			}
		}
	}
	p, s := splitPath(pattern), splitPath(path)
	if len(p) != len(s) {
		return false
	}
	for i := range p {
		if !fnmatch(p[i], s[i]) {
			return false
		}
	}
	return true
}
