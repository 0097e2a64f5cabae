package webserver

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// haSection is a section of HAProxy's configuration.
type haSection struct {
	*directive
	lines    []*directive
	acls     map[string][]*directive // of lines, by their names
	defaults *haSection
}

// haSections are the words that begin a section (src/cfgparse.c and the
// cfg_register_section calls).
var haSections = []string{
	"global", "defaults", "frontend", "backend", "listen", "userlist", "peers", "resolvers", "mailers", "cache", "program", "ring", "log-forward", "log-profile",
	"http-errors", "fcgi-app", "crt-store", "traces", "acme", "namespace_list",
}

// words takes a line apart: quotes, backslashes, comments, and variables of the
// environment inside double quotes.
func (r *haReader) words(line string) ([]string, error) {
	var out []string
	var w strings.Builder
	quote := byte(0)
	begun := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == 0:
			return nil, errors.New("a byte 0: no text")
		case quote != 0 && c == quote:
			quote = 0
		case quote == '\'':
			w.WriteByte(c)
		case c == '\\' && i+1 < len(line) && (quote == 0 || strings.IndexByte(`\"$`, line[i+1]) >= 0):
			i++
			w.WriteByte(line[i])
			begun = true
		case quote == '"' && c == '$' && i+1 < len(line):
			name, n := haVariable(line[i+1:])
			if err := r.took(len(r.env[name])); err != nil {
				return nil, err
			}
			w.WriteString(r.env[name])
			i += n
		case quote == '"':
			w.WriteByte(c)
		case c == '"' || c == '\'':
			quote, begun = c, true
		case c == '#', c == ' ', c == '\t':
			if begun {
				out = append(out, w.String())
				w.Reset()
				begun = false
			}
			if c == '#' {
				return out, nil
			}
		default:
			w.WriteByte(c)
			begun = true
		}
	}
	if quote != 0 {
		return nil, errUnfinished
	}
	if begun {
		out = append(out, w.String())
	}
	return out, nil
}

// haVariable is the name behind a $, and its length with braces and a default.
func haVariable(s string) (name string, n int) {
	if strings.HasPrefix(s, "{") {
		end := strings.IndexByte(s, '}')
		if end < 0 {
			return "", 0
		}
		name, _, _ = strings.Cut(strings.TrimSuffix(s[1:end], "[*]"), "-")
		return name, end + 1
	}
	for n < len(s) && (s[n] == '_' || s[n] >= '0' && s[n] <= '9' || s[n]|0x20 >= 'a' && s[n]|0x20 <= 'z') {
		n++
	}
	return s[:n], n
}

// haReader reads HAProxy's files one after the other.
type haReader struct {
	*tree
	c        *Config
	env      map[string]string
	sections []*haSection
}

func (r *haReader) file(name string) error {
	b, err := r.read(name)
	if err != nil {
		return err
	}
	return r.text(name, string(b))
}

func (r *haReader) text(name, text string) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		at := Place{name, n}
		words, err := r.words(strings.TrimRight(line, "\r\n"))
		if err != nil {
			return within(at, err)
		}
		if len(words) == 0 {
			continue
		}
		if err := r.item(); err != nil {
			return within(at, err)
		}
		d := &directive{Place: at, name: words[0], args: words[1:], said: strings.TrimSpace(line)}
		switch {
		case strings.HasPrefix(d.name, ".") && d.name != ".notice" && d.name != ".diag" && d.name != ".warning":
			r.c.gap(within(at, fmt.Errorf("%s: conditional blocks are not read", d.said)))
		case slices.Contains(haSections, d.name):
			r.sections = append(r.sections, &haSection{directive: d, acls: map[string][]*directive{}, defaults: r.defaultsOf(d)})
		case len(r.sections) == 0:
			return within(at, errors.New("stands before any section"))
		default:
			s := r.sections[len(r.sections)-1]
			s.lines = append(s.lines, d)
			if d.name == "acl" && len(d.args) > 0 {
				s.acls[d.args[0]] = append(s.acls[d.args[0]], d)
			}
		}
	}
	return nil
}

// defaultsOf is the defaults section that counts for a section: named by from,
// else the last one before.
func (r *haReader) defaultsOf(d *directive) *haSection {
	from := ""
	if i := slices.Index(d.args, "from"); i >= 0 {
		from = d.arg(i + 1)
	}
	for _, s := range slices.Backward(r.sections) {
		if s.name == "defaults" && (from == "" && d.name != "defaults" || from != "" && s.arg(0) == from) {
			return s
		}
	}
	return nil
}

// readHAProxy reads the files of -f (directories: *.cfg in them), or the one of
// the package.
func readHAProxy(t *tree, c *Config, v invocation) error {
	cwd := v.cwd
	if dir := v.flag("-C"); len(dir) > 0 {
		cwd = below(cwd, dir[0])
	}
	names := v.flag("-f")
	if i := slices.Index(v.args, "--"); i >= 0 {
		names = append(names, v.args[i+1:]...)
	}
	if len(names) == 0 {
		usual, err := t.firstOf("/etc/haproxy/haproxy.cfg", "/usr/local/etc/haproxy/haproxy.cfg")
		if err != nil {
			return err
		}
		names = []string{usual}
	}
	r := &haReader{tree: t, c: c, env: v.env}
	c.Main = below(cwd, names[0])
	for _, name := range names {
		name = below(cwd, name)
		dir, there := t.is(name)
		if !there {
			return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		list := []string{name}
		if dir {
			in, err := t.list(name)
			if err != nil {
				return err
			}
			list = nil
			for _, n := range in {
				if strings.HasSuffix(n, ".cfg") && !strings.HasPrefix(n, ".") {
					list = append(list, path.Join(name, n))
				}
			}
		}
		for _, f := range list {
			if err := r.file(f); err != nil {
				return err
			}
		}
	}
	h := &haproxy{sections: r.sections, missing: map[string]bool{}}
	h.sockets(t)
	c.ask = h.ask
	return nil
}
