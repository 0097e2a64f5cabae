package webserver

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// apacheReader reads files of Apache with what they include. Conditions on
// modules, definitions and files are decided on the way, as Apache does.
type apacheReader struct {
	*tree
	c       *Config
	root    string // ServerRoot
	defs    map[string]string
	env     map[string]string
	modules map[string]bool // by both of their names: ssl_module, mod_ssl.c
}

// builtIn are modules that Debian, Red Hat and the sources link in.
var builtIn = []string{"core.c", "core_module", "http_core.c", "http_module", "mod_so.c", "so_module", "mod_log_config.c", "log_config_module", "mod_version.c", "version_module", "mod_unixd.c", "unixd_module", "mod_watchdog.c", "mod_logio.c"}

type apacheLine struct {
	text string
	line int
}

// apacheLines joins lines that a backslash continues, and leaves out comments.
func apacheLines(b []byte) ([]apacheLine, error) {
	var out []apacheLine
	n, start := 0, 0
	var joined strings.Builder
	for line := range strings.Lines(string(b)) {
		n++
		if strings.IndexByte(line, 0) >= 0 {
			return nil, fmt.Errorf("line %d: a byte 0: no text", n)
		}
		if start == 0 {
			start = n
		}
		line = strings.TrimRight(line, "\r\n")
		if cont, ok := strings.CutSuffix(line, `\`); ok {
			joined.WriteString(cont)
			continue
		}
		joined.WriteString(line)
		if text := strings.TrimSpace(joined.String()); text != "" && text[0] != '#' {
			out = append(out, apacheLine{text, start})
		}
		joined.Reset()
		start = 0
	}
	return out, nil
}

// apacheWords are the words of a line (server/util.c, ap_getword_conf).
func apacheWords(s string) (out []string) {
	for s = strings.TrimLeft(s, " \t"); s != ""; s = strings.TrimLeft(s, " \t") {
		q := s[0]
		if q != '"' && q != '\'' {
			i := strings.IndexAny(s, " \t")
			if i < 0 {
				i = len(s)
			}
			out, s = append(out, s[:i]), s[i:]
			continue
		}
		var w strings.Builder
		i := 1
		for ; i < len(s) && s[i] != q; i++ {
			if s[i] == '\\' && i+1 < len(s) && (s[i+1] == '\\' || s[i+1] == q) {
				i++
			}
			w.WriteByte(s[i])
		}
		out, s = append(out, w.String()), s[min(i+1, len(s)):]
	}
	return out
}

var apacheVariable = regexp.MustCompile(`\$\{([A-Za-z0-9_.:-]+)\}`)

// fill puts in what variables hold, of definitions and of the environment.
func (r *apacheReader) fill(s string) (string, error) {
	var err error
	out := apacheVariable.ReplaceAllStringFunc(s, func(m string) string {
		name := m[2 : len(m)-1]
		v, ok := r.defs[name]
		if !ok {
			v, ok = r.env[name]
		}
		if !ok {
			return m
		}
		if err == nil {
			err = r.took(len(v))
		}
		if err != nil {
			return ""
		}
		return v
	})
	return out, err
}

func (r *apacheReader) file(name string) ([]*directive, error) {
	b, err := r.begin(name)
	if err != nil {
		return nil, err
	}
	defer r.end()
	lines, err := apacheLines(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	out, rest, err := r.block(name, lines, "", 0, true)
	if err == nil && len(rest) > 0 {
		err = within(Place{name, rest[0].line}, errors.New("ends a section that was not begun"))
	}
	return out, err
}

// block reads up to the end of a section, and gives the lines that follow. In a
// part that does not count (live is false) nothing is included or defined.
func (r *apacheReader) block(name string, lines []apacheLine, section string, depth int, live bool) (out []*directive, rest []apacheLine, err error) {
	if depth > maxDepth {
		return nil, nil, fmt.Errorf("%s: %w: sections %d deep", name, errTooMuch, maxDepth)
	}
	for len(lines) > 0 {
		l := lines[0]
		lines = lines[1:]
		at := Place{name, l.line}
		if err := r.item(); err != nil {
			return nil, nil, within(at, err)
		}
		if end, ok := strings.CutPrefix(l.text, "</"); ok {
			if !strings.EqualFold(strings.TrimSpace(strings.TrimSuffix(end, ">")), section) {
				return nil, nil, within(at, fmt.Errorf("ends %s, where %q is open", end, section))
			}
			return out, lines, nil
		}
		if begin, ok := strings.CutPrefix(l.text, "<"); ok {
			d, err := r.directive(at, strings.TrimSuffix(strings.TrimSpace(begin), ">"))
			if err != nil {
				return nil, nil, err
			}
			d.open, d.said = true, l.text
			counts, isIf := Yes, true
			if live {
				counts, isIf = r.counts(d)
			}
			d.block, lines, err = r.block(name, lines, d.name, depth+1, live && counts == Yes && d.name != "macro")
			if err != nil {
				return nil, nil, err
			}
			switch {
			case !live || counts == No || d.name == "macro":
			case counts == Unknown:
				r.c.gap(within(at, fmt.Errorf("%s: whether it counts is not known", l.text)))
			case isIf:
				out = append(out, d.block...)
			default:
				out = append(out, d)
			}
			continue
		}
		if !live {
			continue
		}
		d, err := r.directive(at, l.text)
		if err != nil {
			return nil, nil, err
		}
		got, err := r.act(d)
		if err != nil {
			r.c.gap(within(at, err))
		}
		out = append(out, got...)
	}
	if section != "" {
		return nil, nil, fmt.Errorf("%s: section %s: %w", name, section, errUnfinished)
	}
	return out, nil, nil
}

func (r *apacheReader) directive(at Place, text string) (*directive, error) {
	d := &directive{Place: at, said: text}
	text, err := r.fill(text)
	if err != nil {
		return nil, within(at, err)
	}
	if words := apacheWords(text); len(words) > 0 {
		d.name, d.args = strings.ToLower(words[0]), words[1:]
	}
	return d, nil
}

// counts decides the sections that are conditions; isIf is false for others.
func (r *apacheReader) counts(d *directive) (counts Tri, isIf bool) {
	arg, negated := strings.CutPrefix(strings.Join(d.args, " "), "!")
	arg = strings.TrimSpace(arg)
	holds := false
	switch d.name {
	case "ifmodule":
		holds = r.modules[arg]
	case "ifdefine":
		_, holds = r.defs[arg]
	case "iffile":
		name := below(r.root, arg)
		if _, holds = r.is(name); !holds && !r.absent(name) {
			return Unknown, true
		}
	case "ifversion": // 2.4 is what runs today, of an unknown minor version
		switch strings.Join(strings.Fields(arg), " ") {
		case ">= 2.4", "> 2.2", ">= 2.2", ">= 2.3", "> 2.3", ">= 2.4.0", "2.4", "= 2.4":
			holds = true
		case "< 2.4", "< 2.3", "<= 2.2", "< 2.2", "2.2", "= 2.2", "<= 2.3":
		default:
			return Unknown, true
		}
	case "ifdirective", "ifsection":
		return Unknown, true
	default:
		return Yes, false
	}
	return tri(holds != negated), true
}

// act does what has a meaning while reading, and keeps the rest.
func (r *apacheReader) act(d *directive) ([]*directive, error) {
	switch d.name {
	case "include", "includeoptional":
		return r.include(d)
	case "serverroot":
		r.root = below(r.root, d.arg(0))
	case "define":
		r.defs[d.arg(0)] = d.arg(1)
	case "undefine":
		delete(r.defs, d.arg(0))
	case "loadmodule":
		r.modules[d.arg(0)] = true
		r.modules[strings.TrimSuffix(path.Base(d.arg(1)), ".so")+".c"] = true
	case "use":
		return nil, errors.New("macros (mod_macro) are not read")
	}
	return []*directive{d}, nil
}

func (r *apacheReader) include(d *directive) ([]*directive, error) {
	pattern := below(r.root, d.arg(0))
	names, err := r.named(pattern)
	if err != nil {
		return nil, err
	}
	var out []*directive
	for _, name := range names {
		got, err := r.all(name, 0)
		if errors.Is(err, fs.ErrNotExist) && d.name == "includeoptional" {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s is not there: Apache read another state of these files", name)
		}
		out = append(out, got...)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// all reads a file, or every file of a directory.
func (r *apacheReader) all(name string, depth int) ([]*directive, error) {
	if dir, _ := r.is(name); !dir {
		return r.file(name)
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: %w: directories %d deep", name, errTooMuch, maxDepth)
	}
	names, err := r.list(name)
	var out []*directive
	for _, n := range names {
		got, err := r.all(path.Join(name, n), depth+1)
		out = append(out, got...)
		if err != nil {
			return out, err
		}
	}
	return out, err
}

// readApache finds Apache's main file and reads it: -f names it, relative to -d.
func readApache(t *tree, c *Config, v invocation) error {
	r := &apacheReader{tree: t, c: c, env: v.env, defs: map[string]string{}, modules: map[string]bool{}, root: "/etc/apache2"}
	for _, m := range builtIn {
		r.modules[m] = true
	}
	for _, d := range v.flag("-D") {
		k, x, _ := strings.Cut(d, "=")
		r.defs[k] = x
	}
	if len(v.flag("-c"))+len(v.flag("-C")) > 0 {
		c.gap(errors.New("directives on its command line (-c, -C) are not read"))
	}
	given := v.flag("-d")
	if len(given) > 0 {
		r.root = below(v.cwd, given[0])
	}
	var err error
	switch f := v.flag("-f"); {
	case len(f) > 0 && (path.IsAbs(f[0]) || len(given) > 0):
		c.Main = below(r.root, f[0])
	case len(f) > 0:
		c.Main, err = t.firstOf(path.Join("/etc/apache2", f[0]), path.Join("/etc/httpd", f[0]), path.Join("/usr/local/apache2", f[0]))
	case len(given) > 0:
		c.Main, err = t.firstOf(path.Join(r.root, "apache2.conf"), path.Join(r.root, "conf/httpd.conf"), path.Join(r.root, "httpd.conf"))
	default:
		own := "/etc/apache2/apache2.conf"
		if home, ok := strings.CutSuffix(v.program(), "/bin/httpd"); ok { // one's own build
			own = home + "/conf/httpd.conf"
		}
		c.Main, err = t.firstOf(own, "/etc/apache2/apache2.conf", "/etc/httpd/conf/httpd.conf", "/usr/local/apache2/conf/httpd.conf", "/etc/apache2/httpd.conf", "/www/server/apache/conf/httpd.conf")
	}
	if err != nil {
		return err
	}
	if len(given) == 0 {
		if r.root = path.Dir(c.Main); path.Base(r.root) == "conf" {
			r.root = path.Dir(r.root)
		}
	}
	main, err := r.file(c.Main)
	if err != nil {
		return err
	}
	a := newApache(t, main, r.modules)
	c.ask = a.ask
	return nil
}
