package webserver

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rewrite does the rules of the virtual host (mod_rewrite runs before mod_proxy
// and mod_alias); true when one decided.
func (r *apacheRequest) rewrite() bool {
	if e := lastOf(r.h.block, "rewriteengine"); !strings.EqualFold(e.arg(0), "on") {
		return false
	}
	var conds []*directive
	for _, d := range r.h.block {
		switch d.name {
		case "rewritecond":
			conds = append(conds, d)
		case "rewriteoptions", "rewritemap":
			if d.name == "rewriteoptions" && strings.Contains(strings.ToLower(d.text()), "inherit") {
				r.unsure(d)
			}
		case "rewriterule":
			holds := r.conditions(conds)
			conds = nil
			flags := rewriteFlags(d.arg(2))
			pattern, negated := strings.CutPrefix(d.arg(0), "!")
			hit, known := r.re.match(pattern, r.path, flags["nc"] != "" || flags["nocase"] != "")
			switch {
			case known && hit == negated, holds == No:
				continue
			case !known || holds == Unknown:
				if d.arg(1) != "-" || flags["f"] != "" || flags["forbidden"] != "" || flags["g"] != "" {
					r.unsure(d)
				}
				continue
			}
			if done, end := r.rule(d, pattern, flags); done || end {
				return done
			}
		}
	}
	return false
}

// rewriteFlags reads [P,L,R=301]: flags without a value are "on".
func rewriteFlags(s string) map[string]string {
	out := map[string]string{}
	for f := range strings.SplitSeq(strings.Trim(s, "[]"), ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(f), "=")
		out[strings.ToLower(k)] = cmpOr(v, "on")
	}
	return out
}

// rule applies a rule that matches: done when it decides, end when no rule
// follows.
func (r *apacheRequest) rule(d *directive, pattern string, flags map[string]string) (done, end bool) {
	a := r.ans
	on := func(names ...string) string {
		for _, n := range names {
			if flags[n] != "" {
				return flags[n]
			}
		}
		return ""
	}
	end = on("l", "last", "end") != ""
	to := r.expand(d.arg(1), pattern)
	external := strings.Contains(to, "://")
	switch {
	case on("f", "forbidden") != "", on("g", "gone") != "":
		a.Does, a.Status, a.Action = Returns, 403, d.note()
		if on("g", "gone") != "" {
			a.Status = 410
		}
		return true, true
	case on("p", "proxy") != "":
		a.Route = d.note()
		if r.denied() {
			return true, true
		}
		r.forward(&apachePass{d, to}, to, nil)
		return true, true
	case on("r", "redirect") != "", external && d.arg(1) != "-":
		a.Does, a.Action, a.To = Returns, d.note(), to
		a.Status = redirectStatus(strings.TrimSuffix(on("r", "redirect"), "on"))
		return true, true
	case d.arg(1) == "-":
		return false, end
	}
	if strings.ContainsAny(to, "$%") {
		r.unsure(d)
		return false, end
	}
	r.path = cleanPath(to)
	return false, end
}

var rewriteReference = regexp.MustCompile(`\$[0-9]|%\{[^}]*\}`)

// expand fills in the groups of a rule's pattern and the variables that are known.
func (r *apacheRequest) expand(s, pattern string) string {
	re := r.re.compile(pattern, r.path, false)
	var groups []string
	if re != nil {
		groups = re.FindStringSubmatch(r.path)
	}
	size := len(s)
	return rewriteReference.ReplaceAllStringFunc(s, func(m string) string {
		v, ok := "", false
		if m[0] == '$' {
			if n, _ := strconv.Atoi(m[1:]); n < len(groups) {
				v, ok = groups[n], true
			}
		} else {
			v, ok = r.variable(m[2 : len(m)-1])
		}
		if size += len(v); !ok || size > maxValue {
			return m // a $ or % that is left makes the rule unsure
		}
		return v
	})
}

// variable is the value of a server variable in this request.
func (r *apacheRequest) variable(name string) (string, bool) {
	name = strings.ToLower(name)
	onOff := func(b bool) string {
		if b {
			return "on"
		}
		return "off"
	}
	switch name {
	case "https":
		return onOff(r.q.TLS), true
	case "request_scheme":
		return map[bool]string{true: "https", false: "http"}[r.q.TLS], true
	case "http_host", "http:host":
		return r.q.Host, r.q.Host != ""
	case "server_name":
		return r.q.Host, r.q.Host != "" // UseCanonicalName is Off unless it is set
	case "server_port":
		return strconv.Itoa(int(r.q.Port)), true
	case "request_uri":
		return r.path, true
	case "request_method":
		return "GET", true
	case "remote_addr":
		return r.q.From.String(), r.q.From.IsValid()
	case "http:upgrade":
		if r.q.WebSocket {
			return "websocket", true
		}
		return "", true
	case "http:connection":
		if r.q.WebSocket {
			return "Upgrade", true
		}
	}
	return "", false
}

// conditions holds a rule's conditions together: all of them, those with [OR] one
// of a row.
func (r *apacheRequest) conditions(conds []*directive) Tri {
	all, row := Yes, No
	for _, d := range conds {
		row = either(row, r.condition(d))
		flags := rewriteFlags(d.arg(2))
		if flags["or"] != "" || flags["ornext"] != "" {
			continue
		}
		switch {
		case row == No:
			return No
		case row == Unknown:
			all = Unknown
		}
		row = No
	}
	return all
}

// either is one or the other.
func either(a, b Tri) Tri {
	switch {
	case a == Yes || b == Yes:
		return Yes
	case a == No && b == No:
		return No
	}
	return Unknown
}

// condition decides one RewriteCond.
func (r *apacheRequest) condition(d *directive) Tri {
	known := true
	value := rewriteReference.ReplaceAllStringFunc(d.arg(0), func(m string) string {
		if m[0] != '%' {
			known = false
			return m
		}
		v, ok := r.variable(m[2 : len(m)-1])
		known = known && ok
		return v
	})
	pattern, negated := strings.CutPrefix(d.arg(1), "!")
	if !known || pattern == "" || slices.Contains([]string{"-d", "-f", "-s", "-l", "-F", "-U", "expr"}, pattern) || strings.HasPrefix(d.arg(0), "expr") || pattern[0] == '<' || pattern[0] == '>' || pattern[0] == '-' {
		return Unknown
	}
	flags := rewriteFlags(d.arg(2))
	fold := flags["nc"] != "" || flags["nocase"] != ""
	if text, ok := strings.CutPrefix(pattern, "="); ok {
		hit := value == strings.Trim(text, `"`)
		if fold {
			hit = strings.EqualFold(value, text)
		}
		return tri(hit != negated)
	}
	hit, ok := r.re.match(pattern, value, fold)
	if !ok {
		return Unknown
	}
	return tri(hit != negated)
}
