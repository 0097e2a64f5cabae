package webserver

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// directive is one of nginx's, with the block behind it.
type directive struct {
	Place
	name  string
	args  []string
	block []*directive
	open  bool   // it has a block
	said  string // instead of name and arguments
}

func (d *directive) text() string {
	if d.said != "" {
		return d.said
	}
	return strings.Join(append([]string{d.name}, d.args...), " ")
}

func (d *directive) note() Note { return Note{d.Place, d.text()} }

// arg is an argument, "" for none.
func (d *directive) arg(i int) string {
	if d == nil || i >= len(d.args) {
		return ""
	}
	return d.args[i]
}

// token is a word of nginx's configuration, or one of ; { }.
type token struct {
	text string
	line int
	mark byte // ; { } or 0 for a word
}

var errUnfinished = errors.New("ends in the middle")

// nginxTokens takes a file apart as ngx_conf_read_token (src/core/ngx_conf_file.c)
// does.
func nginxTokens(b []byte) ([]token, error) {
	var out []token
	line := 1
	for i := 0; i < len(b); {
		switch c := b[i]; c {
		case '\n':
			line++
			i++
		case ' ', '\t', '\r':
			i++
		case '#':
			for i < len(b) && b[i] != '\n' {
				i++
			}
		case ';', '{', '}':
			out = append(out, token{line: line, mark: c})
			i++
			if c == '{' && luaBlock(out) {
				n, lines, err := skipBlock(b[i:])
				if err != nil {
					return nil, fmt.Errorf("line %d: %w", line, err)
				}
				i += n
				line += lines
			}
		case 0:
			return nil, fmt.Errorf("line %d: a byte 0: no text", line)
		default:
			text, n, lines, err := nginxWord(b[i:])
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", line, err)
			}
			out = append(out, token{text: text, line: line})
			i += n
			line += lines
		}
	}
	return out, nil
}

// nginxWord reads one word, quoted or not, and gives its length and lines.
func nginxWord(b []byte) (text string, n, lines int, err error) {
	var s strings.Builder
	quote := byte(0)
	i := 0
	if b[0] == '"' || b[0] == '\'' {
		quote = b[0]
		i++
	}
	for ; i < len(b); i++ {
		c := b[i]
		switch {
		case c == 0:
			return "", 0, 0, errors.New("a byte 0: no text")
		case c == '\\' && i+1 < len(b):
			i++
			if b[i] == '\n' {
				lines++
			}
			switch b[i] {
			case '"', '\'', '\\':
			case 't':
				s.WriteByte('\t')
				continue
			case 'r':
				s.WriteByte('\r')
				continue
			case 'n':
				s.WriteByte('\n')
				continue
			default:
				s.WriteByte('\\')
			}
			s.WriteByte(b[i])
			continue
		case quote != 0 && c == quote:
			return s.String(), i + 1, lines, nil
		case quote != 0:
		case c == '$' && i+1 < len(b) && b[i+1] == '{': // the braces of a variable's name
			s.WriteString("${")
			i++
			continue
		case c == ' ', c == '\t', c == '\r', c == '\n', c == ';', c == '{':
			return s.String(), i, lines, nil
		}
		if c == '\n' {
			lines++
		}
		s.WriteByte(c)
	}
	if quote != 0 {
		return "", 0, 0, errUnfinished
	}
	return s.String(), i, lines, nil
}

// luaBlock tells that the block that was just opened holds a program.
func luaBlock(out []token) bool {
	for i := len(out) - 2; i >= 0 && out[i].mark == 0; i-- {
		if strings.HasSuffix(out[i].text, "_by_lua_block") || out[i].text == "set_by_lua_block" {
			return true
		}
	}
	return false
}

// skipBlock passes over a program up to the brace that ends it, which is left.
func skipBlock(b []byte) (n, lines int, err error) {
	depth := 1
	for i := 0; i < len(b); i++ {
		switch c := b[i]; c {
		case '\n':
			lines++
		case '"', '\'': // a string of Lua ends on its line
			for i++; i < len(b) && b[i] != c && b[i] != '\n'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if i < len(b) && b[i] == '\n' {
				lines++
			}
		case '-':
			if i+1 < len(b) && b[i+1] == '-' {
				for i+1 < len(b) && b[i+1] != '\n' {
					i++
				}
			}
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i, lines, nil
			}
		}
	}
	return 0, 0, errUnfinished
}

