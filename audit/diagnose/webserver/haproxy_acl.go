package webserver

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// splitCondition parts a rule from its condition, nil for none; one of
// "unless" begins with that word.
func splitCondition(args []string) (rule, cond []string) {
	for i, w := range args {
		switch w {
		case "if":
			return args[:i], args[i+1:]
		case "unless":
			return args[:i], append([]string{"unless"}, args[i+1:]...)
		}
	}
	return args, nil
}

// holds decides a condition: terms side by side must all hold, || parts
// alternatives.
func (r *haRequest) holds(s *haSection, cond []string) Tri {
	if cond == nil {
		return Yes
	}
	negated := false
	if len(cond) > 0 && cond[0] == "unless" {
		negated, cond = true, cond[1:]
	}
	any, all, terms := No, Yes, 0
	for i := 0; i < len(cond); i++ {
		w := cond[i]
		if w == "||" || strings.EqualFold(w, "or") {
			if terms == 0 {
				return Unknown
			}
			any, all, terms = either(any, all), Yes, 0
			continue
		}
		not := false
		for ; strings.HasPrefix(w, "!"); w = w[1:] {
			not = !not
		}
		if w == "" && i+1 < len(cond) {
			i++
			w = cond[i]
		}
		var t Tri
		if w == "{" {
			end := slices.Index(cond[i:], "}")
			if end < 0 {
				return Unknown
			}
			t = r.test(cond[i+1 : i+end])
			i += end
		} else {
			t = r.acl(s, w)
		}
		if not {
			t = opposite(t)
		}
		terms++
		if t == No || all != No && t == Unknown {
			all = t
		}
	}
	if terms == 0 {
		return Unknown
	}
	any = either(any, all)
	if negated {
		return opposite(any)
	}
	return any
}

func opposite(t Tri) Tri {
	switch t {
	case Yes:
		return No
	case No:
		return Yes
	}
	return Unknown
}

// acl decides a named condition: lines of one name are alternatives.
func (r *haRequest) acl(s *haSection, name string) Tri {
	switch name {
	case "TRUE":
		return Yes
	case "FALSE":
		return No
	case "HTTP":
		return tri(!r.passing)
	case "LOCALHOST":
		return r.test([]string{"src", "127.0.0.1/8"})
	case "METH_GET":
		return Yes
	case "METH_POST", "METH_CONNECT", "METH_HEAD", "METH_OPTIONS", "METH_TRACE":
		return No
	}
	t, found := No, false
	for _, d := range s.acls[name] {
		t, found = either(t, r.test(d.args[1:])), true
	}
	if !found {
		return Unknown
	}
	return t
}

// test decides a criterion with its flags and values.
func (r *haRequest) test(words []string) Tri {
	if len(words) == 0 {
		return Unknown
	}
	criterion, values := words[0], words[1:]
	how, fold := "str", false
	for len(values) > 0 && strings.HasPrefix(values[0], "-") {
		switch values[0] {
		case "-i":
			fold = true
			values = values[1:]
		case "-m":
			if len(values) < 2 {
				return Unknown
			}
			how, values = values[1], values[2:]
		case "--":
			values = values[1:]
		default:
			return Unknown
		}
	}
	name, conv, _ := strings.Cut(criterion, ",")
	if conv == "lower" {
		fold = true
	} else if conv != "" {
		return Unknown
	}
	if strings.HasPrefix(name, "req.") || strings.HasPrefix(name, "req_") {
		name = name[4:]
	}
	base, arg, _ := strings.Cut(strings.TrimSuffix(name, ")"), "(")
	for _, suffix := range []string{"beg", "end", "dir", "dom", "reg", "sub", "len"} {
		if b, ok := strings.CutSuffix(base, "_"+suffix); ok {
			base, how = b, suffix
		}
	}
	switch base {
	case "ssl_fc":
		return tri(r.q.TLS && r.a.TLS == Yes)
	case "always_true":
		return Yes
	case "always_false":
		return No
	case "src":
		return r.source(values)
	}
	value, ok := r.fetch(base, strings.ToLower(arg))
	if !ok {
		return Unknown
	}
	if how == "found" {
		return tri(value != "")
	}
	if how == "len" || len(values) == 0 {
		return Unknown
	}
	for _, v := range values {
		x, y := value, v
		if fold {
			x, y = strings.ToLower(value), strings.ToLower(v)
		}
		hit := false
		switch how {
		case "str":
			hit = x == y
		case "beg":
			hit = strings.HasPrefix(x, y)
		case "end":
			hit = strings.HasSuffix(x, y)
		case "sub":
			hit = strings.Contains(x, y)
		case "dir":
			hit = strings.Contains("/"+strings.Trim(x, "/")+"/", "/"+strings.Trim(y, "/")+"/")
		case "dom":
			host, _, _ := strings.Cut(x, ":")
			hit = host == y || strings.Contains("."+host+".", "."+strings.Trim(y, ".")+".")
		case "reg":
			var known bool
			if hit, known = r.re.match(v, value, fold); !known {
				return Unknown
			}
		default:
			return Unknown
		}
		if hit {
			return Yes
		}
	}
	return No
}

// source holds the client's address against networks.
func (r *haRequest) source(values []string) Tri {
	if !r.q.From.IsValid() {
		return Unknown
	}
	for _, v := range values {
		p, err := netip.ParsePrefix(v)
		if a, err2 := netip.ParseAddr(v); err2 == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return Unknown
		}
		if p.Masked().Contains(r.q.From) {
			return Yes
		}
	}
	return No
}

// fetch is what a criterion looks at, in a request as the client begins it.
func (r *haRequest) fetch(base, arg string) (string, bool) {
	switch base {
	case "path", "url", "capture.req.uri", "pathq":
		return r.path, r.pathKnown && !r.passing
	case "method":
		return "GET", !r.passing
	case "dst_port":
		return strconv.Itoa(int(r.q.Port)), true
	case "hdr", "fhdr":
		if r.passing {
			return "", false
		}
		switch arg {
		case "host":
			port := r.q.Dialled
			if port == 0 {
				port = r.q.Port
			}
			if port == 80 && !r.q.TLS || port == 443 && r.q.TLS {
				return r.q.Host, r.q.Host != ""
			}
			return r.q.Host + ":" + strconv.Itoa(int(port)), r.q.Host != ""
		case "upgrade":
			return map[bool]string{true: "websocket", false: ""}[r.q.WebSocket], true
		case "connection":
			return "Upgrade", r.q.WebSocket
		case "sec-websocket-version":
			return map[bool]string{true: "13", false: ""}[r.q.WebSocket], true
		}
	}
	return "", false
}