// nginxReader reads files of nginx, with what they include.
type nginxReader struct {
	*tree
	c    *Config
	base string // what relative names begin at: the directory of the main file
}

func (r *nginxReader) file(name string) ([]*directive, error) {
	b, err := r.begin(name)
	if err != nil {
		return nil, err
	}
	defer r.end()
	tokens, err := nginxTokens(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	out, rest, err := r.block(name, tokens, 0)
	if err == nil && len(rest) > 0 {
		err = within(Place{name, rest[0].line}, errors.New("a } too many"))
	}
	return out, err
}

// block reads directives up to a } or the end, and gives the tokens that follow.
func (r *nginxReader) block(name string, tokens []token, depth int) (out []*directive, rest []token, err error) {
	if depth > maxDepth {
		return nil, nil, fmt.Errorf("%s: %w: blocks %d deep", name, errTooMuch, maxDepth)
	}
	var d *directive
	for len(tokens) > 0 {
		t := tokens[0]
		switch {
		case t.mark == 0 && d == nil:
			if err := r.item(); err != nil {
				return nil, nil, within(Place{name, t.line}, err)
			}
			d = &directive{Place: Place{name, t.line}, name: t.text}
		case t.mark == 0:
			d.args = append(d.args, t.text)
		case t.mark == '}' && d == nil:
			return out, tokens, nil
		case d == nil, t.mark == '}':
			return nil, nil, within(Place{name, t.line}, fmt.Errorf("a %c out of place", t.mark))
		case t.mark == '{':
			d.open = true
			d.block, tokens, err = r.block(name, tokens[1:], depth+1)
			if err != nil {
				return nil, nil, err
			}
			if len(tokens) == 0 {
				return nil, nil, within(d.Place, errUnfinished)
			}
			out = append(out, d)
			d = nil
		case d.name == "include" && len(d.args) == 1:
			got, err := r.include(d)
			if err != nil {
				r.c.gap(within(d.Place, err))
			}
			out = append(out, got...)
			d = nil
		default:
			out = append(out, d)
			d = nil
		}
		tokens = tokens[1:]
	}
	if d != nil {
		return nil, nil, within(d.Place, errUnfinished)
	}
	return out, nil, nil
}

func (r *nginxReader) include(d *directive) ([]*directive, error) {
	pattern := below(r.base, d.args[0])
	names, err := r.named(pattern)
	if err != nil {
		return nil, err
	}
	var out []*directive
	for _, name := range names {
		got, err := r.file(name)
		if err != nil {
			if !magic(pattern) && errors.Is(err, fs.ErrNotExist) {
				err = fmt.Errorf("%s is not there: nginx read another state of these files", name)
			}
			return out, err
		}
		out = append(out, got...)
	}
	return out, nil
}

// readNginx finds nginx's main file and reads it: -c names it (relative to the
// prefix, -p), else it is where the package has it.
func readNginx(t *tree, c *Config, v invocation) error {
	prefix := v.cwd
	if p := v.flag("-p"); len(p) > 0 {
		prefix = below(v.cwd, p[0])
	}
	if f := v.flag("-c"); len(f) > 0 {
		switch {
		case path.IsAbs(f[0]) || len(v.flag("-p")) > 0:
			c.Main = below(prefix, f[0])
		default:
			var err error
			if c.Main, err = t.firstOf(path.Join("/usr/share/nginx", f[0]), path.Join("/etc/nginx", f[0]), path.Join("/usr/local/nginx", f[0])); err != nil {
				return err
			}
		}
	} else {
		var err error
		usual := []string{"/etc/nginx/nginx.conf", "/usr/local/nginx/conf/nginx.conf", "/usr/local/openresty/nginx/conf/nginx.conf", "/www/server/nginx/conf/nginx.conf", "/opt/nginx/conf/nginx.conf"}
		if home, ok := strings.CutSuffix(v.program(), "/sbin/nginx"); ok { // one's own build
			usual = append([]string{home + "/conf/nginx.conf"}, usual...)
		}
		if len(v.flag("-p")) > 0 {
			usual = append([]string{path.Join(prefix, "conf/nginx.conf"), path.Join(prefix, "nginx.conf")}, usual...)
		}
		if c.Main, err = t.firstOf(usual...); err != nil {
			return err
		}
	}
	r := &nginxReader{tree: t, c: c, base: path.Dir(c.Main)}
	main, err := r.file(c.Main)
	if err != nil {
		return err
	}
	n := newNginx(t, main)
	c.ask = n.ask
	return nil
}
